"""What is known of every country when it is decided whether to train it again.

Nothing is kept between two looks but what cannot change: the state is in snapshots, decisions,
aliases and runs. All of it is asked for in a few calls, however many countries there are.
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeGuard

import dagster as dg
import pandas as pd

from mlops_assets.ml.retraining.follow_up import PastTraining
from mlops_assets.ml.retraining.plan import (
    ATTEMPTS,
    Ask,
    Attempts,
    CountryState,
    PooledModels,
    RetrainingPlan,
    asks,
    plan_retraining,
    small_together,
)
from mlops_assets.product import Product
from mlops_assets.registry import ModelVersion, Registry
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.common.base import asset_key
from mlops_assets.stages.common.clock import policy_time
from mlops_assets.stages.common.context import CountryContext, ProductContext
from mlops_assets.stages.common.history.run_history import evaluated_checks
from mlops_assets.stages.common.lineage import holds, made_from
from mlops_assets.stages.common.runs import (
    ASKED,
    ASKED_BY,
    ASKERS,
    AT,
    CAUSE,
    DUPLICATE,
    PERSON,
    POOLED_JOB,
    WAYS_BACK,
    country_of,
)
from mlops_assets.stages.monitoring.drift import DRIFT, state_of_snapshot
from mlops_assets.stages.monitoring.performance import (
    ON_BASELINE,
    ON_PREVIOUS,
    REALISED,
    gain_of,
    realised_of,
)
from mlops_assets.stages.promotion.decision_log import Entry, entries, newest_move
from mlops_assets.stages.retraining.requests import cause_of_key, cause_of_trigger, named_key
from mlops_assets.stages.staleness import Staleness
from mlops_assets.stages.training.pooled import POOLED_DATED
from mlops_assets.storage import Snapshot

_DAY = dt.timedelta(days=1)
_NEWEST_RUNS = 2000
"""So many requests are looked at where the time of day does not tell which of them count."""
_LONG_AGO = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
"""Any cron was due since."""
_ON = ("SCHEDULE", "RUNNING")
"""Kind and status of a schedule that a person has switched on."""
_TRAINING_JOBS = ("train", "all")
_POOLED_VERSION = "pooled_version"
"""Tag of a country's version that is a pooled model."""
_GOING_ON = tuple(
    status
    for status in dg.DagsterRunStatus
    if status
    not in (
        dg.DagsterRunStatus.SUCCESS,
        dg.DagsterRunStatus.FAILURE,
        dg.DagsterRunStatus.CANCELED,
    )
)


@dataclass(frozen=True)
class DecisionHistory:
    """What the recorded decisions of a country amount to.

    Attributes:
        refused: candidates in a row that were not promoted, of trainings nobody asked for.
        candidate: newest version that was compared; "" for none.
        waiting: version that waits for a person's approval; "" for none.
        chosen_by: person who put the champion into use whatever evidence says; "" for nobody.
        since: when the champion came into use; None without one.
        decided: when a training was decided on last, by the time of day; None for never.
        dated: the same by `retraining.clock`, as it was recorded.
        runs: ids of the Dagster runs in which something was decided.
        newest: the newest decision; None without one.
        trainings: that nobody asked for, oldest first, by the time of day.
        dated_trainings: the same by `retraining.clock`, as they were recorded.
    """

    refused: int = 0
    candidate: str = ""
    waiting: str = ""
    chosen_by: str = ""
    since: dt.datetime | None = None
    decided: dt.datetime | None = None
    dated: dt.datetime | None = None
    runs: frozenset[str] = frozenset()
    newest: Entry | None = None
    trainings: tuple[PastTraining, ...] = ()
    dated_trainings: tuple[PastTraining, ...] = ()


