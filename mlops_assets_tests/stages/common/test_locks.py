"""Runs of the same country wait for each other, whoever launches them."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import dagster as dg
import pytest

from mlops_assets.errors import BusyError
from mlops_assets.file_locks import holding
from mlops_assets.stages.common.locks import (
    INGESTION,
    _lock_of,
    _takes_files_of_one,
    alone,
    alone_with_raw,
    changing,
)
from mlops_assets.stages.common.runs import PARTITION, RANGE_START
from mlops_assets.stages.product import JOBS
from mlops_assets_tests.platform import Platform, failures
from mlops_assets_tests.test_file_locks import another

COUNTRY, OTHER = "FRA", "DEU"
_SECONDS = 60.0


def test_a_run_waits_for_that_of_another_process_in_its_country_and_for_no_other(
    ran: Platform,
) -> None:
    held = Path(ran.home, "locks", "runs", "parcels", f"{COUNTRY}.lock")
    with another(held) as process:
        other = ran.run(OTHER, assets=["raw"])
        assert other.success, failures(other)
        with ended_when_met(held, process):
            waited = ran.run(COUNTRY, assets=["validated", "quarantine"])
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


@pytest.mark.parametrize(
    ("of", "takes"),
    [
        (run("parcels_all", product="parcels", at={PARTITION: "FRA"}), True),
        (run("parcels_predict", ("raw", "validated"), at={PARTITION: "FRA"}), True),
        (run("parcels_all", ("validated", "features"), at={PARTITION: "FRA"}), False),
        (run("parcels_monitor", product="parcels", at={PARTITION: "FRA"}), False),
        (run("parcels_all", ("raw",), at={RANGE_START: "DEU"}), False),
    ],
)
def test_a_run_of_a_country_that_takes_its_files_is_known(of: dg.DagsterRun, takes: bool) -> None:
    assert _takes_files_of_one(of, "parcels") == takes


def test_every_job_of_a_country_with_its_raw_rows_takes_files() -> None:
    for job, assets in JOBS.items():
        of = run(f"parcels_{job}", product="parcels", at={PARTITION: "FRA"})
        assert _takes_files_of_one(of, "parcels") == ("raw" in assets)


def test_a_country_that_takes_its_files_waits_for_the_ingestion_and_for_no_other_country(
    tmp_path: Path,
) -> None:
    folder, waits = tmp_path / "runs" / "parcels", list[str]()
    of = run("parcels_all", ("raw",), at={PARTITION: COUNTRY})
    folder.mkdir(parents=True)
    with another(folder / f"{INGESTION}.lock", "shared"), taken(tmp_path, of):
        waits.append("none")
    held = folder / f"{INGESTION}.lock"
    with another(held) as process, ended_when_met(held, process, waits), taken(tmp_path, of):
        waits.append("held")
    assert waits == ["none", "ended", "held"]


def test_moving_a_country_waits_for_the_ingestion_and_for_both_countries(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "parcels"
    folder.mkdir(parents=True)
    names = (INGESTION, "NO2", "NOR")
    for name in names:
        met: list[object] = []
        with another(folder / f"{name}.lock") as process:
            ends = partial(end_and_note, process, met)
            with alone_with_raw(tmp_path, "parcels", ["NOR", "NO2"], ends, command="unlisted"):
                for held in names:
                    with (
                        pytest.raises(BusyError),
                        holding(folder / f"{held}.lock", "a run", None),
                    ):
                        pass
        assert len(met) == 1


def end_and_note(process: subprocess.Popen[str], met: list[object], holder: object) -> None:
    """What is told of a holder that is waited for: that one ends."""
    met.append(holder)
    process.kill()


@contextmanager
def ended_when_met(
    file: Path, process: subprocess.Popen[str], told: list[str] | None = None
) -> Iterator[None]:
    """End the holder of a lock once somebody waits for it, however long that takes to come."""
    number = str(file.stat().st_ino)

    def is_met() -> bool:
        lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        return any("->" in line and line[6].split(":")[-1] == number for line in lines)

    def watch() -> None:
        end = time.monotonic() + _SECONDS
        while not is_met() and time.monotonic() < end:
            time.sleep(0.02)
        if told is not None:
            told.append("ended")
        process.kill()

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        watching.join()


def taken(locks: Path, of: dg.DagsterRun) -> AbstractContextManager[None]:
    """What a run holds for its length."""
    resources = dg.build_init_resource_context().resources
    return alone(str(locks), dg.InitResourceContext({}, resources, None, {}, dagster_run=of))


def test_change_sets_of_several_countries_at_once_follow_one_another(tmp_path: Path) -> None:
    """One is open at a time: the second waits for the first, where it failed before."""
    inside, most = [0], [0]

    def change(number: int) -> None:
        with changing(str(tmp_path), "parcels", dg.build_op_context()):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.1)
            inside[0] -= 1

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(change, range(3)))
    assert most == [1]
