"""What a proposal says to the person who may adopt it: the YAML, later whether it was done."""

from __future__ import annotations

import datetime as dt
import textwrap

import pandas as pd

from mlops_assets.ml.backtest.proposal import Proposal
from mlops_assets.ml.backtest.space import Changes, differing, yaml_word
from mlops_assets.spec import ProductSpec

OLD_DAYS = 90
"""Days of newer data after which a proposal is old, if the tail that judged it was not longer."""
_WIDTH = 96


def snippet(product: str, metric: str, proposal: Proposal, made: dt.date) -> str:
    """The keys to change as YAML, indented for `attributes` of a defs.yaml, with their worth.

    Args:
        product: its name.
        metric: of the product.
        proposal: one that changes something.
        made: when.
    """
    worth = (
        f"Proposed on {made} by `mlops-assets backtest {product} --propose`. Judged on "
        f"{proposal.tail_from:%Y-%m-%d} to {proposal.until:%Y-%m-%d}, which was not searched: "
        f"{metric} {proposal.proposed.value:.4g} instead of {proposal.in_use.value:.4g}; "
        f"{proposal.reason}."
    )
    lines = [f"# {line}" for line in textwrap.wrap(worth, _WIDTH)]
    for section, values in proposal.changes.items():
        lines.append(f"{section}:")
        lines += [f"  {key}: {yaml_word(value)}" for key, value in values.items()]
    return textwrap.indent("\n".join(lines), "  ") + "\n"


def not_adopted(spec: ProductSpec, changes: Changes) -> Changes:
    """What of a proposal a product does not have.

    Keys that the product has no more, since a later release dropped them, are left out.
    """
    known = {
        section: {k: v for k, v in values.items() if k in type(getattr(spec, section)).model_fields}
        for section, values in changes.items()
        if section in ProductSpec.model_fields
    }
    return differing(spec, known)


def is_old(tail_from: pd.Timestamp, until: pd.Timestamp, newest: pd.Timestamp) -> bool:
    """Whether more data came after a proposal than judged it, and `OLD_DAYS` at least.

    Args:
        tail_from: begin of the tail.
        until: its end.
        newest: event there is today.
    """
    return newest - until > max(until - tail_from, pd.Timedelta(days=OLD_DAYS))
