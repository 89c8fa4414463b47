from __future__ import annotations

import contextlib
import datetime as dt
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlops_assets.errors import SourceError
from mlops_assets.sources.files.reading import list_files, read_by_country, survey
from mlops_assets.sources.pulled import increments
from mlops_assets.sources.pulled.increments import pull_query, series_of
from mlops_assets.sources.pulled.pull import Pulled, pull
from mlops_assets.sources.pulled.writing import Landing
from mlops_assets.spec import SourceSpec, SqlSpec
from mlops_assets_tests.effort import examples
from mlops_assets_tests.sources.databases import Server

QUERY = "select * from t"
Row = tuple[Any, ...]


class Table:
    """A SQLite table `t` (w, country, x), pulled by `w` into a landing folder."""

    def __init__(self, folder: Path, batch_rows: int = 2, **more: Any) -> None:
        self.folder, self.landing = folder, folder / "landing"
        self.connection = sqlite3.connect(folder / "a.db", check_same_thread=False)
        self.connection.execute("create table if not exists t (w, country text, x)")
        settings_ = {"watermark": "w", "query": QUERY, "batch_rows": batch_rows} | more
        self.sql = SqlSpec(url=f"sqlite:///{folder}/a.db", **settings_)

    def insert(self, *rows: Row) -> None:
        self.connection.executemany("insert into t values (?, ?, ?)", rows)
        self.connection.commit()

    def pull(self) -> Pulled:
        return pull_query(self.sql, str(self.landing))

    def landed(self) -> list[Row]:
        return landed(self.landing)

    def files(self) -> list[str]:
        return [file.name.partition("/")[2] or file.name for file in list_files(str(self.landing))]


def landed(folder: Path) -> list[Row]:
    """All rows of all landed files."""
    return [
        tuple(row.values())
        for file in list_files(str(folder))
        for row in pq.read_table(file.uri).to_pylist()
    ]


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    made = Table(tmp_path)
    yield made
    made.connection.close()


def test_the_first_pull_lands_everything_and_the_next_one_what_is_new(table: Table) -> None:
    table.insert((1, "DEU", 1.5), (2, "FRA", None))
    first = table.pull()
    assert (first.rows, first.watermark) == (2, "2")
    table.insert((3, "DEU", 2.5))
    assert table.pull() == Pulled((f"{series_of(table.sql)}/000002.parquet",), 1, "3")
    assert table.landed() == [(1, "DEU", 1.5), (2, "FRA", None), (3, "DEU", 2.5)]


def test_no_new_rows_land_no_file(table: Table) -> None:
    assert table.pull() == Pulled((), 0, None)
    table.insert((1, "DEU", 1))
    table.pull()
    assert table.pull() == Pulled((), 0, "1")
    assert table.files() == ["000001.parquet"]


def test_rows_committed_later_at_the_same_watermark_are_neither_lost_nor_repeated(
    table: Table,
) -> None:
    table.insert((1, "DEU", 1), (1, "DEU", 1))
    table.pull()
    for row in [(1, "DEU", 1), (1, "DEU", None), (1, None, 1), (1, "DEU", None)]:
        table.insert(row)
        assert table.pull().rows == 1
        assert table.pull().rows == 0
    assert Counter(table.landed()) == {(1, "DEU", 1): 3, (1, "DEU", None): 2, (1, None, 1): 1}


def test_files_with_the_same_rows_are_not_the_same_file(table: Table) -> None:
    """A file is taken once by its content, and these rows are there more than once."""
    for _ in range(4):
        table.insert((1, "DEU", 1))
        table.pull()
    hashes = {file.content_hash for file in list_files(str(table.landing))}
    assert len(hashes) == 4


def test_a_watermark_that_went_backwards_is_not_seen(table: Table) -> None:
    table.insert((5, "DEU", 1))
    table.pull()
    table.insert((4, "DEU", 2))
    assert table.pull().rows == 0


@pytest.mark.parametrize("empty", [None, float("nan")])
def test_rows_without_a_watermark_are_refused_with_their_number(
    empty: float | None, table: Table
) -> None:
    table.insert((1, "DEU", 1), (empty, "DEU", 2), (empty, "DEU", 3))
    with pytest.raises(SourceError, match="2 rows have no 'w'") as caught:
        table.pull()
    assert caught.value.culprits == {"watermark": "w", "rows": 2}
    assert table.files() == []


