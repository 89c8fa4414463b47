from __future__ import annotations

import pkgutil
import subprocess
import sys

import mlops_assets.ml


def modules() -> list[str]:
    """Every module of the folder and its sub-folders."""
    found = pkgutil.walk_packages(mlops_assets.ml.__path__, "mlops_assets.ml.")
    return [each.name for each in found]


def loaded_after(*modules: str) -> set[str]:
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_pure_functions_know_no_orchestrator_registry_or_file_system() -> None:
    names = modules()
    assert {f"mlops_assets.ml.{name}" for name in ("estimators", "promotion.decision")} < set(names)
    assert len(names) > 50
    loaded = loaded_after(*names)
    assert loaded.isdisjoint({"dagster", "mlflow", "fsspec", "dagster_mlflow"})


def test_scikit_learn_is_loaded_only_to_train() -> None:
    light = [name for name in modules() if name != "mlops_assets.ml.estimators"]
    assert "sklearn" not in loaded_after(*light)
