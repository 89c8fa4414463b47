"""Versions of a delivered file, row by row: what a new version leaves, adds and takes away.

Rows are kept for ever. `_ingested_at` says from when a row stands, `_replaced_at` until when; it is
null while the row stands. A version that repeats a row as it was adds nothing, so that a file that
is published again and again with a few more lines costs just these lines.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from mlops_assets.sources.union import (
    INGESTED,
    REPLACED,
    TECHNICAL_COLUMNS,
    common_schema,
    conform,
)

pc: Any = pyarrow.compute  # made at import time, so no type checker sees its functions

_MOMENT = pa.timestamp("us", tz="UTC")
_FILE = "_source_file"


@dataclass(frozen=True)
class Merged:
    """All rows after a version was taken.

    Attributes:
        table: every row ever delivered, in order of ingestion.
        appended: rows of the version that are new or other than before.
        replaced: rows that stood before and are not in it.
        kept: rows of the version that stood before as they are.
    """

    table: pa.Table
    appended: int
    replaced: int
    kept: int


def merge_version(
    held: pa.Table | None, new: pa.Table, name: str | None, at: dt.datetime
) -> Merged:
    """Take a version of a file.

    Args:
        held: every row so far, with the technical columns; None for none.
        new: all rows of the version, in published form with `_source_file`, `_source_hash` and
            `_source_line`; may have no rows.
        name: of the file whose standing rows the version replaces; None: those of every file.
        at: time of ingestion, aware.
    """
    if held is None:
        return Merged(_stamped(new, at), len(new), 0, 0)
    rows, stamped = _alike(held, _stamped(new, at))
    standing = np.flatnonzero(_stands(rows, name))
    old_kept, new_kept = _in_both(rows.take(pa.array(standing)), stamped)
    gone = np.delete(standing, old_kept)
    added = stamped.filter(pa.array(_without(len(stamped), new_kept)))
    marked = _with_replaced(rows, gone, at) if len(gone) else rows
    table = pa.concat_tables([marked, added]) if len(added) else marked
    return Merged(table, len(added), len(gone), len(new_kept))


def append_rows(held: pa.Table | None, new: pa.Table, at: dt.datetime) -> pa.Table:
    """All rows after files were taken of which no version was there before."""
    if held is None:
        return _stamped(new, at)
    return pa.concat_tables(_alike(held, _stamped(new, at)))


def move_rows(held: pa.Table, moves: Mapping[str, str]) -> pa.Table:
    """The rows with those that stand under the names their contents were moved to.

    Args:
        held: every row so far.
        moves: name of a file: the one its content has now; all at once, so that two files may
            have changed places.
    """
    place = held.schema.get_field_index(_FILE)
    kind = held.schema.field(place).type
    old = held[_FILE].cast(pa.string())
    moved = pc.index_in(old, value_set=pa.array(list(moves), pa.string()))
    new = pc.take(pa.array(list(moves.values()), pa.string()), moved)
    mask = pc.and_(pa.array(_stands(held, None)), pc.is_valid(moved))
    return held.set_column(place, held.schema.field(place), pc.if_else(mask, new, old).cast(kind))


def rows_as_of(held: pa.Table, moment: dt.datetime, first: dt.datetime) -> pa.Table:
    """The rows that had been taken at a moment, replaced only if that was before it.

    Args:
        held: every row ever delivered.
        moment: aware.
        first: time of the first ingestion: rows of it count as there since ever.
    """
    when = pa.scalar(moment, _MOMENT)
    taken = pc.less_equal(held[INGESTED], pa.scalar(max(moment, first), _MOMENT))
    rows = held.filter(taken)
    later = pc.greater(rows[REPLACED], when)
    until = pc.if_else(pc.fill_null(later, False), pa.scalar(None, _MOMENT), rows[REPLACED])
    return rows.set_column(rows.schema.get_field_index(REPLACED), REPLACED, until)


def _stamped(rows: pa.Table, at: dt.datetime) -> pa.Table:
    rows = rows.append_column(INGESTED, pa.repeat(pa.scalar(at, _MOMENT), len(rows)))
    return rows.append_column(REPLACED, pa.nulls(len(rows), _MOMENT))


def _alike(held: pa.Table, new: pa.Table) -> tuple[pa.Table, pa.Table]:
    schema = common_schema([held.schema, new.schema])
    return conform(held, schema), conform(new, schema)


def _stands(held: pa.Table, name: str | None) -> np.ndarray:
    """Where a row is not replaced, and of the file."""
    stands = held[REPLACED].is_null().to_numpy()
    if name is None:
        return stands
    return stands & pc.equal(held[_FILE].cast(pa.string()), name).to_numpy()


def _with_replaced(held: pa.Table, gone: np.ndarray, at: dt.datetime) -> pa.Table:
    mask = pa.array(~_without(len(held), gone))
    until = pc.if_else(mask, pa.scalar(at, _MOMENT), held[REPLACED])
    return held.set_column(held.schema.get_field_index(REPLACED), REPLACED, until)


def _without(length: int, places: np.ndarray) -> np.ndarray:
    mask = np.ones(length, bool)
    mask[places] = False
    return mask


def _in_both(old: pa.Table, new: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Places of rows with the same published values, each matched once, in order."""
    published = [name for name in new.column_names if name not in TECHNICAL_COLUMNS]
    old, new = old.select(published), new.select(published)
    if len(old) <= len(new) and new.slice(0, len(old)).equals(old):
        places = np.arange(len(old))  # the usual: a file that grew, or did not change
        return places, places
    return _matched(old, new)


def _matched(old: pa.Table, new: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    import duckdb

    columns = [f"c{place}" for place in range(old.num_columns)]
    listed = ", ".join(columns)
    equal = " and ".join(f"x.{name} is not distinct from y.{name}" for name in columns)
    counted = f"select *, row_number() over (partition by {listed} order by i) as n from "
    with duckdb.connect() as connection:
        for name, rows in (("a", old), ("b", new)):
            places = pa.array(np.arange(len(rows)))
            values = pa.table(list(map(_comparable, rows.columns)), columns)
            connection.register(name, values.append_column("i", places))
        found = connection.sql(
            f"with x as ({counted} a), y as ({counted} b) "
            f"select x.i as old, y.i as new from x join y on x.n = y.n and {equal}"
        ).to_arrow_table()
    return np.sort(found["old"].to_numpy()), np.sort(found["new"].to_numpy())


def _comparable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """DuckDB takes two durations for equal that are so to the microsecond, and not long ones."""
    return column.cast(pa.int64()) if pa.types.is_duration(column.type) else column
