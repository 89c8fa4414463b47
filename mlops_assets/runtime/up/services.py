"""Child processes of `up`: started, watched, started again, and stopped to the last one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlops_assets.atomic import replace_file
from mlops_assets.settings import PROJECT_ROOT

_STEADY_SECONDS = 60.0
"""A service that ran this long was well; its next end is a new trouble."""
_LONGEST_WAIT = 60.0
_PROGRAMS = ("dagster", "celery", "mlflow", "mlops_assets")


@dataclass
class Service:
    """One child process that leads a group of its own, so that all it starts can be ended.

    Attributes:
        name: what a person calls it.
        command: program and arguments; its environment is `environment` alone.
        log: file that gets what it prints.
        stop_signal: asks the first process to end in order; it tells those it started.
        port: of 127.0.0.1, on which it answers once it can be used; 0 for none.
        failures: how often in a row it ended by itself soon after its start.
    """

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    stop_signal: signal.Signals = signal.SIGTERM
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None)
    started: float = 0.0
    failures: int = 0

    def start(self) -> None:
        """Start it, its output appended to the log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                cwd=PROJECT_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started = time.monotonic()

    @property
    def answers(self) -> bool:
        """Whether it can be used by others."""
        return answers(self.port)

    @property
    def ended(self) -> bool:
        """Whether it ended by itself."""
        return self.process is not None and self.process.poll() is not None

    def note_end(self) -> float:
        """Count an end by itself; seconds to wait before the next start: 1, 2, 4 up to 60.

        What it had started is ended: it would hold ports and take work.
        """
        if self.process is not None:
            _kill_group(self.process.pid)
        steady = time.monotonic() - self.started > _STEADY_SECONDS
        self.failures = 1 if steady else self.failures + 1
        self.process = None
        return min(_LONGEST_WAIT, 2.0 ** (self.failures - 1))

    def retire(self) -> Service:
        """Ask it to end after the work it has, and hand that process over; this one can start.

        Restarted workers take new runs at once while the old ones finish theirs.
        """
        leaving = Service(f"{self.name} (leaving)", self.command, {}, self.log, self.stop_signal)
        leaving.process, self.process, self.failures = self.process, None, 0
        leaving.ask()
        return leaving

    def ask(self) -> None:
        """Send the stop signal to the first process."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(self.stop_signal)

    def end(self, deadline: float) -> None:
        """Wait until `deadline` (monotonic seconds), then end what is left of its group."""
        if self.process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, deadline - time.monotonic()))
        _kill_group(self.process.pid)
        self.process.wait()
        self.process = None

    def last_words(self) -> str:
        """The last line of its log that says something."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def answers(port: int) -> bool:
    """Whether something listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def stop_all(services: Sequence[Service], seconds: float) -> None:
    """Ask all to end at once, then make those that have not within `seconds`."""
    deadline = time.monotonic() + seconds
    for service in services:
        service.ask()
    for service in services:
        service.end(deadline)


def remember(file: Path, services: Iterable[Service]) -> None:
    """Write down which process groups run, for an `up` after one that was killed."""
    running = {
        service.process.pid: service.command for service in services if service.process is not None
    }
    replace_file(str(file), lambda written: written.write(json.dumps(running).encode()))


def end_left_over(file: Path) -> int:
    """End the process groups an `up` that was killed left behind; returns how many processes.

    Only processes that look like ours count: the number may belong to somebody else by now.
    """
    if not file.exists():
        return 0
    recorded = {int(group) for group in json.loads(file.read_text())}
    found = [group for group in _groups_of_our_programs() if group in recorded]
    for group in set(found):
        _kill_group(group)
    file.unlink()
    return len(found)


def _groups_of_our_programs() -> list[int]:
    """The group of every running process that is Dagster, Celery or MLflow."""
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pgid=", "-o", "args="],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rows = (line.split(None, 1) for line in listed.splitlines())
    return [
        int(row[0])
        for row in rows
        if len(row) > 1 and any(program in row[1] for program in _PROGRAMS)
    ]


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
