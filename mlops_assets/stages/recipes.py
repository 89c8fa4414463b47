"""What each asset is made by: which of the product's functions, which sections of its YAML.

One table for Dagster's code versions and for the fingerprints in `lineage`: an asset is out of
date when its inputs, this code or these sections are others than those it was made from.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mlops_assets.product import Part, Product

RECORDS = (
    "source.columns",
    "source.country",
    "source.key",
    "source.event_time",
    "source.known_later",
    "source.derived",
    "source.arrival_time",
    "source.delivery",
)
"""What records mean; where they come from, and how often, changes nothing that is made of them."""

TRAINING_SECTIONS = (
    *RECORDS,
    "features",
    "task",
    "target",
    "metric",
    "split",
    "baselines",
    "candidates",
    "gates",
    "predictions",
    "seed",
)
"""Sections of the spec that a trained and judged model depends on."""


@dataclass(frozen=True)
class Recipe:
    """What one asset is made by.

    Attributes:
        code: parts of the product whose code is used; none for what the platform does alone.
        sections: of the YAML that are used.
    """

    code: tuple[Part, ...]
    sections: tuple[str, ...]

    def code_hash(self, product: Product) -> str:
        """Over the code; "" without any."""
        return product.code_version(*self.code) if self.code else ""

    def config_hash(self, product: Product, country: str | None = None) -> str:
        """Over the sections, as they are in a country (None: as the product has them)."""
        spec = product.spec if country is None else product.resolved(country)
        return spec.config_hash(*self.sections)

    def code_version(self, product: Product) -> str:
        """Both, as Dagster shows them."""
        return "-".join(
            each for each in (self.code_hash(product), self.config_hash(product)) if each
        )


_VALIDATED = Recipe(("contract",), (*RECORDS, "contract", "aliases"))
_TRAINED = Recipe(("features",), TRAINING_SECTIONS)
RECIPES: Mapping[str, Recipe] = {
    "raw": Recipe((), ("source.columns", "source.country", "countries", "aliases")),
    "quarantine": _VALIDATED,
    "validated": _VALIDATED,
    "features": Recipe(("features",), (*RECORDS, "features", "target", "seed")),
    "pooled_model": Recipe(("features",), (*TRAINING_SECTIONS, "overrides")),
    "model": _TRAINED,
    "champion": _TRAINED,
    "predictions": Recipe(
        ("features",), ("split", "baselines", "predictions", "task", "target", "seed")
    ),
}
