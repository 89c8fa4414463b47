"""One window of new rows, counted as its reference was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from mlops_assets.ml.stats import distances as d
from mlops_assets.ml.stats.distances import BINS, STEPS
from mlops_assets.ml.training.references import (
    PREDICTION,
    REST,
    FeatureReference,
    Reference,
    codes_of,
)
from mlops_assets.spec import ProductSpec

Counted = tuple[int, float, float, tuple[int, ...]]
"""Of a number: rows with a value, sum, sum of squares, counts by bin."""
NOTHING: Counted = (0, 0.0, 0.0, (0,) * BINS)
"""Of a number without a row."""


@dataclass(frozen=True)
class Profile:
    """Counts of one window of one country, enough for every comparison.

    Args:
        end: event time at which the window ends, not part of it.
        rows: in it.
        numbers: feature: (rows with a value, sum and sum of squares of the standardised, clipped
            values, counts as in `FeatureReference`).
        categories: feature: rows by value, `REST` for those the reference does not name.
        quartiles: feature: its quartiles, as they are in the data, of numbers of which at least a
            quarter is outside `EDGES`.
    """

    end: pd.Timestamp
    rows: int
    numbers: Mapping[str, Counted]
    categories: Mapping[str, Mapping[str, int]]
    quartiles: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)


def window_ends(spec: ProductSpec, newest: pd.Timestamp, count: int) -> list[pd.Timestamp]:
    """Ends of the newest complete windows, oldest first, on a grid that is the same in every run.

    A window is complete once a row of its end or later is there.

    Args:
        spec: the product as it is for this country.
        newest: event time of the newest row.
        count: how many.
    """
    if pd.isna(newest):
        return []
    step = pd.Timedelta(days=spec.monitoring.every_days)
    origin = pd.Timestamp("1970-01-01")
    last = origin + (newest - origin) // step * step
    return [last - step * back for back in range(count - 1, -1, -1)]


def window_rows(
    spec: ProductSpec, reference: Reference, frame: pd.DataFrame, end: pd.Timestamp
) -> pd.DataFrame:
    """The rows of a window: of its days, and newer than the reference.

    Args:
        spec: the product as it is for this country.
        reference: what the window will be compared with.
        frame: with `event_time`.
        end: of the window.
    """
    start = end - pd.Timedelta(days=spec.monitoring.window_days)
    times = frame["event_time"]
    return frame[((times >= start) & (times < end) & (times > reference.last)).to_numpy()]


def profile(
    reference: Reference, rows: pd.DataFrame, predicted: pd.Series, end: pd.Timestamp
) -> Profile:
    """Counts of the rows of a window, in pandas.

    `storage.profiles` gives the same for many countries in one scan.

    Args:
        reference: says in which units and by which names is counted.
        rows: of a features frame, of this window only (`window_rows`).
        predicted: predictions of the window.
        end: event time at which the window ends.
    """
    numbers: dict[str, Counted] = {}
    categories: dict[str, Mapping[str, int]] = {}
    quartiles: dict[str, tuple[float, float, float]] = {}
    for name, each in reference.features.items():
        values = predicted if name == PREDICTION else rows.get(name)
        values = pd.Series(dtype="float64") if values is None else values
        if each.kind == "category":
            categories[name] = _names_counted(each, d.texts_of(values))
            continue
        found = d.numbers_of(values)
        found = found[~np.isnan(found)]
        numbers[name] = _counted(each, found)
        if is_outside(numbers[name]):
            quartiles[name] = d.quartiles_of(found)
    return Profile(end, len(rows), numbers, categories, quartiles)


def is_outside(counted: Counted) -> bool:
    """Whether at least a quarter of a window's numbers is outside `EDGES`."""
    rows, _, _, counts = counted
    return rows > 0 and 4 * (counts[0] + counts[-1]) >= rows


def _counted(reference: FeatureReference, values: np.ndarray) -> Counted:
    steps = d.fixed_point(values, reference.center, reference.scale)
    counts = np.bincount(d.bin_of(steps), minlength=BINS)
    total, squares = int(steps.sum()) / STEPS, int((steps**2).sum()) / STEPS**2
    return len(values), total, squares, tuple(counts.tolist())


def _names_counted(reference: FeatureReference, values: pd.Series) -> dict[str, int]:
    names = (*reference.names, REST)
    codes = codes_of(values.dropna(), reference.names)
    counts = np.bincount(codes, minlength=len(names)).tolist()
    return {name: count for name, count in zip(names, counts, strict=True) if count}
