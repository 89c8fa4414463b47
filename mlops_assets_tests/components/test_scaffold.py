"""A scaffolded product loads and runs as it is; a name that cannot be is refused."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from mlops_assets.components.loading import load_product
from mlops_assets.components.scaffold import FILES, ProductScaffolder, new_product
from mlops_assets.errors import ConfigurationError
from mlops_assets.ml.datasets.validation import validate
from mlops_assets.ml.features.calendar import calendar_of
from mlops_assets.ml.features.feature_frame import (
    build_features,
    check_point_in_time,
    feature_columns,
)
from mlops_assets.product import Product
from mlops_assets_tests.defs.world import sql


@pytest.fixture
def product(tmp_path: Path) -> Product:
    return load_product(new_product("parcels", tmp_path / "defs"))


def test_a_new_product_loads_as_it_is(product: Product) -> None:
    assert product.name == "parcels"
    assert {path.name for path in product.folder.iterdir()} == set(FILES)
    assert product.spec.countries == ["DEU", "FRA", "NOR"]
    assert product.spec.for_country("NOR").split.min_train_rows == 100


def test_its_sample_keeps_its_contract_and_gives_features_without_the_future(
    product: Product,
) -> None:
    generate = product.sample_function()
    assert generate is not None
    raw = generate(seed=1)
    spec = product.spec
    country = spec.source.columns[spec.source.country]
    for name in spec.countries:
        published = {name, *(alias for alias, listed in spec.aliases.items() if listed == name)}
        rows = raw[raw[country].isin(published)]
        result = validate(rows, product.contract(), spec.source, spec.country_names)
        assert (len(result.accepted), result.rejected) == (731, 0)

        function = product.feature_function()
        features = build_features(result.accepted, function, spec.target)
        proof = check_point_in_time(
            result.accepted, features, function, spec.source, target=spec.target
        )
        assert proof.passed
        assert features["label"].isna().sum() == 1
        named = {baseline.feature for baseline in spec.baselines}
        assert named <= set(feature_columns(features))


def test_its_sample_is_the_same_for_the_same_seed(product: Product) -> None:
    generate = product.sample_function()
    assert generate is not None
    assert generate(1).equals(generate(1))
    assert not generate(1).equals(generate(2))


def test_its_features_count_days_and_not_records(product: Product) -> None:
    generate = product.sample_function()
    assert generate is not None
    raw = generate(1).rename(columns={v: k for k, v in product.spec.source.columns.items()})
    rows = product.contract().validate(raw[raw["country"] == "DEU"].iloc[:30])
    gap = rows.drop(index=rows.index[10])
    made = product.feature_function()(gap).set_index("event_time")
    assert len(made) == 29
    before, week_later = rows["date"].iloc[9], rows["date"].iloc[16]
    assert np.isnan(made.loc[before, "label"])
    assert np.isnan(made.loc[week_later, "demand_week_ago"])


@pytest.fixture
def snapshot(tmp_path: Path) -> Product:
    return load_product(new_product("mailings", tmp_path / "defs", "snapshot"))


def test_a_new_snapshot_product_keeps_its_contract_and_predicts_its_newest_cutoff(
    snapshot: Product,
) -> None:
    generate, function, spec = (
        snapshot.sample_function(),
        snapshot.feature_function(),
        snapshot.spec,
    )
    assert generate is not None
    raw, calendar = generate(seed=1), calendar_of(spec.cutoffs, dt.datetime(2025, 1, 1))
    for name in spec.countries:
        rows = raw[raw["Country"] == name]
        result = validate(rows, snapshot.contract(), spec.source, spec.country_names)
        assert (len(result.accepted), result.rejected) == (len(rows), 0)
        made = build_features(result.accepted, function, spec.target, calendar=calendar)
        proof = check_point_in_time(
            result.accepted, made, function, spec.source, target=spec.target, calendar=calendar
        )
        assert proof.passed, proof.differing[:3]
        assert made["event_time"].isin(pd.date_range("2022-07-01", "2025-01-01", freq="MS")).all()
        newest = made[made["event_time"] == "2025-01-01"]
        assert newest["label"].isna().all()
        assert {each.feature for each in spec.baselines if each.feature} <= {*made.columns}


def test_a_new_snapshot_product_takes_a_country_of_guests_and_one_of_no_records(
    snapshot: Product,
) -> None:
    generate, function, spec = (
        snapshot.sample_function(),
        snapshot.feature_function(),
        snapshot.spec,
    )
    assert generate is not None
    raw = generate(seed=1)
    guests = raw[raw["Country"] == "NOR"].assign(**{"Customer ID": None})
    calendar = calendar_of(spec.cutoffs, dt.datetime(2025, 1, 1))
    rows = validate(guests, snapshot.contract(), spec.source, spec.country_names).accepted
    for each in (rows, rows.iloc[:0]):
        made = build_features(each, function, spec.target, calendar=calendar)
        assert made.empty
    early = calendar_of(spec.cutoffs, dt.datetime(2022, 1, 1))
    assert build_features(rows, function, spec.target, calendar=early).empty


def test_a_new_snapshot_product_counts_invoices_as_sql_does(snapshot: Product) -> None:
    generate, spec = snapshot.sample_function(), snapshot.spec
    assert generate is not None
    raw = generate(seed=1)
    raw = raw[raw["Country"] == "DEU"]
    rows = validate(raw, snapshot.contract(), spec.source, spec.country_names).accepted
    calendar = calendar_of(spec.cutoffs, dt.datetime(2025, 1, 1))
    ours = build_features(rows, snapshot.feature_function(), spec.target, calendar=calendar)
    by_sql = sql(
        rows,
        """
        with cutoffs as (
            select unnest(generate_series(timestamp '2022-07-01', timestamp '2025-01-01',
                                          interval 1 month)) as event_time)
        select customer as entity, event_time,
               count(*) filter (invoiced_at < event_time
                                and invoiced_at >= event_time - interval 90 day) as n,
               count(*) filter (invoiced_at >= event_time
                                and invoiced_at < event_time + interval 90 day) > 0 as bought
        from cutoffs, rows group by all
        having count(*) filter (invoiced_at < event_time
                                and invoiced_at >= event_time - interval 365 day) > 0
        """,
    )
    joined = ours.merge(by_sql, on=["entity", "event_time"], how="outer", indicator=True)
    assert (joined["_merge"] == "both").all()
    assert (joined["invoices_90"] == joined["n"]).all()
    known = joined["label"].notna()
    assert (joined.loc[known, "label"] == joined.loc[known, "bought"]).all()
    assert set(joined.loc[~known, "event_time"].dt.strftime("%Y-%m")) == {
        "2024-11", "2024-12", "2025-01",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["Parcels", "my-product", "2nd", "", "class", "a/b", "../up", "ä"])
def test_a_name_that_cannot_be_is_refused_and_nothing_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name of a product"):
        new_product(name, tmp_path / "defs")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "parcels").mkdir()
    (tmp_path / "parcels" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="exists already"):
        new_product("parcels", tmp_path)
    assert [path.name for path in (tmp_path / "parcels").iterdir()] == ["notes.txt"]


def test_a_file_in_the_way_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "parcels").write_text("mine")
    with pytest.raises(ConfigurationError, match="exists already"):
        new_product("parcels", tmp_path)
    assert (tmp_path / "parcels").read_text() == "mine"


def request_for(target: Path, **other: object) -> dg.ScaffoldRequest:
    """What `dg scaffold defs` asks for, after it made the folder."""
    target.mkdir(parents=True)
    asked: dict[str, object] = {
        "type_name": "mlops_assets.components.ModelProduct",
        "target_path": target,
        "scaffold_format": "yaml",
        "project_root": None,
        "params": None,
    }
    return dg.ScaffoldRequest(**{**asked, **other})  # type: ignore[arg-type]


def test_dagster_scaffolds_the_same_folder(tmp_path: Path) -> None:
    ProductScaffolder().scaffold(request_for(tmp_path / "dg" / "parcels"))
    own = new_product("parcels", tmp_path / "own")
    for file in FILES:
        assert (tmp_path / "dg" / "parcels" / file).read_text() == (own / file).read_text()


@pytest.mark.parametrize(
    ("name", "other"),
    [("Parcels", {}), ("parcels", {"scaffold_format": "python"}), ("parcels", {"append": True})],
)
def test_what_dagster_cannot_scaffold_leaves_no_folder(
    tmp_path: Path, name: str, other: dict[str, object]
) -> None:
    with pytest.raises(ConfigurationError):
        ProductScaffolder().scaffold(request_for(tmp_path / name, **other))
    assert list(tmp_path.iterdir()) == []
