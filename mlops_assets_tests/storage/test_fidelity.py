from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import pandas as hp
from pandas.testing import assert_frame_equal

from mlops_assets.errors import StorageError
from mlops_assets.storage import SnapshotStore
from mlops_assets.storage.frames import (
    read_parquet,
    to_frame,
    to_table,
    write_parquet,
)
from mlops_assets_tests.effort import examples
from mlops_assets_tests.storage.frames import FRAMES, prices

ASSET = ("power_price", "features")


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_comes_back_as_it_was_written(store: SnapshotStore, name: str) -> None:
    frame = FRAMES[name]
    snapshot = store.write(ASSET, "DEU", frame).snapshot
    assert_frame_equal(store.read(ASSET, "DEU"), frame)
    assert snapshot.rows == len(frame)


@pytest.mark.parametrize("name", FRAMES)
def test_writing_what_was_read_changes_nothing(store: SnapshotStore, name: str) -> None:
    store.write(ASSET, "DEU", FRAMES[name])
    assert not store.write(ASSET, "DEU", store.read(ASSET, "DEU")).changed
    assert not store.write(ASSET, "DEU", store.read_table(ASSET, "DEU")).changed


COLUMNS = [
    hp.column("i", dtype="int16"),
    hp.column("f", dtype="float64"),
    hp.column("b", dtype="bool"),
    hp.column("t", elements=st.one_of(st.none(), st.text(max_size=5)), dtype=object),
    hp.column("d", dtype="datetime64[ns]"),
    hp.column("l", elements=st.lists(st.integers(-9, 9), max_size=3), dtype=object),
]


@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(frame=hp.data_frames(COLUMNS), categories=st.lists(st.text(max_size=3), unique=True))
def test_any_frame_comes_back_as_it_was_written(
    store: SnapshotStore, frame: pd.DataFrame, categories: list[str]
) -> None:
    codes = np.arange(len(frame)) % (len(categories) + 1) - 1
    kind = pd.CategoricalDtype(categories)
    frame["c"] = pd.Categorical.from_codes(codes.tolist(), dtype=kind)
    store.write(ASSET, "DEU", frame)
    assert_frame_equal(store.read(ASSET, "DEU"), frame)


def test_arrow_tables_come_back_with_their_types(store: SnapshotStore) -> None:
    table = pa.table(
        {
            "s": pa.array([1, None], pa.timestamp("s", "UTC")),
            "l": pa.array([["a"], None], pa.large_list(pa.large_string())),
            "c": pa.array([10, 20]).dictionary_encode(),
            "m": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int8())),
        }
    )
    store.write(ASSET, "DEU", table)
    assert store.read_table(ASSET, "DEU").equals(table)


def test_categories_survive_many_row_groups(store: SnapshotStore) -> None:
    names = [f"name {i:06}" for i in range(150_000)]
    table = pa.table(
        {
            "c": pa.chunked_array(
                [pa.array(names).dictionary_encode(), pa.array(names[::-1]).dictionary_encode()]
            )
        }
    )
    frame = pd.DataFrame({"c": pd.Categorical(names, categories=["unused", *names[::-1]])})
    store.write(ASSET, "DEU", table)
    store.write(ASSET, "FRA", frame)
    assert store.read(ASSET, "DEU")["c"].astype(str).tolist() == names + names[::-1]
    assert_frame_equal(store.read(ASSET, "FRA"), frame)


def test_only_the_columns_asked_for_are_loaded_in_that_order(store: SnapshotStore) -> None:
    store.write(ASSET, "DEU", prices())
    assert list(store.read(ASSET, "DEU", columns=["price", "zone"])) == ["price", "zone"]
    assert store.read_table(ASSET, "DEU", columns=["price"]).column_names == ["price"]
    store.write(ASSET, "DEU", prices().set_index("time"))
    assert_frame_equal(
        store.read(ASSET, "DEU", columns=["price"]), prices().set_index("time")[["price"]]
    )


def test_a_column_whose_name_begins_another_is_loaded_alone(store: SnapshotStore) -> None:
    store.write(ASSET, "DEU", FRAMES["odd column names"])
    assert list(store.read(ASSET, "DEU", columns=["a"])) == ["a"]


