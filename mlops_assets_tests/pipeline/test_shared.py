"""Features that all countries share: made once of all records, read by each country as stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import dagster as dg
import pandas as pd
import pytest

import mlops_assets
from mlops_assets.runtime.headless import workers as headless
from mlops_assets.runtime.headless.materialize import Job, Materializer, Outcome
from mlops_assets.runtime.headless.workers import RunOrder, RunOutcome, WarmWorkers
from mlops_assets.runtime.workers import run_executor as warm
from mlops_assets.stages.alerting.deliveries import held_out_conditions
from mlops_assets.stages.common.lineage import INPUTS
from mlops_assets.stages.staleness import Staleness
from mlops_assets.stages.upkeep.reproduction import reproduce_model
from mlops_assets_tests.once import once
from mlops_assets_tests.pipeline.test_landing import asked, launch, reason
from mlops_assets_tests.pipeline.test_outcomes import VALUE, later, only
from mlops_assets_tests.platform import (
    SHARED_CODE,
    Platform,
    as_of,
    checks,
    edit,
    failures,
    generated,
    going_on,
    made,
    new_home,
    rebuilt,
    share_features,
    small_product,
)

COUNTRIES = ["DEU", "FRA", "NOR"]
RECORDS = ["validated", "quarantine"]
TO_FEATURES = ("validated", "features")


def ran(platform: Platform, asset: str, countries: Sequence[str] = COUNTRIES) -> None:
    """One asset of some countries, or of all of them together."""
    if asset == "raw":
        results = [platform.run_range(COUNTRIES[0], COUNTRIES[-1])]
    elif asset == "shared":
        results = [platform.run(None, "shared")]
    else:
        assets = RECORDS if asset == "validated" else [asset]
        results = [platform.run(country, assets=assets) for country in countries]
    assert all(each.success for each in results), [failures(each) for each in results]


def ran_to_features(platform: Platform) -> None:
    for asset in ("raw", "validated", "shared", "features"):
        ran(platform, asset)


@pytest.fixture(scope="session")
def once_featured(
    tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path, history_template: Path
) -> Path:
    def make(folder: Path) -> None:
        product = small_product("parcels", folder / "defs")
        share_features(product)
        with new_home(folder, product, history_template, mlflow_template) as platform:
            platform.deliver(generated(platform))
            ran_to_features(platform)

    return once(tmp_path_factory, "featured", make)


@pytest.fixture
def featured(once_featured: Path, tmp_path: Path) -> Iterator[Platform]:
    """The features of all countries and what they share, made of the product's own delivery."""
    with going_on(once_featured, tmp_path) as platform:
        yield platform


def inputs(platform: Platform, asset: str, country: str | None) -> dict[str, str]:
    held = platform.store.current(("parcels", asset), country)
    assert held is not None
    return dict(held.metadata[INPUTS])


def content(platform: Platform, asset: str, country: str | None) -> str:
    held = platform.store.current(("parcels", asset), country)
    assert held is not None
    return held.content_hash


def mean_of_all(platform: Platform) -> pd.Series:
    """Mean demand by day, from the validated records of all countries."""
    frames = [platform.frame("validated", country) for country in COUNTRIES]
    return pd.concat(frames).groupby("date")["demand"].mean()


def test_features_of_a_country_hold_what_the_others_have_on_the_same_day(
    featured: Platform,
) -> None:
    expected = mean_of_all(featured)
    for country in COUNTRIES:
        features = featured.frame("features", country).set_index("event_time")["mean_of_all"]
        assert len(features) > 700
        pd.testing.assert_series_equal(
            features, expected.loc[features.index], check_names=False, rtol=1e-12
        )


def test_the_snapshots_name_what_they_were_made_from(featured: Platform) -> None:
    validated = {country: content(featured, "validated", country) for country in COUNTRIES}
    assert inputs(featured, "shared_features", None) == validated
    shared = content(featured, "shared_features", None)
    for country in COUNTRIES:
        expected = {"validated": validated[country], "shared_features": shared}
        assert inputs(featured, "features", country) == expected


def test_a_rerun_over_unchanged_records_writes_nothing(featured: Platform) -> None:
    before = featured.version("shared_features", None)
    result = featured.run(None, "shared")
    assert result.success
    assert featured.version("shared_features", None) == before
    assert checks(result)["shared_features.point_in_time"].description.startswith("no new rows")
    assert Staleness(featured.context).shared_inputs() is None
    for country in COUNTRIES:
        assert featured.first_stale(country, TO_FEATURES) is None


