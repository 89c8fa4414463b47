"""Asking a database: the rows of a query as Arrow tables, streamed, whatever the database.

DuckDB files are opened by DuckDB itself, SQLite and PostgreSQL through SQLAlchemy; all of them read
only. A password never leaves this module: addresses are shown without it and it is taken out of
what drivers say.
"""

from __future__ import annotations

import datetime as dt
import difflib
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import pyarrow as pa

from mlops_assets.errors import SourceError
from mlops_assets.quoting import identifier
from mlops_assets.spec import DATABASES, SqlSpec

if TYPE_CHECKING:
    import duckdb
    import sqlalchemy as sa

NO_INCREMENT = "No row of this pull was landed; what was landed before is unchanged."
_CONNECT_SECONDS = 10
_POSTGRES: dict[int, pa.DataType] = {
    16: pa.bool_(),
    17: pa.binary(),
    20: pa.int64(),
    21: pa.int16(),
    23: pa.int32(),
    26: pa.int64(),
    700: pa.float32(),
    701: pa.float64(),
    1082: pa.date32(),
    1083: pa.time64("us"),
    1114: pa.timestamp("us"),
    1184: pa.timestamp("us", tz="UTC"),
}
"""Arrow type by type number of PostgreSQL (catalog pg_type)."""
_POSTGRES_NUMERIC = 1700
_LONGEST_DECIMAL = 38
_TEXT_IN_DUCKDB = ("INTERVAL", "BIGNUM", "BIT", "TIME WITH TIME ZONE", "UNION")
"""Types that Parquet has not."""


@dataclass(frozen=True, repr=False)
class Database:
    """A database and what may be said about it.

    Attributes:
        scheme: duckdb, sqlite or postgresql.
        url: for the driver, with the password.
        shown: the URL with *** for the password.
        secrets: texts that no message may hold.
        origin: where a person finds URL and password.
    """

    scheme: str
    url: sa.URL
    shown: str
    secrets: tuple[str, ...]
    origin: str


def database_of(sql: SqlSpec) -> Database:
    """The database that the YAML or its environment variable names.

    Raises:
        SourceError: the variable is not set, or holds no URL of a database that can be asked.
    """
    import sqlalchemy as sa
    import sqlalchemy.exc

    origin = "source.sql.url" if sql.url else f"the environment variable {sql.url_env}"
    text = sql.url or os.environ.get(sql.url_env or "")
    if not text:
        raise _refused(f"{origin} is not set.", "Set it where the platform runs.")
    try:
        url = sa.make_url(text)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise _no_url(origin) from None  # the driver's words may quote the URL
    if url.drivername not in DATABASES or "@" in (url.host or ""):
        raise _no_url(origin)
    scheme = url.drivername.partition("+")[0]
    if scheme != "postgresql" and url.database in (None, "", ":memory:"):
        raise _no_url(origin)
    named = {name: "***" for name in url.query if "password" in name.lower()}
    shown = url.update_query_dict(named).render_as_string(hide_password=True)
    given = [url.password, *(url.query[name] for name in named)]
    secrets = {form for each in given if each for form in _forms(str(each))}
    return Database(scheme, url, shown, tuple(sorted(secrets, key=len, reverse=True)), origin)


def read_tables(sql: SqlSpec, after: pa.Scalar | None = None) -> Iterator[pa.Table]:
    """The rows of the query, a table of at most `batch_rows` at a time.

    All tables have the same columns. SQLite has no types, so that those of a column are of the
    values in a table and differ between tables; so do PostgreSQL's `numeric` without precision.

    Args:
        sql: database and query.
        after: leave out most rows with a smaller watermark (some may come all the same); rows
            without a watermark always come.

    Raises:
        SourceError: the database does not answer, or not to this query.
    """
    database = database_of(sql)
    read = _from_duckdb if database.scheme == "duckdb" else _through_sqlalchemy
    for table in read(database, sql, after):
        _check_columns(table.column_names, sql)
        yield table


def _forms(secret: str) -> set[str]:
    return {secret, quote(secret, safe=""), quote_plus(secret)}


def _refused(problem: str, way_out: str, **culprits: Any) -> SourceError:
    return SourceError(problem, stored=NO_INCREMENT, way_out=way_out, culprits=culprits)


def _no_url(origin: str) -> SourceError:
    return _refused(
        f"{origin} is no URL of a database that can be asked.",
        "Write duckdb:///file, sqlite:///file or postgresql://user:password@host/name, with signs "
        "such as @ : / in the password percent-encoded.",
    )


