from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from mlops_assets.ml.gates.gates import GateResult
from mlops_assets.ml.gates.model_pair import ModelPair
from mlops_assets.ml.gates.succession import level_used
from mlops_assets.ml.promotion.decision import (
    REQUIRED,
    Decision,
    decide,
    settings_of,
    spec_of,
)
from mlops_assets.ml.stats.metrics import improvement, score
from mlops_assets.spec import GATES, ProductSpec
from mlops_assets_tests.effort import WHOLE
from mlops_assets_tests.ml.scenarios import classifier, product

PASSED = [GateResult("beats_baseline", True, 1.0, 2.0, "fine")]
BOTH = ModelPair("2", "1")
MOVING = {"holdout_from": None, "holdout_days": 90, "train_days": 400, "refit": True}
FIRST = ModelPair("1")


def evidence(
    y: np.ndarray,
    candidate: np.ndarray,
    champion: np.ndarray | None = None,
    start: str = "2024-01-01",
) -> pd.DataFrame:
    """Evidence of a row a day."""
    event = pd.date_range(start, periods=len(y))
    return pd.DataFrame(
        {
            "entity": "DEU",
            "event_time": event,
            "label_time": event + pd.Timedelta(days=1),
            "label": y,
            "candidate": candidate,
            "low": np.nan,
            "high": np.nan,
            "champion": np.full(len(y), np.nan) if champion is None else champion,
            "baseline": 0.0,
            "baseline_name": "mean",
        }
    )


