from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlops_assets.ml.evaluation.calibration import calibration_error
from mlops_assets.ml.evaluation.evidence import evidence_frame
from mlops_assets.ml.evaluation.fairness import compare_groups
from mlops_assets.ml.evaluation.report import Footprint, Report, evaluate
from mlops_assets.ml.gates import gates
from mlops_assets.ml.gates.gates import (
    GateResult,
    above_floor,
    beats_baseline,
    declared_gates,
    latency_and_size,
    loads_and_predicts,
    unless_switched_off,
)
from mlops_assets.ml.stats.draws import draw_rows
from mlops_assets.ml.stats.metrics import Estimate
from mlops_assets.spec import GATES, FairnessSpec, ProductSpec
from mlops_assets_tests.ml.scenarios import (
    classification_rows,
    classifier,
    product,
    regression_rows,
)

FOOTPRINT = Footprint(2_000_000, 0.2, 5.0, 100, 30.0)


def report(error: float, rows: int = 50) -> Report:
    """A report with this mae; the best baseline errs by 1."""
    frame = regression_rows(rows).assign(label=1.0, level=0.0)
    return replace(
        evaluate(frame, frame["label"].to_numpy() + error, product(), frame.assign(label=9.0)),
    )


def gated(**limits: Any) -> ProductSpec:
    return product(gates=limits)


@pytest.mark.parametrize(
    ("error", "share", "passed"),
    [
        (0.5, 0.0, True),
        (1.0, 0.0, False),
        (1.2, 0.0, False),
        (0.95, 0.1, False),
        (0.875, 0.125, True),
    ],
)
def test_a_candidate_must_beat_the_best_baseline_by_the_share(
    error: float, share: float, passed: bool
) -> None:
    result = beats_baseline(report(error), gated(min_improvement=share))
    assert result.passed is passed
    assert result.value == pytest.approx(1 - error)
    assert result.limit == share
    assert "level" in result.description
    assert "50 holdout rows of the country" in result.description
    assert result.numbers["baseline"] == pytest.approx(1.0)


def test_a_gain_that_may_be_chance_does_not_beat_the_baseline() -> None:
    frame = regression_rows(60)
    rng = np.random.default_rng(0)
    label = frame["label"].to_numpy()
    guess = label + 0.97 * np.abs(frame["level"] - label) * rng.choice([-2.0, 0.0, 1.0], 60)
    judged = evaluate(frame, guess.to_numpy(), product(), frame)
    assert judged.gain.value > 0 > judged.gain.lower
    result = beats_baseline(judged, gated())
    assert result.passed is False
    assert result.value == judged.gain.lower


def test_auc_must_be_above_the_prior_by_the_difference() -> None:
    frame = classification_rows(60).assign(label=lambda f: (f["x"] > 0) * 1.0)
    spec = classifier(gates={"min_improvement": 0.4})
    perfect = evaluate(frame, (frame["x"] > 0).to_numpy() * 0.9, spec, frame)
    assert beats_baseline(perfect, spec).passed is True
    useless = evaluate(frame, np.zeros(60), spec, frame)
    assert beats_baseline(useless, spec).passed is False
    assert above_floor(perfect, classifier(gates={"floor": 0.9})).passed is True
    assert above_floor(useless, classifier(gates={"floor": 0.9})).passed is False


def test_too_few_own_rows_are_judged_by_the_pooled_holdout_and_say_so() -> None:
    result = beats_baseline(report(2.0, rows=5), gated(), report(0.5, rows=900))
    assert result.passed is True
    assert "on 900 holdout rows of all countries" in result.description
    assert "5 holdout rows of 20 needed" in result.description
    assert (result.numbers["rows"], result.numbers["own_rows"]) == (900, 5)


def test_without_a_pooled_model_too_few_rows_are_not_judged() -> None:
    for gate in (beats_baseline, above_floor):
        result = gate(report(0.5, rows=5), gated(floor=1.0))
        assert result.passed is None
        assert "not judged" in result.description


def test_enough_rows_on_too_few_days_are_not_judged_by_themselves() -> None:
    own = report(0.5, rows=25)
    result = beats_baseline(own, gated())
    assert result.passed is None
    assert "4 blocks of 7 calendar days have rows, and 5 are needed" in result.description
    assert beats_baseline(own, gated(), report(0.5, rows=900)).passed is True


def test_a_pooled_report_without_an_interval_judges_nothing() -> None:
    old = replace(report(0.5, rows=900), gain=Estimate(float("nan")))
    assert beats_baseline(report(0.5, rows=5), gated(), old).passed is None


