"""Where every country of a product stands, read from what is stored and registered."""

from __future__ import annotations

import datetime as dt
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from mlops_assets.product import Product
from mlops_assets.registry import Registry
from mlops_assets.stages.common.lineage import INPUTS, SHARED
from mlops_assets.stages.monitoring.drift import state_of_snapshot
from mlops_assets.stages.monitoring.performance import realised_of
from mlops_assets.storage import Snapshot, SnapshotStore

_ASSETS = (
    *("raw", "validated", "quarantine", "features"),
    *("model", "champion", "predictions", "performance", "drift"),
)


@dataclass(frozen=True)
class CountryStatus:
    """One country of one product.

    Attributes:
        state: `ok`; `no_data` (nothing was delivered); `contract_broken` (newest delivery refused,
            last good data in use); `gate_failed` (newest candidate stopped, champion stays);
            `behind` (an asset is older than what it is made from); `no_model`; `no_prediction`;
            `awaits_approval` (a promotion waits for a person, the champion stays).
        why: the state, or the choice of the model, in a sentence.
        champion_kind: `local`, `pooled`, `region` or `baseline`; None before the first decision.
        metric_value: of the champion on its holdout.
        baseline_value: of the best baseline on the same rows.
        last_data: newest ingestion.
        realised_value: of the champion on the newest matured labels; None before it is judged.
        expected_value: what it promised for these rows.
        drift: `quiet`, `watch`, `alarm` or `not_judged`; None before it was looked at.
    """

    product: str
    country: str
    state: str
    why: str
    champion_version: str | None
    champion_kind: str | None
    metric: str
    metric_value: float | None
    baseline_value: float | None
    last_data: str | None
    prediction_rows: int
    predicted_at: str | None
    realised_value: float | None
    expected_value: float | None
    drift: str | None

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def product_status(
    product: Product, store: SnapshotStore, registry: Registry
) -> list[CountryStatus]:
    """Every listed country in the order of the YAML."""
    countries = list(product.spec.countries)
    held = {name: store.current_all((product.name, name), countries) for name in _ASSETS}
    shared = store.current((product.name, SHARED), None) if product.spec.shared_features else None
    if shared is not None:
        held[SHARED] = dict.fromkeys(countries, shared)
    champions = registry.champions(product.name)
    latest = _latest_decisions(product, store)
    rows = {country: _champion_row(store, held["champion"].get(country)) for country in countries}
    return [
        _country(
            product,
            country,
            {name: found[country] for name, found in held.items() if country in found},
            champions[country].version if country in champions else None,
            rows[country],
            latest.get(country, {}),
            store,
        )
        for country in countries
    ]


def _latest_decisions(product: Product, store: SnapshotStore) -> dict[str, Mapping[str, Any]]:
    log = store.read_log((product.name, "decisions"))
    if log.empty:
        return {}
    newest = log.sort_values("decided_at").groupby("country").tail(1)
    return {str(row["country"]): _row(row) for row in newest.to_dict(orient="records")}


def _champion_row(store: SnapshotStore, made: Snapshot | None) -> Mapping[str, Any]:
    if made is None:
        return {}
    return _row(store.read(made.asset, made.partition).iloc[0].to_dict())


def _country(
    product: Product,
    country: str,
    held: Mapping[str, Snapshot],
    version: str | None,
    champion: Mapping[str, Any],
    decision: Mapping[str, Any],
    store: SnapshotStore,
) -> CountryStatus:
    state, why = _state(held, champion, decision, version or "baseline")
    predictions = held.get("predictions")
    kind, numbers = _in_use(product, country, champion, predictions, store)
    realised = realised_of(held["performance"]) if "performance" in held else None
    drift = state_of_snapshot(held["drift"]) if "drift" in held else None
    return CountryStatus(
        product=product.name,
        country=country,
        state=state,
        why=why,
        champion_version=version,
        champion_kind=kind,
        metric=product.resolved(country).metric,
        metric_value=_number(numbers.get("value")),
        baseline_value=_number(numbers.get("baseline_value")),
        last_data=_iso(held.get("raw")),
        prediction_rows=predictions.rows if predictions else 0,
        predicted_at=_iso(predictions),
        realised_value=_number(realised.value.value) if realised else None,
        expected_value=_number(realised.expected.value) if realised else None,
        drift=drift.state if drift else None,
    )


def _in_use(
    product: Product,
    country: str,
    champion: Mapping[str, Any],
    predictions: Snapshot | None,
    store: SnapshotStore,
) -> tuple[str | None, Mapping[str, Any]]:
    """Kind and numbers of what serves; before the first promotion that is the baseline."""
    if champion:
        return str(champion["kind"]), champion
    if predictions is None:
        return None, {}
    model = (product.name, "model")
    if store.current(model, country) is None:
        return "baseline", {}
    judged = store.read(model, country, columns=["baseline_value"]).iloc[0]["baseline_value"]
    return "baseline", {"value": judged, "baseline_value": judged}


def _state(
    held: Mapping[str, Snapshot],
    champion: Mapping[str, Any],
    decision: Mapping[str, Any],
    in_use: str,
) -> tuple[str, str]:
    if "raw" not in held:
        return "no_data", "no row was ever delivered"
    if _refused(held):
        since = held["validated"].created_at.date() if "validated" in held else None
        used = f"data of {since} stay in use" if since else "there are no earlier data"
        return "contract_broken", f"the newest delivery breaks the contract; {used}"
    if missing := next((name for name in ("validated", "features") if name not in held), None):
        return "behind", f"{missing} was not made from the delivered rows yet"
    if late := _behind(held):
        return "behind", f"{late} is older than what it is made from"
    if "predictions" not in held:
        return "no_prediction", "nothing was predicted yet"
    if (predictor := _input(held["predictions"], "champion")) not in (None, in_use):
        return "behind", f"predictions are of {_called(predictor)}, in use is {_called(in_use)}"
    if "model" not in held:
        return "no_model", "no candidate was trained yet; the baseline serves"
    if decision.get("verdict") == "waiting":
        return "awaits_approval", str(decision["reason"])
    if decision.get("verdict") == "kept" and str(decision["reason"]).startswith("gate "):
        return "gate_failed", str(decision["reason"])
    return "ok", str(champion.get("why_this_kind") or decision.get("reason") or "")


def _called(version: str) -> str:
    return f"version {version}" if version.isdigit() else f"the {version}"


def _refused(held: Mapping[str, Snapshot]) -> bool:
    """The quarantine is of the newest raw data and the validated rows are not."""
    rejects = held.get("quarantine")
    if rejects is None or _input(rejects, "raw") != held["raw"].content_hash:
        return False
    accepted = held.get("validated")
    return accepted is None or _input(accepted, "raw") != held["raw"].content_hash


def _behind(held: Mapping[str, Snapshot]) -> str | None:
    pairs = (
        ("validated", "raw"),
        ("features", "validated"),
        ("features", SHARED),
        ("model", "features"),
        ("predictions", "features"),
    )
    for made, source in pairs:
        both = made in held and source in held
        if both and _input(held[made], source) != held[source].content_hash:
            return made
    return None


def _input(made: Snapshot, name: str) -> str | None:
    return (made.metadata.get(INPUTS) or {}).get(name)


def _row(values: Mapping[Hashable, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in values.items()}


def _iso(made: Snapshot | None) -> str | None:
    return made.created_at.astimezone(dt.UTC).isoformat(timespec="seconds") if made else None


def _number(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)
