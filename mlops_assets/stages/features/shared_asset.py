"""Shared features: one frame made from the records of all countries, and read by each of them."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from mlops_assets.ml.features.plausibility import held_from
from mlops_assets.product import Product
from mlops_assets.stages.common.base import (
    Storage,
    about,
    asset_key,
    failed,
    output,
    passed,
    warned,
)
from mlops_assets.stages.common.lineage import SHARED, of_shared_features
from mlops_assets.stages.common.readable import readable_again, unread_metadata
from mlops_assets.stages.common.ui_metadata import as_before, frame_schema, preview
from mlops_assets.stages.features.assets import leak, leak_numbers, remedy
from mlops_assets.stages.features.finite import FINITE, FINITE_DESCRIPTION, INFINITE, finite_check
from mlops_assets.stages.features.held_out import (
    HELD_OUT,
    PLAUSIBLE,
    PLAUSIBLE_DESCRIPTION,
    plausible_check,
)
from mlops_assets.stages.features.sharing import Shared, computed
from mlops_assets.storage.io_manager import METADATA_PREFIX, Unchanged

IN_USE = "shared_snapshot"
"""Name of the external asset that stands between the shared features and those of a country."""
_CHECK = "point_in_time"
_CHECK_DESCRIPTION = (
    "Shared features computed again from the history of all countries cut off at sampled times, "
    "with values known later hidden, are the same."
)
_ALL = "all_countries"
_ALL_DESCRIPTION = (
    "The records of every country could be read. One whose files are damaged is missing in what is "
    "shared, and the others go on."
)
_DAMAGED = f"{METADATA_PREFIX}damaged"
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
        outs={
            SHARED: output(product, SHARED, "features", {"parquet", "pandas"}, description=_GRAIN)
        },
        check_specs=[
            dg.AssetCheckSpec(_CHECK, asset=key, blocking=True, description=_CHECK_DESCRIPTION),
            dg.AssetCheckSpec(FINITE, asset=key, description=FINITE_DESCRIPTION),
            dg.AssetCheckSpec(_ALL, asset=key, description=_ALL_DESCRIPTION),
            dg.AssetCheckSpec(PLAUSIBLE, asset=key, description=PLAUSIBLE_DESCRIPTION),
        ],
    )
    def shared_features(context: dg.AssetExecutionContext, storage: Storage) -> StepEvents:
        ctx = storage.product(product)
        validated = ctx.current_all("validated")
        lineage = of_shared_features(ctx, validated)
        made = ctx.current(SHARED)
        is_same = made is not None and lineage.already_made(made)
        if made is not None and is_same and not readable_again(ctx, made, "validated"):
            yield dg.Output(Unchanged(made), SHARED, metadata=as_before(context, key))
            yield passed(key, _CHECK, f"no new rows; {made.rows:,} rows as before")
            yield finite_check(key, made.metadata.get(INFINITE, ""))
            yield _all_countries(key, made.metadata.get(_DAMAGED, ""))
            yield plausible_check(key, held_from(made.metadata.get(HELD_OUT)))
            return
        if not validated:
            raise dg.Failure(
                f"{product.name}: no country has validated rows yet. Nothing was made; materialize "
                "`validated` of the countries first."
            )
        yield from _events(product, computed(ctx, validated, storage.moment))

    return shared_features


def _events(product: Product, found: Shared) -> StepEvents:
    key, result = asset_key(product, SHARED), found.check
    if not result.passed:
        yield failed(key, _CHECK, leak(result), leak_numbers(result))
        raise dg.Failure(
            f"{product.name}: {leak(result)} Nothing was written, and the countries go on with "
            "the shared features of before; "
            f"{remedy(result, str(product.spec.shared_features), product.spec)}"
        )
    about_rows = _about_rows(product, found)
    damaged = "; ".join(
        f"{country}: {problem.rstrip('.')}" for country, problem in found.damaged.items()
    )
    held = dg.MetadataValue.json(found.plausible.plain())
    kept = {
        INFINITE: found.infinite,
        _DAMAGED: damaged,
        HELD_OUT: held,
        **unread_metadata(found.damaged),
    }
    metadata = {**about_rows, **found.lineage.metadata(), **kept}
    yield dg.Output(found.frame, SHARED, metadata=metadata)
    same = f"{result.checked_rows:,} rows are the same with the future hidden"
    yield passed(key, _CHECK, same, leak_numbers(result))
    yield finite_check(key, found.infinite)
    yield _all_countries(key, damaged)
    yield plausible_check(key, found.plausible)


def _all_countries(key: dg.AssetKey, damaged: str) -> dg.AssetCheckResult:
    if not damaged:
        return passed(key, _ALL, "the records of every country that has some were read")
    return warned(key, _ALL, f"made without {damaged}")


def _about_rows(product: Product, found: Shared) -> dict[str, Any]:
    frame, validated = found.frame, found.validated
    missing = [country for country in product.spec.countries if country not in validated]
    return {
        "countries": len(validated),
        "countries_missing": ", ".join(missing) or "none",
        "newest_event": str(frame["event_time"].max()),
        **preview(frame),
        "dagster/column_schema": frame_schema(frame, {"event_time": "when this is known"}),
    }
