from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from mlops_assets.ml.decision import decide, paired_gains
from mlops_assets.ml.evaluation import Report, evaluate, score
from mlops_assets.ml.gates import GateResult, above_floor, beats_baseline
from mlops_assets.spec import ProductSpec
from mlops_assets_tests.ml.scenarios import classifier, product, regression_rows

PASSED = GateResult("beats_baseline", True, 1.0, 2.0, "fine")


def report(error: float, rows: int = 50) -> Report:
    """A report with this mae; both baselines err by 1."""
    frame = regression_rows(rows).assign(label=1.0, level=0.0)
    return replace(
        evaluate(frame, frame["label"].to_numpy() + error, product(), frame),
        baselines={"level": 1.0, "mean": 1.5},
        best_baseline="level",
    )


def gated(**gates: Any) -> ProductSpec:
    return product(gates=gates)


@pytest.mark.parametrize(
    ("error", "share", "passed"),
    [(0.5, 0.0, True), (1.0, 0.0, False), (1.2, 0.0, False), (0.95, 0.1, False), (0.9, 0.1, True)],
)
def test_a_candidate_must_beat_the_best_baseline_by_the_share(
    error: float, share: float, passed: bool
) -> None:
    result = beats_baseline(report(error), gated(min_improvement=share))
    assert result.passed is passed
    assert result.value == pytest.approx(error)
    assert result.limit == pytest.approx(1 - share)
    assert "level" in result.description
    assert "50 holdout rows of the country" in result.description


def test_auc_must_be_above_the_prior_by_the_difference() -> None:
    frame = regression_rows(50).assign(label=lambda f: (f["x"] > 0) * 1.0)
    spec = classifier(gates={"min_improvement": 0.4})
    perfect = evaluate(frame, frame["x"].to_numpy(), spec, frame)
    assert beats_baseline(perfect, spec).passed is True
    useless = evaluate(frame, np.zeros(50), spec, frame)
    assert beats_baseline(useless, spec).passed is False
    assert above_floor(perfect, classifier(gates={"floor": 0.9})).passed is True
    assert above_floor(useless, classifier(gates={"floor": 0.9})).passed is False


def test_too_few_own_rows_are_judged_by_the_pooled_holdout_and_say_so() -> None:
    result = beats_baseline(report(2.0, rows=5), gated(), report(0.5, rows=900))
    assert result.passed is True
    assert "on 900 holdout rows of all countries" in result.description
    assert "5 holdout rows of 20 needed" in result.description


def test_without_a_pooled_model_too_few_rows_are_not_judged() -> None:
    for gate in (beats_baseline, above_floor):
        result = gate(report(0.5, rows=5), gated(floor=1.0))
        assert result.passed is None
        assert "not judged" in result.description


@pytest.mark.parametrize(
    ("floor", "passed"), [(None, True), (0.6, True), (0.5, True), (0.4, False)]
)
def test_the_floor_is_an_absolute_limit(floor: float | None, passed: bool) -> None:
    assert above_floor(report(0.5), gated(floor=floor)).passed is passed


def rows(count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, good predictions, worse predictions."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=count)
    return y, y + rng.normal(0, 0.5, count), y + rng.normal(0, 1.0, count)


def test_a_clearly_better_candidate_is_promoted() -> None:
    y, good, worse = rows()
    decision = decide("mae", y, good, worse, [PASSED])
    assert decision.verdict == "promoted"
    assert decision.gain == pytest.approx(score("mae", y, worse) - score("mae", y, good))
    assert 0 < decision.lower < decision.gain < decision.upper


def test_a_worse_or_equal_candidate_keeps_the_champion() -> None:
    y, good, worse = rows()
    assert decide("mae", y, worse, good, [PASSED]).verdict == "kept"
    same = decide("mae", y, good, good, [PASSED])
    assert (same.verdict, same.gain, same.lower) == ("kept", 0.0, 0.0)


def test_a_gain_that_may_be_chance_keeps_the_champion() -> None:
    y, good, _ = rows()
    slightly = good - 0.001 * np.sign(good - y) * np.random.default_rng(1).choice([-1, 1.5], 400)
    decision = decide("mae", y, slightly, good, [PASSED])
    assert decision.verdict == "kept" or decision.lower > 0


def test_the_first_candidate_that_passes_becomes_champion() -> None:
    y, good, _ = rows()
    decision = decide("mae", y, good, None, [PASSED])
    assert decision.verdict == "promoted"
    assert "first champion" in decision.reason
    assert np.isnan(decision.champion_value)


@pytest.mark.parametrize(("passed", "verdict"), [(False, "kept"), (None, "not_judged")])
@pytest.mark.parametrize("has_champion", [True, False])
def test_a_gate_that_did_not_pass_stops_even_the_best_candidate(
    passed: bool | None, verdict: str, has_champion: bool
) -> None:
    y, good, worse = rows()
    stop = GateResult("above_floor", passed, 1.0, 0.5, "too bad")
    decision = decide("mae", y, good, worse if has_champion else None, [PASSED, stop])
    assert decision.verdict == verdict
    assert decision.reason == "gate above_floor: too bad"


def test_a_failed_gate_is_named_before_one_that_was_not_judged() -> None:
    y, good, _ = rows()
    gates = [GateResult("a", None, 1, 1, ""), GateResult("b", False, 1, 1, "bad")]
    assert decide("mae", y, good, None, gates).reason == "gate b: bad"


def test_one_class_cannot_decide_between_two_models() -> None:
    y, good, worse = rows()
    assert decide("auc", np.ones(400), good, worse, [PASSED]).verdict == "not_judged"
    assert decide("mae", y[:0], good[:0], worse[:0], [PASSED]).verdict == "not_judged"


@pytest.mark.parametrize("metric", ["mae", "rmse", "auc", "brier", "log_loss"])
def test_the_bootstrap_is_the_one_written_out_row_by_row(metric: str) -> None:
    rng = np.random.default_rng(3)
    y = (rng.random(60) < 0.4) * 1.0
    a, b = np.round(rng.random(60), 1), np.round(rng.random(60), 1)
    fast = paired_gains(metric, y, a, b, seed=8, draws=50)
    picked = np.random.default_rng(8).integers(0, 60, size=(50, 60))
    slow = [score(metric, y[at], b[at]) - score(metric, y[at], a[at]) for at in picked]
    sign = -1 if metric == "auc" else 1
    np.testing.assert_allclose(fast, sign * np.array(slow), atol=1e-12)


def test_the_same_seed_gives_the_same_decision() -> None:
    y, good, worse = rows()
    assert decide("rmse", y, good, worse, []) == decide("rmse", y, good, worse, [])


def test_auc_decisions_agree_with_scikit_learn() -> None:
    y, good, worse = rows()
    labels = (y > 0) * 1.0
    decision = decide("auc", labels, good, worse, [])
    expected = metrics.roc_auc_score(labels, good) - metrics.roc_auc_score(labels, worse)
    assert decision.gain == pytest.approx(expected)
    assert decision.verdict == "promoted"


@pytest.mark.parametrize("metric", ["mae", "auc"])
def test_ten_thousand_rows_are_decided_in_less_than_half_a_second(metric: str) -> None:
    y, good, worse = rows(10_000)
    labels = (y > 0) * 1.0 if metric == "auc" else y
    start = time.process_time()
    decide(metric, labels, good, worse, [])
    assert time.process_time() - start < 0.5