@dataclass(frozen=True)
class RetrainingState:
    """A look at all countries of a product.

    Attributes:
        country_states: of its countries, in the order of the YAML.
        resolve: the product as it is for each country with overrides.
        asked_today: trainings that sensor and schedule asked for in the last 24 hours.
        past: by country, what its decisions amount to.
        now: when it was looked, by the time of day.
        clock: the same by `retraining.clock`, which cool-down, age and budget go by.
        pooled: the models of many countries; None where there are none, and where they have learned
            all there is.
        unserved: countries whose predictions are of another model than the one in use, or of other
            features than the newest, while no run is at it: what they are to be made of.
    """

    country_states: Sequence[CountryState]
    resolve: Mapping[str, ProductSpec]
    asked_today: int
    past: Mapping[str, DecisionHistory]
    now: dt.datetime
    clock: dt.datetime
    pooled: PooledModels | None = None
    unserved: Mapping[str, str] = field(default_factory=dict)

    @property
    def dated(self) -> dict[str, str]:
        """Tags of what is asked for now: when, where the policy goes by the clock of records."""
        return {} if self.clock == self.now else {AT: self.clock.isoformat()}

    def plan(self, spec: ProductSpec, only: Iterable[str] | None = None) -> RetrainingPlan:
        """What is done; see `retraining.plan`."""
        return plan_retraining(
            spec,
            self.country_states,
            now=self.clock,
            asked_today=self.asked_today,
            resolve=self.resolve,
            only=None if only is None else frozenset(only),
            pooled=self.pooled,
        )


@dataclass(frozen=True)
class _Requests:
    """Runs that sensor and schedule asked for lately.

    Attributes:
        last: by country, the run of its newest training that counts for the cool-down.
        today: trainings in the last 24 hours.
    """

    last: Mapping[str, dg.RunRecord] = field(default_factory=dict)
    today: int = 0


@dataclass(frozen=True)
class _Labels:
    """Known labels of a country.

    Attributes:
        until: event time of the newest; None without one.
        times: of their maturing, sorted.
    """

    until: pd.Timestamp | None
    times: pd.Series


def read_state(
    ctx: ProductContext,
    instance: dg.DagsterInstance,
    now: dt.datetime,
    due: dt.datetime | None = None,
) -> RetrainingState:
    """All that is known of a product's countries.

    Args:
        ctx: the product.
        instance: of its runs.
        now: with time zone.
        due: when the schedule asked for all countries last; None: as the schedule's switch says.
    """
    countries = list(ctx.product.spec.countries)
    own = {country: ctx.product.resolved(country) for country in ctx.product.spec.overrides}
    past, (going_on, busy) = decision_histories(ctx), _going_on(ctx.product, instance)
    clock = policy_time(ctx, now)
    recent = _recent(ctx.product, instance, past, own, now=clock)
    due = due or due_by_schedule(ctx.product, instance, now)
    state = Staleness(ctx)
    found = {country: _seen(state.whole.country(country)) for country in countries}
    country_states = [
        _with_past(
            replace(found[country], going_on=country in going_on),
            past.get(country, DecisionHistory()),
            recent.last.get(country),
            due,
            by_wall=ctx.spec.retraining.clock == "wall",
        )
        for country in countries
    ]
    country_states = _with_labels(ctx, country_states, own)
    country_states = _without_model(state, country_states)
    together = small_together(ctx.product.spec, country_states)
    asked = {
        each.country: asks(own.get(each.country, ctx.product.spec), each, clock, together)
        for each in country_states
    }
    country_states = _with_tried(ctx.product, instance, country_states, asked, past=past)
    country_states = [_rested(each, clock - now) for each in country_states]
    unserved, pooled = _unserved(state, busy), _pooled(state, instance)
    return RetrainingState(country_states, own, recent.today, past, now, clock, pooled, unserved)


def due_by_schedule(
    product: Product, instance: dg.DagsterInstance, now: dt.datetime
) -> dt.datetime | None:
    """When the periodic schedule fired last since it was switched on; None if it is off."""
    cron = product.spec.retrain_cron
    if cron is None:
        return None
    mine = [
        state
        for state in instance.all_instigator_state()
        if state.name == f"{product.name}_periodic"
        and (state.instigator_type.value, state.status.value) == _ON
    ]
    if not mine:
        return None
    started = getattr(mine[0].instigator_data, "start_timestamp", None) or 0.0
    last = last_due(cron, now)
    return last if last.timestamp() >= started else None


