"""Pipes of the process that checks models."""

from __future__ import annotations

import fcntl
import os
import resource
import time
from collections.abc import Iterator

import pytest

from mlops_assets.registry.isolated.protocol import readable, receive, send

ABOVE_SELECT = 1500
"""`select` refuses descriptors from 1024 on."""


@pytest.fixture
def far_pipe() -> Iterator[tuple[int, int]]:
    """A pipe whose reading end has a number as in a process with many open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard <= ABOVE_SELECT:
        pytest.skip("this machine allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, ABOVE_SELECT + 1), hard))
    near, writing = os.pipe()
    reading = fcntl.fcntl(near, fcntl.F_DUPFD_CLOEXEC, ABOVE_SELECT)
    os.close(near)
    yield reading, writing
    for each in (reading, writing):
        os.close(each)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_with_many_open_files_is_answered(far_pipe: tuple[int, int]) -> None:
    reading, writing = far_pipe
    send(writing, b"one", b"two")
    deadline = time.monotonic() + 10
    assert readable(reading, deadline=deadline) == {reading}
    assert receive(reading, 2, deadline) == [b"one", b"two"]


def test_silence_ends_at_the_deadline(far_pipe: tuple[int, int]) -> None:
    reading, _ = far_pipe
    assert readable(reading, deadline=time.monotonic() + 0.01) == set()
    with pytest.raises(TimeoutError):
        receive(reading, 1, time.monotonic() + 0.01)
