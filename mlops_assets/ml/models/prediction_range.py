"""Whether predictions are valid ones, and what becomes of those that are not.

One rule for a candidate before it comes into use, for predictions that are made in a run, and for
whoever answers a single row: all of them call these functions.

Judged are the rows that wait for their label, because somebody acts on these. A row of long ago
whose prediction is no valid one is treated alike, but it never stops the newest ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from mlops_assets.ml.models.split import newest_label
from mlops_assets.spec import PredictionsSpec

RowAnswer = Literal["", "clipped", "baseline", "left_out"]
"""How a row was answered: as the model says, at the limit, by the baseline, or not at all."""
_WAYS_OUT = (
    "have the product declare what becomes of such rows (`predictions.beyond`: clip, leave_out or "
    "baseline, up to `predictions.beyond_share`), correct the limits, or choose a model that keeps "
    "them"
)
_ALMOST = 1e-9
"""Of a share in binary: 29 of 100 rows are not more than 0.29."""


@dataclass(frozen=True)
class RangeVerdict:
    """Predictions of some rows held against the range.

    Args:
        rows: that were judged.
        beyond: of them, whose prediction is outside the limits or no number.
        empty: of these, the ones that are no number (missing or infinite).
        worst: the one farthest outside; NaN where none is outside.
        where: entity and time of that one, or of the first that is no number; "" for none.
        limit: the one that the worst is farthest beyond; NaN where none is outside.
        allowed: most rows beyond with which predictions are taken.
    """

    rows: int
    beyond: int = 0
    empty: int = 0
    worst: float = math.nan
    where: str = ""
    limit: float = math.nan
    allowed: int = 0

    @property
    def is_refused(self) -> bool:
        """Whether no prediction of this model is taken."""
        return self.beyond > self.allowed

    def describe(self, limits: PredictionsSpec) -> str:
        """How many of how many, the worst one and the limits, in words."""
        told = f"{self.beyond:,} of {self.rows:,} predictions are "
        if self.beyond and self.empty == self.beyond:
            return f"{told}no number, the first for {self.where}"
        told += f"beyond {limits.minimum:g} to {limits.maximum:g}"
        if not self.beyond:
            return told
        if self.empty:
            told += f" ({self.empty:,} of them no number)"
        by = abs(self.worst - self.limit)
        return f"{told}, the worst {self.worst:.6g} by {by:.3g}, for {self.where}"

    def describe_refusal(self, limits: PredictionsSpec) -> str:
        """The same with what is allowed, and the way out."""
        return f"{self.describe(limits)}; {_allowed(self.allowed, limits)}. Way out: {_WAYS_OUT}"


@dataclass(frozen=True)
class Admitted:
    """Predictions of rows as they are given out.

    Args:
        values: shape (rows,); NaN where a row is left out.
        answers: how each row was answered, shape (rows,), one of `RowAnswer`.
        verdict: of the rows that are waited for.
        refusal: why none of them is taken, with the way out; "" if they are.
        told: what was changed, in words; "" for nothing.
    """

    values: np.ndarray
    answers: np.ndarray
    verdict: RangeVerdict
    refusal: str
    told: str

    @property
    def left_out(self) -> np.ndarray:
        """Rows without an answer, shape (rows,)."""
        return self.answers == "left_out"


def beyond_range(values: np.ndarray, limits: PredictionsSpec) -> np.ndarray:
    """Which predictions are outside the limits or no number, shape (rows,); a limit is inside."""
    given = np.asarray(values, dtype="float64")
    with np.errstate(invalid="ignore"):
        return ~((given >= limits.minimum) & (given <= limits.maximum))


def awaited_rows(rows: pd.DataFrame, newest: pd.Timestamp | None = None) -> np.ndarray:
    """Which rows somebody waits for, shape (rows,): their label is neither known nor due.

    A label is due when it matures no later than the newest one that is known: it may never come.
    Where every label is known or due, the rows of the newest event are the ones that are awaited.

    Args:
        rows: of a features frame.
        newest: label time of the newest label known; None: of `rows`.
    """
    known_until = newest_label(rows) if newest is None else newest
    waits = rows["label"].isna().to_numpy()
    if known_until is not None:
        waits &= ~(rows["label_time"] <= known_until).to_numpy()
    return waits if waits.any() else (rows["event_time"] == rows["event_time"].max()).to_numpy()


def judge_range(values: np.ndarray, rows: pd.DataFrame, limits: PredictionsSpec) -> RangeVerdict:
    """Hold predictions against the range.

    Args:
        values: shape (rows,).
        rows: with entity and event_time of each.
        limits: of the product in the country.
    """
    given = np.asarray(values, dtype="float64")
    beyond = beyond_range(given, limits)
    count, allowed = int(beyond.sum()), _most_allowed(len(given), limits)
    if not count:
        return RangeVerdict(len(given), allowed=allowed)
    distance = np.where(np.isfinite(given), _distance(given, limits), -1.0)
    empty = int((~np.isfinite(given)).sum())
    place = int(distance.argmax()) if count > empty else int(beyond.argmax())
    worst, limit = math.nan, math.nan
    if count > empty:
        worst = float(given[place])
        limit = limits.minimum if worst < limits.minimum else limits.maximum
    return RangeVerdict(len(given), count, empty, worst, _where(rows, place), limit, allowed)


def limits_of_history(limits: PredictionsSpec) -> PredictionsSpec:
    """What rows are held to whose label is known.

    When predictions are made such rows stop nothing, so that where none is to be answered
    otherwise the holdout is held to `beyond_share` as well.
    """
    strict = limits.beyond == "refuse"
    return limits.model_copy(update={"beyond": "leave_out"}) if strict else limits


def held_to_range(
    values: np.ndarray,
    rows: pd.DataFrame,
    awaited: np.ndarray,
    limits: PredictionsSpec,
    *,
    baseline: Callable[[], np.ndarray],
) -> Admitted:
    """Predictions as they are given out: those beyond the range treated as is declared.

    Args:
        values: of a model, shape (rows,).
        rows: with entity and event_time of each.
        awaited: of `awaited_rows`, shape (rows,).
        limits: of the product in the country.
        baseline: what the baseline says of the rows, shape (rows,); asked only where it is needed.
            A row for which it says nothing valid either is left out.
    """
    given = np.asarray(values, dtype="float64")
    verdict = judge_range(given[awaited], rows[awaited], limits)
    treated, answers = _treated(given, limits, baseline)
    answered = answers[awaited] != "left_out"
    refusal = verdict.describe_refusal(limits) if verdict.is_refused else ""
    if not refusal and not answered.any():
        told = f"{verdict.describe(limits)}; " if verdict.beyond else ""
        refusal = f"{told}no row that waits for its label has a prediction. Way out: {_WAYS_OUT}"
    return Admitted(treated, answers, verdict, refusal, _told(given, rows, answers, limits))


def _treated(
    given: np.ndarray, limits: PredictionsSpec, baseline: Callable[[], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Values and answers, each of shape (rows,)."""
    beyond = beyond_range(given, limits)
    values, answers = given.copy(), np.full(len(given), "", dtype="object")
    if not beyond.any():
        return values, answers
    if limits.beyond == "clip":
        values[beyond] = np.clip(given[beyond], limits.minimum, limits.maximum)
        answers[beyond] = "clipped"
        beyond = ~np.isfinite(given)  # which no limit is near to
    elif limits.beyond == "baseline":
        values[beyond], answers[beyond] = np.asarray(baseline(), "float64")[beyond], "baseline"
        beyond = beyond_range(values, limits)
    values[beyond], answers[beyond] = math.nan, "left_out"
    return values, answers


