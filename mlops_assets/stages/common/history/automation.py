"""Sensors and schedules that fail: what they should have asked for or told, nobody hears."""

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from mlops_assets.product import Product
from mlops_assets.stages.common.history.run_history import first_line

ALERTS = "alerts"
_OF_PRODUCT = ("landing", "retraining", ALERTS, "periodic", "pooled_periodic", "shared_periodic")
_HISTORY = 50
_APART = 0.01  # seconds; ticks of one sensor are further from each other
_LONGEST_ERROR = 300  # characters


@dataclass(frozen=True)
class FailingAutomation:
    """A sensor or schedule that is on and whose newest ticks failed.

    Attributes:
        name: such as `power_price_alerts`.
        kind: sensor or schedule.
        since: when the first of these ticks was, UTC.
        ticks: how many failed in a row; 50 stand for 50 or more.
        error: of the newest, in a line.
    """

    name: str
    kind: str
    since: dt.datetime
    ticks: int
    error: str

    def describe(self) -> str:
        """In a sentence."""
        count = f"{self.ticks} or more" if self.ticks >= _HISTORY else str(self.ticks)
        times = f"{count} ticks in a row" if self.ticks > 1 else "its newest tick"
        return (
            f"the {self.kind} {self.name} fails since {self.since:%Y-%m-%d %H:%M} UTC ({times}): "
            f"{self.error}"
        )


def automation_names(product: Product) -> list[str]:
    """The sensors and schedules that a product may have."""
    return [f"{product.name}_{part}" for part in _OF_PRODUCT]


def switched_on(instance: dg.DagsterInstance, names: Collection[str]) -> list[Any]:
    """What Dagster holds of those of the named sensors and schedules that a person switched on."""
    return [
        state
        for state in instance.all_instigator_state()
        if state.name in names and state.status.value == "RUNNING"
    ]


def failing_automation(
    instance: dg.DagsterInstance, names: Collection[str]
) -> list[FailingAutomation]:
    """Those of the named sensors and schedules that are on and fail, in the order of their names.

    Args:
        instance: whose history.
        names: of sensors and schedules; those that were never switched on are no news.
    """
    found = (_failing(instance, state) for state in switched_on(instance, names))
    return sorted((each for each in found if each), key=lambda each: each.name)


def _failing(instance: dg.DagsterInstance, state: Any) -> FailingAutomation | None:
    failed = _failed_in_a_row(_ended_ticks(instance, state, 2))
    if not failed:
        return None
    failed = _failed_in_a_row(_ended_ticks(instance, state, _HISTORY + 1))[:_HISTORY]
    since = failed[-1].timestamp
    if len(failed) == _HISTORY:
        since = _first_failed(instance, state, failed[-1])
    error = failed[0].error
    told = (error.cause or error).message if error else ""
    return FailingAutomation(
        state.name,
        state.instigator_type.value.lower(),
        dt.datetime.fromtimestamp(since, dt.UTC),
        len(failed),
        first_line(told, _LONGEST_ERROR) or "without saying why",
    )


def _ended_ticks(instance: dg.DagsterInstance, state: Any, limit: int) -> list[Any]:
    """The newest ticks, newest first, without one that is going on."""
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=limit)
    return [each for each in ticks if each.status.value != "STARTED"]


def _first_failed(instance: dg.DagsterInstance, state: Any, known: Any) -> float:
    """When the first tick failed after the last that went well; by halves, as it may be weeks ago.

    Args:
        instance: whose history.
        state: of the sensor or schedule.
        known: one of these ticks.
    """
    statuses = type(known.status)

    def newest(before: float, after: float | None, *wanted: Any) -> float | None:
        found = instance.get_ticks(
            state.instigator_origin_id,
            state.selector_id,
            before=before,
            after=after,
            limit=1,
            statuses=list(wanted),
        )
        return found[0].timestamp if found else None

    good = newest(known.timestamp, None, statuses.SUCCESS, statuses.SKIPPED) or 0.0
    first = newest(known.timestamp, good, statuses.FAILURE) or known.timestamp
    while first - good > _APART and newest(first, good, statuses.FAILURE) is not None:
        middle = (good + first) / 2
        earlier = newest(middle, good, statuses.FAILURE)
        # Neither end of a search is in it: a tick in the very middle would be lost.
        first, good = (earlier, good) if earlier else (first, middle - _APART / 4)
    return first


def _failed_in_a_row(ticks: Sequence[Any]) -> list[Any]:
    found = []
    for tick in ticks:
        if tick.status.value != "FAILURE":
            break
        found.append(tick)
    return found
