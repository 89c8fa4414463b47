"""Trainings of a backtest through history: what the steps of a training run do, without files.

A candidate is chosen, judged beside the models it may replace, and asked what it would have
predicted. The gates that need files (`loads_and_predicts`, `latency_and_size`) have no place here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import pandas as pd

from mlops_assets.ml.backtest.data import BacktestData, naive_predictions
from mlops_assets.ml.evaluation.behaviour import behaviours
from mlops_assets.ml.evaluation.evidence import evidence_frame
from mlops_assets.ml.evaluation.importance import permutation_importance
from mlops_assets.ml.evaluation.report import promises_little, report_of
from mlops_assets.ml.gates import gates
from mlops_assets.ml.gates.candidate_range import within_range
from mlops_assets.ml.gates.judgement import gates_of
from mlops_assets.ml.gates.model_pair import ModelPair
from mlops_assets.ml.gates.succession import (
    HoldoutRows,
    PooledComparison,
    compare_successors,
    comparison_for,
    model_title,
    pooled_predictions,
)
from mlops_assets.ml.models.baselines import baseline_predictions
from mlops_assets.ml.models.fitted_model import FittedModel, predict
from mlops_assets.ml.models.prediction_range import beyond_range, judge_range, limits_of_history
from mlops_assets.ml.models.split import Split
from mlops_assets.ml.monitoring.performance import Promise, promise_of
from mlops_assets.ml.promotion.decision import Decision, decide
from mlops_assets.ml.stats.metrics import score
from mlops_assets.ml.training.candidate import TrainedCandidate, train_country
from mlops_assets.ml.training.pooled_scores import PooledScores, merged_scores
from mlops_assets.ml.training.references import Reference, make_reference, newest_rows
from mlops_assets.ml.training.selection import (
    ModelKind,
    PooledModel,
    Selection,
    pooled_names,
    pooled_rows,
    region_of,
    rows_served,
    train_pooled,
)
from mlops_assets.ml.training.tuning import Clock
from mlops_assets.spec import BaselineSpec, DecisionSpec, ProductSpec

IMPORTANCE_ROWS = 120
"""About so many holdout rows tell a backtest how much each feature matters; a training asks
more."""
_NAN = float("nan")


@dataclass(frozen=True)
class Pooled:
    """The pooled models in use.

    Args:
        models: by pooled name; those that beat the best baseline.
        made: when each of them was trained.
        scores: of the models of the newest training, in use or not, for the baselines.
        compared: the models beside those they may follow, when they were trained.
    """

    models: Mapping[str, PooledModel] = field(default_factory=dict)
    made: Mapping[str, pd.Timestamp] = field(default_factory=dict)
    scores: PooledScores = field(default_factory=dict)
    compared: tuple[PooledComparison, ...] = ()

    @property
    def key(self) -> tuple[tuple[str, pd.Timestamp], ...]:
        """Equal only for the same models."""
        return tuple(sorted(self.made.items()))

    def title(self, name: str) -> str:
        """What one of the models is called where it is compared; "" for none."""
        return model_title(name, self.made[name].isoformat()) if name in self.made else ""

    def joined(self, newer: Pooled) -> Pooled:
        """With newer ones in place of those of the same name."""
        both = Pooled(
            {**self.models, **newer.models},
            {**self.made, **newer.made},
            newer.scores or self.scores,
        )
        return both.having((*self.compared, *newer.compared))

    def having(self, compared: Sequence[PooledComparison]) -> Pooled:
        """With comparisons, as far as they are of these models; none twice."""
        titles = {self.title(name) for name in self.models}
        kept = {
            (each.candidate, each.champion, each.region): each
            for each in compared
            if each.candidate in titles
        }
        return replace(self, compared=tuple(kept.values()))

    def rivals(self) -> list[ModelInUse]:
        """The models as those that newer ones may follow."""
        return [
            ModelInUse(judged=each.final, pooled=self.title(name), region=each.region)
            for name, each in self.models.items()
        ]


@dataclass(frozen=True)
class ModelInUse:
    """A model in use that a candidate is to replace.

    Args:
        version: its name; "" for none.
        judged: its evaluation model; None without one.
        until: event time of the newest row that what serves learned from.
        holdout_from: the twin has seen rows from before.
        pooled: what the pooled model is called where it is compared; "" for a local one.
        region: it was trained for; "" for all countries.
        rules: of the policy that has it in use; None: those of the product. Of these only `margin`
            and `refresh_after_days` may differ: gates and pooled models are judged once.
    """

    version: str = ""
    judged: FittedModel | None = None
    until: pd.Timestamp | None = None
    holdout_from: pd.Timestamp | None = None
    pooled: str = ""
    region: str = ""
    rules: DecisionSpec | None = None

    @property
    def key(self) -> str:
        """Of its decision: the version, and the rules where they are not the product's."""
        return f"{self.version} by {self.rules!r}" if self.rules else self.version


