"""The floor's models: the pooled ones once, then each country's candidate, judged and decided."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.overhead.place import Place, Run
from mlops_assets.ml.charts import plots
from mlops_assets.ml.evaluation.intervals import (
    HISTORY_COLUMNS,
    intervals_around,
    residual_history,
    scale_of,
)
from mlops_assets.ml.evaluation.report import Footprint, Report
from mlops_assets.ml.gates import gates
from mlops_assets.ml.gates.gates import GateResult
from mlops_assets.ml.gates.judgement import Judgement, judge
from mlops_assets.ml.gates.model_pair import ModelPair
from mlops_assets.ml.models.fitted_model import FittedModel, predict
from mlops_assets.ml.models.split import Split, newest_label
from mlops_assets.ml.promotion.card_decision import with_decision
from mlops_assets.ml.promotion.decision import Decision, decide
from mlops_assets.ml.reports import tables
from mlops_assets.ml.reports.model_card import (
    CardFacts,
    Chosen,
    Learned,
    MadeFrom,
    card,
    forecast_plot,
    gain_limits,
    gain_unit,
    known_gains,
)
from mlops_assets.ml.training.references import (
    Reference,
    make_reference,
    newest_rows,
    reference_to_json,
)
from mlops_assets.ml.training.selection import (
    PooledModel,
    Selection,
    country_split,
    rows_served,
    selected_predictions,
    train_candidates,
    train_pooled,
)
from mlops_assets.registry.models import LoggedModel, ModelVersion
from mlops_assets.spec import ProductSpec

_EXAMPLE_ROWS = 50
_TRIED_ROWS = 100


@dataclass(frozen=True)
class InUse:
    """A pooled model in memory, and its files."""

    model: PooledModel
    stored: LoggedModel
    version: ModelVersion


@dataclass(frozen=True)
class Trained:
    """A country's candidate and what became of it.

    Attributes:
        spec: the product as it is for the country.
        selection: the choice.
        parts: the country's rows.
        errors: of the choice before it saw the validation rows.
        judged: report, evidence and gates.
        version: as registered; "" for a baseline.
        decision: whether it is in use.
        reference: what new rows are compared with; None for a baseline.
    """

    spec: ProductSpec
    selection: Selection
    parts: Split
    errors: pd.DataFrame
    judged: Judgement
    version: str
    decision: Decision
    reference: Reference | None

    @property
    def serves(self) -> bool:
        """Whether the model is in use, and not the baseline."""
        return self.decision.verdict == "promoted"

    @property
    def scale(self) -> str | None:
        """The feature by which the errors grow."""
        return scale_feature(self.selection, self.spec)


def pooled(place: Place, frames: Mapping[str, pd.DataFrame]) -> dict[str, InUse]:
    """The pooled models that beat the baseline, registered and in use."""
    spec = place.product.spec
    with place.clock.part("pooled"):
        models = train_pooled(spec, frames, clock=time.monotonic)
    sample = next(iter(frames.values()))
    with place.mlflow_run("pooled") as run:
        run.log_texts({"config.json": json.dumps(spec.model_dump(mode="json"), indent=1)})
        found = {name: _registered(run, model, sample) for name, model in models.items()}
    rows = [
        {"candidate": name, "version": each.version.version, "value": each.model.report.value}
        for name, each in found.items()
    ]
    place.write(pd.DataFrame(rows), "pooled_model")
    return {
        name: each
        for name, each in found.items()
        if gates.beats_baseline(each.model.report, spec).passed
    }


def _registered(run: Run, model: PooledModel, sample: pd.DataFrame) -> InUse:
    name, spec = model.name, run.place.product.spec
    stored = run.log_model(model.served.estimator, *_example(model.served, sample))
    for label, each in (("validation", model.for_validation), ("judged", model.final)):
        run.log_model(each.estimator, *_example(each, sample), name=label)
    params = {f"{name}.param.{key}": value for key, value in model.params.items()}
    run.log(
        {f"{name}.train_rows": model.served.rows, **params},
        {f"{name}.{metric}": value for metric, value in model.report.metrics.items()},
    )
    tags = {**_tags(model.served), "report": _report(model.report)}
    version = run.register(f"pooled-{name}", stored, "pooled", tags)
    if gates.beats_baseline(model.report, spec).passed:
        run.promote(version)
    return InUse(model, stored, version)


def train(
    place: Place, country: str, features: pd.DataFrame, pooled: Mapping[str, InUse]
) -> Trained:
    """Choose, register, judge, decide and tell MLflow, in the order of the platform."""
    spec, models = place.product.resolved(country), {n: each.model for n, each in pooled.items()}
    with place.clock.part("training"):
        parts = country_split(features, spec, (each.known_until for each in models.values()))
        selection = train_candidates(spec, parts, models, country=country, clock=time.monotonic)
        errors = _errors_before(selection, parts, spec)
    with place.mlflow_run(country) as run:
        run.log(_params(spec, selection, parts), {})
        run.log_texts(_made_from(spec, selection, errors))
        version = _register(run, country, selection, parts, features=features, pooled=pooled)
        with place.clock.part("judging"):
            judged = _judge(spec, selection, parts, errors, models=models)
            decision = decide(spec, judged.evidence, judged.gates, _pair(version, selection))
            facts = _facts(
                run, country, spec, selection, parts=parts, version=version, judged=judged
            )
            texts = {**_artifacts(facts, decision), "gates.json": _gates(judged.gates)}
            reference = _reference(spec, selection, parts, judged)
        _tell(run, facts, selection, version, decision=decision, texts=texts, reference=reference)
    _store(place, country, facts, decision)
    number = version.version if version else ""
    return Trained(spec, selection, parts, errors, judged, number, decision, reference)


def scale_feature(selection: Selection, spec: ProductSpec) -> str | None:
    """The feature by which the errors of the choice grow."""
    return next((each.scale for each in spec.candidates if each.name == selection.name), None)


def _errors_before(selection: Selection, parts: Split, spec: ProductSpec) -> pd.DataFrame:
    units = scale_of(parts.validation, scale_feature(selection, spec))
    if len(selection.validated) != len(parts.validation):
        return pd.DataFrame(columns=list(HISTORY_COLUMNS))
    return residual_history(parts.validation, selection.validated, units)


def _params(spec: ProductSpec, selection: Selection, parts: Split) -> dict[str, Any]:
    return {
        "kind": selection.kind,
        "candidate": selection.name,
        **{f"param.{name}": value for name, value in selection.params.items()},
        "seed": spec.seed,
        "train_rows": len(rows_served(spec, parts)),
        "judged_train_rows": len(parts.final),
        "validation_rows": len(parts.validation),
        "holdout_rows": len(parts.holdout),
        "reason": selection.reason,
    }


def _made_from(spec: ProductSpec, selection: Selection, errors: pd.DataFrame) -> dict[str, str]:
    trials = selection.trials
    return {
        "config.json": json.dumps(spec.model_dump(mode="json"), indent=1),
        "residuals.csv": errors.to_csv(index=False),
        **({"trials.csv": trials.to_csv(index=False)} if len(trials) else {}),
    }


def _register(
    run: Run,
    country: str,
    selection: Selection,
    parts: Split,
    *,
    features: pd.DataFrame,
    pooled: Mapping[str, InUse],
) -> ModelVersion | None:
    served, judged = selection.served, selection.model
    if served is None or judged is None:
        return None
    if selection.pooled_name:
        stored = pooled[selection.pooled_name].stored
    else:
        stored = run.log_model(served.estimator, *_example(served, features))
        if judged is not served:
            run.log_model(judged.estimator, *_example(judged, features), name="judged")
    known = newest_label(parts.known)
    tags = {**_tags(served), "reason": selection.reason, "known_until": str(known)}
    return run.register(country, stored, selection.kind, tags)


def _judge(
    spec: ProductSpec,
    selection: Selection,
    parts: Split,
    errors: pd.DataFrame,
    *,
    models: Mapping[str, PooledModel],
) -> Judgement:
    holdout = parts.holdout
    predicted = selected_predictions(selection, spec, holdout, parts.final)
    around = intervals_around(errors, holdout, predicted, scale_feature(selection, spec), spec=spec)
    usable, footprint = _tried(spec, selection, holdout)
    stand_in = models.get(selection.pooled_name)
    return judge(
        spec,
        holdout,
        selection.model,
        predicted,
        train=parts.final,
        low=around.low,
        high=around.high,
        stand_in=stand_in.report if stand_in else None,
        usable=usable,
        footprint=footprint,
        reason=selection.reason,
    )


def _tried(
    spec: ProductSpec, selection: Selection, holdout: pd.DataFrame
) -> tuple[tuple[GateResult, ...], Footprint | None]:
    """The model in memory, timed once: a script does not load it in a process of its own."""
    if selection.served is None:
        return (), None
    rows = holdout.head(_TRIED_ROWS)
    began = time.perf_counter()
    predict(selection.served, rows, spec.task)
    seconds = time.perf_counter() - began
    footprint = Footprint(0, 0.0, 0.0, len(rows), 1000 * seconds)
    loads = gates.loads_and_predicts(same_in_isolated_process=True, batch_equals_rows=True)
    return (loads, gates.latency_and_size(footprint, spec)), footprint


def _pair(version: ModelVersion | None, selection: Selection) -> ModelPair:
    until = selection.served.until if selection.served else None
    return ModelPair(candidate=version.version if version else "", candidate_until=until)


def _facts(
    run: Run,
    country: str,
    spec: ProductSpec,
    selection: Selection,
    *,
    parts: Split,
    version: ModelVersion | None,
    judged: Judgement,
) -> CardFacts:
    chosen = {each.name: each for each in spec.candidates}.get(selection.name)
    return CardFacts(
        product=run.place.product.name,
        country=country,
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
        made=_learned_from(run, spec, selection, parts),
        report=judged.report,
        gates=judged.gates,
        evidence=judged.evidence,
        notes=inspect.getdoc(run.place.product.feature_function()) or "",
    )


def _learned_from(run: Run, spec: ProductSpec, selection: Selection, parts: Split) -> MadeFrom:
    learned = rows_served(spec, parts)["event_time"]
    judged, times = selection.model, parts.final["event_time"]
    twin = judged is not None and judged is not selection.served
    return MadeFrom(
        rows=selection.served.rows if selection.served else len(parts.final),
        first=learned.min() if len(learned) else None,
        last=learned.max() if len(learned) else None,
        holdout_from=parts.holdout_from,
        judged=Learned(judged.rows, times.min(), times.max()) if twin and judged else None,
        facts={"MLflow run": run.run_id},
    )


def _artifacts(facts: CardFacts, decision: Decision) -> dict[str, str]:
    """Card, report, tables and plots, as the platform's `evaluation_page.artifacts`."""
    found = tables.of_report(facts.report, facts.gates, facts.spec)
    return {
        "model_card.md": with_decision(card(facts), decision, facts.spec),
        "report.json": _report(facts.report),
        **tables.csv_files({**found, "tried": facts.chosen.tried}),
        **{f"{name}.svg": image for name, image in _plots(facts).items()},
    }


