from __future__ import annotations

import time

import pytest

from mlops_assets_tests.cluster import hosts
from mlops_assets_tests.cluster.faults import COUNTRIES, OUTCOMES, Backfill, complete, launch
from mlops_assets_tests.cluster.hosts import Cluster

pytestmark = pytest.mark.cluster


def test_a_second_host_takes_its_share_of_the_work(cluster: Cluster) -> None:
    both, seconds = _backfilled(cluster)
    assert len(_workers(both)) == len(hosts.WORKERS)

    second = cluster.workers[1]
    second.stop()
    try:
        alone, longer = _backfilled(cluster)
    finally:
        second.start()
        cluster.eventually(lambda: hosts.ready(cluster), "all hosts", 120)
    assert len(_workers(alone)) == 1
    OUTCOMES.append(
        f"two worker hosts: {COUNTRIES} countries in {seconds:.0f} s, one alone {longer:.0f} s, "
        f"{longer / seconds:.2f} times as long; servers and hosts on the same cores"
    )


def _backfilled(cluster: Cluster) -> tuple[Backfill, float]:
    """A backfill of new data of every country, and how long it took."""
    since = time.time()
    cluster.deliver()
    began = time.monotonic()
    backfill = launch(cluster)
    backfill.settle()
    seconds = time.monotonic() - began
    complete(backfill, since)
    return backfill, seconds


def _workers(backfill: Backfill) -> set[str]:
    return {run["mlops_assets/worker"] for run in backfill.runs()}
