from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlops_assets.runtime.up.services import Service, end_left_over, remember, stop_all
from mlops_assets_tests.runtime.serving import eventually

STUBBORN = (
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print('child', child.pid, flush=True)\n"
    "time.sleep(600)\n"
)
ENDS_AT_ONCE = "print('cannot import contract'); raise SystemExit(1)"
WAITS = "import time; print('ready', flush=True); time.sleep(600)"

Make = Callable[..., Service]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Service] = []

    def make(code: str, *arguments: str) -> Service:
        command = [sys.executable, "-c", code, *arguments]
        made.append(Service("workers", command, dict(os.environ), tmp_path / "workers.log"))
        return made[-1]

    yield make
    stop_all(made, 0)


def test_what_ignores_the_signal_and_what_it_started_are_ended_all_the_same(make: Make) -> None:
    service = make(STUBBORN)
    service.start()
    eventually(lambda: "child" in service.log.read_text(), "the child", 20)
    child = int(service.last_words().split()[1])

    stop_all([service], 0.5)

    eventually(lambda: not _runs(child), "the end of the child", 10)
    assert service.process is None


def test_a_service_that_keeps_ending_is_started_ever_more_rarely_and_says_why(make: Make) -> None:
    service, waits = make(ENDS_AT_ONCE), []
    for _ in range(3):
        service.start()
        eventually(lambda: service.ended, "its end", 20)
        waits.append(service.note_end())

    assert waits == [1.0, 2.0, 4.0]
    assert service.last_words() == "cannot import contract"


def test_new_workers_start_while_the_old_ones_finish(make: Make) -> None:
    service = make(WAITS)
    service.start()
    eventually(lambda: "ready" in service.log.read_text(), "the start", 20)

    leaving = service.retire()
    service.start()

    assert service.process is not None
    assert leaving.process is not None
    assert leaving.process.pid != service.process.pid
    stop_all([service, leaving], 5)


def test_what_a_killed_up_left_behind_is_ended_by_the_next(make: Make, tmp_path: Path) -> None:
    service, file = make(WAITS, "celery"), tmp_path / "processes.json"
    service.start()
    assert service.process is not None
    eventually(lambda: "ready" in service.log.read_text(), "the start", 20)
    remember(file, [service])

    assert end_left_over(file) == 1
    assert service.process.wait(10) == -signal.SIGKILL
    assert not file.exists()


def test_a_process_of_somebody_else_with_a_remembered_number_is_left_alone(
    make: Make, tmp_path: Path
) -> None:
    service, file = make(WAITS, "an editor"), tmp_path / "elsewhere" / "processes.json"
    file.parent.mkdir()
    other = subprocess.Popen(["sleep", "600"], start_new_session=True)
    service.process = other
    remember(file, [service])

    assert end_left_over(file) == 0
    time.sleep(0.2)
    assert other.poll() is None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(") ")[2].startswith("Z"))
