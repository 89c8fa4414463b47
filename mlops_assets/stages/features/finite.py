"""The check that features are finite, of a country's and of the shared ones."""

import dagster as dg

from mlops_assets.stages.common.base import passed, warned
from mlops_assets.storage.io_manager import METADATA_PREFIX

FINITE = "finite_values"
FINITE_DESCRIPTION = (
    "No feature and no label is infinite, as a ratio with a denominator of 0 is; one that is "
    "counts as missing."
)
INFINITE = f"{METADATA_PREFIX}infinite"
"""What the check found, kept with the frame: the values themselves are missing there."""


def finite_check(key: dg.AssetKey, infinite: str) -> dg.AssetCheckResult:
    """The check, from what is kept under `INFINITE`."""
    if not infinite:
        return passed(key, FINITE, "no value is infinite")
    way_out = "they count as missing; let the function say what a ratio is whose denominator is 0"
    return warned(key, FINITE, f"{infinite}; {way_out}")
