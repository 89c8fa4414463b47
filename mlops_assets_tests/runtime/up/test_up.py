from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.error
from collections.abc import Collection
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mlops_assets.runtime.headless.workers import RANGE_END, RANGE_START
from mlops_assets.runtime.up.up import free_port
from mlops_assets.settings import PROJECT_ROOT
from mlops_assets_tests.browser.site import SPOT, SPOT_GOOD, Site
from mlops_assets_tests.called import call
from mlops_assets_tests.runtime.serving import (
    BIN,
    Up,
    environment,
    eventually,
    graphql,
    processes_of,
    start,
    zombies_of,
)

COUNTRIES = SPOT_GOOD[:2]
PARTITION = "dagster/partition"
NAMES = "{ repositoriesOrError { ... on RepositoryConnection { nodes { location { name } } } } }"
RUNS = """
query ($tags: [ExecutionTag!]!) {
  runsOrError(filter: {tags: $tags}) { ... on Runs { results { runId status tags { key value } } } }
}
"""
BACKFILL = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  }
}
"""
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="looks for processes in /proc (Linux)"
)


@pytest.fixture
def up(site: Site) -> Up:
    """As it runs now: a test before may have started it again."""
    return site.up


def _locations(url: str) -> list[str]:
    nodes = graphql(url, NAMES)["repositoriesOrError"]["nodes"]
    return [node["location"]["name"] for node in nodes]


def _runs(up: Up, backfill: str) -> list[dict[str, Any]]:
    tags = [{"key": "dagster/backfill", "value": backfill}]
    return [
        {
            "id": run["runId"],
            "status": run["status"],
            **{tag["key"]: tag["value"] for tag in run["tags"]},
        }
        for run in graphql(up.url, RUNS, {"tags": tags})["runsOrError"]["results"]
    ]


def test_a_backfill_of_assets_takes_files_once_and_then_each_country_on_a_worker(up: Up) -> None:
    assets = [{"path": [SPOT, name]} for name in ("raw", "validated", "features")]
    assets.append({"path": [SPOT, "quarantine"]})
    params = {"assetSelection": assets, "partitionNames": list(COUNTRIES)}
    answer = graphql(up.url, BACKFILL, {"params": params})["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer

    made = answer["backfillId"]
    eventually(
        lambda: [run["status"] for run in _runs(up, made)] == ["SUCCESS"] * (1 + len(COUNTRIES)),
        "good runs",
        150,
        up,
    )
    runs = _runs(up, made)
    assert {run.get(PARTITION) for run in runs} == {*COUNTRIES, None}
    (files,) = (run for run in runs if PARTITION not in run)
    assert (files[RANGE_START], files[RANGE_END]) == (COUNTRIES[0], COUNTRIES[-1])
    assert all("dagster-celery/task_id" in run for run in runs)
    assert _judged_countries(up, "validated", "contract", {run["id"] for run in runs}) == set(
        COUNTRIES
    )


def test_a_second_up_on_the_same_home_is_refused_and_says_what_to_do(up: Up) -> None:
    arguments = ["up", "--port", str(free_port())]
    code, _, errors = call(arguments, environment(up.home), up.home, 60)

    assert code == 1
    assert f"Another `mlops-assets up` serves {up.home}. Nothing was started." in errors
    assert _locations(up.url) == ["mlops_assets"]


def test_a_port_in_use_is_refused_before_anything_starts(up: Up, tmp_path: Path) -> None:
    code, _, errors = call(["up", "--port", str(up.port)], environment(tmp_path), tmp_path, 60)

    assert code == 1
    assert f"Port {up.port}, wanted for Dagster, is in use. Nothing was started." in errors


@needs_proc
@pytest.mark.nightly  # workers import everything; the daemon below comes back by the same code
def test_a_service_that_was_killed_comes_back(up: Up) -> None:
    (worker,) = _main_workers(up)
    os.kill(worker, signal.SIGKILL)

    eventually(lambda: "workers ended by itself" in up.said, "the notice", 20, up)
    eventually(lambda: len(_main_workers(up) - {worker}) == 1, "another worker", 30, up)


@needs_proc
@pytest.mark.parametrize(
    "name",
    # Nightly: another pair of starts each, and the same code.
    [
        "daemon",
        *(pytest.param(other, marks=pytest.mark.nightly) for other in ("code", "webserver")),
    ],
)
def test_dagsters_own_programs_come_back_too(up: Up, name: str) -> None:
    before = _service(up, name)
    assert before, f"{name} does not run"  # 0 would be this process and all it was started with
    os.kill(before, signal.SIGKILL)

    eventually(lambda: f"{name} ended by itself" in up.said, "the notice", 20, up)
    eventually(lambda: _service(up, name) not in (0, before), "another one", 30, up)
    eventually(lambda: _found(up.port) == ["mlops_assets"], "the location", 60, up)


@needs_proc
def test_nothing_is_left_in_the_folder_that_dagster_sends_away(up: Up) -> None:
    assert not (up.home / "up" / "logs").exists() or not any((up.home / "up" / "logs").iterdir())
    assert (up.home / "up" / "output" / "webserver.log").stat().st_size > 0


@needs_proc
def test_no_process_is_a_zombie(up: Up) -> None:
    assert zombies_of(processes_of(up.home)) == []


@needs_proc
def test_changed_code_gets_new_workers(site: Site) -> None:
    eventually(lambda: len(_main_workers(site.up)) == 1, "the workers", 100, site.up)
    before = _main_workers(site.up)
    folder = site.defs / "no_product_yet"
    folder.mkdir(exist_ok=True)
    with (folder / "features.py").open("a") as file:
        file.write("# changed\n")
    eventually(lambda: "Code or YAML changed" in site.up.said, "the notice", 20, site.up)
    eventually(lambda: not _main_workers(site.up) & before, "the old workers' end", 40, site.up)


@needs_proc
def test_ctrl_c_ends_every_process(site: Site) -> None:
    code, left, said = site.end()

    assert (code, left) == (0, [])
    assert "Stopped." in said


@needs_proc
def test_stopped_while_it_makes_its_databases_it_does_not_go_on_with_them(tmp_path: Path) -> None:
    up = start(tmp_path / "home")
    half = up.home / "mlflow" / "mlflow.partial"
    eventually(half.exists, "the database", 100)

    assert up.stop() == 0
    assert processes_of(up.home) == []
    assert half.exists()
    assert not half.with_suffix(".db").exists()
    assert "Stopped before anything was started." in up.said


@needs_proc
@pytest.mark.nightly  # each costs another start
@pytest.mark.parametrize("seconds", [1.0, 4.0, 8.0])
def test_stopped_while_it_starts_it_leaves_no_process(tmp_path: Path, seconds: float) -> None:
    up = start(tmp_path / "home")
    time.sleep(seconds)
    up.stop()

    left = processes_of(up.home)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


@needs_proc
# Nightly: five programs that import everything; `test_graph.py` compares the names they go by.
@pytest.mark.nightly
@pytest.mark.parametrize("command", [["dagster", "dev"], ["dg", "dev"]], ids=" ".join)
def test_every_way_to_start_loads_the_one_code_location(tmp_path: Path, command: list[str]) -> None:
    """Cursors of sensors are kept by the name of the location."""
    home, port = tmp_path / "home", free_port()
    dagster = home / "dagster"
    dagster.mkdir(parents=True)
    log = (tmp_path / "log.txt").open("wb")
    process = subprocess.Popen(
        [str(BIN / command[0]), *command[1:], "--port", str(port), "--host", "127.0.0.1"],
        env={
            **environment(home, DAGSTER_HOME=str(dagster)),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        },
        cwd=PROJECT_ROOT,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        eventually(lambda: _found(port) == ["mlops_assets"], "the location", 100)
    finally:
        # Asked kindly, Dagster may wait a minute for a program of its own that still starts.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
        log.close()
        for pid in processes_of(home):
            os.kill(pid, signal.SIGKILL)


def _found(port: int) -> list[str]:
    try:
        return _locations(f"http://127.0.0.1:{port}")
    except (urllib.error.URLError, ConnectionError):
        return []


def _service(up: Up, name: str) -> int:
    """The first process of a service; 0 while there is none."""
    told = {"code": "api grpc", "daemon": "up.daemon", "webserver": "dagster_webserver"}[name]
    found = [pid for pid in processes_of(up.home) if told in _command(pid) and _leads(pid)]
    return found[0] if found else 0


def _leads(pid: int) -> bool:
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


def _judged_countries(up: Up, asset: str, check: str, runs: Collection[str]) -> set[str | None]:
    key = dg.AssetCheckKey(dg.AssetKey([SPOT, asset]), check)
    with dg.DagsterInstance.from_config(str(up.home / "dagster")) as instance:
        history = instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
    judged = [record for record in history if record.run_id in runs]
    return {record.partition for record in judged if record.status.value == "SUCCEEDED"}


def _main_workers(up: Up) -> set[int]:
    """First processes of Celery: those that lead a group."""
    return {pid for pid in processes_of(up.home) if "celery" in _command(pid) and _leads(pid)}


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
