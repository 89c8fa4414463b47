"""Everything of MLflow that no release promises to keep is as it was when we began to use it."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from mlflow.utils import process
from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool

from mlops_assets.registry import mlflow_compat
from mlops_assets_tests.relied_on import names_in, parameters


def test_a_revision_is_known_exactly_if_mlflow_has_a_migration_to_it() -> None:
    from mlflow.store.db import utils

    assert "db_url" in parameters(utils._get_alembic_config)
    assert mlflow_compat.knows_schema(utils._get_latest_schema_revision())
    assert not mlflow_compat.knows_schema("ffffffffffff")
    assert mlflow_compat.newest_schema() == utils._get_latest_schema_revision()


@pytest.mark.parametrize(
    "method",
    [
        "create_registered_model",
        "create_model_version",
        "set_registered_model_alias",
        "delete_registered_model_alias",
        "set_model_version_tag",
    ],
)
def test_the_question_that_is_left_out_is_one_that_mlflow_would_ask(method: str) -> None:
    asks = "_raise_if_prompt" in names_in(getattr(MlflowClient, method))
    assert asks is (method not in _NEVER_ASKED)


_NEVER_ASKED = {"create_registered_model", "create_model_version"}


def test_the_client_takes_every_name_for_a_models() -> None:
    ours, theirs = mlflow_compat.client_class(), MlflowClient
    assert set(vars(ours)) & set(vars(theirs)) >= {"_raise_if_prompt"}
    for each in (ours, theirs):
        assert parameters(each._raise_if_prompt) == ["self", "name"]


@pytest.mark.parametrize("name", mlflow_compat.STORES)
def test_connections_that_a_store_keeps_are_closed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = import_module(name).SqlAlchemyStore
    assert isinstance(store._engine_map, dict)
    keeps = [each for each in vars(store).values() if isinstance(each, classmethod)]
    assert any("_engine_map" in names_in(each.__func__) for each in keeps)
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}", poolclass=QueuePool)
    monkeypatch.setitem(store._engine_map, "here", engine)
    engine.connect().close()
    assert isinstance(engine.pool, QueuePool)
    assert engine.pool.checkedin() == 1
    mlflow_compat.close_idle()
    assert isinstance(engine.pool, QueuePool)
    assert engine.pool.checkedin() == 0


def test_the_page_is_started_by_the_function_that_is_replaced() -> None:
    from mlflow import cli, server  # seconds, and nobody else needs them

    serving: Any = server
    assert serving._exec_cmd is process._exec_cmd
    assert "_exec_cmd" in names_in(serving._run_server)
    assert parameters(process._exec_cmd)[0] == "cmd"
    assert "extra_env" in parameters(process._exec_cmd)
    page: Any = cli.server
    assert "_run_server" in names_in(page.callback)
    assert "workers" in {each.name for each in page.params}


def test_importing_the_compat_module_imports_nothing_of_mlflow() -> None:
    code = "import sys, mlops_assets.registry.mlflow_compat as _; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
