"""The formats taken: how each is recognised, checked and given to DuckDB as columns c0, c1, ...

Positions instead of published names inside SQL: DuckDB folds case and renames what it deems odd.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.quoting import literal
from mlops_assets.sources.files.landing import CHUNK, HashingReader, Place, chunks_of
from mlops_assets.sources.files.union import TECHNICAL_COLUMNS

FileFormat = Literal["csv", "json", "parquet"]

FORMATS: dict[str, tuple[FileFormat, bool]] = {
    ".csv": ("csv", False),
    ".csv.gz": ("csv", True),
    ".jsonl": ("json", False),
    ".jsonl.gz": ("json", True),
    ".ndjson": ("json", False),
    ".ndjson.gz": ("json", True),
    ".parquet": ("parquet", False),
}
DELIMITERS = (",", ";", "\t", "|")

_FILE = "CAST(file_index AS INTEGER) AS file"
_MAGIC = {
    b"PK\x03\x04": "an Excel or ZIP file",
    b"\xd0\xcf\x11\xe0": "an old Excel file",
    b"\x1f\x8b": "gzip-compressed",
    b"PAR1": "a Parquet file",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
_MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")
_AS_UTF8 = "Save it as UTF-8 (in Excel: 'CSV UTF-8') and drop it again."
_EXPORT_AGAIN = "Export or download it again."


class Unusable(Exception):
    """Why a file is set aside: the rule it breaks and the way out. Never leaves the package."""

    def __init__(self, rule: str, way_out: str) -> None:
        super().__init__(rule)
        self.rule = rule
        self.way_out = way_out


@dataclass(frozen=True)
class Layout:
    """What a file must share with others to be read in the same scan.

    Attributes:
        columns: published names in order; for JSON lines those of all files of a scan.
        types: of Parquet columns, as in the file's footer.
        delimiter: of CSV.
    """

    kind: FileFormat
    zipped: bool
    columns: tuple[str, ...] = ()
    types: tuple[pa.DataType, ...] = ()
    delimiter: str = ""

    def relation(self, paths: Sequence[str]) -> str:
        """SQL of all files' rows in order: c0, c1, ... and `file` (position in `paths`, from 0).

        Parquet adds `row` (from 0), JSON lines t0, t1, ... (the JSON type of each value).
        """
        build = {"csv": self._csv, "json": self._json, "parquet": self._parquet}
        return build[self.kind](path_list(paths))

    def _csv(self, files: str) -> str:
        columns = ", ".join(f"c{i}: 'VARCHAR'" for i in range(len(self.columns)))
        return (
            f"SELECT *, {_FILE} FROM read_csv({files}, auto_detect=false, header=true, "
            f"columns={{{columns}}}, delim={literal(self.delimiter)}, quote='\"', escape='\"', "
            f"nullstr='', comment='', strict_mode=true, hive_partitioning=false, "
            f"compression='{self._compression}')"
        )

    def _json(self, files: str) -> str:
        pointers = "[" + ", ".join(literal(json_pointer(name)) for name in self.columns) + "]"
        numbers = range(len(self.columns))
        values = "".join(f"v[{i + 1}] AS c{i}, k[{i + 1}] AS t{i}, " for i in numbers)
        return (
            f"SELECT {values}file FROM (SELECT json_extract_string(json, {pointers}) AS v, "
            f"json_type(json, {pointers}) AS k, {_FILE} FROM {self.json_records(files)})"
        )

    def _parquet(self, files: str) -> str:
        names = ", ".join(f"c{i}" for i in range(len(self.columns)))
        return (
            f"SELECT t.*, {_FILE}, file_row_number AS row "
            f"FROM read_parquet({files}, hive_partitioning=false) AS t({names})"
        )

    def json_records(self, files: str) -> str:
        """SQL of whole JSON lines, in column `json`."""
        return (
            f"read_ndjson_objects({files}, hive_partitioning=false, "
            f"compression='{self._compression}')"
        )

    @property
    def _compression(self) -> str:
        return "gzip" if self.zipped else "none"


def format_of(name: str) -> tuple[FileFormat, bool]:
    """Kind by file name, and whether gzip-compressed.

    Raises:
        Unusable: when the ending is none of those taken.
    """
    endings = [ending for ending in FORMATS if name.lower().endswith(ending)]
    if not endings:
        taken = ", ".join(FORMATS)
        raise Unusable(
            f"its ending is none of the formats taken ({taken})",
            "Convert it to one of these, or move it out of the landing folder.",
        )
    return FORMATS[max(endings, key=len)]


def read_through(place: Place, name: str) -> tuple[str, Unusable | None]:
    """The content's hash, and what is wrong with its bytes (None: nothing).

    One pass in constant memory: compression, encoding, NUL bytes, files that are something else
    than their name says. Parquet has its own checks, so its bytes are only hashed.
    """
    with place.open() as stream:
        reader = HashingReader(stream)
        damage = None
        try:
            _check_bytes(reader, *format_of(name))
        except Unusable as found:
            damage = found
        return reader.hexdigest(), damage


def layout_of(place: Place, name: str, country_column: str) -> Layout:
    """How to read a file, from its first bytes (CSV) or its footer (Parquet).

    Raises:
        Unusable: when the header or footer cannot be read, or its columns cannot be used.
    """
    kind, zipped = format_of(name)
    if kind == "csv":
        return _csv_layout(place, zipped, country_column)
    if kind == "parquet":
        return _parquet_layout(place, country_column)
    return Layout("json", zipped)


def check_columns(columns: Sequence[str], country_column: str) -> None:
    """Refuse columns that are there twice, bear a reserved name, or lack the country.

    Raises:
        Unusable: naming the columns.
    """
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise Unusable(f"it has more than one column {_listed(twice)}", "Name each column once.")
    reserved = [name for name in columns if name in TECHNICAL_COLUMNS]
    if reserved:
        raise Unusable(
            f"column {_listed(reserved)} has a name kept for where a row came from",
            "Rename the column.",
        )
    if country_column not in columns:
        raise Unusable(
            f"it has no country column {country_column!r}; its columns are {_listed(columns)}",
            _nearest(country_column, columns),
        )


def path_list(paths: Sequence[str]) -> str:
    """Paths, as they are, as an SQL list."""
    return "[" + ", ".join(literal(escape_glob(path)) for path in paths) + "]"


def escape_glob(path: str) -> str:
    """A path in which DuckDB and fsspec find no wildcard."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in path)


