"""A worker that is silent is dead, whatever its clock says; its runs are lost, others are not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from celery.backends.filesystem import FilesystemBackend
from dagster._core.launcher import WorkerStatus

from mlops_assets.runtime.instance import prepare_up_instance
from mlops_assets.runtime.workers import heartbeats, launcher
from mlops_assets.runtime.workers.heartbeats import SILENT_SECONDS, WORKER_TAG, Watch, beat
from mlops_assets.runtime.workers.launcher import WarmRunLauncher
from mlops_assets.settings import load_settings

TASK = "dagster-celery/task_id"


class Clock:
    """The listener's clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(heartbeats, "time", made)
    return made


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs whose MLflow runs were to be ended."""
    told: list[str] = []
    monkeypatch.setattr(launcher, "end_tracking", told.append)
    return told


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("MLOPS_ASSETS_HOME", str(tmp_path))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    home = prepare_up_instance(load_settings(), 2)
    with dg.DagsterInstance.from_config(str(home)) as opened:
        yield opened


@dg.job(name="nothing")
def _nothing() -> None:
    pass


def _watch(folder: Path) -> Watch:
    from celery import Celery

    return Watch(FilesystemBackend(app=Celery(), url=f"file://{folder}"))


def test_a_worker_that_beats_lives_and_one_that_stops_is_silent(
    tmp_path: Path, clock: Clock
) -> None:
    watch = _watch(tmp_path)
    for _ in range(5):
        beat(watch.backend, "a")
        assert not watch.is_silent("a")
        clock.now += SILENT_SECONDS - 1
    clock.now += 2
    assert watch.is_silent("a")
    beat(watch.backend, "a")
    assert not watch.is_silent("a")


def test_a_worker_never_heard_of_is_waited_for_before_it_is_silent(
    tmp_path: Path, clock: Clock
) -> None:
    watch = _watch(tmp_path)
    assert not watch.is_silent("b")
    clock.now += SILENT_SECONDS + 1
    assert watch.is_silent("b")


def test_clocks_of_hosts_may_differ(tmp_path: Path, clock: Clock) -> None:
    watch = _watch(tmp_path)
    here = clock.now
    for step in range(3):
        clock.now = 5.0 + step  # the worker's clock
        beat(watch.backend, "a")
        clock.now = here + step * (SILENT_SECONDS - 1)
        assert not watch.is_silent("a")


def _health(instance: dg.DagsterInstance, state: str | None, **tags: str) -> Any:
    on = instance.run_launcher
    assert isinstance(on, WarmRunLauncher)
    if state:
        on.celery.backend.store_result("task", None, state)
    run = instance.create_run_for_job(_nothing, tags=tags)
    return on.check_run_worker_health(run).status


def test_a_run_whose_task_failed_is_lost_and_its_mlflow_run_is_ended(
    instance: dg.DagsterInstance, ended: list[str]
) -> None:
    assert _health(instance, "FAILURE", **{TASK: "task"}) == WorkerStatus.FAILED
    assert len(ended) == 1


def test_a_run_of_a_worker_that_fell_silent_is_lost(
    instance: dg.DagsterInstance, clock: Clock, ended: list[str]
) -> None:
    tags = {TASK: "task", WORKER_TAG: "a"}
    assert _health(instance, "STARTED", **tags) == WorkerStatus.RUNNING
    clock.now += SILENT_SECONDS + 1
    assert ended == []
    assert _health(instance, "STARTED", **tags) == WorkerStatus.FAILED


@pytest.mark.parametrize("task", ["task", ""])
@pytest.mark.parametrize(
    ("status", "then"),
    [
        (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING),  # its worker says the rest
        (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELED),
        (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.SUCCESS),
    ],
)
def test_a_run_that_a_person_ends_is_on_record_as_such_before_its_worker_goes(
    instance: dg.DagsterInstance,
    status: dg.DagsterRunStatus,
    then: dg.DagsterRunStatus,
    task: str,
) -> None:
    run = instance.create_run_for_job(_nothing, tags={TASK: task}, status=status)
    assert instance.run_launcher.terminate(run.run_id) == (status != then)
    after = instance.get_run_by_id(run.run_id)
    assert after is not None
    assert after.status == then
    assert not instance.run_launcher.terminate("of nobody")


def test_a_run_of_another_launcher_is_nobodys_business(instance: dg.DagsterInstance) -> None:
    assert _health(instance, None) == WorkerStatus.RUNNING
