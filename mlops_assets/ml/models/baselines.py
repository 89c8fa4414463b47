"""What naive rules predict, and which of them is the one to beat."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mlops_assets.errors import ConfigurationError
from mlops_assets.ml.features.feature_frame import feature_columns
from mlops_assets.ml.stats.metrics import is_better
from mlops_assets.spec import BaselineSpec


def baseline_predictions(
    baseline: BaselineSpec, train: pd.DataFrame, rows: pd.DataFrame
) -> np.ndarray:
    """What a naive rule predicts for `rows`, shape (rows,).

    Where the feature of rule `feature` is missing, the mean label of `train` stands in, so that a
    baseline always answers if there is any history; NaN if there is none.

    Raises:
        ConfigurationError: the rows have no such feature.
    """
    mean = float(train["label"].mean()) if len(train) else float("nan")
    if baseline.rule == "mean" or baseline.feature is None:
        return np.full(len(rows), mean)
    if baseline.feature not in rows:
        raise ConfigurationError(
            f"The baseline {baseline.name} is the feature {baseline.feature}, which the rows do "
            "not have.",
            stored="Nothing was predicted.",
            way_out=f"Name one of {', '.join(feature_columns(rows))}.",
            culprits={"baseline": baseline.name, "feature": baseline.feature},
        )
    values = rows[baseline.feature].to_numpy(dtype="float64", na_value=np.nan)
    return np.where(np.isfinite(values), values, mean)


def best_of(metric: str, values: Mapping[str, float]) -> str:
    """Name of the best value, the first of equals; "" when none can be told."""
    best = ""
    for name, value in values.items():
        if np.isfinite(value) and (not best or is_better(metric, value, values[best])):
            best = name
    return best
