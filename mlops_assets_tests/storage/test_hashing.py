from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.storage.frames import to_table
from mlops_assets.storage.hashing import content_hash
from mlops_assets_tests.effort import examples
from mlops_assets_tests.storage.frames import FRAMES, prices

ARRAYS = {
    "integers": pa.array([1, None, 3, 4, 5]),
    "bools": pa.array([True, None, False, True, True]),
    "text": pa.array(["a", None, "", "long enough", "é"]),
    "long text": pa.array(["a", None, "", "b", "c"], pa.large_string()),
    "bytes": pa.array([b"a", None, b"", b"\0", b"c"]),
    "decimals": pa.array([1, None, 3, 4, 5], pa.decimal128(5, 2)),
    "times": pa.array([1, None, 3, 4, 5], pa.timestamp("us", "UTC")),
    "fixed bytes": pa.array([b"ab", None, b"cd", b"ef", b"gh"], pa.binary(2)),
    "lists": pa.array([[1, 2], None, [], [None, 3], [4]]),
    "long lists": pa.array([["x"], None, [], [None], ["y"]], pa.large_list(pa.string())),
    "pairs": pa.array([[1, 2], None, [3, 4], [5, None], [7, 8]], pa.list_(pa.int8(), 2)),
    "structs": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}, {}, {"a": 2}]),
    "maps": pa.array(
        [[("k", 1)], None, [], [("z", None)], [("k", 2)]], pa.map_(pa.string(), pa.int64())
    ),
    "categories": pa.array(["a", None, "b", "a", "b"]).dictionary_encode(),
    "nulls": pa.nulls(5),
}  # fmt: skip

column = pytest.mark.parametrize("name", ARRAYS)


def _hash(array: pa.Array | pa.ChunkedArray) -> str:
    return content_hash(pa.table({"x": array}))


@column
def test_slices_and_chunks_do_not_change_the_hash(name: str) -> None:
    array = ARRAYS[name]
    shifted = pa.concat_arrays([array[:2], array])[2:]
    chunked = pa.chunked_array([array[:1], array[1:1], array[1:4], array[4:]])
    assert _hash(shifted) == _hash(chunked) == _hash(array)
    middle = array.take(pa.array([1, 2, 3]))
    assert _hash(array[1:4]) == _hash(middle)


@column
def test_each_value_each_null_and_the_order_count(name: str) -> None:
    array = ARRAYS[name]
    others = [array[:4], array[1:], array.take(pa.array([1, 0, 2, 3, 4]))]
    if name != "nulls":
        others.append(array.take(pa.array([0, 0, 2, 3, 4])))
        assert _hash(others[2]) != _hash(array)
    for other in (others[0], *others[3:]):
        assert _hash(other) != _hash(array)


def test_values_under_nulls_do_not_change_the_hash() -> None:
    valid = pa.array([True, False, True]).buffers()[1]
    tables = [
        pa.Array.from_buffers(pa.int64(), 3, [valid, pa.py_buffer(np.array(values).tobytes())])
        for values in ([1, 0, 3], [1, 99, 3])
    ]
    assert _hash(tables[0]) == _hash(tables[1]) == _hash(pa.array([1, None, 3]))


def test_views_hash_by_what_they_show() -> None:
    array = pa.array(["a", None, "", "longer than fits in a view", "c"], pa.string_view())
    shifted = pa.concat_arrays([array[:2], array])[2:]
    assert _hash(shifted) == _hash(array)
    assert _hash(array[:4]) != _hash(array[1:])


def test_chunks_with_their_own_categories_hash_like_one() -> None:
    chunks = [pa.array(["a", "b"]).dictionary_encode(), pa.array(["b", "a"]).dictionary_encode()]
    whole = pa.array(["a", "b", "b", "a"]).dictionary_encode()
    assert _hash(pa.chunked_array(chunks)) == _hash(whole)


def test_names_types_and_categories_count() -> None:
    frames = [
        pd.DataFrame({"a": [1]}),
        pd.DataFrame({"b": [1]}),
        pd.DataFrame({"a": [1.0]}),
        pd.DataFrame({"a": [True]}),
        pd.DataFrame({"a": [1]}, dtype="Int64"),
        pd.DataFrame({"a": ["1"]}),
        pd.DataFrame({"a": ["1"]}, dtype="string"),
        pd.DataFrame({"a": pd.Categorical(["1"])}),
        pd.DataFrame({"a": pd.Categorical(["1"], ["1", "2"])}),
        pd.DataFrame({"a": pd.Categorical(["1"], ["1", "2"], ordered=True)}),
        pd.DataFrame({"a": [1]}, index=[5]),
        pd.DataFrame({"a": [None]}),
        pd.DataFrame({"a": []}, dtype="int64"),
    ]
    assert len({content_hash(to_table(frame)) for frame in frames}) == len(frames)


def test_text_cannot_move_between_neighbours_unnoticed() -> None:
    assert _hash(pa.array(["ab", "c"])) != _hash(pa.array(["a", "bc"]))
    assert _hash(pa.array([[1, 2], [3]])) != _hash(pa.array([[1], [2, 3]]))


def test_versions_of_the_libraries_do_not_change_the_hash() -> None:
    table = to_table(prices())
    notes = json.loads(table.schema.metadata[b"pandas"])
    notes |= {"pandas_version": "9.9", "creator": {"library": "other", "version": "0"}}
    other = {b"pandas": json.dumps(notes, indent=1).encode(), b"someone": b"else"}
    assert content_hash(table.replace_schema_metadata(other)) == content_hash(table)


@pytest.mark.parametrize("name", FRAMES)
def test_the_same_frame_made_again_has_the_same_hash(name: str) -> None:
    frame = FRAMES[name]
    assert content_hash(to_table(frame)) == content_hash(to_table(frame.copy(deep=True)))


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.integers(-5, 5)), max_size=12),
    st.lists(st.integers(0, 12), max_size=3),
)
def test_any_cut_into_chunks_gives_the_same_hash(values: list[int | None], cuts: list[int]) -> None:
    array = pa.array(values, pa.int32())
    edges = [0, *sorted(min(cut, len(array)) for cut in cuts), len(array)]
    chunks = [array[a:b] for a, b in pairwise(edges)]
    assert _hash(pa.chunked_array(chunks, pa.int32())) == _hash(array)


def test_the_hash_is_pinned() -> None:
    """Another value here means that everything stored would count as changed."""
    table = pa.table({"a": pa.array([1, None]), "b": ["x", "y"]})
    assert content_hash(table) == "3d6daa2e28aa937956496309f5dcaf0d"
