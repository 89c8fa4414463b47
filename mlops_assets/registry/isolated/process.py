"""The process that checks models: each process that asks has its own."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mlops_assets.registry.isolated.protocol import CheckReply, CheckRequest, Closed, receive, send

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
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from mlops_assets.registry.isolated.server import main; main()"
)


def ask(request: CheckRequest, rows: bytes) -> CheckReply:
    """What the server of this process answers; it is started if need be.

    Args:
        request: what to check.
        rows: to predict, as Arrow's stream format.
    """
    with _state.lock:
        was_waiting = _state.server is not None
        try:
            return _server_now().ask(request, rows)
        except _Lost as lost:
            if not was_waiting:
                return _ended(lost)
        # It may have been killed while it waited for work, which says nothing of this model.
        try:
            return _server_now().ask(request, rows)
        except _Lost as lost:
            return _ended(lost)


def start_server() -> None:
    """Start the server, unless it is there: it imports its libraries while others work on."""
    with _state.lock:
        _server_now()


def close() -> None:
    """End what this process started; the next check starts another server."""
    with _state.lock:
        if _state.server is not None:
            _state.server.end()
        _state.server = None


class _Lost(Exception):
    """The server is gone; its last words."""


class _Server:
    """The server process of this process, and the pipes to it."""

    def __init__(self) -> None:
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed with the pipes
        self.process = _started(self.errors)

    def pipes(self) -> tuple[int, int]:
        """For requests and for replies."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        return self.process.stdin.fileno(), self.process.stdout.fileno()

    def is_there(self) -> bool:
        """Whether it can be asked."""
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
        """Close this process's copies of the pipes, and the file."""
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            assert pipe is not None
            pipe.close()

    def ask(self, request: CheckRequest, rows: bytes) -> CheckReply:
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
            return CheckReply(problem="the process that checks models does not answer")
        return CheckReply.from_bytes(answer)

    def last_words(self) -> str:
        """What it said of its end."""
        self.errors.seek(0)
        text = self.errors.read().decode(errors="replace").strip()
        return text[-300:] or "it said nothing"


def _started(errors: IO[bytes]) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).resolve().parents[3])
    return subprocess.Popen(
        # -P: a file called types.py in the current folder must not be taken for Python's own.
        [sys.executable, "-P", "-c", _PROGRAM, root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=_environment(),
        cwd="/",
        start_new_session=True,  # Ctrl-C in a terminal is for the parent to deal with
    )


@dataclass
class _State:
    """The server of this process; a fork of it has none."""

    lock: Any
    server: _Server | None = None


_state = _State(threading.Lock())


def _ended(lost: _Lost) -> CheckReply:
    return CheckReply(problem=f"the process that checks models ended: {lost}")


def _server_now() -> _Server:
    if _state.server is None or not _state.server.is_there():  # ended since, by whatever
        if _state.server is not None:
            _state.server.drop()
        else:
            atexit.register(close)
        _state.server = _Server()
    return _state.server


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in (*_INHERITED, *_THREADS) if name in os.environ}
    return {**_THREADS, **kept}


def _forget() -> None:
    """In a fork of this process: the server is the parent's, and so is its end of the pipes."""
    server, _state.server = _state.server, None
    _state.lock = threading.Lock()
    if server is not None:
        server.drop()
        server.process.returncode = 0  # not ours to wait for


os.register_at_fork(after_in_child=_forget)
