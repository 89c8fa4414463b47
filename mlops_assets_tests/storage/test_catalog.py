from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from mlops_assets.errors import StorageError
from mlops_assets.storage import SnapshotStore, connect, run_sql, write_catalog
from mlops_assets_tests.storage.frames import prices

ASSET = ("power_price", "features")
KEYS = ["DEU", "a/b", "../x", "Côte d'Ivoire", "q\"%'"]


@pytest.fixture
def filled(store: SnapshotStore) -> SnapshotStore:
    for number, key in enumerate(KEYS):
        store.write(ASSET, key, prices(offset=99))
        store.write(ASSET, key, prices(number + 1))
    return store


def test_a_view_shows_the_current_rows_of_all_partitions(filled: SnapshotStore) -> None:
    found = run_sql(
        filled, "select _country, count(*) as n from power_price.features group by 1 order by 2"
    )
    assert found["_country"].tolist() == KEYS
    assert found["n"].tolist() == [1, 2, 3, 4, 5]


def test_a_connection_keeps_seeing_the_same_versions(filled: SnapshotStore) -> None:
    with connect(filled) as connection:
        count = "select count(*) from power_price.features"
        assert connection.execute(count).fetchall() == [(15,)]
        filled.write(ASSET, "DEU", prices(100))
        assert connection.execute(count).fetchall() == [(15,)]
    assert run_sql(filled, count).iloc[0, 0] == 114


def test_an_asset_without_partitions_has_no_country(store: SnapshotStore) -> None:
    store.write(("power_price", "pooled_model"), None, prices(2))
    store.write(("overview",), None, prices(1))
    found = run_sql(store, "select * from power_price.pooled_model")
    assert found["_country"].isna().all()
    assert list(found)[1:] == list(prices())
    assert len(run_sql(store, "select * from overview")) == 1


def test_logs_are_views_beside_the_snapshots(filled: SnapshotStore) -> None:
    filled.append(("power_price", "decisions"), "DEU", prices(1))
    filled.append(("power_price", "decisions"), None, prices(2))
    filled.append(ASSET, "a/b", prices(7))
    decisions = run_sql(filled, "select _country, count(*) n from power_price.decisions group by 1")
    assert dict(zip(decisions["_country"], decisions["n"], strict=True)) == {"DEU": 1, None: 2}
    assert (
        run_sql(filled, "select distinct _country from power_price.features_log").iloc[0, 0]
        == "a/b"
    )
    assert len(run_sql(filled, "select * from power_price.features")) == 15


def test_odd_names_are_quoted(tmp_path: Path) -> None:
    store = SnapshotStore(str(tmp_path / "it's a [r*ot] ?"))
    asset = ("odd \"product's", 'we.ird "name', "third")
    store.write(asset, "it's", prices(2))
    query = 'select _country from "odd ""product\'s"."we.ird ""name_third"'
    assert run_sql(store, query)["_country"].tolist() == ["it's", "it's"]


def test_columns_named_like_ours_are_kept(store: SnapshotStore) -> None:
    frame = pd.DataFrame({"_country": ["data"], "country": ["x"], "filename": [1], "_file": [2]})
    store.write(ASSET, "DEU", frame)
    found = run_sql(store, "select * from power_price.features")
    assert found.iloc[0].to_dict() == {
        "_country": "DEU",
        "_country_1": "data",
        "country": "x",
        "filename": 1,
        "_file": 2,
    }


def test_partitions_with_other_columns_and_types_are_united(store: SnapshotStore) -> None:
    store.write(ASSET, "A", pd.DataFrame({"x": [1], "y": ["a"]}))
    store.write(ASSET, "B", pd.DataFrame({"x": [0.5], "z": [True]}))
    store.write(ASSET, "C", pd.DataFrame({"x": ["text"]}))
    store.write(ASSET, "D", pd.DataFrame({"x": [None]}, dtype=object))
    store.write(ASSET, "E", pd.DataFrame())
    found = run_sql(store, "select * from power_price.features order by _country")
    assert found["_country"].tolist() == ["A", "B", "C", "D"]
    assert found["x"].tolist() == ["1", "0.5", "text", None]
    assert list(found) == ["_country", "x", "y", "z"]


