"""Candidate against champion on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlops_assets.ml.evaluation import losses, score
from mlops_assets.ml.gates import GateResult
from mlops_assets.spec import GREATER_IS_BETTER

Verdict = Literal["promoted", "kept", "not_judged"]
BATCH = 50
"""Bootstrap draws computed at once: keeps the weights of 10,000 rows in a few megabytes."""


@dataclass(frozen=True)
class Decision:
    """The outcome of comparing a candidate with the champion.

    Args:
        verdict: promoted; kept (the champion stays); not_judged (it stays, for want of rows).
        reason: why, in a sentence.
        rows: both were scored on.
        candidate_value: metric of the candidate; NaN when it was not scored.
        champion_value: metric of the champion; NaN without one.
        gain: by how much the candidate is better, in the metric's unit; positive is better.
        lower: 5 % bound of the gain over the bootstrap draws.
        upper: 95 % bound.
    """

    verdict: Verdict
    reason: str
    rows: int
    candidate_value: float
    champion_value: float
    gain: float = float("nan")
    lower: float = float("nan")
    upper: float = float("nan")


def decide(
    metric: str,
    y: np.ndarray,
    candidate: np.ndarray,
    champion: np.ndarray | None,
    gates: Sequence[GateResult],
    *,
    seed: int = 0,
    draws: int = 500,
) -> Decision:
    """Promote the candidate if its gates passed and it is better than the champion for certain.

    For certain: the gain in the metric over a paired bootstrap of the rows is above 0 at its 5 %
    bound. Without a champion the gates alone decide.

    Args:
        metric: to compare by.
        y: labels of the holdout rows, shape (rows,).
        candidate: its predictions of those rows.
        champion: the champion's predictions of the same rows; None if there is no champion.
        gates: every gate's outcome.
        seed: of the bootstrap.
        draws: of the bootstrap.
    """
    y, candidate = np.asarray(y, dtype="float64"), np.asarray(candidate, dtype="float64")
    ours = score(metric, y, candidate)
    theirs = float("nan") if champion is None else score(metric, y, champion)
    stopped = _stopped_by(gates)
    if stopped is not None:
        verdict: Verdict = "not_judged" if stopped.passed is None else "kept"
        reason = f"gate {stopped.name}: {stopped.description}"
        return Decision(verdict, reason, len(y), ours, theirs)
    if champion is None:
        reason = "first champion: every gate passed and there was none before"
        return Decision("promoted", reason, len(y), ours, theirs)
    champion = np.asarray(champion, dtype="float64")
    return _compare(metric, y, candidate, champion, ours, theirs, seed, draws)


def paired_gains(
    metric: str, y: np.ndarray, a: np.ndarray, b: np.ndarray, *, seed: int, draws: int
) -> np.ndarray:
    """Gain of predictions `a` over `b` in each of `draws` samples of rows with replacement.

    In the metric's unit, positive when `a` is better; draws without both classes (auc) are left
    out. Shape (draws,) or less.
    """
    rng = np.random.default_rng(seed)
    gains = []
    for start in range(0, draws, BATCH):
        weights = _weights(rng, len(y), min(BATCH, draws - start))
        gains.append(_values(metric, y, b, weights) - _values(metric, y, a, weights))
    gain = np.concatenate(gains) if gains else np.empty(0)
    gain = gain[np.isfinite(gain)]
    return -gain if metric in GREATER_IS_BETTER else gain


def _stopped_by(gates: Sequence[GateResult]) -> GateResult | None:
    failed = [gate for gate in gates if gate.passed is False]
    unjudged = [gate for gate in gates if gate.passed is None]
    return next(iter([*failed, *unjudged]), None)


def _compare(
    metric: str,
    y: np.ndarray,
    candidate: np.ndarray,
    champion: np.ndarray,
    ours: float,
    theirs: float,
    seed: int,
    draws: int,
) -> Decision:
    gain = ours - theirs if metric in GREATER_IS_BETTER else theirs - ours
    if not np.isfinite(gain):
        reason = f"{metric} cannot be told on {len(y)} rows; the champion stays"
        return Decision("not_judged", reason, len(y), ours, theirs)
    gains = paired_gains(metric, y, candidate, champion, seed=seed, draws=draws)
    lower, upper = (float(bound) for bound in np.quantile(gains, [0.05, 0.95]))
    better = lower > 0
    reason = (
        f"candidate's {metric} {ours:.4g} against {theirs:.4g} on the same {len(y)} rows: gain "
        f"{gain:.3g}, {lower:.3g} to {upper:.3g} in 90 % of {draws} draws, "
        + ("above 0" if better else "not surely above 0; the champion stays")
    )
    verdict: Verdict = "promoted" if better else "kept"
    return Decision(verdict, reason, len(y), ours, theirs, gain, lower, upper)


def _weights(rng: np.random.Generator, rows: int, draws: int) -> np.ndarray:
    """How often each row is in each draw, shape (draws, rows)."""
    picked = rng.integers(0, rows, size=(draws, rows)) + np.arange(draws)[:, None] * rows
    counts = np.bincount(picked.ravel(), minlength=draws * rows)
    return counts.reshape(draws, rows).astype("float64")


def _values(metric: str, y: np.ndarray, p: np.ndarray, weights: np.ndarray) -> np.ndarray:
    if metric == "auc":
        return _weighted_auc(y, p, weights)
    means = weights @ losses(metric, y, p) / len(y)
    return np.sqrt(means) if metric == "rmse" else means


def _weighted_auc(y: np.ndarray, p: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUC of each draw: of each row of class 1, the weight of class 0 below it and half of ties."""
    ones, zeros = np.flatnonzero(y > 0.5), np.flatnonzero(y <= 0.5)
    zeros = zeros[np.argsort(p[zeros], kind="stable")]
    below = np.zeros((len(weights), len(zeros) + 1))
    np.cumsum(weights[:, zeros], axis=1, out=below[:, 1:])
    places = [np.searchsorted(p[zeros], p[ones], side) for side in ("left", "right")]
    won = sum(np.einsum("ij,ij->i", weights[:, ones], below[:, place]) for place in places)
    pairs = weights[:, ones].sum(axis=1) * below[:, -1]
    return np.divide(won / 2.0, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
