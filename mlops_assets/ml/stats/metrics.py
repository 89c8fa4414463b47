"""Metrics of predictions: one number, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mlops_assets.spec import GREATER_IS_BETTER

TINY = 1e-15
"""Probabilities are kept this far from 0 and 1 in the log loss."""
NAN = float("nan")


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its interval; NaN where it cannot be told."""

    value: float
    lower: float = NAN
    upper: float = NAN

    @property
    def has_interval(self) -> bool:
        """Whether the value and both ends are known."""
        return bool(np.isfinite([self.value, self.lower, self.upper]).all())


UNKNOWN = Estimate(NAN)


def score(metric: str, y: np.ndarray, p: np.ndarray) -> float:
    """One metric of labels `y` and predictions `p`, both of shape (rows,).

    mae and rmse in the label's unit, log_loss and brier of class 1's probability: lower is better.
    auc, 0 to 1: higher is better, equal predictions count half. NaN when there are no rows, when
    a prediction is missing, or for auc when all labels are of one class.
    """
    y, p = np.asarray(y, dtype="float64"), np.asarray(p, dtype="float64")
    if not len(y) or not np.isfinite(p).all():
        return float("nan")
    return float(METRICS[metric](y, p))


def is_better(metric: str, a: float, b: float) -> bool:
    """Whether value `a` of the metric is strictly better than `b`; False if either is NaN."""
    return a > b if metric in GREATER_IS_BETTER else a < b


def improvement(metric: str, value: float, reference: float) -> float:
    """How much better `value` is than `reference`; positive is better.

    A share of the reference for errors (0.2: a fifth less error), the difference for auc. NaN when
    either is NaN or an error's reference is 0.
    """
    if metric in GREATER_IS_BETTER:
        return value - reference
    return 1.0 - value / reference if reference else float("nan")


def auc(y: np.ndarray, p: np.ndarray) -> float:
    """Share of pairs of class 1 and 0 in the right order (Mann-Whitney U); NaN with one class."""
    positive = y > 0.5
    ones = int(positive.sum())
    zeros = len(y) - ones
    if not ones or not zeros:
        return float("nan")
    _, place, counts = np.unique(p, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[place]
    return float((ranks[positive].sum() - ones * (ones + 1) / 2.0) / (ones * zeros))


def losses(metric: str, y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Loss of each row whose mean is the metric (rmse: its square), shape (rows,); not for auc."""
    if metric == "mae":
        return np.abs(y - p)
    if metric == "log_loss":
        kept = np.clip(p, TINY, 1.0 - TINY)
        return -(y * np.log(kept) + (1.0 - y) * np.log1p(-kept))
    return (y - p) ** 2


METRICS: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "mae": lambda y, p: losses("mae", y, p).mean(),
    "rmse": lambda y, p: float(np.sqrt(losses("rmse", y, p).mean())),
    "auc": auc,
    "log_loss": lambda y, p: losses("log_loss", y, p).mean(),
    "brier": lambda y, p: losses("brier", y, p).mean(),
}


def at_most(count: int, trials: int, share: float) -> float:
    """Probability of `count` or fewer successes in so many trials (binomial)."""
    return sum(
        math.comb(trials, k) * share**k * (1.0 - share) ** (trials - k) for k in range(count + 1)
    )


def format_gain(metric: str, gain: float) -> str:
    """An improvement with its unit: a share of an error as percent, a difference of auc as it is.

    0.021 is "2.1 %" for errors and "0.021" for auc.
    """
    return f"{gain:.3g}" if metric in GREATER_IS_BETTER else f"{100 * gain:.3g} %"