def test_partitions_without_rows_do_not_change_the_types(store: SnapshotStore) -> None:
    store.write(ASSET, "A", prices(2))
    store.write(ASSET, "B", pd.DataFrame(columns=[*prices()], dtype="float64"))
    types = run_sql(store, "describe power_price.features").set_index("column_name")["column_type"]
    assert types["time"] == "TIMESTAMP_NS"
    assert types["holiday"] == "BOOLEAN"


def test_types_that_do_not_fit_together_say_which_file_and_column(store: SnapshotStore) -> None:
    store.write(ASSET, "A", pd.DataFrame({"x": [1]}))
    store.write(ASSET, "B", pd.DataFrame({"x": [{"a": 1}]}))
    store.write(("power_price", "raw"), "A", prices())
    with pytest.raises(StorageError, match=r'country=A.*"x".*BIGINT'):
        run_sql(store, "select * from power_price.features")
    assert len(run_sql(store, "select * from power_price.raw")) == 3


def test_one_damaged_file_fails_only_its_own_view(store: SnapshotStore) -> None:
    bad = store.write(ASSET, "A", prices()).snapshot
    store.write(("power_price", "raw"), "A", prices())
    Path(bad.uri).write_bytes(b"PAR1")
    with connect(store) as connection:
        assert len(connection.execute("select * from power_price.raw").fetchall()) == 3
    with pytest.raises(StorageError, match=f"cannot be queried.*{bad.version}"):
        run_sql(store, "select count(*) from power_price.features")


def test_an_asset_of_only_empty_frames_is_an_empty_view(store: SnapshotStore) -> None:
    store.write(ASSET, "A", pd.DataFrame())
    store.write(("power_price", "raw"), "A", prices(0))
    assert run_sql(store, "select * from power_price.features").empty
    assert list(run_sql(store, "select * from power_price.raw")) == ["_country", *prices()]


def test_an_unknown_table_is_answered_with_those_there_are(filled: SnapshotStore) -> None:
    with pytest.raises(StorageError, match=r'There are: "power_price"\."features"') as caught:
        run_sql(filled, "select * from power_price.feature")
    assert caught.value.culprits["tables"] == ['"power_price"."features"']


def test_a_query_that_is_not_sql_says_where(filled: SnapshotStore) -> None:
    with pytest.raises(StorageError, match="syntax error"):
        run_sql(filled, "selec 1")


def test_the_list_of_tables_holds_all_of_them(filled: SnapshotStore) -> None:
    filled.write(("booking", "raw"), "DEU", prices())
    query = "select table_schema, table_name from information_schema.tables order by 1"
    assert run_sql(filled, query).to_numpy().tolist() == [
        ["booking", "raw"],
        ["power_price", "features"],
    ]
    assert len(run_sql(filled, "show all tables")) == 2


def test_a_store_without_anything_answers_too(store: SnapshotStore, tmp_path: Path) -> None:
    assert run_sql(store, "select 1 as one")["one"].tolist() == [1]
    with pytest.raises(StorageError, match="none yet"):
        run_sql(store, "select * from nothing")


def test_the_catalog_file_works_read_only_for_any_client(
    filled: SnapshotStore, tmp_path: Path
) -> None:
    path = tmp_path / "catalog.duckdb"
    write_catalog(filled, str(path))
    with duckdb.connect(str(path), read_only=True) as client:
        count = "select count(*) from power_price.features"
        assert client.execute(count).fetchall() == [(15,)]
        filled.write(ASSET, "DEU", prices(100))
        write_catalog(filled, str(path))
        assert client.execute(count).fetchall() == [(15,)]
    with duckdb.connect(str(path), read_only=True) as client:
        assert client.execute(count).fetchall() == [(114,)]
    assert {entry.name for entry in tmp_path.iterdir()} == {"store", "catalog.duckdb"}


