"""Models: the pooled model of all countries, and each country's candidate with its gates."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from mlops_assets.errors import RegistryError
from mlops_assets.ml.decision import decide
from mlops_assets.ml.evaluation import Report, evaluate
from mlops_assets.ml.gates import GateResult, above_floor, beats_baseline
from mlops_assets.ml.models import predict
from mlops_assets.ml.plots import error_by_month, forecast_against_actual, reliability
from mlops_assets.ml.selection import (
    PooledModel,
    Selection,
    selected_predictions,
    train_candidates,
    train_pooled,
)
from mlops_assets.ml.split import Split, split
from mlops_assets.product import Product
from mlops_assets.registry import MlflowRegistry, ModelVersion, Registry, TrackedRun
from mlops_assets.registry.models import registered_name
from mlops_assets.spec import GREATER_IS_BETTER, ProductSpec
from mlops_assets.stages.base import (
    Storage,
    about,
    asset_key,
    country_step,
    failed,
    gate,
    output,
    passed,
    path,
    warned,
)
from mlops_assets.stages.decisions import Comparison, gates_from_json, gates_to_json
from mlops_assets.stages.decisions import record as record_decision
from mlops_assets.stages.lineage import Lineage, named_input, of_model, of_pooled_model
from mlops_assets.stages.pages import as_before, facts, rounded, svg, table
from mlops_assets.stages.serving import (
    VALIDATION_DIGEST,
    VALIDATION_URI,
    example,
    fitted,
    load_pooled,
    logged,
    pooled_key,
    pooled_versions,
    report_to_json,
)
from mlops_assets.stages.training_record import TrainingRecord, record_now
from mlops_assets.storage import Snapshot, SnapshotStore
from mlops_assets.storage.io_manager import Unchanged

_GATES = {
    "beats_baseline": "On the holdout the candidate beats the best naive rule.",
    "above_floor": "On the holdout the candidate keeps the absolute limit of the YAML.",
    "loads_and_predicts": "The registered files load and predict the same, in time.",
}
_POOLED_GRAIN = (
    "One row is a pooled candidate: a model of the rows of all countries together. It serves the "
    "countries where it is better than their own model, or where they have too few rows."
)
_POOLED_CHAMPION = (
    "The pooled model now in use, as the model registry names it. Countries read it from there, so "
    "that a failure in one of them never keeps the others from training."
)
_MODEL_GRAIN = (
    "One row: the country's candidate, the best of its local and the pooled models by validation "
    "on the country's own rows, with its evaluation on a holdout that no candidate saw."
)
_PLOTTED_ROWS = 120
_TIMED_ROWS = 100
_TIMED_RUNS = 3

StepEvents = Iterator[dg.Output | dg.AssetCheckResult]


@dataclass(frozen=True)
class Candidate:
    """A trained and judged candidate of one country."""

    selection: Selection
    report: Report
    gates: Sequence[GateResult]
    version: ModelVersion | None
    parts: Split
    holdout_predictions: np.ndarray


@dataclass(frozen=True)
class _Features:
    """Features by country, and exactly the snapshots they are from."""

    snapshots: Mapping[str, Snapshot]
    frames: Mapping[str, pd.DataFrame]


def build_models(product: Product) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """`pooled_model`, the pooled champion it leads to, and `model` with its gates."""
    pooled = any("pooled" in candidate.scopes for candidate in product.spec.candidates)
    return [
        *([_pooled_model(product), _pooled_champion(product)] if pooled else []),
        _model(product, pooled),
    ]


def _pooled_champion(product: Product) -> dg.AssetSpec:
    return dg.AssetSpec(
        asset_key(product, "pooled_champion"),
        deps=[asset_key(product, "pooled_model")],
        **about(product, "models", {"mlflow"}, _POOLED_CHAMPION),
    )


def _pooled_model(product: Product) -> dg.AssetsDefinition:
    key = asset_key(product, "pooled_model")

    @dg.multi_asset(
        name=f"{product.name}__pooled_model",
        deps=[asset_key(product, "features")],
        outs={
            "pooled_model": output(
                product, "pooled_model", "models", {"scikitlearn", "mlflow"}, _POOLED_GRAIN
            )
        },
        check_specs=[
            dg.AssetCheckSpec(
                "beats_baseline", asset=key, blocking=True, description=_GATES["beats_baseline"]
            )
        ],
    )
    def pooled_model(
        context: dg.AssetExecutionContext, storage: Storage, mlflow: MlflowRegistry
    ) -> StepEvents:
        store = storage.store()
        countries = store.current_all(path(product, "features"), list(product.spec.countries))
        lineage = of_pooled_model(product, countries)
        made = store.current(path(product, "pooled_model"), None)
        if made is not None and lineage.already_made(made):
            yield dg.Output(Unchanged(made), "pooled_model", metadata=as_before(context, key))
            yield passed(key, "beats_baseline", "nothing new to train on")
            return
        if not countries:
            raise dg.Failure(
                f"{product.name}: no country has features yet. Nothing was trained; materialize "
                "`features` of the countries first."
            )
        yield from _train_pooled(product, storage, mlflow)

    return pooled_model


def _train_pooled(product: Product, storage: Storage, mlflow: MlflowRegistry) -> StepEvents:
    source = _features_of_all(product, storage.store())
    lineage = of_pooled_model(product, source.snapshots)
    record = record_now(product, "", source.snapshots, {}, storage.moment)
    models = train_pooled(product.spec, source.frames)
    sample = next(iter(source.frames.values()))
    with mlflow.training_run(product.name, "pooled", _tags(record, lineage)) as run:
        run.log_texts(record.texts())
        frame = pd.DataFrame(
            [
                _register_pooled(product, run, mlflow.registry(), model, sample, record)
                for model in models.values()
            ]
        )
    shown = {"candidates": table(frame), "mlflow_run": dg.MetadataValue.url(run.url)}
    yield dg.Output(frame, "pooled_model", metadata={**shown, **lineage.metadata()})
    yield _pooled_gate(asset_key(product, "pooled_model"), product.spec, models)


def _features_of_all(product: Product, store: SnapshotStore) -> _Features:
    asset, listed = path(product, "features"), list(product.spec.countries)
    snapshots = store.current_all(asset, listed)
    while True:  # until no other run wrote while this one read
        frames = store.read_all(asset, listed)
        before, snapshots = snapshots, store.current_all(asset, listed)
        if _versions(before) == _versions(snapshots):
            return _Features(snapshots, frames)


def _versions(snapshots: Mapping[str, Snapshot]) -> dict[str, str]:
    return {country: snapshot.version for country, snapshot in snapshots.items()}


def _register_pooled(
    product: Product,
    run: TrackedRun,
    registry: Registry,
    model: PooledModel,
    sample: pd.DataFrame,
    record: TrainingRecord,
) -> dict[str, Any]:
    """Log both fits, register the one that serves, promote it if it beats the baseline."""
    name, report = model.candidate, model.report
    final = run.log_model(model.final.estimator, *example(model.final, sample))
    twin = run.log_model(
        model.for_validation.estimator, *example(model.for_validation, sample), name="validation"
    )
    run.log(
        {f"{name}.train_rows": model.final.rows, "config_hash": record.config_hash},
        {f"{name}.{metric}": value for metric, value in report.metrics.items()},
    )
    candidate = next(each for each in product.spec.candidates if each.name == name)
    tags = {
        **record.tags(),
        "candidate": name,
        "report": report_to_json(report),
        "train_rows": str(model.final.rows),
        VALIDATION_URI: twin.uri,
        VALIDATION_DIGEST: twin.digest,
    }
    version = registry.register(
        product.name, pooled_key(candidate), final, run_id=run.run_id, kind="pooled", tags=tags
    )
    if beats_baseline(report, product.spec).passed:
        registry.promote(version)
    return {
        "candidate": name,
        "version": version.version,
        "train_rows": model.final.rows,
        **_numbers(report),
    }


def _pooled_gate(
    key: dg.AssetKey, spec: ProductSpec, models: Mapping[str, PooledModel]
) -> dg.AssetCheckResult:
    results = [beats_baseline(model.report, spec) for model in models.values()]
    text = "; ".join(
        f"{name}: {result.description}" for name, result in zip(models, results, strict=True)
    )
    if any(result.passed for result in results):
        return passed(key, "beats_baseline", text)
    return failed(key, "beats_baseline", f"{text}. The pooled champion so far stays in use.")


def _model(product: Product, pooled: bool) -> dg.AssetsDefinition:
    key = asset_key(product, "model")

    @dg.multi_asset(
        **country_step(product, "model"),
        deps=[
            asset_key(product, "features"),
            *([asset_key(product, "pooled_champion")] if pooled else []),
        ],
        outs={"model": output(product, "model", "models", {"scikitlearn", "mlflow"}, _MODEL_GRAIN)},
        check_specs=[gate(product, "model", name, text) for name, text in _GATES.items()],
    )
    def model(
        context: dg.AssetExecutionContext, storage: Storage, mlflow: MlflowRegistry
    ) -> StepEvents:
        country = context.partition_key
        spec, store, registry = product.resolved(country), storage.store(), mlflow.registry()
        versions = pooled_versions(product, registry)
        lineage = of_model(product, country, store, versions)
        held = _made_before(product, country, store, lineage, registry)
        if held is not None:
            yield dg.Output(Unchanged(held[0]), "model", metadata=as_before(context, key))
            yield from _gate_results(key, gates_from_json(held[1]))
            return
        source = named_input(product, country, store, lineage, "features")
        record = record_now(product, country, {country: source}, versions, storage.moment)
        features = store.read(source.asset, country, version=source.version)
        with mlflow.training_run(product.name, country, _tags(record, lineage)) as run:
            pooled_models = load_pooled(spec, versions, registry)
            candidate = _train(record, features, pooled_models, run, registry, versions)
        frame = _frame(spec, candidate, run)
        yield dg.Output(
            frame, "model", metadata={**_shown(spec, candidate, run), **lineage.metadata()}
        )
        if any(result.passed is False for result in candidate.gates):
            _keep_champion(product, record, candidate, registry, store, context.run.run_id)
        yield from _gate_results(key, candidate.gates)

    return model


def _made_before(
    product: Product, country: str, store: SnapshotStore, lineage: Lineage, registry: Registry
) -> tuple[Snapshot, str] | None:
    """The candidate made from the very same, and its gates; None if its files are not usable."""
    made = store.current(path(product, "model"), country)
    if made is None or not lineage.already_made(made):
        return None
    held = store.read(path(product, "model"), country).iloc[0]
    if held["version"]:
        try:
            registry.load(registry.version(registered_name(product.name, country), held["version"]))
        except RegistryError:
            return None  # lost or damaged: training again repairs it
    return made, str(held["gates"])


def _train(
    record: TrainingRecord,
    features: pd.DataFrame,
    pooled: Mapping[str, PooledModel],
    run: TrackedRun,
    registry: Registry,
    versions: Mapping[str, ModelVersion],
) -> Candidate:
    """Select, judge on the holdout, store and register the country's candidate."""
    spec = record.spec
    parts = split(features, spec.split)
    selection = train_candidates(spec, parts, pooled)
    predicted = selected_predictions(selection, spec, parts.holdout, parts.final)
    report = evaluate(parts.holdout, predicted, spec, parts.final)
    run.log(_params(spec, selection, parts), _metrics(selection, report))
    run.log_texts({**record.texts(), "report.json": report_to_json(report)})
    version = _register(record, selection, report, run, registry, versions, features)
    gates = _judge(spec, selection, report, pooled, version, registry, parts)
    run.log_texts({"gates.json": gates_to_json(gates)})
    return Candidate(selection, report, gates, version, parts, predicted)


