"""Commands that make things: `up`, `materialize`, `demo`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from mlops_assets.cli.base import (
    AsJson,
    all_products,
    app,
    context_of,
    product_named,
    registry_of,
    say,
)
from mlops_assets.cli.output.outcomes import outcome_row, report
from mlops_assets.cli.views import print_status, status_rows
from mlops_assets.errors import ConfigurationError
from mlops_assets.settings import AS_OF, BROKER, Settings, load_settings, parse_moment

if TYPE_CHECKING:
    from mlops_assets.file_locks import Holder
    from mlops_assets.product import Product
    from mlops_assets.runtime.headless.materialize import Outcome, RunProgress
    from mlops_assets.runtime.headless.workers import RunOrder, RunOutcome

_T = TypeVar("_T")
NoWait = Annotated[
    bool,
    typer.Option("--no-wait", help="Fail at once where another command makes the same countries."),
]


class JobName(StrEnum):
    """What `materialize` can run."""

    all = "all"
    train = "train"
    predict = "predict"
    monitor = "monitor"


@app.command(
    help="Serve the Dagster UI with warm workers and the MLflow UI until Ctrl-C.\n\n"
    "Example: mlops-assets up --port 3000"
)
def up(
    port: Annotated[int, typer.Option(help="Port of the Dagster UI on 127.0.0.1.")] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow UI.")] = 5000,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Workers on this host; default: one a core. 0: on others only."),
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at once on all hosts together; default: the workers here."),
    ] = None,
) -> None:
    """Start everything, stop everything."""
    from mlops_assets.runtime.instance import concurrency
    from mlops_assets.runtime.up.up import Crew, Ports
    from mlops_assets.runtime.up.up import up as serve

    settings, crew = load_settings(), Crew(concurrency() if workers is None else workers)
    if not crew.processes and not settings.broker:
        raise _no_workers()
    at_once = runs or max(1, crew.processes)
    serve(settings, Ports(port, mlflow_port), crew, at_once, say=say)


@app.command(
    help="Execute runs on this host, which the UI of another one hands out, until Ctrl-C.\n\n"
    "Example: mlops-assets worker --processes 4 --queue large"
)
def worker(
    processes: Annotated[
        int | None, typer.Option(min=1, help="Runs at once here; default: one a core.")
    ] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option(help="Only runs of this size: small, medium, large; repeat for more."),
    ] = None,
) -> None:
    """Workers of a cluster."""
    from mlops_assets.runtime.instance import concurrency
    from mlops_assets.runtime.up.processes import queues_named
    from mlops_assets.runtime.up.up import Crew, work

    settings = load_settings()
    if not settings.broker:
        raise _no_broker()
    count = processes or concurrency()
    work(settings, Crew(count, queues_named(queue or [])), count, say)


def _no_workers() -> ConfigurationError:
    return ConfigurationError(
        "Without workers here, others have to execute the runs, and there is no broker.",
        stored="Nothing was started.",
        way_out=f"Set {BROKER} to the Redis of your workers, or leave out --workers 0.",
    )


def _no_broker() -> ConfigurationError:
    return ConfigurationError(
        "A host of workers needs a broker that hands it runs.",
        stored="Nothing was started.",
        way_out=f"Set {BROKER}, such as redis://host:6379/0. On one machine `mlops-assets up` has "
        "workers of its own.",
    )


@app.command(
    help="Make the assets of a product, each country in a Dagster run of its own.\n\n"
    "Exit code 0: all was made or decided (a gate that refused a candidate has decided); 1: a "
    "person is needed.\n\n"
    "Example: mlops-assets materialize power_price --country FRA --country DEU --job train"
)
def materialize(
    product: Annotated[str, typer.Argument(help="Name of the product.")],
    country: Annotated[list[str] | None, typer.Option(help="A country; repeat for more.")] = None,
    all_countries: Annotated[bool, typer.Option("--all", help="Every listed country.")] = False,
    job: Annotated[JobName, typer.Option(help="Which part of the pipeline.")] = JobName.all,
    *,
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of",
            help="Make it from what was known at this time (UTC), in a home of its own; nothing "
            "in use is touched.",
        ),
    ] = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Run a job headless; exit code 1 when a person is needed."""
    if as_of:
        os.environ[AS_OF] = parse_moment(as_of).isoformat()
    found = product_named(product)
    if bool(country) == all_countries:
        raise ConfigurationError(
            "Say which countries: --country CODE (repeatable), or --all"
            f"{', not both' if country else ''}.",
            stored="Nothing was run.",
        )
    chosen = list(country or found.spec.countries)
    for each in chosen:
        found.resolved(each)
    with _alone({found.name: None if all_countries else chosen}, no_wait):
        outcomes = execute([found], {found.name: chosen}, job.value, quiet=as_json)
    if as_json:
        say(json.dumps([outcome_row(outcome) for outcome in outcomes], indent=1))
    else:
        report(outcomes)
        _print_where(load_settings())
    raise typer.Exit(1 if any(each.needed for each in outcomes) else 0)


def _print_where(settings: Settings) -> None:
    if settings.as_of:
        moment = settings.as_of.isoformat().replace("+00:00", "Z")
        say(
            f"Made as of {settings.as_of:%Y-%m-%d %H:%M} UTC in {settings.home}; nothing in use "
            f"was touched. Look at it with {AS_OF}={moment} in front of a command."
        )


