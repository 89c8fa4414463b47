"""Published columns as those of the contract: under one name each, countries as listed, typed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlops_assets.ml.datasets.coercion import (
    ColumnKind,
    is_no_day,
    of_the_clock,
    typed,
)
from mlops_assets.ml.datasets.local_time import UtcTimes, as_utc
from mlops_assets.ml.datasets.notation import Notation, whole_as_such
from mlops_assets.spec import CountryNames, SourceSpec

INFINITE_RULE = "infinite:"
"""Start of the rule that a number is finite; the name of its column follows."""


_FRACTION = r"-?[0-9]+\.[0-9]*[1-9][0-9]*"


@dataclass(frozen=True)
class TypedColumn:
    """One column as its contract wants it.

    Attributes:
        values: of the kind; a filler or missing where something is wrong.
        rules: broken rule: where, shape (rows,).
        untyped: where values stand that were not published, so that no other rule speaks of them.
        remarks: what was read otherwise than it is written, in words.
    """

    values: pd.Series
    rules: dict[str, np.ndarray]
    untyped: np.ndarray
    remarks: tuple[str, ...] = ()


def published_columns(raw: pd.DataFrame, source: SourceSpec, names: CountryNames) -> pd.DataFrame:
    """The contract's columns as published, each under one name, and countries as listed.

    A column that is in no file is left out, an optional one is empty.
    """
    present: dict[str, pd.Series] = {}
    for name in source.columns:
        found = [raw[each] for each in source.published(name) if each in raw.columns]
        if found:
            present[name] = _in_one(found)
        elif name in source.optional:
            present[name] = pd.Series(None, index=raw.index, dtype="object")
    frame = pd.DataFrame(present, index=raw.index, copy=False)
    if source.country in frame:
        frame[source.country] = _as_listed(frame[source.country], names)
    return frame


def typed_column(
    published: pd.DataFrame,
    name: str,
    kind: ColumnKind,
    source: SourceSpec,
    *,
    nullable: bool,
    raw: pd.DataFrame,
) -> TypedColumn:
    """A column of `published_columns` as a kind; whatever the values are, nothing is raised.

    Args:
        published: as `published_columns` gave it.
        name: of the contract column.
        kind: of the contract column.
        source: how values are written, and the key.
        nullable: whether the contract lets values be missing.
        raw: rows of the same index, with `_source_file` and `_source_line` where known.
    """
    found = typed(published[name], kind, Notation.of(source, name), nullable=nullable)
    missing, endless = found.unfilled & ~found.wrong, _infinite(published[name], found.wrong)
    rules = {
        f"type:{name}": found.wrong & ~endless,
        f"{INFINITE_RULE}{name}": endless,
        f"{name}: not_nullable": missing,
    }
    column = TypedColumn(found.values, rules, found.wrong | found.unfilled)
    if kind == "text" and name != source.country:
        return _with_whole_numbers(column, name, source)
    if kind == "time":
        column = _with_days_told(column, published[name], name)
    if kind == "time" and source.time_zone is not None:
        return _in_utc(column, published, name, source, raw=raw)
    return column


def _in_one(columns: list[pd.Series]) -> pd.Series:
    """What is published under several names; no file has more than one of them."""
    first, *others = columns
    for other in others:
        if first.dtype != other.dtype:
            first, other = first.astype("object"), other.astype("object")
        first = first.where(first.notna(), other)
    return first


def _as_listed(published: pd.Series, names: CountryNames) -> pd.Series:
    """Values that stand for a listed country as that one, others as they are."""
    values = published.astype("object")
    try:
        codes, found = pd.factorize(values)
    except TypeError:  # lists and tables of JSON lines, which nobody lists
        return values.map(lambda one: names.resolve(one) or one, na_action="ignore")
    listed = [names.resolve(value) or value for value in found]
    if all(isinstance(a, str) and a == b for a, b in zip(listed, found, strict=True)):
        return published
    resolved = np.array([*listed, None], dtype="object")[codes]  # -1 is missing
    return pd.Series(resolved, index=published.index, dtype="object")


def _infinite(published: pd.Series, wrong: np.ndarray) -> np.ndarray:
    """Which of the values that are not of their type are infinite numbers."""
    found = np.zeros(len(published), bool)
    if wrong.any():
        found[wrong] = [_is_infinite(str(value)) for value in published[wrong]]
    return found


def _is_infinite(text: str) -> bool:
    try:
        return math.isinf(float(text))
    except ValueError:  # no number at all
        return False


def _with_days_told(column: TypedColumn, published: pd.Series, name: str) -> TypedColumn:
    """A year or a month alone is told as that, and not as a value that is no time at all."""
    wrong = column.rules[f"type:{name}"]
    found = wrong.copy()
    found[wrong] = [is_no_day(value) for value in published[wrong]]
    told = {f"type:{name}": wrong & ~found, no_day_rule(name): found}
    return TypedColumn(column.values, {**column.rules, **told}, column.untyped)


def no_day_rule(name: str) -> str:
    """The rule that a year or a month alone breaks."""
    return f"{name}: year_or_month_without_day"


def _with_whole_numbers(column: TypedColumn, name: str, source: SourceSpec) -> TypedColumn:
    """One normal form of whole numbers in text: 1802.0 is 1802.

    In a key always; elsewhere where no number with a fraction stands, so that no version `1.0`
    beside `1.1` is touched. Any other text beside them changes nothing.
    """
    text = column.values
    written, changed = whole_as_such(text)
    if not changed.any():
        return column
    if name not in source.key and written.dropna().str.fullmatch(_FRACTION).any():
        return column
    place = int(np.flatnonzero(changed)[0])
    told = f"{int(changed.sum()):,} values of {name} written as {text.iloc[place]} are "
    return TypedColumn(
        written, column.rules, column.untyped, (f"{told}{written.iloc[place]}, and so on",)
    )


def _in_utc(
    column: TypedColumn,
    published: pd.DataFrame,
    name: str,
    source: SourceSpec,
    *,
    raw: pd.DataFrame,
) -> TypedColumn:
    """Times of the clock in the declared zone as UTC."""
    zone, times = str(source.time_zone), column.values
    clock = of_the_clock(published[name], source.format_of(name)) & times.notna().to_numpy(bool)
    series = _series(published, name, source, raw) if name in source.key else None
    local = as_utc(times, clock, zone, series, positions=_orders_in_files(raw))
    told = {
        f"{name}: no_such_hour_in_{zone}": local.no_such_hour,
        f"{name}: hour_twice_in_{zone}": local.unclear,
    }
    unclear = local.no_such_hour | local.unclear
    return TypedColumn(
        local.values, {**column.rules, **told}, column.untyped | unclear, _first_taken(local, name)
    )


def _orders_in_files(raw: pd.DataFrame) -> list[np.ndarray]:
    """Order by line; and by version first, as lines of two versions of a file may not compare.

    Where two records that stand have one line of one file, lines do not compare for certain.
    """
    lines = raw["_source_line"].to_numpy() if "_source_line" in raw else np.arange(len(raw))
    if "_ingested_at" not in raw or raw["_ingested_at"].nunique() == 1:
        return [lines]
    by_version = np.empty(len(raw), "int64")
    by_version[np.lexsort([lines, raw["_ingested_at"].to_numpy()])] = np.arange(len(raw))
    files = raw["_source_file"].astype(str) if "_source_file" in raw else pd.Series("", raw.index)
    moved = pd.DataFrame({"file": files, "line": lines}).duplicated()
    return [np.where(files.isin(files[moved].unique()), by_version, lines), by_version]


def _series(published: pd.DataFrame, name: str, source: SourceSpec, raw: pd.DataFrame) -> pd.Series:
    """What tells records of one time apart: their file and the rest of the key."""
    rest = [published[each].astype(str) for each in source.key if each in published]
    parts = [each.reset_index(drop=True) for each in rest if each.name != name]
    if "_source_file" in raw:
        parts.append(raw["_source_file"].astype(str).reset_index(drop=True))
    if not parts:
        return pd.Series(0, index=published.index)
    codes = pd.MultiIndex.from_arrays(parts).factorize()[0]
    return pd.Series(codes, index=published.index)


def _first_taken(local: UtcTimes, name: str) -> tuple[str, ...]:
    count = int(local.first_of_two.sum())
    told = f"{count:,} times of {name} are in an hour that comes twice; the first one was taken"
    return (told,) if count else ()
