"""Sources that are asked: what runs make of a query and of an address."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from mlops_assets_tests.platform import Platform
from mlops_assets_tests.sources.publisher import Publisher, Reply, publishing

Make = Callable[..., Platform]
DAYS = pd.date_range("2024-01-01", periods=30, freq="D").strftime("%Y-%m-%d")


def frame(demand: float, country: str = "DEU") -> pd.DataFrame:
    """A month of a country."""
    return pd.DataFrame({"Country": country, "Date": DAYS, "Demand (parcels)": demand})


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with publishing() as publisher:
        yield publisher


def query(database: Path) -> str:
    """The YAML of a query on it."""
    asked = f"url: 'sqlite:///{database}', query: select * from t, watermark: version"
    return f"source:\n    kind: sql\n    settle_seconds: 0\n    sql: {{{asked}}}\n"


def rows(platform: Platform, asset: str, country: str = "DEU") -> pd.DataFrame:
    return platform.store.read((platform.product.name, asset), country)


def take(platform: Platform) -> bool:
    return platform.run("DEU", assets=["raw", "validated", "quarantine"]).success


def test_rows_of_a_query_are_taken_once_and_changed_ones_replace_what_they_change(
    make_platform: Make, tmp_path: Path
) -> None:
    platform = make_platform(("source:\n", query(tmp_path / "a.db")))
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        frame(100.0).assign(version=1).to_sql("t", database, index=False)
        assert take(platform)
        assert take(platform)
        assert len(rows(platform, "raw")) == 30
        changed = frame(200.0).head(3).assign(version=[1, 2, 2])
        changed.to_sql("t", database, index=False, if_exists="append")
        assert take(platform)
    assert len(rows(platform, "raw")) == 33
    validated = rows(platform, "validated").set_index("date")["demand"]
    assert validated.value_counts().to_dict() == {100.0: 27, 200.0: 3}


def test_a_file_behind_an_address_that_changed_is_a_new_version_of_its_rows(
    make_platform: Make, web: Publisher
) -> None:
    first, second = (frame(x).to_csv(index=False).encode() for x in (100.0, 200.0))
    url = web.put("/demand.csv", Reply(first, etag="1"), Reply(first, etag="1"), Reply(second))
    section = f"source:\n    kind: http\n    settle_seconds: 0\n    http: {{urls: ['{url}']}}\n"
    platform = make_platform(("source:\n", section))
    assert take(platform)
    assert take(platform)
    assert len(rows(platform, "raw")) == 30
    assert take(platform)
    assert len(rows(platform, "raw")) == 60
    assert set(rows(platform, "validated")["demand"]) == {200.0}


def test_a_database_that_does_not_answer_keeps_no_landed_rows_from_being_taken(
    make_platform: Make, tmp_path: Path
) -> None:
    platform = make_platform(("source:\n", query(tmp_path / "none.db")))
    platform.deliver(frame(100.0))
    assert not take(platform), "the run fails with the cause"
    assert len(rows(platform, "raw")) == 30
    assert platform.materialized("raw") == {"DEU"}, "and says what it took"
