"""The Celery app of the warm workers: they hold the code location before the first run comes.

The main process imports everything and forks; a worker process that is replaced, after so many runs
or above a memory limit, starts warm again.
"""

from __future__ import annotations

import atexit
import gc
import socket
import time
import uuid
from typing import Any

import dagster as dg
from celery.signals import worker_ready

from mlops_assets.runtime.dagster_compat import EngineEventData, run_id_of
from mlops_assets.runtime.workers import run_executor as warm
from mlops_assets.runtime.workers.broker import (
    DEFAULT_QUEUE,
    broker_url,
    celery_settings,
    results_url,
    with_queues,
)
from mlops_assets.runtime.workers.celery_compat import (
    TASK_EXECUTE_JOB_NAME,
    TASK_TAG,
    make_app,
    store_of,
)
from mlops_assets.runtime.workers.heartbeats import WORKER_TAG, keep_beating
from mlops_assets.runtime.workers.lost_runs import end_tracking_of
from mlops_assets.settings import load_settings

WORKER = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
"""This main process and those it forks; after a restart it is another one."""
_PATIENCE_TRIES, _PATIENCE_SECONDS = 30, 2.0
_settings = load_settings()

app = with_queues(
    make_app(
        {
            "broker": broker_url(_settings),
            "backend": results_url(_settings),
            "task_default_queue": DEFAULT_QUEUE,
            "config_source": celery_settings(_settings),
        }
    )
)
warm.one_thread()
warm.repository()
gc.collect()
gc.freeze()  # forks share what is here as long as nobody looks through it for garbage
atexit.register(gc.unfreeze)


@worker_ready.connect
def _ready(**_: Any) -> None:
    keep_beating(store_of(app), WORKER)


@app.task(bind=True, name=TASK_EXECUTE_JOB_NAME, track_started=True)
def execute_job(task: Any, execute_job_args_packed: Any) -> bool:
    """Execute a run that the launcher handed over; whether it succeeded."""
    run_id = run_id_of(execute_job_args_packed)
    instance = warm.instance()
    run = instance.get_run_by_id(run_id)
    if run is None:  # removed since it was asked for
        return False
    # The task too: who handed it over may have been killed before it wrote that down.
    instance.add_run_tags(run_id, {WORKER_TAG: WORKER, TASK_TAG: task.request.id})
    told = EngineEventData({"worker": dg.TextMetadataValue(WORKER)})
    instance.report_engine_event(f"On worker {WORKER}.", run, told, cls=None)
    succeeded = False
    try:
        events = list(warm.execute_run(run))  # to the last one: that makes them happen
        succeeded = not any(event.is_failure for event in events)
    finally:
        if not succeeded:
            _end_tracking(run_id)
    return succeeded


def _end_tracking(run_id: str) -> None:
    """End the MLflow run that a failed run could not: its database was away, and may still be."""
    for left in reversed(range(_PATIENCE_TRIES + 1)):
        try:
            end_tracking_of([run_id])
            return
        except Exception:
            if not left:
                raise
            time.sleep(_PATIENCE_SECONDS)