def _check_columns(columns: Sequence[str], sql: SqlSpec) -> None:
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise _refused(
            f"The query gives more than one column {', '.join(map(repr, twice))}.",
            "Name each column once in source.sql.query (`as other_name`).",
            columns=twice,
        )
    if sql.watermark is not None and sql.watermark not in columns:
        close = difflib.get_close_matches(sql.watermark, columns, 1, 0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise _refused(
            f"The query gives no column {sql.watermark!r}, which source.sql.watermark names; its "
            f"columns are {', '.join(map(repr, columns))}.{hint}",
            "Correct the watermark, or select the column in source.sql.query.",
            watermark=sql.watermark,
            columns=list(columns),
        )


def _statement(sql: SqlSpec, condition: str = "") -> str:
    """The query with a condition; on lines of its own, as it may end with a comment."""
    query = sql.query.strip().rstrip(";")
    # The first pull by a watermark, too: what cannot be asked as a part fails then, not later.
    return f"SELECT * FROM (\n{query}\n) AS pulled{condition}" if sql.watermark else query


def _unreachable(database: Database, error: Exception) -> SourceError:
    return _refused(
        f"The database {database.shown} cannot be opened: {_said(database, error)}.",
        f"Check that it is there, that {database.origin} names it, "
        + (
            "and that user and password (there, in ~/.pgpass or PGPASSWORD) are right."
            if database.scheme == "postgresql"
            else "and that nobody writes to it just now."
        ),
        database=database.shown,
    )


def _unanswered(database: Database, error: Exception) -> SourceError:
    return _refused(
        f"The database {database.shown} does not answer source.sql.query: "
        f"{_said(database, error)}.",
        "Try the query with the database's own client, correct it, and pull again.",
        database=database.shown,
    )


def _said(database: Database, error: Exception) -> str:
    """What the driver says, on one line and without secrets."""
    text = " ".join(str(getattr(error, "orig", None) or error).split())
    for secret in database.secrets:
        text = text.replace(secret, "***")
    return text.rstrip(" .?!^")


# DuckDB


def _from_duckdb(database: Database, sql: SqlSpec, after: pa.Scalar | None) -> Iterator[pa.Table]:
    import duckdb

    with closing(_open_duckdb(database)) as connection:
        try:
            relation = _relation(connection, sql, after)
            _check_columns(relation.columns, sql)
            reader = _without_odd_types(relation).to_arrow_reader(sql.batch_rows)
            yield _decoded(reader.schema.empty_table())
            for batch in reader:
                yield _decoded(pa.Table.from_batches([batch]))
        except duckdb.Error as error:
            raise _unanswered(database, error) from error


def _open_duckdb(database: Database) -> duckdb.DuckDBPyConnection:
    import duckdb

    config: Any = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,  # a misspelt table is no variable of this program
    }
    try:
        connection = duckdb.connect(str(database.url.database), read_only=True, config=config)
        connection.execute("SET TimeZone = 'UTC'")
    except duckdb.Error as error:
        raise _unreachable(database, error) from error
    return connection


def _relation(
    connection: duckdb.DuckDBPyConnection, sql: SqlSpec, after: pa.Scalar | None
) -> duckdb.DuckDBPyRelation:
    if after is None:
        return connection.sql(_statement(sql))
    connection.register("pulled_after", pa.table({"value": pa.array([after.as_py()], after.type)}))
    column = identifier(sql.watermark or "")
    # A collation of the column would order texts in another way than this program does.
    compared = f"CAST({column} AS VARCHAR) COLLATE C" if _is_text(after.type) else column
    return connection.sql(
        _statement(
            sql, f" WHERE {compared} >= (SELECT value FROM pulled_after) OR {column} IS NULL"
        )
    )


def _without_odd_types(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    kinds = dict(zip(relation.columns, map(str, relation.types), strict=True))
    return relation.project(
        ", ".join(
            f"CAST({identifier(name)} AS VARCHAR) AS {identifier(name)}"
            if kind.startswith(_TEXT_IN_DUCKDB)
            else identifier(name)
            for name, kind in kinds.items()
        )
    )


def _decoded(table: pa.Table) -> pa.Table:
    """Enumerations as the texts they stand for."""
    for place, field in enumerate(table.schema):
        if isinstance(field.type, pa.DictionaryType):
            column = table.column(place).cast(field.type.value_type)
            table = table.set_column(place, field.name, column)
    return table


# SQLite and PostgreSQL


def _through_sqlalchemy(
    database: Database, sql: SqlSpec, after: pa.Scalar | None
) -> Iterator[pa.Table]:
    import sqlalchemy.exc

    with _connected(database) as connection:
        try:
            result = connection.execute(*_asked(connection, sql, after))
            names = list(result.keys())
            kinds = _kinds(database.scheme, result.cursor)
            _check_columns(names, sql)
            yield _table(names, kinds, [])
            for rows in result.partitions(sql.batch_rows):
                table = _table(names, kinds, rows)
                _check_watermark(table, kinds, rows, sql)
                yield table
        except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, ValueError) as error:
            # A ValueError is a value beyond Python's types, such as a date before the year 1.
            raise _unanswered(database, error) from None  # its text holds the parameters


