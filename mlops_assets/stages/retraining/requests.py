"""Runs that retraining asks for: their tags."""

from typing import get_args

from mlops_assets.ml.retraining.plan import Action, PooledAsk
from mlops_assets.product import Product
from mlops_assets.spec import Cause
from mlops_assets.stages.common.runs import (
    ASKED,
    ASKED_BY,
    CAUSE,
    COUNTRY,
    EVIDENCE_TAG,
    POOLED_JOB,
    REQUEST,
    TRIGGER,
)

_LONGEST_TAG = 1000  # characters


def tags_of(product: Product, action: Action, who: str) -> dict[str, str]:
    """Tags of the run of a `retrain`, `rollback` or `withdraw` action: its trigger and evidence.

    Args:
        product: of the country.
        action: what is asked for.
        who: asks, such as `retraining sensor`.
    """
    cause = action.cause or action.kind
    named = ", ".join(f"{name} {value}" for name, value in action.evidence.items())
    words = f"{who}: {cause}: {action.reason}"[:_LONGEST_TAG]
    tags = {
        "product": product.name,
        TRIGGER: f"{words} (on {named})" if named else words,
        REQUEST: named_key(product, action.key),
        ASKED_BY: who,
        CAUSE: cause,
        COUNTRY: action.country,
    }
    asked = {
        f"{ASKED}{cause_of_key(action.country, key)}": named_key(product, key)
        for key in action.covers
    }
    evidence = {f"{EVIDENCE_TAG}{name}": value for name, value in action.evidence.items()}
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
        TRIGGER: f"{who}: {ask.reason}"[:_LONGEST_TAG],
        REQUEST: named_key(product, ask.key),
        ASKED_BY: who,
        CAUSE: POOLED_JOB,
    }


def cause_of_key(country: str, key: str) -> str:
    """The cause that a key of `retraining.asks` names after its country."""
    return key.removeprefix(f"{country} ").split(" ", 1)[0]


def cause_of_trigger(trigger: str) -> str:
    """The cause in the trigger that `tags_of` writes; "" in one that is not its own."""
    parts = trigger.split(": ", 2)
    return parts[1] if len(parts) > 1 and parts[1] in get_args(Cause) else ""


def named_key(product: Product, key: str) -> str:
    """A key as the tags of runs hold it: countries have the same names in every product."""
    return f"{product.name} {key}"
