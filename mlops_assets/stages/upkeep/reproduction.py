"""Reproduction: a registered model made again from what its training recorded, and compared."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from mlops_assets.errors import RegistryError, StorageError, TrainingError
from mlops_assets.ml.features.calendar import calendar_of
from mlops_assets.ml.infinite import without_infinite
from mlops_assets.ml.models.fitted_model import FittedModel, fit, predict
from mlops_assets.ml.models.split import Split, split, with_offset
from mlops_assets.ml.promotion.reproduction import changes, features_gap, prediction_gap
from mlops_assets.ml.promotion.reproduction_record import (
    FeaturesAgain,
    Reproduction,
    features_text,
    judged,
)
from mlops_assets.ml.stats.metrics import score
from mlops_assets.ml.training.selection import pooled_name, pooled_rows, rows_served
from mlops_assets.product import Product
from mlops_assets.provenance import Provenance, provenance_now
from mlops_assets.registry import ModelVersion, Registry
from mlops_assets.registry.names import registered_name
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.common.base import path
from mlops_assets.stages.common.code_versions import TRAINING_SECTIONS
from mlops_assets.stages.common.context import CountryContext
from mlops_assets.stages.common.lineage import CLOCK, SHARED, as_of_in
from mlops_assets.stages.features.assets import features_from
from mlops_assets.stages.training.serving import (
    evaluation_model,
    evaluation_split,
    fitted,
    pooled_key,
    report_from_json,
)
from mlops_assets.stages.training.training_record import (
    FeaturesInput,
    TrainingRecord,
    chosen_candidate,
    recorded,
)
from mlops_assets.storage import SnapshotStore

REPRODUCTION_LOG = "reproductions"
"""Name of the append-only log, a row a reproduction."""


@dataclass(frozen=True)
class _Original:
    """A registered model, what its training recorded, and the country's features of then.

    Attributes:
        product: its product.
        version: as registered.
        in_use: whether it is the champion.
        model: what serves.
        judged: what was judged on the holdout; the same unless the product refits.
        record: of the training.
        frame: the features.
    """

    product: Product
    version: ModelVersion
    in_use: bool
    model: FittedModel
    judged: FittedModel
    record: TrainingRecord
    frame: pd.DataFrame

    @property
    def parts(self) -> Split:
        """The rows by their use, with the holdout of then."""
        parts = split(self.frame, evaluation_split(self.version, self.record.spec))
        return with_offset(parts, self.record.spec)

    @property
    def features(self) -> FeaturesInput:
        """Which features of the country these are."""
        return self.record.features[self.record.country]


@dataclass(frozen=True)
class _Rebuilt:
    """A model made again, and what the registered one was made with."""

    model: FittedModel
    provenance: Provenance


def reproduce_model(
    ctx: CountryContext,
    version: str | None = None,
    *,
    run_id: str = "",
) -> Reproduction:
    """Make a registered model again from its record, compare, and append the result to the log.

    Args:
        ctx: the country.
        version: of the country's registered model; None for the champion.
        run_id: of the Dagster run that asks; "" for a person.

    Raises:
        ConfigurationError: the product does not list the country.
        RegistryError: no such version, no record of its training, or files that are lost or
            damaged.
        StorageError: a snapshot it was trained on is no longer stored or was changed.
    """
    original = _original(ctx.product, ctx.country, version, ctx.store, registry=ctx.registry)
    rebuilt = _rebuilt(original, ctx.store, ctx.registry)
    again = _features_again(original, ctx.store)
    result = judged(_compared(original, rebuilt, again))
    row = _row(result, original.features, run_id)
    ctx.store.append(ctx.path(REPRODUCTION_LOG), ctx.country, pd.DataFrame([row]))
    return result


def _original(
    product: Product, country: str, number: str | None, store: SnapshotStore, *, registry: Registry
) -> _Original:
    product.resolved(country)  # refuses a country that is not listed
    champion = registry.champion(product.name, country)
    version = champion
    if number is not None:
        version = registry.version(registered_name(product.name, country), number)
    if version is None:
        raise RegistryError(
            f"{product.name} {country} has no champion: a baseline serves it, and a baseline has "
            "nothing to make again.",
            way_out="Name a version with --version, or take a country that has a champion.",
            culprits={"product": product.name, "country": country},
        )
    record, name = recorded(version, registry), version.tags["candidate"]
    model, twin = fitted(name, version, record.spec, registry), evaluation_model(version)
    return _Original(
        product=product,
        version=version,
        in_use=champion is not None and champion.version == version.version,
        model=model,
        judged=model if twin is version else fitted(name, twin, record.spec, registry),
        record=record,
        frame=_rows(
            product, "features", country, record.features[country].content_hash, store=store
        ),
    )


def _rebuilt(original: _Original, store: SnapshotStore, registry: Registry) -> _Rebuilt:
    """Fitted exactly as training did: on the country's rows, or on those of all its countries."""
    version, record = original.version, original.record
    if "pooled_version" in version.tags:
        return _rebuilt_of_many(original, store, registry)
    rows = rows_served(record.spec, original.parts)
    candidate = chosen_candidate(record.spec, version)
    return _Rebuilt(fit(candidate, rows, record.spec.task, record.spec.seed), record.provenance)


def _rebuilt_of_many(original: _Original, store: SnapshotStore, registry: Registry) -> _Rebuilt:
    """The pooled model that the country took, of all countries or of those of its region."""
    product, tags = original.product, original.version.tags
    region = tags["region"]
    name = registered_name(product.name, pooled_key(pooled_name(tags["candidate"], region)))
    version = registry.version(name, tags["pooled_version"])
    record = recorded(version, registry)
    spec = record.spec
    frames = {
        country: _rows(product, "features", country, each.content_hash, store=store)
        for country, each in record.features.items()
    }
    rows = pooled_rows(spec, frames, region).known
    model = fit(chosen_candidate(spec, version), rows, spec.task, spec.seed)
    return _Rebuilt(model, record.provenance)


