"""The typed, strict description of one product: what `defs.yaml` says, checked.

The bottom layer: it knows neither Dagster nor MLflow nor files. A `ProductSpec` is complete and
consistent once it exists; `for_country` resolves the overrides of one country. Rules that concern
several sections stand at the end, one function each, and all broken ones are reported together.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

Task = Literal["regression", "classification"]
Metric = Literal["mae", "rmse", "auc", "log_loss", "brier"]
Scope = Literal["local", "pooled"]

METRICS_OF_TASK: Mapping[str, tuple[str, ...]] = {
    "regression": ("mae", "rmse"),
    "classification": ("auc", "log_loss", "brier"),
}
GREATER_IS_BETTER: frozenset[str] = frozenset({"auc"})
DATABASES: tuple[str, ...] = ("duckdb", "sqlite", "postgresql", "postgresql+psycopg2")
"""Schemes of the URLs of databases that can be asked."""
FEATURE_KEYS: tuple[str, ...] = ("entity", "event_time", "label_time", "label")
"""Columns every features frame has beside its features."""

NAME = re.compile(r"[a-z][a-z0-9_]*")
REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
DURATION = re.compile(r"(\d+)(h|d|w)")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
ADDRESS = re.compile(r"https?://[^\s/?#\[\]]+[^\s\x00-\x1f\x7f]*")
HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
OWNER = re.compile(r"team:\S+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}")
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")

CRON_FIELD = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/([1-9]\d?))?")
CRON_LIMITS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    (
        "month",
        1,
        12,
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    ),
    ("day of week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
"""Name, least and greatest number and names of each of the five fields of a cron expression."""


def _matching(pattern: re.Pattern[str], expected: str, value: str) -> str:
    if not pattern.fullmatch(value):
        raise ValueError(f"{value!r} is not {expected}")
    return value


def _text_like(pattern: re.Pattern[str], expected: str) -> tuple[AfterValidator, Any]:
    """Validator and JSON schema (for `dg check yaml` and editors) of a text with a pattern."""
    return (
        AfterValidator(partial(_matching, pattern, expected)),
        Field(json_schema_extra={"pattern": f"^(?:{pattern.pattern})$"}),
    )


def _iso_date(value: Any) -> Any:
    """YAML gives a date or, quoted, a text; both are fine, a date with a time is not."""
    if type(value) is dt.date:
        return value
    if not isinstance(value, str) or not ISO_DATE.fullmatch(value):
        raise ValueError(f"{value!r} is not a date such as 2025-01-01")
    try:
        return dt.date.fromisoformat(value)
    except ValueError as error:
        raise ValueError(f"{value!r} is not a day of the calendar: {error}") from error


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(
            f"{value} is a boolean, not a country: YAML 1.1 reads unquoted NO (Norway) as false "
            'and ON or YES as true; quote it: "NO"'
        )
    return value


def _partition_key(value: str) -> str:
    """What Dagster takes as a partition key and a person can tell from another one."""
    if not value.strip() or value != value.strip():
        raise ValueError(f"{value!r} is empty or has blanks around it; a country is a plain text")
    if CONTROL.search(value) or "..." in value:
        raise ValueError(f"{value!r} has control characters or `...`, which no partition may have")
    return value


def _cron(value: str) -> str:
    fields = value.lower().split()
    if len(fields) != len(CRON_LIMITS):
        raise ValueError(
            f"{value!r} has {len(fields)} fields; cron has 5: minute hour day month weekday, "
            "such as 0 4 * * 1 (Mondays at 04:00 UTC)"
        )
    for field, (name, low, high, names) in zip(fields, CRON_LIMITS, strict=True):
        if not all(_is_cron_part(part, low, high, names) for part in field.split(",")):
            raise ValueError(f"{field!r} in {value!r} is not a {name} ({low} to {high})")
    if fields[3] in ("2", "feb") and fields[2] in ("30", "31", "30,31"):
        raise ValueError(f"{value!r} never comes: February has no such day")
    return value


def _is_cron_part(part: str, low: int, high: int, names: tuple[str, ...]) -> bool:
    match = CRON_FIELD.fullmatch(part)
    if not match:
        return False
    ends = [
        names.index(end) + low if end in names else int(end) if end.isdecimal() else -1
        for end in match.groups()[:2]
        if end is not None
    ]
    return all(low <= end <= high for end in ends) and ends == sorted(ends)


def duration(text: str) -> dt.timedelta:
    """A duration such as 12h, 1d or 2w."""
    number, unit = DURATION.fullmatch(text).groups()  # type: ignore[union-attr]
    return dt.timedelta(hours=int(number) * {"h": 1, "d": 24, "w": 168}[unit])


Share = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, *_text_like(NAME, "a lower-case name such as gbm")]
Reference = Annotated[
    str, *_text_like(REFERENCE, "an import path of at least two parts such as features.build")
]
Duration = Annotated[str, *_text_like(DURATION, "a number and h, d or w, such as 12h, 1d or 2w")]
Variable = Annotated[
    str, *_text_like(VARIABLE, "a name of an environment variable such as WAREHOUSE_URL")
]
Header = Annotated[str, *_text_like(HEADER, "a name of an HTTP header such as X-Api-Key")]
Owner = Annotated[str, *_text_like(OWNER, "an e-mail address or team:name such as team:energy")]
Day = Annotated[
    dt.date,
    BeforeValidator(_iso_date),
    WithJsonSchema({"type": "string", "format": "date", "pattern": f"^{ISO_DATE.pattern}$"}),
]
Country = Annotated[
    str,
    BeforeValidator(_no_boolean),
    AfterValidator(_partition_key),
    WithJsonSchema({"type": "string", "minLength": 1}),
]
Cron = Annotated[str, AfterValidator(_cron)]
Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    """Unknown keys refused, no silent conversions (`"5"` is not 5, `1` is not true), immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _problem(text: str, *loc: str | int, found: Any = None) -> InitErrorDetails:
    """One broken rule at the key that `loc` leads to."""
    error = PydanticCustomError("rule", "{problem}", {"problem": text})
    return InitErrorDetails(type=error, loc=loc, input=found)


