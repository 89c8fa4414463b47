"""The append-only record of every comparison between a candidate and a champion."""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mlops_assets.ml.decision import Decision
from mlops_assets.ml.gates import GateResult
from mlops_assets.product import Product
from mlops_assets.stages.base import path
from mlops_assets.storage import SnapshotStore


@dataclass(frozen=True)
class Comparison:
    """A decision with what it was about.

    Attributes:
        country: the partition.
        candidate: registered version of the candidate; "" for a baseline.
        kind: local, pooled or baseline.
        champion: registered version it was compared with; "" without one.
        decision: the verdict and its numbers.
        gates: every gate's outcome.
        config_hash: of the country's resolved config.
        features: content hash of the features both were scored on.
    """

    country: str
    candidate: str
    kind: str
    champion: str
    decision: Decision
    gates: Sequence[GateResult]
    config_hash: str
    features: str

    @property
    def decision_id(self) -> str:
        """Same inputs, same id: a rerun finds the decision instead of taking it again."""
        sides = f"{self.candidate or self.kind}-{self.champion or 'none'}"
        return f"{sides}-{self.features[:12]}-{self.config_hash}"


def find(product: Product, store: SnapshotStore, country: str, decision_id: str) -> bool:
    """Whether this decision was recorded before."""
    log = store.read_log(path(product, "decisions"), country)
    return not log.empty and decision_id in set(log["decision_id"])


def record(product: Product, store: SnapshotStore, comparison: Comparison, run_id: str) -> None:
    """Append the decision unless it is there: once recorded it is never changed."""
    if find(product, store, comparison.country, comparison.decision_id):
        return
    row = pd.DataFrame([_row(product, comparison, run_id)])
    store.append(path(product, "decisions"), comparison.country, row)


def gates_to_json(gates: Sequence[GateResult]) -> str:
    """Every gate's outcome as JSON."""
    return json.dumps([_gate(gate) for gate in gates])


def gates_from_json(text: str) -> list[GateResult]:
    """What `gates_to_json` wrote."""
    return [
        GateResult(
            name=held["name"],
            passed=held["passed"],
            value=float("nan") if held["value"] is None else held["value"],
            limit=float("nan") if held["limit"] is None else held["limit"],
            description=held["description"],
        )
        for held in json.loads(text)
    ]


def _row(product: Product, comparison: Comparison, run_id: str) -> Mapping[str, Any]:
    decision = comparison.decision
    return {
        "decision_id": comparison.decision_id,
        "decided_at": dt.datetime.now(dt.UTC),
        "product": product.name,
        "country": comparison.country,
        "verdict": decision.verdict,
        "reason": decision.reason,
        "candidate_version": comparison.candidate,
        "candidate_kind": comparison.kind,
        "champion_version": comparison.champion,
        "rows": decision.rows,
        "candidate_value": decision.candidate_value,
        "champion_value": decision.champion_value,
        "gain": decision.gain,
        "gain_lower": decision.lower,
        "gain_upper": decision.upper,
        "gates": gates_to_json(comparison.gates),
        "config_hash": comparison.config_hash,
        "features_hash": comparison.features,
        "dagster_run_id": run_id,
    }


def _gate(gate: GateResult) -> dict[str, Any]:
    return {
        "name": gate.name,
        "passed": gate.passed,
        "value": None if gate.value != gate.value else gate.value,
        "limit": None if gate.limit != gate.limit else gate.limit,
        "description": gate.description,
    }
