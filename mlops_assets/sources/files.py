"""Reading landing folders: list the files, survey each, read the good ones split by country.

DuckDB scans, Arrow carries, and nothing loops over rows in Python. A damaged file is set aside
whole and never raises in `survey`, so that it cannot harm the files beside it.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute

from mlops_assets.errors import SourceError
from mlops_assets.sources.formats import (
    Layout,
    Unusable,
    check_columns,
    layout_of,
    path_list,
    read_through,
)
from mlops_assets.sources.landing import (
    Place,
    SourceFile,
    Stamp,
    StorageOptions,
    list_files,
    place_of,
)
from mlops_assets.sources.union import SOURCE_COLUMNS, append_tables, common_schema, conform

__all__ = [
    "SourceFile",
    "Survey",
    "append_tables",
    "list_files",
    "read_by_country",
    "survey",
]

pc: Any = pyarrow.compute  # made at import time, so no type checker sees its functions


@dataclass(frozen=True)
class Survey:
    """What one file holds, or why it is set aside.

    Attributes:
        file: the file surveyed.
        columns: as published, in order; empty when they could not be read.
        rows: records, the header not counted; 0 when set aside.
        rows_by_country: records by published country value, blanks around it stripped; missing
            and blank values under "". Empty when set aside.
        problem: why the file is set aside, with the way out; None when it can be read.
    """

    file: SourceFile
    columns: tuple[str, ...]
    rows: int
    rows_by_country: Mapping[str, int]
    problem: str | None


def survey(
    file: SourceFile, country_column: str, storage_options: StorageOptions | None = None
) -> Survey:
    """Read a file whole and count its records by country; damaged content never raises.

    Args:
        file: as `list_files` gave it.
        country_column: the column with the country, as published.
        storage_options: as given to `list_files`.
    """
    columns: tuple[str, ...] = ()
    try:
        place = place_of(file.uri, storage_options)
        before = _stamp_to_read(file, place)
        digest, damage = read_through(place, file.name)
        if digest != file.content_hash:
            raise _still_growing()
        if damage:
            raise damage
        layout = _full_layout([place], layout_of(place, file.name, country_column))
        columns = layout.columns
        check_columns(columns, country_column)
        counts = _count(place, layout, country_column)
        if place.stamp() != before:
            raise _still_growing()
    except Unusable as reason:
        return Survey(file, columns, 0, {}, _set_aside(file, reason))
    except (duckdb.Error, OSError) as error:
        return Survey(file, columns, 0, {}, _set_aside(file, _explain(error)))
    return Survey(file, columns, sum(counts.values()), counts, None)


def read_by_country(
    files: Sequence[SourceFile],
    country_column: str,
    wanted: Mapping[str, str],
    storage_options: StorageOptions | None = None,
) -> dict[str, pa.Table]:
    """The records of the wanted countries, each file scanned once for all of them together.

    Files with the same format and columns share one scan. All tables have the same columns: those
    of all files by name, in published form, then `_source_file`, `_source_hash` and
    `_source_line` (record number in its file, from 1, the header not counted). CSV columns are
    text and empty fields null; JSON lines and Parquet keep the file's types. A column whose type
    differs between files becomes text, see `append_tables`.

    Args:
        files: files whose survey found no problem.
        country_column: the column with the country, as published.
        wanted: country by published value (blanks stripped; "" is a missing value).
        storage_options: as given to `list_files`.

    Returns:
        Rows by country, in the order of `files` within a scan; a country without rows is absent.

    Raises:
        SourceError: when a file changed since it was listed, or cannot be read after all. Nothing
            of any file is returned then.
    """
    places = {file: place_of(file.uri, storage_options) for file in files}
    try:
        stamps = {file: _stamp_to_read(file, place) for file, place in places.items()}
        groups = _groups(places, country_column)
        parts = [
            _read_group(layout, members, country_column, wanted)
            for layout, members in groups.items()
        ]
        for file, stamp in stamps.items():
            if places[file].stamp() != stamp:
                raise _still_growing()
    except (Unusable, duckdb.Error, OSError) as error:
        raise _unreadable(files, country_column, storage_options, error) from error
    return _join(parts)


def _stamp_to_read(file: SourceFile, place: Place) -> Stamp:
    if not place.is_file():
        raise Unusable("it is gone, or not a regular file", "Put a regular file in its place.")
    if place.local and "\\" in place.path and any(sign in place.path for sign in "*?["):
        # DuckDB takes either sign alone for itself, and cannot be told to when both are there.
        raise Unusable("its path has both a backslash and one of * ? [", "Rename it.")
    if not file.content_hash:
        place.open().close()  # the operating system names the cause, such as no permission
    stamp = place.stamp()
    if (stamp.size, stamp.modified) != (file.size, file.modified):
        raise _still_growing()
    return stamp


def _still_growing() -> Unusable:
    return Unusable(
        "it changed while being read, so it is still growing",
        "It will be taken next time, once it no longer changes.",
    )


def _set_aside(file: SourceFile, reason: Unusable) -> str:
    return f"{file.name}: {reason.rule}. Nothing of it was taken. {reason.way_out}"


@contextmanager
def _engine(places: Sequence[Place]) -> Iterator[duckdb.DuckDBPyConnection]:
    with _connect() as con:
        for fs in {id(place.fs): place.fs for place in places if not place.local}.values():
            con.register_filesystem(fs)
        yield con


def _connect() -> duckdb.DuckDBPyConnection:
    """An engine in memory; its own failure is no file's fault and must not look like it."""
    try:
        con = duckdb.connect(
            ":memory:",
            config={
                "temp_directory": tempfile.gettempdir(),  # never the current folder
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        con.execute("SET TimeZone = 'UTC'")
    except duckdb.Error as error:
        raise SourceError(
            f"DuckDB could not be started ({error}).",
            stored="No file was read, nothing was written.",
            way_out="Reinstall the package `duckdb` in the version of the lock file.",
        ) from error
    return con


def _full_layout(places: Sequence[Place], layout: Layout) -> Layout:
    """The layout with its columns; those of JSON lines are known only after a scan."""
    if layout.kind != "json":
        return layout
    records = layout.json_records(path_list([place.uri for place in places]))
    with _engine(places) as con:
        kinds = con.sql(
            "SELECT json_type(json) AS kind, json_keys(json) AS keys, min(n) AS first FROM "
            f"(SELECT json, row_number() OVER () AS n FROM {records}) GROUP BY ALL ORDER BY first"
        ).fetchall()
    if not kinds:
        raise Unusable("it holds no records", "Export or download it again.")
    for kind, keys, first in kinds:
        if kind != "OBJECT":
            raise Unusable(
                f"record {first} is not an object ({kind.lower()})",
                "Write one JSON object with the columns as keys per line.",
            )
        if len(set(keys)) < len(keys):
            check_columns(keys, keys[0])
    return replace(
        layout, columns=tuple(dict.fromkeys(key for _, keys, _ in kinds for key in keys))
    )


def _count(place: Place, layout: Layout, country_column: str) -> dict[str, int]:
    """Records by published country value."""
    country = f"c{layout.columns.index(country_column)}"
    # Hashing every value makes DuckDB decode every Parquet page, so damage shows here.
    values = ", ".join(f"c{i}" for i in range(len(layout.columns)))
    decode = f"bit_xor(hash({values}))" if layout.kind == "parquet" else "0"
    with _engine([place]) as con:
        found = con.sql(
            f"SELECT {country} AS country, count(*) AS rows, {decode} "
            f"FROM ({layout.relation([place.uri])}) GROUP BY {country}"
        ).to_arrow_table()
    counts: Counter[str] = Counter()
    for value, rows in zip(found["country"].to_pylist(), found["rows"].to_pylist(), strict=True):
        counts[_country_text(value)] += rows
    return dict(sorted(counts.items()))


def _country_text(value: object) -> str:
    """A published country value as text, blanks stripped; "" when there is none."""
    if isinstance(value, float):
        # A numeric code in a column with nulls is often stored as 276.0.
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    return "" if value is None else str(value).strip()


_Members = list[tuple[SourceFile, Place]]


def _groups(places: Mapping[SourceFile, Place], country_column: str) -> dict[Layout, _Members]:
    """Files by layout: those of one layout share a scan."""
    groups: dict[Layout, _Members] = defaultdict(list)
    for file, place in places.items():
        layout = layout_of(place, file.name, country_column)
        if layout.kind != "json":
            check_columns(layout.columns, country_column)
        groups[layout].append((file, place))
    return {
        _full_layout([place for _, place in members], layout): members
        for layout, members in groups.items()
    }


def _read_group(
    layout: Layout, members: _Members, country_column: str, wanted: Mapping[str, str]
) -> dict[str, pa.Table]:
    """One scan, split by country."""
    check_columns(layout.columns, country_column)
    scanned = _scan(layout, [place for _, place in members])
    files = scanned["file"].combine_chunks()
    position = layout.columns.index(country_column)
    codes, countries = _country_codes(scanned[f"c{position}"], wanted)
    table = _published(scanned, layout)
    table = table.append_column("_file", files).append_column("_line", _lines(scanned, files))
    batches = deque(table.to_batches())
    del scanned, table  # each batch is freed once split, so the rows are not in memory twice
    sources = [file for file, _ in members]
    return {
        countries[code]: _with_sources(part, sources)
        for code, part in sorted(_split(batches, codes).items())
    }


def _scan(layout: Layout, places: Sequence[Place]) -> pa.Table:
    # No filter: CSV and JSON lines are numbered by position.
    with _engine(places) as con:
        return con.sql(layout.relation([place.uri for place in places])).to_arrow_table()


def _country_codes(
    published: pa.ChunkedArray, wanted: Mapping[str, str]
) -> tuple[np.ndarray, list[str]]:
    """For each row the position of its country in the list given; -1 when nobody wants it."""
    countries = list(dict.fromkeys(wanted.values()))
    code_of = {value.strip(): countries.index(country) for value, country in wanted.items()}
    values = pc.unique(published)
    codes = [code_of.get(_country_text(value), -1) for value in values.to_pylist()]
    position = pc.index_in(published, value_set=values).combine_chunks().to_numpy()
    return np.array(codes, np.int32)[position], countries


def _published(scanned: pa.Table, layout: Layout) -> pa.Table:
    """The published columns with their published names and types."""
    columns = [
        _from_json(scanned.column(f"c{i}"), scanned.column(f"t{i}"))
        if layout.kind == "json"
        else _from_parquet(scanned.column(f"c{i}"), layout.types[i])
        if layout.kind == "parquet"
        else scanned.column(f"c{i}")
        for i in range(len(layout.columns))
    ]
    return pa.table(columns, names=list(layout.columns))


def _from_parquet(column: pa.ChunkedArray, published: pa.DataType) -> pa.ChunkedArray:
    # DuckDB has no duration with a unit and hands over the bare number.
    if pa.types.is_duration(published):
        return pc.cast(column, published)
    return column


def _from_json(text: pa.ChunkedArray, kinds: pa.ChunkedArray) -> pa.ChunkedArray:
    """Typed when all values are of one JSON type, else as the text they stand as."""
    found = set(pc.unique(kinds).to_pylist()) - {None, "NULL"}
    target = _json_type(found)
    if target is not None and pa.types.is_null(target):
        return pa.chunked_array([pa.nulls(len(text))])
    if target is None or (pa.types.is_float64(target) and _has_long_whole_number(text)):
        return text
    try:
        return pc.cast(text, target)
    except pa.ArrowInvalid:
        return text  # a whole number beyond 64 bits


def _json_type(found: set[str]) -> pa.DataType | None:
    if not found:
        return pa.null()
    for kinds, target in (
        ({"BOOLEAN"}, pa.bool_()),
        ({"BIGINT", "UBIGINT"}, pa.int64()),
        ({"BIGINT", "UBIGINT", "DOUBLE"}, pa.float64()),
    ):
        if found <= kinds:
            return target
    return None


def _has_long_whole_number(text: pa.ChunkedArray) -> bool:
    """Whether a 64-bit float would change digits of a whole number, such as a long id."""
    return bool(pc.any(pc.match_substring_regex(text, r"^-?\d{16,}$")).as_py())


def _lines(scanned: pa.Table, files: pa.Array) -> pa.Array:
    """Record numbers from 1 within each file.

    DuckDB numbers Parquet rows. The other readers keep the order of files and records, so a
    record's number is its position less that of its file's first record.
    """
    if "row" in scanned.column_names:
        return pc.add(scanned["row"].combine_chunks(), 1)
    index = files.to_numpy()
    if np.any(np.diff(index) < 0):
        raise duckdb.InternalException("the scan did not keep the order of the files")
    first = np.searchsorted(index, np.arange(index[-1] + 1 if len(index) else 0))
    return pa.array(np.arange(len(index), dtype=np.int64) - first[index] + 1)


def _with_sources(part: pa.Table, files: Sequence[SourceFile]) -> pa.Table:
    index, lines = part["_file"], part["_line"]
    names = pc.take(pa.array([file.name for file in files], pa.string()), index)
    hashes = pc.take(pa.array([file.content_hash for file in files], pa.string()), index)
    part = part.drop_columns(["_file", "_line"])
    for name, column in zip(SOURCE_COLUMNS, (names, hashes, lines), strict=True):
        part = part.append_column(name, column)
    return part


def _split(batches: deque[pa.RecordBatch], codes: np.ndarray) -> dict[int, pa.Table]:
    """The rows of each code from 0 on, in order, by sorting each batch once; uses batches up."""
    pieces: dict[int, list[pa.RecordBatch]] = defaultdict(list)
    start = 0
    while batches:
        batch = batches.popleft()
        for code, piece in _pieces(batch, codes[start : start + batch.num_rows]):
            pieces[code].append(piece)
        start += batch.num_rows
    return {code: pa.Table.from_batches(parts) for code, parts in pieces.items()}


def _pieces(batch: pa.RecordBatch, codes: np.ndarray) -> Iterator[tuple[int, pa.RecordBatch]]:
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    start = int(np.searchsorted(ordered, 0))  # rows nobody wants have code -1
    batch = batch.take(pa.array(order[start:]))
    found, first, rows = np.unique(ordered[start:], return_index=True, return_counts=True)
    for code, low, count in zip(found, first, rows, strict=True):
        yield int(code), batch.slice(int(low), int(count))


def _join(parts: Sequence[Mapping[str, pa.Table]]) -> dict[str, pa.Table]:
    """Every country's tables of all scans, with the columns of all of them."""
    schema = common_schema(next(iter(part.values())).schema for part in parts if part)
    joined: dict[str, list[pa.Table]] = defaultdict(list)
    for part in parts:
        for country, table in part.items():
            joined[country].append(conform(table, schema))
    return {country: pa.concat_tables(tables) for country, tables in joined.items()}


def _explain(error: Exception) -> Unusable:
    """What DuckDB or the file system found, in a sentence."""
    text = str(error)
    if isinstance(error, OSError) and not isinstance(error, duckdb.Error):
        return Unusable(f"it cannot be read ({text})", "Check that it is there and readable.")
    found = re.search(r"CSV Error on Line: (\d+)", text)
    line = f"line {found[1]}" if found else "a line"
    fields = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
    if fields:
        return Unusable(
            f"{line} has {fields[2]} fields where the header has {fields[1]}",
            "Quote fields that hold the delimiter, or export it again.",
        )
    if "unterminated quote" in text:
        rule = f"{line} has a quote that is not closed, or text after the closing one"
        return Unusable(rule, "Close the quote, or double quotes inside a field.")
    if "Maximum line size" in text or "max_line_size" in text:
        rule = f"{line} is longer than 2 MB, as after a quote that is not closed"
        return Unusable(rule, "Close the quote, or shorten the field.")
    if "state machine" in text:
        rule = "its line ends or quotes do not follow the CSV rules (RFC 4180), as mixed line ends"
        return Unusable(rule, "Save it again with one kind of line ends.")
    if isinstance(error, duckdb.OutOfMemoryException):
        rule = f"it needs more memory than there is ({text.splitlines()[0]})"
        return Unusable(rule, "Split it into smaller files, or give the process more memory.")
    return Unusable(f"its content cannot be read ({text.splitlines()[0]})", "Export it again.")


def _unreadable(
    files: Sequence[SourceFile],
    country_column: str,
    storage_options: StorageOptions | None,
    error: Exception,
) -> SourceError:
    """The error with its culprit, which a survey of each file finds."""
    surveys = [survey(file, country_column, storage_options) for file in files]
    bad = [found for found in surveys if found.problem]
    reason = error if isinstance(error, Unusable) else _explain(error)
    names = [found.file.name for found in bad] or [file.name for file in files]
    problem = " ".join(str(found.problem) for found in bad)
    return SourceError(
        problem or f"{', '.join(names[:5])}: {reason.rule}.",
        stored="Nothing of any file was taken, nothing was written.",
        way_out="" if problem else reason.way_out,
        culprits={"files": names},
    )
