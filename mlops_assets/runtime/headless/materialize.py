"""The main job without a daemon: which runs, in which order, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mlops_assets.ml.training.selection import pooled_names
from mlops_assets.runtime.headless.workers import RunOrder, RunOutcome, WarmWorkers
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.common.lineage import SHARED
from mlops_assets.stages.datasets.ingestion import NotTaken
from mlops_assets.stages.staleness import Staleness

Job = Literal["all", "train", "predict", "monitor"]
RunProgress = Callable[[str, int, RunOutcome | None], None]
"""Called with the phase, its number of runs, and each outcome as it comes (None at its start)."""

_RECORDS = ("validated", "quarantine")
_MONITORING = ("performance", "drift")
_SERVING = ("predictions", *_MONITORING)
_LAST: dict[Job, tuple[str, ...]] = {
    "all": ("model", "champion", *_SERVING),
    "train": ("model", "champion"),
    "predict": _SERVING,
    "monitor": _MONITORING,
}
_SAID: dict[Job, str] = {
    "all": "model, champion, predictions and monitoring",
    "train": "model and champion",
    "predict": "predictions and monitoring",
    "monitor": "monitoring",
}


@dataclass
class Outcome:
    """What became of each country of a product.

    Attributes:
        product: its name.
        failures: country (or `pooled`, `shared`): why it did not get through.
        fallback: countries whose training was stopped and who got predictions all the same.
        unchanged: countries for which nothing had to be made again.
        warnings: checks of the ingestion that did not pass and block nothing; and why a country
            that was not asked for is missing in the shared features.
        runs: number of Dagster runs.
    """

    product: str
    failures: dict[str, tuple[str, ...]] = field(default_factory=dict)
    fallback: set[str] = field(default_factory=set)
    unchanged: set[str] = field(default_factory=set)
    warnings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    runs: int = 0


@dataclass(frozen=True)
class Materializer:
    """Runs a job of one product, each country in a Dagster run of its own.

    Attributes:
        ctx: the product, with the snapshots and models that say what has to be made.
        job: which part of the pipeline.
        workers: who executes.
        progress: who is told.
        outcome: filled as runs end.
    """

    ctx: ProductContext
    job: Job
    workers: WarmWorkers
    progress: RunProgress
    outcome: Outcome
    _made: set[str] = field(default_factory=set)

    def run(self, countries: Sequence[str]) -> Outcome:
        """Take new files, then make what is stale, country by country.

        New files are taken in one run over all countries (not to monitor, which looks at what is
        there). What is made of all countries is made
        between theirs: shared features after their records, the pooled model after their features.
        A country stopped by a gate still gets predictions from its champion or the baseline.
        """
        if self.job == "monitor":
            self._each(countries, _MONITORING, _SAID[self.job])
            return self._ended(countries)
        going = self._ingest(countries)
        begin, rest = (*_RECORDS, "features"), _LAST[self.job]
        if self.ctx.spec.made_after_all_records:
            going, begin = self._share(going), ("features",)
        if self.job in ("all", "train") and self._pools():
            going = self._each(going, begin, "features")
            if going and Staleness(self.ctx).is_pooled_stale():
                self._run("pooled model", [self._order(("pooled_model",), job="pooled")])
        else:
            rest = (*begin, *rest)
        reached = self._each(going, rest, _SAID[self.job])
        if self.job == "all":
            self._serve([country for country in going if country not in reached])
        return self._ended(countries)

    def _ended(self, countries: Sequence[str]) -> Outcome:
        touched = {*self.outcome.failures, *self._made}
        self.outcome.unchanged.update(each for each in countries if each not in touched)
        return self.outcome

    def _share(self, countries: Sequence[str]) -> list[str]:
        """Records, then the features shared by all; the countries that are through.

        The records of all also say how late it is, where there are cut-offs. Countries that
        nobody asked for take part with the records they have; those whose records were never
        judged are judged now, and stop nothing.
        """
        judged = self._having("validated") | self._having("quarantine") | set(countries)
        others = sorted(self._having("raw") - judged)
        orders = [self._order(_RECORDS, country=country) for country in others]
        for result in self._execute("records of the other countries", orders):
            if not result.success:
                self.outcome.warnings[str(result.order.country)] = result.problems
        going = self._each(countries, _RECORDS, "records")
        if Staleness(self.ctx).shared_inputs() is not None:
            self._run("shared features", [self._order((SHARED,), job="shared")])
        return going

    def _pools(self) -> bool:
        return bool(pooled_names(self.ctx.spec))

    def _order(
        self, assets: tuple[str, ...], *, country: str | None = None, job: str | None = None
    ) -> RunOrder:
        return RunOrder(self.ctx.name, job or self.job, assets, country=country)

    def _ingest(self, countries: Sequence[str]) -> list[str]:
        """Take new files for all countries at once; those without any row go no further."""
        listed = self.ctx.countries
        order = RunOrder(self.ctx.name, self.job, ("raw",), countries=(listed[0], listed[-1]))
        if len(listed) == 1:
            order = self._order(("raw",), country=listed[0])
        (result,) = self._execute("ingestion", [order])
        if result.warnings:
            self.outcome.warnings["all countries"] = result.warnings
        there = self._having("raw")
        without = [country for country in countries if country not in there]
        self._note_ingestion(result, without)
        return [country for country in countries if country in there]

    def _note_ingestion(self, result: RunOutcome, without: Sequence[str]) -> None:
        """What the ingestion left undone, by country where it is about one.

        Args:
            result: of its run.
            without: the countries that have no rows after it.
        """
        left = NotTaken() if result.success else NotTaken.from_metadata(result.details)
        for country in without:
            refused = left is None or country in left.refused
            told = result.problems if refused else (_nothing_of(country),)
            self.outcome.failures[country] = told
        concerns_others = not without or (left is not None and bool(left.missing))
        if (left is None or left.refused) and concerns_others:
            self.outcome.failures["ingestion"] = result.problems

    def _each(self, countries: Sequence[str], assets: tuple[str, ...], phase: str) -> list[str]:
        """One run for each stale country; the countries that are through, in the order given.

        Those with most rows go first, so that nobody waits at the end for the one that takes long.
        Where only predictions and what follows are to be made, as after a person moved a champion,
        the run has nothing else: a gate that stopped the candidate must not keep them from it.
        """
        state = Staleness(self.ctx, countries)
        stale = {
            country: found.asset
            for country in countries
            if (found := state.first(country, assets)) is not None
        }
        self._made.update(stale)
        orders = [
            self._order(_from(stale[country], assets), country=country)
            for country in self._largest_first(stale)
        ]
        failed = {each.order.country for each in self._run(phase, orders) if not each.success}
        return [country for country in countries if country not in failed]

    def _largest_first(self, countries: Collection[str]) -> list[str]:
        """By rows of the records as published."""
        found = self.ctx.current_all("raw", [*countries])
        rows = {country: held.rows for country, held in found.items()}
        return sorted(countries, key=lambda country: rows.get(country, 0), reverse=True)

    def _serve(self, stopped: Sequence[str]) -> None:
        """Predictions of what served before, or of the baseline, where training was stopped."""
        able = self._having("features")
        orders = [
            self._order(_SERVING, country=country, job="predict")
            for country in stopped
            if country in able
        ]
        results = self._run("fallback predictions", orders)
        served = [each.order.country for each in results if each.success and each.order.country]
        self.outcome.fallback.update(served)

    def _having(self, asset: str) -> set[str]:
        return set(self.ctx.current_all(asset))

    def _run(self, phase: str, orders: Sequence[RunOrder]) -> list[RunOutcome]:
        results = self._execute(phase, orders)
        for result in (each for each in results if not each.success):
            who = result.order.country or result.order.job
            before = self.outcome.failures.get(who, ())
            self.outcome.failures[who] = (*before, *result.problems)
        return results

    def _execute(self, phase: str, orders: Sequence[RunOrder]) -> list[RunOutcome]:
        if not orders:
            return []
        self.progress(phase, len(orders), None)
        results = []
        for result in self.workers.run(orders):
            results.append(result)
            self.progress(phase, len(orders), result)
        self.outcome.runs += len(results)
        return results


def _from(stale: str, assets: tuple[str, ...]) -> tuple[str, ...]:
    return assets[assets.index(stale) :] if stale in _SERVING else assets


def _nothing_of(country: str) -> str:
    return (
        f"no row of {country} was ever delivered. Drop a file that has some in the landing folder, "
        "or remove it from `countries`"
    )
