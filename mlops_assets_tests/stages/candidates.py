"""A registered version whose run holds its model card, as training leaves it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge

from mlops_assets.ml.reports.tables import flat_metrics
from mlops_assets.registry import ModelVersion, Registry, TrackedRun
from mlops_assets.registry.models import log_model
from mlops_assets.stages.training.evaluation_metadata import artifacts
from mlops_assets_tests.ml import cards


def registered_with_card(
    registry: Registry,
    params: Mapping[str, Any] | None = None,
    numbers: Mapping[str, float] | None = None,
) -> ModelVersion:
    """Version 1 of parcels in FRA; its run also logs these parameters and numbers."""
    frame = pd.DataFrame({"x": np.arange(5.0)})
    mlflow.set_tracking_uri(registry.tracking_uri)
    mlflow.set_registry_uri(registry.tracking_uri)
    model = Ridge().fit(frame, frame["x"])
    run_id = mlflow.start_run(experiment_id=registry.experiment("parcels")).info.run_id
    try:
        logged = log_model(model, frame, frame["x"].to_numpy(), "model")
    finally:
        mlflow.end_run()
    tracked = TrackedRun(run_id, "", "", registry.tracking_uri)
    tracked.log_texts(artifacts(cards.regression()))
    tracked.log(params or {}, {**flat_metrics(cards.regression().report), **(numbers or {})})
    return registry.register("parcels", "FRA", logged, run_id=run_id, kind="local", tags={})
