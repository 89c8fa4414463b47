"""How shared features are made: by their own asset, or by the first run of a country without."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
import pandas as pd

from mlops_assets.ml.features.calendar import calendar_of
from mlops_assets.ml.features.feature_frame import PointInTime
from mlops_assets.ml.features.plausibility import Plausible, plausible_records
from mlops_assets.ml.features.shared_features import (
    build_shared,
    build_shared_as_of,
    check_shared_point_in_time,
)
from mlops_assets.ml.infinite import infinite_columns, told, without_infinite
from mlops_assets.stages.common.base import naive
from mlops_assets.stages.common.context import CountryContext, ProductContext
from mlops_assets.stages.common.lineage import (
    INPUTS,
    SHARED,
    Lineage,
    as_of_in,
    of_shared_features,
)
from mlops_assets.stages.common.readable import Readable, read_readable
from mlops_assets.stages.features.finite import INFINITE
from mlops_assets.stages.features.held_out import HELD_OUT
from mlops_assets.storage import Snapshot


@dataclass(frozen=True)
class Shared:
    """Shared features as computed now.

    Attributes:
        frame: one row an event time; infinite values are missing.
        check: of the frame, with the future hidden.
        validated: the snapshots it was made from, by country.
        lineage: the same in short.
        infinite: where infinite values stood, in words.
        damaged: country without rows here: why they cannot be read.
        plausible: the records it was made from, and what is held out of them.
    """

    frame: pd.DataFrame
    check: PointInTime
    validated: Mapping[str, Snapshot]
    lineage: Lineage
    infinite: str
    damaged: Mapping[str, str]
    plausible: Plausible


def computed(
    ctx: ProductContext,
    validated: Mapping[str, Snapshot],
    moment: dt.datetime | None,
) -> Shared:
    """The shared features of exactly these snapshots, at least one, checked but not stored."""
    spec, function = ctx.product.spec, ctx.product.shared_function()
    assert function is not None
    read, lineage = _records(ctx, validated), of_shared_features(ctx, validated)
    plausible = plausible_records(read.found, spec.source, spec.sharing)
    records = plausible.records
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
    return Shared(
        frame=without_infinite(frame),
        check=check,
        validated=validated,
        lineage=lineage,
        infinite=told(infinite_columns(frame)),
        damaged=read.damaged,
        plausible=plausible,
    )


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
    held = found.plausible.plain()
    metadata = {**found.lineage.plain(), INFINITE: found.infinite, HELD_OUT: held}
    ctx.store.write(ctx.path(SHARED), None, found.frame, run_id=run_id, metadata=metadata)


def _records(
    ctx: ProductContext, validated: Mapping[str, Snapshot]
) -> Readable[dict[str, pd.DataFrame]]:
    """The rows of exactly these snapshots; no rows of a listed country that has none."""

    def read(wanted: Sequence[str]) -> dict[str, pd.DataFrame]:
        each = {country: validated[country] for country in wanted}
        return {c: ctx.store.read(s.asset, c, version=s.version) for c, s in each.items()}

    frames = read_readable(list(validated), read)
    if not frames.found:
        raise dg.Failure(
            f"{ctx.product.name}: the validated rows of no country can be read: "
            f"{'; '.join(frames.damaged.values())} Nothing was written."
        )
    none = next(iter(frames.found.values())).iloc[:0]
    every = {country: frames.found.get(country, none) for country in ctx.product.spec.countries}
    return Readable(every, frames.damaged)