def test_a_row_without_a_watermark_is_refused_by_later_pulls_too(table: Table) -> None:
    table.insert((1, "DEU", 1))
    table.pull()
    table.insert((2, "DEU", 2), (None, "DEU", 3))
    with pytest.raises(SourceError, match="1 rows have no 'w'"):
        table.pull()
    assert len(table.landed()) == 1


@pytest.mark.parametrize("values", [(1, "a"), ("a", 1), (b"x",), (1, 2.5, 2**60)])
@pytest.mark.parametrize("batch_rows", [1, 2, 3])
def test_a_watermark_without_one_order_is_refused(
    values: Row, batch_rows: int, table: Table
) -> None:
    table.sql = table.sql.model_copy(update={"batch_rows": batch_rows})
    table.insert(*((value, "DEU", 1) for value in values))
    with pytest.raises(SourceError, match="must be of one kind"):
        table.pull()
    assert table.files() == []


def test_a_watermark_that_is_of_another_kind_now_is_refused(table: Table) -> None:
    table.insert((1, "DEU", 1))
    table.pull()
    table.connection.execute("delete from t")
    table.insert(("2024-01-01", "DEU", 1))
    with pytest.raises(SourceError, match="number and text"):
        table.pull()


def test_values_of_a_new_type_and_a_new_column_keep_what_was_landed(table: Table) -> None:
    table.insert((1, "DEU", 1))
    table.pull()
    table.insert((1, "DEU", "one"), (1, "DEU", 1.5))
    assert table.pull().rows == 2
    table.connection.execute("alter table t add column y")
    assert table.pull().rows == 0
    table.connection.execute("insert into t values (1, 'DEU', 1, 'new')")
    table.connection.commit()
    assert table.pull().rows == 1
    assert table.pull().rows == 0
    assert len(table.landed()) == 4


def test_another_query_starts_over_and_layout_makes_no_other_query(table: Table) -> None:
    table.insert((1, "DEU", 1))
    table.pull()
    layout = table.sql.model_copy(update={"query": " select *\n  from t\n"})
    other = table.sql.model_copy(update={"query": "select * from t where x > 0"})
    assert pull_query(layout, str(table.landing)).rows == 0
    assert pull_query(other, str(table.landing)).rows == 1


def test_a_landed_file_that_is_missing_or_damaged_is_told_instead_of_rows_repeated(
    table: Table,
) -> None:
    table.insert((1, "DEU", 1))
    table.pull()
    table.insert((1, "DEU", 2))
    table.pull()
    folder = table.landing / series_of(table.sql)
    first, second = folder / "000001.parquet", folder / "000002.parquet"
    first.rename(folder / "elsewhere.txt")
    with pytest.raises(SourceError, match=r"000001.parquet is missing"):
        table.pull()
    (folder / "elsewhere.txt").rename(first)
    assert table.pull().rows == 0
    second.write_bytes(second.read_bytes()[:-20])
    with pytest.raises(SourceError, match=r"000002.parquet was landed by a pull, but"):
        table.pull()


def test_earlier_files_may_be_moved_away(table: Table) -> None:
    for watermark in range(1, 4):
        table.insert((watermark, "DEU", 1))
        table.pull()
    for number in (1, 2):
        (table.landing / series_of(table.sql) / f"{number:06}.parquet").unlink()
    table.insert((3, "FRA", 1))
    assert table.pull().rows == 1


# Every row exactly once

STEPS = st.lists(
    st.one_of(
        st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["a", None]), st.integers(0, 1))),
        st.sampled_from(["pull", "killed pull"]),
    ),
    max_size=12,
)
KINDS: dict[str, Callable[[int], Any]] = {
    "integer": int,
    "float": lambda n: n / 10,
    "text": lambda n: f"é{n:03}",
    "mixed numbers": lambda n: n if n % 2 else n + 0.5,
}


class _Killed(BaseException):
    pass


