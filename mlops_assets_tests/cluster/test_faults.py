from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from mlops_assets_tests.cluster.faults import LOST_SECONDS, Backfill, during
from mlops_assets_tests.cluster.hosts import Cluster, Host

pytestmark = pytest.mark.cluster
BACK_SECONDS = 60.0
"""Within which a page or a service that was killed is there again."""
AWAY_SECONDS = 10.0
"""How long a server is away that is restarted."""


def test_a_killed_worker_child_costs_one_run_which_is_tried_again(cluster: Cluster) -> None:
    host = cluster.workers[0]
    with during(cluster, "kill -9 of a worker's child") as backfill:
        before = {run["runId"] for run in backfill.working(2)}
        os.kill(_busiest(_children(host)), signal.SIGKILL)
        cluster.eventually(
            lambda: bool(before & _ids(backfill, "FAILURE")), "the lost run", LOST_SECONDS
        )
    assert set(backfill.states().values()) == {"SUCCESS"}


def test_a_killed_daemon_comes_back_and_the_backfill_goes_on(cluster: Cluster) -> None:
    with during(cluster, "kill -9 of the daemon") as backfill:
        (daemon,) = cluster.control.processes("mlops_assets.runtime.up.daemon")
        os.kill(daemon, signal.SIGKILL)
        cluster.eventually(
            lambda: _others(cluster.control, daemon, "mlops_assets.runtime.up.daemon"),
            "another daemon",
            BACK_SECONDS,
        )
    assert set(backfill.states().values()) == {"SUCCESS"}


def test_a_killed_webserver_comes_back_and_no_run_notices(cluster: Cluster) -> None:
    with during(cluster, "kill -9 of the webserver") as backfill:
        (webserver,) = cluster.control.processes("dagster_webserver")
        os.kill(webserver, signal.SIGKILL)
        cluster.eventually(
            lambda: _others(cluster.control, webserver, "dagster_webserver") and cluster.answers(),
            "the page",
            BACK_SECONDS,
        )
    assert set(backfill.states().values()) == {"SUCCESS"}


def test_a_redis_that_restarts_loses_no_run(cluster: Cluster) -> None:
    redis = cluster.servers.redis
    with during(cluster, "restart of Redis") as backfill:
        redis.stop(signal.SIGKILL)
        time.sleep(AWAY_SECONDS)
        redis.start()
    assert set(backfill.states().values()) == {"SUCCESS"}


def test_a_redis_that_forgets_everything_leaves_no_run_waiting(cluster: Cluster) -> None:
    redis = cluster.servers.redis
    with during(cluster, "Redis that restarts empty"):
        redis.stop(signal.SIGKILL)
        for file in redis.folder.glob("appendonlydir/*"):
            file.unlink()
        redis.start()


def test_a_postgres_that_restarts_leaves_every_run_finished_or_failed_with_a_cause(
    cluster: Cluster,
) -> None:
    postgres = cluster.servers.postgres
    with during(cluster, "restart of PostgreSQL"):
        postgres.stop()
        time.sleep(AWAY_SECONDS)
        postgres.start()


def test_a_store_that_refuses_for_a_while_breaks_no_snapshot_and_no_champion(
    cluster: Cluster,
) -> None:
    with during(cluster, "S3 answers 503 for 20 s"):
        _told(cluster, "503", 2 * AWAY_SECONDS)


def test_a_slow_store_only_takes_longer(cluster: Cluster) -> None:
    with during(cluster, "S3 takes 0.5 s more an answer for 60 s") as backfill:
        _told(cluster, "slow 0.5", 6 * AWAY_SECONDS)
    assert set(backfill.states().values()) == {"SUCCESS"}


def _told(cluster: Cluster, mode: str, seconds: float) -> None:
    cluster.servers.mode.write_text(mode)
    try:
        time.sleep(seconds)
    finally:
        cluster.servers.mode.write_text("pass")


def _others(host: Host, killed: int, *words: str) -> bool:
    return bool(set(host.processes(*words)) - {killed})


def _ids(backfill: Backfill, status: str) -> set[str]:
    return {run["runId"] for run in backfill.runs() if run["status"] == status}


def _children(host: Host) -> list[int]:
    """Processes that Celery's first one forked."""
    celery = host.processes("celery")
    return [pid for pid in celery if _parent(pid) in celery]


def _busiest(pids: list[int]) -> int:
    return max(pids, key=lambda pid: sum(map(int, _stat(pid)[11:13])))


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[str]:
    """What the kernel says of a process, from its state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