def _register(
    record: TrainingRecord,
    selection: Selection,
    report: Report,
    run: TrackedRun,
    registry: Registry,
    pooled: Mapping[str, ModelVersion],
    features: pd.DataFrame,
) -> ModelVersion | None:
    """The candidate as a version of the country's registered model; None for a baseline."""
    if selection.model is None:
        return None
    if selection.kind == "pooled":
        stored = logged(pooled[selection.name])
    else:
        inputs = example(selection.model, features)
        stored = run.log_model(selection.model.estimator, *inputs)
    tags = {
        **record.tags(),
        "candidate": selection.name,
        "report": report_to_json(report),
        "train_rows": str(selection.model.rows),
        "interval_low": repr(selection.interval[0]),
        "interval_high": repr(selection.interval[1]),
        "holdout_from": record.spec.split.holdout_from.isoformat(),
        "reason": selection.reason,
        **(
            {"pooled_version": pooled[selection.name].version} if selection.kind == "pooled" else {}
        ),
    }
    return registry.register(
        record.product,
        record.country,
        stored,
        run_id=run.run_id,
        kind=selection.kind,
        tags=tags,
    )


def _judge(
    spec: ProductSpec,
    selection: Selection,
    report: Report,
    pooled: Mapping[str, PooledModel],
    version: ModelVersion | None,
    registry: Registry,
    parts: Split,
) -> list[GateResult]:
    if selection.model is None or version is None:
        return [
            GateResult(name, None, float("nan"), float("nan"), f"not judged: {selection.reason}")
            for name in _GATES
        ]
    stand_in = pooled[selection.name].report if selection.kind == "pooled" else None
    return [
        beats_baseline(report, spec, stand_in),
        above_floor(report, spec, stand_in),
        _loads_and_predicts(spec, selection, version, registry, parts),
    ]