def last_due(cron: str, now: dt.datetime) -> dt.datetime:
    """The newest time of a cron (UTC) that is not after `now`, as Dagster's schedules have it."""
    # A partition by that cron is complete when the schedule is due.
    partitions = dg.TimeWindowPartitionsDefinition(
        start=_LONG_AGO, fmt="%Y-%m-%dT%H:%M", cron_schedule=cron, timezone="UTC"
    )
    with dg.partition_loading_context(effective_dt=now):
        complete = partitions.get_last_partition_window()
    assert complete is not None, f"{cron} was never due since {_LONG_AGO:%Y}"
    return complete.end.astimezone(dt.UTC)


# Decisions

_decided: dict[tuple[str, str, str], tuple[frozenset[str], DecisionHistory]] = {}
"""By store, product and country: ids of the log's entries, which never change, and their sum."""


def decision_histories(ctx: ProductContext) -> dict[str, DecisionHistory]:
    """What the decisions of each country amount to; only new entries are read."""
    asset, log = ctx.path("decisions"), {}
    for file in ctx.store.log_files(asset):
        log.setdefault(file.partition or "", set()).add(file.id)
    changed = [
        country
        for country, ids in log.items()
        if _decided.get((ctx.store.uri, ctx.product.name, country), (None,))[0] != ids
    ]
    for country, found in _entries(ctx, changed, whole=len(changed) == len(log)).items():
        _decided[ctx.store.uri, ctx.product.name, country] = (frozenset(log[country]), _past(found))
    return {country: _decided[ctx.store.uri, ctx.product.name, country][1] for country in log}


def _entries(
    ctx: ProductContext, countries: Sequence[str], *, whole: bool
) -> dict[str, list[Entry]]:
    if not whole:
        return {country: entries(ctx, country) for country in countries}
    found: dict[str, list[Entry]] = {country: [] for country in countries}
    for entry in entries(ctx) if countries else []:
        found.setdefault(entry.comparison.country, []).append(entry)
    return found


def _past(log: Sequence[Entry]) -> DecisionHistory:
    move, trainings = newest_move(log), [entry for entry in log if not entry.origin.person]
    newest, asked = log[-1] if log else None, _asked_for(log)
    waits = newest is not None and newest.verdict == "waiting"
    return DecisionHistory(
        refused=len(_refused(log)),
        candidate=newest.comparison.candidate if newest else "",
        waiting=newest.comparison.candidate if newest and waits else "",
        chosen_by=_chosen_by(move),
        since=_utc(move.decided_at) if move and move.after.champion else None,
        decided=_utc(trainings[-1].decided_at) if trainings else None,
        dated=_dated(trainings[-1].dated, trainings[-1].decided_at) if trainings else None,
        runs=frozenset(entry.origin.run_id for entry in log if entry.origin.run_id),
        newest=newest,
        trainings=tuple(
            PastTraining(_utc(each.decided_at), _cause(each), brought) for each, brought in asked
        ),
        dated_trainings=tuple(
            PastTraining(_dated(each.dated, each.decided_at), _cause(each), brought)
            for each, brought in asked
        ),
    )


def _asked_for(log: Sequence[Entry]) -> list[tuple[Entry, bool]]:
    """Trainings that no person asked for, and whether each brought something.

    It did when its candidate came into use, by a person's approval too. After a person's word
    counting begins anew, as in `_refused`, so that the one before it counts as such.
    """
    used = {entry.after.champion for entry in log if entry.moves}
    found: list[tuple[Entry, bool]] = []
    for entry in log:
        if automatic(entry):
            came = entry.verdict == "promoted" or entry.comparison.candidate in used
            found.append((entry, came))
        elif found and entry.origin.person != PERSON:
            found[-1] = (found[-1][0], True)
    return found


def _cause(entry: Entry) -> str:
    return cause_of_trigger(entry.origin.trigger)


