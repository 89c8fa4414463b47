"""One MLflow run per Dagster training run, opened through dagster-mlflow when training starts."""

from __future__ import annotations

import math
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from mlops_assets.registry.models import LoggedModel, Registry, log_model

_MAX_PARAM = 500  # characters MLflow keeps of a parameter's value on every backend
_BATCH = 100  # parameters MLflow takes at once; of metrics it would take more
_REFUSED = re.compile(r"[^\w.:/ -]", re.ASCII)


@dataclass(frozen=True)
class TrackedRun:
    """An open MLflow run."""

    run_id: str
    experiment_id: str
    url: str
    uri: str

    def log(self, params: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Write parameters and metrics in as few batches as MLflow takes.

        A metric that is not finite is left out; characters that MLflow refuses in a name become _.
        """
        import time

        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        now, client = int(time.time() * 1000), MlflowClient(tracking_uri=self.uri)
        numbers = [
            Metric(_name(k), float(v), now, 0) for k, v in metrics.items() if math.isfinite(v)
        ]
        settings = [Param(_name(k), str(v)[:_MAX_PARAM]) for k, v in params.items()]
        for start in range(0, max(len(numbers), len(settings)), _BATCH):
            part = slice(start, start + _BATCH)
            client.log_batch(self.run_id, metrics=numbers[part], params=settings[part])

    def log_texts(self, texts: Mapping[str, str]) -> None:
        """Store texts (JSON, SVG, markdown) by file name among the run's artifacts, in one go."""
        from mlflow.tracking import MlflowClient

        with tempfile.TemporaryDirectory() as folder:
            for name, text in texts.items():
                file = Path(folder, name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
            MlflowClient(tracking_uri=self.uri).log_artifacts(self.run_id, folder)

    def log_model(
        self, model: Any, inputs: Any, outputs: Any, *, name: str = "model"
    ) -> LoggedModel:
        """Store an estimator under a name, with the signature of these inputs and outputs."""
        return log_model(model, inputs, outputs, name)


class MlflowRegistry(dg.ConfigurableResource):
    """The model registry and the training runs of this Dagster deployment."""

    tracking_uri: str
    artifact_root: str
    ui_url: str

    _context: dg.InitResourceContext | None = PrivateAttr(default=None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Remember the Dagster run; nothing of MLflow is touched until a step trains."""
        self._context = context

    def registry(self) -> Registry:
        """The registered models and aliases."""
        registry = Registry(self.tracking_uri, self.artifact_root)
        registry.initialise()
        return registry

    @contextmanager
    def training_run(
        self, product: str, name: str, tags: Mapping[str, str]
    ) -> Iterator[TrackedRun]:
        """The MLflow run of this Dagster run, ended when the block ends whatever happens.

        A warm process executes many Dagster runs: a run left open would swallow the next one's
        parameters.
        """
        import mlflow

        context = self._context
        assert context is not None, "used outside a Dagster run"
        experiment_id = self.registry().experiment(product)
        _end_stray_run()
        config = {
            "experiment_name": product,
            "mlflow_tracking_uri": self.tracking_uri,
            "env": {},
            "extra_tags": {**tags, "mlflow.runName": name},
        }
        _start(context, config)
        active = mlflow.active_run()
        assert active is not None
        status = "FAILED"
        try:
            yield self._tracked(active.info.run_id, experiment_id)
            status = "FINISHED"
        finally:
            mlflow.end_run(status)

    def run_url(self, run_id: str, experiment_id: str) -> str:
        """Where the MLflow UI shows a run."""
        return f"{self.ui_url.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"

    def _tracked(self, run_id: str, experiment_id: str) -> TrackedRun:
        return TrackedRun(
            run_id, experiment_id, self.run_url(run_id, experiment_id), self.tracking_uri
        )


def _start(context: dg.InitResourceContext, config: Mapping[str, Any]) -> None:
    """Let dagster-mlflow find or start the MLflow run of this Dagster run."""
    with warnings.catch_warnings():
        # Dagster's replace_config and dagster-mlflow use what Dagster deprecates or calls beta.
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.filterwarnings("ignore", message="InitResourceContext")
        from dagster_mlflow.resources import MlFlow

        MlFlow(context.replace_config(dict(config)))


def _name(text: str) -> str:
    return _REFUSED.sub("_", text)


def _end_stray_run() -> None:
    import mlflow

    while mlflow.active_run() is not None:
        mlflow.end_run("KILLED")
