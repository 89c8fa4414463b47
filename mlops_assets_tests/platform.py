"""A whole platform in a temporary folder: one product, real Dagster instance, real MLflow."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import yaml

from mlops_assets.components.loading import load_product
from mlops_assets.components.scaffold import new_product
from mlops_assets.product import Product
from mlops_assets.registry import MlflowRegistry, Registry
from mlops_assets.runtime.dagster_storage.sqlite import SqliteHistory
from mlops_assets.runtime.status import CountryStatus, product_status
from mlops_assets.stages import build_product
from mlops_assets.stages.common.base import Storage
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.staleness import Staleness
from mlops_assets.storage import SnapshotStore
from mlops_assets.storage.io_manager import SnapshotIOManager

SMALL = ("max_iter: 100, learning_rate: 0.1}", "max_iter: 15, learning_rate: 0.3}")
"""The trees of a scaffolded product: enough of them to beat its naive rules, and no more.

To fit, store, load and check the hundred it has is most of what a run would cost."""
SHARED_CODE = '''

def shared(validated):
    """The demand of every country by day."""
    demand = {name: rows.set_index("date")["demand"] for name, rows in validated.items()}
    made = pd.DataFrame(demand).astype("float64").sort_index()
    return made.rename_axis("event_time").reset_index()


def build(validated, shared):
    """The features of the country, and the mean demand of all countries that day."""
    mean = shared.set_index("event_time").mean(axis=1)
    return own(validated).assign(mean_of_all=lambda made: made["event_time"].map(mean))
'''
"""What a scaffolded product's features get when its countries share some."""


@dataclass
class Platform:
    """What a test drives and looks at."""

    product: Product
    home: Path
    instance: dg.DagsterInstance
    store: SnapshotStore
    registry: Registry
    resources: Mapping[str, object]

    @cached_property
    def defs(self) -> dg.Definitions:
        """Made when a test runs something: many only look at what is stored."""
        own = dg.Definitions(resources=dict(self.resources), executor=dg.in_process_executor)
        return dg.Definitions.merge(build_product(self.product), own)

    @property
    def context(self) -> ProductContext:
        return ProductContext(self.product, self.store, self.registry)

    @property
    def landing(self) -> Path:
        return self.home / "landing" / self.product.name

    def deliver(self, frame: pd.DataFrame, name: str = "delivery.parquet") -> Path:
        self.landing.mkdir(parents=True, exist_ok=True)
        target = self.landing / name
        frame.to_parquet(target, index=False)
        settle(target)
        return target

    def run(
        self,
        country: str | None,
        job: str = "all",
        assets: Sequence[str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """One native run of one country, failing or not."""
        selection = [dg.AssetKey([self.product.name, name]) for name in assets or ()]
        return self.defs.resolve_job_def(f"{self.product.name}_{job}").execute_in_process(
            instance=self.instance,
            partition_key=country,
            asset_selection=selection or None,
            tags=dict(tags or {}),
            raise_on_error=False,
        )

    def run_range(self, first: str, last: str) -> dg.ExecuteInProcessResult:
        """One run of `raw` over many countries, as a backfill launches it."""
        return self.defs.resolve_job_def(f"{self.product.name}_all").execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey([self.product.name, "raw"])],
            tags={
                "dagster/asset_partition_range_start": first,
                "dagster/asset_partition_range_end": last,
            },
            raise_on_error=False,
        )

    def materialized(self, asset: str) -> set[str | None]:
        """Partitions of an asset that Dagster holds as made."""
        key = dg.AssetKey([self.product.name, asset])
        records = self.instance.fetch_materializations(key, limit=1000).records
        return {record.partition_key for record in records}

    def told(self, asset: str, country: str) -> dict[str, Any]:
        """Metadata of the newest materialization of a country."""
        key = dg.AssetKey([self.product.name, asset])
        wanted = dg.AssetRecordsFilter(key, asset_partitions=[country])
        (newest,) = self.instance.fetch_materializations(wanted, limit=1).records
        made = newest.asset_materialization
        assert made is not None
        return {name: value.value for name, value in made.metadata.items()}

    def frame(self, asset: str, country: str | None) -> pd.DataFrame:
        return self.store.read((self.product.name, asset), country)

    def version(self, asset: str, country: str | None) -> str | None:
        made = self.store.current((self.product.name, asset), country)
        return made.version if made else None

    def decisions(self, country: str) -> pd.DataFrame:
        return self.store.read_log((self.product.name, "decisions"), country)

    def first_stale(self, country: str, assets: Sequence[str]) -> str | None:
        """Name of the first asset that has to be made again, by the rule that everybody asks."""
        stale = Staleness(self.context, [country]).first(country, assets)
        return stale.asset if stale else None

    def status(self) -> dict[str, CountryStatus]:
        rows = product_status(self.context)
        return {row.country: row for row in rows}


