"""Commands about deliveries and the countries they were for: `deliveries`, `unlisted`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from mlops_assets.cli.base import AsJson, app, context_of, print_table, product_named, say
from mlops_assets.errors import ConfigurationError
from mlops_assets.settings import load_settings

if TYPE_CHECKING:
    import pandas as pd

    from mlops_assets.file_locks import Holder
    from mlops_assets.stages.common.context import ProductContext
    from mlops_assets.stages.upkeep.unlisted import Unlisted


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


@app.command(
    help="Countries that are stored and no longer listed: list them, drop one, or move the rows of "
    "one to the name it has now.\n\n"
    "Example: mlops-assets unlisted power_price --move UK --to GBR --reason 'ISO codes'"
)
def unlisted(
    product: Annotated[str, typer.Argument(help="Name of the product.")],
    drop: Annotated[str | None, typer.Option(help="Remove all that is stored of it.")] = None,
    move: Annotated[str | None, typer.Option(help="Give its rows as published to --to.")] = None,
    *,
    to: Annotated[str | None, typer.Option(help="A listed country.")] = None,
    reason: Annotated[str, typer.Option(help="Why; it is kept in the log `dropped`.")] = "",
    as_json: AsJson = False,
) -> None:
    """List, move or drop what nobody lists."""
    from mlops_assets.stages.upkeep.unlisted import (
        drop_country,
        move_country,
        unlisted_countries,
    )

    ctx = context_of(product_named(product))
    if drop is not None or move is not None:
        _require(drop, move, to, reason)
    if drop is not None:
        with _alone(product, drop):
            gone = drop_country(ctx, drop, reason=reason)
        say(f"{product}: {drop} is dropped, with {gone.raw_rows:,} rows as published.")
    elif move is not None and to is not None:
        with _alone(product, move, to):
            moved = move_country(ctx, move, to, reason=reason)
        say(
            f"{product}: {moved.raw_rows:,} rows of {move} are {to}'s now. Make the rest with: "
            f"mlops-assets materialize {product} --country {to}"
        )
    else:
        _list(unlisted_countries(ctx), as_json=as_json)


def _alone(product: str, *countries: str) -> AbstractContextManager[None]:
    """Of countries, and of the product's ingestion: no run takes rows for them meanwhile."""
    from mlops_assets.file_locks import this_command
    from mlops_assets.stages.common.locks import alone_with_raw

    def told(holder: Holder | None) -> None:
        typer.echo(f"Waits for {holder or 'a run'}. Nothing was changed.", err=True)

    return alone_with_raw(load_settings().locks, product, countries, told, command=this_command())


def _require(drop: str | None, move: str | None, to: str | None, reason: str) -> None:
    if (drop is None) == (move is None) or (move is None) != (to is None):
        problem = "Say one thing: --drop CODE, or --move CODE --to CODE."
    elif not reason.strip():
        problem = "It needs a reason: --reason '...'"
    else:
        return
    raise ConfigurationError(problem, stored="Nothing was changed.")


def _list(found: Sequence[Unlisted], *, as_json: bool) -> None:
    import pandas as pd

    rows = [
        {
            "country": each.country,
            "rows": each.raw_rows,
            "assets": ", ".join(one.asset[-1] for one in each.snapshots),
            "newest": max(one.created_at for one in each.snapshots).isoformat(timespec="seconds"),
        }
        for each in found
    ]
    if as_json:
        say(json.dumps(rows, indent=1))
    elif rows:
        print_table("", pd.DataFrame(rows))
    else:
        say("Every stored country is listed.")


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
    quarantines, raw = ctx.current_all("quarantine", wanted), ctx.current_all("raw", wanted)
    found = not_used_by_country(quarantines, raw, ctx.product)
    rows = [{"country": name, **asdict(each)} for name, listed in found.items() for each in listed]
    names = ["country", "file", "ingested_at", "rows", "rejected", "verdict"]
    return pd.DataFrame(rows, columns=names)
