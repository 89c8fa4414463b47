"""Pooled candidates where own rows cannot tell: one rule for countries of every size."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.ml.evaluation.behaviour import Behaved, behaved_from_json, behaved_to_json
from mlops_assets.ml.evaluation.report import Report, evaluate
from mlops_assets.ml.gates import succession
from mlops_assets.ml.gates.gates import GateResult, above_floor, beats_baseline, behaviour
from mlops_assets.ml.gates.model_pair import ModelPair
from mlops_assets.ml.gates.succession import (
    HoldoutRows,
    PooledComparison,
    compare_pooled,
    compare_successors,
    compared_again,
    comparison_for,
    comparisons_from_json,
    comparisons_to_json,
    level_used,
)
from mlops_assets.ml.promotion.decision import Decision, decide
from mlops_assets.ml.stats.draws import BootstrapWeights
from mlops_assets.ml.stats.metrics import Estimate
from mlops_assets.spec import ProductSpec
from mlops_assets_tests.ml.promotion.test_decision import PASSED, evidence
from mlops_assets_tests.ml.scenarios import product, regression_rows

OLD, NEW = "gbm version 1", "gbm version 2"
BOTH = ModelPair("7", "3")
NOTHING = GateResult("beats_baseline", True, 1.0, 0.0, "fine")
MONTHS = 16 * 7


def shared(gain: float = 0.1, lower: float = 0.05, **changes: Any) -> PooledComparison:
    """All countries say that the candidate is better by so much, at least by `lower`."""
    told = Estimate(gain, lower, 2 * gain - lower)
    made = PooledComparison(
        NEW, OLD, "", 5000, 29, 0.9, 1.0, told, "mae", 0.05, 1000, 7, seed=3, evidence="ab" * 16
    )
    return replace(made, **changes)


def of_country(rows: int, worse_by: float, noise: float = 1.0, seed: int = 0) -> pd.DataFrame:
    """Own evidence, a row a day: errors of the candidate are the champion's times 1 + worse_by."""
    rng = np.random.default_rng(seed)
    y, error = rng.normal(size=rows), rng.normal(0, 1, rows)
    ours = error * (1 + worse_by) + noise * rng.normal(0, 1, rows)
    return evidence(y, y + ours, y + error + noise * rng.normal(0, 1, rows))


def decided(
    rows: pd.DataFrame, pooled: PooledComparison | None, spec: ProductSpec | None = None
) -> Decision:
    return decide(spec or product(), rows, PASSED, BOTH, pooled=pooled)


# Succession


@pytest.mark.parametrize("rows", [0, 1, 6, 19])
def test_a_country_with_too_few_rows_gets_the_successor_that_all_countries_say_is_better(
    rows: int,
) -> None:
    alone, with_all = decided(of_country(rows, 0.0), None), decided(of_country(rows, 0.0), shared())
    assert alone.verdict == "not_judged"
    assert (with_all.verdict, with_all.basis, with_all.veto) == ("promoted", "pooled", False)
    assert (with_all.rows, with_all.own_rows) == (5000, rows)
    for told in ("5,000 rows of 29 countries", f"own rows ({rows})", "no veto"):
        assert told in with_all.reason


def test_a_successor_that_all_countries_cannot_tell_from_the_champion_stays_out() -> None:
    found = decided(of_country(6, 0.0), shared(lower=-0.01))
    assert (found.verdict, found.basis) == ("kept", "pooled")
    assert "not significantly better" in found.reason
    assert "own rows: 6" in found.reason


def test_own_rows_that_say_significantly_worse_are_a_veto() -> None:
    few = of_country(19, 4.0, noise=0.01)
    spec = product(evaluation={"block_days": 2})
    found = decided(few, shared(), spec)
    assert (found.verdict, found.basis, found.veto) == ("kept", "pooled", True)
    assert "veto of the country's own rows (19)" in found.reason
    assert decided(few, shared(), product(evaluation={"block_days": 7})).verdict == "promoted"


def test_own_rows_that_say_better_by_less_than_the_margin_are_no_veto() -> None:
    spec = product(evaluation={"block_days": 2}, decision={"margin": 0.2})
    all_say = shared(0.4, lower=0.3)
    few, many = (decided(of_country(n, -0.1, noise=0.001), all_say, spec) for n in (19, 60))
    assert (few.verdict, few.basis, few.veto) == ("promoted", "pooled", False)
    assert (many.verdict, many.basis, many.veto) == ("kept", "own", False)  # they can tell
    for rows in (19, 60):
        worse = decided(of_country(rows, 0.5, noise=0.001), all_say, spec)
        assert (worse.verdict, worse.veto) == ("kept", True)


def test_own_rows_that_cannot_tell_leave_it_to_all_countries_however_many_they_are() -> None:
    many = of_country(MONTHS, 0.0)
    alone, with_all = decided(many, None), decided(many, shared())
    assert alone.verdict == "kept"
    assert alone.lower < 0 < alone.upper
    assert (with_all.verdict, with_all.own_rows) == ("promoted", MONTHS)


