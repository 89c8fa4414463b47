"""Commands for setting up: `new-product`, `doctor`."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from mlops_assets.cli.base import AsJson, app, say
from mlops_assets.settings import load_settings


class _Kind(StrEnum):
    """What kind of product is begun."""

    SERIES = "series"
    SNAPSHOT = "snapshot"


@app.command(
    "new-product",
    help="Make a folder for a new product that loads and runs, with comments that teach.\n\n"
    "Example: mlops-assets new-product heat_demand",
)
def new_product(
    name: Annotated[str, typer.Argument(help="Lower-case name of product and folder.")],
    kind: Annotated[
        _Kind,
        typer.Option(
            metavar="<kind>",
            help="series: a row for each record, such as a day; snapshot: a row for each entity, "
            "such as a customer, at cut-offs of a calendar.",
        ),
    ] = _Kind.SERIES,
) -> None:
    """Scaffold a product folder."""
    from mlops_assets.components.scaffold import new_product as scaffold

    folder = scaffold(name, load_settings().defs, kind.value)
    say(f"Made {folder}.\nNext: edit defs.yaml there, then run: mlops-assets doctor")


@app.command(
    help="Check the set-up: versions, folders, products, registry; says what to do.\n\n"
    "Example: mlops-assets doctor"
)
def doctor(as_json: AsJson = False) -> None:
    """Run every check and exit with 1 when one fails."""
    from mlops_assets.runtime.doctor import examine

    findings = examine(load_settings())
    if as_json:
        say(json.dumps([vars(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            say(f"{'ok  ' if finding.ok else 'FAIL'} {finding.check}: {finding.found}")
            if not finding.ok:
                say(f"     {finding.way_out}")
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)