def _plots(facts: CardFacts) -> dict[str, str]:
    report, spec = facts.report, facts.spec
    unit = tables.metric_unit(spec)
    drawn = {"error_by_month": plots.error_by_month(report.by_month, report.metric, unit)}
    if len(facts.evidence):
        drawn["forecast_against_actual"] = forecast_plot(facts.evidence, spec)
    if gains := known_gains(report):
        drawn["gains"] = plots.gains(gains, gain_unit(spec), limits=gain_limits(spec))
    if len(report.slices):
        drawn["slices"] = plots.slices(report.slices, report.metric, unit)
    if len(report.importance):
        drawn["importance"] = plots.importance(report.importance, report.metric, unit)
    return drawn


def _reference(
    spec: ProductSpec, selection: Selection, parts: Split, judged: Judgement
) -> Reference | None:
    if selection.served is None:
        return None
    rows = newest_rows(spec, rows_served(spec, parts))
    importance = judged.report.importance
    weights = dict(zip(importance["feature"], importance["importance"], strict=True))
    return make_reference(spec, rows, predict(selection.served, rows, spec.task), weights)


def _tell(
    run: Run,
    facts: CardFacts,
    selection: Selection,
    version: ModelVersion | None,
    *,
    decision: Decision,
    texts: Mapping[str, str],
    reference: Reference | None,
) -> None:
    """Everything a person may ask of the candidate, in MLflow; the alias last."""
    validation = {f"validation.{facts.spec.metric}": selection.value}
    run.log({}, {**tables.flat_metrics(facts.report), **validation})
    referred = {"reference.json": reference_to_json(reference)} if reference else {}
    run.log_texts({**texts, **referred})
    if version is None:
        return
    told = {"report": _report(facts.report), "verdict": decision.verdict}
    run.tag(version, {**told, "verdict_reason": decision.reason[:4000]})
    if decision.verdict == "promoted":
        run.promote(version)


