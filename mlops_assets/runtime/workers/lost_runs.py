"""Runs whose worker is gone: without this they would be shown as running for ever.

While `up` serves, Dagster's run monitoring asks the launcher. This is for the time when no worker
runs at all: before the first is started, and after the last has ended.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.runtime.workers.celery_compat import TASK_FILES, TASK_TAG, state_in

if TYPE_CHECKING:
    import dagster as dg

_OPEN = ("STARTED", "FAILURE", "REVOKED")
"""States of a task whose run may not have ended."""
LOST = (
    "The worker process of this run is gone: it was stopped, killed or out of memory. Nothing "
    "half-written is in use. The run is tried once more by itself; if that fails too, run the "
    "country again."
)


def end_lost_runs(home: Path, results: Path) -> int:
    """End what no worker works on any more, in Dagster and MLflow; no worker runs meanwhile.

    In a process of its own, and only where a task was begun and not ended: `up` does without the
    memory that Dagster and MLflow take.

    Args:
        home: folder of the Dagster instance that launches on workers.
        results: folder in which workers leave the state of each task.

    Returns:
        How many runs there were.

    Raises:
        subprocess.CalledProcessError: the history or MLflow cannot be written.
    """
    if not any(_state(file) in _OPEN for file in results.glob(f"{TASK_FILES}*")):
        return 0
    command = [
        sys.executable,
        "-m",
        "mlops_assets.runtime.workers.lost_runs",
        str(home),
        str(results),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.split()[-1])


def mark_lost_runs(home: Path, results: Path) -> list[str]:
    """Mark runs that were begun as failed, or as canceled if that was asked for.

    Args:
        home: folder of the Dagster instance that launches on workers.
        results: folder in which workers leave the state of each task.

    Returns:
        Ids of the runs marked. Runs still waiting for a worker are left alone, and so are those
        that were launched in another way.
    """
    import dagster as dg

    with dg.DagsterInstance.from_config(str(home)) as instance:
        lost = [
            run
            for run in instance.get_runs(dg.RunsFilter(statuses=list(_unfinished())))
            # A task without a state waits in the queue; the next worker takes it.
            if TASK_TAG in run.tags and _state(results / f"{TASK_FILES}{run.tags[TASK_TAG]}")
        ]
        for run in lost:
            _end(instance, run)
    return [run.run_id for run in lost]


def end_tracking_of(run_ids: Sequence[str]) -> None:
    """End the MLflow runs that lost Dagster runs left open."""
    from mlops_assets.registry import Registry
    from mlops_assets.settings import load_settings

    settings = load_settings()
    registry = Registry(settings.mlflow_uri, settings.mlflow_artifacts)
    for run_id in run_ids:
        registry.end_runs_of(run_id)


def _unfinished() -> tuple[dg.DagsterRunStatus, ...]:
    import dagster as dg

    states = dg.DagsterRunStatus
    return (states.STARTING, states.STARTED, states.CANCELING)


def _state(file: Path) -> str:
    """Of a task; "" for one that was not begun."""
    try:
        return state_in(file)
    except FileNotFoundError:
        return ""
    except json.JSONDecodeError:  # its worker was killed while it wrote
        return _OPEN[0]


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    import dagster as dg

    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, "The worker process of this run was ended as asked.")
    else:
        instance.report_run_failed(run, LOST)


if __name__ == "__main__":
    found = mark_lost_runs(Path(sys.argv[1]), Path(sys.argv[2]))
    if found:
        end_tracking_of(found)
    print(len(found))
