"""What one process at a time does in a home, by locks that a living process holds.

The kernel lets go of a lock when its holder ends, however it ends, so that nobody cleans up after a
killed one. Forks of the holder hold it with it: a worker that outlives its command still works.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from mlops_assets.errors import BusyError
from mlops_assets.quoting import escape

_NOT_SUPPORTED = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Attributes:
        pid: of the process.
        host: it is on.
        command: what it was started as, or does.
        since: when it got the lock, UTC, ISO 8601.
    """

    pid: int
    host: str
    command: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} ({self.command}), since {self.since}"


Told = Callable[[Holder | None], object]
"""Called once before a wait, with who holds the lock, if that can be known."""


@contextlib.contextmanager
def holding(
    file: Path, command: str, told: Told | None, *, shared: bool = False, why: str = ""
) -> Iterator[None]:
    """Hold the lock of a file until the block ends.

    On a network file system it holds as far as that has `flock`; where there is none, nothing is
    kept apart, and the log says so.

    Args:
        file: made if it is not there, and never removed.
        command: what the holder is called when others meet the lock.
        told: hears who is waited for; None: nobody is.
        shared: with others that hold it shared.
        why: what was not done, for the error.

    Raises:
        BusyError: somebody else holds it, and nobody is to be waited for.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        if not _taken(descriptor, kind | fcntl.LOCK_NB):
            if told is None:
                raise _busy(file, why)
            told(holder_of(file))
            _taken(descriptor, kind)
        try:
            _sign(descriptor, command)
            yield
        finally:
            # Not only closed: a fork started meanwhile has it open for as long as it lives.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def holding_all(
    locks: Path, names: list[str], command: str, told: Told | None, *, why: str = ""
) -> Iterator[None]:
    """Hold several locks of a folder, always in the same order so that no two wait for each other.

    Raises:
        BusyError: as `holding`.
    """
    with contextlib.ExitStack() as held:
        for name in sorted(set(names)):
            held.enter_context(holding(lock_file(locks, name), command, told, why=why))
        yield


def lock_file(locks: Path, name: str) -> Path:
    """The file of a lock in a folder, whatever it is called."""
    return locks / f"{escape(name, '%')}.lock"


def holder_of(file: Path) -> Holder | None:
    """Who holds the lock of a file, as it wrote there; None when that is not to be read."""
    try:
        return Holder(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def is_held(file: Path) -> bool:
    """Whether somebody holds the lock of a file alone just now; none is made."""
    try:
        descriptor = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _taken(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def this_command() -> str:
    """How this process was started, as a person would write it."""
    program = Path(sys.argv[0] or "python")
    name = "mlops-assets" if program.name == "__main__.py" else program.name
    return " ".join([name, *sys.argv[1:]])[:300]


def _taken(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        _LOG.warning("The file system has no locks (%s): nothing is kept apart.", error)
    return True


def _sign(descriptor: int, command: str) -> None:
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    holder = Holder(os.getpid(), socket.gethostname(), command, now)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(asdict(holder)).encode(), 0)


def _busy(file: Path, why: str) -> BusyError:
    holder = holder_of(file)
    return BusyError(
        f"{holder or 'Another process'} works on the same.",
        stored=why or "Nothing was done.",
        way_out="Wait until it has ended, or end it; its lock goes with it.",
        culprits={"holder": asdict(holder) if holder else {}, "lock": str(file)},
    )
