from __future__ import annotations

# isort: off
from mlops_assets_tests import begin  # noqa: F401  (before what takes long to import)

# isort: on
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from mlops_assets.components.loading import load_product
from mlops_assets.components.scaffold import new_product
from mlops_assets.registry import Registry
from mlops_assets.runtime.dagster_storage.sqlite import SqliteHistory
from mlops_assets_tests import made
from mlops_assets_tests.effort import examples
from mlops_assets_tests.once import once
from mlops_assets_tests.platform import (
    Platform,
    build_platform,
    dagster_home,
    edit,
    failures,
    generated,
    going_on,
    new_home,
    sample_of,
    share_features,
    small_product,
)
from mlops_assets_tests.stages.proposals import build_trained

if TYPE_CHECKING:
    from mlops_assets_tests.browser.site import Site

# No deadline: no test looks at the clock, and a machine may be busy.
settings.register_profile("here", max_examples=examples(100), deadline=None)
settings.load_profile("here")
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


_SERVED = ("mlops_assets_tests/browser/", "mlops_assets_tests/runtime/up/test_up.py")
"""Files whose tests share one `mlops-assets up`."""
_FIRST = (
    _SERVED,
    # First of it what needs nothing that the files above are making just then.
    ("mlops_assets_tests/test_two_commands.py",),
    ("mlops_assets_tests/test_cli",),
    ("mlops_assets_tests/pipeline/", "mlops_assets_tests/runtime/headless/"),
)
"""What takes minutes a file, in the order in which it begins."""
_LAST = "mlops_assets_tests/ml/"
"""Seconds a file: what is left for whoever is done."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """A file at a time to a worker, and all that is served to the same one."""
    return _ServedTogether(config, log) if config.getvalue("dist") == "loadfile" else None


class _ServedTogether(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return _SERVED[0] if file.startswith(_SERVED) else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files are handed out in this order, so that no process is left alone with a long one."""
    items.sort(key=lambda item: _turn(item.nodeid))


def _turn(nodeid: str) -> int:
    if nodeid.startswith(_LAST):
        return len(_FIRST) + 1
    turns = (turn for turn, files in enumerate(_FIRST) if nodeid.startswith(files))
    return next(turns, len(_FIRST))


def pytest_collection_finish() -> None:
    """What is imported by now stays: to look through it for garbage was a twentieth of a run."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_sessionfinish() -> None:
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _own_tracking_uri() -> Iterator[None]:
    """MLflow writes the tracking URI it is told into the environment, where the next test and the
    processes it starts would take it for a person's setting."""
    yield
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        os.environ.pop(name, None)


@pytest.fixture(autouse=True, scope="session")
def _migrations_read_once() -> Iterator[None]:
    """Whoever opens a database of Dagster or MLflow reads the files of all its migrations to learn
    the newest: half of what a new home costs, and they do not change."""
    read, known = ScriptDirectory.from_config, {}

    def once_read(config: Config) -> ScriptDirectory:
        where = config.get_main_option("script_location")
        if where not in known:
            known[where] = read(config)
        return known[where]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", once_read)
        yield


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: its migrations take seconds, a copy takes none."""
    return once(tmp_path_factory, "mlflow", _empty_registry) / "mlflow.db"


def _empty_registry(folder: Path) -> None:
    Registry(f"sqlite:///{folder / 'mlflow.db'}", "unused").initialise()


@pytest.fixture(scope="session")
def history_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty history of Dagster: its migrations take a second, a copy takes none."""
    return once(tmp_path_factory, "history", lambda folder: SqliteHistory(str(folder)).dispose())


@pytest.fixture(scope="session")
def once_trained(
    tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path, history_template: Path
) -> Path:
    """Three countries, each with version 1 as champion and predictions made by it, to copy."""

    def make(folder: Path) -> None:
        build_trained(folder, history_template, mlflow_template)

    return once(tmp_path_factory, "trained", make)


@pytest.fixture(scope="session")
def once_ran(
    tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path, history_template: Path
) -> Path:
    """A scaffolded product after one whole run of FRA, to copy."""

    def make(folder: Path) -> None:
        product = small_product("parcels", folder / "defs")
        with new_home(folder, product, history_template, mlflow_template) as platform:
            platform.deliver(generated(platform))
            result = platform.run("FRA")
            assert result.success, failures(result)

    return once(tmp_path_factory, "ran", make)


@pytest.fixture
def ran(once_ran: Path, tmp_path: Path) -> Iterator[Platform]:
    """The scaffolded product, its own delivery and a whole run of FRA."""
    with going_on(once_ran, tmp_path) as platform:
        yield platform


@pytest.fixture
def instance(tmp_path: Path, history_template: Path) -> Iterator[dg.DagsterInstance]:
    """A real instance on the storage that runs have."""
    home = dagster_home(tmp_path / "dagster", history_template)
    with dg.DagsterInstance.from_config(str(home)) as made:
        yield made


@pytest.fixture(scope="session")
def once_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `materialize --all` of `power_price` said and left, to copy."""
    return once(tmp_path_factory, "made", made.make)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, once_made: Path) -> Iterator[Site]:
    """`mlops-assets up` for all tests that look at its pages or end its services."""
    from mlops_assets_tests.browser.site import serving

    with serving(tmp_path_factory.mktemp("site"), once_made) as site:
        yield site


@pytest.fixture
def make_platform(
    tmp_path: Path, instance: dg.DagsterInstance, mlflow_template: Path
) -> Callable[..., Platform]:
    """A scaffolded product (`parcels`: DEU, FRA, NOR), its YAML and contract changed."""

    def make(*changes: tuple[str, str], contract: tuple[str, str] = ("", "")) -> Platform:
        folder = small_product("parcels", tmp_path / "defs")
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
    folder = small_product("parcels", tmp_path / "defs")
    share_features(folder)
    return build_platform(folder, tmp_path / "home", instance, mlflow_template)


@pytest.fixture
def sample(tmp_path: Path) -> pd.DataFrame:
    """The scaffolded product's own generated delivery."""
    return sample_of(load_product(new_product("parcels", tmp_path / "sample")))
