"""Runs that retraining asks for: their tags, and how the same request never runs twice.

What was asked for is in the runs. Whoever asks looks there first; two that ask in the same moment
are told apart when their runs start.
"""

from collections.abc import Mapping

import dagster as dg

from mlops_assets.ml.retraining import Action, PooledAsk
from mlops_assets.product import Product
from mlops_assets.stages.decisions import TRIGGER_TAG

REQUEST = "mlops_assets/request"
"""Tag of a run: what identifies the request for ever."""
ASKED_BY = "mlops_assets/asked_by"
"""Tag of a run that no person asked for: who did."""
CAUSE = "mlops_assets/cause"
"""Tag of a run: why a country is trained again, in a word, or `rollback`, or `pooled`."""
COUNTRY = "mlops_assets/country"
DUPLICATE = "mlops_assets/duplicate_of"
"""Tag of a run that left its work to an older run of the same request: that run's id."""
ASKED = "mlops_assets/asked_"
"""Beginning of the tags with the key of each thing that a run answers, by cause."""
EVIDENCE = "mlops_assets/evidence_"
"""Beginning of the tags with the names of what a request was decided on."""
SENSOR = "retraining sensor"
SCHEDULE = "periodic schedule"
ASKERS = (SENSOR, SCHEDULE)
"""Who asks; the triggers of what they ask for begin so."""
PERSON = SENSOR
"""Who asks for a rollback that no person asked for."""
ROLLBACK = "rollback"
POOLED = "pooled"
"""Job of the pooled models, and the cause of the runs of it that the sensor asks for."""
_LONGEST_TAG = 1000  # characters
_PARTITION = "dagster/partition"


def tags_of(product: Product, action: Action, who: str) -> dict[str, str]:
    """Tags of the run of a `retrain` or `rollback` action: its trigger and evidence.

    Args:
        product: of the country.
        action: what is asked for.
        who: asks, such as `retraining sensor`.
    """
    cause = action.cause or ROLLBACK
    named = ", ".join(f"{name} {value}" for name, value in action.evidence.items())
    words = f"{who}: {cause}: {action.reason}"[:_LONGEST_TAG]
    tags = {
        "product": product.name,
        TRIGGER_TAG: f"{words} (on {named})" if named else words,
        REQUEST: named_key(product, action.key),
        ASKED_BY: who,
        CAUSE: cause,
        COUNTRY: action.country,
    }
    asked = {
        f"{ASKED}{cause_of_key(action.country, key)}": named_key(product, key)
        for key in action.covers
    }
    evidence = {f"{EVIDENCE}{name}": value for name, value in action.evidence.items()}
    return {**tags, **asked, **evidence}


def tags_of_pooled(product: Product, ask: PooledAsk, who: str) -> dict[str, str]:
    """Tags of a run that trains the pooled models before countries are trained.

    Args:
        product: of the models.
        ask: for them.
        who: asks, such as `retraining sensor`.
    """
    return {
        "product": product.name,
        TRIGGER_TAG: f"{who}: {ask.reason}"[:_LONGEST_TAG],
        REQUEST: named_key(product, ask.key),
        ASKED_BY: who,
        CAUSE: POOLED,
    }


def cause_of_key(country: str, key: str) -> str:
    """The cause that a key of `retraining.asks` names after its country."""
    return key.removeprefix(f"{country} ").split(" ", 1)[0]


def named_key(product: Product, key: str) -> str:
    """A key as the tags of runs hold it: countries have the same names in every product."""
    return f"{product.name} {key}"


def country_of(tags: Mapping[str, str]) -> str:
    """The country a run is about; "" for none or many."""
    return tags.get(_PARTITION) or tags.get(COUNTRY, "")


def leave_to_the_older(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> None:
    """End a run whose request an older run has; a run that nobody requested goes on.

    Raises:
        dg.Failure: there is an older one, whatever became of it: another attempt is another
            request. A run that a person started again from this one goes on.
    """
    request = context.run.tags.get(REQUEST)
    if request is None or context.run.parent_run_id is not None:
        return
    records = context.instance.get_run_records(dg.RunsFilter(tags={REQUEST: request}))
    older = min(records, key=lambda record: record.storage_id).dagster_run.run_id
    if older != context.run.run_id:
        context.instance.add_run_tags(context.run.run_id, {DUPLICATE: older})
        raise dg.Failure(
            f"Run {older} was asked for the same before: {request}. This run made nothing; there "
            "is nothing to do.",
            allow_retries=False,
        )
