"""Commands about data one can trust: `quarantine`, `retention`, `reproduce`."""

from __future__ import annotations

import datetime as dt
import getpass
import json
from typing import TYPE_CHECKING, Annotated

import typer

from mlops_assets.cli.base import (
    AsJson,
    all_products,
    app,
    context_of,
    print_table,
    product_named,
    say,
)
from mlops_assets.errors import ConfigurationError, ContractError

if TYPE_CHECKING:
    from mlops_assets.product import Product
    from mlops_assets.stages.datasets.quarantine import Quarantined

_RELEASED = ("validated", "quarantine", "features")


@app.command(
    help="Rows of a country that broke the contract: reasons, counts, examples. With --release, "
    "rows that keep the contract as it is now are taken into use, which is recorded.\n\n"
    "Example: mlops-assets quarantine power_price FRA --examples 5"
)
def quarantine(
    product: Annotated[str, typer.Argument(help="Name of the product.")],
    country: Annotated[str, typer.Argument(help="One of its countries.")],
    examples: Annotated[int, typer.Option(min=0, help="Rows shown of each rule.")] = 3,
    release: Annotated[
        bool,
        typer.Option("--release", help="Take into use what the corrected contract accepts."),
    ] = False,
    *,
    reason: Annotated[str, typer.Option(help="Why; recorded with the release.")] = "",
    by: Annotated[str, typer.Option(help="Who; default: the user of this machine.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show the quarantine of a country, or release rows from it."""
    found = product_named(product)
    found.resolved(country)
    if release:
        _release(found, country, reason, by or getpass.getuser())
    state = _look(found, country, examples)
    if as_json:
        say(json.dumps(_as_dict(state), indent=1, default=str))
        return
    _print(found, country, state)


def _look(product: Product, country: str, examples: int) -> Quarantined:
    from mlops_assets.stages.datasets.quarantine import quarantined

    state = quarantined(context_of(product).country(country), examples=examples)
    if state is None:
        raise ConfigurationError(
            f"{product.name} {country} has not been validated yet.",
            stored="Nothing was read.",
            way_out=f"Run: mlops-assets materialize {product.name} --country {country}",
        )
    return state


def _print(product: Product, country: str, state: Quarantined) -> None:
    if not state.rows:
        say(f"{product.name} {country}: nothing is in quarantine.")
        return
    print_table(f"{product.name} {country}: {state.rows:,} rows in quarantine", state.reasons)
    if len(state.examples):
        print_table("examples", _narrow(state))
    if state.releasable:
        say(
            f"{state.releasable:,} of them keep the contract as it is now; take them into use "
            f"with: mlops-assets quarantine {product.name} {country} --release --reason '...'"
        )


def _narrow(state: Quarantined) -> object:
    """Where each example is from and its values in one column: tables end at the terminal."""
    import pandas as pd

    names = [str(name) for name in state.examples]
    values = [name for name in names if name != "rule" and not name.startswith("_")]
    return pd.DataFrame(
        {
            "rule": state.examples["rule"],
            "file": state.examples["_source_file"],
            "record": state.examples["_source_line"],
            "values": [
                ", ".join(f"{name}={row[name]}" for name in values)
                for _, row in state.examples.iterrows()
            ],
        }
    )


def _release(product: Product, country: str, reason: str, by: str) -> None:
    """Validate the country again under the contract of now, in a run that says who asked."""
    from mlops_assets.cli.runs import run_orders
    from mlops_assets.runtime.headless.workers import RunOrder
    from mlops_assets.stages.datasets.quarantine import RELEASE_REASON, RELEASED_BY

    if not reason.strip():
        raise ConfigurationError(
            "A release needs a reason.", way_out="Say why: --reason 'limit was in cents'"
        )
    state = _look(product, country, 0)
    if not state.rows:
        raise ConfigurationError(
            f"{product.name} {country}: nothing is in quarantine.", stored="Nothing was run."
        )
    if not state.releasable:
        raise ContractError(
            f"None of the {state.rows:,} rows of {product.name} {country} in quarantine keeps the "
            "contract as it is now.",
            way_out=f"Correct {product.spec.contract.schema_class} in {product.folder} first, or "
            "deliver the file again under the same name.",
        )
    tags = ((RELEASED_BY, by), (RELEASE_REASON, reason))
    order = RunOrder(product.name, "all", _RELEASED, country=country, tags=tags)
    (outcome,) = run_orders([order])
    if not outcome.success:
        raise ContractError(
            f"The release of {product.name} {country} did not go through: "
            f"{' | '.join(outcome.problems)}",
            stored="What was in use stays in use.",
        )
    say(f"{product.name} {country}: {state.releasable:,} rows released by {by}: {reason}")


def _as_dict(state: Quarantined) -> dict[str, object]:
    return {
        "rows": state.rows,
        "releasable": state.releasable,
        "reasons": state.reasons.to_dict(orient="records"),
        "examples": state.examples.to_dict(orient="records"),
    }


@app.command(
    help="Stored snapshots that nothing needs: no model, decision or moment of the as-of window. "
    "Lists them; --remove removes them.\n\n"
    "Example: mlops-assets retention power_price --keep-days 30"
)
def retention(
    product: Annotated[str | None, typer.Argument(help="Default: every product.")] = None,
    keep_days: Annotated[
        int | None,
        typer.Option(min=1, help="Days of which every moment stays; default: of the YAML."),
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove what is listed as removable.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="List those that are kept, too, with the reason.")
    ] = False,
    *,
    as_json: AsJson = False,
) -> None:
    """List, and on purpose remove, what nothing needs."""
    from mlops_assets.stages.upkeep.retention import apply_retention, plan_retention

    now, told = dt.datetime.now(dt.UTC), []
    for each in [product_named(product)] if product else all_products():
        planned = plan_retention(context_of(each), now=now, keep_days=keep_days)
        frame = planned.frame()
        shown = frame if everything else frame[frame["verdict"] == "removable"]
        removed = apply_retention(planned, context_of(each)) if remove else None
        summary = removed.summary() if removed else planned.summary()
        if as_json:
            rows = json.loads(shown.to_json(orient="records", date_format="iso"))
            told.append({"product": each.name, "summary": summary, "snapshots": rows})
            continue
        if len(shown):
            print_table("", shown)
        say(summary)
        if not remove and len(planned.removable):
            say(f"Remove them with: mlops-assets retention {each.name} --remove")
    if as_json:
        say(json.dumps(told, indent=1))


@app.command(
    help="Make a registered model again from what its training recorded, and compare the "
    "predictions of its holdout. Exit code 0 only if they are identical.\n\n"
    "Example: mlops-assets reproduce power_price FRA --version 1"
)
def reproduce(
    product: Annotated[str, typer.Argument(help="Name of the product.")],
    country: Annotated[str, typer.Argument(help="One of its countries.")],
    version: Annotated[
        str | None, typer.Option(help="Registered version; default: the champion.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say identical, or how far off and why."""
    from mlops_assets.ml.promotion.reproduction_record import as_dict, describe_reproduction
    from mlops_assets.stages.upkeep.reproduction import reproduce_model as again

    ctx = context_of(product_named(product), initialise=True)
    result = again(ctx.country(country), version)
    if as_json:
        say(json.dumps(as_dict(result), indent=1, default=str))
    else:
        for line in describe_reproduction(result):
            say(line)
    raise typer.Exit(0 if result.verdict == "identical" else 1)