def test_new_rows_of_one_country_make_the_features_of_all_due(
    featured: Platform, sample: pd.DataFrame
) -> None:
    featured.deliver(only(later(sample), "DEU"), "second.parquet")
    ran(featured, "raw")
    ran(featured, "validated", ["DEU"])
    assert Staleness(featured.context).shared_inputs() is not None
    ran(featured, "shared")
    for country in COUNTRIES:
        assert featured.first_stale(country, TO_FEATURES) == "features"


def test_the_same_content_made_by_other_code_makes_nothing_due(featured: Platform) -> None:
    before = featured.version("shared_features", None)
    (featured.product.folder / "everywhere.py").write_text(
        "import pandas as pd\n" + SHARED_CODE.partition("def build")[0]
    )
    edit(featured.product.folder / "defs.yaml", ("features.shared", "everywhere.shared"))
    changed = rebuilt(featured)
    assert Staleness(changed.context).shared_inputs() is not None
    ran(changed, "shared")
    assert changed.version("shared_features", None) == before
    assert Staleness(changed.context).shared_inputs() is None


def test_a_country_with_broken_data_takes_part_with_its_last_good_rows_and_stops_no_other(
    featured: Platform, sample: pd.DataFrame
) -> None:
    good = featured.frame("validated", "DEU")
    more = later(sample, 60)
    more.loc[more["Country"] == "DEU", VALUE] = -1.0
    featured.deliver(more, "second.parquet")
    ran(featured, "raw")
    assert not featured.run("DEU", assets=RECORDS).success
    ran(featured, "validated", ["FRA", "NOR"])
    ran(featured, "shared")
    ran(featured, "features", ["FRA", "NOR"])
    shared = featured.frame("shared_features", None).set_index("event_time")
    assert shared["DEU"].last_valid_index() == good["date"].max()
    newest = featured.frame("validated", "FRA")["date"].max()
    assert shared["FRA"].last_valid_index() == newest > good["date"].max()
    features = featured.frame("features", "FRA").set_index("event_time")
    both = shared.loc[newest, ["FRA", "NOR"]].mean()
    assert features.loc[newest, "mean_of_all"] == pytest.approx(both)


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_country_that_was_never_delivered_is_missing_in_it(
    sharing: Platform, sample: pd.DataFrame
) -> None:
    sharing.deliver(sample[sample["Country"] != "NO"])
    assert not sharing.run_range(COUNTRIES[0], COUNTRIES[-1]).success
    ran(sharing, "validated", ["DEU", "FRA"])
    ran(sharing, "shared")
    ran(sharing, "features", ["DEU", "FRA"])
    shared = sharing.frame("shared_features", None)
    assert shared["NOR"].isna().all()
    assert shared[["DEU", "FRA"]].notna().all(axis=None)


def test_the_first_run_of_a_country_puts_it_into_the_shared_features_and_no_later_one_does(
    sharing: Platform, sample: pd.DataFrame
) -> None:
    """Or nobody could begin with a click; from then on they change by their own job alone."""
    sharing.deliver(sample)
    held = []
    for country in ("FRA", "DEU"):
        result = sharing.run(country, assets=["raw", *RECORDS, "features"])
        assert result.success, failures(result)
        assert made(result) == ["raw", "quarantine", "validated", "features"]
        held.append(sharing.frame("shared_features", None))
    assert held[0]["FRA"].notna().all()
    assert held[0]["DEU"].isna().all()
    assert held[1][["DEU", "FRA"]].notna().all(axis=None)
    version = sharing.version("shared_features", None)
    sharing.deliver(later(sample), "second.parquet")
    assert sharing.run("FRA", assets=["raw", *RECORDS, "features"]).success
    assert sharing.version("shared_features", None) == version
    ran(sharing, "shared")
    assert sharing.version("shared_features", None) != version


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_shared_features_without_any_record_are_refused(sharing: Platform) -> None:
    result = sharing.run(None, "shared")
    assert not result.success
    assert "no country has validated rows yet" in failures(result)


