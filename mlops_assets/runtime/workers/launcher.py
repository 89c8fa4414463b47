"""Runs are handed to warm workers, and watched until they end."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mlops_assets.runtime.dagster_compat import CheckRunHealthResult, WorkerStatus
from mlops_assets.runtime.dagster_compat import monitor_starting_run as dagsters_monitor
from mlops_assets.runtime.workers.broker import with_queues
from mlops_assets.runtime.workers.celery_compat import (
    TASK_TAG,
    CeleryRunLauncher,
    store_of,
    waiting_tasks,
)
from mlops_assets.runtime.workers.heartbeats import WORKER_TAG, Watch
from mlops_assets.runtime.workers.lost_runs import LOST
from mlops_assets.spec import SIZES

if TYPE_CHECKING:
    import dagster as dg

    from mlops_assets.runtime.dagster_compat import LaunchRunContext

_NOBODYS_SECONDS = 20.0
"""After which a run that neither waits nor has a worker is lost: a worker that takes one gives its
name at once."""
_BEGUN = "STARTED"
"""Status of a run that a worker has begun."""
_ENDED = ("SUCCESS", "FAILURE", "REVOKED")


class WarmRunLauncher(CeleryRunLauncher):
    """Dagster's launcher on Celery, with a queue a size class and workers that are known to live.

    Celery itself never learns that a host is gone, so that its runs would be shown as running for
    ever. Here a run is lost when its task is known to have ended, or its worker is silent, or,
    with Redis, when it was handed over and is with nobody: it went with a worker that was killed
    in between, or with what Redis had not written down.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        with_queues(self.celery)
        self._nobodys: dict[str, float] = {}

    @cached_property
    def _watch(self) -> Watch:
        return Watch(store_of(self.celery))

    def launch_run(self, context: LaunchRunContext) -> None:
        """Hand a run over. One that is tried again has its parent's tags, and no worker yet."""
        run = context.dagster_run
        of_parent = {WORKER_TAG, TASK_TAG} & run.tags.keys()
        if of_parent:
            self._instance.add_run_tags(run.run_id, dict.fromkeys(of_parent, ""))
        super().launch_run(context)

    def terminate(self, run_id: str) -> bool:
        """End a run as a person asked; False for one that has ended by itself.

        That it was asked for is on record before anything is ended: a run whose worker goes without
        it counts as failed, and what failed so is tried again. One that no worker has begun has
        ended with that; of one that has, its worker says so, or run monitoring when it cannot.
        """
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        if run.tags.get(TASK_TAG):
            super().terminate(run_id)
        if run.status.value != _BEGUN:
            self._instance.report_run_canceled(run, "It was ended before a worker began it.")
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether somebody works on a started run; asked by Dagster's run monitoring."""
        if not run.tags.get(TASK_TAG):  # of another launcher, before this one
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        lost = self._task_state(run) in _ENDED or self._is_silent(run)
        if not lost or self._has_moved_on(run):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        end_tracking(run.run_id)
        return CheckRunHealthResult(WorkerStatus.FAILED, LOST)

    def is_lost(self, run: dg.DagsterRun) -> bool:
        """Whether a run that was handed over will never start; asked again and again."""
        if self._is_silent(run) or self._task_state(run) in ("FAILURE", "REVOKED"):
            return not self._has_moved_on(run)
        if not self._is_nobodys(run):
            self._nobodys.pop(run.run_id, None)
            return False
        since = self._nobodys.setdefault(run.run_id, time.monotonic())
        return time.monotonic() - since > _NOBODYS_SECONDS and not self._has_moved_on(run)

    def _is_nobodys(self, run: dg.DagsterRun) -> bool:
        """Neither waiting in Redis nor with a worker; of files, what one has taken cannot be told.

        Celery notes that a task has begun before the worker gives its name: one that is killed in
        between leaves a task that has begun and will never end.
        """
        if not str(self.broker).startswith("redis") or run.tags.get(WORKER_TAG):
            return False
        return run.tags.get(TASK_TAG) not in waiting_tasks(self.celery, SIZES)

    def _task_state(self, run: dg.DagsterRun) -> str:
        task = run.tags.get(TASK_TAG)
        return self.celery.AsyncResult(task).state if task else "PENDING"

    def _has_moved_on(self, run: dg.DagsterRun) -> bool:
        """Its task may have ended between a look at the history and one at the broker."""
        now = self._instance.get_run_by_id(run.run_id)
        return now is None or now.status != run.status

    def _is_silent(self, run: dg.DagsterRun) -> bool:
        worker = run.tags.get(WORKER_TAG)
        return bool(worker) and self._watch.is_silent(worker)


def end_tracking(run_id: str) -> None:
    """End the MLflow run that a lost run left open, in a process of its own.

    MLflow's import takes seconds and memory, which the daemon is to do without.
    """
    program = (
        "import sys; from mlops_assets.runtime.workers.lost_runs import end_tracking_of; "
        "end_tracking_of(sys.argv[1:])"
    )
    subprocess.Popen(
        [sys.executable, "-P", "-c", program, run_id],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def monitor_starting_run(
    instance: dg.DagsterInstance, run_record: dg.RunRecord, logger: logging.Logger
) -> None:
    """Dagster's look at a run that has not started, which knows of nothing but patience."""
    run, launcher = run_record.dagster_run, instance.run_launcher
    if isinstance(launcher, WarmRunLauncher) and launcher.is_lost(run):
        end_tracking(run.run_id)
        instance.report_run_failed(run, LOST)
    else:
        dagsters_monitor(instance, run_record, logger)
