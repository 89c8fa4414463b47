"""Watermarks ahead of the pull that reads them: no row is lost for one, none landed twice."""

from __future__ import annotations

import datetime as dt
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.sources.files.landing import list_files
from mlops_assets.sources.pulled import increments
from mlops_assets.sources.pulled.ahead import (
    TOLERANCE,
    is_ahead,
    latest_untold,
    latest_watermark,
)
from mlops_assets.sources.pulled.spool import METADATA
from mlops_assets_tests.effort import examples
from mlops_assets_tests.sources.pulled.test_increments import Row, Table

NOW = dt.datetime(2024, 6, 1, 12, tzinfo=dt.UTC)
OPEN_END = "9999-12-31T00:00:00"


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    made = Table(tmp_path)
    yield made
    made.connection.close()


def at(days: float) -> str:
    """The watermark of so many days after now."""
    return (NOW + dt.timedelta(days=days)).replace(tzinfo=None).isoformat()


def clock(patch: pytest.MonkeyPatch, days: float = 0) -> None:
    """Pulls are made so many days after now."""
    latest = NOW + dt.timedelta(days=days)
    patch.setattr(increments, "latest_watermark", lambda: latest)


def test_rows_keep_coming_after_one_without_an_end(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch)
    table.insert((at(-2), "DEU", 1), (OPEN_END, "DEU", 2), (at(-1), "DEU", 3))
    first = table.pull()
    assert (first.rows, first.watermark, first.ahead) == (3, at(-1), 1)
    assert table.pull().rows == 0
    table.insert((at(0), "DEU", 4))
    second = table.pull()
    assert (second.rows, second.watermark, second.ahead) == (1, at(0), 0)
    assert table.pull().rows == 0
    assert sorted(row[2] for row in table.landed()) == [1, 2, 3, 4]


def test_rows_of_now_are_landed_beside_those_of_tomorrow_which_nobody_is_told_of(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch)
    table.insert((at(-5 / 24), "DEU", 1), (at(40 / 24), "DEU", 2))
    first = table.pull()
    assert (first.rows, first.watermark, first.ahead) == (2, at(-5 / 24), 0)
    table.insert((at(0), "DEU", 3))
    second = table.pull()
    assert (second.rows, second.watermark, second.ahead) == (1, at(0), 0)
    clock(monkeypatch, days=2)
    table.insert((at(1), "DEU", 4), (at(2), "DEU", 5))
    third = table.pull()
    assert (third.rows, third.watermark) == (2, at(2))
    assert table.pull().rows == 0
    assert sorted(row[2] for row in table.landed()) == [1, 2, 3, 4, 5]


def test_a_series_that_begins_with_rows_ahead_goes_on(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch)
    table.insert((OPEN_END, "DEU", 1))
    assert (table.pull().watermark, table.pull().rows) == (None, 0)
    table.insert((OPEN_END, "DEU", 1), (at(-1), "DEU", 2))
    assert table.pull().rows == 2
    assert table.pull().rows == 0
    assert Counter(table.landed()) == {(OPEN_END, "DEU", 1): 2, (at(-1), "DEU", 2): 1}


