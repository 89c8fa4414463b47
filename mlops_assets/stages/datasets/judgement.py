"""Judging the deliveries of a country: which are used, which are set aside, and when all are.

A delivery is a file version. What is not used is kept with the country's quarantine, which is
written whether records were accepted or not, and is judged again until it is replaced or corrected.
"""

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import dagster as dg
import pandas as pd

from mlops_assets.errors import some
from mlops_assets.ml.datasets.deliveries import JudgedDelivery, Judging
from mlops_assets.ml.datasets.event_times import TimeLimits
from mlops_assets.ml.datasets.validation import DELIVERED, Validation, known_rows, validate
from mlops_assets.product import Product
from mlops_assets.sources.files.union import INGESTED, REPLACED
from mlops_assets.spec import ContractSpec
from mlops_assets.stages.common.base import naive
from mlops_assets.stages.common.context import CountryContext
from mlops_assets.stages.common.lineage import made_from
from mlops_assets.stages.datasets.ingestion import Delivered, deliveries_of, first_new, live_rows
from mlops_assets.storage import Snapshot

NOT_USED = "mlops_assets/deliveries_not_used"
"""In the metadata of `quarantine`: the deliveries of which no row is used."""
_HASH = "_source_hash"
_RULES = 3  # shown where a list could be long
_NAMES = 3
_WORST = 5


@dataclass(frozen=True)
class NotUsed:
    """A delivery of a country of which no row is used.

    Attributes:
        file: its name.
        content_hash: of its content.
        ingested_at: ISO 8601, UTC.
        rows: that stand.
        rejected: of them, not corrected by a later delivery.
        verdict: `refused`, until it is corrected; or `all_rejected` of too few rows to say more,
            until the next delivery.
    """

    file: str
    content_hash: str
    ingested_at: str
    rows: int
    rejected: int
    verdict: str

    def describe(self) -> str:
        """Name and numbers."""
        return f"{self.file} ({self.rejected:,} of {self.rows:,} rows break the contract)"


@dataclass(frozen=True)
class JudgedCountry:
    """The records of a country, judged.

    Attributes:
        result: what became of each.
        live: raw rows that stand, those included that stand in for a refused new version.
        replaced: raw rows that do not stand.
        not_known: rows that stand and were not known at the moment of an as-of run.
        not_used: deliveries of which no row is used.
    """

    result: Validation
    live: pd.DataFrame
    replaced: int
    not_known: int
    not_used: tuple[NotUsed, ...]

    @property
    def used(self) -> pd.DataFrame:
        """Raw rows that stand, without those of refused deliveries."""
        refused = [each for each in self.not_used if each.verdict == "refused"]
        return self.live[~self.live[DELIVERED].isin(list(_positions(self.live, refused)))]


def judge_country(
    ctx: CountryContext,
    raw: pd.DataFrame,
    *,
    seen: str,
    before: Sequence[NotUsed] = (),
    moment: dt.datetime | None = None,
) -> JudgedCountry:
    """Judge the raw rows of a country and each delivery that is new or was not used before.

    The rows that a refused new version of a file replaced stand in for it; where those were refused
    too, the ones before them do.

    Args:
        ctx: the country.
        raw: every row ever delivered.
        seen: time of the newest ingestion accepted before; "" for none.
        before: deliveries that were not used so far.
        moment: whose knowledge counts; None: now.
    """
    back = pd.Series(False, index=raw.index)
    refused: list[NotUsed] = []
    while True:  # what stands in may be refused itself; ever more rows come back, so that it ends
        standing = raw.assign(**{REPLACED: raw[REPLACED].mask(back)}) if back.any() else raw
        judged = _judged(ctx, standing, seen=seen, before=before, moment=moment, refused=refused)
        refused = [each for each in judged.not_used if each.verdict == "refused"]
        more = _standing_in(ctx, raw, refused) & ~back
        if not more.any():
            return judged
        back |= more


def not_used_of(quarantine: Snapshot | None) -> tuple[NotUsed, ...]:
    """The deliveries of which no row is used; none of a snapshot that does not say."""
    listed = [] if quarantine is None else quarantine.metadata.get(NOT_USED, [])
    return tuple(NotUsed(**each) for each in listed)


def not_used_metadata(found: Sequence[NotUsed]) -> dict[str, Any]:
    """As the quarantine keeps it."""
    return {NOT_USED: dg.MetadataValue.json([asdict(each) for each in found])}


def newest_taken(raw: pd.DataFrame) -> dt.datetime | None:
    """When something was last taken or replaced; None of no rows."""
    newest = max(raw[INGESTED].max(), raw[REPLACED].max(), key=lambda t: (not pd.isna(t), t))
    return None if pd.isna(newest) else newest.to_pydatetime(warn=False)


