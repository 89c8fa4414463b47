"""What the commands share: the app, products and stores by the environment, and printing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_assets.errors import ConfigurationError
from mlops_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from mlops_assets.product import Product
    from mlops_assets.stages.common.context import ProductContext
    from mlops_assets.storage import SnapshotStore

app = typer.Typer(
    help="Data and model products, one partition a country, on Dagster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def print_table(title: str, frame: Any) -> None:
    """A table as wide as the terminal, or wide enough where there is none."""
    from rich.console import Console
    from rich.table import Table

    if title:  # beside the table: a title wraps at the width of a narrow one
        say(title)
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for name in frame.columns:
        shown.add_column(str(name), overflow="fold", no_wrap=str(name) not in {"why", "reason"})
    for row in frame.itertuples(index=False):
        shown.add_row(*(str(value) for value in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=240)
    console.print(shown, markup=False)


def all_products() -> list[Product]:
    """Every declared product."""
    from mlops_assets.components.loading import load_products

    return load_products(load_settings().defs)


def product_named(name: str) -> Product:
    """One of them."""
    products = {product.name: product for product in all_products()}
    if name not in products:
        raise ConfigurationError(
            f"There is no product {name!r}; there are {', '.join(sorted(products)) or 'none'}.",
            stored="Nothing was run.",
            way_out=f"Make it with: mlops-assets new-product {name}",
        )
    return products[name]


def store_of(settings: Settings) -> SnapshotStore:
    """The snapshots."""
    from mlops_assets.storage import SnapshotStore

    return SnapshotStore(settings.storage)


def registry_of(settings: Settings) -> Any:
    """The models."""
    from mlops_assets.registry import Registry

    return Registry(settings.mlflow_uri, settings.mlflow_artifacts)


def context_of(product: Product, *, initialise: bool = False) -> ProductContext:
    """A product with its snapshots and models.

    Args:
        product: which.
        initialise: see to it that the registry answers; its database is made if it is not there.

    Raises:
        RegistryError: it does not.
    """
    from mlops_assets.stages.common.context import ProductContext

    settings = load_settings()
    registry = registry_of(settings)
    if initialise:
        registry.initialise()
    return ProductContext(product, store_of(settings), registry)


def say(text: str) -> None:
    """A line on standard output."""
    typer.echo(text)
