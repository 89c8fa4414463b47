"""Prediction intervals from the newest errors whose truth is known.

Split conformal prediction (Lei, G'Sell, Rinaldo, Tibshirani, Wasserman, Distribution-free
predictive inference for regression, 2018) over a rolling window, whose level is corrected slowly by
what the intervals so far did cover (Gibbs & Candes, Adaptive conformal inference under distribution
shift, 2021). Errors of prices grow and shrink over the years; intervals of fixed width cover too
much in quiet times and too little in others.

Everything follows from a history of errors: a frame that grows a row at a time and is never
changed. Equal histories give equal intervals, in an evaluation and when serving.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlops_assets.spec import ProductSpec

HISTORY_COLUMNS = ("event_time", "label_time", "residual", "scale")
CORRECTION = 0.01
"""How far the level moves after each interval that did or did not cover."""
LEVELS = (0.02, 0.8)
"""Smallest and greatest share left out that a correction leads to."""


@dataclass(frozen=True)
class Intervals:
    """Ends of prediction intervals, shape (rows,), in the label's unit; NaN: none can be told."""

    low: np.ndarray
    high: np.ndarray


def residual_history(
    rows: pd.DataFrame, predicted: np.ndarray, scale: np.ndarray | None = None
) -> pd.DataFrame:
    """Errors of a model on rows that it did not learn from.

    Args:
        rows: labelled rows of a features frame.
        predicted: shape (rows,), in the label's unit.
        scale: by which errors grow, positive, shape (rows,); None: by nothing.

    Returns:
        event_time, label_time, residual (label less prediction) and scale, by event time; rows
        without a label, a prediction or a positive scale are left out.
    """
    history = pd.DataFrame(
        {
            "event_time": rows["event_time"].to_numpy(),
            "label_time": rows["label_time"].to_numpy(),
            "residual": rows["label"].to_numpy(dtype="float64") - predicted,
            "scale": np.ones(len(rows)) if scale is None else np.asarray(scale, dtype="float64"),
        }
    )
    usable = np.isfinite(history["residual"]) & np.isfinite(history["scale"])
    usable &= (history["scale"] > 0) & history["label_time"].notna()
    return history[usable].sort_values("event_time", kind="stable", ignore_index=True)


