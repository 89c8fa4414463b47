"""SQL over everything stored: a DuckDB view per asset, a schema per product.

A view is fixed to the versions that are current when it is made, or were at a moment asked for, so
all queries of one connection see the same data; connect again to see later versions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from mlops_assets.atomic import settle, temporary
from mlops_assets.errors import StorageError
from mlops_assets.quoting import identifier, literal
from mlops_assets.storage.records import LogFile, Path, Snapshot, moment_in_utc

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

    from mlops_assets.storage.snapshots import SnapshotStore

_Result = TypeVar("_Result")
_COUNTED_AT_ONCE = 10_000
PARTITION_COLUMN = "_country"
"""First column of every view; a data column of that name becomes `_country_1`."""

# A column that no data has, for DuckDB to say which file a row is from.
_FILE_COLUMN = "__mlops_assets_file"


@dataclass(frozen=True)
class _View:
    """A view to be.

    Attributes:
        schema: of DuckDB.
        name: in the schema.
        asset: what it shows.
        is_log: whether it shows the asset's log or its snapshots.
        files: the files under it, each with its partition.
        empty: those of the files that hold no rows, and so have no say in the types of columns.
        problem: why it cannot be queried; "" if it can.
    """

    schema: str
    name: str
    asset: Path
    is_log: bool
    files: Mapping[str, str | None]
    empty: frozenset[str] = frozenset()
    problem: str = ""

    @property
    def title(self) -> str:
        return f"{identifier(self.schema)}.{identifier(self.name)}"


ListedPartitions = Mapping[str, Collection[str]]
"""Product: the partitions that its views show; those of other products show all."""


def connect(
    store: SnapshotStore, as_of: datetime | None = None, listed: ListedPartitions | None = None
) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with a view per asset over the current snapshots of all partitions.

    Schema and view are the first and the other parts of the asset key (`power_price.features`;
    further parts are joined by `_`; an asset of one part is in the schema `main`). The first
    column is `_country`, null for an asset without partitions. An append-only log is a view under
    the asset's name, or `<name>_log` where there are snapshots too. A view whose files do not fit
    together raises when it is queried, and says why.

    Args:
        store: the snapshots and logs.
        as_of: a moment with its time zone; the views are over what was current then, and logs end
            there. An asset of which nothing was stored then has no view.
        listed: partitions that the views show; None: all. Logs are history and show all, and so
            does a moment: what is listed today says nothing of what was current then.

    Raises:
        StorageError: the moment has no time zone.
    """
    views = _views(store, listed if as_of is None else None)
    return _connected(store, _views_at(store, views, as_of))


def write_catalog(store: SnapshotStore, path: str, listed: ListedPartitions | None = None) -> None:
    """Write a `.duckdb` file with these views, for any client that can read the store's files.

    The file holds views, no rows; write it again to show later versions. An existing file is
    replaced in one step.

    Args:
        store: the snapshots and logs.
        path: of the file.
        listed: as of `connect`; without it a country that was renamed counts under both names.

    Raises:
        StorageError: the store is not local, or the file cannot be written.
    """
    import duckdb

    if store.filesystem is not None:
        raise StorageError(
            f"A catalog file over {store.uri!r} would need that store's keys in every client.",
            way_out="Use `connect` or `mlops-assets sql` for object stores.",
        )
    target = os.path.abspath(path)
    try:
        with temporary(os.path.dirname(target)) as written:
            with _without_log(written), duckdb.connect(written) as connection:
                _create(connection, _views(store, listed))
            settle(written, target)
    except (OSError, duckdb.IOException) as error:
        raise StorageError(
            f"The catalog {path!r} could not be written: {error}.",
            stored="A catalog that was there before is unchanged.",
            way_out="Check the folder and its free space.",
        ) from error


@contextmanager
def _without_log(path: str) -> Iterator[None]:
    """Remove what DuckDB leaves beside a file that it could not finish."""
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(f"{path}.wal")


@dataclass(frozen=True)
class SqlRows:
    """Rows of a query with the very values of the database: whole numbers are whole, null is None.

    Attributes:
        names: of the columns, no two alike: a second `a` is `a_1`.
        rows: one tuple of Python values a row.
        left_out: how many more rows there are.
    """

    names: Sequence[str]
    rows: Sequence[tuple[object, ...]]
    left_out: int = 0


