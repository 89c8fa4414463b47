"""Dagster's storage on PostgreSQL, for many small runs on several machines.

Dagster's own opens a connection for each query, two hundred a run: each is a new process of the
server and a password that both sides work out. Here a process keeps its connections. Tables and
queries are Dagster's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_postgres import (
    DagsterPostgresStorage,
    PostgresEventLogStorage,
    PostgresRunStorage,
    PostgresScheduleStorage,
)
from dagster_postgres.utils import pg_url_from_config
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from mlops_assets.runtime.dagster_storage.sqlite import KnownTables, kept_engine

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from mlops_assets.runtime.dagster_compat import ConfigurableClassData, PostgresStorageConfig

_KEPT = 2
"""Idle connections of a process; one that executes runs seldom uses two at once."""


class _Kept:
    """Connections that a process keeps, in place of a new one for each query."""

    postgres_url: str
    _of_webserver: Engine | None = None

    @property
    def _engine(self) -> Engine:
        return self._of_webserver or kept_engine(self.postgres_url, self._made)

    @_engine.setter
    def _engine(self, made: Engine) -> None:
        """Dagster's own keeps nothing, but for one that it has made for a webserver."""
        self._of_webserver = None if isinstance(made.pool, NullPool) else made

    def _made(self) -> Engine:
        return create_engine(
            self.postgres_url,
            isolation_level="AUTOCOMMIT",  # as Dagster's statements expect
            pool_size=_KEPT,
            max_overflow=-1,
            pool_pre_ping=True,  # the server may have been restarted since
        )

    def dispose(self) -> None:
        """Close what nobody uses just now; whoever comes next has a new connection."""
        super().dispose()  # pyright: ignore[reportAttributeAccessIssue]
        self._engine.dispose()


class _Runs(_Kept, PostgresRunStorage):
    """Runs, their tags, backfills and heartbeats."""


class _Schedules(_Kept, PostgresScheduleStorage):
    """Ticks and cursors of sensors and schedules."""


class _Events(_Kept, KnownTables, PostgresEventLogStorage):
    """Events of all runs."""


class PostgresHistory(DagsterPostgresStorage):
    """All of a Dagster instance's storage in one database, see the module.

    Args:
        postgres_url: of the database; its tables are made where they are missing.
        inst_data: the settings it is made from.
    """

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        self.postgres_url = postgres_url
        self.should_autocreate_tables = True
        self._inst_data = inst_data
        self._run_storage = _Runs(postgres_url)
        self._event_log_storage = _Events(postgres_url)
        self._schedule_storage = _Schedules(postgres_url)
        super(DagsterPostgresStorage, self).__init__()

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: PostgresStorageConfig
    ) -> PostgresHistory:
        """As Dagster makes it from `dagster.yaml`."""
        return cls(pg_url_from_config(config_value), inst_data)
