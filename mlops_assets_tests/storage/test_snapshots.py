from __future__ import annotations

import json
import os
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from mlops_assets.errors import StorageError
from mlops_assets.storage import Snapshot, SnapshotStore
from mlops_assets_tests.storage.frames import prices

ASSET = ("power_price", "features")


def _files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def _only_snapshot(root: Path) -> Path:
    return next(root.rglob("*.parquet"))


def test_a_snapshot_says_all_about_itself(store: SnapshotStore, root: Path) -> None:
    before = datetime.now(UTC)
    result = store.write(ASSET, "DEU", prices(3), run_id="run 1", metadata={"inputs": ["a"]})
    snapshot = result.snapshot
    assert result.changed
    assert (snapshot.asset, snapshot.partition, snapshot.rows) == (ASSET, "DEU", 3)
    assert (snapshot.run_id, snapshot.previous) == ("run 1", None)
    assert snapshot.metadata == {"inputs": ["a"]}
    assert before <= snapshot.created_at <= datetime.now(UTC)
    assert snapshot.uri == f"{root}/power_price/features/country=DEU/{snapshot.version}.parquet"
    assert snapshot.size_bytes == os.path.getsize(snapshot.uri)
    assert snapshot.version.endswith(f"Z-{snapshot.content_hash[:12]}")
    assert store.current(ASSET, "DEU") == snapshot
    assert pickle.loads(pickle.dumps(store)).current(ASSET, "DEU") == snapshot


def test_the_files_lie_where_the_layout_says(store: SnapshotStore, root: Path) -> None:
    one = store.write(ASSET, "Côte d'Ivoire", prices()).snapshot
    other = store.write(("power_price", "pooled_model"), None, prices()).snapshot
    store.append(("power_price", "decisions"), "DEU", prices(), name="first")
    store.append(("power_price", "decisions"), None, prices(), name="second")
    assert _files(root) == [
        "power_price/decisions/log.d/country=DEU/first.parquet",
        "power_price/decisions/log.d/second.parquet",
        f"power_price/features/country=C%C3%B4te%20d%27Ivoire/{one.version}.parquet",
        "power_price/features/country=C%C3%B4te%20d%27Ivoire/_current.json",
        f"power_price/pooled_model/{other.version}.parquet",
        "power_price/pooled_model/_current.json",
    ]
    assert store.assets() == [
        ("power_price", "decisions"),
        ("power_price", "features"),
        ("power_price", "pooled_model"),
    ]


def test_the_same_content_is_not_stored_twice(store: SnapshotStore, root: Path) -> None:
    first = store.write(ASSET, "DEU", prices(), run_id="1", metadata={"a": 1}).snapshot
    files = _files(root)
    again = store.write(ASSET, "DEU", prices(), run_id="2")
    assert not again.changed
    assert again.snapshot == first == store.current(ASSET, "DEU")
    assert _files(root) == files


def test_new_metadata_of_the_same_content_replaces_only_the_metadata(
    store: SnapshotStore, root: Path
) -> None:
    first = store.write(ASSET, "DEU", prices(), metadata={"inputs": (1, 2)}).snapshot
    files = _files(root)
    again = store.write(ASSET, "DEU", prices(), metadata={"inputs": (1, 3)})
    assert not again.changed
    assert again.snapshot == store.current(ASSET, "DEU")
    assert again.snapshot.version == first.version
    assert again.snapshot.metadata == {"inputs": [1, 3]}
    assert _files(root) == files


def test_metadata_that_is_not_json_is_refused(store: SnapshotStore) -> None:
    with pytest.raises(StorageError, match="must be JSON"):
        store.write(ASSET, "DEU", prices(), metadata={"a": object()})
    assert store.current(ASSET, "DEU") is None


def test_versions_are_listed_newest_first_with_their_last_metadata(
    store: SnapshotStore,
) -> None:
    written = []
    for number in range(4):
        store.write(ASSET, "DEU", prices(offset=number), metadata={"take": 1})
        written.append(
            store.write(ASSET, "DEU", prices(offset=number), metadata={"take": 2}).snapshot
        )
    back_again = store.write(ASSET, "DEU", prices(offset=0)).snapshot
    history = store.versions(ASSET, "DEU")
    assert history == [back_again, *reversed(written)]
    assert [s.version for s in history] == sorted((s.version for s in history), reverse=True)
    for number, snapshot in enumerate(written):
        frame = store.read(ASSET, "DEU", version=snapshot.version)
        assert_frame_equal(frame, prices(offset=number))


