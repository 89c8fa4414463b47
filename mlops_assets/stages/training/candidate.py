"""A country's candidate: chosen, stored, tried in isolation, judged beside the champion."""

import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlops_assets.errors import RegistryError, TrainingError
from mlops_assets.ml.evaluation.report import Footprint, promises_little
from mlops_assets.ml.gates import gates
from mlops_assets.ml.gates.gates import GateResult, declared_gates, gates_to_json
from mlops_assets.ml.gates.judgement import Judgement, judge
from mlops_assets.ml.gates.model_pair import ModelPair
from mlops_assets.ml.models.fitted_model import predict
from mlops_assets.ml.models.split import Split, newest_label
from mlops_assets.ml.reports.model_card import CardFacts, Chosen, Learned, MadeFrom
from mlops_assets.ml.reports.tables import flat_metrics
from mlops_assets.ml.training.candidate import TrainedCandidate, scale_feature, train_country
from mlops_assets.ml.training.pooled_scores import PooledScores
from mlops_assets.ml.training.selection import (
    PooledModel,
    Selection,
    rows_served,
)
from mlops_assets.registry import LoggedModel, ModelVersion, Registry, TrackedRun
from mlops_assets.registry.isolated.check import check_isolated, largest_difference
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.common.context import CountryContext
from mlops_assets.stages.training.evaluation_metadata import CARD_FILE, CARD_TAG, artifacts
from mlops_assets.stages.training.intervals import SCALE_TAG, errors_file
from mlops_assets.stages.training.references import (
    REFERENCE_FILE,
    REFERENCE_TAG,
    newest_rows,
    reference_files,
)
from mlops_assets.stages.training.serving import (
    EVALUATION_MODEL_TAGS,
    HOLDOUT_FROM,
    KNOWN_UNTIL,
    PROMISE_REPORT,
    evaluation_model_tags,
    logged,
    model_example,
    model_tags,
    report_to_json,
    tagged_time,
    unseen_predictions,
)
from mlops_assets.stages.training.training_record import TrainingRecord, trials_file

_EQUAL = 1e-9
"""Largest relative difference of predictions that are the same: linear algebra adds in another
order in another process."""


@dataclass(frozen=True)
class Candidate:
    """A trained and judged candidate of one country.

    Attributes:
        selection: how it was chosen.
        judged: report, evidence and gates.
        version: as registered; None for a baseline.
        model_pair: it and the champion it was judged beside.
        parts: the country's rows.
        facts: for the model card.
    """

    selection: Selection
    judged: Judgement
    version: ModelVersion | None
    model_pair: ModelPair
    parts: Split
    facts: CardFacts


@dataclass(frozen=True)
class TrainingContext:
    """A training of a country.

    Attributes:
        of: the country.
        record: of the training.
        run: the MLflow run of it.
        pooled: the pooled champions by name.
        versions: as registered.
        scores: of any pooled model of the newest training, in use or not; see `train_candidates`.
    """

    of: CountryContext
    record: TrainingRecord
    run: TrackedRun
    pooled: Mapping[str, PooledModel]
    versions: Mapping[str, ModelVersion]
    scores: PooledScores | None = None

    @property
    def spec(self) -> ProductSpec:
        """The product as it is for the country."""
        return self.record.spec

    @property
    def registry(self) -> Registry:
        """The models."""
        return self.of.registry


@dataclass(frozen=True)
class _Champion:
    """The model in use, and what it predicts for the holdout; None when it cannot."""

    version: ModelVersion | None
    predicted: np.ndarray | None = None
    until: pd.Timestamp | None = None
    bytes: int = 0


def train(training: TrainingContext, features: pd.DataFrame) -> Candidate:
    """Choose, register, try and judge the country's candidate, and tell MLflow."""
    spec, record = training.spec, training.record
    trained = train_country(
        spec,
        features,
        training.pooled,
        country=record.country,
        clock=time.monotonic,
        scores=training.scores,
    )
    parts, selection, errors = trained.parts, trained.selection, trained.errors
    training.run.log(_params(spec, selection, parts), {})
    training.run.log_texts(
        {**record.texts(), **trials_file(selection.trials), **errors_file(errors)}
    )
    version = _register(training, selection, parts, features)
    champion = _champion(training, parts)
    judged = _judge(training, trained, version, champion)
    facts = _facts(training, selection, parts, version, judged=judged)
    _log_candidate(training, facts, selection, version)
    _keep_reference(training, selection, parts, judged, version=version)
    return Candidate(
        selection, judged, version, _pair(version, judged, selection, champion), parts, facts
    )


