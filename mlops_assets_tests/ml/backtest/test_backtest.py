from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.errors import ConfigurationError
from mlops_assets.ml.backtest.backtest import BacktestResult, BacktestTraining, run_backtest
from mlops_assets.ml.backtest.data import (
    backtest_data,
    backtest_moments,
    known_at,
    naive_predictions,
    relative_split,
    true_runs,
)
from mlops_assets.ml.backtest.policies import Policy, parse_period, parse_policy
from mlops_assets.ml.backtest.report import by_country, by_month, chart, summary, trainings
from mlops_assets.ml.backtest.training import ModelInUse, Pooled, TrainingOrder, candidate_at
from mlops_assets.ml.models.split import split
from mlops_assets.ml.monitoring.performance import no_performance, realised, record_predictions
from mlops_assets.spec import ProductSpec
from mlops_assets_tests.ml.alone import Alone
from mlops_assets_tests.ml.scenarios import product

START, CHANGE, END = (pd.Timestamp(day) for day in ("2022-01-03", "2022-06-01", "2022-12-31"))
WEEK = pd.Timedelta(weeks=1)
NEVER, MONTHLY, DRIFT = (parse_policy(text) for text in ("never", "every 30d", "drift"))
CANDIDATE = {
    "name": "gbm",
    "estimator": "sklearn.ensemble.HistGradientBoostingRegressor",
    "params": {
        "max_iter": 16,
        "max_leaf_nodes": 12,
        "min_samples_leaf": 5,
        "learning_rate": 0.4,
    },
    "scopes": ["local"],
}
SPLIT = {
    "holdout_days": 56,
    "train_days": 240,
    "validation_days": 40,
    "refit": True,
    "min_train_rows": 100,
    "min_holdout_rows": 20,
}


def shifting(seed: int, change: pd.Timestamp | None, first: str = "2020-09-01") -> pd.DataFrame:
    """A row a day whose label follows `x`; twice as much from the change on, of which `era` tells.

    `era` is no hint before: it never had another value.
    """
    rng = np.random.default_rng(seed)
    event = pd.date_range(first, "2023-01-31")
    after = np.zeros(len(event)) if change is None else (event >= change).astype("float64")
    x = rng.normal(size=len(event))
    return pd.DataFrame(
        {
            "entity": "one",
            "event_time": event,
            "label_time": event + pd.Timedelta(days=1),
            "label": 3 * x * (1 + after) + rng.normal(0, 0.3, len(event)),
            "x": x,
            "other": rng.normal(size=len(event)),
            "era": after,
        }
    )


def spec_of(**changes: Any) -> ProductSpec:
    sections: dict[str, Any] = {
        "countries": ["DEU", "FRA", "LUX", "NOR"],
        "split": SPLIT,
        "baselines": [{"name": "mean", "rule": "mean"}],
        "candidates": [CANDIDATE],
        "evaluation": {"draws": 200},
        "decision": {"refresh_after_days": 7, "margin": 0.2},
        "retraining": {"max_age_days": None},
    }
    return product(**{**sections, **changes})


SPEC = spec_of()


def world(
    change: pd.Timestamp | None, countries: Sequence[str] = ("DEU", "FRA")
) -> dict[str, pd.DataFrame]:
    return {country: shifting(place, change) for place, country in enumerate(countries)}


def walked(
    frames: Mapping[str, pd.DataFrame],
    *policies: Policy,
    spec: ProductSpec = SPEC,
    end: pd.Timestamp = END,
) -> tuple[BacktestResult, ...]:
    past, _ = backtest_data(spec, frames, end)
    return run_backtest(past, policies, backtest_moments(START, end, WEEK), Alone(past))


@pytest.fixture(scope="module")
def changed() -> tuple[BacktestResult, ...]:
    return walked(world(CHANGE), NEVER, MONTHLY, DRIFT)


@pytest.fixture(scope="module")
def still() -> tuple[BacktestResult, ...]:
    return walked(world(None), NEVER, DRIFT)


def again(each: BacktestResult) -> list[BacktestTraining]:
    return [one for one in each.trainings if one.cause != "first"]


def error_since(each: BacktestResult, moment: pd.Timestamp) -> float:
    rows = each.rows[each.rows["event_time"] > moment]
    return float((rows["label"] - rows["prediction"]).abs().mean())


def without_seconds(each: BacktestResult) -> list[BacktestTraining]:
    return [replace(one, seconds=0.0) for one in each.trainings]


