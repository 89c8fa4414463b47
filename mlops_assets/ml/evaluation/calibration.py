"""Whether probabilities mean what they say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from mlops_assets.ml.stats.bootstrap import interval, widening
from mlops_assets.ml.stats.draws import BootstrapWeights
from mlops_assets.ml.stats.metrics import NAN, UNKNOWN, Estimate

RELIABILITY_BINS = 10
HALVINGS = 20


def reliability_table(y: np.ndarray, p: np.ndarray) -> pd.DataFrame:
    """Predicted and observed share of class 1 in ten bins of equal width; empty bins left out."""
    y, p = np.asarray(y, dtype="float64"), np.asarray(p, dtype="float64")
    y, p = y[np.isfinite(p)], p[np.isfinite(p)]
    place = np.clip((p * RELIABILITY_BINS).astype("int64"), 0, RELIABILITY_BINS - 1)
    rows = np.bincount(place, minlength=RELIABILITY_BINS)
    filled = rows > 0
    sums = [np.bincount(place, weights, RELIABILITY_BINS)[filled] for weights in (p, y)]
    count = rows[filled]
    return pd.DataFrame({"rows": count, "predicted": sums[0] / count, "observed": sums[1] / count})


def equal_size_bins(p: np.ndarray) -> np.ndarray:
    """Which of ten bins of about as many rows each prediction is in; equal ones are together."""
    _, place, counts = np.unique(p, return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2.0)[place]
    return (middle / len(p) * RELIABILITY_BINS).astype("int64")


def calibration_error(y: np.ndarray, p: np.ndarray) -> float:
    """Expected calibration error: mean distance of predicted and observed share, 0 to 1.

    Over ten bins of equal size, weighted by their rows (Naeini, Cooper, Hauskrecht, Obtaining well
    calibrated probabilities using Bayesian binning, 2015). Lower is better; NaN without rows or
    with a missing prediction.
    """
    if not len(y) or not np.isfinite(p).all():
        return NAN
    return float(np.abs(np.bincount(equal_size_bins(p), p - y)).sum() / len(y))


def calibration_estimate(
    y: np.ndarray, p: np.ndarray, draws: BootstrapWeights, tail: float
) -> Estimate:
    """The expected calibration error with an interval that knows what chance adds to it.

    Even a calibrated model has an error above 0 on few rows. So the lower end is the least error
    with which the one observed would not be a surprise: the gaps of the bins are shrunk by a
    common factor until the observed error is the `1 - tail` quantile of shrunk gaps plus noise, as
    the bootstrap tells the noise (a test turned into an interval: Davison & Hinkley, Bootstrap
    methods and their application, 1997, 5.5). The upper end likewise. The bins are those of all
    rows.
    """
    value = calibration_error(y, p)
    if not np.isfinite(value) or draws.problem:
        return Estimate(value)
    gaps, noise = _gaps_and_noise(y, p, draws)
    noise = noise * widening(draws.parts, tail)

    def observed_at(error: float, share: float) -> float:
        shrunk = gaps * (error / value) if value else gaps
        return float(np.quantile(np.abs(shrunk + noise).sum(axis=1), share))

    lower = _least(lambda error: observed_at(error, 1.0 - tail) >= value, 0.0, value)
    upper = _least(lambda error: observed_at(error, tail) > value, value, 1.0)
    return Estimate(value, lower, upper)


def calibration_gain(
    y: np.ndarray, p: np.ndarray, reference: np.ndarray, draws: BootstrapWeights, *, tail: float
) -> Estimate:
    """By how much the expected calibration error of `p` is under that of a reference, paired.

    Both on the same rows, in every draw; positive is better. What chance adds to either is in both,
    and cancels where they are alike. Without ends when there is too little to draw from.
    """
    value = calibration_error(y, reference) - calibration_error(y, p)
    if not np.isfinite(value):
        return UNKNOWN
    ours, theirs = (
        np.abs(gaps + noise).sum(axis=1)
        for gaps, noise in (_gaps_and_noise(y, each, draws) for each in (p, reference))
    )
    return interval(value, theirs - ours, tail, draws.parts)


def _gaps_and_noise(
    y: np.ndarray, p: np.ndarray, draws: BootstrapWeights
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted less observed share times share of rows, by bin (10,), and what the draws add."""
    bins, rows = equal_size_bins(p), draws.sums()
    gaps = draws.totals(p - y, bins, RELIABILITY_BINS) / len(y)
    drawn = draws.sums(p - y, bins, RELIABILITY_BINS)
    return gaps, drawn[rows > 0] / rows[rows > 0][:, None] - gaps


def _least(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The least number from low to high for which something holds, that holds above it, too."""
    if holds(low):
        return low
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
