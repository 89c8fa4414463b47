from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mlops_assets.sources.files.reading import list_files, read_by_country, survey

DATA = Path(__file__).parents[4] / "shared" / "data"

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(
        not DATA.is_dir() and os.environ.get("CI") != "true",
        reason="the real files are not beside the project",
    ),
]


@pytest.mark.parametrize(
    ("name", "country_column", "countries", "rows", "without_country"),
    [
        ("european_wholesale_electricity_price_daily.parquet", "ISO3 Code", 31, 117_290, 0),
        ("hotel_bookings.parquet", "country", 177, 119_390, 488),
    ],
)
def test_real_deliveries_are_read_whole_and_as_published(
    name: str, country_column: str, countries: int, rows: int, without_country: int
) -> None:
    (file,) = [file for file in list_files(str(DATA)) if file.name == name]
    found = survey(file, country_column)
    assert (found.problem, found.rows) == (None, rows)
    assert found.rows_by_country.get("", 0) == without_country
    assert len(set(found.rows_by_country) - {""}) == countries
    tables = read_by_country([file], country_column, {key: key for key in found.rows_by_country})
    assert {key: part.num_rows for key, part in tables.items()} == found.rows_by_country
    original = pq.read_table(file.uri)
    for part in (tables[key] for key in list(tables)[:3]):
        positions = [line - 1 for line in part["_source_line"].to_pylist()]
        expected = original.take(positions).to_pylist()
        assert part.select(original.column_names).to_pylist() == expected
