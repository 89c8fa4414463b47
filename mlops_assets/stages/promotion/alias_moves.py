"""One country's champion: what is recorded, what the registry names, and making the two agree.

A decision is recorded first and the champion alias moves last. Whoever comes next finds a recorded
move that was not carried out and carries it out.
"""

from collections.abc import Sequence

from mlops_assets.registry import ModelVersion
from mlops_assets.stages.common.context import CountryContext
from mlops_assets.stages.promotion.decision_log import Entry, newest_move

APPROVED_BY = "mlops_assets.approved_by"
"""Tag of a version that waits: the name of the person who approves it."""
APPROVAL_REASON = "mlops_assets.approval_reason"
_LONGEST_TAG = 4000  # characters; MLflow refuses values above 5,000


def carry_out(ctx: CountryContext, entry: Entry) -> None:
    """Do what a recorded decision says: tags on the versions it is about, then the aliases.

    Doing it again changes nothing. The champion alias moves last.
    """
    tags = _tags(entry)
    for number in _about(entry):
        ctx.registry.tag(ctx.version(number), tags)
    if entry.moves:
        ctx.registry.point(ctx.model_name, entry.after)


def unfinished(ctx: CountryContext, log: Sequence[Entry]) -> Entry | None:
    """The newest recorded move, if the champion asset does not show it yet; else None.

    Whoever recorded it was killed before the alias moved, or before the asset was written. None,
    too, when somebody has pointed the alias at a third version since.
    """
    move = newest_move(log)
    if move is None:
        return None
    made = ctx.current("champion")
    if made is not None and made.created_at > move.decided_at:
        return None
    known = (move.before.champion, move.after.champion)
    return move if ctx.aliases().champion in known else None


def waiting(log: Sequence[Entry]) -> Entry | None:
    """The newest decision, if it waits for a person's approval; else None."""
    return log[-1] if log and log[-1].verdict == "waiting" else None


def approval_of(ctx: CountryContext, log: Sequence[Entry]) -> ModelVersion | None:
    """The waiting version, if a person has approved it by the tag; else None.

    None as well where only the records of the registry are known, which have no tags.
    """
    held = waiting(log)
    if (
        held is None
        or ctx.whole.recorded is not None
        or ctx.aliases().champion != held.before.champion
    ):
        return None
    version = ctx.version(held.comparison.candidate)
    return version if version.tags.get(APPROVED_BY, "").strip() else None


def is_unsettled(ctx: CountryContext, log: Sequence[Entry]) -> bool:
    """Whether the next champion run has something to finish, or an approval to follow."""
    return unfinished(ctx, log) is not None or approval_of(ctx, log) is not None


def _about(entry: Entry) -> list[str]:
    """The versions a decision is told on: the candidate, and both ends of a way back."""
    named = [entry.comparison.candidate]
    if entry.verdict in ("rolled_back", "withdrawn"):
        named += [entry.before.champion, entry.after.champion]
    return [number for number in dict.fromkeys(named) if number]


def _tags(entry: Entry) -> dict[str, str]:
    decision, origin = entry.comparison.decision, entry.origin
    told = {
        "mlops_assets.decision": entry.decision_id,
        "mlops_assets.verdict": decision.verdict,
        "mlops_assets.verdict_reason": decision.reason[:_LONGEST_TAG],
        "mlops_assets.decided_at": entry.decided_at.isoformat(timespec="seconds"),
        "mlops_assets.trigger": origin.trigger[:_LONGEST_TAG],
    }
    return told | ({"mlops_assets.person": origin.person} if origin.person else {})
