"""The formats taken: how each is recognised, checked and given to DuckDB as columns c0, c1, ...

Positions instead of published names inside SQL: DuckDB folds case and renames what it deems odd.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.quoting import literal
from mlops_assets.sources.files.landing import CHUNK, HashingReader, Place, chunks_of
from mlops_assets.sources.files.rules import (
    Reading,
    Unusable,
    require_folder,
    require_header,
)
from mlops_assets.sources.files.union import TECHNICAL_COLUMNS

FileFormat = Literal["csv", "json", "parquet"]
FolderValues = Mapping[str, str | None]
"""Column that stands in the name of a folder: its value."""

FORMATS: dict[str, tuple[FileFormat, bool]] = {
    ".csv": ("csv", False),
    ".csv.gz": ("csv", True),
    ".jsonl": ("json", False),
    ".jsonl.gz": ("json", True),
    ".ndjson": ("json", False),
    ".ndjson.gz": ("json", True),
    ".parquet": ("parquet", False),
}
_HEADER_LINES = 20
"""Lines in which a header below titles is looked for."""
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


@dataclass(frozen=True)
class Layout:
    """What a file must share with others to be read in the same scan.

    Attributes:
        columns: published names in order; for JSON lines those of all files of a scan. Those that
            stand in names of folders come last.
        types: of Parquet columns, as in the file's footer.
        delimiter: of CSV.
        skip_rows: lines above the header of CSV.
        folders: the last of the columns, which stand in names of folders.
    """

    kind: FileFormat
    zipped: bool
    columns: tuple[str, ...] = ()
    types: tuple[pa.DataType, ...] = ()
    delimiter: str = ""
    skip_rows: int = 0
    folders: tuple[str, ...] = ()

    @property
    def own(self) -> tuple[str, ...]:
        """The columns that stand in the files."""
        return self.columns[: len(self.columns) - len(self.folders)]

    def with_folders(self, folders: Iterable[str]) -> Layout:
        """The same with columns of folders behind its own."""
        names = tuple(folders)
        types = (*self.types, *(pa.string() for _ in names)) if self.types else ()
        return replace(self, columns=(*self.columns, *names), types=types, folders=names)

    def relation(self, paths: Sequence[str], folders: Sequence[FolderValues] = ()) -> str:
        """SQL of all files' rows in order: c0, c1, ... and `file` (position in `paths`, from 0).

        Parquet adds `row` (from 0), JSON lines t0, t1, ... (the JSON type of each value).

        Args:
            paths: of the files.
            folders: of each file the values of `folders`.
        """
        build = {"csv": self._csv, "json": self._json, "parquet": self._parquet}
        return build[self.kind](path_list(paths), self._from_folders(folders))

    def _from_folders(self, folders: Sequence[FolderValues]) -> str:
        """SQL of the columns that stand in names of folders."""
        found = ""
        for place, name in enumerate(self.folders, len(self.own)):
            given = [values[name] for values in folders]
            listed = ", ".join("NULL" if one is None else literal(one) for one in given)
            found += f"([{listed}]::VARCHAR[])[CAST(file_index AS INTEGER) + 1] AS c{place}, "
            found += f"'VARCHAR' AS t{place}, " if self.kind == "json" else ""
        return found

    def _csv(self, files: str, more: str) -> str:
        columns = ", ".join(f"c{i}: 'VARCHAR'" for i in range(len(self.own)))
        return (
            f"SELECT *, {more}{_FILE} FROM read_csv({files}, auto_detect=false, header=true, "
            f"columns={{{columns}}}, delim={literal(self.delimiter)}, quote='\"', escape='\"', "
            f"nullstr='', comment='', strict_mode=true, hive_partitioning=false, "
            f"skip={self.skip_rows}, "
            f"compression='{self._compression}')"
        )

    def _json(self, files: str, more: str) -> str:
        pointers = "[" + ", ".join(literal(json_pointer(name)) for name in self.own) + "]"
        values = "".join(f"v[{i + 1}] AS c{i}, k[{i + 1}] AS t{i}, " for i in range(len(self.own)))
        return (
            f"SELECT {values}* EXCLUDE (v, k) FROM (SELECT json_extract_string(json, {pointers}) "
            f"AS v, json_type(json, {pointers}) AS k, {more}{_FILE} "
            f"FROM {self.json_records(files)})"
        )

    def _parquet(self, files: str, more: str) -> str:
        names = ", ".join(f"c{i}" for i in range(len(self.own)))
        return (
            f"SELECT t.*, {more}{_FILE}, file_row_number AS row "
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


def read_through(place: Place, name: str, encoding: str = "utf-8") -> tuple[str, Unusable | None]:
    """The content's hash, and what is wrong with its bytes (None: nothing).

    One pass in constant memory: compression, encoding, NUL bytes, files that are something else
    than their name says. Parquet has its own checks, so its bytes are only hashed.
    """
    with place.open() as stream:
        reader = HashingReader(stream)
        damage = None
        try:
            _check_bytes(reader, *format_of(name), encoding)
        except Unusable as found:
            damage = found
        return reader.hexdigest(), damage


def layout_of(place: Place, name: str, how: Reading) -> Layout:
    """How to read a file, from its first bytes (CSV) or its footer (Parquet).

    Raises:
        Unusable: when the header or footer cannot be read, or its columns cannot be used.
    """
    kind, zipped = format_of(name)
    if kind == "json":
        # Its own columns are known only after a scan.
        return Layout("json", zipped).with_folders(how.folder_values(name))
    layout = _csv_layout(place, name, zipped, how) if kind == "csv" else _parquet_layout(place, how)
    require_folder(layout.columns, name, how)
    return layout.with_folders(how.folder_values(name))


def check_columns(columns: Sequence[str], how: Reading) -> None:
    """Refuse columns that are there twice, bear a reserved name, or lack the country.

    Raises:
        Unusable: naming the columns.
    """
    check_names(columns)
    how.country_in(columns)


def check_names(columns: Sequence[str]) -> None:
    """Refuse columns that are there twice, or bear a reserved name.

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


