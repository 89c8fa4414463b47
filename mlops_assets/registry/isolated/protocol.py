"""What the check in an isolated process asks and answers, and how it goes over a pipe.

JSON and Arrow: what a process that has run a stranger's model says is never unpickled.
"""

from __future__ import annotations

import json
import os
import select
import struct
import time
from dataclasses import asdict, dataclass, field

_LENGTH = struct.Struct("!Q")
_PIECE = 1 << 20


class Closed(Exception):
    """The other side has closed the pipe."""


@dataclass(frozen=True)
class CheckRequest:
    """A model to check; the rows come after it.

    Attributes:
        name: of the registered model.
        version: its number.
        tags: of the version, the digest among them.
        folder: with the files.
        task: regression or classification.
        single_rows: how many are predicted one by one.
        limit_seconds: after which the process that does it is ended.
        libraries: modules to import before it starts.
    """

    name: str
    version: str
    tags: dict[str, str]
    folder: str
    task: str
    single_rows: int
    limit_seconds: float
    libraries: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_bytes(data: bytes) -> CheckRequest:
        """What `to_bytes` wrote."""
        held = json.loads(data)
        return CheckRequest(**{**held, "libraries": tuple(held["libraries"])})


@dataclass(frozen=True)
class CheckReply:
    """What came of it: numbers as in `FreshCheck`, or the problem."""

    batch: list[float] = field(default_factory=list)
    single: list[float] = field(default_factory=list)
    load_seconds: float = 0.0
    row_milliseconds: float = 0.0
    batch_milliseconds: float = 0.0
    bytes: int = 0
    problem: str = ""

    def to_bytes(self) -> bytes:
        """As JSON, in which Python writes every float so that it reads back the same."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_bytes(data: bytes) -> CheckReply:
        """What `to_bytes` wrote."""
        return CheckReply(**json.loads(data))


def send(pipe: int, *parts: bytes) -> None:
    """Write parts, each after its length."""
    for part in parts:
        left = memoryview(_LENGTH.pack(len(part)) + part)
        while left:
            left = left[os.write(pipe, left) :]


def receive(pipe: int, parts: int, deadline: float | None = None) -> list[bytes]:
    """Read so many parts.

    Args:
        pipe: to read from.
        parts: how many.
        deadline: by `time.monotonic`; None: whenever they come.

    Raises:
        Closed: the other side has closed the pipe.
        TimeoutError: the deadline has passed.
    """
    return [
        _exactly(pipe, _LENGTH.unpack(_exactly(pipe, _LENGTH.size, deadline))[0], deadline)
        for _ in range(parts)
    ]


def _exactly(pipe: int, size: int, deadline: float | None) -> bytes:
    pieces = []
    while size:
        _await(pipe, deadline)
        piece = os.read(pipe, min(size, _PIECE))
        if not piece:
            raise Closed
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _await(pipe: int, deadline: float | None) -> None:
    if deadline is None:
        return
    if not readable(pipe, deadline=deadline):
        raise TimeoutError


def readable(*pipes: int, deadline: float) -> set[int]:
    """The pipes with something to read, or closed; none when the deadline passed.

    `poll` and not `select`, which refuses a descriptor above 1023: a process that keeps many files
    open has those.
    """
    waiting = select.poll()
    for pipe in pipes:
        waiting.register(pipe, select.POLLIN)
    return {pipe for pipe, _ in waiting.poll(max(deadline - time.monotonic(), 0.0) * 1000)}
