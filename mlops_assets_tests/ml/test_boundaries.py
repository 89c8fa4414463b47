from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import mlops_assets.ml

ESTIMATORS = "mlops_assets.ml.estimators"


def modules() -> list[str]:
    """Every module of the folder and its sub-folders."""
    found = pkgutil.walk_packages(mlops_assets.ml.__path__, "mlops_assets.ml.")
    return [each.name for each in found]


@pytest.fixture(scope="module")
def loaded() -> tuple[set[str], set[str]]:
    """What is loaded with all but the estimators, and with these as well; of one new process."""
    light = [name for name in modules() if name != ESTIMATORS]
    steps = [f"import sys, {', '.join(light)}", "print(*sys.modules)"]
    steps += [f"import {ESTIMATORS}", "print(*sys.modules)"]
    command = [sys.executable, "-c", "; ".join(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = (
        {name.partition(".")[0] for name in line.split()} for line in done.stdout.splitlines()
    )
    return first, second


def test_pure_functions_know_no_orchestrator_registry_or_file_system(
    loaded: tuple[set[str], set[str]],
) -> None:
    names = modules()
    assert {f"mlops_assets.ml.{name}" for name in ("estimators", "promotion.decision")} < set(names)
    assert len(names) > 50
    assert loaded[1].isdisjoint({"dagster", "mlflow", "fsspec", "dagster_mlflow"})


def test_scikit_learn_is_loaded_only_to_train(loaded: tuple[set[str], set[str]]) -> None:
    assert "sklearn" not in loaded[0]
    assert "sklearn" in loaded[1]
