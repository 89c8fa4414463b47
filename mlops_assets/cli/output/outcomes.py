"""What is said at the end of `materialize`: what was decided, apart from what needs a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mlops_assets.cli.base import say
from mlops_assets.errors import some

if TYPE_CHECKING:
    from mlops_assets.runtime.headless.materialize import Outcome

_EACH = 3
"""Countries of which a decision is told in full; more are told by the gates that took it."""
_GATE = "gate "


def report(outcomes: Sequence[Outcome]) -> None:
    """Last lines: what was decided, what is no fault, who needs a person and why."""
    for outcome in outcomes:
        told = [text for texts in outcome.warnings.values() for text in texts]
        if outcome.delivered and not any(outcome.delivered in text for text in told):
            say(f"delivered: {outcome.product}: {outcome.delivered}")
        for where, texts in outcome.warnings.items():
            for text in texts:
                say(f"warning: {outcome.product} ({where}) {_bare(outcome, where, text)}")
    for outcome in outcomes:
        for line in (
            *_decided(outcome),
            *_nothing(outcome),
            *_failed(outcome),
            *_not_used(outcome),
        ):
            say(line)
        say(_summary(outcome))


def outcome_row(outcome: Outcome) -> dict[str, Any]:
    """For `--json`."""
    return {
        "product": outcome.product,
        "runs": outcome.runs,
        "failures": outcome.failures,
        "decided": outcome.decided,
        "nothing_to_make": outcome.nothing,
        "fallback": sorted(outcome.fallback),
        "unchanged": sorted(outcome.unchanged),
        "warnings": outcome.warnings,
        "delivered": outcome.delivered,
        "not_used": outcome.not_used,
        "set_aside": outcome.set_aside,
    }


def _decided(outcome: Outcome) -> Iterator[str]:
    """Few countries each with its numbers, many by the gates that refused their candidates."""
    if len(outcome.decided) <= _EACH:
        for country, problems in outcome.decided.items():
            why = " | ".join(_bare(outcome, country, each) for each in problems).rstrip(".")
            yield f"decided: {outcome.product} {country}: {why}. {_SERVES}"
        return
    by_gate: dict[str, list[str]] = {}
    for country, problems in outcome.decided.items():
        for problem in (_bare(outcome, country, each) for each in problems):
            by_gate.setdefault(problem.partition(": ")[0].removeprefix(_GATE), []).append(country)
    told = "; ".join(f"{gate}: {some(countries)}" for gate, countries in by_gate.items())
    yield (
        f"decided: {outcome.product}: candidates of {len(outcome.decided)} countries were refused "
        f"({told}). {_SERVES} Why: mlops-assets decisions {outcome.product}"
    )


_SERVES = "What served before serves on, or the baseline."


def _nothing(outcome: Outcome) -> Iterator[str]:
    if outcome.nothing:
        who = some(list(outcome.nothing))
        more = "" if len(outcome.nothing) > 1 else f": {next(iter(outcome.nothing.values()))}"
        yield f"nothing to make: {outcome.product} {who}{more or f' (see: {_status(outcome)})'}"


def _status(outcome: Outcome) -> str:
    return f"mlops-assets status {outcome.product}"


def _failed(outcome: Outcome) -> Iterator[str]:
    told = {
        country: tuple(_bare(outcome, country, each) for each in problems)
        for country, problems in outcome.failures.items()
    }
    for problems, countries in _alike(told).items():
        served = sorted(set(countries) & outcome.fallback)
        where = f"{outcome.product} {', '.join(countries)}"
        tail = (
            f" Predictions of {', '.join(served)} come from what served before, or from the "
            "baseline."
        )
        yield f"stopped: {where}: {' | '.join(problems)}{tail if served else ''}"


def _bare(outcome: Outcome, country: str, problem: str) -> str:
    """A problem without the product and country that it begins with, which its line has already."""
    return problem.removeprefix(f"{outcome.product} {country}: ").removeprefix(f"{country}: ")


def _not_used(outcome: Outcome) -> Iterator[str]:
    bare = {each: _bare(outcome, each, told) for each, told in outcome.not_used.items()}
    for told, countries in _alike(bare).items():
        where = f"{outcome.product} {', '.join(countries)}"
        yield f"not used: {where}: {told}; the rest goes on. Deliver the file again, corrected."
    if outcome.set_aside:
        files = some(outcome.set_aside)
        yield f"not used: {outcome.product}: {files}; the warning of files_readable says why."


def _summary(outcome: Outcome) -> str:
    told = {
        "decided": len(outcome.decided),
        "without anything to make": len(outcome.nothing),
        "unchanged": len(outcome.unchanged),
    }
    counted = "".join(f", {count} {what}" for what, count in told.items() if count)
    verdict = f"{outcome.needed} need a person" if outcome.needed else "nobody is needed"
    return f"{outcome.product}: {outcome.runs} runs{counted}; {verdict}"


_Said = TypeVar("_Said", str, tuple[str, ...])


def _alike(said: Mapping[str, _Said]) -> dict[_Said, list[str]]:
    """Countries of which the very same is said, told once."""
    found: dict[_Said, list[str]] = {}
    for country, text in said.items():
        found.setdefault(text, []).append(country)
    return found
