"""What is recorded of predictions that are not simply what the champion says.

With the snapshot of `predictions`, where some were given out; in the log `refused_predictions` of
the country, where none were.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import dagster as dg
import pandas as pd

from mlops_assets.stages.common.context import CountryContext, ProductContext
from mlops_assets.stages.common.lineage import Lineage
from mlops_assets.storage import Snapshot
from mlops_assets.storage.io_manager import METADATA_PREFIX

GIVEN_OUT = f"{METADATA_PREFIX}given_out"
"""In a snapshot's metadata: `GivenOut` as JSON; missing where all is as the champion says."""
REFUSED_LOG = "refused_predictions"
"""Log of a country: a row for each time that nobody's predictions were taken."""
_WHAT = ("features", "champion")
"""Inputs that predictions were refused of."""


@dataclass(frozen=True)
class GivenOut:
    """How predictions differ from what the model in use says.

    Attributes:
        by: version that predicts in place of the one in use, or `baseline`; "" where that predicts.
        refused: the version in use, where its predictions were refused; "" otherwise.
        why: its predictions were refused.
        answers: number of rows that are at the limit (`clipped`), answered by the baseline
            (`baseline`) or left out (`left_out`).
        told: of these rows, in words.
    """

    by: str = ""
    refused: str = ""
    why: str = ""
    answers: Mapping[str, int] = field(default_factory=dict)
    told: str = ""

    def metadata(self) -> dict[str, Any]:
        """As a snapshot keeps it; nothing where there is nothing to tell."""
        plain = {**asdict(self), "answers": dict(self.answers)}
        return {GIVEN_OUT: dg.MetadataValue.json(plain)} if self.by or self.told else {}

    def describe(self) -> str:
        """What is not as usual, in words; "" for nothing."""
        serves = f"{called(self.by)} predicts, as the predictions of {called(self.refused)} were "
        return "; ".join(
            each for each in (f"{serves}refused: {self.why}" if self.by else "", self.told) if each
        )


@dataclass(frozen=True)
class Refusal:
    """Predictions of nobody that were taken.

    Attributes:
        fingerprint: of the lineage they were to be made by.
        told: whose were refused, and why, with the way out.
    """

    fingerprint: str
    told: str


_NEVER = Refusal("", "")


def given_out_of(snapshot: Snapshot | None) -> GivenOut:
    """What is recorded with predictions; those of earlier versions are as their model said."""
    held = snapshot.metadata.get(GIVEN_OUT) if snapshot else None
    return GivenOut(**held) if held else GivenOut()


def called(version: str) -> str:
    """A version, or the baseline, in words."""
    return f"version {version}" if version.isdigit() else f"the {version}"


def record_refusal(ctx: CountryContext, lineage: Lineage, told: str, at: pd.Timestamp) -> None:
    """Write down that nobody's predictions were taken; once as long as nothing changes.

    Args:
        ctx: the country.
        lineage: of the predictions that were to be made.
        told: whose were refused, and why.
        at: now, UTC without a zone.
    """
    before = _newest(ctx.store.read_log(ctx.path(REFUSED_LOG), ctx.country))
    if before.get(ctx.country, _NEVER).fingerprint == lineage.fingerprint:
        return
    row = {"at": at, "country": ctx.country, "told": told, "fingerprint": lineage.fingerprint}
    inputs = {name: lineage.inputs.get(name, "") for name in _WHAT}
    ctx.store.append(ctx.path(REFUSED_LOG), ctx.country, pd.DataFrame([{**row, **inputs}]))


def refusals(ctx: ProductContext) -> dict[str, Refusal]:
    """The newest refusal of each country that ever had one."""
    return _newest(ctx.store.read_log(ctx.path(REFUSED_LOG)))


def _newest(log: pd.DataFrame) -> dict[str, Refusal]:
    """By country, of the rows of the log in the order they were written."""
    return {
        str(row["country"]): Refusal(str(row["fingerprint"]), str(row["told"]))
        for row in log.to_dict("records")
    }