def path_list(paths: Sequence[str]) -> str:
    """Paths, as they are, as an SQL list."""
    return "[" + ", ".join(literal(escape_glob(path)) for path in paths) + "]"


def escape_glob(path: str) -> str:
    """A path in which DuckDB and fsspec find no wildcard."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in path)


def json_pointer(name: str) -> str:
    """RFC 6901: the pointer to a key of a record, whatever the key is."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _check_bytes(reader: HashingReader, kind: FileFormat, zipped: bool, encoding: str) -> None:
    if kind == "parquet":
        return
    if not zipped:
        _check_text(reader, kind, encoding)
        return
    with unzipped(reader) as content:
        _check_text(content, kind, encoding)


@contextmanager
def unzipped(stream: HashingReader | BinaryIO) -> Iterator[gzip.GzipFile]:
    """The content of a gzip file.

    Raises:
        Unusable: on leaving, when it was cut off or damaged.
    """
    try:
        with gzip.GzipFile(fileobj=stream) as content:  # type: ignore[arg-type]
            yield content
    except (EOFError, gzip.BadGzipFile, zlib.error) as damage:
        rule = f"its gzip content is cut off or damaged ({damage})"
        raise Unusable(rule, _EXPORT_AGAIN) from None


def _check_text(stream: HashingReader | gzip.GzipFile, kind: FileFormat, encoding: str) -> None:
    decoder = codecs.getincrementaldecoder(encoding)()
    wide = "\0".encode(encoding) != b"\0"
    offset, line = 0, 1
    for chunk in chunks_of(stream):
        if offset == 0:
            _check_first_bytes(chunk, kind, wide=wide)
        offset += len(chunk)
        try:
            decoder.decode(chunk)
        except UnicodeDecodeError as error:
            raise _wrong_encoding(error, offset, line, encoding) from None
        if not wide and b"\0" in chunk:
            raise _nul_byte(chunk, offset, line)
        line += chunk.count(b"\n")
    if offset == 0:
        raise Unusable("it is empty (0 bytes of content)", _EXPORT_AGAIN)
    if decoder.getstate()[0]:
        name = encoding.upper()
        raise Unusable(f"it ends in the middle of a {name} character", _EXPORT_AGAIN)


def _check_first_bytes(chunk: bytes, kind: FileFormat, *, wide: bool) -> None:
    for magic, what in _MAGIC.items():
        if chunk.startswith(magic) and not (wide and "UTF" in what):
            way_out = "Save it in the format its ending says."
            if "UTF" in what:
                way_out = f"{_AS_UTF8} Or set `encoding: utf-16` under `source`."
            raise Unusable(f"it is {what}, not what its ending says", way_out)
    start = chunk[:512].removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if start.startswith(_MARKUP):
        raise Unusable(
            "it is an HTML or XML page, perhaps an error page of the download",
            "Open it in a browser to see what the publisher says, then download it again.",
        )
    if kind == "json" and chunk.startswith(codecs.BOM_UTF8):
        raise Unusable("it starts with a byte order mark", "Save it as UTF-8 without one.")


