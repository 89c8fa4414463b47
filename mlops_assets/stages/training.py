"""A country's candidate: chosen, stored, tried in a fresh process, judged beside the champion."""

import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlops_assets.errors import RegistryError, TrainingError
from mlops_assets.ml import gates
from mlops_assets.ml.card import CardFacts, Chosen, MadeFrom
from mlops_assets.ml.decision import Sides
from mlops_assets.ml.evaluation import Footprint
from mlops_assets.ml.gates import GateResult, declared_gates
from mlops_assets.ml.intervals import intervals_around
from mlops_assets.ml.judgement import Judgement, judge
from mlops_assets.ml.models import predict
from mlops_assets.ml.selection import (
    PooledModel,
    Selection,
    selected_predictions,
    train_candidates,
)
from mlops_assets.ml.split import Split, split
from mlops_assets.product import Product
from mlops_assets.registry import ModelVersion, Registry, TrackedRun
from mlops_assets.registry.fresh import check_fresh, largest_difference
from mlops_assets.registry.models import file_bytes
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.decisions import gates_to_json
from mlops_assets.stages.evaluation_page import CARD_FILE, CARD_TAG, artifacts, metrics
from mlops_assets.stages.intervals import SCALE_TAG, errors_before, errors_file, scale_feature
from mlops_assets.stages.serving import (
    example,
    fitted,
    logged,
    model_tags,
    report_to_json,
)
from mlops_assets.stages.training_record import TrainingRecord, trials_file

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
        sides: it and the champion it was judged beside.
        parts: the country's rows.
        facts: for the model card.
    """

    selection: Selection
    judged: Judgement
    version: ModelVersion | None
    sides: Sides
    parts: Split
    facts: CardFacts


@dataclass(frozen=True)
class Workplace:
    """Where a training takes place.

    Attributes:
        product: what is trained.
        record: of the training.
        run: the MLflow run of it.
        registry: the models.
        pooled: the pooled champions by name.
        versions: as registered.
    """

    product: Product
    record: TrainingRecord
    run: TrackedRun
    registry: Registry
    pooled: Mapping[str, PooledModel]
    versions: Mapping[str, ModelVersion]

    @property
    def spec(self) -> ProductSpec:
        """The product as it is for the country."""
        return self.record.spec


@dataclass(frozen=True)
class _Champion:
    """The model in use, and what it predicts for the holdout; None when it cannot."""

    version: ModelVersion | None
    predicted: np.ndarray | None = None
    until: pd.Timestamp | None = None
    bytes: int = 0


def train(place: Workplace, features: pd.DataFrame) -> Candidate:
    """Choose, register, try and judge the country's candidate, and tell MLflow."""
    spec, record = place.spec, place.record
    parts = split(features, spec.split)
    selection = train_candidates(
        spec, parts, place.pooled, country=record.country, clock=time.monotonic
    )
    errors = errors_before(selection, parts, spec)
    place.run.log(_params(spec, selection, parts), {})
    place.run.log_texts({**record.texts(), **trials_file(selection.trials), **errors_file(errors)})
    version = _register(place, selection, features)
    champion = _champion(place, parts.holdout)
    judged = _judge(place, selection, parts, errors, version, champion)
    facts = _facts(place, selection, parts, version, judged)
    _tell(place, facts, selection, version)
    return Candidate(
        selection, judged, version, _sides(version, judged, selection, champion), parts, facts
    )


def _register(
    place: Workplace, selection: Selection, features: pd.DataFrame
) -> ModelVersion | None:
    """The candidate as a version of the country's registered model; None for a baseline."""
    if selection.model is None:
        return None
    spec, record, pooled = place.spec, place.record, selection.pooled_name
    if pooled:
        stored = logged(place.versions[pooled])
    else:
        inputs = example(selection.model, features)
        stored = place.run.log_model(selection.model.estimator, *inputs)
    tags = {
        **record.tags(),
        **model_tags(selection.model, selection.name, selection.region),
        SCALE_TAG: scale_feature(selection, spec) or "",
        CARD_TAG: CARD_FILE,
        "holdout_from": spec.split.holdout_from.isoformat(),
        "reason": selection.reason,
        **({"pooled_version": place.versions[pooled].version} if pooled else {}),
    }
    return place.registry.register(
        record.product,
        record.country,
        stored,
        run_id=place.run.run_id,
        kind=selection.kind,
        tags=tags,
    )


def _champion(place: Workplace, holdout: pd.DataFrame) -> _Champion:
    """The model in use, on the candidate's own rows.

    One that cannot predict them (its files are damaged, or it needs features that are no more)
    is no measure: the candidate is judged beside the baseline, and the decision says why.
    """
    version = place.registry.champion(place.record.product, place.record.country)
    if version is None:
        return _Champion(None)
    try:
        model = fitted(version.name, version, place.spec, place.registry)
        predicted = predict(model, holdout, place.spec.task)
        size = file_bytes(place.registry.fetch(version))
    except (RegistryError, TrainingError):
        return _Champion(version)
    return _Champion(version, predicted, model.until, size)