def test_shared_features_that_know_the_future_are_not_stored_and_the_countries_go_on(
    featured: Platform,
) -> None:
    before = featured.version("shared_features", None)
    leak = ('    return made.rename_axis("event_time")', '    made = made.assign(next=made["DEU"]')
    leaking = f"{leak[1]}.shift(-1))\n{leak[0]}"
    edit(featured.product.folder / "features.py", (leak[0], leaking))
    changed = rebuilt(featured)
    result = changed.run(None, "shared")
    assert not result.success
    check = checks(result)["shared_features.point_in_time"]
    assert (check.passed, check.severity.value) == (False, "ERROR")
    assert "next at" in check.description
    assert changed.version("shared_features", None) == before
    ran(changed, "features")


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_as_of_a_moment_the_shared_features_are_those_of_then(
    featured: Platform, mlflow_template: Path
) -> None:
    moment = pd.Timestamp("2024-02-29T11:30", tz="UTC").to_pydatetime()
    then = as_of(featured, moment, mlflow_template)
    with then.instance:
        ran_to_features(then)
    cutoff = pd.Timestamp("2024-02-29")
    whole, known = (each.frame("shared_features", None) for each in (featured, then))
    expected = whole[whole["event_time"] <= cutoff].reset_index(drop=True)
    pd.testing.assert_frame_equal(known, expected)
    names = ["entity", "event_time", "mean_of_all"]
    features = featured.frame("features", "FRA")
    expected = features[features["event_time"] <= cutoff][names].reset_index(drop=True)
    pd.testing.assert_frame_equal(then.frame("features", "FRA")[names], expected)


def test_a_model_is_made_again_with_the_shared_features_of_then(
    featured: Platform, sample: pd.DataFrame
) -> None:
    ran(featured, "model", ["FRA"])
    featured.deliver(only(later(sample), "DEU"), "second.parquet")
    ran(featured, "raw")
    ran(featured, "validated", ["DEU"])
    ran(featured, "shared")
    found = reproduce_model(featured.context.country("FRA"), "1")
    assert (found.verdict, found.reason) == ("identical", "")
    assert found.features.gap is not None
    assert not found.features.differ


