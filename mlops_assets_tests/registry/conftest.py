from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from mlops_assets.registry import LoggedModel, Registry, models
from mlops_assets.registry.models import log_model

ROWS = pd.DataFrame({"price": np.arange(20.0), "temperature": np.arange(20.0)[::-1]})


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Registry:
    """One real database for a module: opening another costs a good second."""
    home = tmp_path_factory.mktemp("registry")
    shutil.copyfile(mlflow_template, home / "mlflow.db")
    return Registry(f"sqlite:///{home / 'mlflow.db'}", (home / "artifacts").as_uri())


@pytest.fixture(scope="module")
def product() -> Callable[[], str]:
    """Names of products that no test has used yet."""
    numbers = itertools.count()
    return lambda: f"product_{next(numbers)}"


@contextmanager
def open_run(registry: Registry) -> Iterator[str]:
    """An MLflow run that models can be logged with; its id."""
    mlflow.set_tracking_uri(registry.tracking_uri)
    mlflow.set_registry_uri(registry.tracking_uri)
    with mlflow.start_run(experiment_id=registry.experiment("tests")) as run:
        yield run.info.run_id


@pytest.fixture(scope="module")
def stored(registry: Registry) -> Callable[..., LoggedModel]:
    """Stores a fitted model in a run of its own, as another process would: it is not kept here."""

    def store(model: Any = None) -> LoggedModel:
        fitted = model if model is not None else Ridge().fit(ROWS, ROWS["price"])
        with open_run(registry):
            logged = log_model(fitted, ROWS, np.asarray(fitted.predict(ROWS)), "model")
        models._held_models.clear()
        return logged

    return store


@pytest.fixture(scope="module")
def ridge(stored: Callable[..., LoggedModel]) -> LoggedModel:
    """A model that is stored whole; several versions may share its files."""
    return stored()
