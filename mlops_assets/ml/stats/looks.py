"""Whether a model in use is worse than what could serve in its place, asked again and again."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mlops_assets.ml.stats.bootstrap import gain_estimate
from mlops_assets.ml.stats.draws import draw_rows
from mlops_assets.ml.stats.metrics import UNKNOWN, Estimate, improvement, score
from mlops_assets.spec import ProductSpec

LOOKS = 4
"""Looks at a version beside another one that share the chance of a false alarm: beside the one
before it the first eight times `monitoring.min_labels` rows. Later ones are far apart."""


def tail_of(spec: ProductSpec) -> float:
    """Chance beyond either end of an interval that says whether a model is worse for certain."""
    return (1.0 - spec.monitoring.confidence) / 2.0 / LOOKS


def gain_on(
    spec: ProductSpec, rows: pd.DataFrame, ours: np.ndarray, theirs: np.ndarray, *, tail: float
) -> Estimate:
    """Improvement of predictions on others on the same labelled rows; `UNKNOWN` for `too_few`.

    An interval is only drawn where the value is below 0.

    Args:
        spec: the product as it is for this country.
        rows: entity, event_time, label_time and label.
        ours: shape (rows,), finite.
        theirs: the same.
        tail: beyond either end.
    """
    label = rows["label"].to_numpy(dtype="float64")
    if too_few(spec, label):
        return UNKNOWN
    value = improvement(
        spec.metric, score(spec.metric, label, ours), score(spec.metric, label, theirs)
    )
    if not value < 0.0:
        return Estimate(value)
    draws = draw_rows(spec.evaluation, rows, seed=spec.seed)
    return gain_estimate(spec.metric, label, ours, theirs, draws=draws, tail=tail)


def too_few(spec: ProductSpec, label: np.ndarray) -> str:
    """Why so few labels cannot tell; "" where they can.

    Args:
        spec: the product as it is for this country.
        label: shape (rows,), finite.
    """
    needed = spec.monitoring.min_labels
    if len(label) < needed:
        return f"{len(label):,} matured rows that both predict, and {needed} are needed"
    return rare_class(spec, label)


def rare_class(spec: ProductSpec, label: np.ndarray) -> str:
    """Why an auc of these labels says little; "" if it does not, and for other metrics.

    Args:
        spec: the product as it is for this country.
        label: shape (rows,), finite.
    """
    ones = int((label > 0.5).sum())
    fewest, needed = min(ones, len(label) - ones), spec.gates.min_slice_class_rows
    if spec.metric != "auc" or fewest >= needed:
        return ""
    return f"{fewest} matured rows of the rarer class, and {needed} are needed for auc"
