"""What each asset is made by: which of the product's functions, which sections of its YAML.

One table for Dagster's code versions and for the fingerprints in `lineage`: an asset is out of
date when its inputs, this code or these sections are others than those it was made from.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mlops_assets.product import Part, Product
from mlops_assets.spec.source import NOTATION, READING

RECORDS = (
    "source.columns",
    "source.country",
    "source.key",
    "source.event_time",
    "source.known_later",
    "source.derived",
    "source.arrival_time",
    "source.delivery",
    *(f"source.{name}" for name in NOTATION),
)
"""What records mean; where they come from, and how often, changes nothing that is made of them."""

TRAINING_SECTIONS = (
    *RECORDS,
    "features",
    "shared_features",
    "cutoffs",
    "task",
    "target",
    "metric",
    "split",
    "baselines",
    "candidates",
    "regions",
    "tuning",
    "evaluation",
    "gates",
    "predictions",
    "seed",
)
"""Sections of the spec that a trained and judged model depends on.

Not `decision`: what it takes to replace a champion changes no model.
"""


@dataclass(frozen=True)
class Recipe:
    """What one asset is made by.

    Attributes:
        code: parts of the product whose code is used; none for what the platform does alone.
        sections: of the YAML that are used.
        overridden: sections that are used as each country has them, by what makes one thing of
            all countries.
    """

    code: tuple[Part, ...]
    sections: tuple[str, ...]
    overridden: tuple[str, ...] = ()

    def code_hash(self, product: Product) -> str:
        """Over the code; "" without any."""
        return product.code_version(*self.code) if self.code else ""

    def config_hash(self, product: Product, country: str | None = None) -> str:
        """Over the sections, as they are in a country (None: as the product has them)."""
        spec = product.spec if country is None else product.resolved(country)
        if not self.overridden:
            return spec.config_hash(*self.sections)
        own = {
            where: {each: changes[each] for each in self.overridden if each in changes}
            for where, changes in spec.overrides.items()
            if not changes.keys().isdisjoint(self.overridden)
        }
        return spec.model_copy(update={"overrides": own}).config_hash(*self.sections, "overrides")

    def code_version(self, product: Product) -> str:
        """Both, as Dagster shows them."""
        return "-".join(
            each for each in (self.code_hash(product), self.config_hash(product)) if each
        )


_VALIDATED = Recipe(("contract",), (*RECORDS, "contract", "aliases", "source.country_names"))
_MADE = (*RECORDS, "features", "shared_features", "cutoffs", "target", "seed")
RECIPES: Mapping[str, Recipe] = {
    "raw": Recipe(
        (),
        (
            "source.columns",
            "source.country",
            "countries",
            "aliases",
            "source.country_names",
            *(f"source.{name}" for name in READING),
        ),
    ),
    "quarantine": _VALIDATED,
    "validated": _VALIDATED,
    "shared_features": Recipe(
        ("shared_features",),
        (*RECORDS, "countries", "shared_features", "sharing", "cutoffs", "target", "seed"),
    ),
    "features": Recipe(("features",), _MADE),
    "pooled_model": Recipe(("features",), TRAINING_SECTIONS, overridden=("split",)),
    "model": Recipe(("features",), TRAINING_SECTIONS),
    "champion": Recipe(("features",), (*TRAINING_SECTIONS, "decision")),
    "predictions": Recipe(
        ("features",), ("split", "baselines", "predictions", "task", "target", "seed")
    ),
    "performance": Recipe(
        (),
        (
            "split",
            "baselines",
            "task",
            "target",
            "metric",
            "seed",
            "evaluation.draw_by",
            "evaluation.block_days",
            "evaluation.draws",
            "evaluation.confidence",
            "evaluation.slices",
            "gates.min_slice_class_rows",
            "monitoring.period",
            "monitoring.min_labels",
            "monitoring.label_days",
            "monitoring.confidence",
            "monitoring.tolerance",
        ),
    ),
    "drift": Recipe(
        (),
        (
            "monitoring.window_days",
            "monitoring.every_days",
            "monitoring.min_rows",
            "monitoring.min_effect",
            "monitoring.min_weight",
            "monitoring.max_false_alarms",
            "monitoring.alarm_after",
            "monitoring.of_windows",
            "retraining.on_drift",
        ),
    ),
}
