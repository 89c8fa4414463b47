"""The main job without a daemon: which runs, in which order, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mlops_assets.ml.training.selection import pooled_names
from mlops_assets.runtime.headless.workers import RunOrder, RunOutcome, WarmWorkers
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.common.lineage import SHARED
from mlops_assets.stages.datasets.delivery_report import report_of_run
from mlops_assets.stages.datasets.ingestion import NotTaken
from mlops_assets.stages.datasets.judgement import describe_not_used, not_used_by_country
from mlops_assets.stages.staleness import Staleness

Job = Literal["all", "train", "predict", "monitor"]
RunProgress = Callable[[str, int, RunOutcome | None], None]
"""Called with the phase, its number of runs, and each outcome as it comes (None at its start)."""

DECIDED_BEFORE = "a gate refused this very candidate before"
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
        failures: country (or `pooled`, `shared`): why it did not get through; a person is needed.
        decided: country (or `pooled`): gates that refused its candidate, now or in an earlier run
            over the very same; what served before serves on, and nobody is needed.
        nothing: country: why there is nothing to make of it, which is a state of its data.
        fallback: countries whose training was stopped and who got predictions all the same.
        unchanged: countries for which nothing had to be made again.
        warnings: checks of the ingestion that did not pass and block nothing; and why a country
            that was not asked for is missing in the shared features.
        runs: number of Dagster runs.
        delivered: what the ingestion took, in a line; "" when there was no new file.
        not_used: countries that go on without a delivery that broke the contract: which.
        set_aside: delivered files of which nothing was taken.
    """

    product: str
    failures: dict[str, tuple[str, ...]] = field(default_factory=dict)
    decided: dict[str, tuple[str, ...]] = field(default_factory=dict)
    nothing: dict[str, str] = field(default_factory=dict)
    fallback: set[str] = field(default_factory=set)
    unchanged: set[str] = field(default_factory=set)
    warnings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    runs: int = 0
    delivered: str = ""
    not_used: dict[str, str] = field(default_factory=dict)
    set_aside: tuple[str, ...] = ()

    @property
    def needed(self) -> int:
        """How many countries and files need a person."""
        return len(self.failures.keys() | self.not_used.keys()) + len(self.set_aside)


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
        self._note_not_used(set(countries) - self.outcome.failures.keys())
        told = {*self.outcome.failures, *self.outcome.nothing, *self._made}
        self.outcome.unchanged.update(each for each in countries if each not in told)
        return self.outcome

    def _note_not_used(self, countries: Collection[str]) -> None:
        """Deliveries that are not used, each time until they are; a refused country says so."""
        quarantines = self.ctx.current_all("quarantine", [*countries])
        raw = self.ctx.current_all("raw", [*countries])
        for country, found in not_used_by_country(quarantines, raw, self.ctx.product).items():
            self.outcome.not_used[country] = describe_not_used(found)

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
        self.outcome.set_aside = result.set_aside
        if report := report_of_run(self.ctx, result.run_id):
            self.outcome.delivered = report.summary()
        there = self._having("raw")
        without = [country for country in countries if country not in there]
        self._note_ingestion(result, without, there)
        return [country for country in countries if country in there]

    def _note_ingestion(
        self, result: RunOutcome, without: Sequence[str], there: Collection[str]
    ) -> None:
        """What the ingestion left undone, by country where it is about one.

        Where no country of the product has a row, somebody has yet to deliver; one country without
        is a state.

        Args:
            result: of its run.
            without: the countries that have no rows after it.
            there: the countries that have some.
        """
        left = NotTaken() if result.success else NotTaken.from_metadata(result.details)
        for country in without:
            refused = left is None or country in left.refused
            if refused or not there:
                told = result.problems if refused else (_nothing_of(country),)
                self.outcome.failures[country] = told
            else:
                self.outcome.nothing[country] = _nothing_of(country)
        concerns_others = not without or (left is not None and bool(left.missing))
        if (left is None or left.refused) and concerns_others:
            self.outcome.failures["ingestion"] = result.problems

    def _each(self, countries: Sequence[str], assets: tuple[str, ...], phase: str) -> list[str]:
        """One run for each stale country; the countries that are through, in the order given.

        Those with most rows go first, so that nobody waits at the end for the one that takes long.
        Where only predictions and what follows are to be made, as after a person moved a champion,
        the run has nothing else: a gate that stopped the candidate must not keep them from it.
        Of a country whose newest delivery was refused, what follows from its last good data is.
        """
        state = Staleness(self.ctx, countries)
        refused = {country for country in countries if self._is_refused(state, country, assets)}
        good = tuple(each for each in assets if each not in _RECORDS)
        wanted = {country: good if country in refused else assets for country in countries}
        without = {each for each in refused if state.current(each, "validated") is None}
        stale = {
            country: found
            for country in countries
            if country not in without and (found := self._to_make(state, country, wanted[country]))
        }
        self._made.update(stale)
        self._note_nothing(state, countries)
        orders = [
            self._order(_from(stale[country], wanted[country]), country=country)
            for country in self._largest_first(stale)
        ]
        failed = {each.order.country for each in self._run(phase, orders) if not each.success}
        return [country for country in countries if country not in failed | without]

    def _is_refused(self, state: Staleness, country: str, assets: Sequence[str]) -> bool:
        """Whether the contract would refuse the very delivery that it has refused before."""
        found = state.first(country, assets)
        if found is None or found.asset != "validated" or not found.is_decided:
            return False
        self.outcome.failures[country] = (_refused_before(self.ctx.name, country),)
        return True

    def _to_make(self, state: Staleness, country: str, assets: Sequence[str]) -> str:
        """The first asset to make; not a candidate that a gate has refused, which is noted."""
        for stale in state.all(country, assets):
            if stale.asset != "champion" or not stale.is_decided:
                return stale.asset
            self.outcome.decided[country] = (DECIDED_BEFORE,)
        return ""

    def _note_nothing(self, state: Staleness, countries: Sequence[str]) -> None:
        for country in countries:
            if state.whole.country(country).has_nothing_to_predict:
                text = f"the features of {country} have no row: there is nothing to predict"
                self.outcome.nothing[country] = text

    def _largest_first(self, countries: Collection[str]) -> list[str]:
        """By rows of the records as published."""
        found = self.ctx.current_all("raw", [*countries])
        rows = {country: held.rows for country, held in found.items()}
        return sorted(countries, key=lambda country: rows.get(country, 0), reverse=True)

    def _serve(self, stopped: Sequence[str]) -> None:
        """Predictions of what served before, or of the baseline, where training was stopped."""
        able, state = self._having("features"), Staleness(self.ctx, stopped)
        orders = [
            self._order(_SERVING, country=country, job="predict")
            for country in stopped
            if country in able and state.first(country, _SERVING) is not None
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
            if result.is_decided:
                self.outcome.decided[who] = result.problems
                continue
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


def _refused_before(product: str, country: str) -> str:
    return (
        "the newest delivery was refused before, and neither it nor the contract has changed since."
        f" Look at the rows with: mlops-assets quarantine {product} {country}"
    )


def _nothing_of(country: str) -> str:
    return (
        f"no row of {country} was ever delivered. Drop a file that has some in the landing folder, "
        "or remove it from `countries`"
    )
