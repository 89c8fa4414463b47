"""A registry that a person has to put right says what it is, what was not done, and how."""

from __future__ import annotations

import re
import shlex
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from mlops_assets.errors import RegistryError
from mlops_assets.registry import Registry
from mlops_assets.registry.models import registered_name
from mlops_assets.registry.trained import trained_versions
from mlops_assets_tests.called import call

OLDER, NEWER = "acf3f17fdcc7", "ffffffffffff"


def registry_of(folder: Path) -> Registry:
    return Registry(f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri())


@pytest.fixture
def home(tmp_path: Path, mlflow_template: Path) -> Path:
    folder = tmp_path / "it's a home"
    folder.mkdir()
    shutil.copyfile(mlflow_template, folder / "mlflow.db")
    return folder


def revision(home: Path, new: str = "") -> str:
    """Of the tables, after it was set."""
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        if new:
            connection.execute("update alembic_version set version_num = ?", (new,))
            connection.commit()
        ((found,),) = connection.execute("select version_num from alembic_version")
        return found


def refusals(registry: Registry) -> list[RegistryError]:
    """What each way to ask is told."""
    asks = (
        lambda: registry.champions("demand"),
        lambda: registry.aliases_of_all("demand"),
        lambda: registry.aliases(registered_name("demand", "FRA")),
        lambda: registry.champion("demand", "FRA"),
        lambda: registry.version_numbers("demand.FRA"),
        lambda: registry.version("demand.FRA", "1"),
        lambda: registry.experiment("demand"),
        lambda: registry.end_runs_of("none"),
        lambda: trained_versions(registry, "demand"),
    )
    told = []
    for ask in asks:
        with pytest.raises(RegistryError) as refused:
            ask()
        told.append(refused.value)
    return told


@pytest.mark.parametrize(("found", "way"), [(OLDER, "mlflow db upgrade"), (NEWER, "Install the")])
def test_tables_of_another_mlflow_are_told_by_every_question_and_never_migrated(
    home: Path, found: str, way: str
) -> None:
    revision(home, found)
    for told in refusals(registry_of(home)):
        assert f"have version {found}" in told.problem
        assert told.stored == "Nothing was read, changed or migrated."
        assert way in told.way_out
        assert "backup" in told.way_out
    assert revision(home) == found


def test_the_command_that_is_told_for_an_older_database_is_one_that_mlflow_takes(
    home: Path,
) -> None:
    revision(home, OLDER)
    (told, *_) = refusals(registry_of(home))
    command = shlex.split(re.findall(r"mlflow db upgrade .*", told.way_out)[0])
    assert command == ["mlflow", "db", "upgrade", registry_of(home).tracking_uri]


def test_a_deleted_experiment_is_told_and_comes_back_by_what_is_told(home: Path) -> None:
    registry = registry_of(home)
    client = MlflowClient(registry.tracking_uri)
    experiment = registry.experiment("demand")
    client.delete_experiment(experiment)
    with pytest.raises(RegistryError, match="was deleted") as refused:
        registry.experiment("demand")
    assert "Nothing was trained" in refused.value.stored
    assert registry.champions("demand") == {}
    words = shlex.split(re.findall(r"MLFLOW_TRACKING_URI=.*?-id \d+", refused.value.way_out)[0])
    where, (program, *arguments) = words[0], words[1:]
    assert program == "mlflow"
    name, _, address = where.partition("=")
    own = {"PATH": "/usr/bin:/bin", name: address}
    code, _, errors = call(arguments, own, home, 60.0, "mlflow.__main__")
    assert code == 0, errors
    assert registry.experiment("demand") == experiment
