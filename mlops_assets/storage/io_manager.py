"""The one IO manager: what an asset returns becomes snapshots, what it asks for is read from them.

Left without `from __future__ import annotations`: Dagster reads the fields' types at run time.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args, get_origin

import dagster as dg
from pydantic import Field, PrivateAttr

from mlops_assets.errors import StorageError
from mlops_assets.storage.snapshots import Snapshot, SnapshotStore, WriteResult

if TYPE_CHECKING:
    import pyarrow as pa

METADATA_PREFIX = "mlops_assets/"
"""Output metadata under this prefix is stored in the snapshot too, under the same key."""

PARTITION_LABEL = "_partition"
"""Column that tells the partitions apart in one frame of many."""


@dataclass(frozen=True)
class Unchanged:
    """What an asset returns to say that its current snapshot still stands: nothing is written.

    Dagster takes no union as an annotation: annotate such an asset's output as `Any`.
    """

    snapshot: Snapshot


class SnapshotIOManager(dg.ConfigurableIOManager):
    """Stores outputs as snapshots and loads inputs from them, by their annotations.

    An output is a pandas frame, an Arrow table, `Unchanged`, or the `WriteResult` of a step that
    stored its snapshot itself; for several partitions a dict of
    these with exactly the run's partition keys, or one frame if the asset's metadata names its
    `partition_column`. An input is annotated as `pd.DataFrame`, `pa.Table` or `Snapshot` (which
    loads no rows), or a dict of one of them by partition key; one frame for several partitions
    gets a first column `_partition`. Input metadata: `columns` (a list) loads only these,
    `allow_missing_partitions` (true) leaves out partitions that were never stored.
    """

    uri: str = Field(description="folder or URL (`s3://bucket/prefix`) that holds the snapshots")
    storage_options: dict[str, Any] = Field(
        default={}, description="what fsspec hands to the object store's client, such as `key`"
    )
    _store: SnapshotStore | None = PrivateAttr(default=None)

    @property
    def store(self) -> SnapshotStore:
        """The store behind it, opened on first use."""
        if self._store is None:
            self._store = SnapshotStore(self.uri, storage_options=self.storage_options)
        return self._store

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Write one asset's output, all of it checked before the first byte is written.

        Raises:
            StorageError: not a frame, keys other than the run's partitions, or a failed write.
        """
        asset = tuple(context.asset_key.path)
        keys: list[str | None] = [None]
        if context.has_asset_partitions:
            keys = list(context.asset_partition_keys)
        parts = {key: _storable(part) for key, part in _split(context, obj, keys).items()}
        results = {key: self._write(context, asset, key, parts[key]) for key in keys}
        _report(context, results)

    def _write(
        self,
        context: dg.OutputContext,
        asset: tuple[str, ...],
        partition: str | None,
        part: "pa.Table | Unchanged | WriteResult",
    ) -> WriteResult:
        if isinstance(part, Unchanged | WriteResult):
            if (part.snapshot.asset, part.snapshot.partition) != (asset, partition):
                raise _not_its_own(part.snapshot, asset, partition)
            written = isinstance(part, WriteResult) and part.changed
            return WriteResult(part.snapshot, changed=written)
        metadata = _recorded(context, partition)
        return self.store.write(
            asset, partition, part, run_id=context.run_id, metadata=metadata or None
        )

    def load_input(self, context: dg.InputContext) -> Any:
        """Load one asset's current snapshots in the form the annotation asks for.

        Raises:
            StorageError: a partition was never stored, or an annotation this cannot load.
        """
        asset = tuple(context.asset_key.path)
        wanted, as_dict = _asked(context)
        metadata = context.definition_metadata
        columns = metadata.get("columns")
        if not context.has_asset_partitions:
            return self._load_one(wanted, asset, None, columns)
        keys = list(context.asset_partition_keys)
        if len(keys) == 1 and context.has_partition_key and not as_dict:
            return self._load_one(wanted, asset, keys[0], columns)
        return self._load_many(
            wanted,
            asset,
            keys,
            columns,
            as_dict=as_dict,
            allow_missing=bool(metadata.get("allow_missing_partitions")),
        )

    def _load_one(
        self, wanted: str, asset: Sequence[str], key: str | None, columns: Sequence[str] | None
    ) -> Any:
        if wanted == "Snapshot":
            snapshot = self.store.current(asset, key)
            if snapshot is None:
                raise _never_stored(asset, [key])
            return snapshot
        read = self.store.read if wanted == "DataFrame" else self.store.read_table
        return read(asset, key, columns=columns)

    def _load_many(
        self,
        wanted: str,
        asset: Sequence[str],
        keys: Sequence[str],
        columns: Sequence[str] | None,
        *,
        as_dict: bool,
        allow_missing: bool,
    ) -> Any:
        from mlops_assets.storage.frames import stack, to_frame

        found: Mapping[str, Any]
        if wanted == "Snapshot":
            found = self.store.current_all(asset, keys)
        elif wanted == "DataFrame" and as_dict:
            found = self.store.read_all(asset, keys, columns=columns)
        else:
            found = self.store.read_all_tables(asset, keys, columns=columns)
        if (missing := [key for key in keys if key not in found]) and not allow_missing:
            raise _never_stored(asset, missing)
        if as_dict:
            return dict(found)
        table = stack(list(found.items()), PARTITION_LABEL)
        return to_frame(table) if wanted == "DataFrame" else table


