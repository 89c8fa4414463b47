"""Types of the values in a product's YAML, and how a broken rule is told."""

from __future__ import annotations

import codecs
import datetime as dt
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from mlops_assets.quoting import escape

Task = Literal["regression", "classification"]
Metric = Literal["mae", "rmse", "auc", "log_loss", "brier"]
Scope = Literal["local", "region", "pooled"]

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
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, ends of lines and halves of characters."""
RESERVED = frozenset({"pooled", "shared", "ingestion"})
"""What stands for all countries where else a country is named."""
POOLED_PREFIX = "pooled-"
"""Of what stands for the country in the name of a pooled model."""
LONGEST_KEY = 240
"""Characters of an escaped key: file names have 255, tags of MLflow 250, with what is around it."""

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


def text_like(pattern: re.Pattern[str], expected: str) -> tuple[AfterValidator, Any]:
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
    if UNSEEN.search(value) or "..." in value:
        raise ValueError(f"{value!r} has control characters or `...`, which no partition may have")
    if value in RESERVED or value.startswith(POOLED_PREFIX):
        raise ValueError(f"{value!r} is what the platform calls something of all countries")
    if (length := len(escape(value, "%"))) > LONGEST_KEY:
        raise ValueError(
            f"{value[:40]!r}... takes {length} characters as a name of files and models, where "
            f"letters without accents and digits take one each and others three a byte; the most "
            f"is {LONGEST_KEY}. Give the country a code, and the published name under `aliases`"
        )
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


def _encoding(value: str) -> str:
    try:
        known = "text".encode(value).decode(value) == "text"
    except (LookupError, UnicodeError):
        known = False
    if not known:
        raise ValueError(f"{value!r} is no encoding of text that Python knows, such as cp1252")
    return codecs.lookup(value).name


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{value!r} is no time zone such as Europe/Berlin") from error
    return value


def _sign(value: str) -> str:
    if len(value) != 1 or value in '"\r\n' or not value.isascii():
        raise ValueError(f"{value!r} is not one sign between fields, such as ;")
    return value


def duration(text: str) -> dt.timedelta:
    """A duration such as 12h, 1d or 2w."""
    number, unit = DURATION.fullmatch(text).groups()  # type: ignore[union-attr]
    return dt.timedelta(hours=int(number) * {"h": 1, "d": 24, "w": 168}[unit])


Share = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, *text_like(NAME, "a lower-case name such as gbm")]
ImportPath = Annotated[
    str, *text_like(REFERENCE, "an import path of at least two parts such as features.build")
]
Duration = Annotated[str, *text_like(DURATION, "a number and h, d or w, such as 12h, 1d or 2w")]
Variable = Annotated[
    str, *text_like(VARIABLE, "a name of an environment variable such as WAREHOUSE_URL")
]
Header = Annotated[str, *text_like(HEADER, "a name of an HTTP header such as X-Api-Key")]
Owner = Annotated[str, *text_like(OWNER, "an e-mail address or team:name such as team:energy")]
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
Encoding = Annotated[str, AfterValidator(_encoding)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Sign = Annotated[str, AfterValidator(_sign), WithJsonSchema({"type": "string", "minLength": 1})]
Cron = Annotated[str, AfterValidator(_cron)]
Text = Annotated[str, Field(min_length=1)]


def added_later(default: Any, **constraints: Any) -> Any:
    """A field that an earlier release did not have.

    It is left out of a dump, and so of every hash, while it has its default: what an earlier
    release made is not made again for a key that says what held before.

    Args:
        default: what held before.
        constraints: of `pydantic.Field`, with a description and examples.
    """
    return Field(default=default, exclude_if=lambda value: value == default, **constraints)


class Strict(BaseModel):
    """Unknown keys refused, no silent conversions (`"5"` is not 5, `1` is not true), immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def rule_broken(text: str, *loc: str | int, found: Any = None) -> InitErrorDetails:
    """One broken rule at the key that `loc` leads to."""
    error = PydanticCustomError("rule", "{problem}", {"problem": text})
    return InitErrorDetails(type=error, loc=loc, input=found)


def refuse(title: str, problems: Iterable[InitErrorDetails]) -> None:
    """Raise all problems as one error, if there are any."""
    found = list(problems)
    if found:
        raise ValidationError.from_exception_data(title, found)


def repeats(values: Iterable[str]) -> list[str]:
    """Those that are there more than once."""
    return [value for value, times in Counter(values).items() if times > 1]
