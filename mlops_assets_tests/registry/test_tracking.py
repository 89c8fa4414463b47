"""One MLflow run for each Dagster run, also where one process executes many.

Left without `from __future__ import annotations`: Dagster reads that of `context` at run time.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import mlflow
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from mlops_assets.registry import MlflowRegistry

EXPERIMENT = "parcels"


@dg.op(required_resource_keys={"mlflow"}, config_schema={"alpha": float, "breaks": bool})
def train(context: dg.OpExecutionContext) -> None:
    config = context.op_config
    with context.resources.mlflow.training_run(EXPERIMENT, "FRA", {"country": "FRA"}) as run:
        run.log({"alpha": config["alpha"]}, {"mae": 1.5, "not_a_number": float("nan")})
        if config["breaks"]:
            raise RuntimeError("no convergence")


@dg.job(executor_def=dg.in_process_executor)
def training() -> None:
    train()


@pytest.fixture
def resource(tmp_path: Path, mlflow_template: Path) -> Iterator[MlflowRegistry]:
    shutil.copyfile(mlflow_template, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    artifacts = (tmp_path / "artifacts").as_uri()
    yield MlflowRegistry(tracking_uri=uri, artifact_root=artifacts, ui_url="http://ui:5000/")
    while mlflow.active_run():
        mlflow.end_run()


def execute(resource: MlflowRegistry, alpha: float, *, breaks: bool = False) -> str:
    """One Dagster run in this process; its id."""
    config = {"alpha": alpha, "breaks": breaks}
    result = training.execute_in_process(
        resources={"mlflow": resource},
        run_config={"ops": {"train": {"config": config}}},
        raise_on_error=False,
    )
    assert result.success is not breaks
    return result.run_id


def runs(resource: MlflowRegistry, experiment: str = EXPERIMENT) -> dict[str, Run]:
    """MLflow runs by the Dagster run they name."""
    client = MlflowClient(resource.tracking_uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    every = client.search_runs([found.experiment_id])
    return {run.data.tags.get("dagster_run_id", ""): run for run in every}


def described(run: Run) -> tuple[str, dict[str, Any], dict[str, float]]:
    return run.info.status, run.data.params, run.data.metrics


def test_two_dagster_runs_in_one_process_are_two_mlflow_runs_with_their_own_params(
    resource: MlflowRegistry,
) -> None:
    first, second = execute(resource, 0.1), execute(resource, 0.2)
    found = runs(resource)
    assert set(found) == {first, second}
    assert described(found[first]) == ("FINISHED", {"alpha": "0.1"}, {"mae": 1.5})
    assert described(found[second]) == ("FINISHED", {"alpha": "0.2"}, {"mae": 1.5})
    assert found[first].data.tags["country"] == "FRA"
    assert found[first].info.run_name == "FRA"


def test_a_run_that_breaks_ends_as_failed_and_the_next_one_is_untouched(
    resource: MlflowRegistry,
) -> None:
    broken, whole = execute(resource, 0.1, breaks=True), execute(resource, 0.2)
    found = runs(resource)
    assert described(found[broken]) == ("FAILED", {"alpha": "0.1"}, {"mae": 1.5})
    assert described(found[whole]) == ("FINISHED", {"alpha": "0.2"}, {"mae": 1.5})
    assert mlflow.active_run() is None


def test_an_mlflow_run_that_was_left_open_is_closed_and_not_written_into(
    resource: MlflowRegistry,
) -> None:
    mlflow.set_tracking_uri(resource.tracking_uri)
    mlflow.set_experiment("somebody's notebook")
    stray = mlflow.start_run()
    mine = execute(resource, 0.3)
    assert set(runs(resource)) == {mine}
    left = MlflowClient(resource.tracking_uri).get_run(stray.info.run_id)
    assert described(left) == ("KILLED", {}, {})


def test_what_a_dead_process_left_running_is_ended_and_nothing_else(
    resource: MlflowRegistry,
) -> None:
    finished = execute(resource, 0.1)
    client = MlflowClient(resource.tracking_uri)
    experiment = runs(resource)[finished].info.experiment_id
    for name in ("dead", "alive"):
        client.create_run(experiment, tags={"dagster_run_id": name})
    assert resource.registry().end_runs_of("dead") == 1
    states = {name: run.info.status for name, run in runs(resource).items()}
    assert states == {finished: "FINISHED", "dead": "KILLED", "alive": "RUNNING"}
    assert resource.registry().end_runs_of("dead") == 0


def test_the_link_to_a_run_is_that_of_the_mlflow_ui(resource: MlflowRegistry) -> None:
    assert resource.run_url("abc", "1") == "http://ui:5000/#/experiments/1/runs/abc"
