from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_assets.ml.evaluation.behaviour import TESTED_ROWS, behave, behaviours, perturbed
from mlops_assets.ml.gates.gates import behaviour
from mlops_assets.ml.models.fitted_model import FittedModel
from mlops_assets.spec import BehaviourSpec, ChangeSpec, ProductSpec
from mlops_assets_tests.ml.scenarios import product, regression_rows


@dataclass
class Slope:
    """Predicts `factor` times x, and 5 more where kind is b."""

    factor: float = 2.0

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        return self.factor * rows["x"].to_numpy() + 5.0 * (rows["kind"] == "b").to_numpy()


def model(factor: float = 2.0) -> FittedModel:
    return FittedModel("slope", Slope(factor), ("x", "kind", "flag"), "regression", 100)


def declared(**test: Any) -> BehaviourSpec:
    return BehaviourSpec.model_validate(
        {"name": "t", "change": {"x": {"add": 1.0}}, "test": "direction", "expect": "higher"} | test
    )


def spec_with(*tests: BehaviourSpec) -> ProductSpec:
    return product(gates={"behaviour": [test.model_dump() for test in tests]})


ROWS = regression_rows(60)


@pytest.mark.parametrize(
    ("factor", "expect", "passed"),
    [(2.0, "higher", True), (2.0, "lower", False), (-1.0, "lower", True), (0.0, "higher", True)],
)
def test_a_prediction_must_not_move_against_the_expected_direction(
    factor: float, expect: str, passed: bool
) -> None:
    outcome = behave(declared(expect=expect), model(factor), ROWS)
    assert outcome.passed is passed
    assert outcome.behaved == (60 if passed else 0)
    assert bool(outcome.example) is not passed


def test_a_movement_within_the_tolerance_is_ignored() -> None:
    assert behave(declared(expect="lower", tolerance=2.0), model(), ROWS).passed is True
    assert behave(declared(expect="lower", tolerance=1.9), model(), ROWS).passed is False
    still = declared(test="invariance", expect=None, tolerance=2.0)
    assert behave(still, model(), ROWS).passed is True
    assert behave(still, model(-3.0), ROWS).passed is False


def test_a_feature_the_model_does_not_use_leaves_it_unmoved() -> None:
    same = declared(test="invariance", expect=None, change={"flag": {"set": True}})
    assert behave(same, model(), ROWS).behaved == 60


def test_a_minimum_bounds_the_prediction_after_the_change() -> None:
    bounds = {"test": "minimum", "expect": None, "change": {"x": {"set": 3}, "kind": {"set": "a"}}}
    assert behave(declared(**bounds, at_least=6.0, at_most=6.0), model(), ROWS).passed is True
    assert behave(declared(**bounds, at_least=6.1), model(), ROWS).passed is False
    assert behave(declared(**bounds, at_most=5.9), model(), ROWS).passed is False


def test_a_share_of_the_rows_may_misbehave() -> None:
    share = float((ROWS["kind"] == "b").mean())
    to_a = {"test": "minimum", "expect": None, "change": {"x": {"set": 0}}, "at_most": 1.0}
    assert behave(declared(**to_a, min_share=1 - share), model(), ROWS).passed is True
    assert behave(declared(**to_a, min_share=1 - share + 0.01), model(), ROWS).passed is False


def test_the_example_is_the_row_that_did_worst() -> None:
    bounds = declared(test="minimum", expect=None, change={"flag": {"set": False}}, at_most=0.0)
    outcome = behave(bounds, model(), ROWS)
    worst = ROWS.loc[int(np.argmax(Slope().predict(ROWS)))]
    assert str(worst["event_time"]) in outcome.example
    assert f"{Slope().predict(ROWS).max():.4g}" in outcome.example


def test_changes_set_add_and_multiply_and_leave_missing_values_and_other_features() -> None:
    rows = ROWS.assign(x=ROWS["x"].where(ROWS.index > 0))
    changes = {
        "x": ChangeSpec(add=2.0),
        "level": ChangeSpec(multiply=-1.0),
        "kind": ChangeSpec(set="z"),
        "flag": ChangeSpec(set=False),
    }
    after = perturbed(rows, changes)
    assert np.isnan(after["x"][0])
    np.testing.assert_allclose(after["x"][1:], rows["x"][1:] + 2)
    np.testing.assert_allclose(after["level"], -rows["level"])
    assert set(after["kind"]) == {"z"}
    assert not after["flag"].any()
    pd.testing.assert_series_equal(after["label"], rows["label"])


def test_a_missing_prediction_is_no_good_behaviour() -> None:
    rows = ROWS.assign(x=np.nan)
    assert behave(declared(), model(), rows).passed is False


def test_large_holdouts_are_sampled_and_the_sample_is_the_same_every_time() -> None:
    rows = regression_rows(900)
    spec = spec_with(declared(expect="lower"))
    one, two = (behaviours(spec, model(), rows) for _ in range(2))
    assert one == two
    assert one[0].rows == TESTED_ROWS


def test_the_gate_names_the_tests_that_failed_with_counts_and_an_example() -> None:
    good, bad = declared(name="good"), declared(name="bad", expect="lower")
    spec = spec_with(good, bad)
    result = behaviour(behaviours(spec, model(), ROWS), spec)
    assert result.passed is False
    assert (result.value, result.limit) == (0.0, 0.9)
    assert result.description.startswith("bad: 0 of 60 rows behave, a share of 0.9 is needed")
    assert "before" in result.description
    assert "good" not in result.description
    assert result.numbers == {"good": 1.0, "bad": 0.0}
    assert behaviour(behaviours(spec_with(good), model(), ROWS), spec_with(good)).passed is True


def test_a_test_of_a_feature_the_model_has_not_is_not_judged() -> None:
    spec = spec_with(declared(change={"nowhere": {"add": 1.0}}))
    result = behaviour(behaviours(spec, model(), ROWS), spec)
    assert result.passed is None
    assert "nowhere" in result.description
    none = spec_with(declared())
    assert behaviour(behaviours(none, model(), ROWS.iloc[:0]), none).passed is None
