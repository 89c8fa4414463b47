"""Prediction intervals of a registered model: the errors they follow from are stored with it."""

import io

import numpy as np
import pandas as pd

from mlops_assets.ml.evaluation.intervals import (
    HISTORY_COLUMNS,
    Intervals,
    intervals_around,
)
from mlops_assets.registry import ModelVersion, Registry
from mlops_assets.spec import ProductSpec

SCALE_TAG = "interval_scale"
"""On a registered version: the feature by which its errors grow; "" for none."""
_FILE = "residuals.csv"


def errors_file(errors: pd.DataFrame) -> dict[str, str]:
    """The errors as a file of the MLflow run."""
    return {_FILE: errors.to_csv(index=False)}


def stored_errors(version: ModelVersion, registry: Registry) -> pd.DataFrame:
    """The errors that a version was registered with.

    Raises:
        RegistryError: they are lost.
    """
    text = registry.artifact(version, _FILE)
    errors = pd.read_csv(io.StringIO(text), parse_dates=["event_time", "label_time"])
    return errors.astype({"residual": "float64", "scale": "float64"})


def intervals_of(
    version: ModelVersion,
    rows: pd.DataFrame,
    predicted: np.ndarray,
    spec: ProductSpec,
    *,
    registry: Registry,
) -> Intervals:
    """Intervals of a registered model's predictions, exactly as it was judged with them.

    Its errors before the holdout are stored with it. Those since then are of `rows`, and of
    predictions for rows that their model has not seen: of the evaluation model as long as the
    labels were known at the training, and of the served model afterwards.

    Args:
        version: as registered.
        rows: of a features frame, since the start of the holdout.
        predicted: by the version or its evaluation model, shape (rows,).
        spec: the product as it is for the country.
        registry: where the errors are.

    Raises:
        RegistryError: the errors are lost.
    """
    none = pd.DataFrame(columns=list(HISTORY_COLUMNS))
    errors = stored_errors(version, registry) if spec.task == "regression" else none
    return intervals_around(errors, rows, predicted, version.tags[SCALE_TAG] or None, spec=spec)
