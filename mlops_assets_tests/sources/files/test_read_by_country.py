from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import json
import os
import random
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_assets.errors import SourceError
from mlops_assets.sources.files import reading as module
from mlops_assets.sources.files.reading import list_files, read_by_country
from mlops_assets_tests.sources.conftest import Put

WANTED = {"DEU": "DEU", "FRA": "FRA"}
SOURCE = ("_source_file", "_source_hash", "_source_line")


def read(landing: Path, wanted: dict[str, str] | None = None) -> dict[str, list[dict[str, Any]]]:
    tables = read_by_country(list_files(str(landing)), "country", wanted or WANTED)
    return {country: table.to_pylist() for country, table in tables.items()}


def published(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: row[key] for key in row if key not in SOURCE} for row in rows]


def write_parquet(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path)


def test_csv_is_text_as_published_and_empty_fields_are_null(put: Put, landing: Path) -> None:
    put("a.csv", b'country,price,note\nDEU,01.50,"a ""b"", c"\nDEU,,""\nFRA, NA ,"two\nlines"\n')
    rows = read(landing)
    assert published(rows["DEU"]) == [
        {"country": "DEU", "price": "01.50", "note": 'a "b", c'},
        {"country": "DEU", "price": None, "note": None},
    ]
    assert published(rows["FRA"]) == [{"country": "FRA", "price": " NA ", "note": "two\nlines"}]


def test_a_row_tells_its_file_its_hash_and_its_record_number(put: Put, landing: Path) -> None:
    one = put("1.csv", b'country,x\nDEU,"a\nb"\n\nXXX,1\nDEU,c\n')
    two = put("2/2.csv.gz", gzip.compress(b"country,x\nFRA,1\nDEU,d\n"))
    rows = read(landing)["DEU"]
    assert [tuple(row[name] for name in SOURCE) for row in rows] == [
        ("1.csv", one.content_hash, 1),
        ("1.csv", one.content_hash, 3),
        ("2/2.csv.gz", two.content_hash, 2),
    ]


def test_aliases_lead_to_their_country_and_the_published_value_stays(
    put: Put, landing: Path
) -> None:
    put("a.csv", b"country,x\n CN ,1\nCHN,2\ncn,3\n,4\n")
    rows = read(landing, {"CN": "CHN", "CHN": "CHN", "": "UNKNOWN"})
    assert [row["country"] for row in rows["CHN"]] == [" CN ", "CHN"]
    assert [row["x"] for row in rows["UNKNOWN"]] == ["4"]
    assert set(rows) == {"CHN", "UNKNOWN"}


def test_a_country_without_rows_is_absent_and_no_files_give_no_tables(
    put: Put, landing: Path
) -> None:
    put("a.csv", b"country,x\nDEU,1\n")
    put("b.csv", b"country,x\n")
    assert set(read(landing)) == {"DEU"}
    assert read_by_country([], "country", WANTED) == {}
    assert read_by_country(list_files(str(landing)), "country", {}) == {}


def random_records(seed: int, rows: int) -> list[tuple[str, str, str]]:
    make = random.Random(seed)
    texts = ["plain", 'quo"ted', "new\nline,x", "two\r\nlines", "", "\n1,DEU,x\n2,FRA,y\n"]
    return [(str(i), make.choice(["DEU", "FRA", "XXX"]), make.choice(texts)) for i in range(rows)]


def test_csv_record_numbers_equal_those_of_an_independent_parser(landing: Path) -> None:
    for name, rows in {"a.csv": 80_000, "b.csv": 3, "c.csv": 50_000}.items():
        with (landing / name).open("w", newline="") as file:
            csv.writer(file).writerows([("id", "country", "x"), *random_records(rows, rows)])
    tables = read_by_country(list_files(str(landing)), "country", WANTED)
    for country, table in tables.items():
        expected = [
            (name, number, row["id"], row["x"] or None)
            for name in ("a.csv", "b.csv", "c.csv")
            for number, row in enumerate(parsed(landing / name), 1)
            if row["country"] == country
        ]
        found = [table[name].to_pylist() for name in ("_source_file", "_source_line", "id", "x")]
        assert list(zip(*found, strict=True)) == expected


