"""The retraining sensor: just what is needed, never twice, nothing forgotten, and it says why."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import dagster as dg
import pandas as pd
import pytest
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from mlops_assets.ml.stats.metrics import Estimate
from mlops_assets.product import Product
from mlops_assets.registry import Aliases
from mlops_assets.spec import RetrainingSpec
from mlops_assets.stages.common.runs import leave_to_the_older
from mlops_assets.stages.promotion.decision_log import entries
from mlops_assets.stages.retraining import state as country_states
from mlops_assets.stages.staleness import Stale, Staleness
from mlops_assets_tests.platform import Platform, failures, platform_of
from mlops_assets_tests.stages.proposals import PRODUCT, aliases, decide, in_use, propose
from mlops_assets_tests.stages.watched import (
    ALARM,
    asked,
    followed_up,
    launch,
    queued,
    quiet_everywhere,
    said,
    scheduled,
    tags,
    tick,
    watch,
)

COUNTRY, OTHER, THIRD = "FRA", "DEU", "NOR"
STATES = dg.DagsterRunStatus
CLEARLY_WORSE = Estimate(-0.2, -0.3, -0.1)
NOW = dt.datetime.now(dt.UTC)


def with_policy(platform: Platform, cron: str | None = None, **policy: object) -> Platform:
    """The same platform with another policy; without a cool-down unless one is given."""
    spec = platform.product.spec
    some = {"cooldown_days": 0, "give_up_after": 3}
    chosen = RetrainingSpec.model_validate({**some, **policy})
    changed = spec.model_copy(update={"retraining": chosen, "retrain_cron": cron})
    return platform_of(replace(platform.product, spec=changed), platform.home, platform.instance)


@pytest.fixture
def watched(trained: Platform) -> Platform:
    """Three trained countries about which there is nothing to say, and no cool-down."""
    quiet_everywhere(trained)
    return with_policy(trained)


def countries(requests: list[dg.RunRequest]) -> list[str | None]:
    return [request.partition_key for request in requests]


def test_nothing_is_asked_for_where_nothing_is_wrong_and_every_country_is_named(
    watched: Platform,
) -> None:
    text = said(watched)
    assert "nothing to do, 3 (DEU, FRA, NOR)" in text
    assert "realised error as promised" in text


def test_a_country_nobody_has_looked_at_is_left_alone_and_said_so(trained: Platform) -> None:
    assert "realised error not judged yet" in said(trained)


@pytest.mark.parametrize("cause", ["error", "drift"])
def test_just_the_country_that_needs_it_is_asked_for_with_cause_and_evidence(
    watched: Platform, cause: str
) -> None:
    if cause == "error":
        watch(watched, COUNTRY, worse=True)
    else:
        watch(watched, COUNTRY, drift=ALARM)
    (request,) = asked(watched)
    assert (request.partition_key, request.job_name) == (COUNTRY, "parcels_train")
    chosen = {key.path[-1] for key in request.asset_selection or ()}
    assert chosen == {"model", "champion"}
    assert request.tags["mlops_assets/cause"] == cause
    words = request.tags["mlops_assets/trigger"]
    assert words.startswith(f"retraining sensor: {cause}: ")
    evidence = watched.version("performance" if cause == "error" else "drift", COUNTRY)
    assert evidence is not None
    assert evidence in words
    assert evidence in request.tags["mlops_assets/request"]


def test_a_candidate_that_was_asked_for_is_decided_on_with_its_trigger(watched: Platform) -> None:
    watch(watched, COUNTRY, worse=True)
    (request,) = asked(watched)
    propose(watched, COUNTRY, error=0.5)
    result = watched.run(COUNTRY, assets=["champion"], tags=tags(request))
    assert result.success, failures(result)
    newest = entries(watched.context, COUNTRY)[-1]
    assert newest.verdict == "promoted"
    assert newest.origin.trigger.startswith("retraining sensor: error: mae 9 where 7 was promised")
    assert "performance " in newest.origin.trigger


# Never twice, never forgotten


def test_repeated_ticks_and_a_restart_ask_with_the_same_key(watched: Platform) -> None:
    watch(watched, COUNTRY, worse=True)
    watch(watched, OTHER, drift=ALARM)
    keys = []
    for _ in range(3):
        for cache in (country_states._decided, country_states._by_gate, country_states._labels):
            cache.clear()  # as after a restart
        again = platform_of(watched.product, watched.home, watched.instance)
        keys.append([request.run_key for request in asked(again)])
    assert keys[0] == keys[1] == keys[2]
    assert len(set(keys[0])) == 2


@pytest.mark.parametrize(
    ("status", "text"),
    [
        # Nightly: one more state of the same two kinds.
        pytest.param(STATES.NOT_STARTED, "going on", marks=pytest.mark.nightly),
        (STATES.STARTED, "going on"),
        pytest.param(STATES.SUCCESS, "already", marks=pytest.mark.nightly),
        (STATES.CANCELED, "already"),
    ],
)
def test_what_was_asked_for_is_not_asked_for_again_whatever_becomes_of_it(
    watched: Platform, status: dg.DagsterRunStatus, text: str
) -> None:
    watch(watched, COUNTRY, worse=True)
    (request,) = asked(watched)
    queued(watched, request, status)
    assert f"{COUNTRY}" in said(watched)
    assert text in said(watched)


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_request_that_never_became_a_run_is_made_again(watched: Platform) -> None:
    watch(watched, COUNTRY, worse=True)
    assert countries(asked(watched)) == countries(asked(watched)) == [COUNTRY]


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_new_evidence_asks_again_and_another_champion_is_another_matter(watched: Platform) -> None:
    watch(watched, COUNTRY, worse=True)
    (first,) = asked(watched)
    queued(watched, first, STATES.SUCCESS)
    assert asked(watched) == []
    watch(watched, COUNTRY, worse=True, look=2)
    (second,) = asked(watched)
    assert second.run_key != first.run_key


def test_two_sensors_at_once_ask_for_the_same_and_only_the_older_run_works(
    watched: Platform,
) -> None:
    watch(watched, COUNTRY, worse=True)
    (one,), (two,) = asked(watched), asked(watched)
    assert one.run_key == two.run_key
    assert one.tags == two.tags
    first = launch(watched, one)
    assert first.success, failures(first)
    models = watched.version("model", COUNTRY), len(watched.decisions(COUNTRY))
    second = launch(watched, two)
    assert not second.success
    assert first.run_id in failures(second)
    assert (watched.version("model", COUNTRY), len(watched.decisions(COUNTRY))) == models
    run = watched.instance.get_run_by_id(second.run_id)
    assert run is not None
    assert run.tags["mlops_assets/duplicate_of"] == first.run_id
    assert asked(watched) == []


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_run_that_waits_in_the_queue_has_the_request_before_one_that_runs_already(
    watched: Platform,
) -> None:
    watch(watched, COUNTRY, worse=True)
    (request,) = asked(watched)
    older = queued(watched, request, STATES.NOT_STARTED)
    late = launch(watched, request)
    assert older in failures(late)
    assert "going on" in said(watched)


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_two_that_look_at_once_forget_no_country(watched: Platform) -> None:
    for country in (COUNTRY, OTHER):
        watch(watched, country, worse=True)
    one, two = asked(watched), asked(watched)
    queued(watched, one[0], STATES.SUCCESS)
    queued(watched, two[1], STATES.SUCCESS)
    assert {one[0].partition_key, two[1].partition_key} == {COUNTRY, OTHER}
    assert asked(watched) == []


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_run_that_a_person_starts_again_from_a_failed_one_is_not_taken_for_a_double(
    watched: Platform,
) -> None:
    watch(watched, COUNTRY, worse=True)
    (request,) = asked(watched)
    failed = queued(watched, request, STATES.FAILURE)
    again = {**tags(request), "dagster/parent_run_id": failed, "dagster/root_run_id": failed}
    job = watched.defs.resolve_job_def("parcels_train")
    run = watched.instance.create_run_for_job(
        job, tags=again, parent_run_id=failed, root_run_id=failed
    )
    assert run.parent_run_id == failed
    context = _Context(watched.instance, run)
    leave_to_the_older(context)  # pyright: ignore[reportArgumentType]


class _Context:
    def __init__(self, instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
        self.instance, self.run, self.run_id = instance, run, run.run_id


# Failures


def test_a_failed_training_is_tried_three_times_and_then_a_person_is_asked(
    watched: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlops_assets.ml.retraining.plan.PAUSE", dt.timedelta(0))
    watch(watched, COUNTRY, worse=True)
    keys = []
    for _ in range(3):
        (request,) = asked(watched)
        keys.append(request.tags["mlops_assets/request"])
        queued(watched, request, STATES.FAILURE)
    assert len(set(keys)) == 3
    text = said(watched)
    assert "a person is asked" in text
    assert "3 runs with the same evidence failed" in text


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_the_next_attempt_does_not_follow_at_once(watched: Platform) -> None:
    watch(watched, COUNTRY, worse=True)
    (request,) = asked(watched)
    queued(watched, request, STATES.FAILURE)
    assert "attempt 1 of 3 failed" in said(watched)


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_candidate_that_fails_a_gate_was_judged_and_is_not_tried_again(
    watched: Platform,
) -> None:
    watch(watched, COUNTRY, worse=True)
    (request,) = asked(watched)
    impossible = watched.product.spec.gates.model_copy(update={"min_improvement": 0.99})
    strict = watched.product.spec.model_copy(update={"gates": impossible})
    product: Product = replace(watched.product, spec=strict)
    refusing = platform_of(product, watched.home, watched.instance)
    result = launch(refusing, request)
    assert not result.success
    assert "already" in said(watched)


# Waiting


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_country_just_trained_waits_until_its_cool_down_is_over(watched: Platform) -> None:
    watch(watched, COUNTRY, worse=True)
    patient = with_policy(watched, cooldown_days=7)
    assert "cool-down until" in said(patient)
    assert countries(asked(watched)) == [COUNTRY]


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_request_starts_a_cool_down_before_anything_is_decided(watched: Platform) -> None:
    patient = with_policy(watched, cooldown_days=0.5)
    watch(watched, COUNTRY, worse=True)
    (request,) = asked(watched)
    queued(watched, request, STATES.SUCCESS)
    watch(watched, COUNTRY, worse=True, look=2)
    assert "cool-down" in said(patient)


def test_no_more_are_asked_for_than_run_at_once_those_with_most_to_lose_first(
    watched: Platform,
) -> None:
    for country, excess in ((OTHER, 0.1), (COUNTRY, 0.3), (THIRD, 0.2)):
        watch(watched, country, worse=True, excess=excess)
    two = with_policy(watched, at_once=2)
    requests = asked(two)
    assert countries(requests) == [COUNTRY, THIRD]
    for request in requests:
        queued(two, request, STATES.STARTED)
    assert "waits for the budget of 2 trainings at once" in said(two)


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_no_more_are_asked_for_than_a_day_allows_and_the_rest_the_next_day(
    watched: Platform,
) -> None:
    for country in (OTHER, COUNTRY):
        watch(watched, country, worse=True)
    one = with_policy(watched, per_day=1)
    (request,) = asked(one)
    queued(one, request, STATES.SUCCESS)
    assert "1 trainings in 24 hours" in said(one)
    now = dt.datetime.now(dt.UTC) + dt.timedelta(days=1, seconds=1)
    tomorrow = country_states.read_state(one.context, one.instance, now)
    later = [a.country for a in tomorrow.plan(one.product.spec).actions if a.kind == "retrain"]
    assert later == [COUNTRY]


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_training_that_a_person_runs_counts_for_what_runs_at_once(watched: Platform) -> None:
    watch(watched, COUNTRY, worse=True)
    job = watched.defs.resolve_job_def("parcels_train")
    watched.instance.create_run_for_job(
        job, status=STATES.STARTED, tags={"dagster/partition": OTHER, "product": PRODUCT}
    )
    one = with_policy(watched, at_once=1)
    text = said(one)
    assert f"going on, 1 ({OTHER})" in text
    assert "at_once" in text


# Giving up


def refuse(platform: Platform, country: str, times: int, trigger: str) -> None:
    """Candidates that are significantly worse than the champion."""
    for _ in range(times):
        propose(platform, country, error=1.5)
        result = platform.run(
            country, job="train", assets=["champion"], tags={"mlops_assets/trigger": trigger}
        )
        assert result.success, failures(result)
        assert in_use(platform, country) == "1"


def test_after_three_refused_candidates_a_person_is_asked_and_nothing_more(
    watched: Platform,
) -> None:
    refuse(watched, COUNTRY, 2, "retraining sensor: error: x")
    watch(watched, COUNTRY, worse=True)
    assert countries(asked(watched)) == [COUNTRY]
    refuse(watched, COUNTRY, 1, "periodic schedule: schedule: x")
    watch(watched, COUNTRY, worse=True)
    text = said(watched)
    assert "a person is asked, 1: FRA: given up: 3 candidates in a row" in text


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_training_by_hand_lets_the_counting_begin_anew(watched: Platform) -> None:
    refuse(watched, COUNTRY, 3, "retraining sensor: error: x")
    watch(watched, COUNTRY, worse=True)
    assert asked(watched) == []
    propose(watched, COUNTRY, error=1.5)
    decide(watched, COUNTRY)
    assert countries(asked(watched)) == [COUNTRY]


# Incidents


def test_most_countries_alarming_is_shown_as_one_incident_and_holds_all(watched: Platform) -> None:
    for country in (COUNTRY, OTHER, THIRD):
        watch(watched, country, drift=ALARM)
    text = said(watched)
    assert "Incident (upstream; automatic training holds): 3 of 3 judged countries" in text
    assert "demand_lag_0" in text
    assert "held, 3 (DEU, FRA, NOR)" in text


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_with_errors_behind_it_training_goes_on_within_the_budget(watched: Platform) -> None:
    for country in (COUNTRY, OTHER, THIRD):
        watch(watched, country, drift=ALARM, worse=True)
    found = tick(with_policy(watched, at_once=2))
    assert isinstance(found, dg.SensorResult)
    assert len(found.run_requests or ()) == 2
    assert found.cursor is not None
    assert "Incident (regime; training goes on)" in found.cursor
    assert "waits for the budget" in found.cursor


# Rollback


def test_a_champion_clearly_worse_than_the_one_before_is_rolled_back_by_itself(
    two: Platform,
) -> None:
    quiet_everywhere(two)
    watch(two, COUNTRY, on_previous=CLEARLY_WORSE)
    (request,) = asked(two)
    assert request.job_name == "parcels_rollback"
    result = launch(two, request)
    assert result.success
    assert aliases(two, COUNTRY) == Aliases("1", "2", "2")
    newest = entries(two.context, COUNTRY)[-1]
    assert newest.origin.person == "retraining sensor"
    assert "significantly worse than version 1" in newest.comparison.decision.reason
    assert newest.origin.trigger.startswith("retraining sensor: rollback: ")
    assert asked(two) == []


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_rollback_that_is_asked_for_twice_is_done_once(two: Platform) -> None:
    quiet_everywhere(two)
    watch(two, COUNTRY, on_previous=CLEARLY_WORSE)
    (one,), (other,) = asked(two), asked(two)
    assert launch(two, one).success
    assert not launch(two, other).success
    assert aliases(two, COUNTRY) == Aliases("1", "2", "2")


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_what_was_found_of_another_version_rolls_nothing_back(two: Platform) -> None:
    quiet_everywhere(two)
    watch(two, COUNTRY, on_previous=CLEARLY_WORSE)
    propose(two, COUNTRY, error=0.2)
    decide(two, COUNTRY)
    assert in_use(two, COUNTRY) == "3"
    assert asked(two) == []


# The schedule

MONDAY = (NOW - dt.timedelta(days=NOW.weekday() + 7)).replace(
    hour=4, minute=0, second=0, microsecond=0
)
CRON = "0 4 * * 1"


def start_schedule(platform: Platform, at: dt.datetime) -> None:
    """As a person does with the switch."""
    place = ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="somewhere"))
    origin = RemoteInstigatorOrigin(
        RemoteRepositoryOrigin(place, "__repository__"), f"{PRODUCT}_periodic"
    )
    data = ScheduleInstigatorData(CRON, start_timestamp=at.timestamp())
    state = InstigatorState(origin, InstigatorType.SCHEDULE, InstigatorStatus.RUNNING, data)
    platform.instance.add_instigator_state(state)


def test_the_schedule_asks_for_every_country_as_far_as_the_budget_goes(watched: Platform) -> None:
    weekly = with_policy(watched, CRON, at_once=2)
    later = MONDAY + dt.timedelta(days=14)
    requests = scheduled(weekly, later)
    assert isinstance(requests, list)
    assert countries(requests) == [OTHER, COUNTRY]
    assert {request.tags["mlops_assets/cause"] for request in requests} == {"schedule"}
    assert all(request.asset_selection is None for request in requests)
    for request in requests:
        queued(weekly, replace_job(request), STATES.SUCCESS)
    rest = scheduled(weekly, later)
    assert isinstance(rest, list)
    assert countries(rest) == [THIRD]
    queued(weekly, replace_job(rest[0]), STATES.SUCCESS)
    assert isinstance(scheduled(weekly, later), dg.SkipReason)


def replace_job(request: dg.RunRequest) -> dg.RunRequest:
    return request._replace(job_name="parcels_train")


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_the_sensor_asks_for_what_the_schedule_left_over_once_it_is_switched_on(
    watched: Platform,
) -> None:
    weekly = with_policy(watched, CRON)
    due = country_states.due_by_schedule(weekly.product, weekly.instance, NOW)
    assert due is None
    start_schedule(weekly, NOW - dt.timedelta(seconds=1))
    assert country_states.due_by_schedule(weekly.product, weekly.instance, NOW) is None
    later = NOW + dt.timedelta(days=7)
    found = country_states.due_by_schedule(weekly.product, weekly.instance, later)
    assert found is not None
    assert (found.weekday(), found.hour, NOW < found <= later) == (0, 4, True)
    view = country_states.read_state(weekly.context, weekly.instance, later)
    actions = view.plan(weekly.product.spec).actions
    assert {action.cause for action in actions} == {"schedule"}
    by_schedule = scheduled(weekly, found)
    assert isinstance(by_schedule, list)
    assert {each.tags["mlops_assets/asked_schedule"] for each in by_schedule} == {
        f"parcels {key}" for action in actions for key in action.covers
    }


# Labels and age


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_new_labels_and_age_are_those_since_the_champions_training(watched: Platform) -> None:
    champion = watched.registry.champion(PRODUCT, COUNTRY)
    assert champion is not None
    features = watched.frame("features", COUNTRY)
    known = features[features["label"].notna()]
    aged = with_policy(watched, new_labels=1, max_age_days=1)
    look = country_states.read_state(aged.context, watched.instance, NOW)
    found = next(s for s in look.country_states if s.country == COUNTRY)
    assert found.known_until == known["event_time"].max()
    assert found.learned_until == pd.Timestamp(champion.tags["until"])
    since = pd.Timestamp(champion.tags["known_until"])
    assert found.new_labels == sum(time > since for time in known["label_time"])
    assert found.new_labels == 0


# Predictions follow the champion


def test_predictions_follow_a_champion_that_was_put_into_use(
    watched: Platform,
) -> None:
    assert followed_up(watched) == []
    propose(watched, COUNTRY, error=0.01)
    decide(watched, COUNTRY)
    (request,) = followed_up(watched)
    assert (request.partition_key, request.job_name) == (COUNTRY, "parcels_predict")
    chosen = {key.path[-1] for key in request.asset_selection or ()}
    assert chosen == {"predictions", "performance", "drift"}
    assert request.run_key
    queued(watched, request, STATES.FAILURE)
    assert followed_up(watched) == []


def test_predictions_follow_another_serving_baseline(
    watched: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = {"champion": "baseline", "previous": "", "baseline": "last_week"}

    def stale(state: Staleness, country: str, _assets: object = ()) -> Stale | None:
        return Stale("predictions", ("baseline",)) if country == COUNTRY else None

    monkeypatch.setattr(Staleness, "first", stale)
    keys = set()
    for name in ("last_week", "last_year"):
        now = {**served, "baseline": name}
        monkeypatch.setattr(Staleness, "inputs", lambda *_, now=now: now)
        (request,) = followed_up(watched)
        assert request.partition_key == COUNTRY
        keys.add(request.run_key)
    assert len(keys) == 2


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_nothing_follows_while_a_run_is_at_the_country(watched: Platform) -> None:
    propose(watched, COUNTRY, error=0.01)
    decide(watched, COUNTRY)
    (request,) = followed_up(watched)
    queued(watched, request, STATES.STARTED)
    assert followed_up(watched) == []


# Pooled models


@pytest.fixture
def pooled(watched: Platform) -> Platform:
    """The three countries, one of which has features that the pooled model has not learned."""
    spec = watched.product.spec
    (local,) = spec.candidates
    both = local.model_copy(update={"name": "pooled_gbm", "scopes": ["pooled"]})
    changed = spec.model_copy(update={"candidates": [local, both]})
    platform = platform_of(replace(watched.product, spec=changed), watched.home, watched.instance)
    made = platform.run(None, job="pooled")
    assert made.success, failures(made)
    features = platform.frame("features", OTHER)
    held = platform.store.current((PRODUCT, "features"), OTHER)
    assert held is not None
    platform.store.write((PRODUCT, "features"), OTHER, features.iloc[:-1], metadata=held.metadata)
    return platform


def words(platform: Platform) -> str:
    found = tick(platform)
    return str(found.cursor if isinstance(found, dg.SensorResult) else found.skip_message)


def by_job(platform: Platform) -> dict[str, dg.RunRequest]:
    return {str(request.job_name): request for request in asked(platform)}


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_old_pooled_models_are_asked_for_first_once_and_then_the_countries(
    pooled: Platform,
) -> None:
    for country in (COUNTRY, OTHER):
        watch(pooled, country, worse=True)
    first, again = by_job(pooled), by_job(pooled)
    assert list(first) == ["parcels_pooled"]
    assert first["parcels_pooled"].run_key == again["parcels_pooled"].run_key
    text = words(pooled)
    assert "pooled models asked for: 2 of 3 countries ask" in text
    assert "waits for the pooled models" in text
    waiting = queued(pooled, first["parcels_pooled"], STATES.STARTED)
    assert "waits for the pooled models: the pooled models are being trained" in words(pooled)
    pooled.instance.delete_run(waiting)
    run = launch(pooled, first["parcels_pooled"])
    assert run.success, failures(run)
    assert [request.partition_key for request in asked(pooled)] == [OTHER, COUNTRY]


@pytest.mark.nightly  # one more of a kind
def test_pooled_models_that_cannot_be_trained_keep_no_country_waiting(pooled: Platform) -> None:
    late = with_policy(pooled, cooldown_days=1)
    for country in (COUNTRY, OTHER):
        watch(late, country, worse=True)
    assert "cool-down" in words(late)
    at_once = with_policy(pooled, cooldown_days=0, pooled_age_days=28)
    failed = queued(at_once, by_job(at_once)["parcels_pooled"], STATES.FAILURE)
    assert failed
    assert [request.partition_key for request in asked(at_once)] == [OTHER, COUNTRY]


@pytest.mark.nightly  # one more of a kind
def test_two_that_ask_for_pooled_models_at_once_train_them_once(pooled: Platform) -> None:
    for country in (COUNTRY, OTHER):
        watch(pooled, country, worse=True)
    request = by_job(pooled)["parcels_pooled"]
    assert launch(pooled, request).success
    second = launch(pooled, request)
    assert "was asked for the same before" in failures(second)


def test_a_country_that_was_never_trained_is_asked_for_by_the_sensor(
    platform: Platform, sample: pd.DataFrame
) -> None:
    platform.deliver(sample)
    assert platform.run(COUNTRY, assets=["raw", "validated", "quarantine", "features"]).success
    found = tick(platform)
    assert isinstance(found, dg.SensorResult)
    assert found.cursor is not None
    assert f"waiting, 1: {COUNTRY}: waits for the pooled models" in found.cursor
    assert "never trained, and 730 labels are known" in found.cursor
