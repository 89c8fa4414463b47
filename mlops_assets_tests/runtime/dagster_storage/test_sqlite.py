"""Dagster's history on SQLite: whole, shared by processes, and read while it is written."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy.exc import IntegrityError

from mlops_assets.runtime.dagster_storage.sqlite import RunStorage
from mlops_assets.runtime.instance import prepare_instance
from mlops_assets.settings import Settings, load_settings
from mlops_assets_tests.effort import WHOLE
from mlops_assets_tests.forks import forks

PROCESSES, RUNS = (4, 3) if WHOLE else (3, 2)
Opened = Callable[[], dg.DagsterInstance]


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["AUT", "BEL"]))
def price() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"rows": 7})


@dg.asset(check_specs=[dg.AssetCheckSpec("positive", asset="checked")])
def checked() -> dg.MaterializeResult:
    return dg.MaterializeResult(
        check_results=[dg.AssetCheckResult(check_name="positive", passed=True)]
    )


@dg.job(name="nothing")
def _nothing() -> None:
    pass


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("MLOPS_ASSETS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return load_settings()


@pytest.fixture
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(prepare_instance(settings))) as opened:
        yield opened


def _write(home: str) -> None:
    with dg.DagsterInstance.from_config(home) as opened:
        for _ in range(RUNS):
            dg.materialize([price], partition_key="AUT", instance=opened)


def test_what_a_run_wrote_is_read_by_another_instance(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    done = dg.materialize([price], partition_key="BEL", instance=instance)

    assert isinstance(instance.run_storage, RunStorage)
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as other:
        run = other.get_run_by_id(done.run_id)
        assert run is not None
        assert run.status == dg.DagsterRunStatus.SUCCESS
        (made,) = other.fetch_materializations(price.key, limit=10).records
        assert made.partition_key == "BEL"
        assert {event.event_type_value for event in done.all_events} <= {
            record.dagster_event.event_type_value
            for record in other.all_logs(done.run_id)
            if record.dagster_event is not None
        }


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which files are open")
def test_an_event_is_stored_with_what_follows_from_it_or_not_at_all(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    database = settings.dagster_home / "history" / "events" / "event_log.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(
            "create trigger refuse before insert on asset_check_executions "
            "begin select raise(abort, 'refused'); end"
        )

    with pytest.raises(IntegrityError, match="refused"):
        dg.materialize([checked], instance=instance)

    with closing(sqlite3.connect(database)) as connection:
        stored = connection.execute("select dagster_event_type from event_logs").fetchall()
    assert ("ASSET_MATERIALIZATION_PLANNED",) in stored
    assert ("ASSET_CHECK_EVALUATION_PLANNED",) not in stored


def test_a_closed_instance_leaves_no_file_open(settings: Settings) -> None:
    home = prepare_instance(settings)
    with dg.DagsterInstance.from_config(str(home)) as opened:
        dg.materialize([price], partition_key="AUT", instance=opened)
        assert _open_below(home)
    assert _open_below(home) == []


def _open_below(folder: Path) -> list[str]:
    mine = Path("/proc/self/fd")
    held = [os.readlink(each) for each in mine.iterdir() if each.exists()]
    return [name for name in held if name.startswith(str(folder))]


def test_processes_that_begin_together_on_an_empty_folder_lose_nothing(settings: Settings) -> None:
    home = str(prepare_instance(settings))
    writers = [forks().Process(target=_write, args=(home,)) for _ in range(PROCESSES)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)

    assert [writer.exitcode for writer in writers] == [0] * PROCESSES
    with dg.DagsterInstance.from_config(home) as opened:
        assert len(opened.get_runs()) == PROCESSES * RUNS
        assert len(opened.fetch_materializations(price.key, limit=100).records) == PROCESSES * RUNS


def test_a_forked_process_writes_on_connections_of_its_own(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    dg.materialize([price], partition_key="AUT", instance=instance)
    forked = multiprocessing.get_context("fork").Process(
        target=_write, args=(str(settings.dagster_home),)
    )
    forked.start()
    forked.join(60)

    assert forked.exitcode == 0
    assert len(instance.get_runs()) == 1 + RUNS


def _write_when_told(home: str, pipe: Connection) -> None:
    with dg.DagsterInstance.from_config(home) as opened:
        opened.get_runs()  # connected
        pipe.send("ready")
        pipe.recv()
        dg.materialize([price], partition_key="AUT", instance=opened)


def test_what_a_forked_process_writes_outlives_its_parents_connections(settings: Settings) -> None:
    """SQLite in a fork takes its parent's locks for its own: the last to close would drop what
    others have just written."""
    home = str(prepare_instance(settings))
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    with dg.DagsterInstance.from_config(home) as opened:
        dg.materialize([price], partition_key="AUT", instance=opened)
        forked = context.Process(target=_write_when_told, args=(home, theirs))
        forked.start()
        assert ours.recv() == "ready"
    ours.send("go")
    forked.join(60)

    with dg.DagsterInstance.from_config(home) as opened:
        assert len(opened.get_runs()) == 2


def test_someone_who_looks_on_is_told_of_events_while_they_come(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    run = instance.create_run_for_job(_nothing)
    told, seen = threading.Event(), []

    def callback(event: Any, cursor: str) -> None:
        seen.append(event.message)
        told.set()

    instance.watch_event_logs(run.run_id, None, callback)
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as other:
        other.report_engine_event("begun elsewhere", run)

    assert told.wait(10)
    assert "begun elsewhere" in seen
    instance.end_watch_event_logs(run.run_id, callback)
