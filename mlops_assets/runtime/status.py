"""Where every country of a product stands, read from what is stored and registered."""

from __future__ import annotations

import datetime as dt
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd

from mlops_assets.ml.features.plausibility import HeldOut
from mlops_assets.stages.backtest.proposals import policy_behind
from mlops_assets.stages.common.context import CountryContext, ProductContext
from mlops_assets.stages.common.lineage import BASELINE, holds, made_from
from mlops_assets.stages.datasets.judgement import describe_not_used, not_used_now
from mlops_assets.stages.features.held_out import WAY_OUT, held_out_now, open_by_country
from mlops_assets.stages.monitoring.drift import DRIFT, state_of_snapshot
from mlops_assets.stages.monitoring.performance import REALISED, realised_of
from mlops_assets.stages.predictions.given_out import called, given_out_of
from mlops_assets.stages.promotion.decision_log import Entry, entries_by_country, recorded_aliases
from mlops_assets.stages.staleness import BEYOND, REFUSED, Stale, Staleness
from mlops_assets.storage import Snapshot

_FOLLOWS = {
    **{"validated": "raw", "features": "raw", "model": "model", "champion": "model"},
    **dict.fromkeys(("predictions", "performance", "drift"), "predictions"),
}
"""Asset: the one without which it being missing is no news (`model`, `predictions`: a state)."""
_BEFORE_NOT_USED = ("behind", "no_prediction", "predictions_refused", "awaits_approval")
"""States that come before what is not used or not shared, which their reason names too."""
_OF_DATA = ("no_data", "contract_broken", "delivery_not_used", "held_out", "nothing_to_predict")
"""States to which it is all one what the registry names."""
_SERVES_WELL = ("ok", "waiting")
"""States that say of what serves that it should."""


