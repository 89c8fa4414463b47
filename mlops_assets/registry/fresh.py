"""Whether a stored model predicts by itself: loaded by a process that has never seen it.

A small server process (`fresh_server`) imports the libraries once and forks for each check, so that
a check costs tens of milliseconds and not the seconds of an import. It belongs to the process that
started it, and ends with it however that ends: the pipe between them closes.
"""

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

import numpy as np
import pandas as pd

from mlops_assets.errors import RegistryError
from mlops_assets.registry.models import TRUSTED_PREFIXES, TRUSTED_TYPES, ModelVersion, Registry
from mlops_assets.registry.wire import Closed, Reply, Request, receive, send
from mlops_assets.spec import Task

MOST_ROWS = 100
SINGLE_ROWS = 20
LIMIT_SECONDS = 60.0
START_SECONDS = 60.0
"""What the server's own start may take: it imports scikit-learn, on a busy machine."""
_EQUAL = 1e-9
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
    "from mlops_assets.registry.fresh_server import main; main()"
)


@dataclass(frozen=True)
class FreshCheck:
    """What a process that has never seen a model found of it.

    Attributes:
        batch: predictions of all rows at once, shape (rows,).
        single: predictions of the first rows one by one, shape (up to 20,).
        load_seconds: to check and read the files, with the libraries imported already.
        row_milliseconds: to predict one row; the median of those of `single`.
        batch_milliseconds: to predict all rows at once; the better of two times.
        bytes: size of the files.
        problem: why there are no predictions; "" when there are.
    """

    batch: np.ndarray
    single: np.ndarray
    load_seconds: float
    row_milliseconds: float
    batch_milliseconds: float
    bytes: int
    problem: str = ""

    @property
    def row_difference(self) -> float:
        """Largest difference of a row alone and in the batch; see `largest_difference`."""
        return largest_difference(self.batch[: len(self.single)], self.single)

    @property
    def rows_agree(self) -> bool:
        """Whether rows alone and in the batch are equal, up to the rounding of linear algebra.

        It adds in another order for another number of rows; 1e-9 is far above that and far below
        what anybody would notice.
        """
        return not self.problem and self.row_difference <= _EQUAL


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest |a - b| / max(1, |a|, |b|) of two arrays of the same shape; NaN equals NaN.

    Infinite where only one is NaN or the shapes differ; 0.0 for empty ones.
    """
    if a.shape != b.shape:
        return float("inf")
    known = ~(np.isnan(a) & np.isnan(b))
    a, b = a[known], b[known]
    if np.isnan(a).any() or np.isnan(b).any():
        return float("inf")
    scale = np.maximum(1.0, np.maximum(np.abs(a), np.abs(b)))
    return float(np.max(np.abs(a - b) / scale, initial=0.0))


def check_fresh(
    version: ModelVersion,
    rows: pd.DataFrame,
    task: Task,
    registry: Registry,
    *,
    limit_seconds: float = LIMIT_SECONDS,
) -> FreshCheck:
    """Load a stored model in a process that has never seen it, and predict with it.

    Args:
        version: as registered; its digest tag is what the files must have.
        rows: a features frame; the first 100 rows are predicted, 20 of them one by one as well.
        task: decides what a prediction is, see `mlops_assets.ml.models.predict`.
        registry: where the files are.
        limit_seconds: after which the process is ended, and that is the result.
    """
    with tempfile.TemporaryDirectory(prefix="mlops_assets-fresh-") as folder:
        try:
            files = registry.fetch(version, Path(folder))
        except RegistryError as error:
            return _failed(error.problem)
        request = Request(
            name=version.name,
            version=version.version,
            tags=dict(version.tags),
            folder=str(files),
            task=task,
            single_rows=SINGLE_ROWS,
            limit_seconds=limit_seconds,
            libraries=_libraries(),
        )
        return _result(_ask(request, rows.head(MOST_ROWS)))


def prepare() -> None:
    """Start the server, unless it is there: it imports its libraries while others work on."""
    with _state.lock:
        _server_now()


def close() -> None:
    """End the server, if there is one; the next check starts another."""
    with _state.lock:
        if _state.server is not None:
            _state.server.end()
            _state.server = None


def _failed(problem: str) -> FreshCheck:
    nothing, unknown = np.empty(0), float("nan")
    return FreshCheck(nothing, nothing, unknown, unknown, unknown, 0, problem)


def _result(reply: Reply) -> FreshCheck:
    if reply.problem:
        return _failed(reply.problem)
    return FreshCheck(
        batch=np.array(reply.batch, dtype="float64"),
        single=np.array(reply.single, dtype="float64"),
        load_seconds=reply.load_seconds,
        row_milliseconds=reply.row_milliseconds,
        batch_milliseconds=reply.batch_milliseconds,
        bytes=reply.bytes,
    )


def _libraries() -> tuple[str, ...]:
    """Public parts of the trusted libraries this process has imported.

    The server imports them before it forks: else every check would, and call it loading.
    """
    roots = {name.partition(".")[0] for name in (*TRUSTED_PREFIXES, *TRUSTED_TYPES)}
    parts = [name.split(".")[:2] for name in list(sys.modules) if name.partition(".")[0] in roots]
    named = {".".join(part) for part in parts if not part[-1].startswith("_")}
    return tuple(sorted(name for name in named if not name.startswith("mlops_assets")))


class _Lost(Exception):
    """The server is gone; its last words."""


class _Server:
    """The server process of this process, and the two pipes to it."""

    def __init__(self) -> None:
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed with the pipes
        root = str(Path(__file__).resolve().parents[2])
        self.process = subprocess.Popen(
            # -P: a file called types.py in the current folder must not be taken for Python's own.
            [sys.executable, "-P", "-c", _PROGRAM, root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=_environment(),
            cwd="/",
            start_new_session=True,  # Ctrl-C in a terminal is for the parent to deal with
        )

    def ask(self, request: Request, rows: bytes) -> Reply:
        """The server's answer; a problem when it does not come in time.

        Raises:
            _Lost: the server has ended without one.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        deadline = time.monotonic() + START_SECONDS + request.limit_seconds
        try:
            send(self.process.stdin.fileno(), request.to_bytes(), rows)
            (answer,) = receive(self.process.stdout.fileno(), 1, deadline)
        except (Closed, BrokenPipeError) as error:
            last_words = self._last_words()
            self.end()
            raise _Lost(last_words) from error
        except TimeoutError:
            self.end()
            return Reply(problem="the process that checks models does not answer")
        return Reply.from_bytes(answer)

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

    def _last_words(self) -> str:
        self.errors.seek(0)
        text = self.errors.read().decode(errors="replace").strip()
        return text[-300:] or "it said nothing"


