"""A candidate whose predictions would be refused does not come into use."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.mutants import Ground, beyond_the_range
from mlops_assets.ml.gates.candidate_range import within_range
from mlops_assets.ml.gates.gates import GateResult
from mlops_assets.ml.gates.judgement import gates_again, judge
from mlops_assets.ml.models.fitted_model import fit, predict
from mlops_assets.ml.models.prediction_range import RangeVerdict, judge_range
from mlops_assets.ml.models.split import split
from mlops_assets.ml.training.candidate import train_country
from mlops_assets.ml.training.selection import train_pooled
from mlops_assets.spec import ProductSpec
from mlops_assets_tests.ml.scenarios import GBM, classifier, product, regression_rows

FRAME = regression_rows(700)
PARTS = split(FRAME, product().split)
MODEL = fit(GBM, PARTS.final, "regression", 3)
PREDICTED = predict(MODEL, PARTS.holdout, "regression")
NO_WIDTH = np.full(len(PREDICTED), math.nan)


def ranged(**predictions: Any) -> ProductSpec:
    return product(predictions={"minimum": -100.0, "maximum": 100.0, **predictions})


def gate_of(spec: ProductSpec, predicted: np.ndarray, ahead: RangeVerdict | None) -> GateResult:
    """As a training judges it, beside all other gates."""
    judged = judge(
        spec, PARTS.holdout, MODEL, predicted, train=PARTS.final, next_rows=ahead, usable=[]
    )
    return next(each for each in judged.gates if each.name == "within_range")


def spoiled(count: int, value: float) -> np.ndarray:
    values = PREDICTED.copy()
    values[:count] = value
    return values


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (100.016, "beyond -100 to 100, the worst 100.016 by 0.016, for DEU at 2023-12-01"),
        (-1e9, "beyond -100 to 100, the worst -1e+09 by 1e+09, for DEU at 2023-12-01"),
        (math.nan, "no number, the first for DEU at 2023-12-01"),
        (math.inf, "no number, the first for DEU at 2023-12-01"),
    ],
)
def test_a_candidate_beyond_the_range_on_its_holdout_is_stopped_and_told_why(
    value: float, what: str
) -> None:
    found = gate_of(product(), spoiled(40, value), None)
    assert found.passed is False
    rows = len(PREDICTED)
    assert found.description.startswith(f"on the holdout: 40 of {rows} predictions are {what}")
    assert "Way out: have the product declare" in found.description
    assert found.numbers == {"holdout_rows": rows, "holdout_beyond": 40}


@pytest.mark.parametrize("beyond", ["refuse", "clip", "leave_out", "baseline"])
def test_a_few_rows_of_the_holdout_beyond_the_range_stop_nobody(beyond: str) -> None:
    most = int(0.05 * len(PREDICTED))
    assert gate_of(ranged(beyond=beyond), spoiled(most, -100.016), None).passed is True
    assert gate_of(ranged(beyond=beyond), spoiled(most + 1, -100.016), None).passed is False
    none = ranged(beyond=beyond, beyond_share=0.0)
    assert gate_of(none, spoiled(1, -100.016), None).passed is False


def test_a_candidate_beyond_the_range_on_the_newest_rows_alone_is_stopped() -> None:
    newest = FRAME.tail(3)
    ahead = judge_range(np.array([1.0, 100.0, 100.5]), newest, product().predictions)
    found = gate_of(product(), PREDICTED, ahead)
    assert found.passed is False
    assert "on the rows it would predict next: 1 of 3 predictions are beyond" in found.description
    assert "the worst 100.5 by 0.5, for DEU at 2024-11-30" in found.description
    inside = judge_range(np.zeros(3), newest, product().predictions)
    assert gate_of(product(), PREDICTED, inside).passed is True


@pytest.mark.parametrize(("count", "passed"), [(1, True), (17, True), (18, False)])
def test_a_candidate_is_held_to_the_share_that_predictions_are_held_to(
    count: int, passed: bool
) -> None:
    rows = len(PREDICTED)
    spec = ranged(beyond="clip", beyond_share=17 / rows)
    found = gate_of(spec, spoiled(count, 101.0), None)
    assert (found.passed, found.value, found.limit) == (passed, count / rows, 17 / rows)


def test_a_country_without_any_row_to_predict_is_not_judged() -> None:
    found = within_range(RangeVerdict(0), None, product())
    assert found.passed is None


def test_a_new_country_without_a_label_is_judged_by_the_rows_it_would_predict() -> None:
    assert within_range(RangeVerdict(0), RangeVerdict(2), product()).passed is True
    assert within_range(RangeVerdict(0), RangeVerdict(2, 1, 1), product()).passed is False


def test_the_gate_is_taken_as_it_was_recorded_when_a_decision_is_made_again() -> None:
    judged = judge(product(), PARTS.holdout, MODEL, spoiled(40, 101.0), train=PARTS.final)
    again = gates_again(product(), judged.evidence, judged.gates)
    assert [each.passed for each in again if each.name == "within_range"] == [False]
    before = [each for each in judged.gates if each.name != "within_range"]
    assert [each.name for each in gates_again(product(), judged.evidence, before)] == [
        each.name for each in before
    ]


@pytest.mark.parametrize("place", range(3))
def test_a_training_judges_what_it_would_predict_next_by_what_serves(place: int) -> None:
    frame = pd.concat([FRAME, FRAME.tail(3).assign(label=math.nan)], ignore_index=True)
    later = frame.index >= len(FRAME)
    frame.loc[later, ["event_time", "label_time"]] += pd.Timedelta(days=30)
    spec = product(candidates=[{"name": "line", "estimator": "sklearn.linear_model.Ridge"}])
    frame.loc[len(FRAME) + place, ["x", "level"]] = 1e6
    trained = train_country(spec, frame, {}, country="DEU", clock=time.monotonic)
    assert list(trained.next_rows.index) == list(frame.index[later])
    found = trained.on_next_rows()
    assert found is not None
    assert (found.rows, found.beyond) == (3, 1)
    assert found.where.endswith(str(frame["event_time"].iloc[len(FRAME) + place]))


def test_a_pooled_model_beyond_the_range_in_one_country_is_stopped_in_no_other() -> None:
    line = {"name": "line", "estimator": "sklearn.linear_model.Ridge", "scopes": ["pooled"]}
    spec = product(candidates=[line])
    frames = {"DEU": regression_rows(700, 1), "FRA": regression_rows(700, 2)}
    models = train_pooled(spec, frames, clock=time.monotonic)
    later = FRAME.tail(3).assign(label=math.nan)
    later[["event_time", "label_time"]] += pd.Timedelta(days=30)
    newest = {"DEU": later, "FRA": later.assign(x=1e6)}
    refused = {}
    for country, rows in frames.items():
        seen = pd.concat([rows, newest[country]], ignore_index=True)
        trained = train_country(spec, seen, models, country=country, clock=time.monotonic)
        assert trained.selection.kind == "pooled"
        found = trained.on_next_rows()
        assert found is not None
        refused[country] = found.is_refused
    assert refused == {"DEU": False, "FRA": True}


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_the_bad_candidate_of_this_gate_is_stopped_by_it_alone(task: str) -> None:
    spec = product(gates={"coverage_tolerance": 0.9}) if task == "regression" else classifier()
    labels = FRAME["label"] if task == "regression" else (FRAME["label"] > 0).astype(float)
    parts = split(FRAME.assign(label=labels), spec.split)
    recipe = spec.candidates[0]
    model = fit(recipe, parts.final, spec.task, 3)
    ground = Ground(
        country="DEU",
        spec=spec,
        parts=parts,
        rows=parts.final,
        other=parts.final,
        recipe=recipe,
        champion=model,
        predicted=predict(model, parts.holdout, spec.task),
        width=(NO_WIDTH, NO_WIDTH),
    )
    mutant = beyond_the_range(ground, 0)
    gates = judge(
        spec,
        parts.holdout,
        mutant.model,
        mutant.predicted,
        train=parts.final,
        champion=ground.predicted,
        next_rows=mutant.next_rows,
    ).gates
    assert [each.name for each in gates if each.passed is False] == ["within_range"]