def run_sql(
    store: SnapshotStore,
    query: str,
    as_of: datetime | None = None,
    *,
    listed: ListedPartitions | None = None,
) -> pd.DataFrame:
    """The result of a query over the views of `connect`, as a frame.

    Args:
        store: the snapshots and logs.
        query: one SQL statement of DuckDB.
        as_of: a moment with its time zone; None for what is current now.
        listed: as of `connect`.

    Raises:
        StorageError: the query names a table that is not there (the message lists those that
            are), is not valid, or fails.
    """
    return _run(store, query, as_of, _frame, listed=listed)


def sql_rows(
    store: SnapshotStore,
    query: str,
    as_of: datetime | None = None,
    *,
    listed: ListedPartitions | None = None,
    limit: int | None = None,
) -> SqlRows:
    """The rows of a query; see `run_sql`.

    Args:
        store: the snapshots and logs.
        query: one SQL statement of DuckDB.
        as_of: a moment with its time zone; None for what is current now.
        listed: as of `connect`.
        limit: rows that are kept; the others are counted. None: all.

    Raises:
        StorageError: as `run_sql`.
    """

    def read(connection: duckdb.DuckDBPyConnection, text: str) -> SqlRows:
        return _rows(connection, text, limit)

    return _run(store, query, as_of, read, listed=listed)


def _frame(connection: duckdb.DuckDBPyConnection, query: str) -> pd.DataFrame:
    import pandas as pd

    result = connection.sql(query)
    # A query without a statement, or one without rows, such as `;` or `set`.
    return result.df() if result is not None else pd.DataFrame()


def _rows(connection: duckdb.DuckDBPyConnection, query: str, limit: int | None) -> SqlRows:
    statements = connection.extract_statements(query)
    if not statements:
        return SqlRows((), ())
    *before, last = statements  # each is run once; the last one has the rows
    for each in before:
        connection.execute(each)
    found = connection.execute(last)
    names, left_out = _apart(str(column[0]) for column in found.description or ()), 0
    kept = found.fetchall() if limit is None else found.fetchmany(limit)
    while more := found.fetchmany(_COUNTED_AT_ONCE):
        left_out += len(more)
    return SqlRows(names, kept, left_out)


def _apart(names: Iterable[str]) -> list[str]:
    """Names of which no two are alike: a second `a` is `a_1`, where no other column is."""
    given = list(names)
    taken, found = set(given), []
    for place, name in enumerate(given):
        free = name
        if name in given[:place]:
            free = next(each for n in count(1) if (each := f"{name}_{n}") not in taken)
            taken.add(free)
        found.append(free)
    return found


def _run(
    store: SnapshotStore,
    query: str,
    as_of: datetime | None,
    read: Callable[[duckdb.DuckDBPyConnection, str], _Result],
    *,
    listed: ListedPartitions | None = None,
) -> _Result:
    import duckdb

    views = _views(store, listed if as_of is None else None)
    needed = _views_at(store, _needed(query, views), as_of)
    try:
        with _connected(store, needed) as connection:
            return read(connection, query)
    except duckdb.CatalogException as error:
        raise _not_there(error, _views_at(store, views, as_of), as_of) from error
    except duckdb.Error as error:
        # A column that a view without its files does not have is not what is wrong.
        told = [f"{view.title}: {view.problem}" for view in needed if view.problem]
        raise StorageError(
            f"The query failed: {' '.join([*told, _first_line(error)])}.",
            stored="Nothing was changed.",
            way_out="Correct the query, or materialize what it names again.",
        ) from error


def _not_there(error: Exception, views: Sequence[_View], as_of: datetime | None) -> StorageError:
    titles = sorted(view.title for view in views)
    when = "" if as_of is None else f" at {as_of}"
    return StorageError(
        f"The query names something that is not there{when}: {_first_line(error)}.",
        stored="Nothing was read.",
        way_out=f"There are: {', '.join(titles) or 'none yet'}.",
        culprits={"tables": titles},
    )


def _first_line(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).partition("LINE ")[0].splitlines()).strip()


def _needed(query: str, views: Sequence[_View]) -> list[_View]:
    """Only the views a query names: each one costs opening all of its files.

    A query that names anything else (`show tables`, information_schema) may mean any of them.
    """
    import duckdb

    with duckdb.connect() as connection:
        try:
            named = {name.lower() for name in connection.get_table_names(query)}
        except duckdb.Error:  # let the real connection say what is wrong, or run what has no tables
            return list(views)
    if not named or named - {view.name.lower() for view in views}:
        return list(views)
    return [view for view in views if view.name.lower() in named]


def _connected(store: SnapshotStore, views: Iterable[_View]) -> duckdb.DuckDBPyConnection:
    import duckdb

    connection = duckdb.connect()
    if store.filesystem is not None:
        connection.register_filesystem(store.filesystem)
    _create(connection, views)
    return connection


