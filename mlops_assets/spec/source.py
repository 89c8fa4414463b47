"""Where records come from, what their columns mean, and the contract they keep."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import Field, model_validator
from pydantic_core import InitErrorDetails

from mlops_assets.spec.fields import (
    ADDRESS,
    DATABASES,
    Day,
    Duration,
    Encoding,
    Header,
    ImportPath,
    Share,
    Sign,
    Strict,
    Text,
    TimeZone,
    Variable,
    added_later,
    duration,
    refuse,
    repeats,
    rule_broken,
)


class ContractSpec(Strict):
    """Where the table's contract is and how much may break it."""

    schema_class: ImportPath = Field(
        description="pandera DataFrameModel of the `validated` table, as module.Class in the "
        "product's folder",
        examples=["contract.PowerPrice"],
    )
    max_rejected_share: Share = Field(
        default=0.05,
        description="share of delivered rows (0 to 1) that may break the contract; above it the "
        "country keeps its last good data",
        examples=[0.05],
    )
    delivery_min_rows: int = Field(
        default=20,
        ge=1,
        description="fewest new rows for which their own rejected share is judged beside that of "
        "all rows, so that a damaged delivery cannot hide behind a long history",
        examples=[20],
    )
    max_null_share: dict[Text, Share] = Field(
        default={},
        description="contract column: share of empty values (0 to 1) above which the check "
        "null_shares warns; default: none",
        examples=[{"children": 0.1}],
    )
    min_volume_ratio: float = Field(
        default=0.1,
        ge=0.0,
        description="the check volume warns when a delivery has fewer rows than this times the "
        "median of the country's earlier deliveries",
        examples=[0.5],
    )
    max_volume_ratio: float = Field(
        default=10.0,
        gt=0.0,
        description="and when it has more rows than this times that median",
        examples=[2.0],
    )
    max_age: Duration | None = Field(
        default=None,
        description="the check freshness warns when the newest event is older than this, in hours "
        "(h), days (d) or weeks (w); default: no limit",
        examples=["3d"],
    )
    max_ahead: Duration | None = added_later(
        "2d",
        description="an event, or arrival, later than the country's newest delivery by more than "
        "this is a rejected row (`beyond_now`), in hours (h), days (d) or weeks (w); more where "
        "events lie ahead by their nature, such as stays that are booked; null: no limit",
        examples=["52w"],
    )
    earliest: Day | None = added_later(
        dt.date(1971, 1, 1),
        description="an event before this day is a rejected row (`before_earliest`): 1900-01-01 "
        "and 1970-01-01 are what systems write for a time they do not know; null: no limit",
        examples=["1850-01-01"],
    )

    @model_validator(mode="after")
    def _order(self) -> ContractSpec:
        if self.min_volume_ratio > self.max_volume_ratio:
            text = f"min_volume_ratio {self.min_volume_ratio} is above max_volume_ratio"
            refuse("ContractSpec", [rule_broken(text, "min_volume_ratio")])
        return self

    @property
    def oldest(self) -> dt.timedelta | None:
        """How old the newest event may be."""
        return None if self.max_age is None else duration(self.max_age)

    @property
    def ahead(self) -> dt.timedelta | None:
        """How far after the newest delivery an event may be."""
        return None if self.max_ahead is None else duration(self.max_ahead)


class SqlSpec(Strict):
    """A query on a database and how to tell its new rows."""

    url: Text | None = Field(
        default=None,
        description="the database as duckdb:///file, sqlite:///file or postgresql://user@host/name "
        "without a password, which would be shown and stored; this or url_env",
        examples=["postgresql://reader@warehouse/sales"],
    )
    url_env: Variable | None = Field(
        default=None,
        description="environment variable that holds the URL, with the password if it needs one; "
        "this or url",
        examples=["WAREHOUSE_URL"],
    )
    query: Text = Field(
        description="the rows, as a SELECT that every pull repeats",
        examples=["select * from bookings"],
    )
    watermark: Text | None = Field(
        default=None,
        description="a column of the query (a number, a time or a text) that is larger or equal in "
        "rows that come later, and never empty: a pull takes what is new by it; default: every "
        "pull takes all rows, which replace those of the pull before",
        examples=["updated_at"],
    )
    batch_rows: int = Field(
        default=50_000,
        ge=1,
        description="rows held in memory at a time",
        examples=[50_000],
    )

    @model_validator(mode="after")
    def _one_database(self) -> SqlSpec:
        refuse("SqlSpec", _database_problems(self))
        return self


