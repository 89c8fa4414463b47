"""The current features of a product's countries, for a backtest through their history."""

from collections.abc import Sequence

import pandas as pd

from mlops_assets.errors import ConfigurationError
from mlops_assets.product import Product
from mlops_assets.stages.common.context import ProductContext


def stored_features(ctx: ProductContext) -> dict[str, pd.DataFrame]:
    """Features by country, as they are in use now; countries that have none are left out.

    Raises:
        ConfigurationError: no country has any.
    """
    frames = ctx.store.read_all(ctx.path("features"), list(ctx.product.spec.countries))
    found = {country: frame for country, frame in frames.items() if len(frame)}
    if not found:
        raise ConfigurationError(
            f"{ctx.product.name} has no features yet.",
            stored="Nothing was read or trained.",
            way_out=f"Run: mlops-assets materialize {ctx.product.name} --all --job predict",
        )
    return found


def backtest_countries(
    product: Product, frames: dict[str, pd.DataFrame], wanted: Sequence[str]
) -> tuple[str, ...]:
    """The countries asked for, all by default.

    Raises:
        ConfigurationError: one is not listed or has no features.
    """
    for country in wanted:
        product.resolved(country)
        if country not in frames:
            raise ConfigurationError(
                f"{product.name} {country} has no features yet.",
                stored="Nothing was trained.",
                way_out=f"Run: mlops-assets materialize {product.name} --country {country} "
                "--job predict",
                culprits={"country": country},
            )
    return tuple(wanted) or tuple(c for c in product.spec.countries if c in frames)
