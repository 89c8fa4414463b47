"""How sure a number is: a circular moving-block bootstrap over event days.

Errors of neighbouring days are alike, so days are drawn in blocks, and a day with all its rows
(Politis & Romano, A circular block-resampling procedure for stationary data, 1992). Everything
drawn with the same days is paired: candidate, champion and baseline are measured on identical rows
in every draw. A mean over rows is a product of day weights and day sums; an AUC is the
weight of the pairs in the right order.

It is our own because `arch` and `scipy` draw rows, not days with any number of them, and call a
function for each draw; here all draws of a metric are one product of matrices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import pandas as pd

from mlops_assets.ml.stats.metrics import UNKNOWN, Estimate, improvement, losses, score
from mlops_assets.spec import GREATER_IS_BETTER

MIN_BLOCKS = 5
"""Fewer blocks of days say nothing about how much a number varies between them."""
TAIL_DRAWS = 10
"""Draws beyond a quantile, without which its place is chance."""
BATCH_NUMBERS = 2_000_000
"""Numbers worked on at once, so that memory stays at some dozens of megabytes."""


@dataclass(frozen=True)
class BootstrapWeights:
    """Days drawn with replacement, and the rows they stand for.

    Args:
        weights: how often each day is in each draw, shape (draws, days).
        day: the place of each row's day, shape (rows,).
        block_days: neighbouring days drawn together.
    """

    weights: np.ndarray
    day: np.ndarray
    block_days: int

    def of(self, rows: np.ndarray) -> BootstrapWeights:
        """The same draws for a part of the rows, chosen by a mask."""
        return replace(self, day=self.day[rows])

    @property
    def blocks(self) -> int:
        """How many blocks of days have rows."""
        return len(np.unique(self.day // self.block_days))

    @property
    def problem(self) -> str:
        """Why no interval can be told; "" if one can."""
        if self.blocks >= MIN_BLOCKS:
            return ""
        return (
            f"{len(np.unique(self.day))} days with rows make {self.blocks} blocks of "
            f"{self.block_days} days, and {MIN_BLOCKS} are needed to tell an interval"
        )


def draw_days(event_time: pd.Series, *, block_days: int, draws: int, seed: int) -> BootstrapWeights:
    """Draw blocks of days until there are as many days as there are.

    Args:
        event_time: of each row, in any order; shape (rows,).
        block_days: neighbouring event days drawn together; days without a row do not count.
        draws: how many samples.
        seed: equal seeds draw equal days.
    """
    times = event_time.to_numpy(dtype="datetime64[ns]").astype("datetime64[D]")
    days, day = np.unique(times, return_inverse=True)
    weights = _weights(np.random.default_rng(seed), len(days), min(block_days, len(days)), draws)
    return BootstrapWeights(weights, day, block_days)


def resampled(metric: str, y: np.ndarray, p: np.ndarray, draws: BootstrapWeights) -> np.ndarray:
    """The metric of labels and predictions in each draw, shape (draws,).

    NaN in draws where it cannot be told (no rows, or one class for auc).
    """
    if metric == "auc":
        return _resampled_auc(y, p, draws)
    means = resampled_mean(losses(metric, y, p), draws)
    return np.sqrt(means) if metric == "rmse" else means


def resampled_mean(values: np.ndarray, draws: BootstrapWeights) -> np.ndarray:
    """Mean over the rows of each draw, shape (draws,); NaN in a draw without rows."""
    days = draws.weights.shape[1]
    rows = draws.weights @ np.bincount(draws.day, minlength=days).astype("float64")
    sums = draws.weights @ np.bincount(draws.day, values, minlength=days)
    return np.divide(sums, rows, out=np.full(len(rows), np.nan), where=rows > 0)


def resampled_gain(
    metric: str, y: np.ndarray, p: np.ndarray, reference: np.ndarray, *, draws: BootstrapWeights
) -> np.ndarray:
    """Improvement of `p` on `reference` in each draw (`improvement`), shape (draws,)."""
    value, other = (resampled(metric, y, each, draws) for each in (p, reference))
    if metric in GREATER_IS_BETTER:
        return value - other
    return 1.0 - np.divide(value, other, out=np.full(len(value), np.nan), where=other > 0)


def estimate(
    metric: str, y: np.ndarray, p: np.ndarray, draws: BootstrapWeights, *, tail: float
) -> Estimate:
    """The metric with its `tail` and `1 - tail` bounds; NaN where it cannot be told."""
    value = score(metric, y, p)
    if not np.isfinite(value):
        return UNKNOWN
    return interval(value, resampled(metric, y, p, draws), tail, draws.blocks)


def gain_estimate(
    metric: str,
    y: np.ndarray,
    p: np.ndarray,
    reference: np.ndarray,
    *,
    draws: BootstrapWeights,
    tail: float,
) -> Estimate:
    """The improvement of `p` on `reference` on the same rows, with its bounds."""
    value = improvement(metric, score(metric, y, p), score(metric, y, reference))
    if not np.isfinite(value):
        return UNKNOWN
    return interval(value, resampled_gain(metric, y, p, reference, draws=draws), tail, draws.blocks)


def interval(value: float, drawn: np.ndarray, tail: float, blocks: int) -> Estimate:
    """A value with its `tail` and `1 - tail` bounds.

    The quantiles of what was drawn, their distance to the value made wider where there are few
    blocks, which by themselves seem to vary less than they do. Not told (NaN ends) with fewer than
    `MIN_BLOCKS` blocks, or when more than half of the draws say nothing.

    Args:
        value: on the rows themselves.
        drawn: in each draw, shape (draws,).
        tail: share of the draws beyond either bound, above 0 and under a half.
        blocks: of days that the rows are of.
    """
    told = drawn[np.isfinite(drawn)]
    if blocks < MIN_BLOCKS or not np.isfinite(value) or 2 * len(told) <= len(drawn):
        return Estimate(float(value))
    seen = min(max(tail, TAIL_DRAWS / len(told)), 0.25)
    distance = np.quantile(told, [seen, 1.0 - seen]) - value
    ends = value + widening(blocks, tail, seen) * distance
    return Estimate(float(value), float(ends[0]), float(ends[1]))


def widening(blocks: int, tail: float, seen: float | None = None) -> float:
    """Factor from the distance of a quantile of the draws to that of a bound.

    It makes up for few blocks (the variance of a mean of so many, and Student's t for the normal
    quantile, by its expansion: Abramowitz & Stegun, 26.7.5), and goes on as the normal does beyond
    the quantile that so many draws show.

    Args:
        blocks: of days.
        tail: beyond the bound.
        seen: beyond the quantile of the draws; None: as `tail`.
    """
    free, z = blocks - 1, NormalDist().inv_cdf(1.0 - tail)
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return math.sqrt(blocks / free) * t / NormalDist().inv_cdf(1.0 - (seen or tail))


def _weights(rng: np.random.Generator, days: int, block: int, draws: int) -> np.ndarray:
    """How often each day is in each draw: whole blocks, and a last one cut to fit.

    A block counts from its first day on and no longer from the day after its last; one that goes
    round the end of the days counts from the first day on, too.
    """
    if not days:
        return np.zeros((draws, 0))
    lengths = np.full(-(-days // block), block)
    lengths[-1] = days - block * (len(lengths) - 1)
    starts = rng.integers(0, days, size=(draws, len(lengths)))
    ends = starts + lengths
    round_the_end = (ends > days).sum(axis=1)
    weights = _counted(starts, days)
    weights -= _counted(np.where(ends > days, ends - days, ends), days + 1)[:, :days]
    weights[:, 0] += round_the_end
    return np.cumsum(weights, axis=1, out=weights)


def _counted(places: np.ndarray, size: int) -> np.ndarray:
    """How often each place is in each row of `places`, shape (rows, size)."""
    flat = (places + np.arange(len(places))[:, None] * size).ravel()
    counts = np.bincount(flat, minlength=len(places) * size)
    return counts.reshape(len(places), size).astype("float64")


def _resampled_auc(y: np.ndarray, p: np.ndarray, draws: BootstrapWeights) -> np.ndarray:
    """In each draw, of each row of class 1 the weight of class 0 below it and half of ties."""
    ones, zeros = np.flatnonzero(y > 0.5), np.flatnonzero(y <= 0.5)
    zeros = zeros[np.argsort(p[zeros], kind="stable")]
    places = [np.searchsorted(p[zeros], p[ones], side) for side in ("left", "right")]
    values = np.empty(len(draws.weights))
    step = max(1, BATCH_NUMBERS // max(len(y), 1))
    for first in range(0, len(values), step):
        weights = draws.weights[first : first + step]
        above = weights[:, draws.day[ones]]
        below = np.zeros((len(weights), len(zeros) + 1))
        np.cumsum(weights[:, draws.day[zeros]], axis=1, out=below[:, 1:])
        won = np.einsum("ij,ij->i", above, below[:, places[0]] + below[:, places[1]]) / 2.0
        pairs = above.sum(axis=1) * below[:, -1]
        known = np.full(len(pairs), np.nan)
        values[first : first + step] = np.divide(won, pairs, out=known, where=pairs > 0)
    return values
