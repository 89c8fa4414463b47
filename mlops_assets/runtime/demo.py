"""Data for the demonstration: real files where there are some, else each product's generator."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from mlops_assets.errors import SourceError
from mlops_assets.product import Product
from mlops_assets.settings import Settings

SEED = 7


def deliver(products: Sequence[Product], settings: Settings, data: Path | None) -> dict[str, str]:
    """Put a delivery into each product's landing folder; product: what was delivered.

    Args:
        products: all that are declared.
        settings: where the landing folders are.
        data: folder with files as published; a file goes to the products whose columns it has.
            None: the products' own seeded generators.

    Raises:
        SourceError: `data` is no folder, or has nothing for any product.
    """
    if data is None:
        return {product.name: _generate(product, settings) for product in products}
    if not data.is_dir():
        raise SourceError(
            f"{data} is not a folder.", way_out="Give the folder that holds the published files."
        )
    delivered = {}
    for product in products:
        names = [file.name for file in sorted(data.iterdir()) if _copied(file, product, settings)]
        if names:
            delivered[product.name] = ", ".join(names)
    if not delivered:
        wanted = "; ".join(
            f"{p.name}: {', '.join(p.spec.source.columns.values())}" for p in products
        )
        raise SourceError(
            f"No file in {data} has the columns of a product ({wanted}).",
            way_out="Check the folder, or the columns under `source` in the product's YAML.",
        )
    return delivered


def landing(product: Product, settings: Settings) -> Path:
    """Local landing folder of a product."""
    return Path(settings.landing) / product.name


def _generate(product: Product, settings: Settings) -> str:
    function = product.sample_function()
    if function is None:
        return "nothing: the product has no generator (`sample` in its YAML)"
    folder = landing(product, settings)
    folder.mkdir(parents=True, exist_ok=True)
    frame = function(SEED)
    target = folder / "sample.parquet"
    temporary = target.with_suffix(".tmp")
    frame.to_parquet(temporary)
    temporary.replace(target)
    return f"{len(frame):,} generated rows (seed {SEED})"


def _copied(file: Path, product: Product, settings: Settings) -> bool:
    if not file.is_file() or not set(product.spec.source.columns.values()) <= _columns(file):
        return False
    folder = landing(product, settings)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{file.name}.tmp"
    shutil.copyfile(file, temporary)
    temporary.replace(folder / file.name)
    return True


def _columns(file: Path) -> set[str]:
    """Column names of a data file; none when it cannot be read as one."""
    import duckdb

    if not file.name.lower().endswith((".parquet", ".csv", ".csv.gz", ".jsonl", ".ndjson")):
        return set()
    try:
        with duckdb.connect() as connection:
            described = connection.execute("describe select * from query_table([?])", [str(file)])
            return {str(row[0]) for row in described.fetchall()}
    except duckdb.Error:
        return set()
