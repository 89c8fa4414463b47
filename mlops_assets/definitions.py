"""The code location: every product under `defs/`, and what holds for all of them."""

from pathlib import Path

import dagster as dg

from mlops_assets.settings import load_settings
from mlops_assets.stages.platform import platform_definitions


@dg.definitions
def defs() -> dg.Definitions:
    """Load the products and add storage, registry and executor."""
    products = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    return dg.Definitions.merge(products, platform_definitions(load_settings()))
