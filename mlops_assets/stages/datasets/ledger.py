"""The ledger: where every record of a country is, and the check that says so with the numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
import pandas as pd

from mlops_assets.stages.common.base import asset_key, failed, passed
from mlops_assets.stages.common.context import CountryContext
from mlops_assets.stages.common.ui_metadata import facts_metadata, table_metadata
from mlops_assets.stages.datasets.ingestion import Delivery, Ingestion

LEDGER = "ledger"
RAW_LEDGER = (
    "Rows of a country that its files hold, as counted before they were taken, are the rows that "
    "stand for them in `raw`; a country of which that is not so is refused and keeps what it had."
)
VALIDATED_LEDGER = (
    "Rows in `raw` are rows in `validated`, in `quarantine`, and duplicates (older records of "
    "their key, and rows that a newer version of their file replaced)."
)


@dataclass(frozen=True)
class Ledger:
    """Where the rows of one country's `raw` are.

    Attributes:
        raw: rows in `raw`.
        validated: rows in `validated`.
        quarantine: rows in `quarantine`.
        older: rows that keep the contract and are older than another of their key.
        replaced: rows that a newer version of their file replaced, or took away.
        held_back: rows that keep the contract and are not in use, because their delivery was
            refused or, in an as-of run, was not known yet.
    """

    raw: int
    validated: int
    quarantine: int
    older: int
    replaced: int
    held_back: int = 0

    @property
    def duplicates(self) -> int:
        """Rows of which a newer version is there."""
        return self.older + self.replaced

    @property
    def difference(self) -> int:
        """Rows nobody accounts for; 0 when the ledger balances."""
        return self.raw - self.validated - self.quarantine - self.duplicates - self.held_back

    def text(self) -> str:
        """The sum in words."""
        held = f" + {self.held_back:,} held back" if self.held_back else ""
        parts = f"{self.validated:,} validated + {self.quarantine:,} quarantine + "
        parts += f"{self.duplicates:,} duplicates{held}"
        if self.difference:
            return f"{self.raw:,} raw is not {parts}: the difference is {self.difference:,} rows"
        return f"{self.raw:,} raw = {parts}"

    def facts(self) -> Mapping[str, object]:
        """The numbers, for a table of what and value."""
        return {
            "raw": self.raw,
            "validated": self.validated,
            "quarantine": self.quarantine,
            "duplicates: older records of their key": self.older,
            "duplicates: replaced by a newer version of their file": self.replaced,
            "held back (delivery refused, or not known yet)": self.held_back,
            "difference": self.difference,
        }


def check_raw_ledger(key: dg.AssetKey, taken: Ingestion) -> dg.AssetCheckResult:
    """Rows read and rows in `raw`, by country that took a file."""
    rows = [
        {
            "country": country,
            "read": delivery.read_rows,
            "new_in_raw": delivery.new_rows,
            "in_raw_before": delivery.read_rows - delivery.new_rows,
            "replaced": delivery.replaced_rows,
            "all_in_raw": delivery.snapshot.rows,
        }
        for country, delivery in taken.deliveries.items()
        if delivery.new_files
    ]
    refused = "; ".join(f"{country}: {why}" for country, why in taken.refused.items())
    shown = {"countries": table_metadata(pd.DataFrame(rows))} if rows else {}
    if refused:
        return failed(key, LEDGER, refused, shown)
    return passed(key, LEDGER, _balanced(taken.deliveries), shown)


def check_ledger(
    ctx: CountryContext,
    *,
    older: int,
    replaced: int,
    held_back: int,
    refused: bool,
    remarks: Sequence[str] = (),
) -> dg.AssetCheckResult:
    """Count what is stored and compare it with `raw`.

    Args:
        ctx: the country.
        older: as of `Ledger`, like `replaced` and `held_back`.
        replaced: see there.
        held_back: see there.
        refused: whether the delivery was.
        remarks: what was read otherwise than it is written, in words.
    """
    ledger = Ledger(
        raw=_stored_rows(ctx, "raw"),
        validated=0 if refused else _stored_rows(ctx, "validated"),
        quarantine=_stored_rows(ctx, "quarantine"),
        older=older,
        replaced=replaced,
        held_back=held_back,
    )
    tell = failed if ledger.difference else passed
    shown = {"ledger": facts_metadata(ledger.facts()), "difference": ledger.difference}
    text = "; ".join([ledger.text(), *remarks])
    return tell(asset_key(ctx.product, "validated"), LEDGER, text, shown)


def _balanced(deliveries: Mapping[str, Delivery]) -> str:
    read = sum(each.read_rows for each in deliveries.values())
    new = sum(each.new_rows for each in deliveries.values())
    files = {name for each in deliveries.values() for name in each.new_files}
    if not files:
        return "no new files"
    return (
        f"{read:,} rows read = {new:,} new rows in raw + {read - new:,} that were there as they "
        f"are; files: {len(files):,}"
    )


def _stored_rows(ctx: CountryContext, asset: str) -> int:
    stored = ctx.current(asset)
    return stored.rows if stored else 0
