"""When a champion that is worse than the naive rule is taken out of use, and when it is not."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from mlops_assets.ml.monitoring.drift import DriftState
from mlops_assets.ml.monitoring.performance import Realised
from mlops_assets.ml.retraining.plan import (
    ATTEMPTS,
    Action,
    Attempts,
    CountryState,
    PooledModels,
    plan_retraining,
)
from mlops_assets.ml.stats.metrics import UNKNOWN, Estimate
from mlops_assets.spec import ProductSpec
from mlops_assets_tests.ml.scenarios import product

NOW = dt.datetime(2024, 6, 3, 12, tzinfo=dt.UTC)
END = pd.Timestamp("2024-06-03")
WORSE_THAN_NAIVE = Estimate(-3.2, -4.0, -2.4)
"""A champion 4.2 times worse than the naive rule."""


def planned(*found: CountryState, spec: ProductSpec | None = None, **more: Any) -> list[Action]:
    plan = plan_retraining(spec or product(), found, now=NOW, asked_today=0, **more)
    return list(plan.actions)


def country(name: str = "DEU", version: str = "1", **changes: Any) -> CountryState:
    """A country with a first champion, which nothing was in use before."""
    held: dict[str, Any] = {
        "champion": version,
        "realised": Realised("1", 40, 0, 0, END, END, worse=True, excess=3.0, reason="mae 9"),
        "on_baseline": WORSE_THAN_NAIVE,
        "evidence": {"performance": "p1"},
    }
    return CountryState(name, **(held | changes))


def test_a_first_champion_worse_than_the_naive_rule_is_withdrawn_though_none_was_before_it() -> (
    None
):
    (action,) = planned(country(last_training=NOW, refused=9))
    assert (action.kind, action.cause) == ("withdraw", None)
    assert "version 1 is significantly worse than the baseline" in action.reason
    assert action.covers == (action.key,)
    assert action.evidence["champion"] == "1"


@pytest.mark.parametrize(
    "changes",
    [
        {"on_baseline": UNKNOWN},
        {"on_baseline": Estimate(-3.2)},
        {"on_baseline": Estimate(-3.2, -7.0, 0.01)},
        {"on_baseline": Estimate(0.2, 0.1, 0.3)},
        {"champion": ""},
        {"champion": "2"},
        {"going_on": True},
    ],
)
def test_what_is_not_significantly_worse_than_the_baseline_or_not_judged_stays(
    changes: dict[str, Any],
) -> None:
    (action,) = planned(country(**changes))
    assert action.kind != "withdraw"


def test_withdrawal_can_be_switched_off() -> None:
    (action,) = planned(country(), spec=product(retraining={"withdraw": False}))
    assert action.kind == "retrain"


def test_what_a_person_put_into_use_is_not_withdrawn_but_the_person_is_asked() -> None:
    (action,) = planned(country(chosen_by="ana"))
    assert action.kind == "ask"
    assert "ana put it into use" in action.reason
    assert "worse than the baseline" in action.group


def test_an_incident_that_holds_training_holds_withdrawals() -> None:
    empty = DriftState("alarm", "x is empty", "", since=END, end=END, upstream="x is empty")
    found = planned(
        *(country(f"C{n}", drift=empty, evidence={"performance": "p"}) for n in range(3))
    )
    assert [each.kind for each in found] == ["hold"] * 3
    assert "worse than the baseline" in found[0].reason


def test_a_rollback_to_a_better_version_goes_before_a_withdrawal() -> None:
    lost = country(previous="0", on_previous=Estimate(-0.5, -0.6, -0.4))
    (first,) = planned(lost)
    assert first.kind == "rollback"
    (second,) = planned(replace(lost, tried={first.key: Attempts(finished=True)}))
    assert second.kind == "withdraw"


def test_the_same_version_is_not_withdrawn_twice_on_the_same_evidence() -> None:
    (asked,) = planned(country())
    answered = country(tried={asked.key: Attempts(finished=True)})
    (same,) = planned(answered)
    assert same.kind != "withdraw"
    (newer,) = planned(replace(answered, evidence={"performance": "p2"}))
    assert newer.kind == "withdraw"
    assert newer.key != asked.key


def test_a_withdrawal_that_fails_is_tried_again_and_then_a_person_is_asked() -> None:
    (asked,) = planned(country())
    long_ago = NOW - dt.timedelta(days=1)
    again = {asked.key: Attempts(failed=1, last=long_ago)}
    (second,) = planned(country(tried=again))
    assert (second.kind, second.key) == ("withdraw", f"{asked.key}, attempt 2")
    (last,) = planned(country(tried={asked.key: Attempts(failed=ATTEMPTS, last=long_ago)}))
    assert last.kind == "ask"


def test_a_withdrawal_waits_for_no_budget_cool_down_or_pooled_model() -> None:
    spec = product(retraining={"per_day": 1, "at_once": 1})
    waits = country("B", on_baseline=UNKNOWN)
    found = planned(country("A", last_training=NOW), waits, spec=spec, pooled=PooledModels())
    assert [each.kind for each in found] == ["withdraw", "wait"]


def test_a_country_back_on_the_baseline_is_trained_again_as_its_labels_grow() -> None:
    back = CountryState("DEU", champion="", labels=200, labels_tried=100)
    (action,) = planned(back)
    assert (action.kind, action.cause) == ("retrain", "no_model")
