"""Dagster's storage on SQLite, for many small runs on one machine.

Dagster's own opens a connection, and compiles its statements anew, for each of the two hundred
queries of a run, and keeps one database a run, whose schema it migrates each time. Here a process
keeps its connections, and all runs are in one event log. The tables are Dagster's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from sqlalchemy import create_engine, event
from sqlalchemy.pool import QueuePool

from mlops_assets.runtime.dagster_compat import (
    ConsolidatedSqliteEventLogStorage,
    DagsterSqliteStorage,
    SqliteRunStorage,
    SqliteScheduleStorage,
    SqlPollingEventWatcher,
)

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

    from mlops_assets.runtime.dagster_compat import (
        ConfigurableClassData,
        EventHandlerFn,
        EventLogEntry,
        UserConfigSchema,
    )

_PATIENCE_SECONDS = 60
"""How long a writer waits for another process; SQLite takes one at a time."""
_engines: dict[tuple[int, str], Engine] = {}


def kept_engine(url: str, made: Callable[[], Engine]) -> Engine:
    """The engine of this process for a database; a fork never uses its parent's connections."""
    key = (os.getpid(), url)
    if key not in _engines:
        _engines[key] = made()
    return _engines[key]


def _engine(url: str) -> Engine:
    def made() -> Engine:
        engine = create_engine(
            url,
            poolclass=QueuePool,
            max_overflow=-1,  # a thread of the webserver never waits for another one
            connect_args={"timeout": _PATIENCE_SECONDS},
        )
        event.listen(engine, "connect", _relax)
        return engine

    return kept_engine(url, made)


def _close_idle() -> None:
    """Before a fork: SQLite in the fork would take the locks of these connections for its own.

    It would hold none in truth, and what it writes would be dropped with the log that whoever
    closes last, as it seems, takes away.
    """
    for (process, _), engine in list(_engines.items()):
        if process == os.getpid():
            engine.dispose()


os.register_at_fork(before=_close_idle)


def _relax(connection: Any, record: object) -> None:
    """No sync of the disk at each commit.

    With a write-ahead log a killed process loses nothing, and a power cut the newest events at
    most, never the database.
    """
    connection.execute("pragma synchronous = normal")


class _Open(threading.local):
    """The transaction that a thread is in, if any."""

    connection: Connection | None = None


class _Kept:
    """Connections that a process keeps, in place of a new one for each query."""

    _conn_string: str

    @cached_property
    def _open(self) -> _Open:
        return _Open()

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection in the transaction that this thread is in, or in one of its own."""
        if self._open.connection is not None:
            yield self._open.connection
            return
        with _engine(self._conn_string).connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What this thread does meanwhile is one transaction: all of it is stored, or nothing."""
        with self.connect() as connection:
            self._open.connection = connection
            try:
                yield
            finally:
                self._open.connection = None

    def dispose(self) -> None:
        """Close what nobody uses just now; whoever comes next has a new connection."""
        _engine(self._conn_string).dispose()


class RunStorage(_Kept, SqliteRunStorage):
    """Runs, their tags, backfills and heartbeats."""


class ScheduleStorage(_Kept, SqliteScheduleStorage):
    """Ticks and cursors of sensors and schedules."""


class KnownTables:
    """A table or a column that the database has once is not looked for again."""

    @cached_property
    def _known(self) -> set[str]:
        return set()

    def has_table(self, table_name: str) -> bool:
        """Whether the database has a table."""
        if table_name not in self._known and super().has_table(table_name):  # pyright: ignore[reportAttributeAccessIssue]
            self._known.add(table_name)
        return table_name in self._known

    @cached_property
    def _known_columns(self) -> set[str]:
        return set()

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        if column_name not in self._known_columns and super()._has_asset_key_col_on_connection(  # pyright: ignore[reportAttributeAccessIssue]
            conn, column_name
        ):
            self._known_columns.add(column_name)
        return column_name in self._known_columns


class EventLogStorage(_Kept, KnownTables, ConsolidatedSqliteEventLogStorage):
    """Events of all runs in one database.

    Args:
        base_dir: its folder.
        schedules: closed with it, as Dagster closes runs and events alone.
    """

    def __init__(self, base_dir: str, schedules: SqliteScheduleStorage) -> None:
        super().__init__(base_dir)
        self._schedules = schedules

    @cached_property
    def _watcher(self) -> SqlPollingEventWatcher:
        return SqlPollingEventWatcher(self)

    def watch(self, run_id: str, cursor: str | None, callback: EventHandlerFn) -> None:
        """Tell of new events of a run.

        By asking: the file that Dagster watches does not change with a write-ahead log.
        """
        self._watcher.watch_run(run_id, cursor, callback)

    def end_watch(self, run_id: str, handler: EventHandlerFn) -> None:
        """Tell no more."""
        self._watcher.unwatch_run(run_id, handler)

    def dispose(self) -> None:
        """End the threads of watched runs, and close what nobody uses."""
        if "_watcher" in self.__dict__:
            self._watcher.close()
        self._schedules.dispose()
        super().dispose()

    def store_event(self, event: EventLogEntry) -> None:
        """Store an event with what follows from it: newest of an asset, state of a check."""
        with self.at_once():
            super().store_event(event)

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        with self.connect() as connection:
            yield connection


class SqliteHistory(DagsterSqliteStorage):
    """All of a Dagster instance's storage in one folder, see the module.

    Args:
        base_dir: the folder.
        inst_data: the settings it is made from.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self.base_dir = base_dir
        self._inst_data = inst_data
        folder = Path(base_dir)
        folder.mkdir(parents=True, exist_ok=True)
        # Many processes begin together; a database that two of them create is broken for ever.
        with FileLock(folder / ".lock"):
            self._run_storage = RunStorage.from_local(str(folder / "runs"))
            self._schedule_storage = ScheduleStorage.from_local(str(folder / "schedules"))
            self._event_log_storage = EventLogStorage(
                str(folder / "events"), self._schedule_storage
            )
        super(DagsterSqliteStorage, self).__init__()

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """As Dagster's own."""
        return super().config_type()

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Any
    ) -> SqliteHistory:
        """As Dagster makes it from `dagster.yaml`."""
        return cls(inst_data=inst_data, **config_value)