def json_pointer(name: str) -> str:
    """RFC 6901: the pointer to a key of a record, whatever the key is."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _check_bytes(reader: HashingReader, kind: FileFormat, zipped: bool) -> None:
    if kind == "parquet":
        return
    if not zipped:
        _check_text(reader, kind)
        return
    with _unzipped(reader) as content:
        _check_text(content, kind)


@contextmanager
def _unzipped(stream: HashingReader | BinaryIO) -> Iterator[gzip.GzipFile]:
    try:
        with gzip.GzipFile(fileobj=stream) as content:  # type: ignore[arg-type]
            yield content
    except (EOFError, gzip.BadGzipFile, zlib.error) as damage:
        rule = f"its gzip content is cut off or damaged ({damage})"
        raise Unusable(rule, _EXPORT_AGAIN) from None


def _check_text(stream: HashingReader | gzip.GzipFile, kind: FileFormat) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, line = 0, 1
    for chunk in chunks_of(stream):
        if offset == 0:
            _check_first_bytes(chunk, kind)
        offset += len(chunk)
        try:
            decoder.decode(chunk)
        except UnicodeDecodeError as error:
            raise _wrong_encoding(error, offset, line) from None
        if b"\0" in chunk:
            raise _nul_byte(chunk, offset, line)
        line += chunk.count(b"\n")
    if offset == 0:
        raise Unusable("it is empty (0 bytes of content)", _EXPORT_AGAIN)
    if decoder.getstate()[0]:
        raise Unusable("it ends in the middle of a UTF-8 character", _EXPORT_AGAIN)


def _check_first_bytes(chunk: bytes, kind: FileFormat) -> None:
    for magic, what in _MAGIC.items():
        if chunk.startswith(magic):
            way_out = _AS_UTF8 if "UTF" in what else "Save it in the format its ending says."
            raise Unusable(f"it is {what}, not what its ending says", way_out)
    start = chunk[:512].removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if start.startswith(_MARKUP):
        raise Unusable(
            "it is an HTML or XML page, perhaps an error page of the download",
            "Open it in a browser to see what the publisher says, then download it again.",
        )
    if kind == "json" and chunk.startswith(codecs.BOM_UTF8):
        raise Unusable("it starts with a byte order mark", "Save it as UTF-8 without one.")


def _wrong_encoding(error: UnicodeDecodeError, offset: int, line: int) -> Unusable:
    before = offset - len(error.object)  # the decoder may have kept bytes of the last chunk
    line += error.object.count(b"\n", 0, error.start)
    return Unusable(
        f"it is not UTF-8: byte 0x{error.object[error.start]:02x} at offset "
        f"{before + error.start} (line {line}) is not valid, as in Latin-1 or Windows-1252",
        _AS_UTF8,
    )


def _nul_byte(chunk: bytes, offset: int, line: int) -> Unusable:
    at = chunk.index(b"\0")
    line += chunk.count(b"\n", 0, at)
    return Unusable(
        f"it holds a NUL byte at offset {offset - len(chunk) + at} (line {line}), as binary "
        "files and UTF-16 text do",
        f"If it is text: {_AS_UTF8[0].lower()}{_AS_UTF8[1:]} Otherwise export it again.",
    )


def _csv_layout(place: Place, zipped: bool, country_column: str) -> Layout:
    sample = _first_text(place, zipped)
    found = [_records(sample, delimiter) for delimiter in DELIMITERS]
    scores = [_score(records, country_column) for records in found]
    best = scores.index(max(scores))
    if not found[best] or (len(found[best][0]) == 1 and not all(found)):
        raise Unusable("its header cannot be read, as with an unclosed quote", _EXPORT_AGAIN)
    header = found[best][0]
    if not header:
        raise Unusable(
            "it starts with an empty line", "Put the header with the column names first."
        )
    columns = tuple(name or f"column_{number}" for number, name in enumerate(header, 1))
    return Layout("csv", zipped, columns, delimiter=DELIMITERS[best])


def _first_text(place: Place, zipped: bool) -> str:
    with place.open() as stream:
        if zipped:
            with _unzipped(stream) as unzipped:
                content = unzipped.read(CHUNK)
        else:
            content = stream.read(CHUNK)
    return content.decode("utf-8", errors="ignore").removeprefix("\ufeff")


def _records(sample: str, delimiter: str, limit: int = 20) -> list[list[str]]:
    """The first records; fewer where the sample ends or does not parse."""
    rows = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter, strict=True)
    records: list[list[str]] = []
    try:
        for row in rows:
            records.append(row)
            if len(records) == limit:
                break
    except csv.Error:
        pass  # what follows the header is judged by DuckDB, with the line
    return records


def _score(records: list[list[str]], country_column: str) -> tuple[bool, float, int]:
    """Higher is likelier the delimiter: finds the country, rows alike, many columns."""
    if not records:
        return (False, -1.0, 0)
    width = len(records[0])
    rows = [row for row in records[1:] if row]
    alike = sum(len(row) == width for row in rows) / len(rows) if rows else 1.0
    return (country_column in records[0], alike if width > 1 else 0.0, width)


def _parquet_layout(place: Place, country_column: str) -> Layout:
    try:
        with place.open() as stream:
            schema = pq.ParquetFile(stream).schema_arrow
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise Unusable(f"its Parquet footer cannot be read ({reason})", _EXPORT_AGAIN) from None
    wide = [field.name for field in schema if pa.types.is_decimal256(field.type)]
    if wide:
        raise Unusable(
            f"column {_listed(wide)} has decimals of more than 38 digits, which would lose some",
            "Publish the column as text or with at most 38 digits.",
        )
    nested = [f.name for f in schema if f.name == country_column and pa.types.is_nested(f.type)]
    if nested:
        raise Unusable(
            f"country column {country_column!r} holds lists or structs",
            "Publish one country per row, as text.",
        )
    return Layout("parquet", False, tuple(schema.names), tuple(schema.types))


def _nearest(country_column: str, columns: Sequence[str]) -> str:
    folded = {name.strip().casefold(): name for name in columns}
    close = difflib.get_close_matches(country_column.strip().casefold(), folded, 1, 0.5)
    change = "Rename the column, or set `source.columns` of the product to the published name."
    return f"Did you mean {folded[close[0]]!r}? {change}" if close else change


def _listed(names: Sequence[str], most: int = 40) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