# What policies are worth when the world changes


@pytest.mark.nightly  # many models, to see how often
def test_a_model_that_is_never_trained_again_gets_bad_when_the_world_changes(
    changed: tuple[BacktestResult, ...],
) -> None:
    never = changed[0]
    rows = never.rows[never.rows["event_time"] < CHANGE]
    before = float((rows["label"] - rows["prediction"]).abs().mean())
    assert error_since(never, CHANGE) > 3 * before
    late = [each for each in never.watched if each.moment > CHANGE + 8 * WEEK]
    assert late
    assert all(each.worse for each in late)


def test_drift_trains_soon_after_the_change_and_not_before(
    changed: tuple[BacktestResult, ...],
) -> None:
    drift = changed[2]
    assert [each for each in again(drift) if each.moment < CHANGE] == []
    for country in ("DEU", "FRA"):
        own = [each for each in again(drift) if each.country == country]
        assert own[0].moment <= CHANGE + 6 * WEEK
        assert own[0].cause in ("error", "drift")


def test_drift_finds_the_way_back_with_fewer_than_half_of_the_trainings(
    changed: tuple[BacktestResult, ...],
) -> None:
    never, monthly, drift = changed
    later = CHANGE + 12 * WEEK
    assert error_since(drift, later) < 0.6 * error_since(never, later)
    assert error_since(drift, CHANGE) < 1.5 * error_since(monthly, CHANGE)
    assert 2 * len(again(drift)) < len(again(monthly))


@pytest.mark.nightly  # many models, to see how often
def test_with_an_age_drift_is_about_as_good_as_monthly_with_half_of_the_trainings(
    changed: tuple[BacktestResult, ...],
) -> None:
    """A model of the first weeks of a new world promises little; its age asks for the next one."""
    aged = spec_of(retraining={"max_age_days": 60})
    (drift,) = walked(world(CHANGE), DRIFT, spec=aged)
    monthly = changed[1]
    assert {each.cause for each in again(drift)} >= {"error", "age"}
    assert 2 * len(again(drift)) <= len(again(monthly))
    assert error_since(drift, CHANGE) < 1.25 * error_since(monthly, CHANGE)


def test_every_period_is_as_often_as_said_whatever_the_step(
    changed: tuple[BacktestResult, ...],
) -> None:
    monthly = changed[1]
    for country in ("DEU", "FRA"):
        moments = [each.moment for each in monthly.trainings if each.country == country]
        due = pd.date_range(START, backtest_moments(START, END, WEEK)[-1], freq="30D")
        assert len(moments) == len(due)
        delays = [moment - day for moment, day in zip(moments, due, strict=True)]
        assert all(pd.Timedelta(0) <= delay < WEEK for delay in delays)


def test_a_world_that_stays_as_it_is_gives_about_no_retraining(
    still: tuple[BacktestResult, ...],
) -> None:
    never, drift = still
    assert len(again(drift)) <= 1
    assert error_since(drift, START) == pytest.approx(error_since(never, START), rel=0.02)


def test_policies_start_with_the_very_same_models(changed: tuple[BacktestResult, ...]) -> None:
    first = [[one for one in without_seconds(each) if one.cause == "first"] for each in changed]
    assert len(first[0]) == 2
    assert first[0] == first[1] == first[2]


# No future


def test_nothing_that_happens_later_changes_what_was_done_before(
    changed: tuple[BacktestResult, ...],
) -> None:
    moment = pd.Timestamp("2022-08-01")
    frames = world(CHANGE)
    for frame in frames.values():
        later = frame["event_time"] > moment
        unknown = frame["label_time"] > moment
        noise = np.random.default_rng(9).normal(5.0, 2.0, (int(later.sum()), 3))
        frame.loc[later, ["x", "other", "era"]] = noise
        frame.loc[unknown, "label"] = -1000.0
    soon = moment + 6 * WEEK  # to see that the other world would have been seen
    other = walked(frames, NEVER, MONTHLY, DRIFT, end=soon)
    for one, two in zip(changed, other, strict=True):
        assert told_before(one, moment) == told_before(two, moment)
        ours, theirs = (
            each.rows[each.rows["event_time"] <= moment]
            .drop(columns="label")
            .reset_index(drop=True)
            for each in (one, two)
        )
        pd.testing.assert_frame_equal(ours, theirs)
        assert told_before(one, soon) != told_before(two, soon) or one.policy is NEVER


