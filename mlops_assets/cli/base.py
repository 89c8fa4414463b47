"""What the commands share: the app, products and stores by the environment, and printing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    """A table that fits the terminal, or has a line a row where there is none; nothing is cut."""
    rows = frame.itertuples(index=False, name=None)
    print_rows(title, [str(name) for name in frame.columns], rows)


def print_rows(title: str, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """The same of rows of values.

    Args:
        title: above it; "" for none.
        names: of the columns.
        rows: in their order.
    """
    from rich.console import Console

    from mlops_assets.cli.output.tables import cell, table_lines

    if title:
        say(title)
    console = Console()
    shown = [[cell(value) for value in row] for row in rows]
    for line in table_lines(names, shown, console.width if console.is_terminal else None):
        say(line)


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
