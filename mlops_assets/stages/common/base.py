"""What the stages share: keys, policies, descriptions, and when a step has nothing to do."""

import datetime as dt
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import dagster as dg

from mlops_assets.product import Product
from mlops_assets.registry import Registry
from mlops_assets.stages.common.code_versions import RECIPES
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.common.locks import alone
from mlops_assets.storage import SnapshotStore

if TYPE_CHECKING:
    import pandas as pd

AssetJob: TypeAlias = Any
"""What `dg.define_asset_job` makes; Dagster exports no name for its type."""
ONE_COUNTRY_A_RUN = None
"""Backfill policy: Dagster's own, which is a run a partition.

A blocking check stops every partition of its run: isolation needs a run a country. With
`multi_run(max_partitions_per_run=1)` each run would be tagged as a range of one country, and
Dagster stores the results of checks in a range run without their partition.
"""


NO_ROWS = "not judged: the features of the country have no row, so that nothing is made of them"
"""What checks say of a country that has nothing to predict."""
EVIDENCE = "evidence"
"""Name of the snapshots that hold what decisions were made from; no asset."""


class Storage(dg.ConfigurableResource):
    """Where snapshots are kept and files land."""

    uri: str
    landing_uri: str
    as_of: str | None = None
    """Moment (ISO 8601, UTC) whose knowledge everything is made from; None: now."""
    origin_uri: str | None = None
    """Root of the snapshots that moment is looked up in."""
    locks: str | None = None
    """Folder of the locks that keep runs of the same country apart; None: nothing does."""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["Storage"]:
        """For the length of a run, alone on what the run is of."""
        with alone(self.locks, context):
            yield self

    @property
    def moment(self) -> dt.datetime | None:
        """`as_of` as a time."""
        return dt.datetime.fromisoformat(self.as_of) if self.as_of else None

    def origin(self) -> SnapshotStore:
        """The snapshots an as-of run takes its raw rows from."""
        return SnapshotStore(self.origin_uri or self.uri)

    def store(self) -> SnapshotStore:
        """The snapshots of all products."""
        return SnapshotStore(self.uri)

    def product(self, product: Product, models: Registry | None = None) -> ProductContext:
        """A product with its snapshots, and with its models where a step knows them."""
        return ProductContext(product, self.store(), models)

    def landing(self, product: Product) -> str:
        """Folder or prefix in which the files of a product are dropped."""
        return product.spec.source.uri or f"{self.landing_uri.rstrip('/')}/{product.name}"


def naive(moment: dt.datetime) -> "pd.Timestamp":
    """A moment as frames hold times: UTC, without a zone."""
    import pandas as pd

    return pd.Timestamp(moment).tz_convert("UTC").tz_localize(None)


def asset_key(product: Product, name: str) -> dg.AssetKey:
    """`[product, name]`."""
    return dg.AssetKey([product.name, name])


def path(product: Product, name: str) -> tuple[str, str]:
    """The same as the store knows it."""
    return (product.name, name)


def partitions(product: Product) -> dg.StaticPartitionsDefinition:
    """One partition a listed country."""
    return dg.StaticPartitionsDefinition(list(product.spec.countries))


def output(
    product: Product,
    name: str,
    group: str,
    kinds: set[str],
    *,
    description: str,
    columns: dg.TableSchema | None = None,
) -> dg.AssetOut:
    """An asset of the product that a step may leave out when it must not replace what is there."""
    return dg.AssetOut(
        key=asset_key(product, name),
        is_required=False,
        code_version=RECIPES[name].code_version(product),
        **about(product, group, kinds, description, columns=columns),
    )


def gate(product: Product, asset: str, name: str, description: str) -> dg.AssetCheckSpec:
    """A blocking check of a country's partition."""
    return country_check(product, asset, name, description, blocking=True)


def country_check(
    product: Product, asset: str, name: str, description: str, *, blocking: bool = False
) -> dg.AssetCheckSpec:
    """A check of a country's partition."""
    with warnings.catch_warnings():
        # Partitioned checks are a preview; the pin on Dagster is what they were tried on.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(
            name,
            asset=asset_key(product, asset),
            blocking=blocking,
            partitions_def=partitions(product),
            description=description,
        )


def country_step(product: Product, name: str) -> dict[str, Any]:
    """Name and policies of a step that makes assets of one country in a run."""
    return {
        "name": f"{product.name}__{name}",
        "partitions_def": partitions(product),
        "backfill_policy": ONE_COUNTRY_A_RUN,
    }


def about(
    product: Product,
    group: str,
    kinds: set[str],
    description: str,
    *,
    columns: dg.TableSchema | None = None,
) -> dict[str, Any]:
    """Group, kinds, owners, columns and description of an asset, with the product's config."""
    return {
        "group_name": group,
        "kinds": kinds,
        "owners": list(product.spec.owners),
        "description": f"{description}\n\n*{product.name}*: {product.spec.description}",
        "tags": {"product": product.name},
        "metadata": {
            "config": dg.MetadataValue.json(product.spec.model_dump(mode="json")),
            "config_hash": product.spec.config_hash(),
            **({"dagster/column_schema": columns} if columns else {}),
        },
    }


def failed(
    key: dg.AssetKey, check: str, description: str, metadata: Mapping[str, Any] | None = None
) -> dg.AssetCheckResult:
    """A blocking failure."""
    return _result(key, check, dg.AssetCheckSeverity.ERROR, description, metadata=metadata)


def warned(
    key: dg.AssetKey, check: str, description: str, metadata: Mapping[str, Any] | None = None
) -> dg.AssetCheckResult:
    """A failure a person should see, which blocks nothing."""
    return _result(key, check, dg.AssetCheckSeverity.WARN, description, metadata=metadata)


def passed(
    key: dg.AssetKey, check: str, description: str, metadata: Mapping[str, Any] | None = None
) -> dg.AssetCheckResult:
    """A check that holds."""
    return _result(key, check, None, description, metadata=metadata)


def _result(
    key: dg.AssetKey,
    check: str,
    severity: dg.AssetCheckSeverity | None,
    description: str,
    *,
    metadata: Mapping[str, Any] | None,
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=check,
        passed=severity is None,
        severity=severity or dg.AssetCheckSeverity.ERROR,
        description=description,
        metadata=dict(metadata or {}),
    )
