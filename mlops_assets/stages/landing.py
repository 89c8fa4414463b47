"""The landing sensor: new files are taken once, and just the countries with new rows go on.

It keeps no cursor. What was looked at is in the inventory, what was taken is in each country's raw
snapshot, what was asked for is in the runs: a restart, a repeated tick or a deleted cursor neither
loses work nor asks for it twice.
"""

import datetime as dt
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mlops_assets.product import Product
from mlops_assets.spec import duration
from mlops_assets.stages.base import Storage, asset_key, path
from mlops_assets.stages.inventory import unknown_files
from mlops_assets.stages.lineage import INPUTS
from mlops_assets.storage import Snapshot, SnapshotStore

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
RUN_KEY = "dagster/run_key"
PARTITION = "dagster/partition"
TRIGGER = "mlops_assets/trigger"
ATTEMPT = "mlops_assets/attempt"
_INTERVAL_SECONDS = 30
_ATTEMPTS = 3
_AFTER_RAW = ("validated", "quarantine", "features", "predictions")
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
    """

    run_id: str
    going_on: bool
    failed: bool
    attempt: int
    age: dt.timedelta


def ingest_job(product: Product) -> UnresolvedAssetJobDefinition:
    """Takes new files for every country that has rows in them, in one scan and one run."""
    return dg.define_asset_job(
        f"{product.name}_ingest",
        selection=dg.AssetSelection.assets(asset_key(product, "raw")),
        description="Takes new files, all countries in one scan. The landing sensor asks for it.",
        tags={"product": product.name},
    )


def landing_sensor(
    product: Product, jobs: Sequence[UnresolvedAssetJobDefinition]
) -> dg.SensorDefinition:
    """Asks for an ingestion when files are new, then for each country that got rows.

    Args:
        product: whose landing folder or source.
        jobs: its `ingest` and `predict` jobs.
    """

    @dg.sensor(
        name=f"{product.name}_landing",
        jobs=jobs,
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="New or changed files: one ingestion for all countries, then datasets, "
        "features and predictions of just the countries that have new rows. Start it with the "
        "switch on this page.",
    )
    def landing(
        context: dg.SensorEvaluationContext, storage: Storage
    ) -> dg.SensorResult | dg.SkipReason:
        store = storage.store()
        last = _newest_ingestion(product, context.instance)
        if last.going_on:
            return dg.SkipReason(f"run {last.run_id} takes files now; its countries come next")
        request, why = _ingestion(product, store, storage.landing(product), last)
        # Both: where files keep coming, countries would wait for ever if they came second.
        asked = [*([request] if request else []), *_countries(product, store)]
        asked, before = _not_asked_before(asked, context.instance)
        if not asked:
            return dg.SkipReason(f"{why}{before}")
        return dg.SensorResult(run_requests=asked)

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
        failed=not run.is_success and run.is_finished,
        attempt=int(run.tags.get(ATTEMPT, "1")),
        age=dt.datetime.now(dt.UTC) - record.create_timestamp,
    )


def _ingestion(
    product: Product, store: SnapshotStore, landing: str, last: _Ingestions
) -> tuple[dg.RunRequest | None, str]:
    """A run over all countries when there is something to take; and why, or why not."""
    source = product.spec.source
    if last.failed and last.attempt < _ATTEMPTS:
        attempt = last.attempt + 1
        why = f"ingestion {last.run_id} failed; attempt {attempt} of {_ATTEMPTS}"
        return _request(product, f"after {last.run_id}", attempt, why), why
    if source.kind != "files":
        if last.age < duration(source.poll_every):
            return None, f"the source was asked less than {source.poll_every} ago"
        why = f"the source is asked every {source.poll_every}"
        return _request(product, f"poll after {last.run_id}", 1, why), why
    unknown = unknown_files(product, store, landing)
    if unknown:
        stamps = "\n".join(sorted(each.stamp for each in unknown))
        digest = hashlib.sha256(stamps.encode()).hexdigest()[:16]
        why = f"new files: {_some([each.name for each in unknown])}"
        return _request(product, f"{digest} after {last.run_id}", 1, why), why
    if last.failed:
        return None, (
            f"ingestion failed {last.attempt} times, see run {last.run_id}; it is tried again "
            f"with the next file, or launch {product.name}_ingest"
        )
    return None, f"no new file in {landing}, and no country has rows that were not looked at"


def _request(product: Product, key: str, attempt: int, why: str) -> dg.RunRequest:
    countries = product.spec.countries
    config = {"ops": {f"{product.name}__raw": {"config": {"only_with_news": True}}}}
    tags = {
        "product": product.name,
        TRIGGER: why,
        ATTEMPT: str(attempt),
        RANGE_START: countries[0],
        RANGE_END: countries[-1],
    }
    return dg.RunRequest(
        run_key=f"{product.name}: {key}: {attempt}",
        job_name=f"{product.name}_ingest",
        run_config=config,
        tags=tags,
    )


def _countries(product: Product, store: SnapshotStore) -> Iterator[dg.RunRequest]:
    """A run of each country whose raw rows nobody has validated yet."""
    countries = list(product.spec.countries)
    held = {
        name: store.current_all(path(product, name), countries)
        for name in ("raw", "validated", "quarantine")
    }
    for country, raw in held["raw"].items():
        judged = (held[name].get(country) for name in ("validated", "quarantine"))
        if any(_is_of(made, raw) for made in judged):
            continue
        yield dg.RunRequest(
            run_key=f"{product.name} {country}: {raw.version}",
            job_name=f"{product.name}_predict",
            partition_key=country,
            asset_selection=[asset_key(product, name) for name in _AFTER_RAW],
            tags={"product": product.name, TRIGGER: f"new rows in raw {raw.version}"},
        )


def _not_asked_before(
    requests: Sequence[dg.RunRequest], instance: dg.DagsterInstance
) -> tuple[list[dg.RunRequest], str]:
    """Requests without a run yet; and in words what became of the runs of the others."""
    keys = [each.run_key for each in requests if each.run_key]
    filters = dg.RunsFilter(tags={RUN_KEY: keys})
    runs = instance.get_runs(filters) if keys else []
    known = {run.tags[RUN_KEY]: run for run in runs}
    failed = [run.tags.get(PARTITION, "") for run in known.values() if run.is_failure_or_canceled]
    going_on = sum(not run.is_finished for run in known.values())
    said = f"; {going_on} countries are on their way" if going_on else ""
    if failed:
        said += f"; the runs of {_some(sorted(failed))} failed, launch them again when repaired"
    return [each for each in requests if each.run_key not in known], said


def _is_of(made: Snapshot | None, raw: Snapshot) -> bool:
    """Whether a snapshot was made from exactly these raw rows, accepted or refused."""
    inputs = (made.metadata.get(INPUTS) or {}) if made else {}
    return inputs.get("raw") == raw.content_hash


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"{', '.join(names[:_NAMES_SHOWN])}{more}"
