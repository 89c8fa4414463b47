"""What the `champion` asset holds and shows: the model in use, with the decision about it."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import pandas as pd

from mlops_assets.ml.evaluation.report import evaluate
from mlops_assets.ml.gates.gates import GateResult
from mlops_assets.ml.models.baselines import baseline_predictions
from mlops_assets.ml.models.split import split
from mlops_assets.ml.promotion.decision import Decision
from mlops_assets.registry import ModelVersion
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.common.context import CountryContext
from mlops_assets.stages.common.lineage import serving_baseline
from mlops_assets.stages.common.ui_metadata import facts_metadata, rounded, table_metadata
from mlops_assets.stages.promotion.decision_log import Entry
from mlops_assets.stages.training.serving import report_from_json
from mlops_assets.stages.training.version_identity import RUN_OF_VERSION

_OUTCOMES = {True: "passed", False: "failed", None: "not judged"}
_BASELINE = "none, the baseline serves"


def champion_frame(ctx: CountryContext, entry: Entry) -> pd.DataFrame:
    """The one row of the asset: who serves once the decision is carried out, and the decision."""
    in_use = ctx.version(entry.after.champion) if entry.after.champion else None
    decision, model = entry.comparison.decision, _candidate(ctx)
    return pd.DataFrame(
        [
            {
                **(_registered(in_use) if in_use else _naive(ctx)),
                RUN_OF_VERSION: in_use.run_id if in_use else "",
                "candidate_version": entry.comparison.candidate,
                "candidate_value": _candidate_value(entry, model),
                "verdict": decision.verdict,
                "reason": decision.reason,
                "why_this_kind": _why(entry, in_use),
                "decision_id": entry.decision_id,
                "gain": decision.gain,
                "gain_lower": decision.lower,
                "gain_upper": decision.upper,
                "previous": entry.after.previous,
                "trigger": entry.origin.trigger,
                "person": entry.origin.person,
            }
        ]
    )


def champion_metadata(frame: pd.DataFrame, entry: Entry, product: str) -> dict[str, Any]:
    """Metadata of the asset's page."""
    row, decision = frame.iloc[0], entry.comparison.decision
    return {
        "champion_kind": str(row["kind"]),
        "champion_version": str(row["version"]) or _BASELINE,
        "verdict": decision.verdict,
        "reason": decision.reason,
        "trigger": entry.origin.trigger,
        **({"person": entry.origin.person} if entry.origin.person else {}),
        "decision_id": entry.decision_id,
        "decision": facts_metadata(_facts(entry, row)),
        "gates": gates_table(entry.comparison.gates),
        "replay": f"mlops-assets decisions {product} --replay {entry.decision_id}",
    }


def gates_table(gates: Sequence[GateResult]) -> dg.TableMetadataValue:
    """One row a gate: outcome, value, limit and the outcome in a sentence."""
    rows = [
        (
            gate.name,
            _OUTCOMES[gate.passed],
            rounded(gate.value) if gate.value == gate.value else None,
            rounded(gate.limit) if gate.limit == gate.limit else None,
            gate.description,
        )
        for gate in gates
    ]
    return table_metadata(pd.DataFrame(rows, columns=["gate", "outcome", "value", "limit", "why"]))


def report_value(version: ModelVersion) -> float:
    """Metric of a version on the holdout it was judged on; NaN where none is recorded."""
    text = version.tags.get("report")
    return report_from_json(text).value if text else float("nan")


def _candidate(ctx: CountryContext) -> pd.Series | None:
    if ctx.current("model") is None:
        return None
    return ctx.store.read(ctx.path("model"), ctx.country).iloc[0]


def _candidate_value(entry: Entry, model: pd.Series | None) -> float:
    if entry.verdict == "withdrawn":
        return entry.comparison.decision.candidate_value
    if model is not None and str(model["version"]) == entry.comparison.candidate:
        return float(model["value"])
    return entry.comparison.decision.candidate_value


def _why(entry: Entry, in_use: ModelVersion | None) -> str:
    """Why this serves: the person's word, a withdrawal, why it was chosen, why no other is."""
    if entry.verdict in ("forced", "rolled_back", "withdrawn"):
        return entry.comparison.decision.reason
    if in_use is not None and in_use.tags.get("reason"):
        return in_use.tags["reason"]
    # Why a candidate was chosen says nothing of the baseline, which serves in its place.
    return entry.comparison.decision.reason


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


def _naive(ctx: CountryContext) -> dict[str, Any]:
    """The baseline that serves as the model in use, judged on the holdout like any other."""
    features = ctx.store.read(ctx.path("features"), ctx.country)
    return _of_baseline(ctx.spec, features, serving_baseline(ctx).name)


def _of_baseline(spec: ProductSpec, features: pd.DataFrame, name: str) -> dict[str, Any]:
    parts = split(features, spec.split)
    baseline = next(each for each in spec.baselines if each.name == name)
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


def _evidence(entry: Entry) -> dict[str, object]:
    """Whose rows a decision was made from, where it was not the country's own."""
    decision, pooled = entry.comparison.decision, entry.comparison.pooled
    if decision.basis != "pooled" or pooled is None:
        return {}
    return {
        "evidence": f"pooled ({pooled.told_of})",
        "own rows": f"{decision.own_rows:,}",
        "veto of own rows": "yes" if decision.veto else "no",
    }


def _facts(entry: Entry, row: pd.Series) -> dict[str, object]:
    metric, decision = row["metric"], entry.comparison.decision
    share = f"{1 - decision.level:.1%}" if decision.level == decision.level else ""
    withdrawn = entry.verdict == "withdrawn"
    gain = "gain of the withdrawn on the baseline" if withdrawn else "gain of the candidate"
    return {
        "rows compared on": f"{decision.rows:,}",
        **_evidence(entry),
        f"{metric} of the model in use": row["value"],
        f"{metric} of baseline {row['baseline']}": row["baseline_value"],
        "candidate": f"version {row['candidate_version'] or '-'}",
        f"{metric} of the {'baseline on them' if withdrawn else 'candidate'}": row[
            "candidate_value"
        ],
        gain: decision.gain,
        "gain, lower end": decision.lower,
        "gain, upper end": decision.upper,
        "each end holds with": share,
        "bootstrap": _drawn(decision),
        "in use before": entry.before.champion or _BASELINE,
        "why this model": row["why_this_kind"],
    }


def _drawn(decision: Decision) -> str:
    """What the gain's interval was drawn from; decisions of earlier versions say less."""
    told = f"{decision.draws:,} draws of blocks of {decision.block_days} days"
    return decision.drawn or (told if decision.draws else "")