def test_a_series_that_stood_at_a_watermark_without_an_end_goes_on(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an earlier release left it: the file says it goes up to the year 9999."""
    _without_a_clock(monkeypatch)
    table.insert((at(-2), "DEU", 1))
    table.pull()
    table.insert((at(-1), "DEU", 2), (OPEN_END, "DEU", 3))
    table.pull()
    _forget_what_is_ahead(table)
    clock(monkeypatch)
    table.insert((at(0), "DEU", 4), (at(-1), "DEU", 2))
    told = table.pull()
    assert (told.rows, told.watermark) == (2, at(0))
    assert table.pull().rows == 0
    assert Counter(row[2] for row in table.landed()) == {1: 1, 2: 2, 3: 1, 4: 1}


def test_a_file_with_rows_ahead_alone_of_an_earlier_release_leaves_the_one_before(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_a_clock(monkeypatch)
    for rows in ([(at(-1), "DEU", 1)], [(OPEN_END, "DEU", 2)], [(OPEN_END, "DEU", 3)]):
        table.insert(*rows)
        table.pull()
    _forget_what_is_ahead(table)
    clock(monkeypatch)
    assert table.pull().watermark == at(-1)
    table.insert((at(0), "DEU", 4), (at(-1), "DEU", 5))
    assert table.pull().rows == 2
    assert sorted(row[2] for row in table.landed()) == [1, 2, 3, 4, 5]


def _without_a_clock(patch: pytest.MonkeyPatch) -> None:
    """Pulls take every watermark for one, as an earlier release did."""
    patch.setattr(increments, "latest_watermark", lambda: dt.datetime.max.replace(tzinfo=dt.UTC))


def _forget_what_is_ahead(table: Table) -> None:
    for file in list_files(str(table.landing)):
        rows = pq.read_table(file.uri)
        noted = json.loads(rows.schema.metadata[METADATA])
        noted.pop("ahead")
        pq.write_table(rows.replace_schema_metadata({METADATA: json.dumps(noted)}), file.uri)


STEP = st.one_of(
    st.just("pull"),
    st.integers(0, 6),  # days that pass
    st.lists(
        st.tuples(st.sampled_from([0, 0, 1, 5, 10**6]), st.integers(0, 1)),
        min_size=1,
        max_size=3,
    ),
)


@given(st.lists(STEP, max_size=10), st.sampled_from(["text", "date", "number"]))
@settings(max_examples=examples(40), deadline=None)
def test_rows_at_any_time_ahead_are_landed_exactly_once(steps: list[Any], kind: str) -> None:
    """A row is written at the time of its day, or some days ahead of it."""
    write: Callable[[int], Any] = {
        "text": lambda day: OPEN_END if day > 10**5 else at(day),
        "date": lambda day: "9999-12-31" if day > 10**5 else at(day)[:10],
        "number": lambda day: 10**9 if day > 10**5 else day,
    }[kind]
    today, last = 0, -1
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        table, inserted = Table(Path(folder)), list[Row]()
        for step in [*steps, "pull", 9, "pull"]:
            if isinstance(step, int):
                today += step
            elif isinstance(step, list):
                if kind == "number" and any(ahead for ahead, _ in step):
                    continue  # whether a number is a time nobody can tell
                # Rows that come later are as new or newer, but for those ahead.
                rows = [(write(max(today, last) + ahead), "DEU", x) for ahead, x in step]
                table.insert(*rows)
                inserted += rows
            else:
                clock(patch, days=today)
                table.pull()
                last = today
        assert Counter(table.landed()) == Counter(inserted)
        files = list_files(str(table.landing))
        assert len({file.content_hash for file in files}) == len(files)
        table.connection.close()


LATEST = latest_untold(NOW)


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        (pa.timestamp("us"), dt.datetime(2024, 6, 3, 12), dt.datetime(2024, 6, 3, 12, 0, 1)),
        (
            pa.timestamp("ns", tz="Europe/Berlin"),
            dt.datetime(2024, 6, 3, 12, tzinfo=dt.UTC),
            dt.datetime(2024, 6, 3, 12, 0, 1, tzinfo=dt.UTC),
        ),
        (pa.date32(), dt.date(2024, 6, 3), dt.date(2024, 6, 4)),
        (pa.string(), "2024-06-03T12:00:00Z", "2024-06-03T14:00:01+01:00"),
        (pa.large_string(), "2024-06-03", "9999-12-31"),
    ],
)
def test_a_watermark_is_told_from_the_tolerance_on(kind: Any, before: Any, after: Any) -> None:
    assert LATEST - NOW == TOLERANCE
    assert is_ahead(pa.array([before, None], kind), LATEST) is None
    found = is_ahead(pa.chunked_array([pa.array([before, after, None], kind)]), LATEST)
    assert found is not None
    assert found.to_pylist() == [False, True, False]


@pytest.mark.parametrize("values", [[1, 99991231], [1.5, 1e300], ["b", "zzz", "10000-01-01"], []])
def test_what_is_no_time_is_never_ahead(values: list[Any]) -> None:
    assert is_ahead(pa.array(values, None if values else pa.string()), LATEST) is None


def test_the_clock_is_that_of_the_machine() -> None:
    now = dt.datetime.now(dt.UTC)
    assert dt.timedelta(0) <= latest_watermark() - now < dt.timedelta(minutes=5)
