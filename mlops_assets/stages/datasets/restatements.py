"""History that a source delivered again with other values, or took back: reported and recorded."""

import dagster as dg
import pandas as pd

from mlops_assets.ml.datasets.restatement import Restatement, compare_versions
from mlops_assets.product import Product
from mlops_assets.stages.common.base import asset_key, passed, warned
from mlops_assets.stages.common.context import CountryContext
from mlops_assets.stages.common.lineage import CODE, CONFIG, Lineage
from mlops_assets.stages.common.ui_metadata import table_metadata
from mlops_assets.storage import Snapshot

RESTATED = "restated_history"
RESTATED_DESCRIPTION = (
    "Records that were delivered before and now have other values, or were withdrawn, by month and "
    "column. Both versions are kept, the newest is used; models that exist keep what they were "
    "trained on."
)
_SHOWN = 50


def same_rules(made: Snapshot | None, lineage: Lineage) -> bool:
    """Whether a snapshot was made by the contract and config of now."""
    if made is None:
        return False
    return (made.metadata[CODE], made.metadata[CONFIG]) == (lineage.code, lineage.config)


def compare_with_stored(ctx: CountryContext, now: pd.DataFrame) -> Restatement | None:
    """What `now` changes of the validated rows that are stored; None when there are none."""
    if ctx.current("validated") is None:
        return None
    source = ctx.spec.source
    before = ctx.store.read(ctx.path("validated"), ctx.country)
    return compare_versions(before, now, source.key, source.event_time)


def record_restatement(ctx: CountryContext, found: Restatement, run_id: str) -> None:
    """Append it to the log `restatements`, one row a month and column."""
    if not found.restated:
        return
    about = {
        "restated_at": pd.Timestamp.now(tz="UTC"),
        "product": ctx.product.name,
        "country": ctx.country,
        "dagster_run_id": run_id,
    }
    rows = found.by_period.assign(**about)[[*about, *found.by_period.columns]]
    ctx.store.append(ctx.path("restatements"), ctx.country, rows)


def check_restatement(
    product: Product, found: Restatement | None, *, rules_changed: bool
) -> dg.AssetCheckResult:
    """The result of the check `restated_history`."""
    key = asset_key(product, "validated")
    if found is None:
        return passed(key, RESTATED, "first delivery: there is no earlier history")
    if not found.restated:
        return passed(key, RESTATED, f"{found.added:,} new records, none that was there is other")
    shown = {
        "changed": found.changed,
        "withdrawn": found.withdrawn,
        "by_period": table_metadata(found.by_period.tail(_SHOWN)),
    }
    periods = found.by_period["period"]
    told = (
        f"{found.changed:,} changed and {found.withdrawn:,} withdrawn records, of "
        f"{periods.iloc[0]} to {periods.iloc[-1]}"
    )
    if rules_changed:
        return passed(key, RESTATED, f"{told}, because the contract or its config changed", shown)
    return warned(key, RESTATED, f"{told}; both versions are kept, the newest is used", shown)


def last_restated(ctx: CountryContext) -> str:
    """When history was last restated, for a run without news; "" if it never was."""
    log = ctx.store.read_log(ctx.path("restatements"), ctx.country)
    if log.empty:
        return ""
    newest = log[log["restated_at"] == log["restated_at"].max()]
    rows, gone = int(newest["rows"].sum()), int(newest["withdrawn"].sum())
    when = newest["restated_at"].iloc[0].date()
    return f"; last restated on {when}: {rows:,} values changed, {gone:,} records withdrawn"
