"""How good predictions are: metrics, baselines, and the report a gate reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlops_assets.spec import (
    GREATER_IS_BETTER,
    METRICS_OF_TASK,
    BaselineSpec,
    ProductSpec,
)

RELIABILITY_BINS = 10
TINY = 1e-15
"""Probabilities are kept this far from 0 and 1 in the log loss."""


@dataclass(frozen=True)
class Report:
    """How predictions did on rows with known labels.

    Args:
        rows: judged rows.
        first: event time of the first row; None without rows.
        last: event time of the last row; None without rows.
        metric: what the product compares by.
        value: of the metric; NaN when it cannot be judged (no rows, or one class for auc).
        metrics: every metric of the task by name.
        baselines: the metric of every baseline on the same rows.
        best_baseline: name of the best of them; "" when none can be judged.
        by_month: month ("2025-01"), rows, value and baseline (the best one's), in order.
        reliability: for classification up to 10 bins: rows, predicted, observed; else None.
    """

    rows: int
    first: pd.Timestamp | None
    last: pd.Timestamp | None
    metric: str
    value: float
    metrics: Mapping[str, float]
    baselines: Mapping[str, float]
    best_baseline: str
    by_month: pd.DataFrame
    reliability: pd.DataFrame | None

    @property
    def judged(self) -> bool:
        """Whether the metric has a value."""
        return bool(np.isfinite(self.value))

    @property
    def baseline_value(self) -> float:
        """Metric of the best baseline; NaN when none can be judged."""
        return self.baselines.get(self.best_baseline, float("nan"))

    @property
    def improvement(self) -> float:
        """By how much the predictions beat the best baseline; see `improvement`."""
        return improvement(self.metric, self.value, self.baseline_value)


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


def baseline_predictions(
    baseline: BaselineSpec, train: pd.DataFrame, rows: pd.DataFrame
) -> np.ndarray:
    """What a naive rule predicts for `rows`, shape (rows,).

    Where the feature of rule `feature` is missing, the mean label of `train` stands in, so that a
    baseline always answers if there is any history; NaN if there is none.
    """
    mean = float(train["label"].mean()) if len(train) else float("nan")
    if baseline.rule == "mean" or baseline.feature is None:
        return np.full(len(rows), mean)
    values = rows[baseline.feature].to_numpy(dtype="float64", na_value=np.nan)
    return np.where(np.isfinite(values), values, mean)


def evaluate(
    rows: pd.DataFrame, predicted: np.ndarray, spec: ProductSpec, train: pd.DataFrame
) -> Report:
    """Judge predictions of labelled rows next to every baseline of the product.

    Args:
        rows: rows of a features frame with labels.
        predicted: shape (rows,); for classification the probability of class 1.
        spec: names metric, task and baselines.
        train: the rows the predictions' model learned from; baselines take their mean from it.
    """
    label = rows["label"].to_numpy(dtype="float64")
    naive = {base.name: baseline_predictions(base, train, rows) for base in spec.baselines}
    values = {name: score(spec.metric, label, guess) for name, guess in naive.items()}
    best = _best(spec.metric, values)
    monthly = _by_month(rows["event_time"], spec.metric, label, predicted, naive.get(best))
    return Report(
        rows=len(rows),
        first=rows["event_time"].min() if len(rows) else None,
        last=rows["event_time"].max() if len(rows) else None,
        metric=spec.metric,
        value=score(spec.metric, label, predicted),
        metrics={name: score(name, label, predicted) for name in METRICS_OF_TASK[spec.task]},
        baselines=values,
        best_baseline=best,
        by_month=monthly,
        reliability=reliability(label, predicted) if spec.task == "classification" else None,
    )


def reliability(y: np.ndarray, p: np.ndarray) -> pd.DataFrame:
    """Predicted and observed share of class 1 in ten bins of equal width; empty bins left out."""
    y, p = np.asarray(y, dtype="float64"), np.asarray(p, dtype="float64")
    place = np.clip((p * RELIABILITY_BINS).astype("int64"), 0, RELIABILITY_BINS - 1)
    rows = np.bincount(place, minlength=RELIABILITY_BINS)
    filled = rows > 0
    sums = [np.bincount(place, weights, RELIABILITY_BINS)[filled] for weights in (p, y)]
    count = rows[filled]
    return pd.DataFrame({"rows": count, "predicted": sums[0] / count, "observed": sums[1] / count})


def interval_offsets(y: np.ndarray, p: np.ndarray, coverage: float) -> tuple[float, float]:
    """What to add to a prediction for the lower and upper end of its interval (split conformal).

    Each side leaves out half of `1 - coverage` of the residuals `y - p` of rows the model has not
    seen, with the finite-sample rank of split conformal prediction; at few rows that is the
    smallest or largest residual. NaN, NaN without rows.
    """
    residuals = np.sort(np.asarray(y, dtype="float64") - np.asarray(p, dtype="float64"))
    residuals = residuals[np.isfinite(residuals)]
    count = len(residuals)
    if not count:
        return float("nan"), float("nan")
    outside = int(np.floor((count + 1) * (1.0 - coverage) / 2.0 + 1e-9))
    place = min(max(outside - 1, 0), (count - 1) // 2)
    return float(residuals[place]), float(residuals[count - 1 - place])


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


def _best(metric: str, values: Mapping[str, float]) -> str:
    best = ""
    for name, value in values.items():
        if np.isfinite(value) and (not best or is_better(metric, value, values[best])):
            best = name
    return best


def _by_month(
    times: pd.Series, metric: str, y: np.ndarray, p: np.ndarray, naive: np.ndarray | None
) -> pd.DataFrame:
    months = times.dt.strftime("%Y-%m").to_numpy(dtype="object")
    naive = np.full(len(y), np.nan) if naive is None else naive
    rows = [
        (month, int(at.sum()), score(metric, y[at], p[at]), score(metric, y[at], naive[at]))
        for month in np.unique(months.astype(str))
        for at in [months == month]
    ]
    return pd.DataFrame(rows, columns=["month", "rows", "value", "baseline"])