def _refuse(title: str, problems: Iterable[InitErrorDetails]) -> None:
    """Raise all problems as one error, if there are any."""
    found = list(problems)
    if found:
        raise ValidationError.from_exception_data(title, found)


class ContractSpec(_Strict):
    """Where the table's contract is and how much may break it."""

    schema_class: Reference = Field(
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

    @model_validator(mode="after")
    def _order(self) -> ContractSpec:
        if self.min_volume_ratio > self.max_volume_ratio:
            text = f"min_volume_ratio {self.min_volume_ratio} is above max_volume_ratio"
            _refuse("ContractSpec", [_problem(text, "min_volume_ratio")])
        return self

    @property
    def oldest(self) -> dt.timedelta | None:
        """How old the newest event may be."""
        return None if self.max_age is None else duration(self.max_age)


class SqlSpec(_Strict):
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
        _refuse("SqlSpec", _database_problems(self))
        return self


class HttpSpec(_Strict):
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
        _refuse("HttpSpec", _address_problems(self))
        return self


class SourceSpec(_Strict):
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
    columns: dict[Text, Text] = Field(
        description="contract column: column as published; only these are validated and used",
        examples=[{"price": "Price (EUR/MWhe)"}],
        min_length=1,
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

    @model_validator(mode="after")
    def _columns(self) -> SourceSpec:
        _refuse("SourceSpec", _source_problems(self))
        return self


class TargetSpec(_Strict):
    """What is predicted and when the truth is known."""

    description: Text = Field(
        description="one sentence: what the label is, with its unit",
        examples=["day-ahead price of the next day, in EUR/MWh"],
    )
    unit: Text = Field(description="unit of label and error", examples=["EUR/MWh"])
    matures_after: Duration = Field(
        description="label maturity: time from the event until the label is known, in hours (h), "
        "days (d) or weeks (w); used for rows to which the feature function gives no label_time",
        examples=["1d"],
    )

    @property
    def maturity(self) -> dt.timedelta:
        """Label maturity as a duration."""
        return duration(self.matures_after)


class SplitSpec(_Strict):
    """Time-ordered split: train, then validation, then a holdout that no candidate sees."""

    train_from: Day | None = Field(
        default=None,
        description="first event date used for training; default: all history",
        examples=["2019-01-01"],
    )
    holdout_from: Day = Field(
        description="first event date of the holdout; rows whose label matures later than this "
        "are never trained on",
        examples=["2025-01-01"],
    )
    validation_days: int = Field(
        default=90,
        ge=1,
        le=36500,
        description="days before the holdout used to choose between candidates",
        examples=[90],
    )
    min_train_rows: int = Field(
        default=500,
        ge=1,
        description="fewest rows for a local model; below it the pooled model serves",
        examples=[500],
    )
    min_holdout_rows: int = Field(
        default=30,
        ge=1,
        description="fewest holdout rows to judge a country on its own; below it the pooled "
        "model's holdout is used and the report says so",
        examples=[30],
    )

    @model_validator(mode="after")
    def _order(self) -> SplitSpec:
        if self.holdout_from.toordinal() <= self.validation_days:
            text = f"{self.validation_days} days before {self.holdout_from} is before all dates"
            _refuse("SplitSpec", [_problem(text, "validation_days")])
        if self.train_from and self.train_from >= self.validation_from:
            text = (
                f"holdout_from {self.holdout_from} less validation_days {self.validation_days} "
                f"leaves no history to train on after train_from {self.train_from}"
            )
            _refuse("SplitSpec", [_problem(text, "holdout_from")])
        return self

    @property
    def validation_from(self) -> dt.date:
        """First event date of the validation window."""
        return self.holdout_from - dt.timedelta(days=self.validation_days)


class CandidateSpec(_Strict):
    """One estimator that may become a country's model."""

    name: Name = Field(description="short name, unique in the product", examples=["gbm"])
    estimator: Reference = Field(
        description="import path of a scikit-learn estimator class",
        examples=["sklearn.ensemble.HistGradientBoostingRegressor"],
    )
    params: dict[str, bool | int | float | str | None] = Field(
        default={}, description="its constructor parameters", examples=[{"max_iter": 200}]
    )
    scopes: list[Scope] = Field(
        default=["local", "pooled"],
        min_length=1,
        description="local: trained on the country's rows; pooled: on all countries together",
        examples=[["local", "pooled"]],
    )
    offset: Text | None = Field(
        default=None,
        description="regression only: a feature subtracted from the label before fitting and "
        "added to the prediction, so that the model learns the change from it; default: none",
        examples=["price_lag_0"],
    )

    @field_validator("scopes")
    @classmethod
    def _scopes_once(cls, value: list[Scope]) -> list[Scope]:
        for scope in _repeated(value):
            raise ValueError(f"{scope} is listed more than once")
        return value


class BaselineSpec(_Strict):
    """A naive rule every model must beat."""

    name: Name = Field(
        description="short name, unique among baselines and candidates", examples=["same_as_today"]
    )
    rule: Literal["feature", "mean"] = Field(
        description="feature: the value of a feature; mean: the mean label of the training rows "
        "(for classification the prior)",
        examples=["mean"],
    )
    feature: Text | None = Field(
        default=None,
        description="for rule feature, and only for it: the feature's name",
        examples=["price_lag_0"],
    )

    @model_validator(mode="after")
    def _feature_given(self) -> BaselineSpec:
        if (self.rule == "feature") != (self.feature is not None):
            text = "`feature` goes with rule: feature, and only with it"
            _refuse("BaselineSpec", [_problem(text, "feature", found=self.feature)])
        return self


class GatesSpec(_Strict):
    """Limits a candidate must keep to become champion; each is a blocking check."""

    min_improvement: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="by which share the candidate's error must be under the best baseline's "
        "(for auc: by how much above it); 0: any improvement",
        examples=[0.02],
    )
    floor: float | None = Field(
        default=None,
        description="absolute limit of the metric: at most for errors, at least for auc; "
        "default: none",
        examples=[30.0],
    )
    max_predict_seconds: float = Field(
        default=1.0,
        gt=0.0,
        description="longest time to load the model and predict 100 rows, in seconds",
        examples=[1.0],
    )


class PredictionsSpec(_Strict):
    """What a valid prediction is."""

    minimum: float = Field(
        description="smallest valid prediction, in the target's unit (classification: at least 0)",
        examples=[-500.0],
    )
    maximum: float = Field(
        description="largest valid prediction, in the target's unit (classification: at most 1)",
        examples=[4000.0],
    )
    interval: float = Field(
        default=0.8,
        gt=0.0,
        lt=1.0,
        description="nominal coverage of the prediction interval, a share between 0 and 1",
        examples=[0.8],
    )

    @model_validator(mode="after")
    def _order(self) -> PredictionsSpec:
        if self.minimum >= self.maximum:
            text = f"minimum {self.minimum} is not below maximum {self.maximum}"
            _refuse("PredictionsSpec", [_problem(text, "minimum", found=self.minimum)])
        return self


class RetentionSpec(_Strict):
    """How long old snapshots are kept that nothing else needs."""

    as_of_days: int = Field(
        default=90,
        ge=1,
        le=36500,
        description="days back for which every snapshot is kept, so that any moment since then "
        "can be looked at",
        examples=[90],
    )


OVERRIDABLE: frozenset[str] = frozenset(
    {"contract", "split", "candidates", "gates", "predictions", "metric", "seed"}
)
"""Sections a country may change; the others define the product itself."""


class ProductSpec(_Strict):
    """One prediction problem in many countries."""

    description: Text = Field(
        description="what is predicted, for whom, when",
        examples=["Next-day electricity price for the trading desk, every morning"],
    )
    owners: list[Owner] = Field(
        min_length=1,
        description="e-mail addresses, or teams as team:name",
        examples=[["team:energy"]],
    )
    countries: list[Country] = Field(
        min_length=1,
        description="partition keys, normally ISO 3166-1 alpha-3 codes",
        examples=[["DEU", "FRA"]],
    )
    aliases: dict[Country, Country] = Field(
        default={},
        description="value found in the data: listed country it stands for",
        examples=[{"CN": "CHN"}],
    )
    source: SourceSpec = Field(
        description="what is published and what its columns mean",
        examples=[
            {
                "columns": {"country": "ISO3 Code", "date": "Date", "price": "Price (EUR/MWhe)"},
                "country": "country",
                "key": ["country", "date"],
                "event_time": "date",
            }
        ],
    )
    contract: ContractSpec = Field(
        description="the table's contract and how much may break it",
        examples=[{"schema_class": "contract.PowerPrice", "max_rejected_share": 0.05}],
    )
    features: Reference = Field(
        description="pure feature function in the product's folder, as module.function",
        examples=["features.build"],
    )
    task: Task = Field(
        description="regression: a number; classification: the probability of a yes",
        examples=["regression"],
    )
    target: TargetSpec = Field(
        description="what is predicted and when the truth is known",
        examples=[{"description": "price of tomorrow", "unit": "EUR/MWh", "matures_after": "1d"}],
    )
    metric: Metric = Field(
        description="what candidates are compared by: mae or rmse for regression; auc, log_loss "
        "or brier for classification (lower is better, but for auc)",
        examples=["mae"],
    )
    split: SplitSpec = Field(
        description="time-ordered split into training, validation and holdout",
        examples=[{"holdout_from": "2025-01-01", "validation_days": 90}],
    )
    baselines: list[BaselineSpec] = Field(
        min_length=1,
        description="naive rules; the first one serves when no model can",
        examples=[[{"name": "same_as_today", "rule": "feature", "feature": "price_lag_0"}]],
    )
    candidates: list[CandidateSpec] = Field(
        min_length=1,
        description="estimators of which the best by validation becomes the candidate",
        examples=[[{"name": "ridge", "estimator": "sklearn.linear_model.Ridge"}]],
    )
    gates: GatesSpec = Field(
        default=GatesSpec(),
        description="limits a candidate must keep to become champion",
        examples=[{"min_improvement": 0.02}],
    )
    predictions: PredictionsSpec = Field(
        description="what a valid prediction is", examples=[{"minimum": -500, "maximum": 4000}]
    )
    seed: int = Field(
        default=0, ge=0, le=2**32 - 1, description="seed of everything random", examples=[0]
    )
    retrain_cron: Cron | None = Field(
        default=None,
        description="cron of the periodic retraining schedule (UTC); default: none",
        examples=["0 4 * * 1"],
    )
    retention: RetentionSpec = Field(
        default=RetentionSpec(),
        description="how long snapshots are kept that no model, decision or newer snapshot needs; "
        "they go only when a person runs the command",
        examples=[{"as_of_days": 90}],
    )
    sample: Reference | None = Field(
        default=None,
        description="seeded generator of demonstration data, as module.function; default: none",
        examples=["sample.generate"],
    )
    overrides: dict[Country, dict[str, Any]] = Field(
        default={},
        description="values that differ in one country: " + ", ".join(sorted(OVERRIDABLE)),
        examples=[{"MNE": {"split": {"min_train_rows": 200}}}],
    )

    @model_validator(mode="wrap")
    @classmethod
    def _complete(cls, data: Any, handler: ModelWrapValidatorHandler[ProductSpec]) -> ProductSpec:
        """Report what is wrong in single fields and between them in one go."""
        try:
            spec, found = handler(data), []
        except ValidationError as error:
            found = [_again(details) for details in error.errors()]
            spec = cls._sound_part(data, {str(p["loc"][0]) for p in error.errors() if p["loc"]})
        found += _broken_rules(spec)
        _refuse(cls.__name__, [*found, *_broken_overrides(spec, found)])
        return spec

    @classmethod
    def _sound_part(cls, data: Any, refused: set[str]) -> ProductSpec:
        """The sections that are valid by themselves, to judge rules between those."""
        given = data if isinstance(data, Mapping) else {}
        sound = {
            name: TypeAdapter(field.rebuild_annotation()).validate_python(given[name])
            for name, field in cls.model_fields.items()
            if name in given and name not in refused
        }
        return cls.model_construct(**sound)

    def for_country(self, country: str) -> ProductSpec:
        """The spec with this country's overrides merged in (sections merged key by key)."""
        if country not in self.overrides:
            return self
        merged = self.model_dump(exclude={"overrides"})
        for section, change in self.overrides[country].items():
            merged[section] = _merged(merged.get(section), change)
        return ProductSpec.model_validate(merged)

    def config_hash(self, *sections: str) -> str:
        """12 hex digits over the named sections (default: all) as canonical JSON.

        Args:
            sections: such as `split`, or one key of a section such as `source.columns`.
        """
        content: Any = self.model_dump(mode="json")
        if sections:
            content = {name: _at(content, name.split(".")) for name in sections}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


Rule = Callable[[ProductSpec], Iterator[InitErrorDetails]]
_RULES: list[tuple[frozenset[str], Rule]] = []


def _rule(*sections: str) -> Callable[[Rule], Rule]:
    """Register a rule between sections; it is judged once all of them are valid."""

    def register(rule: Rule) -> Rule:
        _RULES.append((frozenset(sections), rule))
        return rule

    return register


def _broken_rules(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    for sections, rule in _RULES:
        if sections <= vars(spec).keys():
            yield from rule(spec)


def _again(details: Any, *prefix: str) -> InitErrorDetails:
    """An error of one validation as part of another one, below `prefix`."""
    known: dict[str, Any] = {"input": details["input"], "loc": (*prefix, *details["loc"])}
    if details["type"] == "rule":
        return _problem(details["ctx"]["problem"], *known["loc"], found=known["input"])
    return InitErrorDetails(type=details["type"], ctx=details.get("ctx", {}), **known)


def _at(content: Any, keys: Iterable[str]) -> Any:
    for key in keys:
        content = content[key]
    return content


def _merged(base: Any, change: Any) -> Any:
    """A table changed key by key; anything else is replaced."""
    tables = isinstance(base, dict) and isinstance(change, dict)
    return {**base, **change} if tables else change


def _repeated(values: Iterable[str]) -> list[str]:
    return [value for value, times in Counter(values).items() if times > 1]


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
            yield _problem(f"{column!r} is not a key of source.columns ({', '.join(known)})", *loc)
    for column in _repeated(source.key):
        yield _problem(f"{column!r} is listed more than once", "key")
    for column in {source.country, source.event_time} & set(source.known_later):
        yield _problem(f"{column!r} is known with the record, not later", "known_later")
    for place, column in enumerate(source.derived):
        if column in source.columns:
            yield _problem(f"{column!r} is published, so it is not derived", "derived", place)
    for published in _repeated(source.columns.values()):
        last = [name for name, value in source.columns.items() if value == published][-1]
        text = f"published column {published!r} is given to more than one contract column"
        yield _problem(text, "columns", last)
    yield from _kind_problems(source)


def _kind_problems(source: SourceSpec) -> Iterator[InitErrorDetails]:
    """A kind has its own section and no other, and a watermark gives increments."""
    for kind in ("sql", "http"):
        if (source.kind == kind) != (getattr(source, kind) is not None):
            yield _problem(f"`{kind}` goes with kind: {kind}, and only with it", kind)
    if source.delivery == "full" and source.sql and source.sql.watermark:
        text = "delivery: full takes every pull for the whole history; with a watermark it is not"
        yield _problem(text, "delivery")


def _database_problems(sql: SqlSpec) -> Iterator[InitErrorDetails]:
    """One database, and no password in the YAML; the URL itself is kept out of the messages."""
    if (sql.url is None) == (sql.url_env is None):
        yield _problem("one of `url` and `url_env` is needed, and only one", "url")
    if sql.url is None:
        return
    scheme = sql.url.partition("://")[0]
    if scheme not in DATABASES or "://" not in sql.url:
        yield _problem(f"the URL does not start with one of {', '.join(DATABASES)}, and ://", "url")
    if _has_password(sql.url):
        text = "the URL has a password, which would be shown and stored; use `url_env`, or leave "
        yield _problem(f"{text}the password to ~/.pgpass or PGPASSWORD", "url")


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
            yield _problem(text, "urls", place)
    names = ["" if _address_problem(url) else landing_name(url) for url in http.urls]
    for name in filter(None, _repeated(names)):
        last = len(names) - 1 - names[::-1].index(name)
        text = f"more than one file lands as {name!r}; end the address with a # and another name"
        yield _problem(text, "urls", last)


def _address_problem(url: str) -> str:
    if not ADDRESS.fullmatch(url):
        return "it is not an address such as https://example.org/prices.csv"
    if "@" in urlsplit(url).netloc:
        return "it has a user or password, which would be shown and stored; use `header_env`"
    name = landing_name(url)
    if not name or name.startswith((".", "_")) or "/" in name or "\\" in name:
        return f"{name!r} can be no name of a landed file; end the address with a # and a name"
    return ""


@_rule("countries")
def _countries_once(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    for country in _repeated(spec.countries):
        last = len(spec.countries) - 1 - spec.countries[::-1].index(country)
        yield _problem(f"{country!r} is listed more than once", "countries", last)


@_rule("countries", "aliases")
def _aliases_lead_to_countries(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    for alias, country in spec.aliases.items():
        if country not in spec.countries:
            yield _problem(
                f"alias {alias!r} stands for {country!r}, which is not a listed country",
                "aliases",
                alias,
                found=country,
            )
        if alias in spec.countries:
            yield _problem(
                f"{alias!r} is a listed country itself, so it cannot be an alias", "aliases", alias
            )


@_rule("source", "contract")
def _null_limits_of_columns(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    known = [*spec.source.columns, *spec.source.derived]
    for column in spec.contract.max_null_share:
        if column not in known:
            text = f"{column!r} is not a contract column ({', '.join(known)})"
            yield _problem(text, "contract", "max_null_share", column)


@_rule("task", "metric")
def _metric_of_the_task(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    allowed = METRICS_OF_TASK[spec.task]
    if spec.metric not in allowed:
        yield _problem(
            f"{spec.metric} is not a metric of {spec.task}; its metrics are " + ", ".join(allowed),
            "metric",
            found=spec.metric,
        )


@_rule("metric", "gates")
def _floor_of_the_metric(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    floor = spec.gates.floor
    if floor is None:
        return
    if floor < 0 or (spec.metric in ("auc", "brier") and floor > 1):
        limits = "between 0 and 1" if spec.metric in ("auc", "brier") else "not negative"
        yield _problem(
            f"{spec.metric} is always {limits}, so the floor {floor} says nothing",
            "gates",
            "floor",
            found=floor,
        )


@_rule("baselines", "candidates")
def _names_once(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    """Baselines and candidates stand in one table of results, under their names."""
    named = [("baselines", i, item.name) for i, item in enumerate(spec.baselines)]
    named += [("candidates", i, item.name) for i, item in enumerate(spec.candidates)]
    for repeated in _repeated(name for *_, name in named):
        section, place, _ = [entry for entry in named if entry[2] == repeated][-1]
        text = f"the name {repeated!r} is given to more than one baseline or candidate"
        yield _problem(text, section, place, "name", found=repeated)


@_rule("task", "candidates")
def _offset_in_regression(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    for place, candidate in enumerate(spec.candidates):
        if candidate.offset and spec.task != "regression":
            yield _problem(
                "an offset is for regression only",
                "candidates",
                place,
                "offset",
                found=candidate.offset,
            )


@_rule("task", "predictions")
def _probabilities(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    for key in ("minimum", "maximum"):
        value = getattr(spec.predictions, key)
        if spec.task == "classification" and not 0 <= value <= 1:
            yield _problem(
                f"{value} is no probability; classification predicts 0 to 1",
                "predictions",
                key,
                found=value,
            )


@_rule("countries", "overrides")
def _overrides_of_countries(spec: ProductSpec) -> Iterator[InitErrorDetails]:
    for country, changes in spec.overrides.items():
        if country not in spec.countries:
            yield _problem(f"{country!r} is not a listed country", "overrides", country)
        contract = changes.get("contract")
        if isinstance(contract, dict) and "schema_class" in contract:
            text = "one table has one contract; a country may change its limits only"
            yield _problem(text, "overrides", country, "contract", "schema_class")
        for section in sorted(changes.keys() - OVERRIDABLE):
            allowed = ", ".join(sorted(OVERRIDABLE))
            yield _problem(
                f"{section!r} cannot differ in one country; what can: {allowed}",
                "overrides",
                country,
                section,
            )


def _broken_overrides(
    spec: ProductSpec, known: Iterable[InitErrorDetails]
) -> Iterator[InitErrorDetails]:
    """Every country's resolved spec is as valid as the product's; what is `known` is told once."""
    told = {(problem.get("loc"), str(problem["type"])) for problem in known}
    for country, changes in getattr(spec, "overrides", {}).items():
        if country not in getattr(spec, "countries", ()) or not changes.keys() <= OVERRIDABLE:
            continue
        try:
            spec.for_country(country)
        except ValidationError as error:
            for details in error.errors():
                section_is_refused = details["type"] == "missing" and len(details["loc"]) == 1
                if not section_is_refused and (details["loc"], details["msg"]) not in told:
                    yield _again(details, "overrides", country)
