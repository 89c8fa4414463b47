"""The alerts sensor: people are told once of an incident, however often it is looked at.

What was raised and what was sent is in an append-only log of the store, `alerts`: a restart or a
deleted cursor tells nobody twice, and what a sink did not take it gets later.
"""

import datetime as dt
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import dagster as dg
import pandas as pd

from mlops_assets.alerts import Alert, open_sink, sink_name
from mlops_assets.errors import AlertError, StorageError
from mlops_assets.product import Product
from mlops_assets.registry import MlflowRegistry
from mlops_assets.settings import load_settings
from mlops_assets.spec import SinkSpec
from mlops_assets.stages.alerting.deliveries import delivery_conditions
from mlops_assets.stages.alerting.rules import (
    AlertCondition,
    current_incident,
    evaluate_rules,
    together,
)
from mlops_assets.stages.common.base import Storage
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.retraining.state import read_state

ALERT_LOG = "alerts"
_INTERVAL_SECONDS = 30
_MONTHS = 6
"""So far back what was raised counts: an incident that lasts longer is raised again."""
_MOST_A_TICK = 20
_DESCRIPTION = (
    "Tells the sinks of the YAML (`alerts`) of incidents, failed gates, countries that need a "
    "person, failed runs and rollbacks, each once. What a sink does not take it gets later; no "
    "sink waits for another. Start it with the switch on this page."
)


@dataclass(frozen=True)
class Raised:
    """An alert as it stands in the log.

    Attributes:
        alert: what people are told.
        sinks: names of those it is for.
        covers: ids of the conditions it is about.
        sent: names of the sinks that took it.
        over: whether the condition has ended.
    """

    alert: Alert
    sinks: tuple[str, ...]
    covers: frozenset[str]
    sent: frozenset[str] = frozenset()
    over: bool = False


@dataclass(frozen=True)
class _Delivery:
    """What became of the alerts of one sink in a tick."""

    sent: Sequence[str] = field(default_factory=tuple)
    problems: Sequence[str] = field(default_factory=tuple)


def alerts_sensor(product: Product) -> dg.SensorDefinition:
    """Raises alerts and hands them to the product's sinks; it asks for no runs."""

    @dg.sensor(
        name=f"{product.name}_alerts",
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=_DESCRIPTION,
    )
    def alerts(
        context: dg.SensorEvaluationContext, storage: Storage, mlflow: MlflowRegistry
    ) -> dg.SkipReason:
        sinks = product.spec.alerts.sinks
        if not sinks:
            return dg.SkipReason("the product has no sinks (`alerts.sinks`): nobody is told")
        ctx, now = storage.product(product, mlflow.registry()), dt.datetime.now(dt.UTC)
        view = read_state(ctx, context.instance, now)
        plan, held = view.plan(product.spec), read_alerts(ctx, now)
        begun = next((each.alert.id for each in open_incidents(held)), "")
        incident = current_incident(product, plan.incident, begun)
        found = [
            *incident,
            *evaluate_rules(product, view, plan, context.instance),
            *delivery_conditions(ctx, now),
        ]
        raise_new(ctx, held, found, now)
        if not plan.incident:
            _close(ctx, open_incidents(held), now)
        return dg.SkipReason(send_alerts(ctx, read_alerts(ctx, now), context.log))

    return alerts


def read_alerts(ctx: ProductContext, now: dt.datetime) -> dict[str, Raised]:
    """What was raised in the last months, by id, the oldest first."""
    found: dict[str, Raised] = {}
    later: list[Mapping[str, str]] = []
    for month in _months(now):
        for row in _rows(ctx, month):
            if row["event"] == "raised":
                found[row["id"]] = _raised(row)
            else:
                later.append(row)
    for row in later:
        held = found.get(row["id"])
        if held is None:
            continue
        sent = held.sent | {row["sink"]} if row["event"] == "sent" else held.sent
        over = held.over or row["event"] == "over"
        found[row["id"]] = Raised(held.alert, held.sinks, held.covers, sent, over)
    return found


def open_incidents(held: Mapping[str, Raised]) -> list[Raised]:
    """Incidents that were raised and are not over, the oldest first."""
    return [each for each in held.values() if each.alert.kind == "incident" and not each.over]


def raise_new(
    ctx: ProductContext,
    held: Mapping[str, Raised],
    found: Sequence[AlertCondition],
    now: dt.datetime,
) -> None:
    """Write an alert for what nobody was told of yet."""
    known = frozenset[str]().union(*(each.covers for each in held.values()))
    new = [condition for condition in found if condition.id not in known]
    names = [sink_name(sink) for sink in ctx.product.spec.alerts.sinks]
    ui = load_settings().dagster_ui
    for group in together(new):
        alert = group.alert(ctx.product, now, ui)
        row = {"event": "raised", "id": alert.id, "alert": alert.to_json()}
        row |= {"sinks": json.dumps(names), "covers": json.dumps(sorted(group.covers))}
        _append(ctx, row, now)


