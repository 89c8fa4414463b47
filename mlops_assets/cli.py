"""`mlops-assets`: the platform from a terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_assets.errors import ConfigurationError, MlopsAssetsError
from mlops_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from mlops_assets.product import Product
    from mlops_assets.runtime.headless import RunOutcome
    from mlops_assets.runtime.materialize import Outcome
    from mlops_assets.runtime.status import CountryStatus
    from mlops_assets.storage import SnapshotStore

app = typer.Typer(
    help="Data and model products, one partition a country, on Dagster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class JobName(StrEnum):
    """What `materialize` can run."""

    all = "all"
    train = "train"
    predict = "predict"


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main() -> None:
    """Run the command line; our own errors become one readable paragraph and exit code 1."""
    try:
        app()
    except MlopsAssetsError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except OSError as error:  # a full disk, a folder that may not be written
        typer.echo(
            f"error: {error}. What was whole before is whole still. Check that there is room and "
            f"that {load_settings().home} can be written, or set MLOPS_ASSETS_HOME.",
            err=True,
        )
        sys.exit(1)


@app.command(
    help="Serve the Dagster UI with warm workers and the MLflow UI until Ctrl-C.\n\n"
    "Example: mlops-assets up --port 3000"
)
def up(
    port: Annotated[int, typer.Option(help="Port of the Dagster UI on 127.0.0.1.")] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow UI.")] = 5000,
) -> None:
    """Start everything, stop everything."""
    from mlops_assets.runtime.up import Ports
    from mlops_assets.runtime.up import up as serve

    serve(load_settings(), Ports(port, mlflow_port), _say)


@app.command(
    help="Make the assets of a product, each country in a Dagster run of its own.\n\n"
    "Example: mlops-assets materialize power_price --country FRA --country DEU --job train"
)
def materialize(
    product: Annotated[str, typer.Argument(help="Name of the product.")],
    country: Annotated[list[str] | None, typer.Option(help="A country; repeat for more.")] = None,
    all_countries: Annotated[bool, typer.Option("--all", help="Every listed country.")] = False,
    job: Annotated[JobName, typer.Option(help="Which part of the pipeline.")] = JobName.all,
    as_json: AsJson = False,
) -> None:
    """Run a job headless; exit code 1 when a country failed."""
    found = _product(product)
    if bool(country) == all_countries:
        raise ConfigurationError(
            "Say which countries: --country CODE (repeatable), or --all"
            f"{', not both' if country else ''}.",
            stored="Nothing was run.",
        )
    chosen = list(country or found.spec.countries)
    for each in chosen:
        found.resolved(each)
    outcomes = _materialize([found], {found.name: chosen}, job.value, quiet=as_json)
    if as_json:
        _say(json.dumps([_outcome_row(outcome) for outcome in outcomes], indent=1))
    else:
        _report(outcomes)
    raise typer.Exit(1 if any(outcome.failures for outcome in outcomes) else 0)


@app.command(
    help="Set up a demonstration: deliver data, make everything, print the status.\n\n"
    "Example: mlops-assets demo --data ../published"
)
def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with files as published; default: generated data."),
    ] = None,
) -> None:
    """All products, all countries, raw to predictions."""
    from mlops_assets.runtime.demo import deliver

    started = time.monotonic()
    settings, products = load_settings(), _products()
    delivered = deliver(products, settings, data)
    for name, what in delivered.items():
        _say(f"{name}: delivered {what}")
    chosen = [product for product in products if product.name in delivered]
    outcomes = _materialize(chosen, {p.name: list(p.spec.countries) for p in chosen}, "all")
    for product in chosen:
        _print_status(_status_rows(product, settings))
    _report(outcomes)
    _say(f"Done in {time.monotonic() - started:.0f} s. Open the UI with: make ui")
    # A gate that stops a candidate is the platform at work; a country without predictions is not.
    broken = {p.name: _unserved(p, settings) for p in chosen}
    if any(broken.values()):
        raise typer.Exit(1)


@app.command(
    help="Where every country stands: champion, metric against baseline, data, predictions.\n\n"
    "Example: mlops-assets status power_price --json"
)
def status(
    product: Annotated[str | None, typer.Argument(help="Default: every product.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the state of countries."""
    settings = load_settings()
    products = [_product(product)] if product else _products()
    rows = [row for each in products for row in _status_rows(each, settings)]
    if as_json:
        _say(json.dumps([row.as_dict() for row in rows], indent=1))
    else:
        _print_status(rows)


