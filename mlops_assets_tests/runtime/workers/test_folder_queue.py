from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from kombu.connection import Connection

from mlops_assets.runtime.workers.folder_queue import TRANSPORT_NAME


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[Any]:
    for name in ("queue", "control"):
        (tmp_path / name).mkdir()
    options = {
        "data_folder_in": str(tmp_path / "queue"),
        "data_folder_out": str(tmp_path / "queue"),
        "control_folder": str(tmp_path / "control"),
    }
    with Connection(f"{TRANSPORT_NAME}://", transport_options=options) as connection:
        yield connection.channel()


class Read:
    """Something in a task that is read while the task is being written."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    def __json__(self) -> str:
        with pytest.raises(Empty):
            self.channel._get("small")
        return "written"


def test_a_task_is_never_taken_before_it_is_whole(channel: Any) -> None:
    channel._put("small", {"part": Read(channel)})
    with pytest.raises(Empty):
        channel._get("large")
    assert channel._get("small") == {"part": "written"}
    with pytest.raises(Empty):
        channel._get("small")


def test_tasks_come_in_order_and_a_damaged_one_is_dropped(channel: Any, tmp_path: Path) -> None:
    (tmp_path / "queue" / "0_a.small.msg").write_bytes(b"")
    channel._put("small", {"number": 1})
    (tmp_path / "queue" / "9_z.large.msg").write_bytes(b'{"cut')
    assert channel._size("small") == 2
    assert channel._get("small") == {"number": 1}
    assert not list((tmp_path / "queue").glob(".tmp-*"))


def test_a_folder_that_is_gone_is_named(channel: Any, tmp_path: Path) -> None:
    (tmp_path / "queue").rmdir()
    with pytest.raises(Exception, match=f"cannot be added to {tmp_path / 'queue'}"):
        channel._put("small", {})
