"""Published values as the types of a contract.

The rules are about one value at a time. Columns whose values are all of one kind, as they nearly
always are, take a shorter way to the same result.
"""

from __future__ import annotations

import datetime as dt
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

ColumnKind = Literal["float", "integer", "boolean", "time", "text"]

TRUTH: Mapping[str, bool] = {"true": True, "false": False, "1": True, "0": False}

_SAME_TEXT_IF_EQUAL = ("empty", "integer", "floating", "boolean", "datetime64")
# At most 15 digits: such a number is the same whichever parser reads it.
_USUAL_NUMBER = r"-?(?:[0-9]{1,15}|[0-9]{1,9}\.[0-9]{1,6}|[0-9]{1,4}\.[0-9]{1,11})"


@dataclass(frozen=True)
class Typed:
    """A column as its contract wants it.

    Attributes:
        values: of the kind; missing where there were none, or a filler where the type has no
            missing value (0, False).
        wrong: where something stood that is not of the kind.
        unfilled: where a filler stands although the contract wants a value.
    """

    values: pd.Series
    wrong: np.ndarray
    unfilled: np.ndarray


def typed(published: pd.Series, kind: ColumnKind, *, nullable: bool) -> Typed:
    """A published column as a kind; whatever the values are, nothing is raised."""
    nowhere = np.zeros(len(published), bool)
    if kind == "text":
        return Typed(as_text(published), nowhere, nowhere)
    values = _coerced(published, kind)
    missing = values.isna().to_numpy(bool)
    if not missing.any():
        return Typed(_filled(values, kind), nowhere, nowhere)
    wrong = missing & published.notna().to_numpy(bool)
    if kind == "integer" and nullable:
        whole = pd.arrays.IntegerArray(values.fillna(0).to_numpy("int64"), missing)
        return Typed(pd.Series(whole, index=values.index), wrong, nowhere)
    unfilled = missing if kind in ("integer", "boolean") else nowhere
    return Typed(_filled(values, kind), wrong, unfilled)


def as_text(values: pd.Series) -> pd.Series:
    """Text with whole numbers written as such (agent 9.0 is "9"), None where missing."""
    if not isinstance(values.dtype, np.dtype):
        values = values.astype("object")
    kind = pd.api.types.infer_dtype(values, skipna=True)
    if kind == "string":
        missing = values.isna().to_numpy(bool)
        text = values.to_numpy(copy=bool(missing.any()))
        text[missing] = None
        return _series(text, values)
    codes, found = pd.factorize(values) if kind in _SAME_TEXT_IF_EQUAL else _each(values)
    written = [f"{one:.17g}" if isinstance(one, float) else str(one) for one in found]
    return _series(np.array([*written, None], dtype="object")[codes], values)  # -1 is missing


def _series(values: np.ndarray, like: pd.Series) -> pd.Series:
    return pd.Series(values, index=like.index, name=like.name, dtype=values.dtype)


def _each(values: pd.Series) -> tuple[np.ndarray, list[object]]:
    """Codes and values like a factorization, of values that are mixed or cannot be hashed."""
    codes = np.where(values.isna(), -1, np.arange(len(values)))
    return codes, values.tolist()


def _coerced(values: pd.Series, kind: ColumnKind) -> pd.Series:
    """Values of the kind, missing where there are none and where something else stands."""
    if kind == "time":
        return _as_time(values)
    if kind == "boolean":
        return _as_truth(values)
    return _as_number(values, whole=kind == "integer")


def _filled(values: pd.Series, kind: ColumnKind) -> pd.Series:
    """What is missing filled, for types of numpy that cannot say so."""
    if kind == "integer":
        return values.fillna(0).astype("int64")
    return values == True if kind == "boolean" else values  # noqa: E712 (missing is not true)


def _as_truth(values: pd.Series) -> pd.Series:
    if values.dtype == np.dtype(bool):
        return values
    codes, found = pd.factorize(as_text(values))
    truths = [TRUTH.get(text.strip().lower(), np.nan) for text in found]
    return _series(np.array([*truths, np.nan], dtype="object")[codes], values)


def _as_number(values: pd.Series, *, whole: bool) -> pd.Series:
    if values.dtype.kind in "biuf" and isinstance(values.dtype, np.dtype):
        number = values.astype("float64")
    elif values.dtype.kind in "mM":
        number = pd.Series(np.nan, index=values.index)
    else:
        number = _parsed(values.astype("object"))
    found = number.to_numpy()
    usable = np.isfinite(found)
    if whole:
        usable &= (found == np.floor(found)) & (np.abs(found) < 2**53)
    return number if usable.all() else number.where(usable)


def _parsed(values: pd.Series) -> pd.Series:
    """Objects as numbers, missing where they are none."""
    if pd.api.types.infer_dtype(values, skipna=True) != "string":
        return _parsed_each(values)
    try:
        text = values.astype("string[pyarrow]")
    except UnicodeEncodeError:  # half a surrogate pair, which Arrow's text cannot hold
        return _parsed_each(values)
    usual = text.str.fullmatch(_USUAL_NUMBER).to_numpy(bool, na_value=False)
    plain: Any = text.where(usual).astype("double[pyarrow]")
    number = pd.Series(plain.to_numpy("float64", na_value=np.nan), index=values.index)
    others = ~usual & text.notna().to_numpy(bool)
    if others.any():
        number[others] = _parsed_each(values[others])
    return number


def _parsed_each(values: pd.Series) -> pd.Series:
    plain = values.map(_number_or_text, na_action="ignore")
    return pd.to_numeric(plain, errors="coerce").astype("float64")


def _number_or_text(value: object) -> object:
    # Decimals, lists and dicts of JSON lines would make pandas raise instead of give up.
    if isinstance(value, str):
        return value.strip()
    return float(value) if isinstance(value, numbers.Real) else str(value)


def _as_time(values: pd.Series) -> pd.Series:
    """Naive UTC times; numbers are no times, whatever pandas would make of them."""
    if values.dtype.kind != "M":
        values = _parsed_times(values.astype("object"))
    if values.dt.tz is not None:
        values = values.dt.tz_convert("UTC").dt.tz_localize(None)
    if values.dtype == np.dtype("datetime64[ns]"):
        return values
    inside = (values >= pd.Timestamp.min) & (values <= pd.Timestamp.max)
    return values.where(inside).astype("datetime64[ns]")


def _parsed_times(values: pd.Series) -> pd.Series:
    """Objects as times in UTC, missing where they are none."""
    if pd.api.types.infer_dtype(values, skipna=True) == "string":
        values = values.map(str.strip, na_action="ignore")
    elif set(map(type, values.to_numpy())) <= {dt.date, type(None)}:
        return pd.to_datetime(values, errors="coerce", utc=True)
    else:
        values = values.map(_time_or_nothing, na_action="ignore")
    return pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601")


def _time_or_nothing(value: object) -> object:
    if isinstance(value, dt.date | np.datetime64):  # datetime and Timestamp are dates
        value = str(value)
    return value.strip() if isinstance(value, str) else ""