@dataclass(frozen=True)
class TrainingOrder:
    """A training of one country.

    Args:
        country: its key.
        rivals: the models in use in it, of the policies that ask.
        watched: whether a reference for drift is needed.
        serves: whether it comes into use whatever is decided beside the rivals.
    """

    country: str
    rivals: tuple[ModelInUse, ...]
    watched: bool
    serves: bool = False


TrainingRequest = tuple[Pooled, Sequence[TrainingOrder]]
"""Trainings of countries beside the same pooled models."""


@dataclass(frozen=True)
class BacktestCandidate:
    """A candidate of one country, and what came of it.

    Args:
        country: its key.
        moment: when it was trained.
        version: its name; equal only for the same rows and the same pooled models.
        kind: of the choice.
        pooled_name: of the pooled model that was chosen; "" for a local one or a baseline.
        judged: the evaluation model; None for a baseline.
        until: event time of the newest row that what serves learned from.
        holdout_from: start of the holdout it was judged on.
        predicted: of what serves, for the country's rows after the moment; shape (rows,).
        decisions: by the key of the rival.
        promise: what it is promoted for.
        reference: what its new data are compared with; None unless it was asked for.
        seconds: of training.
        pooled_title: what the pooled model is called where it is compared; "" for none.
        region: it was trained for; "" for all countries.
        baseline: that serves as long as no model does.
        gates: outcome of each that needs no file, beside the first rival.
    """

    country: str
    moment: pd.Timestamp
    version: str
    kind: ModelKind
    pooled_name: str
    judged: FittedModel | None
    until: pd.Timestamp | None
    holdout_from: pd.Timestamp | None
    predicted: np.ndarray
    decisions: Mapping[str, Decision]
    promise: Promise
    reference: Reference | None
    seconds: float
    pooled_title: str = ""
    region: str = ""
    baseline: str = ""
    gates: tuple[gates.GateResult, ...] = ()

    @property
    def rival(self) -> ModelInUse:
        """As the model in use."""
        return ModelInUse(
            self.version,
            self.judged,
            self.until,
            self.holdout_from,
            self.pooled_title,
            self.region,
        )


class Trainer(Protocol):
    """Who trains: in this process, or in several."""

    def pooled(self, moment: pd.Timestamp) -> tuple[Pooled, float]:
        """`pooled_at` a moment."""
        ...

    def compared(self, newer: Pooled, rivals: Sequence[ModelInUse]) -> tuple[PooledComparison, ...]:
        """`compared_at` the moment at which they were trained."""
        ...

    def candidates(
        self, moment: pd.Timestamp, wanted: Sequence[TrainingRequest]
    ) -> list[list[BacktestCandidate]]:
        """`candidate_at` a moment for each order, in the order given."""
        ...


def pooled_at(past: BacktestData, moment: pd.Timestamp, clock: Clock) -> tuple[Pooled, float]:
    """The pooled models trained at a moment that beat the best baseline, and the seconds.

    All countries with features take part, backtested or not.
    """
    if not pooled_names(past.spec):
        return Pooled(), 0.0
    frames = {country: rows for country in past.frames if len(rows := past.known(country, moment))}
    began = clock()
    models = train_pooled(past.spec, frames, clock=clock)
    seconds = clock() - began
    good = {
        name: model
        for name, model in models.items()
        if gates.beats_baseline(model.report, past.spec).passed
    }
    scores = merged_scores(model.scores for model in models.values())
    return Pooled(good, dict.fromkeys(good, moment), scores), seconds


