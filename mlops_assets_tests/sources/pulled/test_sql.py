from __future__ import annotations

import datetime as dt
import sqlite3
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import pyarrow as pa
import pytest
import sqlalchemy as sa

from mlops_assets.errors import SourceError
from mlops_assets.sources.pulled.sql import read_tables
from mlops_assets.spec import SqlSpec
from mlops_assets_tests.sources.databases import PASSWORD, Server


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "a.db")
    yield connection
    connection.close()


@pytest.fixture
def ask_sqlite(sqlite: sqlite3.Connection, tmp_path: Path) -> Callable[..., list[pa.Table]]:
    return lambda query, **more: ask(f"sqlite:///{tmp_path}/a.db", query, **more)


@pytest.fixture
def make_duckdb(tmp_path: Path) -> Callable[[str], str]:
    """Runs statements on a new DuckDB file and gives its URL."""

    def make(statements: str) -> str:
        with duckdb.connect(str(tmp_path / "a.duckdb")) as connection:
            connection.execute(statements)
        return f"duckdb:///{tmp_path}/a.duckdb"

    return make


def ask(url: str, query: str, after: pa.Scalar | None = None, **more: Any) -> list[pa.Table]:
    return list(read_tables(SqlSpec(url=url, query=query, **more), after))


def rows_of(tables: list[pa.Table]) -> list[dict[str, Any]]:
    return [row for table in tables for row in table.to_pylist()]


def refused(url: str, query: str = "select 1 as x", **more: Any) -> SourceError:
    with pytest.raises(SourceError) as caught:
        ask(url, query, **more)
    return caught.value


# SQLite


def test_sqlite_gives_what_the_values_are(
    sqlite: sqlite3.Connection, ask_sqlite: Callable[..., list[pa.Table]]
) -> None:
    sqlite.execute("create table t (i integer, r real, n numeric, s text, b blob, nil)")
    rows = [(1, 1.0, 2, "ä\0'", b"\0\xff", None), (None, 0.1, 2.5, "", None, None)]
    sqlite.executemany("insert into t values (?, ?, ?, ?, ?, ?)", rows)
    sqlite.commit()
    table = pa.concat_tables(ask_sqlite("select * from t")[1:])
    assert [tuple(row.values()) for row in table.to_pylist()] == rows
    assert [str(kind) for kind in table.schema.types] == [
        "int64", "double", "double", "string", "binary", "null"
    ]  # fmt: skip


def test_a_sqlite_column_with_values_of_several_kinds_becomes_text(
    sqlite: sqlite3.Connection, ask_sqlite: Callable[..., list[pa.Table]]
) -> None:
    sqlite.execute("create table t (x)")
    values = [(1,), ("a",), (2.5,), (b"\xff",), (2**60,), (None,)]
    sqlite.executemany("insert into t values (?)", values)
    sqlite.commit()
    found = [row["x"] for row in rows_of(ask_sqlite("select * from t"))]
    assert found == ["1", "a", "2.5", "ff", str(2**60), None]


def test_a_query_without_rows_still_tells_its_columns(
    sqlite: sqlite3.Connection, ask_sqlite: Callable[..., list[pa.Table]]
) -> None:
    sqlite.execute("create table t (x, y)")
    (table,) = ask_sqlite("select * from t")
    assert (table.column_names, table.num_rows) == (["x", "y"], 0)


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("select ':x %s 10% ?' as x;", ":x %s 10% ?"),
        ("select '12:30' as x -- a comment: at the end", "12:30"),
        ("select 7 % 4 as x /* :y */ ; ", 3),
        (r"select '\:a\\b' as x", r"\:a\\b"),
        ("with a as (select 1 as x union all select 2) select max(x) as x from a", 2),
    ],
)
@pytest.mark.parametrize("with_parameter", [False, True])
def test_signs_that_drivers_take_for_parameters_are_asked_as_they_are(
    query: str, value: object, with_parameter: bool, postgres: Server, tmp_path: Path
) -> None:
    sqlite3.connect(tmp_path / "a.db").close()
    duckdb.connect(str(tmp_path / "b.duckdb")).close()
    kind = "text" if isinstance(value, str) else "integer"
    query = query.replace("as x", "as x, 5 as w", 1)
    if "union all" in query:
        query = query.replace(
            "2) select max(x) as x from a", "2, 5) select max(x) as x, 5 as w from a"
        )
    after = pa.scalar(5) if with_parameter else None
    for url in (f"sqlite:///{tmp_path}/a.db", f"duckdb:///{tmp_path}/b.duckdb", postgres.url):
        (row,) = rows_of(ask(url, query, after, watermark="w"))
        assert row == {"x": value, "w": 5}, (url, kind)


