"""Whether the model in use is worth having at all: beside the naive rule that would serve."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mlops_assets.ml.models.fitted_model import FittedModel, predict
from mlops_assets.ml.monitoring.performance import naive_at, newly_known, places_of
from mlops_assets.ml.stats.looks import gain_on, tail_of
from mlops_assets.ml.stats.metrics import NAN, Estimate
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


def withdrawal_rows(
    spec: ProductSpec,
    table: pd.DataFrame,
    features: pd.DataFrame,
    version: str,
    *,
    naive: np.ndarray,
    pooled: FittedModel | None = None,
) -> pd.DataFrame:
    """The matured rows of the champion, with what the baseline and the pooled model say of them.

    Args:
        spec: the product as it is for this country.
        table: of performance.
        features: the features frame.
        version: the champion's.
        naive: of the baseline that would serve (`serving_naive`), shape (rows of
            the table,).
        pooled: the evaluation model of the pooled one. Its predictions of rows up to the newest it
            learned from are left out, and all where it does not say which that is.

    Returns:
        The rows of `rows_in_use` with the columns `promotion.withdrawal.WITHDRAWAL_COLUMNS`.
    """
    kept = rows_in_use(spec, table, version, naive)
    rows = table[kept]
    made = rows[["entity", "event_time", "label_time", "label"]].assign(
        champion=rows["prediction"].to_numpy(dtype="float64"),
        baseline=naive[kept],
        pooled=_unseen(spec, rows, features, pooled),
    )
    return made.reset_index(drop=True)


def _unseen(
    spec: ProductSpec, rows: pd.DataFrame, features: pd.DataFrame, pooled: FittedModel | None
) -> np.ndarray:
    predicted = np.full(len(rows), NAN)
    if pooled is None or pooled.until is None:
        return predicted
    place = places_of(rows, features)
    new = (place >= 0) & (rows["event_time"] > pooled.until).to_numpy()
    if new.any():
        predicted[new] = predict(pooled, features.iloc[place[new]], spec.task)
    return predicted
