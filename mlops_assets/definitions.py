"""The code location: every product under `defs/`, and what holds for all of them."""

from pathlib import Path

import dagster as dg

from mlops_assets.components.loading import load_products
from mlops_assets.components.soundness import is_checked, require_sound
from mlops_assets.settings import DEFS, Settings, load_settings
from mlops_assets.stages import build_product
from mlops_assets.stages.common.platform import platform_definitions


@dg.definitions
def defs() -> dg.Definitions:
    """Load the products and add storage, registry and executor."""
    settings = load_settings()
    return dg.Definitions.merge(_products(settings), platform_definitions(settings))


def _products(settings: Settings) -> dg.Definitions:
    if settings.defs.resolve() == DEFS:
        return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    # Dagster finds components in a project only; elsewhere the same files are read directly.
    products = load_products(settings.defs)
    for product in products:
        require_sound(product, thorough=is_checked())
    return dg.Definitions.merge(*(build_product(product) for product in products))
