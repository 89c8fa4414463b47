"""Limits a candidate must keep before it is compared with the champion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlops_assets.ml.evaluation import Report, is_better
from mlops_assets.spec import GREATER_IS_BETTER, ProductSpec


@dataclass(frozen=True)
class GateResult:
    """One gate's outcome.

    Args:
        name: of the gate.
        passed: None when it could not be judged, which keeps the champion like a failure does.
        value: what was measured; NaN when it could not be.
        limit: what it was held against; NaN without a limit.
        description: the outcome in a sentence.
    """

    name: str
    passed: bool | None
    value: float
    limit: float
    description: str


def beats_baseline(report: Report, spec: ProductSpec, pooled: Report | None = None) -> GateResult:
    """Whether the candidate beats the best baseline on the holdout by `gates.min_improvement`.

    Args:
        report: of the candidate on the country's own holdout rows.
        spec: the product as it is for this country.
        pooled: of the pooled model on the holdout of all countries; used when the country's own
            holdout has fewer than `split.min_holdout_rows` rows or cannot be judged.
    """
    used, basis = _basis(report, spec, pooled)
    if used is None or not np.isfinite(used.baseline_value):
        return GateResult("beats_baseline", None, float("nan"), float("nan"), basis)
    limit = _required(used, spec.gates.min_improvement)
    passed = is_better(used.metric, used.value, limit) or (
        spec.gates.min_improvement > 0 and used.value == limit
    )
    verdict = "beats" if passed else "does not beat"
    description = (
        f"{used.metric} {used.value:.4g} {verdict} {limit:.4g}, which is baseline "
        f"{used.best_baseline} ({used.baseline_value:.4g}) and an improvement of "
        f"{spec.gates.min_improvement:g}, {basis}"
    )
    return GateResult("beats_baseline", passed, used.value, limit, description)


def above_floor(report: Report, spec: ProductSpec, pooled: Report | None = None) -> GateResult:
    """Whether the metric keeps the absolute limit `gates.floor`; passes when there is none.

    Args:
        report: of the candidate on the country's own holdout rows.
        spec: the product as it is for this country.
        pooled: as in `beats_baseline`.
    """
    floor = spec.gates.floor
    if floor is None:
        return GateResult("above_floor", True, report.value, float("nan"), "no floor is set")
    used, basis = _basis(report, spec, pooled)
    if used is None:
        return GateResult("above_floor", None, float("nan"), floor, basis)
    passed = used.value == floor or is_better(used.metric, used.value, floor)
    bound = "at least" if used.metric in GREATER_IS_BETTER else "at most"
    description = f"{used.metric} {used.value:.4g}, {bound} {floor:.4g} is required, {basis}"
    return GateResult("above_floor", passed, used.value, floor, description)


def _required(report: Report, share: float) -> float:
    if report.metric in GREATER_IS_BETTER:
        return report.baseline_value + share
    return report.baseline_value * (1.0 - share)


def _basis(report: Report, spec: ProductSpec, pooled: Report | None) -> tuple[Report | None, str]:
    """The report to judge by, and where it comes from in words."""
    needed = spec.split.min_holdout_rows
    if report.rows >= needed and report.judged:
        return report, f"on {report.rows} holdout rows of the country"
    why = (
        f"the country has {report.rows} holdout rows of {needed} needed"
        if report.rows < needed
        else f"{report.metric} cannot be told on the country's {report.rows} holdout rows"
    )
    if pooled is not None and pooled.judged:
        return pooled, f"on {pooled.rows} holdout rows of all countries, because {why}"
    return None, f"not judged: {why}, and there is no pooled model to judge by"