def _loads_and_predicts(
    spec: ProductSpec,
    selection: Selection,
    version: ModelVersion,
    registry: Registry,
    parts: Split,
) -> GateResult:
    assert selection.model is not None
    name, limit = "loads_and_predicts", spec.gates.max_predict_seconds
    rows = (parts.holdout if len(parts.holdout) else parts.final).head(_TIMED_ROWS)
    try:
        timed = [_load_and_predict(spec, version, registry, rows) for _ in range(_TIMED_RUNS)]
    except RegistryError as error:
        return GateResult(name, False, float("nan"), limit, error.problem)
    again = timed[0][0]
    # The best of a few: the first one imports, and a busy machine is not the model's fault.
    seconds = min(each for _, each in timed)
    same = np.array_equal(again, predict(selection.model, rows, spec.task), equal_nan=True)
    outcome = "predicts the same" if same else "predicts something else than it did in training"
    text = (
        f"loaded and predicted {len(rows)} rows in {seconds:.3f} s (limit {limit:g} s), {outcome}"
    )
    return GateResult(name, bool(same and seconds <= limit), seconds, limit, text)


def _load_and_predict(
    spec: ProductSpec, version: ModelVersion, registry: Registry, rows: pd.DataFrame
) -> tuple[np.ndarray, float]:
    """Predictions of the registered files, and the seconds it took to load them and predict."""
    started = time.perf_counter()
    predictions = predict(fitted(version.name, version, spec, registry), rows, spec.task)
    return predictions, time.perf_counter() - started


