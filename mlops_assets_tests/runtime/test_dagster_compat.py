"""Everything of Dagster that no release promises to keep is as it was when we began to use it."""

import datetime as dt
import inspect
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions import data_version
from dagster._core.execution import asset_backfill
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
)
from dagster._core.storage import tags as dagsters
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._daemon import backfill, cli, controller
from dagster._daemon.monitoring import run_monitoring
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import pack_value
from dagster._utils.schedules import get_latest_completed_cron_tick
from dagster_postgres import (
    DagsterPostgresStorage,
    PostgresEventLogStorage,
    PostgresRunStorage,
    PostgresScheduleStorage,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.pool import QueuePool

from mlops_assets.runtime import dagster_compat
from mlops_assets.runtime.dagster_compat import PRIVATE, Private
from mlops_assets.runtime.dagster_storage import postgres, sqlite
from mlops_assets.runtime.headless import jobs, workers
from mlops_assets.runtime.workers import coordinator, kubernetes, run_executor, sizes
from mlops_assets.spec.fields import Cron
from mlops_assets.stages.common import runs
from mlops_assets.stages.common.history.run_history import OfPartition
from mlops_assets.stages.retraining import state
from mlops_assets_tests.effort import examples
from mlops_assets_tests.relied_on import names_in, parameters, typed

_CRONS = TypeAdapter(Cron)


@pytest.mark.parametrize("name", PRIVATE)
def test_each_name_is_where_it_was(name: str) -> None:
    private = PRIVATE[name]
    module = import_module(private.module)
    assert hasattr(module, name), f"{private.module} has no {name}: {private.relied_on}"
    assert getattr(dagster_compat, name) is getattr(module, name)


def test_the_type_checker_sees_the_same_names() -> None:
    assert typed(dagster_compat) == {name: each.module for name, each in PRIVATE.items()}


def test_a_name_that_is_not_listed_is_not_there() -> None:
    with pytest.raises(AttributeError, match="dagster_compat' has no attribute 'Workspace'"):
        _ = dagster_compat.Workspace  # pyright: ignore[reportAttributeAccessIssue]
    gone = {"Gone": Private("dagster._core.launcher", "nothing")}
    with pytest.raises(AttributeError, match="Gone"):
        dagster_compat.find("here", gone, "Gone")


@pytest.mark.parametrize(
    ("section", "settings"),
    [(dagster_compat.NO_COMPUTE_LOGS, set()), (dagster_compat.LOCAL_FILES, {"base_dir"})],
)
def test_the_classes_named_in_dagster_yaml_are_there_and_take_their_settings(
    section: dict[str, str], settings: set[str]
) -> None:
    named: Any = getattr(import_module(section["module"]), section["class"])
    assert set(named.config_type()) >= settings


# Tags and states that are written out


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (runs.PARTITION, dagsters.PARTITION_NAME_TAG),
        (sizes.PARTITION_TAG, dagsters.PARTITION_NAME_TAG),
        (runs.RANGE_START, dagsters.ASSET_PARTITION_RANGE_START_TAG),
        (runs.RANGE_END, dagsters.ASSET_PARTITION_RANGE_END_TAG),
        (workers.RANGE_START, dagsters.ASSET_PARTITION_RANGE_START_TAG),
        (workers.RANGE_END, dagsters.ASSET_PARTITION_RANGE_END_TAG),
        (runs.RUN_KEY, dagsters.RUN_KEY_TAG),
        (set(runs._TOLD_BY), {
            dagsters.SCHEDULE_NAME_TAG, dagsters.SENSOR_NAME_TAG, dagsters.BACKFILL_ID_TAG
        }),
        (coordinator._PRIORITY_TAG, dagsters.PRIORITY_TAG),
        (workers._REPOSITORY_TAG, dagsters.REPOSITORY_LABEL_TAG),
        (jobs._REPOSITORY_TAG, dagsters.REPOSITORY_LABEL_TAG),
        (runs.DATA_VERSION, data_version.DATA_VERSION_TAG),
        ("dagster/code_version", data_version.CODE_VERSION_TAG),
        (kubernetes.RUN_CONFIG_TAG, "dagster-k8s/config"),
    ],
)  # fmt: skip
def test_tags_are_called_as_dagster_calls_them(ours: object, theirs: object) -> None:
    assert ours == theirs


