"""From a registered model to predictions of a features frame, and back to how it was judged."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlops_assets.ml.evaluation import Report
from mlops_assets.ml.models import FittedModel, predict
from mlops_assets.ml.selection import PooledModel
from mlops_assets.product import Product
from mlops_assets.registry import LoggedModel, ModelVersion, Registry
from mlops_assets.registry.models import CHAMPION, DIGEST_TAG, registered_name
from mlops_assets.spec import CandidateSpec, ProductSpec
from mlops_assets.stages.base import path
from mlops_assets.storage import SnapshotStore

VALIDATION_URI = "validation_uri"
VALIDATION_DIGEST = "validation_sha256"
_EXAMPLE_ROWS = 50


@dataclass(frozen=True)
class Interval:
    """What to add to a prediction for the ends of its interval, in the label's unit; NaN: none."""

    low: float
    high: float


@dataclass(frozen=True)
class Served:
    """Who predicts in a country, and why."""

    kind: str
    version: ModelVersion | None
    reason: str


def pooled_key(candidate: CandidateSpec) -> str:
    """What stands for the country in the registered name of a pooled candidate."""
    return f"pooled-{candidate.name}"


def pooled_versions(product: Product, registry: Registry) -> dict[str, ModelVersion]:
    """The pooled champions of a product by candidate name; those not trained yet are absent."""
    found = {
        candidate.name: registry.by_alias(
            registered_name(product.name, pooled_key(candidate)), CHAMPION
        )
        for candidate in product.spec.candidates
        if "pooled" in candidate.scopes
    }
    return {name: version for name, version in found.items() if version is not None}


def load_pooled(
    spec: ProductSpec, versions: Mapping[str, ModelVersion], registry: Registry
) -> dict[str, PooledModel]:
    """The pooled champions ready to be compared with a country's own candidates."""
    return {
        name: PooledModel(
            candidate=name,
            for_validation=fitted(name, _validation_twin(version), spec, registry),
            final=fitted(name, version, spec, registry),
            report=report_from_json(version.tags["report"]),
        )
        for name, version in versions.items()
    }


def fitted(name: str, version: ModelVersion, spec: ProductSpec, registry: Registry) -> FittedModel:
    """A registered version as the pure functions take it."""
    loaded = registry.load(version)
    rows = int(version.tags.get("train_rows", 0))
    return FittedModel(name, loaded.estimator, loaded.features, spec.task, rows)


def who_serves(product: Product, country: str, store: SnapshotStore, registry: Registry) -> Served:
    """The champion of the country; the baseline when none was ever promoted."""
    version = registry.champion(product.name, country)
    if version is not None:
        return Served(version.kind, version, version.tags.get("reason", ""))
    decisions = store.read_log(path(product, "decisions"), country)
    if decisions.empty:
        return Served("baseline", None, "no model was trained in this country yet")
    return Served("baseline", None, str(decisions["reason"].iloc[-1]))


def example(model: FittedModel, rows: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows and their predictions for a model's signature: numbers as float64, the rest as text.

    Whole numbers become float64 because a later row may lack the value.
    """
    inputs = rows[list(model.features)].head(_EXAMPLE_ROWS)
    numeric = {name: pd.api.types.is_numeric_dtype(kind) for name, kind in inputs.dtypes.items()}
    typed = {
        name: inputs[name].astype("float64") if is_number else inputs[name].astype(str)
        for name, is_number in numeric.items()
    }
    return pd.DataFrame(typed), predict(model, inputs, model.task)


def logged(version: ModelVersion) -> LoggedModel:
    """The stored files of a version, to register them for a country without a copy."""
    return LoggedModel(uri=version.uri, digest=version.tags[DIGEST_TAG])


def interval_of(version: ModelVersion) -> Interval:
    """The prediction interval a version was registered with."""
    return Interval(
        float(version.tags.get("interval_low", "nan")),
        float(version.tags.get("interval_high", "nan")),
    )


def report_to_json(report: Report) -> str:
    """The numbers of a report without its tables."""
    return json.dumps(
        {
            "rows": report.rows,
            "first": str(report.first),
            "last": str(report.last),
            "metric": report.metric,
            "value": _number(report.value),
            "metrics": {name: _number(value) for name, value in report.metrics.items()},
            "baselines": {name: _number(value) for name, value in report.baselines.items()},
            "best_baseline": report.best_baseline,
        }
    )


def report_from_json(text: str) -> Report:
    """The report `report_to_json` wrote, its tables empty."""
    held = json.loads(text)
    times = {name: _time(held[name]) for name in ("first", "last")}
    return Report(
        rows=held["rows"],
        first=times["first"],
        last=times["last"],
        metric=held["metric"],
        value=_float(held["value"]),
        metrics={name: _float(value) for name, value in held["metrics"].items()},
        baselines={name: _float(value) for name, value in held["baselines"].items()},
        best_baseline=held["best_baseline"],
        by_month=pd.DataFrame(),
        reliability=None,
    )


def _validation_twin(version: ModelVersion) -> ModelVersion:
    tags = {**version.tags, DIGEST_TAG: version.tags[VALIDATION_DIGEST]}
    return ModelVersion(
        version.name, version.version, version.tags[VALIDATION_URI], version.run_id, "pooled", tags
    )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _float(value: float | None) -> float:
    return float("nan") if value is None else value


def _time(value: Any) -> pd.Timestamp | None:
    return None if value in (None, "None", "NaT") else pd.Timestamp(value)
