"""Reading landing folders: list the files, survey each, read the good ones split by country.

DuckDB scans, Arrow carries, and nothing loops over rows in Python. A damaged file is set aside
whole and never raises in `survey`, so that it cannot harm the files beside it.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute

from mlops_assets.errors import SourceError
from mlops_assets.sources.files.encoding import as_utf8
from mlops_assets.sources.files.formats import (
    FolderValues,
    Layout,
    check_columns,
    check_names,
    layout_of,
    path_list,
    read_through,
)
from mlops_assets.sources.files.landing import (
    Place,
    SourceFile,
    Stamp,
    StorageOptions,
    file_place,
    list_files,
)
from mlops_assets.sources.files.rules import Reading, Unusable, require_folder
from mlops_assets.sources.files.split import FILE, LINE, RowsByCountry, split_by_country
from mlops_assets.sources.files.union import SOURCE_COLUMNS, append_tables, common_schema, conform
from mlops_assets.spec import country_text

__all__ = [
    "SourceFile",
    "Survey",
    "append_tables",
    "list_files",
    "read_by_country",
    "survey",
]

pc: Any = pyarrow.compute  # made at import time, so no type checker sees its functions

_BATCH_ROWS = 122_880
"""Rows handed over at a time: as many as DuckDB puts in a row group."""

_AS_TEXT = "country"
"""The country of JSON lines as it stands there, whatever type its column gets."""


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
    file: SourceFile, how: Reading | str, storage_options: StorageOptions | None = None
) -> Survey:
    """Read a file whole and count its records by country; damaged content never raises.

    Args:
        file: as `list_files` gave it.
        how: to read it; a bare name is that of the country's column, as published.
        storage_options: as given to `list_files`.
    """
    how, columns = Reading.of(how), ()
    try:
        place = file_place(file.uri, storage_options)
        before = _stamp_to_read(file, place)
        with ThreadPoolExecutor(1) as beside:  # DuckDB counts while the bytes are checked
            laying = beside.submit(_layout, place, file.name, how)
            counting = beside.submit(_counted, laying, file.name, place, how)
            digest, damage = read_through(place, file.name, how.encoding)
        if digest != file.content_hash:
            raise _still_growing()
        if damage:
            raise damage
        columns = laying.result().columns
        counts = counting.result()
        if place.stamp() != before:
            raise _still_growing()
    except Unusable as reason:
        return Survey(file, columns, 0, {}, _set_aside(file, reason))
    except (duckdb.Error, OSError) as error:
        return Survey(file, columns, 0, {}, _set_aside(file, _explain(error)))
    return Survey(file, columns, sum(counts.values()), counts, None)


def _layout(place: Place, name: str, how: Reading) -> Layout:
    return _full_layout([(name, place)], layout_of(place, name, how), how)


def _counted(laying: Future[Layout], name: str, place: Place, how: Reading) -> dict[str, int]:
    layout = laying.result()
    check_columns(layout.columns, how)
    with as_utf8([place], layout, how.encoding) as (places, plain):
        return _count(places[0], plain, [how.folder_values(name)], how)


def read_by_country(
    files: Sequence[SourceFile],
    how: Reading | str,
    wanted: Mapping[str, str],
    storage_options: StorageOptions | None = None,
) -> RowsByCountry:
    """The records of the wanted countries, each file scanned once for all of them together.

    Files with the same format and columns share one scan. All tables have the same columns: those
    of all files by name, in published form, then `_source_file`, `_source_hash`
    (`Reading.identity`) and `_source_line` (record number in its file, from 1, the header not
    counted). CSV columns are
    text and empty fields null; JSON lines and Parquet keep the file's types. A column whose type
    differs between files becomes text, see `append_tables`.

    Args:
        files: files whose survey found no problem.
        how: to read them; a bare name is that of the country's column, as published.
        wanted: country by published value (blanks stripped; "" is a missing value).
        storage_options: as given to `list_files`.

    Returns:
        Rows by country, in the order of `files` within a scan; a country without rows is absent.
        A table is put together when it is asked for, so keep it as long as it is needed and no
        longer; several threads may ask.

    Raises:
        SourceError: when a file changed since it was listed, or cannot be read after all. Nothing
            of any file is returned then.
    """
    how = Reading.of(how)
    places = {file: file_place(file.uri, storage_options) for file in files}
    try:
        stamps = {file: _stamp_to_read(file, place) for file, place in places.items()}
        parts = [
            _read_group(layout, members, how, wanted)
            for layout, members in _groups(places, how).items()
        ]
        for file, stamp in stamps.items():
            if places[file].stamp() != stamp:
                raise _still_growing()
    except (Unusable, duckdb.Error, OSError) as error:
        raise _unreadable(files, how, storage_options, error) from error
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
        con.execute("SET enable_progress_bar = false")  # a log is no place for it
    except duckdb.Error as error:
        raise SourceError(
            f"DuckDB could not be started ({error}).",
            stored="No file was read, nothing was written.",
            way_out="Reinstall the package `duckdb` in the version of the lock file.",
        ) from error
    return con


def _full_layout(files: Sequence[tuple[str, Place]], layout: Layout, how: Reading) -> Layout:
    """The layout with its columns; those of JSON lines are known only after a scan."""
    if layout.kind != "json":
        return layout
    with as_utf8([place for _, place in files], layout, how.encoding) as (places, plain):
        records = plain.json_records(path_list([place.uri for place in places]))
        columns = _json_columns(places, records)
    for name, _ in files:
        require_folder(columns, name, how)
    return replace(layout, columns=columns, folders=()).with_folders(layout.folders)


def _json_columns(places: Sequence[Place], records: str) -> tuple[str, ...]:
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
            check_names(keys)
    return tuple(dict.fromkeys(key for _, keys, _ in kinds for key in keys))


def _count(
    place: Place, layout: Layout, folders: Sequence[FolderValues], how: Reading
) -> dict[str, int]:
    """Records by published country value."""
    country = f"c{layout.columns.index(how.country_in(layout.columns))}"
    # Hashing every value makes DuckDB decode every Parquet page, so damage shows here.
    values = ", ".join(f"c{i}" for i in range(len(layout.columns)))
    decode = f"bit_xor(hash({values}))" if layout.kind == "parquet" else "0"
    with _engine([place]) as con:
        found = con.sql(
            f"SELECT {country} AS country, count(*) AS rows, {decode} "
            f"FROM ({layout.relation([place.uri], folders)}) GROUP BY {country}"
        ).to_arrow_table()
    counts: Counter[str] = Counter()
    for value, rows in zip(found["country"].to_pylist(), found["rows"].to_pylist(), strict=True):
        counts[country_text(value)] += rows
    return dict(sorted(counts.items()))


_Members = list[tuple[SourceFile, Place]]


def _groups(places: Mapping[SourceFile, Place], how: Reading) -> dict[Layout, _Members]:
    """Files by layout: those of one layout share a scan."""
    groups: dict[Layout, _Members] = defaultdict(list)
    for file, place in places.items():
        layout = layout_of(place, file.name, how)
        if layout.kind != "json":
            check_columns(layout.columns, how)
        groups[layout].append((file, place))
    return {
        _full_layout([(file.name, place) for file, place in members], layout, how): members
        for layout, members in groups.items()
    }


@dataclass(frozen=True)
class _Part:
    """The rows of one scan by country, their columns still as DuckDB gave them."""

    layout: Layout
    files: tuple[SourceFile, ...]
    identities: tuple[str, ...]
    rows: Mapping[str, pa.Table]

    def published(self, country: str) -> pa.Table:
        """Published columns with their names and types, then where each row came from."""
        return self._finished(self.rows[country])

    @property
    def schema(self) -> pa.Schema:
        """Of every published table."""
        return self._finished(next(iter(self.rows.values()))[:0]).schema

    def _finished(self, rows: pa.Table) -> pa.Table:
        columns = [rows[f"c{place}"] for place in range(len(self.layout.columns))]
        if self.layout.kind == "parquet":
            columns = list(map(_from_parquet, columns, self.layout.types))
        names = pa.array([file.name for file in self.files], pa.string())
        hashes = pa.array(self.identities, pa.string())
        origin = [pc.take(names, rows[FILE]), pc.take(hashes, rows[FILE]), rows[LINE]]
        return pa.table([*columns, *origin], names=[*self.layout.columns, *SOURCE_COLUMNS])


def _read_group(
    layout: Layout, members: _Members, how: Reading, wanted: Mapping[str, str]
) -> _Part:
    """One scan, split by country."""
    check_columns(layout.columns, how)
    country = f"c{layout.columns.index(how.country_in(layout.columns))}"
    files = tuple(file for file, _ in members)
    folders = [how.folder_values(file.name) for file in files]
    with as_utf8([place for _, place in members], layout, how.encoding) as (places, plain):
        batches = _scan(plain, places, folders)
        if layout.kind == "json":
            batches, country = _typed(batches, layout, country), _AS_TEXT
        identities = tuple(how.identity(file.content_hash, file.name) for file in files)
        return _Part(layout, files, identities, split_by_country(batches, country, wanted))


def _scan(
    layout: Layout, places: Sequence[Place], folders: Sequence[FolderValues]
) -> Iterator[pa.RecordBatch]:
    # No filter: CSV and JSON lines are numbered by position.
    with _engine(places) as con:
        relation = con.sql(layout.relation([place.uri for place in places], folders))
        yield from relation.to_arrow_reader(_BATCH_ROWS)


def _typed(
    batches: Iterator[pa.RecordBatch], layout: Layout, country: str
) -> Iterator[pa.RecordBatch]:
    """JSON lines with their types, which are known only when every record was seen."""
    scanned = pa.Table.from_batches(list(batches))
    columns = {
        f"c{place}": _from_json(scanned[f"c{place}"], scanned[f"t{place}"])
        for place in range(len(layout.columns))
    }
    yield from pa.table({**columns, _AS_TEXT: scanned[country], FILE: scanned[FILE]}).to_batches()


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


def _join(parts: Sequence[_Part]) -> RowsByCountry:
    """Every country's rows of all scans, with the columns of all of them."""
    parts = [part for part in parts if part.rows]
    schema = common_schema(part.schema for part in parts)

    def rows_of(country: str) -> pa.Table:
        having = [part for part in parts if country in part.rows]
        return pa.concat_tables(conform(part.published(country), schema) for part in having)

    countries = dict.fromkeys(country for part in parts for country in part.rows)
    return RowsByCountry({country: partial(rows_of, country) for country in countries})


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
    how: Reading,
    storage_options: StorageOptions | None,
    error: Exception,
) -> SourceError:
    """The error with its culprit, which a survey of each file finds."""
    surveys = [survey(file, how, storage_options) for file in files]
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
