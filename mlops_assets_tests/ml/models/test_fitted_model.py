from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from mlops_assets.errors import ConfigurationError, TrainingError
from mlops_assets.ml.features.feature_frame import feature_columns
from mlops_assets.ml.models.baselines import baseline_predictions
from mlops_assets.ml.models.fitted_model import (
    FittedModel,
    build_estimator,
    fit,
    make_core,
    predict,
    with_params,
)
from mlops_assets.registry.models import untrusted
from mlops_assets.spec import BaselineSpec, CandidateSpec, Task
from mlops_assets_tests.ml.scenarios import (
    CLASSIFIER,
    GBM,
    RIDGE,
    classification_rows,
    regression_rows,
)

FOREST = CandidateSpec(
    name="forest",
    estimator="sklearn.ensemble.RandomForestClassifier",
    params={"n_estimators": 20},
)
LOGIT = CandidateSpec(name="logit", estimator="sklearn.linear_model.LogisticRegression")
OFFSET = GBM.model_copy(update={"name": "offset", "offset": "level"})
SCALED = OFFSET.model_copy(update={"name": "scaled", "scale": "spread"})
LIGHT = CandidateSpec(name="light", estimator="lightgbm.LGBMRegressor", params={"n_estimators": 40})
LIGHT_CLASSIFIER = CandidateSpec(
    name="light", estimator="lightgbm.LGBMClassifier", params={"n_estimators": 40}
)
ALL: list[tuple[CandidateSpec, Task]] = [
    (GBM, "regression"),
    (RIDGE, "regression"),
    (OFFSET, "regression"),
    (SCALED, "regression"),
    (LIGHT, "regression"),
    (LIGHT_CLASSIFIER, "classification"),
    (CLASSIFIER, "classification"),
    (FOREST, "classification"),
    (LOGIT, "classification"),
]
Fitted = Callable[[CandidateSpec, Task], FittedModel]
CASES = pytest.mark.parametrize(("candidate", "task"), ALL, ids=[c.name + t for c, t in ALL])


def rows_of(task: Task, rows: int = 400, seed: int = 0) -> pd.DataFrame:
    make = regression_rows if task == "regression" else classification_rows
    return with_spread(make(rows, seed))


def with_spread(rows: pd.DataFrame) -> pd.DataFrame:
    """With a feature by which errors could be scaled; it says nothing of the label."""
    return rows.assign(spread=np.linspace(0.5, 2.0, len(rows)))


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    """The model of a candidate on the usual rows, fitted once; nobody changes it."""
    made: dict[tuple[str, Task], FittedModel] = {}

    def give(candidate: CandidateSpec, task: Task) -> FittedModel:
        key = (candidate.estimator + candidate.name, task)
        if key not in made:
            made[key] = fit(candidate, rows_of(task), task, seed=1)
        return made[key]

    return give


@CASES
def test_a_candidate_learns(candidate: CandidateSpec, task: Task, fitted: Fitted) -> None:
    model = fitted(candidate, task)
    fresh = rows_of(task, seed=1)
    predicted = predict(model, fresh, task)
    assert predicted.shape == (400,)
    assert np.corrcoef(predicted, fresh["label"])[0, 1] > 0.7
    assert model.rows == 400
    if task == "classification":
        assert ((predicted >= 0) & (predicted <= 1)).all()


@CASES
def test_same_seed_same_predictions(candidate: CandidateSpec, task: Task, fitted: Fitted) -> None:
    rows = rows_of(task)
    again = fit(candidate, rows, task, seed=1)
    first, second = (predict(each, rows, task) for each in (fitted(candidate, task), again))
    np.testing.assert_array_equal(first, second)


@CASES
def test_the_order_of_columns_and_further_columns_do_not_matter(
    candidate: CandidateSpec, task: Task, fitted: Fitted
) -> None:
    rows = rows_of(task)
    model = fitted(candidate, task)
    other = rows[rows.columns[::-1]].assign(further=1)
    np.testing.assert_array_equal(predict(model, rows, task), predict(model, other, task))


