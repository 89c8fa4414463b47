from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_assets.sources.files import reading as files
from mlops_assets.sources.files.reading import SourceFile, Survey, list_files, survey
from mlops_assets_tests.sources.conftest import Put

SurveyOf = Callable[[str, bytes], Survey]


def zipped(content: bytes) -> bytes:
    """Without the time: it would be in names of tests, the same in all processes."""
    return gzip.compress(content, mtime=0)


GOOD = b"country,price\nDEU,1\nFRA,2\nDEU,3\n"


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


TABLE = pa.table({"country": ["DEU", "FRA", "DEU"], "price": [1, 2, 3]})
JSON = b'{"country": "DEU", "price": 1}\n{"country": "FRA"}\n\n{"country": "DEU", "price": 3}\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", GOOD),
        ("a.CSV", GOOD),
        ("a.csv.gz", zipped(GOOD)),
        ("members.csv.gz", zipped(GOOD[:20]) + zipped(GOOD[20:])),
        ("bom.csv", b"\xef\xbb\xbf" + GOOD),
        ("windows.csv", GOOD.replace(b"\n", b"\r\n")),
        ("mac.csv", GOOD.replace(b"\n", b"\r")),
        ("no_last_line_end.csv", GOOD[:-1]),
        ("blank_lines.csv", GOOD.replace(b"FRA", b"\nFRA")),
        ("semicolon.csv", GOOD.replace(b",", b";")),
        ("tab.csv", GOOD.replace(b",", b"\t")),
        ("pipe.csv", GOOD.replace(b",", b"|")),
        ("a.jsonl", JSON),
        ("a.ndjson", JSON.replace(b"\n", b"\r\n")),
        ("a.jsonl.gz", zipped(JSON)),
        ("a.ndjson.gz", zipped(JSON)),
        ("a.parquet", parquet(TABLE)),
    ],
)
def test_every_format_tells_its_columns_and_its_rows_by_country(
    name: str, content: bytes, survey_of: SurveyOf
) -> None:
    found = survey_of(name, content)
    assert found.problem is None
    assert found.columns == ("country", "price")
    assert (found.rows, found.rows_by_country) == (3, {"DEU": 2, "FRA": 1})


@pytest.mark.parametrize(
    "name",
    ["we ird's \"q\" ü.csv", "p%20x.csv", "g*lob?.csv", "br[1].csv", "back\\slash.csv",
     "{a,b}.csv", "co:lon.csv", "$HOME.csv", "~x.csv", "#h.csv", "k=v/a.csv", "o[1]*/a.csv"],
)  # fmt: skip
def test_odd_file_names_are_read_as_exactly_that_file(
    name: str, put: Put, survey_of: SurveyOf
) -> None:
    for neighbour in ("gXlobY.csv", "br1.csv", "back\\slaXsh.csv", "o1X/a.csv", "p x.csv"):
        put(neighbour, b"country,price\nXXX,1\n")
    assert survey_of(name, GOOD).rows_by_country == {"DEU": 2, "FRA": 1}


def test_a_name_that_could_be_misread_as_another_is_set_aside(survey_of: SurveyOf) -> None:
    problem = str(survey_of("back\\sla*sh.csv", GOOD).problem)
    assert "both a backslash and one of * ? [" in problem
    assert "Rename it." in problem