@app.command(
    help="Set up a demonstration: deliver data, make everything, print the status.\n\n"
    "Example: mlops-assets demo --data ../published"
)
def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with files as published; default: generated data."),
    ] = None,
    no_wait: NoWait = False,
) -> None:
    """All products, all countries, raw to predictions."""
    from mlops_assets.runtime.headless.demo import deliver_demo_data, require_data_folder

    require_data_folder(data)
    started = time.monotonic()
    products = all_products()
    with _alone({product.name: None for product in products}, no_wait):
        delivered = deliver_demo_data(products, load_settings(), data)
        for name, what in delivered.items():
            say(f"{name}: delivered {what}")
        chosen = [product for product in products if product.name in delivered]
        outcomes = execute(chosen, {p.name: list(p.spec.countries) for p in chosen}, "all")
    rows = {product.name: status_rows(product) for product in chosen}
    for each in rows.values():
        print_status(each)
    report(outcomes)
    say(f"Done in {time.monotonic() - started:.0f} s. Open the UI with: make ui")
    # A gate that stops a candidate is the platform at work; a country without predictions is not,
    # unless there is nothing to predict.
    wanting = [row for each in rows.values() for row in each if not row.prediction_rows]
    if any(row.state not in ("no_data", "nothing_to_predict") for row in wanting):
        raise typer.Exit(1)


@contextmanager
def _alone(countries: Mapping[str, Sequence[str] | None], no_wait: bool) -> Iterator[None]:
    """No other command that makes the same countries, until the block ends.

    Args:
        countries: by product; None: every one of it.
        no_wait: do not wait for another one that does.

    Raises:
        BusyError: there is one, and it is not waited for.
    """
    from mlops_assets.file_locks import holding, holding_all, lock_file, this_command

    folder, command = load_settings().locks / "commands", this_command()
    told, why = (None if no_wait else _wait_told), "Nothing was run."
    with ExitStack() as held:
        for product, some in sorted(countries.items()):
            # One for all countries shuts out those for some, which share it among themselves.
            whole = holding(
                lock_file(folder, product), command, told, shared=some is not None, why=why
            )
            held.enter_context(whole)
            each = holding_all(folder / product, list(some or ()), command, told, why=why)
            held.enter_context(each)
        yield


def _wait_told(holder: Holder | None) -> None:
    typer.echo(
        f"Waits for {holder or 'another command'}, which makes the same. Then it goes on with what "
        "is left to do; Ctrl-C ends it, and nothing was run.",
        err=True,
    )


def run_orders(orders: Sequence[RunOrder]) -> list[RunOutcome]:
    """Execute single runs headless."""
    from mlops_assets.runtime.headless.workers import WarmWorkers
    from mlops_assets.runtime.instance import concurrency

    with WarmWorkers(_prepared(load_settings()), min(concurrency(), len(orders))) as workers:
        return list(workers.run(orders))


def _prepared(settings: Settings) -> Path:
    """Folder of the Dagster instance; what runs need is loaded, and MLflow's database is there.

    A new database takes as long as all that is imported, so one goes on beside the other.
    """
    from mlops_assets.runtime.headless.workers import load_to_fork
    from mlops_assets.runtime.instance import prepare_instance

    registry = registry_of(settings)
    with ThreadPoolExecutor(1) as beside:  # it has ended before anything is forked
        created = beside.submit(registry.create)
        home = prepare_instance(settings)
        load_to_fork(home)
    created.result()
    registry.initialise()
    return home


def execute(
    products: Sequence[Product], countries: dict[str, list[str]], job: Any, *, quiet: bool = False
) -> list[Outcome]:
    """Run a job of each product, with progress on the terminal.

    Products go side by side: while one waits for a run that all its countries need, the processes
    work for another.
    """
    from mlops_assets.runtime.headless.materialize import Materializer
    from mlops_assets.runtime.headless.materialize import Outcome as Made
    from mlops_assets.runtime.headless.workers import WarmWorkers
    from mlops_assets.runtime.instance import concurrency

    home = _prepared(load_settings())
    with WarmWorkers(home, concurrency()) as workers, _progress(quiet) as progress_of:

        def make(product: Product) -> Outcome:
            ctx, made = context_of(product), Made(product.name)
            run = Materializer(ctx, job, workers, progress_of(product.name), made)
            return run.run(countries[product.name])

        return _side_by_side([partial(make, product) for product in products])


def _side_by_side(tasks: Sequence[Callable[[], _T]]) -> list[_T]:
    """What each gives, in their order; the first error there was, once all have ended.

    Each has a thread that ends with this process: after Ctrl-C nobody waits for its runs.
    """
    if len(tasks) == 1:
        return [tasks[0]()]
    results: list[Future[_T]] = [Future() for _ in tasks]

    def give(result: Future[_T], task: Callable[[], _T]) -> None:
        try:
            result.set_result(task())
        except BaseException as error:  # raised where the result is waited for
            result.set_exception(error)

    for each in zip(results, tasks, strict=True):
        Thread(target=give, args=each, daemon=True).start()
    wait(results)
    return [each.result() for each in results]


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str], RunProgress]]:
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

    def progress_of(product: str) -> RunProgress:
        tasks: dict[str, Any] = {}
        done: dict[str, int] = {}

        def tell(phase: str, total: int, outcome: RunOutcome | None) -> None:
            if outcome is None:
                tasks[phase] = bars.add_task(f"{product}: {phase}", total=total)
                done[phase] = 0
                return
            bars.advance(tasks[phase])
            done[phase] += 1
            if not outcome.success and not outcome.is_decided:  # why is told once, at the end
                bars.console.print(f"{outcome.order.label}: stopped", markup=False)
            if done[phase] == total and not console.is_terminal:
                console.print(f"{product}: {phase}: {total} done", markup=False)

        return tell

    with bars:
        yield progress_of