def test_load_gives_the_shared_features(
    featured: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_ASSETS_HOME", str(featured.home))
    frame = mlops_assets.load("parcels", "shared_features")
    assert frame.columns.tolist() == ["event_time", *COUNTRIES]
    newest = mlops_assets.load("parcels", "shared_features", columns=["event_time"])
    assert newest["event_time"].equals(frame["event_time"])


def test_a_product_without_shared_features_has_no_trace_of_them(platform: Platform) -> None:
    nodes = platform.defs.resolve_asset_graph().get_all_asset_keys()
    assert not {"shared_features", "shared_snapshot"} & {key.path[-1] for key in nodes}
    assert not [job.name for job in platform.defs.jobs or () if "shared" in job.name]
    assert not [each.name for each in platform.defs.schedules or () if "shared" in each.name]
    assert platform.product.shared_function() is None


def test_the_graph_does_not_make_a_country_wait_for_the_others(sharing: Platform) -> None:
    graph = sharing.defs.resolve_asset_graph()
    above = {
        name: {key.path[-1] for key in graph.get(dg.AssetKey(["parcels", name])).parent_keys}
        for name in ("shared_features", "shared_snapshot", "features")
    }
    assert above == {
        "shared_features": {"validated"},
        "shared_snapshot": {"shared_features"},
        "features": {"validated", "shared_snapshot"},
    }
    assert not graph.get(dg.AssetKey(["parcels", "shared_snapshot"])).is_materializable


class Here:
    """Executes orders as a worker does, in this process, and remembers them."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, str | None]] = []

    def run(self, orders: Sequence[RunOrder]) -> Iterator[RunOutcome]:
        self.orders += [("+".join(each.assets), each.country) for each in orders]
        yield from map(headless._execute, orders)


Materialize = Callable[..., tuple[Outcome, list[tuple[str, str | None]]]]


@pytest.fixture
def materialize(monkeypatch: pytest.MonkeyPatch) -> Materialize:
    """Runs a job as the command does; gives its outcome and the runs it launched."""

    def run(
        platform: Platform, countries: Sequence[str] = COUNTRIES, job: Job = "predict"
    ) -> tuple[Outcome, list[tuple[str, str | None]]]:
        held = platform.defs.get_repository_def()
        monkeypatch.setattr(warm, "repository", lambda: held)
        monkeypatch.setattr(warm, "instance", lambda: platform.instance)
        workers, outcome = Here(), Outcome("parcels")
        silent: Any = lambda *_: None  # noqa: E731
        Materializer(
            platform.context,
            job,
            cast("WarmWorkers", workers),
            silent,
            outcome,
        ).run(list(countries))
        return outcome, workers.orders

    return run


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_command_makes_shared_features_between_records_and_features(
    sharing: Platform, sample: pd.DataFrame, materialize: Materialize
) -> None:
    sharing.deliver(sample)
    outcome, orders = materialize(sharing)
    assert not outcome.failures
    assert orders == [
        ("raw", None),
        *(("validated+quarantine", country) for country in COUNTRIES),
        ("shared_features", None),
        *(("features+predictions+performance+drift", country) for country in COUNTRIES),
    ]
    assert len(sharing.frame("predictions", "NOR")) > 0


@pytest.mark.nightly  # one more of a kind
def test_a_command_over_unchanged_files_launches_the_ingestion_and_nothing_else(
    sharing: Platform, sample: pd.DataFrame, materialize: Materialize
) -> None:
    sharing.deliver(sample)
    materialize(sharing)
    outcome, orders = materialize(sharing)
    assert orders == [("raw", None)]
    assert outcome.unchanged == set(COUNTRIES)


@pytest.mark.nightly  # one more of a kind
def test_a_command_for_one_country_uses_the_records_of_all(
    sharing: Platform, sample: pd.DataFrame, materialize: Materialize
) -> None:
    sharing.deliver(sample)
    outcome, orders = materialize(sharing, ["FRA"])
    assert not outcome.failures
    assert orders == [
        ("raw", None),
        ("validated+quarantine", "DEU"),
        ("validated+quarantine", "NOR"),
        ("validated+quarantine", "FRA"),
        ("shared_features", None),
        ("features+predictions+performance+drift", "FRA"),
    ]
    assert sharing.frame("shared_features", None)[COUNTRIES].notna().all(axis=None)


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_country_nobody_asked_for_stops_nothing_by_bad_data(
    sharing: Platform, sample: pd.DataFrame, materialize: Materialize
) -> None:
    good = sample[VALUE].where(sample["Country"] == "FRA", -1.0)
    sharing.deliver(sample.assign(**{VALUE: good}))
    outcome, _ = materialize(sharing, ["FRA"])
    assert not outcome.failures
    assert set(outcome.warnings) >= {"DEU", "NOR"}
    assert len(sharing.frame("predictions", "FRA")) > 0


def test_a_country_behind_the_shared_features_is_shown_as_behind(
    featured: Platform, sample: pd.DataFrame, materialize: Materialize
) -> None:
    assert featured.run("DEU", assets=["predictions", "performance", "drift"]).success
    assert featured.status()["DEU"].state == "never_trained"
    featured.deliver(only(later(sample), "FRA"), "second.parquet")
    outcome, orders = materialize(featured, ["FRA"])
    assert not outcome.failures
    assert orders == [
        ("raw", None),
        ("validated+quarantine", "FRA"),
        ("shared_features", None),
        ("features+predictions+performance+drift", "FRA"),
    ]
    states = {country: each.state for country, each in featured.status().items()}
    assert (states["DEU"], states["FRA"]) == ("behind", "never_trained")
    assert "shared_features changed" in featured.status()["DEU"].why


def answered(platform: Platform) -> list[str]:
    """One tick of the landing sensor and the runs it asks for, as the daemon launches them."""
    requests = asked(platform)
    for each in requests:
        launch(platform, each._replace(tags={**each.tags, "dagster/run_key": str(each.run_key)}))
    return [_name(each) for each in requests]


def _name(request: dg.RunRequest) -> str:
    assets = "+".join(key.path[-1] for key in request.asset_selection or ())
    where = f" {request.partition_key}" if request.partition_key else ""
    return f"{str(request.job_name).removeprefix('parcels_')}{where} {assets}".strip()


def test_the_landing_sensor_makes_shared_features_before_those_of_the_countries(
    sharing: Platform, sample: pd.DataFrame
) -> None:
    sharing.deliver(sample)
    assert answered(sharing) == ["ingest"]
    assert answered(sharing) == [f"predict {each} validated+quarantine" for each in COUNTRIES]
    assert answered(sharing) == ["shared"]
    assert answered(sharing) == [
        f"predict {each} features+predictions+performance+drift" for each in COUNTRIES
    ]
    assert "no new file" in reason(sharing)


@pytest.mark.nightly  # nine runs; `Staleness` tells what is due then in a test above
def test_after_new_rows_of_one_country_the_landing_sensor_asks_for_the_features_of_all(
    sharing: Platform, sample: pd.DataFrame
) -> None:
    sharing.deliver(sample)
    while asked(sharing):
        answered(sharing)
    sharing.deliver(only(later(sample), "FRA"), "second.parquet")
    assert answered(sharing) == ["ingest"]
    assert answered(sharing) == ["predict FRA validated+quarantine"]
    assert answered(sharing) == ["shared"]
    assert answered(sharing) == [
        f"predict {each} features+predictions+performance+drift" for each in COUNTRIES
    ]
    assert "no new file" in reason(sharing)


@pytest.mark.nightly  # one more of a kind
def test_where_shared_features_fail_the_sensor_goes_on_with_those_of_last_time(
    sharing: Platform, sample: pd.DataFrame
) -> None:
    sharing.deliver(sample)
    while asked(sharing):
        answered(sharing)
    edit(
        sharing.product.folder / "features.py",
        ('    """The demand of every country by day."""\n', "    1 / 0\n"),
    )
    changed = rebuilt(sharing)
    assert "no new file" in reason(changed), "other code alone asks for nothing"
    changed.deliver(only(later(sample), "FRA"), "second.parquet")
    assert answered(changed) == ["ingest"]
    assert answered(changed) == ["predict FRA validated+quarantine"]
    assert answered(changed) == ["shared"]
    assert answered(changed) == ["predict FRA features+predictions+performance+drift"]
    assert "the runs of all countries failed" in reason(changed)
    newest = changed.frame("validated", "FRA")["date"].max()
    assert changed.frame("predictions", "FRA")["event_time"].max() == newest


def jumped(sample: pd.DataFrame, countries: Sequence[str], factor: float) -> pd.DataFrame:
    """Newer rows of all countries, those of some in another unit."""
    rows = later(sample)
    own = rows["Country"].isin(countries)
    return rows.assign(**{VALUE: rows[VALUE].where(~own, rows[VALUE] * factor)})


def taken(platform: Platform, rows: pd.DataFrame) -> dg.AssetCheckEvaluation:
    platform.deliver(rows, "second.parquet")
    ran(platform, "raw")
    ran(platform, "validated")
    result = platform.run(None, "shared")
    assert result.success
    return cast("dg.AssetCheckEvaluation", checks(result)["shared_features.plausible"])


def test_the_jump_of_one_country_is_its_own_fault_and_no_other_country_sees_it(
    featured: Platform, sample: pd.DataFrame
) -> None:
    before = featured.frame("shared_features", None)
    newest = before["event_time"].max()

    told = taken(featured, jumped(sample, ["FRA"], 1000.0))

    assert (told.passed, told.severity.value) == (False, "WARN")
    assert "made without FRA: demand is " in str(told.description)
    assert "sharing.accepted" in str(told.description)
    shared = featured.frame("shared_features", None).set_index("event_time")
    new = shared[shared.index > newest]
    assert len(new) > 0
    assert new["FRA"].isna().all()
    assert shared["FRA"].notna().sum() == before["FRA"].notna().sum()
    for country in ("DEU", "NOR"):
        own = featured.frame("validated", country).set_index("date")["demand"].astype("float64")
        pd.testing.assert_series_equal(shared[country].dropna(), own, check_names=False)
    ran(featured, "features")
    states = {each: found.state for each, found in featured.status().items()}
    assert "held_out" not in {states["DEU"], states["NOR"]}
    why = featured.status()["FRA"].why
    assert "no other country sees its newest records: demand is " in why
    (condition,) = held_out_conditions(featured.context)
    assert (condition.country, condition.kind) == ("FRA", "delivery")
    again = featured.run(None, "shared")
    assert checks(again)["shared_features.plausible"].description == told.description

    corrected = taken(featured, later(sample))

    assert corrected.passed
    assert not list(held_out_conditions(featured.context))
    assert featured.frame("shared_features", None)["event_time"].max() > newest


def test_a_jump_of_all_countries_is_one_incident_upstream_and_shared_ones_stay_as_they_were(
    featured: Platform, sample: pd.DataFrame
) -> None:
    before = featured.frame("shared_features", None)
    told = taken(featured, jumped(sample, list(sample["Country"].unique()), 1000.0))
    assert not told.passed
    assert "upstream incident: 3 of 3 countries jumped at once" in str(told.description)
    pd.testing.assert_frame_equal(featured.frame("shared_features", None), before)
    (condition,) = held_out_conditions(featured.context)
    assert (condition.country, condition.title) == (
        "",
        "parcels: upstream incident, 3 countries jumped at once",
    )
