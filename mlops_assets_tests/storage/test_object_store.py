from __future__ import annotations

import pickle
import threading

import pytest
from pandas.testing import assert_frame_equal

from mlops_assets.errors import StorageError
from mlops_assets.storage import SnapshotStore, connect, run_sql, write_catalog
from mlops_assets_tests.storage.conftest import ACCESS
from mlops_assets_tests.storage.frames import FRAMES, prices

ASSET = ("power_price", "features")
KEYS = ["DEU", "a/b", "../x", "Côte d'Ivoire", 'q"%+ ?']


def test_snapshots_work_like_in_a_folder(s3_store: SnapshotStore, bucket: str) -> None:
    assert s3_store.current(ASSET, "DEU") is None
    assert s3_store.current_all(ASSET) == {}
    assert s3_store.assets() == []
    for number, key in enumerate(KEYS):
        s3_store.write(ASSET, key, prices(offset=number), metadata={"n": number})
    s3_store.write(("power_price", "pooled_model"), None, prices())
    assert list(s3_store.current_all(ASSET)) == sorted(KEYS)
    frames = s3_store.read_all(ASSET, ["none", *KEYS])
    for number, key in enumerate(KEYS):
        assert_frame_equal(frames[key], prices(offset=number))
        assert_frame_equal(s3_store.read(ASSET, key), prices(offset=number))
    snapshot = s3_store.current(ASSET, "a/b")
    assert snapshot is not None
    assert snapshot.uri == (
        f"{bucket}/snapshots/power_price/features/country=a%2Fb/{snapshot.version}.parquet"
    )
    assert s3_store.assets() == [ASSET, ("power_price", "pooled_model")]


def test_unchanged_content_history_and_repair_work_like_in_a_folder(
    s3_store: SnapshotStore,
) -> None:
    first = s3_store.write(ASSET, "DEU", prices()).snapshot
    assert not s3_store.write(ASSET, "DEU", prices(), metadata={"a": 1}).changed
    second = s3_store.write(ASSET, "DEU", prices(4)).snapshot
    history = s3_store.versions(ASSET, "DEU")
    assert [snapshot.version for snapshot in history] == [second.version, first.version]
    assert history[1].metadata == {"a": 1}
    s3_store.filesystem.pipe_file(second.uri, b"damaged")
    with pytest.raises(StorageError, match="damaged"):
        s3_store.read(ASSET, "DEU")
    assert s3_store.write(ASSET, "DEU", prices(4)).changed
    assert_frame_equal(s3_store.read(ASSET, "DEU", columns=["price"]), prices(4)[["price"]])


# Nightly: what differs from a folder is how the bytes get there.
@pytest.mark.parametrize(
    "name",
    [
        "mixed",
        *(
            pytest.param(other, marks=pytest.mark.nightly)
            for other in ("no rows", "whole-number categories", "two-level index")
        ),
    ],
)
def test_types_come_back_like_from_a_folder(s3_store: SnapshotStore, name: str) -> None:
    s3_store.write(ASSET, "DEU", FRAMES[name])
    assert_frame_equal(s3_store.read(ASSET, "DEU"), FRAMES[name])


def test_another_process_sees_what_was_written_since_it_last_looked(
    s3_store: SnapshotStore, bucket: str
) -> None:
    other = SnapshotStore(f"{bucket}/snapshots", storage_options=ACCESS)
    assert other.current_all(ASSET) == {}
    s3_store.write(ASSET, "DEU", prices())
    assert list(other.current_all(ASSET)) == ["DEU"]
    s3_store.write(ASSET, "DEU", prices(5))
    assert len(other.read(ASSET, "DEU")) == 5
    assert len(pickle.loads(pickle.dumps(other)).read(ASSET, "DEU")) == 5


def test_log_entries_are_never_replaced(s3_store: SnapshotStore) -> None:
    s3_store.append(ASSET, "DEU", prices(1), name="file 1")
    s3_store.append(ASSET, None, prices(2))
    with pytest.raises(StorageError, match="already has an entry"):
        s3_store.append(ASSET, "DEU", prices(3), name="file 1")
    assert len(s3_store.read_log(ASSET)) == 3
    assert s3_store.assets() == [ASSET]


def test_many_writers_at_once_lose_nothing(s3_store: SnapshotStore) -> None:
    def write(number: int) -> None:
        for key in range(number, 12, 4):
            s3_store.write(ASSET, f"P{key}", prices(offset=key))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    frames = s3_store.read_all(ASSET)
    assert sorted(frame["price"].iloc[0] for frame in frames.values()) == list(range(12))


def test_sql_reads_the_object_store_without_an_extension(s3_store: SnapshotStore) -> None:
    for number, key in enumerate(KEYS):
        s3_store.write(ASSET, key, prices(offset=number))
    s3_store.append(ASSET, "DEU", prices(1))
    found = run_sql(
        s3_store, "select _country, min(price) as price from power_price.features group by 1"
    )
    assert dict(zip(found["_country"], found["price"], strict=True)) == {
        key: float(number) for number, key in enumerate(KEYS)
    }
    with connect(s3_store) as connection:
        log = connection.execute("select count(*) from power_price.features_log").fetchall()
    assert log == [(1,)]


def test_a_catalog_file_over_an_object_store_is_refused(s3_store: SnapshotStore) -> None:
    with pytest.raises(StorageError, match="keys"):
        write_catalog(s3_store, "catalog.duckdb")


def test_a_bucket_that_is_not_there_or_not_reachable_is_a_storage_error(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError, match="could not be written"):
        SnapshotStore(f"{bucket}-none/x", storage_options=ACCESS).write(ASSET, "DEU", prices())
    options = {
        **ACCESS,
        "endpoint_url": "http://127.0.0.1:9",
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }
    with pytest.raises(StorageError, match="cannot be read"):
        SnapshotStore(f"{bucket}/x", storage_options=options).current(ASSET, "DEU")