def joined_history(histories: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Several histories as one, by event time; such as that of validation and of holdout rows."""
    filled = [history for history in histories if len(history)] or list(histories[:1])
    together = pd.concat(filled, ignore_index=True)
    return together.sort_values("event_time", kind="stable", ignore_index=True)


def rolling_intervals(
    history: pd.DataFrame,
    event_time: pd.Series,
    predicted: np.ndarray,
    scale: np.ndarray | None = None,
    *,
    coverage: float,
    window: int,
) -> Intervals:
    """Intervals of rows, each from the errors whose label was known at its event time.

    A row may be in the history, too: its own label is known later than its event. With few errors
    an interval reaches from the smallest to the largest of them; without any it is NaN.

    Args:
        history: as `residual_history` gives it.
        event_time: of the rows, shape (rows,), in any order.
        predicted: of the rows, shape (rows,), in the label's unit.
        scale: of the rows, as in the history; where it is not positive, the median of the window's;
            None: 1.
        coverage: nominal share of the labels inside, between 0 and 1.
        window: newest errors that are used.
    """
    times = _nanoseconds(event_time)
    scales = np.ones(len(times)) if scale is None else np.asarray(scale, dtype="float64")
    path = _Path(history, coverage, window)
    low, high = np.full(len(times), np.nan), np.full(len(times), np.nan)
    order = np.argsort(times, kind="stable")
    for row, ends in zip(order, path.ends_at(times[order]), strict=True):
        unit = scales[row] if scales[row] > 0 else path.usual_scale()
        low[row], high[row] = ends.low * unit, ends.high * unit
    values = np.asarray(predicted, dtype="float64")
    return Intervals(values + low, values + high)


def intervals_around(
    history: pd.DataFrame,
    rows: pd.DataFrame,
    predicted: np.ndarray,
    scale: str | None,
    *,
    spec: ProductSpec,
) -> Intervals:
    """Intervals of rows since the start of the holdout, from all errors known at each of them.

    The very same when a candidate is judged and when it serves: its errors on the rows of the
    holdout with a label join those it made before.

    Args:
        history: errors before the holdout, as `residual_history` gives it.
        rows: of a features frame, with labels where these are known.
        predicted: of the rows, shape (rows,).
        scale: the feature by which errors grow; None: by nothing.
        spec: nominal coverage and window; without intervals for classification.
    """
    if spec.task != "regression":
        none = np.full(len(rows), np.nan)
        return Intervals(none, none)
    units = scale_of(rows, scale)
    return rolling_intervals(
        joined_history([history, residual_history(rows, predicted, units)]),
        rows["event_time"],
        predicted,
        units,
        coverage=spec.predictions.interval,
        window=spec.predictions.interval_window,
    )


def scale_of(rows: pd.DataFrame, scale: str | None) -> np.ndarray | None:
    """Values of the feature by which errors grow, shape (rows,); None when there is none."""
    if scale is None or scale not in rows:
        return None
    return rows[scale].to_numpy(dtype="float64", na_value=np.nan)


def covered_ends(residuals: np.ndarray, left_out: float) -> tuple[float, float]:
    """What to add to a prediction so that a share `left_out` of the labels is outside.

    Half of it on either side, with the finite-sample rank of split conformal prediction; at few
    residuals that is the smallest and the largest. NaN, NaN without residuals.
    """
    count = len(residuals)
    if not count:
        return float("nan"), float("nan")
    outside = int(np.floor((count + 1) * left_out / 2.0 + 1e-9))
    place = min(max(outside - 1, 0), (count - 1) // 2)
    ends = np.partition(residuals, [place, count - 1 - place])
    return float(ends[place]), float(ends[count - 1 - place])


@dataclass(frozen=True)
class _Ends:
    low: float
    high: float


class _Path:
    """The intervals of one history, in the order of time, and how their level was corrected."""

    def __init__(self, history: pd.DataFrame, coverage: float, window: int) -> None:
        events = _nanoseconds(history["event_time"])
        # A label is known after its event, whatever a source says: no row may know its own.
        known = np.maximum(_nanoseconds(history["label_time"]), events + 1)
        order = np.argsort(known, kind="stable")
        self._known, self._events = known[order], events[order]
        self._scale = history["scale"].to_numpy(dtype="float64")[order]
        self._errors = history["residual"].to_numpy(dtype="float64")[order] / self._scale
        self._target, self._window = 1.0 - coverage, window
        self._left_out, self._seen = self._target, 0
        self._covered = np.full(len(known), np.nan)

    def ends_at(self, times: np.ndarray) -> Iterator[_Ends]:
        """Ends in units of the scale, for ascending times."""
        waiting = np.argsort(self._events, kind="stable")
        place = 0
        for time in times.tolist():
            while place < len(waiting) and self._events[waiting[place]] < time:
                row = waiting[place]
                ends = self._ends(int(self._events[row]))
                inside = ends.low <= self._errors[row] <= ends.high
                self._covered[row] = inside if ends.low == ends.low else np.nan
                place += 1
            yield self._ends(time)

    def _ends(self, time: int) -> _Ends:
        """At a time, after learning from every label known by then."""
        while self._seen < len(self._known) and self._known[self._seen] <= time:
            self._correct(self._covered[self._seen])
            self._seen += 1
        return _Ends(*covered_ends(self._errors[self._newest], self._left_out))

    def usual_scale(self) -> float:
        """Median scale of the window at the time of the ends given last; NaN without errors."""
        return float(np.median(self._scale[self._newest])) if self._seen else float("nan")

    @property
    def _newest(self) -> slice:
        return slice(max(0, self._seen - self._window), self._seen)

    def _correct(self, covered: float) -> None:
        if covered == covered:
            step = CORRECTION * (self._target - (1.0 - covered))
            self._left_out = min(max(self._left_out + step, LEVELS[0]), LEVELS[1])


def _nanoseconds(times: pd.Series) -> np.ndarray:
    return times.to_numpy(dtype="datetime64[ns]").astype("int64")
