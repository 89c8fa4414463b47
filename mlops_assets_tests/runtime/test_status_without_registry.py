"""`status` where the model registry does not answer: what is stored, and what is not known."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mlops_assets_tests.called import call
from mlops_assets_tests.platform import Platform, going_on
from mlops_assets_tests.runtime.serving import environment

COUNTRIES = ["DEU", "FRA", "NOR"]
STORED = (
    *("champion_kind", "metric", "metric_value", "baseline_value", "last_data"),
    *("prediction_rows", "predicted_at", "realised_value", "expected_value", "drift"),
)
"""What of a status no registry is asked for."""
_GONE = "postgresql+psycopg2://someone:secret@127.0.0.1:1/mlflow"


@pytest.fixture
def trained(once_trained: Path, tmp_path: Path) -> Iterator[Platform]:
    with going_on(once_trained, tmp_path) as platform:
        yield platform


def another_schema(revision: str) -> Callable[[Path], None]:
    def write(database: Path) -> None:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("update alembic_version set version_num = ?", (revision,))

    return write


def no_database(database: Path) -> None:
    for each in database.parent.glob(f"{database.name}*"):
        each.unlink()
    database.write_bytes(b"no database at all" * 100)


def left_alone(database: Path) -> None:
    assert database.exists()


@pytest.mark.parametrize(
    ("spoil", "more", "told", "way"),
    [
        (another_schema("acf3f17fdcc7"), {}, "an older MLflow", "mlflow db upgrade"),
        (another_schema("ffffffffffff"), {}, "a newer MLflow", "Install the MLflow"),
        (no_database, {}, "not a database", "from a backup"),
        (left_alone, {"MLFLOW_TRACKING_URI": _GONE}, "does not answer", "MLFLOW_TRACKING_URI"),
    ],
    ids=["older", "newer", "no database", "not reached"],
)
def test_status_without_a_registry_shows_what_is_stored_and_says_once_what_to_do(
    trained: Platform, spoil: Callable[[Path], None], more: dict[str, str], told: str, way: str
) -> None:
    home, before = trained.home, trained.status()
    where = environment(home, MLOPS_ASSETS_DEFS=str(home.parent / "defs"), **more)
    spoil(home / "mlflow" / "mlflow.db")
    code, output, errors = call(["status"], where, home, 120.0)
    assert code == 1
    assert errors.count("error: ") == 1
    assert told in errors
    assert way in errors
    assert "secret" not in errors
    assert "Traceback" not in errors
    lines = output.splitlines()
    assert len(lines) == 1 + len(COUNTRIES)
    assert all("not known (last local)" in line for line in lines[1:])
    _, output, _ = call(["status", "parcels", "--json"], where, home, 120.0)
    rows = json.loads(output)
    for row in rows:
        was = before[row["country"]]
        assert (row["state"], row["champion_version"], row["champion_known"]) == (
            "not_known",
            None,
            False,
        )
        assert f"by the records {was.state}: {was.why}" in row["why"]
        assert {name: row[name] for name in STORED} == {name: getattr(was, name) for name in STORED}
    code, output, _ = call(["doctor"], where, home, 120.0)
    assert code == 1
    (line,) = [each for each in output.splitlines() if each.startswith("FAIL")]
    assert told in line
    assert way in output