@CASES
def test_unknown_and_missing_values_are_no_problem(
    candidate: CandidateSpec, task: Task, fitted: Fitted
) -> None:
    model = fitted(candidate, task)
    odd = rows_of(task, 6).assign(x=np.nan)
    odd["kind"] = pd.Series(["new", None, np.nan, pd.NA, "a", ""], dtype="object")
    odd = odd.astype({"flag": "boolean"})
    odd.loc[2, "flag"] = pd.NA
    assert np.isfinite(predict(model, odd, task)).all()
    assert predict(model, odd.iloc[:0], task).shape == (0,)


@CASES
def test_a_missing_feature_is_named(candidate: CandidateSpec, task: Task, fitted: Fitted) -> None:
    rows = rows_of(task)
    model = fitted(candidate, task)
    with pytest.raises(TrainingError, match="needs the features x, kind"):
        predict(model, rows.drop(columns=["x", "kind"]), task)
    with pytest.raises(TrainingError, match=r"features? x"):
        model.estimator.predict(rows[feature_columns(rows)].drop(columns=["x"]))


@CASES
def test_a_model_is_saved_without_pickle_and_predicts_the_same(
    candidate: CandidateSpec, task: Task, fitted: Fitted
) -> None:
    import skops.io

    rows = rows_of(task)
    model = fitted(candidate, task)
    content = skops.io.dumps(model.estimator)
    types = skops.io.get_untrusted_types(data=content)
    assert untrusted(types) == []
    restored: Any = skops.io.loads(content, trusted=types)
    inputs = rows[list(model.features)]
    np.testing.assert_array_equal(model.estimator.predict(inputs), restored.predict(inputs))


@CASES
def test_an_estimator_can_be_cloned(candidate: CandidateSpec, task: Task, fitted: Fitted) -> None:
    from sklearn.base import clone

    rows = rows_of(task)
    model = fitted(candidate, task)
    unfitted: Any = clone(model.estimator)
    again = unfitted.fit(rows[list(model.features)], rows["label"])
    np.testing.assert_allclose(
        again.predict(rows[list(model.features)]),
        model.estimator.predict(rows[list(model.features)]),
    )


@CASES
@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda f: f.iloc[:0], "there are no labelled rows"),
        (lambda f: f.assign(label=1.0), "all 400 labels are 1"),
        (lambda f: f.assign(label=f["label"].where(f.index > 2)), "3 of 400 rows have no label"),
    ],
)
def test_rows_nothing_can_be_learned_from_are_refused(
    candidate: CandidateSpec, task: Task, spoil: Any, text: str
) -> None:
    with pytest.raises(TrainingError, match=text):
        fit(candidate, spoil(rows_of(task)), task, seed=1)


@CASES
def test_a_feature_without_any_value_is_no_problem(candidate: CandidateSpec, task: Task) -> None:
    rows = rows_of(task).assign(hollow=np.nan, nothing=None, constant=1)
    assert np.isfinite(predict(fit(candidate, rows, task, seed=1), rows, task)).all()


def test_an_offset_carries_a_model_beyond_the_levels_it_saw() -> None:
    rows = regression_rows().assign(label=lambda f: f["level"] + f["x"])
    higher = rows.assign(level=rows["level"] + 1000, label=rows["label"] + 1000)
    model = fit(OFFSET, rows, "regression", seed=1)
    plain = fit(GBM, rows, "regression", seed=1)
    error = [
        np.abs(predict(m, higher, "regression") - higher["label"]).mean() for m in (model, plain)
    ]
    assert error[0] < 5 < 900 < error[1]


