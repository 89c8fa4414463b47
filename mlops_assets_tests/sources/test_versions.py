"""Versions of files against a plain account of who delivered what, row by row."""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.sources.union import INGESTED, REPLACED, SOURCE_COLUMNS, TECHNICAL_COLUMNS
from mlops_assets.sources.versions import append_rows, merge_version, move_rows, rows_as_of
from mlops_assets_tests.effort import examples

START = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)
FILES = ("a.csv", "b.csv", "c.csv")
NAN = math.nan
KINDS: Mapping[str, tuple[pa.DataType, Sequence[Any]]] = {
    "text": (pa.string(), (None, "", "x", "1", "1.5", "true", "nan")),
    "whole": (pa.int64(), (None, 0, 1, 2)),
    "small": (pa.int32(), (None, 0, 1)),
    "number": (pa.float64(), (None, NAN, 0.0, 1.0, 1.5)),
    "flag": (pa.bool_(), (None, True, False)),
    "nothing": (pa.null(), (None,)),
}
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Version:
    """All rows of a file, and the type of each of its columns."""

    kinds: Mapping[str, str]
    rows: tuple[Values, ...]

    def table(self, name: str) -> pa.Table:
        columns = {
            column: pa.array([row[column] for row in self.rows], KINDS[kind][0])
            for column, kind in self.kinds.items()
        }
        lines = range(1, len(self.rows) + 1)
        where = [[name] * len(self.rows), [f"hash of {name}"] * len(self.rows), lines]
        types = (pa.string(), pa.string(), pa.int64())
        source = [pa.array(values, kind) for values, kind in zip(where, types, strict=True)]
        return pa.table(columns | dict(zip(SOURCE_COLUMNS, source, strict=True)))


@dataclass
class Row:
    """A row that was delivered: of which file, since when, until when."""

    file: str
    values: Values
    since: dt.datetime
    until: dt.datetime | None = None


@dataclass
class Account:
    """Who delivered what, kept in plain lists."""

    full: bool = False
    kinds: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    moments: dict[dt.datetime, list[tuple[Row, dt.datetime | None]]] = field(default_factory=dict)

    def standing(self, name: str | None = None) -> list[Row]:
        return [r for r in self.rows if r.until is None and name in (None, r.file)]

    def take(self, name: str, version: Version, at: dt.datetime) -> tuple[int, int, int]:
        """Take a version; how many rows were appended, replaced and kept."""
        for column, kind in version.kinds.items():
            self.kinds[column] = _common(self.kinds.get(column, "nothing"), kind)
        wanted = Counter(self.key(row) for row in version.rows)
        before = self.standing(None if self.full else name)
        for row in before:
            if wanted[self.key(row.values)]:
                wanted[self.key(row.values)] -= 1
            else:
                row.until = at
        replaced = sum(row.until is not None for row in before)
        new: list[Row] = []
        for values in reversed(version.rows):  # of equal rows the first ones were there before
            if wanted[self.key(values)]:
                wanted[self.key(values)] -= 1
                new.append(Row(name, values, at))
        self.rows += reversed(new)
        self.note(at)
        return len(new), replaced, len(before) - replaced

    def note(self, at: dt.datetime) -> None:
        """Remember what there is."""
        self.moments[at] = [(row, row.until) for row in self.rows]

    def move(self, moves: Mapping[str, str]) -> None:
        for row in self.standing():
            row.file = moves.get(row.file, row.file)

    def key(self, values: Values) -> tuple[object, ...]:
        """The values as one text and the other of them are compared."""
        return tuple(
            _plain(values.get(column), self.kinds[column]) for column in sorted(self.kinds)
        )

    def told(self, rows: Iterable[tuple[Row, dt.datetime | None]]) -> Counter[object]:
        return Counter((row.file, self.key(row.values), row.since, until) for row, until in rows)


def _common(one: str, other: str) -> str:
    if "nothing" in (one, other) or one == other:
        return other if one == "nothing" else one
    return "whole" if {one, other} == {"whole", "small"} else "text"


def _plain(value: object, kind: str) -> object:
    if kind == "text" and value is not None and not isinstance(value, str):
        if isinstance(value, bool):
            return str(value).lower()
        return f"{value:g}"
    return "not a number" if isinstance(value, float) and math.isnan(value) else value


