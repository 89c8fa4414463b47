"""The command line as a person or a cron job calls it: real processes on a folder of their own."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from mlops_assets import cli
from mlops_assets.cli.runs import _side_by_side
from mlops_assets.defs.booking_cancellation.sample import generate as generate_bookings
from mlops_assets.errors import StorageError
from mlops_assets.runtime.headless.workers import RunOrder, RunOutcome, WarmWorkers
from mlops_assets.runtime.instance import prepare_instance
from mlops_assets.runtime.workers import run_executor
from mlops_assets.settings import PROJECT_ROOT, load_settings
from mlops_assets.storage import SnapshotStore
from mlops_assets_tests.called import call
from mlops_assets_tests.made import (
    COUNTRIES,
    COUNTRY,
    LISTED,
    NEW_DAYS,
    UNDELIVERED,
    going_on,
    newest,
    published,
    what_it_said,
)
from mlops_assets_tests.runtime.serving import BIN

COMMANDS = (
    "up", "worker", "materialize", "demo", "status", "decisions", "sql", "quarantine", "retention",
    "reproduce", "backtest", "promote", "rollback", "approve", "undo", "card", "new-product",
    "doctor", "deliveries", "unlisted",
)  # fmt: skip
GOES_ON = ("AUT", "FRA")
"""Countries that get more rows at the end."""
CHAIN = ("raw", "validated", "quarantine", "features", "model", "champion", "predictions")
STATUS = {
    "product", "country", "state", "champion_version", "champion_kind", "metric", "metric_value",
    "baseline_value", "prediction_rows", "predicted_at",
}  # fmt: skip
PATIENCE = 120.0


@dataclass(frozen=True)
class Said:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)

    def complaint(self) -> str:
        """Its one line of error."""
        assert self.code == 1, self
        assert "Traceback" not in self.out + self.err
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self
        assert self.out == ""
        return lines[0]


def mlops_assets(home: Path, *arguments: str, **environment: str) -> Said:
    """One call in a process of its own, with its home in a temporary folder."""
    return Said(*call(arguments, _environment(home, **environment), home.parent, PATIENCE * 2))


def _environment(home: Path, **more: str) -> dict[str, str]:
    """Of a home, and of the products beside it where there are some."""
    # MLflow writes its address into the environment of whoever asks it.
    elsewhere = {"DAGSTER_HOME", "MLFLOW_TRACKING_URI"}
    inherited = {name: value for name, value in os.environ.items() if name not in elsewhere}
    own = {"MLOPS_ASSETS_DEFS": str(defs)} if (defs := home.parent / "defs").exists() else {}
    return {**inherited, "MLOPS_ASSETS_HOME": str(home), **own, **more}


def deliver(home: Path, product: str, frame: pd.DataFrame, name: str) -> None:
    folder = home / "landing" / product
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(folder / name)


def held(home: Path, country: str) -> dict[str, str | None]:
    """The current version of every asset of a country, each read whole."""
    store = SnapshotStore(str(home / "store"))
    found = {}
    for name in CHAIN:
        made = store.current(("power_price", name), country)
        found[name] = made and made.version
        if made is not None:
            assert len(store.read(made.asset, country)) == made.rows
    return found


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home nothing was ever done in."""
    home = tmp_path_factory.mktemp("nothing") / "home"
    home.mkdir()
    return home


@pytest.fixture(scope="module")
def everything(once_made: Path) -> Said:
    """`materialize power_price --all`, of the installed program, where two have no data."""
    return Said(*what_it_said(once_made))