@contextmanager
def _connected(database: Database) -> Iterator[sa.Connection]:
    import sqlalchemy.exc

    try:
        connection = _engine(database).connect()
    except ModuleNotFoundError as error:
        raise _refused(
            f"{database.shown} needs the package {error.name}, which is not installed.",
            "Install the extra for it: pip install 'mlops_assets[postgres]'.",
            database=database.shown,
        ) from error
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error) as error:
        raise _unreachable(database, error) from None  # tracebacks show the URL's parts
    with connection:
        yield connection


def _engine(database: Database) -> sa.Engine:
    import sqlalchemy as sa

    if database.scheme == "sqlite":
        file = f"file:{quote(os.path.abspath(str(database.url.database)))}?mode=ro"
        return sa.create_engine(
            "sqlite://",
            # Opened in the usual way, a file that is not there would be made.
            creator=lambda: sqlite3.connect(file, uri=True, timeout=_CONNECT_SECONDS),
            poolclass=sa.NullPool,
        )
    return sa.create_engine(
        database.url.set(drivername="postgresql+psycopg2"),
        connect_args={"connect_timeout": _CONNECT_SECONDS},
        execution_options={"postgresql_readonly": True},
        poolclass=sa.NullPool,
        hide_parameters=True,
    )


def _asked(
    connection: sa.Connection, sql: SqlSpec, after: pa.Scalar | None
) -> tuple[sa.Executable, dict[str, Any]]:
    """The statement with its parameters; rows are fetched as they are asked for."""
    import sqlalchemy as sa

    condition, values = "", {}
    if after is not None:
        column = connection.dialect.identifier_preparer.quote_identifier(sql.watermark or "")
        collated = {"sqlite": f"{column} COLLATE BINARY"}.get(
            connection.dialect.name, f'CAST({column} AS TEXT) COLLATE "C"'
        )
        compared = collated if _is_text(after.type) else column
        condition = f" WHERE {compared} >= :pulled_after OR {column} IS NULL"
        values = {"pulled_after": _value(after)}
    query = _statement(sql.model_copy(update={"query": sql.query.replace(":", r"\:")}), condition)
    options = {"yield_per": sql.batch_rows}
    return sa.text(query).execution_options(**options), values


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _value(after: pa.Scalar) -> Any:
    # PostgreSQL compares CHAR columns without the blanks at their end, so that more rows come.
    return after.as_py().rstrip(" ") if _is_text(after.type) else after.as_py()


def _kinds(scheme: str, cursor: Any) -> list[pa.DataType | None]:
    """The declared types; None where the values tell."""
    if scheme == "sqlite":
        return [None] * len(cursor.description)
    return [_declared(column) for column in cursor.description]


def _declared(column: Any) -> pa.DataType | None:
    if column.type_code != _POSTGRES_NUMERIC:
        return _POSTGRES.get(column.type_code, pa.string())
    if 0 <= column.scale <= column.precision <= _LONGEST_DECIMAL:
        return pa.decimal128(column.precision, column.scale)
    return None


def _table(
    names: Sequence[str], kinds: Sequence[pa.DataType | None], rows: Sequence[Sequence[Any]]
) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    arrays = [_array(values, kind) for values, kind in zip(columns, kinds, strict=True)]
    return pa.Table.from_arrays(arrays, names=list(names))


def _check_watermark(
    table: pa.Table,
    kinds: Sequence[pa.DataType | None],
    rows: Sequence[Sequence[Any]],
    sql: SqlSpec,
) -> None:
    """Values of several kinds became text, in whose order the database does not compare them."""
    if sql.watermark is None:
        return
    place = table.column_names.index(sql.watermark)
    if kinds[place] is not None or not _is_text(table.schema.types[place]):
        return
    found = {type(row[place]).__name__ for row in rows if row[place] is not None}
    if found != {"str"}:
        raise _refused(
            f"The watermark {sql.watermark!r} must be of one kind; it holds values that have no "
            f"order among each other ({', '.join(sorted(found))}).",
            "Cast the column in source.sql.query, or name another one.",
            watermark=sql.watermark,
        )


def _array(values: Sequence[Any], kind: pa.DataType | None) -> pa.Array:
    """The values as that type, or as one of their own; what has none becomes text."""
    if kind is not None and pa.types.is_binary(kind):
        values = [None if value is None else bytes(value) for value in values]
    try:
        return pa.array(values, type=kind)
    except (pa.ArrowException, OverflowError, TypeError):
        return pa.array([_text(value) for value in values], pa.string())


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if isinstance(value, dict | list):
        return json.dumps(value, default=str, ensure_ascii=False)
    return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)
