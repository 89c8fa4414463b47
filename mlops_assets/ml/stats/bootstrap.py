"""How sure a number is: a bootstrap over blocks of days, entities, or both (`draws`).

Everything drawn with the same weights is paired: candidate, champion and baseline are measured on
identical rows in every draw. A mean over rows is a product of the weights of what is drawn and its
sums; an AUC is the weight of the pairs in the right order.

It is our own because `arch` and `scipy` draw rows, not days or entities with any number of them,
and call a function for each draw; here all draws of a metric are one product of matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from mlops_assets.ml.stats.draws import BATCH_NUMBERS, MIN_BLOCKS, BootstrapWeights
from mlops_assets.ml.stats.metrics import UNKNOWN, Estimate, improvement, losses, score
from mlops_assets.spec import GREATER_IS_BETTER

TAIL_DRAWS = 10
"""Draws beyond a quantile, without which its place is chance."""


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
    rows, sums = draws.sums(), draws.sums(values)
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
    return interval(value, resampled(metric, y, p, draws), tail, draws.parts)


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
    return gain_estimates(metric, y, p, reference, draws=draws, tails=(tail,))[0]


def gain_estimates(
    metric: str,
    y: np.ndarray,
    p: np.ndarray,
    reference: np.ndarray,
    *,
    draws: BootstrapWeights,
    tails: Sequence[float],
) -> list[Estimate]:
    """The same with bounds at several tails of the same draws; one that is NaN is the first."""
    value = improvement(metric, score(metric, y, p), score(metric, y, reference))
    if not np.isfinite(value):
        return [UNKNOWN for _ in tails]
    drawn = resampled_gain(metric, y, p, reference, draws=draws)
    known = [tail if np.isfinite(tail) else tails[0] for tail in tails]
    return [interval(value, drawn, tail, draws.parts) for tail in known]


def interval(value: float, drawn: np.ndarray, tail: float, parts: int) -> Estimate:
    """A value with its `tail` and `1 - tail` bounds.

    The quantiles of what was drawn, their distance to the value made wider where there are few
    parts, which by themselves seem to vary less than they do. Not told (NaN ends) with fewer than
    `MIN_BLOCKS` parts, or when more than half of the draws say nothing.

    Args:
        value: on the rows themselves.
        drawn: in each draw, shape (draws,).
        tail: share of the draws beyond either bound, above 0 and under a half.
        parts: independent parts that the rows are of (`BootstrapWeights.parts`).
    """
    told = drawn[np.isfinite(drawn)]
    if parts < MIN_BLOCKS or not np.isfinite(value) or 2 * len(told) <= len(drawn):
        return Estimate(float(value))
    seen = min(max(tail, TAIL_DRAWS / len(told)), 0.25)
    distance = np.quantile(told, [seen, 1.0 - seen]) - value
    ends = value + widening(parts, tail, seen) * distance
    return Estimate(float(value), float(ends[0]), float(ends[1]))


def widening(parts: int, tail: float, seen: float | None = None) -> float:
    """Factor from the distance of a quantile of the draws to that of a bound.

    It makes up for few parts (the variance of a mean of so many, and Student's t for the normal
    quantile, by its expansion: Abramowitz & Stegun, 26.7.5), and goes on as the normal does beyond
    the quantile that so many draws show.

    Args:
        parts: independent ones.
        tail: beyond the bound.
        seen: beyond the quantile of the draws; None: as `tail`.
    """
    free, z = parts - 1, NormalDist().inv_cdf(1.0 - tail)
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return math.sqrt(parts / free) * t / NormalDist().inv_cdf(1.0 - (seen or tail))


def _resampled_auc(y: np.ndarray, p: np.ndarray, draws: BootstrapWeights) -> np.ndarray:
    """In each draw, of each row of class 1 the weight of class 0 below it and half of ties."""
    ones, zeros = np.flatnonzero(y > 0.5), np.flatnonzero(y <= 0.5)
    zeros = zeros[np.argsort(p[zeros], kind="stable")]
    places = [np.searchsorted(p[zeros], p[ones], side) for side in ("left", "right")]
    values = np.empty(draws.draws)
    step = max(1, BATCH_NUMBERS // max(len(y), 1))
    for first in range(0, len(values), step):
        above = draws.of_rows(ones, first, first + step)
        below = np.zeros((len(above), len(zeros) + 1))
        np.cumsum(draws.of_rows(zeros, first, first + step), axis=1, out=below[:, 1:])
        won = np.einsum("ij,ij->i", above, below[:, places[0]] + below[:, places[1]]) / 2.0
        pairs = above.sum(axis=1) * below[:, -1]
        known = np.full(len(pairs), np.nan)
        values[first : first + step] = np.divide(won, pairs, out=known, where=pairs > 0)
    return values