def test_a_landing_folder_with_wildcards_in_its_own_name_is_read(tmp_path: Path) -> None:
    for folder in ("l[1]*", "l1X"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.csv").write_bytes(GOOD if "*" in folder else b"country\nXXX\n")
    (file,) = list_files(str(tmp_path / "l[1]*"))
    assert survey(file, "country").rows_by_country == {"DEU": 2, "FRA": 1}


DAMAGED = {
    "latin1.csv": (
        "country,town\nDEU,Köln\n".encode("latin-1"),
        "not UTF-8: byte 0xf6 at offset 18 (line 2) is not valid, as in Latin-1",
        "Save it as UTF-8",
    ),
    "latin1.csv.gz": (
        zipped("country,town\nDEU,Köln\n".encode("cp1252")),
        "byte 0xf6 at offset 18 (line 2)",
        "Save it as UTF-8",
    ),
    "latin1.jsonl": ('{"country":"é"}\n'.encode("latin-1"), "not UTF-8", "Save it as UTF-8"),
    "utf16.csv": ("country\nDEU\n".encode("utf-16"), "UTF-16", "Save it as UTF-8"),
    "utf16_bare.csv": ("country\nDEU\n".encode("utf-16-le"), "NUL byte", "save it as UTF-8"),
    "half_character.csv": (b"country\n\xc3", "middle of a UTF-8 character", "again"),
    "nul.csv": (b"country,x\nDEU,1\nFRA,\x002\n", "NUL byte at offset 20 (line 3)", "again"),
    "short.csv": (b"country,x\nDEU,1\nFRA\n", "line 3 has 1 fields where the header has 2", ""),
    "long.csv": (b"country,x\nDEU,1,2\n", "line 2 has 3 fields where the header has 2", "Quote"),
    "unclosed.csv": (b'country,x\nDEU,"1\nFRA,2\n', "quote that is not closed", "Close the"),
    "unclosed_header.csv": (b'country,"x\nDEU,1\n', "header cannot be read", "again"),
    "after_quote.csv": (b'country,x\nDEU,"1"2\n', "text after the closing one", "Close the"),
    "mixed_ends.csv": (b"country,x\r\nDEU,1\nFRA,2\r\n", "line ends", "one kind of line ends"),
    "huge_field.csv": (
        b'country,x\nDEU,"' + b"y\n" * 2_000_000 + b'"\n',
        "longer than 2 MB",
        "shorten the field",
    ),
    "cut.csv.gz": (zipped(GOOD * 1000)[:-20], "cut off or damaged", "download it again"),
    "not_gzip.csv.gz": (GOOD, "cut off or damaged", "download it again"),
    "gzip.csv": (zipped(GOOD), "gzip-compressed, not what its ending says", "Save it"),
    "excel.csv": (b"PK\x03\x04" + b"\0" * 30, "Excel or ZIP", "format its ending says"),
    "cut.parquet": (parquet(TABLE)[:-10], "Parquet footer cannot be read", "again"),
    "text.parquet": (GOOD, "Parquet footer cannot be read", "again"),
    "empty.csv": (b"", "it is empty", "again"),
    "empty.csv.gz": (zipped(b""), "it is empty", "again"),
    "empty.jsonl": (b"", "it is empty", "again"),
    "empty.parquet": (b"", "Parquet footer cannot be read", "again"),
    "blank.jsonl": (b"\n\n", "no records", "again"),
    "list.xlsx": (b"x", ".csv, .csv.gz, .jsonl", "Convert it"),
    "no_ending": (b"country\nDEU\n", "ending is none of the formats taken", "Convert it"),
    "error.csv": (b"\n<!DOCTYPE html><html>404</html>", "HTML", "download it again"),
    "twice.csv": (b"country,x,x\nDEU,1,2\n", "more than one column 'x'", "Name each"),
    "twice.jsonl": (b'{"country":"DEU","x":1,"x":2}\n', "more than one column 'x'", "Name each"),
    "ours.csv": (b"country,_source_line\nDEU,1\n", "column '_source_line'", "Rename"),
    "other.csv": (
        b"Country ,price\nDEU,1\n",
        "no country column 'country'; its columns are 'Country ', 'price'",
        "Did you mean 'Country '? Rename the column, or set `source.columns`",
    ),
    "other.parquet": (parquet(pa.table({"land": ["x"]})), "its columns are 'land'", "Rename"),
    "other.jsonl": (b'{"land":"DEU"}\n', "its columns are 'land'", "Rename"),
    "leading_blank.csv": (b"\ncountry,x\nDEU,1\n", "starts with an empty line", "header"),
    "bad.jsonl": (b'{"country":"DEU"}\n{"country":\n', "Malformed JSON", "again"),
    "cut.jsonl": (JSON[:-8], "Malformed JSON", "again"),
    "list.jsonl": (b'{"country":"DEU"}\n[1]\n', "record 2 is not an object (array)", "one JSON"),
    "bom.jsonl": (b"\xef\xbb\xbf" + JSON, "byte order mark", "without one"),
    "nested.parquet": (parquet(pa.table({"country": [["DEU"]]})), "lists or structs", "text"),
    "wide.parquet": (
        parquet(pa.table({"country": ["D"], "x": pa.array([Decimal(1)], pa.decimal256(50, 2))})),
        "more than 38 digits",
        "as text",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_set_aside_whole_with_its_name_the_rule_and_the_way_out(
    name: str, survey_of: SurveyOf
) -> None:
    content, rule, way_out = DAMAGED[name]
    found = survey_of(name, content)
    assert found.problem is not None
    assert found.problem.startswith(f"{name}: ")
    assert rule in found.problem
    assert way_out in found.problem
    assert "Nothing of it was taken." in found.problem
    assert (found.rows, found.rows_by_country) == (0, {})


def test_a_byte_that_is_not_utf8_is_located_beyond_the_first_chunk(survey_of: SurveyOf) -> None:
    lines = 300_000
    content = b"country,x\n" + b"DEU,yyy\n" * lines + b"DEU,\xe9\n"
    problem = str(survey_of("a.csv", content).problem)
    assert f"byte 0xe9 at offset {content.index(0xE9)} (line {lines + 2})" in problem


def test_a_damaged_page_inside_a_parquet_file_shows_in_the_survey(survey_of: SurveyOf) -> None:
    numbers = [str(hash(i)) for i in range(50_000)]
    content = bytearray(parquet(pa.table({"country": ["DEU"] * 50_000, "x": numbers})))
    middle = len(content) // 2
    content[middle : middle + 200] = b"\xff" * 200
    assert survey_of("a.parquet", bytes(content)).problem is not None


def test_a_header_without_records_is_readable_and_has_no_rows(survey_of: SurveyOf) -> None:
    for name, content in {
        "a.csv": b"country,price\n",
        "b.csv": b"country,price",
        "c.parquet": parquet(TABLE.slice(0, 0)),
    }.items():
        found = survey_of(name, content)
        assert (found.problem, found.rows, found.rows_by_country) == (None, 0, {})
        assert found.columns == ("country", "price")


def test_a_folder_named_like_a_file_is_set_aside(landing: Path) -> None:
    (landing / "x.csv").mkdir()
    assert list_files(str(landing)) == []
    folder = SourceFile(str(landing / "x.csv"), "x.csv", "0" * 32, 4096, None)
    assert "not a regular file" in str(survey(folder, "country").problem)


def test_a_file_taken_away_meanwhile_is_set_aside(put: Put) -> None:
    file = put("a.csv", GOOD)
    Path(file.uri).unlink()
    assert "it is gone" in str(survey(file, "country").problem)


def test_a_file_that_grew_since_it_was_listed_is_left_for_next_time(put: Put) -> None:
    file = put("a.csv", GOOD)
    with Path(file.uri).open("ab") as more:
        more.write(b"FRA,4\n")
    problem = str(survey(file, "country").problem)
    assert "still growing" in problem
    assert "It will be taken next time" in problem


def test_a_change_that_keeps_size_and_time_is_seen_by_the_hash(put: Put) -> None:
    file = put("a.csv", GOOD)
    before = os.stat(file.uri)
    Path(file.uri).write_bytes(GOOD.replace(b"FRA", b"ITA"))
    os.utime(file.uri, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "still growing" in str(survey(file, "country").problem)


def test_a_file_that_grows_while_it_is_counted_is_left_for_next_time(
    put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put("a.csv", GOOD)
    count = files._count

    def count_while_growing(*args: object) -> dict[str, int]:
        with Path(file.uri).open("ab") as more:
            more.write(b"FRA,4\n")
        return count(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "_count", count_while_growing)
    assert "still growing" in str(survey(file, "country").problem)


def test_country_values_are_stripped_and_keep_their_case(survey_of: SurveyOf) -> None:
    content = 'country,x\n DEU ,1\ndeu,2\n\u00a0DEU\t,3\n,4\n  ,5\n"",6\n'.encode()
    assert survey_of("a.csv", content).rows_by_country == {"": 3, "DEU": 2, "deu": 1}


@pytest.mark.parametrize(
    "codes",
    [
        pa.array([276, 250, 276, None], pa.int16()),
        pa.array([276.0, 250.0, 276.0, None]),
        pa.array([276.0, 250.0, 276.0, float("nan")]),
        pa.array([b"276", b"250", b" 276", b""]),
        pa.array(["276", "250", "276", " "]).dictionary_encode(),
    ],
)
def test_numeric_country_codes_are_accepted_as_text(codes: pa.Array, survey_of: SurveyOf) -> None:
    found = survey_of("a.parquet", parquet(pa.table({"country": codes})))
    assert found.rows_by_country == {"": 1, "250": 1, "276": 2}


def test_numeric_country_codes_of_json_lines_are_accepted_as_text(survey_of: SurveyOf) -> None:
    content = b'{"country":276}\n{"country":"276"}\n{"country":null}\n{"x":1}\n'
    assert survey_of("a.jsonl", content).rows_by_country == {"": 2, "276": 2}


def test_the_delimiter_is_the_one_under_which_the_country_is_found(survey_of: SurveyOf) -> None:
    content = b'country;"price, EUR";note|tab\nDEU;"1,5";a|b\nFRA;2,5;c\n'
    found = survey_of("a.csv", content)
    assert found.columns == ("country", "price, EUR", "note|tab")
    assert found.rows_by_country == {"DEU": 1, "FRA": 1}


def test_one_column_alone_is_a_csv_file_too(survey_of: SurveyOf) -> None:
    assert survey_of("a.csv", b"country\nDEU\nFRA\n").rows_by_country == {"DEU": 1, "FRA": 1}


def test_columns_without_a_name_are_called_by_their_position(survey_of: SurveyOf) -> None:
    assert survey_of("a.csv", b",country,\n0,DEU,\n").columns == (
        "column_1",
        "country",
        "column_3",
    )


def test_a_survey_writes_nothing_into_the_landing_folder(put: Put, landing: Path) -> None:
    file = put("a.csv.gz", zipped(GOOD))
    landing.chmod(0o555)
    before = os.stat(landing).st_mtime_ns
    survey(file, "country")
    assert os.stat(landing).st_mtime_ns == before
    assert [path.name for path in landing.iterdir()] == ["a.csv.gz"]
    landing.chmod(0o755)
