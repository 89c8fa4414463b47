"""A home that is moved or copied, with a real registry and its files."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from sklearn.linear_model import Ridge

from mlops_assets.errors import BusyError, RegistryError
from mlops_assets.file_locks import holding
from mlops_assets.registry import LoggedModel, ModelVersion, Registry, models, places
from mlops_assets.registry.models import log_model
from mlops_assets_tests.registry.conftest import ROWS, open_run
from mlops_assets_tests.test_file_locks import another

PRODUCT, COUNTRY = "tests", "FRA"
ODD = ["a b", "50%", "a#b", "é", "it's", 'quo"te', "a;b", "a&b=c", "[x]", "a+b", "$HOME"]


def registry_in(home: Path) -> Registry:
    return Registry(f"sqlite:///{home / 'mlflow.db'}", (home / "artifacts").as_uri())


def train(registry: Registry) -> ModelVersion:
    """One more champion of the country, with a text beside it."""
    fitted = Ridge().fit(ROWS, ROWS["price"])
    with open_run(registry) as run:
        logged: LoggedModel = log_model(fitted, ROWS, np.asarray(fitted.predict(ROWS)), "model")
        MlflowClient(registry.tracking_uri).log_text(run, "said", "note.txt")
    models._held_models.clear()
    made = registry.register(PRODUCT, COUNTRY, logged, run_id=run, kind="local", tags={})
    registry.promote(made)
    return made


def end_of_process(home: Path) -> None:
    """What the process that used it held is free, and what it knew is forgotten."""
    for key in [each for each in places._at_home if str(home) in each[0]]:
        places._at_home.pop(key).close()
    models._local_folder.cache_clear()


@pytest.fixture
def home(tmp_path: Path, mlflow_template: Path) -> Iterator[Path]:
    first = tmp_path / "first"
    first.mkdir()
    shutil.copyfile(mlflow_template, first / "mlflow.db")
    train(registry_in(first))
    end_of_process(first)
    yield first
    end_of_process(tmp_path)


def copy_database(home: Path, into: Path) -> None:
    """With what is in its write-ahead log."""
    with (
        closing(sqlite3.connect(home / "mlflow.db")) as source,
        closing(sqlite3.connect(into / "mlflow.db")) as target,
    ):
        source.backup(target)


def files(home: Path) -> dict[str, bytes]:
    """Everything in a home but what SQLite and locks keep beside the database."""
    return {
        str(file.relative_to(home)): file.read_bytes()
        for file in sorted(home.rglob("*"))
        if file.is_file() and not file.name.startswith("mlflow.db-") and file.suffix != ".lock"
    }


def champion_of(registry: Registry) -> ModelVersion:
    found = registry.champion(PRODUCT, COUNTRY)
    assert found is not None
    return found


def addresses(home: Path) -> str:
    """All that the database says of places."""
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        columns = (*places._COLUMNS, ("experiments", "artifact_location"))
        rows = [connection.execute(f"select {c} from {t}").fetchall() for t, c in columns]
    return str(rows)


def test_a_copy_reads_and_writes_in_itself_and_never_in_the_first(
    home: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(home, copy)
    before = files(home)
    registry = registry_in(copy)
    assert registry.load(champion_of(registry)).features == tuple(ROWS)
    assert registry.fetch(champion_of(registry)).is_relative_to(copy)
    made = train(registry)
    assert made.version == "2"
    assert registry.artifact(made, "note.txt") == "said"
    assert files(home) == before
    assert str(home) not in addresses(copy)
    assert champion_of(registry_in(home)).version == "1"


def test_a_moved_home_goes_on_with_its_champions(home: Path, tmp_path: Path) -> None:
    moved = home.rename(tmp_path / "moved")
    registry = registry_in(moved)
    assert registry.load(champion_of(registry)).features == tuple(ROWS)
    assert registry.artifact(champion_of(registry), "note.txt") == "said"
    assert train(registry).version == "2"
    assert not home.exists()


def test_a_home_that_moves_on_and_back_is_at_home_each_time(home: Path, tmp_path: Path) -> None:
    place = home
    for name in ("second", "third", "first"):
        place = place.rename(tmp_path / name)
        registry = registry_in(place)
        registry.require_intact(champion_of(registry))
        end_of_process(place)
    assert "second" not in addresses(place)


def test_a_copy_without_its_files_reads_the_old_ones_and_writes_its_own(
    home: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    copy_database(home, copy)
    before = files(home)
    registry = registry_in(copy)
    registry.require_intact(champion_of(registry))
    train(registry)
    assert files(home) == before
    found = places.elsewhere(copy / "mlflow.db", registry.artifact_root)
    assert found is not None
    assert (found.roots, found.lost) == (((home / "artifacts").as_uri(),), 0)
    assert found.files == 2  # the run and the model of version 1
    shutil.rmtree(home / "artifacts")
    found = places.elsewhere(copy / "mlflow.db", registry.artifact_root)
    assert found is not None
    assert found.lost == found.files == 2


def test_files_that_come_later_are_found_at_home(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    copy_database(home, copy)
    assert champion_of(registry_in(copy)).version == "1"
    end_of_process(copy)
    (home / "artifacts").rename(copy / "artifacts")
    registry = registry_in(copy)
    registry.require_intact(champion_of(registry))
    assert places.elsewhere(copy / "mlflow.db", registry.artifact_root) is None


def test_experiments_of_others_are_left_as_they_are(home: Path, tmp_path: Path) -> None:
    client = MlflowClient(registry_in(home).tracking_uri)
    theirs = client.create_experiment("theirs", artifact_location="file:///srv/somewhere/else")
    moved = home.rename(tmp_path / "moved")
    found = registry_in(moved).client().get_experiment(theirs)
    assert found.artifact_location == "file:///srv/somewhere/else"


def test_an_experiment_of_others_in_a_folder_of_its_name_is_left_as_it_is(
    home: Path, tmp_path: Path
) -> None:
    client = MlflowClient(registry_in(home).tracking_uri)
    theirs = client.create_experiment("theirs", artifact_location="file:///srv/shared/theirs")
    moved = home.rename(tmp_path / "moved")
    registry = registry_in(moved)
    assert registry.client().get_experiment(theirs).artifact_location == "file:///srv/shared/theirs"
    assert str(home) not in addresses(moved)


@pytest.mark.parametrize("moves", [False, True])
def test_a_home_of_an_older_mlflow_is_told_how_to_upgrade_and_left_as_it_is(
    home: Path, tmp_path: Path, moves: bool
) -> None:
    place = home.rename(tmp_path / "moved") if moves else home
    with closing(sqlite3.connect(place / "mlflow.db")) as connection, connection:
        tables = "select name from sqlite_master where type = 'table' and name like 'logged_model%'"
        for (table,) in connection.execute(tables).fetchall():
            connection.execute(f"drop table {table}")
        connection.execute("update alembic_version set version_num = 'acf3f17fdcc7'")
    before = schema_of(place)
    registry = registry_in(place)
    with pytest.raises(RegistryError, match="mlflow db upgrade"):
        registry.champions(PRODUCT)
    assert schema_of(place) == before
    assert places.elsewhere(place / "mlflow.db", registry.artifact_root) is None or moves


def schema_of(home: Path) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        return connection.execute("select name, sql from sqlite_master order by name").fetchall()


def test_who_meets_another_that_settles_a_moved_home_waits_and_goes_on(
    home: Path, tmp_path: Path
) -> None:
    moved = home.rename(tmp_path / "moved")
    registry, lock = registry_in(moved), moved / "mlflow.place.lock"
    with ThreadPoolExecutor(1) as pool:
        with holding(lock, f"with files at {registry.artifact_root}", None):
            second = pool.submit(registry.champions, PRODUCT)
            time.sleep(1)
            assert not second.done(), second.exception()
            places._rewrite(moved / "mlflow.db", registry.artifact_root)
        with holding(lock, f"with files at {registry.artifact_root}", None, shared=True):
            assert list(second.result(timeout=30)) == [COUNTRY]
    assert str(home) not in addresses(moved)


def test_a_home_in_use_under_another_path_is_not_changed_under_its_user(
    home: Path, tmp_path: Path
) -> None:
    with another(home / "mlflow.place.lock", "shared") as user:
        moved = home.rename(tmp_path / "moved")
        before = addresses(moved)
        with pytest.raises(BusyError, match=f"process {user.pid} .*still"):
            registry_in(moved).champions(PRODUCT)
        assert addresses(moved) == before


def test_a_database_that_is_none_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(RegistryError, match="cannot be read or set"):
        registry_in(tmp_path).champions(PRODUCT)


@pytest.mark.parametrize("name", ODD)
def test_a_home_goes_on_in_a_folder_with_any_name(home: Path, tmp_path: Path, name: str) -> None:
    moved = home.rename(tmp_path / name)
    inside = {each.name for each in tmp_path.iterdir()}
    registry = registry_in(moved)
    registry.require_intact(champion_of(registry))
    made = train(registry)
    assert registry.fetch(made).is_relative_to(moved)
    assert {each.name for each in tmp_path.iterdir()} == inside
