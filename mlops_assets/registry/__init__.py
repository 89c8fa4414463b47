"""All that this project knows of MLflow and dagster-mlflow.

Importing it is free: MLflow itself is imported by the functions that need it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Set before MLflow is first imported anywhere: no account, no server, no calls home.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "1")
# A tracking server that is down is said within half a minute; MLflow would try for four.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
# Artifacts are read by commands whose output is read by people and programs.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlops_assets.registry.models import Aliases, LoadedModel, LoggedModel, ModelVersion, Registry

if TYPE_CHECKING:
    from mlops_assets.registry.tracking import MlflowRegistry, TrackedRun

_NEEDED = (
    # First: it looks for its types in every module that is there, MLflow's thousands included.
    "skops.io",
    "dagster_mlflow.resources",
    "mlflow.pyfunc",
    "mlflow.sklearn",
    "mlflow.store.tracking.sqlalchemy_store",
    "sklearn.ensemble",
    "sklearn.pipeline",
)
"""What every training imports."""

__all__ = [
    "Aliases",
    "LoadedModel",
    "LoggedModel",
    "MlflowRegistry",
    "ModelVersion",
    "Registry",
    "TrackedRun",
    "preload",
]


def preload() -> None:
    """Import what a run needs, so that forks of this process have it already."""
    from importlib import import_module

    for name in _NEEDED:
        import_module(name)


def __getattr__(name: str) -> Any:
    """What needs Dagster, imported when first asked for: an isolated process needs models alone."""
    if name in {"MlflowRegistry", "TrackedRun"}:
        from mlops_assets.registry import tracking

        return getattr(tracking, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
