"""Where the floor works: its product, its files, its MLflow. Nothing here imports Dagster."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchmarks.overhead.clock import Clock
from benchmarks.overhead.world import PRODUCT
from mlops_assets.product import Product
from mlops_assets.registry.models import ModelVersion, Registry
from mlops_assets.spec import ProductSpec

_BATCH = 100
_MOST_PARAM = 500


@dataclass(frozen=True)
class Place:
    """One home as a script sees it.

    Attributes:
        home: its folder.
        clock: of this process.
    """

    home: Path
    clock: Clock = field(default_factory=Clock)

    @cached_property
    def product(self) -> Product:
        """The product, read without the platform's checks of its YAML."""
        folder = self.home / "defs" / PRODUCT
        content = yaml.safe_load((folder / "defs.yaml").read_text())
        return Product(PRODUCT, folder, ProductSpec.model_validate(content["attributes"]))

    @cached_property
    def registry(self) -> Registry:
        """The models, in a database as the platform makes it."""
        folder = self.home / "mlflow"
        return Registry(f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri())

    def write(self, frame: pd.DataFrame, asset: str, name: str = "all") -> None:
        """A frame as a Parquet file, replacing what was there."""
        with self.clock.part("writing"):
            file = self.home / "floor" / asset / f"{name}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            frame.to_parquet(file, index=False)

    @contextmanager
    def mlflow_run(self, name: str) -> Iterator[Run]:
        """An MLflow run of the product's experiment."""
        import mlflow

        with self.clock.part("mlflow"):
            mlflow.set_tracking_uri(self.registry.tracking_uri)
            experiment = self.registry.experiment(self.product.name)
            tags = {"product": self.product.name, "country": name}
            active = mlflow.start_run(experiment_id=experiment, run_name=name, tags=tags)
        try:
            yield Run(self, active.info.run_id)
        finally:
            with self.clock.part("mlflow"):
                mlflow.end_run()


@dataclass(frozen=True)
class Run:
    """An open MLflow run, written to by the same calls as `registry.tracking.TrackedRun`."""

    place: Place
    run_id: str

    def log(self, params: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Parameters and metrics in as few batches as MLflow takes."""
        import time

        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        with self.place.clock.part("mlflow"):
            now, client = int(time.time() * 1000), MlflowClient(self.place.registry.tracking_uri)
            numbers = [Metric(k, float(v), now, 0) for k, v in metrics.items() if math.isfinite(v)]
            settings = [Param(k, str(v)[:_MOST_PARAM]) for k, v in params.items()]
            for start in range(0, max(len(numbers), len(settings)), _BATCH):
                part = slice(start, start + _BATCH)
                client.log_batch(self.run_id, metrics=numbers[part], params=settings[part])

    def log_texts(self, texts: Mapping[str, str]) -> None:
        """Texts by file name among the run's artifacts, in one go."""
        from mlflow.tracking import MlflowClient

        with self.place.clock.part("mlflow"), tempfile.TemporaryDirectory() as folder:
            for name, text in texts.items():
                Path(folder, name).write_text(text, encoding="utf-8")
            MlflowClient(self.place.registry.tracking_uri).log_artifacts(self.run_id, folder)

    def log_model(self, model: Any, example: Any, predicted: Any, name: str = "model") -> Any:
        """A fitted estimator under a name, stored without pickle as the platform does it."""
        from mlops_assets.registry.models import log_model

        with self.place.clock.part("mlflow"):
            return log_model(model, example, predicted, name)

    def register(self, country: str, stored: Any, kind: str, tags: Mapping[str, str]) -> Any:
        """A version of the registered model of a country."""
        registry, product = self.place.registry, self.place.product.name
        with self.place.clock.part("mlflow"):
            return registry.register(
                product, country, stored, run_id=self.run_id, kind=kind, tags=tags
            )

    def tag(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Tags of a registered version."""
        with self.place.clock.part("mlflow"):
            self.place.registry.tag(version, tags)

    def promote(self, version: ModelVersion) -> None:
        """Put a version into use."""
        with self.place.clock.part("mlflow"):
            self.place.registry.promote(version)
