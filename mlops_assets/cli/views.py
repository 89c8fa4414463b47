"""Commands that look: `status`, `sql`."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    store_of,
)
from mlops_assets.errors import ConfigurationError
from mlops_assets.settings import load_settings, parse_moment

if TYPE_CHECKING:
    from mlops_assets.product import Product
    from mlops_assets.runtime.status import CountryStatus


@app.command(
    help="Where every country stands: champion, metric against baseline, data, predictions.\n\n"
    "Example: mlops-assets status power_price --json"
)
def status(
    product: Annotated[str | None, typer.Argument(help="Default: every product.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the state of countries."""
    products = [product_named(product)] if product else all_products()
    rows = [row for each in products for row in status_rows(each)]
    if as_json:
        say(json.dumps([row.as_dict() for row in rows], indent=1))
    else:
        print_status(rows)


@app.command(
    help="Query the current snapshots of the listed countries: a schema per product, a view per "
    "asset, the partition in "
    'the column _country.\n\nExample: mlops-assets sql "select _country, count(*) from '
    'power_price.validated group by all"'
)
def sql(
    query: Annotated[str, typer.Argument(help="DuckDB SQL.")],
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", help="Query the snapshots that were current at this time (UTC)."),
    ] = None,
    unlisted: Annotated[
        bool,
        typer.Option("--unlisted", help="Also what is stored of countries no longer listed."),
    ] = False,
    *,
    as_json: AsJson = False,
) -> None:
    """Run SQL over the catalog of views."""
    from mlops_assets.storage.catalog import run_sql

    if not query.strip():
        raise ConfigurationError(
            "The query is empty.",
            stored="Nothing was read.",
            way_out='Give one, such as: mlops-assets sql "show all tables"',
        )
    moment = parse_moment(as_of) if as_of else None
    listed = None if unlisted else {each.name: each.spec.countries for each in all_products()}
    frame = run_sql(store_of(load_settings()), query, as_of=moment, listed=listed)
    if as_json:
        say(frame.to_json(orient="records", date_format="iso", indent=1))
    else:
        print_table("", frame)


def status_rows(product: Product) -> list[CountryStatus]:
    """Every country of a product."""
    from mlops_assets.runtime.status import product_status

    return product_status(context_of(product, initialise=True))


def print_status(rows: Sequence[CountryStatus]) -> None:
    """The table of `status`."""
    import pandas as pd

    frame = pd.DataFrame(
        {
            "product": [row.product for row in rows],
            "country": [row.country for row in rows],
            "state": [row.state for row in rows],
            "champion": [_champion(row) for row in rows],
            "metric": [row.metric for row in rows],
            "value": [_short(row.metric_value) for row in rows],
            "baseline": [_short(row.baseline_value) for row in rows],
            "realised": [_short(row.realised_value) for row in rows],
            "promised": [_short(row.expected_value) for row in rows],
            "drift": [row.drift or "-" for row in rows],
            "predictions": [row.prediction_rows for row in rows],
            "predicted at": [row.predicted_at or "-" for row in rows],
            "why": [row.why for row in rows],
        }
    )
    print_table("", frame)


def _champion(row: CountryStatus) -> str:
    kind = row.champion_kind or "-"
    return f"{kind} v{row.champion_version}" if row.champion_version else kind


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
