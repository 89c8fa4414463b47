"""What people are told of: incidents, failed gates, countries that need a person, failed runs.

One rule that cannot look keeps none of the others from telling what they see.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import dagster as dg

from mlops_assets.ml.retraining.plan import Action, Incident, RetrainingPlan
from mlops_assets.product import Product
from mlops_assets.stages.alerting.conditions import (
    LOOKS_BACK,
    AlertCondition,
    asset_page,
    digest,
    sentence,
)
from mlops_assets.stages.alerting.deliveries import delivery_conditions, held_out_conditions
from mlops_assets.stages.alerting.failed_runs import conditions_of_run, failed_since
from mlops_assets.stages.alerting.failing_sensors import cannot_look, failing_sensors
from mlops_assets.stages.alerting.refused_predictions import refused_conditions
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.common.runs import PERSON
from mlops_assets.stages.retraining.state import RetrainingState, read_state

_T = TypeVar("_T")
_WENT_BACK = {"rolled_back": "was rolled back to", "withdrawn": "was withdrawn for"}
"""Verdict by which a model goes out of use, in words."""


def current_incident(
    product: Product, incident: Incident | None, known: str = ""
) -> list[AlertCondition]:
    """The incident of now, under the id it was raised with first; told again when its kind changes.

    Args:
        product: whose.
        incident: of the plan; None for none.
        known: id of an incident that was raised and is not over; "" for none.
    """
    if incident is None:
        return []
    begun = known.removesuffix(": regime").removesuffix(": upstream")
    name = begun or f"{product.name} {incident.id}"
    does = (
        "automatic retraining holds until fewer countries alarm, or until matured labels confirm "
        "that the world changed"
        if incident.holds
        else "retraining goes on, countries with most to lose first, within the budget"
    )
    can = (
        "look at the source and at `drift` of a country. Repair the delivery; if the change is "
        "real, launch the training by hand"
        if incident.holds
        else "look at `performance` and `drift` of the countries"
    )
    text = (
        f"{sentence(incident.reason)}\nSince: {incident.since:%Y-%m-%d}.\nCountries: "
        f"{', '.join(incident.countries)}.\nNext: {does}.\nYou can: {can}."
    )
    what = "something before the models looks wrong" if incident.holds else "the world changed"
    title = f"{product.name}: {len(incident.countries)} countries alarm at once, {what}"
    return [
        AlertCondition(
            f"{name}: {incident.kind}", "incident", "", title, text, *asset_page(product, "drift")
        )
    ]


@dataclass(frozen=True)
class Look:
    """What there is to tell, as far as it could be seen.

    Attributes:
        conditions: that people are told of.
        plan: of retraining; None where it could not be made.
        problems: what could not be looked at, and why; each is one of the conditions as well.
    """

    conditions: Sequence[AlertCondition]
    plan: RetrainingPlan | None
    problems: Sequence[str]


def look(
    ctx: ProductContext, instance: dg.DagsterInstance, now: dt.datetime, known: str = ""
) -> Look:
    """What people are told of now; a rule that cannot look is told itself, and stops no other.

    Args:
        ctx: the product.
        instance: of its runs.
        now: with time zone.
        known: id of an incident that was raised and is not over; "" for none.
    """
    product, seen = ctx.product, _Seen(ctx.product, now)
    view = seen.result("the state of countries", lambda: read_state(ctx, instance, now))
    plan = view and seen.result("the plan of retraining", lambda: view.plan(product.spec))
    if view and plan:
        seen.see("incidents", lambda: current_incident(product, plan.incident, known))
        seen.see("alarms", lambda: _alarms(product, view, plan))
        asking = [each for each in plan.actions if each.kind == "ask"]
        seen.see("what needs a person", lambda: [_give_up(product, each) for each in asking])
        seen.see("rollbacks", lambda: _rollbacks(product, view))
    for record in seen.result("runs", lambda: failed_since(product, instance, now)) or ():
        what = f"run {record.dagster_run.run_id}"
        seen.see(what, partial(conditions_of_run, product, instance, record))
    seen.see("predictions", lambda: refused_conditions(ctx))
    seen.see("deliveries", lambda: delivery_conditions(ctx, now))
    seen.see("what is held out", lambda: held_out_conditions(ctx))
    seen.see("sensors", lambda: failing_sensors(product, instance))
    return Look(seen.conditions, plan, seen.problems)


class _Seen:
    """Collects what rules see, and what kept one from seeing."""

    def __init__(self, product: Product, now: dt.datetime) -> None:
        self.conditions: list[AlertCondition] = []
        self.problems: list[str] = []
        self._product, self._now = product, now

    def result(self, what: str, rule: Callable[[], _T]) -> _T | None:
        """What a rule gives; None where it raised, which is told."""
        try:
            return rule()
        except Exception as error:  # the edge: told, and raised once the others have been told
            self.problems.append(f"{what}: {type(error).__name__}: {error}")
            self.conditions.append(cannot_look(self._product, what, error, self._now))
            return None

    def see(self, what: str, rule: Callable[[], Iterable[AlertCondition]]) -> None:
        """Add what a rule tells."""
        self.conditions += self.result(what, lambda: list(rule())) or ()


# One country alarms


def _alarms(
    product: Product, view: RetrainingState, plan: RetrainingPlan
) -> Iterator[AlertCondition]:
    """Countries that alarm by themselves: once a cause for each champion."""
    as_one = plan.incident.countries if plan.incident else ()
    for country_state, action in zip(view.country_states, plan.actions, strict=True):
        if country_state.country in as_one or action.kind == "ask":
            continue  # told as one, or with what a person is needed for
        realised, drift = country_state.realised, country_state.drift
        if realised and realised.worse and realised.version == country_state.champion:
            yield _alarm(
                product, country_state.champion, action, "performance", reason=realised.reason
            )
        if drift and drift.state == "alarm":
            yield _alarm(product, country_state.champion, action, "drift", reason=drift.reason)


def _alarm(
    product: Product, champion: str, action: Action, asset: str, *, reason: str
) -> AlertCondition:
    country, model = action.country, f"version {champion}" if champion else "the baseline"
    what = {
        "performance": f"{model} is significantly worse than it promised",
        "drift": f"what comes in is no longer what {model} was trained on",
    }[asset]
    does = {
        "retrain": f"it is trained again ({action.reason})",
        "rollback": f"the model of before is put into use ({action.reason})",
        "withdraw": f"it is taken out of use ({action.reason})",
        "going_on": "a training of it is going on",
        "nothing": "nothing: `retraining` of the YAML has it switched off",
    }.get(action.kind, action.reason)
    text = (
        f"{sentence(reason)}\nNext: {sentence(does)}\nYou can: look at `{asset}` of the country, "
        f"and at what the sensor {product.name}_retraining says."
    )
    return AlertCondition(
        f"{product.name} {country} {asset} of {model}",
        "alarm",
        country,
        f"{product.name} {country}: {what}",
        text,
        *asset_page(product, asset, country),
    )


# A person is needed


def _give_up(product: Product, action: Action) -> AlertCondition:
    about = {name: action.evidence.get(name, "") for name in ("champion", "candidate", "failed")}
    text = (
        f"{sentence(action.reason)}\nNext: nothing is trained there by itself.\nYou can: look at "
        f"the candidates (`mlops-assets decisions {product.name} --country {action.country}`) and "
        f"promote or approve one, or change the product and launch {product.name}_train for the "
        "country: counting begins anew."
    )
    return AlertCondition(
        f"{product.name} {action.country} asks: {action.group}: {digest(about.items())}",
        "give_up",
        action.country,
        f"{product.name} {action.country} needs a person: {action.group}",
        text,
        *asset_page(product, "champion", action.country),
    )


# Rollbacks


def _rollbacks(product: Product, view: RetrainingState) -> Iterator[AlertCondition]:
    for country, past in view.past.items():
        entry = past.newest
        if entry is None or entry.verdict not in _WENT_BACK or entry.origin.person != PERSON:
            continue
        if entry.decided_at < view.now - LOOKS_BACK:
            continue
        before, after = entry.before.champion, entry.after.champion
        serves = f"version {after}" if after else "the baseline"
        text = (
            f"{sentence(entry.comparison.decision.reason)}\nSince: "
            f"{entry.decided_at:%Y-%m-%d %H:%M} UTC.\nNext: {serves} serves; "
            f"version {before} is not promoted again by evidence.\nYou can: undo it with "
            f"`mlops-assets undo {product.name} {entry.origin.change_set} --reason '...'`."
        )
        yield AlertCondition(
            f"{product.name} {country} rollback {entry.decision_id}",
            "rollback",
            country,
            f"{product.name} {country}: version {before} {_WENT_BACK[entry.verdict]} {serves}",
            text,
            *asset_page(product, "champion", country),
        )
