"""Candidate against champion on the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from mlops_assets.ml.gates.gates import GateResult
from mlops_assets.ml.gates.model_pair import ModelPair
from mlops_assets.ml.gates.succession import (
    PooledComparison,
    decision_draws,
    level_of_fresher,
    level_used,
)
from mlops_assets.ml.stats.bootstrap import interval, resampled_gain
from mlops_assets.ml.stats.draws import BootstrapWeights, draw_rows
from mlops_assets.ml.stats.metrics import (
    NAN,
    UNKNOWN,
    Estimate,
    format_gain,
    improvement,
    score,
)
from mlops_assets.spec import (
    GREATER_IS_BETTER,
    EarlierDecisionSpec,
    EarlierEvaluationSpec,
    GateName,
    ProductSpec,
)

Verdict = Literal["promoted", "kept", "not_judged", "waiting", "forced", "rolled_back", "withdrawn"]
DecisionBasis = Literal["own", "pooled"]
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


@dataclass(frozen=True)
class Decision:
    """The outcome of comparing a candidate with the champion.

    Args:
        verdict: promoted; kept (the champion stays); not_judged (it stays, for want of rows or of
            a gate); waiting (until a person approves); forced or rolled_back (by a person);
            withdrawn (the champion is taken out of use, as it is worse than the baseline).
        reason: why, in a sentence.
        rows: both were scored on.
        candidate_value: metric of the candidate; NaN when it was not scored. Withdrawn: of the
            baseline.
        champion_value: metric of the champion; NaN without one.
        gain: improvement on the champion (`improvement`): a share of its error, for auc the
            difference; positive is better. Withdrawn: of the champion on the baseline.
        lower: its bound at `level` over the bootstrap draws.
        upper: its bound at 1 - `level`.
        level: one-sided; the probability with which an equal candidate may be promoted.
        draws: of the bootstrap.
        basis: own: the numbers are of the country's own rows; pooled: of the holdout rows of all
            countries that were stored with the pooled model, because its own cannot tell.
        own_rows: of the country that both predict.
        veto: whether these say significantly worse, which keeps the champion against the pooled
            evidence.
        block_days: calendar days drawn together; 0 where entities alone were drawn.
        drawn_by: time, entity or both; "" where nothing was drawn, and in decisions recorded
            before it was told.
        drawn: what was drawn, from how many rows of what (`draws.Drawn.text`); "" as above.
        fresher_lower: bound of the gain at `decision.refresh_level`, which a candidate that knows
            more days is judged by; NaN in decisions recorded before there was one.
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
    basis: DecisionBasis = "own"
    own_rows: int = 0
    veto: bool = False
    fresher_lower: float = NAN


def decide(
    spec: ProductSpec,
    evidence: pd.DataFrame,
    gates: Sequence[GateResult],
    pair: ModelPair,
    *,
    pooled: PooledComparison | None = None,
) -> Decision:
    """Promote the candidate if its gates passed and it is better than the champion for certain.

    For certain: the gain over a paired bootstrap of the rows both predict (`draws.draw_rows`) is
    above `decision.margin` at its lower bound. A candidate that learned from rows newer by
    `decision.refresh_after_days` is promoted when it is for certain not worse by more than
    `decision.refresh_margin`, at `decision.refresh_level`. Without a champion the gates alone
    decide. With `decision.approval` every promotion waits.

    A pooled candidate that is to follow a pooled champion is decided on by the rows of all
    countries where the country's own cannot tell: where they are too few, or their interval has the
    margin in it. Own rows that say significantly worse are a veto then.

    Args:
        spec: the product as it is for this country; or `spec_of` stored settings.
        evidence: the evidence frame; the champion's column is NaN without one.
        gates: outcome of every gate; each of `REQUIRED` that is there must have been judged.
        pair: the two versions.
        pooled: the pooled models behind both, as they were compared when the candidate's was
            trained; None where one of them is no pooled model.
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
    own = _compare(spec, compared, values, pair)
    if pooled is None or own.verdict == "promoted":
        return _held(spec, own)
    return _held(spec, _by_all(spec, own, compared, values, pair=pair, pooled=pooled))


def settings_of(spec: ProductSpec) -> Mapping[str, Any]:
    """What gates and decision depend on, JSON-able; `spec_of` reads it."""
    sections = spec.model_dump(mode="json", include=set(SETTINGS))
    # A spec leaves the default out, so that its hash is what it was; a record always says.
    sections["evaluation"] = {**sections["evaluation"], "draw_by": spec.evaluation.draw_by}
    if not spec.decision.before_refresh_margin:
        margin = spec.decision.fresher_may_be_worse_by(spec.metric)
        fresher = {"refresh_margin": margin, "refresh_level": spec.decision.refresh_level}
        sections["decision"] = {**sections["decision"], **fresher}
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
    if "refresh_margin" not in settings["decision"]:
        sections["decision"] = EarlierDecisionSpec.model_validate(settings["decision"])
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
    return Decision(
        verdict, reason, len(rows), values.candidate, values.champion, own_rows=len(rows)
    )


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
    draws = decision_draws(spec, level)
    drawn = draw_rows(spec.evaluation, rows, seed=spec.seed, draws=draws)
    levels = (level, level_of_fresher(spec))
    gain, plain = _gains(spec, rows, values, levels, drawn=drawn)
    if not gain.has_interval:
        why = drawn.problem or f"{spec.metric} cannot be told on {len(rows)} rows"
        return _undecided("not_judged", f"{why}; the champion stays", rows, values)
    promoted, outcome = _outcome(spec, gain, pair, plain.lower)
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
        own_rows=len(rows),
        fresher_lower=plain.lower,
    )


def _by_all(
    spec: ProductSpec,
    own: Decision,
    rows: pd.DataFrame,
    values: _Values,
    *,
    pair: ModelPair,
    pooled: PooledComparison,
) -> Decision:
    """What the rows of all countries say, where the country's own do not say for certain."""
    undecided = own.verdict == "not_judged" or np.isfinite(own.lower)
    if not undecided:
        return own
    if pooled.is_same or pooled.problem:
        return own if own.verdict == "kept" else _without_all(own, pooled)
    told = replace(
        own,
        rows=pooled.rows,
        candidate_value=pooled.candidate_value,
        champion_value=pooled.champion_value,
        gain=pooled.gain.value,
        lower=pooled.gain.lower,
        upper=pooled.gain.upper,
        level=pooled.level,
        draws=pooled.draws,
        block_days=pooled.block_days,
        drawn_by=pooled.drawn_by,
        drawn=pooled.drawn,
        basis="pooled",
        fresher_lower=pooled.fresher_lower,
    )
    promoted, outcome = _outcome(spec, pooled.gain, pair, pooled.fresher_lower)
    if not promoted and own.verdict == "kept":
        return own
    text = _told_of_all(spec, pooled, outcome)
    if not promoted:
        return replace(told, verdict="kept", reason=f"{text}; own rows: {own.own_rows}")
    upper, why = _own_upper(spec, rows, values)
    margin = spec.decision.margin
    vetoed = upper < -margin
    if own.verdict == "kept" and upper < (margin if pooled.gain.lower > margin else -margin):
        against = f"{own.reason}, against pooled evidence ({pooled.told_of})"
        return replace(own, reason=against, veto=vetoed)
    if vetoed:
        text = f"veto of {why}, though by {text}"
        return replace(told, verdict="kept", reason=f"{text}; the champion stays", veto=True)
    return replace(told, verdict="promoted", reason=f"{text}; {why}")