class HttpSpec(Strict):
    """Files behind web addresses."""

    urls: list[Text] = Field(
        min_length=1,
        description="addresses of one file each; a file lands under the last part of its path, or "
        "under the name after a # (https://host/2024/prices.csv#2024.csv)",
        examples=[["https://example.org/prices.csv"]],
    )
    header_env: dict[Header, Variable] = Field(
        default={},
        description="request header: environment variable that holds its value; default: none",
        examples=[{"Authorization": "PRICES_TOKEN"}],
    )
    timeout_seconds: float = Field(
        default=60.0,
        gt=0.0,
        description="longest wait for a connection, and for the next piece of an answer",
        examples=[60.0],
    )
    attempts: int = Field(
        default=4,
        ge=1,
        le=20,
        description="how often a file is asked for while the server is busy or unreachable, or "
        "answers are cut off",
        examples=[4],
    )

    @model_validator(mode="after")
    def _addresses(self) -> HttpSpec:
        refuse("HttpSpec", _address_problems(self))
        return self


PublishedAs = Text | Annotated[list[Text], Field(min_length=1)]
"""One name of a published column, or all it ever had."""


class SourceSpec(Strict):
    """What is published and what its columns mean."""

    kind: Literal["files", "sql", "http"] = Field(
        default="files",
        description="files: CSV, CSV.gz, JSON lines or Parquet dropped in a landing folder; sql: "
        "a query; http: files behind web addresses; both of these are fetched into that folder",
        examples=["files"],
    )
    uri: Text | None = Field(
        default=None,
        description="folder or object-store prefix of the files; default: the landing folder of "
        "the product",
        examples=["s3://bucket/power_price"],
    )
    sql: SqlSpec | None = Field(
        default=None,
        description="for kind sql, and only for it: database and query",
        examples=[{"url_env": "WAREHOUSE_URL", "query": "select * from bookings"}],
    )
    http: HttpSpec | None = Field(
        default=None,
        description="for kind http, and only for it: addresses",
        examples=[{"urls": ["https://example.org/prices.csv"]}],
    )
    settle_seconds: float = Field(
        default=2.0,
        ge=0.0,
        description="files: one that changed less than this many seconds ago may still be growing "
        "and waits",
        examples=[2.0],
    )
    delivery: Literal["increment", "full"] = Field(
        default="increment",
        description="increment: a file adds rows, and one of the same name with other content "
        "replaces the rows of its earlier version; full: every newer file is the whole history "
        "and replaces all earlier ones of a country",
        examples=["increment"],
    )
    poll_every: Duration = Field(
        default="1h",
        description="sql and http: how often the landing sensor asks the source, in hours (h), "
        "days (d) or weeks (w)",
        examples=["1h"],
    )
    columns: dict[Text, PublishedAs] = Field(
        description="contract column: column as published, or a list where it is published under "
        "several names; only these are validated and used, and a file without one of them is set "
        "aside",
        examples=[{"price": "Price (EUR/MWhe)"}],
        min_length=1,
    )
    optional: list[Text] = added_later(
        [],
        description="contract columns that a file may lack; they are empty there",
        examples=[["customer"]],
    )
    country: Text = Field(
        description="the contract column that holds the country", examples=["country"]
    )
    key: list[Text] = Field(
        description="contract columns that identify a record; the newest of duplicates is kept",
        examples=[["country", "date"]],
        min_length=1,
    )
    event_time: Text = Field(
        description="the contract column with the time a record speaks of", examples=["date"]
    )
    derived: list[Text] = Field(
        default=[],
        description="contract columns that the contract computes from others (a dataframe parser); "
        "the event time may be one of them",
        examples=[["booking_date"]],
    )
    known_later: list[Text] = Field(
        default=[],
        description="contract columns whose value is not known at the event time; they may make "
        "labels, never features (the point-in-time check hides them)",
        examples=[["is_canceled"]],
    )

    arrival_time: Text | None = Field(
        default=None,
        description="the contract column with the time a record's values were published, where "
        "that is later than the event; default: they are known at the event time",
        examples=["published_at"],
    )

    encoding: Encoding = added_later(
        "utf-8",
        description="of CSV and JSON lines, by Python's name",
        examples=["cp1252"],
    )
    delimiter: Sign | None = added_later(
        None,
        description="of CSV; default: that of , ; | and tab with which the header has the columns",
        examples=[";"],
    )
    skip_rows: int = added_later(
        0,
        ge=0,
        description="CSV: lines above the header, such as titles or `sep=;`",
        examples=[2],
    )
    folder_columns: list[Text] = added_later(
        [],
        description="columns as published that stand in the name of a folder and not in the file "
        "(Country=NO/part-0.parquet)",
        examples=[["Country"]],
    )
    date_format: Text | dict[Text, Text] | None = added_later(
        None,
        description="how times are written, in the signs of strptime, for all columns or by "
        "contract column; default: ISO 8601 with a day",
        examples=["%d.%m.%Y"],
    )
    time_zone: TimeZone | None = added_later(
        None,
        description="where times without an offset are the time of the clock; dates without an "
        "hour stay as they are; default: UTC",
        examples=["Europe/Berlin"],
    )
    decimal: Literal[".", ","] = added_later(
        ".", description="the decimal sign of numbers in text", examples=[","]
    )
    thousands: Literal["", ".", ",", "'", " "] = added_later(
        "",
        description="the sign between thousands of numbers in text; default: none",
        examples=["."],
    )
    nulls: list[Text] = added_later(
        [],
        description="words that stand for an empty value, in any column but the country's",
        examples=[["n/a", "-"]],
    )
    country_names: Literal["standard", "listed"] = added_later(
        "standard",
        description="standard: names and codes of ISO 3166 lead to the listed country they mean; "
        "listed: only `countries` and `aliases` do",
        examples=["listed"],
    )

    @model_validator(mode="after")
    def _columns(self) -> SourceSpec:
        refuse("SourceSpec", _source_problems(self))
        return self

    def published(self, column: str) -> tuple[str, ...]:
        """The names under which a contract column is published, the first one first."""
        names = self.columns[column]
        return (names,) if isinstance(names, str) else tuple(names)

    @property
    def all_published(self) -> list[str]:
        """Every published name."""
        return [name for column in self.columns for name in self.published(column)]

    def format_of(self, column: str) -> str | None:
        """How times of a contract column are written; None: ISO 8601."""
        given = self.date_format
        return given.get(column) if isinstance(given, dict) else given