def _told(
    given: np.ndarray, rows: pd.DataFrame, answers: np.ndarray, limits: PredictionsSpec
) -> str:
    """What became of the rows beyond, of any age, in words."""
    how = {
        "clipped": "are at the limit",
        "baseline": "are answered by the baseline",
        "left_out": "are left out",
    }
    parts = [f"{int(n):,} {how[name]}" for name in how if (n := (answers == name).sum())]
    if not parts:
        return ""
    return f"{judge_range(given, rows, limits).describe(limits)}: {', '.join(parts)}"


def _most_allowed(rows: int, limits: PredictionsSpec) -> int:
    if limits.beyond == "refuse" or not limits.beyond_share:
        return 0
    return max(1, math.floor(limits.beyond_share * rows + _ALMOST))


def _allowed(most: int, limits: PredictionsSpec) -> str:
    if limits.beyond == "refuse":
        return "`predictions.beyond` is refuse, which takes none"
    return f"`predictions.beyond_share` {limits.beyond_share:g} takes {most:,}"


def _distance(given: np.ndarray, limits: PredictionsSpec) -> np.ndarray:
    """How far outside each is, shape (rows,); 0 or less: inside."""
    with np.errstate(invalid="ignore"):
        return np.maximum(limits.minimum - given, given - limits.maximum)


def _where(rows: pd.DataFrame, place: int) -> str:
    row = rows.iloc[place]
    return f"{row['entity']} at {row['event_time']}"
