"""Published values as the types of a contract.

The rules are about one value at a time. Columns whose values are all of one kind, as they nearly
always are, take a shorter way to the same result.
"""

from __future__ import annotations

import datetime as dt
import numbers
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from mlops_assets.ml.datasets.notation import Notation

ColumnKind = Literal["float", "integer", "boolean", "time", "text"]

PLAIN = Notation()
TRUTH: Mapping[str, bool] = {"true": True, "false": False, "1": True, "0": False}

_SAME_TEXT_IF_EQUAL = ("empty", "integer", "floating", "boolean", "datetime64")
# At most 15 digits: such a number is the same whichever parser reads it.
_MOST_WHOLE = 2**63 - 1
_LONG_WHOLE = r"[+-]?[0-9]{1,30}(?:\.0*)?"
_NO_DAY = re.compile(r"[0-9]{4}(?:[-/][0-9]{1,2})?")
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


def typed(
    published: pd.Series, kind: ColumnKind, notation: Notation = PLAIN, *, nullable: bool
) -> Typed:
    """A published column as a kind; whatever the values are, nothing is raised."""
    published = notation.without_nulls(published)
    nowhere = np.zeros(len(published), bool)
    if kind == "text":
        return Typed(as_text(published), nowhere, nowhere)
    if kind == "integer":
        return _typed_whole(published, notation, nullable=nullable)
    values = _coerced(published, kind, notation)
    missing = values.isna().to_numpy(bool)
    if not missing.any():
        return Typed(_filled(values, kind), nowhere, nowhere)
    wrong = missing & published.notna().to_numpy(bool)
    return Typed(_filled(values, kind), wrong, missing if kind == "boolean" else nowhere)


def _typed_whole(published: pd.Series, notation: Notation, *, nullable: bool) -> Typed:
    values, missing = _as_whole(published, notation)
    nowhere = np.zeros(len(published), bool)
    wrong = missing & published.notna().to_numpy(bool)
    if nullable and missing.any():
        whole = pd.arrays.IntegerArray(values, missing)
        return Typed(pd.Series(whole, index=published.index), wrong, nowhere)
    return Typed(pd.Series(values, index=published.index), wrong, missing)


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


def _coerced(values: pd.Series, kind: ColumnKind, notation: Notation) -> pd.Series:
    """Values of the kind, missing where there are none and where something else stands."""
    if kind == "time":
        return _as_time(values, notation.date_format)
    if kind == "boolean":
        return _as_truth(values)
    number = _as_number(values, notation)
    usable = np.isfinite(number.to_numpy())
    return number if usable.all() else number.where(usable)


def _filled(values: pd.Series, kind: ColumnKind) -> pd.Series:
    """What is missing filled, for types of numpy that cannot say so."""
    return values == True if kind == "boolean" else values  # noqa: E712 (missing is not true)


def _as_truth(values: pd.Series) -> pd.Series:
    if values.dtype == np.dtype(bool):
        return values
    codes, found = pd.factorize(as_text(values))
    truths = [TRUTH.get(text.strip().lower(), np.nan) for text in found]
    return _series(np.array([*truths, np.nan], dtype="object")[codes], values)


def _as_whole(values: pd.Series, notation: Notation) -> tuple[np.ndarray, np.ndarray]:
    """64-bit whole numbers, exact to the last digit, and where there is none."""
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "biu":
        large = values.to_numpy() > _MOST_WHOLE if values.dtype.kind == "u" else None
        missing = np.zeros(len(values), bool) if large is None else large
        return values.where(~missing, 0).to_numpy("int64"), missing
    if isinstance(values.array, pd.arrays.IntegerArray) and values.dtype.kind == "i":
        return values.fillna(0).to_numpy("int64"), values.isna().to_numpy(bool)
    number = _as_number(values, notation).to_numpy()
    # A float tells whole numbers apart below this, and what is written says it above.
    usable = np.isfinite(number) & (np.abs(number) < 2**53) & (number == np.floor(number))
    whole = np.where(usable, number, 0).astype("int64")
    long = ~usable & (np.abs(number) >= 2**53)
    if long.any() and not (isinstance(values.dtype, np.dtype) and values.dtype.kind == "f"):
        exact, known = _long_whole(values[long], notation)
        whole[long], usable[long] = exact, known
    return whole, ~usable


