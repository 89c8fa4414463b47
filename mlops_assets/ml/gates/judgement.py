"""A candidate on the holdout: its evidence, its report and its gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlops_assets.ml.evaluation.behaviour import Behaved, behaviours
from mlops_assets.ml.evaluation.evidence import evidence_frame
from mlops_assets.ml.evaluation.fairness import Compared, compare_groups
from mlops_assets.ml.evaluation.report import Footprint, Report, full_report, report_of
from mlops_assets.ml.gates import gates
from mlops_assets.ml.gates.basis import above
from mlops_assets.ml.gates.candidate_range import within_range
from mlops_assets.ml.gates.gates import GateResult, not_judged, unless_switched_off
from mlops_assets.ml.models.fitted_model import FittedModel
from mlops_assets.ml.models.prediction_range import RangeVerdict, judge_range, limits_of_history
from mlops_assets.ml.stats.bootstrap import gain_estimate
from mlops_assets.ml.stats.draws import draw_rows
from mlops_assets.ml.stats.metrics import UNKNOWN, Estimate
from mlops_assets.spec import GateName, ProductSpec


@dataclass(frozen=True)
class Judgement:
    """What became of a candidate on the holdout.

    Args:
        report: numbers and tables for people.
        evidence: the frame the decision is made from.
        gates: outcome of every gate of the product, in the order of `GATES`.
    """

    report: Report
    evidence: pd.DataFrame
    gates: tuple[GateResult, ...]


def judge(
    spec: ProductSpec,
    holdout: pd.DataFrame,
    model: FittedModel | None,
    predicted: np.ndarray,
    *,
    train: pd.DataFrame,
    low: np.ndarray | None = None,
    high: np.ndarray | None = None,
    champion: np.ndarray | None = None,
    stand_in: Report | None = None,
    behaved: Sequence[Behaved] = (),
    next_rows: RangeVerdict | None = None,
    usable: Sequence[GateResult] = (),
    footprint: Footprint | None = None,
    reason: str = "there is no model",
    declared: Sequence[GateName] = (),
) -> Judgement:
    """Everything a stage needs of a candidate, in one call.

    Args:
        spec: the product as it is for this country.
        holdout: labelled rows of the country's features frame.
        model: the candidate; None for a baseline, which no gate judges.
        predicted: by the candidate, shape (rows,).
        train: the rows baselines take their mean from (`Split.final`).
        low: lower ends of the prediction intervals; None: there are none.
        high: upper ends.
        champion: the champion's predictions of the same rows; None without one.
        stand_in: report of the pooled model, for a country whose own holdout rows cannot tell.
        behaved: behavioural tests of the pooled model on the same rows as its report.
        next_rows: the rows it would predict first, held against the range; None: there are none.
        usable: what the stage measured: `loads_and_predicts` and `latency_and_size`.
        footprint: what the model costs; None where it was not measured.
        reason: why there is no model.
        declared: `declared_gates` of the whole product, so that every country has the same; by
            default those of `spec`.
    """
    evidence = evidence_frame(
        spec, holdout, predicted, train, low=low, high=high, champion=champion
    )
    report = full_report(spec, evidence, holdout, train, model=model, footprint=footprint)
    names = declared or gates.declared_gates(spec)
    if model is None:
        nothing = tuple(not_judged(name, reason) for name in names)
        return Judgement(report, evidence, nothing)
    tested = gates.behaviour(behaviours(spec, model, holdout), spec, behaved)
    history = limits_of_history(spec.predictions)
    inside = within_range(judge_range(predicted, holdout, history), next_rows, spec)
    results = [*_of_evidence(spec, evidence, report, stand_in), tested, inside, *usable]
    return Judgement(report, evidence, _complete(spec, names, results))


def gates_of(
    spec: ProductSpec, evidence: pd.DataFrame, stand_in: Report | None = None
) -> tuple[GateResult, ...]:
    """The gates that follow from the evidence alone, in the order of `GATES`.

    Args:
        spec: the product as it is for this country; or `spec_of` stored settings.
        evidence: the evidence frame.
        stand_in: report of the pooled model, for a country whose own holdout rows cannot tell.
    """
    results = _of_evidence(spec, evidence, report_of(spec, evidence), stand_in)
    return tuple(unless_switched_off(spec, result) for result in results)


def gates_again(
    spec: ProductSpec, evidence: pd.DataFrame, recorded: Sequence[GateResult]
) -> tuple[GateResult, ...]:
    """The gates of a decision computed again from its evidence, in the recorded order.

    Those that need the model, or were judged by the pooled model's report, are taken as they were
    recorded; so are all of a baseline, which no gate judges.

    Args:
        spec: `spec_of` stored settings.
        evidence: the evidence frame of the decision.
        recorded: outcome of every gate at that time.
    """
    if all(result.passed is None for result in recorded):
        return tuple(recorded)
    again = {result.name: result for result in gates_of(spec, evidence)}
    return tuple(
        result if result.name not in again or _judged_elsewhere(result) else again[result.name]
        for result in recorded
    )


def _of_evidence(
    spec: ProductSpec, evidence: pd.DataFrame, report: Report, stand_in: Report | None
) -> list[GateResult]:
    return [
        gates.beats_baseline(report, spec, stand_in, serving=_serving(spec, evidence, report)),
        gates.above_floor(report, spec, stand_in),
        gates.slices(report, spec),
        gates.fairness(_groups(spec, evidence), spec),
        gates.calibration(report, spec)
        if spec.task == "classification"
        else gates.coverage(report, spec),
        gates.stability(report, spec),
    ]


def _serving(spec: ProductSpec, evidence: pd.DataFrame, report: Report) -> Estimate:
    """The champion's gain on the best baseline on the rows it predicts.

    UNKNOWN without enough of them, and where the candidate's own gain says for certain.
    """
    rows = evidence[evidence["champion"].notna() & evidence["baseline"].notna()]
    certain = above(report.gain, spec.gates.min_improvement) is not None
    few = len(rows) < spec.split.min_holdout_rows
    if certain or few or spec.decision.before_refresh_margin:
        return UNKNOWN
    label, ours, naive = (
        rows[name].to_numpy(dtype="float64") for name in ("label", "champion", "baseline")
    )
    draws = draw_rows(spec.evaluation, rows, seed=spec.seed)
    tail = (1.0 - spec.evaluation.confidence) / 2.0
    return gain_estimate(spec.metric, label, ours, naive, draws=draws, tail=tail)


def _groups(spec: ProductSpec, evidence: pd.DataFrame) -> list[Compared]:
    if not spec.gates.fairness:
        return []
    draws = draw_rows(spec.evaluation, evidence, seed=spec.seed)
    return [compare_groups(spec, each, evidence, draws) for each in spec.gates.fairness]


def _complete(
    spec: ProductSpec, names: Sequence[GateName], results: Sequence[GateResult]
) -> tuple[GateResult, ...]:
    """Every gate once, in the order of its names; what is lacking is not judged."""
    found = {result.name: result for result in results}
    return tuple(
        unless_switched_off(spec, found.get(name) or not_judged(name, "it was not measured"))
        for name in names
    )


def _judged_elsewhere(result: GateResult) -> bool:
    """By the pooled model's report, or not at all: the evidence of the country does not say."""
    rows = result.numbers.get("rows")
    other = rows is not None and rows != result.numbers.get("own_rows", rows)
    return other or "pooled_rows" in result.numbers