@dataclass(frozen=True)
class CountryStatus:
    """One country of one product.

    Attributes:
        state: `ok`; `no_data` (nothing was delivered); `contract_broken` (newest delivery refused,
            last good data in use); `behind` (an asset is older than what it is made from);
            `no_prediction`; `predictions_refused` (those of the model in use are beyond the range
            of the product: another one predicts, or, with nobody to, the last good ones stay);
            `awaits_approval` (a promotion waits for a person);
            `delivery_not_used` (a delivery broke the contract and waits for a corrected one, what
            else came is in use); `held_out` (its newest records do not follow from its own past,
            and no other country sees them); `nothing_to_predict` (its features have no row);
            `never_trained` (the baseline serves); `gate_failed` (newest candidate stopped);
            `not_judged` (newest candidate could not be judged); `waiting` (newer data than the
            newest candidate's, and policy says when the next is trained); `not_known` (by the
            records all is well, and the registry does not say so). In `awaits_approval` and the
            three before `not_known`, what served before serves on.
        why: the state in a sentence; of what serves, and why that one.
        champion_version: None for the baseline, and where the registry does not answer.
        champion_kind: `local`, `pooled`, `region` or `baseline`; None before the first decision.
        metric_value: of the champion on its holdout.
        baseline_value: of the best baseline on the same rows.
        last_data: newest ingestion.
        realised_value: of the champion on the newest matured labels; None before it is judged.
        expected_value: what it promised for these rows.
        drift: `quiet`, `watch`, `alarm` or `not_judged`; None before it was looked at.
        champion_known: whether the registry was asked. Where it was not, kind and values are those
            that were last stored.
        policy_note: why the policy of the product is behind its last proposal; "" if it is not.
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
    champion_known: bool = True
    policy_note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def product_status(ctx: ProductContext) -> list[CountryStatus]:
    """Every listed country in the order of the YAML."""
    state = Staleness(ctx)
    latest, held = _latest_decisions(ctx), open_by_country(held_out_now(state.whole))
    note = policy_behind(ctx)
    rows = (
        _country(state, country, latest.get(country), held.get(country))
        for country in ctx.countries
    )
    return [replace(row, policy_note=note) for row in rows]


def recorded_status(ctx: ProductContext) -> list[CountryStatus]:
    """The same without the registry: by the snapshots and the decision log alone.

    What is of data is told as ever. Who serves is told as it was recorded, and not known.
    """
    known = replace(ctx, models=None, recorded=recorded_aliases(ctx))
    return [_not_known(row) for row in product_status(known)]


def _not_known(row: CountryStatus) -> CountryStatus:
    row = replace(row, champion_version=None, champion_known=False)
    if row.state in _OF_DATA:
        return row
    why = f"the registry does not answer; by the records {row.state}: {row.why}"
    return replace(row, state="not_known" if row.state in _SERVES_WELL else row.state, why=why)


def _latest_decisions(ctx: ProductContext) -> dict[str, Entry]:
    found = entries_by_country(ctx, ctx.countries)
    return {country: max(log, key=lambda e: e.decided_at) for country, log in found.items()}


def _country(
    state: Staleness, country: str, decision: Entry | None, held: HeldOut | None
) -> CountryStatus:
    ctx = state.whole.country(country)
    champion = _champion_row(ctx)
    name, why = _with_held(held, *_state(state, ctx, champion, decision))
    predictions, performance, drift = map(ctx.current, ("predictions", "performance", "drift"))
    kind, numbers = _in_use(ctx, champion)
    realised = realised_of(performance) if holds(performance, REALISED) else None
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
        drift=state_of_snapshot(drift).state if holds(drift, DRIFT) else None,
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
    raw = ctx.current("raw")
    if raw is None:
        return "no_data", "no row was ever delivered"
    stale = state.all(ctx.country)
    if any(REFUSED in each.causes for each in stale):
        told = f"the newest delivery breaks the contract; {_good_data(ctx)}"
        return "contract_broken", "; ".join([told, *_predictions_behind(ctx, stale)])
    name, why = _state_of_accepted(state, ctx, stale, champion, decision=decision)
    not_used = not_used_now(ctx.current("quarantine"), raw)
    if not not_used:
        return name, why
    told = f"not used: {describe_not_used(not_used)}; the rest is"
    if name in _BEFORE_NOT_USED:
        return name, f"{why}; {told}"
    return "delivery_not_used", told


def _with_held(held: HeldOut | None, name: str, why: str) -> tuple[str, str]:
    """The state with what other countries do not see of this one."""
    if held is None:
        return name, why
    told = f"no other country sees its newest records: {held.describe()}; {WAY_OUT}"
    if name in _SERVES_WELL:
        return "held_out", f"{told}; {why}"
    return name, f"{why}; {told}"


def _state_of_accepted(
    state: Staleness,
    ctx: CountryContext,
    stale: Sequence[Stale],
    champion: Mapping[str, Any],
    *,
    decision: Entry | None,
) -> tuple[str, str]:
    """The state of a country, whatever delivery of it is not used."""
    missing = {each.asset for each in stale if each.is_missing}
    if ctx.has_nothing_to_predict:
        return "nothing_to_predict", "its features have no row, so that nothing is made of them"
    if refused := _refused(state, ctx, stale):
        return "predictions_refused", refused
    if behind := [each for each in stale if _is_behind(each, missing)]:
        return "behind", _why_behind(ctx, behind[0])
    if "predictions" in missing:
        return "no_prediction", "nothing was predicted yet"
    if "model" in missing:
        return "never_trained", f"the baseline serves: no candidate was trained yet; {_asks(ctx)}"
    if undecided := _undecided(ctx, decision):
        return undecided
    serves = _why_in_use(ctx, champion, decision)
    if told := given_out_of(ctx.current("predictions")).told:
        serves = f"{serves}; {told}"
    if any(each.waits_for_policy for each in stale):
        return "waiting", f"{serves}; newer data came since the newest candidate; {_asks(ctx)}"
    return "ok", serves


def _refused(state: Staleness, ctx: CountryContext, stale: Sequence[Stale]) -> str:
    """Why the predictions of the model in use were refused, and what is served; "" if not."""
    made = ctx.current("predictions")
    if any(BEYOND in each.causes for each in stale):
        kept = f"those of {made.created_at.date()} stay" if made else "there are none of before"
        return f"no predictions could be taken, {kept}: {state.refusal_of(ctx.country)}"
    given_out = given_out_of(made)
    is_current = all(each.asset != "predictions" for each in stale)
    return given_out.describe() if given_out.by and is_current else ""


def _undecided(ctx: CountryContext, decision: Entry | None) -> tuple[str, str] | None:
    """The state of a country whose newest candidate did not come into use; None for another."""
    if decision is None:
        return None
    told = decision.comparison
    state = {"waiting": "awaits_approval", "not_judged": "not_judged"}.get(decision.verdict)
    if decision.is_stopped_by_gate:
        state = "gate_failed"
    if state is None:
        return None
    candidate = f"version {told.candidate}" if told.candidate else f"the candidate ({told.kind})"
    serves = called(ctx.aliases().champion or BASELINE)
    return state, f"{serves} serves; {candidate}: {told.decision.reason}"


def _why_in_use(ctx: CountryContext, champion: Mapping[str, Any], decision: Entry | None) -> str:
    """Why that serves which serves: a champion's own reason, else why no candidate does."""
    decided = decision.comparison.decision.reason if decision else ""
    if ctx.aliases().champion:
        return str(champion.get("why_this_kind") or decided)
    return f"the baseline serves: {decided or 'no candidate was decided on'}"


def _asks(ctx: CountryContext) -> str:
    """What asks for a training of the country, as its YAML says."""
    policy, cron = ctx.spec.retraining, ctx.spec.retrain_cron
    causes = {
        "an error worse than promised": policy.on_error,
        "drift": policy.on_drift,
        f"{policy.new_labels} new labels": policy.new_labels is not None,
        f"an age of {policy.max_age_days} days": policy.max_age_days is not None,
        f"the schedule {cron}": cron is not None,
    }
    told = [cause for cause, is_on in causes.items() if is_on]
    if not told:
        return "nothing asks for a training by itself: `materialize --job train` makes one"
    return f"a training is asked for by {', '.join(told)}"


def _is_behind(stale: Stale, missing: set[str]) -> bool:
    """Not what was decided, nor what has a state of its own: waiting, never made."""
    if stale.is_settled or stale.waits_for_policy:
        return False
    return not stale.is_missing or _FOLLOWS[stale.asset] not in missing


def _why_behind(ctx: CountryContext, stale: Stale) -> str:
    if stale.asset == "predictions" and "champion" in stale.causes:
        predictor = made_from(ctx.current("predictions")).get("champion", "")
        in_use = ctx.aliases().champion or BASELINE
        return f"predictions are of {called(predictor)}, in use is {called(in_use)}"
    return stale.describe()


def _predictions_behind(ctx: CountryContext, stale: Sequence[Stale]) -> list[str]:
    """Why predictions that are there are not of what is in use, in a sentence."""
    old = [each for each in stale if each.asset == "predictions" and not each.is_missing]
    return [_why_behind(ctx, each) for each in old]


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
