"""The command that reads what was delivered: `deliveries`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from mlops_assets.cli.base import AsJson, app, context_of, print_table, product_named, say

if TYPE_CHECKING:
    import pandas as pd

    from mlops_assets.stages.common.context import ProductContext


@app.command(
    help="What the newest ingestions took, against those before, and the deliveries that are not "
    "used as they broke the contract.\n\n"
    "Example: mlops-assets deliveries power_price --last 3"
)
def deliveries(
    product: Annotated[str, typer.Argument(help="Name of the product.")],
    country: Annotated[
        str | None, typer.Option(help="Files with rows of it; default: of all countries.")
    ] = None,
    last: Annotated[int, typer.Option(min=1, help="So many ingestions.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Print the log of deliveries and what needs a person."""
    found = product_named(product)
    if country is not None:
        found.resolved(country)
    ctx = context_of(found)
    files, not_used = _files(ctx, country, last), _not_used(ctx, country)
    if as_json:
        rows = {"files": files, "not_used": not_used}
        told = {name: json.loads(each.to_json(orient="records")) for name, each in rows.items()}
        say(json.dumps(told, indent=1))
        return
    if files.empty:
        say(f"{found.name}: no delivery is recorded yet.")
    else:
        print_table("", files)
    if len(not_used):
        print_table("not used: deliver these again, corrected", not_used)


def _files(ctx: ProductContext, country: str | None, last: int) -> pd.DataFrame:
    from dataclasses import replace

    from mlops_assets.stages.datasets.delivery_report import delivery_reports, files_table

    reports = delivery_reports(ctx, last=last)
    if country is not None:
        reports = [
            replace(
                each,
                facts=replace(
                    each.facts,
                    files=tuple(file for file in each.facts.files if file.by_country.get(country)),
                ),
            )
            for each in reports
        ]
    return files_table(reports)


def _not_used(ctx: ProductContext, country: str | None) -> pd.DataFrame:
    from dataclasses import asdict

    import pandas as pd

    from mlops_assets.stages.datasets.judgement import not_used_by_country

    wanted = None if country is None else [country]
    found = not_used_by_country(ctx.current_all("quarantine", wanted), ctx.product)
    rows = [{"country": name, **asdict(each)} for name, listed in found.items() for each in listed]
    names = ["country", "file", "ingested_at", "rows", "rejected", "verdict"]
    return pd.DataFrame(rows, columns=names)
