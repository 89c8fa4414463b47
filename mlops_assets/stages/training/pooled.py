"""The pooled models: one model of many countries, stored and registered beside theirs."""

import datetime as dt
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pandas as pd

from mlops_assets.ml.evaluation.behaviour import behaved_to_json
from mlops_assets.ml.gates.gates import beats_baseline
from mlops_assets.ml.training.admission import Admission, admit
from mlops_assets.ml.training.pooled_scores import scores_to_json
from mlops_assets.ml.training.selection import PooledModel, train_pooled
from mlops_assets.product import Product
from mlops_assets.registry import MlflowRegistry, ModelVersion, Registry, TrackedRun
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.common.base import (
    Storage,
    about,
    asset_key,
    failed,
    output,
    passed,
    warned,
)
from mlops_assets.stages.common.clock import dated
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.common.lineage import of_pooled_model
from mlops_assets.stages.common.readable import (
    Readable,
    read_readable,
    readable_again,
    unread_metadata,
)
from mlops_assets.stages.common.runs import leave_to_the_older
from mlops_assets.stages.common.ui_metadata import as_before, table_metadata
from mlops_assets.stages.training.serving import (
    BEHAVED,
    KNOWN_UNTIL,
    SCORES,
    VALIDATION_DIGEST,
    VALIDATION_URI,
    evaluation_model_tags,
    model_example,
    model_tags,
    pooled_key,
    report_numbers,
    report_to_json,
)
from mlops_assets.stages.training.succession import keep_comparisons
from mlops_assets.stages.training.training_record import (
    TrainingRecord,
    record_now,
    run_tags,
    trials_file,
)
from mlops_assets.storage import Snapshot
from mlops_assets.storage.io_manager import METADATA_PREFIX, Unchanged

_GATE = (
    "On the holdout of all its countries at least one pooled model significantly beats the best "
    "naive "
    "rule: by the lower end of the interval of its gain. Those that do not are not put into use."
)
_ALL = "all_countries"
_ALL_DESCRIPTION = (
    "The rows of every country are in the pooled models. One whose rows do not fit the others, or "
    "cannot be read, is left out with the reason, and the others go on."
)
_LEFT_OUT = f"{METADATA_PREFIX}left_out"
POOLED_DATED = f"{METADATA_PREFIX}dated"
"""In a snapshot's metadata: when it was trained, by the clock of `retraining.clock`; "" or missing
by the time of day."""
_GRAIN = (
    "One row is a pooled candidate: a model of the rows of all countries together. It serves the "
    "countries where it is better than their own model, or where they have too few rows."
)
_CHAMPION = (
    "The pooled model now in use, as the model registry names it. Countries read it from there, so "
    "that a failure in one of them never keeps the others from training."
)

StepEvents = Iterator[dg.Output | dg.AssetCheckResult]


@dataclass(frozen=True)
class _Features:
    """Features by country, and exactly the snapshots they are from.

    Attributes:
        snapshots: by country.
        frames: of these that have rows, without those of damaged files.
        damaged: country: why its features cannot be read.
    """

    snapshots: Mapping[str, Snapshot]
    frames: Mapping[str, pd.DataFrame]
    damaged: Mapping[str, str]


def build_pooled(product: Product) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """`pooled_model` with its gate, and the pooled champion it leads to."""
    return [_pooled_model(product), _pooled_champion(product)]


def _pooled_champion(product: Product) -> dg.AssetSpec:
    return dg.AssetSpec(
        asset_key(product, "pooled_champion"),
        deps=[asset_key(product, "pooled_model")],
        **about(product, "models", {"mlflow"}, _CHAMPION),
    )