def test_a_switched_on_schedule_is_known_by_these_words() -> None:
    on = (InstigatorType.SCHEDULE.value, InstigatorStatus.RUNNING.value)
    assert on == state._ON
    assert {"name", "status", "instigator_type"} <= set(dir(InstigatorState))
    assert "start_timestamp" in ScheduleInstigatorData._fields
    all_states = inspect.signature(dg.DagsterInstance.all_instigator_state).parameters.values()
    assert all(each.default is None for each in all_states if each.name != "self")


# Cron


_PARTS = st.sampled_from(
    ["*", "0", "1", "2", "5", "7", "12", "23", "29", "30", "31", "59", "*/5", "1-5", "5-5", "0-6",
     "0-7", "1,2", "1-5/2", "3/4", "*/2", "mon", "MON-FRI", "sun-sat", "feb", "jan-mar"]
)  # fmt: skip
_MOMENTS = st.datetimes(
    dt.datetime(2024, 1, 1), dt.datetime(2028, 12, 31), timezones=st.just(dt.UTC)
)


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(_PARTS, min_size=5, max_size=5).map(" ".join), _MOMENTS, st.booleans())
def test_a_schedule_was_due_when_dagsters_own_would_have_fired(
    cron: str, now: dt.datetime, whole: bool
) -> None:
    try:
        accepted = _CRONS.validate_python(cron)
    except ValidationError:
        return
    if whole:  # the moment itself counts
        now = get_latest_completed_cron_tick(accepted, now, "UTC").astimezone(dt.UTC)
    assert state.last_due(accepted, now) == get_latest_completed_cron_tick(accepted, now, "UTC")


# The daemon


class _Waited(threading.Event):
    """How long somebody would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return False


@pytest.fixture
def _untuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is tuned here is as it was afterwards."""
    for module, name in (
        (controller, "DEFAULT_DAEMON_INTERVAL_SECONDS"),
        (controller, "RELOAD_WORKSPACE_INTERVAL"),
        (run_monitoring, "monitor_starting_run"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))
    monkeypatch.setenv(dagster_compat.BACKFILLS_WAIT, "")


@pytest.mark.usefixtures("_untuned")
def test_the_daemon_looks_at_backfills_as_often_as_it_is_told() -> None:
    dagster_compat.tune_daemon(3, 3600, dagster_compat.monitor_starting_run)
    waited: Any = _Waited()
    nothing: Any = None
    loop = backfill.execute_backfill_iteration_loop(nothing, logging.getLogger("none"), waited)
    while not waited.seconds:
        next(loop)
    assert 2 < waited.seconds[0] <= 3


@pytest.mark.usefixtures("_untuned")
def test_a_backfill_of_assets_waits_while_the_code_location_is_away() -> None:
    dagster_compat.tune_daemon(3, 3600, dagster_compat.monitor_starting_run)
    assert os.environ[dagster_compat.BACKFILLS_WAIT]
    # The one place in which Dagster gives such a backfill up, or waits.
    checked = asset_backfill._check_validity_of_asset_backfill_data_and_should_process_backfill
    assert dagster_compat.BACKFILLS_WAIT in checked.__code__.co_consts
    assert {"environ", "_get_unloadable_location_names"} <= names_in(checked)


@pytest.mark.usefixtures("_untuned")
def test_the_daemon_asks_the_code_server_for_everything_as_seldom_as_it_is_told() -> None:
    dagster_compat.tune_daemon(3, 3600, dagster_compat.monitor_starting_run)
    assert controller.RELOAD_WORKSPACE_INTERVAL == 3600
    freshness = controller.DagsterDaemonController.check_workspace_freshness
    assert "RELOAD_WORKSPACE_INTERVAL" in names_in(freshness)


