"""What becomes of predictions once their labels come, on a whole platform."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from mlops_assets.ml.monitoring.performance import PERFORMANCE_COLUMNS, promise_of, realised
from mlops_assets.stages.common.base import naive
from mlops_assets.stages.monitoring.performance import ON_PREVIOUS, REALISED, gain_of, realised_of
from mlops_assets.stages.training.serving import report_from_json
from mlops_assets.storage import Snapshot
from mlops_assets_tests.platform import Platform, checks, copied, failures, generated, made
from mlops_assets_tests.stages.proposals import decide, in_use, propose

COUNTRY = "FRA"
ASSETS = ["raw", "quarantine", "validated", "features", "predictions", "performance"]
CHECK = "performance.realised_error"
DEMAND = "Demand (parcels)"


@pytest.fixture
def going(once_trained: Path, tmp_path: Path, instance: dg.DagsterInstance) -> Platform:
    """A country with version 1 in use, whose predictions are recorded."""
    return copied(once_trained, tmp_path, instance)


@pytest.fixture(scope="module")
def watched(once_trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The same after 40 more days, to be looked at only."""
    with dg.DagsterInstance.ephemeral() as instance:
        platform = copied(once_trained, tmp_path_factory.mktemp("watched"), instance)
        deliver(platform, 40)
        serve(platform)
        yield platform


def serve(platform: Platform, assets: list[str] | None = None) -> dg.ExecuteInProcessResult:
    """A run that takes what was delivered and predicts."""
    result = platform.run(COUNTRY, job="predict", assets=assets or ASSETS)
    assert result.success, failures(result)
    return result


def deliver(platform: Platform, days: int, **columns: Any) -> pd.DataFrame:
    """One more file with the next days, as they were 52 weeks before unless told otherwise."""
    known = platform.frame("validated", COUNTRY).set_index("date")["demand"]
    dates = pd.date_range(known.index.max() + pd.Timedelta(days=1), periods=days)
    demand = known.reindex(dates - pd.Timedelta(weeks=52)).to_numpy()
    told = {"Country": COUNTRY, "Date": dates.strftime("%Y-%m-%d"), DEMAND: demand, **columns}
    frame = pd.DataFrame(told)
    platform.deliver(frame, f"{frame['Date'].iloc[0]}.parquet")
    return frame


def snapshot(platform: Platform, asset: str = "performance") -> Snapshot:
    found = platform.store.current((platform.product.name, asset), COUNTRY)
    assert found is not None
    return found


def table(platform: Platform) -> pd.DataFrame:
    return platform.frame("performance", COUNTRY)


def files(platform: Platform) -> dict[str, int]:
    """Everything stored, with when it was changed."""
    root = platform.home / "store"
    return {str(each): each.stat().st_mtime_ns for each in root.rglob("*") if each.is_file()}


def test_what_the_champion_learned_or_was_judged_on_does_not_count(going: Platform) -> None:
    predictions = going.frame("predictions", COUNTRY)
    assert (predictions["made"] == "hindcast").sum() > 60
    rows = table(going)
    assert list(rows.columns) == list(PERFORMANCE_COLUMNS)
    assert rows["event_time"].tolist() == [predictions["event_time"].max()]
    assert rows["made"].tolist() == ["ahead"]
    assert rows["label"].isna().all()
    assert rows["model_version"].tolist() == ["1"]
    found = realised_of(snapshot(going))
    assert found is not None
    assert (found.rows, found.open_rows, found.worse) == (0, 1, None)


