"""What people are told of: incidents, failed gates, countries that need a person, failed runs."""

import datetime as dt
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import dagster as dg

from mlops_assets.alerts import Alert, AlertKind
from mlops_assets.ml.retraining.plan import Action, Incident, RetrainingPlan
from mlops_assets.product import Product
from mlops_assets.stages.common.base import asset_key
from mlops_assets.stages.common.failures import failure_text
from mlops_assets.stages.common.runs import DUPLICATE, PARTITION, PERSON, country_of
from mlops_assets.stages.retraining.state import DecisionHistory, RetrainingState

LOOKS_BACK = dt.timedelta(days=3)
"""Runs that failed and rollbacks that were done before that are no news."""
_AS_ONE = 3
"""So many of a kind at once are told one by one; more of them together."""
_HISTORY = 50
_LONGEST_ERROR = 500  # characters


@dataclass(frozen=True)
class OfPartition:
    """What Dagster's history of a check is narrowed by; its own class for it is not exported.

    Attributes:
        key: of the partition.
    """

    key: str


@dataclass(frozen=True)
class AlertCondition:
    """Something that people are told of once.

    Attributes:
        id: the same as long as it lasts.
        kind: of the alert.
        country: it is about; "" for several.
        title: in one line.
        text: what happened, what happens next, what a person can do.
        page: path of the page of Dagster that shows it.
        place: the same in words, where no address of Dagster is known.
    """

    id: str
    kind: AlertKind
    country: str
    title: str
    text: str
    page: str
    place: str


@dataclass(frozen=True)
class Group:
    """Conditions of one kind that are told together."""

    conditions: Sequence[AlertCondition] = field(default_factory=tuple)

    @property
    def covers(self) -> frozenset[str]:
        """Their ids."""
        return frozenset(each.id for each in self.conditions)

    def alert(self, product: Product, now: dt.datetime, ui: str) -> Alert:
        """As people are told.

        Args:
            product: it is about.
            now: when it is raised.
            ui: address of Dagster; "" when it is not known.
        """
        first = self.conditions[0]
        alone = len(self.conditions) == 1
        return Alert(
            id=first.id if alone else f"together {_digest(self.covers)}",
            product=product.name,
            country=first.country if alone else "",
            kind=first.kind,
            title=first.title if alone else self._title(product),
            text=first.text if alone else "\n".join(f"- {each.title}" for each in self.conditions),
            owners=tuple(product.spec.owners),
            link=f"{ui}{first.page}" if ui else first.place,
            at=now,
        )

    def _title(self, product: Product) -> str:
        what = {
            "gate": "gates failed",
            "give_up": "countries need a person",
            "delivery": "deliveries need a person",
            "failed_run": "runs failed",
            "rollback": "models were rolled back",
            "incident": "incidents",
            "alarm": "alarms of countries",
        }[self.conditions[0].kind]
        return f"{product.name}: {len(self.conditions)} {what}"


def together(found: Sequence[AlertCondition]) -> list[Group]:
    """Few of a kind one by one, many of a kind as one: an outage is one message."""
    kinds = dict.fromkeys(each.kind for each in found)
    groups = []
    for kind in kinds:
        alike = [each for each in found if each.kind == kind]
        many = len(alike) > _AS_ONE
        groups += [Group(tuple(alike))] if many else [Group((each,)) for each in alike]
    return groups


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
        f"{_sentence(incident.reason)}\nSince: {incident.since:%Y-%m-%d}.\nCountries: "
        f"{', '.join(incident.countries)}.\nNext: {does}.\nYou can: {can}."
    )
    what = "something before the models looks wrong" if incident.holds else "the world changed"
    title = f"{product.name}: {len(incident.countries)} countries alarm at once, {what}"
    return [
        AlertCondition(
            f"{name}: {incident.kind}", "incident", "", title, text, *asset_page(product, "drift")
        )
    ]


