from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from mlops_assets.errors import RegistryError
from mlops_assets.registry import LoggedModel, ModelVersion, Registry
from mlops_assets.registry.models import (
    CHALLENGER,
    CHAMPION,
    DIGEST_TAG,
    PREVIOUS,
    registered_name,
)
from mlops_assets.registry.trained import trained_versions
from mlops_assets_tests.effort import WHOLE
from mlops_assets_tests.forks import forks
from mlops_assets_tests.registry.conftest import ROWS

TOGETHER = 8 if WHOLE else 3
ODD = ["Côte d'Ivoire", "a/b", "../x", 'quo"te', "100%", "a:b", "tilde~41", "a.b", "日本", "NO WAY"]
NewProduct = Callable[[], str]


def added(
    registry: Registry, product: str, logged: LoggedModel, country: str = "FRA", kind: str = "local"
) -> ModelVersion:
    return registry.register(product, country, logged, run_id="", kind=kind, tags={"seed": "7"})


def aliases(registry: Registry, product: str, country: str = "FRA") -> dict[str, str | None]:
    name = registered_name(product, country)
    found = {each: registry.by_alias(name, each) for each in (CHAMPION, PREVIOUS, CHALLENGER)}
    return {each: version and version.version for each, version in found.items()}


def database(registry: Registry) -> Path:
    return Path(registry.tracking_uri.removeprefix("sqlite:///"))


@contextmanager
def refused_by_the_database(registry: Registry, alias: str) -> Iterator[None]:
    """Writes of one alias fail, as they would with a full disk."""
    kinds = ("insert", "update")
    with closing(sqlite3.connect(database(registry))) as connection:
        for kind in kinds:
            connection.execute(
                f"create trigger stop_{kind} before {kind} on registered_model_aliases "
                f"when new.alias = '{alias}' begin select raise(abort, 'disk full'); end"
            )
        connection.commit()
        yield
        for kind in kinds:
            connection.execute(f"drop trigger stop_{kind}")
        connection.commit()


@contextmanager
def counted_statements() -> Iterator[list[str]]:
    """The SQL that reaches any database meanwhile."""
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_a_new_version_is_challenger_and_nobody_is_champion(
    registry: Registry, product: NewProduct, ridge: LoggedModel
) -> None:
    name = product()
    made = added(registry, name, ridge)
    assert aliases(registry, name) == {CHAMPION: None, PREVIOUS: None, CHALLENGER: "1"}
    assert registry.champion(name, "FRA") is None
    assert registry.version(made.name, "1").tags["seed"] == "7"


def test_the_champion_so_far_becomes_previous_and_promoting_twice_changes_nothing(
    registry: Registry, product: NewProduct, ridge: LoggedModel
) -> None:
    name = product()
    first, second = added(registry, name, ridge), added(registry, name, ridge)
    registry.promote(first)
    assert aliases(registry, name) == {CHAMPION: "1", PREVIOUS: None, CHALLENGER: "2"}
    for _ in range(2):
        registry.promote(second)
        assert aliases(registry, name) == {CHAMPION: "2", PREVIOUS: "1", CHALLENGER: "2"}


def test_a_promotion_that_breaks_off_leaves_the_old_champion_and_a_rerun_finishes_it(
    registry: Registry, product: NewProduct, ridge: LoggedModel
) -> None:
    name = product()
    first, second = added(registry, name, ridge), added(registry, name, ridge)
    registry.promote(first)
    with (
        refused_by_the_database(registry, CHAMPION),
        pytest.raises(Exception, match="disk full"),
    ):
        registry.promote(second)
    assert aliases(registry, name)[CHAMPION] == "1"
    assert registry.champions(name)["FRA"].version == "1"
    registry.promote(second)
    assert aliases(registry, name) == {CHAMPION: "2", PREVIOUS: "1", CHALLENGER: "2"}


def test_champions_are_those_of_the_countries_and_not_the_pooled_ones(
    registry: Registry, product: NewProduct, ridge: LoggedModel
) -> None:
    name = product()
    for country in ("FRA", "DEU"):
        registry.promote(added(registry, name, ridge, country))
    registry.promote(added(registry, name, ridge, "NOR", kind="pooled"))
    registry.promote(added(registry, name, ridge, "DEU"))
    registry.promote(added(registry, name, ridge, "pooled-gbm", kind="pooled"))
    added(registry, name, ridge, "ESP")
    found = registry.champions(name)
    assert {country: each.version for country, each in found.items()} == {
        "FRA": "1",
        "DEU": "2",
        "NOR": "1",
    }
    assert found["NOR"].kind == "pooled"
    assert found["FRA"] == registry.champion(name, "FRA")


def test_champions_of_a_product_are_never_those_of_one_with_a_similar_name(
    registry: Registry, product: NewProduct, ridge: LoggedModel
) -> None:
    name = product()
    similar = name.replace("_", "x")
    registry.promote(added(registry, similar, ridge))
    assert registry.champions(name) == {}
    assert list(registry.champions(similar)) == ["FRA"]


