"""Commands that look: `status`, `sql`."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from mlops_assets.cli.base import (
    AsJson,
    all_products,
    app,
    context_of,
    print_rows,
    print_table,
    product_named,
    say,
    store_of,
)
from mlops_assets.errors import ConfigurationError, RegistryError
from mlops_assets.settings import load_settings, parse_moment

if TYPE_CHECKING:
    from mlops_assets.product import Product
    from mlops_assets.runtime.status import CountryStatus
    from mlops_assets.storage.catalog import SqlRows

_ROWS_OF_A_TABLE = 100


@app.command(
    help="Where every country stands: champion, metric against baseline, data, predictions.\n\n"
    "Exit code 1 where the model registry does not answer: the table is of the records then.\n\n"
    "Example: mlops-assets status power_price --json"
)
def status(
    product: Annotated[str | None, typer.Argument(help="Default: every product.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the state of countries; exit code 1 where the registry does not answer."""
    products = [product_named(product)] if product else all_products()
    rows, problem = _rows_as_known(products)
    if problem is not None:  # above the table, which is of the records then
        typer.echo(f"error: {problem}", err=True)
    if as_json:
        say(json.dumps([row.as_dict() for row in rows], indent=1))
    else:
        print_status(rows)
        for note in dict.fromkeys(
            f"{row.product}: {row.policy_note}" for row in rows if row.policy_note
        ):
            say(note)
    for each in failing_sensors(products):
        typer.echo(f"warning: {each}. See: mlops-assets doctor", err=True)
    if problem is not None:
        raise typer.Exit(1)


def _rows_as_known(
    products: Sequence[Product],
) -> tuple[list[CountryStatus], RegistryError | None]:
    """Every country of the products, and what is wrong with the registry that all of them share.

    Raises:
        RegistryError: it does not answer, and nothing of any country is stored.
    """
    from mlops_assets.runtime.status import recorded_status

    try:
        return [row for each in products for row in status_rows(each)], None
    except RegistryError as error:
        found = [row for each in products for row in recorded_status(context_of(each))]
        if all(row.state == "no_data" for row in found):
            raise  # nothing is stored either, as in a home that cannot be made
        return found, error


def failing_sensors(products: Sequence[Product]) -> list[str]:
    """What of the automation of the products fails, in sentences; a home without runs has none."""
    home = load_settings().dagster_home
    if not (home / "dagster.yaml").is_file():
        return []
    import dagster as dg

    from mlops_assets.stages.common.history.automation import automation_names, failing_automation

    names = {name for each in products for name in automation_names(each)}
    try:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            return [each.describe() for each in failing_automation(instance, names)]
    except Exception as error:  # the edge: the state of countries does not depend on it
        return [f"sensors could not be looked at: {type(error).__name__}: {error}"]


class Format(StrEnum):
    """How `sql` prints rows."""

    table = "table"
    csv = "csv"
    json = "json"


@app.command(
    help="Query the current snapshots of the listed countries: a schema per product, a view per "
    "asset, the partition in the column _country. A table shows the first 100 rows (--limit), csv "
    "and json have all.\n\n"
    'Example: mlops-assets sql "select _country, count(*) from power_price.validated group by all"'
)
def sql(
    query: Annotated[str, typer.Argument(help="DuckDB SQL.")],
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", help="Query the snapshots that were current at this time (UTC)."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=0, help="Rows at most; 0: all. Default: 100 of a table.")
    ] = None,
    how: Annotated[Format, typer.Option("--format", help="How rows are printed.")] = Format.table,
    *,
    unlisted: Annotated[
        bool,
        typer.Option("--unlisted", help="Also what is stored of countries no longer listed."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run SQL over the catalog of views."""
    from mlops_assets.storage.catalog import sql_rows

    if not query.strip():
        raise ConfigurationError(
            "The query is empty.",
            stored="Nothing was read.",
            way_out='Give one, such as: mlops-assets sql "show all tables"',
        )
    moment, how = parse_moment(as_of) if as_of else None, Format.json if as_json else how
    most = _ROWS_OF_A_TABLE if limit is None and how == Format.table else limit
    listed = None if unlisted else {each.name: each.spec.countries for each in all_products()}
    found = sql_rows(
        store_of(load_settings()), query, as_of=moment, listed=listed, limit=most or None
    )
    {Format.table: _as_table, Format.csv: _as_csv, Format.json: _as_json}[how](found)
    if found.left_out:
        typer.echo(
            f"{found.left_out:,} more rows are not shown; all of them: --limit 0, or --format csv",
            err=True,
        )


def _as_table(found: SqlRows) -> None:
    rows = (["NULL" if value is None else value for value in row] for row in found.rows)
    if found.names:
        print_rows("", found.names, rows)


def _as_csv(found: SqlRows) -> None:
    written = io.StringIO()
    lines = csv.writer(written, lineterminator="\n")
    lines.writerow(found.names)
    lines.writerows(found.rows)  # None as an empty cell
    typer.echo(written.getvalue(), nl=False)


def _as_json(found: SqlRows) -> None:
    plain = [
        {name: _plain(value) for name, value in zip(found.names, row, strict=True)}
        for row in found.rows
    ]
    say(json.dumps(plain, indent=1, default=str))


def _plain(value: object) -> object:
    """A value as JSON has it, with all it is made of: no number that is none, times in ISO 8601."""
    if isinstance(value, Mapping):
        return {_key(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        return int(value) if value == value.to_integral_value() else float(value)
    return value.isoformat() if isinstance(value, dt.date | dt.time) else value


def _key(key: object) -> str:
    plain = _plain(key)
    return plain if isinstance(plain, str) else str(key)


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
    if not row.champion_known:
        return f"not known (last {kind})" if row.champion_kind else "not known"
    return f"{kind} v{row.champion_version}" if row.champion_version else kind


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
