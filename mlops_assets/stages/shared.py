"""Shared features: one frame made from the records of all countries, and read by each of them."""

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import pandas as pd

from mlops_assets.ml.shared import build_shared, build_shared_as_of, check_shared_point_in_time
from mlops_assets.product import Product
from mlops_assets.stages.base import (
    Storage,
    about,
    asset_key,
    failed,
    naive,
    output,
    passed,
    path,
)
from mlops_assets.stages.features import leak, leak_numbers
from mlops_assets.stages.lineage import SHARED, Lineage, of_shared_features
from mlops_assets.stages.pages import as_before, frame_schema, preview
from mlops_assets.storage import Snapshot, SnapshotStore
from mlops_assets.storage.io_manager import Unchanged

IN_USE = "shared_snapshot"
"""Name of the external asset that stands between the shared features and those of a country."""
_CHECK = "point_in_time"
_CHECK_DESCRIPTION = (
    "Shared features computed again from the history of all countries cut off at sampled times, "
    "with values known later hidden, are the same."
)
_GRAIN = (
    "One row is a time with what is the same for every country, computed from the records of all "
    "countries up to that time; a country without good records is missing in it."
)
_IN_USE = (
    "The shared features now in use, as the store holds them. Countries read them from there, so "
    "that a failure in one of them never keeps the others from their features."
)

StepEvents = Iterator[dg.Output | dg.AssetCheckResult]


def build_shared_stage(product: Product) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """`shared_features` with its point-in-time check, and the snapshot it leads to.

    Nothing for a product without `shared_features`.
    """
    if not product.spec.shared_features:
        return []
    in_use = dg.AssetSpec(
        asset_key(product, IN_USE),
        deps=[asset_key(product, SHARED)],
        **about(product, "features", {"parquet"}, _IN_USE),
    )
    return [_shared_features(product), in_use]


def _shared_features(product: Product) -> dg.AssetsDefinition:
    key = asset_key(product, SHARED)

    @dg.multi_asset(
        name=f"{product.name}__{SHARED}",
        deps=[asset_key(product, "validated")],
        outs={SHARED: output(product, SHARED, "features", {"parquet", "pandas"}, _GRAIN)},
        check_specs=[
            dg.AssetCheckSpec(_CHECK, asset=key, blocking=True, description=_CHECK_DESCRIPTION)
        ],
    )
    def shared_features(context: dg.AssetExecutionContext, storage: Storage) -> StepEvents:
        store = storage.store()
        validated = store.current_all(path(product, "validated"), list(product.spec.countries))
        lineage = of_shared_features(product, validated)
        made = store.current(path(product, SHARED), None)
        if made is not None and lineage.already_made(made):
            yield dg.Output(Unchanged(made), SHARED, metadata=as_before(context, key))
            yield passed(key, _CHECK, f"no new rows; {made.rows:,} rows as before")
            return
        if not validated:
            raise dg.Failure(
                f"{product.name}: no country has validated rows yet. Nothing was made; materialize "
                "`validated` of the countries first."
            )
        records = _records(product, store, validated)
        yield from _compute(product, records, validated, lineage, storage.moment)

    return shared_features


def _records(
    product: Product, store: SnapshotStore, validated: Mapping[str, Snapshot]
) -> dict[str, pd.DataFrame]:
    """The rows of exactly these snapshots; no rows of a listed country that has none."""
    frames = {
        country: store.read(each.asset, country, version=each.version)
        for country, each in validated.items()
    }
    none = next(iter(frames.values())).iloc[:0]
    return {country: frames.get(country, none) for country in product.spec.countries}


def _compute(
    product: Product,
    records: Mapping[str, pd.DataFrame],
    validated: Mapping[str, Snapshot],
    lineage: Lineage,
    moment: dt.datetime | None,
) -> StepEvents:
    spec, key, function = product.spec, asset_key(product, SHARED), product.shared_function()
    assert function is not None
    if moment is None:
        frame = build_shared(records, function)
    else:
        frame = build_shared_as_of(records, function, spec.source, spec.target, naive(moment))
    result = check_shared_point_in_time(
        records, frame, function, spec.source, spec.target, seed=spec.seed
    )
    if not result.passed:
        yield failed(key, _CHECK, leak(result), leak_numbers(result))
        raise dg.Failure(
            f"{product.name}: {leak(result)} Nothing was written, and the countries go on with "
            f"the shared features of before; correct {spec.shared_features} so that it uses only "
            "rows up to the event time."
        )
    metadata = {**_about_rows(product, frame, validated), **lineage.metadata()}
    yield dg.Output(frame, SHARED, metadata=metadata)
    same = f"{result.checked_rows:,} rows are the same with the future hidden"
    yield passed(key, _CHECK, same, leak_numbers(result))


def _about_rows(
    product: Product, frame: pd.DataFrame, validated: Mapping[str, Snapshot]
) -> dict[str, Any]:
    missing = [country for country in product.spec.countries if country not in validated]
    return {
        "countries": len(validated),
        "countries_missing": ", ".join(missing) or "none",
        "newest_event": str(frame["event_time"].max()),
        **preview(frame),
        "dagster/column_schema": frame_schema(frame, {"event_time": "when this is known"}),
    }