@app.command(
    help="The recorded decisions of a product, newest last.\n\n"
    "Example: mlops-assets decisions power_price --country FRA"
)
def decisions(
    product: Annotated[str, typer.Argument(help="Name of the product.")],
    country: Annotated[str | None, typer.Option(help="Only this country.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the append-only table of decisions."""
    found = _product(product)
    frame = _store(load_settings()).read_log((found.name, "decisions"), country)
    if country is not None and frame.empty:
        found.resolved(country)  # one that is listed no more may still have decisions
    if as_json:
        _say(frame.to_json(orient="records", date_format="iso", indent=1))
    elif frame.empty:
        _say(f"{found.name}: no decision yet.")
    else:
        shown = ["decided_at", "country", "verdict", "candidate_version", "champion_version"]
        _table(f"{found.name}: decisions", frame[[*shown, "reason"]].sort_values("decided_at"))


@app.command(
    help="Query the current snapshots: a schema per product, a view per asset, the partition in "
    'the column _country.\n\nExample: mlops-assets sql "select _country, count(*) from '
    'power_price.validated group by all"'
)
def sql(
    query: Annotated[str, typer.Argument(help="DuckDB SQL.")],
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
    frame = run_sql(_store(load_settings()), query)
    if as_json:
        _say(frame.to_json(orient="records", date_format="iso", indent=1))
    else:
        _table("", frame)


@app.command(
    "new-product",
    help="Make a folder for a new product that loads and runs, with comments that teach.\n\n"
    "Example: mlops-assets new-product heat_demand",
)
def new_product(
    name: Annotated[str, typer.Argument(help="Lower-case name of product and folder.")],
) -> None:
    """Scaffold a product folder."""
    from mlops_assets.components.scaffold import new_product as scaffold

    folder = scaffold(name, load_settings().defs)
    _say(f"Made {folder}.\nNext: edit defs.yaml there, then run: mlops-assets doctor")


@app.command(
    help="Check the set-up: versions, folders, products, registry; says what to do.\n\n"
    "Example: mlops-assets doctor"
)
def doctor(as_json: AsJson = False) -> None:
    """Run every check and exit with 1 when one fails."""
    from mlops_assets.runtime.doctor import examine

    findings = examine(load_settings())
    if as_json:
        _say(json.dumps([vars(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            _say(f"{'ok  ' if finding.ok else 'FAIL'} {finding.check}: {finding.found}")
            if not finding.ok:
                _say(f"     {finding.way_out}")
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


def _materialize(
    products: Sequence[Product], countries: dict[str, list[str]], job: Any, *, quiet: bool = False
) -> list[Outcome]:
    from mlops_assets.runtime.headless import WarmWorkers
    from mlops_assets.runtime.instance import concurrency, prepare_instance
    from mlops_assets.runtime.materialize import Materializer
    from mlops_assets.runtime.materialize import Outcome as Made

    settings = load_settings()
    store, registry = _store(settings), _registry(settings)
    registry.initialise()
    home = prepare_instance(settings)
    outcomes = []
    with WarmWorkers(home, concurrency()) as workers:
        for product in products:
            with _progress(product.name, quiet) as progress:
                made = Made(product.name)
                run = Materializer(product, job, store, registry, workers, progress, made)
                outcomes.append(run.run(countries[product.name]))
    return outcomes


@contextmanager
def _progress(product: str, quiet: bool) -> Iterator[Any]:
    """A bar where a person looks on; a line a phase elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, quiet=quiet)
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
    )
    tasks: dict[str, Any] = {}
    done: dict[str, int] = {}

    def tell(phase: str, total: int, outcome: RunOutcome | None) -> None:
        if outcome is None:
            tasks[phase] = bars.add_task(f"{product}: {phase}", total=total)
            done[phase] = 0
            return
        bars.advance(tasks[phase])
        done[phase] += 1
        if not outcome.success:
            bars.console.print(f"{outcome.order.label}: {outcome.problems[0]}", markup=False)
        if done[phase] == total and not console.is_terminal:
            console.print(f"{product}: {phase}: {total} done", markup=False)

    with bars:
        yield tell


def _report(outcomes: Sequence[Outcome]) -> None:
    """Last lines: who failed and why, and what came through."""
    for outcome in outcomes:
        for where, texts in outcome.warnings.items():
            for text in texts:
                _say(f"warning: {outcome.product} ({where}) {text}")
    for outcome in outcomes:
        for problems, countries in _by_problem(outcome).items():
            served = set(countries) & outcome.fallback
            tail = f" Predictions of {', '.join(sorted(served))} come from what served before, or "
            tail += "from the baseline."
            where = f"{outcome.product} {', '.join(countries)}"
            _say(f"stopped: {where}: {' | '.join(problems)}{tail if served else ''}")
        verdict = f"{len(outcome.failures)} stopped" if outcome.failures else "all went well"
        same = f", {len(outcome.unchanged)} countries unchanged" if outcome.unchanged else ""
        _say(f"{outcome.product}: {outcome.runs} runs, {verdict}{same}")


def _by_problem(outcome: Outcome) -> dict[tuple[str, ...], list[str]]:
    """Countries that stopped for the very same reason, told once."""
    found: dict[tuple[str, ...], list[str]] = {}
    for country, problems in outcome.failures.items():
        found.setdefault(problems, []).append(country)
    return found


def _outcome_row(outcome: Outcome) -> dict[str, Any]:
    return {
        "product": outcome.product,
        "runs": outcome.runs,
        "failures": outcome.failures,
        "fallback": sorted(outcome.fallback),
        "unchanged": sorted(outcome.unchanged),
        "warnings": outcome.warnings,
    }


def _unserved(product: Product, settings: Settings) -> list[str]:
    return [row.country for row in _status_rows(product, settings) if not row.prediction_rows]


def _status_rows(product: Product, settings: Settings) -> list[CountryStatus]:
    from mlops_assets.runtime.status import product_status

    registry = _registry(settings)
    registry.initialise()
    return product_status(product, _store(settings), registry)


def _print_status(rows: Sequence[CountryStatus]) -> None:
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
            "predictions": [row.prediction_rows for row in rows],
            "predicted at": [row.predicted_at or "-" for row in rows],
            "why": [row.why for row in rows],
        }
    )
    _table("", frame)


def _champion(row: CountryStatus) -> str:
    kind = row.champion_kind or "-"
    return f"{kind} v{row.champion_version}" if row.champion_version else kind


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _table(title: str, frame: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title or None, box=None, header_style="bold", pad_edge=False)
    for name in frame.columns:
        shown.add_column(str(name), overflow="fold", no_wrap=str(name) not in {"why", "reason"})
    for row in frame.itertuples(index=False):
        shown.add_row(*(str(value) for value in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=240)
    console.print(shown, markup=False)


def _products() -> list[Product]:
    from mlops_assets.components.loading import load_products

    return load_products(load_settings().defs)


def _product(name: str) -> Product:
    products = {product.name: product for product in _products()}
    if name not in products:
        raise ConfigurationError(
            f"There is no product {name!r}; there are {', '.join(sorted(products)) or 'none'}.",
            stored="Nothing was run.",
            way_out=f"Make it with: mlops-assets new-product {name}",
        )
    return products[name]


def _store(settings: Settings) -> SnapshotStore:
    from mlops_assets.storage import SnapshotStore

    return SnapshotStore(settings.storage)


def _registry(settings: Settings) -> Any:
    from mlops_assets.registry import Registry

    return Registry(settings.mlflow_uri, settings.mlflow_artifacts)


def _say(text: str) -> None:
    typer.echo(text)


if __name__ == "__main__":
    main()