def told_before(each: BacktestResult, moment: pd.Timestamp) -> list[Any]:
    """Everything but the gains, which are looked at eight weeks later."""
    trained = [replace(one, gain=0.0) for one in without_seconds(each) if one.moment <= moment]
    return [*trained, *(one for one in each.watched if one.moment <= moment)]


@given(st.integers(0, 400), st.integers(1, 40))
def test_a_moment_knows_events_up_to_it_and_labels_that_are_known_by_it(
    day: int, maturity: int
) -> None:
    frame = shifting(0, None)
    frame["label_time"] = frame["event_time"] + pd.Timedelta(days=maturity)
    moment = frame["event_time"].iloc[0] + pd.Timedelta(days=day)
    known = known_at(frame, moment)
    assert len(known) == day + 1
    assert known["label"].notna().sum() == max(day + 1 - maturity, 0)
    assert frame["label"].notna().all()


# Countries that come later


@pytest.mark.nightly  # many models, to see how often
def test_a_country_takes_part_from_the_moment_it_has_enough_rows() -> None:
    frames = {**world(CHANGE), "LUX": shifting(5, None, first="2021-11-01")}
    never, monthly = walked(frames, NEVER, MONTHLY)
    past, _ = backtest_data(SPEC, frames, END)
    joined = next(m for m in backtest_moments(START, END, WEEK) if past.ready("LUX", m))
    assert joined > START
    for each in (never, monthly):
        (first,) = [one for one in each.trainings if one.cause == "first" and one.country == "LUX"]
        assert first.moment == joined
        rows = each.rows[each.rows["country"] == "LUX"]
        assert rows["event_time"].min() == joined + pd.Timedelta(days=1)
    assert len({one.country for one in never.trainings}) == 3


def test_a_country_without_rows_is_left_out_and_none_at_all_is_an_error() -> None:
    frames = {**world(None), "NOR": shifting(1, None).iloc[:0]}
    past, _ = backtest_data(SPEC, frames, END)
    assert past.countries == ("DEU", "FRA")
    with pytest.raises(ConfigurationError, match="No country has features"):
        backtest_data(SPEC, frames, pd.Timestamp("2019-01-01"))


def test_the_baseline_serves_where_no_candidate_passes_its_gates() -> None:
    strict = spec_of(gates={"floor": 0.0001})
    (never,) = walked(world(None, ["DEU"]), NEVER, spec=strict)
    assert [each.verdict for each in never.trainings] == ["kept"]
    assert set(never.rows["version"]) == {""}
    assert never.rows["prediction"].equals(never.rows["baseline"])
    assert {each.worse for each in never.watched} == {None}


# Shared work


@pytest.mark.nightly  # many models, to see how often
def test_policies_together_give_what_each_gives_alone(changed: tuple[BacktestResult, ...]) -> None:
    for together in changed:
        (alone,) = walked(world(CHANGE), together.policy)
        assert without_seconds(alone) == without_seconds(together)
        assert alone.watched == together.watched
        pd.testing.assert_frame_equal(alone.rows, together.rows)


POOLED = spec_of(candidates=[{**CANDIDATE, "scopes": ["pooled"]}])


@pytest.mark.nightly  # many models; `ml/retraining/test_plan.py` has who comes first
def test_pooled_models_are_trained_first_when_most_countries_are() -> None:
    end = CHANGE + 12 * WEEK
    monthly, drift = walked(world(CHANGE), MONTHLY, DRIFT, spec=POOLED, end=end)
    assert list(monthly.pooled) == sorted({each.moment for each in monthly.trainings})
    assert drift.pooled[0] == drift.trainings[0].moment
    for moment in {each.moment for each in again(drift)}:
        asked = [each.country for each in again(drift) if each.moment == moment]
        newest = max(each for each in drift.pooled if each <= moment)
        assert newest == moment or (
            len(asked) == 1
            and moment - newest <= pd.Timedelta(days=POOLED.retraining.pooled_age_days)
        )
    assert len(drift.pooled) > 1


@pytest.mark.nightly  # one more of a kind
def test_without_a_cool_down_the_pooled_models_are_trained_once_a_moment() -> None:
    policy = {"cooldown_days": 0, "max_age_days": 14}
    eager = spec_of(candidates=[{**CANDIDATE, "scopes": ["pooled"]}], retraining=policy)
    (drift,) = walked(world(CHANGE), DRIFT, spec=eager)
    assert len(drift.pooled) == len(set(drift.pooled)) > 2
    assert set(drift.pooled) <= {each.moment for each in drift.trainings}


