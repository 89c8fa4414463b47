from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.sources.files.reading import list_files, read_by_country
from mlops_assets.sources.files.split import split_by_country
from mlops_assets_tests.effort import examples

pc: Any = pyarrow.compute  # made at import time, so no type checker sees its functions

WANTED = {"DEU": "DEU", " DE ": "DEU", "FRA": "FRA", "": "NONE", "7": "SEVEN"}
PUBLISHED = st.sampled_from(["DEU", " DEU", "DE", "FRA ", "XXX", "", "  ", None])


def batches_of(rows: list[tuple[int, str | None]], sizes: list[int]) -> list[pa.RecordBatch]:
    """Rows of (file, country) with their place as `x`, cut into batches of these sizes."""
    files, countries = [file for file, _ in rows], [country for _, country in rows]
    table = pa.table(
        {
            "c0": pa.array(countries, pa.string()),
            "x": pa.array(range(len(rows)), pa.int64()),
            "file": pa.array(files, pa.int32()),
        }
    )
    edges = [0]
    for size in sizes:
        edges.append(min(edges[-1] + size, len(rows)))
    edges.append(len(rows))
    return [
        pa.RecordBatch.from_pydict(table[a:b].to_pydict(), table.schema) for a, b in pairwise(edges)
    ]


@settings(max_examples=examples(200), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), PUBLISHED), max_size=30),
    st.lists(st.integers(0, 9), max_size=6),
)
def test_every_wanted_row_is_given_once_in_order_with_its_number_in_its_file(
    rows: list[tuple[int, str | None]], sizes: list[int]
) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    code = {value.strip(): country for value, country in WANTED.items()}
    expected: dict[str, list[tuple[int, int, int]]] = {}
    lines: dict[int, int] = {}
    for place, (file, published) in enumerate(rows):
        lines[file] = lines.get(file, 0) + 1
        if (country := code.get((published or "").strip())) is not None:
            expected.setdefault(country, []).append((place, file, lines[file]))
    found = split_by_country(batches_of(rows, sizes), "c0", WANTED)
    columns = {
        country: [t[n].to_pylist() for n in ("x", "file", "line")] for country, t in found.items()
    }
    assert {c: list(zip(*values, strict=True)) for c, values in columns.items()} == expected


def test_numbers_that_the_reader_gives_are_taken_as_they_are() -> None:
    batch = pa.RecordBatch.from_pydict(
        {"c0": ["FRA", "DEU", "FRA"], "file": pa.array([0, 1, 1], pa.int32()), "row": [4, 0, 9]}
    )
    found = split_by_country([batch], "c0", WANTED)
    assert found["FRA"].to_pydict() == {"c0": ["FRA"] * 2, "file": [0, 1], "line": [5, 10]}


@pytest.mark.parametrize(
    "codes",
    [
        pa.array([7, 8, None, 7]),
        pa.array([7.0, 8.5, float("nan"), 7.0]),
        pa.array([b"7", b"8", None, b"7"]),
        pa.array(["7", " 8", None, "7 "], pa.large_string()),
    ],
)
def test_a_country_of_any_type_is_found_by_its_text(codes: pa.Array) -> None:
    batch = pa.RecordBatch.from_pydict({"c0": codes, "file": pa.array([0] * 4, pa.int32())})
    found = split_by_country([batch], "c0", WANTED)
    assert {country: table["line"].to_pylist() for country, table in found.items()} == {
        "SEVEN": [1, 4],
        "NONE": [3],
    }


def test_files_out_of_order_stop_the_reading_instead_of_giving_wrong_numbers() -> None:
    batches = batches_of([(0, "DEU"), (1, "DEU"), (0, "DEU")], [2])
    with pytest.raises(duckdb.InternalException, match="order of the files"):
        split_by_country(batches, "c0", WANTED)


def test_several_threads_may_ask_for_tables_and_each_gets_the_same(tmp_path: Path) -> None:
    lines = "".join(f"C{i % 20:02},{i}\n" for i in range(20_000))
    (tmp_path / "a.csv").write_text(f"country,x\n{lines}")
    wanted = {f"C{i:02}": f"C{i:02}" for i in range(20)}
    rows = read_by_country(list_files(str(tmp_path)), "country", wanted)
    assert len(rows) == 20
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(rows.__getitem__, list(rows) * 3))
    for country, table in zip(list(rows) * 3, tables, strict=True):
        assert table.equals(rows[country])
        assert pc.unique(table["country"]).to_pylist() == [country]


def test_the_order_of_a_large_file_is_kept_whatever_is_read_side_by_side(tmp_path: Path) -> None:
    """Larger than what DuckDB hands to one of its threads at a time."""
    rows, pad = 700_000, "p" * 90
    query = f"SELECT 'C' || (i % 3) AS country, i, '{pad}' AS pad FROM range({rows}) AS t(i)"
    duckdb.execute(f"COPY ({query}) TO '{tmp_path / 'a.csv'}' (HEADER)")
    found = read_by_country(list_files(str(tmp_path)), "country", {"C1": "C1"})["C1"]
    assert found["i"].cast(pa.int64()).equals(pc.subtract(found["_source_line"], 1))
    assert found["_source_line"].to_pylist() == list(range(2, rows + 1, 3))
