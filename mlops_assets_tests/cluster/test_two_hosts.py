from __future__ import annotations

import os
import time

import pytest

from mlops_assets_tests.cluster import hosts
from mlops_assets_tests.cluster.faults import (
    COUNTRIES,
    LOST_SECONDS,
    complete,
    during,
    launch,
)
from mlops_assets_tests.cluster.hosts import Cluster


@pytest.mark.cluster
def test_a_backfill_runs_on_both_hosts_and_what_it_makes_is_in_the_bucket(
    cluster: Cluster,
) -> None:
    since = time.time()
    cluster.deliver()
    backfill = launch(cluster)
    backfill.settle()

    complete(backfill, since)
    assert len({run["mlops_assets/worker"] for run in backfill.runs()}) == len(hosts.WORKERS)
    _require_all_in_the_bucket(cluster)


def _require_all_in_the_bucket(cluster: Cluster) -> None:
    stored = hosts.keys(cluster.servers)
    for country in hosts.codes(COUNTRIES):
        assert f"store/{hosts.PRODUCT}/predictions/country={country}/_current.json" in stored
    assert sum(key.endswith("model.skops") for key in stored) >= COUNTRIES
    assert _data_in(cluster) == []
    assert cluster.workers[0].copies() == []


@pytest.mark.cluster
def test_a_worker_host_that_dies_costs_no_country_and_its_runs_end_within_a_minute(
    cluster: Cluster,
) -> None:
    victim = cluster.workers[1]
    with during(cluster, "kill -9 of a worker host", repeat=False) as backfill:
        before = {run["runId"] for run in backfill.working(2)}
        victim.kill()
        killed = time.monotonic()
        cluster.eventually(
            lambda: bool(before & _failed(backfill.runs())), "the lost run", LOST_SECONDS
        )
        assert time.monotonic() - killed < LOST_SECONDS
        victim.start()
    assert len({run["mlops_assets/worker"] for run in backfill.runs()}) >= len(hosts.WORKERS)
    _require_all_in_the_bucket(cluster)


def _failed(runs: list[dict[str, str]]) -> set[str]:
    return {run["runId"] for run in runs if run["status"] == "FAILURE"}


def _data_in(cluster: Cluster) -> list[str]:
    """Files of snapshots, models or histories in the homes of hosts."""
    suffixes = (".parquet", ".skops", ".db", ".json")
    return [
        os.path.join(folder, name)
        for host in (cluster.control, *cluster.workers)
        for folder, _, names in os.walk(host.home)
        for name in names
        if name.endswith(suffixes) and name != "processes.json"
    ]
