"""Promotions that wait for a person, and what becomes of them when one approves."""

from collections.abc import Sequence
from dataclasses import replace

from mlops_assets.registry import Aliases
from mlops_assets.stages.common.context import CountryContext
from mlops_assets.stages.promotion.alias_moves import (
    APPROVAL_REASON,
    APPROVED_BY,
    approval_of,
    waiting,
)
from mlops_assets.stages.promotion.decision_log import Entry, Origin, append, now


def approved(held: Entry, origin: Origin, reason: str, before: Aliases) -> Entry:
    """The promotion that follows from a waiting decision and a person's word; not recorded yet.

    Args:
        held: the waiting decision.
        origin: who approves.
        reason: why.
        before: what the aliases name now.
    """
    about = held.comparison
    text = f"approved by {origin.person}: {reason or 'no reason given'}. {about.decision.reason}"
    decision = replace(about.decision, verdict="promoted", reason=text)
    return Entry(
        replace(about, decision=decision),
        f"{held.decision_id}-approved",
        now(),
        origin,
        before=before,
        after=before.moved_to(about.candidate),
    )


def approve_by_tag(ctx: CountryContext, log: Sequence[Entry], origin: Origin) -> Entry | None:
    """Record the promotion of the waiting version, if a person's tag in MLflow approves it."""
    held, version = waiting(log), approval_of(ctx, log)
    if held is None or version is None:
        return None
    told = replace(
        origin, trigger=f"tag {APPROVED_BY} in MLflow", person=version.tags[APPROVED_BY].strip()
    )
    entry = approved(held, told, version.tags.get(APPROVAL_REASON, "").strip(), ctx.aliases())
    append(ctx.whole, entry)
    return entry