# The same numbers by another way


def test_a_candidate_of_a_walk_is_the_one_that_a_training_makes() -> None:
    past, _ = backtest_data(SPEC, world(None), END)
    made = candidate_at(
        past, START, Pooled(), TrainingOrder("DEU", (ModelInUse(),), True), clock=time.process_time
    )
    assert made.kind == "local"
    assert made.decisions[""].verdict == "promoted"
    rows = world(None)["DEU"]
    cut = rows[rows["event_time"] <= START]
    parts = split(cut.assign(label=cut["label"].where(cut["label_time"] <= START)), SPEC.split)
    assert made.until == parts.known["event_time"].max()
    assert made.holdout_from == parts.holdout_from
    assert made.promise.rows == len(parts.holdout)
    assert len(made.predicted) == int(
        ((rows["event_time"] > START) & (rows["event_time"] <= END)).sum()
    )
    assert made.reference is not None
    assert made.reference.last == made.until


def test_what_is_watched_is_what_the_table_of_performance_says(
    changed: tuple[BacktestResult, ...],
) -> None:
    never, frames = changed[0], world(CHANGE)
    past, _ = backtest_data(SPEC, frames, END)
    order = TrainingOrder("DEU", (ModelInUse(),), False)
    promise = candidate_at(past, START, Pooled(), order, clock=time.process_time).promise
    own = never.rows[never.rows["country"] == "DEU"]
    version, table, seen = own["version"].iloc[0], no_performance(), []
    moments = backtest_moments(START, CHANGE + 8 * WEEK, WEEK)
    for moment in moments[1:]:
        features = past.known("DEU", moment)
        new = (own["event_time"] > moment - WEEK) & (own["event_time"] <= moment)
        made = own[new].assign(
            entity="one",
            made="ahead",
            predicted_at=own["event_time"],
            model_version=version,
            model_kind="local",
            lower=np.nan,
            upper=np.nan,
            previous_version="",
            previous_prediction=np.nan,
        )
        table = record_predictions(table, made, features, SPEC)
        seen.append(realised(SPEC, table, promise, version).worse)
    watched = [each for each in never.watched if each.country == "DEU"]
    assert seen == [each.worse for each in watched if each.moment <= moments[-1]]
    assert {True, False} <= set(seen)


def test_a_naive_mean_is_of_the_labels_known_at_the_event() -> None:
    past, _ = backtest_data(SPEC, world(None), END)
    told, rows = naive_predictions(past, "DEU"), past.frames["DEU"]
    assert np.isnan(told[0])
    for place in (1, 50, 500):
        moment = rows["event_time"].iloc[place]
        known = rows[rows["label_time"] <= moment]["label"]
        assert told[place] == pytest.approx(known.mean())


# The table and the chart


def test_the_table_says_what_each_policy_cost_and_gave(changed: tuple[BacktestResult, ...]) -> None:
    table: dict[str, dict[Any, Any]] = {
        row["policy"]: row for row in summary("mae", changed, WEEK).to_dict("records")
    }
    for each in changed:
        row, rows = table[each.policy.name], each.rows
        assert row["mae"] == pytest.approx((rows["label"] - rows["prediction"]).abs().mean())
        assert row["baseline"] == pytest.approx((rows["label"] - rows["baseline"]).abs().mean())
        assert row["retrainings"] == len(again(each))
        assert row["rows"] == len(rows)
        assert row["2022"] == row["mae"]
    assert table["never"]["missed"] == 2
    assert table["never"]["bad_days"] > 20 * 7
    assert table["drift"]["missed"] == 0
    assert table["drift"]["bad_days"] < table["never"]["bad_days"] / 2
    assert np.isnan(table["every 30d"]["alarms"])
    assert table["drift"]["alarms"] >= 2
    assert table["drift"]["false_alarms"] <= len(again(changed[2]))


