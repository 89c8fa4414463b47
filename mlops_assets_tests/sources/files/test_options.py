"""What the YAML says about reading is done, and what it does not say is proposed, never done."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_assets.sources.files.landing import list_files, natural_order
from mlops_assets.sources.files.reading import read_by_country, survey
from mlops_assets.sources.files.rules import Reading
from mlops_assets_tests.effort import examples

ROWS = pd.DataFrame({"country": ["DEU", "FRA", "DEU"], "city": ["Köln", "Orléans", "€"]})


def put(folder: Path, name: str, content: bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def problem(folder: Path, how: Reading | str = "country") -> str:
    (file,) = list_files(str(folder))
    return str(survey(file, how).problem)


def cities(folder: Path, how: Reading) -> list[str]:
    files = list_files(str(folder))
    for file in files:
        found = survey(file, how)
        assert found.problem is None
        assert found.rows_by_country == {"DEU": 2, "FRA": 1}
    table = read_by_country(files, how, {"DEU": "DEU"})["DEU"]
    return table["city"].to_pylist()


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16", "utf-16-le", "cp1250"])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_text_of_a_declared_encoding_is_read_letter_by_letter(
    tmp_path: Path, encoding: str, zipped: bool, kind: str
) -> None:
    rows = ROWS.replace("Orléans", "Orleans") if encoding == "cp1250" else ROWS
    text = rows.to_csv(index=False) if kind == "csv" else rows.to_json(
        orient="records", lines=True, force_ascii=False
    )  # fmt: skip
    content = text.encode(encoding)
    name = f"a.{kind}.gz" if zipped else f"a.{kind}"
    put(tmp_path, name, gzip.compress(content) if zipped else content)
    assert cities(tmp_path, Reading(("country",), encoding)) == ["Köln", "€"]


def test_another_encoding_is_proposed_and_not_guessed(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", ROWS.to_csv(index=False).encode("cp1252"))
    assert "it is not UTF-8: byte 0xf6" in problem(tmp_path)
    assert "set `encoding: cp1252` under `source`" in problem(tmp_path)
    put(tmp_path, "a.csv", ROWS.to_csv(index=False).encode("utf-16"))
    assert "set `encoding: utf-16` under `source`" in problem(tmp_path)


def test_text_that_is_not_of_the_declared_encoding_is_set_aside(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", b"country,city\nDEU,x\n" + b"DEU,\x81\n")
    told = problem(tmp_path, Reading(("country",), "cp1252"))
    assert "it is not CP1252: byte 0x81" in told
    assert "(line 3)" in told


def test_excels_separator_line_is_told_with_the_lines_to_add(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", b"sep=;\n" + ROWS.to_csv(index=False, sep=";").encode())
    told = problem(tmp_path)
    assert "its first line 'sep=;' is none of column names" in told
    assert 'set `skip_rows: 1` and `delimiter: ";"` under `source`' in told
    assert "column_" not in told, "no name that the platform made up"
    said = Reading(("country",), delimiter=";", skip_rows=1)
    assert cities(tmp_path, said) == ["Köln", "€"]


def test_titles_above_the_header_are_told_with_the_lines_to_add(tmp_path: Path) -> None:
    titles = "Cities of the world,\nas of 2025,\n\n"
    put(tmp_path, "a.csv", titles.encode() + ROWS.to_csv(index=False).encode())
    told = problem(tmp_path)
    assert "line 1 is none of column names; line 4 has 'country', 'city'" in told
    assert "set `skip_rows: 3` under `source`" in told
    assert "column_" not in told
    assert cities(tmp_path, Reading(("country",), skip_rows=3)) == ["Köln", "€"]


def test_more_lines_to_skip_than_there_are_is_told(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", b"country,city\n")
    told = problem(tmp_path, Reading(("country",), skip_rows=5))
    assert "it has no line 6" in told


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_column_in_the_name_of_a_folder_is_told_and_taken_when_declared(
    tmp_path: Path, kind: str
) -> None:
    for country, rows in ROWS.groupby("country"):
        plain = rows.drop(columns="country")
        if kind == "parquet":
            buffer = io.BytesIO()
            plain.to_parquet(buffer)
            content = buffer.getvalue()
        elif kind == "csv":
            content = plain.to_csv(index=False).encode()
        else:
            content = plain.to_json(orient="records", lines=True).encode()
        put(tmp_path, f"year=2024/country={country}/part-0.{kind}", content)
    files = list_files(str(tmp_path))
    told = str(survey(files[0], "country").problem)
    assert "stands in the name of its folder ('country=DEU')" in told
    assert "set `folder_columns: [country]` under `source`" in told
    said = Reading(("country",), folders=("country", "year"))
    assert [survey(file, said).rows_by_country for file in files] == [{"DEU": 2}, {"FRA": 1}]
    tables = read_by_country(files, said, {"DEU": "DEU", "FRA": "FRA"})
    assert tables["DEU"].select(["city", "country", "year"]).to_pylist() == [
        {"city": "Köln", "country": "DEU", "year": "2024"},
        {"city": "€", "country": "DEU", "year": "2024"},
    ]
    assert tables["FRA"]["_source_line"].to_pylist() == [1]


def test_a_country_published_under_two_names_is_found_under_each_and_not_under_both(
    tmp_path: Path,
) -> None:
    put(tmp_path, "a.csv", b"Country,x\nDEU,1\n")
    put(tmp_path, "b.csv", b"x,Land\n2,DEU\n")
    put(tmp_path, "c.csv", b"Land,Country\nDEU,FRA\n")
    said = Reading(("Country", "Land"))
    one, other, both = list_files(str(tmp_path))
    rows = read_by_country([one, other], said, {"DEU": "DEU"})["DEU"]
    assert rows["x"].to_pylist() == ["1", "2"]
    assert "more than one column for the country" in str(survey(both, said).problem)


@settings(max_examples=examples(100), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 10**12), min_size=2, max_size=8, unique=True))
def test_numbers_in_names_of_files_count_by_their_value(numbers: list[int]) -> None:
    names = [f"export_{number}.csv" for number in numbers]
    in_order = [f"export_{number}.csv" for number in sorted(numbers)]
    assert sorted(names, key=natural_order) == in_order


def test_names_of_files_of_any_kind_can_be_put_in_order() -> None:
    names = ["b1", "1b", "a/10/x", "a/9/x", "", "b01", "²"]
    assert sorted(names, key=natural_order)[:3] == ["", "1b", "a/9/x"]
