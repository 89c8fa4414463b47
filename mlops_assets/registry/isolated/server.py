"""The process behind `check_isolated`: imports the libraries once, then forks for every model.

Nothing is computed before a fork, so that no library has threads at work that a fork would lose.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from mlops_assets.errors import MlopsAssetsError
from mlops_assets.gc_pause import gc_paused
from mlops_assets.registry.isolated.protocol import (
    CheckReply,
    CheckRequest,
    Closed,
    readable,
    receive,
    send,
)

_BASICS = (
    "numpy",
    "pandas",
    "pyarrow.pandas_compat",
    "concurrent.futures.thread",  # Arrow's conversion to pandas
    "skops.io",
    "yaml",
    "sklearn.pipeline",
    "mlops_assets.ml.estimators",
    "mlops_assets.ml.models.fitted_model",
    "mlops_assets.registry.models",
)
_BATCHES = 2
_POLL_SECONDS = 0.01


class _ParentGone(Exception):
    """Nobody waits for an answer any more."""


def main() -> None:
    """Answer requests until the parent closes the pipe."""
    requests, replies = _own_pipes()
    with gc_paused():
        for name in _BASICS:
            importlib.import_module(name)
    gc.freeze()  # what is there now is never collected: forks share its memory
    while True:
        try:
            head, rows = receive(requests, 2)
            reply = _checked(CheckRequest.from_bytes(head), rows, requests, replies)
            send(replies, reply)
        except (Closed, BrokenPipeError, _ParentGone):
            return


def _own_pipes() -> tuple[int, int]:
    """The pipes to the parent; a model that reads or prints reaches neither."""
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    return requests, replies


def _checked(request: CheckRequest, rows: bytes, requests: int, replies: int) -> bytes:
    """The reply of a process of its own, or what became of it."""
    try:
        for name in request.libraries:
            importlib.import_module(name)
    except Exception as error:
        return CheckReply(
            problem=f"its libraries cannot be imported ({_describe_error(error)})"
        ).to_bytes()
    answers, answer = os.pipe()
    child = os.fork()
    if not child:
        for pipe in (requests, replies, answers):
            os.close(pipe)
        _answer(request, rows, answer)
    os.close(answer)
    try:
        return _awaited(child, answers, requests, request.limit_seconds)
    finally:
        os.close(answers)


def _answer(request: CheckRequest, rows: bytes, pipe: int) -> NoReturn:
    """In the child: check, send, end; nothing of the server's own is run or flushed."""
    try:
        os.setsid()  # with whatever it starts, one group to end
        send(pipe, _predictions(request, rows).to_bytes())
    except MlopsAssetsError as error:
        send(pipe, CheckReply(problem=error.problem).to_bytes())
    except BaseException as error:
        send(pipe, CheckReply(problem=_describe_error(error)).to_bytes())
    finally:
        os._exit(0)


def _awaited(child: int, answers: int, requests: int, limit: float) -> bytes:
    """What the child sends; it is gone afterwards, with all it started."""
    deadline = time.monotonic() + limit
    try:
        _first_of(answers, requests, deadline)
        (reply,) = receive(answers, 1, deadline)
        _end(child)
        return reply
    except TimeoutError:
        _end(child)
        return CheckReply(problem=f"it took more than {limit:g} s").to_bytes()
    except Closed:
        return CheckReply(problem=f"its process {_how_it_ended(child, deadline)}").to_bytes()
    except _ParentGone:
        _end(child)
        raise


def _first_of(answers: int, requests: int, deadline: float) -> None:
    """Wait for the child, and meanwhile for the parent's end: it asks nothing while it waits."""
    ready = readable(answers, requests, deadline=deadline)
    if not ready:
        raise TimeoutError
    if requests in ready:
        raise _ParentGone


def _end(child: int) -> None:
    """Kill the child and its group; it is not reaped yet, so the numbers are still its own."""
    for kill in (os.killpg, os.kill):
        try:
            kill(child, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue  # no group yet, or (macOS) only the dead in it
    os.waitpid(child, 0)


def _how_it_ended(child: int, deadline: float) -> str:
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return f"was ended by {signal.Signals(-code).name}" if code < 0 else "ended early"
        if time.monotonic() > deadline:
            _end(child)
            return "closed its pipe and went on"
        time.sleep(_POLL_SECONDS)


def _describe_error(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _predictions(request: CheckRequest, rows: bytes) -> CheckReply:
    """Load the model and predict, all at once and one by one."""
    from mlops_assets.ml.models.fitted_model import FittedModel, predict
    from mlops_assets.registry.models import ModelVersion, file_bytes, read_model

    folder, task = Path(request.folder), _task(request.task)
    version = ModelVersion(request.name, request.version, "", "", "", request.tags)
    loaded, load_seconds = _timed(lambda: read_model(version, folder))
    model = FittedModel(request.name, loaded.estimator, loaded.features, task, 0)
    frame = _frame(rows)
    batches = [_timed(lambda: predict(model, frame, task)) for _ in range(_BATCHES)]
    places = range(min(request.single_rows, len(frame)))
    singles = [_timed(lambda at=at: predict(model, frame.iloc[[at]], task)) for at in places]
    return CheckReply(
        batch=batches[0][0].tolist(),
        single=[float(each[0]) for each, _ in singles],
        load_seconds=load_seconds,
        row_milliseconds=1000 * statistics.median([seconds for _, seconds in singles] or [0.0]),
        batch_milliseconds=1000 * min(seconds for _, seconds in batches),
        bytes=file_bytes(folder),
    )


def _task(name: str) -> Any:
    from mlops_assets.spec import METRICS_OF_TASK

    assert name in METRICS_OF_TASK, name
    return name


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and the seconds of processor time it took.

    Not of the clock: a candidate is not worse because the machine has other work as well.
    """
    started = time.process_time()
    return work(), time.process_time() - started


def _frame(rows: bytes) -> Any:
    import pyarrow as pa

    with pa.ipc.open_stream(rows) as reader:
        return reader.read_pandas()


if __name__ == "__main__":
    main()
