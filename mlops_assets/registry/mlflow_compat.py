"""All that is used of MLflow's private parts; nothing else names them.

A release of MLflow may change any of it. Each use has a test in
`mlops_assets_tests/registry/test_mlflow_compat.py`, so that an upgrade that breaks one says so
before anything runs. Importing this is free: MLflow is imported by the functions that need it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

STORES = (
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
)
"""Modules whose `SqlAlchemyStore` keeps an engine for each database, in `_engine_map`."""


def registry_client(uri: str) -> MlflowClient:
    """A client of the models and runs of a database or tracking server.

    It takes every name for a model's. MLflow keeps prompts among the registered models. Its client
    asks before each change of a version or alias whether the name is a prompt's, with all of the
    model's versions: more than the change costs. Nothing here makes prompts.

    Relies on the client asking that of `_raise_if_prompt`.
    """
    return client_class()(tracking_uri=uri, registry_uri=uri)


@cache
def client_class() -> type[MlflowClient]:
    """The class of that client."""
    from mlflow.tracking import MlflowClient

    class RegistryClient(MlflowClient):
        """One that takes every name for a model's."""

        def _raise_if_prompt(self, name: str) -> None:
            """Not asked; who changes what is not there is still told so."""

    return RegistryClient


def knows_schema(revision: str) -> bool:
    """Whether this MLflow can migrate a database whose tables have this revision.

    Relies on `_get_alembic_config` in `mlflow.store.db.utils`, which leads to its migrations.
    """
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from mlflow.store.db import utils

    try:
        script = ScriptDirectory.from_config(utils._get_alembic_config(db_url=""))
        return script.get_revision(revision) is not None
    except CommandError:
        return False


def newest_schema() -> str:
    """The revision of the tables that this MLflow makes.

    Relies on `_get_alembic_config` as `knows_schema`.
    """
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils

    script = ScriptDirectory.from_config(utils._get_alembic_config(db_url=""))
    return str(script.get_current_head())


def close_idle() -> None:
    """Close the connections that MLflow keeps to its databases and nobody uses just now.

    Before a fork, which would use them together with this process, and on SQLite would take the
    locks of this process for its own.

    Relies on each store keeping its engines in `_engine_map`.
    """
    for name in STORES:
        store: Any = getattr(sys.modules.get(name), "SqlAlchemyStore", None)
        for engine in list(store._engine_map.values()) if store else ():
            engine.dispose()


os.register_at_fork(before=close_idle)


def become(command: Sequence[str], extra_env: Mapping[str, str], **_: Any) -> NoReturn:
    """This process is a command from here on."""
    os.execvpe(command[0], list(command), {**os.environ, **extra_env})


def serve_as_one_process(options: Sequence[str]) -> None:
    """`mlflow server` with these options, in place of this process and not beside it.

    Relies on its starting the server with `_exec_cmd`, a name in `mlflow.server`.
    """
    from mlflow import cli, server

    setattr(server, "_exec_cmd", become)  # noqa: B010  (it is not exported)
    cli.cli(["server", *options])