def _wrong_encoding(error: UnicodeDecodeError, offset: int, line: int, encoding: str) -> Unusable:
    before = offset - len(error.object)  # the decoder may have kept bytes of the last chunk
    line += error.object.count(b"\n", 0, error.start)
    like = ""
    way_out = "Correct `encoding` under `source`, or export it again."
    if encoding == "utf-8":
        like = ", as in Latin-1 or Windows-1252"
        guess = _other_encoding(error.object[error.start : error.start + CHUNK])
        way_out = f"{_AS_UTF8} Or set `encoding: {guess}` under `source`, if it is that."
    return Unusable(
        f"it is not {encoding.upper()}: byte 0x{error.object[error.start]:02x} at offset "
        f"{before + error.start} (line {line}) is not valid{like}",
        way_out,
    )


def _other_encoding(content: bytes) -> str:
    """What text that is not UTF-8 most likely is; for a person to decide."""
    try:
        content.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _nul_byte(chunk: bytes, offset: int, line: int) -> Unusable:
    at = chunk.index(b"\0")
    line += chunk.count(b"\n", 0, at)
    return Unusable(
        f"it holds a NUL byte at offset {offset - len(chunk) + at} (line {line}), as binary "
        "files and UTF-16 text do",
        f"If it is text: {_AS_UTF8[0].lower()}{_AS_UTF8[1:]} Otherwise export it again.",
    )


def _csv_layout(place: Place, name: str, zipped: bool, how: Reading) -> Layout:
    lines, sample = _first_text(place, zipped, how)
    signs = (how.delimiter,) if how.delimiter else DELIMITERS
    found = [_records(sample, delimiter) for delimiter in signs]
    scores = [_score(records, how.country) for records in found]
    best = scores.index(max(scores))
    if not found[best] or (len(found[best][0]) == 1 and not all(found)):
        raise Unusable("its header cannot be read, as with an unclosed quote", _EXPORT_AGAIN)
    header = found[best][0]
    if not header:
        if how.skip_rows:
            raise Unusable(
                f"line {how.skip_rows + 1} is empty, where the header should be",
                "Correct `skip_rows` under `source`, or the file.",
            )
        raise Unusable(
            "it starts with an empty line", "Put the header with the column names first."
        )
    require_header(lines, header, name, how)
    columns = tuple(name or f"column_{number}" for number, name in enumerate(header, 1))
    return Layout("csv", zipped, columns, delimiter=signs[best], skip_rows=how.skip_rows)


def _first_text(place: Place, zipped: bool, how: Reading) -> tuple[list[str], str]:
    """The first lines of a file, and its text from the header on."""
    with place.open() as stream:
        if zipped:
            with unzipped(stream) as content:
                start = content.read(CHUNK)
        else:
            start = stream.read(CHUNK)
    text = start.decode(how.encoding, errors="ignore").removeprefix("\ufeff")
    lines = list(io.StringIO(text, newline="\n"))
    if how.skip_rows and len(lines) <= how.skip_rows:
        raise Unusable(
            f"it has no line {how.skip_rows + 1}, where the header should be",
            "Correct `skip_rows` under `source`, or the file.",
        )
    below = "".join(lines[how.skip_rows :]) if how.skip_rows else text
    return lines[:_HEADER_LINES], below


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


def _score(records: list[list[str]], country: Sequence[str]) -> tuple[bool, float, int]:
    """Higher is likelier the delimiter: finds the country, rows alike, many columns."""
    if not records:
        return (False, -1.0, 0)
    width = len(records[0])
    rows = [row for row in records[1:] if row]
    alike = sum(len(row) == width for row in rows) / len(rows) if rows else 1.0
    return (bool({*country} & {*records[0]}), alike if width > 1 else 0.0, width)


def _parquet_layout(place: Place, how: Reading) -> Layout:
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
    nested = [f.name for f in schema if f.name in how.country and pa.types.is_nested(f.type)]
    if nested:
        raise Unusable(
            f"country column {nested[0]!r} holds lists or structs",
            "Publish one country per row, as text.",
        )
    return Layout("parquet", False, tuple(schema.names), tuple(schema.types))


def _listed(names: Sequence[str], most: int = 40) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
