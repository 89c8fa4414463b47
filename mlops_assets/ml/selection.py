"""Which model a country gets: its own, the pooled one, or the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from mlops_assets.errors import TrainingError
from mlops_assets.ml.evaluation import (
    Report,
    baseline_predictions,
    evaluate,
    interval_offsets,
    is_better,
    score,
)
from mlops_assets.ml.models import FittedModel, fit, predict
from mlops_assets.ml.split import Split, split
from mlops_assets.spec import CandidateSpec, ProductSpec, Scope

Kind = Literal["local", "pooled", "baseline"]
NAN = float("nan")


@dataclass(frozen=True)
class PooledModel:
    """One candidate trained on all countries together.

    Args:
        candidate: its name.
        for_validation: fitted on the train rows only; judged on a country's validation rows.
        final: fitted on all rows whose label is known before the holdout; this one serves.
        report: of `final` on the holdout rows of all countries.
    """

    candidate: str
    for_validation: FittedModel
    final: FittedModel
    report: Report


@dataclass(frozen=True)
class PooledRows:
    """The rows of all countries under each other, by their use as in `Split`."""

    train: pd.DataFrame
    final: pd.DataFrame
    holdout: pd.DataFrame


@dataclass(frozen=True)
class Tried:
    """What became of one candidate in one scope.

    Args:
        name: of the candidate.
        scope: local or pooled.
        rows: it was fitted on before validation.
        value: metric on the country's validation rows; NaN when not tried or not judged.
        reason: why it was not tried or not judged; "" if it was.
    """

    name: str
    scope: Scope
    rows: int
    value: float
    reason: str = ""


@dataclass(frozen=True)
class Selection:
    """The choice for one country.

    Args:
        kind: local, pooled, or baseline when no model could be had.
        name: of the candidate or the baseline.
        model: what serves, fitted up to the holdout; None for a baseline.
        reason: the choice in a sentence.
        tried: every candidate, in the order of the YAML.
        value: metric of the choice on the validation rows; NaN when not judged.
        interval: what to add to a prediction for its lower and upper end; NaN for classification
            and where there is no validation row.
    """

    kind: Kind
    name: str
    model: FittedModel | None
    reason: str
    tried: tuple[Tried, ...]
    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class _Contender:
    tried: Tried
    fitted: FittedModel | None = None
    predicted: np.ndarray | None = None


def train_pooled(
    spec: ProductSpec, frames: Mapping[str, pd.DataFrame]
) -> Mapping[str, PooledModel]:
    """Train every pooled candidate on the rows of all countries.

    The country is no feature unless the product makes it one.

    Args:
        spec: the product; a country's override of `split` applies to its own rows.
        frames: features frame per country.

    Returns:
        Model per candidate name; empty when no candidate is pooled or there are no frames.

    Raises:
        TrainingError: a candidate cannot be fitted on the rows there are.
    """
    candidates = [candidate for candidate in spec.candidates if "pooled" in candidate.scopes]
    if not candidates or not frames:
        return {}
    rows = pooled_rows(spec, frames)
    return {candidate.name: _pooled(candidate, spec, rows) for candidate in candidates}


def pooled_rows(spec: ProductSpec, frames: Mapping[str, pd.DataFrame]) -> PooledRows:
    """Split each country's rows and stack them.

    Countries are stacked in alphabetical order, so the result does not depend on theirs.

    Args:
        spec: the product; a country's override of `split` applies to its own rows.
        frames: features frame per country; at least one.
    """
    parts = [split(frames[country], spec.for_country(country).split) for country in sorted(frames)]
    return PooledRows(
        train=_stack([part.train for part in parts]),
        final=_stack([part.final for part in parts]),
        holdout=_stack([part.holdout for part in parts]),
    )


def train_candidates(
    spec: ProductSpec, parts: Split, pooled: Mapping[str, PooledModel]
) -> Selection:
    """Fit the local candidates and choose the best of all by the country's own validation rows.

    The winner, if local, is fitted again on every row whose label is known before the holdout.
    When validation cannot tell (too few rows, one class), a pooled model goes before a local one.

    Args:
        spec: the product as it is for this country.
        parts: the country's rows.
        pooled: models trained before on all countries, by candidate name.
    """
    contenders = [
        _contender(candidate, scope, spec, parts, pooled)
        for candidate in spec.candidates
        for scope in candidate.scopes
    ]
    tried = tuple(contender.tried for contender in contenders)
    able = [contender for contender in contenders if contender.fitted is not None]
    if not able:
        return _baseline(spec, parts, tried)
    best = _best(able, spec.metric)
    if best.tried.scope == "pooled":
        model = pooled[best.tried.name].final
    else:
        model = fit(_candidate(spec, best.tried.name), parts.final, spec.task, spec.seed)
    return Selection(
        kind=best.tried.scope,
        name=best.tried.name,
        model=model,
        reason=_reason(best.tried, tried, spec.metric),
        tried=tried,
        value=best.tried.value,
        interval=_interval(spec, parts.validation, best.predicted),
    )


def selected_predictions(
    selection: Selection, spec: ProductSpec, rows: pd.DataFrame, train: pd.DataFrame
) -> np.ndarray:
    """What the choice predicts for rows of a features frame, shape (rows,).

    Args:
        selection: the choice.
        spec: the product as it is for this country.
        rows: with all features.
        train: the country's rows to take a baseline's mean from (`Split.final`).
    """
    if selection.model is not None:
        return predict(selection.model, rows, spec.task)
    baseline = next(base for base in spec.baselines if base.name == selection.name)
    return baseline_predictions(baseline, train, rows)


def _stack(frames: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    return pd.concat(filled, ignore_index=True)


def _pooled(candidate: CandidateSpec, spec: ProductSpec, rows: PooledRows) -> PooledModel:
    served = fit(candidate, rows.final, spec.task, spec.seed)
    predicted = predict(served, rows.holdout, spec.task)
    return PooledModel(
        candidate=candidate.name,
        for_validation=fit(candidate, rows.train, spec.task, spec.seed),
        final=served,
        report=evaluate(rows.holdout, predicted, spec, rows.final),
    )


def _contender(
    candidate: CandidateSpec,
    scope: Scope,
    spec: ProductSpec,
    parts: Split,
    pooled: Mapping[str, PooledModel],
) -> _Contender:
    if scope == "pooled":
        if candidate.name not in pooled:
            return _Contender(Tried(candidate.name, scope, 0, NAN, "no pooled model is there"))
        return _judged(pooled[candidate.name].for_validation, scope, spec, parts.validation)
    rows, needed = len(parts.train), spec.split.min_train_rows
    if rows < needed:
        reason = f"{needed} training rows are needed, there are {rows}"
        return _Contender(Tried(candidate.name, scope, rows, NAN, reason))
    try:
        fitted = fit(candidate, parts.train, spec.task, spec.seed)
    except TrainingError as error:  # the reason is recorded; other candidates may do
        return _Contender(Tried(candidate.name, scope, rows, NAN, error.problem))
    return _judged(fitted, scope, spec, parts.validation)


def _judged(
    fitted: FittedModel, scope: Scope, spec: ProductSpec, validation: pd.DataFrame
) -> _Contender:
    predicted = predict(fitted, validation, spec.task)
    value = score(spec.metric, validation["label"].to_numpy(), predicted)
    reason = "" if np.isfinite(value) else f"{spec.metric} cannot be told on {len(validation)} rows"
    tried = Tried(fitted.name, scope, fitted.rows, value, reason)
    return _Contender(tried, fitted, predicted)


def _best(able: list[_Contender], metric: str) -> _Contender:
    judged = [contender for contender in able if np.isfinite(contender.tried.value)]
    if not judged:
        return next((c for c in able if c.tried.scope == "pooled"), able[0])
    best = judged[0]
    for other in judged[1:]:
        if is_better(metric, other.tried.value, best.tried.value):
            best = other
    return best


def _candidate(spec: ProductSpec, name: str) -> CandidateSpec:
    return next(candidate for candidate in spec.candidates if candidate.name == name)


def _reason(best: Tried, tried: tuple[Tried, ...], metric: str) -> str:
    if not np.isfinite(best.value):
        return f"{best.scope} {best.name}, because {best.reason}"
    others = [
        f"{other.scope} {other.name} "
        + (f"{other.value:.4g}" if np.isfinite(other.value) else f"not judged: {other.reason}")
        for other in tried
        if other is not best
    ]
    against = f" ({'; '.join(others)})" if others else ""
    return f"{best.scope} {best.name} has the best validation {metric}, {best.value:.4g}{against}"


def _baseline(spec: ProductSpec, parts: Split, tried: tuple[Tried, ...]) -> Selection:
    baseline = spec.baselines[0]
    predicted = baseline_predictions(baseline, parts.train, parts.validation)
    label = parts.validation["label"].to_numpy()
    reasons = dict.fromkeys(f"{one.scope} {one.name}: {one.reason}" for one in tried)
    return Selection(
        kind="baseline",
        name=baseline.name,
        model=None,
        reason=f"baseline {baseline.name}, because no model could be had ({'; '.join(reasons)})",
        tried=tried,
        value=score(spec.metric, label, predicted),
        interval=_interval(spec, parts.validation, predicted),
    )


def _interval(
    spec: ProductSpec, validation: pd.DataFrame, predicted: np.ndarray | None
) -> tuple[float, float]:
    if spec.task != "regression" or predicted is None:
        return NAN, NAN
    return interval_offsets(validation["label"].to_numpy(), predicted, spec.predictions.interval)