def compared_at(
    past: BacktestData, newer: Pooled, rivals: Sequence[ModelInUse]
) -> tuple[PooledComparison, ...]:
    """Pooled models beside those in use, on the holdout rows they were judged on.

    Args:
        past: of the product.
        newer: all trained at the same moment.
        rivals: pooled models in use then.
    """
    if not newer.models or not rivals:
        return ()
    moment, spec = next(iter(newer.made.values())), past.spec
    frames = {country: rows for country in past.frames if len(rows := past.known(country, moment))}
    rows = pooled_rows(spec, frames)
    held = HoldoutRows(rows.holdout, rows.holdout_country)
    titles: dict[bool, list[str]] = {True: [], False: []}
    for is_new, each in [*((True, one) for one in newer.rivals()), *((False, r) for r in rivals)]:
        assert each.judged is not None
        seen = None if is_new else each.judged.until
        predicted = pooled_predictions(
            spec, held, each.judged, region=each.region, unseen_from=seen
        )
        if predicted is not None:
            held = held.having(each.pooled, predicted)
            titles[is_new].append(each.pooled)
    found = compare_successors(spec, held.frame(spec), titles[True], titles[False])
    return tuple(each for each in found if each.rows)


def candidate_at(
    past: BacktestData, moment: pd.Timestamp, pooled: Pooled, order: TrainingOrder, *, clock: Clock
) -> BacktestCandidate:
    """A country's candidate at a moment, judged beside each rival."""
    country, spec = order.country, past.specs[order.country]
    began = clock()
    trained = train_country(
        spec,
        past.known(country, moment),
        pooled.models,
        country=country,
        clock=clock,
        scores=None if pooled.models else pooled.scores,
    )
    seconds, parts, selection = clock() - began, trained.parts, trained.selection
    version = _version(moment, selection, pooled)
    judged: dict[str, _Judged] = {}
    for rival in order.rivals:
        if rival.version not in judged:
            judged[rival.version] = _judged(trained, rival, pooled)
    decisions = {
        rival.key: _decided(
            spec,
            version,
            selection,
            rival,
            found=judged[rival.version],
            pooled=_compared(past, pooled, selection, rival, country=country),
        )
        for rival in order.rivals
    }
    promoted = order.serves or any(each.verdict == "promoted" for each in decisions.values())
    return BacktestCandidate(
        country=country,
        moment=moment,
        version=version,
        kind=selection.kind,
        pooled_name=selection.pooled_name,
        judged=selection.model,
        until=selection.served.until if selection.served else None,
        holdout_from=parts.holdout_from,
        predicted=_given_out(past, country, moment, selection),
        decisions=decisions,
        promise=_promise(
            spec, parts, selection, judged[order.rivals[0].version].evidence, pooled=pooled
        ),
        reference=_reference(spec, parts, selection) if order.watched and promoted else None,
        seconds=seconds,
        pooled_title=pooled.title(selection.pooled_name),
        region=selection.region,
        baseline=selection.baseline.name,
        gates=judged[order.rivals[0].version].gates,
    )


def without_pooled(trained: BacktestCandidate) -> BacktestCandidate:
    """Without a model that whoever asked has already: it is large, and the same everywhere."""
    return replace(trained, judged=None) if trained.pooled_name else trained


def with_pooled(trained: BacktestCandidate, pooled: Pooled) -> BacktestCandidate:
    """What `without_pooled` left out put back."""
    if not trained.pooled_name:
        return trained
    return replace(trained, judged=pooled.models[trained.pooled_name].final)


@dataclass(frozen=True)
class _Judged:
    evidence: pd.DataFrame
    gates: tuple[gates.GateResult, ...]


def _version(moment: pd.Timestamp, selection: Selection, pooled: Pooled) -> str:
    """Two policies can have pooled models of different age at the same moment."""
    made = ",".join(f"{name}@{time.isoformat()}" for name, time in pooled.key)
    return f"{moment.isoformat()} {selection.kind} {selection.name} {made}".strip()


def _judged(trained: TrainedCandidate, rival: ModelInUse, pooled: Pooled) -> _Judged:
    """As `judgement.judge`, without what only people look at."""
    spec, parts, selection = trained.spec, trained.parts, trained.selection
    predicted, around = trained.on_holdout()
    holdout = parts.holdout
    theirs = _unseen(spec, rival, holdout)
    evidence = evidence_frame(
        spec, holdout, predicted, parts.final, low=around.low, high=around.high, champion=theirs
    )
    if selection.model is None:
        return _Judged(evidence, ())
    model = pooled.models.get(selection.pooled_name)
    pooled_behaved = model.behaved if model else ()
    behaved = gates.behaviour(behaviours(spec, selection.model, holdout), spec, pooled_behaved)
    on_holdout = judge_range(predicted, holdout, limits_of_history(spec.predictions))
    inside = within_range(on_holdout, trained.on_next_rows(), spec)
    found = gates_of(spec, evidence, model.report if model else None)
    tested = (gates.unless_switched_off(spec, each) for each in (behaved, inside))
    return _Judged(evidence, (*found, *tested))