@given(
    rows=st.integers(0, 400),
    worse_by=st.floats(-0.9, 2.0),
    lower=st.floats(-0.2, 0.2),
    seed=st.integers(0, 5),
)
def test_own_rows_that_tell_decide_to_the_bit_as_if_there_were_no_other_country(
    rows: int, worse_by: float, lower: float, seed: int
) -> None:
    own = of_country(rows, worse_by, 0.3, seed)
    alone, with_all = decided(own, None), decided(own, shared(lower=lower))
    tells = alone.verdict == "promoted" or alone.upper < 0
    if tells:
        assert replace(with_all, veto=False, reason="") == replace(alone, reason="")
    elif with_all.verdict == "promoted":
        assert with_all.basis == "pooled"
    if lower > 0:  # refused only by rows that say worse for certain
        assert with_all.verdict == "promoted" or with_all.veto
    else:
        assert with_all.verdict in (alone.verdict, "kept")


def test_the_model_that_serves_already_is_kept_and_nothing_new_was_tried() -> None:
    found = decided(of_country(6, 0.0), PooledComparison(OLD, OLD))
    assert (found.verdict, found.gain) == ("kept", 0.0)
    assert f"{OLD}, the pooled model that serves already" in found.reason


def test_models_that_were_never_compared_are_not_judged_and_it_says_why() -> None:
    found = decided(of_country(6, 0.0), comparison_for([], NEW, OLD, ""))
    assert found.verdict == "not_judged"
    assert f"{NEW} was not compared with {OLD}" in found.reason


def test_a_gate_that_failed_is_no_matter_of_other_countries() -> None:
    failed = [replace(NOTHING, passed=False)]
    assert decide(product(), of_country(6, 0.0), failed, BOTH, pooled=shared()).verdict == "kept"


def test_an_approval_is_waited_for_as_ever() -> None:
    spec = product(decision={"approval": True})
    assert decided(of_country(6, 0.0), shared(), spec).verdict == "waiting"


# What is compared


def held(spec: ProductSpec) -> pd.DataFrame:
    """Holdout rows of three countries; the old model errs by twice as much, in LUX by half."""
    frames = [regression_rows(120, seed) for seed in range(3)]
    country = np.repeat(np.array(["DEU", "FRA", "LUX"], dtype="object"), 120)
    rows = pd.concat(frames, ignore_index=True)
    error = np.random.default_rng(0).normal(size=len(rows))
    factor = np.where(country == "LUX", 0.5, 2.0)
    label = rows["label"].to_numpy()
    both = {NEW: label + error, OLD: label + factor * error}
    return HoldoutRows(rows, country, both).frame(spec)


def test_a_comparison_is_of_the_rows_that_both_predict_and_is_made_again_from_them() -> None:
    spec = product(regions={"west": ["DEU", "FRA"]})
    frame = held(spec)
    frame.loc[frame["country"] == "FRA", OLD] = np.nan
    made = compare_pooled(spec, frame, NEW, OLD)
    both = frame[frame["country"] != "FRA"]
    errors = [(both[each] - both["label"]).abs().mean() for each in (NEW, OLD)]
    assert (made.rows, made.countries) == (240, 2)
    assert [made.candidate_value, made.champion_value] == pytest.approx(errors)
    assert made.gain.value == pytest.approx(1 - errors[0] / errors[1])
    assert (made.level, made.problem) == (level_used(spec), "")
    [read] = comparisons_from_json(comparisons_to_json([made]))
    assert compared_again(read, frame) == made == read


def test_pairs_of_the_same_rows_are_drawn_once_and_compared_as_each_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec, frame = product(regions={"west": ["DEU", "FRA"]}), held(product())
    frame = frame.assign(region=np.where(frame["country"] == "LUX", "", "west"))
    frame["other"] = frame[OLD] * 1.01
    frame["older"] = frame[OLD].where(frame["country"] != "FRA")
    drawn, draw = [], succession.draw_rows

    def counted(*args: Any, **named: Any) -> BootstrapWeights:
        drawn.append(args)
        return draw(*args, **named)

    monkeypatch.setattr(succession, "draw_rows", counted)
    made = compare_successors(spec, frame, [NEW, "other"], [OLD, "older"])
    assert (len(made), len(drawn)) == (8, 4)
    for each in made:
        alone = compare_pooled(spec, frame, each.candidate, each.champion, region=each.region)
        assert each == alone


def test_a_country_goes_by_its_region_where_that_can_tell() -> None:
    spec = product(regions={"west": ["DEU", "FRA"], "small": ["LUX"]})
    frame = held(spec)
    made = [compare_pooled(spec, frame, NEW, OLD, region=of) for of in ("", "west", "small")]
    west, small = (comparison_for(made, NEW, OLD, of) for of in ("west", "small"))
    assert (west.rows, west.gain.value > 0.4) == (240, True)
    assert (small.rows, small.gain.value < 0) == (120, True)
    blind = [made[0], replace(made[1], problem="too few days")]
    assert comparison_for(blind, NEW, OLD, "west").region == ""


