"""A policy is searched on a product's own past and judged on a tail that was not searched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_assets.errors import ConfigurationError
from mlops_assets.ml.backtest.backtest import BacktestResult, run_backtest
from mlops_assets.ml.backtest.data import BacktestData, backtest_data, backtest_moments
from mlops_assets.ml.backtest.policies import Policy
from mlops_assets.ml.backtest.proposal import (
    DEFAULTS,
    IN_USE,
    MIN_SEARCHED,
    MIN_TAIL,
    MONTHLY,
    NEVER,
    PolicyWorth,
    Proposal,
    SearchBudget,
    judged_on_tail,
    part_of,
    propose,
    searchable_moments,
    tail_begin,
)
from mlops_assets.ml.backtest.space import (
    BUNDLES,
    SPACE,
    applied,
    count,
    defaults_of,
    described,
    differing,
    space_of,
    tried_policies,
)
from mlops_assets.ml.stats.metrics import UNKNOWN, Estimate
from mlops_assets.spec import ProductSpec
from mlops_assets_tests.ml.alone import Alone
from mlops_assets_tests.ml.backtest.test_backtest import spec_of

START, END = pd.Timestamp("2022-03-28"), pd.Timestamp("2022-12-31")
FORTNIGHT = pd.Timedelta(days=14)
SMALL = {
    "name": "line",
    "estimator": "sklearn.linear_model.Ridge",
    "params": {},
    "scopes": ["local"],
}


def drifting(seed: int, speed: float) -> pd.DataFrame:
    """A row a day whose label follows `x` by a weight that moves on, so many a year."""
    rng = np.random.default_rng(seed)
    event = pd.date_range("2020-09-01", "2023-01-31")
    years = (event - START) / pd.Timedelta(days=365)
    x = rng.normal(size=len(event))
    return pd.DataFrame(
        {
            "entity": "one",
            "event_time": event,
            "label_time": event + pd.Timedelta(days=1),
            "label": x * (3 + speed * np.maximum(years, 0)) + rng.normal(0, 0.3, len(event)),
            "x": x,
            "other": rng.normal(size=len(event)),
        }
    )


def world(speed: float) -> dict[str, pd.DataFrame]:
    return {country: drifting(place, speed) for place, country in enumerate(("DEU", "FRA"))}


def spec_with(**sections: Any) -> ProductSpec:
    """A product that never trains again by itself."""
    quiet = {"on_error": False, "on_drift": False, "max_age_days": None}
    short = {
        "holdout_days": 49, "train_days": 150, "validation_days": 20, "refit": True,
        "min_train_rows": 40, "min_holdout_rows": 20,
    }  # fmt: skip
    base = {
        "split": short, "candidates": [SMALL], "retraining": quiet, "countries": ["DEU", "FRA"],
        "decision": {"refresh_after_days": 7, "margin": 0.2},
    }  # fmt: skip
    return spec_of(**{**base, **sections})


def past_of(frames: Mapping[str, pd.DataFrame], spec: ProductSpec | None = None) -> BacktestData:
    past, _ = backtest_data(spec or spec_with(), frames, END)
    return past


def proposed(past: BacktestData, most: int = 8, **budget: Any) -> Proposal:
    moments = backtest_moments(START, END, FORTNIGHT)
    return propose(past, moments, Alone(past), SearchBudget(most, **budget))


@pytest.fixture(scope="module")
def moving() -> Proposal:
    return proposed(past_of(world(8.0)))


@pytest.fixture(scope="module")
def standing() -> Proposal:
    return proposed(past_of(world(0.0)))


# What is found


def test_where_the_world_moves_on_a_policy_that_trains_is_proposed_with_what_it_is_worth(
    moving: Proposal,
) -> None:
    assert moving.adopt, moving.reason
    assert moving.gain.lower > 0
    assert moving.proposed.value < moving.in_use.value
    assert moving.proposed.trainings > moving.in_use.trainings == 0
    assert [each.name for each in moving.tail] == ["proposed", IN_USE, DEFAULTS, NEVER, MONTHLY]
    gain = 1 - moving.proposed.value / moving.in_use.value
    assert moving.gain.value == pytest.approx(gain)
    assert str(moving.proposed.trainings) in moving.reason


def test_where_nothing_changes_a_product_that_does_not_train_keeps_what_it_has(
    standing: Proposal,
) -> None:
    assert not standing.adopt
    assert not standing.changes
    assert "nothing better" in standing.reason


def test_a_policy_that_trains_for_nothing_is_told_to_train_less() -> None:
    busy = spec_with(retraining={"max_age_days": 14, "cooldown_days": 0, "on_drift": False})
    found = proposed(past_of(world(0.0), busy), most=12)
    assert found.adopt, found.reason
    assert found.proposed.trainings < found.in_use.trainings
    assert "no worse by more than 1 %" in found.reason or "is better" in found.reason


def test_labels_of_the_tail_change_what_it_is_worth_and_never_what_is_proposed(
    moving: Proposal,
) -> None:
    frames = world(8.0)
    for frame in frames.values():
        late = frame["label_time"] > moving.tail_from
        frame.loc[late, "label"] = np.random.default_rng(5).normal(0, 50, late.sum())
    found = proposed(past_of(frames))
    assert (found.changes, found.search) == (moving.changes, moving.search)
    assert found.proposed.value != moving.proposed.value
    assert not found.adopt


@pytest.mark.nightly  # that its neighbour can fail
def test_a_label_of_the_searched_part_can_change_what_is_proposed(moving: Proposal) -> None:
    frames = world(8.0)
    for frame in frames.values():
        early = frame["label_time"] <= moving.tail_from
        frame.loc[early, "label"] = np.random.default_rng(5).normal(0, 1, early.sum())
    assert proposed(past_of(frames)).search != moving.search


def test_the_same_past_and_seed_propose_the_same(moving: Proposal) -> None:
    moments = backtest_moments(START, END, FORTNIGHT)
    past = past_of({"DEU": drifting(0, 8.0)})
    once, twice = (propose(past, moments, Alone(past), SearchBudget(4)) for _ in range(2))
    assert once == twice
    assert once.search != moving.search


def test_the_tail_is_walked_as_the_policies_alone_would_walk(moving: Proposal) -> None:
    past = past_of(world(8.0))
    alone = Policy("alone", "drift", rules=applied(past.spec, moving.changes))
    moments = backtest_moments(START, END, FORTNIGHT)
    (walk,) = run_backtest(past, [alone], moments, Alone(past))
    rows = walk.rows[walk.rows["event_time"] > moving.tail_from]
    error = float((rows["label"] - rows["prediction"]).abs().mean())
    assert moving.proposed.value == pytest.approx(error)
    late = [each for each in walk.trainings if each.moment >= moving.tail_from]
    assert moving.proposed.trainings == len(late)


def test_the_worse_half_stays_behind_and_the_policy_in_use_never(moving: Proposal) -> None:
    rows = {each.name: each.rows for each in moving.search}
    assert rows[described({})] == max(rows.values())
    assert min(rows.values()) < max(rows.values())
    assert len(rows) == 8


def test_a_search_without_time_leaves_policies_behind_early(moving: Proposal) -> None:
    ticks = iter(range(10**6))
    found = proposed(past_of(world(8.0)), seconds=1.0, clock=lambda: float(next(ticks)))
    assert sum(each.rows for each in found.search) < sum(each.rows for each in moving.search)
    assert len(found.tail) == 5


# Products of other kinds


def customers(seed: int) -> pd.DataFrame:
    """A row a customer on the first of each month, with a label 40 days later."""
    rng = np.random.default_rng(seed)
    firsts = pd.date_range("2019-01-01", "2023-01-01", freq="MS")
    event = np.repeat(firsts.to_numpy(), 30)
    x = rng.normal(size=len(event))
    return pd.DataFrame(
        {
            "entity": np.tile([f"c{n}" for n in range(30)], len(firsts)),
            "event_time": event,
            "label_time": event + pd.Timedelta(days=40),
            "label": (x + rng.normal(0, 0.5, len(event)) > 0).astype("float64"),
            "x": x,
            "other": rng.normal(size=len(event)),
        }
    )


def test_customers_at_monthly_cutoffs_with_a_pooled_model_get_a_proposal_of_their_own() -> None:
    pooled = {
        "name": "line", "estimator": "sklearn.linear_model.LogisticRegression", "params": {},
        "scopes": ["pooled"],
    }  # fmt: skip
    spec = spec_with(
        task="classification",
        metric="auc",
        candidates=[pooled],
        baselines=[{"name": "prior", "rule": "mean"}],
        predictions={"minimum": 0.0, "maximum": 1.0},
        target={"description": "buys", "unit": "probability", "matures_after": "40d"},
        split={
            "holdout_days": 200, "train_days": 700, "validation_days": 90, "refit": True,
            "min_train_rows": 40, "min_holdout_rows": 20,
        },
    )  # fmt: skip
    past = past_of({country: customers(n) for n, country in enumerate(("DEU", "FRA"))}, spec)
    moments = searchable_moments(past, pd.Timedelta(weeks=2))
    found = propose(past, moments[-22:], Alone(past), SearchBudget(2))
    assert "pooled_age_days" in {each.key for each in space_of(past)}
    assert found.in_use.value > 0.8
    assert found.in_use.rows > 0
    assert found.until - found.tail_from > 7 * pd.Timedelta(weeks=2)
    assert any(each.trainings for each in found.tail)


# When the tail speaks for it


def worth(name: str, trainings: int) -> PolicyWorth:
    return PolicyWorth(name, 1.0, trainings, 0, 100)


@pytest.mark.parametrize(
    ("gain", "ours", "theirs", "adopt"),
    [
        (Estimate(0.05, 0.01, 0.09), 20, 10, True),
        (Estimate(0.005, 0.001, 0.009), 20, 10, False),  # not worth twice the trainings
        (Estimate(0.005, 0.001, 0.009), 10, 10, True),
        (Estimate(0.05, -0.01, 0.09), 20, 10, False),
        (Estimate(0.0, -0.005, 0.005), 5, 10, True),
        (Estimate(0.0, -0.02, 0.02), 5, 10, False),
        (Estimate(-0.05, -0.09, -0.01), 5, 10, False),
        (Estimate(0.0, 0.0, 0.0), 10, 10, False),
        (UNKNOWN, 5, 10, False),
    ],
)
def test_a_policy_is_to_be_adopted_only_when_the_tail_is_certain(
    gain: Estimate, ours: int, theirs: int, adopt: bool
) -> None:
    told = {"proposed": worth("proposed", ours), IN_USE: worth(IN_USE, theirs)}
    changes = {"retraining": {"max_age_days": 60}}
    assert judged_on_tail("mae", changes, gain, told, problem="too few blocks")[0] is adopt
    assert judged_on_tail("mae", {}, gain, told)[0] is False


# Too little past


def test_too_few_moments_name_what_is_needed_and_what_there_is() -> None:
    moments = backtest_moments(START, END, FORTNIGHT)[: MIN_SEARCHED + MIN_TAIL - 1]
    with pytest.raises(ConfigurationError, match=r"needs 20 moments.*there are 19, 2022-03-28"):
        tail_begin(moments)


@pytest.mark.parametrize("moments", [20, 21, 30, 100])
def test_the_tail_is_the_newest_third_and_never_too_short(moments: int) -> None:
    every = list(pd.date_range(START, periods=moments, freq="7D"))
    tail = len(every) - every.index(tail_begin(every))
    assert tail == max(MIN_TAIL, round(moments / 3))
    assert moments - tail >= MIN_SEARCHED


def test_a_past_in_which_nobody_could_be_trained_says_so() -> None:
    spec = spec_with(split={"holdout_days": 49, "min_train_rows": 10**5, "validation_days": 20})
    with pytest.raises(ConfigurationError, match="nothing to search on"):
        proposed(past_of(world(0.0), spec))


# The space


def test_every_key_of_the_space_is_one_of_the_yaml_with_values_it_takes() -> None:
    spec = spec_with()
    for dial in space_of(past_of(world(0.0))):
        for value in dial.values:
            changed = applied(spec, {dial.section: {dial.key: value}})
            assert getattr(getattr(changed, dial.section), dial.key) == value
    known = {(dial.section, dial.key) for dial in SPACE}
    assert {(s, k) for each in BUNDLES for s, keys in each.items() for k in keys} <= known


def test_decisions_are_searched_only_by_what_gates_and_pooled_models_do_not_depend_on() -> None:
    decided = {dial.key for dial in SPACE if dial.section == "decision"}
    watched = {dial.key for dial in SPACE if dial.section == "monitoring"}
    assert decided <= {"margin", "refresh_after_days", "refresh_margin"}
    assert not watched & {"window_days", "every_days", "reference_days", "of_windows"}


def test_labels_are_counted_in_what_a_country_gets_of_them_in_a_month() -> None:
    dial = next(each for each in space_of(past_of(world(0.0))) if each.key == "new_labels")
    assert dial.values == (None, 30, 90)


def test_a_product_without_pooled_models_is_not_asked_for_their_age() -> None:
    assert "pooled_age_days" not in {each.key for each in space_of(past_of(world(0.0)))}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("most", [1, 4, 24, 60])
def test_tried_policies_begin_with_the_one_in_use_and_differ(seed: int, most: int) -> None:
    spec = spec_with()
    found = tried_policies(spec, SPACE, most, seed)
    assert found == tried_policies(spec, SPACE, most, seed)
    assert found[0] == {}
    assert len({described(each) for each in found}) == len(found) == most
    for changes in found[1:]:
        assert differing(spec, changes) == changes
        assert count(changes) > 0
    if most > 1:
        assert applied(spec, found[1]) == applied(spec, defaults_of(SPACE))


# Policies of several rules in one walk


def walks(past: BacktestData, *policies: Policy) -> tuple[BacktestResult, ...]:
    return run_backtest(past, policies, backtest_moments(START, END, FORTNIGHT), Alone(past))


def test_policies_side_by_side_do_as_each_of_them_alone_in_a_product_with_its_values() -> None:
    changes = [
        {"retraining": {"max_age_days": 60}, "decision": {"margin": 0.0}},
        {"retraining": {"on_error": True, "on_drift": True}, "monitoring": {"min_effect": 0.3}},
        {"retraining": {"max_age_days": 28}, "decision": {"refresh_after_days": None}},
        {"retraining": {"on_error": True}, "monitoring": {"tolerance": 0.5}},
    ]
    frames = world(4.0)
    past = past_of(frames)
    together = walks(
        past,
        *[Policy(str(p), "drift", rules=applied(past.spec, c)) for p, c in enumerate(changes)],
    )
    for walk, each in zip(together, changes, strict=True):
        own = past_of(frames, applied(spec_with(), each))
        (alone,) = walks(own, Policy("drift", "drift"))
        pd.testing.assert_frame_equal(walk.rows, alone.rows)
        assert part_of(walk, None, None).trainings == part_of(alone, None, None).trainings
    assert len({part_of(each, None, None).trainings for each in together}) > 2
