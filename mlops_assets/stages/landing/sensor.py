"""The landing sensor: new files are taken once, and just the countries with new rows go on.

It keeps no cursor. What was looked at is in the inventory, what was taken is in each country's raw
snapshot, what was asked for is in the runs: a restart, a repeated tick or a deleted cursor neither
loses work nor asks for it twice.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from mlops_assets.errors import some
from mlops_assets.product import Product
from mlops_assets.spec import duration
from mlops_assets.stages.common.base import AssetJob, Storage, asset_key
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.common.lineage import SHARED, made_from
from mlops_assets.stages.common.runs import PARTITION, RANGE_END, RANGE_START, RUN_KEY, TRIGGER
from mlops_assets.stages.datasets.inventory import unknown_files
from mlops_assets.stages.staleness import Staleness

ATTEMPT = "mlops_assets/attempt"
NEWS = "mlops_assets/news"
"""Tag of an ingestion: hash of the files that were new; "" where a source is polled."""
_INTERVAL_SECONDS = 10
_ATTEMPTS = 3
_DIGITS = 3
"""Of an attempt's number at most; anything longer is no such number."""
_RECORDS = ("validated", "quarantine")
_FEATURES = ("features", "predictions", "performance", "drift")
_NAMES_SHOWN = 5


@dataclass(frozen=True)
class _Ingestions:
    """The newest ingestion of a product.

    Attributes:
        run_id: "" when there was none.
        going_on: whether it is queued or running.
        failed: whether it failed.
        attempt: its number among attempts at the same files.
        age: since it was launched.
        canceled: whether a person ended it.
        news: hash of the files it was asked for; "" where it was asked for none.
    """

    run_id: str
    going_on: bool
    failed: bool
    attempt: int
    age: dt.timedelta
    canceled: bool = False
    news: str = ""


@dataclass(frozen=True)
class _Asked:
    """What a tick would ask for.

    Attributes:
        new: requests that have no run yet.
        failed: countries whose run failed, or was ended.
        going_on: number of runs that were asked for before and have not ended.
    """

    new: Sequence[dg.RunRequest]
    failed: Sequence[str]
    going_on: int

    def and_also(self, other: "_Asked") -> "_Asked":
        """Both together."""
        return _Asked(
            [*self.new, *other.new],
            sorted({*self.failed, *other.failed}),
            self.going_on + other.going_on,
        )

    def said(self) -> str:
        """What became of the runs, as the end of a sentence."""
        said = f"; {self.going_on} countries are on their way" if self.going_on else ""
        if self.failed:
            who = some(sorted(self.failed), _NAMES_SHOWN)
            said += f"; the runs of {who} failed, launch them again when repaired"
        return said


def ingest_job(product: Product) -> AssetJob:
    """Takes new files for every country that has rows in them, in one scan and one run."""
    return dg.define_asset_job(
        f"{product.name}_ingest",
        selection=dg.AssetSelection.assets(asset_key(product, "raw")),
        description="Takes new files, all countries in one scan. The landing sensor asks for it.",
        tags={"product": product.name},
    )


def landing_sensor(product: Product, jobs: Sequence[AssetJob]) -> dg.SensorDefinition:
    """Asks for an ingestion when files are new, then for each country that got rows.

    Args:
        product: whose landing folder or source.
        jobs: its `ingest` and `predict` jobs, and `shared` if it has one.
    """

    @dg.sensor(
        name=f"{product.name}_landing",
        jobs=jobs,
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="New or changed files: one ingestion for all countries, then datasets, "
        "features and predictions of just the countries that have new rows (with shared features "
        "of all countries: these, and then the countries whose features change; with cut-offs: "
        "the countries that have new rows or a new cut-off). Start it with the switch on this "
        "page.",
    )
    def landing(
        context: dg.SensorEvaluationContext, storage: Storage
    ) -> dg.SensorResult | dg.SkipReason:
        ctx = storage.product(product)
        last = _newest_ingestion(product, context.instance)
        if last.going_on:
            return dg.SkipReason(f"run {last.run_id} takes files now; its countries come next")
        request, why = _ingestion(ctx, storage.landing(product), last)
        # Both: where files keep coming, countries would wait for ever if they came second.
        asked = [*([request] if request else []), *_countries(ctx)]
        before = _asked_before(asked, context.instance)
        later = product.spec.made_after_all_records
        if later and not before.new and not before.going_on:
            before = _after_records(ctx, context.instance, before)
        if not before.new:
            return dg.SkipReason(f"{why}{before.said()}")
        return dg.SensorResult(run_requests=before.new)

    return landing


def _newest_ingestion(product: Product, instance: dg.DagsterInstance) -> _Ingestions:
    filters = dg.RunsFilter(job_name=f"{product.name}_ingest")
    records = instance.get_run_records(filters, limit=1)
    if not records:
        return _Ingestions("", False, False, 0, dt.timedelta.max)
    (record,) = records
    run = record.dagster_run
    return _Ingestions(
        run_id=run.run_id,
        going_on=not run.is_finished,
        failed=run.status == dg.DagsterRunStatus.FAILURE,
        attempt=_attempt_of(run),
        age=dt.datetime.now(dt.UTC) - record.create_timestamp,
        canceled=run.status == dg.DagsterRunStatus.CANCELED,
        news=run.tags.get(NEWS, ""),
    )


def _attempt_of(run: dg.DagsterRun) -> int:
    """Its number among attempts; 1 where the tag is not there, or a person wrote another text."""
    told = run.tags.get(ATTEMPT, "")
    return int(told) if told.isdecimal() and len(told) <= _DIGITS else 1


