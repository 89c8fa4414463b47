"""The clock of a product's records: up to when things are known.

It goes by the records and never by the time of day, so that the same records always have the same
clock: in a rerun, a reproduction, a run as of an earlier moment. What a country has is not enough:
where customers are few, the newest record can be months old, and that nobody bought since would
never be known. So a time counts as known when two countries have records of it, or the country
itself; one alone moves no other one's clock. What is stored of a country and damaged says nothing,
and stops no other one.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlops_assets.stages.common.context import CountryContext, ProductContext
from mlops_assets.stages.common.readable import read_readable
from mlops_assets.storage import Snapshot

if TYPE_CHECKING:
    import pandas as pd

INGESTED_UNTIL = "mlops_assets/ingested_until"
"""On `validated`: the newest ingestion it was made from."""
_LATEST = dt.datetime(2262, 1, 1)  # that a frame can hold
_NEWEST_EVENT = "mlops_assets/newest_event"
_KNOWN_UNTIL = "mlops_assets/known_until"


def clock_metadata(
    event_times: "pd.Series", ingested: str, moment: dt.datetime | None
) -> dict[str, str]:
    """What `validated` records for the clock.

    Args:
        event_times: of its rows.
        ingested: time of the newest ingestion (ISO 8601); "" for none.
        moment: whose knowledge the rows are; None: now.
    """
    bounds = [each for each in (_utc(ingested) if ingested else None, _utc(moment)) if each]
    until = min(bounds, default=_LATEST)
    newest = _newest(event_times, until)
    return {_KNOWN_UNTIL: until.isoformat(), _NEWEST_EVENT: newest.isoformat() if newest else ""}


def clock_of(ctx: CountryContext) -> dt.datetime | None:
    """The time up to which a country's features are made; None for a product without cut-offs.

    UTC, without a zone: the newest cut-off, or time that the labels of one become known.
    """
    return _clock(ctx.whole, ctx.country)


def clock_of_all(ctx: ProductContext) -> dt.datetime | None:
    """The same for what is made of all countries: up to when two of them are known."""
    return _clock(ctx, None)


def policy_time(ctx: ProductContext, wall: dt.datetime) -> dt.datetime:
    """Now, as `retraining.clock` says: the time of day, or the newest that is known.

    Cool-down, age of pooled models and budget run by it. By the records, it is up to when two
    countries have some, of a product with cut-offs within its grace: what decides which cut-offs
    are reached. Without any record it is the time of day.

    Args:
        ctx: the product.
        wall: the time of day, with time zone.
    """
    if ctx.spec.retraining.clock == "wall":
        return wall
    known = _of_two(ctx, _known(ctx))
    return known[0].replace(tzinfo=dt.UTC) if known else wall


def dated(ctx: ProductContext, wall: dt.datetime) -> str:
    """The same as text (ISO 8601), for what is recorded now; "" by the time of day, which is told.

    Args:
        ctx: the product.
        wall: the time of day, with time zone.
    """
    by_wall = ctx.spec.retraining.clock == "wall"
    return "" if by_wall else policy_time(ctx, wall).isoformat()


def _clock(ctx: ProductContext, country: str | None) -> dt.datetime | None:
    spec = ctx.spec
    if spec.cutoffs is None:
        return None
    known = _known(ctx)
    own = [known[country]] if country in known else []
    until = max([*_of_two(ctx, known), *own], default=None)
    return spec.cutoffs.clock(until, spec.target.maturity)


def _known(ctx: ProductContext) -> dict[str, dt.datetime]:
    return (
        ctx.view.once("known until", lambda: _known_until(ctx)) if ctx.view else _known_until(ctx)
    )


def _of_two(ctx: ProductContext, known: Mapping[str, dt.datetime]) -> list[dt.datetime]:
    """Up to when two countries are known, or the only one there is; empty without records."""
    by_time = sorted(known.values(), reverse=True)
    return by_time[: 2 if len(ctx.spec.countries) > 1 else 1][-1:]


def _known_until(ctx: ProductContext) -> dict[str, dt.datetime]:
    """Up to when each country's records are known, of those that have any that can be read."""

    def validated(wanted: Sequence[str]) -> Mapping[str, Snapshot]:
        every = len(wanted) == len(ctx.countries)
        return ctx.everywhere("validated") if every else ctx.current_all("validated", wanted)

    found = {}
    for country, made in read_readable(ctx.countries, validated).found.items():
        newest, until = _readable(ctx, country, made)
        if newest is not None:
            cutoffs = ctx.spec.cutoffs
            found[country] = cutoffs.known_until(newest, until) if cutoffs else newest
    return found


def _readable(
    ctx: ProductContext, country: str, made: Snapshot
) -> tuple[dt.datetime | None, dt.datetime]:
    """What a country's snapshot says; as one without records where its file is damaged."""
    nothing = (None, _LATEST)
    return read_readable(
        [country], lambda left: _recorded(ctx, country, made) if left else nothing
    ).found


def _recorded(
    ctx: ProductContext, country: str, made: Snapshot
) -> tuple[dt.datetime | None, dt.datetime]:
    recorded: Mapping[str, Any] = made.metadata
    if _KNOWN_UNTIL not in recorded:  # made before there were cut-offs
        name = ctx.spec.source.event_time
        times = ctx.store.read(made.asset, country, version=made.version, columns=[name])
        recorded = clock_metadata(times[name], str(recorded.get(INGESTED_UNTIL, "")), None)
    newest = recorded[_NEWEST_EVENT]
    until = dt.datetime.fromisoformat(recorded[_KNOWN_UNTIL])
    return dt.datetime.fromisoformat(newest) if newest else None, until


def _newest(event_times: "pd.Series", until: dt.datetime) -> dt.datetime | None:
    """The newest event that is not later than its ingestion: no record is of the future."""
    past = event_times[event_times <= until].max()
    return None if past is None or past != past else past.to_pydatetime()


def _utc(moment: "str | dt.datetime | None") -> dt.datetime | None:
    """As frames hold times: UTC, without a zone."""
    if moment is None:
        return None
    time = dt.datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return time if time.tzinfo is None else time.astimezone(dt.UTC).replace(tzinfo=None)