def test_without_its_offset_a_prediction_is_missing() -> None:
    rows = regression_rows()
    model = fit(OFFSET, rows, "regression", seed=1)
    rows.loc[3, "level"] = np.nan
    assert np.flatnonzero(np.isnan(predict(model, rows, "regression"))).tolist() == [3]


def test_the_rarest_of_many_values_have_no_code() -> None:
    from mlops_assets.ml.estimators import FrameEncoder

    frame = pd.DataFrame({"agent": ["a"] * 5 + ["b"] * 3 + ["c"] * 2 + ["d"]})
    codes = FrameEncoder(max_categories=2).fit(frame).transform(frame)[:, 0]
    np.testing.assert_array_equal(codes, [0] * 5 + [1] * 3 + [np.nan] * 3)
    one_hot = FrameEncoder(max_categories=2, one_hot=True).fit(frame).transform(frame)
    assert one_hot.sum(axis=0).tolist() == [5, 3]


@pytest.mark.parametrize("params", [{}, {"max_bins": 16}])
def test_more_values_than_the_estimator_has_bins_are_no_problem(params: dict[str, Any]) -> None:
    rows = regression_rows(2000).assign(kind=[f"agent {n % 700}" for n in range(2000)])
    few_bins = with_params(GBM, params)
    assert np.isfinite(predict(fit(few_bins, rows, "regression", seed=1), rows, "regression")).all()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"estimator": "sklearn.ensemble.Nothing"}, "cannot be made"),
        ({"estimator": "no_such_module.Thing"}, "cannot be made"),
        ({"params": {"bogus": 1}}, "cannot be made"),
    ],
)
def test_an_estimator_that_cannot_be_made_is_a_configuration_error(
    change: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigurationError, match=text):
        fit(GBM.model_copy(update=change), regression_rows(), "regression", seed=1)


def test_an_estimator_that_fails_names_the_candidate() -> None:
    broken = GBM.model_copy(update={"params": {"max_iter": -1}})
    with pytest.raises(TrainingError, match="Candidate gbm could not be fitted on 400 rows"):
        fit(broken, regression_rows(), "regression", seed=1)


def test_an_offset_that_is_no_feature_is_named() -> None:
    wrong = GBM.model_copy(update={"offset": "nowhere"})
    with pytest.raises(TrainingError, match="offset nowhere is not among the features"):
        fit(wrong, regression_rows(), "regression", seed=1)


def test_an_offset_is_for_regression_only() -> None:
    wrong = CLASSIFIER.model_copy(update={"offset": "x"})
    with pytest.raises(ConfigurationError, match="only regression"):
        fit(wrong, classification_rows(), "classification", seed=1)


def test_a_scale_carries_a_model_beyond_the_sizes_it_saw() -> None:
    rows = regression_rows().assign(spread=1.0)
    wilder = rows.assign(spread=100.0, label=rows["level"] + 100 * (rows["label"] - rows["level"]))
    errors = [
        np.abs(
            predict(fit(one, rows, "regression", seed=1), wilder, "regression") - wilder["label"]
        )
        for one in (SCALED, OFFSET)
    ]
    assert errors[0].mean() < errors[1].mean() / 3


@pytest.mark.parametrize(
    ("loss", "power"), [("absolute_error", 1), ("squared_error", 2), ("quantile", 1)]
)
def test_rows_weigh_what_their_scale_says_under_the_loss_of_the_estimator(
    loss: str, power: int
) -> None:
    params = {"loss": loss, "max_iter": 20, **({"quantile": 0.5} if loss == "quantile" else {})}
    candidate = SCALED.model_copy(update={"params": params})
    rows = rows_of("regression").drop(columns="kind")
    model = fit(candidate, rows, "regression", seed=1)
    inputs = rows[list(model.features)].to_numpy("float64")
    scale, offset = rows["spread"].to_numpy(), rows["level"].to_numpy()
    by_hand = HistGradientBoostingRegressor(random_state=1, **params)
    weights = scale**power
    by_hand.fit(inputs, (rows["label"] - offset) / scale, weights / weights.mean())
    np.testing.assert_allclose(
        predict(model, rows, "regression"), offset + scale * by_hand.predict(inputs)
    )