def _views(store: SnapshotStore, listed: ListedPartitions | None = None) -> list[_View]:
    views: list[_View] = []
    taken: set[tuple[str, str]] = set()
    logs: list[_View] = []
    for asset in store.assets():
        schema, name = _schema_and_name(asset)
        current = [store.current(asset, None), *store.current_all(asset).values()]
        if any(current):
            title = _free(name, schema, taken)
            views.append(_over(_View(schema, title, asset, False, {}), current, listed))
        if entries := store.log_files(asset):
            logs.append(_View(schema, name, asset, True, _files(entries)))
    return views + [replace(log, name=_free(log.name, log.schema, taken)) for log in logs]


def _views_at(
    store: SnapshotStore,
    views: Sequence[_View],
    as_of: datetime | None,
) -> list[_View]:
    """The views as they were at a moment, without those that had nothing then."""
    if as_of is None:
        return list(views)
    moment = moment_in_utc(as_of)
    then = [_view_at(store, view, moment) for view in views]
    return [view for view in then if view.files or view.problem]


def _view_at(store: SnapshotStore, view: _View, moment: datetime) -> _View:
    if view.is_log:
        return replace(view, files=_files(store.log_files(view.asset, as_of=moment)))
    try:
        one = store.as_of(view.asset, None, moment)
        return _over(view, [one, *store.as_of_all(view.asset, moment).values()])
    except StorageError as error:  # one asset's removed version must not stop the others
        return replace(view, files={}, problem=f"{error.problem} {error.way_out}")


def _over(
    view: _View, snapshots: Iterable[Snapshot | None], listed: ListedPartitions | None = None
) -> _View:
    shown = (listed or {}).get(view.asset[0])
    there = [
        each
        for each in snapshots
        if each is not None and (shown is None or each.partition is None or each.partition in shown)
    ]
    return replace(
        view,
        files={snapshot.uri: snapshot.partition for snapshot in there},
        empty=frozenset(snapshot.uri for snapshot in there if not snapshot.rows),
    )


def _files(entries: Iterable[LogFile]) -> dict[str, str | None]:
    return {entry.uri: entry.partition for entry in entries}


def _schema_and_name(asset: Sequence[str]) -> tuple[str, str]:
    product, *rest = asset
    return (product, "_".join(rest)) if rest else ("main", product)


def _free(name: str, schema: str, taken: set[tuple[str, str]]) -> str:
    """The name, or with `_log` added until it is free (DuckDB ignores case)."""
    while (schema.lower(), name.lower()) in taken:
        name = f"{name}_log"
    taken.add((schema.lower(), name.lower()))
    return name


def _create(connection: duckdb.DuckDBPyConnection, views: Iterable[_View]) -> None:
    for view in views:
        connection.execute(f"create schema if not exists {identifier(view.schema)}")
        connection.execute(f"create view {view.title} as {_checked_select(connection, view)}")


def _checked_select(connection: duckdb.DuckDBPyConnection, view: _View) -> str:
    """The query of a view, or one that raises: one asset's bad files must not stop the others."""
    import duckdb

    if view.problem:
        return _raising(view, view.problem)
    filled = {uri: key for uri, key in view.files.items() if uri not in view.empty}
    select = _select(filled or view.files)
    try:
        connection.execute(f"explain {select}")
    except duckdb.Error as error:
        if not filled and "one non-root column" in str(error):
            return _select({})
        return _raising(view, _first_line(error))
    return select


def _raising(view: _View, problem: str) -> str:
    # In the condition, which no query can leave out: counting rows would not look at a column.
    text = literal(f"{view.title} cannot be queried: {problem}")
    return f"select null as error where error({text}) is null"


def _select(files: Mapping[str, str | None]) -> str:
    if not files:
        return f"select null::varchar as {PARTITION_COLUMN} where false"
    listed = ", ".join(literal(uri) for uri in files)
    partitions = {uri: key for uri, key in files.items() if key is not None}
    return (
        f"select {_partition_of(partitions)} as {PARTITION_COLUMN}, * exclude ({_FILE_COLUMN}) "
        f"from read_parquet([{listed}], union_by_name=true, hive_partitioning=false, "
        f"filename={literal(_FILE_COLUMN)})"
    )


def _partition_of(files: Mapping[str, str]) -> str:
    if not files:
        return "null::varchar"
    keys = ", ".join(f"{literal(uri)}: {literal(key)}" for uri, key in files.items())
    return f"map {{{keys}}}[{_FILE_COLUMN}]"
