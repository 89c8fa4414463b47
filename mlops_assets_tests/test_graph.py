"""The asset graph as Dagster loads it: what operators see and backfills act on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.repository_definition import RepositoryDefinition

from mlops_assets.components.scaffold import new_product
from mlops_assets.definitions import defs
from mlops_assets.settings import PROJECT_ROOT

PRODUCTS = {"power_price": 31, "booking_cancellation": 37, "customer_repurchase": 43}
"""Product: number of listed countries."""

PARENTS = {
    "raw": set(),
    "validated": {"raw"},
    "quarantine": {"raw"},
    "features": {"validated"},
    "pooled_model": {"features"},
    "pooled_champion": {"pooled_model"},
    "model": {"features", "pooled_champion"},
    "champion": {"model", "features"},
    "predictions": {"features", "champion"},
    "performance": {"predictions", "features", "champion"},
    "drift": {"predictions", "features", "champion"},
}
GROUPS = {
    "datasets": {"raw", "validated", "quarantine"},
    "features": {"features"},
    "models": {"pooled_model", "pooled_champion", "model", "champion"},
    "predictions": {"predictions"},
    "monitoring": {"performance", "drift"},
}
WHOLE = {"raw", "drift"}
"""Ungated: one scan serves all countries."""
UNPARTITIONED = {"pooled_model", "pooled_champion"}
SHARING = "power_price"
"""The product whose countries share features."""
SHARED = {"shared_features": {"validated"}, "shared_snapshot": {"shared_features"}}
"""What it has beside the others; `shared_snapshot` is above its `features`."""
GATES = {
    "validated.contract",
    "validated.ledger",
    "features.point_in_time",
    "model.beats_baseline",
    "model.above_floor",
    "model.slices",
    "model.stability",
    "model.behaviour",
    "model.within_range",
    "model.loads_and_predicts",
    "model.latency_and_size",
    "champion.equals_registry_alias",
    "predictions.schema_and_range",
}
"""Blocking, each for the partition it is about alone."""
GATES_OF = {
    "power_price": {"model.coverage"},
    "booking_cancellation": {"model.calibration", "model.fairness"},
    "customer_repurchase": {"model.calibration"},
}
"""Regression has intervals, classification probabilities; groups are declared by one product."""
WARNINGS = {
    "validated.null_shares",
    "validated.volume",
    "validated.freshness",
    "validated.restated_history",
    "features.finite_values",
    "performance.realised_error",
    "drift.drift",
}
"""Of a country, too, and blocking nothing."""

STARTS = {"pooled_champion": "The pooled model", "shared_snapshot": "The shared features"}
"""How the description of an asset begins that has no rows of its own."""
DATASETS = {"raw", "validated", "quarantine", "features"}
MONITORING = {"performance", "drift"}
JOBS = {
    "all": DATASETS | {"model", "champion", "predictions"} | MONITORING,
    "train": DATASETS | {"model", "champion"},
    "predict": DATASETS | {"predictions"} | MONITORING,
    "monitor": MONITORING,
    "pooled": {"pooled_model"},
}


@pytest.fixture(params=PRODUCTS)
def product(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return defs()


@pytest.fixture(scope="module")
def graph(definitions: dg.Definitions) -> AssetGraph:
    return definitions.resolve_asset_graph()


@pytest.fixture(scope="module")
def repository(definitions: dg.Definitions) -> RepositoryDefinition:
    return definitions.get_repository_def()


def key(product: str, asset: str) -> dg.AssetKey:
    return dg.AssetKey([product, asset])


def parents(product: str) -> dict[str, set[str]]:
    """Asset: its parents."""
    if product != SHARING:
        return PARENTS
    return {**PARENTS, **SHARED, "features": {*PARENTS["features"], "shared_snapshot"}}


def test_every_asset_of_the_pipeline_has_its_key_and_its_parents(
    graph: AssetGraph, product: str
) -> None:
    mine = {each for each in graph.get_all_asset_keys() if each.path[0] == product}
    assert mine == {key(product, name) for name in parents(product)}
    assert {each.path[0] for each in graph.get_all_asset_keys()} == set(PRODUCTS)
    for name, above in parents(product).items():
        found = graph.get(key(product, name)).parent_keys
        assert found == {key(product, parent) for parent in above}, name


def test_raw_is_the_only_root_and_countries_do_not_wait_for_the_pooled_model(
    graph: AssetGraph, product: str
) -> None:
    roots = {
        each.path[1] for each in graph.root_materializable_asset_keys if each.path[0] == product
    }
    assert roots == {"raw"}
    external = {name for name in parents(product) if name in {"pooled_champion", "shared_snapshot"}}
    assert not any(graph.get(key(product, name)).is_materializable for name in external)


def test_groups_are_the_stages(graph: AssetGraph, product: str) -> None:
    for group, names in GROUPS.items():
        assert {graph.get(key(product, name)).group_name for name in names} == {group}
    found = {graph.get(key(SHARING, name)).group_name for name in SHARED}
    assert found == {"features"}


def test_every_asset_but_those_of_all_countries_has_a_partition_a_country(
    graph: AssetGraph, product: str
) -> None:
    for name in parents(product):
        partitions = graph.get(key(product, name)).partitions_def
        count = len(partitions.get_partition_keys()) if partitions else None
        assert count == (None if name in {*UNPARTITIONED, *SHARED} else PRODUCTS[product]), name


def test_what_nothing_waits_for_is_made_in_one_run_and_everything_gated_in_a_run_a_country(
    graph: AssetGraph, product: str
) -> None:
    for name in WHOLE:
        policy = graph.get(key(product, name)).backfill_policy
        assert policy == dg.BackfillPolicy.single_run(), name
    for name in set(PARENTS) - UNPARTITIONED - WHOLE:
        # Dagster's own: a run a partition. `multi_run(1)` would lose the partition of checks.
        assert graph.get(key(product, name)).backfill_policy is None, name


def test_gates_block_the_country_they_are_about(graph: AssetGraph, product: str) -> None:
    specs = [
        graph.get_check_spec(each)
        for each in graph.asset_check_keys
        if each.asset_key.path[0] == product
    ]
    names = {f"{spec.asset_key.path[1]}.{spec.name}": spec for spec in specs}
    partitioned = {name for name, spec in names.items() if spec.partitions_def is not None}
    blocking = {name for name, spec in names.items() if spec.blocking}
    whole = {"pooled_model.beats_baseline"}
    whole |= {"shared_features.point_in_time"} if product == SHARING else set()
    of_countries = GATES | GATES_OF[product]
    assert blocking == of_countries | whole
    assert partitioned == of_countries | WARNINGS
    for name in of_countries | WARNINGS:
        asset = graph.get(key(product, name.partition(".")[0]))
        assert names[name].partitions_def == asset.partitions_def
    assert all(spec.description for spec in specs)


def test_jobs_make_what_their_name_says_in_one_process(
    repository: RepositoryDefinition, product: str
) -> None:
    jobs = {**JOBS, **({"shared": {"shared_features"}} if product == SHARING else {})}
    for name, assets in jobs.items():
        job = repository.get_job(f"{product}_{name}")
        assert job.asset_layer.executable_asset_keys == {key(product, each) for each in assets}
        assert job.executor_def.name == "in_process"
        assert job.tags["product"] == product


def test_champions_are_made_again_by_a_job_without_assets(
    repository: RepositoryDefinition, product: str
) -> None:
    job = repository.get_job(f"{product}_reproduce")
    assert not job.asset_layer.executable_asset_keys
    assert job.executor_def.name == "in_process"
    assert job.tags["product"] == product


def test_schedules_wait_for_a_person_to_start_them(
    repository: RepositoryDefinition, product: str
) -> None:
    found = {each.name: each for each in repository.schedule_defs if product in each.name}
    shared = found.pop(f"{product}_shared_periodic", None)
    assert (shared and shared.job_name) == (f"{product}_shared" if product == SHARING else None)
    assert {name: each.job_name for name, each in found.items()} == {
        f"{product}_periodic": f"{product}_train",
        f"{product}_pooled_periodic": f"{product}_pooled",
        f"{product}_reproduce_weekly": f"{product}_reproduce",
    }
    stopped = dg.DefaultScheduleStatus.STOPPED
    assert {each.default_status for each in repository.schedule_defs} == {stopped}
    assert {each.default_status.value for each in repository.sensor_defs} <= {"STOPPED"}


def test_sensors_and_the_periodic_schedule_ask_for_jobs_that_are_there(
    repository: RepositoryDefinition, product: str
) -> None:
    asked = {
        each.name: {target.job_name for target in each.targets} for each in repository.sensor_defs
    }
    assert asked[f"{product}_retraining"] == {
        f"{product}_train",
        f"{product}_predict",
        f"{product}_pooled",
        f"{product}_rollback",
        f"{product}_withdraw",
    }
    assert asked[f"{product}_alerts"] == set()
    for names in asked.values():
        assert all(repository.has_job(name) for name in names)


def test_everything_a_run_needs_is_there(definitions: dg.Definitions, product: str) -> None:
    assert set(definitions.resources or {}) == {"io_manager", "storage", "mlflow"}
    definitions.resolve_job_def(f"{product}_all")
    dg.Definitions.validate_loadable(definitions)


def test_every_asset_says_its_grain_and_has_owners_kinds_and_its_config(
    graph: AssetGraph, product: str
) -> None:
    for name in parents(product):
        node = graph.get(key(product, name))
        description = node.description or ""
        start = STARTS.get(name, "One row")
        assert description.startswith(start), name
        assert node.owners, name
        assert node.kinds, name
        assert node.metadata["config_hash"], name
        assert node.tags["product"] == product


def test_the_location_has_one_name_everywhere() -> None:
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    workspace = yaml.safe_load((PROJECT_ROOT / "workspace.yaml").read_text())
    (location,) = (each["python_module"] for each in workspace["load_from"])
    assert location["location_name"] == project["code_location_name"] == "mlops_assets"
    assert location["module_name"] == f"{project['root_module']}.definitions"


def test_a_third_product_is_a_folder_and_nothing_else(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "workspace.yaml"):
        shutil.copy(PROJECT_ROOT / name, tmp_path / name)
    package = tmp_path / "mlops_assets"
    shutil.copytree(PROJECT_ROOT / "mlops_assets", package)
    new_product("parcels", package / "defs")
    code = (
        "import json; from mlops_assets.definitions import defs; graph = defs()."
        "resolve_asset_graph(); print(json.dumps([k.path for k in graph.get_all_asset_keys()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    found = {tuple(path) for path in json.loads(done.stdout.splitlines()[-1])}
    assert {asset for product, asset in found if product == "parcels"} >= set(PARENTS) - {
        *UNPARTITIONED
    }
    assert {product for product, _ in found} == {*PRODUCTS, "parcels"}