def test_sqlite_is_asked_in_constant_memory(
    sqlite: sqlite3.Connection, ask_sqlite: Callable[..., list[pa.Table]], tmp_path: Path
) -> None:
    sqlite.execute("create table t (i integer, s text)")
    sqlite.executemany("insert into t values (?, ?)", ((i, f"{i:0100}") for i in range(50_000)))
    sqlite.commit()
    spec = SqlSpec(url=f"sqlite:///{tmp_path}/a.db", query="select * from t", batch_rows=1000)
    tracemalloc.start()
    sizes = [table.num_rows for table in read_tables(spec)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (sum(sizes), max(sizes)) == (50_000, 1000)
    assert peak < 5_000_000


# DuckDB


def test_duckdb_keeps_its_types(make_duckdb: Callable[[str], str]) -> None:
    url = make_duckdb("""create table t as select 1::tinyint as a, 1.50::decimal(10,2) as b,
        timestamptz '2024-03-31 02:30:00+02' as c,
        timestamp_ns '2024-01-01 00:00:00.123456789' as d,
        date '2024-01-01' as e, 'x'::enum('x','y') as f, null::integer as g, [1, 2] as h,
        interval '1 month 2 days' as i, time '12:00' as j, 'ff'::blob as k, 1::hugeint as l""")
    (table,) = (each for each in ask(url, "select * from t") if each.num_rows)
    (row,) = table.to_pylist()
    assert row["b"] == Decimal("1.50")
    assert row["c"] == dt.datetime(2024, 3, 31, 0, 30, tzinfo=dt.UTC)
    assert row["d"].nanosecond == 789
    assert (row["f"], row["g"], row["h"]) == ("x", None, [1, 2])
    assert row["i"] == "1 month 2 days"
    assert [str(kind) for kind in table.schema.types] == [
        "int8", "decimal128(10, 2)", "timestamp[us, tz=UTC]", "timestamp[ns]", "date32[day]",
        "string", "int32", "list<l: int32>", "string", "time64[us]", "binary",
        "decimal128(38, 0)",
    ]  # fmt: skip


def test_a_duckdb_file_is_opened_to_read_and_no_name_is_a_variable_of_the_program(
    make_duckdb: Callable[[str], str],
) -> None:
    url = make_duckdb("create table t as select 1 as x")
    assert "does not exist" in refused(url, "select * from sql").problem
    assert "connection does not exist" in refused(url, "select * from connection").problem
    assert "source.sql.query" in refused(url, "drop table t").problem
    assert rows_of(ask(url, "select * from t")) == [{"x": 1}]


def test_a_duckdb_file_that_another_process_writes_to_is_said_to_be_locked(
    make_duckdb: Callable[[str], str],
) -> None:
    url = make_duckdb("create table t as select 1 as x")
    with duckdb.connect(url.removeprefix("duckdb:///")):
        error = refused(url, "select * from t")
    assert "cannot be opened" in error.problem


# PostgreSQL


def test_postgresql_keeps_its_types(postgres: Server) -> None:
    query = """select 1::int2 as a, 2::int8 as b, 1.50::numeric(10,2) as c, 1.5::numeric as d,
        'nan'::numeric as e, 0.7::float4 as f, timestamptz '2024-03-31 02:30:00+02' as g,
        timestamp '2024-01-01 00:00:00.123456' as h, date '2024-01-01' as i, '\\xff'::bytea as j,
        '{"a": [1]}'::jsonb as k, array[1,2] as l,
        '0b0cbcf2-c5ee-4a34-9d29-6fe6d4a2ab1f'::uuid as m,
        interval '1 day 2 hours' as n, 'x'::char(3) as o, null::integer as p, true as q"""
    (table,) = (each for each in ask(postgres.url, query) if each.num_rows)
    (row,) = table.to_pylist()
    assert (row["c"], row["d"], row["e"]) == (Decimal("1.50"), Decimal("1.5"), "NaN")
    assert row["g"] == dt.datetime(2024, 3, 31, 0, 30, tzinfo=dt.UTC)
    assert row["h"] == dt.datetime(2024, 1, 1, 0, 0, 0, 123456)
    assert (row["j"], row["k"], row["l"]) == (b"\xff", '{"a": [1]}', "[1, 2]")
    assert uuid.UUID(row["m"]).version == 4
    assert (row["n"], row["o"], row["p"], row["q"]) == ("1 day, 2:00:00", "x  ", None, True)
    assert [str(kind) for kind in table.schema.types] == [
        "int16", "int64", "decimal128(10, 2)", "decimal128(2, 1)", "string", "float",
        "timestamp[us, tz=UTC]", "timestamp[us]", "date32[day]", "binary", "string", "string",
        "string", "string", "string", "int32", "bool",
    ]  # fmt: skip


def test_columns_without_a_value_and_without_rows_have_their_declared_type(
    postgres: Server,
) -> None:
    query = "select null::timestamptz as a, null::numeric(5,1) as b"
    for table in (*ask(postgres.url, query), *ask(postgres.url, f"{query} limit 0")):
        assert [str(kind) for kind in table.schema.types] == [
            "timestamp[us, tz=UTC]", "decimal128(5, 1)"
        ]  # fmt: skip


def test_postgresql_hands_over_rows_as_they_are_asked_for(postgres: Server) -> None:
    query = "select n, repeat('x', 100) as s from generate_series(1, 100000) as n"
    spec = SqlSpec(url=postgres.url, query=query, batch_rows=1000)
    tracemalloc.start()
    rows = sum(table.num_rows for table in read_tables(spec))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == 100_000
    assert peak < 5_000_000


def test_a_query_cannot_change_a_database(postgres: Server) -> None:
    engine = sa.create_engine(postgres.url.replace("postgresql:", "postgresql+psycopg2:"))
    with engine.begin() as connection:
        connection.execute(sa.text("create sequence one_more"))
    engine.dispose()
    error = refused(postgres.url, "select nextval('one_more') as x")
    assert "read-only transaction" in error.problem


def test_a_value_beyond_python_is_told_with_the_query(postgres: Server) -> None:
    assert "out of range" in refused(postgres.url, "select '1000-01-01 BC'::date as x").problem


@pytest.mark.parametrize("text", ["b ", "ß", "a", "Z"])
def test_a_text_watermark_is_compared_in_the_order_of_its_characters(
    text: str, postgres: Server, tmp_path: Path
) -> None:
    values = ["A", "Z", "a", "b ", "b", "c", "ß", "\U0001f600"]
    listed = ", ".join(f"('{value}')" for value in values)
    with sqlite3.connect(tmp_path / "a.db") as sqlite:
        sqlite.execute("create table t (x text collate nocase)")
        sqlite.execute(f"insert into t values {listed}")
    sqlite.close()
    with duckdb.connect(str(tmp_path / "b.duckdb")) as made:
        made.execute("create table t (x varchar collate nocase)")
        made.execute(f"insert into t values {listed}")
    query = f'select x collate "und-x-icu" as x from (values {listed}) as t(x)'
    larger = {value for value in values if value >= text}
    for url, asked in (
        (f"sqlite:///{tmp_path}/a.db", "select * from t"),
        (f"duckdb:///{tmp_path}/b.duckdb", "select * from t"),
        (postgres.url, query),
    ):
        found = {r["x"] for r in rows_of(ask(url, asked, pa.scalar(text), watermark="x"))}
        assert larger <= found, url


# What is refused


def test_a_wrong_password_is_told_without_the_password(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB", postgres.url_with(quote(PASSWORD + "x", safe="")))
    with pytest.raises(SourceError) as caught:
        list(read_tables(SqlSpec(url_env="DB", query="select 1 as x")))
    assert "password authentication failed" in caught.value.problem
    assert "environment variable DB" in caught.value.way_out
    assert not leaked(caught.value, PASSWORD)
    monkeypatch.setenv("DB", postgres.url_with(quote(PASSWORD, safe="")))
    assert rows_of(list(read_tables(SqlSpec(url_env="DB", query="select 1 as x")))) == [{"x": 1}]


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{PASSWORD}@127.0.0.1:1/db",
        f"postgresql://me:{quote(PASSWORD)}@127.0.0.1:1/db?sslmode=nonsense",
        f"postgresql://127.0.0.1:1/db?password={quote(PASSWORD, safe='')}",
        f"postgresql://me:{PASSWORD}@[",
        f"mysql://me:{PASSWORD}@host/db",
        PASSWORD,
    ],
)
def test_no_message_holds_a_password_however_the_url_is_written(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB", url)
    with pytest.raises(SourceError) as caught:
        list(read_tables(SqlSpec(url_env="DB", query="select 1 as x")))
    assert not leaked(caught.value, PASSWORD)


def leaked(error: BaseException, password: str) -> bool:
    """Whether the password, or a part as urls split it, is in an error or one it came from."""
    texts = []
    seen: BaseException | None = error
    while seen is not None:
        texts.append(f"{seen} {seen.args!r} {getattr(seen, 'culprits', '')}")
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    told = " ".join(texts)
    forms = (password, quote(password, safe=""), quote(password), "s3cret")
    return any(form in told for form in forms)


def test_a_database_that_does_not_run_is_told_with_its_address() -> None:
    error = refused("postgresql://me@127.0.0.1:1/db")
    assert "postgresql://me@127.0.0.1:1/db cannot be opened" in error.problem
    assert "Connection refused" in error.problem
    assert "PGPASSWORD" in error.way_out
    assert error.culprits == {"database": "postgresql://me@127.0.0.1:1/db"}


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb"])
def test_a_database_file_that_is_not_there_is_not_made(scheme: str, tmp_path: Path) -> None:
    error = refused(f"{scheme}:///{tmp_path}/none.db")
    assert "none.db cannot be opened" in error.problem
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb"])
def test_a_file_that_is_no_database_is_told(scheme: str, tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("country,price\n" * 1000)
    assert "a.db" in refused(f"{scheme}:///{tmp_path}/a.db", "select * from t").problem


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("select * from nowhere", "nowhere"),
        ("select nothing as x from (select 1 as y) as t", "nothing"),
        ("selec 1", "syntax error"),
        ("select 1 as x, 2 as x", "more than one column 'x'"),
    ],
)
def test_a_query_that_cannot_be_answered_is_told_with_the_way_out(
    query: str, says: str, postgres: Server, make_duckdb: Callable[[str], str], tmp_path: Path
) -> None:
    sqlite3.connect(tmp_path / "a.db").close()
    for url in (postgres.url, make_duckdb("select 1"), f"sqlite:///{tmp_path}/a.db"):
        error = refused(url, query)
        assert says in error.problem
        assert "source.sql.query" in error.problem + error.way_out
        assert "what was landed before is unchanged" in error.stored


