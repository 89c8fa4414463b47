"""Infinite values of features and labels: found, told, and missing from then on.

A ratio with a denominator of 0 is a value that nobody knows, not a very large one. Estimators
either refuse it, and with it the rows of all countries that are trained on together, or take it for
the largest value there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api import types

LARGEST = float(np.finfo("float32").max)
"""Trees of scikit-learn hold features in 32 bits: what is beyond is infinite to them."""


@dataclass(frozen=True)
class InfiniteColumn:
    """The infinite values of one column of a features frame.

    Args:
        column: a feature, or `label`.
        rows: that have one.
        entity: of the first of them; "" in a frame without entities.
        event_time: of the first of them.
    """

    column: str
    rows: int
    entity: str
    event_time: pd.Timestamp


def infinite_columns(frame: pd.DataFrame) -> tuple[InfiniteColumn, ...]:
    """Every column with values that are infinite or beyond `LARGEST`, in the frame's order."""
    found = ((str(name), frame.index[_infinite(values)]) for name, values in frame.items())
    return tuple(_described(frame, name, rows) for name, rows in found if len(rows))


def told(found: Sequence[InfiniteColumn]) -> str:
    """The columns in words, each with its number of rows and the first one; "" without any."""
    return "; ".join(
        f"{each.column} is infinite in {each.rows:,} rows, the first "
        + (f"of {each.entity} " if each.entity else "")
        + f"at {each.event_time}"
        for each in found
    )


def without_infinite(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with missing values where infinite ones stood; itself without any."""
    found = {str(name): mask for name, v in frame.items() if (mask := _infinite(v)).any()}
    return frame.assign(**{n: frame[n].mask(mask) for n, mask in found.items()}) if found else frame


def _infinite(values: pd.Series) -> np.ndarray:
    if not types.is_float_dtype(values.dtype):
        return np.zeros(len(values), bool)
    return np.abs(values.to_numpy("float64", na_value=np.nan)) > LARGEST


def _described(frame: pd.DataFrame, name: str, rows: pd.Index) -> InfiniteColumn:
    first = frame.loc[rows[0]]
    entity = str(first["entity"]) if "entity" in frame else ""
    return InfiniteColumn(name, len(rows), entity, first["event_time"])
