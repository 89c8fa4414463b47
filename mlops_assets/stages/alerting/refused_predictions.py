"""Countries in which another model predicts, as the predictions of the one in use were refused.

Where nobody's could be taken, the gate that failed says so.
"""

from collections.abc import Iterator

from mlops_assets.product import Product
from mlops_assets.stages.alerting.conditions import AlertCondition, asset_page, sentence
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.common.lineage import BASELINE
from mlops_assets.stages.predictions.given_out import GivenOut, called, given_out_of


def refused_conditions(ctx: ProductContext) -> Iterator[AlertCondition]:
    """One for each country and version, as long as another one predicts in its place."""
    for country, made in ctx.current_all("predictions").items():
        given_out = given_out_of(made)
        if given_out.by:
            yield _condition(ctx.product, country, given_out)


def _condition(product: Product, country: str, given_out: GivenOut) -> AlertCondition:
    refused, by, name = called(given_out.refused), called(given_out.by), product.name
    use = (
        ""
        if given_out.by == BASELINE
        else f"put {by} into use (`mlops-assets rollback {name} {country} --reason '...'`); "
    )
    text = (
        f"{sentence(given_out.describe())}\nNext: {by} predicts until {refused} has predictions "
        "within the range again, which is looked at with every delivery; it stays the model in "
        f"use.\nYou can: look at `features` of the country; {use}train it anew "
        f"(`mlops-assets materialize {name} --country {country} --job train`); or have "
        "`predictions` of the product say what becomes of such rows (`beyond`, `beyond_share`)."
    )
    return AlertCondition(
        f"{name} {country} predictions of {refused} refused",
        "gate",
        country,
        f"{name} {country}: predictions of {refused} were refused, {by} predicts",
        text,
        *asset_page(product, "predictions", country),
    )