@pytest.mark.usefixtures("_untuned")
def test_run_monitoring_asks_our_function_about_a_run_that_does_not_start() -> None:
    asked: list[Any] = []

    def ours(*given: Any) -> None:
        asked.append(given)

    theirs = run_monitoring.monitor_starting_run
    assert parameters(theirs) == ["instance", "run_record", "logger"]
    dagster_compat.tune_daemon(3, 3600, ours)
    assert run_monitoring.monitor_starting_run is ours
    assert "monitor_starting_run" in names_in(run_monitoring.execute_run_monitoring_iteration)


def test_the_daemon_is_started_without_arguments_of_ours() -> None:
    assert parameters(cli.main) == []


# Runs


def test_the_run_of_a_task_is_found_in_its_argument() -> None:
    nowhere: Any = None
    args = ExecuteRunArgs(
        job_origin=_origin(), run_id="run-1", instance_ref=nowhere, set_exit_code_on_failure=True
    )
    assert dagster_compat.run_id_of(pack_value(args)) == "run-1"


def _origin() -> Any:
    pointer = dagster_compat.ModuleCodePointer("here", "job", None)
    return JobPythonOrigin("job", RepositoryPythonOrigin("python", pointer))


@dg.op
def _op(context: dg.OpExecutionContext) -> None:
    """Logs what stages log, which Dagster takes without declaring all of it."""
    found: Any = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("a"), check_name="c", passed=True, partition="FRA", metadata={}
    )
    context.log_event(dg.AssetMaterialization("a", partition="FRA"))
    context.log_event(found)


@dg.job(name="job", executor_def=dg.in_process_executor)
def _job() -> None:
    _op()


def test_a_run_is_executed_with_definitions_that_this_process_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository = dg.Definitions(jobs=[_job]).get_repository_def()
    assert parameters(dagster_compat.core_execute_run)[:4] == [
        "recon_job", "dagster_run", "instance", "inject_env_vars",
    ]  # fmt: skip
    with dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setattr(run_executor, "repository", lambda: repository)
        monkeypatch.setattr(run_executor, "instance", lambda: instance)
        run = instance.create_run_for_job(_job)
        events = list(run_executor.execute_run(run))
        assert events[-1].event_type == dg.DagsterEventType.RUN_SUCCESS
        (record,) = _history(instance, "FRA")
        assert record.evaluation.passed
        assert _history(instance, "DEU") == []


def _history(instance: dg.DagsterInstance, country: str) -> Any:
    storage: Any = instance.event_log_storage
    return storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey("a"), "c"), limit=5, partition_filter=OfPartition(country)
    )


def test_a_held_repository_is_kept_by_its_pointer() -> None:
    pointer = dagster_compat.ModuleCodePointer("module", "held_1", None)
    assert pointer != dagster_compat.ModuleCodePointer("module", "held_2", None)
    assert dagster_compat.ReconstructableRepository(pointer).pointer is pointer
    asks = names_in(dagster_compat.ReconstructableJob.get_repository_definition)
    assert {"repository", "get_definition"} <= asks


def test_a_launcher_answers_whether_a_run_lives_in_these_words() -> None:
    words = dagster_compat.WorkerStatus
    found = dagster_compat.CheckRunHealthResult(words.FAILED, "why")
    assert (found.status, found.msg) == (words.FAILED, "why")
    assert words.RUNNING not in (words.FAILED, None)


def test_what_a_worker_tells_of_itself_is_shown_with_the_run() -> None:
    told = dagster_compat.EngineEventData({"worker": dg.TextMetadataValue("host-1")})
    assert told.metadata["worker"].value == "host-1"


def test_every_run_comes_by_the_coordinator() -> None:
    theirs: Any = dagster_compat.QueuedRunCoordinator
    assert parameters(theirs.submit_run) == parameters(coordinator.SizedRunCoordinator.submit_run)
    assert "dagster_run" in dir(dg.SubmitRunContext)
    assert "_instance" in names_in(theirs.submit_run)
    assert "dequeue_interval_seconds" in set(theirs.config_type())


