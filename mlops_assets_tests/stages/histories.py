"""Whatever a history of Dagster can hold, drawn by hypothesis and written to a real instance."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationPlanned,
)
from dagster._core.definitions.partitions.subset import DefaultPartitionsSubset
from dagster._core.execution.plan.objects import StepFailureData, UserFailureData
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster_shared.error import SerializableErrorInfo
from hypothesis import strategies as st

from mlops_assets.runtime.dagster_compat import EventLogEntry
from mlops_assets.stages.common import runs as tags

_REPOSITORY = RemoteRepositoryOrigin(
    ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="somewhere")),
    "__repository__",
)
PRODUCT = "parcels"
COUNTRIES = ("DEU", "FRA", "GONE", "Côte d'Ivoire", "")
"""Listed ones, one that the YAML lists no longer, and what a person may have typed."""
_STATUSES = tuple(dg.DagsterRunStatus)
_JOBS = (*(f"{PRODUCT}_{job}" for job in ("all", "train", "ingest", "predict", "pooled")), "gone")
_ASSETS = tuple(
    dg.AssetKey(path)
    for path in (
        [PRODUCT, "model"],
        [PRODUCT, "validated"],
        [PRODUCT, "not_there_any_more"],
        ["a_removed_product", "model"],
        ["of_nobody"],
    )
)
_CHECKS = ("contract", "beats_baseline", "no_such_check")
_TEXTS = (None, "", " \n ", "a sentence", "two\nlines", "x" * 2_000)
_EVENTS = ("planned", "evaluated", "step", "step without words", "run", "log")


@dataclass(frozen=True)
class Event:
    """One entry of a run's log."""

    kind: str
    asset: dg.AssetKey
    check: str
    country: str | None
    passed: bool
    severity: dg.AssetCheckSeverity
    blocking: bool | None
    text: str | None


@dataclass(frozen=True)
class PastRun:
    """A run as it ended, or did not."""

    job: str
    status: dg.DagsterRunStatus
    tags: Mapping[str, str]
    assets: frozenset[dg.AssetKey] | None
    events: Sequence[Event]
    removed: bool


_countries = st.sampled_from(COUNTRIES)
_words = st.sampled_from(
    ("", "three", "-1", "1e999", "9" * 5_000, "2", PRODUCT, "retraining sensor")
)
_TAGS: Mapping[str, st.SearchStrategy[str]] = {
    "product": st.sampled_from((PRODUCT, "a_removed_product", "")),
    tags.PARTITION: _countries,
    tags.COUNTRY: _countries,
    tags.RANGE_START: _countries,
    tags.ASKED_BY: st.sampled_from((*tags.ASKERS, "nobody")),
    tags.CAUSE: st.sampled_from(("error", "pooled", "rollback", "gone")),
    tags.REQUEST: _words,
    tags.DUPLICATE: _words,
    tags.RUN_KEY: _words,
    tags.TRIGGER: _words,
    "mlops_assets/asked_error": _words,
    "mlops_assets/attempt": _words,
    "mlops_assets/peak_memory_mb": _words,
    "dagster/backfill": _words,
}
events = st.builds(
    Event,
    kind=st.sampled_from(_EVENTS),
    asset=st.sampled_from(_ASSETS),
    check=st.sampled_from(_CHECKS),
    country=st.none() | _countries,
    passed=st.booleans(),
    severity=st.sampled_from(tuple(dg.AssetCheckSeverity)),
    blocking=st.none() | st.booleans(),
    text=st.sampled_from(_TEXTS),
)


def _each_planned_once(drawn: list[Event]) -> list[Event]:
    """Without plans of what the run has already planned or judged, which Dagster cannot store."""
    kept: list[Event] = []
    of_check: set[tuple[dg.AssetKey, str, str | None]] = set()
    for event in drawn:
        if event.kind in ("planned", "evaluated"):
            about = (event.asset, event.check, event.country)
            if event.kind == "planned" and about in of_check:
                continue
            of_check.add(about)
        kept.append(event)
    return kept


past_runs = st.builds(
    PastRun,
    job=st.sampled_from(_JOBS),
    status=st.sampled_from(_STATUSES) | st.just(dg.DagsterRunStatus.FAILURE),
    tags=st.fixed_dictionaries({}, optional=dict(_TAGS)),
    assets=st.none() | st.frozensets(st.sampled_from(_ASSETS), max_size=3),
    events=st.lists(events, max_size=4).map(_each_planned_once),
    removed=st.integers(0, 9).map(lambda chance: chance == 0),
)
histories = st.lists(past_runs, max_size=5)
ticks = st.dictionaries(
    st.sampled_from([f"{PRODUCT}_{each}" for each in ("landing", "retraining", "alerts")]),
    st.tuples(st.booleans(), st.lists(st.sampled_from(tuple(TickStatus)), max_size=4)),
)


