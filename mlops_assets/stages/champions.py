"""Champions: the candidate against the model in use, the recorded decision, the alias."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from mlops_assets.errors import RegistryError, TrainingError
from mlops_assets.ml.decision import Decision, decide
from mlops_assets.ml.evaluation import baseline_predictions, evaluate
from mlops_assets.ml.gates import GateResult
from mlops_assets.ml.models import predict
from mlops_assets.ml.split import split
from mlops_assets.product import Product
from mlops_assets.registry import MlflowRegistry, ModelVersion, Registry
from mlops_assets.registry.models import registered_name
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.base import (
    Storage,
    asset_key,
    country_step,
    failed,
    gate,
    output,
    passed,
    path,
)
from mlops_assets.stages.decisions import Comparison, gates_from_json, record
from mlops_assets.stages.lineage import named_input, of_champion
from mlops_assets.stages.pages import as_before, facts
from mlops_assets.stages.serving import fitted, report_from_json
from mlops_assets.storage import SnapshotStore
from mlops_assets.storage.io_manager import Unchanged

_CHECK = "equals_registry_alias"
_CHECK_DESCRIPTION = "The champion alias of the model registry names this version, and it loads."
_GRAIN = (
    "One row: the model in use in the country, with the decision that compared the newest "
    "candidate with it on the same holdout rows."
)


def build_champions(product: Product) -> list[dg.AssetsDefinition]:
    """`champion` of a product with its check against the registry."""
    key = asset_key(product, "champion")

    @dg.multi_asset(
        **country_step(product, "champion"),
        deps=[asset_key(product, "model"), asset_key(product, "features")],
        outs={"champion": output(product, "champion", "models", {"mlflow"}, _GRAIN)},
        check_specs=[gate(product, "champion", _CHECK, _CHECK_DESCRIPTION)],
    )
    def champion(
        context: dg.AssetExecutionContext, storage: Storage, mlflow: MlflowRegistry
    ) -> Iterator[dg.Output | dg.AssetCheckResult]:
        country, store, registry = context.partition_key, storage.store(), mlflow.registry()
        lineage = of_champion(product, country, store)
        made = store.current(path(product, "champion"), country)
        in_use = registry.champion(product.name, country)
        version = in_use.version if in_use else ""
        if made is not None and lineage.already_made(made) and _serves(store, made, version):
            yield dg.Output(Unchanged(made), "champion", metadata=as_before(context, key))
            yield _equals_alias(key, product, country, version, registry)
            return
        model, features = (
            store.read(source.asset, country, version=source.version)
            for source in (
                named_input(product, country, store, lineage, name)
                for name in ("model", "features")
            )
        )
        comparison = _compare(product, country, model, features, in_use, store, registry)
        record(product, store, comparison, context.run.run_id)
        if comparison.decision.verdict == "promoted":
            name = registered_name(product.name, country)
            registry.promote(registry.version(name, comparison.candidate))
        frame = _frame(product, country, comparison, model, features, registry)
        shown = {**_shown(frame, comparison), **lineage.metadata()}
        yield dg.Output(frame, "champion", metadata=shown)
        yield _equals_alias(key, product, country, str(frame["version"].iloc[0]), registry)

    return [champion]


def _serves(store: SnapshotStore, made: Any, version: str) -> bool:
    held = store.read(made.asset, made.partition, columns=["version"])
    return str(held["version"].iloc[0]) == version


def _compare(
    product: Product,
    country: str,
    model: pd.DataFrame,
    features: pd.DataFrame,
    in_use: ModelVersion | None,
    store: SnapshotStore,
    registry: Registry,
) -> Comparison:
    spec, row = product.resolved(country), model.iloc[0]
    source = store.current(path(product, "features"), country)
    gates = gates_from_json(str(row["gates"]))
    return Comparison(
        country=country,
        candidate=str(row["version"]),
        kind=str(row["kind"]),
        champion=in_use.version if in_use else "",
        decision=_decide(product, country, row, features, in_use, gates, registry),
        gates=gates,
        config_hash=spec.config_hash(),
        features=source.content_hash if source else "",
    )


def _decide(
    product: Product,
    country: str,
    row: pd.Series,
    features: pd.DataFrame,
    in_use: ModelVersion | None,
    gates: list[GateResult],
    registry: Registry,
) -> Decision:
    spec = product.resolved(country)
    holdout = split(features, spec.split).holdout
    labels = holdout["label"].to_numpy()
    candidate, nan = str(row["version"]), float("nan")
    if not candidate:
        text = f"no model to compare: {row['reason']}"
        return Decision("not_judged", text, len(holdout), nan, nan)
    if in_use is not None and in_use.version == candidate:
        text = "the candidate is the champion already"
        return Decision("promoted", text, len(holdout), nan, nan)
    version = registry.version(registered_name(product.name, country), candidate)
    ours = _predictions(version, holdout, spec, registry)
    theirs = None
    if in_use is not None:
        try:
            theirs = _predictions(in_use, holdout, spec, registry)
        except (TrainingError, RegistryError) as error:
            return _cannot_be_compared(error, gates, len(holdout))
    return decide(spec.metric, labels, ours, theirs, gates, seed=spec.seed)


def _cannot_be_compared(
    error: TrainingError | RegistryError, gates: list[GateResult], rows: int
) -> Decision:
    """A champion that cannot predict today's rows serves nobody: the gates alone decide."""
    passed_all = all(result.passed for result in gates)
    return Decision(
        "promoted" if passed_all else "kept",
        f"the champion cannot be compared: {error.problem} "
        + ("The candidate passed every gate." if passed_all else "Nor did the candidate pass."),
        rows,
        float("nan"),
        float("nan"),
    )


