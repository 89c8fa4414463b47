"""What every asset is made from, and so whether it has to be made again.

One place for all stages: a step asks it before it works.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from mlops_assets.product import Product
from mlops_assets.registry import Aliases, ModelVersion
from mlops_assets.stages.common.base import path
from mlops_assets.stages.common.code_versions import RECIPES
from mlops_assets.storage import Snapshot, SnapshotStore

FINGERPRINT = "mlops_assets/fingerprint"
CODE = "mlops_assets/code"
CONFIG = "mlops_assets/config"
INPUTS = "mlops_assets/inputs"
_OF_DRIFT = ("features", "predictions")
BASELINE = "baseline"
"""Stands for the champion where none is in use."""
SHARED = "shared_features"
"""Name of the asset of shared features, and of that input of a country's features."""


@dataclass(frozen=True)
class Lineage:
    """What one output was made from; its fingerprint says whether it has to be made again.

    Attributes:
        inputs: name of each input: its content hash or version; "" when it is not there.
        code: hash of the product's functions that were used.
        config: hash of the config sections that were used.
    """

    inputs: Mapping[str, str]
    code: str
    config: str

    @property
    def fingerprint(self) -> str:
        """16 hex digits over inputs, code and config."""
        content = json.dumps([dict(self.inputs), self.code, self.config], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def plain(self) -> dict[str, Any]:
        """As it is stored with a snapshot."""
        return {
            FINGERPRINT: self.fingerprint,
            INPUTS: dict(self.inputs),
            CODE: self.code,
            CONFIG: self.config,
        }

    def metadata(self) -> dict[str, Any]:
        """As Dagster shows it, and the IO manager stores it."""
        return {**self.plain(), INPUTS: dg.MetadataValue.json(dict(self.inputs))}

    def already_made(self, snapshot: Snapshot | None) -> bool:
        """True when `snapshot` was made from exactly this."""
        return snapshot is not None and snapshot.metadata.get(FINGERPRINT) == self.fingerprint


def named_input(
    product: Product, country: str, store: SnapshotStore, lineage: Lineage, name: str
) -> Snapshot:
    """The very snapshot that a lineage names: another run may have written a newer one since."""
    found = store.find(path(product, name), country, lineage.inputs[name])
    if found is None:
        raise dg.Failure(
            f"{product.name} {country} has no {name} yet. Nothing was made; materialize `{name}` "
            "of the country first."
        )
    return found


def named_shared(product: Product, store: SnapshotStore, lineage: Lineage) -> Snapshot | None:
    """The very snapshot of shared features that a lineage names; None for a product without."""
    if SHARED not in lineage.inputs:
        return None
    found = store.find(path(product, SHARED), None, lineage.inputs[SHARED])
    if found is None:
        raise dg.Failure(
            f"{product.name} has no {SHARED} yet. Nothing was made; launch the job "
            f"{product.name}_shared once `validated` of the countries is there, or use: "
            f"mlops-assets materialize {product.name} --all"
        )
    return found


def of_validated(product: Product, country: str, store: SnapshotStore) -> Lineage:
    """Raw rows, the contract, and how columns are named."""
    return Lineage(
        inputs=_inputs(product, country, store, "raw"),
        code=RECIPES["validated"].code_hash(product),
        config=RECIPES["validated"].config_hash(product, country),
    )


def of_shared_features(product: Product, validated: Mapping[str, Snapshot]) -> Lineage:
    """The validated rows of every country that has some, and the function of all countries."""
    return Lineage(
        inputs={country: snapshot.content_hash for country, snapshot in validated.items()},
        code=RECIPES[SHARED].code_hash(product),
        config=RECIPES[SHARED].config_hash(product),
    )


def of_features(product: Product, country: str, store: SnapshotStore) -> Lineage:
    """Validated rows, the feature function, and the shared features of a product that has them."""
    shared = {}
    if product.spec.shared_features:
        made = store.current(path(product, SHARED), None)
        shared[SHARED] = made.content_hash if made else ""
    return Lineage(
        inputs={**_inputs(product, country, store, "validated"), **shared},
        code=RECIPES["features"].code_hash(product),
        config=RECIPES["features"].config_hash(product, country),
    )


def of_pooled_model(product: Product, features: Mapping[str, Snapshot]) -> Lineage:
    """The features of every country that has some."""
    return Lineage(
        inputs={country: snapshot.content_hash for country, snapshot in features.items()},
        code=RECIPES["pooled_model"].code_hash(product),
        config=RECIPES["pooled_model"].config_hash(product),
    )


def of_model(
    product: Product, country: str, store: SnapshotStore, pooled: Mapping[str, ModelVersion]
) -> Lineage:
    """The country's features and the pooled champions it can choose."""
    return Lineage(
        inputs={
            **_inputs(product, country, store, "features"),
            **{f"pooled.{name}": version.version for name, version in pooled.items()},
        },
        code=RECIPES["model"].code_hash(product),
        config=RECIPES["model"].config_hash(product, country),
    )


def of_champion(product: Product, country: str, store: SnapshotStore) -> Lineage:
    """The candidate and the rows it is compared on."""
    return Lineage(
        inputs=_inputs(product, country, store, "model", "features"),
        code=RECIPES["champion"].code_hash(product),
        config=RECIPES["champion"].config_hash(product, country),
    )


def of_predictions(
    product: Product, country: str, store: SnapshotStore, in_use: Aliases
) -> Lineage:
    """The rows to predict, who serves, and who did before."""
    return Lineage(
        inputs={
            **_inputs(product, country, store, "features"),
            "champion": in_use.champion or BASELINE,
            "previous": in_use.previous if in_use.champion else "",
        },
        code=RECIPES["predictions"].code_hash(product),
        config=RECIPES["predictions"].config_hash(product, country),
    )


def of_performance(
    product: Product, country: str, store: SnapshotStore, in_use: Aliases
) -> Lineage:
    """The newest predictions, the labels as they are now, and whose promise is judged."""
    return Lineage(
        inputs={
            **_inputs(product, country, store, "predictions", "features"),
            "champion": in_use.champion or BASELINE,
        },
        code=RECIPES["performance"].code_hash(product),
        config=RECIPES["performance"].config_hash(product, country),
    )


def of_drift(product: Product, country: str, store: SnapshotStore, champion: str) -> Lineage:
    """The newest rows and their predictions, and the champion that learned from older ones."""
    held = {name: store.current(path(product, name), country) for name in _OF_DRIFT}
    made = {name: each for name, each in held.items() if each is not None}
    return drift_lineage(product, country, made, champion)


def drift_lineage(
    product: Product,
    country: str,
    made: Mapping[str, Snapshot],
    champion: str,
) -> Lineage:
    """The same of what was looked up for many countries at once."""
    return Lineage(
        inputs={
            **{name: made[name].content_hash if name in made else "" for name in _OF_DRIFT},
            "champion": champion or BASELINE,
        },
        code=RECIPES["drift"].code_hash(product),
        config=RECIPES["drift"].config_hash(product, country),
    )


def _inputs(product: Product, country: str, store: SnapshotStore, *names: str) -> dict[str, str]:
    found = {name: store.current(path(product, name), country) for name in names}
    return {name: made.content_hash if made else "" for name, made in found.items()}
