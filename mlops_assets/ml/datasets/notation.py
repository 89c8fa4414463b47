"""How values are written where they are published, and what is proposed when that was not said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlops_assets.spec import SourceSpec

_BLANK = "[ \u00a0\u202f]"
"""The blanks publishers put between thousands."""
_LOOKED_AT = 1000
_NULL_WORDS = frozenset(
    {"na", "n/a", "nan", "null", "none", "nil", "-", "--", ".", "?", "unknown", "missing", "#n/a"}
)


@dataclass(frozen=True)
class Notation:
    """How the values of a column are written.

    Attributes:
        decimal: sign before the fraction of a number in text.
        thousands: sign between thousands of a number in text; "" for none.
        nulls: words that stand for an empty value.
        date_format: of times in text, in the signs of strptime; None: ISO 8601.
    """

    decimal: str = "."
    thousands: str = ""
    nulls: tuple[str, ...] = ()
    date_format: str | None = None

    @classmethod
    def of(cls, source: SourceSpec, column: str) -> Notation:
        """Of a contract column; the country's has no words for an empty value."""
        nulls = () if column == source.country else tuple(source.nulls)
        return cls(source.decimal, source.thousands, nulls, source.format_of(column))

    @property
    def plain_numbers(self) -> bool:
        """Whether numbers in text are written as Python writes them."""
        return (self.decimal, self.thousands) == (".", "")

    def without_nulls(self, values: pd.Series) -> pd.Series:
        """The values, missing where a word for that stands."""
        if not self.nulls or values.dtype.kind in "biufmM":
            return values
        texts = values.astype("object")
        stripped = texts.map(lambda one: one.strip() if isinstance(one, str) else None)
        return texts.mask(stripped.isin(list(self.nulls)), None)

    def python_numbers(self, text: Any) -> Any:
        """Numbers in text as Python writes them; what is no number here becomes none there.

        Args:
            text: Arrow text of pandas, blanks around it stripped.
        """
        decimal = re.escape(self.decimal)
        between = _BLANK if self.thousands == " " else re.escape(self.thousands)
        whole = rf"(?:[0-9]{{1,3}}(?:{between}[0-9]{{3}})+|[0-9]+)" if between else "[0-9]+"
        number = rf"[+-]?(?:{whole}(?:{decimal}[0-9]*)?|{decimal}[0-9]+)(?:[eE][+-]?[0-9]+)?"
        fits = text.str.fullmatch(number).to_numpy(bool, na_value=True)
        plain = text.where(fits, "no number")
        if between:
            plain = plain.str.replace(between, "", regex=True)
        return plain.str.replace(self.decimal, ".", regex=False)


def proposal(values: pd.Series, kind: str, source: SourceSpec, column: str) -> str:
    """The line of YAML that would take values that are not of their kind; "" for none.

    Args:
        values: as published, of rows that were rejected for it.
        kind: of the contract column.
        source: what is said already.
        column: of the contract.
    """
    texts = [one.strip() for one in values.head(_LOOKED_AT) if isinstance(one, str)]
    if not texts:
        return ""
    words = sorted({text for text in texts if text.lower() in _NULL_WORDS})
    rest = [text for text in texts if text.lower() not in _NULL_WORDS]
    said = []
    if words:
        quoted = ", ".join(f'"{word}"' for word in [*source.nulls, *words])
        said.append(f"`nulls: [{quoted}]`")
    if rest and kind in ("float", "integer"):
        said += _number_notation(rest)
    if rest and kind == "time":
        said += _time_notation(rest, column)
    return f"If {column} is written so, set {' and '.join(said)} under `source`." if said else ""


def _number_notation(texts: Sequence[str]) -> list[str]:
    for decimal, thousands in ((",", ""), (",", "."), (".", ","), (",", " "), (".", "'")):
        arrow: Any = pd.Series(texts, dtype="string[pyarrow]")
        read = Notation(decimal, thousands).python_numbers(arrow)
        if not read.eq("no number").to_numpy(bool).any():
            between = f' and `thousands: "{thousands}"`' if thousands else ""
            return [f'`decimal: "{decimal}"`{between}' if decimal == "," else between[5:]]
    return []


_DAYS = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4})(.*)")
_MONTH = re.compile(r"\d{4}([-/])\d{1,2}")


def _time_notation(texts: Sequence[str], column: str) -> list[str]:
    """Formats that fit every value; two where day and month cannot be told apart."""
    if all(re.fullmatch(r"\d{4}", text) for text in texts):
        return [f'`date_format: {{{column}: "%Y"}}` (the first day of the year)']
    if months := [found for text in texts if (found := _MONTH.fullmatch(text))]:
        sign = months[0][1]
        return [f'`date_format: {{{column}: "%Y{sign}%m"}}` (the first day of the month)']
    parts = [found for text in texts if (found := _DAYS.fullmatch(text))]
    if len(parts) < len(texts):
        return []
    sign, clock = parts[0][2], _clock(parts[0][5])
    first, second = (max(int(part[place]) for part in parts) for place in (1, 3))
    orders = [("%d", "%m")] * (second <= 12) + [("%m", "%d")] * (first <= 12)
    written = [f'`date_format: "{a}{sign}{b}{sign}%Y{clock}"`' for a, b in orders]
    return [" or ".join(written)] if written else []


def _clock(text: str) -> str:
    return {0: "", 1: " %H:%M", 2: " %H:%M:%S"}.get(text.count(":"), "")


def whole_as_such(text: pd.Series) -> tuple[pd.Series, np.ndarray]:
    """Whole numbers with an empty fraction ("1802.0") as whole numbers ("1802").

    Args:
        text: as the contract takes it, None where missing.

    Returns:
        The text, and where it was changed, shape (rows,).
    """
    changed = np.zeros(len(text), bool)
    ends = _may_end_in_a_fraction(text)
    if not ends.any():
        return text, changed
    changed[ends] = text[ends].str.fullmatch(r"-?[0-9]+\.0+").to_numpy(bool)
    if not changed.any():
        return text, changed
    written = text.copy()
    written[changed] = text[changed].str.partition(".")[0]
    return written, changed


def _may_end_in_a_fraction(text: pd.Series) -> np.ndarray:
    """Where it is worth to look: Arrow tells a million texts in the time Python tells a tenth."""
    try:
        arrow: Any = text.astype("string[pyarrow]")
    except UnicodeEncodeError:  # half a surrogate pair, which Arrow's text cannot hold
        return text.notna().to_numpy(bool)
    return arrow.str.endswith((".0", "00")).to_numpy(bool, na_value=False)