def _long_whole(values: pd.Series, notation: Notation) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers of more digits than a float has; and which of them fit into 64 bits."""
    text = as_text(values).str.strip()
    if not notation.plain_numbers:
        text = notation.python_numbers(text.astype("string[pyarrow]")).astype("object")
    written_out = np.array([not isinstance(one, float) for one in values], bool)
    plain = written_out & text.str.fullmatch(_LONG_WHOLE).to_numpy(bool)
    found = [
        int(one.partition(".")[0]) if fits else 0 for one, fits in zip(text, plain, strict=True)
    ]
    known = plain & np.array([abs(one) <= _MOST_WHOLE for one in found], bool)
    exact = [one if fits else 0 for one, fits in zip(found, known, strict=True)]
    return np.array(exact, "int64"), known


def _as_number(values: pd.Series, notation: Notation) -> pd.Series:
    """64-bit floats, missing where there is no number; infinite ones are still there."""
    if values.dtype.kind in "biuf" and isinstance(values.dtype, np.dtype):
        return values.astype("float64")
    if isinstance(values.array, pd.arrays.IntegerArray | pd.arrays.FloatingArray):
        return pd.Series(values.to_numpy("float64", na_value=np.nan), index=values.index)
    if values.dtype.kind in "mM":
        return pd.Series(np.nan, index=values.index)
    return _parsed(values.astype("object"), notation)


def _parsed(values: pd.Series, notation: Notation) -> pd.Series:
    """Objects as numbers, missing where they are none."""
    if pd.api.types.infer_dtype(values, skipna=True) != "string":
        return _parsed_each(values) if notation.plain_numbers else _parsed_mixed(values, notation)
    try:
        text: Any = values.astype("string[pyarrow]")
    except UnicodeEncodeError:  # half a surrogate pair, which Arrow's text cannot hold
        return _parsed_each(values)
    if not notation.plain_numbers:
        text = notation.python_numbers(text.str.strip())
        values = text.astype("object")
    usual = text.str.fullmatch(_USUAL_NUMBER).to_numpy(bool, na_value=False)
    plain: Any = text.where(usual).astype("double[pyarrow]")
    number = pd.Series(plain.to_numpy("float64", na_value=np.nan), index=values.index)
    others = ~usual & text.notna().to_numpy(bool)
    if others.any():
        number[others] = _parsed_each(values[others])
    return number


def _parsed_mixed(values: pd.Series, notation: Notation) -> pd.Series:
    """Text by its notation, beside numbers of files that have types."""
    texts = values.map(lambda one: isinstance(one, str)).to_numpy(bool)
    number = pd.Series(np.nan, index=values.index)
    number[~texts] = _parsed_each(values[~texts])
    if texts.any():
        number[texts] = _parsed(values[texts], notation)
    return number


def _parsed_each(values: pd.Series) -> pd.Series:
    plain = values.map(_number_or_text, na_action="ignore")
    return pd.to_numeric(plain, errors="coerce").astype("float64")


def _number_or_text(value: object) -> object:
    # Decimals, lists and dicts of JSON lines would make pandas raise instead of give up.
    if isinstance(value, str):
        return value.strip()
    return float(value) if isinstance(value, numbers.Real) else str(value)


def _as_time(values: pd.Series, date_format: str | None) -> pd.Series:
    """Naive UTC times; numbers are no times, whatever pandas would make of them."""
    if values.dtype.kind != "M":
        values = _parsed_times(values, date_format)
    if values.dt.tz is not None:
        values = values.dt.tz_convert("UTC").dt.tz_localize(None)
    if values.dtype == np.dtype("datetime64[ns]"):
        return values
    inside = (values >= pd.Timestamp.min) & (values <= pd.Timestamp.max)
    return values.where(inside).astype("datetime64[ns]")


def _parsed_times(values: pd.Series, date_format: str | None) -> pd.Series:
    """Objects as times in UTC, missing where they are none."""
    if date_format is not None:
        return _formatted_times(values, date_format)
    values = values.astype("object")
    if pd.api.types.infer_dtype(values, skipna=True) == "string":
        values = values.map(str.strip, na_action="ignore")
    elif set(map(type, values.to_numpy())) <= {dt.date, type(None)}:
        return pd.to_datetime(values, errors="coerce", utc=True)
    else:
        values = values.map(_time_or_nothing, na_action="ignore")
    times = pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601")
    return times.mask(_no_day(values, times))


def _formatted_times(values: pd.Series, date_format: str) -> pd.Series:
    """Text and whole numbers by their format; what has a type of its own is what it is."""
    objects = values.astype("object")
    dates = objects.map(lambda one: isinstance(one, dt.date | np.datetime64)).to_numpy(bool)
    text = as_text(values.mask(dates)).str.strip()
    times = pd.to_datetime(text, errors="coerce", utc=True, format=date_format)
    if dates.any():
        times = times.astype("datetime64[ns, UTC]")
        times[dates] = _parsed_times(objects[dates], None).astype("datetime64[ns, UTC]")
    return times


def _no_day(values: pd.Series, times: pd.Series) -> np.ndarray:
    """Where text is a year or a month alone, which is no time: nobody said which day of it."""
    found = np.zeros(len(values), bool)
    first = (times.dt.day == 1).to_numpy()  # what such a text was taken for
    found[first] = [is_no_day(one) for one in values[first]]
    return found


def is_no_day(value: object) -> bool:
    """Whether it is text of a year or a month alone."""
    return isinstance(value, str) and _NO_DAY.fullmatch(value.strip()) is not None


def of_the_clock(values: pd.Series, date_format: str | None = None) -> np.ndarray:
    """Where a time has an hour and no offset, so that it depends on whose clock it is."""
    if values.dtype.kind == "M":
        return np.full(len(values), values.dt.tz is None)
    if date_format is not None:
        hour = any(sign in date_format for sign in ("%H", "%I", "%X", "%c", "%s"))
        return np.full(len(values), hour and "%z" not in date_format and "%Z" not in date_format)
    texts = values.astype("object").map(_time_or_nothing, na_action="ignore")
    texts = texts.fillna("").astype("string[pyarrow]")
    bare = texts.str.fullmatch(r"[0-9]{4}[-/]?[0-9]{1,2}[-/]?[0-9]{1,2}|").to_numpy(bool)
    offset = texts.str.fullmatch(r".*[T ].*(?:[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)").to_numpy(bool)
    return ~(bare | offset)


def _time_or_nothing(value: object) -> object:
    if isinstance(value, dt.date | np.datetime64):  # datetime and Timestamp are dates
        value = str(value)
    return value.strip() if isinstance(value, str) else ""
