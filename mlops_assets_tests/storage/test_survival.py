"""What is left after kills, full disks and many writers at once."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pandas as pd
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pandas.testing import assert_frame_equal

from mlops_assets.errors import StorageError
from mlops_assets.storage import SnapshotStore
from mlops_assets_tests.effort import WHOLE
from mlops_assets_tests.forks import forks
from mlops_assets_tests.storage.frames import prices
from mlops_assets_tests.storage.writers import (
    ASSET,
    marked,
    rewrite_for_ever,
    start,
    write_rounds,
)

KILLS = 100 if WHOLE else 25
WRITERS = 8
PARTITIONS = 200 if WHOLE else 80
ROUNDS = 3 if WHOLE else 2


def _mark_of_whole(frame: pd.DataFrame, rows: int) -> int:
    """The write a frame is from; fails if it is a part or a mixture."""
    mark = int(frame["mark"].iloc[0])
    assert_frame_equal(frame, marked(int(frame["partition"].iloc[0]), mark, rows))
    return mark


def _seconds_of_a_write(rows: int) -> float:
    """On this machine, now: kills are spread over a few writes, however slow they are."""
    with tempfile.TemporaryDirectory() as folder:
        store = SnapshotStore(folder)
        store.write(ASSET, "P0", marked(0, 0, rows))
        began = time.perf_counter()
        for mark in range(1, 6):
            store.write(ASSET, "P0", marked(0, mark, rows))
        return (time.perf_counter() - began) / 5


def _temporary_files(root: Path) -> list[Path]:
    return [path for path in root.rglob(".tmp-*") if path.is_file()]


def test_a_writer_killed_at_any_moment_leaves_the_old_or_the_new_version_whole(
    store: SnapshotStore, root: Path
) -> None:
    chance = random.Random(7)
    rows = 5_000
    store.write(ASSET, "P0", marked(0, 0, rows))
    write = _seconds_of_a_write(rows)
    last = 0
    for kill in range(KILLS):
        ready, told = forks().Pipe(duplex=False)
        process = start(rewrite_for_ever, str(root), (kill + 1) * 10_000, rows, told)
        ready.recv()
        time.sleep(chance.uniform(0, 4 * write))
        process.kill()
        process.join()
        snapshot = store.current(ASSET, "P0")
        assert snapshot is not None
        mark = _mark_of_whole(store.read(ASSET, "P0"), rows)
        assert mark >= last
        assert snapshot.metadata.get("mark", 0) == mark
        last = mark
    assert last > 0, "no writer got to write before it was killed"
    _check_all_history(store, root, rows)


def _check_all_history(store: SnapshotStore, root: Path, rows: int) -> None:
    history = store.versions(ASSET, "P0")
    marks = [
        _mark_of_whole(store.read(ASSET, "P0", version=snapshot.version), rows)
        for snapshot in history
    ]
    assert marks == sorted(marks, reverse=True)
    assert marks[-1] == 0
    files = {path.stem for path in root.rglob("*.parquet")}
    never_current = files - {snapshot.version for snapshot in history}
    assert len(never_current) <= KILLS
    assert _temporary_files(root), "no kill hit a write; the sleeps do not fit this machine"
    assert store.assets() == [ASSET]
    assert list(store.current_all(ASSET)) == ["P0"]


def test_eight_writers_of_many_partitions_lose_nothing_and_no_reader_sees_a_torn_one(
    store: SnapshotStore, root: Path
) -> None:
    writers = [
        start(write_rounds, str(root), range(number, PARTITIONS, WRITERS), range(ROUNDS))
        for number in range(WRITERS)
    ]
    seen = 0
    while any(writer.is_alive() for writer in writers):
        partition = random.randrange(PARTITIONS)
        if store.current(ASSET, f"P{partition}") is not None:
            _mark_of_whole(store.read(ASSET, f"P{partition}"), 500)
            seen += 1
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    assert seen > 0
    frames = store.read_all(ASSET)
    assert sorted(frames) == sorted(f"P{number}" for number in range(PARTITIONS))
    assert {_mark_of_whole(frame, 500) for frame in frames.values()} == {ROUNDS - 1}
    total = sum(int(frame["partition"].sum()) for frame in frames.values())
    assert total == 500 * sum(range(PARTITIONS))
    for number in range(0, PARTITIONS, 20):
        assert len(store.versions(ASSET, f"P{number}")) == ROUNDS
    assert _temporary_files(root) == []


def test_eight_writers_of_the_same_partitions_leave_one_whole_version_each(
    store: SnapshotStore, root: Path
) -> None:
    writers = [
        start(write_rounds, str(root), range(4), range(number * 100, number * 100 + 5))
        for number in range(WRITERS)
    ]
    while any(writer.is_alive() for writer in writers):
        for frame in store.read_all(ASSET).values():
            _mark_of_whole(frame, 500)
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    for partition in range(4):
        assert _mark_of_whole(store.read(ASSET, f"P{partition}"), 500) % 100 == 4
        for snapshot in store.versions(ASSET, f"P{partition}"):
            _mark_of_whole(store.read(ASSET, f"P{partition}", version=snapshot.version), 500)
    assert len(list(root.rglob("*.parquet"))) == WRITERS * 5 * 4


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only a user who may mount can have a really full disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_the_old_version_and_leaves_nothing_behind(small_disk: Path) -> None:
    store = SnapshotStore(str(small_disk / "store"))
    old = store.write(ASSET, "DEU", prices()).snapshot
    files = sorted(small_disk.rglob("*"))
    noise = pd.DataFrame({"x": [random.random() for _ in range(500_000)]})
    with pytest.raises(StorageError, match=r"could not be written.*unchanged and whole.*room"):
        store.write(ASSET, "DEU", noise)
    with pytest.raises(StorageError, match=r"could not be written.*Nothing was written"):
        store.write(ASSET, "FRA", noise)
    with pytest.raises(StorageError, match="could not be written"):
        store.append(ASSET, "DEU", noise)
    assert store.current(ASSET, "DEU") == old
    assert_frame_equal(store.read(ASSET, "DEU"), prices())
    assert [path for path in sorted(small_disk.rglob("*")) if path.is_file()] == [
        path for path in files if path.is_file()
    ]
    assert store.write(ASSET, "DEU", prices(5)).changed


def test_a_disk_that_fills_between_data_and_pointer_keeps_the_old_version(
    store: SnapshotStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(ASSET, "DEU", prices())
    files = sorted(root.rglob("*"))
    really_sync, calls = os.fsync, []

    def full_at_the_second(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        really_sync(descriptor)

    monkeypatch.setattr(os, "fsync", full_at_the_second)
    with pytest.raises(StorageError, match="No space left"):
        store.write(ASSET, "DEU", prices(5))
    assert sorted(root.rglob("*")) == files
    assert_frame_equal(store.read(ASSET, "DEU"), prices())


class _FullStore:
    """An object store that takes a number of PUTs and then no more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 1_000
        really_put = MemoryFileSystem.pipe_file

        def put(fs: MemoryFileSystem, path: str, value: bytes, **options: str) -> None:
            if self.left == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.left -= 1
            really_put(fs, path, value, **options)

        monkeypatch.setattr(MemoryFileSystem, "pipe_file", put)