def test_what_is_listed_today_holds_for_today_in_queries_and_catalogs_and_for_no_moment_before(
    store: SnapshotStore, tmp_path: Path
) -> None:
    store.write(ASSET, "OLD", prices(2))
    store.write(ASSET, None, prices(10))
    before = _now()
    store.write(ASSET, "NEW", prices(3))
    listed = {"power_price": ["NEW"]}
    count = "select count(*) from power_price.features"
    assert run_sql(store, count, listed=listed).iloc[0, 0] == 13
    assert run_sql(store, count, before, listed=listed).iloc[0, 0] == 12
    with connect(store, before, listed) as connection:
        assert connection.sql(count).fetchall() == [(12,)]
    for only, rows in ((listed, 13), (None, 15)):
        write_catalog(store, str(tmp_path / "catalog.duckdb"), only)
        with duckdb.connect(str(tmp_path / "catalog.duckdb"), read_only=True) as client:
            assert client.execute(count).fetchall() == [(rows,)]


def test_a_catalog_that_cannot_be_written_is_a_storage_error(
    filled: SnapshotStore, tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match="could not be written"):
        write_catalog(filled, str(tmp_path / "none" / "catalog.duckdb"))


def _now() -> datetime:
    return datetime.now(UTC)


def test_as_of_a_moment_views_show_what_was_current_and_logs_end_there(
    any_store: SnapshotStore,
) -> None:
    counts = "select (select count(*) from power_price.features), "
    counts += "(select count(*) from power_price.decisions)"
    moments = []
    for rows in (1, 2, 3):
        any_store.write(ASSET, "DEU", prices(rows))
        any_store.write(ASSET, None, prices(10 * rows))
        any_store.append(("power_price", "decisions"), "DEU", prices(100), name=f"no {rows}")
        moments.append(_now())
    any_store.write(ASSET, "FRA", prices(50))
    for rows, moment in zip((1, 2, 3), moments, strict=True):
        assert run_sql(any_store, counts, moment).iloc[0].tolist() == [11 * rows, 100 * rows]
        with connect(any_store, moment) as connection:
            assert connection.execute(counts).fetchone() == (11 * rows, 100 * rows)
    assert run_sql(any_store, counts).iloc[0].tolist() == [83, 300]


def test_what_was_not_there_yet_has_no_view(store: SnapshotStore) -> None:
    start = _now()
    store.write(ASSET, "A", prices())
    between = _now()
    store.write(("power_price", "raw"), "A", prices())
    store.append(ASSET, "A", prices())
    query = "select * from power_price.raw"
    with pytest.raises(StorageError, match=f"not there at {re.escape(str(between))}") as caught:
        run_sql(store, query, between)
    assert caught.value.culprits["tables"] == ['"power_price"."features"']
    assert len(run_sql(store, "show all tables", between)) == 1
    with pytest.raises(StorageError, match="none yet"):
        run_sql(store, query, start)
    assert len(run_sql(store, "show all tables", _now())) == 3


def test_a_removed_version_fails_only_the_view_that_needs_it_and_says_when(
    store: SnapshotStore,
) -> None:
    old = store.write(ASSET, "A", prices()).snapshot
    store.write(("power_price", "raw"), "A", prices(2))
    moment = _now()
    store.write(ASSET, "A", prices(9))
    store.remove(old, reason="too old")
    told = rf'"features".*{old.version}, was removed on .*\(too old\).* stored is'
    for columns in ("count(*)", "price", "*"):
        with pytest.raises(StorageError, match=told):
            run_sql(store, f"select {columns} from power_price.features", moment)
    with connect(store, moment) as connection, pytest.raises(duckdb.Error, match=told):
        connection.execute("select count(*) from power_price.features")
    assert len(run_sql(store, "select * from power_price.raw", moment)) == 2
    removals = run_sql(store, "select version, reason from power_price.removals")
    assert removals.to_dict("records") == [{"version": old.version, "reason": "too old"}]


def test_a_moment_without_a_time_zone_is_refused(filled: SnapshotStore) -> None:
    moment = datetime(2025, 1, 31)
    for call in (lambda: connect(filled, moment), lambda: run_sql(filled, "select 1", moment)):
        with pytest.raises(StorageError, match="has no time zone"):
            call()
