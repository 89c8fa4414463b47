"""Fit a candidate on a features frame and predict with it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mlops_assets.errors import ConfigurationError, TrainingError
from mlops_assets.ml.features.feature_frame import feature_columns
from mlops_assets.spec import CandidateSpec, Task

LIGHTGBM = "lightgbm"
"""The package, and the extra of this project that installs it."""
_REPEATABLE: Mapping[str, Any] = {
    "n_jobs": 1,
    "deterministic": True,
    "force_row_wise": True,  # the other way is chosen by time, and adds up in another order
    "verbose": -1,
}
"""What LightGBM is told unless a candidate says otherwise."""
_ABSOLUTE_LOSSES = frozenset(
    {
        *("absolute_error", "quantile", "huber", "epsilon_insensitive"),
        *("l1", "mae", "mean_absolute_error", "regression_l1", "fair"),
    }
)
"""Values of `loss`, `criterion` or `objective` under which an error counts by its size."""
_CATEGORIES = 100
"""Values of a text column that get a code, if the estimator can take so many."""
_ABSOLUTE_ESTIMATORS = frozenset({"QuantileRegressor", "SVR", "NuSVR", "LinearSVR"})

Param = bool | int | float | str | None


@dataclass(frozen=True)
class FittedModel:
    """A fitted estimator and what it needs to be used.

    Args:
        name: of the candidate.
        estimator: scikit-learn estimator; takes a frame with the feature columns, in any order.
        features: the feature columns it was fitted on, in order.
        task: regression or classification.
        rows: training rows.
        params: of the estimator as the YAML and the search gave them.
        until: event time of the newest training row; None when that was not recorded.
    """

    name: str
    estimator: Any
    features: tuple[str, ...]
    task: Task
    rows: int
    params: Mapping[str, Param] = field(default_factory=dict)
    until: pd.Timestamp | None = None


def with_params(candidate: CandidateSpec, params: Mapping[str, Param]) -> CandidateSpec:
    """The candidate with these parameters on top of its own, and nothing left to search."""
    return candidate.model_copy(update={"params": {**candidate.params, **params}, "space": {}})


def fit(candidate: CandidateSpec, rows: pd.DataFrame, task: Task, seed: int) -> FittedModel:
    """Fit one candidate on labelled rows of a features frame.

    Raises:
        TrainingError: no rows, labels of one value, or the estimator raised.
        ConfigurationError: the candidate's estimator or parameters do not exist.
    """
    features = feature_columns(rows)
    label = rows["label"].to_numpy(dtype="float64")
    _require_learnable(candidate, label)
    estimator = build_estimator(candidate, task, seed, _text_columns(rows[features]))
    target = label.astype("int64") if task == "classification" else label
    try:
        estimator.fit(rows[features], target)
    except TrainingError:
        raise
    except Exception as error:
        raise TrainingError(
            f"Candidate {candidate.name} could not be fitted on {len(rows)} rows: "
            f"{type(error).__name__}: {error}.",
            culprits={"candidate": candidate.name},
        ) from error
    return FittedModel(
        name=candidate.name,
        estimator=estimator,
        features=tuple(features),
        task=task,
        rows=len(rows),
        params=dict(candidate.params),
        until=rows["event_time"].max(),
    )


def predict(model: FittedModel, features: pd.DataFrame, task: Task) -> np.ndarray:
    """Predictions of shape (rows,): values in the label's unit, or probabilities of class 1.

    Raises:
        TrainingError: a feature the model was trained on is missing, or the estimator raised.
    """
    missing = [name for name in model.features if name not in features]
    if missing:
        raise TrainingError(
            f"Model {model.name} needs the features {', '.join(missing)}, which the rows do not "
            "have.",
            stored="Nothing was predicted.",
            way_out="Build the features with the code the model was trained with, or train again.",
            culprits={"features": missing},
        )
    if features.empty:
        return np.empty(0)
    inputs = features[list(model.features)]
    try:
        if task == "classification":
            return np.asarray(model.estimator.predict_proba(inputs)[:, 1], dtype="float64")
        return np.asarray(model.estimator.predict(inputs), dtype="float64")
    except TrainingError:
        raise
    except Exception as error:
        raise TrainingError(
            f"Model {model.name} could not predict {len(inputs)} rows: "
            f"{type(error).__name__}: {error}.",
            stored="Nothing was predicted.",
            way_out="Build the features with the code the model was trained with, or train again.",
            culprits={"candidate": model.name},
        ) from error


def build_estimator(candidate: CandidateSpec, task: Task, seed: int, text: list[int]) -> Any:
    """The unfitted estimator with its preprocessing inside.

    Args:
        candidate: estimator, parameters and offset.
        task: decides whether an offset is possible.
        seed: random state of the estimator unless its parameters give one.
        text: positions of the text features.
    """
    from sklearn.pipeline import make_pipeline

    from mlops_assets.ml.estimators import FrameEncoder, OffsetRegressor

    core = make_core(candidate, seed)
    if text and _native_categories(core):
        core.set_params(categorical_features=text)
    one_hot = bool(text) and not _native_categories(core) and not _is_lightgbm(candidate)
    steps: list[Any] = [FrameEncoder(_most_categories(core), one_hot=one_hot)]
    if not _takes_missing(core):
        steps += _complete_and_scaled()
    pipeline = make_pipeline(*steps, core)
    if candidate.offset is None and candidate.scale is None:
        return pipeline
    if task != "regression":
        raise ConfigurationError(
            f"Candidate {candidate.name} has an offset or a scale, which only regression knows.",
            way_out="Remove `offset` and `scale`.",
        )
    return OffsetRegressor(pipeline, candidate.offset, candidate.scale, _power_of_scale(core))


def make_core(candidate: CandidateSpec, seed: int) -> Any:
    """The unfitted estimator itself, seeded, with the candidate's parameters.

    Raises:
        ConfigurationError: its class or a parameter does not exist, or its package is missing.
    """
    module, _, name = candidate.estimator.rpartition(".")
    try:
        core = getattr(importlib.import_module(module), name)(**candidate.params)
    except (ImportError, AttributeError, TypeError) as error:
        raise _cannot_be_made(candidate, error) from error
    fixed = {"random_state": seed} if "random_state" in core.get_params() else {}
    if _is_lightgbm(candidate):
        fixed |= _REPEATABLE
    return core.set_params(**{key: fixed[key] for key in fixed if key not in candidate.params})


def _require_learnable(candidate: CandidateSpec, label: np.ndarray) -> None:
    values = np.unique(label)
    if len(values) > 1 and np.isfinite(label).all():
        return
    if not len(label):
        problem = "there are no labelled rows"
    elif not np.isfinite(label).all():
        problem = f"{int((~np.isfinite(label)).sum())} of {len(label)} rows have no label"
    else:
        problem = f"all {len(label)} labels are {values[0]:g}"
    raise TrainingError(
        f"Candidate {candidate.name} cannot learn: {problem}.",
        way_out="More history is needed; until then the pooled model or the baseline serves.",
        culprits={"candidate": candidate.name, "rows": len(label)},
    )


def _cannot_be_made(candidate: CandidateSpec, error: Exception) -> ConfigurationError:
    way_out = "Name a scikit-learn or LightGBM estimator class and its constructor parameters."
    if _is_lightgbm(candidate) and isinstance(error, ImportError):
        way_out = f'Install the extra: pip install "mlops_assets[{LIGHTGBM}]".'
    return ConfigurationError(
        f"Candidate {candidate.name}: {candidate.estimator} with {candidate.params} cannot be "
        f"made: {error}.",
        way_out=way_out,
        culprits={"candidate": candidate.name},
    )


def _is_lightgbm(candidate: CandidateSpec) -> bool:
    return candidate.estimator.split(".")[0] == LIGHTGBM


def _power_of_scale(core: Any) -> int:
    """How the weight of a row grows with its scale; see `OffsetRegressor`."""
    from sklearn.utils.validation import has_fit_parameter

    if not has_fit_parameter(core, "sample_weight"):
        return 0
    params = core.get_params()
    named = {params.get(key) for key in ("loss", "criterion", "objective")}
    absolute = type(core).__name__ in _ABSOLUTE_ESTIMATORS or not named.isdisjoint(_ABSOLUTE_LOSSES)
    return 1 if absolute else 2


def _native_categories(core: Any) -> bool:
    return "categorical_features" in core.get_params()


def _most_categories(core: Any) -> int:
    """How many values of a text column get a code: scikit-learn's trees refuse more than bins."""
    return min(_CATEGORIES, core.get_params().get("max_bins", _CATEGORIES))


def _takes_missing(core: Any) -> bool:
    from sklearn.utils import get_tags

    return bool(get_tags(core).input_tags.allow_nan)


def _complete_and_scaled() -> list[Any]:
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import StandardScaler

    return [SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler()]


def _text_columns(frame: pd.DataFrame) -> list[int]:
    numeric = [pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes]
    return [place for place, is_number in enumerate(numeric) if not is_number]
