"""Processes of their own for tests, that need not import everything anew."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

_IMPORTED = (
    "dagster",
    "duckdb",
    "mlflow",
    "mlflow.sklearn",
    "pandas",
    "skops.io",
    "sklearn.ensemble",
    "mlops_assets.cli",
    "mlops_assets.definitions",
    "mlops_assets_tests.runtime.asked",
    "mlops_assets_tests.storage.writers",
)


def forks() -> ForkServerContext:
    """Of one process that has imported it all, and has no thread; for the whole test session."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    return context
