"""A recorded decision made again from what was stored with it; no model is loaded.

The gates that follow from the evidence are computed again, then the verdict from gates, evidence,
pair and settings, by the very function that decided. Every number has to be the same to the bit.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from mlops_assets.errors import ConfigurationError
from mlops_assets.ml.gates.gates import GateResult
from mlops_assets.ml.gates.judgement import gates_again
from mlops_assets.ml.gates.succession import PooledComparison, compared_again
from mlops_assets.ml.promotion.decision import Decision
from mlops_assets.ml.promotion.verdicts import VerdictSettings, conclude
from mlops_assets.ml.promotion.withdrawal import WithdrawalSettings, decide_withdrawal
from mlops_assets.stages.common.base import EVIDENCE
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.promotion.comparison import WITHDRAWAL_EVIDENCE
from mlops_assets.stages.promotion.decision_log import Entry, entries
from mlops_assets.stages.training.succession import POOLED_EVIDENCE

_NUMBERS = ("candidate_value", "champion_value", "gain", "lower", "upper", "level")
_COUNTS = ("rows", "draws", "block_days", "own_rows")
_BY_A_PERSON = ("forced", "rolled_back")
_OLD_WORDS = {"surely": "significantly"}
"""Words of reasons that were recorded before, and the ones that say the same now."""


@dataclass(frozen=True)
class DecisionReplay:
    """What came of making a decision again.

    Attributes:
        entry: as it is recorded.
        basis: what it was made again from, in words.
        differences: each with what was recorded and what comes out now; none: the same.
    """

    entry: Entry
    basis: str
    differences: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether everything came out as it is recorded."""
        return not self.differences

    def lines(self) -> list[str]:
        """What a person reads, a line a fact."""
        entry, decision = self.entry, self.entry.comparison.decision
        return [
            f"{entry.comparison.country} {entry.decision_id}: {decision.verdict}, "
            f"{entry.decided_at:%Y-%m-%d %H:%M} UTC, {entry.origin.trigger}",
            decision.reason,
            *([f"intervals: {decision.drawn}"] if decision.drawn else []),
            self.basis,
            "the same" if self.same else "differs:",
            *(f"  {each}" for each in self.differences),
        ]


def replay_decision(
    ctx: ProductContext, decision_id: str, country: str | None = None
) -> DecisionReplay:
    """Make one decision again and compare.

    Args:
        ctx: the product.
        decision_id: of the decision.
        country: of the decision; needed only where two countries have the same id.

    Raises:
        ConfigurationError: there is no such decision, or more than one.
        StorageError: the evidence is damaged.
    """
    entry = _found(ctx, decision_id, country)
    if entry.verdict in _BY_A_PERSON:
        basis = "a person decided; the record is looked at, there is nothing to compute"
        return DecisionReplay(entry, basis, tuple(_gaps(entry)))
    if entry.verdict == "withdrawn":
        return _withdrawn_again(ctx, entry)
    about = entry.comparison
    if not about.candidate or about.candidate == about.champion:
        return DecisionReplay(
            entry, "there was nothing to compare, so that nothing is computed", ()
        )
    return _again(ctx, entry)


def _found(ctx: ProductContext, wanted: str, country: str | None) -> Entry:
    found = [each for each in entries(ctx, country) if each.decision_id == wanted]
    if len(found) == 1:
        return found[0]
    countries = ", ".join(each.comparison.country for each in found)
    raise ConfigurationError(
        f"{ctx.product.name} has {len(found) or 'no'} decisions {wanted!r}"
        + (f", of {countries}." if found else "."),
        stored="Nothing was computed.",
        way_out="Say which with --country."
        if found
        else f"List them with: mlops-assets decisions {ctx.product.name}",
        culprits={"decision": wanted},
    )


def _again(ctx: ProductContext, entry: Entry) -> DecisionReplay:
    about = entry.comparison
    held = ctx.store.find(ctx.path(EVIDENCE), about.country, about.evidence)
    basis = f"made again from evidence {about.evidence[:12]}, its settings and pair"
    if held is None or about.model_pair is None:
        return DecisionReplay(entry, basis, ("the evidence is gone",))
    evidence = ctx.store.read(held.asset, about.country, version=held.version)
    settings = VerdictSettings.from_json(about.settings)
    gates = gates_again(settings.spec, evidence, about.gates)
    pooled, gaps = _pooled_again(ctx, about.pooled)
    decision = conclude(evidence, gates, about.model_pair, settings, pooled=pooled)
    told = f"{basis}, and pooled evidence {pooled.evidence[:12]}" if pooled else basis
    differences = [*gaps, *_differences(entry, decision, gates, evidence)]
    return DecisionReplay(entry, told, tuple(differences))


