"""Landing what a query gives: by a watermark as one more file of a series, else as one file.

What was landed is the only memory. The files of a series are numbered, and each holds in its
metadata the watermark up to which it goes, so that a pull that was killed is simply made again and
of two pulls at once only one gets the next number.

A watermark never moves beyond the time of its pull. Rows ahead of it are landed once: each file
names the earlier ones that hold such rows, and what a pull reads is compared with them.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from mlops_assets.errors import SourceError
from mlops_assets.sources.files.landing import Place, StorageOptions, scan
from mlops_assets.sources.pulled.ahead import is_ahead, latest_untold, latest_watermark
from mlops_assets.sources.pulled.spool import METADATA, Held, Spool, rows_not_in, write_spooled
from mlops_assets.sources.pulled.sql import NO_INCREMENT, read_tables
from mlops_assets.sources.pulled.writing import Landing, Pulled
from mlops_assets.spec import SqlSpec

pc: Any = pyarrow.compute  # made at import time, so no type checker sees its functions

WHOLE = "query.parquet"
"""Where all rows of a query without a watermark land."""
_NUMBERED = re.compile(r"(\d{6,})\.parquet")
_ATTEMPTS = 3


@dataclass(frozen=True)
class Landed:
    """One file of a series.

    Attributes:
        number: from 1.
        watermark: the largest in the series so far that is not ahead of its pull; None for none.
        after: that of the file before, as text; None for none.
        ahead: number of a file with rows ahead of its pull: the largest watermark of these.
    """

    number: int
    place: Place
    watermark: pa.Scalar | None
    after: str | None
    ahead: Mapping[int, pa.Scalar] = field(default_factory=dict)

    @property
    def continues(self) -> bool:
        """Whether the file before ended at this same watermark."""
        return self.watermark is not None and _as_text(self.watermark) == self.after


@dataclass
class _Found:
    """What a query gave, in the course of reading it.

    Attributes:
        folder: where rows are put aside.
        new: rows after the watermark landed last.
        ties: rows exactly at it, of which some were landed before.
        newest: the largest watermark so far that is not ahead.
        latest: a later watermark is ahead.
        empty: rows without one.
    """

    folder: Path
    new: Spool
    ties: Spool
    newest: pa.Scalar | None
    latest: dt.datetime
    empty: int = 0
    kinds: set[str] = field(default_factory=set)


def pull_query(sql: SqlSpec, uri: str, options: StorageOptions | None = None) -> Pulled:
    """Land the rows of the query that are new, or all of them where there is no watermark.

    Args:
        sql: database and query.
        uri: landing folder.
        options: of its fsspec file system.

    Raises:
        SourceError: the database does not answer, rows have no watermark, or what was landed
            before cannot be read.
    """
    landing = Landing(uri, options)
    if sql.watermark is None:
        return _pull_whole(sql, landing)
    for _ in range(_ATTEMPTS):
        pulled = _pull_new(sql, sql.watermark, landing)
        if pulled is not None:
            return pulled
    raise SourceError(
        f"Other pulls landed rows of the same query in {uri} all the time.",
        stored=NO_INCREMENT,
        way_out="Let one pull at a time run.",
    )


def series_of(sql: SqlSpec) -> str:
    """The folder of the files of a query; another query or watermark starts over in another."""
    text = json.dumps([" ".join(sql.query.split()), sql.watermark])
    return f"query-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


# By a watermark


def _pull_new(sql: SqlSpec, column: str, landing: Landing) -> Pulled | None:
    """None when another pull was faster: what it landed is no longer new."""
    folder, latest = series_of(sql), latest_watermark()
    held = _numbers(landing, folder)
    newest = _newest(landing, folder, held, column, latest=latest) if held else None
    with landing.scratch() as scratch:
        found = _read(sql, column, newest, scratch, latest=latest)
        if newest is not None:
            found = _not_landed(found, landing, folder, newest, held=held, column=column)
        if not found.new.rows:
            told = newest.watermark if newest else None
            return Pulled(rows=0, watermark=None if told is None else _as_text(told))
        number = max(held, default=0) + 1
        file, ahead = _write(found, column, number, newest, file=scratch / "landed.parquet")
        name = f"{folder}/{number:06}.parquet"
        try:
            landing.create(name, file)
        except FileExistsError:
            return None
        reached = None if found.newest is None else _as_text(found.newest)
        return Pulled(files=(name,), rows=found.new.rows, watermark=reached, ahead=ahead)


def _not_landed(
    found: _Found,
    landing: Landing,
    folder: str,
    newest: Landed,
    *,
    held: set[int],
    column: str,
) -> _Found:
    """Without rows ahead of an earlier pull that it landed; with those at the watermark it did not.

    Raises:
        SourceError: a file with rows at the watermark is missing.
    """
    places = {each: _file(landing, folder, each) for each in newest.ahead if each in held}
    if places:
        left = Spool(found.folder / "left")
        for table in _untold(found.new, [Held(each) for each in places.values()]):
            left.write(table)
        found = replace(found, new=left)
    if newest.watermark is not None and found.ties.rows:
        at_last = _at_watermark(landing, folder, newest, held, column=column)
        places |= {each.number: each.place for each in at_last}
        ties = [Held(each, column, newest.watermark) for each in places.values()]
        for table in _untold(found.ties, ties):
            found.new.write(table)
    return found


def _file(landing: Landing, folder: str, number: int) -> Place:
    return landing.place(f"{folder}/{number:06}.parquet")


def _numbers(landing: Landing, folder: str) -> set[int]:
    """The numbers of a series that are taken."""
    listed = scan(f"{landing.uri.rstrip('/')}/{folder}", landing.storage_options)
    matches = (_NUMBERED.fullmatch(each.name) for each in listed)
    return {int(match[1]) for match in matches if match}


def _newest(
    landing: Landing, folder: str, held: set[int], column: str, *, latest: dt.datetime
) -> Landed:
    """The newest file; one of an earlier release that stands at a watermark ahead is read for it.

    Its watermark is then the largest sound one in it, else that of the file before.
    """
    landed = _landed(landing, folder, max(held), column)
    ahead: dict[int, pa.Scalar] = {}
    while landed.watermark is not None and _is_ahead(landed.watermark, latest):
        ahead[landed.number] = kind = landed.watermark
        values = _watermarks(landed.place, column)
        sound = values.filter(pc.invert(is_ahead(values, latest)))
        before = None if landed.after is None else pa.scalar(landed.after).cast(kind.type)
        if not len(sound) and before is not None and _is_ahead(before, latest):
            if landed.number - 1 in held:
                landed = _landed(landing, folder, landed.number - 1, column)
                continue
            before = None
        return replace(landed, watermark=pc.max(sound) if len(sound) else before, ahead=ahead)
    return replace(landed, ahead={**landed.ahead, **ahead})


def _is_ahead(watermark: pa.Scalar, latest: dt.datetime) -> bool:
    return is_ahead(pa.array([watermark.as_py()], watermark.type), latest) is not None


def _watermarks(place: Place, column: str) -> Any:
    with place.open() as stream:
        return pq.read_table(stream, columns=[column]).column(column)


def _landed(landing: Landing, folder: str, number: int, column: str) -> Landed:
    place = _file(landing, folder, number)
    try:
        with place.open() as stream:
            schema = pq.read_schema(stream)
        noted = json.loads((schema.metadata or {})[METADATA])
        kind = schema.field(column).type
        text = noted["watermark"]
        watermark = None if text is None else pa.scalar(text).cast(kind)
        listed = noted.get("ahead", {}).items()
        ahead = {int(which): pa.scalar(largest).cast(kind) for which, largest in listed}
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise SourceError(
            f"{place.uri} was landed by a pull, but does not say up to which watermark it goes "
            f"({type(error).__name__}: {error}).",
            stored=NO_INCREMENT,
            way_out="Put the file back as it was, or remove the whole folder to pull all rows "
            "again.",
            culprits={"file": place.uri},
        ) from error
    return Landed(number, place, watermark, noted["after"], ahead)


def _read(
    sql: SqlSpec, column: str, newest: Landed | None, scratch: Path, *, latest: dt.datetime
) -> _Found:
    """All rows the query gives, those to be landed kept; none is kept when one cannot be."""
    last = newest.watermark if newest else None
    found = _Found(scratch, Spool(scratch / "new"), Spool(scratch / "ties"), last, latest)
    if last is not None:
        found.kinds.add(_kind(last.type))
    for table in read_tables(sql, last):
        _sort_out(table, column, last, found)
    if found.empty:
        raise SourceError(
            f"{found.empty:,} rows have no {column!r}, so that nobody could tell later whether "
            "they were landed.",
            stored=NO_INCREMENT,
            way_out=f"Leave them out (`where {column} is not null`) or give them a value "
            f"(`coalesce`) in source.sql.query.",
            culprits={"watermark": column, "rows": found.empty},
        )
    return found


def _sort_out(table: pa.Table, column: str, last: pa.Scalar | None, found: _Found) -> None:
    values = table.column(column)
    missing = pc.is_null(values, nan_is_null=True)
    found.empty += pc.sum(missing).as_py() or 0
    if table.num_rows == 0 or found.empty:
        return
    found.kinds.add(_kind(values.type))
    if len(found.kinds) > 1 or "other" in found.kinds:
        raise _unordered(column, values.type, found.kinds)
    later = is_ahead(values, found.latest)
    largest = pc.max(values if later is None else values.filter(pc.invert(later)))
    if largest.is_valid and (found.newest is None or largest.as_py() > found.newest.as_py()):
        found.newest = largest
    if last is None:
        found.new.write(table)
        return
    for spool, compare in ((found.new, pc.greater), (found.ties, pc.equal)):
        chosen = table.filter(compare(values, last))
        if chosen.num_rows:
            spool.write(chosen)


def _kind(type_: pa.DataType) -> str:
    """Types of one kind can be compared with each other."""
    kinds = {
        "number": (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
        "text": (pa.types.is_string, pa.types.is_large_string),
        "date": (pa.types.is_date,),
    }
    if pa.types.is_timestamp(type_):
        return "time with a zone" if type_.tz else "time"
    return next((kind for kind, are in kinds.items() if any(is_(type_) for is_ in are)), "other")


def _unordered(column: str, type_: pa.DataType, kinds: set[str]) -> SourceError:
    told = " and ".join(sorted(kinds)) if len(kinds) > 1 else str(type_)
    return SourceError(
        f"The watermark {column!r} holds {told}; it must be of one kind: number, text, date or "
        "time.",
        stored=NO_INCREMENT,
        way_out="Cast the column in source.sql.query, or name another one.",
        culprits={"watermark": column, "type": str(type_)},
    )


def _at_watermark(
    landing: Landing, folder: str, newest: Landed, held: set[int], *, column: str
) -> list[Landed]:
    """The files with rows exactly at the newest watermark: a row of files, the newest last."""
    files = [newest]
    while files[0].continues:
        before = files[0].number - 1
        if before not in held:
            raise SourceError(
                f"{before:06}.parquet is missing in {landing.uri}/{folder}; rows in it cannot be "
                "told from new ones.",
                stored=NO_INCREMENT,
                way_out="Put the file back, or remove the whole folder to pull all rows again.",
                culprits={"file": f"{folder}/{before:06}.parquet"},
            )
        files.insert(0, _landed(landing, folder, before, column))
    return files


def _untold(read: Spool, landed: Sequence[Held]) -> Iterator[pa.Table]:
    """Rows that were not landed before, each as often as it came since."""
    positions = rows_not_in(read, landed)
    first = 0
    for table in read.tables():
        here = pc.subtract(positions, first)
        here = here.filter(pc.and_(pc.greater_equal(here, 0), pc.less(here, table.num_rows)))
        if len(here):
            yield table.take(here)
        first += table.num_rows


def _write(
    found: _Found, column: str, number: int, newest: Landed | None, *, file: Path
) -> tuple[Path, int]:
    """The file, and how many of its rows are ahead of this pull by more than is usual."""
    schema = found.new.schema()
    kind = schema.field(column).type
    if _kind(kind) not in found.kinds:
        raise _unordered(column, kind, found.kinds | {_kind(kind)})
    last = newest.watermark if newest else None
    rows, ahead = _ahead_in(found.new, column, found.latest)
    before = {
        which: _as_text(largest)
        for which, largest in (newest.ahead if newest else {}).items()
        if found.newest is None or largest.as_py() >= found.newest.as_py()
    }
    noted = {
        "number": number,  # no two files of a series are the same
        "after": None if last is None else _as_text(_in_type(last, kind)),
        "watermark": None if found.newest is None else _as_text(found.newest.cast(kind)),
        "ahead": before | ({} if ahead is None else {number: _as_text(ahead.cast(kind))}),
    }
    write_spooled(found.new, schema, noted, file)
    return file, rows


def _ahead_in(rows: Spool, column: str, latest: dt.datetime) -> tuple[int, pa.Scalar | None]:
    """How many rows are so far ahead that it is told, and the largest watermark of all ahead.

    None where none is.
    """
    count, largest, untold = 0, None, latest_untold(latest)
    for table in rows.tables():
        later = is_ahead(table.column(column), latest)
        if later is None:
            continue
        told = is_ahead(table.column(column), untold)
        count += 0 if told is None else pc.sum(told).as_py()
        found = pc.max(table.column(column).filter(later))
        largest = found if largest is None or found.as_py() > largest.as_py() else largest
    return count, largest


def _in_type(watermark: pa.Scalar, kind: pa.DataType) -> pa.Scalar:
    """In the type of the rows that follow it, or as it is: 14.5 is before every whole number."""
    try:
        return watermark.cast(kind)
    except pa.ArrowInvalid:
        return watermark


def _as_text(watermark: pa.Scalar) -> str:
    return str(watermark.cast(pa.string()).as_py())


# All rows


def _pull_whole(sql: SqlSpec, landing: Landing) -> Pulled:
    with landing.scratch() as scratch:
        rows = Spool(scratch / "rows")
        for table in read_tables(sql):
            rows.write(table)
        place = landing.place(WHOLE)
        place.fs.invalidate_cache()
        there = place.is_file()
        if rows.rows == 0 and there:
            raise SourceError(
                "The query gives no row any more, and rows were landed before.",
                stored=f"{place.uri} is kept as it was.",
                way_out="Correct source.sql.query; if there really are no rows, remove the file.",
                culprits={"file": place.uri},
            )
        if rows.rows == 0 or (there and _is_same(rows, place)):
            return Pulled(rows=0)
        file = scratch / "landed.parquet"
        write_spooled(rows, rows.schema(), {}, file)
        landing.replace(WHOLE, file)
        return Pulled(files=(WHOLE,), rows=rows.rows)


def _is_same(rows: Spool, place: Place) -> bool:
    with place.open() as stream:
        held = pq.ParquetFile(stream)
        count, names = held.metadata.num_rows, set(held.schema_arrow.names)
    if count != rows.rows or names != set(rows.schemas[0].names):
        return False
    return len(rows_not_in(rows, [Held(place)])) == 0
