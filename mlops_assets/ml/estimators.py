"""The few estimators of our own: plain scikit-learn classes, saved with the models.

The one module of `ml` that imports scikit-learn at its top; import it inside functions.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
from pandas.api import types
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin, clone

from mlops_assets.errors import TrainingError
from mlops_assets.ml.infinite import LARGEST, without_infinite


class FrameEncoder(TransformerMixin, BaseEstimator):
    """Turn a frame of features into a matrix of float64, by column name.

    Numbers and booleans pass through; text becomes a code (or one column per value), in order of
    frequency. Rare, unknown and missing values have no code: NaN (or zeros everywhere).
    Infinite numbers are missing. A column without one value when fitted is 0 from then on, since
    nothing was learned of it.

    Args:
        max_categories: values of a text column that get a code; the others are rare.
        one_hot: one column of 0 and 1 per value instead of one column of codes.
    """

    def __init__(self, max_categories: int = 100, one_hot: bool = False) -> None:
        self.max_categories = max_categories
        self.one_hot = one_hot

    def fit(self, X: pd.DataFrame, y: object = None) -> Self:
        """Learn the column names and the values of text columns."""
        del y
        X = without_infinite(X)
        self.columns_ = [str(name) for name in X.columns]
        self.values_ = {
            name: _frequent(X[name], self.max_categories)
            for name in self.columns_
            if not types.is_numeric_dtype(X[name].dtype)
        }
        self.hollow_ = [name for name in self.columns_ if X[name].isna().all()]
        self.n_features_in_ = len(self.columns_)
        return self

    def transform(self, X: pd.DataFrame) -> np.ndarray:
        """Matrix of shape (rows, features), or more columns when one-hot.

        Raises:
            TrainingError: a feature the model was trained on is missing.
        """
        missing = [name for name in self.columns_ if name not in X.columns]
        if missing:
            raise TrainingError(
                f"The model needs the features {', '.join(missing)}, which the rows do not have.",
                stored="Nothing was predicted.",
                way_out="Build the features with the code version the model was trained with, "
                "or train again.",
                culprits={"features": missing},
            )
        blocks = [self._block(name, X[name]) for name in self.columns_]
        matrix = np.concatenate(blocks, axis=1) if blocks else np.empty((len(X), 0))
        # Stored rows of earlier versions, and those of a caller, may still have infinite values.
        matrix[np.abs(matrix) > LARGEST] = np.nan
        return matrix

    def _block(self, name: str, values: pd.Series) -> np.ndarray:
        if name in self.hollow_ and not (self.one_hot and name in self.values_):
            return np.zeros((len(values), 1))
        if name not in self.values_:
            return values.to_numpy(dtype="float64", na_value=np.nan)[:, None]
        index = pd.Index(self.values_[name], dtype="object")
        codes = index.get_indexer(pd.Index(values.astype("object")))
        if self.one_hot:
            return (codes[:, None] == np.arange(len(index))[None, :]).astype("float64")
        return np.where(codes < 0, np.nan, codes)[:, None]


class OffsetRegressor(RegressorMixin, BaseEstimator):
    """Learn the label relative to features: its distance from one, in units of another.

    The inner regressor learns `(label - offset) / scale`; predicted is `offset + scale * inner`.
    An error of the inner one counts `scale` times in the label's unit, so rows weigh `scale` under
    an absolute loss and `scale ** 2` under a squared one: the loss that is minimised is that in
    the label's unit. Weights are divided by their mean, so that penalties and limits of the inner
    regressor mean what they mean without a scale.

    Args:
        regressor: a regressor that takes a frame, or a pipeline that ends in one.
        offset: the feature that is taken off; where it is missing, so is the prediction.
            None: nothing is taken off.
        scale: the feature to divide by; where it is missing or not positive, the median of the
            positive ones in training stands for it. None: nothing is divided.
        power: of the scale in the weights, 1 for an absolute loss and 2 for a squared one.
            0 for a regressor that takes no weights.
    """

    def __init__(
        self,
        regressor: Any = None,
        offset: str | None = None,
        scale: str | None = None,
        power: int = 0,
    ) -> None:
        self.regressor = regressor
        self.offset = offset
        self.scale = scale
        self.power = power

    def fit(self, X: pd.DataFrame, y: np.ndarray) -> Self:
        """Fit the inner regressor on the rows that have the offset."""
        self.usual_scale_ = _usual(self._feature(X, self.scale)) if self.scale else 1.0
        offset, scale = self._offset(X), self._scale(X)
        usable = np.isfinite(offset)
        self.regressor_: Any = clone(self.regressor)
        target = (np.asarray(y)[usable] - offset[usable]) / scale[usable]
        self.regressor_.fit(X[usable], target, **self._weights(scale[usable]))
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X: pd.DataFrame) -> np.ndarray:
        """Predictions in the label's unit, shape (rows,)."""
        return self.regressor_.predict(X) * self._scale(X) + self._offset(X)

    def _weights(self, scale: np.ndarray) -> dict[str, np.ndarray]:
        """The argument of `fit` that says how much a row counts."""
        if self.scale is None or not self.power:
            return {}
        weights = scale**self.power
        steps = getattr(self.regressor_, "steps", None)
        name = f"{steps[-1][0]}__sample_weight" if steps else "sample_weight"
        return {name: weights / weights.mean()}

    def _offset(self, X: pd.DataFrame) -> np.ndarray:
        return self._feature(X, self.offset) if self.offset else np.zeros(len(X))

    def _scale(self, X: pd.DataFrame) -> np.ndarray:
        if self.scale is None:
            return np.ones(len(X))
        scale = self._feature(X, self.scale)
        return np.where(np.isfinite(scale) & (scale > 0), scale, self.usual_scale_)

    def _feature(self, X: pd.DataFrame, name: str | None) -> np.ndarray:
        role = "offset" if name == self.offset else "scale"
        if name not in X:
            raise TrainingError(
                f"The model's {role} {name} is not among the features.",
                way_out=f"Name one of {', '.join(map(str, X.columns))}.",
                culprits={role: name},
            )
        values = X[name].to_numpy(dtype="float64", na_value=np.nan)
        return np.where(np.abs(values) > LARGEST, np.nan, values)


def _usual(scale: np.ndarray) -> float:
    """Median of the positive values; 1 without one."""
    positive = scale[np.isfinite(scale) & (scale > 0)]
    return float(np.median(positive)) if len(positive) else 1.0


def _frequent(values: pd.Series, limit: int) -> list[str]:
    """Up to `limit` values, the most frequent first; equally frequent ones by name."""
    counts = values.astype("object").value_counts()
    ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    return [str(value) for value, count in ordered if count > 0][:limit]