def _without_all(own: Decision, pooled: PooledComparison) -> Decision:
    """Own rows cannot tell, and those of all countries have nothing to say."""
    if pooled.is_same:
        text = f"the candidate is {pooled.candidate}, the pooled model that serves already"
        return replace(own, verdict="kept", reason=text, gain=0.0)
    return replace(own, reason=f"{own.reason}; nor can other countries tell: {pooled.problem}")


def _told_of_all(spec: ProductSpec, pooled: PooledComparison, outcome: str) -> str:
    values = _Values(pooled.candidate_value, pooled.champion_value)
    return (
        f"pooled evidence ({pooled.told_of}): {_both(spec, values)}: "
        f"{_describe_gain(spec, pooled.gain, pooled.level)}; {outcome}"
    )


def _own_upper(spec: ProductSpec, rows: pd.DataFrame, values: _Values) -> tuple[float, str]:
    """The upper end of the gain on own rows (NaN: they cannot tell), and what they say.

    At `decision.level`, which is not lowered where many countries decide: that is against false
    promotions, and a veto promotes nobody. A veto is of rows that say worse by more than the
    margin; better by less than the margin is none.
    """
    level, margin = spec.decision.level, spec.decision.margin
    own, problem = UNKNOWN, "they have no value to compare"
    if len(rows) and np.isfinite(improvement(spec.metric, values.candidate, values.champion)):
        draws = decision_draws(spec, level)
        drawn = draw_rows(spec.evaluation, rows, seed=spec.seed, draws=draws)
        [own], problem = _gains(spec, rows, values, (level,), drawn=drawn), drawn.problem
    told = f"the country's own rows ({len(rows)})"
    if not own.has_interval:
        return NAN, f"no veto of {told}: {problem or 'they cannot tell'}"
    against = "" if own.upper < -margin else "no veto of "
    return own.upper, f"{against}{told}: {_describe_gain(spec, own, level)}"


def _gains(
    spec: ProductSpec,
    rows: pd.DataFrame,
    values: _Values,
    levels: Sequence[float],
    *,
    drawn: BootstrapWeights,
) -> list[Estimate]:
    """The gain with its bounds at each level, of the same draws."""
    y, ours, theirs = (
        rows[name].to_numpy(dtype="float64") for name in ("label", "candidate", "champion")
    )
    gains = resampled_gain(spec.metric, y, ours, theirs, draws=drawn)
    value = improvement(spec.metric, values.candidate, values.champion)
    return [interval(value, gains, level, drawn.parts) for level in levels]


def _outcome(
    spec: ProductSpec, gain: Estimate, pair: ModelPair, fresher_lower: float
) -> tuple[bool, str]:
    margin, refresh = spec.decision.margin, spec.decision.refresh_after_days
    least, fresher = (
        format_gain(spec.metric, each)
        for each in (margin, spec.decision.fresher_may_be_worse_by(spec.metric))
    )
    if gain.lower > margin:
        return True, f"significantly better by more than {least}"
    not_worse = fresher_lower >= -spec.decision.fresher_may_be_worse_by(spec.metric)
    if refresh is not None and pair.days_newer >= refresh and not_worse:
        sure = _how_surely(spec, fresher_lower)
        return True, (
            f"significantly not worse by more than {fresher}{sure}, and it knows "
            f"{pair.days_newer:.0f} days more"
        )
    return False, f"not significantly better by more than {least}; the champion stays"


def _how_surely(spec: ProductSpec, fresher_lower: float) -> str:
    if spec.decision.before_refresh_margin:
        return ""
    confidence = 1.0 - spec.decision.refresh_level
    return f" (at least {format_gain(spec.metric, fresher_lower)} with {confidence:.0%} confidence)"


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
