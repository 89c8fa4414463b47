"""Candidate against champion on the same rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from mlops_assets.ml.gates.gates import GateResult
from mlops_assets.ml.gates.model_pair import ModelPair
from mlops_assets.ml.stats.bootstrap import interval, resampled_gain
from mlops_assets.ml.stats.draws import BootstrapWeights, draw_rows
from mlops_assets.ml.stats.metrics import NAN, Estimate, format_gain, improvement, score
from mlops_assets.spec import GREATER_IS_BETTER, EarlierEvaluationSpec, GateName, ProductSpec

Verdict = Literal["promoted", "kept", "not_judged", "waiting", "forced", "rolled_back"]
REQUIRED: tuple[GateName, ...] = (
    "beats_baseline",
    "above_floor",
    "loads_and_predicts",
    "latency_and_size",
)
"""Gates without whose judgement nothing is promoted; the others, not judged, only warn."""
SETTINGS = (
    "countries",
    "decision",
    "evaluation",
    "gates",
    "metric",
    "predictions",
    "seed",
    "split",
    "target",
    "task",
)
"""Sections of a product that gates and decisions depend on."""
DECISION_TAIL_DRAWS = 20
"""Draws that are to be beyond the bound of a decision, so that its place is not chance."""


@dataclass(frozen=True)
class Decision:
    """The outcome of comparing a candidate with the champion.

    Args:
        verdict: promoted; kept (the champion stays); not_judged (it stays, for want of rows or of
            a gate); waiting (until a person approves); forced or rolled_back (by a person).
        reason: why, in a sentence.
        rows: both were scored on.
        candidate_value: metric of the candidate; NaN when it was not scored.
        champion_value: metric of the champion; NaN without one.
        gain: improvement on the champion (`improvement`): a share of its error, for auc the
            difference; positive is better.
        lower: its bound at `level` over the bootstrap draws.
        upper: its bound at 1 - `level`.
        level: one-sided; the probability with which an equal candidate may be promoted.
        draws: of the bootstrap.
        block_days: calendar days drawn together; 0 where entities alone were drawn.
        drawn_by: time, entity or both; "" where nothing was drawn, and in decisions recorded
            before it was told.
        drawn: what was drawn, from how many rows of what (`draws.Drawn.text`); "" as above.
    """

    verdict: Verdict
    reason: str
    rows: int
    candidate_value: float
    champion_value: float
    gain: float = NAN
    lower: float = NAN
    upper: float = NAN
    level: float = NAN
    draws: int = 0
    block_days: int = 0
    drawn_by: str = ""
    drawn: str = ""


def decide(
    spec: ProductSpec, evidence: pd.DataFrame, gates: Sequence[GateResult], pair: ModelPair
) -> Decision:
    """Promote the candidate if its gates passed and it is better than the champion for certain.

    For certain: the gain over a paired bootstrap of the rows both predict (`draws.draw_rows`) is
    above `decision.margin` at its lower bound. A candidate that learned from rows newer by
    `decision.refresh_after_days` is promoted when it is for certain not worse by more than the
    margin. Without a champion the gates alone decide. With `decision.approval` every promotion
    waits.

    Args:
        spec: the product as it is for this country; or `spec_of` stored settings.
        evidence: the evidence frame; the champion's column is NaN without one.
        gates: outcome of every gate; each of `REQUIRED` that is there must have been judged.
        pair: the two versions.
    """
    compared = _on_identical_rows(evidence, pair)
    values = _values(spec, compared, pair)
    stopped = _stopped_by(gates)
    if stopped is not None:
        verdict: Verdict = "not_judged" if stopped.passed is None else "kept"
        return _undecided(verdict, f"gate {stopped.name}: {stopped.description}", compared, values)
    missing = int((~np.isfinite(evidence["candidate"].to_numpy(dtype="float64"))).sum())
    if missing:
        reason = f"the candidate gives no prediction for {missing} of {len(evidence)} holdout rows"
        return _undecided("kept", reason, compared, values)
    if not pair.champion:
        reason = "first champion: every gate passed and there was none before"
        return _held(spec, _undecided("promoted", reason, compared, values))
    return _held(spec, _compare(spec, compared, values, pair))


def level_used(spec: ProductSpec) -> float:
    """The level of a decision: one-sided, lowered where many countries decide.

    With n countries and no candidate better than its champion, n times the level are promoted on
    average; that is to be `decision.max_false_promotions` at most.
    """
    return min(spec.decision.level, spec.decision.max_false_promotions / len(spec.countries))


def settings_of(spec: ProductSpec) -> Mapping[str, Any]:
    """What gates and decision depend on, JSON-able; `spec_of` reads it."""
    sections = spec.model_dump(mode="json", include=set(SETTINGS))
    # A spec leaves the default out, so that its hash is what it was; a record always says.
    sections["evaluation"] = {**sections["evaluation"], "draw_by": spec.evaluation.draw_by}
    return sections


def spec_of(settings: Mapping[str, Any]) -> ProductSpec:
    """A product with the stored sections alone: enough for gates and `decide`.

    Settings from before `evaluation.draw_by` are drawn as rows were then.
    """
    sections = {
        name: TypeAdapter(ProductSpec.model_fields[name].rebuild_annotation()).validate_python(
            settings[name]
        )
        for name in SETTINGS
    }
    if "draw_by" not in settings["evaluation"]:
        sections["evaluation"] = EarlierEvaluationSpec.model_validate(settings["evaluation"])
    return ProductSpec.model_construct(**sections)


@dataclass(frozen=True)
class _Values:
    candidate: float
    champion: float


def _on_identical_rows(evidence: pd.DataFrame, pair: ModelPair) -> pd.DataFrame:
    """The rows that the champion predicts; all of them without a champion."""
    return evidence[evidence["champion"].notna()] if pair.champion else evidence


def _values(spec: ProductSpec, rows: pd.DataFrame, pair: ModelPair) -> _Values:
    y = rows["label"].to_numpy(dtype="float64")
    ours = score(spec.metric, y, rows["candidate"].to_numpy(dtype="float64"))
    if not pair.champion:
        return _Values(ours, NAN)
    return _Values(ours, score(spec.metric, y, rows["champion"].to_numpy(dtype="float64")))


def _stopped_by(gates: Sequence[GateResult]) -> GateResult | None:
    failed = [gate for gate in gates if gate.passed is False]
    unjudged = [gate for gate in gates if gate.passed is None and gate.name in REQUIRED]
    return next(iter([*failed, *unjudged]), None)


def _undecided(verdict: Verdict, reason: str, rows: pd.DataFrame, values: _Values) -> Decision:
    return Decision(verdict, reason, len(rows), values.candidate, values.champion)


def _held(spec: ProductSpec, decision: Decision) -> Decision:
    if decision.verdict != "promoted" or not spec.decision.approval:
        return decision
    reason = f"waits for a person's approval; {decision.reason}"
    return Decision(**{**vars(decision), "verdict": "waiting", "reason": reason})


def _compare(spec: ProductSpec, rows: pd.DataFrame, values: _Values, pair: ModelPair) -> Decision:
    needed = spec.split.min_holdout_rows
    if len(rows) < needed:
        reason = (
            f"{needed} rows that both predict are needed to compare, there are {len(rows)}; the "
            "champion stays"
        )
        return _undecided("not_judged", reason, rows, values)
    if values.champion == 0 and spec.metric not in GREATER_IS_BETTER:
        reason = f"the champion's {spec.metric} is 0, which nothing is under; it stays"
        return _undecided("kept", reason, rows, values)
    return _judge(spec, rows, values, pair)


def _judge(spec: ProductSpec, rows: pd.DataFrame, values: _Values, pair: ModelPair) -> Decision:
    level = level_used(spec)
    draws = max(spec.evaluation.draws, math.ceil(DECISION_TAIL_DRAWS / level))
    drawn = draw_rows(spec.evaluation, rows, seed=spec.seed, draws=draws)
    gain = _gain(spec, rows, values, level, drawn=drawn)
    if not gain.has_interval:
        why = drawn.problem or f"{spec.metric} cannot be told on {len(rows)} rows"
        return _undecided("not_judged", f"{why}; the champion stays", rows, values)
    promoted, outcome = _outcome(spec, gain, pair)
    return Decision(
        "promoted" if promoted else "kept",
        f"{_both(spec, values)} on the same {len(rows)} rows: {_describe_gain(spec, gain, level)}"
        f"{drawn.drawn.unless_by_time}; {outcome}",
        len(rows),
        values.candidate,
        values.champion,
        gain.value,
        gain.lower,
        gain.upper,
        level,
        draws,
        drawn.block_days if drawn.time else 0,
        drawn.drawn.by,
        drawn.drawn.text,
    )


def _gain(
    spec: ProductSpec, rows: pd.DataFrame, values: _Values, level: float, *, drawn: BootstrapWeights
) -> Estimate:
    y, ours, theirs = (
        rows[name].to_numpy(dtype="float64") for name in ("label", "candidate", "champion")
    )
    gains = resampled_gain(spec.metric, y, ours, theirs, draws=drawn)
    value = improvement(spec.metric, values.candidate, values.champion)
    return interval(value, gains, level, drawn.parts)


def _outcome(spec: ProductSpec, gain: Estimate, pair: ModelPair) -> tuple[bool, str]:
    margin, refresh = spec.decision.margin, spec.decision.refresh_after_days
    least = format_gain(spec.metric, margin)
    if gain.lower > margin:
        return True, f"significantly better by more than {least}"
    if refresh is not None and pair.days_newer >= refresh and gain.lower >= -margin:
        return True, (
            f"significantly not worse by more than {least}, and it knows {pair.days_newer:.0f} "
            "days more"
        )
    return False, f"not significantly better by more than {least}; the champion stays"


def _both(spec: ProductSpec, values: _Values) -> str:
    unit = f" {spec.target.unit}" if spec.task == "regression" else ""
    return (
        f"candidate's {spec.metric} {values.candidate:.4g}{unit} against the champion's "
        f"{values.champion:.4g}{unit}"
    )


def _describe_gain(spec: ProductSpec, gain: Estimate, level: float) -> str:
    value, lower, upper = (
        format_gain(spec.metric, each) for each in (gain.value, gain.lower, gain.upper)
    )
    return f"gain {value}, {lower} to {upper} with {1 - 2 * level:.1%} confidence"