@pytest.mark.parametrize(
    ("estimator", "params", "power"),
    [
        ("lightgbm.LGBMRegressor", {"objective": "mae"}, 1),
        ("lightgbm.LGBMRegressor", {}, 2),
        ("sklearn.linear_model.QuantileRegressor", {}, 1),
        ("sklearn.linear_model.Ridge", {}, 2),
        ("sklearn.ensemble.RandomForestRegressor", {"criterion": "absolute_error"}, 1),
        ("sklearn.neighbors.KNeighborsRegressor", {}, 0),
    ],
)
def test_the_weight_of_a_scale_goes_by_what_the_estimator_minimises(
    estimator: str, params: dict[str, Any], power: int
) -> None:
    candidate = CandidateSpec(name="any", estimator=estimator, params=params, scale="spread")
    built = build_estimator(candidate, "regression", 0, [])
    assert built.power == power
    rows = rows_of("regression", 60)
    assert np.isfinite(predict(fit(candidate, rows, "regression", 0), rows, "regression")).all()


@pytest.mark.parametrize("scale", [np.nan, 0.0, -3.0])
def test_where_the_scale_is_missing_or_not_positive_the_usual_one_stands_in(scale: float) -> None:
    rows = rows_of("regression").assign(spread=2.0)
    model = fit(SCALED.model_copy(update={"params": {"max_iter": 5}}), rows, "regression", seed=1)
    odd = rows.assign(spread=scale)
    inner = model.estimator.regressor_.predict(odd[list(model.features)])
    np.testing.assert_allclose(predict(model, odd, "regression"), odd["level"] + 2.0 * inner)
    all_odd = fit(SCALED, odd, "regression", seed=1)
    assert np.isfinite(predict(all_odd, rows, "regression")).all()


def test_a_scale_that_is_no_feature_is_named() -> None:
    wrong = SCALED.model_copy(update={"scale": "nowhere"})
    with pytest.raises(TrainingError, match="scale nowhere is not among the features"):
        fit(wrong, rows_of("regression"), "regression", seed=1)


def test_a_fitted_model_tells_its_parameters_and_how_far_it_has_learned() -> None:
    rows = rows_of("regression")
    chosen = with_params(GBM, {"max_iter": 7, "learning_rate": 0.2})
    model = fit(chosen, rows, "regression", seed=1)
    assert model.params == {"max_iter": 7, "learning_rate": 0.2}
    assert model.until == rows["event_time"].max()
    core = model.estimator[-1]
    assert (core.max_iter, core.learning_rate, core.n_iter_) == (7, 0.2, 7)
    assert GBM.params == {"max_iter": 40}


def test_lightgbm_is_seeded_and_repeatable_unless_the_candidate_says_otherwise() -> None:
    told = make_core(LIGHT, 5).get_params()
    assert (told["random_state"], told["deterministic"], told["n_jobs"]) == (5, True, 1)
    assert told["verbose"] == -1
    other = make_core(LIGHT.model_copy(update={"params": {"n_jobs": 2, "random_state": 1}}), 5)
    assert (other.get_params()["n_jobs"], other.get_params()["random_state"]) == (2, 1)


def test_lightgbm_that_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ConfigurationError, match=r'pip install "mlops_assets\[lightgbm\]"'):
        fit(LIGHT, regression_rows(), "regression", seed=1)


def test_a_baseline_of_a_feature_that_is_not_there_is_told_with_those_there_are() -> None:
    rows = regression_rows(10)
    lost = BaselineSpec(name="lost", rule="feature", feature="levle")
    with pytest.raises(ConfigurationError, match=r"levle, which the rows .* level, flag, kind"):
        baseline_predictions(lost, rows, rows)