def _refused(log: Sequence[Entry]) -> set[str]:
    """Candidates that were not promoted, back to the last promotion or word of a person.

    A person who trains a country, or decides on it, has been asked: counting begins anew.
    """
    found: set[str] = set()
    for entry in reversed(log):
        if entry.moves or entry.verdict == "promoted" or not automatic(entry):
            break
        if entry.comparison.decision.gain == 0.0:
            continue  # the very same model again: nothing new was tried
        if entry.verdict in ("kept", "not_judged") and entry.comparison.candidate:
            found.add(entry.comparison.candidate)
    return found


def automatic(entry: Entry) -> bool:
    """Whether it was taken in a training that no person asked for."""
    return not entry.origin.person and entry.origin.trigger.startswith(ASKERS)


def _chosen_by(move: Entry | None) -> str:
    if move is None or move.verdict not in ("forced", "rolled_back"):
        return ""
    return "" if move.origin.person == PERSON else move.origin.person


# Snapshots


def _seen(ctx: CountryContext) -> CountryState:
    """Drift and realised error of a country's champion, from the metadata alone."""
    aliases, drift, performance = ctx.aliases(), ctx.current("drift"), ctx.current("performance")
    versions = {"performance": performance, "drift": drift}
    country_state = CountryState(
        ctx.country,
        champion=aliases.champion,
        previous=aliases.previous,
        drift=state_of_snapshot(drift) if _is_of(drift, aliases.champion) else None,
        realised=realised_of(performance) if holds(performance, REALISED) else None,
        evidence={name: each.version for name, each in versions.items() if each},
    )
    gains = {"on_previous": ON_PREVIOUS, "on_baseline": ON_BASELINE}
    told = {n: gain_of(performance, key) for n, key in gains.items() if holds(performance, key)}
    return replace(country_state, **told)


def _is_of(drift: Snapshot | None, champion: str) -> TypeGuard[Snapshot]:
    """Whether it was looked at with the reference of this champion."""
    return holds(drift, DRIFT) and made_from(drift).get("champion") == champion


def _unserved(state: Staleness, busy: set[str]) -> dict[str, str]:
    """Countries whose predictions are not of what serves and the features as these are now."""
    found = {}
    for country in state.countries:
        features = state.current(country, "features")
        stale = state.first(country, ("predictions",))
        if features is None or stale is None or stale.is_missing or country in busy:
            continue
        if not {"features", "champion", "baseline"}.isdisjoint(stale.causes):
            inputs = state.inputs(country, "predictions")
            served = [inputs["champion"], inputs.get("baseline", "")]
            found[country] = f"{' '.join(filter(None, served))} on {features.version}"
    return found


def _pooled(state: Staleness, instance: dg.DagsterInstance) -> PooledModels | None:
    """The pooled models as they are, unless there is nothing new for them to learn."""
    if not state.is_pooled_stale():
        return None
    ctx = state.whole
    made = ctx.current("pooled_model")
    runs = instance.get_runs(
        dg.RunsFilter(job_name=f"{ctx.product.name}_{POOLED_JOB}", statuses=list(_GOING_ON)),
        limit=1,
    )
    asked = instance.get_run_records(
        dg.RunsFilter(tags={"product": ctx.product.name, CAUSE: POOLED_JOB}), limit=1
    )
    trained = _utc(made.created_at) if made else None
    tried = _created(asked[0]) if asked else None
    # What was trained is newer than the run that did it.
    failed = tried is not None and (trained is None or tried > trained)
    at = tried if failed else trained
    if ctx.spec.retraining.clock == "wall" or at is None:
        return PooledModels(at, going_on=bool(runs), failed=failed)
    told = (
        asked[0].dagster_run.tags.get(AT, "")
        if failed
        else made and made.metadata.get(POOLED_DATED, "")
    )
    return PooledModels(_dated(told or "", at), going_on=bool(runs), failed=failed, at=at)


def _with_past(
    country_state: CountryState,
    past: DecisionHistory,
    asked: dg.RunRecord | None,
    due: dt.datetime | None,
    *,
    by_wall: bool,
) -> CountryState:
    """With what was decided and asked for; whether the schedule was answered is by the wall's."""
    last = _newest(past.decided, _created(asked) if asked else None)
    dated = last if by_wall else _newest(past.dated, _asked_at(asked) if asked else None)
    return replace(
        country_state,
        since=past.since,
        refused=past.refused,
        candidate=past.candidate,
        waiting=past.waiting,
        chosen_by=past.chosen_by,
        past=past.trainings if by_wall else past.dated_trainings,
        last_training=dated,
        due=due if due is not None and (last is None or last < due) else None,
    )