def test_a_watermark_that_the_query_does_not_give_is_told_with_the_columns(
    postgres: Server, make_duckdb: Callable[[str], str], tmp_path: Path
) -> None:
    sqlite3.connect(tmp_path / "a.db").close()
    for url in (postgres.url, make_duckdb("select 1"), f"sqlite:///{tmp_path}/a.db"):
        error = refused(url, "select 1 as updated_at", watermark="update_at")
        assert "no column 'update_at'" in error.problem
        assert "Did you mean 'updated_at'?" in error.problem


def test_a_variable_that_is_not_set_is_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DB", raising=False)
    with pytest.raises(SourceError, match="environment variable DB is not set"):
        list(read_tables(SqlSpec(url_env="DB", query="select 1")))


def test_a_query_while_sqlite_is_written_to_waits_or_says_that_it_is_locked(
    sqlite: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlops_assets.sources.pulled.sql._CONNECT_SECONDS", 0.1)
    sqlite.execute("create table t (x)")
    sqlite.execute("begin exclusive")
    assert "locked" in refused(f"sqlite:///{tmp_path}/a.db", "select * from t").problem


def test_sqlalchemy_itself_says_the_same(postgres: Server) -> None:
    """The numbers by a second route."""
    query = "select n, n * 1.1 as x, now() - n * interval '1 hour' as t from generate_series(1,9) n"
    query = query.replace("now()", "timestamptz '2024-01-01 00:00:00+00'")
    engine = sa.create_engine(postgres.url.replace("postgresql:", "postgresql+psycopg2:"))
    with engine.connect() as connection:
        expected = [tuple(row) for row in connection.execute(sa.text(query))]
    engine.dispose()
    assert [tuple(row.values()) for row in rows_of(ask(postgres.url, query))] == expected
