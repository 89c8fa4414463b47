from __future__ import annotations

import pkgutil
import subprocess
import sys

import mlops_assets.ml


def loaded_after(*modules: str) -> set[str]:
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_pure_functions_know_no_orchestrator_registry_or_file_system() -> None:
    names = [found.name for found in pkgutil.iter_modules(mlops_assets.ml.__path__)]
    assert {"validation", "features", "split", "models", "selection", "decision"} <= set(names)
    loaded = loaded_after(*(f"mlops_assets.ml.{name}" for name in names))
    assert loaded.isdisjoint({"dagster", "mlflow", "fsspec", "dagster_mlflow"})


def test_scikit_learn_is_loaded_only_to_train() -> None:
    names = [found.name for found in pkgutil.iter_modules(mlops_assets.ml.__path__)]
    light = [f"mlops_assets.ml.{name}" for name in names if name != "estimators"]
    assert "sklearn" not in loaded_after(*light)