def evaluate_rules(
    product: Product, view: RetrainingState, plan: RetrainingPlan, instance: dg.DagsterInstance
) -> list[AlertCondition]:
    """What people are told of now, beside incidents of most countries."""
    return [
        *_alarms(product, view, plan),
        *(_give_up(product, each) for each in plan.actions if each.kind == "ask"),
        *_rollbacks(product, view),
        *_failed_runs(product, view, instance),
    ]


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
        "going_on": "a training of it is going on",
        "nothing": "nothing: `retraining` of the YAML has it switched off",
    }.get(action.kind, action.reason)
    text = (
        f"{_sentence(reason)}\nNext: {_sentence(does)}\nYou can: look at `{asset}` of the country, "
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
        f"{_sentence(action.reason)}\nNext: nothing is trained there by itself.\nYou can: look at "
        f"the candidates (`mlops-assets decisions {product.name} --country {action.country}`) and "
        f"promote or approve one, or change the product and launch {product.name}_train for the "
        "country: counting begins anew."
    )
    return AlertCondition(
        f"{product.name} {action.country} asks: {action.group}: {_digest(about.items())}",
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
        if entry is None or entry.verdict != "rolled_back" or entry.origin.person != PERSON:
            continue
        if entry.decided_at < view.now - LOOKS_BACK:
            continue
        before, after = entry.before.champion, entry.after.champion
        text = (
            f"{_sentence(entry.comparison.decision.reason)}\nSince: "
            f"{entry.decided_at:%Y-%m-%d %H:%M} UTC.\nNext: version {after or 'none'} serves; "
            f"version {before} is not promoted again by evidence.\nYou can: undo it with "
            f"`mlops-assets undo {product.name} {entry.origin.change_set} --reason '...'`."
        )
        yield AlertCondition(
            f"{product.name} {country} rollback {entry.decision_id}",
            "rollback",
            country,
            f"{product.name} {country}: version {before} was rolled back to {after or 'none'}",
            text,
            *asset_page(product, "champion", country),
        )


# Failed runs and gates

_known_failures: dict[tuple[str, str], list[AlertCondition]] = {}
"""By product and id of a run that has failed: what people are told of it."""


def _failed_runs(
    product: Product, view: RetrainingState, instance: dg.DagsterInstance
) -> Iterator[AlertCondition]:
    failed = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.FAILURE], updated_after=view.now - LOOKS_BACK
    )
    for record in reversed(instance.get_run_records(failed)):
        run = record.dagster_run
        if not _is_of(product, run) or DUPLICATE in run.tags:
            continue
        key = (product.name, run.run_id)
        if key not in _known_failures:
            _known_failures[key] = list(_of_run(product, view.past, instance, record))
        yield from _known_failures[key]


def _is_of(product: Product, run: dg.DagsterRun) -> bool:
    keys = run.asset_selection or ()
    return run.tags.get("product") == product.name or any(
        key.path[0] == product.name for key in keys
    )


def _of_run(
    product: Product,
    past: Mapping[str, DecisionHistory],
    instance: dg.DagsterInstance,
    record: dg.RunRecord,
) -> Iterator[AlertCondition]:
    gates = list(_failed_gates(product, instance, record.dagster_run))
    if gates:
        yield from gates
        return
    run, first = record.dagster_run, _first_of_streak(instance, record)
    country = country_of(run.tags)
    name = f"{product.name} {country}".strip()
    text = (
        f"{_sentence(_error_of(instance, run))}\nSince: run {first}.\nNext: the last good data and "
        "the model in use stay as they were; retraining that failed is tried again up to three "
        "times.\nYou can: look at the run, repair the cause and launch it again."
    )
    yield AlertCondition(
        f"{name} {run.job_name} fails since {first}",
        "failed_run",
        country,
        f"{name}: a run of {run.job_name} failed",
        text,
        f"/runs/{run.run_id}",
        f"Dagster run {run.run_id}",
    )


