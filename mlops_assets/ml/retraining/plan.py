"""Which countries are trained again, and why the others are not: one pure function.

The sensor and the replay of history ask the same function.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd

from mlops_assets.ml.monitoring.drift import DriftState
from mlops_assets.ml.monitoring.performance import Realised
from mlops_assets.ml.retraining.follow_up import (
    PastTraining,
    alarm_rest,
    follow_up_due,
    newest_change,
)
from mlops_assets.ml.retraining.together import Together, judged_together
from mlops_assets.ml.retraining.way_back import ask_withdrawal
from mlops_assets.ml.stats.metrics import UNKNOWN, Estimate
from mlops_assets.spec import Cause, ProductSpec, RetrainingSpec

ActionKind = Literal[
    "retrain", "rollback", "withdraw", "going_on", "wait", "hold", "ask", "nothing"
]
ACTION_KINDS: tuple[ActionKind, ...] = (
    "retrain",
    "rollback",
    "withdraw",
    "ask",
    "hold",
    "wait",
    "going_on",
    "nothing",
)
"""What can be done about a country; what a person should see first goes first."""
ATTEMPTS = 3
"""Trainings with the same evidence that may fail before a person is asked."""
MOST = 0.5
"""When more than this share of the countries ask at once, pooled models older than a cool-down are
trained first."""
PAUSE = dt.timedelta(minutes=10)
"""After the first failed training with the same evidence; as often longer as there were more."""
GROWTH = 0.25
"""By so much the labels of a country on the baseline grow until it is trained again, where the YAML
has no `new_labels`: the fewer there were, the sooner, and ever more seldom."""
_DAY = pd.Timedelta(days=1)
_EPOCH = pd.Timestamp("1970-01-01")


@dataclass(frozen=True)
class Attempts:
    """What became of the runs that were asked for with the same evidence.

    Args:
        finished: whether one of them led to a decision.
        failed: how many failed before there was one.
        last: when the newest was asked for; None for none.
    """

    finished: bool = False
    failed: int = 0
    last: dt.datetime | None = None


_NEVER = Attempts()


@dataclass(frozen=True)
class CountryState:
    """All that is known of one country when it is decided whether to train it again.

    Args:
        country: its key.
        champion: version in use; "" for the baseline.
        previous: version in use before; "" for none.
        since: when the champion came into use; None without one.
        learned_until: event time of the newest row the champion learned from; None if not known.
        known_until: newest known label's event time; None without labels.
        new_labels: labels that matured since the champion's training.
        drift: state of the newest windows; None when it was never looked at.
        realised: what the champion is worth; None when it was never looked at.
        on_previous: gain of the champion on the model before it, on the same matured rows.
        on_baseline: gain of the champion on the baseline that would serve, on the same matured
            rows (`beside_baseline.against_baseline`).
        refused: candidates in a row that were judged and not promoted since the last promotion.
        last_training: when the newest training was asked for or decided; None for never.
        going_on: whether a training of the country is queued or running.
        due: when the schedule last asked for the country's training and got none; None.
        evidence: name of each input: version of the snapshot that `drift` and the realised error
            (`performance`) are from; part of a request's key, so that the same evidence asks once.
        tried: what became of earlier requests, by key of `asks`.
        candidate: newest version that was compared with the champion; "" for none.
        waiting: version that waits for a person's approval; "" for none.
        chosen_by: person who put the champion into use whatever evidence says; "" for nobody.
        labels: known labels of a country that the baseline serves; 0 for one with a champion.
        labels_tried: how many of them its newest candidate was made with; None when it never had
            one.
        past: trainings that sensor and schedule asked for and that led to a decision, in the order
            of time.
        serves_pooled: whether the champion is a pooled model.
    """

    country: str
    champion: str
    previous: str = ""
    since: dt.datetime | None = None
    learned_until: pd.Timestamp | None = None
    known_until: pd.Timestamp | None = None
    new_labels: int = 0
    drift: DriftState | None = None
    realised: Realised | None = None
    on_previous: Estimate = UNKNOWN
    on_baseline: Estimate = UNKNOWN
    refused: int = 0
    last_training: dt.datetime | None = None
    going_on: bool = False
    due: dt.datetime | None = None
    evidence: Mapping[str, str] = field(default_factory=dict)
    tried: Mapping[str, Attempts] = field(default_factory=dict)
    candidate: str = ""
    waiting: str = ""
    chosen_by: str = ""
    labels: int = 0
    labels_tried: int | None = None
    past: Sequence[PastTraining] = ()
    serves_pooled: bool = False


@dataclass(frozen=True)
class Incident:
    """Alarms of most countries in the same window, as one.

    Args:
        id: the same as long as the incident lasts: of the product and the first window's end.
        kind: upstream: no realised error confirms it, or something before the model looks broken;
            regime: matured labels confirm that the world changed, as the realised errors are
            significantly worse than promised, by themselves or along with the baseline's.
        countries: those that alarm.
        judged: how many countries were judged.
        since: end of the first window of the incident.
        reason: what looks wrong, in words, with features and numbers.
        holds: whether automatic training holds.
        harmless: labels of a whole window since then have matured in most of its countries, and
            the models do as promised: training holds for drift alone.
    """

    id: str
    kind: Literal["upstream", "regime"]
    countries: tuple[str, ...]
    judged: int
    since: pd.Timestamp
    reason: str
    holds: bool
    harmless: bool = False


@dataclass(frozen=True)
class Action:
    """What is done about one country.

    Args:
        country: its key.
        kind: retrain, rollback or withdraw (take a model out of use that is worse than the
            baseline): asked for now; going_on: a training runs; wait: a cause is there, but a
            cool-down, the budget or new evidence is waited for; hold: an incident holds it; ask:
            given up, a person is needed; nothing: no cause.
        cause: of a training; None for the others.
        reason: in a sentence, with numbers; shown in the sensor's tick.
        key: identifies the request for ever: the same evidence never asks twice; "" when nothing
            is asked for.
        evidence: for the run's tags: short names and values.
        group: the reason without numbers, the same for countries that are alike.
        covers: keys of `asks` that the request is an answer to; empty when nothing is asked for.
    """

    country: str
    kind: ActionKind
    cause: Cause | None
    reason: str
    key: str = ""
    evidence: Mapping[str, str] = field(default_factory=dict)
    group: str = ""
    covers: tuple[str, ...] = ()


@dataclass(frozen=True)
class PooledModels:
    """The pooled models of a product, which candidates of its countries may be chosen from.

    Args:
        made: when they were trained last, or a training of them that was asked for came to nothing;
            None for never.
        going_on: whether a training of them is queued or running.
        failed: whether the newest one that was asked for came to nothing; the next waits a day or a
            cool-down, and the countries go on with what there is.
        at: the same as `made` by the time of day, by which a request is told from the ones before;
            None where `made` is that.
    """

    made: dt.datetime | None = None
    going_on: bool = False
    failed: bool = False
    at: dt.datetime | None = None


@dataclass(frozen=True)
class PooledAsk:
    """The pooled models are trained before any country is.

    Args:
        key: the same until they are trained; "" while a training goes on.
        reason: in words, with numbers.
    """

    key: str
    reason: str


@dataclass(frozen=True)
class RetrainingPlan:
    """What is done in every country, in the order of the countries given.

    Args:
        actions: one a country.
        incident: most countries' alarms as one; None without one.
        pooled: what the trainings of countries wait for; None for nothing.
    """

    actions: tuple[Action, ...]
    incident: Incident | None = None
    pooled: PooledAsk | None = None


@dataclass(frozen=True)
class Ask:
    """Something that asks for a training, for a rollback, or for a withdrawal.

    Args:
        cause: of a training; None for the others.
        key: the same for the same evidence, another one for any other.
        reason: in words, with numbers.
    """

    cause: Cause | None
    key: str
    reason: str


def plan_retraining(
    spec: ProductSpec,
    country_states: Sequence[CountryState],
    *,
    now: dt.datetime,
    asked_today: int,
    resolve: Mapping[str, ProductSpec] | None = None,
    only: Collection[str] | None = None,
    pooled: PooledModels | None = None,
) -> RetrainingPlan:
    """Decide for all countries of a product together.

    Pooled models come first where they are old: the candidate of a country that has the newest one
    in use already would be the same again, and one training of them serves all that ask.

    Args:
        spec: the whole product.
        country_states: of its countries.
        now: with time zone.
        asked_today: trainings of the product that were asked for in the last 24 hours.
        resolve: the product as it is for each country with overrides; others have `spec`.
        only: countries that may be trained now, as far as the budget goes; None: every one.
        pooled: the models of many countries; None for a product without pooled candidates.
    """
    own, incident = resolve or {}, find_incident(spec, country_states)
    seen = Seen(now, incident, small_together(spec, country_states))
    actions = [_action(own.get(s.country, spec), s, seen) for s in country_states]
    allowed = {s.country for s in country_states if only is None or s.country in only}
    first = _pooled_first(spec.retraining, pooled, actions, allowed, seen=seen)
    if first is not None:
        waiting = [_behind_pooled(each, first) for each in actions]
        return RetrainingPlan(tuple(waiting), incident, first)
    again = [_not_the_same(*each, pooled) for each in zip(country_states, actions, strict=True)]
    kept = _within_budget(spec.retraining, country_states, again, asked_today, allowed=allowed)
    return RetrainingPlan(tuple(kept), incident)


@dataclass(frozen=True)
class Seen:
    """What is the same for every country when it is decided what is done about it.

    Args:
        now: with time zone.
        incident: of the product; None without one.
        together: realised errors of the countries that are not judged alone.
    """

    now: dt.datetime
    incident: Incident | None = None
    together: Together = Together()


def asks(
    spec: ProductSpec, country_state: CountryState, now: dt.datetime, together: Together
) -> list[Ask]:
    """Everything that asks for something in a country now, the strongest first.

    Args:
        spec: the product as it is for this country.
        country_state: its own; `tried` is not looked at.
        now: with time zone.
        together: `small_together` of all countries.
    """
    back = [ask for _, ask in _ways_back(spec, country_state)]
    return [*back, *_causes(spec.retraining, country_state, Seen(now, together=together))]


def small_together(spec: ProductSpec, country_states: Sequence[CountryState]) -> Together:
    """What the champions of countries that are not judged alone are worth together."""
    return judged_together(
        spec,
        [
            found
            for each in country_states
            if each.champion and (found := _own_realised(each)) and found.worse is None
        ],
    )


def find_incident(spec: ProductSpec, country_states: Sequence[CountryState]) -> Incident | None:
    """Alarms of most countries in the same window as one; None when there are too few.

    A country counts when it alarms, and as soon as its newest window looks broken.
    """
    judged = {
        s.country: s.drift for s in country_states if s.drift and s.drift.state != "not_judged"
    }
    members = _of_one_window(spec, [s for s in country_states if _alarms(judged.get(s.country))])
    monitoring = spec.monitoring
    fewest = max(monitoring.incident_countries, monitoring.incident_share * len(judged))
    if len(members) < fewest:
        return None
    since = _usual([_since(judged[s.country]) for s in members])
    broken = _most_look_broken(members)
    upstream = broken or not _confirmed(members)
    return Incident(
        id=f"incident since {since:%Y-%m-%d}",
        kind="upstream" if upstream else "regime",
        countries=tuple(s.country for s in members),
        judged=len(judged),
        since=since,
        reason=_incident_reason(members, len(judged), since, broken),
        holds=upstream,
        harmless=upstream and not broken and _seen_through(spec, members, since),
    )


# One country


def _action(spec: ProductSpec, country_state: CountryState, seen: Seen) -> Action:
    """What is done about a country, if the budget allows it."""
    incident, now = seen.incident, seen.now
    if country_state.going_on:
        return _plain(country_state, "going_on", "a run is queued or going on")
    back = _back_action(spec, country_state, incident, now)
    if back is not None:
        return back
    causes = _causes(spec.retraining, country_state, seen)
    if not causes:
        return _plain(country_state, "nothing", *_why_nothing(country_state))
    free = [ask for ask in causes if not _holds(incident, ask)]
    return (
        _asks_person(spec, country_state, causes)
        or _held(country_state, causes, free, incident)
        or _waits(spec.retraining, country_state, free, now)
        or _asked(country_state, _rested(spec.retraining, country_state, free, now))
    )


def _back_action(
    spec: ProductSpec, country_state: CountryState, incident: Incident | None, now: dt.datetime
) -> Action | None:
    """The first way back that is open and was not gone before; None without one."""
    for kind, ask in _ways_back(spec, country_state):
        if country_state.chosen_by:
            text = f"{ask.reason}; {country_state.chosen_by} put it into use, so a person decides"
            than = "before" if kind == "rollback" else "the baseline"
            return _of_person(
                country_state, text, f"worse than {than}, and put into use by a person"
            )
        if incident and incident.holds and country_state.country in incident.countries:
            text = f"{ask.reason}, but {_describe_incident(incident)}"
            return _plain(country_state, "hold", text, _describe_incident(incident))
        tried = country_state.tried.get(ask.key, _NEVER)
        if not tried.finished:
            failed = _failed(country_state, ask, tried, now)
            return failed or replace(_asked(country_state, [ask]), kind=kind, group=kind)
    return None


def _asks_person(
    spec: ProductSpec, country_state: CountryState, causes: Sequence[Ask]
) -> Action | None:
    why = causes[0].reason
    if country_state.waiting:
        text = f"version {country_state.waiting} waits for a person's approval; {why}"
        return _of_person(country_state, text, "a version waits for approval")
    most = spec.retraining.give_up_after
    if country_state.refused >= most:
        text = (
            f"given up: {country_state.refused} candidates in a row were not promoted "
            f"(give_up_after {most}); {why}"
        )
        return _of_person(country_state, text, f"given up after {most} candidates")
    return None


def _holds(incident: Incident | None, ask: Ask) -> bool:
    if incident is None or not incident.holds:
        return False
    return ask.cause == "drift" or not incident.harmless


def _held(
    country_state: CountryState,
    causes: Sequence[Ask],
    free: Sequence[Ask],
    incident: Incident | None,
) -> Action | None:
    why = causes[0].reason
    if incident and not free:
        text = _describe_incident(incident)
        return _plain(country_state, "hold", f"{text}; {why}", text)
    realised = _own_realised(country_state)
    if (
        _alarms(country_state.drift)
        and _upstream(country_state)
        and not (realised and realised.worse)
    ):
        text = "the newest data look broken, and no realised error confirms a change"
        return _plain(country_state, "hold", f"{text}: {_upstream(country_state)}", text)
    return None


def _waits(
    policy: RetrainingSpec, country_state: CountryState, causes: Sequence[Ask], now: dt.datetime
) -> Action | None:
    unanswered = _unanswered(country_state, causes)
    if not unanswered:
        text = "trained for the same evidence already; waits for new evidence"
        return _plain(country_state, "wait", f"{text}: {causes[0].reason}", text)
    if rested := _rested(policy, country_state, unanswered, now):
        ask = rested[0]
        return _failed(country_state, ask, country_state.tried.get(ask.key, _NEVER), now)
    first = unanswered[0]
    rest = _rest(policy, country_state, first)
    until = (country_state.last_training or now) + rest
    text = f"cool-down until {until:%Y-%m-%d %H:%M}; {first.reason}"
    days = rest / dt.timedelta(days=1)
    return _plain(country_state, "wait", text, f"cool-down of {days:g} days")


def _rested(
    policy: RetrainingSpec, country_state: CountryState, causes: Sequence[Ask], now: dt.datetime
) -> list[Ask]:
    """What asks and has waited long enough since the newest training."""
    last = country_state.last_training
    return [
        ask for ask in causes if last is None or now >= last + _rest(policy, country_state, ask)
    ]


def _rest(policy: RetrainingSpec, country_state: CountryState, ask: Ask) -> dt.timedelta:
    """How long what asks waits after a training: an alarm the longer, the more there were."""
    if ask.cause not in ("error", "drift"):
        return policy.cooldown
    return alarm_rest(country_state.past, country_state.refused, policy.cooldown)


def _failed(
    country_state: CountryState, ask: Ask, tried: Attempts, now: dt.datetime
) -> Action | None:
    """What follows from runs that failed with the same evidence; None: nothing."""
    if tried.failed >= ATTEMPTS:
        text = f"{tried.failed} runs with the same evidence failed; {ask.reason}"
        action = _of_person(country_state, text, f"{ATTEMPTS} runs with the same evidence failed")
        return replace(action, evidence={**action.evidence, "failed": ask.key})
    if tried.failed and tried.last is not None and now < tried.last + tried.failed * PAUSE:
        text = f"attempt {tried.failed} of {ATTEMPTS} failed; the next follows soon"
        return _plain(country_state, "wait", f"{text}: {ask.reason}", text)
    return None


def _asked(country_state: CountryState, causes: Sequence[Ask]) -> Action:
    """A request that answers everything that asks now."""
    unanswered = _unanswered(country_state, causes)
    first = unanswered[0]
    failed = country_state.tried.get(first.key, _NEVER).failed
    also = [ask.cause for ask in unanswered[1:] if ask.cause]
    return Action(
        country_state.country,
        "retrain" if first.cause else "rollback",
        first.cause,
        first.reason + (f"; also {', '.join(also)}" if also else ""),
        key=f"{first.key}, attempt {failed + 1}" if failed else first.key,
        evidence=_evidence(country_state),
        group=first.cause or "rollback",
        covers=tuple(ask.key for ask in unanswered),
    )


def _unanswered(country_state: CountryState, causes: Sequence[Ask]) -> list[Ask]:
    return [ask for ask in causes if not country_state.tried.get(ask.key, _NEVER).finished]


def _plain(country_state: CountryState, kind: ActionKind, reason: str, group: str = "") -> Action:
    return Action(country_state.country, kind, None, reason, group=group or reason)


def _of_person(country_state: CountryState, reason: str, group: str) -> Action:
    return Action(
        country_state.country, "ask", None, reason, evidence=_evidence(country_state), group=group
    )


def _why_nothing(country_state: CountryState) -> tuple[str, str]:
    """Why a country is not trained: with numbers, and without."""
    realised, drift = _own_realised(country_state), country_state.drift
    judged = realised is not None and realised.worse is not None
    error = "realised error as promised" if judged else "realised error not judged yet"
    state = drift.state.replace("_", " ") if drift else "not looked at"
    group = f"no cause: {error}, drift {state}"
    numbers = [text for text in (realised and realised.reason, drift and drift.reason) if text]
    return f"{group}{': ' if numbers else ''}{'; '.join(numbers)}", group


def _evidence(country_state: CountryState) -> dict[str, str]:
    named = {"champion": country_state.champion, "candidate": country_state.candidate}
    return {name: text for name, text in {**named, **country_state.evidence}.items() if text}


# What asks


def _ways_back(
    spec: ProductSpec, country_state: CountryState
) -> list[tuple[Literal["rollback", "withdraw"], Ask]]:
    """To the version before, where that was significantly better; then to less than a version."""
    found: list[tuple[Literal["rollback", "withdraw"], Ask]] = []
    if rollback := _rollback(spec, country_state):
        found.append(("rollback", rollback))
    if worse := ask_withdrawal(spec.retraining, country_state):
        found.append(("withdraw", Ask(None, worse.key, worse.reason)))
    return found


def _rollback(spec: ProductSpec, country_state: CountryState) -> Ask | None:
    gain = country_state.on_previous
    if not (spec.retraining.rollback and country_state.champion and country_state.previous):
        return None
    of_another = country_state.realised is not None and _own_realised(country_state) is None
    if of_another or not (gain.has_interval and gain.upper < 0.0):
        return None
    reason = (
        f"version {country_state.champion} is significantly worse than version "
        f"{country_state.previous}, which "
        f"was in use before, on the same matured rows: gain {gain.value:.3g}, at most "
        f"{gain.upper:.3g}"
    )
    names = f"version {country_state.champion} to {country_state.previous}"
    return Ask(None, f"{country_state.country} rollback of {names}", reason)


def _causes(policy: RetrainingSpec, country_state: CountryState, seen: Seen) -> list[Ask]:
    """What asks for a training, the strongest first."""
    found = (_of_drift, _of_no_model, _of_new_labels, _of_age, _of_schedule)
    return [
        *_of_error(policy, country_state, seen.together),
        *(ask for each in found for ask in each(policy, country_state)),
        *_of_change(policy, country_state, seen.now),
    ]


def _of_change(
    policy: RetrainingSpec, country_state: CountryState, now: dt.datetime
) -> Iterator[Ask]:
    """Trainings that follow the one for a change, as what is known of it doubles."""
    change = newest_change(country_state.past, policy.cooldown)
    due = follow_up_due(change, policy.cooldown)
    if change is None or due is None or now < due or not country_state.champion:
        return
    text = f"training {change.trainings + 1} since the change of {change.begun:%Y-%m-%d}"
    key = f"{country_state.country} follow_up {change.trainings} of {change.begun:%Y-%m-%dT%H:%M}"
    yield Ask("follow_up", key, f"{text}: as much is known of it again as at the last one")


def _of_error(
    policy: RetrainingSpec, country_state: CountryState, together: Together
) -> Iterator[Ask]:
    realised = _own_realised(country_state)
    alone = realised is not None and realised.worse is not None
    if policy.on_error and together.worse and country_state.champion and not alone:
        evidence = country_state.evidence.get("performance", together.reason)
        yield _ask(country_state, "error", f"together on {evidence}", together.reason)
    if policy.on_error and realised is not None and realised.worse:
        own = f"{realised.rows} rows to {realised.last}"
        evidence = country_state.evidence.get("performance", own)
        yield _ask(
            country_state, "error", evidence, realised.reason or "significantly worse than promised"
        )


def _of_drift(policy: RetrainingSpec, country_state: CountryState) -> Iterator[Ask]:
    drift = country_state.drift
    if policy.on_drift and drift is not None and drift.state == "alarm":
        evidence = country_state.evidence.get("drift", f"window to {drift.end}")
        yield _ask(country_state, "drift", evidence, drift.reason or "features that matter changed")


def _of_no_model(policy: RetrainingSpec, country_state: CountryState) -> Iterator[Ask]:
    """A country that the baseline serves: at once when it has labels, then as these grow.

    Every other cause is measured against a champion, which it has not.
    """
    known, tried = country_state.labels, country_state.labels_tried
    if country_state.champion or not known:
        return
    if tried is None:
        reason = f"never trained, and {known:,} labels are known"
        yield _ask(country_state, "no_model", "first training", reason)
        return
    enough = policy.new_labels or max(1, math.ceil(GROWTH * tried))
    if times := max(known - tried, 0) // enough:
        reason = f"the baseline serves, and {known - tried:,} labels came to the {tried:,} it had"
        evidence = f"{times} times {enough} labels after {tried}"
        yield _ask(country_state, "no_model", evidence, f"{reason} when it was trained last")


def _of_new_labels(policy: RetrainingSpec, country_state: CountryState) -> Iterator[Ask]:
    if policy.new_labels is not None and country_state.new_labels >= policy.new_labels:
        times = country_state.new_labels // policy.new_labels
        text = f"{country_state.new_labels:,} labels matured since its training"
        evidence = f"{times} times {policy.new_labels} labels"
        yield _ask(
            country_state, "new_labels", evidence, f"{text} (new_labels {policy.new_labels:,})"
        )


def _of_age(policy: RetrainingSpec, country_state: CountryState) -> Iterator[Ask]:
    """Once at each of the common dates, `max_age_days` apart: countries ask together.

    Then one training of the pooled models serves all of them. A champion that is younger than half
    of it waits for the next date. Where a new model would be no younger, age asks no more often.
    """
    learned, known, most = (
        country_state.learned_until,
        country_state.known_until,
        policy.max_age_days,
    )
    if most is None or learned is None or known is None:
        return
    length = pd.Timedelta(days=most)
    date = (known - _EPOCH) // length
    if date > (learned + length / 2 - _EPOCH) // length:
        days = (known - learned) / _DAY
        text = f"its newest row is {days:.0f} days older than the newest label"
        key = f"{country_state.country} age of {most} days, {date}"
        yield Ask("age", key, f"{text} (max_age_days {most})")


def _of_schedule(_: RetrainingSpec, country_state: CountryState) -> Iterator[Ask]:
    if country_state.due is not None:
        key = f"{country_state.country} schedule of {country_state.due:%Y-%m-%dT%H:%M}"
        yield Ask("schedule", key, f"due by the schedule since {country_state.due:%Y-%m-%d %H:%M}")


def _ask(country_state: CountryState, cause: Cause, evidence: str, reason: str) -> Ask:
    champion = f"version {country_state.champion}" if country_state.champion else "the baseline"
    return Ask(cause, f"{country_state.country} {cause} of {champion}: {evidence}", reason)


def _own_realised(country_state: CountryState) -> Realised | None:
    """What the champion is worth; None where it is known of another version only."""
    realised = country_state.realised
    return realised if realised and realised.version == country_state.champion else None


# Incidents


def _alarms(drift: DriftState | None) -> bool:
    return drift is not None and (
        drift.state == "alarm" or (drift.state == "watch" and bool(drift.upstream))
    )


def _of_one_window(spec: ProductSpec, alarming: Sequence[CountryState]) -> list[CountryState]:
    """Those whose newest window overlaps the one in which most of them alarm."""
    ends = {s.country: s.drift.end for s in alarming if s.drift and s.drift.end is not None}
    if not ends:
        return []
    usual, length = _usual(list(ends.values())), pd.Timedelta(days=spec.monitoring.window_days)
    return [s for s in alarming if s.country in ends and abs(ends[s.country] - usual) < length]


def _usual(times: Sequence[pd.Timestamp]) -> pd.Timestamp:
    """The most frequent one, the earliest of those."""
    counts = Counter(times)
    most = max(counts.values())
    return min(time for time, count in counts.items() if count == most)


def _since(drift: DriftState) -> pd.Timestamp:
    since = drift.since if drift.since is not None else drift.end
    assert since is not None  # only countries with a window are members
    return since


def _most_look_broken(members: Sequence[CountryState]) -> bool:
    broken = [s for s in members if s.drift and s.drift.upstream]
    return 2 * len(broken) >= len(members)


def _judged(members: Sequence[CountryState]) -> list[Realised]:
    """Realised errors of champions that were judged."""
    found = (_own_realised(s) for s in members)
    return [each for each in found if each is not None and each.worse is not None]


def _seen_through(spec: ProductSpec, members: Sequence[CountryState], since: pd.Timestamp) -> bool:
    """Whether most members have been judged on labels of a whole window since then."""
    enough = since + pd.Timedelta(days=spec.monitoring.window_days)
    judged = [
        each
        for each in (_own_realised(s) for s in members)
        if each and each.worse is not None and each.last is not None and each.last >= enough
    ]
    return 2 * len(judged) > len(members)


def _confirmed(members: Sequence[CountryState]) -> bool:
    """Whether matured labels say of half of those judged that the world changed."""
    judged = _judged(members)
    confirming = [each for each in judged if each.worse or each.harder]
    return bool(judged) and 2 * len(confirming) >= len(judged)


def _incident_reason(
    members: Sequence[CountryState], judged: int, since: pd.Timestamp, broken: bool
) -> str:
    found = _judged(members)
    worse = sum(bool(each.worse) for each in found)
    harder = sum(each.harder and not each.worse for each in found)
    errors = (
        f"of {len(found)} judged realised errors {worse} are significantly worse than promised, "
        "and "
        f"{harder} are significantly larger along with the baseline's"
        if found
        else "no realised error is judged yet"
    )
    shown = max(members, key=lambda s: (bool(_upstream(s)), s.drift.score if s.drift else 0.0))
    what = _upstream(shown) or (shown.drift.reason if shown.drift else "")
    looks = "looks broken before the model" if broken else "most so"
    return (
        f"{len(members)} of {judged} judged countries changed in the same window, since "
        f"{since:%Y-%m-%d}; {errors}; {looks}, as in {shown.country}: {what}"
    )


def _upstream(country_state: CountryState) -> str:
    return country_state.drift.upstream if country_state.drift else ""


def _describe_incident(incident: Incident) -> str:
    return (
        f"held by an incident of {len(incident.countries)} countries since "
        f"{incident.since:%Y-%m-%d}"
    )


# Pooled models


def _pooled_first(
    policy: RetrainingSpec,
    pooled: PooledModels | None,
    actions: Sequence[Action],
    allowed: Collection[str],
    *,
    seen: Seen,
) -> PooledAsk | None:
    """What the trainings wait for, if any is wanted and the pooled models are old."""
    wanted = sum(each.kind == "retrain" and each.country in allowed for each in actions)
    if pooled is None or not wanted:
        return None
    if pooled.going_on:
        return PooledAsk("", "the pooled models are being trained")
    reason = _pooled_age(policy, pooled, wanted, len(actions), seen=seen)
    known = pooled.at or pooled.made
    after = f" after {known:%Y-%m-%dT%H:%M:%S}" if known else ""
    return PooledAsk(f"pooled models{after}", reason) if reason else None


def _pooled_age(
    policy: RetrainingSpec, pooled: PooledModels, wanted: int, countries: int, *, seen: Seen
) -> str:
    """Why the pooled models are too old to train countries beside them; "" where they are not."""
    if pooled.made is None:
        return "there are no pooled models yet"
    age, most = seen.now - pooled.made, dt.timedelta(days=policy.pooled_age_days)
    if age > most:
        return f"the pooled models are of {pooled.made:%Y-%m-%d} (pooled_age_days {most.days})"
    rest = max(policy.cooldown, dt.timedelta(days=1)) if pooled.failed else policy.cooldown
    made = f"the pooled models are of {pooled.made:%Y-%m-%d}"
    if seen.together.worse and age >= rest:
        return f"{made}, and {seen.together.reason}"
    if wanted > MOST * countries and age >= rest:
        return f"{wanted} of {countries} countries ask, {made}"
    return ""


def _not_the_same(state: CountryState, action: Action, pooled: PooledModels | None) -> Action:
    """A country with a pooled champion waits where its candidate would be that model again."""
    made, last = pooled and pooled.made, state.last_training
    same = made is not None and last is not None and state.serves_pooled and last >= made
    if action.kind != "retrain" or not same:
        return action
    return _put_off(action, f"waits for newer pooled models than those of {made:%Y-%m-%d}")


def _behind_pooled(action: Action, first: PooledAsk) -> Action:
    if action.kind != "retrain":
        return action
    group = f"waits for the pooled models: {first.reason}"
    return _put_off(action, group)


# Budget


def _within_budget(
    policy: RetrainingSpec,
    country_states: Sequence[CountryState],
    actions: Sequence[Action],
    asked_today: int,
    *,
    allowed: Collection[str],
) -> list[Action]:
    """The actions, of which trainings beyond the budget wait; those with most to lose go first."""
    going_on = sum(country_state.going_on for country_state in country_states)
    at_once, today = policy.at_once - going_on, policy.per_day - asked_today
    wanted = [place for place, action in enumerate(actions) if action.kind == "retrain"]
    wanted.sort(key=lambda place: (*_loss(country_states[place]), place))
    may = [place for place in wanted if country_states[place].country in allowed]
    first = set(may[: max(min(at_once, today), 0)])
    return [
        _over_budget(policy, action, at_once <= today) if place in set(wanted) - first else action
        for place, action in enumerate(actions)
    ]


def _loss(country_state: CountryState) -> tuple[float, float]:
    """Ascending: most to lose first, by realised error and then by drift."""
    realised, drift = _own_realised(country_state), country_state.drift
    excess = realised.excess if realised else 0.0
    score = drift.score if drift else 0.0
    return (-excess if math.isfinite(excess) else 0.0, -score if math.isfinite(score) else 0.0)


def _over_budget(policy: RetrainingSpec, action: Action, by_at_once: bool) -> Action:
    limit = (
        f"{policy.at_once} trainings at once (at_once)"
        if by_at_once
        else f"{policy.per_day} trainings in 24 hours (per_day)"
    )
    return _put_off(action, f"waits for the budget of {limit}")


def _put_off(action: Action, group: str) -> Action:
    return replace(
        action,
        kind="wait",
        cause=None,
        reason=f"{group}; {action.reason}",
        key="",
        evidence={},
        group=group,
        covers=(),
    )
