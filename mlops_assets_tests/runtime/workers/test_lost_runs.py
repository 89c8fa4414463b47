from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pytest

from mlops_assets.registry import Registry
from mlops_assets.runtime.workers.lost_runs import end_lost_runs, mark_lost_runs
from mlops_assets.settings import load_settings

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

    assert mark_lost_runs(home, home / "results") == [run]
    assert _status(home, run) == STATES.FAILURE


def test_a_run_in_progress_when_all_workers_stopped_is_shown_as_failed(home: Path) -> None:
    run = _run(home, STATES.STARTED, "a", "STARTED")

    assert mark_lost_runs(home, home / "results") == [run]
    assert _status(home, run) == STATES.FAILURE


def test_a_run_whose_worker_was_killed_while_it_wrote_is_shown_as_failed(home: Path) -> None:
    run = _run(home, STATES.STARTED, "a", "STARTED")
    (home / "results" / "celery-task-meta-a").write_text('{"status": "STA')

    assert mark_lost_runs(home, home / "results") == [run]


def test_a_run_that_still_waits_for_a_worker_goes_on_waiting(home: Path) -> None:
    run = _run(home, STATES.STARTING, "a", None)

    assert mark_lost_runs(home, home / "results") == []
    assert _status(home, run) == STATES.STARTING


def test_a_run_that_was_asked_to_end_is_shown_as_canceled(home: Path) -> None:
    run = _run(home, STATES.CANCELING, "a", "REVOKED")

    assert mark_lost_runs(home, home / "results") == [run]
    assert _status(home, run) == STATES.CANCELED


def test_runs_of_a_terminal_are_never_touched(home: Path) -> None:
    run = _run(home, STATES.STARTED, None, None)

    assert mark_lost_runs(home, home / "results") == []
    assert _status(home, run) == STATES.STARTED


def test_nothing_is_opened_where_every_task_has_ended_well(tmp_path: Path) -> None:
    (tmp_path / "celery-task-meta-a").write_text(json.dumps({"status": "SUCCESS"}))

    assert end_lost_runs(tmp_path / "no instance is here", tmp_path) == 0


@pytest.mark.nightly  # starts another program that imports everything
def test_lost_runs_are_counted_by_a_process_that_ends_them(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_ASSETS_HOME", str(home.parent))
    settings = load_settings()
    Registry(settings.mlflow_uri, settings.mlflow_artifacts).initialise()
    run = _run(home, STATES.STARTED, "a", "STARTED")

    assert end_lost_runs(home, home / "results") == 1
    assert _status(home, run) == STATES.FAILURE
