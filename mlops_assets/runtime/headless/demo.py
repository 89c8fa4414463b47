"""Data for the demonstration: real files where there are some, else each product's generator."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mlops_assets.atomic import replace_file
from mlops_assets.errors import SourceError
from mlops_assets.product import Product
from mlops_assets.settings import Settings
from mlops_assets.sources.files.reading import SourceFile, list_files, survey
from mlops_assets.sources.files.rules import Reading, missing_columns

SEED = 7


def deliver_demo_data(
    products: Sequence[Product], settings: Settings, data: Path | None
) -> dict[str, str]:
    """Put a delivery into each product's landing folder; product: what was delivered.

    Args:
        products: all that are declared.
        settings: where the landing folders are.
        data: folder with files as published; a file goes to the products whose columns it has.
            None: the products' own seeded generators.

    Raises:
        SourceError: the landing folder is not a local one, or `data` has nothing for any product.
    """
    folders = {product.name: _landing(product, settings) for product in products}
    if data is None:
        return {each.name: _generate(each, folders[each.name]) for each in products}
    files = list_files(str(data))
    delivered = {each.name: _copy(each, files, folders[each.name]) for each in products}
    if not any(delivered.values()):
        wanted = "; ".join(f"{p.name}: {', '.join(p.spec.source.all_published)}" for p in products)
        raise SourceError(
            f"No file in {data} has the columns of a product ({wanted}).",
            way_out="Check the folder, or the columns under `source` in the product's YAML.",
        )
    return {name: ", ".join(names) for name, names in delivered.items() if names}


def require_data_folder(data: Path | None) -> None:
    """Raise a SourceError where the data are to come from what is no folder."""
    if data is not None and not data.is_dir():
        raise SourceError(
            f"{data} is not a folder.", way_out="Give the folder that holds the published files."
        )


def _landing(product: Product, settings: Settings) -> Path:
    root = product.spec.source.uri or f"{settings.landing}/{product.name}"
    if "://" in root:
        raise SourceError(
            f"The files of {product.name} land in {root}, where the demonstration puts nothing.",
            way_out="Put the files there yourself and run: mlops-assets materialize "
            f"{product.name} --all",
        )
    return Path(root)


def _generate(product: Product, folder: Path) -> str:
    function = product.sample_function()
    if function is None:
        return "nothing: the product has no generator (`sample` in its YAML)"
    frame = function(SEED)
    target = folder / "sample.parquet"
    replace_file(str(target), lambda written: written.write(frame.to_parquet()))
    return f"{len(frame):,} generated rows (seed {SEED})"


def _copy(product: Product, files: Sequence[SourceFile], folder: Path) -> list[str]:
    """Copy the files that have the product's columns; their names."""
    source = product.spec.source
    how = Reading.of(source)
    fitting = [file for file in files if not missing_columns(survey(file, how).columns, source)]
    for file in fitting:
        target = folder / file.name
        with open(file.uri, "rb") as published:
            replace_file(str(target), partial(shutil.copyfileobj, published))
    return [file.name for file in fitting]
