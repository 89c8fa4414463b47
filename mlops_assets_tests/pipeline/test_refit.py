"""A holdout that moves, and models that learn it once they were judged on it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from mlops_assets.errors import RegistryError
from mlops_assets.registry import ModelVersion
from mlops_assets.registry.models import registered_name
from mlops_assets.stages.promotion.decision_replay import replay_decision
from mlops_assets.stages.promotion.plan import ProductContext, apply_plan, plan_promotion
from mlops_assets.stages.training.serving import (
    KNOWN_UNTIL,
    evaluation_model,
    known_to,
    load_pooled,
    pooled_versions,
)
from mlops_assets.stages.upkeep.reproduction import reproduce_model
from mlops_assets_tests.pipeline.test_outcomes import later
from mlops_assets_tests.platform import (
    Platform,
    build_platform,
    dagster_home,
    edit,
    failures,
    generated,
    small_product,
)
from mlops_assets_tests.stages.proposals import ASKED

COUNTRY, OTHERS = "FRA", ("DEU", "NOR")
DATASETS = ("raw", "validated", "quarantine", "features")
ROLLING = ("    holdout_from: 2024-10-01\n", "    holdout_days: 91\n    refit: true\n")
ONE_CANDIDATE = (
    "    - name: ridge\n      estimator: sklearn.linear_model.Ridge\n      scopes: [local]\n",
    "",
)
POOLED = ("learning_rate: 0.3}\n", "learning_rate: 0.3}\n      scopes: [pooled]\n")
LOCAL = ("learning_rate: 0.3}\n", "learning_rate: 0.3}\n      scopes: [local]\n")
DAY = pd.Timedelta(days=1)
KEYS = ("entity", "event_time", "label_time", "label")
Make = Callable[..., Platform]


@pytest.fixture(scope="module")
def once(
    tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path, history_template: Path
) -> Iterator[Platform]:
    """A country with its first champion and its predictions."""
    home = tmp_path_factory.mktemp("refit")
    dagster_home(home / "dagster", history_template)
    folder = small_product("parcels", home / "defs")
    edit(folder / "defs.yaml", ROLLING, ONE_CANDIDATE, LOCAL)
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        platform = build_platform(folder, home / "home", instance, mlflow_template)
        platform.deliver(generated(platform))
        ran(platform)
        yield platform


@pytest.fixture(scope="module")
def newer(once: Platform) -> pd.DataFrame:
    """The predictions of the first champion once newer labels are known; it is not trained."""
    platform = once
    platform.deliver(later(generated(platform)), "second.parquet")
    ran(platform, assets=[*DATASETS, "predictions"])
    return platform.frame("predictions", COUNTRY)


@pytest.fixture(scope="module")
def twice(once: Platform, newer: pd.DataFrame) -> Platform:
    """Trained again on the newer labels, and the second version put into use by a person."""
    ran(once)
    if number(once) == "1":
        put = ProductContext(once.product, once.store, once.registry)
        apply_plan(put, plan_promotion(put, [COUNTRY], "2"), ASKED, lambda moved: None)
    ran(once, assets=["predictions"])
    return once


def ran(platform: Platform, country: str = COUNTRY, **how: Any) -> None:
    result = platform.run(country, **how)
    assert result.success, failures(result)


def number(platform: Platform) -> str:
    return platform.registry.aliases(registered_name("parcels", COUNTRY)).champion


def version(platform: Platform, number: str = "1") -> ModelVersion:
    return platform.registry.version(registered_name("parcels", COUNTRY), number)


def names(rows: pd.DataFrame) -> list[str]:
    return [str(name) for name in rows if name not in KEYS]


def by_hand(rows: pd.DataFrame) -> HistGradientBoostingRegressor:
    """The candidate fitted without this project's code."""
    model = HistGradientBoostingRegressor(max_iter=15, learning_rate=0.3, random_state=0)
    return model.fit(rows[names(rows)].to_numpy("float64"), rows["label"].to_numpy())


def both_by_hand(features: pd.DataFrame, until: str, start: str) -> dict[str, pd.Series]:
    """Predictions of all rows by what was judged and by what serves, by event time."""
    known = features[features["label"].notna() & (features["label_time"] <= until)]
    before = known[(known["event_time"] < start) & (known["label_time"] <= start)]
    inputs = features[names(features)].to_numpy("float64")
    return {
        name: pd.Series(by_hand(rows).predict(inputs), features["event_time"])
        for name, rows in {"judged": before, "served": known}.items()
    }


def test_a_version_says_what_it_learned_and_what_was_judged(once: Platform) -> None:
    tags = version(once).tags
    assert tags["holdout_from"] == "2024-10-01"  # 91 days before the newest known label
    assert tags["known_until"] == "2024-12-31T00:00:00"
    assert tags["until"] == "2024-12-30T00:00:00"
    assert tags["judged_until"] == "2024-09-30T00:00:00"
    assert int(tags["train_rows"]) - int(tags["judged_train_rows"]) == 91
    card = once.registry.artifact(version(once), "model_card.md")
    assert "fitted again on every known label" in card
    assert "from 2024-10-01 on; no candidate and no search saw it" in card
    for learned in ("730 rows, 2023-01-01 to 2024-12-30", "639 rows, 2023-01-01 to 2024-09-30"):
        assert learned in card