def test_a_partition_never_written_has_no_version(store: SnapshotStore) -> None:
    assert store.current(ASSET, "DEU") is None
    assert store.versions(ASSET, "DEU") == []
    assert store.current_all(ASSET) == {}
    assert store.read_all(ASSET) == {}
    assert store.assets() == []


def test_reading_what_is_not_there_says_what_to_materialize(store: SnapshotStore) -> None:
    with pytest.raises(StorageError, match="Materialize power_price/features of partition 'DEU'"):
        store.read(ASSET, "DEU")
    store.write(ASSET, "DEU", prices())
    for version in ("20240101T000000000000Z-000000000000", "../../x"):
        with pytest.raises(StorageError, match="no version"):
            store.read(ASSET, "DEU", version=version)


def test_many_partitions_are_read_at_once_and_missing_ones_left_out(store: SnapshotStore) -> None:
    keys = ["DEU", "a/b", "../x", "Côte d'Ivoire", 'q"%']
    for number, key in enumerate(keys):
        store.write(ASSET, key, prices(offset=number))
    store.write(ASSET, None, prices(offset=99))
    assert list(store.current_all(ASSET)) == sorted(keys)
    assert list(store.current_all(ASSET, ["a/b", "none", "DEU"])) == ["a/b", "DEU"]
    frames = store.read_all(ASSET, columns=["price"])
    assert {key: frame["price"].iloc[0] for key, frame in frames.items()} == {
        key: float(number) for number, key in enumerate(keys)
    }
    assert all(isinstance(snapshot, Snapshot) for snapshot in store.current_all(ASSET).values())


def test_an_asset_inside_anothers_folder_is_its_own(store: SnapshotStore) -> None:
    store.write(("a",), None, prices(1))
    store.write(("a", "b"), None, prices(2))
    store.write(("a", "country=DEU"), None, prices(3))
    store.write(("a", "log.d"), None, prices(4))
    store.append(("a",), None, prices(5))
    rows = {asset: store.read(asset, None).shape[0] for asset in store.assets()}
    assert rows == {("a",): 1, ("a", "b"): 2, ("a", "country=DEU"): 3, ("a", "log.d"): 4}
    assert store.current_all(("a",)) == {}


@pytest.mark.parametrize("asset", [(), "power_price", ("a", "")])
def test_an_asset_key_without_names_is_refused(store: SnapshotStore, asset: tuple[str]) -> None:
    with pytest.raises(StorageError):
        store.write(asset, "DEU", prices())


def test_a_moved_root_is_read_where_it_lies_now(store: SnapshotStore, root: Path) -> None:
    store.write(ASSET, "DEU", prices())
    moved = root.with_name("elsewhere [1]")
    root.rename(moved)
    snapshot = SnapshotStore(f"file://{moved}").current(ASSET, "DEU")
    assert snapshot is not None
    assert snapshot.uri.startswith(str(moved))
    assert_frame_equal(SnapshotStore(str(moved)).read(ASSET, "DEU"), prices())


def test_a_clock_set_back_does_not_turn_the_order_of_versions(
    store: SnapshotStore, root: Path
) -> None:
    store.write(ASSET, "DEU", prices())
    pointer = next(root.rglob("_current.json"))
    record = json.loads(pointer.read_text())
    ahead = datetime.now(UTC) + timedelta(days=1)
    pointer.write_text(json.dumps(record | {"created_at": ahead.isoformat()}))
    assert store.write(ASSET, "DEU", prices(offset=1)).snapshot.created_at > ahead


@pytest.mark.parametrize("damage", ["truncated", "empty", "a flipped bit"])
def test_a_damaged_snapshot_is_named_with_the_way_out(
    store: SnapshotStore, root: Path, damage: str
) -> None:
    store.write(ASSET, "DEU", prices(1000))
    path = _only_snapshot(root)
    content = bytearray(path.read_bytes())
    content[200] ^= 0x10
    path.write_bytes({"truncated": content[:-7], "empty": b"", "a flipped bit": content}[damage])
    with pytest.raises(StorageError, match="damaged") as caught:
        store.read(ASSET, "DEU")
    assert caught.value.culprits == {"asset": ASSET, "partition": "DEU", "uri": str(path)}
    assert "materialize power_price/features of partition 'DEU' again" in caught.value.way_out
    with pytest.raises(StorageError, match="damaged"):
        store.read_all(ASSET)


