"""Dagster's history on PostgreSQL: connections are kept, and a lost one is not noticed."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from mlops_assets.runtime.instance import prepare_instance
from mlops_assets.settings import DAGSTER_DB, load_settings
from mlops_assets_tests.sources import databases
from mlops_assets_tests.sources.databases import Server


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["AUT", "BEL"]))
def price() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"rows": 7})


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    programs = databases.programs()
    if programs is None:
        assert os.environ.get("CI") != "true", "CI has to install PostgreSQL"
        pytest.skip("needs PostgreSQL")
    with databases.running(programs) as running:
        yield running


@pytest.fixture
def home(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLOPS_ASSETS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(DAGSTER_DB, url(server))
    return str(prepare_instance(load_settings()))


def url(server: Server) -> str:
    return server.url.replace("postgresql://", "postgresql+psycopg2://")


def made(home: str, country: str) -> None:
    with dg.DagsterInstance.from_config(home) as instance:
        assert dg.materialize([price], partition_key=country, instance=instance).success


@contextmanager
def connections() -> Iterator[list[object]]:
    """Those that are opened in the block by this process."""
    opened: list[object] = []

    def note(connection: object, _: object) -> None:
        opened.append(connection)

    event.listen(Engine, "connect", note)
    yield opened
    event.remove(Engine, "connect", note)


def asked(server: Server, query: str) -> int:
    engine = create_engine(url(server), poolclass=NullPool)
    with engine.connect() as connection:
        return connection.execute(text(query)).scalar_one()


def test_a_process_keeps_its_connections_and_closes_them_at_the_end(
    server: Server, home: str
) -> None:
    with dg.DagsterInstance.from_config(home) as instance:
        made(home, "AUT")
        with connections() as opened:
            dg.materialize([price], partition_key="AUT", instance=instance)
            dg.materialize([price], partition_key="BEL", instance=instance)
        assert len(opened) <= 2
        assert len(instance.fetch_materializations(price.key, limit=9).records) == 3
    others = "select count(*) from pg_stat_activity where backend_type = 'client backend'"
    assert asked(server, f"{others} and pid <> pg_backend_pid()") == 0


def test_a_server_that_dropped_every_connection_is_asked_again(server: Server, home: str) -> None:
    with dg.DagsterInstance.from_config(home) as instance:
        dg.materialize([price], partition_key="AUT", instance=instance)
        mine = "select count(pg_terminate_backend(pid)) from pg_stat_activity"
        assert asked(server, f"{mine} where usename = 'tester' and pid <> pg_backend_pid()") > 0
        assert dg.materialize([price], partition_key="BEL", instance=instance).success


def test_a_fork_and_its_parent_go_on_with_connections_of_their_own(home: str) -> None:
    with dg.DagsterInstance.from_config(home) as instance:
        before = len(instance.get_runs())
        dg.materialize([price], partition_key="AUT", instance=instance)
        forked = multiprocessing.get_context("fork").Process(target=made, args=(home, "BEL"))
        forked.start()
        for _ in range(3):
            dg.materialize([price], partition_key="AUT", instance=instance)
        forked.join(60)
        assert forked.exitcode == 0
        assert len(instance.get_runs()) == before + 5
