"""How large a run is: by the YAML or by what the country's runs took; which queue that means."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from mlops_assets.components.scaffold import new_product
from mlops_assets.runtime.workers.coordinator import SizedRunCoordinator
from mlops_assets.runtime.workers.sizes import MEMORY_TAG, SIZE_TAG, Sizes
from mlops_assets.spec import ResourcesSpec
from mlops_assets_tests.platform import edit

QUEUE, PRIORITY, PARTITION = "dagster-celery/queue", "dagster/priority", "dagster/partition"
COORDINATOR = """
telemetry: {enabled: false}
run_coordinator:
  module: mlops_assets.runtime.workers.coordinator
  class: SizedRunCoordinator
"""


@dg.asset(key=["parcels", "model"], partitions_def=dg.StaticPartitionsDefinition(["DEU", "FRA"]))
def model() -> None:
    pass


@dg.asset(key=["parcels", "pooled_model"])
def pooled_model() -> None:
    pass


JOBS = dg.Definitions(
    assets=[model, pooled_model],
    jobs=[
        dg.define_asset_job("parcels_train", [model], tags={"product": "parcels"}),
        dg.define_asset_job("parcels_pooled", [pooled_model], tags={"product": "parcels"}),
    ],
)
Took = Callable[..., dg.DagsterRun]


@pytest.fixture
def defs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = new_product("parcels", tmp_path / "defs").parent
    monkeypatch.setenv("MLOPS_ASSETS_DEFS", str(folder))
    return folder


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dagster's own empty history: its migrations take half a second, a copy takes none."""
    home = tmp_path_factory.mktemp("dagster")
    (home / "dagster.yaml").write_text(COORDINATOR)
    with dg.DagsterInstance.from_config(str(home)) as made:
        made.get_runs()
        made.fetch_materializations(model.key, limit=1)
    return home


@pytest.fixture
def instance(empty: Path, tmp_path: Path) -> dg.DagsterInstance:
    shutil.copytree(empty, tmp_path, dirs_exist_ok=True)
    return dg.DagsterInstance.from_config(str(tmp_path))


def run_of(
    instance: dg.DagsterInstance,
    country: str | None = None,
    *,
    job: str = "parcels_train",
    seconds: float | None = None,
    memory_mb: float = 100.0,
) -> dg.DagsterRun:
    """A run that waits, or one that took so long."""
    tags = {"product": "parcels", **({PARTITION: country} if country else {})}
    definition = JOBS.resolve_job_def(job)
    run = instance.create_run_for_job(definition, tags=tags)
    if seconds is not None:
        instance.report_dagster_event(_event("PIPELINE_START", run), run.run_id)
        _move_start(instance, run.run_id, seconds)
        instance.report_dagster_event(_event("PIPELINE_SUCCESS", run), run.run_id)
        instance.add_run_tags(run.run_id, {MEMORY_TAG: f"{memory_mb:.0f}"})
    return run


def _event(kind: str, run: dg.DagsterRun) -> dg.DagsterEvent:
    return dg.DagsterEvent(event_type_value=kind, job_name=run.job_name)


def _move_start(instance: dg.DagsterInstance, run_id: str, seconds: float) -> None:
    """As if it had begun so long ago."""
    from dagster._core.storage.runs.schema import RunsTable

    storage: dg._core.storage.runs.SqliteRunStorage = instance.run_storage  # type: ignore
    with storage.connect() as connection:
        connection.execute(
            RunsTable.update()
            .where(RunsTable.c.run_id == run_id)
            .values(start_time=time.time() - seconds)
        )


def test_a_country_is_as_large_as_its_newest_runs_took(
    instance: dg.DagsterInstance, defs: Path
) -> None:
    run_of(instance, "DEU", seconds=700)
    run_of(instance, "FRA", seconds=200)
    sizes = Sizes(instance, defs)

    found = {country: sizes.of(run_of(instance, country)) for country in ("DEU", "FRA", "NOR")}
    assert {name: each.size for name, each in found.items()} == {
        "DEU": "large",
        "FRA": "medium",
        "NOR": "small",
    }
    assert found["DEU"].seconds == pytest.approx(700, abs=2)
    assert found["NOR"].seconds == 0
    assert found["DEU"].given.memory_gb > found["NOR"].given.memory_gb


def test_memory_makes_a_country_large_too(instance: dg.DagsterInstance, defs: Path) -> None:
    run_of(instance, "DEU", seconds=1, memory_mb=5000)
    assert Sizes(instance, defs).of(run_of(instance, "DEU")).size == "large"


def test_what_the_yaml_says_of_a_country_counts_more(
    instance: dg.DagsterInstance, defs: Path
) -> None:
    run_of(instance, "DEU", seconds=5000)
    file = defs / "parcels" / "defs.yaml"
    edit(file, ("  seed:", "  resources: {sizes: {DEU: small, FRA: large}}\n  seed:"))
    sizes = Sizes(instance, defs)

    assert sizes.of(run_of(instance, "DEU")).size == "small"
    assert sizes.of(run_of(instance, "FRA")).size == "large"


def test_a_yaml_that_is_being_edited_leaves_runs_their_learned_size(
    instance: dg.DagsterInstance, defs: Path
) -> None:
    (defs / "parcels" / "defs.yaml").write_text("type: [")
    assert Sizes(instance, defs).of(run_of(instance, "DEU")).size == "small"


def test_pooled_models_are_large_and_files_of_all_countries_are_not(
    instance: dg.DagsterInstance, defs: Path
) -> None:
    sizes = Sizes(instance, defs)
    assert sizes.of(run_of(instance, job="parcels_pooled")).size == "large"
    assert sizes.of(run_of(instance)).size == "small"


@pytest.mark.parametrize(
    ("seconds", "memory", "size"),
    [
        (None, None, "small"),
        (120.0, 2048.0, "small"),
        (120.1, 0.0, "medium"),
        (0.0, 2049.0, "medium"),
        (600.0, 4096.0, "medium"),
        (600.1, 0.0, "large"),
        (0.0, 4097.0, "large"),
    ],
)
def test_limits_of_sizes(seconds: float | None, memory: float | None, size: str) -> None:
    assert ResourcesSpec().learned(seconds, memory) == size


def test_every_run_that_is_queued_has_its_queue_and_place(
    instance: dg.DagsterInstance, defs: Path
) -> None:
    run_of(instance, "DEU", seconds=700)
    run = run_of(instance, "DEU")
    coordinator = instance.run_coordinator
    assert isinstance(coordinator, SizedRunCoordinator)

    tags = coordinator._tags(run)
    assert tags[SIZE_TAG] == tags[QUEUE] == "large"
    assert int(tags[PRIORITY]) == pytest.approx(700, abs=2)
    assert set(tags) == {SIZE_TAG, QUEUE, PRIORITY}