def test_champions_cost_the_same_queries_whatever_the_number_of_countries(
    registry: Registry, product: NewProduct, ridge: LoggedModel
) -> None:
    few, many = product(), product()
    registry.promote(added(registry, few, ridge))
    for number in range(12):
        registry.promote(added(registry, many, ridge, f"C{number}"))
    costs = []
    for name, countries in ((few, 1), (many, 12)):
        with counted_statements() as statements:
            assert len(registry.champions(name)) == countries
        costs.append(len(statements))
    assert costs[0] == costs[1]


@pytest.mark.parametrize("country", ODD)
def test_an_odd_country_is_registered_under_a_name_it_can_be_read_back_from(
    registry: Registry, product: NewProduct, ridge: LoggedModel, country: str
) -> None:
    name = product()
    encoded = registered_name(name, country).removeprefix(f"{name}.")
    assert encoded.isascii()
    assert not set(encoded) & set("/:.%'\" ")
    assert unquote(encoded.replace("~", "%")) == country
    registry.promote(added(registry, name, ridge, country))
    champion = registry.champion(name, country)
    assert champion is not None
    assert registry.champions(name) == {country: champion}


def test_odd_countries_never_share_a_registered_model() -> None:
    assert len({registered_name("p", each) for each in [*ODD, "tildeA", "a~2Fb", "a_b"]}) == 13


def test_an_unknown_version_is_refused_by_name(registry: Registry, product: NewProduct) -> None:
    with pytest.raises(RegistryError, match=r"no version 9 of .*FRA"):
        registry.version(registered_name(product(), "FRA"), "9")


def test_a_loaded_model_predicts_as_the_one_that_was_stored(
    registry: Registry, product: NewProduct, ridge: LoggedModel
) -> None:
    loaded = registry.load(added(registry, product(), ridge))
    assert loaded.features == ("price", "temperature")
    np.testing.assert_allclose(loaded.estimator.predict(ROWS), ROWS["price"], atol=0.2)


def test_several_versions_can_share_the_files_of_one_model(
    registry: Registry, product: NewProduct, ridge: LoggedModel
) -> None:
    name = product()
    both = [added(registry, name, ridge, country) for country in ("FRA", "DEU")]
    assert registry.load(both[0]).features == registry.load(both[1]).features
    assert both[0].tags[DIGEST_TAG] == ridge.digest


def initialised(uri: str, folder: str) -> bool:
    """In a process of its own: create the database, and use it at once."""
    os.chdir(folder)
    Registry(uri, "unused").initialise()
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
        return bool(connection.execute("select version_num from alembic_version").fetchone())


def test_processes_that_start_together_create_one_whole_database(
    tmp_path: Path, mlflow_template: Path
) -> None:
    half = tmp_path / "mlflow.partial"
    half.write_bytes(b"SQLite format 3\0 and then the power went")
    (tmp_path / "types.py").write_text("raise SystemExit('not the one of Python')\n")
    target = tmp_path / "mlflow.db"
    work = [(f"sqlite:///{target}", str(tmp_path))] * TOGETHER
    pool = forks().Pool(TOGETHER)
    try:
        assert pool.starmap(initialised, work, chunksize=1) == [True] * TOGETHER
    finally:
        # Let them end by themselves: a request to end is ignored where Ctrl-C is, as in a job in
        # the background, and Dagster has treated the two alike.
        pool.close()
        pool.join()
    assert not half.exists()
    with closing(sqlite3.connect(target)) as made, closing(sqlite3.connect(mlflow_template)) as one:
        assert made.execute("pragma integrity_check").fetchone() == ("ok",)
        assert tables(made) == tables(one)


def tables(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    return connection.execute("select type, name from sqlite_master order by type, name").fetchall()


def test_a_folder_that_cannot_be_made_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "mlflow.db"
    with pytest.raises(RegistryError, match=r"mlflow\.db could not be created.*MLOPS_ASSETS_HOME"):
        Registry(f"sqlite:///{target}", "unused").initialise()


def test_a_tracking_server_that_is_down_is_named_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry = Registry("http://me:secret@127.0.0.1:1", "unused")
    for ask in (
        registry.initialise,
        lambda: registry.champions("power_price"),
        lambda: registry.by_alias("power_price.FRA", "champion"),
        lambda: trained_versions(registry, "power_price"),
    ):
        with pytest.raises(RegistryError, match=r"127\.0\.0\.1:1.*run again") as told:
            ask()
        assert "answer" in str(told.value)
        assert "secret" not in str(told.value)


def _registered_when_told(registry: Registry, pipe: Connection) -> None:
    registry.aliases("parcels.FRA")  # connected
    pipe.send("ready")
    pipe.recv()
    registry.experiment("made by a fork")


def test_what_a_forked_process_writes_outlives_its_parents_connections(registry: Registry) -> None:
    from mlops_assets.registry.mlflow_compat import close_idle

    registry.aliases("parcels.FRA")
    ours, theirs = get_context("fork").Pipe()
    forked = get_context("fork").Process(target=_registered_when_told, args=(registry, theirs))
    forked.start()
    assert ours.recv() == "ready"
    close_idle()
    ours.send("go")
    forked.join(60)
    names = {each.name for each in registry._client().search_experiments()}
    assert "made by a fork" in names
