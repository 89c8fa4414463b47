"""Features: one asset and one pure function, shared by training and prediction."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pandas as pd

from mlops_assets.ml.features.calendar import Calendar, calendar_of
from mlops_assets.ml.features.feature_frame import (
    Difference,
    FeatureFunction,
    PointInTime,
    build_features,
    check_point_in_time,
    features_as_of,
)
from mlops_assets.ml.infinite import infinite_columns, told, without_infinite
from mlops_assets.product import Product
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.common.base import (
    Storage,
    asset_key,
    country_check,
    country_step,
    failed,
    gate,
    naive,
    output,
    passed,
)
from mlops_assets.stages.common.context import CountryContext
from mlops_assets.stages.common.lineage import (
    Lineage,
    as_of_in,
    named_input,
    named_shared,
    of_features,
)
from mlops_assets.stages.common.ui_metadata import as_before, frame_schema, preview, table_metadata
from mlops_assets.stages.features.finite import FINITE, FINITE_DESCRIPTION, INFINITE, finite_check
from mlops_assets.stages.features.sharing import include
from mlops_assets.storage.io_manager import Unchanged

_CHECK = "point_in_time"
_CHECK_DESCRIPTION = (
    "Features computed again from history cut off at sampled times, with values known later "
    "hidden, are the same."
)
_GRAIN = (
    "One row is an entity of the country at an event time with its features and, once mature, its "
    "label; computed only from what was known at that time."
)
_KEY_DESCRIPTIONS = {
    "entity": "what the prediction is about",
    "event_time": "when the prediction is made",
    "label_time": "when the truth is known",
    "label": "the truth, empty until it is known",
}


@dataclass(frozen=True)
class _Source:
    """What features are computed from; without shared features, `shared` is None.

    The calendar is that of a product with cut-offs, None for any other.
    """

    validated: pd.DataFrame
    shared: pd.DataFrame | None
    calendar: Calendar | None


def build_features_stage(product: Product) -> list[dg.AssetsDefinition]:
    """`features` of a product with its point-in-time check."""
    key = asset_key(product, "features")
    above = ["validated", *(["shared_snapshot"] if product.spec.shared_features else [])]

    @dg.multi_asset(
        **country_step(product, "features"),
        deps=[asset_key(product, name) for name in above],
        outs={
            "features": output(
                product, "features", "features", {"parquet", "pandas"}, description=_GRAIN
            )
        },
        check_specs=[
            gate(product, "features", _CHECK, _CHECK_DESCRIPTION),
            country_check(product, "features", FINITE, FINITE_DESCRIPTION),
        ],
    )
    def features(
        context: dg.AssetExecutionContext, storage: Storage
    ) -> Iterator[dg.Output | dg.AssetCheckResult]:
        ctx = storage.product(product).country(context.partition_key)
        if product.spec.shared_features:
            include(ctx, storage.moment, context.run.run_id)
        lineage = of_features(ctx)
        made = ctx.current("features")
        if made is not None and lineage.already_made(made):
            yield dg.Output(Unchanged(made), "features", metadata=as_before(context, key))
            yield passed(key, _CHECK, f"no new rows; {made.rows:,} rows as before")
            yield finite_check(key, made.metadata.get(INFINITE, ""))
            return
        yield from _compute(ctx, _read(ctx, lineage), lineage, storage.moment)

    return [features]


def _read(ctx: CountryContext, lineage: Lineage) -> _Source:
    """The snapshots that the lineage names."""
    source = named_input(ctx, lineage, "validated")
    shared = named_shared(ctx.whole, lineage)
    return _Source(
        validated=ctx.store.read(source.asset, ctx.country, version=source.version),
        shared=shared and ctx.store.read(shared.asset, None, version=shared.version),
        calendar=calendar_of(ctx.spec.cutoffs, as_of_in(lineage.inputs)),
    )


def _compute(
    ctx: CountryContext,
    source: _Source,
    lineage: Lineage,
    moment: dt.datetime | None,
) -> Iterator[dg.Output | dg.AssetCheckResult]:
    spec, key = ctx.spec, asset_key(ctx.product, "features")
    function = ctx.product.feature_function()
    frame = features_from(
        source.validated, function, spec, moment, shared=source.shared, calendar=source.calendar
    )
    result = check_point_in_time(
        source.validated,
        frame,
        function,
        spec.source,
        target=spec.target,
        shared=source.shared,
        calendar=source.calendar,
        seed=spec.seed,
    )
    if not result.passed:
        yield failed(key, _CHECK, leak(result), leak_numbers(result))
        raise dg.Failure(
            f"{ctx.product.name} {ctx.country}: {leak(result)} Nothing was written; "
            f"{remedy(result, spec.features, spec)}"
        )
    infinite = told(infinite_columns(frame))
    frame = without_infinite(frame)
    metadata = {**_about_rows(frame), **lineage.metadata(), INFINITE: infinite}
    yield dg.Output(frame, "features", metadata=metadata)
    same = f"{result.checked_rows:,} rows are the same with the future hidden"
    if frame.empty:
        same = (
            f"{spec.features} makes no row of {len(source.validated):,} records: nothing to predict"
        )
    yield passed(key, _CHECK, same, leak_numbers(result))
    yield finite_check(key, infinite)


def features_from(
    validated: pd.DataFrame,
    function: FeatureFunction,
    spec: ProductSpec,
    moment: dt.datetime | None,
    *,
    shared: pd.DataFrame | None = None,
    calendar: Calendar | None = None,
) -> pd.DataFrame:
    """The features of validated rows, as they are or as they could be known at a moment.

    For a product with shared features these are `shared`, for one with cut-offs they are in the
    `calendar`.
    """
    if moment is None:
        return build_features(validated, function, spec.target, shared, calendar=calendar)
    return features_as_of(
        validated,
        function,
        spec.source,
        spec.target,
        moment=naive(moment),
        shared=shared,
        calendar=calendar,
    )


def _about_rows(frame: pd.DataFrame) -> dict[str, Any]:
    return {
        "labelled_rows": int(frame["label"].notna().sum()),
        "newest_event": str(frame["event_time"].max()),
        **preview(frame),
        "dagster/column_schema": frame_schema(frame, _KEY_DESCRIPTIONS),
    }


def leak(result: PointInTime) -> str:
    """What a failed point-in-time check says: how many values and rows, and the first of them."""
    rows = result.missing_rows + result.extra_rows
    told = [
        (result.missing_rows, "rows are not made from what was known then"),
        (result.extra_rows, "rows are made only from what was known then, and no longer later"),
        (result.differences - rows, "feature values know the future"),
    ]
    counted = "; ".join(f"{count:,} {what}" for count, what in told if count)
    return f"{counted}: {_told(result.differing[0])}."


def remedy(result: PointInTime, function: str, spec: ProductSpec) -> str:
    """What a person does about it: the second half of a sentence.

    Args:
        result: of a check that failed.
        function: which made the rows, as the YAML names it.
        spec: whether it has cut-offs.
    """
    if not result.missing_rows and not result.extra_rows:
        return f"correct {function} so that it uses only rows up to the event time."
    if spec.cutoffs is not None:
        return (
            f"correct {function} so that whether there is a row at a cut-off depends on records "
            "before it and on the argument `cutoffs` alone."
        )
    return (
        f"correct {function} so that whether there is a row depends on records up to its event "
        "time alone. If it makes rows at times of a calendar up to its newest record, it cannot "
        "know that such a time has come: declare `cutoffs` in the YAML and make the rows at those "
        "that it takes as its argument `cutoffs`."
    )


def leak_numbers(result: PointInTime) -> dict[str, Any]:
    """A point-in-time check as metadata."""
    differing = pd.DataFrame(
        [[d.column, d.entity, str(d.event_time), *_both(d), d.kind] for d in result.differing],
        columns=["feature", "entity", "event_time", "with_future", "as_known_then", "what"],
    )
    return {
        "checked_rows": result.checked_rows,
        "differences": result.differences,
        "missing_rows": result.missing_rows,
        "extra_rows": result.extra_rows,
        "cutoffs": dg.MetadataValue.json([str(cutoff) for cutoff in result.cutoffs]),
        "differing": table_metadata(differing),
    }


def _told(first: Difference) -> str:
    where = f"{f' of {first.entity}' if first.entity else ''} at {first.event_time}"
    if first.kind == "missing":
        return f"the row{where} is there, but missing from what was known then"
    if first.kind == "extra":
        return f"the row{where} is not there, but was made from what was known then"
    return (
        f"{first.column}{where} is {first.full!r}, but {first.truncated!r} from what was known then"
    )


def _both(found: Difference) -> tuple[str, str]:
    """A difference as cells: the value, or whether there is a row."""
    rows = {"missing": ("a row", "no row"), "extra": ("no row", "a row")}
    return rows.get(found.kind, (str(found.full), str(found.truncated)))
