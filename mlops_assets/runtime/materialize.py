"""The main job without a daemon: which runs, in which order, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mlops_assets.product import Product
from mlops_assets.runtime.headless import RunOrder, RunOutcome, WarmWorkers

Job = Literal["all", "train", "predict"]
Progress = Callable[[str, int, RunOutcome | None], None]
"""Called with the phase, its number of runs, and each outcome as it comes (None at its start)."""

_CONTRACT = ("validated", "quarantine", "features")
_AFTER_POOLED = {
    "all": ("model", "champion", "predictions"),
    "train": ("model", "champion"),
    "predict": ("predictions",),
}


@dataclass
class Outcome:
    """What became of each country of a product.

    Attributes:
        product: its name.
        failures: country (or `pooled`): why it did not get through.
        fallback: countries whose training was stopped and who got predictions all the same.
        runs: number of Dagster runs.
    """

    product: str
    failures: dict[str, tuple[str, ...]] = field(default_factory=dict)
    fallback: set[str] = field(default_factory=set)
    warnings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    runs: int = 0


def materialize(
    product: Product,
    countries: Sequence[str],
    job: Job,
    workers: WarmWorkers,
    progress: Progress,
) -> Outcome:
    """Run a job for some countries, each in a run of its own.

    New files are taken in one run over all countries; the pooled model is trained between the
    countries' features and their models, because it needs the first and serves the second. A
    country stopped by a gate still gets predictions from its champion or the baseline.
    """
    outcome = Outcome(product.name)
    going = _ingest(product, countries, job, workers, progress, outcome)
    pooled = any("pooled" in candidate.scopes for candidate in product.spec.candidates)
    if pooled and job != "predict":
        going = _countries(product, going, job, _CONTRACT, workers, progress, outcome)
        if going:
            order = RunOrder(product.name, "pooled", ("pooled_model",))
            _run("pooled model", [order], workers, progress, outcome)
        rest = _AFTER_POOLED[job]
    else:
        rest = (*_CONTRACT, *_AFTER_POOLED[job])
    reached = _countries(product, going, job, rest, workers, progress, outcome)
    if job == "all":
        able = _having(product, "features")
        stopped = [country for country in going if country not in reached and country in able]
        served = _countries(
            product,
            stopped,
            "predict",
            ("predictions",),
            workers,
            progress,
            outcome,
            phase="fallback predictions",
        )
        outcome.fallback.update(served)
    return outcome


def _ingest(
    product: Product,
    countries: Sequence[str],
    job: Job,
    workers: WarmWorkers,
    progress: Progress,
    outcome: Outcome,
) -> list[str]:
    """Take new files for all countries at once; those without any row go no further."""
    listed = product.spec.countries
    order = RunOrder(product.name, job, ("raw",), countries=(listed[0], listed[-1]))
    if len(listed) == 1:
        order = RunOrder(product.name, job, ("raw",), country=listed[0])
    (result,) = _run("ingestion", [order], workers, progress, Outcome(product.name))
    outcome.runs += 1
    if result.warnings:
        outcome.warnings["all countries"] = result.warnings
    if result.success:
        return list(countries)
    ingested = _having(product, "raw")
    missing = [country for country in countries if country not in ingested]
    for country in missing:
        outcome.failures[country] = result.problems
    return [country for country in countries if country not in missing]


def _having(product: Product, asset: str) -> set[str]:
    """Countries that have a snapshot of an asset."""
    from mlops_assets.settings import load_settings
    from mlops_assets.storage import SnapshotStore

    store = SnapshotStore(load_settings().storage)
    return set(store.current_all((product.name, asset), list(product.spec.countries)))


def _countries(
    product: Product,
    countries: Sequence[str],
    job: Job,
    assets: tuple[str, ...],
    workers: WarmWorkers,
    progress: Progress,
    outcome: Outcome,
    phase: str | None = None,
) -> list[str]:
    """One run a country; returns the countries that got through, in the order given."""
    orders = [RunOrder(product.name, job, assets, country=country) for country in countries]
    name = phase or ("features" if assets == _CONTRACT else " and ".join(assets[-3:]))
    results = _run(name, orders, workers, progress, outcome)
    through = {result.order.country for result in results if result.success}
    return [country for country in countries if country in through]


def _run(
    phase: str,
    orders: Sequence[RunOrder],
    workers: WarmWorkers,
    progress: Progress,
    outcome: Outcome,
) -> list[RunOutcome]:
    if not orders:
        return []
    progress(phase, len(orders), None)
    results = []
    for result in workers.run(orders):
        results.append(result)
        outcome.runs += 1
        who = result.order.country or "pooled"
        if not result.success:
            outcome.failures[who] = (*outcome.failures.get(who, ()), *result.problems)
        progress(phase, len(orders), result)
    return results
