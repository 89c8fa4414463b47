from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._core.test_utils import create_run_for_test

from mlops_assets.runtime.workers import launcher as launching
from mlops_assets.runtime.workers.heartbeats import WORKER_TAG
from mlops_assets.runtime.workers.launcher import WarmRunLauncher
from mlops_assets.runtime.workers.lost_runs import TASK_TAG
from mlops_assets_tests.cluster import servers
from mlops_assets_tests.cluster.conftest import require_servers
from mlops_assets_tests.cluster.network import Place
from mlops_assets_tests.cluster.servers import Server

DEAD = {WORKER_TAG: "dead-1", TASK_TAG: "old"}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Server]:
    require_servers()
    server = servers.redis(Place("here", "127.0.0.1"), tmp_path / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def launcher(
    redis: Server, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> WarmRunLauncher:
    """On that Redis, without any worker; nobody's runs are lost at the second look."""
    url = f"redis://{redis.address}/0"
    made = WarmRunLauncher(default_queue="small", broker=url, backend=url)
    made.register_instance(instance)
    monkeypatch.setattr(launching, "_NOBODYS_SECONDS", 0.0)
    monkeypatch.setattr(launching, "end_tracking", lambda run_id: None)
    return made


def _hand_over(launcher: WarmRunLauncher, run: dg.DagsterRun) -> None:
    # Without a code location there is nothing to execute; what counts is the way to the broker.
    task = launcher.celery.signature("execute_job", args=("nothing",), immutable=True)
    launching_a_task: Any = launcher._launch_celery_task_run
    launching_a_task(run=run, task_signature=task, routing_key="execute_job")


def _looked_at(launcher: WarmRunLauncher, instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    launcher.is_lost(run)
    return launcher.is_lost(run)


def test_a_run_that_waits_in_redis_is_not_lost(
    launcher: WarmRunLauncher, instance: dg.DagsterInstance
) -> None:
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTING)
    _hand_over(launcher, run)

    assert not _looked_at(launcher, instance, run.run_id)


def test_a_run_that_redis_has_forgotten_is_lost(
    launcher: WarmRunLauncher, instance: dg.DagsterInstance
) -> None:
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTING)
    _hand_over(launcher, run)
    backend: Any = launcher.celery.backend
    backend.client.flushall()

    assert _looked_at(launcher, instance, run.run_id)


def test_a_run_whose_launcher_was_killed_on_the_way_is_lost(
    launcher: WarmRunLauncher, instance: dg.DagsterInstance
) -> None:
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTING)

    assert _looked_at(launcher, instance, run.run_id)


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # Celery's own
@pytest.mark.parametrize(("worker", "lost"), [({}, True), ({WORKER_TAG: "alive"}, False)])
def test_a_run_that_was_begun_is_lost_if_no_worker_has_put_its_name_to_it(
    launcher: WarmRunLauncher,
    instance: dg.DagsterInstance,
    worker: dict[str, str],
    lost: bool,
) -> None:
    tags = {TASK_TAG: "begun", **worker}
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTING, tags=tags)
    launcher.celery.backend.store_result("begun", None, "STARTED")

    assert _looked_at(launcher, instance, run.run_id) == lost


def test_a_run_that_is_tried_again_is_not_taken_for_its_dead_parent(
    launcher: WarmRunLauncher, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTING, tags=DEAD)
    monkeypatch.setattr(
        "dagster_celery.launcher.CeleryRunLauncher.launch_run",
        lambda self, context: _hand_over(self, context.dagster_run),
    )
    context: Any = SimpleNamespace(dagster_run=run)
    launcher.launch_run(context)

    again = instance.get_run_by_id(run.run_id)
    assert again is not None
    assert again.tags[WORKER_TAG] == ""
    assert again.tags[TASK_TAG] not in ("", "old")
    assert not _looked_at(launcher, instance, run.run_id)


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # Celery's own
@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE", "REVOKED"])
def test_a_started_run_whose_task_has_ended_is_lost_unless_it_ended_meanwhile(
    launcher: WarmRunLauncher, instance: dg.DagsterInstance, state: str
) -> None:
    tags = {WORKER_TAG: "alive", TASK_TAG: "ended"}
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED, tags=tags)
    launcher.celery.backend.store_result("ended", None, state)

    assert launcher.check_run_worker_health(run).status == WorkerStatus.FAILED
    instance.report_run_failed(run)
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