def _store(place: Place, country: str, facts: CardFacts, decision: Decision) -> None:
    chosen, report = facts.chosen, facts.report
    row = {
        "kind": chosen.kind,
        "candidate": chosen.name,
        "version": chosen.version,
        "reason": chosen.reason,
        "value": report.value,
        "baseline_value": report.baseline_value,
        "gates": _gates(facts.gates),
    }
    place.write(pd.DataFrame([row]), "model", country)
    place.write(facts.evidence, "evidence", country)
    place.write(pd.DataFrame([asdict(decision)]), "champion", country)


def _example(model: FittedModel, rows: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows and their predictions for a model's signature."""
    inputs = rows[list(model.features)].head(_EXAMPLE_ROWS)
    typed = {
        name: inputs[name].astype("float64" if pd.api.types.is_numeric_dtype(kind) else str)
        for name, kind in inputs.dtypes.items()
    }
    return pd.DataFrame(typed), predict(model, inputs, model.task)


def _tags(model: FittedModel) -> dict[str, str]:
    return {
        "candidate": model.name,
        "train_rows": str(model.rows),
        "until": str(model.until),
        "params": json.dumps(dict(model.params)),
    }


def _report(report: Report) -> str:
    held = {
        "rows": report.rows,
        "value": report.value,
        "metrics": dict(report.metrics),
        "baselines": dict(report.baselines),
        "estimates": {name: asdict(each) for name, each in report.estimates.items()},
        "gain": asdict(report.gain),
    }
    return json.dumps(held, default=str)


def _gates(results: tuple[GateResult, ...] | Any) -> str:
    return json.dumps([asdict(each) for each in results], default=str)