def settle(*files: Path) -> None:
    """As if they had been dropped a minute ago: a file changed just now would be waited for."""
    for file in files:
        then = file.stat().st_mtime - 60
        os.utime(file, (then, then))


def generated(platform: Platform) -> pd.DataFrame:
    """The product's own demonstration data, for all its countries."""
    return sample_of(platform.product)


def sample_of(product: Product) -> pd.DataFrame:
    """What the product generates for a demonstration, always the same."""
    function = product.sample_function()
    assert function is not None
    return function(7)


def checks(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """Check evaluations of a run as `asset.check`."""
    return {
        f"{event.asset_check_evaluation_data.asset_key.path[-1]}."
        f"{event.asset_check_evaluation_data.check_name}": event.asset_check_evaluation_data
        for event in result.all_events
        if event.event_type_value == "ASSET_CHECK_EVALUATION"
    }


def made(result: dg.ExecuteInProcessResult) -> list[str]:
    """Names of the assets a run materialized."""
    return [
        event.asset_key.path[-1]
        for event in result.all_events
        if event.event_type_value == "ASSET_MATERIALIZATION" and event.asset_key
    ]


def failures(result: dg.ExecuteInProcessResult) -> str:
    """The error texts of the failed steps."""
    return "\n".join(
        str(event.step_failure_data.error) for event in result.all_events if event.is_step_failure
    )


def dagster_home(home: Path, history_template: Path) -> Path:
    """A new folder of a Dagster instance, with an empty history as runs have it."""
    shutil.copytree(history_template, home / "history")
    storage = {
        "module": SqliteHistory.__module__,
        "class": SqliteHistory.__name__,
        "config": {"base_dir": str(home / "history")},
    }
    # As the platform's own instances: capturing output costs a run several processes a step.
    no_output = {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
    settings = {
        "telemetry": {"enabled": False},
        "storage": {"custom": storage},
        "compute_logs": no_output,
    }
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    return home


def build_platform(
    folder: Path, home: Path, instance: dg.DagsterInstance, mlflow_template: Path
) -> Platform:
    """The product in `folder` on storage, registry and landing folder under `home`."""
    product = load_product(folder)
    database = home / "mlflow" / "mlflow.db"
    database.parent.mkdir(parents=True)
    shutil.copyfile(mlflow_template, database)
    return platform_of(product, home, instance)


@contextmanager
def new_home(
    folder: Path, product: Path, history_template: Path, mlflow_template: Path
) -> Iterator[Platform]:
    """A platform in `folder`, which `going_on` can take further when the block has ended."""
    dagster_home(folder / "dagster", history_template)
    with dg.DagsterInstance.from_config(str(folder / "dagster")) as instance:
        yield build_platform(product, folder / "home", instance, mlflow_template)


@contextmanager
def going_on(made: Path, into: Path) -> Iterator[Platform]:
    """What a `new_home` left, for a test to do with as it likes: its runs and model files too."""
    dagster_home(into / "dagster", made / "dagster" / "history")
    with dg.DagsterInstance.from_config(str(into / "dagster")) as instance:
        yield copied(made, into, instance)


def copied(made: Path, into: Path, instance: dg.DagsterInstance) -> Platform:
    """The same of its own, on another instance: its snapshots, aliases and MLflow's runs."""
    (folder,) = (made / "defs").iterdir()
    shutil.copytree(made / "defs", into / "defs", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("store", "landing", "mlflow/artifacts"):
        if (made / "home" / name).exists():
            shutil.copytree(made / "home" / name, into / "home" / name)
    (into / "home" / "mlflow").mkdir(exist_ok=True)
    copy_registry(made / "home" / "mlflow", into / "home" / "mlflow")
    return platform_of(load_product(into / "defs" / folder.name), into / "home", instance)


_WHERE = (
    ("experiments", "artifact_location"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("runs", "artifact_uri"),
)
"""Columns in which MLflow keeps where its files are."""


def copy_registry(made: Path, into: Path) -> None:
    """MLflow's database of one folder in another, with its files there."""
    source, target = (sqlite3.connect(each / "mlflow.db") for each in (made, into))
    source.backup(target)  # a plain copy would leave out what is in its write-ahead log
    source.close()
    for table, column in _WHERE:
        change = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
        target.execute(change, (made.as_uri(), into.as_uri()))
    target.commit()
    target.close()


def rebuilt(platform: Platform) -> Platform:
    """The same platform after its code or YAML was changed, as a new process would load it.

    Python takes bytecode by size and whole second of its source: an edit of a digit within the
    second in which the file was last loaded would not be seen.
    """
    for stale in platform.product.folder.rglob("__pycache__"):
        shutil.rmtree(stale)
    return platform_of(load_product(platform.product.folder), platform.home, platform.instance)


def as_of(platform: Platform, moment: dt.datetime, mlflow_template: Path) -> Platform:
    """A platform of its own that makes everything from what the other one knew at a moment."""
    home = platform.home / "as_of" / moment.strftime("%Y%m%dT%H%M%S%f")
    database = home / "mlflow" / "mlflow.db"
    if not database.exists():
        database.parent.mkdir(parents=True)
        shutil.copyfile(mlflow_template, database)
    then = {"as_of": moment.isoformat(), "origin_uri": platform.store.uri}
    return platform_of(platform.product, home, dg.DagsterInstance.ephemeral(), **then)


def platform_of(
    product: Product, home: Path, instance: dg.DagsterInstance, **then: str
) -> Platform:
    """A product on the storage and registry that are under `home`."""
    uri = f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"
    artifacts = (home / "mlflow" / "artifacts").as_uri()
    resources = {
        "io_manager": SnapshotIOManager(uri=str(home / "store")),
        "storage": Storage(
            uri=str(home / "store"),
            landing_uri=str(home / "landing"),
            locks=str(home / "locks"),
            **then,
        ),
        "mlflow": MlflowRegistry(
            tracking_uri=uri, artifact_root=artifacts, ui_url="http://127.0.0.1:5000"
        ),
    }
    store = SnapshotStore(str(home / "store"))
    return Platform(product, home, instance, store, Registry(uri, artifacts), resources)


def small_product(name: str, defs: Path) -> Path:
    """A scaffolded product that trains in a moment; its folder."""
    folder = new_product(name, defs)
    edit(folder / "defs.yaml", SMALL)
    return folder


def share_features(folder: Path) -> None:
    """Give a scaffolded product features that its countries share."""
    edit(folder / "features.py", ("def build(validated", "def own(validated"))
    with (folder / "features.py").open("a") as file:
        file.write(SHARED_CODE)
    own = "  features: features.build\n"
    edit(folder / "defs.yaml", (own, f"{own}  shared_features: features.shared\n"))


def edit(file: Path, *changes: tuple[str, str]) -> None:
    """Replace text in a file; each old text is there."""
    text = file.read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    file.write_text(text)
