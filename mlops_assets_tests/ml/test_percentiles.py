from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn._loss import loss
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.utils.stats import _weighted_percentile

from mlops_assets.ml.percentiles import SortedOnce, sorted_once


@given(
    st.integers(0, 10_000),
    st.integers(1, 60),
    st.sampled_from([0.0, 12.5, 50.0, 99.0, 100.0]),
    st.booleans(),
    st.sampled_from(["distinct", "ties", "missing", "weightless"]),
)
def test_percentiles_are_those_of_scikit_learn_to_the_bit(
    seed: int, rows: int, rank: Any, average: bool, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    values, weights = rng.normal(size=rows), rng.uniform(0.1, 3.0, rows)
    if kind == "ties":
        values, weights = np.round(values), np.ones(rows)
    if kind == "missing" and rows > 1:
        values[0] = np.nan
    if kind == "weightless" and rows > 1:
        weights[0] = 0.0
    quick = SortedOnce(_weighted_percentile)
    for _ in range(2):  # sorted, and as it was kept
        found = quick(values, weights, rank, average=average)
        expected = _weighted_percentile(values, weights, rank, average=average)
        np.testing.assert_array_equal(found, expected)


def test_what_is_no_vector_is_left_to_scikit_learn() -> None:
    values, weights = np.arange(12.0).reshape(6, 2), np.ones(6)
    quick = SortedOnce(_weighted_percentile)
    np.testing.assert_array_equal(quick(values, weights), _weighted_percentile(values, weights))
    ranks: Any = np.array([10.0, 90.0])
    expected = _weighted_percentile(values[:, 0], weights, ranks)
    np.testing.assert_array_equal(quick(values[:, 0], weights, ranks), expected)


@pytest.mark.parametrize("kind", ["absolute_error", "squared_error", "quantile"])
def test_models_are_the_same_to_the_bit(kind: str) -> None:
    rng = np.random.default_rng(1)
    x, weights = rng.normal(size=(600, 5)), rng.uniform(0.5, 2.0, 600)
    x[::7, 2] = np.nan
    y = x[:, 0] + rng.normal(size=600)

    def predicted() -> np.ndarray:
        share = 0.3 if kind == "quantile" else None
        model = HistGradientBoostingRegressor(loss=kind, quantile=share, max_iter=20, max_bins=32)
        return model.fit(x, y, sample_weight=weights).predict(x)

    plain = predicted()
    with sorted_once():
        np.testing.assert_array_equal(predicted(), plain)


def test_scikit_learn_is_as_it_was_afterwards_even_when_a_fit_fails() -> None:
    def fails() -> None:
        with sorted_once():
            assert isinstance(vars(loss)["_weighted_percentile"], SortedOnce)
            raise ValueError("told")

    with pytest.raises(ValueError, match="told"):
        fails()
    assert vars(loss)["_weighted_percentile"] is _weighted_percentile