@given(steps=STEPS, kind=st.sampled_from(sorted(KINDS)), batch_rows=st.integers(1, 4))
@example([[(0, "a", 0)], "pull", [(0, "a", 0)], "killed pull", "pull"], "integer", 1)
@example([[*[(1, "a", 0)] * 14], "pull", [(1, "a", 0)]], "mixed numbers", 1)
@settings(max_examples=examples(40), deadline=None)
def test_any_sequence_of_inserts_and_pulls_lands_every_row_exactly_once(
    steps: list[Any], kind: str, batch_rows: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        table = Table(Path(folder), batch_rows)
        inserted: list[Row] = []
        watermark = 0
        for step in [*steps, "pull"]:
            if isinstance(step, list):
                rows = []
                for more, country, x in step:
                    watermark += more
                    rows.append((KINDS[kind](watermark), country, x))
                table.insert(*rows)
                inserted += rows
            else:
                _pull(table, patch, is_killed=step == "killed pull")
        assert Counter(table.landed()) == Counter(inserted)
        files = list_files(str(table.landing))
        assert len({file.content_hash for file in files}) == len(files)
        table.connection.close()


def _pull(table: Table, patch: pytest.MonkeyPatch, *, is_killed: bool) -> None:
    """A pull, or one that ends where the file would get its name."""
    if not is_killed:
        table.pull()
        return

    def die(*_: object) -> None:
        raise _Killed

    with patch.context() as inner:
        inner.setattr(os, "link", die)
        with contextlib.suppress(_Killed):
            table.pull()


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("double", "0.1", "0.2"),
        ("decimal(18,4)", "0.1", "0.2"),
        ("hugeint", "1", "170141183460469231731687303715884105"),
        ("timestamp_ns", "'2024-01-01 00:00:00.000000001'", "'2024-01-01 00:00:00.000000002'"),
        ("timestamptz", "'2024-03-31 02:30:00+02'", "'2024-03-31 02:30:00+01'"),
        # Each is as exact as one above of its kind.
        pytest.param("bigint", "1", "2", marks=pytest.mark.nightly),
        pytest.param("float", "0.7", "0.8", marks=pytest.mark.nightly),
        pytest.param("varchar", "'é'", "'ü'", marks=pytest.mark.nightly),
        pytest.param("date", "'2024-01-01'", "'2024-01-02'", marks=pytest.mark.nightly),
        pytest.param(
            "timestamp",
            "'2024-01-01 00:00:00.000001'",
            "'2024-01-01 00:00:00.000002'",
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_every_duckdb_watermark_is_exact(
    kind: str, first: str, second: str, tmp_path: Path
) -> None:
    _watermark_is_exact(f"duckdb:///{tmp_path}/a.duckdb", kind, first, second, tmp_path)


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("bigint", "9007199254740993", "9007199254740994"),
        ("double precision", "0.1", "0.2"),
        ("numeric", "0.1", "100.25"),
        ("text", "'é'", "'ü'"),
        ("char(5)", "'a'", "'b'"),
        ("uuid", f"'{0:032}'", f"'{1:032}'"),
        ("timestamp", "'2024-01-01 00:00:00.000001'", "'2024-01-01 00:00:00.000002'"),
        ("timestamptz", "'2024-03-31 02:30:00+02'", "'2024-03-31 02:30:00+01'"),
        # Each is as exact as one above of its kind.
        pytest.param("smallint", "1", "2", marks=pytest.mark.nightly),
        pytest.param("real", "0.7", "0.8", marks=pytest.mark.nightly),
        pytest.param("numeric(18,4)", "0.1", "0.2", marks=pytest.mark.nightly),
        pytest.param("varchar(5)", "'Z'", "'a'", marks=pytest.mark.nightly),
        pytest.param("date", "'2024-01-01'", "'2024-01-02'", marks=pytest.mark.nightly),
    ],
)
def test_every_postgresql_watermark_is_exact(
    kind: str, first: str, second: str, postgres: Server, tmp_path: Path
) -> None:
    _watermark_is_exact(postgres.url, kind, first, second, tmp_path)


def _watermark_is_exact(url: str, kind: str, first: str, second: str, folder: Path) -> None:
    """Ties at the largest value are told from landed rows, and larger values are new."""
    sql = SqlSpec(url=url, query=QUERY, watermark="w", batch_rows=2)
    landing = str(folder / "landing")
    _execute(url, "drop table if exists t", f"create table t (w {kind}, x integer)",
             f"insert into t values ({first}, 1), ({first}, 1)")  # fmt: skip
    assert [pull_query(sql, landing).rows for _ in range(2)] == [2, 0]
    _execute(url, f"insert into t values ({first}, 1), ({first}, 2), ({second}, 1)")
    assert [pull_query(sql, landing).rows for _ in range(2)] == [3, 0]
    _execute(url, f"insert into t values ({second}, null)")
    assert [pull_query(sql, landing).rows for _ in range(2)] == [1, 0]
    assert len(landed(folder / "landing")) == 6


def _execute(url: str, *statements: str) -> None:
    if url.startswith("duckdb"):
        with duckdb.connect(url.removeprefix("duckdb:///")) as connection:
            for statement in statements:
                connection.execute(statement)
        return
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg2:"))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    engine.dispose()