def test_what_serves_has_learned_the_holdout_and_its_twin_has_not(once: Platform) -> None:
    features = once.frame("features", COUNTRY)
    features = features[features["event_time"] <= "2024-12-31"]
    expected = both_by_hand(features, "2024-12-31", "2024-10-01")
    for files, name in ((version(once), "served"), (evaluation_model(version(once)), "judged")):
        loaded = once.registry.load(files)
        predicted = loaded.estimator.predict(features[list(loaded.features)])
        np.testing.assert_array_equal(predicted, expected[name].to_numpy())


def test_rows_known_at_the_training_are_hindcasts_and_newer_ones_are_served(
    once: Platform, newer: pd.DataFrame
) -> None:
    features = once.frame("features", COUNTRY)
    expected = both_by_hand(features, "2024-12-31", "2024-10-01")
    assert newer["event_time"].min() == pd.Timestamp("2024-10-01")
    at = newer.set_index("event_time")
    hindcast = at.loc[:"2024-12-30"]
    assert set(hindcast["made"]) == {"hindcast"}
    np.testing.assert_array_equal(
        hindcast["prediction"], expected["judged"].loc["2024-10-01":"2024-12-30"]
    )
    since = at.loc["2024-12-31":]
    np.testing.assert_array_equal(since["prediction"], expected["served"].loc["2024-12-31":])
    labels = features.set_index("event_time")["label"]
    assert since["made"].tolist() == [
        "late" if known else "ahead" for known in labels.loc["2024-12-31":].notna()
    ]
    assert {"late", "ahead"} <= set(since["made"])
    assert (newer["previous_version"] == "").all()
    assert newer["previous_prediction"].isna().all()


def test_intervals_of_newer_rows_follow_from_the_errors_of_the_hindcasts(
    once: Platform, newer: pd.DataFrame
) -> None:
    """Those of validation, of the twin on the holdout and of the served model, in one sequence."""
    labels = once.frame("features", COUNTRY).set_index("event_time")[["label", "label_time"]]
    at = newer.set_index("event_time").join(labels)
    last = at.iloc[-1]
    stored = pd.read_csv(artifact(once, version(once), "residuals.csv"))
    assert pd.to_datetime(stored["event_time"]).max() < pd.Timestamp("2024-10-01")
    known = at[at["label"].notna() & (at["label_time"] <= at.index[-1])]
    errors = [*stored["residual"], *(known["label"] - known["prediction"])]
    window = once.product.spec.predictions.interval_window
    inside = np.array(errors[-window:])
    low, high = last["lower"] - last["prediction"], last["upper"] - last["prediction"]
    assert np.isclose(inside, low).any()  # its ends are errors that were made
    assert np.isclose(inside, high).any()
    assert low < 0 < high


def artifact(platform: Platform, of: ModelVersion, name: str) -> Path:
    from mlflow.tracking import MlflowClient

    run = MlflowClient(platform.registry.tracking_uri).get_run(of.run_id)
    return Path(urlparse(str(run.info.artifact_uri)).path) / name


def test_the_decision_compares_what_neither_has_seen(twice: Platform) -> None:
    features = twice.frame("features", COUNTRY)
    tags = version(twice, "2").tags
    start = tags["holdout_from"]
    newest = features.loc[features["label"].notna(), "label_time"].max()
    assert pd.Timestamp(start) == newest - 91 * DAY > pd.Timestamp("2024-10-01")
    evidence = twice.frame("evidence", COUNTRY).set_index("event_time")
    assert evidence.index.min() == pd.Timestamp(start)
    first = both_by_hand(features, "2024-12-31", "2024-10-01")
    second = both_by_hand(features, str(newest), start)
    for column, expected in (("champion", first), ("candidate", second)):
        np.testing.assert_array_equal(evidence[column], expected["judged"][evidence.index])


def test_decisions_replay_and_both_versions_are_made_again(twice: Platform) -> None:
    log = twice.decisions(COUNTRY)
    computed = log[log["verdict"].isin(["promoted", "kept", "not_judged"])]
    assert len(computed) == 2
    for decision_id in log["decision_id"]:
        found = replay_decision(ProductContext(twice.product, twice.store), decision_id)
        assert found.same, found.differences
    for each in ("1", "2"):
        again = reproduce_model(
            ProductContext(twice.product, twice.store, twice.registry).country(COUNTRY), each
        )
        assert (again.verdict, again.reason) == ("identical", ""), again
        assert again.predictions.identical
        assert again.value == again.recorded_value


