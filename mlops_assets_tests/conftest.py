from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from hypothesis import settings

from mlops_assets.components.scaffold import new_product
from mlops_assets.registry import Registry
from mlops_assets.runtime.dagster_storage.sqlite import SqliteHistory
from mlops_assets_tests.effort import examples
from mlops_assets_tests.platform import (
    Platform,
    build_platform,
    dagster_home,
    edit,
    generated,
    share_features,
)

settings.register_profile("here", max_examples=examples(100))
settings.load_profile("here")
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


@pytest.fixture(autouse=True)
def _own_tracking_uri() -> Iterator[None]:
    """MLflow writes the tracking URI it is told into the environment, where the next test and the
    processes it starts would take it for a person's setting."""
    yield
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: its migrations take seconds, a copy takes none."""
    database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    Registry(f"sqlite:///{database}", "unused").initialise()
    return database


@pytest.fixture(scope="session")
def history_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty history of Dagster: its migrations take a second, a copy takes none."""
    folder = tmp_path_factory.mktemp("history")
    SqliteHistory(str(folder)).dispose()
    return folder


@pytest.fixture
def instance(tmp_path: Path, history_template: Path) -> Iterator[dg.DagsterInstance]:
    """A real instance on the storage that runs have."""
    home = dagster_home(tmp_path / "dagster", history_template)
    with dg.DagsterInstance.from_config(str(home)) as made:
        yield made


@pytest.fixture
def make_platform(
    tmp_path: Path, instance: dg.DagsterInstance, mlflow_template: Path
) -> Callable[..., Platform]:
    """A scaffolded product (`parcels`: DEU, FRA, NOR), its YAML and contract changed."""

    def make(*changes: tuple[str, str], contract: tuple[str, str] = ("", "")) -> Platform:
        folder = new_product("parcels", tmp_path / "defs")
        edit(folder / "defs.yaml", *changes)
        edit(folder / "contract.py", contract)
        return build_platform(folder, tmp_path / "home", instance, mlflow_template)

    return make


@pytest.fixture
def platform(make_platform: Callable[..., Platform]) -> Platform:
    return make_platform()


@pytest.fixture
def sharing(tmp_path: Path, instance: dg.DagsterInstance, mlflow_template: Path) -> Platform:
    """The scaffolded product with features that its countries share."""
    folder = new_product("parcels", tmp_path / "defs")
    share_features(folder)
    return build_platform(folder, tmp_path / "home", instance, mlflow_template)


@pytest.fixture
def sample(platform: Platform) -> pd.DataFrame:
    """The product's own generated delivery."""
    return generated(platform)
