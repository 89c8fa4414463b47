"""Runs of the same country wait for each other, whoever launches them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest

from mlops_assets.stages.common.locks import _lock_of
from mlops_assets.stages.common.runs import PARTITION, RANGE_START
from mlops_assets_tests.platform import Platform, failures
from mlops_assets_tests.test_file_locks import another

COUNTRY, OTHER = "FRA", "DEU"


def test_a_run_waits_for_that_of_another_process_in_its_country_and_for_no_other(
    ran: Platform,
) -> None:
    held = Path(ran.home, "locks", "runs", "parcels", f"{COUNTRY}.lock")
    with another(held) as process:
        other = ran.run(OTHER, assets=["raw"])
        assert other.success, failures(other)
        ends = threading.Timer(1.0, process.kill)
        ends.start()
        waited = ran.run(COUNTRY, assets=["validated", "quarantine"])
        ends.join()
    assert waited.success, failures(waited)
    logs = ran.instance.all_logs(waited.run_id)
    told = [each.user_message for each in logs if "waits for" in each.user_message]
    assert len(told) == 1
    assert f"{COUNTRY}: waits for process {process.pid} on" in told[0]


def run(
    job: str,
    selected: tuple[str, ...] = (),
    product: str = "",
    at: Mapping[str, str] | None = None,
) -> dg.DagsterRun:
    keys = frozenset(dg.AssetKey(["parcels", name]) for name in selected)
    tags = {**({"product": product} if product else {}), **(at or {})}
    return dg.DagsterRun(job_name=job, asset_selection=keys or None, tags=tags)


@pytest.mark.parametrize(
    ("of", "lock"),
    [
        (run("parcels_all", product="parcels", at={PARTITION: "FRA"}), "FRA"),
        (run("__ASSET_JOB", ("model",), at={PARTITION: "FRA"}), "FRA"),
        (run("parcels_all", ("raw",), at={RANGE_START: "DEU"}), "ingestion"),
        (run("parcels_ingest", product="parcels"), "ingestion"),
        (run("parcels_pooled", product="parcels"), "pooled"),
        (run("__ASSET_JOB", ("pooled_model",)), "pooled"),
        (run("parcels_shared", product="parcels"), "shared"),
    ],
)
def test_a_run_holds_the_lock_of_what_it_makes(of: dg.DagsterRun, lock: str) -> None:
    assert _lock_of(of) == ("parcels", lock)


def test_a_run_that_makes_nothing_of_a_product_holds_none() -> None:
    assert _lock_of(run("parcels_reproduce", product="parcels")) is None
    assert _lock_of(run("other")) is None