def test_beside_a_new_champion_the_one_before_predicts_what_neither_has_learned(
    twice: Platform,
) -> None:
    features = twice.frame("features", COUNTRY)
    predictions = twice.frame("predictions", COUNTRY)
    assert set(predictions["previous_version"]) == {"1"}
    assert set(predictions["model_version"]) == {"2"}
    told = predictions[predictions["previous_prediction"].notna()]
    assert told["made"].tolist() == ["ahead"]
    before = both_by_hand(features, "2024-12-31", "2024-10-01")["served"]
    assert told["previous_prediction"].iloc[0] == before[told["event_time"].iloc[0]]


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_model_of_before_that_is_damaged_keeps_nobody_from_predicting(
    twice: Platform, tmp_path: Path
) -> None:
    files = twice.registry.fetch(version(twice, "1")) / "model.skops"
    kept = shutil.copy(files, tmp_path)
    files.write_bytes(b"damaged")
    try:
        twice.deliver(later(generated(twice), 20), "third.parquet")
        ran(twice, assets=[*DATASETS, "predictions"])
    finally:
        shutil.copy(kept, files)
    predictions = twice.frame("predictions", COUNTRY)
    assert predictions["prediction"].notna().all()
    assert set(predictions["previous_version"]) == {"1"}
    assert predictions["previous_prediction"].isna().all()
    told = twice.told("predictions", COUNTRY)
    assert "not the one that was registered" in told["previous_is_not_there"]


@pytest.mark.nightly  # one more of a kind
def test_a_pooled_model_is_judged_and_served_likewise_and_made_again(make_platform: Make) -> None:
    platform = make_platform(ROLLING, ONE_CANDIDATE, POOLED)
    platform.deliver(generated(platform))
    for country in (COUNTRY, *OTHERS):
        platform.run(country, "train", DATASETS)
    assert platform.run(None, "pooled").success
    ran(platform)
    champion = version(platform)
    every = pooled_versions(platform.context)
    (pooled,) = load_pooled(platform.product.spec, every, platform.registry).values()
    assert champion.kind == "pooled"
    assert champion.tags["judged_uri"] == every["gbm"].tags["judged_uri"] != champion.uri
    assert (pooled.final.until, pooled.served.until) == (
        pd.Timestamp("2024-09-30"),
        pd.Timestamp("2024-12-30"),
    )
    assert pooled.known_until == pd.Timestamp("2024-12-31")
    rows = platform.frame("features", COUNTRY)
    rows = rows[rows["event_time"] >= "2024-10-01"]
    inputs = rows[list(pooled.final.features)]
    expected = np.where(
        rows["label_time"] <= "2024-12-31",
        pooled.final.estimator.predict(inputs),
        pooled.served.estimator.predict(inputs),
    )
    np.testing.assert_array_equal(platform.frame("predictions", COUNTRY)["prediction"], expected)
    again = reproduce_model(platform.context.country(COUNTRY))
    assert (again.verdict, again.kind, again.reason) == ("identical", "pooled", "")


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_without_refit_the_judged_model_serves_and_nothing_is_stored_beside_it(
    platform: Platform, sample: pd.DataFrame
) -> None:
    platform.deliver(sample)
    ran(platform)
    champion = version(platform)
    assert evaluation_model(champion) is champion
    assert champion.tags["until"] == "2024-09-30T00:00:00"
    assert champion.tags["known_until"] == "2024-12-31T00:00:00"
    predictions = platform.frame("predictions", COUNTRY)
    assert predictions["made"].value_counts().to_dict() == {"hindcast": 91, "ahead": 1}


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_country_served_by_its_baseline_has_hindcasts_and_forecasts(
    make_platform: Make,
) -> None:
    platform = make_platform(ROLLING, ("min_train_rows: 200", "min_train_rows: 20000"))
    platform.deliver(generated(platform))
    ran(platform)
    predictions = platform.frame("predictions", COUNTRY)
    assert set(predictions["model_kind"]) == {"baseline"}
    assert predictions["made"].value_counts().to_dict() == {"hindcast": 91, "ahead": 1}
    assert (predictions["previous_version"] == "").all()


def test_a_version_knew_the_labels_up_to_the_newest_at_its_training() -> None:
    event = pd.date_range("2024-01-01", periods=6)
    rows = pd.DataFrame({"event_time": event, "label_time": event + DAY, "label": 1.0})
    known = ModelVersion("a.B", "1", "there", "run", "local", {KNOWN_UNTIL: "2024-01-04"})
    assert known_to(known, rows).tolist() == [True] * 3 + [False] * 3
    assert evaluation_model(known) is known
    of_no_label = ModelVersion("a.B", "1", "there", "run", "local", {})
    assert not known_to(of_no_label, rows).any()


def test_a_damaged_judged_twin_is_noticed_without_loading_it(
    once: Platform, tmp_path: Path
) -> None:
    served, twin = version(once), evaluation_model(version(once))
    for each in (served, twin):
        once.registry.require_intact(each)
    files = once.registry.fetch(twin) / "model.skops"
    kept = shutil.copy(files, tmp_path)
    files.write_bytes(b"damaged")
    try:
        once.registry.require_intact(served)
        with pytest.raises(RegistryError, match="not the one that was registered"):
            once.registry.require_intact(twin)
        files.unlink()
        with pytest.raises(RegistryError, match="cannot be read"):
            once.registry.require_intact(twin)
    finally:
        shutil.copy(kept, files)
