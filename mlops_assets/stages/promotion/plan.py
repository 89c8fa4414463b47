"""What a person does to champions: roll back, promote by force, approve, undo.

First a plan: what would move in each country, and what stands in the way. Nothing moves while
anything stands in the way. Then the plan is carried out as one change set: in each country the
decision
is recorded, the aliases move, the asset `champion` shows it. If a country fails, those before it
are moved back.

The alias `previous` is what was in use just before, so that a rollback done twice comes back to
where it began. To undo a change set restores both aliases of every country as they were.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from mlops_assets.errors import ConfigurationError, RegistryError
from mlops_assets.ml.promotion.decision import Decision
from mlops_assets.registry import Aliases, ModelVersion
from mlops_assets.stages.common.context import CountryContext, ProductContext
from mlops_assets.stages.common.lineage import of_champion
from mlops_assets.stages.promotion.alias_moves import carry_out, unfinished, waiting
from mlops_assets.stages.promotion.approvals import approved
from mlops_assets.stages.promotion.champion_metadata import champion_frame, report_value
from mlops_assets.stages.promotion.change_sets import (
    ChangeRequest,
    ChangeSet,
    Move,
    change_sets,
    new_change_set,
    open_change_set,
    record_state,
)
from mlops_assets.stages.promotion.comparison import stored_comparison
from mlops_assets.stages.promotion.decision_log import (
    Comparison,
    Entry,
    Origin,
    append,
    log_of,
    now,
)
from mlops_assets.storage import Snapshot

_NAN = float("nan")
_COLUMNS = ("country", "from", "to", "metric", "value now", "value then", "note")


@dataclass(frozen=True)
class Obstacle:
    """Why a country cannot be moved, and what to do instead."""

    country: str
    text: str


@dataclass(frozen=True)
class ChangePlan:
    """What would happen, listed before it does.

    Attributes:
        product: its name.
        request: what was asked for.
        metric: that the values are of, by country.
        moves: country by country.
        problems: what stands in the way; nothing is done while there are any.
        resumes: the change set that was begun with the very same request; None for a new one.
    """

    product: str
    request: ChangeRequest
    metric: dict[str, str]
    moves: tuple[Move, ...]
    problems: tuple[Obstacle, ...]
    resumes: ChangeSet | None = None

    def frame(self) -> pd.DataFrame:
        """One row a country, those with a problem first."""
        rows: list[tuple[Any, ...]] = [
            (each.country, "", "", "", "", "", each.text) for each in self.problems
        ]
        rows += [self._line(move) for move in self.moves]
        return pd.DataFrame(rows, columns=list(_COLUMNS))

    def _line(self, move: Move) -> tuple[Any, ...]:
        return (
            move.country,
            _called(move.before.champion),
            _called(move.after.champion),
            self.metric[move.country],
            _short(move.value_before),
            _short(move.value_after),
            "begun before, is finished" if self.resumes else "",
        )


@dataclass(frozen=True)
class Requester:
    """Who asks, and why; recorded with every decision of the change set."""

    person: str
    reason: str
    trigger: str = "by hand"
    run_id: str = ""


@dataclass(frozen=True)
class MovedCountry:
    """A country that was moved.

    Attributes:
        ctx: the country.
        entry: the recorded decision.
        frame: what the asset `champion` holds now.
        snapshot: as which it is stored.
    """

    ctx: CountryContext
    entry: Entry
    frame: pd.DataFrame
    snapshot: Snapshot


Tell = Callable[[MovedCountry], None]


def plan_rollback(whole: ProductContext, countries: Sequence[str], version: str = "") -> ChangePlan:
    """Put the version that was in use before, or a named one, into use again."""
    return _planned(whole, ChangeRequest("rollback", tuple(countries), version), _rollback)


def plan_promotion(
    whole: ProductContext, countries: Sequence[str], version: str = ""
) -> ChangePlan:
    """Put the newest candidate, or a named version, into use whatever evidence says."""
    return _planned(whole, ChangeRequest("promote", tuple(countries), version), _promotion)


def plan_approval(whole: ProductContext, countries: Sequence[str]) -> ChangePlan:
    """Put the version that waits for approval into use."""
    return _planned(whole, ChangeRequest("approve", tuple(countries)), _approval)


def plan_withdrawal(whole: ProductContext, country: str, version: str, evidence: str) -> ChangePlan:
    """Take the champion out of use, for a pooled model or for the baseline.

    Args:
        whole: the product.
        country: where.
        version: that is to serve in its place; "" for the baseline.
        evidence: content hash of what it is decided from (`withdrawal.store_withdrawal`).
    """

    def planner(ctx: CountryContext, request: ChangeRequest) -> Move | Obstacle:
        named = _in_use(ctx)
        if not named.champion:
            return Obstacle(ctx.country, f"nothing to {request.kind}, the baseline serves")
        found = (
            _move(ctx, named, version)
            if version
            else Move(
                ctx.country, named, named.moved_to(""), report_value(ctx.version(named.champion))
            )
        )
        return replace(found, basis=evidence) if isinstance(found, Move) else found

    return _planned(whole, withdrawal_request(country), planner)


def withdrawal_request(country: str) -> ChangeRequest:
    """What the change set of a withdrawal asks for, by which one that was begun is known."""
    return ChangeRequest("withdraw", (country,))


def plan_undo(whole: ProductContext, change_set: str) -> ChangePlan:
    """Set every country that a change set moved back as it was.

    Raises:
        ConfigurationError: there is no such change set.
    """
    known = change_sets(whole)
    if change_set not in known:
        newest = ", ".join(list(known)[-5:][::-1]) or "none"
        raise ConfigurationError(
            f"{whole.product.name} has no change set {change_set!r}.",
            stored="Nothing was moved.",
            way_out=f"The newest are: {newest}.",
            culprits={"change_set": change_set},
        )
    touched = [
        m.country for m in known[change_set].moves if _entry_of(whole, known[change_set], m.country)
    ]
    return _planned(whole, ChangeRequest("undo", tuple(touched), change_set=change_set), _undoing)


def apply_plan(whole: ProductContext, plan: ChangePlan, asked: Requester, tell: Tell) -> ChangeSet:
    """Carry a plan out as one change set.

    Args:
        whole: the product.
        plan: of a moment ago.
        asked: who and why.
        tell: called for each country after it was moved; what it raises counts as that country's
            failure.

    Raises:
        ConfigurationError: no reason or person is given, or something stands in the way; nothing
            was moved.
        RegistryError: a country failed; those before it were moved back, which is recorded.
    """
    _require(plan, asked)
    change_set = plan.resumes or new_change_set(
        plan.request, plan.moves, asked.person, asked.reason
    )
    if plan.resumes is None:
        record_state(whole, change_set, "opened")
    begun: list[Move] = []
    for move in change_set.moves:
        begun.append(move)
        try:
            _carry(whole, change_set, move, asked, tell=tell)
        except Exception as error:
            stuck = _set_back(whole, change_set, begun, asked, tell=tell, why=error)
            record_state(whole, change_set, "set back")
            raise _failed(whole, change_set, move, stuck, error=error) from error
    record_state(whole, change_set, "done")
    _close_undone(whole, plan)
    return replace(change_set, state="done")


def refusal(plan: ChangePlan) -> ConfigurationError:
    """The error that lists what stands in the way of a plan."""
    told = "; ".join(f"{each.country}: {each.text}" for each in plan.problems)
    return ConfigurationError(
        f"{plan.product}: {plan.request.kind} is not possible in {len(plan.problems)} of "
        f"{len(plan.problems) + len(plan.moves)} countries: {told}.",
        stored="Nothing was moved.",
        culprits={each.country: each.text for each in plan.problems},
    )


_Planner = Callable[[CountryContext, ChangeRequest], "Move | Obstacle"]


def _planned(whole: ProductContext, request: ChangeRequest, planner: _Planner) -> ChangePlan:
    name, metric = whole.product.name, {c: whole.country(c).spec.metric for c in request.countries}
    begun = open_change_set(whole)
    if begun is not None and begun.request == request:
        return ChangePlan(name, request, metric, begun.moves, (), begun)
    if begun is not None and begun.id != request.change_set:
        return ChangePlan(name, request, metric, (), (_in_the_way(begun, name),))
    found = [planner(whole.country(country), request) for country in request.countries]
    moves = tuple(each for each in found if isinstance(each, Move))
    problems = tuple(each for each in found if isinstance(each, Obstacle))
    return ChangePlan(name, request, metric, moves, problems)


def _in_the_way(begun: ChangeSet, product: str) -> Obstacle:
    when = f"{begun.opened_at:%Y-%m-%d %H:%M} UTC"
    return Obstacle(
        ", ".join(move.country for move in begun.moves),
        f"change set {begun.id} ({begun.request.kind} by {begun.person}, {when}) was begun and not "
        "finished. Ask for the very same again to finish it, or take it back: mlops-assets undo "
        f"{product} {begun.id} --reason '...'",
    )


def _rollback(ctx: CountryContext, request: ChangeRequest) -> Move | Obstacle:
    named = _in_use(ctx)
    if not named.champion:
        return Obstacle(ctx.country, "no version is in use, the baseline serves")
    target = request.version or named.previous
    if not target:
        text = f"no version was in use before version {named.champion}; name one (--to VERSION)"
        return Obstacle(ctx.country, text)
    return _move(ctx, named, target)


def _promotion(ctx: CountryContext, request: ChangeRequest) -> Move | Obstacle:
    named = _in_use(ctx)
    target = request.version or named.challenger
    if not target:
        text = "no candidate was ever registered; materialize `model` of the country first"
        return Obstacle(ctx.country, text)
    return _move(ctx, named, target)


def _approval(ctx: CountryContext, request: ChangeRequest) -> Move | Obstacle:
    held, named = waiting(log_of(ctx)), _in_use(ctx)
    if held is None:
        return Obstacle(ctx.country, f"nothing waits for approval, so nothing to {request.kind}")
    if held.before.champion != named.champion:
        text = (
            f"version {held.comparison.candidate} was compared with "
            f"{_called(held.before.champion)}, and {_called(named.champion)} is in use now; "
            "materialize `champion` of the country, which compares again"
        )
        return Obstacle(ctx.country, text)
    found = _move(ctx, named, held.comparison.candidate)
    return replace(found, basis=held.decision_id) if isinstance(found, Move) else found


def _undoing(ctx: CountryContext, request: ChangeRequest) -> Move | Obstacle:
    log, named = log_of(ctx), _in_use(ctx)
    entry = next(e for e in reversed(log) if e.origin.change_set == request.change_set)
    if any(later.origin.undoes == entry.decision_id for later in log) or entry.origin.undoes in {
        e.decision_id for e in log if e.origin.change_set == request.change_set
    }:
        return Obstacle(ctx.country, f"change set {request.change_set} was undone already")
    if named.champion != entry.after.champion:
        text = (
            f"{_called(named.champion)} is in use now, not {_called(entry.after.champion)} as the "
            "change set left it; roll back to the version you want instead (rollback --to VERSION)"
        )
        return Obstacle(ctx.country, text)
    target = entry.before.champion
    found = _move(ctx, named, target) if target else Move(ctx.country, named, entry.before)
    if isinstance(found, Obstacle):
        return found
    return replace(found, after=entry.before, basis=entry.decision_id)


def _in_use(ctx: CountryContext) -> Aliases:
    """What the aliases name, once a decision that was not carried out yet is."""
    left = unfinished(ctx, log_of(ctx))
    return left.after if left is not None else ctx.aliases()


def _move(ctx: CountryContext, named: Aliases, target: str) -> Move | Obstacle:
    if target == named.champion:
        return Obstacle(ctx.country, f"version {target} is in use already")
    try:
        version = ctx.version(target)
        missing = _missing_features(ctx, version)
    except RegistryError as error:
        return Obstacle(ctx.country, f"{error.problem} Name another one ({_others(ctx, target)})")
    if missing:
        text = f"version {target} needs the features {', '.join(missing)}, which there are no more"
        return Obstacle(ctx.country, f"{text}; name another one ({_others(ctx, target)})")
    held = ctx.version(named.champion) if named.champion else None
    return Move(
        ctx.country,
        named,
        named.moved_to(target),
        _NAN if held is None else report_value(held),
        report_value(version),
    )


def _missing_features(ctx: CountryContext, version: ModelVersion) -> list[str]:
    """Features that a version needs and today's rows do not have; loads it, so that it is whole.

    Raises:
        RegistryError: its files are gone or were changed.
    """
    wanted = ctx.registry.load(version).features
    if ctx.current("features") is None:
        return []
    there = ctx.store.read_table(ctx.path("features"), ctx.country).column_names
    return [name for name in wanted if name not in there]


def _others(ctx: CountryContext, target: str) -> str:
    numbers = [n for n in ctx.registry.version_numbers(ctx.model_name) if n != target]
    return f"there are versions {', '.join(numbers)}" if numbers else "there is no other version"


def _require(plan: ChangePlan, asked: Requester) -> None:
    if plan.problems:
        raise refusal(plan)
    for what, text in (("reason", asked.reason), ("person", asked.person)):
        if not text.strip():
            raise ConfigurationError(
                f"{plan.product}: {plan.request.kind} needs a {what}; it is recorded with the "
                "decision.",
                stored="Nothing was moved.",
            )
    if not plan.moves:
        raise ConfigurationError(
            f"{plan.product}: there is nothing to {plan.request.kind}.", stored="Nothing was moved."
        )


def _carry(
    whole: ProductContext, change_set: ChangeSet, move: Move, asked: Requester, *, tell: Tell
) -> None:
    """Record, then move the aliases, then show it; what is done already stays as it is."""
    ctx = whole.country(move.country)
    entry = _entry_of(whole, change_set, move.country)
    if entry is None:
        if (left := unfinished(ctx, log_of(ctx))) is not None:
            carry_out(ctx, left)
        _require_unmoved(ctx, move)
        entry = _decided(ctx, change_set, move, asked)
        append(whole, entry)
    carry_out(ctx, entry)
    tell(_show(ctx, entry, asked.run_id))


def _require_unmoved(ctx: CountryContext, move: Move) -> None:
    now_named = ctx.aliases().champion
    if now_named != move.before.champion:
        raise RegistryError(
            f"{_called(now_named)} of {ctx.model_name} is in use, not "
            f"{_called(move.before.champion)} as it was when this was planned.",
            stored="",
            way_out="Ask again; the new plan starts from what is in use now.",
        )


def _entry_of(whole: ProductContext, change_set: ChangeSet, country: str) -> Entry | None:
    wanted = _id(change_set, country)
    log = log_of(whole.country(country))
    return next((entry for entry in log if entry.decision_id == wanted), None)


def _id(change_set: ChangeSet, country: str) -> str:
    return f"{change_set.id}-{country}"


def _decided(ctx: CountryContext, change_set: ChangeSet, move: Move, asked: Requester) -> Entry:
    """The decision of one country, resting on what is recorded of the version, if anything is."""
    log, kind = log_of(ctx), change_set.request.kind
    undoes = move.basis if kind == "undo" else ""
    origin = Origin(asked.trigger, asked.run_id, asked.person, change_set.id, undoes)
    if kind == "approve":
        held = next(entry for entry in log if entry.decision_id == move.basis)
        entry = approved(held, origin, asked.reason, move.before)
        return replace(entry, decision_id=_id(change_set, move.country))
    if kind == "withdraw":
        about = stored_comparison(ctx, move.basis, move.after.champion)
        return _entry(change_set, move, about, origin)
    verdict, text = _words(change_set, move, asked)
    about = _about(ctx, move, log)
    decision = replace(about.decision, verdict=verdict, reason=text)
    about = replace(about, decision=decision, champion=move.before.champion)
    return _entry(change_set, move, about, origin)


def _entry(change_set: ChangeSet, move: Move, about: Comparison, origin: Origin) -> Entry:
    number = _id(change_set, move.country)
    return Entry(about, number, now(), origin, before=move.before, after=move.after)


def _words(change_set: ChangeSet, move: Move, asked: Requester) -> tuple[Any, str]:
    change = f"from {_called(move.before.champion)} to {_called(move.after.champion)}"
    if change_set.request.kind == "promote":
        return "forced", f"forced by {asked.person}, {change}: {asked.reason}"
    if change_set.request.kind == "undo":
        undone = change_set.request.change_set
        text = f"change set {undone} undone by {asked.person}, {change}: {asked.reason}"
        return "rolled_back", text
    return "rolled_back", f"rolled back by {asked.person}, {change}: {asked.reason}"


def _about(ctx: CountryContext, move: Move, log: Sequence[Entry]) -> Comparison:
    """What is known of the version that comes into use: its own comparison, or its registration."""
    number = move.after.champion
    known = (e.comparison for e in reversed(log) if e.comparison.candidate == number and number)
    if (found := next(known, None)) is not None:
        return found
    features = ctx.current("features")
    nothing = Decision("not_judged", "", 0, move.value_after, move.value_before)
    return Comparison(
        country=ctx.country,
        candidate=number,
        kind=ctx.version(number).kind if number else "baseline",
        champion=move.before.champion,
        decision=nothing,
        gates=(),
        config_hash=ctx.spec.config_hash(),
        features=features.content_hash if features else "",
    )


def _show(ctx: CountryContext, entry: Entry, run_id: str) -> MovedCountry:
    """Write what the asset `champion` holds now.

    It keeps the lineage of the comparison before it, so that a rerun over unchanged data finds
    nothing to do. A candidate that a person put into use needs no comparison any more.
    """
    frame, made = champion_frame(ctx, entry), ctx.current("champion")
    metadata = dict(made.metadata) if made else {}
    if _is_newest_candidate(ctx, entry):
        told = of_champion(ctx).metadata()
        metadata |= {name: getattr(value, "value", value) for name, value in told.items()}
    asset = ctx.path("champion")
    written = ctx.store.write(asset, ctx.country, frame, run_id=run_id, metadata=metadata)
    return MovedCountry(ctx, entry, frame, written.snapshot)


def _is_newest_candidate(ctx: CountryContext, entry: Entry) -> bool:
    if ctx.current("model") is None or not entry.after.champion:
        return False
    row = ctx.store.read(ctx.path("model"), ctx.country, columns=["version"]).iloc[0]
    return str(row["version"]) == entry.after.champion


def _set_back(
    whole: ProductContext,
    change_set: ChangeSet,
    begun: Sequence[Move],
    asked: Requester,
    *,
    tell: Tell,
    why: Exception,
) -> dict[str, str]:
    """Move the countries that were begun back, the last first; the cause where that failed."""
    stuck = {}
    for move in reversed(begun):
        try:
            _take_back(
                whole, change_set, move, asked, tell=tell, why=f"{begun[-1].country} failed: {why}"
            )
        except Exception as error:
            stuck[move.country] = str(error)
    return stuck


def _take_back(
    whole: ProductContext,
    change_set: ChangeSet,
    move: Move,
    asked: Requester,
    *,
    tell: Tell,
    why: str,
) -> None:
    ctx, entry = whole.country(move.country), _entry_of(whole, change_set, move.country)
    if entry is None:
        return
    origin = Origin(asked.trigger, asked.run_id, asked.person, change_set.id, entry.decision_id)
    text = (
        f"change set {change_set.id} set back, {_called(move.before.champion)} again, because {why}"
    )
    decision = replace(entry.comparison.decision, verdict="rolled_back", reason=text)
    back = replace(
        entry,
        comparison=replace(entry.comparison, decision=decision, champion=entry.after.champion),
        decision_id=f"{entry.decision_id}-back",
        decided_at=now(),
        origin=origin,
        before=entry.after,
        after=entry.before,
    )
    append(whole, back)
    carry_out(ctx, back)
    tell(_show(ctx, back, asked.run_id))


def _close_undone(whole: ProductContext, plan: ChangePlan) -> None:
    """A change set that was left open is no longer so once it is undone."""
    undone = change_sets(whole).get(plan.request.change_set)
    if undone is not None and undone.state == "opened":
        record_state(whole, undone, "set back")


def _failed(
    whole: ProductContext,
    change_set: ChangeSet,
    move: Move,
    stuck: dict[str, str],
    *,
    error: Exception,
) -> RegistryError:
    others = [each.country for each in change_set.moves if each.country != move.country]
    back = "Nothing is moved; countries that were are moved back, which is recorded."
    if stuck:
        told = "; ".join(f"{country}: {text}" for country, text in stuck.items())
        back = f"These could not be moved back: {told}. Their next champion run finishes it."
    return RegistryError(
        f"{whole.product.name}: change set {change_set.id} failed in {move.country} "
        f"({len(others)} other countries): {error}",
        stored=back,
        way_out="Correct the cause and ask again.",
        culprits={"change_set": change_set.id, "country": move.country, "stuck": stuck},
    )


def _called(version: str) -> str:
    return f"version {version}" if version else "the baseline"


def _short(value: float) -> str:
    return "-" if value != value else f"{value:.4g}"