def _split(
    context: dg.OutputContext, obj: object, keys: Sequence[str | None]
) -> Mapping[str | None, Any]:
    """The output as one part per partition."""
    if isinstance(obj, Mapping):
        return _checked_keys(context, obj, keys)
    if len(keys) == 1:
        return {keys[0]: obj}
    column = context.definition_metadata.get("partition_column")
    if not isinstance(column, str):
        raise StorageError(
            f"{context.asset_key.to_user_string()} returned one {type(obj).__name__} for "
            f"{len(keys)} partitions.",
            way_out="Return a dict of frames by partition key, or name the column that holds the "
            "key in the asset's metadata `partition_column`.",
            culprits={"partitions": list(keys)},
        )
    return _split_by(context, _storable(obj), column, keys)


def _checked_keys(
    context: dg.OutputContext, parts: Mapping[Any, Any], keys: Sequence[str | None]
) -> Mapping[str | None, Any]:
    unknown = [key for key in parts if key not in keys]
    absent = [key for key in keys if key not in parts]
    if unknown or absent:
        raise StorageError(
            f"{context.asset_key.to_user_string()} returned other partitions than the run is for: "
            f"unknown {unknown}, missing {absent}.",
            way_out="Return exactly the run's partitions; for one without news an empty frame or "
            "`Unchanged(snapshot)`. Dagster would mark a missing one as made.",
            culprits={"unknown": unknown, "missing": absent},
        )
    return parts


def _split_by(
    context: dg.OutputContext, whole: Any, column: str, keys: Sequence[str | None]
) -> Mapping[str | None, Any]:
    """Slices of one table, all with its schema, those without rows too."""
    import pyarrow as pa
    import pyarrow.compute as pc

    name = context.asset_key.to_user_string()
    if isinstance(whole, Unchanged) or column not in whole.column_names:
        raise StorageError(
            f"{name} returned no table with the column {column!r}, by which it is to be split.",
            way_out="Return that column, or a dict of frames by partition key.",
        )
    values = whole[column].cast(pa.string())
    if foreign := sorted({str(key) for key in values.unique().to_pylist() if key not in keys}):
        raise StorageError(
            f"{name} returned rows of {foreign} in {column!r}, which this run is not for.",
            way_out="Leave these rows out, or add these partitions to the run.",
            culprits={"partitions": foreign},
        )
    slices = {
        key: whole.filter(pc.call_function("equal", [values, pa.scalar(key)])) for key in keys
    }
    # A filter that keeps nothing forgets the categories; an empty slice does not.
    return {key: rows if len(rows) else whole.slice(0, 0) for key, rows in slices.items()}


