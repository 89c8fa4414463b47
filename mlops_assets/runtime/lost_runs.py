"""Runs whose worker is gone: without this they would be shown as running for ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

_TASK_TAG = "dagster-celery/task_id"
_DEAD = ("FAILURE", "REVOKED")
_LOST = (
    "The worker process of this run is gone: it was stopped, killed or out of memory. Nothing "
    "half-written is in use; run the country again."
)


def end_lost_runs(home: Path, results: Path, *, workers_stopped: bool) -> list[str]:
    """Mark runs as failed (or canceled, if that was asked for) that no worker works on.

    Args:
        home: folder of the Dagster instance that launches on workers.
        results: folder in which workers leave the state of each task.
        workers_stopped: no worker runs; else only tasks known to have ended are looked at.

    Returns:
        Ids of the runs marked. Runs still waiting for a worker are left alone, and so are those
        that were launched in another way.
    """
    import dagster as dg

    with dg.DagsterInstance.from_config(str(home)) as instance:
        lost = [
            run
            for run in instance.get_runs(dg.RunsFilter(statuses=list(_unfinished())))
            if _TASK_TAG in run.tags and _is_lost(run, results, workers_stopped)
        ]
        for run in lost:
            _end(instance, run)
    return [run.run_id for run in lost]


def _unfinished() -> tuple[dg.DagsterRunStatus, ...]:
    import dagster as dg

    states = dg.DagsterRunStatus
    return (states.STARTING, states.STARTED, states.CANCELING)


def _is_lost(run: dg.DagsterRun, results: Path, workers_stopped: bool) -> bool:
    state = _task_state(results / f"celery-task-meta-{run.tags[_TASK_TAG]}")
    if state in _DEAD:
        return True
    # A task without a state waits in the queue; the next worker takes it.
    return workers_stopped and state is not None


def _task_state(file: Path) -> str | None:
    try:
        return str(json.loads(file.read_text())["status"])
    except (FileNotFoundError, json.JSONDecodeError):  # not begun, or being written just now
        return None


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    import dagster as dg

    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, "The worker process of this run was ended as asked.")
    else:
        instance.report_run_failed(run, _LOST)