def _judge(
    place: Workplace,
    selection: Selection,
    parts: Split,
    errors: pd.DataFrame,
    version: ModelVersion | None,
    champion: _Champion,
) -> Judgement:
    spec, holdout = place.spec, parts.holdout
    predicted = selected_predictions(selection, spec, holdout, parts.final)
    around = intervals_around(errors, holdout, predicted, scale_feature(selection, spec), spec)
    usable, footprint = _tried(place, selection, parts, version)
    pooled = place.pooled.get(selection.pooled_name)
    return judge(
        spec,
        holdout,
        selection.model,
        predicted,
        parts.final,
        low=around.low,
        high=around.high,
        champion=champion.predicted,
        stand_in=pooled.report if pooled else None,
        usable=usable,
        footprint=footprint,
        reason=selection.reason,
        declared=declared_gates(place.product.spec),
    )


def _tried(
    place: Workplace, selection: Selection, parts: Split, version: ModelVersion | None
) -> tuple[Sequence[GateResult], Footprint | None]:
    """The stored files in a process that has never seen them: two gates, and what they cost."""
    if version is None or selection.model is None:
        return (), None
    spec = place.spec
    rows = (parts.holdout if len(parts.holdout) else parts.final).head(100)
    found = check_fresh(version, rows, spec.task, place.registry)
    if found.problem:
        result = gates.loads_and_predicts(
            same_in_fresh_process=None, batch_equals_rows=None, problem=found.problem
        )
        return (result, gates.latency_and_size(None, spec)), None
    ours = predict(selection.model, rows, spec.task)
    footprint = Footprint(
        bytes=found.bytes,
        load_seconds=found.load_seconds,
        row_milliseconds=found.row_milliseconds,
        batch_rows=len(rows),
        batch_milliseconds=found.batch_milliseconds,
    )
    same = largest_difference(found.batch, ours) <= _EQUAL
    result = gates.loads_and_predicts(
        same_in_fresh_process=same, batch_equals_rows=found.rows_agree
    )
    return (result, gates.latency_and_size(footprint, spec)), footprint


def _sides(
    version: ModelVersion | None, judged: Judgement, selection: Selection, champion: _Champion
) -> Sides:
    footprint = judged.report.footprint
    return Sides(
        candidate=version.version if version else "",
        champion=champion.version.version if champion.version else "",
        candidate_until=selection.model.until if selection.model else None,
        champion_until=champion.until,
        candidate_bytes=footprint.bytes if footprint else 0,
        champion_bytes=champion.bytes,
    )


def _tell(
    place: Workplace, facts: CardFacts, selection: Selection, version: ModelVersion | None
) -> None:
    """Everything a person may ask of the candidate, in MLflow."""
    validation = {f"validation.{place.spec.metric}": selection.value}
    place.run.log({}, {**metrics(facts.report), **validation})
    place.run.log_texts({**artifacts(facts), "gates.json": gates_to_json(facts.gates)})
    if version is not None:
        place.registry.tag(version, {"report": report_to_json(facts.report)})


def _params(spec: ProductSpec, selection: Selection, parts: Split) -> dict[str, Any]:
    chosen = {each.name: each for each in spec.candidates}.get(selection.name)
    return {
        "kind": selection.kind,
        "candidate": selection.name,
        "estimator": chosen.estimator if chosen else "baseline",
        **{f"param.{name}": value for name, value in selection.params.items()},
        "seed": spec.seed,
        "train_rows": len(parts.final),
        "validation_rows": len(parts.validation),
        "holdout_rows": len(parts.holdout),
        "holdout_from": spec.split.holdout_from,
        "reason": selection.reason,
    }


def _facts(
    place: Workplace,
    selection: Selection,
    parts: Split,
    version: ModelVersion | None,
    judged: Judgement,
) -> CardFacts:
    record, spec = place.record, place.spec
    chosen = {each.name: each for each in spec.candidates}.get(selection.name)
    made = record.features[record.country]
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
            rows=selection.model.rows if selection.model else len(parts.final),
            first=parts.final["event_time"].min() if len(parts.final) else None,
            last=parts.final["event_time"].max() if len(parts.final) else None,
            snapshots={"features": made.version},
            facts={**record.tags(), "MLflow run": place.run.run_id},
        ),
        report=judged.report,
        gates=judged.gates,
        evidence=judged.evidence,
        notes=inspect.getdoc(place.product.feature_function()) or "",
    )
