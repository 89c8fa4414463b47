"""A new product's folder: a small one that loads and runs as it is, with comments that teach."""

import keyword
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import Literal

import dagster as dg

from mlops_assets.errors import ConfigurationError
from mlops_assets.spec import NAME

FILES = ("__init__.py", "defs.yaml", "contract.py", "features.py", "sample.py")
Kind = Literal["series", "snapshot"]
_TEMPLATES: Mapping[Kind, str] = {"series": "templates", "snapshot": "templates/snapshot"}


def new_product(name: str, into: Path, kind: Kind = "series") -> Path:
    """Write the folder of a new product.

    Args:
        name: of the product and its folder: lower-case letters, digits and `_`.
        into: the folder of all products, normally `mlops_assets/defs`.
        kind: series: a row a record, tomorrow's demand in three countries; snapshot: a row an
            entity at each cut-off of a calendar, customers who buy again in four countries.

    Returns:
        The new folder.

    Raises:
        ConfigurationError: the name cannot be a product's, or the folder exists with content.
    """
    _require_usable(name)
    folder = into / name
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(
            f"{folder} exists already.",
            way_out="Choose another name, or remove it first.",
            culprits={"folder": str(folder)},
        )
    folder.mkdir(parents=True, exist_ok=True)
    templates = resources.files("mlops_assets.components") / _TEMPLATES[kind]
    for file in FILES:
        template = Template((templates / f"{file}.txt").read_text(encoding="utf-8"))
        (folder / file).write_text(template.substitute(name=name), encoding="utf-8")
    return folder


def _require_usable(name: str) -> None:
    if NAME.fullmatch(name) and not keyword.iskeyword(name):
        return
    raise ConfigurationError(
        f"{name!r} cannot be the name of a product: it has to be lower-case letters, digits and "
        "_, start with a letter and be no word of Python.",
        way_out="Choose a name such as power_price.",
        culprits={"name": name},
    )


class ProductScaffolder(dg.Scaffolder):
    """`dg scaffold defs mlops_assets.components.ModelProduct NAME` makes the same folder."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        """Write the product's files.

        Raises:
            ConfigurationError: the name is none, the folder has content, or something other than
                a new `defs.yaml` was asked for.
        """
        target = request.target_path
        try:
            if request.scaffold_format != "yaml" or request.append:
                raise ConfigurationError(
                    "A product is a folder of its own with one defs.yaml.",
                    way_out="Leave out --format and give a new name.",
                    culprits={"format": request.scaffold_format},
                )
            new_product(target.name, target.parent)
        except ConfigurationError:
            _remove_if_empty(target)
            raise


def _remove_if_empty(folder: Path) -> None:
    """Dagster made the folder before it asked; a refused product leaves none behind."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