# Runs


def _going_on(product: Product, instance: dg.DagsterInstance) -> tuple[set[str], set[str]]:
    """Countries that a run trains, or rolls back, or is about to; and those any run is about."""
    runs = instance.get_runs(dg.RunsFilter(statuses=list(_GOING_ON)))
    training = {country_of(run.tags) for run in runs if is_training(product, run)}
    return training, {
        country_of(run.tags) for run in runs if run.tags.get("product") == product.name
    }


def is_training(product: Product, run: dg.DagsterRun) -> bool:
    """Whether a run makes the candidate of a country, or was asked for to go back from one."""
    if run.asset_selection is not None:
        return asset_key(product, "model") in run.asset_selection
    jobs = [f"{product.name}_{name}" for name in (*_TRAINING_JOBS, *WAYS_BACK)]
    return run.job_name in jobs


def _recent(
    product: Product,
    instance: dg.DagsterInstance,
    past: Mapping[str, DecisionHistory],
    own: Mapping[str, ProductSpec],
    *,
    now: dt.datetime,
) -> _Requests:
    """What sensor and schedule asked for, as far back as a cool-down reaches.

    By the clock of the records that is any time of day: the newest runs are looked at then.
    """
    longest = max(each.retraining.cooldown for each in (product.spec, *own.values()))
    by_wall, since = product.spec.retraining.clock == "wall", now - max(longest, _DAY)
    found = dg.RunsFilter(
        tags={"product": product.name, ASKED_BY: list(ASKERS)},
        created_after=since if by_wall else None,
    )
    dated = _created if by_wall else _asked_at
    records = [
        record
        for record in instance.get_run_records(found, limit=None if by_wall else _NEWEST_RUNS)
        if _is_requested_training(record.dagster_run) and dated(record) > since
    ]
    by_country: dict[str, list[dg.RunRecord]] = {}
    for record in records:
        by_country.setdefault(country_of(record.dagster_run.tags), []).append(record)
    last = {
        country: record
        for country, each in by_country.items()
        if (record := _last(each, past.get(country, DecisionHistory()).runs)) is not None
    }
    return _Requests(last, sum(dated(record) > now - _DAY for record in records))


def _is_requested_training(run: dg.DagsterRun) -> bool:
    tags = run.tags
    return DUPLICATE not in tags and tags.get(CAUSE) not in (*WAYS_BACK, POOLED_JOB)


def _last(records: Sequence[dg.RunRecord], decided_in: frozenset[str]) -> dg.RunRecord | None:
    """The run of the newest training that was asked for; newest record first.

    One that failed is tried again without a cool-down, until too many in a row did.
    """
    failed = [record for record in records if _has_failed(record.dagster_run, decided_in)]
    in_a_row = 0
    for record in records:
        if record not in failed:
            return records[0] if in_a_row >= ATTEMPTS else record
        in_a_row += 1
    return records[0] if in_a_row >= ATTEMPTS else None


def _has_failed(run: dg.DagsterRun, decided_in: frozenset[str]) -> bool:
    """Whether it ended without a decision; one that a person ended is not taken up again."""
    return run.status == dg.DagsterRunStatus.FAILURE and run.run_id not in decided_in


def _created(record: dg.RunRecord) -> dt.datetime:
    return _utc(record.create_timestamp)


def _asked_at(record: dg.RunRecord) -> dt.datetime:
    """When a run was asked for by the clock of the records; without a date, by the time of day."""
    return _dated(record.dagster_run.tags.get(AT, ""), _created(record))


def _dated(text: str, wall: dt.datetime | pd.Timestamp) -> dt.datetime:
    return _utc(dt.datetime.fromisoformat(text)) if text else _utc(wall)


