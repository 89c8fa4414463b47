"""The model card that a training left in MLflow, and the decision that is written into it."""

from mlops_assets.errors import RegistryError
from mlops_assets.ml.promotion.card_decision import with_decision
from mlops_assets.ml.promotion.decision import Decision
from mlops_assets.product import Product
from mlops_assets.registry import ModelVersion, Registry, TrackedRun
from mlops_assets.registry.models import registered_name
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.promotion.decision_log import entries
from mlops_assets.stages.training.evaluation_metadata import CARD_FILE
from mlops_assets.storage import SnapshotStore


def stored_card(
    product: Product,
    country: str,
    store: SnapshotStore,
    registry: Registry,
    number: str | None = None,
) -> str:
    """The model card that the training of a version left, with what became of it since.

    Args:
        product: whose model.
        country: for which.
        store: where decisions are recorded.
        registry: where the card is.
        number: registered version; None: the champion.

    Raises:
        RegistryError: there is no such version, or no card with it.
    """
    spec = product.resolved(country)
    version = (
        registry.champion(product.name, country)
        if number is None
        else registry.version(registered_name(product.name, country), number)
    )
    if version is None:
        raise RegistryError(
            f"{product.name} has no champion in {country}.",
            stored="Nothing was read.",
            way_out="Name a version with --version, or materialize the country first.",
        )
    text = registry.artifact(version, CARD_FILE)
    decided = [
        entry.comparison.decision
        for entry in entries(product, store, country)
        if entry.comparison.candidate == version.version
    ]
    return with_decision(text, decided[-1], spec) if decided else text


def tell_decision(
    registry: Registry, version: ModelVersion, decision: Decision, spec: ProductSpec
) -> None:
    """Write a decision into the card in MLflow, which was there before it.

    Raises:
        RegistryError: the card is lost.
    """
    text = with_decision(registry.artifact(version, CARD_FILE), decision, spec)
    TrackedRun(version.run_id, "", "", registry.tracking_uri).log_texts({CARD_FILE: text})
