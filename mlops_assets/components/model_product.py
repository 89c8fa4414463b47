"""The Dagster component: one `defs.yaml` a product."""

import copy
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import GetJsonSchemaHandler, RootModel
from pydantic_core import CoreSchema

from mlops_assets.components.loading import FILE, load_product
from mlops_assets.components.scaffold import ProductScaffolder
from mlops_assets.components.schema import attributes_schema
from mlops_assets.components.soundness import is_checked, require_sound
from mlops_assets.errors import ConfigurationError


class ProductAttributes(RootModel[Any]):
    """The attributes of a product to `dg`: its schema is strict, itself it takes anything.

    `dg check yaml` and editors use the schema. What Dagster's own reader makes of the file is not
    used, for it takes `NO` as false and the last of two equal keys; `load_product` reads it again.
    """

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler, /
    ) -> dict[str, Any]:
        """The schema of `ProductSpec`, whole and without references."""
        return copy.deepcopy(attributes_schema())


@dg.scaffold_with(ProductScaffolder)
class ModelProduct(dg.Component):
    """One prediction problem in many countries, described by a `defs.yaml`.

    The folder of the file is the product: its name is the product's name, and it holds the
    contract and the feature function that `attributes` names. Values are taken as they are
    written. Templates (`{{ ... }}`) are refused: what a product is must not depend on the
    environment it is loaded in, and a missing `{{ env.X }}` would silently become nothing. What
    differs between environments (storage, queues, secrets) belongs to resources, not to products.
    """

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """What `dg list components` and the UI say."""
        return dg.ComponentTypeSpec(
            description="One prediction problem in many countries: datasets, features, models, "
            "champions and predictions, each partitioned by country.",
            tags=["ml"],
            produces=["asset", "asset_check", "job", "schedule"],
        )

    @classmethod
    def get_model_cls(cls) -> type[ProductAttributes]:
        """The schema of `attributes`, for `dg check yaml` and editors."""
        return ProductAttributes

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The product's assets, checks, jobs and schedules.

        Raises:
            ConfigurationError: the file is wrong (see `load_product`), or another folder of the
                project has the same name.
        """
        from mlops_assets.stages.product import build_product

        product = load_product(context.path)
        require_sound(product, thorough=is_checked())
        _require_own_name(product.folder, context.defs_module_path.resolve())
        return build_product(product)


def _require_own_name(folder: Path, defs: Path) -> None:
    """Asset keys start with the product's name: two folders of one name would share them."""
    others = [file.parent for file in defs.rglob(f"{folder.name}/{FILE}") if file.parent != folder]
    if others:
        raise ConfigurationError(
            f"The product name {folder.name} is taken twice: by {folder} and {others[0]}.",
            stored="Nothing was loaded.",
            way_out="Rename one of the folders.",
            culprits={"name": folder.name, "folders": [str(folder), str(others[0])]},
        )