@pytest.fixture(scope="module")
def made(once_made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home after that, and the other product beside it."""
    folder = tmp_path_factory.mktemp("cli")
    home = going_on(once_made, folder)
    name = "booking_cancellation"
    shutil.copytree(
        PROJECT_ROOT / "mlops_assets" / "defs" / name,
        folder / "defs" / name,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return home


def test_countries_without_data_are_named_with_the_reason_and_need_nobody(
    everything: Said,
) -> None:
    assert everything.code == 0
    (outcome,) = everything.data
    assert outcome["product"] == "power_price"
    assert outcome["failures"] == {}
    assert set(outcome["nothing_to_make"]) == set(UNDELIVERED)
    for problem in outcome["nothing_to_make"].values():
        assert "ever delivered" in problem


def test_countries_with_data_are_whole_beside_those_without(made: Path) -> None:
    for country in COUNTRIES:
        assert None not in held(made, country).values(), country


def test_every_dagster_run_of_a_command_has_ended(made: Path) -> None:
    with dg.DagsterInstance.from_config(str(made / "dagster")) as instance:
        states = {run.status.value for run in instance.get_runs()}
    assert states <= {"SUCCESS", "FAILURE"}


def test_status_as_json_says_for_every_country_where_it_stands(made: Path) -> None:
    said = mlops_assets(made, "status", "power_price", "--json")
    rows = {row["country"]: row for row in said.data}
    assert set(rows) == set(LISTED)
    assert set(rows["FRA"]) >= STATUS
    for country, row in rows.items():
        expected = {"ok"} if country in COUNTRIES else {"no_data"}
        assert row["state"] in expected, row
    fra = rows["FRA"]
    assert (fra["champion_version"], fra["metric"]) == ("1", "mae")
    assert 0 < fra["metric_value"] < fra["baseline_value"]
    assert fra["prediction_rows"] > 300
    assert fra["predicted_at"].endswith("+00:00")
    assert rows[UNDELIVERED[0]]["champion_version"] is None


def test_the_status_table_has_a_line_a_country(made: Path) -> None:
    said = mlops_assets(made, "status", "power_price")
    assert said.code == 0
    lines = said.out.splitlines()
    assert len(lines) == len(LISTED) + 1
    assert next(line for line in lines if " FRA " in line).split()[2] == "ok"


def test_decisions_are_listed_for_a_product_and_for_a_country(made: Path) -> None:
    rows = mlops_assets(made, "decisions", "power_price", "--json").data
    assert sorted(row["country"] for row in rows) == sorted(COUNTRIES)
    one = mlops_assets(made, "decisions", "power_price", "--country", "FRA", "--json").data
    assert [row["country"] for row in one] == ["FRA"]
    assert {row["verdict"] for row in rows} == {"promoted"}
    none = mlops_assets(made, "decisions", "power_price", "--country", UNDELIVERED[0])
    assert (none.code, "no decision yet" in none.out) == (0, True)


def test_sql_reads_the_current_snapshots(made: Path) -> None:
    query = "select _country, count(*) as days from power_price.predictions group by all"
    rows = mlops_assets(made, "sql", query, "--json").data
    assert {row["_country"] for row in rows} == set(COUNTRIES)
    assert all(row["days"] > 300 for row in rows if row["_country"] in GOES_ON)
    assert "days" in mlops_assets(made, "sql", query).out


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("select * from power_price.nonsense", "nonsense does not exist"),
        ("selec 1", 'syntax error at or near "selec"'),
        ("  ", "query is empty"),
        ("select * from read_csv('/nowhere.csv')", "/nowhere.csv"),
    ],
)
def test_a_query_that_fails_says_why_in_one_line(made: Path, query: str, complaint: str) -> None:
    assert complaint in mlops_assets(made, "sql", query).complaint()


def test_a_country_with_nothing_new_costs_one_look_and_goes_well(made: Path) -> None:
    before = held(made, "FRA")
    said = mlops_assets(made, "materialize", "power_price", "--country", "FRA", "--json")
    (outcome,) = said.data
    assert outcome["failures"] == {}
    assert said.code == 0
    assert held(made, "FRA") == before


def test_a_product_can_be_predicted_for_one_country_without_training(made: Path) -> None:
    bookings = generate_bookings(7)
    deliver(made, "booking_cancellation", bookings[bookings["country"] == "PRT"], "d.parquet")
    arguments = ("materialize", "booking_cancellation", "--country", "PRT", "--job", "predict")
    said = mlops_assets(made, *arguments)
    assert "Traceback" not in said.err
    store = SnapshotStore(str(made / "store"))
    predictions = store.read(("booking_cancellation", "predictions"), "PRT")
    assert len(predictions) > 100
    assert set(predictions["model_kind"]) == {"baseline"}
    assert store.current(("booking_cancellation", "model"), "PRT") is None


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("materialize", "nonsense", "--all"), "There is no product 'nonsense'"),
        (("materialize", "power_price", "--country", "XXX"), "does not list the country 'XXX'"),
        (("materialize", "power_price", "--country", ""), "does not list the country ''"),
        (("materialize", "power_price"), "Say which countries"),
        (("materialize", "power_price", "--country", "FRA", "--all"), "not both"),
        (("status", "nonsense"), "There is no product 'nonsense'"),
        (("decisions", "power_price", "--country", "XXX"), "does not list the country 'XXX'"),
        (("sql", "from power_price.raw"), "There are: none yet"),
        (("new-product", "Bad Name"), "'Bad Name' cannot be the name of a product"),
        (("new-product", "../escape"), "'../escape' cannot be the name of a product"),
        (("new-product", "class"), "'class' cannot be the name of a product"),
        (("new-product", "power_price"), "exists already"),
        (("demo", "--data", "/nowhere"), "/nowhere is not a folder"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line_and_nothing_is_made(
    empty: Path, arguments: Sequence[str], complaint: str
) -> None:
    assert complaint in mlops_assets(empty, *arguments).complaint()
    assert list(empty.iterdir()) == []


def test_a_demonstration_needs_files_with_the_columns_of_a_product(
    empty: Path, tmp_path: Path
) -> None:
    (tmp_path / "readme.csv").write_text("a,b\n1,2\n")
    complaint = mlops_assets(empty, "demo", "--data", str(tmp_path)).complaint()
    assert f"No file in {tmp_path} has the columns of a product" in complaint
    assert "ISO3 Code" in complaint
    file = str(tmp_path / "readme.csv")
    assert f"{file} is not a folder" in mlops_assets(empty, "demo", "--data", file).complaint()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example(empty: Path, command: str) -> None:
    said = mlops_assets(empty, command, "--help")
    assert said.code == 0
    assert f"Example: mlops-assets {command}" in " ".join(said.out.split())


def test_help_lists_every_command(empty: Path) -> None:
    listed = mlops_assets(empty, "--help").out.partition("Commands:")[2].splitlines()
    assert {line.split()[0] for line in listed if line[2:3].strip()} == set(COMMANDS)


def test_the_old_name_of_backtest_still_works(empty: Path) -> None:
    said = mlops_assets(empty, "replay", "--help")
    assert said.code == 0
    assert "Example: mlops-assets backtest" in " ".join(said.out.split())


def test_a_new_product_is_made_where_products_are(empty: Path, tmp_path: Path) -> None:
    said = mlops_assets(empty, "new-product", "heat_demand", MLOPS_ASSETS_DEFS=str(tmp_path))
    assert said.code == 0
    assert f"Made {tmp_path / 'heat_demand'}" in said.out
    assert (tmp_path / "heat_demand" / "defs.yaml").is_file()


def test_doctor_finds_nothing_wrong_with_a_right_set_up(made: Path) -> None:
    said = mlops_assets(made, "doctor", "--json")
    assert said.code == 0
    findings = {finding["check"]: finding for finding in said.data}
    assert all(finding["ok"] for finding in findings.values())
    assert {"python", "products", "storage", "registry", "workspace"} <= set(findings)


def test_doctor_names_everything_that_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    said = mlops_assets(
        file,
        "doctor",
        MLOPS_ASSETS_DEFS=str(tmp_path),
        MLFLOW_TRACKING_URI="http://127.0.0.1:1",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    )
    assert said.code == 1
    assert "Traceback" not in said.out + said.err
    lines = said.out.splitlines()
    for check, way_out in {
        "products": "new-product",
        "storage": "MLOPS_ASSETS_STORAGE",
        "registry": "MLFLOW_TRACKING_URI",
    }.items():
        line = next(line for line in lines if line.startswith(f"FAIL {check}: "))
        assert way_out in lines[lines.index(line) + 1]


def test_a_home_that_cannot_be_written_is_named_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for arguments in (("status",), ("demo",)):
        assert str(file) in mlops_assets(file, *arguments).complaint()


@pytest.mark.nightly  # a process that imports everything; `test_registry.py` has the error itself
def test_an_error_after_everything_is_loaded_is_all_that_is_said(tmp_path: Path) -> None:
    """Not a fork of ours: what libraries say of their leaks they say when Python itself ends."""
    (tmp_path / "file").touch()
    database = tmp_path / "file" / "x" / "mlflow.db"
    done = subprocess.run(
        [str(BIN / "mlops-assets"), "materialize", "power_price", "--country", "FRA"],
        env=_environment(tmp_path / "home", MLFLOW_TRACKING_URI=f"sqlite:///{database}"),
        capture_output=True,
        text=True,
        check=False,
    )
    said = Said(done.returncode, done.stdout, done.stderr)
    assert str(database) in said.complaint()
    assert said.err == f"{said.complaint()}\n"


@pytest.mark.parametrize("loaded", [True, False])
def test_a_command_that_loaded_everything_does_not_look_through_it_at_its_end(
    loaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(run_executor, "is_loaded", lambda: loaded)
    monkeypatch.setattr(cli, "main", lambda: sys.exit(3))
    with pytest.raises(SystemExit, match="3"):
        cli.program()
    assert ended == ([3] if loaded else [])


class Full(io.StringIO):
    """Standard output on a full disk, or of a reader that is gone."""

    def flush(self) -> None:
        raise OSError("no space left on device")


def test_a_command_whose_output_is_lost_ends_as_python_does_which_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(run_executor, "is_loaded", lambda: True)
    monkeypatch.setattr(cli, "main", lambda: None)
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(SystemExit):
        cli.program()
    assert ended == []


def test_products_go_side_by_side_and_an_error_of_one_waits_for_the_others() -> None:
    first, second = Event(), Event()
    ended: list[str] = []

    def fails() -> str:
        first.set()
        assert second.wait(PATIENCE)
        raise StorageError("the disk is full", way_out="make room")

    def waits() -> str:
        assert first.wait(PATIENCE)
        second.set()
        ended.append("the other")
        return "made"

    with pytest.raises(StorageError, match="the disk is full"):
        _side_by_side([fails, waits])
    assert ended == ["the other"]
    assert _side_by_side([lambda: "a", lambda: "b"]) == ["a", "b"]


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same home for code in this process, and for the workers it starts."""
    monkeypatch.setenv("MLOPS_ASSETS_HOME", str(made))
    monkeypatch.setenv("MLOPS_ASSETS_DEFS", str(made.parent / "defs"))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return prepare_instance(load_settings())


def test_a_worker_killed_while_it_trains_costs_its_country_this_run_and_nobody_else_anything(
    made: Path, here: Path
) -> None:
    """Runs last: it adds data."""
    frame = published()
    news = newest(frame, NEW_DAYS) & frame[COUNTRY].isin(GOES_ON)
    deliver(made, "power_price", frame[news], "news.parquet")
    orders = {
        country: RunOrder("power_price", "all", CHAIN, country=country) for country in GOES_ON
    }
    before = {country: held(made, country) for country in GOES_ON}
    victim = "AUT"
    with (
        dg.DagsterInstance.from_config(str(here)) as instance,
        WarmWorkers(here, 2) as workers,
        ThreadPoolExecutor(1) as thread,
    ):
        running = thread.submit(lambda: list(workers.run(list(orders.values()))))
        training = until(lambda: open_training(made, victim))
        os.kill(process_of(instance, training["dagster_run_id"]), signal.SIGKILL)
        outcomes = {each.order.country: each for each in running.result(PATIENCE)}
        assert_only_the_victim_failed(outcomes, victim)
        assert outcomes[victim].run_id == training["dagster_run_id"]
        states = {run.status.value for run in instance.get_runs()}
        assert states <= {"SUCCESS", "FAILURE"}
        killed = instance.get_run_by_id(outcomes[victim].run_id)
        assert killed is not None
        assert killed.status == dg.DagsterRunStatus.FAILURE
        assert mlflow_client(made).get_run(training["id"]).info.status == "KILLED"
        after = {country: held(made, country) for country in GOES_ON}
        late = ("model", "champion", "predictions")
        assert {after[victim][name] for name in late} == {before[victim][name] for name in late}
        for country in set(GOES_ON) - {victim}:
            assert after[country]["predictions"] != before[country]["predictions"]
        (again,) = workers.run([RunOrder("power_price", "all", CHAIN, country=victim)])
    assert again.success, again.problems
    assert held(made, victim)["predictions"] != before[victim]["predictions"]


def assert_only_the_victim_failed(outcomes: Mapping[str | None, RunOutcome], victim: str) -> None:
    assert set(outcomes) == set(GOES_ON)
    failed = {country for country, outcome in outcomes.items() if not outcome.success}
    assert failed == {victim}, {name: each.problems for name, each in outcomes.items()}
    (problem,) = outcomes[victim].problems
    assert "the worker process died" in problem
    assert "run the country again" in problem


def until(found: Callable[[], Mapping[str, str] | None]) -> Mapping[str, str]:
    """What `found` gives once it gives something."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if (value := found()) is not None:
            return value
        time.sleep(0.05)
    raise AssertionError(f"nothing in {PATIENCE:.0f} s")


def mlflow_client(home: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")


def open_training(home: Path, country: str) -> Mapping[str, str] | None:
    """The MLflow run of a country that is being trained just now."""
    client = mlflow_client(home)
    experiment = client.get_experiment_by_name("power_price")
    assert experiment is not None
    query = f"attributes.status = 'RUNNING' and tags.country = '{country}'"
    runs = client.search_runs([experiment.experiment_id], query)
    found = [run for run in runs if "dagster_run_id" in run.data.tags]
    if not found:
        return None
    return {"id": found[0].info.run_id, "dagster_run_id": found[0].data.tags["dagster_run_id"]}


def process_of(instance: dg.DagsterInstance, run_id: str) -> int:
    """The process that executes a run, as Dagster logged it."""
    for record in instance.all_logs(run_id):
        event = record.dagster_event
        if event is not None and event.event_type_value == "ENGINE_EVENT":
            pid = event.engine_event_data.metadata.get("pid")
            if pid is not None:
                return int(str(pid.value))
    raise AssertionError(f"no process is known of run {run_id}")