def refusal_of(result: Validation, limits: ContractSpec) -> str | None:
    """Why the newest deliveries are not taken into use; None when some of them are."""
    if result.missing_columns:
        names = ", ".join(repr(name) for name in result.missing_columns)
        return f"The delivery has no column {names}, which the contract needs."
    judging = Judging.of(limits, 0, ())
    new = [each for each in result.deliveries if each.is_new]
    taken = [each for each in new if each.verdict != "refused"]
    none_is_used = bool(new) and all(each.verdict != "taken" for each in new)
    refused = none_is_used and len(taken) < len(new)
    over = judging.is_over(sum(d.rows for d in taken), sum(d.rejected for d in taken))
    limit = judging.limit
    if result.used_rejected_share > limit or (refused and result.rejected_share > limit):
        return (
            f"{result.rejected - result.corrected:,} of {result.rows:,} rows "
            f"({result.rejected_share:.1%}) break the contract, over the limit of {limit:.1%}: "
            f"{_worst(result)}."
        )
    if refused or over:
        return (
            f"{result.new_rejected:,} of {result.new_rows:,} rows delivered since the last good "
            f"data ({result.new_rejected_share:.1%}) break the contract, over the limit of "
            f"{limit:.1%}: {_worst(result)}."
        )
    if result.accepted.empty:
        return "The delivery has no rows that keep the contract."
    return None


def describe_not_used(found: Sequence[NotUsed]) -> str:
    """The first of them by name, and how many there are."""
    return some([each.describe() for each in found], _NAMES)


def _worst(result: Validation) -> str:
    return some([f"{rule} ({count:,})" for rule, count in result.broken.items()], _WORST)


def _judged(
    ctx: CountryContext,
    raw: pd.DataFrame,
    *,
    seen: str,
    before: Sequence[NotUsed],
    moment: dt.datetime | None,
    refused: Sequence[NotUsed] = (),
) -> JudgedCountry:
    spec, schema = ctx.spec, ctx.product.contract()
    live = live_rows(raw)
    replaced = len(raw) - len(live)
    not_known = 0
    if moment is not None:
        known = known_rows(live, schema, spec.source, spec.country_names, moment=naive(moment))
        not_known = int((~known).sum())
        live = live[known].reset_index(drop=True)
    since = first_new(live, seen)
    again = [each for each in before if each.verdict == "refused"]
    judging = Judging.of(spec.contract, since, _positions(live, again))
    judging = replace(judging, refused=_positions(live, refused))
    times = TimeLimits.of(spec.contract, newest_taken(raw))
    result = validate(
        live, schema, spec.source, spec.country_names, new_since=since, judging=judging, times=times
    )
    not_used = _not_used(live, result.deliveries)
    if result.missing_columns:  # no delivery could be judged: what was not used still is not
        not_used = tuple(each for each in before if _positions(live, [each]))
    return JudgedCountry(result, live, replaced, not_known, not_used)


def _positions(live: pd.DataFrame, found: Collection[NotUsed]) -> frozenset[int]:
    """Where deliveries are among those that have rows which stand."""
    if not found:
        return frozenset()
    wanted = {(pd.Timestamp(each.ingested_at), each.content_hash) for each in found}
    each = live[[INGESTED, _HASH, DELIVERED]].drop_duplicates()
    return frozenset(
        int(place)
        for at, digest, place in each.itertuples(index=False, name=None)
        if (at, str(digest)) in wanted
    )


def _not_used(live: pd.DataFrame, judged: Sequence[JudgedDelivery]) -> tuple[NotUsed, ...]:
    wanted = {each.position: each for each in judged if each.verdict != "taken"}
    if not wanted:
        return ()
    first = live[live[DELIVERED].isin(list(wanted))].drop_duplicates(DELIVERED)
    found = []
    for row in first.sort_values(DELIVERED).to_dict("records"):
        each = wanted[int(row[DELIVERED])]
        found.append(
            NotUsed(
                file=str(row["_source_file"]),
                content_hash=str(row[_HASH]),
                ingested_at=row[INGESTED].isoformat(),
                rows=each.rows,
                rejected=each.rejected,
                verdict=each.verdict,
            )
        )
    return tuple(found)


def _standing_in(ctx: CountryContext, raw: pd.DataFrame, refused: Sequence[NotUsed]) -> pd.Series:
    """Rows that stood until a refused version of their file came.

    Of files that are the whole history one stands, so that its refusal keeps all that was there.
    """
    back = pd.Series(False, index=raw.index)
    if not refused or ctx.spec.source.delivery == "full":
        return back
    taken: Sequence[Delivered] = deliveries_of(ctx.current("raw"))
    wanted = {(pd.Timestamp(each.ingested_at), each.content_hash) for each in refused}
    for each in taken:
        at = pd.Timestamp(each.at)
        if (at, each.content_hash) in wanted and each.replaced:
            back |= (raw[REPLACED] == at) & (raw["_source_file"].astype(str) == each.name)
    return back


def not_used_now(quarantine: Snapshot | None, raw: Snapshot | None) -> tuple[NotUsed, ...]:
    """As `not_used_of`, while the quarantine is of the newest raw rows.

    What came since may have corrected or replaced them; the next judging says.
    """
    if raw is None or made_from(quarantine).get("raw") != raw.content_hash:
        return ()
    return not_used_of(quarantine)


def not_used_by_country(
    quarantines: Mapping[str, Snapshot], raw: Mapping[str, Snapshot], product: Product
) -> dict[str, tuple[NotUsed, ...]]:
    """Listed countries with deliveries that are not used and need a person.

    Args:
        quarantines: by country, as they are.
        raw: the raw rows by country, as they are.
        product: whose countries.
    """
    found = {
        country: not_used_now(made, raw.get(country))
        for country, made in quarantines.items()
        if country in product.spec.countries
    }
    return {country: each for country, each in found.items() if each}