def _register(
    training: TrainingContext, selection: Selection, parts: Split, features: pd.DataFrame
) -> ModelVersion | None:
    """The candidate as a version of the country's registered model; None for a baseline."""
    if selection.served is None:
        return None
    spec, record, pooled = training.spec, training.record, selection.pooled_name
    stored, twin = _stored(training, selection, features)
    tags = {
        **record.tags(),
        **model_tags(selection.served, selection.name, selection.region),
        **twin,
        **_times(parts),
        SCALE_TAG: scale_feature(selection, spec) or "",
        CARD_TAG: CARD_FILE,
        "reason": selection.reason,
        **({"pooled_version": training.versions[pooled].version} if pooled else {}),
    }
    return training.registry.register(
        record.product,
        record.country,
        stored,
        run_id=training.run.run_id,
        kind=selection.kind,
        tags=tags,
    )


def _stored(
    training: TrainingContext, selection: Selection, features: pd.DataFrame
) -> tuple[LoggedModel, dict[str, str]]:
    """The files that serve, and what the version says of those that were judged."""
    served, judged = selection.served, selection.model
    assert served is not None
    assert judged is not None
    if selection.pooled_name:
        version = training.versions[selection.pooled_name]
        told = {
            name: value for name, value in version.tags.items() if name in EVALUATION_MODEL_TAGS
        }
        return logged(version), told
    stored = training.run.log_model(served.estimator, *model_example(served, features))
    if judged is served:
        return stored, {}
    twin = training.run.log_model(judged.estimator, *model_example(judged, features), name="judged")
    return stored, evaluation_model_tags(twin, judged)


def _times(parts: Split) -> dict[str, str]:
    """When the holdout began, and up to when labels were known."""
    began, known = parts.holdout_from, newest_label(parts.known)
    times = {HOLDOUT_FROM: began and began.date(), KNOWN_UNTIL: known}
    return {name: time.isoformat() for name, time in times.items() if time is not None}


def _champion(training: TrainingContext, parts: Split) -> _Champion:
    """The model in use, as it was judged, on those of the candidate's rows it has not seen.

    One that cannot predict them (its files are damaged, or it needs features that are no more)
    is no measure: the candidate is judged beside the baseline, and the decision says why.
    """
    version = training.of.champion()
    if version is None:
        return _Champion(None)
    try:
        predicted = unseen_predictions(version, parts.holdout, training.spec, training.registry)
        size = training.registry.bytes_of(version)
    except (RegistryError, TrainingError):
        return _Champion(version)
    return _Champion(version, predicted, tagged_time(version, "until"), size)


def _judge(
    training: TrainingContext,
    trained: TrainedCandidate,
    version: ModelVersion | None,
    champion: _Champion,
) -> Judgement:
    spec, selection, parts = training.spec, trained.selection, trained.parts
    predicted, around = trained.on_holdout()
    usable, footprint = _tried(training, selection, parts, version)
    pooled = training.pooled.get(selection.pooled_name)
    return judge(
        spec,
        parts.holdout,
        selection.model,
        predicted,
        train=parts.final,
        low=around.low,
        high=around.high,
        champion=champion.predicted,
        stand_in=pooled.report if pooled else None,
        behaved=pooled.behaved if pooled else (),
        next_rows=trained.on_next_rows(),
        usable=usable,
        footprint=footprint,
        reason=selection.reason,
        declared=declared_gates(training.of.product.spec),
    )


def _tried(
    training: TrainingContext, selection: Selection, parts: Split, version: ModelVersion | None
) -> tuple[Sequence[GateResult], Footprint | None]:
    """The stored files in a process that has never seen them: two gates, and what they cost."""
    if version is None or selection.served is None:
        return (), None
    spec = training.spec
    rows = (parts.holdout if len(parts.holdout) else parts.final).head(100)
    found = check_isolated(version, rows, spec.task, training.registry)
    if found.problem:
        result = gates.loads_and_predicts(
            same_in_isolated_process=None, batch_equals_rows=None, problem=found.problem
        )
        return (result, gates.latency_and_size(None, spec)), None
    ours = predict(selection.served, rows, spec.task)
    footprint = Footprint(
        bytes=found.bytes,
        load_seconds=found.load_seconds,
        row_milliseconds=found.row_milliseconds,
        batch_rows=len(rows),
        batch_milliseconds=found.batch_milliseconds,
    )
    same = largest_difference(found.batch, ours) <= _EQUAL
    result = gates.loads_and_predicts(
        same_in_isolated_process=same, batch_equals_rows=found.rows_agree
    )
    return (result, gates.latency_and_size(footprint, spec)), footprint