READING = ("encoding", "delimiter", "skip_rows", "folder_columns")
"""Options that say what the rows of a file are."""
NOTATION = ("optional", "date_format", "time_zone", "decimal", "thousands", "nulls")
"""Options that say what published values mean."""


def _source_problems(source: SourceSpec) -> Iterator[InitErrorDetails]:
    """Roles are given to columns that exist, and no published column is used twice.

    The country is needed before the contract is applied, so that it is never a derived column.
    """
    roles: list[tuple[tuple[str | int, ...], str]] = [
        (("country",), source.country),
        (("event_time",), source.event_time),
        *((("key", place), column) for place, column in enumerate(source.key)),
        *((("known_later", place), column) for place, column in enumerate(source.known_later)),
        *([(("arrival_time",), source.arrival_time)] if source.arrival_time else []),
    ]
    for loc, column in roles:
        known = [*source.columns, *(() if loc == ("country",) else source.derived)]
        if column not in known:
            yield rule_broken(
                f"{column!r} is not a key of source.columns ({', '.join(known)})", *loc
            )
    for column in repeats(source.key):
        yield rule_broken(f"{column!r} is listed more than once", "key")
    for column in {source.country, source.event_time} & set(source.known_later):
        yield rule_broken(f"{column!r} is known with the record, not later", "known_later")
    for place, column in enumerate(source.derived):
        if column in source.columns:
            yield rule_broken(f"{column!r} is published, so it is not derived", "derived", place)
    for published in repeats(source.all_published):
        last = [name for name in source.columns if published in source.published(name)][-1]
        text = f"published column {published!r} is given to more than one contract column"
        yield rule_broken(text, "columns", last)
    yield from _reading_problems(source)
    yield from _kind_problems(source)


