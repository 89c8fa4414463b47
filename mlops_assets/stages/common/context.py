"""A product, and one country of it, with what is stored and registered of them.

What every function of the stages is handed: who wants a path, a snapshot or a registered model asks
here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from mlops_assets.product import Product
from mlops_assets.registry import Aliases, ModelVersion, Registry
from mlops_assets.registry.names import registered_name
from mlops_assets.spec import ProductSpec
from mlops_assets.storage import Snapshot, SnapshotStore

_T = TypeVar("_T")


@dataclass(frozen=True)
class ProductContext:
    """A product with its snapshots and models.

    Attributes:
        product: which.
        store: its snapshots and logs.
        models: its registered models; None for steps that know none.
        view: what was read before, by `read_once`; None: each is looked up when it is asked for.
        recorded: by country what its aliases should name, as the decision log has it, where the
            registry cannot be asked; None: it is asked.
    """

    product: Product
    store: SnapshotStore
    models: Registry | None = None
    view: "ReadOnce | None" = None
    recorded: Mapping[str, Aliases] | None = None

    @property
    def name(self) -> str:
        """Of the product."""
        return self.product.name

    @property
    def spec(self) -> ProductSpec:
        """The product's, without what single countries override."""
        return self.product.spec

    @property
    def countries(self) -> list[str]:
        """The listed ones, in the order of the YAML."""
        return list(self.product.spec.countries)

    @property
    def registry(self) -> Registry:
        """Its registered models.

        Raises:
            RuntimeError: this context was made without them.
        """
        if self.models is None:
            raise RuntimeError(f"The context of {self.name} was made without a model registry.")
        return self.models

    def country(self, country: str) -> "CountryContext":
        """One of its countries.

        Raises:
            ConfigurationError: the product does not list it.
        """
        self.product.resolved(country)
        return CountryContext(self, country)

    def read_once(self, countries: Sequence[str] | None = None) -> "ProductContext":
        """The same as it is now for a look at many countries: nothing is asked for twice.

        Not for a step, which writes in between.

        Args:
            countries: that are looked at; default: every listed one.
        """
        wanted = self.countries if countries is None else list(countries)
        return replace(self, view=ReadOnce(self, wanted))

    def path(self, asset: str) -> tuple[str, str]:
        """An asset as the store knows it."""
        return (self.name, asset)

    def current(self, asset: str) -> Snapshot | None:
        """The current snapshot of an asset that is one thing of all countries."""
        if self.view is not None:
            return self.view.current(asset, None)
        return self.store.current(self.path(asset), None)

    def current_all(
        self, asset: str, countries: Sequence[str] | None = None
    ) -> dict[str, Snapshot]:
        """The current snapshots of an asset by country (default: every listed one), in one call.

        Countries without any are left out.
        """
        wanted = self.countries if countries is None else list(countries)
        return self.store.current_all(self.path(asset), wanted)

    def everywhere(self, asset: str) -> Mapping[str, Snapshot]:
        """The same of every listed country, however few are looked at."""
        return self.current_all(asset) if self.view is None else self.view.everywhere(asset)


@dataclass(frozen=True)
class CountryContext:
    """One country of a product.

    Attributes:
        whole: the product it is of.
        country: its key.
    """

    whole: ProductContext
    country: str

    @property
    def product(self) -> Product:
        """Which it is a country of."""
        return self.whole.product

    @property
    def store(self) -> SnapshotStore:
        """The snapshots and logs of the product."""
        return self.whole.store

    @property
    def registry(self) -> Registry:
        """The registered models of the product."""
        return self.whole.registry

    @property
    def spec(self) -> ProductSpec:
        """The spec as it holds in the country."""
        return self.product.resolved(self.country)

    @property
    def model_name(self) -> str:
        """Of the registered model."""
        return registered_name(self.product.name, self.country)

    def path(self, asset: str) -> tuple[str, str]:
        """An asset as the store knows it."""
        return self.whole.path(asset)

    def current(self, asset: str) -> Snapshot | None:
        """The current snapshot of one of its assets."""
        if self.whole.view is not None:
            return self.whole.view.current(asset, self.country)
        return self.store.current(self.path(asset), self.country)

    @property
    def has_nothing_to_predict(self) -> bool:
        """Whether its features were made and have no row: nothing follows from them.

        A state of its data and no fault: a country without a customer at any cut-off, say.
        """
        features = self.current("features")
        return features is not None and features.rows == 0

    def find(self, asset: str, content_hash: str) -> Snapshot | None:
        """The newest stored snapshot of one of its assets with this content; None if it is gone."""
        return self.store.find(self.path(asset), self.country, content_hash)

    def aliases(self) -> Aliases:
        """What the registry names now; by the records where it cannot be asked."""
        if self.whole.recorded is not None:
            return self.whole.recorded.get(self.country, Aliases())
        if self.whole.view is not None:
            return self.whole.view.aliases(self.country)
        return self.registry.aliases(self.model_name)

    def version(self, number: str) -> ModelVersion:
        """A registered version by its number.

        Raises:
            RegistryError: there is none.
        """
        return self.registry.version(self.model_name, number)

    def champion(self) -> ModelVersion | None:
        """The version in use; None where the baseline serves."""
        return self.registry.champion(self.product.name, self.country)


class ReadOnce:
    """Current snapshots and aliases of many countries, an asset in one call when first asked for.

    Args:
        ctx: the product.
        countries: that are looked at.
    """

    def __init__(self, ctx: ProductContext, countries: Sequence[str]) -> None:
        self.countries = countries
        self._ctx = ctx
        self._snapshots: dict[str, Mapping[str, Snapshot]] = {}
        self._everywhere: dict[str, Mapping[str, Snapshot]] = {}
        self._whole: dict[str, Snapshot | None] = {}
        self._aliases: Mapping[str, Aliases] | None = None
        self._made: dict[str, Any] = {}

    def current(self, asset: str, country: str | None) -> Snapshot | None:
        """Of a country, or (None) of an asset that is one thing of all of them."""
        if country is not None:
            return self.having(asset).get(country)
        if asset not in self._whole:
            self._whole[asset] = self._ctx.current(asset)
        return self._whole[asset]

    def having(self, asset: str) -> Mapping[str, Snapshot]:
        """The current snapshots of an asset, of the countries that have one."""
        if asset not in self._snapshots:
            self._snapshots[asset] = self._ctx.current_all(asset, self.countries)
        return self._snapshots[asset]

    def everywhere(self, asset: str) -> Mapping[str, Snapshot]:
        """The current snapshots of an asset, of every listed country that has one."""
        if set(self.countries) == set(self._ctx.countries):
            return self.having(asset)
        if asset not in self._everywhere:
            self._everywhere[asset] = self._ctx.current_all(asset)
        return self._everywhere[asset]

    def once(self, name: str, make: Callable[[], _T]) -> _T:
        """What is made of these snapshots, made when first asked for."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def aliases(self, country: str) -> Aliases:
        """What the registry names in a country; for many countries one query finds all."""
        if self._aliases is None:
            if len(self.countries) > 1:
                self._aliases = self._ctx.registry.aliases_of_all(self._ctx.name)
            else:
                self._aliases = {each: self._ctx.country(each).aliases() for each in self.countries}
        return self._aliases.get(country, Aliases())