def _pair(
    version: ModelVersion | None, judged: Judgement, selection: Selection, champion: _Champion
) -> ModelPair:
    footprint = judged.report.footprint
    return ModelPair(
        candidate=version.version if version else "",
        champion=champion.version.version if champion.version else "",
        candidate_until=selection.served.until if selection.served else None,
        champion_until=champion.until,
        candidate_bytes=footprint.bytes if footprint else 0,
        champion_bytes=champion.bytes,
    )


def _log_candidate(
    training: TrainingContext, facts: CardFacts, selection: Selection, version: ModelVersion | None
) -> None:
    """Everything a person may ask of the candidate, in MLflow."""
    validation = {f"validation.{training.spec.metric}": selection.value}
    training.run.log({}, {**flat_metrics(facts.report), **validation})
    training.run.log_texts({**artifacts(facts), "gates.json": gates_to_json(facts.gates)})
    if version is not None:
        pooled = training.pooled.get(selection.pooled_name)
        promised = (
            {PROMISE_REPORT: report_to_json(pooled.report)}
            if pooled and promises_little(training.spec, facts.report)
            else {}
        )
        training.registry.tag(version, {"report": report_to_json(facts.report), **promised})


def _keep_reference(
    training: TrainingContext,
    selection: Selection,
    parts: Split,
    judged: Judgement,
    *,
    version: ModelVersion | None,
) -> None:
    """What new rows are compared with as long as the model serves, in MLflow."""
    if selection.served is None or version is None:
        return
    rows = newest_rows(training.spec, rows_served(training.spec, parts))
    predicted = predict(selection.served, rows, training.spec.task)
    files = reference_files(training.spec, rows, predicted, judged.report.importance)
    if files:
        training.run.log_texts(files)
        training.registry.tag(version, {REFERENCE_TAG: REFERENCE_FILE})


def _params(spec: ProductSpec, selection: Selection, parts: Split) -> dict[str, Any]:
    chosen = {each.name: each for each in spec.candidates}.get(selection.name)
    return {
        "kind": selection.kind,
        "candidate": selection.name,
        "estimator": chosen.estimator if chosen else "baseline",
        **{f"param.{name}": value for name, value in selection.params.items()},
        "seed": spec.seed,
        "train_rows": len(rows_served(spec, parts)),
        "judged_train_rows": len(parts.final),
        "validation_rows": len(parts.validation),
        "holdout_rows": len(parts.holdout),
        HOLDOUT_FROM: parts.holdout_from and parts.holdout_from.date(),
        "reason": selection.reason,
    }


def _facts(
    training: TrainingContext,
    selection: Selection,
    parts: Split,
    version: ModelVersion | None,
    *,
    judged: Judgement,
) -> CardFacts:
    record, spec = training.record, training.spec
    chosen = {each.name: each for each in spec.candidates}.get(selection.name)
    made, learned = record.features[record.country], rows_served(spec, parts)
    return CardFacts(
        product=record.product,
        country=record.country,
        spec=spec,
        chosen=Chosen(
            kind=selection.kind,
            name=selection.name,
            version=version.version if version else "",
            reason=selection.reason,
            estimator=chosen.estimator if chosen else "",
            params=selection.params,
            tried=pd.DataFrame([vars(each) for each in selection.tried]),
            region=selection.region,
        ),
        made=MadeFrom(
            rows=selection.served.rows if selection.served else len(parts.final),
            first=learned["event_time"].min() if len(learned) else None,
            last=learned["event_time"].max() if len(learned) else None,
            holdout_from=parts.holdout_from,
            judged=_judged_on(selection, parts),
            snapshots={"features": made.version},
            facts={**record.tags(), "MLflow run": training.run.run_id},
        ),
        report=judged.report,
        gates=judged.gates,
        evidence=judged.evidence,
        notes=inspect.getdoc(training.of.product.feature_function()) or "",
    )


def _judged_on(selection: Selection, parts: Split) -> Learned | None:
    """What the evaluation model learned, where another model serves."""
    if selection.model is None or selection.model is selection.served:
        return None
    times = parts.final["event_time"]
    first, last = (times.min(), times.max()) if len(times) else (None, None)
    return Learned(selection.model.rows, first, last)