def test_a_label_that_comes_meets_the_prediction_made_before_it(going: Platform) -> None:
    first, told = snapshot(going, "predictions"), table(going).iloc[0]
    delivered = deliver(going, 4)
    result = serve(going)
    rows = table(going)
    assert rows["made"].tolist() == ["ahead", "late", "late", "late", "ahead"]
    matured = rows.iloc[0]
    assert matured["prediction"] == told["prediction"]
    assert matured["predicted_at"] == naive(first.created_at)
    assert matured["label"] == matured["first_label"] == delivered[DEMAND].iloc[0]
    assert rows["label"].notna().tolist() == [True, True, True, True, False]
    assert rows["predicted_at"].iloc[-1] == naive(snapshot(going, "predictions").created_at)
    check = checks(result)[CHECK]
    assert check.passed
    assert "4 labels have matured, 20 are needed; 1 more are open" in check.description


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_rerun_writes_nothing_and_says_the_same(watched: Platform) -> None:
    before, page = files(watched), watched.told("performance", COUNTRY)
    recorded = realised_of(snapshot(watched))
    result = serve(watched)
    assert files(watched) == before
    assert recorded is not None
    assert checks(result)[CHECK].description == recorded.reason
    assert checks(result)[CHECK].passed
    after = watched.told("performance", COUNTRY)
    assert after["mlops_assets/changed"] is False
    shown = {name for name in page if not name.startswith(("mlops_assets/", "dagster/"))}
    assert {"summary", "by_period"} <= shown
    assert {name: after[name] for name in shown} == {name: page[name] for name in shown}


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_revised_label_is_judged_as_it_is_now_and_counted(going: Platform) -> None:
    delivered = deliver(going, 40)
    serve(going)
    held, worth = table(going), realised_of(snapshot(going))
    restated = delivered.iloc[[9]].assign(**{DEMAND: delivered[DEMAND].iloc[9] + 5000.0})
    going.deliver(restated, "restated.parquet")
    serve(going)
    rows, found = table(going), realised_of(snapshot(going))
    changed = rows[rows["label"].ne(rows["first_label"]) & rows["label"].notna()]
    assert len(changed) == 1
    assert changed["event_time"].iloc[0] == pd.Timestamp(restated["Date"].iloc[0]) - pd.Timedelta(
        days=1
    )
    assert (changed["label"] - changed["first_label"]).tolist() == [5000.0]
    assert found is not None
    assert worth is not None
    assert (found.revised, found.rows) == (1, worth.rows)
    error = (rows["label"] - rows["prediction"]).abs().mean()
    assert found.value.value == pytest.approx(error)
    kept = ["prediction", "made", "predicted_at", "first_label"]
    pd.testing.assert_frame_equal(rows[kept].head(len(held) - 1), held[kept].head(len(held) - 1))


def test_a_champion_that_keeps_its_promise_passes_and_one_that_got_worse_is_told(
    going: Platform,
) -> None:
    deliver(going, 60)
    as_before = checks(serve(going))[CHECK]
    assert as_before.passed
    assert "not significantly worse" in as_before.description
    week = np.resize([2.0, 1.0, 0.5, 2.5, 0.2, 1.5, 3.0], 60)
    upside_down = week * float(going.frame("validated", COUNTRY)["demand"].mean())
    deliver(going, 60, **{DEMAND: upside_down})
    result = serve(going)
    check = checks(result)[CHECK]
    assert (check.passed, check.severity.value, check.blocking) == (False, "WARN", False)
    assert made(result)[-1] == "performance", "it is recorded all the same"
    found = realised_of(snapshot(going))
    assert found is not None
    assert found.worse is True
    assert found.excess > 1
    assert found.compared.lower > found.expected.upper
    assert found.rows == 56
    assert check.description == found.reason


def test_what_is_recorded_follows_from_the_table_and_the_promise_of_the_version(
    watched: Platform,
) -> None:
    champion = watched.registry.champion(watched.product.name, COUNTRY)
    assert champion is not None
    spec = watched.product.resolved(COUNTRY)
    promise = promise_of(spec, report_from_json(champion.tags["report"]))
    expected = realised(spec, table(watched), promise, "1")
    assert realised_of(snapshot(watched)) == expected
    assert json.loads(json.dumps(snapshot(watched).metadata[REALISED]))["rows"] == 40


def test_the_page_shows_the_course_the_numbers_and_why(watched: Platform) -> None:
    page = watched.told("performance", COUNTRY)
    assert len(page["realised_against_promised"]) < 50_000
    assert page["realised_against_promised"].startswith("![realised against promised](data:image")
    assert "than the promised" in page["summary"]
    assert {"numbers", "by_period", "preview"} <= set(page)
    assert "by_slice" not in page, "no slice is declared"


