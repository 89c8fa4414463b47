"""What has to be made again."""

from collections.abc import Sequence

from mlops_assets.product import Product
from mlops_assets.registry import Registry
from mlops_assets.registry.models import registered_name
from mlops_assets.stages.common.base import path
from mlops_assets.stages.common.context import Desk
from mlops_assets.stages.common.lineage import (
    SHARED,
    of_champion,
    of_drift,
    of_features,
    of_model,
    of_performance,
    of_pooled_model,
    of_predictions,
    of_shared_features,
    of_validated,
)
from mlops_assets.stages.promotion.alias_moves import unsettled
from mlops_assets.stages.training.serving import pooled_versions
from mlops_assets.storage import SnapshotStore


def first_stale(
    product: Product,
    country: str,
    assets: Sequence[str],
    store: SnapshotStore,
    registry: Registry,
) -> str | None:
    """The first of `assets`, in pipeline order, that has to be made again; None when none has.

    `raw` is not looked at: whether files are new is found by taking them.
    """
    in_use = registry.aliases(registered_name(product.name, country))
    expected = {
        "validated": lambda: of_validated(product, country, store),
        "features": lambda: of_features(product, country, store),
        "model": lambda: of_model(
            product, country, store, pooled_versions(product, registry, country)
        ),
        "champion": lambda: of_champion(product, country, store),
        "predictions": lambda: of_predictions(product, country, store, in_use),
        "performance": lambda: of_performance(product, country, store, in_use),
        "drift": lambda: of_drift(product, country, store, in_use.champion),
    }
    for name in (name for name in expected if name in assets):
        if not expected[name]().already_made(store.current(path(product, name), country)):
            return name
        if name == "champion" and unsettled(Desk(product, country, store, registry)):
            return name
    return None


def pooled_is_stale(product: Product, store: SnapshotStore) -> bool:
    """Whether the features of some country changed since the pooled model was trained."""
    features = store.current_all(path(product, "features"), list(product.spec.countries))
    made = store.current(path(product, "pooled_model"), None)
    return not of_pooled_model(product, features).already_made(made)


def shared_is_stale(product: Product, store: SnapshotStore) -> bool:
    """Whether the validated rows of some country changed since the shared features were made.

    False for a product without shared features, and while no country has validated rows.
    """
    if not product.spec.shared_features:
        return False
    validated = store.current_all(path(product, "validated"), list(product.spec.countries))
    made = store.current(path(product, SHARED), None)
    return bool(validated) and not of_shared_features(product, validated).already_made(made)
