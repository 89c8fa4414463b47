"""Numbers in steps of their reference, distances between distributions, and what chance does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from pandas.api import types

FeatureKind = Literal["number", "category"]

LIMIT, BIN_WIDTH = 5, 0.25
"""How far out a standardised number is told apart, and the width of a bin of the histogram."""
EDGES: tuple[float, ...] = tuple(np.arange(-LIMIT, LIMIT + BIN_WIDTH, BIN_WIDTH).tolist())
"""Edges of the histogram of a number, in robust standard units of its reference."""
BINS = len(EDGES) + 1
STEPS = 1024
"""Steps of a standard unit: whole numbers add up to the same in any order and in any engine."""
LOWEST, HIGHEST = -LIMIT * STEPS - 1, LIMIT * STEPS
"""Steps beyond which a number is clipped."""
STEPS_PER_BIN = int(STEPS * BIN_WIDTH)
FIRST_BIN = LIMIT * STEPS // STEPS_PER_BIN + 1
"""Bin of the numbers from 0 to `BIN_WIDTH`."""

BUCKETS = 28
"""Parts of a window, whose means tell how long a number remembers: days of a window of 28."""
_STRIDE = BUCKETS // 4
_MOST_WINDOWS = 104
_PRIOR = 30.0
"""Degrees of freedom of the memory of the buckets, beside those of the windows themselves."""
_MOST_MEMORY = 0.98
NORMAL_IQR = 1.3489795003921634
_LEAST_SCALE = 1e-300
"""Below it the steps of a unit are more than a number can hold."""
_INTEGERS = ("boolean", "integer", "floating", "mixed-integer-float")


def kind_of(values: pd.Series) -> FeatureKind | None:
    """What a column can be compared as; None for times, lists and the like.

    A column of objects is what its values are: truth values with gaps come as objects. One of
    categories is what these are.
    """
    if isinstance(values.dtype, pd.CategoricalDtype):
        return kind_of(pd.Series(values.dtype.categories))
    if types.is_numeric_dtype(values.dtype):
        return None if types.is_complex_dtype(values.dtype) else "number"
    inferred = types.infer_dtype(values, skipna=True)
    if inferred in _INTEGERS:
        return "number"
    return "category" if inferred in ("string", "empty") else None


def numbers_of(values: pd.Series) -> np.ndarray:
    """A column as numbers, shape (rows,); NaN where there is none, and for other things."""
    if kind_of(values) != "number":
        return np.full(len(values), np.nan)
    if isinstance(values.dtype, pd.CategoricalDtype) or values.dtype == object:
        return np.array([np.nan if pd.isna(value) else float(value) for value in values])
    return values.to_numpy("float64", na_value=np.nan)


def texts_of(values: pd.Series) -> pd.Series:
    """A column as text, None where there is none, and for other things."""
    if kind_of(values) != "category":
        return pd.Series(np.full(len(values), None), index=values.index, dtype="object")
    there = values.notna().to_numpy()
    texts = [value if known else None for value, known in zip(values, there, strict=True)]
    return pd.Series(texts, index=values.index, dtype="object")


def fixed_point(values: np.ndarray, center: float, scale: float) -> np.ndarray:
    """Numbers in fixed point: whole steps of the reference's standard unit, clipped.

    Args:
        values: shape (rows,); infinite ones are clipped, none is NaN.
        center: of the reference.
        scale: of the reference, above 0.
    """
    with np.errstate(over="ignore"):
        steps = np.floor((values - center) * (STEPS / scale) + 0.5)
    return np.clip(steps, LOWEST, HIGHEST).astype("int64")


def bin_of(steps: np.ndarray) -> np.ndarray:
    """Bin in the histogram of each number, 0 to `BINS` - 1."""
    return np.clip(steps // STEPS_PER_BIN + FIRST_BIN, 0, BINS - 1)


def center_and_scale(values: np.ndarray) -> tuple[float, float]:
    """Median and robust standard deviation; the plain one, then 1, where that is 0."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    low, center, high = np.quantile(finite, [0.25, 0.5, 0.75])
    with np.errstate(over="ignore", invalid="ignore"):
        wide = ((high - low) / NORMAL_IQR, finite.std(), 1.0)
    usable = (each for each in wide if np.isfinite(each) and each > _LEAST_SCALE)
    return float(center), float(next(usable))


def quartiles_of(values: np.ndarray) -> tuple[float, float, float]:
    """The three quartiles, each a value that is there."""
    found = np.quantile(values, [0.25, 0.5, 0.75], method="inverted_cdf")
    return tuple(float(each) for each in found)  # pyright: ignore[reportReturnType] (three)


