from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_assets.ml.evaluation.report import Footprint, evaluate
from mlops_assets.ml.gates.gates import (
    GateResult,
    declared_gates,
    latency_and_size,
    loads_and_predicts,
)
from mlops_assets.ml.gates.judgement import Judgement, gates_again, gates_of, judge
from mlops_assets.ml.gates.model_pair import ModelPair
from mlops_assets.ml.models.fitted_model import fit, predict
from mlops_assets.ml.models.split import split
from mlops_assets.ml.promotion.decision import REQUIRED, decide, settings_of, spec_of
from mlops_assets.spec import ProductSpec
from mlops_assets_tests.ml.scenarios import GBM, classifier, product, regression_rows

SECTIONS: dict[str, Any] = {
    "evaluation": {"slices": [{"feature": "kind"}], "draws": 300},
    "gates": {
        "min_slice_rows": 20,
        "fairness": [
            {"feature": "flag", "measure": "error", "max_difference": 50.0, "min_rows": 20}
        ],
        "behaviour": [
            {"name": "x_up", "test": "direction", "change": {"x": {"add": 1}}, "expect": "higher"}
        ],
        "coverage_tolerance": 0.3,
    },
}
FRAME = regression_rows(700)
PARTS = split(FRAME, product().split)
MODEL = fit(GBM, PARTS.final, "regression", 3)
PREDICTED = predict(MODEL, PARTS.holdout, "regression")
USABLE = [
    loads_and_predicts(same_in_isolated_process=True, batch_equals_rows=True),
    latency_and_size(Footprint(1, 0.1, 1.0, 100, 1.0), product()),
]


def judged(spec: ProductSpec, **changes: Any) -> Judgement:
    """The good model on the holdout; `changes` replace arguments."""
    arguments: dict[str, Any] = {
        "holdout": PARTS.holdout,
        "model": MODEL,
        "predicted": PREDICTED,
        "train": PARTS.final,
        "low": PREDICTED - 1.0,
        "high": PREDICTED + 1.0,
        "usable": USABLE,
        **changes,
    }
    return judge(spec, **arguments)


def test_a_good_model_passes_every_declared_gate_and_becomes_champion() -> None:
    spec = product(**SECTIONS)
    judgement = judged(spec)
    assert tuple(gate.name for gate in judgement.gates) == declared_gates(spec)
    failed = [gate for gate in judgement.gates if gate.passed is not True]
    assert failed == []
    decision = decide(spec, judgement.evidence, judgement.gates, ModelPair("1"))
    assert decision.verdict == "promoted"


def test_the_report_is_that_of_the_evaluation_with_importance_and_footprint() -> None:
    footprint = Footprint(1, 0.1, 1.0, 100, 1.0)
    report = judged(product(**SECTIONS), footprint=footprint).report
    plain = evaluate(PARTS.holdout, PREDICTED, product(**SECTIONS), PARTS.final)
    assert report.metrics == plain.metrics
    assert report.importance["feature"].iloc[0] == "x"
    assert report.footprint == footprint
    assert len(report.slices) == 4


@pytest.mark.parametrize(
    ("spoiled", "stopped_by"),
    [
        (np.full(len(PREDICTED), PREDICTED.mean()), "beats_baseline"),
        (PARTS.holdout["label"].to_numpy() * 40, "beats_baseline"),
        (np.where(PARTS.holdout["kind"] == "c", 9.0, PREDICTED), "slices"),
    ],
)
def test_a_spoiled_model_is_stopped_by_the_gate_meant_for_it(
    spoiled: np.ndarray, stopped_by: str
) -> None:
    gates = judged(product(**SECTIONS), predicted=spoiled, champion=PREDICTED).gates
    assert next(gate for gate in gates if gate.name == stopped_by).passed is False


def test_gates_that_were_not_measured_are_not_judged_and_nothing_is_promoted() -> None:
    spec = product(**SECTIONS)
    judgement = judged(spec, usable=[])
    unjudged = {gate.name for gate in judgement.gates if gate.passed is None}
    assert unjudged == {"loads_and_predicts", "latency_and_size"}
    assert unjudged <= set(REQUIRED)
    decision = decide(spec, judgement.evidence, judgement.gates, ModelPair("1"))
    assert decision.verdict == "not_judged"


def test_a_baseline_is_not_judged_by_any_gate_and_says_why() -> None:
    judgement = judged(product(**SECTIONS), model=None, reason="too few rows")
    assert {gate.passed for gate in judgement.gates} == {None}
    assert all("too few rows" in gate.description for gate in judgement.gates)
    assert judgement.report.rows == len(PARTS.holdout)


def test_every_country_has_the_gates_of_the_product() -> None:
    whole = product(overrides={"FRA": {"gates": SECTIONS["gates"]}})
    plain = judged(whole.for_country("DEU"), declared=declared_gates(whole))
    assert tuple(gate.name for gate in plain.gates) == declared_gates(whole)
    behaviour = next(gate for gate in plain.gates if gate.name == "behaviour")
    assert (behaviour.passed, behaviour.description) == (True, "this country declares no tests")


def test_a_switched_off_gate_passes_and_says_so_in_the_result() -> None:
    spec = product(gates={"switched_off": {"beats_baseline": "first week"}})
    bad = judged(spec, predicted=PREDICTED + 99.0).gates[0]
    assert (bad.name, bad.passed) == ("beats_baseline", True)
    assert bad.description == "switched off: first week"


