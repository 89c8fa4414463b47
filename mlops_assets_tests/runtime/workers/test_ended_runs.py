"""A run that a person ends is canceled, and not one that failed and is tried again."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import dagster as dg
import pytest

from mlops_assets.runtime.workers import run_executor
from mlops_assets_tests.forks import forks

STATES = dg.DagsterRunStatus
_ENDS = (STATES.CANCELED, STATES.CANCELING)


@dg.op
def _long() -> None:
    time.sleep(60)


@dg.job(name="long", executor_def=dg.in_process_executor)
def _job() -> None:
    _long()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return tmp_path


def _execute(home: str, run_id: str) -> None:
    """What a worker does with a run."""
    with dg.DagsterInstance.from_config(home) as instance:
        repository = dg.Definitions(jobs=[_job]).get_repository_def()
        run_executor.repository = lambda: repository
        run_executor.instance = lambda: instance
        run = instance.get_run_by_id(run_id)
        assert run is not None
        list(run_executor.execute_run(run))


def _status(instance: dg.DagsterInstance, run_id: str) -> STATES:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


@pytest.mark.parametrize("asked_for", [True, False])
def test_a_worker_that_goes_leaves_a_canceled_run_only_where_a_person_asked_for_it(
    home: Path, asked_for: bool
) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        run = instance.create_run_for_job(_job)
        worker = forks().Process(target=_execute, args=(str(home), run.run_id))
        worker.start()
        deadline = time.monotonic() + 120
        while _status(instance, run.run_id) != STATES.STARTED:
            assert time.monotonic() < deadline
            assert worker.is_alive()
            time.sleep(0.1)
        time.sleep(1)
        if asked_for:
            instance.report_run_canceling(run)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGTERM)
        worker.join(30)
        assert (_status(instance, run.run_id) in _ENDS) == asked_for