def _ingestion(
    ctx: ProductContext, landing: str, last: _Ingestions
) -> tuple[dg.RunRequest | None, str]:
    """A run over all countries when there is something to take; and why, or why not."""
    source = ctx.product.spec.source
    if last.failed and last.attempt < _ATTEMPTS:
        attempt = last.attempt + 1
        why = f"ingestion {last.run_id} failed; attempt {attempt} of {_ATTEMPTS}"
        key = f"after {last.run_id}"
        return _request(ctx.product, key, attempt, why, news=last.news), why
    if source.kind != "files":
        if last.age < duration(source.poll_every):
            return None, f"the source was asked less than {source.poll_every} ago"
        why = f"the source is asked every {source.poll_every}"
        return _request(ctx.product, f"poll after {last.run_id}", 1, why), why
    unknown = unknown_files(ctx, landing)
    if unknown:
        stamps = "\n".join(sorted(each.stamp for each in unknown))
        digest = hashlib.sha256(stamps.encode()).hexdigest()[:16]
        if last.canceled and last.news == digest:
            return None, _left_to_a_person(ctx.product, last)
        why = f"new files: {some([each.name for each in unknown], _NAMES_SHOWN)}"
        return _request(ctx.product, f"{digest} after {last.run_id}", 1, why, news=digest), why
    if last.failed:
        return None, (
            f"ingestion failed {last.attempt} times, see run {last.run_id}; it is tried again "
            f"with the next file, or launch {ctx.product.name}_ingest"
        )
    return None, f"no new file in {landing}, and no country has rows that were not looked at"


def _left_to_a_person(product: Product, last: _Ingestions) -> str:
    return (
        f"run {last.run_id}, which took these files, was ended by a person; they are taken with "
        f"the next file, or launch {product.name}_ingest"
    )


def _request(
    product: Product, key: str, attempt: int, why: str, *, news: str = ""
) -> dg.RunRequest:
    countries = product.spec.countries
    config = {"ops": {f"{product.name}__raw": {"config": {"only_with_news": True}}}}
    tags = {
        "product": product.name,
        TRIGGER: why,
        ATTEMPT: str(attempt),
        NEWS: news,
        RANGE_START: countries[0],
        RANGE_END: countries[-1],
    }
    return dg.RunRequest(
        run_key=f"{product.name}: {key}: {attempt}",
        job_name=f"{product.name}_ingest",
        run_config=config,
        tags=tags,
    )


def _countries(ctx: ProductContext) -> Iterator[dg.RunRequest]:
    """A run of each country whose raw rows nobody has validated yet.

    Where features are shared it ends at the records: the shared ones are made of all of them.
    So it does with cut-offs: which are reached is known by the records of all.
    """
    assets = _RECORDS if ctx.product.spec.made_after_all_records else (*_RECORDS, *_FEATURES)
    state = Staleness(ctx)
    for country, raw in state.having("raw").items():
        stale = state.first(country, ("validated",))
        if stale is None or stale.is_settled or not stale.is_of_data:
            continue
        yield dg.RunRequest(
            run_key=f"{ctx.product.name} {country}: {raw.version}",
            job_name=f"{ctx.product.name}_predict",
            partition_key=country,
            asset_selection=[asset_key(ctx.product, name) for name in assets],
            tags={"product": ctx.product.name, TRIGGER: f"new rows in raw {raw.version}"},
        )


def _after_records(ctx: ProductContext, instance: dg.DagsterInstance, records: _Asked) -> _Asked:
    """The shared features when records changed; once they are made, the features they change.

    Without shared features just those of the countries with other records or a new cut-off.

    Where they cannot be made, countries go on with those of last time.
    """
    state, asked = Staleness(ctx), _Asked([], [], 0)
    inputs = state.shared_inputs()
    if inputs is not None and inputs != made_from(ctx.current(SHARED)):
        asked = _asked_before([_shared_request(ctx.product, inputs)], instance)
    missing = bool(ctx.spec.shared_features) and ctx.current(SHARED) is None
    if asked.new or asked.going_on or missing:
        return records.and_also(asked)
    requests = _changed_features(ctx.product, state)
    return records.and_also(asked).and_also(_asked_before(requests, instance))


def _shared_request(product: Product, inputs: Mapping[str, str]) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{product.name} shared: {_digest(inputs)}",
        job_name=f"{product.name}_shared",
        tags={"product": product.name, TRIGGER: "new records in some country"},
    )


def _changed_features(product: Product, state: Staleness) -> list[dg.RunRequest]:
    """A run of each country whose records, shared features or clock are others than before."""
    due = [
        country
        for country in state.having("validated")
        if (stale := state.first(country, ("features",))) is not None and stale.is_of_data
    ]
    return [
        dg.RunRequest(
            run_key=f"{product.name} {country}: features "
            f"{_digest(state.inputs(country, 'features'))}",
            job_name=f"{product.name}_predict",
            partition_key=country,
            asset_selection=[asset_key(product, name) for name in _FEATURES],
            tags={"product": product.name, TRIGGER: "new records, shared features or cut-offs"},
        )
        for country in due
    ]


def _digest(inputs: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(inputs), sort_keys=True).encode()).hexdigest()[:16]


def _asked_before(requests: Sequence[dg.RunRequest], instance: dg.DagsterInstance) -> _Asked:
    """Requests without a run yet, and what became of the runs of the others."""
    keys = [each.run_key for each in requests if each.run_key]
    filters = dg.RunsFilter(tags={RUN_KEY: keys})
    runs = instance.get_runs(filters) if keys else []
    known = {run.tags[RUN_KEY]: run for run in runs}
    return _Asked(
        new=[each for each in requests if each.run_key not in known],
        failed=[
            run.tags.get(PARTITION, "all countries")
            for run in known.values()
            if run.is_failure_or_canceled
        ],
        going_on=sum(not run.is_finished for run in known.values()),
    )
