"""Runs are handed to warm workers, and watched until they end."""

from __future__ import annotations

import subprocess
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

from mlops_assets.runtime.broker import with_queues
from mlops_assets.runtime.heartbeats import WORKER_TAG, Watch
from mlops_assets.runtime.lost_runs import LOST

if TYPE_CHECKING:
    import dagster as dg


class WarmRunLauncher(CeleryRunLauncher):
    """Dagster's launcher on Celery, with a queue a size class and workers that are known to live.

    Celery itself never learns that a host is gone, so that its runs would be shown as running for
    ever. Here a run is lost when its task is known to have failed, or its worker is silent.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        with_queues(self.celery)

    @cached_property
    def _watch(self) -> Watch:
        backend: Any = self.celery.backend
        return Watch(backend)

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether somebody works on a started run; asked by Dagster's run monitoring."""
        if DAGSTER_CELERY_TASK_ID_TAG not in run.tags:  # of another launcher, before this one
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        state = self.celery.AsyncResult(run.tags[DAGSTER_CELERY_TASK_ID_TAG]).state
        if state == "SUCCESS":
            return CheckRunHealthResult(WorkerStatus.SUCCESS)
        if state in ("FAILURE", "REVOKED") or self._is_silent(run):
            end_tracking(run.run_id)
            return CheckRunHealthResult(WorkerStatus.FAILED, LOST)
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def _is_silent(self, run: dg.DagsterRun) -> bool:
        worker = run.tags.get(WORKER_TAG)
        return worker is not None and self._watch.is_silent(worker)


def end_tracking(run_id: str) -> None:
    """End the MLflow run that a lost run left open, in a process of its own.

    MLflow's import takes seconds and memory, which the daemon is to do without.
    """
    program = (
        "import sys; from mlops_assets.runtime.lost_runs import end_tracking_of; "
        "end_tracking_of(sys.argv[1:])"
    )
    subprocess.Popen(
        [sys.executable, "-P", "-c", program, run_id],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