def test_a_column_that_is_not_there_is_named_with_those_that_are(store: SnapshotStore) -> None:
    store.write(ASSET, "DEU", prices())
    with pytest.raises(StorageError, match=r"\['load'\] are not in it.*'price'") as caught:
        store.read(ASSET, "DEU", columns=["load", "price"])
    assert caught.value.culprits["columns"] == ["load"]
    assert caught.value.culprits["partition"] == "DEU"


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "Duplicate column"),
        (pd.DataFrame({"mixed": [1, "a"]}), "mixed"),
        (pd.DataFrame({"complex": [1j]}), "complex"),
        (pd.DataFrame(index=range(3)), "no columns"),
        (pd.DataFrame({"cut": pd.cut(pd.Series([1, 2]), 2)}), "Parquet"),
        (pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), "more than once"),
        ([{"a": 1}], "list cannot be stored"),
    ],
)
def test_what_cannot_come_back_whole_is_refused(
    store: SnapshotStore, data: pd.DataFrame, rule: str
) -> None:
    store.write(ASSET, "DEU", prices())
    with pytest.raises(StorageError, match=rule):
        store.write(ASSET, "DEU", data)
    assert_frame_equal(store.read(ASSET, "DEU"), prices())


def test_a_slice_is_stored_as_if_it_had_always_been_alone(store: SnapshotStore) -> None:
    table = pa.Table.from_pandas(prices(10))
    store.write(ASSET, "DEU", table.slice(4, 3))
    alone = prices(10).iloc[4:7].reset_index(drop=True)
    assert not store.write(ASSET, "DEU", alone).changed
    assert_frame_equal(store.read(ASSET, "DEU"), alone)


@settings(max_examples=examples(30), deadline=None)
@given(
    kind=st.sampled_from([pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint32(), pa.uint64()]),
    seed=st.integers(0, 9),
    hole=st.sampled_from([0, 2, 7]),
)
def test_many_rows_of_whole_numbers_come_back_as_they_were(
    kind: pa.DataType, seed: int, hole: int
) -> None:
    """From 10,000 rows on, numbers that hardly repeat are stored as differences."""
    bounds = np.iinfo(kind.to_pandas_dtype())
    numbers = np.random.default_rng(seed).integers(
        bounds.min, bounds.max, 12_000, bounds.dtype, endpoint=True
    )
    missing = np.arange(len(numbers)) % hole == 0 if hole else None
    table = pa.table({"with.dot": pa.array(numbers, kind, mask=missing), "t": ["x"] * len(numbers)})
    sink = io.BytesIO()
    write_parquet(table, sink, {})
    assert read_parquet(pa.py_buffer(sink.getvalue())).table.equals(table)


def text_frame(rows: int) -> pd.DataFrame:
    """Text of every kind, of few words and of many."""
    place = np.arange(rows)
    few = np.array(["a", "bb", "", "é", None], dtype=object)[place % 5]
    return pd.DataFrame(
        {
            "few": few,
            "many": [f"word {i}" for i in place],
            "none": np.full(rows, None),
            "7": few,
            "back": few[::-1],
            "string": pd.array(few, dtype="string"),
            "arrow": pd.array(few, dtype="string[pyarrow]"),
            "category": pd.Categorical(few),
            "number": place * 0.5,
            "day": np.array([pd.Timestamp("2024-01-01").date(), None], dtype=object)[place % 2],
        },
        index=pd.Index([f"key {i % 9}" for i in place], name="text"),
    )


@pytest.mark.parametrize("columns", [None, ["few", "7"], ["number"]])
@pytest.mark.parametrize(
    "rows_of_a_group",
    [pytest.param(60_000, marks=pytest.mark.nightly), 7_000],  # several groups have all of one
)
def test_much_text_that_repeats_is_read_as_it_was_written(
    columns: list[str] | None, rows_of_a_group: int
) -> None:
    """From 50,000 rows on, words that repeat are read as codes."""
    table = to_table(text_frame(60_000))
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=rows_of_a_group)
    stored = pa.py_buffer(sink.getvalue())
    found = to_frame(read_parquet(stored, columns).table)
    expected = text_frame(60_000)[columns or list(text_frame(1).columns)]
    plain = expected.columns.drop("category", errors="ignore")
    assert list(found.columns) == list(expected.columns)
    assert_frame_equal(found[plain], expected[plain])
    if columns is None:
        assert read_parquet(stored).table.drop(["category"]).equals(table.drop(["category"]))
