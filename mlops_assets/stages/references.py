"""What a champion's new data are compared with: a file of the training run it is from."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mlops_assets.errors import RegistryError
from mlops_assets.ml.references import (
    Reference,
    make_reference,
    newest_rows,
    reference_from_json,
    reference_to_json,
)
from mlops_assets.registry import ModelVersion, Registry
from mlops_assets.spec import ProductSpec

REFERENCE_FILE = "reference.json"
REFERENCE_TAG = "reference"
"""On a registered version: the file among the artifacts of its run that holds its reference."""

__all__ = [
    "REFERENCE_FILE",
    "REFERENCE_TAG",
    "newest_rows",
    "reference_files",
    "stored_reference",
]


def reference_files(
    spec: ProductSpec,
    rows: pd.DataFrame,
    predicted: np.ndarray,
    importance: pd.DataFrame | Mapping[str, float],
) -> dict[str, str]:
    """The reference of a model as a file of its MLflow run; none without rows.

    Args:
        spec: the product as it is for the country.
        rows: of a features frame, which the model learned from (`newest_rows` of them are enough).
        predicted: for these rows, shape (rows,).
        importance: feature and importance as in `Report.importance`, or importance by feature.
    """
    if rows.empty:
        return {}
    if isinstance(importance, pd.DataFrame):
        importance = dict(zip(importance["feature"], importance["importance"], strict=True))
    made = make_reference(spec, rows, predicted, importance)
    return {REFERENCE_FILE: reference_to_json(made)}


def stored_reference(version: ModelVersion, registry: Registry) -> Reference | None:
    """The reference a version was registered with; None for one that learned no row.

    Raises:
        RegistryError: it is lost or damaged.
    """
    name = version.tags.get(REFERENCE_TAG)
    if not name:
        return None
    try:
        return reference_from_json(registry.artifact(version, name))
    except (KeyError, TypeError, ValueError) as error:
        raise RegistryError(
            f"{name} of {version.name} version {version.version} is damaged: {error}.",
            stored="Nothing was written; the model itself is untouched.",
            way_out="Put it back in the artifacts of MLflow run "
            f"{version.run_id}, or train the country again.",
            culprits={"model": version.name, "version": version.version, "artifact": name},
        ) from error
