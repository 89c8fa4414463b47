"""All that this project knows of MLflow and dagster-mlflow.

Importing it is free: MLflow itself is imported by the functions that need it.
"""

from __future__ import annotations

import os

# Set before MLflow is first imported anywhere: no account, no server, no calls home.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "1")

from mlops_assets.registry.models import LoadedModel, LoggedModel, ModelVersion, Registry
from mlops_assets.registry.tracking import MlflowRegistry, TrackedRun

__all__ = [
    "LoadedModel",
    "LoggedModel",
    "MlflowRegistry",
    "ModelVersion",
    "Registry",
    "TrackedRun",
]
