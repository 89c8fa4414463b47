"""The append-only log of a product's proposals, and whether its YAML is behind the last one."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mlops_assets.ml.backtest.adoption import is_old, not_adopted
from mlops_assets.ml.backtest.proposal import Proposal
from mlops_assets.ml.backtest.space import Changes, described
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.common.readable import read_readable

PROPOSAL_LOG = "proposals"


@dataclass(frozen=True)
class StoredProposal:
    """A proposal as it is recorded.

    Attributes:
        made_at: when, UTC.
        changes: what was proposed, as far as it differed from the policy then in use.
        adopt: whether the tail said that it is better.
        reason: why, in a sentence.
        tail_from: begin of the tail.
        until: its end.
    """

    made_at: dt.datetime
    changes: Changes
    adopt: bool
    reason: str
    tail_from: pd.Timestamp
    until: pd.Timestamp


def store_proposal(
    ctx: ProductContext,
    proposal: Proposal,
    made_at: dt.datetime,
    settings: Mapping[str, Any],
    *,
    yaml: str,
) -> str:
    """Append a proposal to the product's log.

    Args:
        ctx: of the product.
        proposal: what was found.
        made_at: when, UTC.
        settings: what was searched with: step, countries, most, minutes, seconds taken; JSON.
        yaml: to adopt; "" for none.

    Returns:
        The id of the entry.
    """
    ours, theirs = proposal.proposed, proposal.in_use
    row = {
        "made_at": made_at,
        "begin": proposal.begin,
        "tail_from": proposal.tail_from,
        "until": proposal.until,
        "adopt": proposal.adopt,
        "reason": proposal.reason,
        "changes": json.dumps(proposal.changes),
        "metric": ctx.spec.metric,
        "value": ours.value,
        "value_in_use": theirs.value,
        "gain": proposal.gain.value,
        "gain_low": proposal.gain.lower,
        "gain_high": proposal.gain.upper,
        "trainings": ours.trainings,
        "trainings_in_use": theirs.trainings,
        "rows": ours.rows,
        "drawn": proposal.drawn,
        "searched": len(proposal.search),
        "settings": json.dumps(dict(settings)),
        "spec_hash": ctx.spec.config_hash(),
        "features": json.dumps(_features(ctx)),
        "yaml": yaml,
    }
    return ctx.store.append(ctx.path(PROPOSAL_LOG), None, pd.DataFrame([row]))


def _features(ctx: ProductContext) -> dict[str, str]:
    """Which snapshots it was made from, by country."""
    return {country: made.version for country, made in ctx.current_all("features").items()}


def last_proposal(ctx: ProductContext) -> StoredProposal | None:
    """The newest one; None if none was made."""
    log = ctx.store.read_log(ctx.path(PROPOSAL_LOG), None, last=1)
    if log.empty:
        return None
    row = log.iloc[-1]
    return StoredProposal(
        made_at=row["made_at"].to_pydatetime(),
        changes=json.loads(row["changes"]),
        adopt=bool(row["adopt"]),
        reason=str(row["reason"]),
        tail_from=row["tail_from"],
        until=row["until"],
    )


def policy_behind(ctx: ProductContext) -> str:
    """Why the product's policy is behind its last proposal, in a line.

    "" when it is not: none was made, the last one found nothing better, or the YAML has it.
    """
    last = last_proposal(ctx)
    if last is None or not last.adopt:
        return ""
    missing = not_adopted(ctx.spec, last.changes)
    if not missing:
        return ""
    told = (
        f"the policy is behind the proposal of {last.made_at:%Y-%m-%d}, which has "
        f"{described(missing)}: {last.reason}"
    )
    newest = _newest_event(ctx)
    if newest is not None and is_old(last.tail_from, last.until, newest):
        days = (newest - last.until).days
        told += (
            f"; it knows nothing of the {days} days of data since {last.until:%Y-%m-%d}: "
            f"`mlops-assets backtest {ctx.name} --propose` looks again"
        )
    return told


def _newest_event(ctx: ProductContext) -> pd.Timestamp | None:
    """Of the features there are; None without any that can be read."""

    def times(countries: Any) -> dict[str, pd.DataFrame]:
        return ctx.store.read_all(ctx.path("features"), countries, columns=["event_time"])

    frames = read_readable(ctx.countries, times).found.values()
    return max((frame["event_time"].max() for frame in frames if len(frame)), default=None)