def wasserstein(counts: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Distance between histograms over `EDGES`, in the unit of the edges.

    Each number counts as the middle of its bin, those beyond the edges as just beyond.

    Args:
        counts: shape (..., bins); all 0 gives 0.
        reference: shape (..., bins).
    """
    apart = np.cumsum(_shares(counts) - _shares(reference), axis=-1)
    return np.abs(apart).sum(axis=-1) * BIN_WIDTH * (counts.sum(axis=-1) > 0)


def total_variation(counts: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Share of the rows that would have to be another value, 0 to 1; shape (..., values)."""
    apart = np.abs(_shares(counts) - _shares(reference)).sum(axis=-1) / 2
    return apart * (counts.sum(axis=-1) > 0)


def cohens_w(counts: np.ndarray, reference: np.ndarray, rare: float = 0.01) -> np.ndarray:
    """Effect size of a change in categories (Cohen, Statistical power analysis, 1988, ch. 7).

    Args:
        counts: shape (..., values).
        reference: shape (..., values).
        rare: values with a smaller share of the reference are taken together, and their share is
            at least this, so that a single row of a new value is no great change.
    """
    before, now = _shares(reference), _shares(counts)
    common = before >= rare
    parts = np.where(common, (now - before) ** 2 / np.where(common, before, 1.0), 0.0)
    rest = np.where(common, 0.0, before).sum(axis=-1)
    more = np.maximum(np.where(common, 0.0, now).sum(axis=-1) - rest, 0.0)
    squared = parts.sum(axis=-1) + more**2 / np.maximum(rest, rare)
    return np.sqrt(squared) * (counts.sum(axis=-1) > 0)


def cohens_h(share: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Effect size of a change in a share, -pi to pi; positive is more (Cohen, 1988, ch. 6)."""
    return 2 * (np.arcsin(np.sqrt(share)) - np.arcsin(np.sqrt(before)))


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)


@dataclass(frozen=True)
class Buckets:
    """A reference cut into `BUCKETS` parts a window, and into the windows they make.

    Args:
        bucket: of each row, 0 for the oldest.
        count: of buckets.
        ends: bucket after the last one of each window; windows overlap by three quarters.
        apart: how many windows there would be without overlap.
    """

    bucket: np.ndarray
    count: int
    ends: np.ndarray
    apart: float

    @property
    def degrees(self) -> float:
        """Of freedom of a variance over the windows; overlap tells half as much again."""
        return max(1.0, 1.5 * self.apart - 1.0)

    @property
    def of_few(self) -> float:
        """What the windows' own variance around their mean lacks."""
        return 1.0 - 1.0 / max(self.apart, 1.5)

    def windows(self, by_bucket: np.ndarray) -> np.ndarray:
        """Sums over each window of sums by bucket, shape (windows, ...)."""
        added = np.concatenate([np.zeros_like(by_bucket[:1]), np.cumsum(by_bucket, axis=0)])
        return added[self.ends] - added[self.ends - BUCKETS]


def cut(times: pd.Series, days: int) -> Buckets:
    """Cut the rows of a reference, counted back from the newest.

    Args:
        times: event times; not empty.
        days: length of a window.
    """
    width = np.timedelta64(days * 86_400_000_000_000 // BUCKETS, "ns")
    stamps = times.to_numpy("datetime64[ns]")
    back = ((stamps.max() - stamps) // width).astype("int64")
    count = int(back.max()) + 1
    ends = np.arange(count, BUCKETS - 1, -_STRIDE)[::-1]
    every = max(1, -(-len(ends) // _MOST_WINDOWS))
    return Buckets(count - 1 - back, count, ends[::-1][::every][::-1], count / BUCKETS)


def spread_of_means(
    total: np.ndarray, rows: np.ndarray, deviation: float, buckets: Buckets
) -> tuple[float, float]:
    """How much means of windows differ if nothing changes: standard deviation, degrees of freedom.

    Two estimates are pooled: the spread of the means of the reference's own windows, which knows
    seasons but has few windows; and what follows from how buckets and their neighbours agree (an
    autoregressive process of the first order), which has many buckets. Never less than that of as
    many independent rows.

    Args:
        total: sum by bucket.
        rows: by bucket.
        deviation: of single rows.
        buckets: the cut.
    """
    there, freedom = rows > 0, buckets.degrees + _PRIOR
    if not there.any():
        return 0.0, freedom
    mean = total.sum() / rows.sum()
    held = buckets.windows(rows)
    means = (buckets.windows(total) / np.maximum(held, 1))[held > 0]
    of_windows = float(((means - mean) ** 2).mean() / buckets.of_few) if len(means) else 0.0
    apart = np.where(there, total / np.maximum(rows, 1) - mean, 0.0)
    filled = _typical(buckets.windows(there.astype("int64")))
    of_buckets = (apart[there] ** 2).mean() / filled * _inflation(_memory(apart, there), filled)
    pooled = (buckets.degrees * of_windows + _PRIOR * of_buckets) / freedom
    independent = deviation**2 / _typical(held)
    return float(np.sqrt(max(pooled, independent))), freedom


def _typical(counts: np.ndarray) -> float:
    """Median of counts, at least 1."""
    return max(float(np.median(counts)), 1.0) if len(counts) else 1.0


def _memory(apart: np.ndarray, there: np.ndarray) -> float:
    """Autocorrelation of neighbouring buckets, less its bias in short series."""
    pairs = there[1:] & there[:-1]
    variance = (apart[there] ** 2).mean() if there.any() else 0.0
    if variance <= 0 or pairs.sum() < BUCKETS:
        return 0.0
    found = (apart[1:] * apart[:-1])[pairs].mean() / variance
    return float(np.clip(found + (1 + 3 * found) / there.sum(), 0.0, _MOST_MEMORY))


def _inflation(memory: float, length: float) -> float:
    """Variance of a mean of so many buckets, as a multiple of that of independent ones."""
    lost = 2 * memory * (1 - memory**length) / (length * (1 - memory) ** 2)
    return (1 + memory) / (1 - memory) - lost


def beyond_chance(value: np.ndarray, degrees: np.ndarray | float) -> np.ndarray:
    """Probability of a value of Student's t, or a greater one."""
    from scipy.special import stdtr

    return stdtr(degrees, -np.asarray(value, dtype="float64"))
