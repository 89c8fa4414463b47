"""Commands about champions: `decisions`, `promote`, `rollback`, `approve`, `undo`."""

from __future__ import annotations

import getpass
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_assets.cli.base import (
    AsJson,
    app,
    context_of,
    print_table,
    product_named,
    say,
)
from mlops_assets.errors import ConfigurationError, RegistryError
from mlops_assets.settings import load_settings

if TYPE_CHECKING:
    import pandas as pd

    from mlops_assets.product import Product
    from mlops_assets.stages.common.context import ProductContext
    from mlops_assets.stages.promotion.plan import ChangePlan

ProductName = Annotated[str, typer.Argument(help="Name of the product.")]
OneCountry = Annotated[str | None, typer.Argument(help="One of its countries.")]
Countries = Annotated[
    list[str] | None, typer.Option("--country", help="A country; repeat for more.")
]
Everywhere = Annotated[bool, typer.Option("--all", help="Every listed country.")]
By = Annotated[str, typer.Option("--by", help="Who; default: the user of this machine.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; recorded with the decision.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]

_SHOWN = (
    "decided_at",
    "country",
    "decision_id",
    "verdict",
    "candidate_version",
    "champion_version",
    "version",
    "gain",
    "gain_lower",
    "gain_upper",
    "rows",
    "drawn_by",
    "trigger",
    "person",
    "change_set",
    "reason",
)
_HEADERS = {
    "candidate_version": "candidate",
    "champion_version": "champion",
    "version": "in use",
    "gain_lower": "lower",
    "gain_upper": "upper",
    "drawn_by": "drawn by",
}


@app.command(
    help="The recorded decisions of a product, newest last; --replay makes one again from what was "
    "stored with it, exit code 0 only if it comes out the same.\n\n"
    "Example: mlops-assets decisions power_price --country FRA --last 3"
)
def decisions(
    product: ProductName,
    country: Countries = None,
    verdict: Annotated[
        str, typer.Option(help="Only these: promoted, kept, not_judged, waiting, ...")
    ] = "",
    last: Annotated[int, typer.Option(min=0, help="Only the newest N; 0: all.")] = 0,
    *,
    replay: Annotated[str, typer.Option(help="Id of a decision to make again.")] = "",
    as_json: AsJson = False,
) -> None:
    """Print the append-only table of decisions, or make one of them again."""
    found = product_named(product)
    if replay:
        _replay(found, replay, country or [], as_json)
        return
    frame = _log(found, country or [])
    if verdict and len(frame):
        frame = frame[frame["verdict"] == verdict]
    frame = frame.tail(last) if last else frame
    if as_json:
        say(frame.to_json(orient="records", date_format="iso", indent=1))
    elif frame.empty:
        say(f"{found.name}: no decision yet.")
    else:
        print_table(f"{found.name}: decisions", _readable(frame))


@app.command(
    help="Put the newest candidate, or a named version, into use whatever evidence says. Recorded "
    "as a decision; `undo` takes it back.\n\n"
    "Example: mlops-assets promote power_price FRA --force --reason 'new market rules'"
)
def promote(
    product: ProductName,
    country: OneCountry = None,
    version: Annotated[str, typer.Option(help="Default: the newest candidate.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Required: evidence alone promotes by itself.")
    ] = False,
    *,
    reason: Reason = "",
    by: By = "",
    more: Countries = None,
    everywhere: Everywhere = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Force a promotion."""
    from mlops_assets.stages.promotion.plan import plan_promotion

    if not force:
        raise ConfigurationError(
            "A candidate is promoted by evidence when `champion` is materialized; anything else "
            "has to be forced.",
            stored="Nothing was moved.",
            way_out="Add --force and say why: --reason '...'. One that waits for approval: "
            f"mlops-assets approve {product}",
        )
    whole = _context(product)
    chosen = _chosen(whole.product, country, more, everywhere)
    plan = plan_promotion(whole, chosen, version)
    _carry_out(plan, {"version": version}, _word(by, reason), yes, as_json=as_json)


@app.command(
    help="Put the version that was in use before, or a named one, into use again. Recorded as a "
    "decision; evidence does not promote what was rolled back from.\n\n"
    "Example: mlops-assets rollback power_price FRA --reason 'negative prices missing'"
)
def rollback(
    product: ProductName,
    country: OneCountry = None,
    to: Annotated[str, typer.Option(help="Version; default: the one in use before.")] = "",
    reason: Reason = "",
    *,
    by: By = "",
    more: Countries = None,
    everywhere: Everywhere = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Roll back one country or many, as one change set."""
    from mlops_assets.stages.promotion.plan import plan_rollback

    whole = _context(product)
    plan = plan_rollback(whole, _chosen(whole.product, country, more, everywhere), to)
    _carry_out(plan, {"version": to}, _word(by, reason), yes, as_json=as_json)


@app.command(
    help="Put the version into use that waits for approval (decision.approval in the YAML).\n\n"
    "Example: mlops-assets approve power_price FRA --by ana --reason 'looked at the plots'"
)
def approve(
    product: ProductName,
    country: OneCountry = None,
    reason: Reason = "",
    by: By = "",
    *,
    more: Countries = None,
    everywhere: Everywhere = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Approve promotions that wait."""
    from mlops_assets.stages.promotion.plan import plan_approval

    whole = _context(product)
    plan = plan_approval(whole, _chosen(whole.product, country, more, everywhere))
    _carry_out(plan, {}, _word(by, reason), yes, as_json=as_json)


@app.command(
    help="Set every country that a change set moved back as it was. Each promote, rollback and "
    "approve is a change set and says its id.\n\n"
    "Example: mlops-assets undo power_price rollback-1a2b3c4d --reason 'wrong product'"
)
def undo(
    product: ProductName,
    change_set: Annotated[str, typer.Argument(help="Id of the change set.")],
    reason: Reason = "",
    by: By = "",
    *,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Undo a change set as a whole."""
    from mlops_assets.stages.promotion.plan import plan_undo

    plan = plan_undo(_context(product), change_set)
    _carry_out(plan, {"change_set": change_set}, _word(by, reason), yes, as_json=as_json)


def _replay(product: Product, wanted: str, countries: Sequence[str], as_json: bool) -> None:
    from mlops_assets.stages.promotion.decision_replay import replay_decision as again

    result = again(context_of(product), wanted, countries[0] if countries else None)
    if as_json:
        told = {
            "decision_id": wanted,
            "country": result.entry.comparison.country,
            "verdict": result.entry.verdict,
            "same": result.same,
            "basis": result.basis,
            "differences": list(result.differences),
        }
        say(json.dumps(told, indent=1))
    else:
        for line in result.lines():
            say(line)
    raise typer.Exit(0 if result.same else 1)


def _log(product: Product, countries: Sequence[str]) -> pd.DataFrame:
    """The log of all or some countries, oldest first."""
    from mlops_assets.stages.promotion.decision_log import decision_table

    frame = decision_table(context_of(product), countries[0] if len(countries) == 1 else None)
    for each in countries:
        if frame.empty or each not in set(frame["country"]):
            product.resolved(each)  # one that is listed no more may still have decisions
    if countries and len(frame):
        frame = frame[frame["country"].isin(countries)]
    return frame if frame.empty else frame.sort_values("decided_at", kind="stable")


def _readable(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns a person reads."""
    shown = frame[list(_SHOWN)].copy()
    shown["decided_at"] = shown["decided_at"].dt.strftime("%Y-%m-%d %H:%M")
    for name in ("gain", "gain_lower", "gain_upper"):
        shown[name] = [("" if value != value else f"{value:.4g}") for value in shown[name]]
    return shown.rename(columns=_HEADERS)


def _context(product: str) -> ProductContext:
    return context_of(product_named(product), initialise=True)


def _chosen(
    product: Product, country: str | None, more: Sequence[str] | None, everywhere: bool
) -> list[str]:
    named = [*([country] if country else []), *(more or [])]
    if bool(named) == everywhere:
        raise ConfigurationError(
            "Say which countries: one after the product, --country CODE (repeatable), or --all"
            f"{', not both' if named else ''}.",
            stored="Nothing was moved.",
        )
    chosen = list(dict.fromkeys(named)) or list(product.spec.countries)
    for each in chosen:
        product.resolved(each)
    return chosen


def _word(by: str, reason: str) -> dict[str, str]:
    if not reason.strip():
        raise ConfigurationError(
            "A reason is needed; it is recorded with the decision.",
            stored="Nothing was moved.",
            way_out="Say why: --reason '...'",
        )
    return {"person": by or getpass.getuser(), "reason": reason}


def _carry_out(
    plan: ChangePlan, config: dict[str, Any], word: dict[str, str], yes: bool, *, as_json: bool
) -> None:
    """List, ask, then run the job that does it."""
    from mlops_assets.runtime.headless.jobs import run_job
    from mlops_assets.stages.common.runs import TRIGGER
    from mlops_assets.stages.promotion.plan import refusal

    kind = plan.request.kind
    if not as_json:
        print_table(f"{plan.product}: {kind}, {len(plan.moves)} countries", plan.frame())
    if plan.problems:
        raise refusal(plan)
    if not yes and not typer.confirm(f"{kind.capitalize()} as listed?", err=True):
        say("Nothing was moved.")
        raise typer.Exit(1)
    _tell_waits(plan)
    asked = {**config, **word, **_where(plan)}
    trigger = {TRIGGER: f"mlops-assets {kind}"}
    outcome = run_job(load_settings(), plan.product, kind, asked, tags=trigger)
    if outcome.problem:
        raise RegistryError(outcome.problem, stored="")
    _print_plan(plan, outcome.shown["change_set"], outcome.run_id, as_json)


def _tell_waits(plan: ChangePlan) -> None:
    """Say whom the job will wait for, whose log nobody sees here."""
    from mlops_assets.stages.common.locks import waited_for

    countries = [move.country for move in plan.moves]
    for country, holder in waited_for(load_settings().locks, plan.product, countries).items():
        text = f"{plan.product} {country}: waits for {holder or 'another run'}. Nothing was moved."
        typer.echo(text, err=True)


def _where(plan: ChangePlan) -> dict[str, Any]:
    """The countries as listed, and the versions in use that the list was made from."""
    if plan.request.kind == "undo":
        return {}
    expected = {move.country: move.before.champion for move in plan.moves}
    return {"countries": list(plan.request.countries), "expected": expected}


def _print_plan(plan: ChangePlan, change_set: str, run_id: str, as_json: bool) -> None:
    moves = [
        {
            "country": move.country,
            "from": move.before.champion,
            "to": move.after.champion,
        }
        for move in plan.moves
    ]
    if as_json:
        say(json.dumps({"change_set": change_set, "run_id": run_id, "moves": moves}, indent=1))
        return
    say(
        f"Done as change set {change_set}, in Dagster run {run_id}. Predictions are made again by "
        "the next run:"
    )
    say(f"  mlops-assets materialize {plan.product} --all --job predict")
    say(f"To take it back: mlops-assets undo {plan.product} {change_set} --reason '...'")