@pytest.mark.parametrize("damage", ["truncated", "removed"])
def test_writing_the_same_content_again_repairs_a_lost_file(
    store: SnapshotStore, root: Path, damage: str
) -> None:
    store.write(ASSET, "DEU", prices())
    path = _only_snapshot(root)
    path.unlink() if damage == "removed" else path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StorageError, match="gone" if damage == "removed" else "damaged"):
        store.read(ASSET, "DEU")
    assert store.write(ASSET, "DEU", prices()).changed
    assert_frame_equal(store.read(ASSET, "DEU"), prices())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": "1"}', b"\xff"])
def test_a_damaged_pointer_is_named(store: SnapshotStore, root: Path, content: bytes) -> None:
    store.write(ASSET, "DEU", prices())
    pointer = next(root.rglob("_current.json"))
    pointer.write_bytes(content)
    with pytest.raises(StorageError, match=r"_current\.json .* is damaged"):
        store.current(ASSET, "DEU")


def test_versions_end_where_a_file_was_removed_without_a_note(store: SnapshotStore) -> None:
    versions = [store.write(ASSET, "DEU", prices(offset=n)).snapshot for n in range(3)]
    os.unlink(versions[0].uri)
    assert store.versions(ASSET, "DEU") == [versions[2], versions[1]]


def test_a_damaged_version_among_many_is_named(store: SnapshotStore) -> None:
    versions = [store.write(ASSET, "DEU", prices(offset=n)).snapshot for n in range(3)]
    Path(versions[1].uri).write_bytes(b"PAR1")
    with pytest.raises(StorageError, match=f"{versions[1].version}.*damaged"):
        store.versions(ASSET, "DEU")


def test_keys_that_only_differ_in_case_are_not_mixed_up_where_files_ignore_case(
    store: SnapshotStore, root: Path
) -> None:
    store.write(ASSET, "DEU", prices())
    folder = root / "power_price/features"
    (folder / "country=deu").symlink_to(folder / "country=DEU")  # what such a file system shows
    with pytest.raises(StorageError, match="capital from small"):
        store.current(ASSET, "deu")


def test_files_of_others_in_the_root_are_left_alone(store: SnapshotStore, root: Path) -> None:
    store.write(ASSET, "DEU", prices())
    (root / "notes.txt").write_text("mine")
    (root / ".git").mkdir()
    (root / "power_price" / "README.md").write_text("mine")
    assert store.assets() == [ASSET]
    assert list(store.read_all(ASSET)) == ["DEU"]


@pytest.mark.parametrize("uri", ["sftp://host/folder", "http://host/folder", "zip://x"])
def test_a_store_without_atomic_writes_is_refused(uri: str) -> None:
    with pytest.raises(StorageError, match="atomic"):
        SnapshotStore(uri)


def test_a_store_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    looping = tmp_path / "loop"
    looping.symlink_to(looping)
    store = SnapshotStore(str(looping))
    with pytest.raises(StorageError, match="cannot be read"):
        store.current(ASSET, "DEU")
    with pytest.raises(StorageError, match="cannot be read"):
        store.write(ASSET, "DEU", prices())


def test_importing_the_package_loads_neither_dagster_nor_engines() -> None:
    import subprocess
    import sys

    code = (
        "import sys, mlops_assets.storage as s; s.SnapshotStore('/nowhere'); s.encode_key('a');"
        "heavy = ('dagster', 'duckdb', 'pandas', 'pyarrow', 'fsspec');"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_names_of_the_package_are_attribute_errors() -> None:
    import mlops_assets.storage as package

    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError):
        _ = package.nothing


def test_an_empty_frame_is_a_snapshot_like_any_other(store: SnapshotStore) -> None:
    store.write(ASSET, "DEU", prices(3))
    result = store.write(ASSET, "DEU", prices(0))
    assert result.changed
    assert store.read(ASSET, "DEU").empty
    assert isinstance(store.read(ASSET, "DEU"), pd.DataFrame)