def _first_of_streak(instance: dg.DagsterInstance, record: dg.RunRecord) -> str:
    """The first of the runs of the same job and country that have failed since one went well."""
    run, partition = record.dagster_run, record.dagster_run.tags.get(PARTITION)
    alike = dg.RunsFilter(job_name=run.job_name, tags={PARTITION: partition} if partition else None)
    first = run.run_id
    for each in instance.get_run_records(alike, limit=_HISTORY):
        if each.storage_id >= record.storage_id or DUPLICATE in each.dagster_run.tags:
            continue
        if each.dagster_run.tags.get(PARTITION) != partition:
            continue
        if each.dagster_run.status != dg.DagsterRunStatus.FAILURE:
            break
        first = each.dagster_run.run_id
    return first


def _failed_gates(
    product: Product, instance: dg.DagsterInstance, run: dg.DagsterRun
) -> Iterator[AlertCondition]:
    events = instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ).records
    for event in events:
        dagster_event = event.event_log_entry.dagster_event
        assert dagster_event is not None
        found = dagster_event.asset_check_evaluation_data
        if found.passed or found.severity != dg.AssetCheckSeverity.ERROR:
            continue
        country = found.partition or run.tags.get(PARTITION, "")
        yield _gate(product, instance, run, found, country=country)


def _gate(
    product: Product,
    instance: dg.DagsterInstance,
    run: dg.DagsterRun,
    found: dg.AssetCheckEvaluation,
    *,
    country: str,
) -> AlertCondition:
    asset, check = found.asset_key.path[-1], found.check_name
    first = _failing_since(instance, found, country, run.run_id)
    what = (
        "the candidate is kept aside and the model in use stays"
        if asset == "model"
        else f"`{asset}` stays as it was last, and so does all that is made from it"
    )
    text = (
        f"{asset}.{check}: {_sentence(found.description or 'it failed')}\nSince: run {first}.\n"
        f"Next: {what}; the next run of the country looks again.\nYou can: look at the check, and "
        "repair what it names."
    )
    return AlertCondition(
        f"{product.name} {country} {asset}.{check} fails since {first}",
        "gate",
        country,
        f"{product.name} {country}: gate {asset}.{check} failed",
        text,
        *asset_page(product, asset, country),
    )


def _failing_since(
    instance: dg.DagsterInstance, found: dg.AssetCheckEvaluation, country: str, run_id: str
) -> str:
    """The run in which the check failed first since it passed last, up to a run."""
    storage: Any = instance.event_log_storage
    history = storage.get_asset_check_execution_history(
        dg.AssetCheckKey(found.asset_key, found.check_name),
        limit=_HISTORY,
        partition_filter=OfPartition(country) if country else None,
    )
    first, reached = run_id, False
    for each in history:
        reached = reached or each.run_id == run_id
        if not reached or each.evaluation is None:
            continue
        if each.evaluation.passed:
            break
        first = each.run_id
    return first


def _error_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """The first error of a failed run, in its first line."""
    wanted = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    for each in instance.get_records_for_run(run.run_id, of_type=wanted).records:
        event = each.event_log_entry.dagster_event
        if event is not None and event.is_step_failure:
            return _first_line(failure_text(event) or "a step failed")
        if event is not None and event.message:
            return _first_line(event.message)
    return "the run failed without saying why"


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:_LONGEST_ERROR]


# Pages and words


def asset_page(product: Product, asset: str, country: str = "") -> tuple[str, str]:
    """Path of an asset's page in Dagster, and the asset in words."""
    key = "/".join(quote(part) for part in asset_key(product, asset).path)
    partition = f"?view=partitions&partition={quote(country)}" if country else ""
    place = f"asset {product.name}/{asset}" + (f", partition {country}" if country else "")
    return f"/assets/{key}{partition}", place


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _digest(parts: object) -> str:
    named = "\n".join(sorted(map(str, parts)))  # pyright: ignore[reportArgumentType]
    return hashlib.sha256(named.encode()).hexdigest()[:16]
