"""What a headless worker tells of an order it could not execute, or did not live to execute."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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


def test_two_that_ask_at_once_take_turns_and_each_gets_its_own(
    begun: Callable[[Execute], None], tmp_path: Path
) -> None:
    begun(_gated(tmp_path))
    first = [replace(ORDER, country=country) for country in ("A1", "A2", "A3", "A4")]
    second = [replace(ORDER, country=country) for country in ("B1", "B2")]
    with WarmWorkers(tmp_path, 1) as workers, ThreadPoolExecutor(2) as threads:
        answers = [
            threads.submit(lambda asked=asked: list(workers.run(asked)))
            for asked in (first, second)
        ]
        _until(lambda: len(workers._asked) == 2)
        (tmp_path / "go").touch()
        got = [[each.order.country for each in answer.result(60)] for answer in answers]

    assert got == [["A1", "A2", "A3", "A4"], ["B1", "B2"]]
    order = (tmp_path / "order").read_text().split()
    assert order.index("B1") < order.index("A3")
    assert order.index("B2") < order.index("A4")


def _gated(folder: Path) -> Execute:
    """Notes the countries in their order, from when the test lets it."""

    def execute(order: RunOrder) -> RunOutcome:
        (folder / "begun").touch()
        _until((folder / "go").exists)
        with (folder / "order").open("a") as file:
            file.write(f"{order.country}\n")
        return _whose_process(order)

    return execute


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_where_no_other_worker_can_be_started_the_order_has_its_outcome_and_the_next_is_done(
    begun: Callable[[Execute], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(_kill_once(tmp_path / "killed"))
    forked = headless._Worker.begin

    def refused(*_: Any) -> Any:
        monkeypatch.setattr(headless._Worker, "begin", forked)
        raise OSError(12, "Cannot allocate memory")

    with WarmWorkers(tmp_path, 1) as workers:
        monkeypatch.setattr(headless._Worker, "begin", refused)
        (failed,) = workers.run([ORDER])
        (after,) = workers.run([replace(ORDER, country="FRA")])

    assert failed.problems == (
        "no worker could be started: OSError: [Errno 12] Cannot allocate memory",
    )
    assert after.success


def test_workers_ended_in_the_middle_of_an_order_say_nothing_on_the_terminal(
    begun: Callable[[Execute], None],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun(_gated(tmp_path))
    monkeypatch.setattr(headless, "_END_SECONDS", 0.5)
    with WarmWorkers(tmp_path, 1) as workers, ThreadPoolExecutor(1) as thread:
        answer = thread.submit(lambda: list(workers.run([ORDER])))
        _until((tmp_path / "begun").exists)
        pid = workers._workers[0].process.pid
        assert pid is not None
        os.kill(pid, signal.SIGINT)  # Ctrl-C in a terminal is for all of its processes
        workers.__exit__()
        assert not answer.result(60)[0].success
    assert "Traceback" not in capfd.readouterr().err


def test_workers_end_with_their_parent(begun: Callable[[Execute], None], tmp_path: Path) -> None:
    begun(_whose_process)
    with WarmWorkers(tmp_path, 2) as workers:
        processes = [worker.process for worker in workers._workers]
        assert all(process.is_alive() for process in processes)

    assert [process.exitcode for process in processes] == [0, 0]
