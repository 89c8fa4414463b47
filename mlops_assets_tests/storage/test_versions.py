"""What was current when: versions, moments, removals, and files whose writer was killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from mlops_assets.errors import StorageError
from mlops_assets.storage import Snapshot, SnapshotStore, StoredVersion
from mlops_assets_tests.effort import examples
from mlops_assets_tests.forks import forks
from mlops_assets_tests.storage.frames import prices
from mlops_assets_tests.storage.writers import (
    marked,
    remove_and_die_before_the_file_goes,
    rewrite_for_ever,
    start,
    write_and_die_before_the_pointer,
)

ASSET = ("power_price", "features")
REMOVALS = ("power_price", "removals")
TICK = timedelta(microseconds=1)
ODD_KEYS = [None, "DEU", "a/b", "../x", "Côte d'Ivoire", 'q"%+ ?']


def written(store: SnapshotStore, count: int, partition: str | None = "DEU") -> list[Snapshot]:
    """That many versions, oldest first; number `n` holds prices with the offset `n`."""
    return [
        store.write(ASSET, partition, prices(offset=n), metadata={"n": n}).snapshot
        for n in range(count)
    ]


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def names(snapshots: list[Snapshot]) -> list[str]:
    return [snapshot.version for snapshot in snapshots]


# As of a moment


@pytest.mark.parametrize("partition", ODD_KEYS)
def test_as_of_a_moment_is_what_was_current_then(
    any_store: SnapshotStore, partition: str | None
) -> None:
    versions = written(any_store, 3, partition)
    for before, version in zip([None, *versions], versions, strict=False):
        assert any_store.as_of(ASSET, partition, version.created_at - TICK) == before
        assert any_store.as_of(ASSET, partition, version.created_at) == version
    now = datetime.now(UTC)
    assert any_store.as_of(ASSET, partition, now) == any_store.current(ASSET, partition)
    assert any_store.as_of(ASSET, "never stored", now) is None


def test_a_moment_is_the_same_in_every_time_zone(store: SnapshotStore) -> None:
    first, _ = written(store, 2)
    tokyo = pd.Timestamp(first.created_at).tz_convert("Asia/Tokyo")
    assert store.as_of(ASSET, "DEU", tokyo) == first


@pytest.mark.parametrize("moment", [datetime(2025, 1, 31), pd.Timestamp("2025-01-31")])
def test_a_time_without_a_zone_is_refused(store: SnapshotStore, moment: datetime) -> None:
    written(store, 1)
    calls: list[Callable[[], object]] = [
        lambda: store.as_of(ASSET, "DEU", moment),
        lambda: store.as_of_all(ASSET, moment),
        lambda: store.read(ASSET, "DEU", as_of=moment),
        lambda: store.read_all(ASSET, as_of=moment),
        lambda: store.read_log(ASSET, as_of=moment),
    ]
    for call in calls:
        with pytest.raises(StorageError, match=r"2025-01-31 00:00:00 has no time zone.*tzinfo"):
            call()


def test_metadata_recorded_later_is_told_of_the_version_of_the_moment(
    any_store: SnapshotStore,
) -> None:
    first = any_store.write(ASSET, "DEU", prices(), metadata={"made from": "a"}).snapshot
    any_store.write(ASSET, "DEU", prices(), metadata={"made from": "b"})
    second = any_store.write(ASSET, "DEU", prices(4)).snapshot
    then = any_store.as_of(ASSET, "DEU", first.created_at)
    assert then is not None
    assert (then.version, then.size_bytes) == (first.version, first.size_bytes)
    assert then.metadata == {"made from": "b"}
    stored = any_store.stored_versions(ASSET, "DEU")
    assert [version.snapshot for version in stored] == [second, then]
    assert [version.first_metadata for version in stored] == [{}, {"made from": "a"}]


def test_as_of_reads_the_file_after_the_moment_and_no_other(
    store: SnapshotStore, root: Path
) -> None:
    versions = written(store, 5)
    needed = versions[2]
    for version in versions:
        if version != needed:
            Path(version.uri).write_bytes(b"nobody reads this")
    assert store.as_of(ASSET, "DEU", versions[1].created_at) == versions[1]
    Path(needed.uri).write_bytes(b"nor this")
    assert store.as_of(ASSET, "DEU", versions[4].created_at) == versions[4]
    with pytest.raises(StorageError, match=f"{needed.version}.*damaged"):
        store.as_of(ASSET, "DEU", versions[1].created_at)


def test_many_partitions_as_of_a_moment(any_store: SnapshotStore) -> None:
    keys = [key for key in ODD_KEYS if key is not None]
    first = {key: written(any_store, 1, key)[0] for key in keys[:-1]}
    moment = datetime.now(UTC)
    for key in keys:
        any_store.write(ASSET, key, prices(7))
    assert any_store.as_of_all(ASSET, moment) == dict(sorted(first.items()))
    assert list(any_store.as_of_all(ASSET, moment, ["a/b", "DEU", "none"])) == ["a/b", "DEU"]
    frames = any_store.read_all(ASSET, as_of=moment, columns=["price"])
    assert {key: len(frame) for key, frame in frames.items()} == dict.fromkeys(sorted(first), 3)
    tables = any_store.read_all_tables(ASSET, ["DEU"], as_of=moment)
    assert tables["DEU"].num_rows == 3


def test_reading_as_of_a_moment_gives_the_rows_of_then(any_store: SnapshotStore) -> None:
    versions = written(any_store, 3)
    for n, version in enumerate(versions):
        frame = any_store.read(ASSET, "DEU", as_of=version.created_at)
        assert_frame_equal(frame, prices(offset=n))
    table = any_store.read_table(ASSET, "DEU", columns=["price"], as_of=versions[0].created_at)
    assert table.column_names == ["price"]
    early = versions[0].created_at - TICK
    with pytest.raises(StorageError, match=r"nothing of power_price/features.*was stored yet"):
        any_store.read(ASSET, "DEU", as_of=early)
    with pytest.raises(StorageError, match="Materialize"):
        any_store.read(ASSET, "FRA", as_of=early)
    with pytest.raises(StorageError, match="Both the version"):
        any_store.read(ASSET, "DEU", as_of=early, version=versions[0].version)


def test_a_log_as_of_a_moment_ends_there_whatever_its_entries_are_named(
    any_store: SnapshotStore,
) -> None:
    moments = [datetime.now(UTC)]
    entries = [("DEU", "z"), (None, "20990101T000000000000Z-000000000000"), ("FRA", None)]
    for number, (partition, name) in enumerate(entries):
        any_store.append(ASSET, partition, pd.DataFrame({"number": [number]}), name=name)
        moments.append(datetime.now(UTC))
    for count, moment in enumerate(moments):
        log = any_store.read_log(ASSET, as_of=moment)
        assert list(log.columns) == [] if count == 0 else log["number"].tolist() == [*range(count)]
        assert len(any_store.log_files(ASSET, as_of=moment)) == count
    assert any_store.read_log(ASSET, "FRA", as_of=moments[2]).empty


def test_as_of_a_moment_stays_the_same_while_another_process_writes(
    store: SnapshotStore, root: Path
) -> None:
    asset, partition = ("power_price", "features"), "P0"
    fixed = store.write(asset, partition, marked(0, 0)).snapshot
    ready, told = forks().Pipe(duplex=False)
    process = start(rewrite_for_ever, str(root), 10_000, 500, told)
    ready.recv()
    while len(list(root.rglob("*.parquet"))) < 30:
        assert store.as_of(asset, partition, fixed.created_at) == fixed
        assert int(store.read(asset, partition, as_of=fixed.created_at)["mark"].iloc[0]) == 0
    process.kill()
    process.join()


# Files that were never current


def test_a_file_whose_writer_was_killed_before_the_pointer_was_never_current(
    store: SnapshotStore, root: Path
) -> None:
    first = store.write(ASSET, "DEU", marked(0, 1)).snapshot
    process = start(write_and_die_before_the_pointer, str(root), "DEU", 2)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (orphan,) = {path.stem for path in root.rglob("2*.parquet")} - {first.version}
    for _ in range(2):
        assert orphan not in names(store.versions(ASSET, "DEU"))
        assert store.as_of(ASSET, "DEU", datetime.now(UTC)) == store.current(ASSET, "DEU")
        store.write(ASSET, "DEU", marked(0, 3))
    third = store.versions(ASSET, "DEU")[0]
    assert store.as_of(ASSET, "DEU", third.created_at - TICK) == first
    told = {v.snapshot.version: v.was_current for v in store.stored_versions(ASSET, "DEU")}
    assert told == {first.version: True, orphan: False, third.version: True}


def test_a_copied_file_is_no_version(store: SnapshotStore) -> None:
    versions = written(store, 3)
    for name in ("20000101T000000000000Z-ffffffffffff", "20990101T000000000000Z-ffffffffffff"):
        shutil.copy(versions[1].uri, Path(versions[1].uri).with_stem(name))
    assert store.versions(ASSET, "DEU") == versions[::-1]
    for version in versions:
        assert store.as_of(ASSET, "DEU", version.created_at) == version


class _Overtaken(SnapshotStore):
    """A writer that another one overtakes after it has looked at the pointer."""

    def __init__(self, uri: str, overtake: Callable[[], object]) -> None:
        super().__init__(uri)
        self._overtake = overtake

    def _publish(
        self, folder: str, snapshot: Snapshot, before: Snapshot | None, table: pa.Table
    ) -> Snapshot:
        self._overtake()
        return super()._publish(folder, snapshot, before, table)


def test_of_two_writers_at_once_the_overwritten_one_does_not_count(
    store: SnapshotStore, root: Path
) -> None:
    first = store.write(ASSET, "DEU", prices()).snapshot
    lost: list[Snapshot] = []
    slow = _Overtaken(str(root), lambda: lost.append(written(store, 2)[1]))
    last = slow.write(ASSET, "DEU", prices(9)).snapshot
    assert last.previous == first.version
    assert store.current(ASSET, "DEU") == last
    assert store.as_of(ASSET, "DEU", datetime.now(UTC)) == last
    later = store.write(ASSET, "DEU", prices(10)).snapshot
    assert store.as_of(ASSET, "DEU", later.created_at - TICK) == last
    kept = names(store.versions(ASSET, "DEU"))
    assert kept[0] == later.version
    assert kept[-1] == first.version
    assert last.version in kept
    assert lost[0].version not in kept


def test_a_version_that_a_slower_writer_made_current_again_counts(
    store: SnapshotStore, root: Path
) -> None:
    (first,) = written(store, 1)
    pointer = next(root.rglob("_current.json"))
    of_first = pointer.read_bytes()
    fast = store.write(ASSET, "DEU", prices(8)).snapshot
    of_fast = pointer.read_bytes()
    pointer.write_bytes(of_first)  # as the other one saw it
    overtaken = store.write(ASSET, "DEU", prices(9)).snapshot
    assert overtaken.previous == first.version
    pointer.write_bytes(of_fast)  # its rename came last
    assert store.as_of(ASSET, "DEU", datetime.now(UTC)) == fast
    with pytest.raises(StorageError, match="not older than it"):
        store.remove(overtaken)
    later = store.write(ASSET, "DEU", prices(10)).snapshot
    assert store.versions(ASSET, "DEU") == [later, fast, first]
    assert store.as_of(ASSET, "DEU", later.created_at - TICK) == fast


# Found by content


def test_content_is_found_in_the_newest_version_that_holds_it(any_store: SnapshotStore) -> None:
    written(any_store, 2)
    again = any_store.write(ASSET, "DEU", prices(offset=0), metadata={"n": 9}).snapshot
    last = any_store.write(ASSET, "DEU", prices(offset=5)).snapshot
    assert any_store.find(ASSET, "DEU", last.content_hash) == last
    assert any_store.find(ASSET, "DEU", again.content_hash) == again
    assert any_store.find(ASSET, "DEU", "0" * 32) is None
    assert any_store.find(ASSET, "FRA", last.content_hash) is None


def test_the_first_digits_of_a_hash_are_not_taken_for_all_of_it(store: SnapshotStore) -> None:
    first, second = written(store, 2)
    alike = first.content_hash[:12] + "0" * 20
    assert store.find(ASSET, "DEU", alike) is None
    newer = Path(second.uri).with_stem(second.version[:-12] + first.content_hash[:12])
    shutil.copy(second.uri, newer)
    assert store.find(ASSET, "DEU", first.content_hash) == first


def test_content_is_found_in_a_file_that_was_never_current(
    store: SnapshotStore, root: Path
) -> None:
    store.write(ASSET, "DEU", marked(0, 1))
    start(write_and_die_before_the_pointer, str(root), "DEU", 2).join()
    twin = SnapshotStore(str(root.with_name("twin"))).write(ASSET, "DEU", marked(0, 2)).snapshot
    found = store.find(ASSET, "DEU", twin.content_hash)
    assert found is not None
    assert found.size_bytes == os.path.getsize(found.uri)
    assert_frame_equal(store.read(ASSET, "DEU", version=found.version), marked(0, 2))


def test_content_of_a_current_file_that_was_lost_is_found_in_an_older_one(
    store: SnapshotStore,
) -> None:
    written(store, 2)
    lost = store.write(ASSET, "DEU", prices(offset=0)).snapshot
    os.unlink(lost.uri)
    found = store.find(ASSET, "DEU", lost.content_hash)
    assert found is not None
    assert found.metadata == {"n": 0}


# Removals


@pytest.mark.parametrize("partition", ODD_KEYS)
def test_a_removed_version_is_gone_and_stays_in_the_log(
    any_store: SnapshotStore, partition: str | None
) -> None:
    versions = written(any_store, 4, partition)
    before = datetime.now(UTC)
    any_store.remove(versions[1], reason="older than 90 days")
    assert any_store.versions(ASSET, partition) == [versions[3], versions[2], versions[0]]
    with pytest.raises(StorageError, match="no version"):
        any_store.read(ASSET, partition, version=versions[1].version)
    (row,) = any_store.read_log(REMOVALS).to_dict("records")
    assert before <= row.pop("removed_at") <= datetime.now(UTC)
    assert json.loads(row.pop("record"))["previous"]["version"] == versions[0].version
    assert row == {
        "asset": "power_price/features",
        "partition": partition,
        "version": versions[1].version,
        "previous": versions[0].version,
        "content_hash": versions[1].content_hash,
        "rows": 3,
        "size_bytes": versions[1].size_bytes,
        "reason": "older than 90 days",
    }


def test_a_moment_whose_version_was_removed_says_so_with_the_date(
    any_store: SnapshotStore,
) -> None:
    versions = written(any_store, 6)
    for version in versions[1:4]:
        any_store.remove(version, reason="older than 90 days")
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    for version in versions[1:4]:
        told = rf"{version.version}, was removed on {today}.*\(older than 90 days\)"
        with pytest.raises(StorageError, match=told) as caught:
            any_store.as_of(ASSET, "DEU", version.created_at)
        assert str(versions[4].created_at) in caught.value.way_out
        assert caught.value.culprits["version"] == version.version
    with pytest.raises(StorageError, match="was removed on"):
        any_store.as_of_all(ASSET, versions[2].created_at)
    for kept in (versions[0], *versions[4:]):
        assert any_store.as_of(ASSET, "DEU", kept.created_at) == kept
    assert any_store.as_of(ASSET, "DEU", versions[0].created_at - TICK) is None


def test_when_the_oldest_were_removed_a_moment_before_them_is_still_before_them(
    store: SnapshotStore,
) -> None:
    versions = written(store, 4)
    for version in versions[:3]:
        store.remove(version)
    assert store.versions(ASSET, "DEU") == versions[3:]
    assert store.as_of(ASSET, "DEU", versions[0].created_at - TICK) is None
    with pytest.raises(StorageError, match="was removed on"):
        store.as_of(ASSET, "DEU", versions[0].created_at)


def test_removing_touches_only_that_file(store: SnapshotStore, root: Path) -> None:
    versions = written(store, 3)
    store.write(ASSET, "FRA", prices())
    before = files(root)
    content = {path: (root / path).read_bytes() for path in before}
    store.remove(versions[1])
    gone = f"power_price/features/country=DEU/{versions[1].version}.parquet"
    assert before - files(root) == {gone}
    (entry,) = files(root) - before
    assert entry.startswith("power_price/removals/log.d/country=DEU/")
    assert all((root / path).read_bytes() == content[path] for path in before - {gone})


def test_the_current_version_and_what_is_no_version_cannot_be_removed(
    any_store: SnapshotStore,
) -> None:
    old, current = written(any_store, 2)
    with pytest.raises(StorageError, match=r"current one.*Nothing was removed"):
        any_store.remove(current)
    for wrong in ("20240101T000000000000Z-000000000000", "../../x", "_current.json", ""):
        with pytest.raises(StorageError, match="no version"):
            any_store.remove(replace(old, version=wrong))
    with pytest.raises(StorageError, match="with this content"):
        any_store.remove(replace(old, content_hash="0" * 32))
    with pytest.raises(StorageError, match="no version"):
        any_store.remove(replace(old, partition="FRA"))
    assert any_store.versions(ASSET, "DEU") == [current, old]
    assert any_store.read_log(REMOVALS).empty


def test_without_a_pointer_nothing_is_removed(store: SnapshotStore, root: Path) -> None:
    old, _ = written(store, 2)
    next(root.rglob("_current.json")).unlink()
    with pytest.raises(StorageError, match="current one"):
        store.remove(old)
    assert len(list(root.rglob("*.parquet"))) == 2


def test_a_removal_killed_before_the_file_goes_is_finished_by_removing_again(
    store: SnapshotStore, root: Path
) -> None:
    versions = written(store, 3)
    process = start(remove_and_die_before_the_file_goes, str(root), versions[1])
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(store.read_log(REMOVALS)) == 1
    assert store.versions(ASSET, "DEU") == versions[::-1]
    assert store.as_of(ASSET, "DEU", versions[1].created_at) == versions[1]
    for _ in range(2):
        store.remove(versions[1], reason="again")
        assert store.versions(ASSET, "DEU") == [versions[2], versions[0]]
        assert store.read_log(REMOVALS)["reason"].tolist() == ["too old"]


def test_a_removal_that_the_disk_refuses_says_what_is_left(
    store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, current = written(store, 2)
    really = os.unlink

    def refused(path: str) -> None:
        if str(path) == old.uri:
            raise PermissionError(1, "Operation not permitted")
        really(path)

    monkeypatch.setattr(os, "unlink", refused)
    with pytest.raises(StorageError, match=r"could not be removed: .*not permitted.*still there"):
        store.remove(old)
    monkeypatch.undo()
    assert store.versions(ASSET, "DEU") == [current, old]
    store.remove(old)
    assert store.versions(ASSET, "DEU") == [current]


def test_metadata_of_a_version_survives_the_removal_of_the_one_that_recorded_it(
    any_store: SnapshotStore,
) -> None:
    first = any_store.write(ASSET, "DEU", prices(), metadata={"made from": "a"}).snapshot
    last_words = any_store.write(ASSET, "DEU", prices(), metadata={"made from": "b"}).snapshot
    second, third = (any_store.write(ASSET, "DEU", prices(n)).snapshot for n in (7, 8))
    any_store.remove(second)
    assert any_store.versions(ASSET, "DEU") == [third, last_words]
    assert any_store.as_of(ASSET, "DEU", first.created_at) == last_words
    assert any_store.stored_versions(ASSET, "DEU")[-1].first_metadata == {"made from": "a"}


def test_the_last_metadata_counts_also_where_a_killed_writer_saw_an_earlier_one(
    store: SnapshotStore, root: Path
) -> None:
    store.write(ASSET, "DEU", marked(0, 1), metadata={"made from": "a"})
    start(write_and_die_before_the_pointer, str(root), "DEU", 2).join()
    last = store.write(ASSET, "DEU", marked(0, 1), metadata={"made from": "b"}).snapshot
    second, third = (store.write(ASSET, "DEU", marked(0, n)).snapshot for n in (3, 4))
    assert store.versions(ASSET, "DEU") == [third, second, last]
    store.remove(second)
    assert store.versions(ASSET, "DEU") == [third, last]


def test_a_store_that_lost_version_files_without_a_log_still_answers(store: SnapshotStore) -> None:
    versions = written(store, 5)
    for version in versions[1:3]:
        os.unlink(version.uri)
    assert store.versions(ASSET, "DEU") == [versions[4], versions[3]]
    assert store.as_of(ASSET, "DEU", versions[3].created_at) == versions[3]
    for version in versions[1:3]:
        with pytest.raises(StorageError, match="is gone, and no log says why"):
            store.as_of(ASSET, "DEU", version.created_at)


@pytest.mark.parametrize(
    "asset", [("prices",), ("a", "b", "c"), ("p", "removals"), ("p", "long_" * 49), ("p", "a/../b")]
)
def test_assets_of_any_name_are_removed_from(any_store: SnapshotStore, asset: tuple[str]) -> None:
    sibling = (*asset[:-1], "sibling")
    kept = [any_store.write(sibling, "DEU", prices(n)).snapshot for n in (3, 4)]
    versions = [any_store.write(asset, "DEU", prices(n)).snapshot for n in (5, 6, 7)]
    any_store.remove(versions[1])
    assert any_store.versions(asset, "DEU") == [versions[2], versions[0]]
    assert any_store.versions(sibling, "DEU") == kept[::-1]
    with pytest.raises(StorageError, match="was removed on"):
        any_store.as_of(asset, "DEU", versions[1].created_at)


def test_footers_larger_than_one_request_are_read_from_an_object_store(
    s3_store: SnapshotStore,
) -> None:
    large = {"files": [uuid4().hex for _ in range(5_000)]}
    first = s3_store.write(ASSET, "DEU", prices(), metadata=large).snapshot
    s3_store.write(ASSET, "DEU", prices(4), metadata=large)
    s3_store.write(ASSET, "DEU", prices(5))
    assert s3_store.as_of(ASSET, "DEU", first.created_at) == first
    found = s3_store.find(ASSET, "DEU", first.content_hash)
    assert found == first
    s3_store.remove(first)
    assert len(s3_store.versions(ASSET, "DEU")) == 2


# Any history

WRITE, ANNOTATE, ORPHAN, REMOVE = "write", "annotate", "orphan", "remove"
STEPS = st.lists(
    st.tuples(
        st.sampled_from([WRITE, WRITE, WRITE, ANNOTATE, ORPHAN, REMOVE, REMOVE]),
        st.integers(0, 3),
        st.integers(0, 99),
    ),
    min_size=1,
    max_size=25,
)


class _Told:
    """What happened, kept beside the store: an oracle that reads no file."""

    def __init__(self, store: SnapshotStore) -> None:
        self.store = store
        self.was: list[Snapshot] = []
        self.recorded: list[Snapshot | None] = [None]
        self.removed: set[str] = set()

    def step(self, kind: str, content: int, chance: int) -> None:
        self._do(kind, content, chance)
        self.recorded.append(self.was[-1])

    def as_recorded(self, snapshot: Snapshot | None) -> list[Snapshot | None]:
        """A version with each metadata it had; the last one, if no killed writer came between."""
        orphans = any(version.was_current is False for version in self._stored())
        same = [s for s in self.recorded if (s and s.version) == (snapshot and snapshot.version)]
        return same if orphans else same[-1:]

    def _stored(self) -> list[StoredVersion]:
        return self.store.stored_versions(ASSET, "DEU")

    def _do(self, kind: str, content: int, chance: int) -> None:
        if kind == WRITE or not self.was:
            self._wrote({"by": chance}, content)
        elif kind == ANNOTATE:
            table = self.store.read_table(ASSET, "DEU")
            self.was[-1] = self.store.write(ASSET, "DEU", table, metadata={"n": chance}).snapshot
        elif kind == ORPHAN:
            self._leave_an_orphan(content)
        else:
            left = [each for each in self.was[:-1] if each.version not in self.removed]
            if left:
                self.store.remove(left[chance % len(left)])
                self.removed.add(left[chance % len(left)].version)

    def _wrote(self, metadata: dict[str, int], content: int) -> None:
        result = self.store.write(ASSET, "DEU", pa.table({"x": [content]}), metadata=metadata)
        if result.changed:
            self.was.append(result.snapshot)
        else:
            self.was[-1] = result.snapshot

    def _leave_an_orphan(self, content: int) -> None:
        """As a killed writer leaves it: its file is there, the pointer as it was before."""
        filesystem = self.store.filesystem
        pointer = f"{self.store.uri}/power_price/features/country=DEU/_current.json"
        before = filesystem.cat_file(pointer)
        self.store.write(ASSET, "DEU", pa.table({"orphan": [content]}))
        filesystem.pipe_file(pointer, before)

    def at(self, moment: datetime) -> Snapshot | None:
        then = [snapshot for snapshot in self.was if snapshot.created_at <= moment]
        return then[-1] if then else None


@settings(max_examples=examples(150), deadline=None)
@given(steps=STEPS)
def test_whatever_happened_every_moment_gives_what_was_current(
    steps: list[tuple[str, int, int]],
) -> None:
    told = _Told(SnapshotStore(f"memory://{uuid4().hex}"))
    for step in steps:
        told.step(*step)
    store, left = told.store, [each for each in told.was if each.version not in told.removed]
    assert store.versions(ASSET, "DEU") == left[::-1]
    for moment in (each.created_at + late for each in told.was for late in (-TICK, 0 * TICK, TICK)):
        expected = told.at(moment)
        if expected is not None and expected.version in told.removed:
            with pytest.raises(StorageError, match="was removed on"):
                store.as_of(ASSET, "DEU", moment)
        else:
            assert store.as_of(ASSET, "DEU", moment) in told.as_recorded(expected)
    for each in told.was:
        newest = [kept for kept in left if kept.content_hash == each.content_hash]
        found = store.find(ASSET, "DEU", each.content_hash)
        assert (found and found.version) == (newest[-1].version if newest else None)
    assert len(store.read_log(REMOVALS)) == len(told.removed)
