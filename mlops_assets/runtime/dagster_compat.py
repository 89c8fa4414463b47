"""All that is used of Dagster's private parts; nothing else imports or names them.

A release of Dagster may move or change any of it. Each use has a test in
`mlops_assets_tests/runtime/test_dagster_compat.py`, so that an upgrade that breaks one says so
before anything runs. Importing this is free: a name is imported from Dagster when it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mlops_assets.runtime.late import Private, find

if TYPE_CHECKING:
    import logging

    import dagster as dg
    from dagster._config import UserConfigSchema as UserConfigSchema
    from dagster._core.code_pointer import CodePointer as CodePointer
    from dagster._core.code_pointer import ModuleCodePointer as ModuleCodePointer
    from dagster._core.definitions.reconstruct import ReconstructableJob as ReconstructableJob
    from dagster._core.definitions.reconstruct import (
        ReconstructableRepository as ReconstructableRepository,
    )
    from dagster._core.event_api import EventHandlerFn as EventHandlerFn
    from dagster._core.events import EngineEventData as EngineEventData
    from dagster._core.events.log import EventLogEntry as EventLogEntry
    from dagster._core.launcher import CheckRunHealthResult as CheckRunHealthResult
    from dagster._core.launcher import LaunchRunContext as LaunchRunContext
    from dagster._core.launcher import WorkerStatus as WorkerStatus
    from dagster._core.run_coordinator.queued_run_coordinator import (
        QueuedRunCoordinator as QueuedRunCoordinator,
    )
    from dagster._core.storage.config import PostgresStorageConfig as PostgresStorageConfig
    from dagster._core.storage.event_log import (
        ConsolidatedSqliteEventLogStorage as ConsolidatedSqliteEventLogStorage,
    )
    from dagster._core.storage.event_log.polling_event_watcher import (
        SqlPollingEventWatcher as SqlPollingEventWatcher,
    )
    from dagster._core.storage.runs import SqliteRunStorage as SqliteRunStorage
    from dagster._core.storage.schedules import SqliteScheduleStorage as SqliteScheduleStorage
    from dagster._core.storage.sqlite_storage import DagsterSqliteStorage as DagsterSqliteStorage
    from dagster._daemon.monitoring.run_monitoring import (
        monitor_starting_run as monitor_starting_run,
    )
    from dagster._grpc.impl import core_execute_run as core_execute_run
    from dagster._serdes import ConfigurableClassData as ConfigurableClassData

BACKFILLS_WAIT = "DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR"
"""Variable: a backfill whose assets are not there waits while a code location cannot be loaded."""
NO_COMPUTE_LOGS: Mapping[str, str] = {
    "module": "dagster._core.storage.noop_compute_log_manager",
    "class": "NoOpComputeLogManager",
}
"""Section of `dagster.yaml`: what steps print is captured by nobody."""
LOCAL_FILES: Mapping[str, str] = {
    "module": "dagster._core.storage.root",
    "class": "LocalArtifactStorage",
}
"""Section of `dagster.yaml`: files of the instance in `config.base_dir`."""

PRIVATE: Mapping[str, Private] = {
    "CheckRunHealthResult": Private(
        "dagster._core.launcher", "what a launcher answers run monitoring: a status and a text"
    ),
    "CodePointer": Private("dagster._core.code_pointer", "a type"),
    "ConfigurableClassData": Private("dagster._serdes", "a type"),
    "ConsolidatedSqliteEventLogStorage": Private(
        "dagster._core.storage.event_log",
        "takes its connections from `_connect()`, sets `_conn_string`; `has_table`, "
        "`_has_asset_key_col_on_connection`, `watch`, `end_watch`, `store_event` and `dispose` "
        "are overridden",
    ),
    "DagsterSqliteStorage": Private(
        "dagster._core.storage.sqlite_storage",
        "serves what `_run_storage`, `_event_log_storage` and `_schedule_storage` hold",
    ),
    "EngineEventData": Private("dagster._core.events", "takes metadata by name"),
    "EventHandlerFn": Private("dagster._core.event_api", "a type"),
    "EventLogEntry": Private("dagster._core.events.log", "a type"),
    "LaunchRunContext": Private("dagster._core.launcher", "a type; has `dagster_run`"),
    "ModuleCodePointer": Private(
        "dagster._core.code_pointer", "names a module and a function; two of other names differ"
    ),
    "PostgresStorageConfig": Private("dagster._core.storage.config", "a type"),
    "QueuedRunCoordinator": Private(
        "dagster._core.run_coordinator.queued_run_coordinator",
        "`submit_run(context)` is where every run comes by; `_instance` is set on it",
    ),
    "ReconstructableJob": Private(
        "dagster._core.definitions.reconstruct",
        "of a repository and a name; asks the repository for its definition",
    ),
    "ReconstructableRepository": Private(
        "dagster._core.definitions.reconstruct",
        "of a code pointer, by which definitions are kept; `get_definition` is overridden",
    ),
    "SqlPollingEventWatcher": Private(
        "dagster._core.storage.event_log.polling_event_watcher",
        "`watch_run`, `unwatch_run` and `close`",
    ),
    "SqliteRunStorage": Private(
        "dagster._core.storage.runs",
        "`from_local` sets `_conn_string`; takes its connections from `connect()`",
    ),
    "SqliteScheduleStorage": Private(
        "dagster._core.storage.schedules",
        "`from_local` sets `_conn_string`; takes its connections from `connect()`",
    ),
    "UserConfigSchema": Private("dagster._config", "a type"),
    "WorkerStatus": Private("dagster._core.launcher", "has RUNNING and FAILED"),
    "core_execute_run": Private(
        "dagster._grpc.impl", "executes a run here and yields its events; raises interrupts alone"
    ),
    "monitor_starting_run": Private(
        "dagster._daemon.monitoring.run_monitoring",
        "what run monitoring does with a run that was handed over and has not begun",
    ),
}
"""By name; `from mlops_assets.runtime.dagster_compat import <name>` gives Dagster's own."""


