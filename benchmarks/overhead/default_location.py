"""The products as a code location that leaves executor and launcher to Dagster's defaults."""

from __future__ import annotations

import dagster as dg

from mlops_assets.components.loading import load_products
from mlops_assets.settings import load_settings
from mlops_assets.stages import build_product
from mlops_assets.stages.common.platform import platform_definitions

_settings = load_settings()

defs = dg.Definitions.merge(
    *(build_product(product) for product in load_products(_settings.defs)),
    dg.Definitions(resources=platform_definitions(_settings).resources),
)
