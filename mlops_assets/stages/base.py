"""What the stages share: keys, policies, descriptions, and when a step has nothing to do."""

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.product import Product
from mlops_assets.storage import Snapshot, SnapshotStore

if TYPE_CHECKING:
    import pandas as pd

ONE_COUNTRY_A_RUN = dg.BackfillPolicy.multi_run(max_partitions_per_run=1)
"""A blocking check stops every partition of its run: isolation needs a run a country."""

FINGERPRINT = "mlops_assets/fingerprint"
INPUTS = "mlops_assets/inputs"
_PREVIEW_ROWS = 5


class Storage(dg.ConfigurableResource):
    """Where snapshots are kept and files land."""

    uri: str
    landing_uri: str

    def store(self) -> SnapshotStore:
        """The snapshots of all products."""
        return SnapshotStore(self.uri)

    def landing(self, product: Product) -> str:
        """Folder or prefix in which the files of a product are dropped."""
        return product.spec.source.uri or f"{self.landing_uri.rstrip('/')}/{product.name}"


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
    product: Product, name: str, group: str, kinds: set[str], description: str
) -> dg.AssetOut:
    """An asset of the product that a step may leave out when it must not replace what is there."""
    return dg.AssetOut(
        key=asset_key(product, name),
        is_required=False,
        **about(product, group, kinds, description),
    )


def gate(product: Product, asset: str, name: str, description: str) -> dg.AssetCheckSpec:
    """A blocking check of a country's partition."""
    with warnings.catch_warnings():
        # Partitioned checks are a preview; the pin on Dagster is what they were tried on.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(
            name,
            asset=asset_key(product, asset),
            blocking=True,
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


def about(product: Product, group: str, kinds: set[str], description: str) -> dict[str, Any]:
    """Group, kinds, owners and description of an asset, with the product's resolved config."""
    return {
        "group_name": group,
        "kinds": kinds,
        "owners": list(product.spec.owners),
        "description": description,
        "tags": {"product": product.name},
        "metadata": {
            "config": dg.MetadataValue.json(product.spec.model_dump(mode="json")),
            "config_hash": product.spec.config_hash(),
        },
    }


@dataclass(frozen=True)
class Lineage:
    """What one output was made from; its fingerprint says whether it has to be made again.

    Attributes:
        inputs: name of each input: its content hash or version.
        code: hash of the product's functions that were used.
        config: hash of the config sections that were used.
    """

    inputs: Mapping[str, str]
    code: str
    config: str

    @property
    def fingerprint(self) -> str:
        """16 hex digits over inputs, code and config."""
        content = json.dumps([dict(self.inputs), self.code, self.config], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def metadata(self) -> dict[str, Any]:
        """As the IO manager stores it with the snapshot."""
        return {FINGERPRINT: self.fingerprint, INPUTS: dg.MetadataValue.json(dict(self.inputs))}

    def already_made(self, snapshot: Snapshot | None) -> bool:
        """True when `snapshot` was made from exactly this."""
        return snapshot is not None and snapshot.metadata.get(FINGERPRINT) == self.fingerprint


def failed(
    key: dg.AssetKey, check: str, description: str, metadata: Mapping[str, Any] | None = None
) -> dg.AssetCheckResult:
    """A blocking failure."""
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=check,
        passed=False,
        severity=dg.AssetCheckSeverity.ERROR,
        description=description,
        metadata=dict(metadata or {}),
    )


def warned(
    key: dg.AssetKey,
    check: str,
    description: str,
    metadata: Mapping[str, Any] | None = None,
) -> dg.AssetCheckResult:
    """A failure a person should see, which blocks nothing."""
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=check,
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
        metadata=dict(metadata or {}),
    )


def passed(
    key: dg.AssetKey, check: str, description: str, metadata: Mapping[str, Any] | None = None
) -> dg.AssetCheckResult:
    """A check that holds."""
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=check,
        passed=True,
        description=description,
        metadata=dict(metadata or {}),
    )


def table(frame: "pd.DataFrame", rows: int | None = None) -> dg.MetadataValue:
    """A frame as a table in the UI, its first `rows` rows only when given."""
    shown = frame if rows is None else frame.head(rows)
    records = [
        dg.TableRecord({str(k): _cell(v) for k, v in row.items()})
        for row in shown.to_dict(orient="records")
    ]
    columns = [dg.TableColumn(str(name), type=str(kind)) for name, kind in shown.dtypes.items()]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns=columns))


def preview(frame: "pd.DataFrame") -> dict[str, Any]:
    """The last rows of a frame, which are the newest, for the asset's page."""
    return {"preview": table(frame.tail(_PREVIEW_ROWS))}


def svg(image: str, alt: str) -> dg.MetadataValue:
    """A small plot on the asset's page."""
    import base64

    encoded = base64.b64encode(image.encode()).decode()
    return dg.MetadataValue.md(f"![{alt}](data:image/svg+xml;base64,{encoded})")


def _cell(value: object) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return None if value != value else round(value, 6)
    return str(value)
