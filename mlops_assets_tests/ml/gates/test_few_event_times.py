"""Products that are no daily series: a customer scored on the first of a month."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_assets.ml.evaluation.report import report_of
from mlops_assets.ml.gates.gates import GateResult, not_judged
from mlops_assets.ml.gates.judgement import gates_again, gates_of
from mlops_assets.ml.gates.model_pair import ModelPair
from mlops_assets.ml.monitoring.performance import (
    PERFORMANCE_COLUMNS,
    against_previous,
    promise_of,
    realised,
)
from mlops_assets.ml.promotion.card_decision import with_decision
from mlops_assets.ml.promotion.decision import Decision, decide, settings_of, spec_of
from mlops_assets.ml.reports.model_card import DECISION_MARKS
from mlops_assets.ml.training.selection import train_pooled
from mlops_assets.spec import ProductSpec
from mlops_assets_tests.ml.scenarios import product
from mlops_assets_tests.ml.slow import CLOCK

PASSED = [GateResult("beats_baseline", True, 1.0, 0.0, "better")]
BOTH = ModelPair("2", "1")
JUDGED = ["beats_baseline", "above_floor", "slices", "fairness", "coverage", "stability"]


def monthly(cutoffs: int = 4, entities: int = 300, *, seed: int = 0, **errors: float) -> Any:
    """Evidence of a panel: labels 90 days later, errors with an effect of the entity."""
    rng = np.random.default_rng(seed)
    months = pd.date_range("2024-01-01", periods=cutoffs, freq="MS")
    names = np.tile(np.array([f"c{place:04d}" for place in range(entities)], "object"), cutoffs)
    event = pd.Series(np.repeat(months.to_numpy(), entities))
    label = rng.normal(size=len(event))
    sizes = {"candidate": 0.5, "champion": 1.0, "baseline": 1.5, **errors}
    scale = {name: np.tile(rng.lognormal(0, 0.7, entities), cutoffs) for name in sizes}
    return pd.DataFrame(
        {
            "entity": names,
            "event_time": event,
            "label_time": event + pd.Timedelta(days=90),
            "label": label,
            **{
                name: label + size * scale[name] * rng.normal(size=len(event))
                for name, size in sizes.items()
            },
            "low": label - 1.3 + rng.normal(size=len(event)),
            "high": label + 1.3 + rng.normal(size=len(event)),
            "baseline_name": "mean",
            "slice.kind": np.where(np.arange(len(event)) % 2, "a", "b"),
        }
    )


def judging(**evaluation: Any) -> ProductSpec:
    return product(
        evaluation={"slices": [{"feature": "kind"}], "draws": 400, **evaluation},
        gates={
            "fairness": [{"feature": "kind", "measure": "error", "max_difference": 5.0}],
            "coverage_tolerance": 0.4,
        },
    )


def by_name(spec: ProductSpec, evidence: pd.DataFrame) -> dict[str, GateResult]:
    return {gate.name: gate for gate in gates_of(spec, evidence)}


def test_four_monthly_cut_offs_with_many_entities_are_judged_by_every_gate_and_promoted() -> None:
    spec, evidence = judging(), monthly()
    gates = by_name(spec, evidence)
    assert {name: gates[name].passed for name in JUDGED} == dict.fromkeys(JUDGED, True)
    report = report_of(spec, evidence)
    assert report.interval_problem == ""
    assert report.gain.has_interval
    assert report.coverage.has_interval
    assert report.slices["judged"].all()
    decision = decide(spec, evidence, list(gates.values()), BOTH)
    assert (decision.verdict, decision.drawn_by, decision.block_days) == ("promoted", "entity", 0)
    counts = "4 monthly event times, 1,200 rows of 300 entities"
    assert f"drawn by entity ({counts})" in decision.reason
    assert counts in decision.drawn
    assert "at one event time is not in the intervals" in decision.drawn


def test_few_entities_at_few_cut_offs_are_not_judged_and_both_counts_are_told() -> None:
    spec, evidence = judging(), monthly(entities=15)
    gates = by_name(spec, evidence)
    assert gates["beats_baseline"].passed is None
    decision = decide(spec, evidence, PASSED, BOTH)
    assert decision.verdict == "not_judged"
    for told in (gates["beats_baseline"].description, decision.reason):
        assert "4 monthly event times, 60 rows of 15 entities are too few" in told
        assert "by entity 20 entities are needed" in told
        assert "wait for more event times" in told


def test_rows_of_an_entity_are_not_taken_for_as_many_entities() -> None:
    """A candidate is not promoted for what a few dozen entities show again and again."""
    spec, evidence = judging(), monthly(entities=25, candidate=0.97)
    single = evidence.assign(entity=np.arange(len(evidence)).astype(str))
    wide, narrow = (decide(spec, each, PASSED, BOTH) for each in (evidence, single))
    assert wide.gain == narrow.gain
    assert wide.upper - wide.lower > 1.2 * (narrow.upper - narrow.lower)


@pytest.mark.parametrize(
    ("declared", "drawn_by"), [("time", ""), ("entity", "entity"), ("both", ""), ("auto", "entity")]
)
def test_a_declared_draw_is_used_by_report_gates_and_decision(declared: str, drawn_by: str) -> None:
    spec, evidence = judging(draw_by=declared), monthly()
    report = report_of(spec, evidence)
    assert bool(report.interval_problem) == (not drawn_by)
    assert by_name(spec, evidence)["fairness"].passed is (True if drawn_by else None)
    assert decide(spec, evidence, PASSED, BOTH).drawn_by == drawn_by
    assert report.drawn
    assert report.drawn.by == (declared if declared != "auto" else "entity")


# what was decided before


def without_draw_by(spec: ProductSpec) -> dict[str, Any]:
    """Settings as they were recorded before the field was there."""
    stored = json.loads(json.dumps(settings_of(spec)))
    del stored["evaluation"]["draw_by"]
    return stored


def test_settings_say_what_is_drawn_and_a_spec_leaves_the_default_out_of_its_hash() -> None:
    assert settings_of(product())["evaluation"]["draw_by"] == "auto"
    assert "draw_by" not in product().model_dump(mode="json")["evaluation"]
    declared = product(evaluation={"draw_by": "entity"})
    assert declared.config_hash() != product().config_hash()
    assert declared.config_hash("evaluation.draw_by") != product().config_hash("evaluation.draw_by")
    old = ("evaluation.block_days", "evaluation.draws")
    assert product().config_hash(*old, "evaluation.draw_by") == product().config_hash(*old)
    assert spec_of(settings_of(declared)).evaluation == declared.evaluation
    assert declared.for_country("DEU").evaluation.draw_by == "entity"


def test_an_earlier_decision_comes_out_as_it_was_though_its_rows_are_drawn_otherwise_now() -> None:
    """Forty weeks: six blocks of seven weeks then, forty blocks of seven days now."""
    spec, evidence = judging(), monthly(cutoffs=40, entities=1, candidate=0.7)
    evidence["event_time"] = pd.date_range("2024-01-01", periods=40, freq="7D")
    evidence["label_time"] = evidence["event_time"] + pd.Timedelta(days=7)
    earlier = spec_of(without_draw_by(spec))
    then, now = (decide(each, evidence, PASSED, BOTH) for each in (earlier, spec))
    again = spec_of(json.loads(json.dumps(without_draw_by(spec))))
    assert decide(again, evidence, PASSED, BOTH) == then
    assert then.block_days == now.block_days == 7
    assert (then.lower, then.upper) != (now.lower, now.upper)
    # Then: days with rows, as if each followed the other.
    close = evidence.assign(event_time=pd.date_range("2024-01-01", periods=40))
    same = decide(spec, close, PASSED, BOTH)
    assert (then.lower, then.upper, then.verdict) == (same.lower, same.upper, same.verdict)


def test_an_earlier_decision_that_was_not_judged_is_not_judged_again_in_the_same_words() -> None:
    spec, evidence = judging(), monthly()
    earlier = spec_of(without_draw_by(spec))
    decision = decide(earlier, evidence, PASSED, BOTH)
    assert (decision.verdict, decision.reason) == (
        "not_judged",
        "4 days with rows make 1 blocks of 7 days, and 5 are needed to tell an interval; the "
        "champion stays",
    )
    recorded = [GateResult("fairness", None, 0.0, 0.0, ""), PASSED[0]]
    (fairness, beaten) = gates_again(earlier, evidence, recorded)
    assert (fairness.passed, beaten.passed) == (None, None)
    assert gates_again(spec, evidence, [not_judged("fairness", "then")])[0].passed is None


# after the decision


def performance(evidence: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    table = evidence.rename(columns={"candidate": "prediction", "champion": "previous_prediction"})
    given = {
        "made": "ahead",
        "predicted_at": table["event_time"],
        "model_version": "2",
        "model_kind": "local",
        "previous_version": "1",
        "lower": table["low"],
        "upper": table["high"],
        "first_label": table["label"],
        **columns,
    }
    return table.assign(**given)[list(PERFORMANCE_COLUMNS)]


def test_the_realised_error_of_two_cut_offs_is_judged_by_entity() -> None:
    spec = judging()
    promise = promise_of(spec, report_of(spec, monthly()))
    as_promised = realised(spec, performance(monthly(2, seed=1)), promise, "2")
    assert as_promised.worse is False
    assert "drawn by entity (2 monthly event times, 600 rows of 300 entities)" in as_promised.reason
    assert "at one event time is not in the intervals" in as_promised.drawn
    broken = realised(spec, performance(monthly(2, seed=1, candidate=1.4)), promise, "2")
    assert broken.worse is True
    few = realised(spec, performance(monthly(2, 15, seed=1)), promise, "2")
    assert few.worse is None
    assert "30 rows of 15 entities are too few" in few.reason


def test_a_version_is_compared_with_the_one_before_it_by_entity() -> None:
    spec = judging()
    gain = against_previous(spec, performance(monthly(2)), "2")
    assert gain.has_interval
    assert gain.lower > 0
    assert not against_previous(spec, performance(monthly(2, 15)), "2").has_interval


def test_the_card_says_what_the_interval_of_a_decision_was_drawn_from() -> None:
    spec, card = judging(), "\n".join(("# Card", *DECISION_MARKS, ""))
    decision = decide(spec, monthly(), PASSED, BOTH)
    told = with_decision(card, decision, spec)
    assert "interval drawn from" in told
    assert "not in the intervals" in told
    plain = Decision("kept", "not better", 10, 1.0, 1.0)
    assert "interval drawn from" not in with_decision(card, plain, spec)


# many countries


def panel(country: str, entities: int, seed: int) -> pd.DataFrame:
    """Features of customers numbered from 0 on, in every country alike."""
    rng = np.random.default_rng(seed)
    months = pd.date_range("2023-03-01", "2024-02-01", freq="MS")
    event = pd.Series(np.repeat(months.to_numpy(), entities))
    x = rng.normal(size=len(event))
    return pd.DataFrame(
        {
            "entity": np.tile(np.arange(entities).astype(str).astype("object"), len(months)),
            "event_time": event,
            "label_time": event + pd.Timedelta(days=1),
            "label": 10 + 3 * x + rng.normal(size=len(event)),
            "x": x,
            "level": 0.0,
            "country": country,
        }
    )


def test_the_same_customer_number_in_two_countries_is_two_entities_of_pooled_evidence() -> None:
    frames = {name: panel(name, 15, seed) for seed, name in enumerate(("DEU", "FRA", "LUX"))}
    spec = product(split={"holdout_from": "2023-11-01", "validation_days": 120})
    (model,) = train_pooled(spec, frames, clock=CLOCK).values()
    drawn = model.report.drawn
    assert drawn
    assert (drawn.by, drawn.entities, drawn.days, drawn.rows) == ("entity", 45, 4, 180)
    assert model.report.gain.has_interval
