"""What a headless worker tells of an order it could not execute, or did not live to execute."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.runtime.headless import workers as headless
from mlops_assets.runtime.headless.workers import RunOrder, RunOutcome, WarmWorkers

ORDER = RunOrder("parcels", "train", ("model",), country="DEU")
Execute = Callable[[RunOrder], RunOutcome]


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Execute], None]:
    """Forked workers that execute as a test says, without a code location."""
    monkeypatch.setattr(headless, "_load", lambda home: None)
    monkeypatch.setattr(headless, "_mark_failed", lambda home, order, problem: "")
    monkeypatch.setattr(headless.sys, "platform", "linux")
    begin = headless._Worker.begin

    def forked(home: Path, method: str, *others: Any) -> Any:
        """One that is replaced is a fork too, which alone has what the test changed."""
        return begin(home, "fork", *others)

    monkeypatch.setattr(headless._Worker, "begin", forked)
    return lambda execute: monkeypatch.setattr(headless, "_execute", execute)


def _disk_full(order: RunOrder) -> RunOutcome:
    raise OSError(28, "No space left on device")


def _whose_process(order: RunOrder) -> RunOutcome:
    return RunOutcome(order, str(os.getpid()), (), (), 0.0)


def test_an_order_that_cannot_be_executed_says_why_and_its_worker_goes_on(
    begun: Callable[[Execute], None], tmp_path: Path
) -> None:
    begun(lambda order: _disk_full(order) if order.country == "DEU" else _whose_process(order))
    with WarmWorkers(tmp_path, 1) as workers:
        process = workers._workers[0].process.pid
        (failed,) = workers.run([ORDER])
        (other,) = workers.run([RunOrder("parcels", "train", ("model",), country="FRA")])

    assert failed.problems == (
        "the run could not be executed: OSError: [Errno 28] No space left on device",
    )
    assert other.run_id == str(process)


def _kill_once(marker: Path) -> Execute:
    def execute(order: RunOrder) -> RunOutcome:
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return _whose_process(order)

    return execute


def test_an_order_whose_worker_died_before_its_run_began_is_done_by_another(
    begun: Callable[[Execute], None], tmp_path: Path
) -> None:
    begun(_kill_once(tmp_path / "killed"))
    with WarmWorkers(tmp_path, 1) as workers:
        first = workers._workers[0].process.pid
        (outcome,) = workers.run([ORDER])

    assert outcome.success
    assert outcome.run_id != str(first)


def test_one_whose_run_had_begun_is_not_done_twice(
    begun: Callable[[Execute], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(_kill_once(tmp_path / "killed"))
    monkeypatch.setattr(headless, "_mark_failed", lambda home, order, problem: "a run")
    with WarmWorkers(tmp_path, 1) as workers:
        (outcome,) = workers.run([ORDER])

    assert outcome.run_id == "a run"
    assert "the worker process died" in outcome.problems[0]


def test_workers_end_with_their_parent(begun: Callable[[Execute], None], tmp_path: Path) -> None:
    begun(_whose_process)
    with WarmWorkers(tmp_path, 2) as workers:
        processes = [worker.process for worker in workers._workers]
        assert all(process.is_alive() for process in processes)

    assert [process.exitcode for process in processes] == [0, 0]