@dataclass
class _State:
    """The server of this process; a fork of it has none."""

    lock: Any
    server: _Server | None = None


_state = _State(threading.Lock())


def _ask(request: Request, rows: pd.DataFrame) -> Reply:
    data = _arrow(rows)
    with _state.lock:
        was_waiting = _state.server is not None
        try:
            return _server_now().ask(request, data)
        except _Lost as lost:
            if not was_waiting:
                return _ended(lost)
        # It may have been killed while it waited for work, which says nothing of this model.
        try:
            return _server_now().ask(request, data)
        except _Lost as lost:
            return _ended(lost)


def _ended(lost: _Lost) -> Reply:
    return Reply(problem=f"the process that checks models ended: {lost}")


def _server_now() -> _Server:
    if _state.server is None:
        _state.server = _Server()
        atexit.register(close)
    elif _state.server.process.poll() is not None:  # ended since, by whatever
        _state.server.drop()
        _state.server = _Server()
    return _state.server


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in (*_INHERITED, *_THREADS) if name in os.environ}
    return {**_THREADS, **kept}


def _arrow(rows: pd.DataFrame) -> bytes:
    """As Arrow's stream format, which keeps the types a stored frame has."""
    import pyarrow as pa

    table = pa.Table.from_pandas(rows, preserve_index=False)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _forget() -> None:
    """In a fork of this process: the server is the parent's, and so is its end of the pipes."""
    server, _state.server = _state.server, None
    _state.lock = threading.Lock()
    if server is not None:
        server.drop()
        server.process.returncode = 0  # not ours to wait for


os.register_at_fork(after_in_child=_forget)
