"""Runs that failed, and the gates that stopped them: each told once, by what failed first."""

import datetime as dt
from collections.abc import Iterator

import dagster as dg

from mlops_assets.product import Product
from mlops_assets.stages.alerting.conditions import (
    LOOKS_BACK,
    AlertCondition,
    asset_page,
    sentence,
)
from mlops_assets.stages.common.history.run_history import (
    EvaluatedCheck,
    error_of,
    evaluated_checks,
    past_results,
)
from mlops_assets.stages.common.runs import DUPLICATE, PARTITION, country_of

_HISTORY = 50
_LONGEST_ERROR = 500  # characters

_known_failures: dict[tuple[str, str], list[AlertCondition]] = {}
"""By product and id of a run that has failed: what people are told of it."""


def failed_since(
    product: Product, instance: dg.DagsterInstance, now: dt.datetime
) -> list[dg.RunRecord]:
    """Runs of a product that failed lately, the oldest first; doubles of others left out.

    Args:
        product: whose.
        instance: whose history.
        now: with time zone.
    """
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=now - LOOKS_BACK)
    return [
        record
        for record in reversed(instance.get_run_records(failed))
        if _is_of(product, record.dagster_run) and DUPLICATE not in record.dagster_run.tags
    ]


def conditions_of_run(
    product: Product, instance: dg.DagsterInstance, record: dg.RunRecord
) -> list[AlertCondition]:
    """What people are told of a run that failed: the gates that stopped it, else its error."""
    key = (product.name, record.dagster_run.run_id)
    if key not in _known_failures:
        gates = list(_failed_gates(product, instance, record.dagster_run))
        _known_failures[key] = gates or [_failed_run(product, instance, record)]
    return _known_failures[key]


def _is_of(product: Product, run: dg.DagsterRun) -> bool:
    keys = run.asset_selection or ()
    return run.tags.get("product") == product.name or any(
        key.path[0] == product.name for key in keys
    )


def _failed_run(
    product: Product, instance: dg.DagsterInstance, record: dg.RunRecord
) -> AlertCondition:
    run, first = record.dagster_run, _first_of_streak(instance, record)
    country = country_of(run.tags)
    name = f"{product.name} {country}".strip()
    text = (
        f"{sentence(error_of(instance, run.run_id, _LONGEST_ERROR))}\nSince: run {first}.\nNext: "
        "the last good data and the model in use stay as they were; retraining that failed is "
        "tried again up to three times.\nYou can: look at the run, repair the cause and launch it "
        "again."
    )
    return AlertCondition(
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
    for found in evaluated_checks(instance, run.run_id, run.tags.get(PARTITION, "")):
        if found.stops:
            yield _gate(product, instance, found)


def _gate(product: Product, instance: dg.DagsterInstance, found: EvaluatedCheck) -> AlertCondition:
    asset, check = found.result.asset_key.path[-1], found.result.check_name
    first = _failing_since(instance, found)
    what = (
        "the candidate is kept aside and the model in use stays"
        if asset == "model"
        else f"`{asset}` stays as it was last, and so does all that is made from it"
    )
    text = (
        f"{asset}.{check}: {sentence(found.result.description or 'it failed')}\nSince: run "
        f"{first}.\nNext: {what}; the next run of the country looks again.\nYou can: look at the "
        "check, and repair what it names."
    )
    return AlertCondition(
        f"{product.name} {found.country} {asset}.{check} fails since {first}",
        "gate",
        found.country,
        f"{product.name} {found.country}: gate {asset}.{check} failed",
        text,
        *asset_page(product, asset, found.country),
    )


def _failing_since(instance: dg.DagsterInstance, found: EvaluatedCheck) -> str:
    """The run in which the check failed first since it passed last, up to the run it is of."""
    key = dg.AssetCheckKey(found.result.asset_key, found.result.check_name)
    first, reached = found.run_id, False
    for each in past_results(instance, key, found.country):
        reached = reached or each.run_id == found.run_id
        if not reached:
            continue
        if each.result.passed:
            break
        first = each.run_id
    return first