@pytest.mark.parametrize("puts", [0, 1])
def test_a_full_object_store_keeps_the_old_version(
    monkeypatch: pytest.MonkeyPatch, puts: int
) -> None:
    full = _FullStore(monkeypatch)
    store = SnapshotStore(f"memory://{uuid4().hex}")
    store.write(ASSET, "DEU", prices())
    full.left = puts
    with pytest.raises(StorageError, match="unchanged and whole"):
        store.write(ASSET, "DEU", prices(5))
    assert_frame_equal(store.read(ASSET, "DEU"), prices())
    assert len(store.versions(ASSET, "DEU")) == 1


def test_leftovers_of_a_killed_writer_are_no_ones_data(store: SnapshotStore, root: Path) -> None:
    snapshot = store.write(ASSET, "DEU", prices()).snapshot
    store.append(ASSET, "DEU", prices())
    folder = Path(snapshot.uri).parent
    orphan = folder / "20990101T000000000000Z-ffffffffffff.parquet"
    orphan.write_bytes(Path(snapshot.uri).read_bytes())
    for place in (folder, root / "power_price/features/log.d/country=DEU"):
        (place / ".tmp-0123").write_bytes(b"half")
    (root / "power_price/other/country=DEU").mkdir(parents=True)
    (root / "power_price/other/country=DEU/.tmp-0123").write_bytes(b"half")
    assert store.current(ASSET, "DEU") == snapshot
    assert store.versions(ASSET, "DEU") == [snapshot]
    assert store.assets() == [ASSET]
    assert len(store.read_log(ASSET)) == 3
    assert store.current_all(("power_price", "other")) == {}