def _keep_champion(
    product: Product,
    record: TrainingRecord,
    candidate: Candidate,
    registry: Registry,
    store: SnapshotStore,
    run_id: str,
) -> None:
    """Record why the champion stays: the gate about to fail stops the step that decides."""
    spec, country = record.spec, record.country
    champion = registry.champion(product.name, country)
    labels = candidate.parts.holdout["label"].to_numpy()
    comparison = Comparison(
        country=country,
        candidate=candidate.version.version if candidate.version else "",
        kind=candidate.selection.kind,
        champion=champion.version if champion else "",
        decision=decide(spec.metric, labels, candidate.holdout_predictions, None, candidate.gates),
        gates=candidate.gates,
        config_hash=record.config_hash,
        features=record.features[country].content_hash,
    )
    record_decision(product, store, comparison, run_id)


def _gate_results(key: dg.AssetKey, gates: Sequence[GateResult]) -> Iterator[dg.AssetCheckResult]:
    for result in gates:
        tell = {True: passed, False: failed, None: warned}[result.passed]
        numbers = {"value": rounded(result.value), "limit": rounded(result.limit)}
        shown = {name: value for name, value in numbers.items() if value == value}
        yield tell(key, result.name, result.description, shown)


def _frame(spec: ProductSpec, candidate: Candidate, run: TrackedRun) -> pd.DataFrame:
    selection, report = candidate.selection, candidate.report
    return pd.DataFrame(
        [
            {
                "kind": selection.kind,
                "candidate": selection.name,
                "version": candidate.version.version if candidate.version else "",
                "reason": selection.reason,
                "train_rows": len(candidate.parts.final),
                "validation_value": selection.value,
                **_numbers(report),
                "holdout_from": str(report.first),
                "holdout_to": str(report.last),
                "interval_low": selection.interval[0],
                "interval_high": selection.interval[1],
                "gates": gates_to_json(candidate.gates),
                "mlflow_run_id": run.run_id,
                "config_hash": spec.config_hash(),
            }
        ]
    )


def _numbers(report: Report) -> dict[str, Any]:
    return {
        "holdout_rows": report.rows,
        "metric": report.metric,
        "value": report.value,
        "baseline": report.best_baseline,
        "baseline_value": report.baseline_value,
        "improvement": report.improvement,
    }