def send_alerts(ctx: ProductContext, held: Mapping[str, Raised], log: logging.Logger) -> str:
    """Hand every sink what it has not got yet, all sinks at once; says what became of it."""
    sinks = {sink_name(sink): sink for sink in ctx.product.spec.alerts.sinks}
    open_by = {name: _not_sent(held, name) for name in sinks}
    busy = {name: alerts for name, alerts in open_by.items() if alerts}
    if not busy:
        return f"nothing new to tell; {len(held)} alerts of the last {_MONTHS} months were sent"
    with ThreadPoolExecutor(len(busy)) as pool:
        tasks = {
            name: pool.submit(_hand_over, ctx, sinks[name], alerts, log)
            for name, alerts in busy.items()
        }
    return "\n".join(_said(name, len(busy[name]), tasks[name].result()) for name in busy)


def _not_sent(held: Mapping[str, Raised], name: str) -> list[Alert]:
    return [each.alert for each in held.values() if name in each.sinks and name not in each.sent]


def _hand_over(
    ctx: ProductContext,
    spec: SinkSpec,
    alerts: Sequence[Alert],
    log: logging.Logger,
) -> _Delivery:
    """One sink's alerts, in order; one that is refused keeps none of the others."""
    sink, sent, problems = open_sink(spec, log), [], []
    for alert in alerts[:_MOST_A_TICK]:
        try:
            sink.send(alert)
        except AlertError as error:
            problems.append(str(error))
            if not error.culprits.get("reached"):
                break  # the others would wait as long for nothing
            continue
        sent.append(alert.title)
        row = {"event": "sent", "id": alert.id, "sink": sink_name(spec)}
        _append(ctx, row, alert.at)
    return _Delivery(sent, problems)


def _said(name: str, wanted: int, delivery: _Delivery) -> str:
    told = f": {'; '.join(delivery.sent)}" if delivery.sent else ""
    problems = "".join(f" {problem}" for problem in dict.fromkeys(delivery.problems))
    return f"{name}: {len(delivery.sent)} of {wanted} sent{told}.{problems}"


def _close(ctx: ProductContext, incidents: Sequence[Raised], now: dt.datetime) -> None:
    """Note that incidents are over: the next one is another."""
    for each in incidents:
        _append(ctx, {"event": "over", "id": each.alert.id}, now)


# The log

_read: dict[tuple[str, str, str], tuple[frozenset[str], list[dict[str, str]]]] = {}
"""By store, product and month: ids of the entries, which never change, and their rows."""
_COLUMNS = ("event", "id", "sink", "alert", "sinks", "covers", "at")


def _rows(ctx: ProductContext, month: str) -> list[dict[str, str]]:
    asset, key = ctx.path(ALERT_LOG), (ctx.store.uri, ctx.product.name, month)
    ids = frozenset(file.id for file in ctx.store.log_files(asset, month))
    if key not in _read or _read[key][0] != ids:
        frame = ctx.store.read_log(asset, month)
        rows = [
            {str(name): str(text) for name, text in row.items()} for row in frame.to_dict("records")
        ]
        _read[key] = (ids, rows)
    return _read[key][1]


def _append(ctx: ProductContext, row: Mapping[str, str], moment: dt.datetime) -> None:
    """Write one more row unless somebody else wrote the same just now."""
    asset, month = ctx.path(ALERT_LOG), f"{moment:%Y-%m}"
    whole = {name: row.get(name, "") for name in _COLUMNS} | {"at": moment.isoformat()}
    digest = hashlib.sha256("\n".join((row["id"], row.get("sink", ""))).encode()).hexdigest()
    name = f"{row['event']}-{digest[:32]}"
    try:
        ctx.store.append(asset, month, pd.DataFrame([whole]), name=name)
    except StorageError:
        if name not in {file.id for file in ctx.store.log_files(asset, month)}:
            raise


def _raised(row: Mapping[str, str]) -> Raised:
    return Raised(
        Alert.from_json(row["alert"]),
        tuple(json.loads(row["sinks"])),
        frozenset(json.loads(row["covers"])),
    )


def _months(now: dt.datetime) -> list[str]:
    """The newest months as the log is divided, the oldest first."""
    last = pd.Period(now.strftime("%Y-%m"), "M")
    return [str(last - back) for back in range(_MONTHS - 1, -1, -1)]
