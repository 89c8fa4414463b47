from __future__ import annotations

import threading
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from mlops_assets.errors import StorageError
from mlops_assets.storage import SnapshotStore
from mlops_assets_tests.storage.frames import prices

LOG = ("power_price", "decisions")


def _entry(number: int) -> pd.DataFrame:
    return pd.DataFrame({"number": [number, number], "who": ["a", None]})


def test_entries_come_back_oldest_first_whatever_their_names(store: SnapshotStore) -> None:
    for number, name in enumerate(["z", None, "a", None, "../x"]):
        store.append(LOG, "DEU" if number % 2 else None, _entry(number), name=name)
    assert store.read_log(LOG)["number"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert store.read_log(LOG, "DEU")["number"].tolist() == [1, 1, 3, 3]
    assert store.read_log(LOG, "FRA").empty
    assert [(e.partition, e.id) for e in store.log_files(LOG) if "Z-" not in e.id] == [
        (None, "../x"),
        (None, "a"),
        (None, "z"),
    ]


def test_a_log_without_entries_is_an_empty_frame(store: SnapshotStore) -> None:
    assert store.read_log(LOG).shape == (0, 0)


def test_the_same_name_cannot_be_appended_twice(store: SnapshotStore) -> None:
    assert store.append(LOG, "DEU", _entry(1), name="file 1") == "file 1"
    with pytest.raises(StorageError, match="already has an entry 'file 1'") as caught:
        store.append(LOG, "DEU", _entry(2), name="file 1")
    assert caught.value.culprits["name"] == "file 1"
    store.append(LOG, "FRA", _entry(3), name="file 1")
    assert store.read_log(LOG)["number"].tolist() == [1, 1, 3, 3]


def test_of_many_writers_of_one_name_exactly_one_gets_it(store: SnapshotStore, root: Path) -> None:
    outcomes: list[str] = []
    gate = threading.Barrier(8)

    def append(number: int) -> None:
        gate.wait()
        try:
            outcomes.append(store.append(LOG, None, _entry(number), name="one"))
        except StorageError:
            outcomes.append("refused")

    threads = [threading.Thread(target=append, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["one", *["refused"] * 7]
    assert len(store.read_log(LOG)) == 2
    assert len([path for path in root.rglob("*") if path.is_file()]) == 1


def test_entries_with_other_columns_and_wider_types_fit_under_each_other(
    store: SnapshotStore,
) -> None:
    store.append(LOG, None, pd.DataFrame({"a": [1], "c": pd.Categorical(["x"])}, index=[9]))
    store.append(LOG, None, pd.DataFrame({"a": [0.5], "b": ["new"], "c": pd.Categorical(["y"])}))
    store.append(LOG, None, pd.DataFrame({"b": [None]}))
    expected = pd.DataFrame(
        {"a": [1.0, 0.5, None], "c": ["x", "y", None], "b": [None, "new", None]}
    )
    assert_frame_equal(store.read_log(LOG), expected)


def test_types_that_all_entries_share_are_kept(store: SnapshotStore) -> None:
    frame = pd.DataFrame(
        {
            "n": pd.array([1, None], "Int64"),
            "s": pd.array(["a", None], "string[pyarrow]"),
            "c": pd.Categorical([3, 1], [5, 3, 1]),
            "t": pd.DatetimeIndex(["2024-01-01", pd.NaT]).tz_localize("UTC"),
            "l": [["a"], []],
            "o": pd.Series([1, None], dtype=object),
        }
    )
    for _ in range(2):
        store.append(LOG, None, frame)
    doubled = pd.concat([frame, frame], ignore_index=True)
    assert_frame_equal(store.read_log(LOG), doubled)


@pytest.mark.parametrize("turned", [False, True])
def test_categories_and_plain_text_fit_under_each_other(store: SnapshotStore, turned: bool) -> None:
    frames = [pd.DataFrame({"c": pd.Categorical(["x"])}), pd.DataFrame({"c": ["y"]})]
    for frame in reversed(frames) if turned else frames:
        store.append(LOG, None, frame)
    assert sorted(store.read_log(LOG)["c"]) == ["x", "y"]


def test_types_without_a_common_one_are_refused_with_the_reason(store: SnapshotStore) -> None:
    store.append(LOG, None, pd.DataFrame({"a": [1]}))
    store.append(LOG, None, pd.DataFrame({"a": [[1]]}))
    with pytest.raises(StorageError, match=r"do not fit under each other.*a"):
        store.read_log(LOG)


def test_a_damaged_entry_is_named(store: SnapshotStore, root: Path) -> None:
    store.append(LOG, None, prices(), name="bad")
    path = next(root.rglob("bad.parquet"))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(StorageError, match=r"bad\.parquet.*damaged"):
        store.read_log(LOG)


def test_a_log_and_snapshots_of_one_asset_do_not_meet(store: SnapshotStore) -> None:
    store.append(LOG, "DEU", _entry(1))
    assert store.current(LOG, "DEU") is None
    assert store.current_all(LOG) == {}
    store.write(LOG, "DEU", prices(3))
    assert len(store.read_log(LOG)) == 2
    assert len(store.versions(LOG, "DEU")) == 1