def _params(spec: ProductSpec, selection: Selection, parts: Split) -> dict[str, Any]:
    chosen = {each.name: each for each in spec.candidates}.get(selection.name)
    settings = dict(chosen.params) if chosen else {}
    return {
        "kind": selection.kind,
        "candidate": selection.name,
        "estimator": chosen.estimator if chosen else "baseline",
        **{f"param.{name}": value for name, value in settings.items()},
        "seed": spec.seed,
        "train_rows": len(parts.final),
        "validation_rows": len(parts.validation),
        "holdout_rows": len(parts.holdout),
        "holdout_from": spec.split.holdout_from,
        "reason": selection.reason,
    }


def _metrics(selection: Selection, report: Report) -> dict[str, float]:
    return {
        **{f"holdout.{name}": value for name, value in report.metrics.items()},
        **{f"baseline.{name}": value for name, value in report.baselines.items()},
        f"validation.{report.metric}": selection.value,
        "improvement": report.improvement,
    }


def _tags(record: TrainingRecord, lineage: Lineage) -> dict[str, str]:
    """What leads from the MLflow run back to the code, config and snapshots it used."""
    return {
        **record.tags(),
        "product": record.product,
        "country": record.country or "pooled",
        "fingerprint": lineage.fingerprint,
        **{f"snapshot.{name}": value for name, value in lineage.inputs.items()},
    }


def _shown(spec: ProductSpec, candidate: Candidate, run: TrackedRun) -> dict[str, Any]:
    """What the asset's page shows of a candidate."""
    report, selection = candidate.report, candidate.selection
    tried = pd.DataFrame([vars(each) for each in selection.tried])
    tried = tried.rename(columns={"value": f"validation {report.metric}"})
    shown: dict[str, Any] = {
        "kind": selection.kind,
        "why_this_model": selection.reason,
        report.metric: rounded(report.value),
        f"baseline_{report.metric}": rounded(report.baseline_value),
        "evaluation": facts(_evaluation(spec, candidate)),
        "candidates_tried": table(tried),
        "error_by_month": svg(
            error_by_month(report.by_month, report.metric, _unit(spec)), "error by month"
        ),
        "mlflow_run": dg.MetadataValue.url(run.url),
        "config": dg.MetadataValue.json(spec.model_dump(mode="json")),
    }
    if report.reliability is not None:
        shown["reliability"] = svg(reliability(report.reliability), "reliability")
    elif len(candidate.parts.holdout):
        shown["forecast_against_actual"] = svg(
            _forecast_plot(spec, candidate), "forecast and actual"
        )
    return {name: value for name, value in shown.items() if value == value}


def _evaluation(spec: ProductSpec, candidate: Candidate) -> dict[str, object]:
    """How the candidate did on the holdout, with units, for people."""
    report, selection = candidate.report, candidate.selection
    unit = _unit(spec)
    low, high = selection.interval
    return {
        "candidate": f"{selection.name} ({selection.kind})",
        "registered version": candidate.version.version if candidate.version else None,
        "trained on": f"{len(candidate.parts.final):,} rows",
        "judged on": f"{report.rows:,} holdout rows, {_day(report.first)} to {_day(report.last)}",
        **{f"{name} ({unit})" if unit else name: v for name, v in report.metrics.items()},
        f"{report.metric} of baseline {report.best_baseline}": report.baseline_value,
        "improvement on it": _improvement(spec, report),
        f"validation {report.metric}": selection.value,
        f"{spec.predictions.interval:.0%} interval": None
        if low != low
        else f"{low:+.4g} to {high:+.4g} {spec.target.unit} around the prediction",
    }


def _unit(spec: ProductSpec) -> str:
    """Unit of the metric: that of the target for an error, none for a probability's."""
    return spec.target.unit if spec.task == "regression" else ""


def _improvement(spec: ProductSpec, report: Report) -> str | None:
    """A share of the baseline's error, or a difference where greater is better."""
    if report.improvement != report.improvement:
        return None
    relative = spec.metric not in GREATER_IS_BETTER
    return f"{report.improvement:+.1%}" if relative else f"{report.improvement:+.4g}"


def _day(time: pd.Timestamp | None) -> str:
    return str(time.date()) if time is not None else "-"


def _forecast_plot(spec: ProductSpec, candidate: Candidate) -> str:
    rows = candidate.parts.holdout.tail(_PLOTTED_ROWS)
    predicted = candidate.holdout_predictions[-len(rows) :]
    low, high = candidate.selection.interval
    return forecast_against_actual(
        rows["label_time"],
        rows["label"],
        predicted,
        predicted + low,
        predicted + high,
        unit=spec.target.unit,
    )
