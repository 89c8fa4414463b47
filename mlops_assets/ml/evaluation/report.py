"""How good predictions are: the report that gates, pages and people read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from mlops_assets.ml.evaluation.calibration import (
    calibration_estimate,
    calibration_gain,
    reliability_table,
)
from mlops_assets.ml.evaluation.evidence import evidence_frame
from mlops_assets.ml.evaluation.importance import no_importance, permutation_importance
from mlops_assets.ml.evaluation.slices import no_slices, slice_table
from mlops_assets.ml.models.baselines import baseline_predictions
from mlops_assets.ml.models.fitted_model import FittedModel
from mlops_assets.ml.stats.bootstrap import estimate, gain_estimate, interval, resampled_mean
from mlops_assets.ml.stats.draws import BootstrapWeights, Drawn, draw_rows
from mlops_assets.ml.stats.metrics import NAN, UNKNOWN, Estimate, improvement, losses, score
from mlops_assets.spec import METRICS_OF_TASK, ProductSpec

WORST_COLUMNS = ("entity", "event_time", "label", "predicted", "low", "high", "loss")


@dataclass(frozen=True)
class Footprint:
    """What a model costs to keep and to use.

    Args:
        bytes: of its files.
        load_seconds: to load it from the registry.
        row_milliseconds: to predict a single row.
        batch_rows: rows predicted at once to measure the next.
        batch_milliseconds: to predict these.
    """

    bytes: int
    load_seconds: float
    row_milliseconds: float
    batch_rows: int
    batch_milliseconds: float


def no_cases() -> pd.DataFrame:
    """The table of worst cases without a row."""
    return pd.DataFrame(columns=list(WORST_COLUMNS))


@dataclass(frozen=True)
class Report:
    """How predictions did on rows with known labels.

    Improvements are shares of the other's error (0.2: a fifth less error), for auc differences.

    Args:
        rows: judged rows.
        first: event time of the first row; None without rows.
        last: event time of the last row; None without rows.
        metric: what the product compares by.
        value: of the metric; NaN when it cannot be judged (no rows, or one class for auc).
        metrics: every metric of the task by name.
        baselines: the metric of every baseline on the same rows.
        best_baseline: name of the best of them; "" when none can be judged.
        by_month: month ("2025-01"), rows, value, baseline (the best one's) and champion, in order.
        reliability: for classification up to 10 bins: rows, predicted, observed; else None.
        estimates: every metric of the task with its interval.
        gain: improvement on the best baseline, paired on the same rows.
        champion: the champion's metric on the same rows; NaN without a champion.
        champion_gain: improvement on the champion, paired on the same rows.
        slices: feature, slice, rows, value, lower, upper, baseline, champion, gain, gain_lower,
            gain_upper (on the champion, else the best baseline) and judged; the intervals of all
            gains of the table hold together.
        calibration_error: classification: mean distance of predicted and observed share over ten
            bins of equal size (ECE); else NaN.
        calibration: the same with its interval.
        calibration_gain: by how much it is under the champion's, paired on the same rows.
        coverage: regression: share of the labels inside the prediction interval; else NaN.
        importance: feature, importance (increase of the error, or loss of auc, when the feature is
            permuted) and deviation over the repeats, greatest first.
        worst: entity, event_time, label, predicted, low, high and loss of the worst rows.
        footprint: what the model costs; None where it was not measured.
        interval_problem: why intervals are NaN; "" where they are not.
        drawn: what intervals are drawn from; None in reports stored before it was told.
        baselines_by_country: whether the rows are of several countries, and what baselines say of
            each is from its own country; False in reports stored before it was told.
    """

    rows: int
    first: pd.Timestamp | None
    last: pd.Timestamp | None
    metric: str
    value: float
    metrics: Mapping[str, float]
    baselines: Mapping[str, float]
    best_baseline: str
    by_month: pd.DataFrame
    reliability: pd.DataFrame | None
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    gain: Estimate = UNKNOWN
    champion: Estimate = UNKNOWN
    champion_gain: Estimate = UNKNOWN
    slices: pd.DataFrame = field(default_factory=no_slices)
    calibration_error: float = NAN
    calibration: Estimate = UNKNOWN
    calibration_gain: Estimate = UNKNOWN
    coverage: Estimate = UNKNOWN
    importance: pd.DataFrame = field(default_factory=no_importance)
    worst: pd.DataFrame = field(default_factory=no_cases)
    footprint: Footprint | None = None
    interval_problem: str = ""
    drawn: Drawn | None = None
    baselines_by_country: bool = False

    @property
    def judged(self) -> bool:
        """Whether the metric has a value."""
        return bool(np.isfinite(self.value))

    @property
    def baseline_value(self) -> float:
        """Metric of the best baseline; NaN when none can be judged."""
        return self.baselines.get(self.best_baseline, float("nan"))

    @property
    def improvement(self) -> float:
        """By how much the predictions beat the best baseline; see `improvement`."""
        return improvement(self.metric, self.value, self.baseline_value)


def evaluate(
    rows: pd.DataFrame,
    predicted: np.ndarray,
    spec: ProductSpec,
    train: pd.DataFrame,
    *,
    low: np.ndarray | None = None,
    high: np.ndarray | None = None,
    champion: np.ndarray | None = None,
    model: FittedModel | None = None,
    footprint: Footprint | None = None,
    countries: np.ndarray | None = None,
    naive: Mapping[str, np.ndarray] | None = None,
) -> Report:
    """Judge predictions of labelled rows next to every baseline of the product.

    Args:
        rows: rows of a features frame with labels.
        predicted: shape (rows,); for classification the probability of class 1.
        spec: names metric, task, baselines and slices.
        train: the rows the predictions' model learned from; baselines take their mean from it.
        low: lower ends of the prediction intervals; None: there are none.
        high: upper ends.
        champion: the champion's predictions of the same rows; None without one.
        model: what predicted, to tell what it relies on; None: not told.
        footprint: what the model costs; None where it was not measured.
        countries: of each row, where they are of several; None: all are of one.
        naive: what each baseline says of the rows in their own country, shape (rows,) each; None:
            all rows are of one country, and it follows from `train`.
    """
    evidence = evidence_frame(
        spec,
        rows,
        predicted,
        train,
        low=low,
        high=high,
        champion=champion,
        countries=countries,
        naive=naive,
    )
    return full_report(spec, evidence, rows, train, model=model, footprint=footprint, naive=naive)


def full_report(
    spec: ProductSpec,
    evidence: pd.DataFrame,
    rows: pd.DataFrame,
    train: pd.DataFrame,
    *,
    model: FittedModel | None,
    footprint: Footprint | None,
    naive: Mapping[str, np.ndarray] | None = None,
) -> Report:
    """`report_of` the evidence and what needs the rows and the model, too; see `evaluate`."""
    label = rows["label"].to_numpy(dtype="float64")
    told = naive or {base.name: baseline_predictions(base, train, rows) for base in spec.baselines}
    return replace(
        report_of(spec, evidence),
        baselines={name: score(spec.metric, label, values) for name, values in told.items()},
        baselines_by_country=naive is not None,
        importance=no_importance()
        if model is None or rows.empty
        else permutation_importance(model, rows, spec.metric, spec.seed),
        footprint=footprint,
    )


def report_of(spec: ProductSpec, evidence: pd.DataFrame) -> Report:
    """What follows from the evidence alone.

    That is everything but importance, footprint and the baselines that are not the best one.
    """
    draws = draw_rows(spec.evaluation, evidence, seed=spec.seed)
    tail = (1.0 - spec.evaluation.confidence) / 2.0
    y, candidate, baseline = (_numbers(evidence, n) for n in ("label", "candidate", "baseline"))
    best = str(evidence["baseline_name"].iloc[0]) if len(evidence) else ""
    estimates = {
        name: estimate(name, y, candidate, draws, tail=tail) for name in METRICS_OF_TASK[spec.task]
    }
    return Report(
        rows=len(evidence),
        first=evidence["event_time"].min() if len(evidence) else None,
        last=evidence["event_time"].max() if len(evidence) else None,
        metric=spec.metric,
        value=estimates[spec.metric].value,
        metrics={name: each.value for name, each in estimates.items()},
        baselines={best: score(spec.metric, y, baseline)} if best else {},
        best_baseline=best,
        by_month=_by_month(spec.metric, evidence),
        estimates=estimates,
        gain=gain_estimate(spec.metric, y, candidate, baseline, draws=draws, tail=tail),
        slices=slice_table(spec, evidence, draws),
        worst=_worst(spec, evidence),
        interval_problem=draws.problem,
        drawn=draws.drawn,
        **_against_champion(spec, evidence, draws, tail),
        **_of_task(spec, evidence, draws, tail),
    )


def promises_little(spec: ProductSpec, report: Report) -> bool:
    """Whether a country's own holdout is too small for a promise that could ever be broken.

    That is one of fewer rows than `split.min_holdout_rows`, or one on which the metric has no
    interval. A pooled model promises what it does on the holdout of all its countries then.

    Args:
        spec: the product as it is for this country.
        report: of the version on the country's own holdout.
    """
    value = report.estimates.get(spec.metric, UNKNOWN)
    return report.rows < spec.split.min_holdout_rows or not value.has_interval


def _numbers(evidence: pd.DataFrame, name: str) -> np.ndarray:
    return evidence[name].to_numpy(dtype="float64")


def _against_champion(
    spec: ProductSpec, evidence: pd.DataFrame, draws: BootstrapWeights, tail: float
) -> dict[str, Any]:
    """On the rows that the champion predicts, too."""
    known = evidence["champion"].notna().to_numpy()
    drawn, rows = draws.of(known), evidence[known]
    y, ours, theirs = (_numbers(rows, name) for name in ("label", "candidate", "champion"))
    found: dict[str, Any] = {
        "champion": estimate(spec.metric, y, theirs, drawn, tail=tail),
        "champion_gain": gain_estimate(spec.metric, y, ours, theirs, draws=drawn, tail=tail),
    }
    if spec.task == "classification":
        found["calibration_gain"] = calibration_gain(y, ours, theirs, drawn, tail=tail)
    return found


def _of_task(
    spec: ProductSpec, evidence: pd.DataFrame, draws: BootstrapWeights, tail: float
) -> dict[str, Any]:
    y, p = _numbers(evidence, "label"), _numbers(evidence, "candidate")
    if spec.task == "classification":
        calibration = calibration_estimate(y, p, draws, tail)
        return {
            "reliability": reliability_table(y, p),
            "calibration": calibration,
            "calibration_error": calibration.value,
        }
    low, high = _numbers(evidence, "low"), _numbers(evidence, "high")
    known = np.isfinite(low) & np.isfinite(high)
    inside = ((low <= y) & (y <= high))[known].astype("float64")
    drawn = draws.of(known)
    share = float(inside.mean()) if len(inside) else NAN
    covered = interval(share, resampled_mean(inside, drawn), tail, drawn.parts)
    return {"reliability": None, "coverage": covered}


def _worst(spec: ProductSpec, evidence: pd.DataFrame) -> pd.DataFrame:
    """Rows of the greatest absolute error, or log loss of a probability, greatest first."""
    loss = losses(
        "log_loss" if spec.task == "classification" else "mae",
        _numbers(evidence, "label"),
        _numbers(evidence, "candidate"),
    )
    cases = evidence.rename(columns={"candidate": "predicted"}).assign(loss=loss)
    ordered = cases.sort_values("loss", ascending=False, kind="stable", ignore_index=True)
    return ordered[list(WORST_COLUMNS)].head(spec.evaluation.worst_cases)


def _by_month(metric: str, evidence: pd.DataFrame) -> pd.DataFrame:
    months = evidence["event_time"].dt.strftime("%Y-%m").to_numpy(dtype="object").astype(str)
    y = _numbers(evidence, "label")
    judged = {
        name: _numbers(evidence, column)
        for name, column in (
            ("value", "candidate"),
            ("baseline", "baseline"),
            ("champion", "champion"),
        )
    }
    rows = [
        {
            "month": month,
            "rows": int(at.sum()),
            **{name: score(metric, y[at], p[at]) for name, p in judged.items()},
        }
        for month in np.unique(months)
        for at in [months == month]
    ]
    return pd.DataFrame(rows, columns=["month", "rows", *judged])
