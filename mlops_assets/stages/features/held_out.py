"""What is held out of shared features: told in a check, in `status` and in alerts."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import pandas as pd

from mlops_assets.ml.features.plausibility import HeldOut, Plausible, describe_held, held_from
from mlops_assets.stages.common.base import passed, warned
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.common.lineage import SHARED
from mlops_assets.stages.common.ui_metadata import table_metadata
from mlops_assets.storage.io_manager import METADATA_PREFIX

PLAUSIBLE = "plausible"
PLAUSIBLE_DESCRIPTION = (
    "The newest records of every country follow from its own past. Those that do not are held out "
    "of what is shared, and counted as that country's fault."
)
HELD_OUT = f"{METADATA_PREFIX}held_out"
"""What the check found, kept with the shared features that were made without it."""
WAY_OUT = (
    "have it delivered again, corrected; if it is true, set `sharing.accepted` of the YAML to the "
    "day it began on, then have the country's features made again (`mlops-assets materialize`)"
)


def plausible_check(key: dg.AssetKey, found: Plausible) -> dg.AssetCheckResult:
    """The check: a warning while newest records are held out; a table of all that are."""
    going_on = [each for each in found.held if each.is_open]
    rows = sum(each.rows for each in found.held)
    shown: dict[str, Any] = {"rows_held_out": rows}
    if found.held:
        table = pd.DataFrame([each.__dict__ for each in found.held])
        shown["held_out"] = table_metadata(table)
    incident = found.incident
    if incident is not None and incident.is_open:
        text = f"upstream incident: {incident.describe()}; {WAY_OUT}. {describe_held(going_on)}"
        return warned(key, PLAUSIBLE, text, shown)
    if going_on:
        return warned(key, PLAUSIBLE, f"made without {describe_held(going_on)}; {WAY_OUT}", shown)
    text = "the newest records of every country follow from its own past"
    earlier = f"; {rows:,} earlier rows stay held out" if rows else ""
    return passed(key, PLAUSIBLE, text + earlier, shown)


def held_out_now(ctx: ProductContext) -> Plausible:
    """What the shared features in use were made without; nothing for a product without any."""
    if not ctx.spec.shared_features:
        return Plausible({})
    made = ctx.current(SHARED)
    return held_from(made.metadata.get(HELD_OUT) if made else None)


def open_by_country(found: Plausible) -> Mapping[str, HeldOut]:
    """The first column of each country whose newest records are held out."""
    return {each.country: each for each in reversed(found.held) if each.is_open}
