"""The MLflow client of registered models.

Imports MLflow: for functions to import when they need it.
"""

from __future__ import annotations

import os

from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as TrackingStore
from mlflow.tracking import MlflowClient


class RegistryClient(MlflowClient):
    """One that takes every name for a model's.

    MLflow keeps prompts among the registered models. Its client asks before each change of a
    version or alias whether the name is a prompt's, with all of the model's versions: more than the
    change costs. Nothing here makes prompts.
    """

    def _raise_if_prompt(self, name: str) -> None:
        """Not asked; who changes what is not there is still told so."""


def close_idle() -> None:
    """Close the connections that MLflow keeps to its databases and nobody uses just now.

    Before a fork, which would use them together with this process, and on SQLite would take the
    locks of this process for its own.
    """
    for store in (RegistryStore, TrackingStore):
        for engine in list(store._engine_map.values()):
            engine.dispose()


os.register_at_fork(before=close_idle)