def _storable(part: object) -> "pa.Table | Unchanged | WriteResult":
    from mlops_assets.storage.frames import to_table

    return part if isinstance(part, Unchanged | WriteResult) else to_table(part)  # pyright: ignore[reportArgumentType] (checked there)


def _recorded(context: dg.OutputContext, partition: str | None) -> dict[str, Any]:
    """The metadata the asset gave for this output and, in a run over many, for this partition."""
    given = dict(context.output_metadata)
    if partition is not None:
        given |= context.step_context.get_asset_metadata(context.asset_key, partition) or {}
    return {
        key: value.value if isinstance(value, dg.MetadataValue) else value
        for key, value in given.items()
        if key.startswith(METADATA_PREFIX)
    }


def _report(context: dg.OutputContext, results: Mapping[str | None, WriteResult]) -> None:
    """Tell Dagster what is stored now: metadata by partition and the data version.

    A run over several partitions has one data version for all of them (Dagster has no other
    place), made from all their hashes; each partition's own hash is in its metadata.
    """
    hashes = [result.snapshot.content_hash for result in results.values()]
    version = hashes[0]
    if len(results) == 1:
        context.add_output_metadata(_shown(next(iter(results.values()))))
    else:
        version = hashlib.sha256("".join(hashes).encode()).hexdigest()[:32]
        for key, result in results.items():
            context.step_context.add_asset_metadata(
                _shown(result), asset_key=context.asset_key, partition_key=key
            )
    context.step_context.set_data_version(context.asset_key, dg.DataVersion(version))


def _shown(result: WriteResult) -> dict[str, Any]:
    snapshot = result.snapshot
    rows = "dagster/row_count" if snapshot.partition is None else "dagster/partition_row_count"
    return {
        rows: snapshot.rows,
        "dagster/uri": snapshot.uri,
        f"{METADATA_PREFIX}version": snapshot.version,
        f"{METADATA_PREFIX}content_hash": snapshot.content_hash,
        f"{METADATA_PREFIX}size_bytes": snapshot.size_bytes,
        f"{METADATA_PREFIX}changed": result.changed,
    }


def _asked(context: dg.InputContext) -> tuple[str, bool]:
    """What an input's annotation asks for: the kind of one part, and whether in a dict."""
    annotation = context.dagster_type.typing_type
    as_dict = get_origin(annotation) in (dict, Mapping)
    part = get_args(annotation)[1] if as_dict else annotation
    name = "DataFrame" if part is Any else getattr(part, "__name__", str(part))
    if name not in {"DataFrame", "Table", "Snapshot"}:
        raise StorageError(
            f"{context.asset_key.to_user_string()} cannot be loaded as {annotation}.",
            stored="Nothing was read.",
            way_out="Annotate the input as pd.DataFrame, pa.Table, Snapshot, or a dict of these.",
        )
    return name, as_dict


def _never_stored(asset: Sequence[str], partitions: Sequence[str | None]) -> StorageError:
    name = "/".join(asset)
    which = "" if partitions == [None] else f" for {list(partitions)}"
    return StorageError(
        f"There is no snapshot of {name}{which}.",
        stored="Nothing was read.",
        way_out=f"Materialize {name}{which} first"
        + ("." if not which else ", or set the input's metadata `allow_missing_partitions`."),
        culprits={"asset": tuple(asset), "partitions": list(partitions)},
    )


def _not_its_own(snapshot: Snapshot, asset: Sequence[str], partition: str | None) -> StorageError:
    return StorageError(
        f"{'/'.join(asset)} ({partition}) returned Unchanged with a snapshot of "
        f"{'/'.join(snapshot.asset)} ({snapshot.partition}).",
        way_out="Return the current snapshot of the very same asset and partition.",
        culprits={"asset": tuple(asset), "partition": partition},
    )