def write_run(instance: dg.DagsterInstance, past: PastRun) -> str:
    """A run of the past; its id."""
    run = dg.DagsterRun(
        job_name=past.job,
        run_id=str(uuid.uuid4()),
        status=past.status,
        tags=dict(past.tags),
        asset_selection=past.assets,
        remote_job_origin=RemoteJobOrigin(_REPOSITORY, past.job),
    )
    instance.run_storage.add_run(run)
    for event in past.events:
        _WRITERS[event.kind](instance, run, event)
    if past.removed:
        instance.delete_run(run.run_id)
    return run.run_id


def write_ticks(
    instance: dg.DagsterInstance, name: str, on: bool, statuses: Sequence[TickStatus]
) -> None:
    """A sensor that is on or off, and its ticks, the oldest first."""
    status = InstigatorStatus.RUNNING if on else InstigatorStatus.STOPPED
    state = InstigatorState(
        RemoteInstigatorOrigin(_REPOSITORY, name),
        InstigatorType.SENSOR,
        status,
        SensorInstigatorData(min_interval=30),
    )
    instance.add_instigator_state(state)
    for place, each in enumerate(statuses):
        error = SerializableErrorInfo("an error\n", [], "E") if each == TickStatus.FAILURE else None
        data = TickData(
            state.instigator_origin_id,
            name,
            InstigatorType.SENSOR,
            each,
            time.time() - 60 * (len(statuses) - place),
            run_ids=[],
            selector_id=state.selector_id,
            error=error,
        )
        instance.create_tick(data)


def _planned(instance: dg.DagsterInstance, run: dg.DagsterRun, event: Event) -> None:
    # One of one partition; a plan for all of them has none.
    of = None if event.country is None else DefaultPartitionsSubset({event.country})
    plan = AssetCheckEvaluationPlanned(
        asset_key=event.asset, check_name=event.check, partitions_subset=of
    )
    _report(instance, run, "ASSET_CHECK_EVALUATION_PLANNED", plan)


def _evaluated(instance: dg.DagsterInstance, run: dg.DagsterRun, event: Event) -> None:
    result = dg.AssetCheckEvaluation(
        event.asset,
        event.check,
        event.passed,
        {},
        severity=event.severity,
        description=event.text,
        blocking=event.blocking,
        partition=event.country,
    )
    _report(instance, run, "ASSET_CHECK_EVALUATION", result)


def _step(instance: dg.DagsterInstance, run: dg.DagsterRun, event: Event) -> None:
    error = SerializableErrorInfo(event.text or "", [], None)
    said = None if event.passed else UserFailureData("", event.text)
    _report(instance, run, "STEP_FAILURE", StepFailureData(error, said))


def _step_without_words(instance: dg.DagsterInstance, run: dg.DagsterRun, event: Event) -> None:
    _report(instance, run, "STEP_FAILURE", StepFailureData(None, None))


def _run(instance: dg.DagsterInstance, run: dg.DagsterRun, event: Event) -> None:
    _report(instance, run, dg.DagsterEventType.RUN_FAILURE.value, None, event.text)


def _log(instance: dg.DagsterInstance, run: dg.DagsterRun, event: Event) -> None:
    entry = EventLogEntry(None, 20, event.text or "", run.run_id, time.time())
    instance.event_log_storage.store_event(entry)


_Writer = Callable[[dg.DagsterInstance, dg.DagsterRun, Event], None]
_WRITERS: Mapping[str, _Writer] = {
    "planned": _planned,
    "evaluated": _evaluated,
    "step": _step,
    "step without words": _step_without_words,
    "run": _run,
    "log": _log,
}


def _report(
    instance: dg.DagsterInstance,
    run: dg.DagsterRun,
    kind: str,
    data: Any,
    message: str | None = None,
) -> None:
    """Into the event log alone: the status of the run is what was drawn."""
    event = dg.DagsterEvent(kind, run.job_name, event_specific_data=data, message=message)
    entry = EventLogEntry(
        None, 20, message or "", run.run_id, time.time(), job_name=run.job_name, dagster_event=event
    )
    instance.event_log_storage.store_event(entry)
