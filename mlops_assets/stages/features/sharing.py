"""How shared features are made: by their own asset, or by the first run of a country without."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import dagster as dg
import pandas as pd

from mlops_assets.ml.features.calendar import calendar_of
from mlops_assets.ml.features.feature_frame import PointInTime
from mlops_assets.ml.features.shared_features import (
    build_shared,
    build_shared_as_of,
    check_shared_point_in_time,
)
from mlops_assets.stages.common.base import naive
from mlops_assets.stages.common.context import CountryContext, ProductContext
from mlops_assets.stages.common.lineage import (
    INPUTS,
    SHARED,
    Lineage,
    as_of_in,
    of_shared_features,
)
from mlops_assets.storage import Snapshot


@dataclass(frozen=True)
class Shared:
    """Shared features as computed now.

    Attributes:
        frame: one row an event time.
        check: of the frame, with the future hidden.
        validated: the snapshots it was made from, by country.
        lineage: the same in short.
    """

    frame: pd.DataFrame
    check: PointInTime
    validated: Mapping[str, Snapshot]
    lineage: Lineage


def computed(
    ctx: ProductContext,
    validated: Mapping[str, Snapshot],
    moment: dt.datetime | None,
) -> Shared:
    """The shared features of exactly these snapshots, at least one, checked but not stored."""
    spec, function = ctx.product.spec, ctx.product.shared_function()
    assert function is not None
    records, lineage = _records(ctx, validated), of_shared_features(ctx, validated)
    calendar = calendar_of(spec.cutoffs, as_of_in(lineage.inputs))
    if moment is None:
        frame = build_shared(records, function, calendar)
    else:
        frame = build_shared_as_of(
            records,
            function,
            spec.source,
            spec.target,
            moment=naive(moment),
            calendar=calendar,
        )
    check = check_shared_point_in_time(
        records,
        frame,
        function,
        spec.source,
        target=spec.target,
        calendar=calendar,
        seed=spec.seed,
    )
    return Shared(frame, check, validated, lineage)


def include(ctx: CountryContext, moment: dt.datetime | None, run_id: str) -> None:
    """See to it that there are shared features with this country in them.

    From then on they are made by their own job: a run of one country never changes what the others
    read. The first run of a country cannot wait for that, or nobody could begin with a click.

    Raises:
        dagster.Failure: the function of the shared features knows the future.
    """
    made = ctx.store.current(ctx.path(SHARED), None)
    if made is not None and (made.metadata.get(INPUTS) or {}).get(ctx.country):
        return
    validated = ctx.whole.current_all("validated")
    if ctx.country not in validated:
        return
    found = computed(ctx.whole, validated, moment)
    if not found.check.passed:
        raise dg.Failure(
            f"{ctx.product.name}: {found.check.differences:,} values of "
            f"{ctx.product.spec.shared_features} know the future. Nothing was written; the job "
            f"{ctx.product.name}_shared names them."
        )
    ctx.store.write(
        ctx.path(SHARED), None, found.frame, run_id=run_id, metadata=found.lineage.plain()
    )


def _records(ctx: ProductContext, validated: Mapping[str, Snapshot]) -> dict[str, pd.DataFrame]:
    """The rows of exactly these snapshots; no rows of a listed country that has none."""
    frames = {
        country: ctx.store.read(each.asset, country, version=each.version)
        for country, each in validated.items()
    }
    none = next(iter(frames.values())).iloc[:0]
    return {country: frames.get(country, none) for country in ctx.product.spec.countries}
