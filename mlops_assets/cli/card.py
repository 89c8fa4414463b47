"""The command `card`: what a person should know of a model, as it was stored with it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mlops_assets.cli.base import app, context_of, product_named, say


@app.command(
    help="The model card of a version: what it predicts and for whom, from which data, how good "
    "it is and where not, its gates and the decision. On a terminal the pictures are left out.\n\n"
    "Example: mlops-assets card power_price FRA --out card.md"
)
def card(
    product: Annotated[str, typer.Argument(help="Name of the product.")],
    country: Annotated[str, typer.Argument(help="One of its countries.")],
    version: Annotated[
        str | None, typer.Option(help="Registered version; default: the champion.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write it to; default: print it.")
    ] = None,
) -> None:
    """Print or write the card."""
    from mlops_assets.ml.reports.markdown import without_figures
    from mlops_assets.stages.promotion.decision_card import stored_card

    ctx = context_of(product_named(product), initialise=True)
    text = stored_card(ctx.country(country), version)
    if out is not None:
        out.write_text(text, encoding="utf-8")
        say(f"{out} ({len(text.encode()) / 1000:.0f} kB)")
    else:
        say((without_figures(text) if sys.stdout.isatty() else text).rstrip("\n"))
