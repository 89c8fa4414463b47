from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.sources.files.reading import append_tables
from mlops_assets_tests.effort import examples

NAMES = st.sampled_from(["a", "A", "b", "price (EUR)", "", "_source_file", "_ingested_at"])
INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int8(): st.integers(-128, 127),
    pa.int64(): INT64,
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float64(): st.floats(allow_nan=False),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(),
    pa.large_string(): st.text(),
    pa.date32(): st.dates(),
    pa.timestamp("us"): st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1)),
    pa.decimal128(30, 4): st.decimals(-(10**9), 10**9, places=4),
    pa.binary(): st.binary(),
    pa.list_(pa.int64()): st.lists(INT64, max_size=3),
    pa.null(): st.none(),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(0, 4))
    names = draw(st.lists(NAMES, unique=True, min_size=1, max_size=4))
    columns = []
    for _ in names:
        kind = draw(st.sampled_from(list(VALUES)))
        values = draw(st.lists(st.none() | VALUES[kind], min_size=rows, max_size=rows))
        columns.append(pa.array(values, kind))
    return pa.table(columns, names=names)


def same(before: Any, after: Any) -> bool:
    """Whether a stored value is the published one, as it was or as text."""
    if before is None or before == after:
        return before == after
    if isinstance(before, bytes):
        return after in (before.hex(), before.decode("utf-8", errors="surrogateescape"))
    if isinstance(before, bool):
        return after == str(before).lower()
    if isinstance(before, float | int):
        return type(before)(after) == before
    if isinstance(before, list):
        return json.loads(after) == before
    if isinstance(before, dt.datetime):
        return dt.datetime.fromisoformat(after) == before
    return str(before) == after or type(before)(after) == before


@settings(max_examples=examples(150), deadline=None)
@given(tables(), tables())
def test_no_row_and_no_text_is_lost(earlier: pa.Table, new: pa.Table) -> None:
    joined = append_tables(earlier, new)
    assert joined.num_rows == earlier.num_rows + new.num_rows
    assert set(joined.column_names) == {*earlier.column_names, *new.column_names}
    for table, offset in ((earlier, 0), (new, earlier.num_rows)):
        for name in joined.column_names:
            part = joined[name].slice(offset, table.num_rows).to_pylist()
            if name not in table.column_names:
                assert part == [None] * table.num_rows
                continue
            assert all(map(same, table[name].to_pylist(), part))


@settings(max_examples=examples(60), deadline=None)
@given(tables(), tables(), tables())
def test_appending_one_by_one_or_together_gives_the_same_columns(
    one: pa.Table, two: pa.Table, three: pa.Table
) -> None:
    joined = append_tables(append_tables(one, two), three)
    assert joined.num_rows == one.num_rows + two.num_rows + three.num_rows
    assert append_tables(joined, joined.slice(0, 0)).equals(joined)


def test_the_first_delivery_is_taken_as_it_is() -> None:
    table = pa.table({"a": [1]})
    assert append_tables(None, table) is table


@pytest.mark.parametrize(
    ("earlier", "new", "expected"),
    [
        (pa.array([1], pa.int32()), pa.array([2**40]), pa.array([1, 2**40])),
        (pa.array([1], pa.uint8()), pa.array([9], pa.uint16()), pa.array([1, 9], pa.uint16())),
        (pa.array([1]), pa.array([2.5]), pa.array(["1", "2.5"])),
        (pa.array(["01"]), pa.array([1]), pa.array(["01", "1"])),
        (pa.array([True]), pa.array(["yes"]), pa.array(["true", "yes"])),
        (pa.array([dt.date(2024, 1, 31)]), pa.array(["x"]), pa.array(["2024-01-31", "x"])),
        (pa.array([0.1], pa.float32()), pa.array([0.1]), pa.array(["0.1", "0.1"])),
        (pa.nulls(1), pa.array([3]), pa.array([None, 3])),
        (pa.array(["a"]).dictionary_encode(), pa.array(["b"]), pa.array(["a", "b"])),
        (pa.array(["a"], pa.large_string()), pa.array(["b"]),
         pa.array(["a", "b"], pa.large_string())),
        (pa.array([[1, 2]]), pa.array(["b"]), pa.array(["[1, 2]", "b"])),
        (pa.array([b"\xff"]), pa.array(["b"]), pa.array(["ff", "b"])),
    ],
)  # fmt: skip
def test_types_that_disagree_become_the_wider_whole_number_or_text(
    earlier: pa.Array, new: pa.Array, expected: pa.Array
) -> None:
    joined = append_tables(pa.table({"x": earlier}), pa.table({"x": new}))
    assert joined["x"].combine_chunks().equals(expected)


def test_columns_come_in_order_of_appearance_with_the_technical_ones_last() -> None:
    earlier = pa.table({"a": [1], "_source_line": [1], "_ingested_at": [dt.datetime(2024, 1, 1)]})
    joined = append_tables(earlier, pa.table({"_source_file": ["f"], "b": [2]}))
    assert joined.column_names == ["a", "b", "_source_file", "_source_line", "_ingested_at"]