def _features_again(original: _Original, store: SnapshotStore) -> FeaturesAgain:
    product, record = original.product, original.record
    wanted = original.features.validated
    if store.find(path(product, "validated"), record.country, wanted) is None:
        return FeaturesAgain(None, "the validated rows they were made from are no longer stored")
    validated = _rows(product, "validated", record.country, wanted, store=store)
    shared = None
    if (used := original.features.shared) and store.find(path(product, SHARED), None, used) is None:
        return FeaturesAgain(None, "the shared features they were made with are no longer stored")
    if used:
        shared = _rows(product, SHARED, None, used, store=store)
    function = product.feature_function()
    try:
        calendar = calendar_of(record.spec.cutoffs, as_of_in({CLOCK: original.features.as_of}))
        made = features_from(
            validated, function, record.spec, record.as_of, shared=shared, calendar=calendar
        )
    except TrainingError as error:  # the answer to the question, not a failure to ask it
        return FeaturesAgain(None, error.problem, broken=True)
    return FeaturesAgain(features_gap(without_infinite(original.frame), without_infinite(made)))


def _rows(
    product: Product, asset: str, country: str | None, content_hash: str, *, store: SnapshotStore
) -> pd.DataFrame:
    """The recorded rows, found by their content and checked against it."""
    from mlops_assets.storage.frames import to_frame
    from mlops_assets.storage.hashing import content_hash as hashed

    key = path(product, asset)
    found = store.find(key, country, content_hash)
    if found is None:
        raise _lost(product, asset, country, content_hash, store=store)
    table = store.read_table(key, country, version=found.version)
    if hashed(table) != content_hash:
        raise StorageError(
            f"{found.uri} is not what was written: its rows are not those that the model was "
            "trained on.",
            stored="Nothing was written; the model stays in use.",
            way_out="Put the file back from a copy; until then this version cannot be made again.",
            culprits={"uri": found.uri, "content_hash": content_hash},
        )
    return to_frame(table)


def _lost(
    product: Product, asset: str, country: str | None, content_hash: str, *, store: SnapshotStore
) -> StorageError:
    removed = store.read_log(path(product, "removals"), country)
    why = "and no log says why"
    if not removed.empty and content_hash in set(removed["content_hash"]):
        last = removed[removed["content_hash"] == content_hash].iloc[-1]
        said = last["reason"] or "no reason was given"
        why = f"removed on {last['removed_at']:%Y-%m-%d %H:%M} UTC ({said})"
    return StorageError(
        f"The {asset} of {country} that the model was trained on (content {content_hash}) are no "
        f"longer stored, {why}.",
        stored="Nothing was written; the model stays in use.",
        way_out=f"Put the file back under {store.uri} from a copy, or take a version trained "
        "later with --version.",
        culprits={"asset": asset, "country": country, "content_hash": content_hash},
    )


def _compared(original: _Original, rebuilt: _Rebuilt, again: FeaturesAgain) -> Reproduction:
    product, version, record = original.product, original.version, original.record
    spec = record.spec
    holdout = original.parts.holdout
    registered = predict(original.model, holdout, spec.task)
    as_judged = predict(original.judged, holdout, spec.task)
    # The features may be older than the training, and are by the code they were made with.
    then = replace(rebuilt.provenance, product_code=original.features.code)
    now = provenance_now(product.code_version("features"))
    return Reproduction(
        product=product.name,
        country=record.country,
        version=version.version,
        kind=version.kind,
        candidate=version.tags["candidate"],
        in_use=original.in_use,
        verdict="cannot be judged",
        reason="the recorded holdout has no rows",
        predictions=prediction_gap(registered, predict(rebuilt.model, holdout, spec.task)),
        unit=spec.target.unit if spec.task == "regression" else "probability",
        metric=spec.metric,
        recorded_value=report_from_json(version.tags["report"]).value,
        value=score(spec.metric, holdout["label"].to_numpy(), as_judged),
        features=again,
        changes=changes(then, now),
        config_changed=_config_changed(spec, product.resolved(record.country)),
        snapshot=original.features.version,
        mlflow_run=version.run_id,
    )


def _config_changed(then: ProductSpec, now: ProductSpec) -> tuple[str, ...]:
    """The sections a model depends on that are not as they were."""
    return tuple(
        name for name in TRAINING_SECTIONS if then.config_hash(name) != now.config_hash(name)
    )


def _row(result: Reproduction, source: FeaturesInput, run_id: str) -> Mapping[str, Any]:
    """A reproduction as the log keeps it."""
    return {
        "reproduced_at": dt.datetime.now(dt.UTC),
        "product": result.product,
        "country": result.country,
        "version": result.version,
        "kind": result.kind,
        "candidate": result.candidate,
        "verdict": result.verdict,
        "reason": result.reason,
        "rows": result.predictions.rows,
        "differing": result.predictions.differing,
        "largest": result.predictions.largest,
        "mean": result.predictions.mean,
        "metric": result.metric,
        "recorded_value": result.recorded_value,
        "value": result.value,
        "features": features_text(result.features),
        "changes": "; ".join(change.text for change in result.changes),
        "config_changed": ", ".join(result.config_changed),
        "features_hash": source.content_hash,
        "mlflow_run_id": result.mlflow_run,
        "dagster_run_id": run_id,
    }