@pytest.mark.parametrize(
    ("floor", "passed"), [(None, True), (0.6, True), (0.5, True), (0.4, False)]
)
def test_the_floor_is_an_absolute_limit(floor: float | None, passed: bool) -> None:
    assert above_floor(report(0.5), gated(floor=floor)).passed is passed


def sliced(rows: int = 600, **changes: Any) -> ProductSpec:
    del rows
    return product(**{"evaluation": {"slices": [{"feature": "part"}], "draws": 400}, **changes})


def in_parts(
    spec: ProductSpec, factors: dict[str, float], rows: int = 600, seed: int = 0
) -> Report:
    """Errors of champion and candidate are alike, but for a factor in some parts."""
    rng = np.random.default_rng(seed)
    frame = regression_rows(rows, seed).assign(level=99.0)
    frame["part"] = rng.choice(["a", "b", "c"], rows)
    factor = frame["part"].map(factors).fillna(1.0).to_numpy()
    label, common = frame["label"].to_numpy(), rng.normal(size=rows)
    champion = label + common + rng.normal(size=rows)
    candidate = label + factor * (common + rng.normal(size=rows))
    return evaluate(frame, candidate, spec, frame, champion=champion)


def test_a_model_that_is_bad_in_one_slice_fails_though_it_is_better_on_average() -> None:
    judged = in_parts(sliced(), {"a": 0.3, "b": 0.3, "c": 1.6})
    assert judged.champion_gain.lower > 0
    result = gates.slices(judged, sliced())
    assert result.passed is False
    assert "part c" in result.description
    assert "the champion" in result.description
    assert "part a" not in result.description
    assert result.numbers["failed"] == 1


@pytest.mark.nightly  # many models, to see how often
def test_equal_models_practically_never_fail_in_a_slice_however_many_there_are() -> None:
    slices = [{"feature": "part"}, {"feature": "x", "edges": [-1.0, 0.0, 1.0]}, {"feature": "kind"}]
    spec = sliced(evaluation={"slices": slices, "draws": 400}, gates={"slice_margin": 0.0})
    tables = [in_parts(spec, {}, 400, seed) for seed in range(60)]
    assert min(table.slices["gain"].min() for table in tables) < -0.15
    assert sum(gates.slices(table, spec).passed is False for table in tables) <= 2


def test_without_a_champion_a_slice_is_held_against_the_best_baseline() -> None:
    frame = regression_rows(300).assign(part=lambda f: np.where(f.index % 2, "odd", "even"))
    label = frame["label"].to_numpy()
    frame["level"] = label + 1.0
    bad = evaluate(frame, label + np.where(frame["part"] == "odd", 3.0, 0.1), sliced(), frame)
    result = gates.slices(bad, sliced())
    assert result.passed is False
    assert "baseline level" in result.description
    assert "part odd" in result.description


def test_slices_with_too_few_rows_are_named_and_not_judged() -> None:
    spec = sliced(gates={"min_slice_rows": 250})
    judged = in_parts(spec, {"a": 9.0})
    assert not judged.slices["judged"].any()
    result = gates.slices(judged, spec)
    assert result.passed is None
    assert "part a (" in result.description
    some = sliced(gates={"min_slice_rows": int(judged.slices["rows"].max())})
    partly = gates.slices(in_parts(some, {}), some)
    assert partly.passed is True
    assert (partly.numbers["judged"], partly.numbers["not_judged"]) == (1, 2)
    assert "not judged" in partly.description


def test_a_declared_slice_that_the_rows_do_not_have_is_not_judged_and_named() -> None:
    spec = sliced(evaluation={"slices": [{"feature": "part"}, {"feature": "nowhere"}]})
    result = gates.slices(in_parts(spec, {}), spec)
    assert result.passed is None
    assert "no feature nowhere" in result.description
    assert gates.slices(in_parts(spec, {"c": 4.0}), spec).passed is False


def fair(measure: str, **limits: float) -> FairnessSpec:
    return FairnessSpec.model_validate(
        {"feature": "group", "measure": measure, "min_rows": 50, **limits}
    )


def judged_fairly(declared: FairnessSpec, gap: float, rows: int = 600, seed: int = 0) -> GateResult:
    """Probabilities that are `gap` too high in group b, where the label is alike."""
    rng = np.random.default_rng(seed)
    frame = classification_rows(rows, seed)
    frame["group"] = rng.choice(["a", "b"], rows)
    frame["label"] = (rng.random(rows) < 0.4) * 1.0
    predicted = 0.4 + gap * (frame["group"] == "b").to_numpy()
    spec = classifier(gates={"fairness": [declared.model_dump()]})
    evidence = evidence_frame(spec, frame, predicted, frame)
    draws = draw_rows(spec.evaluation, evidence, seed=0, draws=400)
    return gates.fairness([compare_groups(spec, declared, evidence, draws)], spec)