def test_gains_are_those_of_the_rows_of_the_next_eight_weeks(
    changed: tuple[BacktestResult, ...],
) -> None:
    drift = changed[2]
    first = min(again(drift), key=lambda one: one.moment)
    assert first.verdict == "promoted"
    never = changed[0].rows
    errors = []
    for rows in (drift.rows, never):
        own = rows[rows["country"] == first.country]
        later = (own["event_time"] > first.moment) & (own["event_time"] <= first.moment + 8 * WEEK)
        errors.append((own["label"] - own["prediction"]).abs()[later])
    following = [one for one in again(drift) if one.country == first.country][1:2]
    if not following or following[0].moment > first.moment + 8 * WEEK:
        assert first.gain == pytest.approx(1 - errors[0].mean() / errors[1].mean())
    assert first.gain > 0


def test_tables_by_country_and_month_cover_every_row(changed: tuple[BacktestResult, ...]) -> None:
    countries, months = by_country("mae", changed), by_month("mae", changed)
    assert len(countries) == 3 * 2
    assert countries["rows"].sum() == sum(len(each.rows) for each in changed)
    assert len(months) == 3 * 12
    assert len(trainings(changed)) == sum(len(each.trainings) for each in changed)


def test_the_chart_names_every_policy_and_stays_small(changed: tuple[BacktestResult, ...]) -> None:
    drawn = chart("mae", "EUR", changed, title="a & b")
    assert drawn.startswith("<svg")
    assert len(drawn) < 50_000
    for name in ("never", "every 30d", "drift", "baseline", "a &amp; b"):
        assert name in drawn


# Words


@pytest.mark.parametrize(
    "text", ["always", "every", "every 30", "every 0d", "every -1d", "every d"]
)
def test_a_policy_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a"):
        parse_policy(text)


@given(st.integers(1, 400), st.sampled_from(["h", "d", "w"]))
def test_periods_are_read_with_their_unit(count: int, unit: str) -> None:
    hours = {"h": 1, "d": 24, "w": 168}[unit]
    assert parse_period(f"{count}{unit}") == pd.Timedelta(hours=count * hours)
    assert parse_policy(f"every  {count}{unit}").period == pd.Timedelta(hours=count * hours)


def test_a_fixed_split_is_read_as_distances_from_the_newest_label() -> None:
    fixed = product(
        split={"holdout_from": "2023-12-01", "train_from": "2023-01-01", "validation_days": 60},
        overrides={"FRA": {"split": {"holdout_from": "2023-11-01"}}},
    )
    relative, note = relative_split(fixed, pd.Timestamp("2024-03-01 05:00"))
    assert relative.split.holdout_days == 91
    assert relative.split.train_days == 334
    assert relative.for_country("FRA").split.holdout_days == 121
    assert relative.for_country("FRA").split.train_days == 304
    assert "holdout_from 2023-12-01 is read as holdout_days 91" in note
    assert relative_split(SPEC, pd.Timestamp("2024-03-01")) == (SPEC, "")


def test_stretches_are_first_and_last_place_of_each() -> None:
    assert true_runs([True, True, False, True, False, False, True]) == [(0, 1), (3, 3), (6, 6)]
    assert true_runs([]) == []


def test_moments_end_before_the_end() -> None:
    assert backtest_moments(START, START + 2 * WEEK, WEEK) == (START, START + WEEK)


def test_a_candidate_that_leaves_the_range_is_not_promoted_in_a_backtest_either() -> None:
    frames, moment = world(None, ["DEU"]), pd.Timestamp("2022-06-06")
    reasons, served = {}, {}
    for beyond, share in (("refuse", 0.01), ("clip", 1.0)):
        limits = {"minimum": -4.0, "maximum": 4.0, "beyond": beyond, "beyond_share": share}
        past, _ = backtest_data(spec_of(predictions=limits), frames, END)
        order = TrainingOrder("DEU", (ModelInUse(),), watched=False)
        made = candidate_at(past, moment, Pooled(), order, clock=time.monotonic)
        reasons[beyond], served[beyond] = made.decisions[""], made.predicted
        assert np.all(np.abs(made.predicted) <= 4.0)
    assert reasons["refuse"].verdict == "kept"
    assert reasons["refuse"].reason.startswith("gate within_range: on the holdout: ")
    assert reasons["clip"].verdict == "promoted"
    at_the_limit = np.abs(served["clip"]) == 4.0
    assert at_the_limit.any()
    past, _ = backtest_data(spec_of(), frames, END)
    naive = naive_predictions(past, "DEU")[-len(at_the_limit) :]
    np.testing.assert_array_equal(served["refuse"][at_the_limit], naive[at_the_limit])
    np.testing.assert_array_equal(served["refuse"][~at_the_limit], served["clip"][~at_the_limit])
