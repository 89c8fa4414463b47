"""Whether the model in use is worth having at all: beside the naive rule that would serve."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mlops_assets.ml.monitoring.performance import (
    LOOKS,
    naive_at,
    newly_known,
    places_of,
    rare_class,
)
from mlops_assets.ml.stats.bootstrap import gain_estimate
from mlops_assets.ml.stats.draws import draw_rows
from mlops_assets.ml.stats.metrics import UNKNOWN, Estimate, improvement, score
from mlops_assets.spec import ProductSpec


def serving_naive(
    spec: ProductSpec, table: pd.DataFrame, features: pd.DataFrame, name: str
) -> np.ndarray:
    """What the baseline that would serve says of the rows of performance, shape (rows,).

    The first baseline's predictions are in the table as they were made; another one's are made
    from the features as they are now, NaN for rows that these no longer have.

    Args:
        spec: the product as it is for this country.
        table: of performance.
        features: the features frame.
        name: of the baseline.
    """
    if name == spec.baselines[0].name:
        return table["baseline"].to_numpy(dtype="float64")
    baseline = next(each for each in spec.baselines if each.name == name)
    return naive_at(spec, features, places_of(table, features), baseline)


def rows_in_use(
    spec: ProductSpec, table: pd.DataFrame, version: str, naive: np.ndarray
) -> np.ndarray:
    """Which rows a version is compared with the baseline on, shape (rows,), of booleans.

    Those that it predicted ahead or late whose label became known in the newest
    `monitoring.label_days`, as `performance.realised` takes them, and that both predict.

    Args:
        spec: the product as it is for this country.
        table: of performance.
        version: the champion's.
        naive: as `serving_naive`.
    """
    own = (table["model_version"] == version).to_numpy() & newly_known(table, spec)
    predicted = table["prediction"].to_numpy(dtype="float64")
    return own & np.isfinite(predicted) & np.isfinite(naive)


def against_baseline(
    spec: ProductSpec, table: pd.DataFrame, version: str, naive: np.ndarray
) -> Estimate:
    """Gain of the model in use on the baseline that would serve, on the same matured rows.

    Positive is better, as `metrics.improvement`. The model is significantly worse than the baseline
    when the upper end is below 0. Whoever looks every week finds a difference by chance some day,
    so the rest of `monitoring.confidence` is shared by `LOOKS` looks. An interval is only drawn
    where the value is below 0; `UNKNOWN` for a baseline in use, with fewer than
    `monitoring.min_labels` rows, and for auc with fewer than `gates.min_slice_class_rows` of either
    class.

    Args:
        spec: the product as it is for this country.
        table: of performance.
        version: the champion's; "" for the baseline.
        naive: as `serving_naive`.
    """
    rows = rows_in_use(spec, table, version, naive) if version else np.zeros(len(table), bool)
    return gain_on(
        spec,
        table[rows],
        table["prediction"].to_numpy(dtype="float64")[rows],
        naive[rows],
        tail=tail_of(spec),
    )


def tail_of(spec: ProductSpec) -> float:
    """Chance beyond either end of an interval that says whether a model is worse for certain."""
    return (1.0 - spec.monitoring.confidence) / 2.0 / LOOKS


def gain_on(
    spec: ProductSpec, rows: pd.DataFrame, ours: np.ndarray, theirs: np.ndarray, *, tail: float
) -> Estimate:
    """Improvement of predictions on others on the same labelled rows, as `against_baseline`.

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