@pytest.mark.parametrize("measure", ["rate", "calibration"])
def test_groups_that_are_treated_too_differently_fail_with_the_difference(measure: str) -> None:
    declared = fair(measure, max_difference=0.1)
    result = judged_fairly(declared, 0.3)
    assert result.passed is False
    assert result.value == pytest.approx(0.3, abs=0.1)
    assert result.limit == 0.1
    assert "group b" in result.description
    assert judged_fairly(declared, 0.02).passed is True


def test_the_ratio_of_two_groups_has_a_limit_too() -> None:
    assert judged_fairly(fair("rate", min_ratio=0.8), 0.3).passed is False
    assert judged_fairly(fair("rate", min_ratio=0.8), 0.05).passed is True
    assert judged_fairly(fair("error", min_ratio=0.8), 0.5).passed is False


def test_a_difference_that_may_be_chance_is_not_refused() -> None:
    declared = fair("calibration", max_difference=0.02)
    results = [judged_fairly(declared, 0.0, 300, seed) for seed in range(40)]
    assert sum(each.value > 0.02 for each in results) > 15
    assert sum(each.passed is False for each in results) <= 4


def test_groups_with_too_few_rows_are_not_judged() -> None:
    result = judged_fairly(fair("rate", max_difference=0.1), 0.3, rows=80)
    assert result.passed is None
    assert "fewer than two groups" in result.description
    missing = FairnessSpec(feature="nowhere", max_difference=0.1)
    assert judged_fairly(missing, 0.3).passed is None


def calibrated(sharpness: float, rows: int, seed: int = 0) -> Report:
    """Probabilities whose log odds are `sharpness` times the true ones."""
    rng = np.random.default_rng(seed)
    frame = classification_rows(rows, seed)
    odds = rng.normal(size=rows)
    frame["label"] = (rng.random(rows) < 1 / (1 + np.exp(-odds))) * 1.0
    return evaluate(frame, 1 / (1 + np.exp(-sharpness * odds)), classifier(), frame)


def test_probabilities_that_claim_too_much_fail_and_honest_ones_of_few_rows_do_not() -> None:
    spec = classifier()
    wrong = gates.calibration(calibrated(4.0, 600), spec)
    assert wrong.passed is False
    assert wrong.value > 0.1
    honest = [calibrated(1.0, 200, seed) for seed in range(30)]
    right = [gates.calibration(each, spec) for each in honest]
    assert all(result.passed for result in right)
    strict = classifier(gates={"max_calibration_error": 0.03})
    chance = [gates.calibration(each, strict) for each in honest]
    assert np.mean([result.value > 0.03 for result in chance]) > 0.9
    assert sum(result.passed is False for result in chance) <= 2


def test_probabilities_surely_worse_than_the_champions_are_stopped_under_the_limit() -> None:
    rows = classification_rows(800)
    share = np.random.default_rng(1).uniform(0.02, 0.3, 800)
    rows["label"] = (np.random.default_rng(2).random(800) < share) * 1.0
    spec = classifier(gates={"max_calibration_error": 0.3})
    timid = evaluate(rows, share**3, spec, rows, champion=share)
    result = gates.calibration(timid, spec)
    assert timid.calibration.upper < 0.3
    assert result.passed is False
    assert "over the champion's" in result.description
    assert timid.calibration_gain.value == pytest.approx(
        calibration_error(rows["label"].to_numpy(), share) - timid.calibration_error
    )
    alike = evaluate(rows, np.clip(share + 0.001, 0, 1), spec, rows, champion=share)
    assert gates.calibration(alike, spec).passed is True
    lenient = classifier(gates={"max_calibration_error": 0.3, "calibration_margin": 0.5})
    assert gates.calibration(timid, lenient).passed is True
    better = evaluate(rows, share, spec, rows, champion=share**3)
    assert gates.calibration(better, spec).passed is True


def test_calibration_and_coverage_of_too_few_rows_are_not_judged() -> None:
    result = gates.calibration(calibrated(4.0, 199), classifier())
    assert result.passed is None
    assert "200 holdout rows are needed, there are 199" in result.description
    assert gates.coverage(report(0.5, rows=199), product()).passed is None
    assert gates.coverage(report(0.5, rows=400), product()).passed is None


