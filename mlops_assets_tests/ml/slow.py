"""An estimator whose fits take time on a clock that stands still otherwise."""

from __future__ import annotations

from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin


class Clock:
    """Seconds that pass only when somebody says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()


class SlowRegressor(RegressorMixin, BaseEstimator):
    """Predicts `level`; a fit takes `seconds`, and one with a level below 0 fails."""

    def __init__(self, level: float = 0.0, seconds: float = 1.0, size: int = 0) -> None:
        self.level = level
        self.seconds = seconds
        self.size = size

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        CLOCK.now += self.seconds
        if self.level < 0:
            raise ValueError("the level is below 0")
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        return np.full(len(X), self.level)