# Storage


@pytest.mark.parametrize("name", ["watch", "end_watch", "store_event", "dispose", "_connect"])
def test_what_the_event_log_overrides_is_called_like_that(name: str) -> None:
    theirs = getattr(dagster_compat.ConsolidatedSqliteEventLogStorage, name)
    assert parameters(theirs) == parameters(getattr(sqlite.EventLogStorage, name))


@pytest.mark.parametrize(
    "storage", [dagster_compat.ConsolidatedSqliteEventLogStorage, PostgresEventLogStorage]
)
def test_tables_and_columns_are_looked_for_where_they_are_remembered(storage: type) -> None:
    theirs: Any = storage
    for name in ("has_table", "_has_asset_key_col_on_connection"):
        assert parameters(getattr(theirs, name)) == parameters(getattr(sqlite.KnownTables, name))
    asks = names_in(SqlEventLogStorage.has_asset_key_col)
    assert "_has_asset_key_col_on_connection" in asks


@pytest.fixture
def history(tmp_path: Path) -> Iterator[sqlite.SqliteHistory]:
    made = sqlite.SqliteHistory(str(tmp_path))
    yield made
    made.event_log_storage.dispose()
    made.run_storage.dispose()


def test_queries_on_sqlite_are_made_on_the_connections_that_are_kept(
    history: sqlite.SqliteHistory,
) -> None:
    kept = (history._run_storage, history._event_log_storage, history._schedule_storage)
    served = (history.run_storage, history.event_log_storage, history.schedule_storage)
    assert served == kept
    for each in kept:
        assert each._conn_string.startswith("sqlite:///")
    for connects in (
        dagster_compat.ConsolidatedSqliteEventLogStorage.run_connection,
        dagster_compat.ConsolidatedSqliteEventLogStorage.index_connection,
    ):
        assert "_connect" in names_in(connects)
    assert history.run_storage.get_runs_count() == 0
    engine = sqlite._engine(history._run_storage._conn_string)
    assert isinstance(engine.pool, QueuePool)
    assert engine.pool.checkedin() >= 1


def test_new_events_are_asked_for() -> None:
    watcher = dagster_compat.SqlPollingEventWatcher
    assert parameters(watcher) == ["event_log_storage"]
    assert parameters(watcher.watch_run) == ["self", "run_id", "cursor", "callback"]
    assert parameters(watcher.unwatch_run) == ["self", "run_id", "handler"]
    assert parameters(watcher.close) == ["self"]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (PostgresRunStorage, postgres._Runs),
        (PostgresScheduleStorage, postgres._Schedules),
        (PostgresEventLogStorage, postgres._Events),
    ],
)
def test_queries_on_postgresql_are_made_on_the_engine_that_is_kept(theirs: Any, ours: type) -> None:
    assert isinstance(inspect.getattr_static(ours, "_engine"), property)
    connects = theirs._connect if hasattr(theirs, "_connect") else theirs.connect
    assert "_engine" in names_in(connects)
    assert {"_engine", "postgres_url"} <= names_in(theirs.__init__)
    assert "dispose" in dir(theirs)


def test_postgresqls_storage_serves_what_it_holds() -> None:
    needed = {"postgres_url", "should_autocreate_tables", "_inst_data"}
    parts = {"_run_storage", "_event_log_storage", "_schedule_storage"}
    assert needed | parts <= names_in(DagsterPostgresStorage.__init__)
    served = (
        DagsterPostgresStorage.run_storage,
        DagsterPostgresStorage.event_log_storage,
        DagsterPostgresStorage.schedule_storage,
    )
    gets = [each.fget for each in served if isinstance(each, property)]
    assert set().union(*(names_in(each) for each in gets if each)) == parts


def test_importing_the_compat_module_imports_nothing_of_dagster() -> None:
    code = "import sys, mlops_assets.runtime.instance as _; print('dagster' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