def test_comparisons_and_tests_survive_being_stored_whatever_is_not_known() -> None:
    unknown = PooledComparison(NEW, OLD, problem="lost")
    assert str(comparisons_from_json(comparisons_to_json([unknown]))) == str([unknown])
    assert comparisons_from_json("") == []
    tried = (Behaved("a", 5, 4, False, "x"), Behaved("b", 0, 0, None, problem="no row"))
    assert behaved_from_json(behaved_to_json(tried)) == tried
    assert behaved_from_json("") == ()


# Gates


def test_a_comparison_stored_before_fresher_ones_had_a_level_is_told_by_the_level_of_any() -> None:
    now = shared(0.02, -0.03)
    (held,) = json.loads(comparisons_to_json([now]))
    earlier = {name: value for name, value in held.items() if not name.startswith("fresher_")}
    (read,) = comparisons_from_json(json.dumps([earlier]))
    assert read.fresher_lower == now.gain.lower
    assert np.isnan(read.fresher_level)


def report(worse_by: float, rows: int, seed: int = 0, noise: float = 0.3) -> Report:
    """On `rows` days the candidate's error is the baseline's times 1 + worse_by, and noise."""
    rng = np.random.default_rng(seed)
    frame = regression_rows(rows, seed).assign(label=0.0)
    error = rng.normal(size=rows)
    ours = error * (1 + worse_by) + noise * rng.normal(size=rows)
    return evaluate(frame.assign(level=error), ours, product(), frame.assign(label=99.0))


POOLED = report(-0.5, 900)


@given(rows=st.integers(0, 300), worse_by=st.floats(-0.9, 1.0), seed=st.integers(0, 5))
def test_more_rows_never_refuse_what_all_countries_pass_unless_they_say_so_for_certain(
    rows: int, worse_by: float, seed: int
) -> None:
    own, spec = report(worse_by, rows, seed), product(gates={"floor": 1.0})
    found = beats_baseline(own, spec, POOLED)
    assert found.passed is not None
    assert found.passed or own.gain.upper < 0
    floor, value = above_floor(own, spec, POOLED), own.estimates["mae"]
    assert floor.passed is not None
    assert floor.passed or value.lower > 1.0


@given(rows=st.integers(20, 300), worse_by=st.floats(-0.9, 1.0), seed=st.integers(0, 5))
def test_own_rows_that_tell_are_gone_by_as_if_there_were_no_pooled_model(
    rows: int, worse_by: float, seed: int
) -> None:
    own, spec = report(worse_by, rows, seed), product(gates={"floor": 1.0})
    alone, both = beats_baseline(own, spec), beats_baseline(own, spec, POOLED)
    if alone.passed or own.gain.upper < 0:
        assert both == alone
    assert above_floor(own, spec, POOLED) == above_floor(own, spec) or own.value > 1.0


def test_a_pooled_model_that_fails_everywhere_fails_in_a_country_that_cannot_tell() -> None:
    bad = report(0.5, 900)
    assert beats_baseline(report(0.0, 5), product(), bad).passed is False
    assert beats_baseline(report(0.0, 40), product(), bad).passed is False


def test_a_country_with_thirty_rows_is_judged_like_one_with_five() -> None:
    five, thirty = (report(-0.1, rows, noise=1.0) for rows in (5, 30))
    assert thirty.gain.lower < 0 < thirty.gain.upper or not thirty.gain.has_interval
    for own in (five, thirty):
        result = beats_baseline(own, product(split={**SPLIT, "min_holdout_rows": 10}), POOLED)
        assert result.passed is True
        assert "900 holdout rows of all countries" in result.description


SPLIT: dict[str, Any] = {"holdout_from": "2023-12-01", "validation_days": 60}
TEST = {"name": "t", "test": "minimum", "change": {"x": {"set": 0}}, "at_least": 0.0}


@pytest.mark.parametrize(
    ("rows", "behaved", "passed"),
    [(0, 0, True), (5, 4, True), (5, 1, False), (40, 38, True), (40, 33, True), (40, 25, False)],
)
def test_a_few_rows_that_misbehave_by_chance_do_not_stop_what_behaves_in_all_countries(
    rows: int, behaved: int, passed: bool
) -> None:
    spec = product(gates={"behaviour": [TEST]})
    own = [Behaved("t", rows, behaved, behaved >= 0.9 * rows if rows else None, problem="no row")]
    assert behaviour(own, spec, [Behaved("t", 200, 199, True)]).passed is passed
    failing = [Behaved("t", 200, 20, False)]
    assert behaviour(own, spec, failing).passed is behaviour(own, spec).passed