def test_predictions_that_no_run_recorded_yet_are_not_lost(going: Platform) -> None:
    without = [name for name in ASSETS if name != "performance"]
    values = []
    for _ in range(2):
        deliver(going, 1)
        serve(going, without)
        values.append(going.frame("predictions", COUNTRY)["prediction"].iloc[-1])
    assert len(table(going)) == 1
    serve(going)
    rows = table(going)
    assert rows["made"].tolist() == ["ahead"] * 3
    assert rows["prediction"].tail(2).tolist() == values
    assert rows["label"].notna().tolist() == [True, True, False]
    assert rows["predicted_at"].is_monotonic_increasing
    assert rows["predicted_at"].is_unique


def test_rows_of_the_model_before_stay_and_both_are_compared_on_the_new_ones(
    going: Platform,
) -> None:
    deliver(going, 40)
    serve(going)
    by_first = table(going)
    propose(going, COUNTRY, error=0.5)
    decide(going, COUNTRY)
    assert in_use(going, COUNTRY) == "2"
    serve(going)
    none_yet = realised_of(snapshot(going))
    assert none_yet is not None
    assert (none_yet.version, none_yet.rows) == ("2", 0)
    deliver(going, 40)
    serve(going)
    rows, found = table(going), realised_of(snapshot(going))
    assert found is not None
    assert (found.version, found.rows, found.open_rows) == ("2", 40, 1)
    kept = rows.head(len(by_first) - 1)
    pd.testing.assert_frame_equal(kept, by_first.head(len(by_first) - 1))
    assert set(rows["model_version"]) == {"1", "2"}
    own = rows[rows["model_version"] == "2"]
    assert set(own["previous_version"]) == {"1"}
    gain = gain_of(snapshot(going), ON_PREVIOUS)
    assert (gain.value, gain.lower, gain.upper) == (0.0, 0.0, 0.0), "it has the same files"


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_baseline_in_use_has_its_worth_and_no_promise(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform()
    sample = generated(platform)
    own = sample[sample["Country"] == COUNTRY]
    platform.deliver(own[own["Date"] < "2024-11-01"].reset_index(drop=True))
    serve(platform)
    assert table(platform)["model_kind"].tolist() == ["baseline"]
    platform.deliver(own[own["Date"] >= "2024-11-01"].reset_index(drop=True), "later.parquet")
    result = serve(platform)
    check = checks(result)[CHECK]
    assert check.passed
    assert "a baseline serves, which promised nothing" in check.description
    found = realised_of(snapshot(platform))
    assert found is not None
    assert (found.version, found.worse) == ("", None)
    assert found.value.value == pytest.approx(found.baseline), "it is the baseline"
    assert platform.told("performance", COUNTRY)["summary"].startswith("not judged")


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_without_predictions_nothing_is_recorded(platform: Platform, sample: pd.DataFrame) -> None:
    platform.deliver(sample)
    assert platform.run(COUNTRY, job="predict", assets=ASSETS[:4]).success
    result = platform.run(COUNTRY, job="predict", assets=["performance"])
    assert not result.success
    assert "has no predictions yet" in failures(result)
    assert platform.version("performance", COUNTRY) is None


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_another_tolerance_judges_again(
    watched: Platform,
) -> None:
    assets = ["predictions", "performance"]
    assert watched.first_stale(COUNTRY, assets) is None
    spec = watched.product.spec
    monitoring = spec.monitoring.model_copy(update={"tolerance": 0.2})
    changed = replace(watched.product, spec=spec.model_copy(update={"monitoring": monitoring}))
    assert replace(watched, product=changed).first_stale(COUNTRY, assets) == "performance"


def test_it_is_of_the_monitoring_group_and_its_check_stops_nothing(platform: Platform) -> None:
    graph = platform.defs.resolve_asset_graph()
    key = dg.AssetKey(["parcels", "performance"])
    node = graph.get(key)
    assert node.group_name == "monitoring"
    assert {each.path[-1] for each in node.parent_keys} == {"predictions", "features", "champion"}
    (check,) = [each for each in graph.asset_check_keys if each.asset_key == key]
    assert check.name == "realised_error"
    assert graph.get(check).blocking is False