def _pooled_model(product: Product) -> dg.AssetsDefinition:
    key = asset_key(product, "pooled_model")

    @dg.multi_asset(
        name=f"{product.name}__pooled_model",
        deps=[asset_key(product, "features")],
        outs={
            "pooled_model": output(
                product, "pooled_model", "models", {"scikitlearn", "mlflow"}, description=_GRAIN
            )
        },
        check_specs=[
            dg.AssetCheckSpec("beats_baseline", asset=key, blocking=True, description=_GATE),
            dg.AssetCheckSpec(_ALL, asset=key, description=_ALL_DESCRIPTION),
        ],
    )
    def pooled_model(
        context: dg.AssetExecutionContext, storage: Storage, mlflow: MlflowRegistry
    ) -> StepEvents:
        leave_to_the_older(context)
        ctx = storage.product(product, mlflow.registry())
        countries = _features_now(ctx).found
        lineage = of_pooled_model(ctx, countries)
        made = ctx.current("pooled_model")
        is_same = made is not None and lineage.already_made(made)
        if made is not None and is_same and not readable_again(ctx, made, "features"):
            yield dg.Output(Unchanged(made), "pooled_model", metadata=as_before(context, key))
            yield passed(key, "beats_baseline", "nothing new to train on")
            yield _all_countries(key, made.metadata.get(_LEFT_OUT, ""))
            return
        if not any(each.rows for each in countries.values()):
            raise dg.Failure(
                f"{product.name}: no country has a row of features yet. Nothing was trained; "
                "materialize `features` of the countries first."
            )
        yield from _train_pooled(ctx, storage, mlflow)

    return pooled_model


def _train_pooled(ctx: ProductContext, storage: Storage, mlflow: MlflowRegistry) -> StepEvents:
    product, source = ctx.product, _features_of_all(ctx)
    admission = admit(product.spec, source.frames)
    key, left_out = asset_key(product, "pooled_model"), _left_out(source, admission)
    lineage = of_pooled_model(ctx, source.snapshots)
    read = {country: source.snapshots[country] for country in source.frames}
    record = record_now(product, "", read, {}, as_of=storage.moment)
    models = train_pooled(product.spec, source.frames, clock=time.monotonic, admission=admission)
    sample = admission.sample
    with mlflow.training_run(product.name, "pooled", run_tags(record, lineage)) as run:
        run.log_texts({**record.texts(), **trials_file(_trials(models))})
        versions = {
            name: _register_pooled(product, run, ctx.registry, model, sample=sample, record=record)
            for name, model in models.items()
        }
        _put_into_use(ctx, run, models, versions, source=source)
    frame = pd.DataFrame([_row(models[name], each) for name, each in versions.items()])
    shown = {
        "candidates": table_metadata(frame.drop(columns=SCORES, errors="ignore")),
        "mlflow_run": dg.MetadataValue.url(run.url),
        POOLED_DATED: dated(ctx, dt.datetime.now(dt.UTC)),
    }
    if left_out:
        shown |= {
            "left_out": dg.MetadataValue.json(left_out),
            _LEFT_OUT: "; ".join(left_out),
            **unread_metadata(source.damaged),
        }
    yield dg.Output(frame, "pooled_model", metadata={**shown, **lineage.metadata()})
    yield _pooled_gate(key, product.spec, models)
    yield _all_countries(key, "; ".join(left_out))


def _left_out(source: _Features, admission: Admission) -> list[str]:
    """Each country whose part is not in the pooled models, with the reason."""
    damaged = [
        f"{country}: all rows, since {problem.rstrip('.')}"
        for country, problem in source.damaged.items()
    ]
    return [*damaged, *map(str, admission.left_out)]


def _all_countries(key: dg.AssetKey, left_out: str) -> dg.AssetCheckResult:
    if not left_out:
        return passed(key, _ALL, "no country is left out")
    return warned(key, _ALL, f"left out are {left_out}. The other countries are trained on as ever")


