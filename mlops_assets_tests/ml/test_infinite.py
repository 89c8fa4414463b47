from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.infinite import infinite_columns, told, without_infinite
from mlops_assets.ml.models.fitted_model import fit, predict
from mlops_assets.spec import CandidateSpec
from mlops_assets_tests.effort import examples
from mlops_assets_tests.ml.scenarios import GBM, RIDGE, regression_rows

FOREST = CandidateSpec(
    name="forest",
    estimator="sklearn.ensemble.RandomForestRegressor",
    params={"n_estimators": 5},
)
OFFSET = GBM.model_copy(update={"name": "offset", "offset": "level", "scale": "x"})


@given(values=st.lists(st.floats(), min_size=1), nullable=st.booleans())
@settings(max_examples=examples(50))
def test_infinite_values_are_missing_and_all_others_stay(
    values: list[float], nullable: bool
) -> None:
    times = pd.date_range("2024-01-01", periods=len(values))
    ratio = pd.Series(values, dtype="Float64" if nullable else "float64")
    frame = pd.DataFrame({"entity": "a", "event_time": times, "ratio": ratio, "kind": "x"})

    found = without_infinite(frame)

    bad = [abs(value) > 3.5e38 for value in values]  # NaN is not
    assert found["ratio"].isna().tolist() == [
        each or value != value for each, value in zip(bad, values, strict=True)
    ]
    kept = [value for value, each in zip(values, bad, strict=True) if not each and value == value]
    assert found["ratio"].dropna().tolist() == kept
    assert found["ratio"].dtype == ratio.dtype
    assert [(each.column, each.rows) for each in infinite_columns(frame)] == (
        [("ratio", sum(bad))] if any(bad) else []
    )


def test_each_column_is_told_with_its_rows_and_the_first_of_them() -> None:
    frame = regression_rows(10)
    frame.loc[[3, 7], "x"] = np.inf
    frame.loc[5, "label"] = -np.inf
    assert told(infinite_columns(frame)) == (
        "label is infinite in 1 rows, the first of DEU at 2023-01-06 00:00:00; "
        "x is infinite in 2 rows, the first of DEU at 2023-01-04 00:00:00"
    )
    assert told(infinite_columns(regression_rows(10))) == ""


@pytest.mark.parametrize("candidate", [GBM, RIDGE, FOREST, OFFSET], ids=lambda c: c.name)
@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e200])
def test_rows_stored_with_infinite_values_are_learned_and_predicted_as_with_missing_ones(
    candidate: CandidateSpec, value: float
) -> None:
    rows = regression_rows(300)
    some = rows.index % 50 == 7
    missing, infinite = (rows.assign(x=rows["x"].mask(some, each)) for each in (np.nan, value))

    models = [fit(candidate, each, "regression", 1) for each in (missing, infinite)]

    one, other = (predict(model, missing, "regression") for model in models)
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(one, predict(models[0], infinite, "regression"))
    assert np.isfinite(one).all()


def test_a_feature_that_is_always_infinite_says_nothing() -> None:
    rows = regression_rows(300).assign(x=np.inf)
    hollow = regression_rows(300).assign(x=np.nan)
    for candidate in (GBM, RIDGE, FOREST):
        one = predict(fit(candidate, rows, "regression", 1), rows, "regression")
        other = predict(fit(candidate, hollow, "regression", 1), hollow, "regression")
        np.testing.assert_array_equal(one, other)
