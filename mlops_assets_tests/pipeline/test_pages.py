"""What an asset's page shows."""

from __future__ import annotations

import re

import dagster as dg
import pandas as pd
import pytest

from mlops_assets.stages.common.ui_metadata import as_before, preview
from mlops_assets_tests.platform import Platform

COUNTRY = "FRA"
SHOWN = {
    "validated": {"preview"},
    "features": {"preview", "labelled_rows", "dagster/column_schema"},
    "model": {"why_this_model", "evaluation", "mlflow_run", "config", "error_by_month"},
    "champion": {"verdict", "reason", "decision"},
    "predictions": {"why_this_model", "preview", "forecast_against_actual"},
}


def _page(platform: Platform, asset: str) -> dict[str, dg.MetadataValue]:
    key = dg.AssetKey([platform.product.name, asset])
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[COUNTRY])
    (record, *_) = platform.instance.fetch_materializations(wanted, limit=1).records
    assert record.asset_materialization is not None
    return dict(record.asset_materialization.metadata)


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_rerun_without_news_leaves_every_page_as_full_as_it_was(ran: Platform) -> None:
    before = {asset: _page(ran, asset) for asset in SHOWN}
    assert ran.run(COUNTRY).success

    for asset, keys in SHOWN.items():
        page = _page(ran, asset)
        assert page["mlops_assets/changed"].value is False, asset
        assert {key: page[key] for key in keys} == {key: before[asset][key] for key in keys}


def test_what_people_read_comes_before_what_the_platform_needs(ran: Platform) -> None:
    for asset in SHOWN:
        is_ours = [name.startswith("mlops_assets/") for name in _page(ran, asset)]
        assert not is_ours[0], asset


def test_plots_are_small_pictures_without_any_server(ran: Platform) -> None:
    page = _page(ran, "model")
    for key in ("error_by_month", "forecast_against_actual"):
        text = str(page[key].value)
        assert re.match(r"!\[[a-z ]+\]\(data:image/svg\+xml;base64,", text)
        assert len(text) < 50_000


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_numbers_of_a_model_carry_their_unit(ran: Platform) -> None:
    evaluation = _page(ran, "model")["evaluation"]
    assert isinstance(evaluation, dg.TableMetadataValue)
    facts = {record.data["what"]: str(record.data["value"]) for record in evaluation.records}

    value, ends = facts["mae (parcels)"].split(" ", 1)
    assert float(value) > 0
    assert re.fullmatch(r"\([\d.]+ to [\d.]+\)", ends)


def test_every_table_of_a_product_lists_its_columns(platform: Platform) -> None:
    graph = platform.defs.resolve_asset_graph()
    for asset in ("raw", "validated", "quarantine", "predictions"):
        metadata = graph.get(dg.AssetKey([platform.product.name, asset])).metadata
        schema = metadata["dagster/column_schema"]
        value = schema.value if isinstance(schema, dg.MetadataValue) else schema
        assert all(column.description for column in value.columns), asset


def test_a_wide_frame_is_previewed_with_a_row_a_column() -> None:
    frame = pd.DataFrame({f"c{n}": [float(n), float(n + 1)] for n in range(20)})
    table = preview(frame)["preview"]

    assert [column.name for column in table.schema.columns] == [
        "column",
        "newest",
        "second newest",
    ]
    assert table.records[3].data == {"column": "c3", "newest": "4.0", "second newest": "3.0"}


def test_an_asset_never_made_has_shown_nothing(instance: dg.DagsterInstance) -> None:
    context = dg.build_asset_context(instance=instance)

    assert as_before(context, dg.AssetKey(["parcels", "model"])) == {}