# Crashes and pulls at once


def test_of_two_pulls_at_once_one_lands_the_rows(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.insert((1, "DEU", 1), (2, "FRA", 2))
    create, others = Landing.create, []

    def create_after_another(self: Landing, name: str, file: Path) -> None:
        if not others:
            others.append(None)
            others[0] = table.pull().rows
        create(self, name, file)

    monkeypatch.setattr(Landing, "create", create_after_another)
    assert table.pull().rows == 0
    assert others == [2]
    assert len(table.landed()) == 2


def test_pulls_beside_each_other_while_rows_come_land_every_row_exactly_once(
    table: Table,
) -> None:
    rows = [(n // 3, "DEU", n % 2) for n in range(30)]
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                table.pull()
        except SourceError as error:
            if "all the time" not in str(error):
                errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for row in rows:
        table.insert(row)
    for thread in threads:
        thread.join()
    table.pull()
    assert errors == []
    assert Counter(table.landed()) == Counter(rows)


def test_a_killed_pull_leaves_nothing_half_and_is_made_again(table: Table) -> None:
    table.insert(*((n, "DEU", n) for n in range(60_000)))
    slowly, table.sql = table.sql, table.sql.model_copy(update={"batch_rows": 50_000})
    program = (
        "import sys; from mlops_assets.sources.pulled.pull import pull; "
        "from mlops_assets.spec import SourceSpec; "
        "pull(SourceSpec.model_validate_json(sys.argv[1]), sys.argv[2])"
    )
    source = source_of(slowly).model_dump_json()
    worker = subprocess.Popen([sys.executable, "-c", program, source, str(table.landing)])
    try:
        until = time.monotonic() + 60
        while not list(table.landing.glob(".pull-*/new/*.arrow")) and time.monotonic() < until:
            time.sleep(0.005)
        assert worker.poll() is None
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    assert table.files() == []
    assert table.pull().rows == 60_000
    assert len(set(table.landed())) == 60_000


def test_what_a_killed_pull_left_is_removed_a_day_later(table: Table) -> None:
    old, young = table.landing / ".pull-old", table.landing / ".pull-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "rows.arrow").write_bytes(b"half")
    os.utime(old, (0, 0))
    table.pull()
    assert not old.exists()
    assert young.exists()


def test_a_database_that_fails_in_the_middle_lands_nothing(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.insert((1, "DEU", 1), (2, "DEU", 2), (3, "DEU", 3))
    table.connection.execute("insert into t values (4, 'DEU', abs(-9223372036854775807))")
    table.connection.commit()
    failing = table.sql.model_copy(
        update={"query": "select w, country, abs(x - 1 - (w = 4) * 9223372036854775807) x from t"}
    )
    monkeypatch.setattr(increments, "_ATTEMPTS", 1)
    table.connection.execute("update t set x = 0 where w = 4")
    table.connection.commit()
    with pytest.raises(SourceError, match="integer overflow"):
        pull_query(failing, str(table.landing))
    assert table.files() == []


# Without a watermark


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Table]:
    made = Table(tmp_path, watermark=None)
    yield made
    made.connection.close()


def test_all_rows_replace_those_of_the_pull_before(whole: Table) -> None:
    whole.insert((1, "DEU", 1), (None, "FRA", 2))
    assert whole.pull() == Pulled(("query.parquet",), 2, None)
    whole.connection.execute("delete from t where w = 1")
    whole.insert((None, "FRA", 3))
    assert whole.pull().rows == 2
    assert whole.landed() == [(None, "FRA", 2), (None, "FRA", 3)]


def test_the_same_rows_in_another_order_are_no_new_file(whole: Table) -> None:
    whole.insert((1, "DEU", 1), (1, "DEU", 1), (2, None, 2.5))
    whole.pull()
    (before,) = list_files(str(whole.landing))
    whole.sql = whole.sql.model_copy(update={"query": "select * from t order by w desc"})
    assert whole.pull() == Pulled((), 0, None)
    assert list_files(str(whole.landing)) == [before]


@pytest.mark.parametrize(
    "change",
    ["insert into t values (1, 'DEU', 1)", "update t set country = 'FRA' where w = 2",
     "alter table t rename x to y", "delete from t where w = 1"],
)  # fmt: skip
def test_any_other_row_column_or_number_is_a_new_file(change: str, whole: Table) -> None:
    whole.insert((1, "DEU", 1), (1, "DEU", 1), (2, None, 2.5))
    whole.pull()
    whole.connection.execute(change)
    whole.connection.commit()
    assert whole.pull().files == ("query.parquet",)
    assert whole.pull().files == ()


def test_no_rows_at_all_do_not_replace_those_there_were(whole: Table) -> None:
    assert whole.pull() == Pulled((), 0, None)
    whole.insert((1, "DEU", 1))
    whole.pull()
    whole.connection.execute("delete from t")
    whole.connection.commit()
    with pytest.raises(SourceError, match="gives no row any more"):
        whole.pull()
    assert whole.landed() == [(1, "DEU", 1)]


# From the landing folder on


def source_of(sql: SqlSpec) -> SourceSpec:
    return SourceSpec(
        kind="sql",
        sql=sql,
        columns={"country": "country", "time": "w"},
        country="country",
        key=["country"],
        event_time="time",
    )


def test_what_was_landed_is_read_like_any_file_with_its_types(
    postgres: Server, tmp_path: Path
) -> None:
    query = """select 'DEU' as country, 1.50::numeric(10,2) as price, null::int as nothing,
        timestamptz '2024-01-01 00:00:00+00' + n * interval '1 hour' as w
        from generate_series(1, 3) as n"""
    sql = SqlSpec(url=postgres.url, query=query, watermark="w")
    assert pull(source_of(sql), str(tmp_path)).watermark == "2024-01-01 03:00:00.000000Z"
    (file,) = list_files(str(tmp_path))
    assert survey(file, "country").rows_by_country == {"DEU": 3}
    rows = read_by_country([file], "country", {"DEU": "DEU"})["DEU"]
    assert rows["price"].to_pylist() == [Decimal("1.50")] * 3
    assert rows["w"].to_pylist()[0] == dt.datetime(2024, 1, 1, 1, tzinfo=dt.UTC)
    assert rows["nothing"].type == pa.int32()


def test_a_sqlite_column_without_any_value_is_read_back(table: Table) -> None:
    table.insert((1, "DEU", None))
    table.pull()
    (file,) = list_files(str(table.landing))
    assert survey(file, "country").problem is None
    rows = read_by_country([file], "country", {"DEU": "DEU"})["DEU"]
    assert rows["x"].to_pylist() == [None]


def test_a_source_of_files_is_not_pulled(tmp_path: Path) -> None:
    files = SourceSpec(columns={"c": "c", "t": "t"}, country="c", key=["c"], event_time="t")
    assert pull(files, str(tmp_path / "landing")) == Pulled()
    assert not (tmp_path / "landing").exists()


def test_a_landing_folder_that_cannot_be_written_is_told(table: Table) -> None:
    table.insert((1, "DEU", 1))
    table.landing.write_text("a file where the folder should be")
    with pytest.raises(SourceError, match=r"landing folder .* cannot be read or written"):
        pull(source_of(table.sql), str(table.landing))


# On an object store


def test_an_object_store_gets_the_same_files_and_no_number_twice(
    bucket: str, s3_options: dict[str, Any], table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, source = f"s3://{bucket}/in", source_of(table.sql)
    table.insert((1, "DEU", 1))
    assert pull(source, uri, s3_options).rows == 1
    table.insert((1, "DEU", 1), (2, "FRA", 2))
    create, others = Landing.create, []

    def create_after_another(self: Landing, name: str, file: Path) -> None:
        if not others:
            others.append(None)
            others[0] = pull(source, uri, s3_options).rows
        create(self, name, file)

    monkeypatch.setattr(Landing, "create", create_after_another)
    assert pull(source, uri, s3_options).rows == 0
    assert others == [2]
    files = list_files(uri, s3_options)
    assert [file.name for file in files] == [
        f"{series_of(table.sql)}/{n:06}.parquet" for n in (1, 2)
    ]
    tables = read_by_country(files, "country", {"DEU": "DEU", "FRA": "FRA"}, s3_options)
    assert {country: rows.num_rows for country, rows in tables.items()} == {"DEU": 2, "FRA": 1}


def test_an_object_of_all_rows_is_replaced_when_they_change(
    bucket: str, s3_options: dict[str, Any], whole: Table
) -> None:
    uri, source = f"s3://{bucket}/in", source_of(whole.sql)
    whole.insert((1, "DEU", 1))
    assert pull(source, uri, s3_options).files == ("query.parquet",)
    assert pull(source, uri, s3_options).files == ()
    whole.insert((2, "DEU", 1))
    assert pull(source, uri, s3_options).rows == 2
