"""The rules of typing and deduplication as plainly as they can be said: a value at a time, slow."""

from __future__ import annotations

import datetime as dt
import numbers
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlops_assets.ml.datasets.coercion import TRUTH, ColumnKind


@dataclass(frozen=True)
class PlainColumn:
    """Values, and where something is wrong with them."""

    values: pd.Series
    wrong: np.ndarray


def plainly_coerced(values: pd.Series, kind: ColumnKind) -> PlainColumn:
    """Values of the kind, missing where there are none; and where something else stood."""
    if kind == "text":
        return PlainColumn(plain_text(values), np.zeros(len(values), bool))
    if kind == "time":
        result = _time(values)
    elif kind == "boolean":
        text = plain_text(values)
        truths = [None if one is None else TRUTH.get(one.strip().lower()) for one in text]
        result = pd.Series(truths, index=values.index, dtype="object")
    else:
        result = _number(values, whole=kind == "integer")
    return PlainColumn(result, (result.isna() & ~values.isna()).to_numpy(bool))


def plainly_filled(values: pd.Series, kind: ColumnKind, *, nullable: bool) -> PlainColumn:
    """What numpy integers and booleans cannot hold filled; and where that broke the contract."""
    empty = values.isna().to_numpy(bool)
    nowhere = np.zeros(len(values), bool)
    if kind == "integer" and (not nullable or not empty.any()):
        filled = [0 if missing else one for one, missing in zip(values, empty, strict=True)]
        return PlainColumn(pd.Series(filled, index=values.index, dtype="int64"), empty)
    if kind == "integer":
        return PlainColumn(values.astype("Int64"), nowhere)
    if kind == "boolean":
        truths = [value is not None and value == value and bool(value) for value in values]
        return PlainColumn(pd.Series(truths, index=values.index, dtype=bool), empty)
    return PlainColumn(values, nowhere)


def plain_text(values: pd.Series) -> pd.Series:
    texts = [
        None if missing else f"{value:.17g}" if isinstance(value, float) else str(value)
        for value, missing in zip(_each(values), values.isna(), strict=True)
    ]
    return pd.Series(texts, index=values.index, dtype="object")


def _each(values: pd.Series) -> list[Any]:
    native = isinstance(values.dtype, np.dtype) and values.dtype.kind in "biuf"
    return values.to_numpy().tolist() if native else list(values.astype("object"))


def _number(values: pd.Series, *, whole: bool) -> pd.Series:
    if whole:
        return _whole(values)
    if values.dtype.kind in "biuf" and isinstance(values.dtype, np.dtype):
        number = values.astype("float64")
    elif values.dtype.kind in "mM":
        number = pd.Series(np.nan, index=values.index)
    else:
        plain = values.astype("object").map(_number_or_text, na_action="ignore")
        number = pd.to_numeric(plain, errors="coerce").astype("float64")
    return number.where(np.isfinite(number))


def _whole(values: pd.Series) -> pd.Series:
    """Whole numbers of 64 bits, of what a float cannot tell apart those that are written out."""
    number = _number(values, whole=False)
    each = [
        None if missing else _exact(one, about)
        for one, about, missing in zip(_each(values), number, number.isna(), strict=True)
    ]
    return pd.Series(each, index=values.index, dtype="object")


def _exact(value: object, about: float) -> int | None:
    if abs(about) < 2**53:
        return int(about) if about == int(about) else None
    written = str(value).strip()
    if isinstance(value, float) or not re.fullmatch(r"[+-]?\d{1,30}(\.0*)?", written, re.ASCII):
        return None
    exact = int(written.partition(".")[0])
    return exact if abs(exact) < 2**63 else None


def _number_or_text(value: object) -> object:
    if isinstance(value, str):
        return value.strip()
    return float(value) if isinstance(value, numbers.Real) else str(value)


def _time(values: pd.Series) -> pd.Series:
    if values.dtype.kind != "M":
        plain = values.astype("object").map(_time_or_nothing, na_action="ignore")
        no_day = [isinstance(one, str) and _is_no_day(one) for one in plain]
        plain = plain.mask(np.array(no_day, bool))
        values = pd.to_datetime(plain, errors="coerce", utc=True, format="ISO8601")
    if values.dt.tz is not None:
        values = values.dt.tz_convert("UTC").dt.tz_localize(None)
    inside = (values >= pd.Timestamp.min) & (values <= pd.Timestamp.max)
    return values.where(inside).astype("datetime64[ns]")


def _is_no_day(text: str) -> bool:
    return re.fullmatch(r"\d{4}([-/]\d{1,2})?", text, re.ASCII) is not None


def _time_or_nothing(value: object) -> object:
    if isinstance(value, dt.date | np.datetime64):
        value = str(value)
    return value.strip() if isinstance(value, str) else ""
