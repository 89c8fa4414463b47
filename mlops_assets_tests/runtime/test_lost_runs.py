from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pytest

from mlops_assets.runtime.lost_runs import end_lost_runs

TASK = "dagster-celery/task_id"
STATES = dg.DagsterRunStatus


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "dagster"
    (home / "results").mkdir(parents=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return home


def _run(home: Path, status: dg.DagsterRunStatus, task: str | None, state: str | None) -> str:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        tags = {TASK: task} if task else {}
        run = instance.create_run_for_job(_nothing, status=status, tags=tags)
    if task and state:
        (home / "results" / f"celery-task-meta-{task}").write_text(json.dumps({"status": state}))
    return run.run_id


def _status(home: Path, run_id: str) -> dg.DagsterRunStatus:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        return run.status


@dg.job(name="nothing")
def _nothing() -> None:
    pass


def test_a_run_whose_worker_died_is_shown_as_failed(home: Path) -> None:
    run = _run(home, STATES.STARTED, "a", "FAILURE")

    assert end_lost_runs(home, home / "results", workers_stopped=False) == [run]
    assert _status(home, run) == STATES.FAILURE


def test_a_run_in_progress_is_left_alone_while_workers_run(home: Path) -> None:
    run = _run(home, STATES.STARTED, "a", "STARTED")

    assert end_lost_runs(home, home / "results", workers_stopped=False) == []
    assert _status(home, run) == STATES.STARTED


def test_a_run_in_progress_when_all_workers_stopped_is_shown_as_failed(home: Path) -> None:
    run = _run(home, STATES.STARTED, "a", "STARTED")

    assert end_lost_runs(home, home / "results", workers_stopped=True) == [run]
    assert _status(home, run) == STATES.FAILURE


def test_a_run_that_still_waits_for_a_worker_goes_on_waiting(home: Path) -> None:
    run = _run(home, STATES.STARTING, "a", None)

    assert end_lost_runs(home, home / "results", workers_stopped=True) == []
    assert _status(home, run) == STATES.STARTING


def test_a_run_that_was_asked_to_end_is_shown_as_canceled(home: Path) -> None:
    run = _run(home, STATES.CANCELING, "a", "REVOKED")

    assert end_lost_runs(home, home / "results", workers_stopped=False) == [run]
    assert _status(home, run) == STATES.CANCELED


def test_runs_of_a_terminal_are_never_touched(home: Path) -> None:
    run = _run(home, STATES.STARTED, None, None)

    assert end_lost_runs(home, home / "results", workers_stopped=True) == []
    assert _status(home, run) == STATES.STARTED