def rows(count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, good predictions, worse predictions."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=count)
    return y, y + rng.normal(0, 0.5, count), y + rng.normal(0, 1.0, count)


def deciding(**decision: Any) -> ProductSpec:
    return product(decision=decision)


Y, GOOD, WORSE = rows()


def test_a_clearly_better_candidate_is_promoted_with_its_numbers_and_units() -> None:
    decision = decide(product(), evidence(Y, GOOD, WORSE), PASSED, BOTH)
    assert decision.verdict == "promoted"
    values = [score("mae", Y, each) for each in (GOOD, WORSE)]
    assert [decision.candidate_value, decision.champion_value] == pytest.approx(values)
    assert decision.gain == pytest.approx(improvement("mae", *values))
    assert 0 < decision.lower < decision.gain < decision.upper < 1
    assert (decision.rows, decision.level, decision.block_days) == (400, 0.05, 7)
    for told in ("mae", "EUR", "400 rows", f"{100 * decision.gain:.3g} %", "significantly better"):
        assert told in decision.reason


def test_a_worse_or_equal_candidate_keeps_the_champion() -> None:
    assert decide(product(), evidence(Y, WORSE, GOOD), PASSED, BOTH).verdict == "kept"
    same = decide(product(), evidence(Y, GOOD, GOOD), PASSED, BOTH)
    assert (same.verdict, same.gain, same.lower) == ("kept", 0.0, 0.0)
    assert "the champion stays" in same.reason


def test_the_first_candidate_that_passes_becomes_champion() -> None:
    decision = decide(product(), evidence(Y, GOOD), PASSED, FIRST)
    assert decision.verdict == "promoted"
    assert "first champion" in decision.reason
    assert np.isnan(decision.champion_value)


@pytest.mark.parametrize(("passed", "verdict"), [(False, "kept"), (None, "not_judged")])
@pytest.mark.parametrize("pair", [BOTH, FIRST])
def test_a_required_gate_that_did_not_pass_stops_even_the_best_candidate(
    passed: bool | None, verdict: str, pair: ModelPair
) -> None:
    stop = GateResult("above_floor", passed, 1.0, 0.5, "too bad")
    champion = WORSE if pair.champion else None
    decision = decide(product(), evidence(Y, GOOD, champion), [*PASSED, stop], pair)
    assert decision.verdict == verdict
    assert decision.reason == "gate above_floor: too bad"


@pytest.mark.parametrize("name", sorted(set(GATES) - set(REQUIRED)))
def test_any_gate_that_failed_stops_and_one_that_need_not_be_judged_only_warns(name: str) -> None:
    for passed, verdict in ((False, "kept"), (None, "promoted")):
        gates = [*PASSED, GateResult(name, passed, 1.0, 0.5, "")]
        assert decide(product(), evidence(Y, GOOD, WORSE), gates, BOTH).verdict == verdict


def test_a_failed_gate_is_named_before_one_that_was_not_judged() -> None:
    gates = [
        GateResult("above_floor", None, 1, 1, ""),
        GateResult("stability", False, 1, 1, "bad"),
    ]
    assert decide(product(), evidence(Y, GOOD), gates, FIRST).reason == "gate stability: bad"


def test_a_candidate_that_leaves_rows_without_a_prediction_is_not_promoted() -> None:
    lacking = np.where(np.arange(400) == 7, np.nan, GOOD)
    for champion, pair in ((WORSE, BOTH), (None, FIRST)):
        decision = decide(product(), evidence(Y, lacking, champion), PASSED, pair)
        assert decision.verdict == "kept"
        assert "no prediction for 1 of 400" in decision.reason


def test_rows_the_champion_does_not_predict_are_left_out_on_both_sides() -> None:
    known = np.arange(400) < 300
    decision = decide(product(), evidence(Y, GOOD, np.where(known, WORSE, np.nan)), PASSED, BOTH)
    assert decision.rows == 300
    assert decision.candidate_value == pytest.approx(score("mae", Y[known], GOOD[known]))
    assert decision.verdict == "promoted"


def test_too_few_rows_or_days_cannot_decide_between_two_models() -> None:
    few = decide(product(), evidence(Y[:19], GOOD[:19], WORSE[:19]), PASSED, BOTH)
    assert few.verdict == "not_judged"
    assert "20 rows" in few.reason
    assert "19" in few.reason
    days = decide(product(), evidence(Y[:25], GOOD[:25], WORSE[:25]), PASSED, BOTH)
    assert days.verdict == "not_judged"
    assert "5 are needed" in days.reason
    none = decide(product(), evidence(Y[:0], GOOD[:0], WORSE[:0]), PASSED, BOTH)
    assert none.verdict == "not_judged"


def test_one_class_cannot_decide_between_two_models() -> None:
    frame = evidence(np.ones(400), GOOD, WORSE)
    assert decide(classifier(), frame, PASSED, BOTH).verdict == "not_judged"


def test_a_champion_without_error_stays() -> None:
    decision = decide(product(), evidence(Y, GOOD, Y), PASSED, BOTH)
    assert decision.verdict == "kept"
    assert "nothing is under" in decision.reason


def test_the_gain_must_be_above_the_margin_for_certain() -> None:
    frame = evidence(Y, GOOD, WORSE)
    sure = decide(product(), frame, PASSED, BOTH)
    below, above = sure.lower - 0.01, sure.lower + 0.01
    assert decide(deciding(margin=below), frame, PASSED, BOTH).verdict == "promoted"
    kept = decide(deciding(margin=above), frame, PASSED, BOTH)
    assert kept.verdict == "kept"
    assert f"{100 * above:.3g} %" in kept.reason


def test_a_fresher_candidate_is_promoted_when_surely_not_worse_by_the_margin() -> None:
    rng = np.random.default_rng(1)
    same = GOOD + rng.normal(0, 0.01, 400)
    spec = deciding(refresh_after_days=100, margin=0.05)
    days = pd.Timestamp("2024-01-01")
    fresh = ModelPair("2", "1", days + pd.Timedelta(days=100), days)
    decision = decide(spec, evidence(Y, same, GOOD), PASSED, fresh)
    assert decision.verdict == "promoted"
    assert "knows 100 days more" in decision.reason
    early = ModelPair("2", "1", days + pd.Timedelta(days=99), days)
    assert decide(spec, evidence(Y, same, GOOD), PASSED, early).verdict == "kept"
    assert decide(spec, evidence(Y, same, GOOD), PASSED, BOTH).verdict == "kept"
    assert decide(spec, evidence(Y, WORSE, GOOD), PASSED, fresh).verdict == "kept"
    never = deciding(margin=0.05, refresh_after_days=None)
    assert decide(never, evidence(Y, same, GOOD), PASSED, fresh).verdict == "kept"


def test_a_fresher_candidate_is_judged_by_a_margin_and_a_level_of_its_own() -> None:
    rng = np.random.default_rng(1)
    wilder = GOOD + rng.normal(0, 0.3, 400) * (rng.random(400) < 0.2)
    days = pd.Timestamp("2024-01-01")
    fresh = ModelPair("2", "1", days + pd.Timedelta(days=7), days)
    frame = evidence(Y, wilder, GOOD)
    sure = decide(deciding(refresh_level=0.01), frame, PASSED, fresh)
    lax = decide(deciding(refresh_level=0.4), frame, PASSED, fresh)
    assert sure.fresher_lower < lax.fresher_lower < 0
    assert (sure.lower, sure.gain) == (lax.lower, lax.gain)
    between = -(sure.fresher_lower + lax.fresher_lower) / 2
    judged = {
        level: decide(
            deciding(refresh_level=level, refresh_margin=between), frame, PASSED, fresh
        ).verdict
        for level in (0.01, 0.4)
    }
    assert judged == {0.01: "kept", 0.4: "promoted"}


def test_how_much_worse_a_fresher_candidate_may_be_follows_from_margin_and_metric() -> None:
    assert deciding().decision.fresher_may_be_worse_by("mae") == 0.05
    assert deciding().decision.fresher_may_be_worse_by("auc") == 0.01
    assert deciding(margin=0.02).decision.fresher_may_be_worse_by("auc") == 0.02
    own = deciding(margin=0.02, refresh_margin=0.03)
    assert own.decision.fresher_may_be_worse_by("mae") == 0.03


def test_a_decision_recorded_before_the_margin_of_fresher_ones_is_made_again_as_it_was() -> None:
    rng = np.random.default_rng(1)
    same = GOOD + rng.normal(0, 0.01, 400)
    days = pd.Timestamp("2024-01-01")
    fresh = ModelPair("2", "1", days + pd.Timedelta(days=100), days)
    now = settings_of(deciding(refresh_after_days=100))
    assert decide(spec_of(now), evidence(Y, same, GOOD), PASSED, fresh).verdict == "promoted"
    own = {"refresh_margin", "refresh_level"}
    then = {name: value for name, value in now["decision"].items() if name not in own}
    earlier = spec_of({**now, "decision": then})
    assert decide(earlier, evidence(Y, same, GOOD), PASSED, fresh).verdict == "kept"
    assert settings_of(earlier)["decision"] == then


def test_a_promotion_waits_where_a_person_has_to_approve_it() -> None:
    spec = deciding(approval=True)
    for champion, pair in ((WORSE, BOTH), (None, FIRST)):
        decision = decide(spec, evidence(Y, GOOD, champion), PASSED, pair)
        assert decision.verdict == "waiting"
        assert decision.reason.startswith("waits for a person's approval")
    assert decide(spec, evidence(Y, WORSE, GOOD), PASSED, BOTH).verdict == "kept"


def test_many_countries_lower_the_level_so_that_few_are_promoted_by_chance() -> None:
    assert level_used(product()) == 0.05
    many = product(countries=[f"C{place:02d}" for place in range(40)])
    assert level_used(many) == pytest.approx(1 / 40)
    strict = product(decision={"max_false_promotions": 0.1, "level": 0.2})
    assert level_used(strict) == pytest.approx(0.1 / 3)
    one, other = (
        decide(spec, evidence(Y, GOOD, WORSE), PASSED, BOTH) for spec in (product(), many)
    )
    assert other.lower < one.lower
    hundreds = product(countries=[f"C{place:03d}" for place in range(400)])
    decision = decide(hundreds, evidence(Y, GOOD, WORSE), PASSED, BOTH)
    assert decision.draws * decision.level >= 20


def test_a_decision_is_made_again_from_stored_settings_and_is_json() -> None:
    spec = product(
        metric="rmse",
        decision={"margin": 0.02},
        gates={
            "behaviour": [
                {
                    "name": "t",
                    "test": "direction",
                    "change": {"x": {"add": 1}},
                    "expect": "higher",
                }
            ]
        },
        overrides={"FRA": {"seed": 9}},
    ).for_country("FRA")
    stored = json.loads(json.dumps(settings_of(spec)))
    frame = evidence(Y, GOOD, WORSE)
    again = decide(spec_of(stored), frame, PASSED, BOTH)
    assert again == decide(spec, frame, PASSED, BOTH)
    assert Decision(**json.loads(json.dumps(asdict(again)))) == again
    assert spec_of(stored).gates == spec.gates
    assert spec_of(stored).split == spec.split
    moving = spec.model_copy(update={"split": spec.split.model_copy(update=MOVING)})
    assert spec_of(json.loads(json.dumps(settings_of(moving)))).split == moving.split


def test_the_same_seed_gives_the_same_decision() -> None:
    frame = evidence(Y, GOOD, WORSE)
    one, same = (decide(product(), frame, PASSED, BOTH) for _ in range(2))
    assert one == same
    assert decide(product(seed=4), frame, PASSED, BOTH).lower != one.lower


def test_auc_decisions_agree_with_scikit_learn_and_are_differences() -> None:
    labels = (Y > 0) * 1.0
    decision = decide(classifier(), evidence(labels, GOOD, WORSE), PASSED, BOTH)
    expected = metrics.roc_auc_score(labels, GOOD) - metrics.roc_auc_score(labels, WORSE)
    assert decision.gain == pytest.approx(expected)
    assert decision.verdict == "promoted"
    assert "%" not in decision.reason.split("with")[0]


def test_equal_models_are_rarely_promoted_and_better_ones_nearly_always() -> None:
    """Two models err alike, in the long run, on days that are alike; then one is 25 % better."""
    promoted, seeds = {1.0: 0, 0.75: 0}, 200 if WHOLE else 80
    spec = product(evaluation={"draws": 300})
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        calm = np.exp(0.3 * np.repeat(rng.normal(size=35), 7))
        common, a, b = (rng.normal(size=245) * calm for _ in range(3))
        for better in promoted:
            frame = evidence(np.zeros(245), better * (common + a), common + b)
            promoted[better] += decide(spec, frame, PASSED, BOTH).verdict == "promoted"
    assert promoted[1.0] / seeds <= 0.05
    assert promoted[0.75] / seeds >= 0.95