def _newest(*times: dt.datetime | None) -> dt.datetime | None:
    return max((time for time in times if time is not None), default=None)


def _rested(country_state: CountryState, behind: dt.timedelta) -> CountryState:
    """With the time since failed runs as it is by the time of day, whatever clock is now.

    Args:
        country_state: of a country.
        behind: the clock of the policy less the time of day, which moves what is compared with it.
    """
    if not behind:
        return country_state
    moved = {
        key: replace(each, last=each.last + behind if each.last else None)
        for key, each in country_state.tried.items()
    }
    return replace(country_state, tried=moved)


def _with_tried(
    product: Product,
    instance: dg.DagsterInstance,
    country_states: Sequence[CountryState],
    asked: Mapping[str, Sequence[Ask]],
    *,
    past: Mapping[str, DecisionHistory],
) -> list[CountryState]:
    """With what became of earlier requests for what asks now."""
    keys = {country: [ask.key for ask in each] for country, each in asked.items()}
    runs = _runs_of(product, instance, keys)
    return [
        replace(
            country_state,
            tried={
                key: _tried(
                    product,
                    instance,
                    runs[key],
                    past.get(country_state.country, DecisionHistory()).runs,
                )
                for key in keys[country_state.country]
                if key in runs
            },
        )
        for country_state in country_states
    ]


def _runs_of(
    product: Product, instance: dg.DagsterInstance, keys: Mapping[str, Sequence[str]]
) -> dict[str, list[dg.RunRecord]]:
    """Runs by the key of what they answer, the newest first."""
    by_tag: dict[str, dict[str, str]] = {}
    for country, each in keys.items():
        for key in each:
            tag = f"{ASKED}{cause_of_key(country, key)}"
            by_tag.setdefault(tag, {})[named_key(product, key)] = key
    found: dict[str, list[dg.RunRecord]] = {}
    for tag, named in by_tag.items():
        for record in instance.get_run_records(dg.RunsFilter(tags={tag: list(named)})):
            if DUPLICATE not in record.dagster_run.tags:
                found.setdefault(named[record.dagster_run.tags[tag]], []).append(record)
    return found


def _tried(
    product: Product,
    instance: dg.DagsterInstance,
    records: Sequence[dg.RunRecord],
    decided_in: frozenset[str],
) -> Attempts:
    ended = [record.dagster_run for record in records if record.dagster_run.is_finished]
    failed = [run for run in ended if _has_failed(run, decided_in)]
    refused = [run for run in failed if refused_by_gate(product, instance, run.run_id)]
    return Attempts(
        finished=len(ended) > len(failed) or bool(refused),
        failed=len(failed) - len(refused),
        last=max(map(_created, records)),
    )


_by_gate: dict[str, bool] = {}
"""By id of a run that has ended: whether a gate of its candidate failed."""


