"""A product with monthly cut-offs: who says how late it is, and what a new cut-off makes due."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest

from mlops_assets.components.scaffold import new_product
from mlops_assets.runtime.headless.materialize import Materializer, Outcome
from mlops_assets.runtime.workers import run_executor as warm
from mlops_assets.stages.common.clock import clock_metadata, clock_of, clock_of_all
from mlops_assets.stages.common.lineage import CLOCK, INPUTS
from mlops_assets.stages.staleness import Staleness
from mlops_assets.stages.upkeep.reproduction import reproduce_model
from mlops_assets_tests.once import once
from mlops_assets_tests.pipeline.test_landing import asked, launch
from mlops_assets_tests.pipeline.test_shared import Here
from mlops_assets_tests.platform import (
    Platform,
    as_of,
    checks,
    edit,
    failures,
    generated,
    going_on,
    new_home,
    rebuilt,
)

SMALL = (
    ("max_iter: 60", "max_iter: 5"),
    ("first: 2022-07-01", "first: 2023-07-01"),
    ("holdout_days: 220", "holdout_days: 160"),
    ("validation_days: 200", "validation_days: 120"),
    ("min_train_rows: 500", "min_train_rows: 100"),
    ("  gates:\n", "  evaluation: {draws: 200}\n  gates:\n"),
)
COUNTRIES = ["GBR", "DEU", "FRA", "NOR"]
RECORDS = ["validated", "quarantine"]
TO_FEATURES = ("validated", "features")
DELIVERED = "2024-11-20"
NOVEMBER, DECEMBER = pd.Timestamp("2024-11-01"), pd.Timestamp("2024-12-01")


def until(frame: pd.DataFrame, day: str) -> pd.DataFrame:
    return frame[frame["InvoiceDate"] < day]


def newest_cutoff(platform: Platform, country: str) -> pd.Timestamp:
    return platform.frame("features", country)["event_time"].max()


def clock_in(platform: Platform, country: str) -> str:
    held = platform.store.current(("parcels", "features"), country)
    assert held is not None
    return held.metadata[INPUTS][CLOCK]


def ran(platform: Platform, asset: str, countries: Sequence[str] = COUNTRIES) -> None:
    if asset == "raw":
        results = [platform.run_range(COUNTRIES[0], COUNTRIES[-1])]
    else:
        assets = RECORDS if asset == "validated" else [asset]
        results = [platform.run(country, assets=assets) for country in countries]
    assert all(each.success for each in results), [failures(each) for each in results]


@pytest.fixture(scope="session")
def once_described(
    tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path, history_template: Path
) -> Path:
    def make(folder: Path) -> None:
        product = new_product("parcels", folder / "defs", "snapshot")
        edit(product / "defs.yaml", *SMALL)
        with new_home(folder, product, history_template, mlflow_template) as platform:
            platform.deliver(until(generated(platform), DELIVERED))
            for asset in ("raw", "validated", "features"):
                ran(platform, asset)

    return once(tmp_path_factory, "described", make)


@pytest.fixture
def described(once_described: Path, tmp_path: Path) -> Iterator[Platform]:
    """Features of all countries from deliveries up to the middle of November."""
    with going_on(once_described, tmp_path) as platform:
        yield platform


def deliver_december(platform: Platform) -> None:
    """The next delivery: of the two large countries alone."""
    frame = generated(platform)
    later = frame[(frame["InvoiceDate"] >= DELIVERED) & (frame["InvoiceDate"] < "2024-12-05")]
    platform.deliver(later[later["Country"].isin(["GBR", "DEU"])], "december.parquet")


def test_every_country_has_the_newest_cutoff_whatever_its_own_newest_record(
    described: Platform,
) -> None:
    own = described.frame("validated", "NOR")["invoiced_at"].max()
    assert own < NOVEMBER - pd.Timedelta(days=30)
    for country in COUNTRIES:
        assert clock_in(described, country) == NOVEMBER.isoformat()
        assert described.first_stale(country, TO_FEATURES) is None
    assert newest_cutoff(described, "GBR") == NOVEMBER
    assert described.frame("features", "GBR")["label"].isna().any()


def test_a_new_cutoff_makes_countries_due_that_have_no_new_record(described: Platform) -> None:
    deliver_december(described)
    (ingestion,) = asked(described)
    assert launch(described, ingestion).success
    records = asked(described)
    assert {each.partition_key for each in records} == {"GBR", "DEU"}
    for request in records:
        assert {key.path[-1] for key in request.asset_selection or ()} == set(RECORDS)
        assert launch(described, request).success
    stale = Staleness(described.context).first("NOR", TO_FEATURES)
    assert stale is not None
    assert (stale.asset, stale.causes, stale.is_of_data) == ("features", (CLOCK,), True)
    assert "a new cut-off was reached" in stale.describe()
    features = asked(described)
    assert {each.partition_key for each in features} == set(COUNTRIES)
    for request in features:
        if request.partition_key in ("GBR", "NOR"):
            assert launch(described, request).success
    assert clock_in(described, "GBR") == clock_in(described, "NOR") == DECEMBER.isoformat()
    assert newest_cutoff(described, "GBR") == DECEMBER
    predicted = described.frame("predictions", "GBR")
    assert (predicted.loc[predicted["event_time"] == DECEMBER, "made"] == "ahead").all()
    assert {each.partition_key for each in asked(described)} == {"DEU", "FRA"}


def test_records_between_two_cutoffs_leave_countries_without_any_as_they_are(
    described: Platform,
) -> None:
    # The labels of the cut-off of 1 September are known on 30 November, and not before.
    one = generated(described).head(1)
    one = one.assign(Country="GBR", Invoice="new", InvoiceDate="2024-11-28 12:00:00")
    described.deliver(one, "one.parquet")
    ran(described, "raw")
    assert described.run("GBR", assets=RECORDS).success
    assert described.first_stale("NOR", TO_FEATURES) is None
    assert described.first_stale("GBR", TO_FEATURES) == "features"


def test_one_country_with_a_wrong_date_moves_no_other_clock(described: Platform) -> None:
    wrong = (
        generated(described)
        .head(1)
        .assign(Country="FRA", Invoice="wrong", InvoiceDate="2026-03-05 10:00:00")
    )
    described.deliver(wrong, "wrong.parquet")
    ran(described, "raw")
    assert described.run("FRA", assets=RECORDS).success
    ctx = described.context
    assert {clock_of(ctx.country(each)) for each in ("GBR", "DEU", "NOR")} == {
        NOVEMBER.to_pydatetime()
    }
    assert clock_of_all(ctx) == NOVEMBER.to_pydatetime()
    assert clock_of(ctx.country("FRA")) == dt.datetime(2026, 3, 1)


def test_no_clock_is_later_than_the_ingestion_it_goes_by() -> None:
    times = pd.Series(pd.to_datetime(["2024-05-01", "2062-01-01"]))
    found = clock_metadata(times, "2024-05-02T06:00:00+02:00", None)
    assert found["mlops_assets/newest_event"] == "2024-05-01T00:00:00"
    assert found["mlops_assets/known_until"] == "2024-05-02T04:00:00"
    then = clock_metadata(times, "2024-05-02T06:00:00Z", dt.datetime(2024, 4, 1, tzinfo=dt.UTC))
    assert then["mlops_assets/newest_event"] == ""


def test_rows_validated_before_there_were_cutoffs_tell_the_same_time(described: Platform) -> None:
    before = clock_of(described.context.country("NOR"))
    for country in COUNTRIES:
        made = described.store.current(("parcels", "validated"), country)
        assert made is not None
        old = {k: v for k, v in made.metadata.items() if "newest" not in k and "known" not in k}
        frame = described.frame("validated", country)
        described.store.write(("parcels", "validated"), country, frame, metadata=old)
    assert clock_of(described.context.country("NOR")) == before


def test_a_look_at_one_country_tells_the_same_time_as_a_look_at_all(described: Platform) -> None:
    ctx = described.context
    for country in COUNTRIES:
        alone = Staleness(ctx, [country]).inputs(country, "features")
        assert alone == Staleness(ctx).inputs(country, "features")


def test_as_of_a_moment_the_cutoffs_are_those_of_then(
    described: Platform, mlflow_template: Path
) -> None:
    moment = dt.datetime(2024, 7, 15, 12, tzinfo=dt.UTC)
    then = as_of(described, moment, mlflow_template)
    with then.instance:
        ran(then, "raw")
        ran(then, "validated", ["GBR", "DEU", "NOR"])
        ran(then, "features", ["GBR", "NOR"])
    now, known = described.frame("features", "GBR"), then.frame("features", "GBR")
    assert clock_in(then, "NOR") == clock_in(then, "GBR") == "2024-07-01T00:00:00"
    expected = now[now["event_time"] <= "2024-07-01"].reset_index(drop=True)
    late = expected["label_time"] > pd.Timestamp("2024-07-01")
    expected["label"] = expected["label"].mask(late)
    pd.testing.assert_frame_equal(known, expected)
    assert then.first_stale("NOR", TO_FEATURES) is None


def test_a_model_is_made_again_with_the_cutoffs_of_then(described: Platform) -> None:
    assert described.run("GBR", assets=["model"]).success
    trained = described.frame("features", "GBR")
    deliver_december(described)
    ran(described, "raw")
    ran(described, "validated", ["GBR", "DEU"])
    ran(described, "features", ["GBR"])
    assert not described.frame("features", "GBR").equals(trained)
    found = reproduce_model(described.context.country("GBR"), "1")
    assert (found.verdict, found.reason) == ("identical", "")
    assert found.features.gap is not None
    assert not found.features.differ


def test_all_records_come_before_any_features_so_that_one_run_over_all_ends_up_to_date(
    described: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver_december(described)
    held = described.defs.get_repository_def()
    monkeypatch.setattr(warm, "repository", lambda: held)
    monkeypatch.setattr(warm, "instance", lambda: described.instance)
    workers = Here()
    # A country that comes first in the order and has no record of its own.
    job = Materializer(
        described.context, "predict", cast(Any, workers), lambda *_: None, Outcome("parcels")
    )
    job.run(going := ["NOR", "DEU", "GBR"])
    records = [country for assets, country in workers.orders if "validated" in assets]
    features = [country for assets, country in workers.orders if assets.startswith("features")]
    assert set(records) == {"GBR", "DEU"}
    assert set(features) == set(going)
    for country in going:
        assert described.first_stale(country, TO_FEATURES) is None
        assert clock_in(described, country) == DECEMBER.isoformat()


def test_a_function_that_ends_at_its_newest_record_is_told_of_cutoffs(
    described: Platform,
) -> None:
    """As one writes it; a cut-off that is reached only by the next record is no leak of values."""
    folder = described.product.folder
    edit(folder / "defs.yaml", ("  cutoffs:\n    every: month\n    first: 2023-07-01\n", ""))
    natural = (
        "build(validated: pd.DataFrame)",
        "    days = validated['invoiced_at']\n"
        "    cutoffs = pd.date_range('2023-07-01', days.max(), freq='MS')\n"
        "    invoices = validated[",
    )
    edit(
        folder / "features.py",
        ("build(validated: pd.DataFrame, cutoffs: pd.DatetimeIndex)", natural[0]),
        ("    invoices = validated[", natural[1]),
    )
    result = rebuilt(described).run("DEU", assets=["features"])
    assert not result.success
    check = checks(result)["features.point_in_time"]
    assert "rows are not made from what was known then: the row of" in check.description
    assert "missing from what was known then" in check.description
    assert "feature values" not in check.description
    assert "declare `cutoffs` in the YAML" in failures(result)