def parsed(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_json_record_numbers_equal_those_of_an_independent_parser(landing: Path) -> None:
    records = [
        {"id": i, "country": country, "x": text}
        for i, (_, country, text) in enumerate(random_records(5, 40_000))
    ]
    content = "".join(json.dumps(row) + ("\n\n" if row["id"] % 7 else "\n") for row in records)
    for name in ("a.jsonl", "b.jsonl"):
        (landing / name).write_text(content)
    (landing / "c.ndjson.gz").write_bytes(gzip.compress(content.encode()))
    for country, rows in read(landing).items():
        ids = [row["id"] for row in records if row["country"] == country]
        assert [row["_source_line"] for row in rows] == [i + 1 for i in ids] * 3
        assert [row["id"] for row in rows] == ids * 3


def test_parquet_record_numbers_equal_the_position_in_the_file(landing: Path) -> None:
    for name, rows in {"a.parquet": 50_000, "b.parquet": 7}.items():
        table = pa.table(
            list(zip(*random_records(rows, rows), strict=True)), ["id", "country", "x"]
        )
        pq.write_table(table, landing / name, row_group_size=1000)
    for country, rows in read(landing).items():
        assert [row["_source_line"] for row in rows] == [int(row["id"]) + 1 for row in rows]
        assert {row["country"] for row in rows} == {country}


TYPED = pa.table(
    {
        "country": ["DEU", "FRA", None],
        "i8": pa.array([1, None, 3], pa.int8()),
        "u64": pa.array([2**64 - 1, 0, 1], pa.uint64()),
        "f32": pa.array([0.1, None, 3.0], pa.float32()),
        "flag": [True, None, False],
        "day": [dt.date(2024, 2, 29), None, dt.date(1, 1, 1)],
        "ns": pa.array([1, None, 3], pa.timestamp("ns")),
        "berlin": pa.array([1, None, 3], pa.timestamp("us", "UTC")),
        "dec": pa.array([None, 1, 2], pa.decimal128(20, 4)),
        "took": pa.array([1, 2, None], pa.duration("ms")),
        "bytes": [b"\xff", None, b""],
        "tags": [["a"], [], None],
        "file_row_number": [7, 8, 9],
        "filename": ["p", "q", "r"],
        "Country": ["other", "case", "column"],
        "nothing": pa.nulls(3),
    }
)


def test_parquet_columns_keep_their_types_and_values(landing: Path) -> None:
    write_parquet(landing / "k=v.parquet", TYPED)
    tables = read_by_country(list_files(str(landing)), "country", {**WANTED, "": "NONE"})
    back = pa.concat_tables(tables[name] for name in ("DEU", "FRA", "NONE"))
    assert back.select(TYPED.column_names).to_pylist() == TYPED.to_pylist()
    for field in TYPED.schema:
        found = back.schema.field(field.name).type
        assert found == field.type or pa.types.is_list(found)
    assert back.column_names == [*TYPED.column_names, *SOURCE]


def test_a_time_zone_of_this_machine_changes_no_timestamp(
    landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    write_parquet(landing / "a.parquet", TYPED)
    table = read_by_country(list_files(str(landing)), "country", WANTED)["DEU"]
    assert table["berlin"].cast(pa.int64()).to_pylist() == [1]


def test_json_columns_are_typed_as_their_values_are(put: Put, landing: Path) -> None:
    lines = [
        '{"country":"DEU","n":1,"f":1,"b":true,"d":"2024-01-31","o":{"k":[1]},"e":null,"a/b~":7}',
        '{"country":"DEU","n":-2,"f":2.5,"b":false,"d":"x","m":5}',
        '{"country":"DEU","big":123456789012345678901234567890,"m":"05","long":12345678901234567}',
        '{"country":"DEU","Country":"q\\"\\u00e9\\ud83d\\ude00","long":0.5}',
    ]
    put("a.jsonl", "\n".join(lines).encode())
    table = read_by_country(list_files(str(landing)), "country", WANTED)["DEU"]
    columns = {name: table[name].to_pylist() for name in table.column_names}
    assert columns["n"] == [1, -2, None, None]
    assert columns["f"] == [1.0, 2.5, None, None]
    assert columns["b"] == [True, False, None, None]
    assert columns["d"] == ["2024-01-31", "x", None, None]
    assert columns["m"] == [None, "5", "05", None]
    assert columns["o"] == ['{"k":[1]}', None, None, None]
    assert columns["a/b~"] == [7, None, None, None]
    assert columns["big"][2] == "123456789012345678901234567890"
    assert columns["long"] == [None, None, "12345678901234567", "0.5"]
    assert columns["Country"] == [None, None, None, 'q"é😀']
    assert pa.types.is_null(table.schema.field("e").type)


def test_files_of_all_formats_are_joined_by_column_name(put: Put, landing: Path) -> None:
    put("1.csv", b"country,price,only_csv\nDEU,01.5,a\n")
    put("2.jsonl", b'{"price":2.5,"country":"DEU"}\n')
    write_parquet(landing / "3.parquet", pa.table({"country": ["DEU", "FRA"], "price": [3, 4]}))
    tables = read_by_country(list_files(str(landing)), "country", WANTED)
    assert tables["DEU"].column_names == ["country", "price", "only_csv", *SOURCE]
    assert tables["DEU"]["price"].to_pylist() == ["01.5", "2.5", "3"]
    assert tables["DEU"]["only_csv"].to_pylist() == ["a", None, None]
    assert tables["FRA"].schema == tables["DEU"].schema


def test_files_with_other_columns_order_and_line_ends_are_joined(put: Put, landing: Path) -> None:
    put("1.csv", b"country,x\nDEU,1\n")
    put("2.csv", b"x;country\r\n2;DEU\r\n")
    put("3.csv", b"\xef\xbb\xbfcountry,x\r\n\r\nDEU,3\r\n")
    put("4.csv", b"country,X\nDEU,4\n")
    rows = published(read(landing)["DEU"])
    assert [(row["x"], row["X"]) for row in rows] == [
        ("1", None), ("3", None), ("2", None), (None, "4"),
    ]  # fmt: skip


def test_one_scan_serves_all_files_of_a_format_and_all_countries(
    put: Put, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        put(f"{number}.csv", b"country,x\nDEU,1\nFRA,2\n")
    scans: list[int] = []
    scan = module._scan

    def counted(layout: Any, places: Any, folders: Any) -> pa.Table:
        scans.append(len(places))
        return scan(layout, places, folders)

    monkeypatch.setattr(module, "_scan", counted)
    assert {country: len(rows) for country, rows in read(landing).items()} == {"DEU": 12, "FRA": 12}
    assert scans == [12]


def test_splitting_loses_and_invents_no_row(landing: Path) -> None:
    make = random.Random(3)
    countries = [f"C{make.randrange(60):02}" for _ in range(300_000)]
    table = pa.table({"country": countries, "id": list(range(300_000))})
    write_parquet(landing / "a.parquet", table)
    wanted = {name: name for name in set(countries) if name != "C07"}
    tables = read_by_country(list_files(str(landing)), "country", wanted)
    path = str(landing / "a.parquet")
    counted = duckdb.execute(
        "SELECT country, count(*), sum(id) FROM read_parquet(?) GROUP BY country", [path]
    ).fetchall()
    expected = {name: (rows, int(total)) for name, rows, total in counted if name != "C07"}
    found = {name: (part.num_rows, sum(part["id"].to_pylist())) for name, part in tables.items()}
    assert found == expected
    assert all(part["id"].to_pylist() == sorted(part["id"].to_pylist()) for part in tables.values())


def test_a_file_changed_since_its_listing_stops_the_reading_with_its_name(
    put: Put, landing: Path
) -> None:
    put("good.csv", b"country,x\nDEU,1\n")
    grown = put("grown.csv", b"country,x\nDEU,1\n")
    listed = list_files(str(landing))
    with Path(grown.uri).open("ab") as more:
        more.write(b"DEU,2\n")
    with pytest.raises(SourceError, match=r"grown\.csv: it changed while being read") as caught:
        read_by_country(listed, "country", WANTED)
    assert caught.value.culprits == {"files": ["grown.csv"]}
    assert "Nothing of any file was taken" in str(caught.value)


def test_a_file_that_grows_while_it_is_read_gives_no_rows_at_all(
    put: Put, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put("a.csv", b"country,x\nDEU,1\n")
    scan = module._scan

    def scan_while_growing(layout: Any, places: Any, folders: Any) -> pa.Table:
        with Path(file.uri).open("ab") as more:
            more.write(b"DEU,2\n")
        return scan(layout, places, folders)

    monkeypatch.setattr(module, "_scan", scan_while_growing)
    with pytest.raises(SourceError, match="still growing"):
        read_by_country([file], "country", WANTED)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bad.csv", b"country,x\nDEU,1\nDEU\n"),
        ("bad.csv", b"country,x\nDEU,\xe9\n"),
        ("bad.csv.gz", gzip.compress(b"country,x\nDEU,1\n" * 99, mtime=0)[:-9]),
        ("bad.jsonl", b"{"),
        ("bad.parquet", b"PAR1"),
        ("bad.txt", b"x"),
        ("bad.csv", b"land,x\nDEU,1\n"),
        ("bad.jsonl", b'{"land":1}'),
    ],
)
def test_a_damaged_file_among_good_ones_is_named_and_nothing_is_returned(
    name: str, content: bytes, put: Put, landing: Path
) -> None:
    put("good.csv", b"country,x\nDEU,1\n")
    put(name, content)
    with pytest.raises(SourceError) as caught:
        read(landing)
    assert caught.value.culprits == {"files": [name]}


def test_reading_writes_nothing_into_the_landing_folder_or_the_current_one(
    put: Put, landing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    put("a.csv", b"country,x\nDEU,1\n")
    before = os.stat(landing).st_mtime_ns
    read(landing)
    assert os.stat(landing).st_mtime_ns == before
    assert list(here.iterdir()) == []


def test_a_trailing_delimiter_with_nothing_after_it_is_not_a_field(put: Put, landing: Path) -> None:
    put("a.csv", b"country,x\nDEU,1,\nDEU,2\n")
    assert [row["x"] for row in read(landing)["DEU"]] == ["1", "2"]


def test_many_rows_of_text_between_quotes_are_never_taken_for_records(landing: Path) -> None:
    """A parallel scan may start inside a quoted field that looks like records."""
    field = "\n".join(f"{i},DEU,x" for i in range(60_000))
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(("id", "country", "x"))
    writer.writerows((i, "DEU", field if i % 9 == 0 else "p") for i in range(270))
    (landing / "a.csv").write_text(buffer.getvalue(), newline="")
    rows = read(landing)["DEU"]
    assert [row["id"] for row in rows] == [str(i) for i in range(270)]
    assert {row["x"] for row in rows} == {field.replace("\n", "\n"), "p"}