def _reading_problems(source: SourceSpec) -> Iterator[InitErrorDetails]:
    """Options name columns that exist, and mean one thing."""
    for place, column in enumerate(source.optional):
        if column not in source.columns:
            known = ", ".join(source.columns)
            text = f"{column!r} is not a key of source.columns ({known})"
            yield rule_broken(text, "optional", place)
        elif column in {source.country, source.event_time, *source.key}:
            text = f"{column!r} says which record it is, so no file can do without it"
            yield rule_broken(text, "optional", place)
    for place, name in enumerate(source.folder_columns):
        if name not in source.all_published:
            text = f"{name!r} is not published by source.columns"
            yield rule_broken(
                f"{text} ({', '.join(source.all_published)})", "folder_columns", place
            )
    formats = source.date_format if isinstance(source.date_format, dict) else {}
    for column in formats:
        if column not in source.columns:
            text = f"{column!r} is not a key of source.columns ({', '.join(source.columns)})"
            yield rule_broken(text, "date_format", column)
    if source.thousands == source.decimal:
        yield rule_broken(f"{source.decimal!r} is the decimal sign, too", "thousands")


def _kind_problems(source: SourceSpec) -> Iterator[InitErrorDetails]:
    """A kind has its own section and no other, and a watermark gives increments."""
    for kind in ("sql", "http"):
        if (source.kind == kind) != (getattr(source, kind) is not None):
            yield rule_broken(f"`{kind}` goes with kind: {kind}, and only with it", kind)
    if source.delivery == "full" and source.sql and source.sql.watermark:
        text = "delivery: full takes every pull for the whole history; with a watermark it is not"
        yield rule_broken(text, "delivery")


def _database_problems(sql: SqlSpec) -> Iterator[InitErrorDetails]:
    """One database, and no password in the YAML; the URL itself is kept out of the messages."""
    if (sql.url is None) == (sql.url_env is None):
        yield rule_broken("one of `url` and `url_env` is needed, and only one", "url")
    if sql.url is None:
        return
    scheme = sql.url.partition("://")[0]
    if scheme not in DATABASES or "://" not in sql.url:
        yield rule_broken(
            f"the URL does not start with one of {', '.join(DATABASES)}, and ://", "url"
        )
    if _has_password(sql.url):
        text = "the URL has a password, which would be shown and stored; use `url_env`, or leave "
        yield rule_broken(f"{text}the password to ~/.pgpass or PGPASSWORD", "url")


def _has_password(url: str) -> bool:
    """Whether there is one, also where it was not percent-encoded and splits the URL wrongly."""
    scheme, _, rest = url.partition("://")
    user, at, _ = rest.rpartition("@")
    named = {name.lower() for name, _ in parse_qsl(rest.partition("?")[2], keep_blank_values=True)}
    is_file = scheme in ("duckdb", "sqlite")
    return bool(at and ":" in user and not is_file) or any("password" in name for name in named)


def landing_name(url: str) -> str:
    """The name under which the file behind a web address lands; "" when the address gives none."""
    parts = urlsplit(url)
    return unquote(parts.fragment or parts.path.rpartition("/")[2])


def _address_problems(http: HttpSpec) -> Iterator[InitErrorDetails]:
    """Web addresses without credentials, and each with a landing name of its own."""
    for place, url in enumerate(http.urls):
        if text := _address_problem(url):
            yield rule_broken(text, "urls", place)
    names = ["" if _address_problem(url) else landing_name(url) for url in http.urls]
    for name in filter(None, repeats(names)):
        last = len(names) - 1 - names[::-1].index(name)
        text = f"more than one file lands as {name!r}; end the address with a # and another name"
        yield rule_broken(text, "urls", last)


def _address_problem(url: str) -> str:
    if not ADDRESS.fullmatch(url):
        return "it is not an address such as https://example.org/prices.csv"
    if "@" in urlsplit(url).netloc:
        return "it has a user or password, which would be shown and stored; use `header_env`"
    name = landing_name(url)
    if not name or name.startswith((".", "_")) or "/" in name or "\\" in name:
        return f"{name!r} can be no name of a landed file; end the address with a # and a name"
    return ""
