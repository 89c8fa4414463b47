"""Checks of a delivery that warn and block nothing: empty values, volume, newest event."""

import datetime as dt
import statistics
from collections.abc import Iterator, Sequence

import dagster as dg
import pandas as pd

from mlops_assets.product import Product
from mlops_assets.spec import ContractSpec
from mlops_assets.stages.common.base import asset_key, naive, passed, warned
from mlops_assets.stages.common.ui_metadata import rounded, table_metadata
from mlops_assets.stages.datasets.ingestion import Delivered

LIMITS = {
    "null_shares": "Share of empty values of each column, against the limits of the YAML.",
    "volume": "Rows of the newest delivery, against the median of the earlier ones.",
    "freshness": "Age of the newest event that is not ahead of now, against the limit of the YAML.",
}
_JUDGED_DELIVERIES = 5
"""Earlier deliveries a median is taken of at least."""


def check_limits(
    product: Product,
    country: str,
    frame: pd.DataFrame,
    deliveries: Sequence[Delivered],
    *,
    moment: dt.datetime | None = None,
) -> Iterator[dg.AssetCheckResult]:
    """One result for each of `LIMITS`.

    Args:
        product: with the limits.
        country: whose limits.
        frame: its validated rows.
        deliveries: every file version it took, oldest first.
        moment: at which the rows are judged; None: now.
    """
    spec = product.resolved(country)
    key = asset_key(product, "validated")
    yield _null_shares(key, frame, spec.contract)
    yield _volume(key, deliveries, spec.contract)
    now = naive(moment or dt.datetime.now(dt.UTC))
    yield _freshness(key, frame[spec.source.event_time], spec.contract, now)


def _null_shares(
    key: dg.AssetKey, frame: pd.DataFrame, limits: ContractSpec
) -> dg.AssetCheckResult:
    shares = {str(name): rounded(float(share)) for name, share in frame.isna().mean().items()}
    rows = pd.DataFrame(
        [
            {"column": name, "empty_share": share, "limit": limits.max_null_share.get(name)}
            for name, share in shares.items()
            if share or name in limits.max_null_share
        ],
        columns=["column", "empty_share", "limit"],
    )
    shown = {"columns": table_metadata(rows)} if len(rows) else {}
    over = {n: s for n, s in shares.items() if s > limits.max_null_share.get(n, 1.0)}
    if over:
        told = ", ".join(
            f"{name} is empty in {share:.1%} of the rows, over the limit of "
            f"{limits.max_null_share[name]:.1%}"
            for name, share in over.items()
        )
        return warned(key, "null_shares", told, shown)
    fullest = max(shares.items(), key=lambda item: item[1], default=("", 0.0))
    told = f"at most {fullest[1]:.1%} empty ({fullest[0]})" if fullest[1] else "no empty value"
    return passed(key, "null_shares", told, shown)


def _volume(
    key: dg.AssetKey, deliveries: Sequence[Delivered], limits: ContractSpec
) -> dg.AssetCheckResult:
    by_time: dict[str, int] = {}
    for each in deliveries:
        if not each.moved_from:  # a file that was moved away delivers nothing
            by_time[each.at] = by_time.get(each.at, 0) + each.rows
    *earlier, newest = by_time.values()
    if len(earlier) < _JUDGED_DELIVERIES:
        text = f"{newest:,} rows; not judged before {_JUDGED_DELIVERIES + 1} deliveries, "
        return passed(key, "volume", f"{text}this is number {len(by_time)}")
    median = statistics.median(earlier)
    low, high = limits.min_volume_ratio * median, limits.max_volume_ratio * median
    shown = {"rows": newest, "median_before": float(median), "deliveries": len(by_time)}
    told = f"{newest:,} rows; the median of {len(earlier)} earlier deliveries is {median:,.0f}"
    if low <= newest <= high:
        return passed(key, "volume", told, shown)
    text = f"{told}, so {low:,.0f} to {high:,.0f} were expected"
    return warned(key, "volume", text, shown)


def _freshness(
    key: dg.AssetKey, event_times: pd.Series, limits: ContractSpec, now: pd.Timestamp
) -> dg.AssetCheckResult:
    there = event_times[event_times <= now]  # those of tomorrow do not say that today's came
    if there.empty:
        told = f"every event is ahead of now, the last is of {event_times.max()}"
        return passed(key, "freshness", told)
    newest = there.max()
    age = now - newest
    told = f"the newest event is of {newest}, {age.days:,} days ago"
    if limits.oldest is None:
        return passed(key, "freshness", f"{told}; no limit is set")
    if age > pd.Timedelta(limits.oldest):
        return warned(key, "freshness", f"{told}, over the limit of {limits.max_age}")
    return passed(key, "freshness", told)
