"""Quarantine: what is in it and why, and the record of rows that were released from it."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from mlops_assets.stages.common.clock import INGESTED_UNTIL
from mlops_assets.stages.common.context import CountryContext
from mlops_assets.stages.datasets.judgement import judge_country, not_used_of

RELEASED_BY = "mlops_assets/released_by"
RELEASE_REASON = "mlops_assets/release_reason"
"""Tags of a run with which a person releases rows."""
RULES = "_rules"
_WHERE = ["_source_hash", "_source_line"]


@dataclass(frozen=True)
class Quarantined:
    """What a country has in quarantine.

    Attributes:
        rows: records in quarantine.
        reasons: one row a rule: `rule`, `rows` that break it, `alone` of which break no other.
        examples: the first records of each rule, with the rule in `rule`.
        releasable: records that would keep the contract as it is now; 0 while it was not changed.
    """

    rows: int
    reasons: pd.DataFrame
    examples: pd.DataFrame
    releasable: int


def quarantined(ctx: CountryContext, *, examples: int = 3) -> Quarantined | None:
    """What is in quarantine and why; None when the country has no validation yet.

    Args:
        ctx: the country.
        examples: records shown of each rule.
    """
    if ctx.current("quarantine") is None:
        return None
    rows = ctx.store.read(ctx.path("quarantine"), ctx.country)
    rules = rows[RULES].astype(str).str.split("; ")
    each = rows.assign(rule=rules, broken=rules.str.len()).explode("rule", ignore_index=True)
    counted = each.groupby("rule")["broken"].agg(
        rows="size", alone=lambda broken: int((broken == 1).sum())
    )
    reasons = counted.reset_index().sort_values(["rows", "rule"], ascending=[False, True])
    shown = each.groupby("rule", sort=False).head(examples).drop(columns=["broken", RULES])
    return Quarantined(
        rows=len(rows),
        reasons=reasons.reset_index(drop=True),
        examples=shown[["rule", *[n for n in shown.columns if n != "rule"]]].reset_index(drop=True),
        releasable=_releasable(ctx, rows),
    )


def _releasable(ctx: CountryContext, rows: pd.DataFrame) -> int:
    """Quarantined records that keep the contract now, and are of a delivery that is used."""
    if rows.empty or ctx.current("raw") is None:
        return 0
    raw, made = ctx.store.read(ctx.path("raw"), ctx.country), ctx.current("validated")
    seen = str(made.metadata[INGESTED_UNTIL]) if made else ""
    judged = judge_country(ctx, raw, seen=seen, before=not_used_of(ctx.current("quarantine")))
    return len(_left(rows, judged.result.quarantine, judged.used))


def record_release(
    ctx: CountryContext,
    now: pd.DataFrame,
    used: pd.DataFrame,
    rules: tuple[str, str],
    *,
    tags: Mapping[str, str],
    run_id: str,
) -> int:
    """Append to the log `releases` which records leave quarantine under another contract.

    Args:
        ctx: the country.
        now: the records in quarantine from now on.
        used: raw rows that stand and are of a delivery that is used.
        rules: code version of the contract before and now.
        tags: of the run; they say who asked for it and why.
        run_id: of the run.

    Returns:
        The number of records released.
    """
    if ctx.current("quarantine") is None:
        return 0
    left = _left(ctx.store.read(ctx.path("quarantine"), ctx.country), now, used)
    if left.empty:
        return 0
    row = {
        "released_at": dt.datetime.now(dt.UTC),
        "product": ctx.product.name,
        "country": ctx.country,
        "rows": len(left),
        "rules": "; ".join(sorted({r for text in left[RULES] for r in str(text).split("; ")})),
        "released_by": tags.get(RELEASED_BY, "a run after the contract was changed"),
        "reason": tags.get(RELEASE_REASON, ""),
        "contract_before": rules[0],
        "contract_now": rules[1],
        "dagster_run_id": run_id,
    }
    ctx.store.append(ctx.path("releases"), ctx.country, pd.DataFrame([row]))
    return len(left)


def _left(before: pd.DataFrame, now: pd.DataFrame, used: pd.DataFrame) -> pd.DataFrame:
    """Records that are still used, were in quarantine and no longer are."""
    stays, stands = (set(rows[_WHERE].itertuples(index=False, name=None)) for rows in (now, used))
    left = [
        where in stands and where not in stays
        for where in before[_WHERE].itertuples(index=False, name=None)
    ]
    return before[left]