def told_by(table: pa.Table, account: Account) -> Counter[object]:
    """The rows of a table as the account tells them."""
    return Counter(
        (row["_source_file"], account.key(row), row[INGESTED], row.get(REPLACED))
        for row in table.to_pylist()
    )


@st.composite
def versions(draw: st.DrawFn) -> Version:
    """A file with any of a few columns, of any type, and a few rows, often the same ones."""
    columns = draw(st.lists(st.sampled_from("xyz"), min_size=1, max_size=3, unique=True))
    kinds = {column: draw(st.sampled_from(sorted(KINDS))) for column in columns}
    values = {column: st.sampled_from(KINDS[kind][1]) for column, kind in kinds.items()}
    rows = draw(st.lists(st.fixed_dictionaries(values), max_size=6))
    return Version(kinds, tuple(rows))


@st.composite
def grown(draw: st.DrawFn, version: Version) -> Version:
    """The same file once more: a few rows dropped, said again, or in another order."""
    rows = draw(st.permutations(version.rows))
    again = draw(st.lists(st.sampled_from(rows), max_size=3)) if rows else []
    return replace(version, rows=(*rows[draw(st.integers(0, 2)) :], *again))


@st.composite
def happenings(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """Files that are delivered and, now and then, change their names."""
    newest: dict[str, Version] = {}
    found: list[tuple[str, Any]] = []
    for _ in range(draw(st.integers(1, 7))):
        if newest and draw(st.integers(0, 5)) == 0:
            order = draw(st.sampled_from(list(permutations(FILES))))
            found.append(("move", dict(zip(FILES, order, strict=True))))
            continue
        name = draw(st.sampled_from(FILES))
        held = newest.get(name)
        newest[name] = draw(grown(held) if held and draw(st.booleans()) else versions())
        found.append((name, newest[name]))
    return found


@settings(max_examples=examples(100), deadline=None)
@given(happenings(), st.booleans())
def test_what_stands_is_the_newest_version_of_each_file_and_nothing_delivered_is_lost(
    happened: list[tuple[str, Any]], full: bool
) -> None:
    table, account, at = None, Account(full), START
    for name, what in happened:
        at += MINUTE
        if name != "move":
            replaces = None if full else name
            merged = merge_version(table, what.table(name), replaces, at)
            counts = (merged.appended, merged.replaced, merged.kept)
            assert counts == account.take(name, what, at)
            table = merged.table
            stands = Counter(account.key(row.values) for row in account.standing(replaces))
            assert stands == Counter(account.key(row) for row in what.rows)
        elif table is not None and not full:
            account.move(what)
            table = move_rows(table, what)
    if table is None:
        return
    assert set(table.column_names) == {*account.kinds, *TECHNICAL_COLUMNS}
    assert told_by(table, account) == account.told((row, row.until) for row in account.rows)
    times = table[INGESTED].to_pylist()
    assert times == sorted(times)
    _require_every_moment(table, account)


def _require_every_moment(table: pa.Table, account: Account) -> None:
    first = min(account.moments)
    expected = account.moments[first]
    before = rows_as_of(table, first - MINUTE * 1000, first)
    assert told_by(before, account) == account.told((row, None) for row, _ in expected)
    for at, then in account.moments.items():
        for moment in (at, at + MINUTE / 2):
            assert told_by(rows_as_of(table, moment, first), account) == account.told(then)


def version(*values: Any, kind: str = "whole", **more: Any) -> Version:
    rows = tuple({"x": value} | dict(more) for value in values)
    return Version({"x": kind} | dict.fromkeys(more, "text"), rows)


def merged(old: Version, new: Version) -> tuple[int, int, int]:
    """Rows appended, replaced and kept by a new version of a file."""
    held = merge_version(None, old.table("a.csv"), "a.csv", START).table
    found = merge_version(held, new.table("a.csv"), "a.csv", START + MINUTE)
    return found.appended, found.replaced, found.kept


@pytest.mark.parametrize(
    ("old", "new", "appended_replaced_kept"),
    [
        (version(1, 2), version(1, 2, 3), (1, 0, 2)),
        (version(1, 2), version(2, 1), (0, 0, 2)),
        (version(1, 2), version(), (0, 2, 0)),
        (version(), version(1), (1, 0, 0)),
        (version(), version(), (0, 0, 0)),
        (version(1, 1), version(1, 1, 1), (1, 0, 2)),
        (version(1, 1, 1), version(1), (0, 2, 1)),
        (version(None, 1), version(None, 1), (0, 0, 2)),
        (version(NAN, None, kind="number"), version(None, NAN, kind="number"), (0, 0, 2)),
        (version(NAN, kind="number"), version(None, kind="number"), (1, 1, 0)),
        (version(1, 2), version("1", "2", kind="text"), (0, 0, 2)),
        (version(1, 2), version("1", "2.0", kind="text"), (1, 1, 1)),
        (version(1, 2), version(1, 2, kind="small"), (0, 0, 2)),
        (version(1, 2), version(1, 2, more="y"), (2, 2, 0)),
        (version(1, 2), version(1, 2, more=None), (0, 0, 2)),
        (version(1, 2, more="y"), version(1, 2), (2, 2, 0)),
        (version(None, None), version(1, None), (1, 1, 1)),
        (version(None, kind="nothing"), version(1), (1, 1, 0)),
    ],
)
def test_a_new_version_costs_the_rows_that_differ_and_takes_away_those_it_lacks(
    old: Version, new: Version, appended_replaced_kept: tuple[int, int, int]
) -> None:
    assert merged(old, new) == appended_replaced_kept


TYPES = {
    "nanoseconds": pa.array([1, 2, None], pa.duration("ns")),
    "longer than 290,000 years": pa.array([1, 10**13, None], pa.duration("s")),
    "instants to the nanosecond": pa.array([1, 2, None], pa.timestamp("ns", "UTC")),
    "times to the nanosecond": pa.array([1, 2, None], pa.timestamp("ns")),
    "days": pa.array([1, 2, None], pa.date32()),
    "decimals": pa.array([1, 2, None], pa.decimal128(38, 5)),
    "lists": pa.array([[1], [None], None]),
    "records": pa.array([{"a": 1}, {"a": None}, None]),
    "bytes": pa.array([b"\xff", b"", None]),
    "categories": pa.array(["x", "y", None]).dictionary_encode(),
    "beyond a signed number": pa.array([1, 2**64 - 1, None], pa.uint64()),
}


@pytest.mark.parametrize("name", TYPES)
def test_values_of_every_type_are_told_apart_and_found_again(name: str) -> None:
    values = TYPES[name]
    held = merge_version(None, _of_one_column(values), "a.csv", START).table
    turned = _of_one_column(values.take(pa.array([2, 1, 0])))
    again = merge_version(held, turned, "a.csv", START + MINUTE)
    assert (again.appended, again.replaced, again.kept) == (0, 0, 3)
    twice = _of_one_column(values.take(pa.array([0, 0, 2])))
    other = merge_version(held, twice, "a.csv", START + MINUTE)
    assert (other.appended, other.replaced, other.kept) == (1, 1, 2)


def _of_one_column(values: pa.Array) -> pa.Table:
    where = {"_source_file": ["a.csv"] * 3, "_source_hash": ["h"] * 3, "_source_line": [1, 2, 3]}
    return pa.table({"value": values} | where)


def test_files_that_were_never_there_are_appended_as_a_version_of_each_would_be() -> None:
    one, two = version(1, 2), version("x", kind="text", more="y")
    held = append_rows(None, one.table("a.csv"), START)
    appended = append_rows(held, two.table("b.csv"), START + MINUTE)
    by_version = merge_version(held, two.table("b.csv"), "b.csv", START + MINUTE)
    assert appended.equals(by_version.table)
    assert held.equals(merge_version(None, one.table("a.csv"), "a.csv", START).table)


def test_two_files_that_changed_places_are_told_apart_and_what_was_replaced_keeps_its_name() -> (
    None
):
    held = append_rows(None, version(1, 2).table("a.csv"), START)
    held = append_rows(held, version(3).table("b.csv"), START)
    held = merge_version(held, version(1).table("a.csv"), "a.csv", START + MINUTE).table
    moved = move_rows(held, {"a.csv": "b.csv", "b.csv": "a.csv"})
    assert moved["_source_file"].to_pylist() == ["b.csv", "a.csv", "a.csv"]
    assert moved.drop_columns("_source_file").equals(held.drop_columns("_source_file"))