def _withdrawn_again(ctx: ProductContext, entry: Entry) -> DecisionReplay:
    """A withdrawal, and what was to serve then, from its matured rows."""
    about = entry.comparison
    basis = f"made again from the matured rows {about.evidence[:12]} and their settings"
    held = ctx.store.find(ctx.path(WITHDRAWAL_EVIDENCE), about.country, about.evidence)
    if held is None:
        return DecisionReplay(entry, basis, ("the evidence is gone",))
    rows = ctx.store.read(held.asset, about.country, version=held.version)
    found = decide_withdrawal(rows, WithdrawalSettings.from_json(about.settings))
    differences = [*_numbers_differ(about.decision, found.decision)]
    served = "pooled" if entry.after.champion else "baseline"
    if found.target != served:
        differences.append(f"serves: recorded {served}, now {found.target}")
    return DecisionReplay(entry, basis, tuple(differences))


def _pooled_again(
    ctx: ProductContext, recorded: PooledComparison | None
) -> tuple[PooledComparison | None, list[str]]:
    """The comparison of the pooled models made again from its rows, and why it cannot be."""
    if recorded is None or recorded.problem or recorded.is_same:
        return recorded, []
    held = ctx.store.find(ctx.path(POOLED_EVIDENCE), None, recorded.evidence)
    if held is None:
        return recorded, ["the pooled evidence is gone"]
    rows = ctx.store.read(held.asset, None, version=held.version)
    return compared_again(recorded, rows), []


def _differences(
    entry: Entry, decision: Decision, gates: Sequence[GateResult], evidence: pd.DataFrame
) -> Iterator[str]:
    recorded, person = entry.comparison.decision, entry.origin.person
    # A person's approval follows a decision that waited: that one is computed.
    verdict = "waiting" if person else recorded.verdict
    if decision.verdict != verdict:
        yield f"verdict: recorded {verdict}, now {decision.verdict} ({decision.reason})"
    reason = _reworded(recorded.reason)
    if not (reason.endswith(decision.reason) if person else reason == decision.reason):
        yield f"reason: recorded {recorded.reason!r}, now {decision.reason!r}"
    yield from _values_differ(recorded, decision)
    if recorded.drawn and recorded.drawn != decision.drawn:
        yield f"drawn: recorded {recorded.drawn!r}, now {decision.drawn!r}"
    yield from _gates_differ(entry.comparison.gates, gates)
    if recorded.own_rows > len(evidence):
        yield f"rows: recorded {recorded.rows}, the evidence has {len(evidence)}"


def _numbers_differ(recorded: Decision, now: Decision) -> Iterator[str]:
    """What is not the same in a decision that nobody but evidence has taken."""
    for name in ("verdict", "reason", "drawn"):
        before, after = getattr(recorded, name), getattr(now, name)
        if before != after:
            yield f"{name}: recorded {before!r}, now {after!r}"
    yield from _values_differ(recorded, now)


def _values_differ(recorded: Decision, now: Decision) -> Iterator[str]:
    told = ("fresher_lower",) if recorded.fresher_lower == recorded.fresher_lower else ()
    for name in (*_COUNTS, *_NUMBERS, *told):
        yield from _differs(name, getattr(recorded, name), getattr(now, name))


def _reworded(reason: str) -> str:
    """A recorded reason in the words of today: the numbers in it are compared, not the prose."""
    for old, new in _OLD_WORDS.items():
        reason = re.sub(rf"\b{old}\b", new, reason)
    return reason


def _gates_differ(recorded: Sequence[GateResult], now: Sequence[GateResult]) -> Iterator[str]:
    found = {gate.name: gate for gate in now}
    for gate in recorded:
        again = found.pop(gate.name, None)
        if again is None:
            yield f"gate {gate.name}: recorded, not there now"
            continue
        if gate.passed != again.passed:
            yield f"gate {gate.name}: recorded passed={gate.passed}, now {again.passed}"
        yield from _differs(f"gate {gate.name}, value", gate.value, again.value)
        yield from _differs(f"gate {gate.name}, limit", gate.limit, again.limit)
        for name in {**gate.numbers, **again.numbers}:
            values = (numbers.get(name, float("nan")) for numbers in (gate.numbers, again.numbers))
            yield from _differs(f"gate {gate.name}, {name}", *values)
    yield from (f"gate {name}: not recorded, there now" for name in found)


def _differs(name: str, recorded: float, now: float) -> Iterator[str]:
    both_unknown = recorded != recorded and now != now
    if recorded != now and not both_unknown:
        yield f"{name}: recorded {recorded!r}, now {now!r}"


def _gaps(entry: Entry) -> Iterator[str]:
    """What a decision of a person lacks."""
    origin = entry.origin
    held = {"person": origin.person, "change_set": origin.change_set, "trigger": origin.trigger}
    yield from (f"no {name} is recorded" for name, value in held.items() if not value)
    if not entry.comparison.decision.reason.strip():
        yield "no reason is recorded"
    if entry.before.champion == entry.after.champion:
        yield "the version in use before and after is the same"
