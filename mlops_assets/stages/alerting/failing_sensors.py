"""Sensors that fail: the one thing they cannot tell themselves."""

import datetime as dt

import dagster as dg

from mlops_assets.product import Product
from mlops_assets.stages.alerting.conditions import AlertCondition, digest, sentence
from mlops_assets.stages.common.history.automation import (
    ALERTS,
    FailingAutomation,
    automation_names,
    failing_automation,
)
from mlops_assets.stages.common.history.run_history import first_line

_LONGEST_ERROR = 500  # characters
_TICKS = {"sensor": 2, "schedule": 1}
"""So many failed in a row are told: a sensor ticks again in seconds, a schedule in days."""


def failing_sensors(product: Product, instance: dg.DagsterInstance) -> list[AlertCondition]:
    """Sensors and schedules of a product that fail, and the alerts of others that do.

    Whose alerts fail tells nobody; the sinks of every other product do. One that is declared no
    more has nobody who could see to it.
    """
    declared = product.folder.parent.glob("*/defs.yaml")
    others = {f"{each.parent.name}_{ALERTS}" for each in declared}
    mine = f"{product.name}_{ALERTS}"  # says itself what it cannot look at
    found = failing_automation(instance, {*automation_names(product), *others} - {mine})
    return [_condition(product, each) for each in found if each.ticks >= _TICKS[each.kind]]


def cannot_look(product: Product, what: str, error: Exception, now: dt.datetime) -> AlertCondition:
    """The alerts sensor could not look at something: told once a day, and the rest is told as ever.

    Args:
        product: whose.
        what: it could not look at.
        error: why.
        now: with time zone.
    """
    name, kind = f"{product.name}_{ALERTS}", type(error).__name__
    problem = first_line(f"{what} cannot be looked at: {kind}: {error}", _LONGEST_ERROR)
    text = (
        f"{sentence(problem)}\nNext: everything else is told as before; its ticks are marked as "
        f"failed until it can look.\nYou can: look at the ticks of {name} under Automation, "
        "which have the whole error."
    )
    return AlertCondition(
        f"{name} cannot look: {digest([what, kind, now.date()])}",
        "sensor",
        "",
        f"{product.name}: alerts cannot be raised of everything",
        text,
        "/automation",
        f"sensor {name}",
    )


def _condition(product: Product, failing: FailingAutomation) -> AlertCondition:
    text = (
        f"{sentence(failing.describe())}\nNext: it is tried again at its next tick; until then "
        "nothing that it does is done.\nYou can: look at its ticks under Automation, which have "
        "the whole error, and at `mlops-assets doctor`."
    )
    return AlertCondition(
        f"{product.name}: {failing.name} fails since {failing.since.isoformat()}",
        "sensor",
        "",
        f"{product.name}: the {failing.kind} {failing.name} fails",
        text,
        "/automation",
        f"{failing.kind} {failing.name}",
    )
