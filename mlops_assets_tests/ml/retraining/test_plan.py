"""What is done in every country: one pure function, looked at from outside."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.monitoring.drift import DriftState
from mlops_assets.ml.monitoring.performance import Realised
from mlops_assets.ml.retraining.follow_up import PastTraining
from mlops_assets.ml.retraining.plan import (
    ATTEMPTS,
    PAUSE,
    Action,
    Attempts,
    CountryState,
    PooledModels,
    RetrainingPlan,
    asks,
    find_incident,
    plan_retraining,
)
from mlops_assets.ml.retraining.together import Together
from mlops_assets.ml.stats.metrics import UNKNOWN, Estimate
from mlops_assets.spec import ProductSpec
from mlops_assets_tests.effort import examples
from mlops_assets_tests.ml.scenarios import product

NOW = dt.datetime(2024, 6, 3, 12, tzinfo=dt.UTC)
END = pd.Timestamp("2024-06-03")
WEEK = pd.Timedelta(days=7)
QUIET = DriftState("quiet", "nothing that matters changed", "", end=END)
ALARM = DriftState("alarm", "price_lag_1 is 1.2 higher", "", since=END - WEEK, end=END, score=0.4)
EMPTY = replace(ALARM, upstream="price_lag_1 is empty")
ANY_TIME = {"cooldown_days": 0.0}


def spec(**retraining: Any) -> ProductSpec:
    return product(retraining=retraining)


def error(worse: bool | None = True, excess: float = 0.3, version: str = "3") -> Realised:
    return Realised(
        version, 40, 1, 0, END - 8 * WEEK, END, worse=worse, excess=excess, reason="mae 9, not 7"
    )


def quiet(country: str = "DEU", **changes: Any) -> CountryState:
    """A country with a champion and nothing to complain about."""
    held: dict[str, Any] = {
        "champion": "3",
        "previous": "2",
        "drift": QUIET,
        "realised": error(False, -0.1),
        "evidence": {"drift": "d1", "performance": "p1"},
        "last_training": NOW - dt.timedelta(days=30),
    }
    return CountryState(country, **(held | changes))


def worse(country: str = "DEU", excess: float = 0.3, **changes: Any) -> CountryState:
    return quiet(country, realised=error(True, excess), **changes)


def drifted(country: str = "DEU", **changes: Any) -> CountryState:
    return quiet(country, **({"drift": ALARM} | changes))


def planned(
    country_states: Sequence[CountryState], spec: ProductSpec | None = None, asked_today: int = 0
) -> RetrainingPlan:
    return plan_retraining(spec or product(), country_states, now=NOW, asked_today=asked_today)


def only(country_state: CountryState, spec: ProductSpec | None = None) -> Action:
    (action,) = planned([country_state], spec).actions
    return action


def kinds(found: RetrainingPlan) -> list[str]:
    return [action.kind for action in found.actions]


def many(count: int, make: Any = drifted, **changes: Any) -> list[CountryState]:
    return [make(f"C{place:02}", **changes) for place in range(count)]


# Causes


def test_a_country_without_a_cause_is_left_alone_and_told_why() -> None:
    action = only(quiet())
    assert (action.kind, action.cause, action.key) == ("nothing", None, "")
    assert "realised error as promised" in action.reason
    assert "drift quiet" in action.reason


CAUSES = {
    "error": (worse(), {}),
    "drift": (drifted(), {}),
    "new_labels": (quiet(new_labels=90), {"new_labels": 90}),
    "age": (
        quiet(learned_until=END - pd.Timedelta(days=180), known_until=END),
        {"max_age_days": 180},
    ),
    "schedule": (quiet(due=NOW - dt.timedelta(hours=1)), {}),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_asks_for_a_training_and_names_what_it_saw(cause: str) -> None:
    country_state, policy = CAUSES[cause]
    action = only(country_state, spec(**policy))
    assert (action.kind, action.cause) == ("retrain", cause)
    assert action.key.startswith("DEU ")
    assert cause in action.key
    assert action.evidence["champion"] == "3"
    assert action.reason


@pytest.mark.parametrize(
    ("country_state", "policy"),
    [
        (worse(), {"on_error": False}),
        (drifted(), {"on_drift": False}),
        (quiet(new_labels=89), {"new_labels": 90}),
        (quiet(new_labels=10_000), {}),
        (
            quiet(learned_until=END - pd.Timedelta(days=89), known_until=END),
            {"max_age_days": 180},
        ),
        (
            quiet(learned_until=END - pd.Timedelta(days=999), known_until=END),
            {"max_age_days": None},
        ),
        (quiet(drift=replace(ALARM, state="watch")), {}),
        (quiet(realised=error(None)), {}),
        (quiet(realised=error(True, version="2")), {}),
    ],
)
def test_what_is_switched_off_below_its_limit_or_of_another_version_asks_for_nothing(
    country_state: CountryState, policy: dict[str, Any]
) -> None:
    assert only(country_state, spec(**policy)).kind == "nothing"


def on_baseline(labels: int, tried: int | None) -> CountryState:
    return quiet(champion="", realised=None, drift=None, labels=labels, labels_tried=tried)


@pytest.mark.parametrize(
    ("labels", "tried", "new_labels", "asks"),
    [
        (1, None, None, True),
        (0, None, None, False),
        (124, 100, None, False),
        (125, 100, None, True),
        (1, 0, None, True),
        (125, 100, 26, False),
        (126, 100, 26, True),
        (90, 100, None, False),  # labels that were withdrawn
    ],
)
def test_a_country_on_the_baseline_is_trained_at_once_and_then_as_its_labels_grow(
    labels: int, tried: int | None, new_labels: int | None, asks: bool
) -> None:
    action = only(on_baseline(labels, tried), spec(new_labels=new_labels))
    assert (action.cause == "no_model") == (action.kind == "retrain") == asks


def test_the_same_labels_ask_once_and_a_country_with_a_champion_never_for_want_of_one() -> None:
    state = on_baseline(130, 100)
    first = only(state)
    answered = replace(state, tried={first.key: Attempts(finished=True)})
    assert only(answered).kind == "wait"
    assert only(replace(answered, labels=149)).kind == "wait"
    assert only(replace(answered, labels=150)).kind == "retrain"
    assert only(quiet(labels=1_000)).kind == "nothing"


def test_countries_on_the_baseline_keep_within_the_budget() -> None:
    found = planned([replace(on_baseline(9, None), country=f"C{n:02}") for n in range(20)])
    assert kinds(found).count("retrain") == product().retraining.at_once


def test_of_several_causes_the_strongest_is_named_and_all_are_answered() -> None:
    both = worse(drift=ALARM, due=NOW)
    action = only(both)
    assert action.cause == "error"
    assert "also drift, schedule" in action.reason
    assert len(action.covers) == 3
    answered = replace(both, tried={key: Attempts(finished=True) for key in action.covers})
    assert only(answered).kind == "wait"


def test_the_country_s_own_policy_holds_in_that_country_alone() -> None:
    own = {"C01": spec(on_drift=False)}
    found = plan_retraining(product(), many(2), now=NOW, asked_today=0, resolve=own)
    assert kinds(found) == ["retrain", "nothing"]


# The same evidence


def test_the_same_evidence_asks_once_and_new_evidence_again() -> None:
    first = only(worse())
    done = worse(tried={first.key: Attempts(finished=True, last=NOW)})
    assert only(done).kind == "wait"
    assert "already" in only(done).reason
    again = only(replace(done, evidence={"performance": "p2", "drift": "d1"}))
    assert again.kind == "retrain"
    assert again.key != first.key


def test_labels_ask_again_only_when_as_many_more_have_matured() -> None:
    policy = spec(new_labels=90)
    keys = {only(quiet(new_labels=count), policy).key for count in (90, 120, 179)}
    assert len(keys) == 1
    assert only(quiet(new_labels=180), policy).key not in keys


def test_age_asks_once_at_a_date_even_where_a_new_model_is_no_younger() -> None:
    policy, learned = spec(max_age_days=180, **ANY_TIME), END - pd.Timedelta(days=400)
    keys = {
        only(quiet(champion=str(version), learned_until=learned, known_until=END), policy).key
        for version in range(3, 6)
    }
    assert len(keys) == 1


def test_age_asks_for_all_countries_at_the_same_dates_however_old_they_are() -> None:
    """Day after day, each training done at once: from the second date on they go together."""
    policy = spec(max_age_days=60, **ANY_TIME)
    learned = {f"C{age}": END - pd.Timedelta(days=age) for age in (0, 7, 20, 31, 44, 59)}
    asked: dict[pd.Timestamp, list[str]] = {}
    for known in pd.date_range(END, periods=240):
        for country, until in learned.items():
            aged = quiet(country, learned_until=until, known_until=known)
            if only(aged, policy).cause == "age":
                asked.setdefault(known, []).append(country)
                learned[country] = known
                assert pd.Timedelta(days=30) <= known - until < pd.Timedelta(days=90)
    dates = list(asked)
    assert {(later - date).days for date, later in itertools.pairwise(dates[1:])} == {60}
    assert [len(asked[date]) for date in dates[1:]] == [len(learned)] * (len(dates) - 1)


def test_a_failed_training_is_tried_three_times_and_then_a_person_is_asked() -> None:
    base, keys = only(worse()).key, []
    for failed in range(ATTEMPTS):
        action = only(worse(tried={base: Attempts(failed=failed, last=NOW - dt.timedelta(days=1))}))
        assert action.kind == "retrain"
        assert action.covers == (base,)
        keys.append(action.key)
    assert len(set(keys)) == ATTEMPTS
    last = only(worse(tried={base: Attempts(failed=ATTEMPTS, last=NOW)}))
    assert last.kind == "ask"
    assert "failed" in last.reason


def test_the_next_attempt_waits_a_little_longer_each_time() -> None:
    base = only(worse()).key
    for failed in (1, 2):
        pause = failed * PAUSE
        early = Attempts(failed=failed, last=NOW - pause + dt.timedelta(seconds=1))
        late = replace(early, last=NOW - pause)
        assert only(worse(tried={base: early})).kind == "wait"
        assert only(worse(tried={base: late})).kind == "retrain"


# What stops a training


def test_a_country_that_is_being_trained_is_left_alone() -> None:
    assert only(worse(going_on=True)).kind == "going_on"


def test_the_cool_down_is_waited_for_and_then_over() -> None:
    last = NOW - dt.timedelta(days=7)
    assert only(worse(last_training=last + dt.timedelta(seconds=1))).kind == "wait"
    assert (
        "cool-down until 2024-06-03 12:00"
        in only(worse(last_training=last + dt.timedelta(seconds=1))).reason
    )
    assert only(worse(last_training=last)).kind == "retrain"
    assert only(worse(last_training=None)).kind == "retrain"


def test_after_so_many_refused_candidates_a_person_is_asked_once_a_cause_is_there() -> None:
    assert only(worse(refused=5, last_training=None)).kind == "retrain"
    asked = only(worse(refused=6, candidate="7"))
    assert asked.kind == "ask"
    assert "6 candidates in a row" in asked.reason
    assert asked.evidence["candidate"] == "7"
    assert only(quiet(refused=6)).kind == "nothing"


def test_a_version_that_waits_for_approval_is_not_replaced_by_another() -> None:
    asked = only(worse(waiting="8"))
    assert asked.kind == "ask"
    assert "version 8 waits" in asked.reason


# Rollback

CLEARLY_WORSE = Estimate(-0.2, -0.3, -0.1)


def test_a_champion_surely_worse_than_the_one_before_is_rolled_back_at_once() -> None:
    action = only(worse(on_previous=CLEARLY_WORSE, last_training=NOW, refused=3))
    assert (action.kind, action.cause) == ("rollback", None)
    assert "version 3 to 2" in action.key


@pytest.mark.parametrize(
    "changes",
    [
        {"on_previous": UNKNOWN},
        {"on_previous": Estimate(-0.2, -0.3, 0.01)},
        {"on_previous": Estimate(-0.2)},
        {"on_previous": CLEARLY_WORSE, "previous": ""},
        {"on_previous": CLEARLY_WORSE, "champion": ""},
        {"on_previous": CLEARLY_WORSE, "realised": error(False, version="2")},
    ],
)
def test_nothing_is_rolled_back_that_is_not_surely_worse_than_a_known_model(
    changes: dict[str, Any],
) -> None:
    assert only(quiet(**changes)).kind == "nothing"


def test_rollback_can_be_switched_off() -> None:
    assert only(quiet(on_previous=CLEARLY_WORSE), spec(rollback=False)).kind == "nothing"


def test_a_person_s_choice_is_not_rolled_back_but_the_person_is_asked() -> None:
    asked = only(quiet(on_previous=CLEARLY_WORSE, chosen_by="ana"))
    assert asked.kind == "ask"
    assert "ana" in asked.reason


def test_a_rollback_that_was_done_is_not_done_again() -> None:
    key = only(quiet(on_previous=CLEARLY_WORSE)).key
    done = quiet(on_previous=CLEARLY_WORSE, tried={key: Attempts(finished=True)})
    assert only(done).kind == "nothing"


# Incidents


def test_few_alarms_are_no_incident() -> None:
    found = planned([*many(2), *[quiet(f"Q{place}") for place in range(2)]])
    assert found.incident is None
    assert kinds(found)[:2] == ["retrain", "retrain"]
    spread = [*many(3), *[quiet(f"Q{place}") for place in range(4)]]
    assert find_incident(product(), spread) is None


def test_most_countries_alarming_without_errors_behind_it_are_one_incident_that_holds() -> None:
    found = planned(many(4))
    incident = found.incident
    assert incident is not None
    assert (incident.kind, incident.holds, incident.judged) == ("upstream", True, 4)
    assert incident.countries == ("C00", "C01", "C02", "C03")
    assert "price_lag_1" in incident.reason
    assert kinds(found) == ["hold"] * 4
    assert all(not action.key and not action.covers for action in found.actions)


def test_matured_labels_that_confirm_it_make_it_a_regime_and_training_goes_on() -> None:
    confirmed = [
        worse(s.country, excess=place / 10, drift=ALARM) for place, s in enumerate(many(4))
    ]
    found = planned(confirmed, spec(at_once=2))
    assert found.incident is not None
    assert (found.incident.kind, found.incident.holds) == ("regime", False)
    assert kinds(found) == ["wait", "wait", "retrain", "retrain"]


def test_errors_that_grew_along_with_the_baseline_s_are_a_regime_and_a_broken_feed_is_not() -> None:
    """As when prices rise tenfold: no model is to blame, and all have to learn the new world."""
    grown = replace(error(False, -0.1), harder=True)
    found = planned(many(6, drifted, realised=grown))
    assert found.incident is not None
    assert (found.incident.kind, found.incident.holds) == ("regime", False)
    assert "6 are significantly larger along with the baseline's" in found.incident.reason
    assert "retrain" in kinds(found)
    broken = planned(many(6, drifted, realised=grown, drift=EMPTY)).incident
    assert broken is not None
    assert (broken.kind, broken.holds) == ("upstream", True)


def test_half_of_those_judged_are_enough_to_confirm_and_fewer_are_not() -> None:
    half = [worse("A", drift=ALARM), worse("B", drift=ALARM), drifted("C"), drifted("D")]
    assert not planned(half).incident.holds  # pyright: ignore[reportOptionalMemberAccess]
    fewer = [half[0], *many(3)]
    assert planned(fewer).incident.holds  # pyright: ignore[reportOptionalMemberAccess]
    unjudged = [worse("A", drift=ALARM), *many(3, realised=error(None))]
    assert not planned(unjudged).incident.holds  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.parametrize("cause", CAUSES)
def test_an_incident_that_models_have_stood_holds_drift_alone(cause: str) -> None:
    country_state, policy = CAUSES[cause]
    old = replace(ALARM, since=END - 4 * WEEK)
    outside = replace(country_state, country="ZZZ")
    found = planned([*many(4, drift=old), outside], spec(**policy))
    assert found.incident is not None
    assert (found.incident.holds, found.incident.harmless) == (True, True)
    assert kinds(found)[:4] == ["hold"] * 4
    assert found.actions[-1].kind == ("hold" if cause == "drift" else "retrain")
    younger = planned([*many(4, drift=replace(old, since=END - 3 * WEEK)), outside], spec(**policy))
    assert younger.actions[-1].kind == "hold"
    broken = [*many(4, drift=replace(EMPTY, since=END - 4 * WEEK)), outside]
    assert planned(broken, spec(**policy)).actions[-1].kind == "hold"


@pytest.mark.parametrize("cause", CAUSES)
def test_an_incident_before_the_models_holds_every_cause_in_every_country(cause: str) -> None:
    country_state, policy = CAUSES[cause]
    outside = replace(country_state, country="ZZZ")
    found = planned([*many(4), outside], spec(**policy))
    assert found.actions[-1].kind == "hold"
    assert "incident" in found.actions[-1].reason


def test_data_that_look_broken_in_most_countries_hold_though_errors_seem_to_confirm_it() -> None:
    broken = [worse(s.country, drift=EMPTY) for s in many(4)]
    found = planned(broken)
    assert found.incident is not None
    assert found.incident.holds
    assert "price_lag_1 is empty" in found.incident.reason
    assert set(kinds(found)) == {"hold"}


def test_broken_looking_windows_are_an_incident_before_anything_is_an_alarm() -> None:
    first = [worse(s.country, drift=replace(EMPTY, state="watch")) for s in many(4)]
    assert set(kinds(planned(first))) == {"hold"}


def test_one_country_whose_data_look_broken_is_held_until_labels_confirm_it() -> None:
    assert only(drifted(drift=EMPTY)).kind == "hold"
    assert only(worse(drift=EMPTY)).kind == "retrain"


def test_alarms_of_other_times_are_not_one_incident() -> None:
    apart = [
        drifted(f"C{place}", drift=replace(ALARM, end=END - place * 10 * WEEK))
        for place in range(4)
    ]
    assert find_incident(product(), apart) is None


def test_countries_that_were_not_judged_do_not_count() -> None:
    unknown = replace(QUIET, state="not_judged")
    found = find_incident(product(), [*many(3), *many(20, quiet, drift=unknown)])
    assert found is not None
    assert found.judged == 3


def test_an_incident_keeps_its_name_while_countries_join_and_leave() -> None:
    names = {
        find_incident(product(), many(count)).id  # pyright: ignore[reportOptionalMemberAccess]
        for count in (3, 4, 9)
    }
    late = drifted("NEW", drift=replace(ALARM, since=END))
    found = find_incident(product(), [*many(4)[1:], late])
    assert found is not None
    assert names == {found.id}


def test_when_the_alarms_end_the_hold_ends_and_what_waited_is_asked_for() -> None:
    held = planned([*many(4), worse("ZZZ")])
    assert held.actions[-1].kind == "hold"
    after = planned([*many(4, quiet), worse("ZZZ")])
    assert after.incident is None
    assert after.actions[-1].kind == "retrain"


def test_a_rollback_is_held_where_the_data_look_broken() -> None:
    found = planned([*many(3), drifted("ZZZ", on_previous=CLEARLY_WORSE)])
    assert found.actions[-1].kind == "hold"


# Budget


def test_those_with_most_to_lose_go_first() -> None:
    found = planned(
        [
            worse("A", excess=0.1),
            drifted("B", drift=replace(ALARM, score=0.2)),
            worse("C", excess=0.5),
            *[quiet(f"Q{place}") for place in range(9)],
        ],
        spec(at_once=2),
    )
    assert kinds(found)[:3] == ["retrain", "wait", "retrain"]
    assert "at_once" in found.actions[1].reason


def test_drift_orders_those_whose_error_is_not_known() -> None:
    unknown = error(None, math.nan)
    country_states = [
        drifted("A", drift=replace(ALARM, score=0.2), realised=unknown),
        drifted("B", drift=replace(ALARM, score=0.9), realised=unknown),
        *many(9, quiet),
    ]
    assert kinds(planned(country_states, spec(at_once=1)))[:2] == ["wait", "retrain"]


def test_what_goes_on_counts_for_the_budget_and_so_does_what_was_asked_today() -> None:
    rest = [worse("A"), worse("B"), worse("C")]
    running = [quiet("R", going_on=True), *rest]
    assert kinds(planned(running, spec(at_once=2))) == ["going_on", "retrain", "wait", "wait"]
    spent = planned(rest, spec(per_day=10), asked_today=9)
    assert kinds(spent) == ["retrain", "wait", "wait"]
    assert "per_day" in spent.actions[-1].reason
    assert kinds(planned(rest, spec(per_day=10), asked_today=12)) == ["wait"] * 3


def test_only_the_countries_asked_for_use_the_budget() -> None:
    country_states = [worse("A", excess=0.9), quiet("B", due=NOW)]
    found = plan_retraining(spec(at_once=1), country_states, now=NOW, asked_today=0, only={"B"})
    assert kinds(found) == ["wait", "retrain"]


# Pooled models

OLD = PooledModels(NOW - dt.timedelta(days=29))


def beside_pooled(
    country_states: Sequence[CountryState], pooled: PooledModels | None, **retraining: Any
) -> RetrainingPlan:
    return plan_retraining(
        spec(**retraining), country_states, now=NOW, asked_today=0, pooled=pooled
    )


@pytest.mark.parametrize("pooled", [OLD, PooledModels()])
def test_old_pooled_models_are_trained_before_a_country_that_asks(pooled: PooledModels) -> None:
    found = beside_pooled([worse("A"), quiet("B"), quiet("C")], pooled)
    assert found.pooled is not None
    assert kinds(found) == ["wait", "nothing", "nothing"]
    assert found.actions[0].reason.startswith("waits for the pooled models")
    assert "mae 9, not 7" in found.actions[0].reason
    assert found.actions[0].key == ""


def test_new_pooled_models_are_used_and_nobody_who_asks_needs_none() -> None:
    young = PooledModels(NOW - dt.timedelta(days=27))
    assert kinds(beside_pooled([worse("A"), quiet("B"), quiet("C")], young)) == [
        "retrain",
        "nothing",
        "nothing",
    ]
    assert beside_pooled([quiet("A"), quiet("B")], OLD).pooled is None
    assert kinds(beside_pooled([worse("A")], None)) == ["retrain"]
    assert beside_pooled([worse("A"), quiet("B")], young, pooled_age_days=26).pooled is not None


def test_when_most_countries_ask_pooled_models_older_than_a_cool_down_come_first() -> None:
    for days, first in ((6, False), (7, True)):
        pooled = PooledModels(NOW - dt.timedelta(days=days))
        assert (beside_pooled(many(3, worse), pooled).pooled is not None) == first
        half = [worse("A"), worse("B"), quiet("C"), quiet("D")]
        assert beside_pooled(half, pooled).pooled is None


def test_after_pooled_models_that_could_not_be_trained_the_countries_go_on_for_a_day() -> None:
    for hours, kind in ((23, "retrain"), (25, "wait")):
        failed = PooledModels(NOW - dt.timedelta(hours=hours), failed=True)
        assert kinds(beside_pooled(many(3, worse), failed, **ANY_TIME)) == [kind] * 3


def test_pooled_models_are_asked_for_once_and_waited_for_while_they_are_trained() -> None:
    asked = beside_pooled([worse("A")], OLD).pooled
    again = beside_pooled([worse("B"), worse("C")], OLD).pooled
    assert asked is not None
    assert again is not None
    assert asked.key == again.key != ""
    found = beside_pooled([worse("A")], replace(OLD, going_on=True))
    assert (found.pooled and found.pooled.key, kinds(found)) == ("", ["wait"])
    later = beside_pooled([worse("A")], PooledModels(NOW - dt.timedelta(days=40))).pooled
    assert later is not None
    assert later.key != asked.key


def too_small(country: str, excess: float, **changes: Any) -> CountryState:
    """A country that is not judged alone, with a model that is worse by a share than promised."""
    realised = replace(error(None), rows=8, expected=Estimate(1.0), compared=Estimate(1 + excess))
    return quiet(country, **({"realised": realised} | changes))


def test_countries_too_small_to_be_judged_ask_together_after_new_pooled_models() -> None:
    small = [too_small(f"C{place:02}", 0.4) for place in range(12)]
    young = PooledModels(NOW - dt.timedelta(days=8))
    found = beside_pooled([*small, quiet("Z")], young)
    assert found.pooled is not None
    assert "not judged alone are together 40 % worse" in found.pooled.reason
    trained = beside_pooled([*small, quiet("Z")], None, at_once=20)
    assert kinds(trained) == ["retrain"] * 12 + ["nothing"]
    assert {each.cause for each in trained.actions[:12]} == {"error"}
    assert kinds(beside_pooled(small[:7], None)) == ["nothing"] * 7
    fine = [too_small(f"C{place:02}", 0.0) for place in range(12)]
    assert kinds(beside_pooled(fine, None)) == ["nothing"] * 12
    assert kinds(beside_pooled(small, None, on_error=False)) == ["nothing"] * 12


def test_a_country_that_has_the_newest_pooled_model_waits_for_a_newer_one() -> None:
    made = NOW - dt.timedelta(days=20)
    since = {"last_training": NOW - dt.timedelta(days=19), "serves_pooled": True}
    pooled = PooledModels(made)
    found = beside_pooled([worse("A", **since), *many(3, quiet)], pooled)
    assert (found.pooled, found.actions[0].kind) == (None, "wait")
    assert "newer pooled models than those of 2024-05-14" in found.actions[0].reason
    local = worse("A", **{**since, "serves_pooled": False})
    earlier = worse("A", last_training=made - dt.timedelta(days=9), serves_pooled=True)
    for country_state in (local, earlier):
        assert kinds(beside_pooled([country_state, *many(3, quiet)], pooled))[0] == "retrain"


def test_a_failed_run_for_a_cause_behind_a_resting_alarm_pauses_and_is_given_up_as_any() -> None:
    day = dt.timedelta(days=1)
    past = tuple(PastTraining(NOW - days * day, "error", promoted=True) for days in (30, 8))
    held = {"past": past, "last_training": NOW - 8 * day, "new_labels": 90}
    policy = spec(new_labels=90)
    due = only(worse(**held), policy)
    assert (due.kind, due.cause) == ("retrain", "new_labels")
    soon = Attempts(failed=1, last=NOW - dt.timedelta(minutes=1))
    assert only(worse(**held, tried={due.key: soon}), policy).kind == "wait"
    often = Attempts(failed=ATTEMPTS, last=NOW - day)
    assert only(worse(**held, tried={due.key: often}), policy).kind == "ask"


def test_trainings_follow_the_one_for_a_change_by_themselves() -> None:
    day = dt.timedelta(days=1)
    past = (PastTraining(NOW - 14 * day, "error", promoted=True),)
    due = only(quiet(past=past, last_training=past[-1].moment))
    assert (due.kind, due.cause) == ("retrain", "follow_up")
    assert "training 2 since the change of 2024-05-20" in due.reason
    later = only(quiet(past=past, last_training=past[-1].moment, tried={due.key: Attempts(True)}))
    assert later.kind == "wait"
    early = (PastTraining(NOW - 13 * day, "error", promoted=True),)
    assert only(quiet(past=early, last_training=early[-1].moment)).kind == "nothing"
    assert only(worse(past=early, last_training=early[-1].moment)).kind == "wait"


def test_a_rollback_waits_for_no_pooled_model() -> None:
    lost = quiet("A", on_previous=Estimate(-0.2, -0.3, -0.1))
    found = beside_pooled([lost, worse("B")], OLD)
    assert kinds(found) == ["rollback", "wait"]


# Whatever comes

TIMES = st.sampled_from([None, NOW, NOW - dt.timedelta(days=3), NOW - dt.timedelta(days=30)])
DRIFTS = st.sampled_from(
    [None, QUIET, ALARM, EMPTY, replace(ALARM, state="watch"), replace(QUIET, state="not_judged")]
)
ERRORS = st.sampled_from(
    [None, error(), error(False, -0.2), error(None, math.nan), error(True, 0.9), error(version="2")]
)


@st.composite
def country_states(draw: st.DrawFn) -> list[CountryState]:
    count = draw(st.integers(0, 12))
    return [
        CountryState(
            f"C{place:02}",
            champion=draw(st.sampled_from(["", "3"])),
            previous=draw(st.sampled_from(["", "2"])),
            new_labels=draw(st.sampled_from([0, 90, 200])),
            learned_until=draw(st.sampled_from([None, END - 100 * WEEK])),
            known_until=draw(st.sampled_from([None, END])),
            drift=draw(DRIFTS),
            realised=draw(ERRORS),
            on_previous=draw(st.sampled_from([UNKNOWN, CLEARLY_WORSE])),
            on_baseline=draw(st.sampled_from([UNKNOWN, CLEARLY_WORSE])),
            refused=draw(st.integers(0, 4)),
            last_training=draw(TIMES),
            going_on=draw(st.booleans()),
            due=draw(TIMES),
            evidence=draw(st.sampled_from([{}, {"drift": "d1", "performance": "p1"}])),
        )
        for place in range(count)
    ]


POLICIES = st.builds(
    spec,
    at_once=st.integers(1, 5),
    per_day=st.integers(1, 9),
    cooldown_days=st.sampled_from([0.0, 7.0]),
    new_labels=st.sampled_from([None, 90]),
    max_age_days=st.sampled_from([None, 180]),
    give_up_after=st.integers(1, 4),
    rollback=st.booleans(),
    withdraw=st.booleans(),
)


@given(country_states(), POLICIES, st.integers(0, 12))
@settings(max_examples=examples(200), deadline=None)
def test_every_country_gets_one_action_and_no_budget_is_exceeded(
    given_situations: list[CountryState], policy: ProductSpec, asked_today: int
) -> None:
    found = planned(given_situations, policy, asked_today)
    assert [a.country for a in found.actions] == [s.country for s in given_situations]
    trained = [a for a in found.actions if a.kind == "retrain"]
    running = sum(s.going_on for s in given_situations)
    assert not trained or len(trained) + running <= policy.retraining.at_once
    assert not trained or len(trained) + asked_today <= policy.retraining.per_day
    for country_state, action in zip(given_situations, found.actions, strict=True):
        requested = action.kind in ("retrain", "rollback", "withdraw")
        assert bool(action.key) == bool(action.covers) == requested
        assert action.reason
        assert action.group
        if requested:
            assert not country_state.going_on
        if action.kind == "retrain":
            assert country_state.refused < policy.retraining.give_up_after
            last = country_state.last_training
            assert last is None or last + policy.retraining.cooldown <= NOW
    if found.incident and found.incident.holds:
        assert not trained


@given(country_states(), POLICIES)
@settings(max_examples=examples(100), deadline=None)
def test_nobody_waits_for_a_country_with_less_to_lose(
    given_situations: list[CountryState], policy: ProductSpec
) -> None:
    found = planned(given_situations, policy)
    by_country = {s.country: s for s in given_situations}

    def loss(country: str) -> tuple[float, float]:
        realised, drift = by_country[country].realised, by_country[country].drift
        of_champion = realised and realised.version == by_country[country].champion
        excess = realised.excess if realised and of_champion else 0.0
        return (0.0 if math.isnan(excess) else excess, drift.score if drift else 0.0)

    trained = [loss(a.country) for a in found.actions if a.kind == "retrain"]
    put_off = [loss(a.country) for a in found.actions if a.group.startswith("waits for the budget")]
    assert not trained or not put_off or min(trained) >= max(put_off)


@given(country_states(), POLICIES, st.integers(1, 6))
@settings(max_examples=examples(100), deadline=None)
def test_however_often_it_is_asked_the_same_evidence_leads_to_one_request(
    given_situations: list[CountryState], policy: ProductSpec, ticks: int
) -> None:
    """Every request is carried out, and leads to a decision; nothing else ever changes."""
    held, answered, trained_again = list(given_situations), set[str](), 0
    for _ in range(ticks):
        for action in planned(held, policy).actions:
            if not action.key:
                continue
            assert not answered & set(action.covers)
            answered |= set(action.covers)
            trained_again += action.kind == "retrain"
            held = [
                replace(s, tried={**s.tried, **dict.fromkeys(action.covers, Attempts(True))})
                if s.country == action.country
                else s
                for s in held
            ]
    assert trained_again <= len(given_situations)


@given(country_states(), POLICIES)
@settings(max_examples=examples(50), deadline=None)
def test_the_same_evidence_has_the_same_key_at_any_time_and_among_any_others(
    given_situations: list[CountryState], policy: ProductSpec
) -> None:
    for country_state in given_situations:
        keys = [ask.key for ask in asks(policy, country_state, NOW, Together())]
        assert len(keys) == len(set(keys))
        later = replace(country_state, last_training=None, going_on=False, refused=0)
        assert [ask.key for ask in asks(policy, later, NOW, Together())] == keys
        found = planned([country_state], policy).actions[0]
        assert set(found.covers) <= set(keys)
