"""Models: each country's candidate with its gates; the pooled ones are in `pooled.py`."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import dagster as dg
import pandas as pd

from mlops_assets.errors import RegistryError
from mlops_assets.ml.gates.gates import GateResult, declared_gates, gates_from_json, gates_to_json
from mlops_assets.ml.training.selection import pooled_names, rows_served
from mlops_assets.product import Product
from mlops_assets.registry import MlflowRegistry, TrackedRun
from mlops_assets.registry.isolated.process import start_server
from mlops_assets.spec import GateName
from mlops_assets.stages.common.base import (
    EVIDENCE,
    NO_ROWS,
    Storage,
    asset_key,
    country_step,
    failed,
    gate,
    output,
    passed,
    warned,
)
from mlops_assets.stages.common.context import CountryContext
from mlops_assets.stages.common.lineage import (
    INPUTS,
    SERVING_BASELINE,
    Lineage,
    named_input,
    of_model,
)
from mlops_assets.stages.common.runs import leave_to_the_older
from mlops_assets.stages.common.ui_metadata import as_before, rounded
from mlops_assets.stages.training.candidate import Candidate, TrainingContext, train
from mlops_assets.stages.training.evaluation_metadata import candidate_metadata
from mlops_assets.stages.training.pooled import build_pooled
from mlops_assets.stages.training.serving import (
    evaluation_model,
    load_pooled,
    pooled_versions,
    report_numbers,
    scores_of_newest,
)
from mlops_assets.stages.training.training_record import record_now, run_tags
from mlops_assets.storage import Snapshot
from mlops_assets.storage.io_manager import Unchanged

_GATES: Mapping[GateName, str] = {
    "beats_baseline": "On the holdout the candidate is better than the best naive rule, for "
    "certain: by the lower end of the interval.",
    "above_floor": "On the holdout the candidate keeps the absolute limit of the YAML.",
    "slices": "In no declared slice is the candidate worse than the champion beyond the margin.",
    "fairness": "Declared groups are treated alike, as far as the YAML demands it.",
    "calibration": "Predicted probabilities are those observed, and no worse than the champion's.",
    "coverage": "As many labels are inside the prediction intervals as these promise.",
    "stability": "The candidate is better than the best naive rule in most months.",
    "behaviour": "The candidate behaves as the product's behavioural tests say.",
    "within_range": "Of the predictions on the holdout, and of those it would make next, no more "
    "are beyond the range of the YAML than `predictions` takes.",
    "loads_and_predicts": "An isolated process loads the registered files and predicts the "
    "same, and "
    "row by row the same as all rows at once.",
    "latency_and_size": "The model loads and predicts in time, and is not too large.",
}
_GRAIN = (
    "One row: the country's candidate, the best of its local and the pooled models by validation "
    "on the country's own rows, with its evaluation on a holdout that no candidate saw."
)

StepEvents = Iterator[dg.Output | dg.AssetCheckResult]
Decide = Callable[[CountryContext, Snapshot, dg.DagsterRun], object]
"""Records what becomes of a candidate (its snapshot), in a run."""


def build_models(product: Product, decide: Decide) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """`pooled_model`, the pooled champion it leads to, and `model` with its gates.

    Args:
        product: whose.
        decide: called for a candidate that a gate is about to stop: the step that decides on the
            others does not run then.
    """
    pooled = bool(pooled_names(product.spec))
    return [
        *(build_pooled(product) if pooled else []),
        _model(product, pooled, decide),
    ]


def _model(product: Product, pooled: bool, decide: Decide) -> dg.AssetsDefinition:
    key = asset_key(product, "model")

    @dg.multi_asset(
        **country_step(product, "model"),
        deps=[
            asset_key(product, "features"),
            *([asset_key(product, "pooled_champion")] if pooled else []),
        ],
        outs={
            "model": output(
                product, "model", "models", {"scikitlearn", "mlflow"}, description=_GRAIN
            )
        },
        check_specs=[
            gate(product, "model", name, _GATES[name]) for name in declared_gates(product.spec)
        ],
    )
    def model(
        context: dg.AssetExecutionContext, storage: Storage, mlflow: MlflowRegistry
    ) -> StepEvents:
        leave_to_the_older(context)
        ctx = storage.product(product, mlflow.registry()).country(context.partition_key)
        if ctx.has_nothing_to_predict:  # without an output, no step after this one runs
            yield from (warned(key, name, NO_ROWS) for name in declared_gates(product.spec))
            return
        versions = pooled_versions(ctx.whole, ctx.country)
        lineage = of_model(ctx, {name: each.version for name, each in versions.items()})
        held = _made_before(ctx, lineage)
        if held is not None:
            yield dg.Output(Unchanged(held[0]), "model", metadata=as_before(context, key))
            yield from _gate_results(key, gates_from_json(held[1]))
            return
        candidate, run = _trained(ctx, lineage, storage, mlflow)
        frame = _frame(ctx, candidate, run, lineage, run_id=context.run.run_id)
        metadata = {
            **candidate_metadata(candidate.facts),
            "mlflow_run": dg.MetadataValue.url(run.url),
            **_baseline(ctx, candidate),
            "config": dg.MetadataValue.json(ctx.spec.model_dump(mode="json")),
            **lineage.metadata(),
        }
        yield dg.Output(frame, "model", metadata=metadata)
        if any(result.passed is False for result in candidate.judged.gates):
            # The gate about to fail stops the step that decides.
            made = ctx.current("model")
            assert made is not None
            decide(ctx, made, context.run)
        yield from _gate_results(key, candidate.judged.gates)

    return model


def _trained(
    ctx: CountryContext, lineage: Lineage, storage: Storage, mlflow: MlflowRegistry
) -> tuple[Candidate, TrackedRun]:
    versions = pooled_versions(ctx.whole, ctx.country)
    start_server()  # its imports go on while this process trains
    source = named_input(ctx, lineage, "features")
    record = record_now(
        ctx.product, ctx.country, {ctx.country: source}, versions, as_of=storage.moment
    )
    features = ctx.store.read(source.asset, ctx.country, version=source.version)
    with mlflow.training_run(ctx.product.name, ctx.country, run_tags(record, lineage)) as run:
        pooled = load_pooled(ctx.spec, versions, ctx.registry)
        scores = None if pooled else scores_of_newest(ctx.whole)
        training = TrainingContext(ctx, record, run, pooled, versions, scores)
        return train(training, features), run


def _made_before(ctx: CountryContext, lineage: Lineage) -> tuple[Snapshot, str] | None:
    """The candidate made from the very same, and its gates; None if its files are not usable."""
    made = ctx.current("model")
    if made is None or not lineage.already_made(made):
        return None
    held = ctx.store.read(ctx.path("model"), ctx.country).iloc[0]
    if held["version"]:
        try:
            version = ctx.version(held["version"])
            ctx.registry.load(version)
            ctx.registry.require_intact(evaluation_model(version))
        except RegistryError:
            return None  # lost or damaged: training again repairs it
    return made, str(held["gates"])


def _gate_results(key: dg.AssetKey, gates: Sequence[GateResult]) -> Iterator[dg.AssetCheckResult]:
    for result in gates:
        tell = {True: passed, False: failed, None: warned}[result.passed]
        numbers = {"value": result.value, "limit": result.limit, **result.numbers}
        known = {name: rounded(value) for name, value in numbers.items() if value == value}
        yield tell(key, result.name, result.description, known)


def _frame(
    ctx: CountryContext, candidate: Candidate, run: TrackedRun, lineage: Lineage, *, run_id: str
) -> pd.DataFrame:
    """The row of the candidate; the evidence it names is stored first."""
    selection, report = candidate.selection, candidate.judged.report
    return pd.DataFrame(
        [
            {
                "kind": selection.kind,
                "candidate": selection.name,
                "version": candidate.model_pair.candidate,
                "reason": selection.reason,
                "train_rows": len(rows_served(ctx.spec, candidate.parts)),
                "validation_value": selection.value,
                **report_numbers(report),
                "holdout_from": str(report.first),
                "holdout_to": str(report.last),
                "gates": gates_to_json(candidate.judged.gates),
                "champion_version": candidate.model_pair.champion,
                "model_pair": candidate.model_pair.to_json(),
                EVIDENCE: _stored_evidence(ctx, candidate, lineage, run_id),
                "mlflow_run_id": run.run_id,
                "config_hash": ctx.spec.config_hash(),
            }
        ]
    )


def _baseline(ctx: CountryContext, candidate: Candidate) -> dict[str, dg.MetadataValue]:
    """What serves as long as no model does, which only differs where there are several."""
    if len(ctx.spec.baselines) == 1:
        return {}
    chosen = candidate.selection.baseline
    return {SERVING_BASELINE: dg.MetadataValue.json({"name": chosen.name, "reason": chosen.reason})}


def _stored_evidence(
    ctx: CountryContext, candidate: Candidate, lineage: Lineage, run_id: str
) -> str:
    made_from = {
        "features": lineage.inputs["features"],
        "candidate": candidate.model_pair.candidate,
        "champion": candidate.model_pair.champion,
    }
    written = ctx.store.write(
        ctx.path(EVIDENCE),
        ctx.country,
        candidate.judged.evidence,
        run_id=run_id,
        metadata={INPUTS: made_from},
    )
    return written.snapshot.content_hash