def refused_by_gate(product: Product, instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether a run that has failed did so by a gate of the candidate: it was judged, then."""
    if run_id not in _by_gate:
        model = asset_key(product, "model")
        _by_gate[run_id] = any(
            each.result.asset_key == model and each.result.blocking is not False
            for each in evaluated_checks(instance, run_id)
            if not each.result.passed
        )
    return _by_gate[run_id]


# Labels

_labels: dict[tuple[str, str, str], tuple[str, _Labels]] = {}
"""By store, product and country: version of the features, and their known labels."""
_learned: dict[tuple[str, str, str], int] = {}
"""By store, country and content of features: how many labels these have, which never changes."""
_tags: dict[tuple[str, str, str], Mapping[str, str]] = {}
"""Tags of registered versions by registry, name and number, which are written when it is made."""


def _with_labels(
    ctx: ProductContext,
    country_states: Sequence[CountryState],
    own: Mapping[str, ProductSpec],
) -> list[CountryState]:
    """With labels and the champion's age, in countries where something depends on them."""
    wanted = {
        country_state.country
        for country_state in country_states
        if country_state.champion
        and _asks_by_time(own.get(country_state.country, ctx.product.spec))
    }
    tags = _champion_tags(ctx.product, ctx.registry, [s for s in country_states if s.champion])
    country_states = [
        replace(each, serves_pooled=_POOLED_VERSION in tags.get(each.country, {}))
        for each in country_states
    ]
    if not wanted:
        return country_states
    labels = _known_labels(ctx, sorted(wanted))
    return [
        _aged(country_state, labels[country_state.country], tags.get(country_state.country, {}))
        if country_state.country in labels
        else country_state
        for country_state in country_states
    ]


def _without_model(state: Staleness, country_states: Sequence[CountryState]) -> list[CountryState]:
    """With the labels of countries that the baseline serves, and those it was trained with last."""
    ctx, served = state.whole, [each.country for each in country_states if not each.champion]
    labels = _known_labels(ctx, served) if served else {}
    return [
        replace(
            each,
            labels=len(labels[each.country].times),
            labels_tried=_labels_tried(ctx.country(each.country)),
        )
        if each.country in labels
        else each
        for each in country_states
    ]


def _labels_tried(ctx: CountryContext) -> int | None:
    """Known labels in the features that the newest candidate was made from; None without one.

    0 where these are no longer stored: then all there are have come since.
    """
    made = ctx.current("model")
    if made is None:
        return None
    features = made_from(made).get("features", "")
    key = (ctx.store.uri, f"{ctx.product.name} {ctx.country}", features)
    if key not in _learned:
        held = ctx.find("features", features)
        _learned[key] = 0 if held is None else _count_labels(ctx, held)
    return _learned[key]


def _count_labels(ctx: CountryContext, held: Snapshot) -> int:
    rows = ctx.store.read(held.asset, held.partition, version=held.version, columns=["label"])
    return int(rows["label"].notna().sum())


def _asks_by_time(spec: ProductSpec) -> bool:
    policy = spec.retraining
    return policy.new_labels is not None or policy.max_age_days is not None


def _aged(country_state: CountryState, labels: _Labels, tags: Mapping[str, str]) -> CountryState:
    known = _time(tags.get("known_until"))
    new = 0 if known is None else int((labels.times > known).sum())
    return replace(
        country_state,
        learned_until=_time(tags.get("until")),
        known_until=labels.until,
        new_labels=new,
    )


def _known_labels(ctx: ProductContext, countries: Sequence[str]) -> dict[str, _Labels]:
    asset = ctx.path("features")
    made = ctx.store.current_all(asset, countries)
    changed = [
        country
        for country, each in made.items()
        if _labels.get((ctx.store.uri, ctx.product.name, country), ("",))[0] != each.version
    ]
    columns = ["event_time", "label_time", "label"]
    for country, frame in ctx.store.read_all(asset, changed, columns=columns).items():
        known = frame[frame["label"].notna()]
        until = known["event_time"].max() if len(known) else None
        held = _Labels(until, known["label_time"].sort_values(ignore_index=True))
        _labels[ctx.store.uri, ctx.product.name, country] = (made[country].version, held)
    return {country: _labels[ctx.store.uri, ctx.product.name, country][1] for country in made}


def _champion_tags(
    product: Product, registry: Registry, country_states: Sequence[CountryState]
) -> dict[str, Mapping[str, str]]:
    def key(country_state: CountryState) -> tuple[str, str, str]:
        return (
            registry.tracking_uri,
            f"{product.name}.{country_state.country}",
            country_state.champion,
        )

    if any(key(country_state) not in _tags for country_state in country_states):
        found: Mapping[str, ModelVersion] = registry.champions(product.name)
        for country, version in found.items():
            name = f"{product.name}.{country}"
            _tags[registry.tracking_uri, name, version.version] = version.tags
    return {
        country_state.country: _tags.get(key(country_state), {}) for country_state in country_states
    }


def _time(text: str | None) -> pd.Timestamp | None:
    return pd.Timestamp(text) if text else None


def _utc(moment: dt.datetime | pd.Timestamp) -> dt.datetime:
    plain = moment.to_pydatetime() if isinstance(moment, pd.Timestamp) else moment
    return plain.replace(tzinfo=dt.UTC) if plain.tzinfo is None else plain.astimezone(dt.UTC)
