"""A child with all it starts: CPU, memory by service, and nothing of it left behind (Linux).

This process becomes the parent of every orphan below it, so that no second of CPU is lost: what
ends is waited for and counted, by its own parent or by this one.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.overhead.world import PROJECT

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2)."""
_LOOK_SECONDS = 0.5
_STOP_SECONDS = 60.0
_LONGEST_ARGUMENT = 200
_SERVICES: tuple[tuple[str, str], ...] = (
    ("fresh_server", "model check"),
    ("search_experiments", "mlflow database"),
    ("execute_run", "run processes"),
    ("execute_step", "run processes"),
    ("mlops-assets up", "supervisor"),  # before the services whose ports its options name
    ("webserver", "webserver"),
    ("daemon", "daemon"),
    ("grpc", "code server"),
    ("code-server", "code server"),
    ("mlflow", "mlflow"),
    ("uvicorn", "mlflow"),
    ("gunicorn", "mlflow"),
    ("celery", "workers"),
    ("worker", "workers"),
    ("multiprocessing", "spawned"),
    ("dagster dev", "supervisor"),
    ("mlops-assets materialize", "command"),
)
"""What a command line contains: the service the process belongs to; the first that fits."""


@dataclass(frozen=True)
class Usage:
    """What processes have used until now.

    Attributes:
        cpu: seconds by service, ended children that were waited for included.
        wall: time of the look, in monotonic seconds.
    """

    cpu: Mapping[str, float]
    wall: float

    @property
    def total(self) -> float:
        """Seconds of all services."""
        return sum(self.cpu.values())

    def since(self, before: Usage) -> Usage:
        """What came after an earlier look; the wall time is the difference."""
        cpu = {n: round(s - before.cpu.get(n, 0.0), 2) for n, s in self.cpu.items()}
        return Usage({n: s for n, s in cpu.items() if s}, self.wall - before.wall)


@dataclass
class Child:
    """A running command and all it starts.

    Attributes:
        process: the command itself.
        log: file with what it prints to standard error.
        peaks: highest resident size of each process, in MB.
        own: CPU seconds of each process itself, as last seen.
        names: service of each process.
        others: processes that were there before.
        reaped: CPU seconds of orphans that ended, by service.
    """

    process: subprocess.Popen[bytes]
    log: Path
    began: float
    peaks: dict[int, float] = field(default_factory=dict)
    own: dict[int, float] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    others: frozenset[int] = frozenset()
    reaped: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _ended: threading.Event = field(default_factory=threading.Event)

    def all(self) -> list[int]:
        """Every process below this one that the command started."""
        return [pid for pid in descendants() if pid not in self.others]

    def seen(self) -> dict[str, float]:
        """CPU seconds by service as last seen: half a second of each process may be missing."""
        found: defaultdict[str, float] = defaultdict(float)
        for pid, seconds in self.own.items():
            found[self.names.get(pid, "other")] += seconds
        return {name: round(seconds, 2) for name, seconds in found.items() if seconds}

    def usage(self) -> Usage:
        """CPU by service of everything that runs or has run below this process."""
        cpu = defaultdict(float, self.reaped)
        for pid in self.all():
            cpu[self.named(pid)] += _seconds(pid)
        return Usage(cpu, time.monotonic())

    def named(self, pid: int) -> str:
        """Service of a process; remembered, because the dead have no command line."""
        found = _service(pid)
        if found:
            self.names[pid] = found
        return self.names.get(pid, "other")

    @property
    def peak_mb(self) -> float:
        """Highest resident size of a single process, in MB."""
        return max(self.peaks.values(), default=0.0)

    def peak_of(self, *services: str) -> float:
        """The same among the processes of some services."""
        sizes = [size for pid, size in self.peaks.items() if self.names.get(pid) in services]
        return max(sizes, default=0.0)

    def memory_mb(self) -> dict[str, float]:
        """Proportional resident size of the processes of each service now, in MB."""
        found: defaultdict[str, float] = defaultdict(float)
        for pid in self.all():
            found[self.named(pid)] += _proportional_mb(pid)
        return {name: round(size, 1) for name, size in found.items() if size}

    def watch(self) -> None:
        """Look at sizes until it has ended; in a thread of its own."""
        while not self._ended.wait(_LOOK_SECONDS):
            for pid in self.all():
                self.named(pid)
                self.peaks[pid] = max(self.peaks.get(pid, 0.0), _peak_mb(pid))
                self.own[pid] = max(self.own.get(pid, 0.0), _seconds(pid, with_children=False))

    def wait(self, seconds: float) -> Usage:
        """Until it ends by itself: CPU of all, by `wait4`, and wall seconds since its start.

        Raises:
            TimeoutError: it has not ended in time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            pid, status, used = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.process.returncode = os.waitstatus_to_exitcode(status)
                wall = time.monotonic() - self.began
                self._end_orphans()
                cpu = {"children": used.ru_utime + used.ru_stime, **self.reaped}
                return Usage(cpu, wall)
            time.sleep(0.05)
        raise TimeoutError(f"it takes more than {seconds:.0f} s; see {self.log}")

    def stop(self) -> None:
        """Ask it to end and end what is left."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._end_orphans()
        self._ended.set()

    def _end_orphans(self) -> None:
        """Children of this process by adoption: they have a second to end by themselves."""
        patience = time.monotonic() + 1.0
        while left := [pid for pid in self.all() if _is_alive(pid) or _parent(pid) == os.getpid()]:
            for pid in left:
                if time.monotonic() > patience and _is_alive(pid):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self._reap(pid)
            time.sleep(0.05)

    def _reap(self, pid: int) -> None:
        name = self.named(pid)
        try:
            found, _, used = os.wait4(pid, os.WNOHANG)
        except ChildProcessError:  # its own parent is still there
            return
        if found:
            self.reaped[name] += used.ru_utime + used.ru_stime


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], folder: Path
) -> Iterator[Child]:
    """Start a command with output in `folder`; at the end nothing it started is left."""
    _adopt_orphans()
    others = frozenset(descendants())
    log = folder / "stderr.txt"
    with (folder / "stdout.txt").open("wb") as output, log.open("wb") as errors:
        process = subprocess.Popen(
            list(command),
            env=dict(environment),
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
    child = Child(process, log, time.monotonic(), others=others)
    threading.Thread(target=child.watch, daemon=True).start()
    try:
        yield child
    finally:
        child.stop()


def descendants() -> list[int]:
    """Every process below this one, the ended that nobody waited for included."""
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        children = _children(waiting.pop())
        found += children
        waiting += children
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, file.read_text().split())
        except OSError:
            continue
    return found


def _adopt_orphans() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this process cannot adopt orphans")


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on; none when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []


def _seconds(pid: int, *, with_children: bool = True) -> float:
    """CPU seconds of a process, and of its ended children that it waited for."""
    fields = _stat(pid)
    return sum(map(int, fields[11 : 15 if with_children else 13])) * _TICK if fields else 0.0


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _is_alive(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] != "Z"


def _service(pid: int) -> str:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    # Dagster hands its whole configuration over as JSON, which names every service.
    words = " ".join(each for each in arguments if len(each) < _LONGEST_ARGUMENT)
    if not words:
        return ""
    return next((service for part, service in _SERVICES if part in words), "other")


def _peak_mb(pid: int) -> float:
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmHWM:") / 1024


def _proportional_mb(pid: int) -> float:
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") / 1024


def _kilobytes(file: Path, key: str) -> float:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) for line in lines if line.startswith(key)), 0.0)
