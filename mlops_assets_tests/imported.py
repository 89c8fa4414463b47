"""What the processes of tests need, imported once in the one that they are forked from."""

from __future__ import annotations

import gc
from importlib import import_module

from mlops_assets.gc_pause import gc_paused

_NEEDED = (
    "skops.io",  # first: it looks for its types in every module that is there
    "dagster",
    "duckdb",
    "mlflow",
    "mlflow.sklearn",
    "pandas",
    "sklearn.ensemble",
    "mlops_assets.cli",
    "mlops_assets.definitions",
    "mlops_assets_tests.runtime.asked",
    "mlops_assets_tests.storage.writers",
)

with gc_paused():
    for _name in _NEEDED:
        import_module(_name)
gc.freeze()