@pytest.mark.parametrize(
    ("width", "passed"), [(1.2816, True), (1.0, False), (2.2, False), (1.36, True)]
)
def test_intervals_must_not_surely_cover_too_few_or_too_many(width: float, passed: bool) -> None:
    frame = regression_rows(1200)
    predicted = frame["label"].to_numpy() + np.random.default_rng(0).normal(size=1200)
    judged = evaluate(
        frame, predicted, product(), frame, low=predicted - width, high=predicted + width
    )
    result = gates.coverage(judged, product())
    assert result.passed is passed
    assert result.value == pytest.approx(2 * stats.norm.cdf(width) - 1, abs=0.03)


def by_months(better: int, worse: int, rows: int = 30) -> Report:
    months = [f"2024-{month:02d}" for month in range(1, better + worse + 1)]
    table = pd.DataFrame({"month": months, "rows": rows, "value": 1.0, "baseline": 2.0})
    table.loc[table.index >= better, "value"] = 3.0
    return replace(report(0.5), by_month=table)


@pytest.mark.parametrize(
    ("better", "worse", "passed"),
    [(12, 0, True), (6, 6, True), (3, 9, True), (2, 10, False), (0, 5, False), (1, 1, None)],
)
def test_a_candidate_must_not_surely_be_worse_than_the_baseline_in_most_months(
    better: int, worse: int, passed: bool | None
) -> None:
    result = gates.stability(by_months(better, worse), product())
    assert result.passed is passed
    chance = stats.binom.cdf(better, better + worse, 0.5)
    if passed is not None:
        assert passed is bool(chance >= 0.05)
        assert result.value == pytest.approx(better / (better + worse))


def test_months_of_few_rows_do_not_count() -> None:
    assert gates.stability(by_months(0, 9, rows=9), product()).passed is None
    assert gates.stability(by_months(0, 9, rows=10), product()).passed is False
    none = gates.stability(by_months(0, 9), gated(min_months_better=0.0))
    assert none.passed is True


def test_stored_files_must_predict_as_in_training_alone_and_together() -> None:
    fine = loads_and_predicts(same_in_isolated_process=True, batch_equals_rows=True)
    assert fine.passed is True
    for fresh, single, word in ((False, True, "isolated process"), (True, False, "one by one")):
        wrong = loads_and_predicts(same_in_isolated_process=fresh, batch_equals_rows=single)
        assert wrong.passed is False
        assert word in wrong.description
    lost = loads_and_predicts(
        same_in_isolated_process=None, batch_equals_rows=None, problem="the files are gone"
    )
    assert (lost.passed, lost.description) == (False, "the files are gone")
    assert loads_and_predicts(same_in_isolated_process=None, batch_equals_rows=True).passed is None


@pytest.mark.parametrize(
    ("limits", "passed"),
    [
        ({}, True),
        ({"max_predict_seconds": 0.22}, False),
        ({"max_predict_seconds": 0.24}, True),
        ({"max_row_milliseconds": 4.9}, False),
        ({"max_megabytes": 1.9}, False),
        ({"max_megabytes": 2.0}, True),
    ],
)
def test_a_model_must_be_fast_and_small_enough(limits: dict[str, float], passed: bool) -> None:
    result = latency_and_size(FOOTPRINT, gated(**limits))
    assert result.passed is passed
    assert result.numbers["seconds"] == pytest.approx(0.23)
    assert latency_and_size(None, gated()).passed is None


def test_the_gates_of_a_product_are_those_it_can_be_judged_by() -> None:
    always = {
        "beats_baseline",
        "above_floor",
        "stability",
        "within_range",
        "loads_and_predicts",
        "latency_and_size",
    }
    assert set(declared_gates(product())) == always | {"coverage"}
    assert set(declared_gates(classifier())) == always | {"calibration"}
    everything = product(
        evaluation={"slices": [{"feature": "x"}]},
        overrides={"FRA": {"gates": {"fairness": [{"feature": "x", "max_difference": 1.0}]}}},
    )
    assert set(declared_gates(everything)) == always | {"coverage", "slices", "fairness"}
    order = [name for name in GATES if name in declared_gates(everything)]
    assert list(declared_gates(everything)) == order


def test_a_gate_that_is_switched_off_passes_and_says_why() -> None:
    spec = gated(switched_off={"stability": "no full month yet"})
    bad = GateResult("stability", False, 0.1, 0.5, "bad")
    off = unless_switched_off(spec, bad)
    assert (off.passed, off.value) == (True, 0.1)
    assert off.description == "switched off: no full month yet"
    other = GateResult("above_floor", False, 0.1, 0.5, "bad")
    assert unless_switched_off(spec, other) is other
