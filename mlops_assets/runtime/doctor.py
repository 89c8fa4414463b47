"""What can be wrong with a set-up, each with what to do about it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlops_assets.errors import MlopsAssetsError, RegistryError
from mlops_assets.settings import BROKER, DAGSTER_DB, Settings, without_password

_OLDEST, _NEWEST = (3, 11), (3, 13)


@dataclass(frozen=True)
class Finding:
    """One check: what was found and, if it is wrong, the way out."""

    check: str
    ok: bool
    found: str
    way_out: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Every check in turn; a check that cannot be made is a failed one."""
    checks: dict[str, tuple[Callable[[Settings], str], str]] = {
        "python": (_python, "Install Python 3.11 to 3.13 and make .venv again (make demo)."),
        "packages": (_packages, "Install the locked packages again: rm -rf .venv && make demo"),
        "products": (
            _products,
            "Correct the YAML or module it names; a first product: mlops-assets new-product NAME",
        ),
        "storage": (_storage, "Set MLOPS_ASSETS_STORAGE to a folder or bucket you may write to."),
        "registry": (_registry, "Set MLFLOW_TRACKING_URI to a database that answers."),
        "history": (_history, f"Set {DAGSTER_DB} to a PostgreSQL database that answers."),
        "sensors": (
            _sensors,
            "Look at their ticks under Automation in the UI, which have the whole error, and "
            "repair the cause; the next tick tries again. Switch off one that nobody wants.",
        ),
        "broker": (_broker, f"Set {BROKER} to a Redis that answers, or unset it on one machine."),
        "workspace": (_workspace, "Make location_name and code_location_name `mlops_assets`."),
    }
    return [_finding(name, check, way_out, settings) for name, (check, way_out) in checks.items()]


def _finding(
    name: str, check: Callable[[Settings], str], way_out: str, settings: Settings
) -> Finding:
    try:
        return Finding(name, True, check(settings))
    except MlopsAssetsError as error:  # it knows better what to do
        told = f"{error.problem} {error.stored}"
        return Finding(name, False, told, error.way_out or way_out)
    except Exception as error:  # the edge: a broken set-up is what this looks for
        return Finding(name, False, f"{type(error).__name__}: {error}", way_out)


def _python(settings: Settings) -> str:
    version = sys.version_info[:2]
    if not _OLDEST <= version <= _NEWEST:
        raise RuntimeError(f"Python {version[0]}.{version[1]} is not supported")
    return f"{version[0]}.{version[1]}"


def _packages(settings: Settings) -> str:
    from importlib.metadata import version

    return ", ".join(f"{name} {version(name)}" for name in ("dagster", "mlflow", "duckdb"))


def _products(settings: Settings) -> str:
    from mlops_assets.components.loading import load_products
    from mlops_assets.components.soundness import require_sound

    products = load_products(settings.defs)
    if not products:
        raise RuntimeError(f"there is no product in {settings.defs}")
    for product in products:
        require_sound(product, thorough=True)
        product.contract()
        product.feature_function()
        product.shared_function()
    return ", ".join(f"{p.name} ({len(p.spec.countries)} countries)" for p in products)


def _storage(settings: Settings) -> str:
    import fsspec

    filesystem, root = fsspec.core.url_to_fs(settings.storage)
    filesystem.makedirs(root, exist_ok=True)
    probe = f"{root}/.doctor"
    filesystem.pipe_file(probe, b"ok")
    filesystem.rm_file(probe)
    return f"{settings.storage} can be written"


def _registry(settings: Settings) -> str:
    from mlops_assets.registry import Registry

    registry = Registry(settings.mlflow_uri, settings.mlflow_artifacts)
    registry.initialise()
    registry.champions("doctor")
    for folder in sorted(settings.defs.glob("*/defs.yaml")):
        registry.require_experiment(folder.parent.name)
    outside = registry.elsewhere()
    if outside is not None and outside.lost:
        raise RegistryError(
            f"The files of {outside.lost} models and runs are neither under "
            f"{settings.mlflow_artifacts} nor where the registry names them: "
            f"{', '.join(outside.roots)}.",
            stored="They cannot be used; new ones are stored under the first.",
            way_out="Copy the folder of model files of the home that this one was copied from, or "
            "of its backup, to the first place. Without them countries are trained again.",
        )
    where = f"; files of {outside.files} are in {', '.join(outside.roots)}" if outside else ""
    return f"{without_password(settings.mlflow_uri)} answers{where}"


def _history(settings: Settings) -> str:
    import dagster as dg

    from mlops_assets.runtime.instance import prepare_instance

    with dg.DagsterInstance.from_config(str(prepare_instance(settings))) as instance:
        runs = instance.get_runs_count()
    where = without_password(settings.dagster_db) or str(settings.dagster_home)
    return f"{where} has {runs:,} runs"


def _sensors(settings: Settings) -> str:
    import dagster as dg

    from mlops_assets.components.loading import load_products
    from mlops_assets.runtime.instance import prepare_instance
    from mlops_assets.stages.common.history.automation import (
        automation_names,
        failing_automation,
        switched_on,
    )

    names = {name for each in load_products(settings.defs) for name in automation_names(each)}
    with dg.DagsterInstance.from_config(str(prepare_instance(settings))) as instance:
        failing, running = failing_automation(instance, names), switched_on(instance, names)
    if failing:
        raise RuntimeError("; ".join(each.describe() for each in failing))
    return f"{len(running)} are switched on, and the newest tick of each went well"


def _broker(settings: Settings) -> str:
    if not settings.broker:
        return "a folder: all workers are of this machine"
    from celery import Celery

    with Celery(broker=settings.broker).connection() as connection:
        connection.ensure_connection(max_retries=1, timeout=5)
    return f"{without_password(settings.broker)} answers"


def _workspace(settings: Settings) -> str:
    import tomllib

    import yaml

    from mlops_assets.settings import PROJECT_ROOT

    project = tomllib.loads(Path(PROJECT_ROOT / "pyproject.toml").read_text())
    workspace = yaml.safe_load(Path(PROJECT_ROOT / "workspace.yaml").read_text())
    names = {
        project["tool"]["dg"]["project"]["code_location_name"],
        workspace["load_from"][0]["python_module"]["location_name"],
    }
    if len(names) > 1:
        raise RuntimeError(f"two names of the code location: {', '.join(sorted(names))}")
    return f"code location {names.pop()}"