def _trials(models: Mapping[str, PooledModel]) -> pd.DataFrame:
    """The trials of every search under each other."""
    tables = [
        pd.concat({name: model.trials}, names=["model"]).reset_index("model")
        for name, model in models.items()
        if len(model.trials)
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _features_now(ctx: ProductContext) -> Readable[dict[str, Snapshot]]:
    return read_readable(ctx.countries, lambda wanted: ctx.current_all("features", wanted))


def _features_of_all(ctx: ProductContext) -> _Features:
    now = _features_now(ctx)
    while True:  # until no other run wrote while this one read
        read = read_readable(
            list(now.found), lambda wanted: ctx.store.read_all(ctx.path("features"), wanted)
        )
        before, now = now, _features_now(ctx)
        if _versions(before.found) == _versions(now.found):
            break
    damaged = {**now.damaged, **read.damaged}
    having = {country: frame for country, frame in read.found.items() if len(frame)}
    if not having:
        raise dg.Failure(
            f"{ctx.product.name}: the features of no country can be read: "
            f"{'; '.join(damaged.values())} Nothing was trained; the pooled champion so far stays."
        )
    return _Features(now.found, having, damaged)


def _versions(snapshots: Mapping[str, Snapshot]) -> dict[str, str]:
    return {country: snapshot.version for country, snapshot in snapshots.items()}


def _register_pooled(
    product: Product,
    run: TrackedRun,
    registry: Registry,
    model: PooledModel,
    *,
    sample: pd.DataFrame,
    record: TrainingRecord,
) -> ModelVersion:
    """Log its fits and register the one that serves.

    All are of the same procedure and parameters: one for validation, one for the holdout, one to
    serve.
    """
    name, report = model.name, model.report
    served = run.log_model(model.served.estimator, *model_example(model.served, sample))
    twin = run.log_model(
        model.for_validation.estimator,
        *model_example(model.for_validation, sample),
        name="validation",
    )
    run.log(
        {
            f"{name}.train_rows": model.served.rows,
            "config_hash": record.config_hash,
            **{f"{name}.param.{key}": value for key, value in model.params.items()},
        },
        {f"{name}.{metric}": value for metric, value in report.metrics.items()},
    )
    tags = {
        **record.tags(),
        **model_tags(model.served, model.candidate, model.region),
        "report": report_to_json(report),
        SCORES: scores_to_json(model.scores),
        BEHAVED: behaved_to_json(model.behaved),
        VALIDATION_URI: twin.uri,
        VALIDATION_DIGEST: twin.digest,
        **_judged(run, model, sample),
        **({KNOWN_UNTIL: model.known_until.isoformat()} if model.known_until is not None else {}),
    }
    return registry.register(
        product.name,
        pooled_key(name),
        served,
        run_id=run.run_id,
        kind="region" if model.region else "pooled",
        tags=tags,
    )


def _put_into_use(
    ctx: ProductContext,
    run: TrackedRun,
    models: Mapping[str, PooledModel],
    versions: Mapping[str, ModelVersion],
    *,
    source: _Features,
) -> None:
    """Offer to the countries those that beat the baseline, once they are compared with others."""
    good = {
        name: model
        for name, model in models.items()
        if beats_baseline(model.report, ctx.spec).passed
    }
    keep_comparisons(
        ctx,
        run,
        good,
        {name: versions[name] for name in good},
        frames=source.frames,
        made_from={name: each.content_hash for name, each in source.snapshots.items()},
    )
    for name in good:
        ctx.registry.promote(versions[name])


def _row(model: PooledModel, version: ModelVersion) -> dict[str, Any]:
    return {
        "candidate": model.candidate,
        "region": model.region,
        "version": version.version,
        "params": json.dumps(dict(model.params)),
        "trials": len(model.trials),
        "train_rows": model.served.rows,
        **report_numbers(model.report),
        SCORES: scores_to_json(model.scores),
    }


def _judged(run: TrackedRun, model: PooledModel, sample: pd.DataFrame) -> dict[str, str]:
    """Tags about the evaluation model, stored beside the model where another one serves."""
    if model.final is model.served:
        return {}
    twin = run.log_model(model.final.estimator, *model_example(model.final, sample), name="judged")
    return evaluation_model_tags(twin, model.final)


def _of_countries(model: PooledModel) -> str:
    return f"of region {model.region}" if model.region else "of all countries"


def _pooled_gate(
    key: dg.AssetKey, spec: ProductSpec, models: Mapping[str, PooledModel]
) -> dg.AssetCheckResult:
    results = [
        beats_baseline(model.report, spec, whose=_of_countries(model)) for model in models.values()
    ]
    text = "; ".join(
        f"{name}: {result.description}" for name, result in zip(models, results, strict=True)
    )
    if any(result.passed for result in results):
        return passed(key, "beats_baseline", text)
    return failed(key, "beats_baseline", f"{text}. The pooled champion so far stays in use.")