def __getattr__(name: str) -> Any:
    return find(__name__, PRIVATE, name)


def run_id_of(packed: Any) -> str:
    """The run that a task of dagster-celery's launcher is about.

    Relies on the task's argument being `ExecuteRunArgs` as `pack_value` writes it.
    """
    from dagster._grpc.types import ExecuteRunArgs
    from dagster._serdes import unpack_value

    return unpack_value(packed, as_type=ExecuteRunArgs).run_id


def tune_daemon(
    backfill_seconds: int,
    workspace_seconds: int,
    monitor: Callable[[dg.DagsterInstance, dg.RunRecord, logging.Logger], None],
) -> None:
    """Set what Dagster's daemon, started by this process hereafter, has no settings for.

    While the code location is away, as when YAML was saved, a backfill of assets waits for it:
    Dagster would end it as one whose assets are gone, but for a variable that it reads when it is
    about to.

    Relies on the loop over backfills reading its interval at each turn, on the controller reading
    the other one, and on run monitoring calling the function by its name in the module.

    Args:
        backfill_seconds: between two looks at backfills.
        workspace_seconds: after which everything is asked of the code server again.
        monitor: looks at a run that was handed over and has not begun, in place of Dagster's.
    """
    from dagster._daemon import controller
    from dagster._daemon.monitoring import run_monitoring

    os.environ[BACKFILLS_WAIT] = "1"
    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = backfill_seconds
    controller.RELOAD_WORKSPACE_INTERVAL = workspace_seconds
    run_monitoring.monitor_starting_run = monitor


def serve_daemon() -> None:
    """Dagster's daemon with the arguments of this process, as `dagster-daemon` is."""
    from dagster._daemon.cli import main

    main()
