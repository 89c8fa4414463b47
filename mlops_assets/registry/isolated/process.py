"""The processes that check models: one a process that asks, alone or forked from a common one."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mlops_assets.registry.isolated.protocol import Closed, Reply, Request, readable, receive, send

START_SECONDS = 60.0
"""What the server's own start may take: it imports scikit-learn, on a busy machine."""
_INHERITED = (
    "DYLD_LIBRARY_PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONPYCACHEPREFIX",
    "TMPDIR",
    "TZ",
    "VIRTUAL_ENV",
)
"""What a process needs to find its libraries and to compute alike; nothing that is set for the
parent alone, such as its warning filters, its secrets or its databases."""
_THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""As every launcher of this project sets it, unless the parent has another number."""
_FIND = "import sys; sys.path.append(sys.argv[1]); "
_PROGRAM = f"{_FIND}from mlops_assets.registry.isolated.server import main; main()"
_PROGRAM_OF_MANY = (
    f"{_FIND}from mlops_assets.registry.isolated.server import main_of_many as m; m()"
)
_CLOSED = -1


def ask(request: Request, rows: bytes) -> Reply:
    """What the server of this process answers; it is started if need be.

    Args:
        request: what to check.
        rows: to predict, as Arrow's stream format.
    """
    with _state.lock:
        was_waiting = _state.server is not None
        server = _server_now()
        try:
            return server.ask(request, rows)
        except _Lost as lost:
            if not was_waiting and isinstance(server, _OwnServer):
                return _ended(lost)
        # It may have been killed while it waited for work, which says nothing of this model.
        try:
            return _server_now().ask(request, rows)
        except _Lost as lost:
            return _ended(lost)


def prepare() -> None:
    """Start the server, unless it is there: it imports its libraries while others work on."""
    with _state.lock:
        _server_now()


def share() -> None:
    """Let this process and those it will fork have their servers from one that imports once."""
    with _state.lock:
        if _state.common is None or _state.common.process.poll() is not None:
            _state.common = _Common()
            atexit.register(close)


def close() -> None:
    """End what this process started; the next check starts another server."""
    with _state.lock:
        if _state.server is not None:
            _state.server.end()
        if _state.common is not None:
            _state.common.end()
        _state.server = _state.common = None


class _Lost(Exception):
    """The server is gone; its last words."""


class _Server(ABC):
    """The server process of this process, and the two pipes to it."""

    @abstractmethod
    def pipes(self) -> tuple[int, int]:
        """For requests and for replies."""

    @abstractmethod
    def is_there(self) -> bool:
        """Whether it can be asked."""

    @abstractmethod
    def end(self) -> None:
        """Close the pipes, on which it ends by itself."""

    @abstractmethod
    def drop(self) -> None:
        """Close this process's copies of the pipes."""

    def last_words(self) -> str:
        """What it said of its end."""
        return "it said nothing"

    def ask(self, request: Request, rows: bytes) -> Reply:
        """The server's answer; a problem when it does not come in time.

        Raises:
            _Lost: the server has ended without one.
        """
        requests, replies = self.pipes()
        deadline = time.monotonic() + START_SECONDS + request.limit_seconds
        try:
            send(requests, request.to_bytes(), rows)
            (answer,) = receive(replies, 1, deadline)
        except (Closed, BrokenPipeError, ConnectionResetError) as error:
            last_words = self.last_words()
            self.end()
            raise _Lost(last_words) from error
        except TimeoutError:
            self.end()
            return Reply(problem="the process that checks models does not answer")
        return Reply.from_bytes(answer)


class _ForkedServer(_Server):
    """Forked by the common one, for this process."""

    def __init__(self, common: _Common) -> None:
        """Raises: OSError: the common one is gone."""
        self._ours, theirs = socket.socketpair()
        with theirs:
            try:
                common.hand_over(theirs)
            except OSError:
                self._ours.close()
                raise

    def pipes(self) -> tuple[int, int]:
        return self._ours.fileno(), self._ours.fileno()

    def is_there(self) -> bool:
        here = self._ours.fileno()
        # It says nothing unasked: what is to be read is its end.
        return here != _CLOSED and not readable(here, deadline=time.monotonic())

    def end(self) -> None:
        self.drop()

    def drop(self) -> None:
        self._ours.close()


class _Common:
    """The process whose forks are the servers of this process and of those it forks."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        with theirs:
            self.process = _started(_PROGRAM_OF_MANY, theirs.fileno(), subprocess.DEVNULL, None)

    def hand_over(self, end: socket.socket) -> None:
        """Have a server at the other side of a socket.

        Raises:
            OSError: the process is gone.
        """
        socket.send_fds(self._ours, [b"+"], [end.fileno()])

    def end(self) -> None:
        """End it; what it forked goes on until it is not needed any more."""
        self._ours.close()
        self.process.kill()  # it does nothing in a fork of the process that started it
        self.process.wait()


class _OwnServer(_Server):
    """Started by this process for itself."""

    def __init__(self) -> None:
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed with the pipes
        self.process = _started(_PROGRAM, subprocess.PIPE, subprocess.PIPE, self.errors)

    def pipes(self) -> tuple[int, int]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        return self.process.stdin.fileno(), self.process.stdout.fileno()

    def is_there(self) -> bool:
        return self.process.poll() is None

    def end(self) -> None:
        """Close the pipes, on which it ends by itself; kill it if it does not."""
        self.drop()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def drop(self) -> None:
        """Close the pipes and the file."""
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            assert pipe is not None
            pipe.close()

    def last_words(self) -> str:
        self.errors.seek(0)
        text = self.errors.read().decode(errors="replace").strip()
        return text[-300:] or "it said nothing"


def _started(
    program: str, stdin: int, stdout: int, stderr: IO[bytes] | None
) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).resolve().parents[3])
    return subprocess.Popen(
        # -P: a file called types.py in the current folder must not be taken for Python's own.
        [sys.executable, "-P", "-c", program, root],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=_environment(),
        cwd="/",
        start_new_session=True,  # Ctrl-C in a terminal is for the parent to deal with
    )


@dataclass
class _State:
    """The server of this process; a fork of it has none, and the common one of its parent."""

    lock: Any
    server: _Server | None = None
    common: _Common | None = None


_state = _State(threading.Lock())


def _ended(lost: _Lost) -> Reply:
    return Reply(problem=f"the process that checks models ended: {lost}")


def _server_now() -> _Server:
    if _state.server is None or not _state.server.is_there():  # ended since, by whatever
        if _state.server is not None:
            _state.server.drop()
        else:
            atexit.register(close)
        _state.server = _new_server()
    return _state.server


def _new_server() -> _Server:
    if _state.common is not None:
        try:
            return _ForkedServer(_state.common)
        except OSError:  # killed, by whatever; this process goes on with one of its own
            _state.common.end()
            _state.common = None
    return _OwnServer()


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in (*_INHERITED, *_THREADS) if name in os.environ}
    return {**_THREADS, **kept}


def _forget() -> None:
    """In a fork of this process: the server is the parent's, and so is its end of the pipes."""
    server, _state.server = _state.server, None
    _state.lock = threading.Lock()
    if server is not None:
        server.drop()
    for each in (server, _state.common):
        if isinstance(each, _OwnServer | _Common):
            each.process.returncode = 0  # not ours to wait for


os.register_at_fork(after_in_child=_forget)
