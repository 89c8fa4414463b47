"""Where every country of a product stands, read from what is stored and registered."""

from __future__ import annotations

import datetime as dt
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from mlops_assets.stages.common.context import CountryContext, ProductContext
from mlops_assets.stages.common.lineage import BASELINE, made_from
from mlops_assets.stages.datasets.judgement import describe_not_used, not_used_of
from mlops_assets.stages.monitoring.drift import state_of_snapshot
from mlops_assets.stages.monitoring.performance import realised_of
from mlops_assets.stages.promotion.decision_log import Entry, entries_by_country
from mlops_assets.stages.staleness import REFUSED, Stale, Staleness
from mlops_assets.storage import Snapshot

_FOLLOWS = {
    **{"validated": "raw", "features": "raw", "model": "model", "champion": "model"},
    **dict.fromkeys(("predictions", "performance", "drift"), "predictions"),
}
"""Asset: the one without which it being missing is no news (`model`, `predictions`: a state)."""


@dataclass(frozen=True)
class CountryStatus:
    """One country of one product.

    Attributes:
        state: `ok`; `no_data` (nothing was delivered); `contract_broken` (newest delivery refused,
            last good data in use); `delivery_not_used` (a delivery broke the contract and waits
            for a corrected one, what else came is in use); `gate_failed` (newest candidate
            stopped, champion stays);
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


def product_status(ctx: ProductContext) -> list[CountryStatus]:
    """Every listed country in the order of the YAML."""
    state = Staleness(ctx)
    latest = _latest_decisions(ctx)
    return [_country(state, country, latest.get(country)) for country in ctx.countries]


def _latest_decisions(ctx: ProductContext) -> dict[str, Entry]:
    found = entries_by_country(ctx, ctx.countries)
    return {country: max(log, key=lambda e: e.decided_at) for country, log in found.items()}


def _country(state: Staleness, country: str, decision: Entry | None) -> CountryStatus:
    ctx = state.whole.country(country)
    champion = _champion_row(ctx)
    name, why = _state(state, ctx, champion, decision)
    predictions, performance, drift = map(ctx.current, ("predictions", "performance", "drift"))
    kind, numbers = _in_use(ctx, champion)
    realised = realised_of(performance) if performance else None
    return CountryStatus(
        product=ctx.product.name,
        country=country,
        state=name,
        why=why,
        champion_version=ctx.aliases().champion or None,
        champion_kind=kind,
        metric=ctx.spec.metric,
        metric_value=_number(numbers.get("value")),
        baseline_value=_number(numbers.get("baseline_value")),
        last_data=_iso(ctx.current("raw")),
        prediction_rows=predictions.rows if predictions else 0,
        predicted_at=_iso(predictions),
        realised_value=_number(realised.value.value) if realised else None,
        expected_value=_number(realised.expected.value) if realised else None,
        drift=state_of_snapshot(drift).state if drift else None,
    )


def _champion_row(ctx: CountryContext) -> Mapping[str, Any]:
    made = ctx.current("champion")
    return _row(ctx.store.read(made.asset, made.partition).iloc[0].to_dict()) if made else {}


def _in_use(
    ctx: CountryContext, champion: Mapping[str, Any]
) -> tuple[str | None, Mapping[str, Any]]:
    """Kind and numbers of what serves; before the first promotion that is the baseline."""
    if champion:
        return str(champion["kind"]), champion
    if ctx.current("predictions") is None:
        return None, {}
    if ctx.current("model") is None:
        return BASELINE, {}
    row = ctx.store.read(ctx.path("model"), ctx.country, columns=["baseline_value"]).iloc[0]
    return BASELINE, {"value": row["baseline_value"], "baseline_value": row["baseline_value"]}


def _state(
    state: Staleness, ctx: CountryContext, champion: Mapping[str, Any], decision: Entry | None
) -> tuple[str, str]:
    """The first of the states that holds; what is `behind` is what `materialize` would make."""
    if ctx.current("raw") is None:
        return "no_data", "no row was ever delivered"
    stale = state.all(ctx.country)
    if any(REFUSED in each.causes for each in stale):
        return "contract_broken", f"the newest delivery breaks the contract; {_good_data(ctx)}"
    if not_used := not_used_of(ctx.current("quarantine")):
        return "delivery_not_used", f"not used: {describe_not_used(not_used)}; the rest is"
    missing = {each.asset for each in stale if each.is_missing}
    if behind := [each for each in stale if _is_behind(each, missing)]:
        return "behind", _why_behind(ctx, behind[0])
    if "predictions" in missing:
        return "no_prediction", "nothing was predicted yet"
    if "model" in missing:
        return "no_model", "no candidate was trained yet; the baseline serves"
    if decision is not None and decision.verdict == "waiting":
        return "awaits_approval", decision.comparison.decision.reason
    if decision is not None and decision.is_stopped_by_gate:
        return "gate_failed", decision.comparison.decision.reason
    why = champion.get("why_this_kind") or (decision and decision.comparison.decision.reason)
    return "ok", str(why or "")


def _is_behind(stale: Stale, missing: set[str]) -> bool:
    """Not what a gate stopped, nor what has a state of its own: never trained, never predicted."""
    if stale.is_settled:
        return False
    return not stale.is_missing or _FOLLOWS[stale.asset] not in missing


def _why_behind(ctx: CountryContext, stale: Stale) -> str:
    if stale.asset == "predictions" and "champion" in stale.causes:
        predictor = made_from(ctx.current("predictions")).get("champion", "")
        in_use = ctx.aliases().champion or BASELINE
        return f"predictions are of {_called(predictor)}, in use is {_called(in_use)}"
    return stale.describe()


def _called(version: str) -> str:
    return f"version {version}" if version.isdigit() else f"the {version}"


def _good_data(ctx: CountryContext) -> str:
    accepted = ctx.current("validated")
    if accepted is None:
        return "there are no earlier data"
    return f"data of {accepted.created_at.date()} stay in use"


def _row(values: Mapping[Hashable, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in values.items()}


def _iso(made: Snapshot | None) -> str | None:
    return made.created_at.astimezone(dt.UTC).isoformat(timespec="seconds") if made else None


def _number(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)
