"""One country of a product, with what is stored and registered of it."""

from dataclasses import dataclass

from mlops_assets.product import Product
from mlops_assets.registry import Aliases, ModelVersion, Registry
from mlops_assets.registry.models import registered_name
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.common.base import path
from mlops_assets.storage import Snapshot, SnapshotStore


@dataclass(frozen=True)
class Desk:
    """One country of a product, with what is stored and registered of it."""

    product: Product
    country: str
    store: SnapshotStore
    registry: Registry

    @property
    def spec(self) -> ProductSpec:
        """The spec as it holds in the country."""
        return self.product.resolved(self.country)

    @property
    def model_name(self) -> str:
        """Of the registered model."""
        return registered_name(self.product.name, self.country)

    def aliases(self) -> Aliases:
        """What the registry names now."""
        return self.registry.aliases(self.model_name)

    def version(self, number: str) -> ModelVersion:
        """A registered version by its number.

        Raises:
            RegistryError: there is none.
        """
        return self.registry.version(self.model_name, number)

    def made(self, asset: str) -> Snapshot | None:
        """The current snapshot of one of its assets."""
        return self.store.current(path(self.product, asset), self.country)