def _predictions(
    version: ModelVersion, rows: pd.DataFrame, spec: ProductSpec, registry: Registry
) -> np.ndarray:
    return predict(fitted(version.name, version, spec, registry), rows, spec.task)


def _frame(
    product: Product,
    country: str,
    comparison: Comparison,
    model: pd.DataFrame,
    features: pd.DataFrame,
    registry: Registry,
) -> pd.DataFrame:
    in_use = registry.champion(product.name, country)
    numbers = _registered(in_use) if in_use else _naive(product.resolved(country), features)
    candidate = model.iloc[0]
    return pd.DataFrame(
        [
            {
                **numbers,
                "candidate_version": comparison.candidate,
                "candidate_value": float(candidate["value"]),
                "verdict": comparison.decision.verdict,
                "reason": comparison.decision.reason,
                "why_this_kind": str(candidate["reason"]),
                "decision_id": comparison.decision_id,
                "gain": comparison.decision.gain,
                "gain_lower": comparison.decision.lower,
                "gain_upper": comparison.decision.upper,
            }
        ]
    )


def _registered(version: ModelVersion) -> dict[str, Any]:
    report = report_from_json(version.tags["report"])
    return {
        "kind": version.kind,
        "version": version.version,
        "metric": report.metric,
        "value": report.value,
        "baseline": report.best_baseline,
        "baseline_value": report.baseline_value,
    }


def _naive(spec: ProductSpec, features: pd.DataFrame) -> dict[str, Any]:
    """The first baseline as the model in use, judged on the holdout like any other."""
    parts = split(features, spec.split)
    baseline = spec.baselines[0]
    predicted = baseline_predictions(baseline, parts.final, parts.holdout)
    report = evaluate(parts.holdout, predicted, spec, parts.final)
    return {
        "kind": "baseline",
        "version": "",
        "metric": report.metric,
        "value": report.value,
        "baseline": report.best_baseline,
        "baseline_value": report.baseline_value,
    }


def _shown(frame: pd.DataFrame, comparison: Comparison) -> dict[str, Any]:
    row = frame.iloc[0]
    return {
        "champion_kind": str(row["kind"]),
        "champion_version": str(row["version"]) or "none, the baseline serves",
        "verdict": comparison.decision.verdict,
        "reason": comparison.decision.reason,
        "decision_id": comparison.decision_id,
        "decision": facts(_decision_facts(comparison, row)),
    }


def _decision_facts(comparison: Comparison, row: pd.Series) -> dict[str, object]:
    metric, decision = row["metric"], comparison.decision
    return {
        "rows compared on": f"{decision.rows:,}",
        f"{metric} of the model in use": row["value"],
        f"{metric} of baseline {row['baseline']}": row["baseline_value"],
        "candidate": f"version {row['candidate_version'] or '-'}",
        f"{metric} of the candidate": row["candidate_value"],
        "gain of the candidate": decision.gain,
        "gain, lower end": decision.lower,
        "gain, upper end": decision.upper,
        "why this kind of model": row["why_this_kind"],
    }


def _equals_alias(
    key: dg.AssetKey, product: Product, country: str, version: str, registry: Registry
) -> dg.AssetCheckResult:
    named = registry.champion(product.name, country)
    if (named.version if named else "") != version:
        text = f"the registry names version {named and named.version}, the asset {version or None}"
        return failed(key, _CHECK, f"{text}; materialize `champion` again")
    if named is None:
        return passed(key, _CHECK, "no champion alias and none expected: the baseline serves")
    try:
        registry.load(named)
    except RegistryError as error:
        return failed(key, _CHECK, str(error))
    return passed(key, _CHECK, f"{named.name} version {version} is the champion and loads")
