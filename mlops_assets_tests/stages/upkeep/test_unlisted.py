"""A country renamed in the YAML, or taken out of it, leaves nothing behind that counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from mlops_assets.cli import main
from mlops_assets.components.loading import load_product
from mlops_assets.components.scaffold import new_product
from mlops_assets.errors import ConfigurationError
from mlops_assets.product import Product
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.datasets.ingestion import DELIVERIES
from mlops_assets.stages.upkeep.unlisted import drop_country, move_country, unlisted_countries
from mlops_assets.storage import SnapshotStore
from mlops_assets_tests.pipeline.test_outcomes import DATASETS
from mlops_assets_tests.platform import Platform, checks, edit, failures, generated, rebuilt

COUNT = "select _country, count(*) as n from parcels.{} group by all order by 1"


@pytest.fixture
def renamed(make_platform: Callable[..., Platform]) -> Platform:
    """NOR was taken, and is now called NO2 in the YAML; its rows come as NO."""
    platform = make_platform()
    platform.deliver(generated(platform))
    platform.run_range("DEU", "NOR")
    assert platform.run("NOR", assets=DATASETS).success
    edit(platform.product.folder / "defs.yaml", ("NOR", "NO2"))
    return rebuilt(platform)


def said(
    platform: Platform, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str]:
    patch.setenv("MLOPS_ASSETS_HOME", str(platform.home))
    patch.setenv("MLOPS_ASSETS_DEFS", str(platform.product.folder.parent))
    patch.setattr("sys.argv", ["mlops-assets", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0), capsys.readouterr().out


def test_a_renamed_country_counts_once_and_keeps_its_rows_without_a_file(
    renamed: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ctx = renamed.context
    before = len(renamed.frame("raw", "NOR"))
    (found,) = unlisted_countries(ctx)
    assert (found.country, found.raw_rows) == ("NOR", before)
    for file in renamed.landing.iterdir():
        file.unlink()
    words = ("unlisted", "parcels", "--move", "NOR", "--to", "NO2", "--reason", "a better code")
    code, text = said(renamed, monkeypatch, capsys, *words)
    assert (code, f"{before:,} rows of NOR are NO2's now" in text) == (0, True)
    assert unlisted_countries(ctx) == []
    result = renamed.run("NO2", assets=DATASETS)
    assert result.success, failures(result)
    assert set(renamed.frame("validated", "NO2")["country"]) == {"NO2"}
    assert checks(result)["validated.ledger"].passed
    log = renamed.store.read_log(("parcels", "dropped"))
    assert sorted(log["asset"]) == ["quarantine", "raw", "validated"]
    assert set(log["reason"]) == {"moved to NO2: a better code"}
    assert not list((renamed.home / "store" / "parcels").glob("*/country=NOR/*.parquet"))


def test_sql_counts_listed_countries_unless_asked_for_all(
    renamed: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed.run_range("DEU", "NO2")
    query = COUNT.format("raw")
    for more, countries in (([], "DEU FRA NO2"), (["--unlisted"], "DEU FRA NO2 NOR")):
        code, text = said(renamed, monkeypatch, capsys, "sql", query, "--json", *more)
        assert code == 0
        assert [row["_country"] for row in json.loads(text)] == countries.split()


def test_a_dropped_country_can_be_listed_again_and_takes_its_files_anew(
    renamed: Platform,
) -> None:
    rows = len(renamed.frame("raw", "NOR"))
    drop_country(renamed.context, "NOR", reason="sold")
    assert renamed.store.current(("parcels", "raw"), "NOR") is None
    edit(renamed.product.folder / "defs.yaml", ("NO2", "NOR"))
    again = rebuilt(renamed)
    assert again.run("NOR", assets=DATASETS).success
    assert len(again.frame("raw", "NOR")) == rows


def test_a_country_that_came_as_a_number_is_moved_by_the_name_it_is_resolved_by(
    tmp_path: Path,
) -> None:
    product = load_product(new_product("parcels", tmp_path / "defs"))
    spec = product.spec.model_copy(update={"aliases": {"999": "FRA"}})
    ctx = ProductContext(
        Product(product.name, product.folder, spec), SnapshotStore(str(tmp_path / "store"))
    )
    rows = pd.DataFrame({"Country": [999.0, None, 999.0]})
    metadata = {DELIVERIES: list[object]()}
    ctx.store.write(ctx.path("raw"), "OLD", rows, run_id="", metadata=metadata)
    assert move_country(ctx, "OLD", "FRA", reason="x").raw_rows == 3
    assert len(ctx.store.read(ctx.path("raw"), "FRA")) == 3


def test_what_would_lose_or_double_rows_is_refused_and_changes_nothing(
    renamed: Platform, tmp_path: Path
) -> None:
    ctx = renamed.context
    with pytest.raises(ConfigurationError, match="lists FRA"):
        drop_country(ctx, "FRA", reason="x")
    with pytest.raises(ConfigurationError, match="Nothing is stored of parcels SWE"):
        drop_country(ctx, "SWE", reason="x")
    with pytest.raises(ConfigurationError, match="came as 'NO', which is no name of FRA"):
        move_country(ctx, "NOR", "FRA", reason="x")
    with pytest.raises(ConfigurationError, match="does not list"):
        move_country(ctx, "NOR", "SWE", reason="x")
    renamed.deliver(generated(renamed).tail(900), "more.parquet")
    renamed.run_range("DEU", "NO2")
    with pytest.raises(ConfigurationError, match="rows of both would count twice"):
        move_country(ctx, "NOR", "NO2", reason="x")
    assert [each.country for each in unlisted_countries(ctx)] == ["NOR"]