def as_stored(frame: pd.DataFrame) -> pd.DataFrame:
    """The evidence as a reader of the stored file gets it."""
    return frame.copy(deep=True)


@pytest.mark.parametrize("champion", [None, PREDICTED + 0.3])
def test_a_decision_is_made_again_from_evidence_settings_and_recorded_gates(
    champion: np.ndarray | None,
) -> None:
    spec = product(**SECTIONS)
    judgement = judged(spec, champion=champion)
    pair = ModelPair("2", "" if champion is None else "1")
    stored = spec_of(json.loads(json.dumps(settings_of(spec))))
    gates = gates_again(stored, as_stored(judgement.evidence), judgement.gates)
    assert gates == judgement.gates
    again = decide(stored, as_stored(judgement.evidence), gates, pair)
    assert again == decide(spec, judgement.evidence, judgement.gates, pair)


def test_a_recorded_gate_that_the_evidence_contradicts_is_found() -> None:
    spec = product(**SECTIONS)
    judgement = judged(spec, predicted=PREDICTED + 99.0)
    forged = tuple(replace(gate, passed=True) for gate in judgement.gates)
    again = gates_again(spec, judgement.evidence, forged)
    assert again != forged
    assert next(gate for gate in again if gate.name == "beats_baseline").passed is False


def test_gates_that_need_the_model_or_the_pooled_report_stay_as_they_were_recorded() -> None:
    spec = product(**SECTIONS)
    pooled = evaluate(PARTS.holdout, PREDICTED, spec, PARTS.final)
    few = PARTS.holdout.head(9)
    judgement = judged(
        spec,
        holdout=few,
        predicted=PREDICTED[:9],
        low=None,
        high=None,
        stand_in=pooled,
    )
    by_name = {gate.name: gate for gate in judgement.gates}
    assert by_name["beats_baseline"].passed is True
    assert gates_of(spec, judgement.evidence)[0].passed is None
    assert gates_again(spec, judgement.evidence, judgement.gates) == judgement.gates
    nothing = [GateResult("above_floor", None, 1.0, 2.0, "not judged: no model")]
    assert gates_again(spec, judgement.evidence, nothing) == tuple(nothing)


def test_classification_is_judged_by_calibration_instead_of_coverage() -> None:
    frame = PARTS.holdout.assign(label=(PARTS.holdout["label"] > 0) * 1.0)
    chance = np.clip(0.5 + 0.4 * np.sign(PREDICTED), 0.05, 0.95)
    spec = classifier(gates={"behaviour": []})
    judgement = judged(spec, holdout=frame, predicted=chance, low=None, high=None)
    names = [gate.name for gate in judgement.gates]
    assert "calibration" in names
    assert "coverage" not in names


def in_doubt(champion: np.ndarray | None, factor: float) -> tuple[Judgement, ProductSpec]:
    """A candidate with the errors of the baseline times a factor and noise, and a champion."""
    spec = product()
    label = PARTS.holdout["label"].to_numpy()
    naive = judged(spec).evidence["baseline"].to_numpy()
    noise = np.random.default_rng(4).lognormal(0.0, 0.2, len(label))
    around = label + (naive - label) * factor * noise / noise.mean()
    return judged(spec, predicted=around, champion=champion), spec


def named(judgement: Judgement, name: str) -> GateResult:
    return next(each for each in judgement.gates if each.name == name)


def test_whoever_cannot_be_told_from_the_baseline_may_follow_a_champion_that_cannot_either() -> (
    None
):
    first, _ = in_doubt(None, 1.0)
    assert named(first, "beats_baseline").passed is False
    doubtful = first.evidence["candidate"].to_numpy()
    beside, spec = in_doubt(doubtful, 1.0)
    gate = named(beside, "beats_baseline")
    assert gate.passed is True
    assert "nor does the champion reach it" in gate.description
    assert gate.numbers["champion_gain_lower"] <= spec.gates.min_improvement
    again = gates_again(spec_of(settings_of(spec)), beside.evidence, beside.gates)
    assert named(replace(beside, gates=again), "beats_baseline").passed is True


def test_beside_a_champion_that_beats_the_baseline_a_candidate_has_to_as_well() -> None:
    beside, _ = in_doubt(PREDICTED, 1.0)
    assert named(beside, "beats_baseline").passed is False


def test_whoever_is_worse_than_the_baseline_for_certain_follows_nobody() -> None:
    worse, _ = in_doubt(None, 2.0)
    assert worse.report.gain.upper < 0
    beside, _ = in_doubt(worse.evidence["candidate"].to_numpy(), 2.0)
    assert named(beside, "beats_baseline").passed is False


def test_decisions_from_before_are_judged_as_they_were() -> None:
    first, spec = in_doubt(None, 1.0)
    beside, _ = in_doubt(first.evidence["candidate"].to_numpy(), 1.0)
    held = settings_of(spec)
    own = {"refresh_margin", "refresh_level"}
    then = {name: value for name, value in held["decision"].items() if name not in own}
    earlier = spec_of({**held, "decision": then})
    found = {gate.name: gate for gate in gates_of(earlier, beside.evidence)}
    assert found["beats_baseline"].passed is False
