"""Prediction intervals of a registered model: the errors they follow from are stored with it."""

import io

import pandas as pd

from mlops_assets.ml.intervals import HISTORY_COLUMNS, residual_history, scale_of
from mlops_assets.ml.selection import Selection
from mlops_assets.ml.split import Split
from mlops_assets.registry import ModelVersion, Registry
from mlops_assets.spec import ProductSpec

SCALE_TAG = "interval_scale"
"""On a registered version: the feature by which its errors grow; "" for none."""
_FILE = "residuals.csv"


def scale_feature(selection: Selection, spec: ProductSpec) -> str | None:
    """The feature by which the errors of the choice grow: what its candidate learns in units of."""
    return next((each.scale for each in spec.candidates if each.name == selection.name), None)


def errors_before(selection: Selection, parts: Split, spec: ProductSpec) -> pd.DataFrame:
    """What the choice got wrong on the validation rows, before it had seen them."""
    units = scale_of(parts.validation, scale_feature(selection, spec))
    if len(selection.validated) != len(parts.validation):
        return pd.DataFrame(columns=list(HISTORY_COLUMNS))
    return residual_history(parts.validation, selection.validated, units)


def errors_file(errors: pd.DataFrame) -> dict[str, str]:
    """The errors as a file of the MLflow run."""
    return {_FILE: errors.to_csv(index=False)}


def stored_errors(version: ModelVersion, registry: Registry) -> pd.DataFrame:
    """The errors that a version was registered with.

    Raises:
        RegistryError: they are lost, or it was registered before they were kept.
    """
    text = registry.artifact(version, _FILE)
    errors = pd.read_csv(io.StringIO(text), parse_dates=["event_time", "label_time"])
    return errors.astype({"residual": "float64", "scale": "float64"})