def _unseen(spec: ProductSpec, rival: ModelInUse, holdout: pd.DataFrame) -> np.ndarray | None:
    """What a rival's twin predicts, NaN for rows it may have seen; None without one."""
    if rival.judged is None:
        return None
    predicted = predict(rival.judged, holdout, spec.task)
    if rival.holdout_from is not None:
        predicted[(holdout["event_time"] < rival.holdout_from).to_numpy()] = _NAN
    return predicted


def _decided(
    spec: ProductSpec,
    version: str,
    selection: Selection,
    rival: ModelInUse,
    *,
    found: _Judged,
    pooled: PooledComparison | None,
) -> Decision:
    if selection.model is None or selection.served is None:
        reason = f"no model to compare: {selection.reason}"
        return Decision("not_judged", reason, len(found.evidence), _NAN, _NAN)
    pair = ModelPair(
        candidate=version,
        champion=rival.version,
        candidate_until=selection.served.until,
        champion_until=rival.until,
    )
    ruled = spec.model_copy(update={"decision": rival.rules}) if rival.rules else spec
    return decide(ruled, found.evidence, found.gates, pair, pooled=pooled)


def _compared(
    past: BacktestData, pooled: Pooled, selection: Selection, rival: ModelInUse, *, country: str
) -> PooledComparison | None:
    """The pooled models behind candidate and rival; None where one of them is no pooled model."""
    ours = pooled.title(selection.pooled_name)
    if not ours or not rival.pooled:
        return None
    return comparison_for(pooled.compared, ours, rival.pooled, region_of(past.spec, country))


def _promise(
    spec: ProductSpec,
    parts: Split,
    selection: Selection,
    evidence: pd.DataFrame,
    *,
    pooled: Pooled,
) -> Promise:
    if selection.model is None:
        return promise_of(spec, None)
    report, first = report_of(spec, evidence), spec.baselines[0]
    if selection.pooled_name and promises_little(spec, report):
        return promise_of(spec, pooled.models[selection.pooled_name].report, pooled=True)
    label = parts.holdout["label"].to_numpy(dtype="float64")
    naive = score(spec.metric, label, baseline_predictions(first, parts.final, parts.holdout))
    return promise_of(spec, replace(report, baselines={**report.baselines, first.name: naive}))


def _given_out(
    past: BacktestData, country: str, moment: pd.Timestamp, selection: Selection
) -> np.ndarray:
    """What serves predicts for the rows after the moment; where that is beyond the range, others.

    The limit where the product says so, else the baseline, which answers refused predictions, too.
    """
    spec, rows = past.specs[country], past.after(country, moment)
    if selection.served is None:
        return np.full(len(rows), _NAN)
    predicted = predict(selection.served, rows, spec.task)
    beyond = beyond_range(predicted, spec.predictions)
    if not beyond.any():
        return predicted
    naive = naive_predictions(past, country, _serving_baseline(spec, selection))[-len(rows) :]
    if spec.predictions.beyond == "clip":
        limits = spec.predictions.minimum, spec.predictions.maximum
        naive = np.where(np.isfinite(predicted), np.clip(predicted, *limits), naive)
    return np.where(beyond, naive, predicted)


def _serving_baseline(spec: ProductSpec, selection: Selection) -> BaselineSpec | None:
    return next((each for each in spec.baselines if each.name == selection.baseline.name), None)


def _reference(spec: ProductSpec, parts: Split, selection: Selection) -> Reference | None:
    """Of the newest rows that what serves learned from."""
    if selection.model is None or selection.served is None:
        return None
    rows = newest_rows(spec, rows_served(spec, parts))
    step = max(1, len(parts.holdout) // IMPORTANCE_ROWS)
    sample = parts.holdout.iloc[::step]
    table = permutation_importance(selection.model, sample, spec.metric, spec.seed)
    importance = dict(zip(table["feature"], table["importance"], strict=True))
    return make_reference(spec, rows, predict(selection.served, rows, spec.task), importance)
