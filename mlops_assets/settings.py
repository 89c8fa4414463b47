"""Where this deployment keeps its things: the one place that reads the environment.

Every value has a default under one folder, so that a bare checkout needs no set-up.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parent.parent
DEFS = PROJECT_ROOT / "mlops_assets" / "defs"


@dataclass(frozen=True)
class Settings:
    """Locations as URIs or absolute paths.

    Attributes:
        home: folder of everything below that is not set on its own.
        storage: root of the snapshots; a folder or `s3://bucket/prefix`.
        landing: folder or prefix with one folder of delivered files a product.
        mlflow_uri: SQLAlchemy URL of the MLflow database, or a tracking server.
        mlflow_artifacts: root of model files.
        mlflow_ui: address under which people open MLflow.
        dagster_home: folder of the Dagster instance that the commands use.
        defs: folder with one folder a product.
    """

    home: Path
    storage: str
    landing: str
    mlflow_uri: str
    mlflow_artifacts: str
    mlflow_ui: str
    dagster_home: Path
    defs: Path


def load_settings() -> Settings:
    """The settings as the environment has them now (see `.env.example`)."""
    home = Path(os.environ.get("MLOPS_ASSETS_HOME") or PROJECT_ROOT / "data").resolve()
    return Settings(
        home=home,
        storage=os.environ.get("MLOPS_ASSETS_STORAGE") or str(home / "store"),
        landing=os.environ.get("MLOPS_ASSETS_LANDING") or str(home / "landing"),
        mlflow_uri=os.environ.get("MLFLOW_TRACKING_URI")
        or f"sqlite:///{home / 'mlflow' / 'mlflow.db'}",
        mlflow_artifacts=os.environ.get("MLOPS_ASSETS_MLFLOW_ARTIFACTS")
        or (home / "mlflow" / "artifacts").as_uri(),
        mlflow_ui=os.environ.get("MLOPS_ASSETS_MLFLOW_UI") or "http://127.0.0.1:5000",
        dagster_home=Path(os.environ.get("DAGSTER_HOME") or home / "dagster").resolve(),
        defs=Path(os.environ.get("MLOPS_ASSETS_DEFS") or DEFS),
    )
