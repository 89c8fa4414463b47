"""Immutable versions of one partition each, and the small pointer that names the current one.

    <root>/<asset parts>/country=<key>/<version>.parquet     the versions, never changed
    <root>/<asset parts>/country=<key>/_current.json         which of them is current
    <root>/<asset parts>/log.d/country=<key>/<id>.parquet    append-only entries

An asset without partitions has its files directly in its folder. A reader opens the pointer and
then a file that nobody ever changes, so it sees one version, whole, whoever writes meanwhile. Of
two writers of one partition the last pointer wins; no lock is taken and nothing is retried.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from mlops_assets.errors import StorageError
from mlops_assets.storage.files import Files, ObjectFiles, open_files
from mlops_assets.storage.keys import decode_key, encode_key

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from mlops_assets.storage.frames import Stored

Path = tuple[str, ...]
"""An asset key: one or more parts, each any non-empty text."""

POINTER = "_current.json"
PARTITION_PREFIX = "country="
LOG_FOLDER = "log.d"

_SUFFIX = ".parquet"
_VERSION = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{12}")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Snapshot:
    """One version of one partition of one asset, as its pointer describes it."""

    asset: Path
    partition: str | None
    """None for an asset without partitions."""
    version: str
    """UTC time of writing and the first digits of the hash; later versions sort later."""
    content_hash: str
    """32 hex digits; equal content, names and types give an equal hash."""
    created_at: datetime
    """UTC."""
    run_id: str
    rows: int
    size_bytes: int
    """Of the Parquet file."""
    uri: str
    """Absolute path or URL of the Parquet file."""
    previous: str | None
    """The version that was current before; None for the first."""
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What the writer recorded; JSON."""


@dataclass(frozen=True)
class WriteResult:
    """What is current after a write, and whether the write made a new version of it."""

    snapshot: Snapshot
    changed: bool


@dataclass(frozen=True)
class LogFile:
    """One entry of an append-only log."""

    partition: str | None
    id: str
    uri: str


class SnapshotStore:
    """Snapshots and logs under one root.

    Args:
        uri: a folder, or a URL such as `s3://bucket/prefix`; it need not exist yet.
        storage_options: what fsspec hands to the store's client (keys, endpoint).
    """

    def __init__(self, uri: str, *, storage_options: Mapping[str, Any] | None = None) -> None:
        self.uri = uri
        self._files: Files = open_files(uri, storage_options)

    @property
    def filesystem(self) -> Any:
        """The fsspec file system of an object store; None for a local folder."""
        return self._files.filesystem if isinstance(self._files, ObjectFiles) else None

    # Snapshots

    def write(
        self,
        asset: Sequence[str],
        partition: str | None,
        data: pd.DataFrame | pa.Table,
        *,
        run_id: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> WriteResult:
        """Make `data` the current version of a partition.

        Content equal to the current version is not stored again: only its metadata is replaced,
        and only if other metadata is given. A stored file that is no longer whole counts as
        different, so writing again repairs it.

        Args:
            asset: the asset key.
            partition: its partition key; None for an asset without partitions.
            data: n rows x m columns; n may be 0.
            run_id: who writes.
            metadata: JSON to keep with the snapshot; None keeps what there is.

        Raises:
            StorageError: data that Parquet cannot hold, or a store that cannot take it; the last
                version stays current and whole.
        """
        from mlops_assets.storage.frames import to_table
        from mlops_assets.storage.hashing import content_hash

        recorded = None if metadata is None else _as_json(metadata)
        folder = _folder(asset, partition)
        table = to_table(data)
        digest = content_hash(table)
        now = self.current(asset, partition)
        with _writing(asset, partition, kept=now is not None):
            if now is not None and now.content_hash == digest and self._is_whole(now):
                return WriteResult(self._annotated(folder, now, recorded), changed=False)
            snapshot = _next(
                now, tuple(asset), partition, digest, run_id, recorded or {}, len(table)
            )
            return WriteResult(self._publish(folder, snapshot, now, table), changed=True)

    def _publish(
        self, folder: str, snapshot: Snapshot, before: Snapshot | None, table: pa.Table
    ) -> Snapshot:
        from mlops_assets.storage.frames import write_parquet

        # The footer keeps the record of the version it replaces: the pointer, which had it, is
        # about to be overwritten.
        record = {
            "snapshot": _record(snapshot),
            "previous": None if before is None else _record(before),
        }
        path = f"{folder}/{snapshot.version}{_SUFFIX}"
        size = self._files.publish(
            path,
            lambda sink: write_parquet(table, sink, record),
            f"{folder}/{POINTER}",
            lambda size: _dumped(replace(snapshot, size_bytes=size)),
        )
        return replace(snapshot, size_bytes=size, uri=self._files.uri(path))

    def _annotated(
        self, folder: str, snapshot: Snapshot, metadata: Mapping[str, Any] | None
    ) -> Snapshot:
        if metadata is None or metadata == snapshot.metadata:
            return snapshot
        changed = replace(snapshot, metadata=metadata)
        self._files.replace(f"{folder}/{POINTER}", _dumped(changed))
        return changed

    def _is_whole(self, snapshot: Snapshot) -> bool:
        from mlops_assets.storage.hashing import content_hash

        try:
            table = self._stored(snapshot, None).table
        except StorageError:
            return False
        return content_hash(table) == snapshot.content_hash

    def current(self, asset: Sequence[str], partition: str | None) -> Snapshot | None:
        """The current version of a partition, without its rows; None if there is none.

        Raises:
            StorageError: the pointer is damaged or the store cannot be reached.
        """
        folder = _folder(asset, partition)
        path = f"{folder}/{POINTER}"
        content = self._reaching(path, lambda: self._files.read(path))
        return None if content is None else self._pointed(folder, content, tuple(asset), partition)

    def current_all(
        self, asset: Sequence[str], partitions: Sequence[str] | None = None
    ) -> dict[str, Snapshot]:
        """The current version of many partitions, those that have none left out.

        Args:
            asset: the asset key.
            partitions: which, in this order; None for all there are, sorted.
        """
        root = _folder(asset, None)
        keys = self._partitions(root) if partitions is None else list(partitions)
        paths = {f"{_folder(asset, key)}/{POINTER}": key for key in keys}
        contents = self._reaching(root, lambda: self._files.read_many(paths))
        return {
            key: self._pointed(_folder(asset, key), contents[path], tuple(asset), key)
            for path, key in paths.items()
            if path in contents
        }

    def _partitions(self, folder: str) -> list[str]:
        folders, _ = self._reaching(folder, lambda: self._files.entries(folder))
        encoded = (
            n.removeprefix(PARTITION_PREFIX) for n in folders if n.startswith(PARTITION_PREFIX)
        )
        return sorted(decode_key(name) for name in encoded)

    def _pointed(self, folder: str, content: bytes, asset: Path, partition: str | None) -> Snapshot:
        path = f"{folder}/{POINTER}"
        try:
            snapshot = self._snapshot(folder, json.loads(content))
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(self._files.uri(path), asset, partition, error) from error
        if (snapshot.asset, snapshot.partition) != (asset, partition):
            raise StorageError(
                f"{self._files.uri(path)} belongs to {_name(snapshot.asset, snapshot.partition)}, "
                f"not to {_name(asset, partition)}: the file system does not tell capital from "
                "small letters.",
                way_out="Rename one of the two keys, or store on a file system that does.",
                culprits={"asset": asset, "partition": partition},
            )
        return snapshot

    def _snapshot(self, folder: str, record: Mapping[str, Any]) -> Snapshot:
        """A record as written; the address is where it lies now, so that roots can be moved."""
        values = {name: record[name] for name in _RECORDED}
        values["asset"] = tuple(record["asset"])
        values["created_at"] = datetime.fromisoformat(record["created_at"])
        return Snapshot(**values, uri=self._files.uri(f"{folder}/{record['version']}{_SUFFIX}"))

    def read(
        self,
        asset: Sequence[str],
        partition: str | None,
        *,
        columns: Sequence[str] | None = None,
        version: str | None = None,
    ) -> pd.DataFrame:
        """One version of a partition as the frame that was written.

        Args:
            asset: the asset key.
            partition: its partition key; None for an asset without partitions.
            columns: only these, in this order; None for all.
            version: which; None for the current one.

        Raises:
            StorageError: no such snapshot or column, or a file that is damaged.
        """
        from mlops_assets.storage.frames import to_frame

        return to_frame(self.read_table(asset, partition, columns=columns, version=version))

    def read_table(
        self,
        asset: Sequence[str],
        partition: str | None,
        *,
        columns: Sequence[str] | None = None,
        version: str | None = None,
    ) -> pa.Table:
        """Like `read`, as an Arrow table."""
        snapshot = self.current(asset, partition) if version is None else None
        if version is not None and _VERSION.fullmatch(version):
            snapshot = self._bare(asset, partition, version)
        if snapshot is None:
            raise _missing(asset, partition, version)
        return self._stored(snapshot, columns).table

    def _bare(self, asset: Sequence[str], partition: str | None, version: str) -> Snapshot | None:
        """Enough of a snapshot to read its file; None if there is no such file."""
        folder = _folder(asset, partition)
        _, names = self._reaching(folder, lambda: self._files.entries(folder))
        if f"{version}{_SUFFIX}" not in names:
            return None
        uri = self._files.uri(f"{folder}/{version}{_SUFFIX}")
        never = datetime.fromtimestamp(0, UTC)
        return Snapshot(tuple(asset), partition, version, "", never, "", 0, 0, uri, None)

    def read_all(
        self,
        asset: Sequence[str],
        partitions: Sequence[str] | None = None,
        *,
        columns: Sequence[str] | None = None,
    ) -> dict[str, pd.DataFrame]:
        """The current frames of many partitions by key, those that have none left out."""
        from mlops_assets.storage.frames import to_frame

        tables = self.read_all_tables(asset, partitions, columns=columns)
        return {key: to_frame(table) for key, table in tables.items()}

    def read_all_tables(
        self,
        asset: Sequence[str],
        partitions: Sequence[str] | None = None,
        *,
        columns: Sequence[str] | None = None,
    ) -> dict[str, pa.Table]:
        """Like `read_all`, as Arrow tables."""
        snapshots = self.current_all(asset, partitions)
        paths = {_path(snapshot): key for key, snapshot in snapshots.items()}
        opened = self._files.open_many(paths)
        tables: dict[str, pa.Table] = {}
        while (
            found := self._reaching(_folder(asset, None), lambda: next(opened, None))
        ) is not None:
            path, source = found
            snapshot = snapshots[paths[path]]
            tables[paths[path]] = self._decoded(snapshot, source, columns).table
        for key in snapshots.keys() - tables.keys():
            raise _missing_file(snapshots[key])
        return {key: tables[key] for key in snapshots}

    def _stored(self, snapshot: Snapshot, columns: Sequence[str] | None) -> Stored:
        path = _path(snapshot)
        try:
            source = self._reaching(path, lambda: self._files.open_parquet(path))
        except FileNotFoundError as error:
            raise _missing_file(snapshot) from error
        return self._decoded(snapshot, source, columns)

    def _decoded(self, snapshot: Snapshot, source: Any, columns: Sequence[str] | None) -> Stored:
        from mlops_assets.storage.frames import read_parquet

        name = _name(snapshot.asset, snapshot.partition)
        with _reading_file(snapshot.uri, snapshot.asset, snapshot.partition, name):
            return read_parquet(source, columns)

    def history(self, asset: Sequence[str], partition: str | None) -> list[Snapshot]:
        """Every version that was current, newest first, each with its last metadata.

        The list ends where a retention rule removed the file.

        Raises:
            StorageError: a file on the way is damaged.
        """
        versions: list[Snapshot] = []
        folder = _folder(asset, partition)
        _, names = self._reaching(folder, lambda: self._files.entries(folder))
        snapshot = self.current(asset, partition)
        while snapshot is not None and f"{snapshot.version}{_SUFFIX}" in names:
            versions.append(snapshot)
            snapshot = self._before(folder, snapshot) if snapshot.previous else None
        return versions

    def _before(self, folder: str, snapshot: Snapshot) -> Snapshot:
        from mlops_assets.storage.frames import read_record

        path = _path(snapshot)
        source = self._reaching(path, lambda: self._files.open_parquet(path))
        name = _name(snapshot.asset, snapshot.partition)
        with _reading_file(snapshot.uri, snapshot.asset, snapshot.partition, name):
            return self._snapshot(folder, read_record(source)["previous"])

    # Logs

    def append(
        self,
        asset: Sequence[str],
        partition: str | None,
        data: pd.DataFrame | pa.Table,
        *,
        name: str | None = None,
    ) -> str:
        """Add rows to an asset's log, as one file that nobody changes or replaces.

        Any number of writers may append at once. The index of a frame is not kept.

        Args:
            asset: the asset key.
            partition: its partition key; None for rows of no partition.
            data: the rows.
            name: an id of the caller's that must be new, so that nothing is taken twice; by
                default one is made from the time and chance.

        Returns:
            The id of the entry.

        Raises:
            StorageError: the name is taken, or the entry could not be stored.
        """
        from mlops_assets.storage.frames import to_table, write_parquet

        written = time.time_ns()
        entry = f"{_stamp(datetime.now(UTC))}-{uuid.uuid4().hex[:12]}" if name is None else name
        path = f"{_log_folder(asset, partition)}/{encode_key(entry)}{_SUFFIX}"
        table = to_table(data, keep_index=False)
        record = {"entry": entry, "written_ns": written}
        try:
            with _writing(asset, partition, kept=True):
                self._files.create(path, lambda sink: write_parquet(table, sink, record))
        except FileExistsError as error:
            raise StorageError(
                f"The log of {_name(asset, partition)} already has an entry {entry!r}; entries are "
                "never replaced.",
                way_out="Append under another name, or skip what is already there.",
                culprits={"asset": tuple(asset), "partition": partition, "name": entry},
            ) from error
        return entry

    def log_files(self, asset: Sequence[str], partition: str | None = None) -> list[LogFile]:
        """The entries of an asset's log: of one partition, or (None) all, by partition and id."""
        root = _log_folder(asset, None)
        keys: list[str | None] = [partition]
        if partition is None:
            keys += self._partitions(root)
        return [entry for key in keys for entry in self._log_files(asset, key)]

    def _log_files(self, asset: Sequence[str], partition: str | None) -> Iterator[LogFile]:
        folder = _log_folder(asset, partition)
        _, names = self._reaching(folder, lambda: self._files.entries(folder))
        for name in names:
            if name.endswith(_SUFFIX):
                entry = decode_key(name.removesuffix(_SUFFIX))
                yield LogFile(partition, entry, self._files.uri(f"{folder}/{name}"))

    def read_log(self, asset: Sequence[str], partition: str | None = None) -> pd.DataFrame:
        """All rows of a log, oldest entry first.

        Args:
            asset: the asset key.
            partition: which; None for the entries of all partitions and of none.

        Returns:
            The rows of all entries under each other; a frame of 0 rows x 0 columns if none.
        """
        from mlops_assets.storage.frames import stack, to_frame

        entries = {
            f"{_log_folder(asset, e.partition)}/{encode_key(e.id)}{_SUFFIX}": e
            for e in self.log_files(asset, partition)
        }
        opened = self._files.open_many(entries)
        found: list[tuple[int, str, pa.Table]] = []
        while (
            one := self._reaching(_log_folder(asset, None), lambda: next(opened, None))
        ) is not None:
            entry, stored = entries[one[0]], self._read_entry(asset, entries[one[0]], one[1])
            found.append((int(stored.record["written_ns"]), entry.id, stored.table))
        found.sort(key=lambda item: item[:2])
        return to_frame(stack([(name, table) for _, name, table in found]))

    def _read_entry(self, asset: Sequence[str], entry: LogFile, source: Any) -> Stored:
        from mlops_assets.storage.frames import read_parquet

        name = f"the log of {_name(asset, entry.partition)}"
        with _reading_file(entry.uri, asset, entry.partition, name):
            return read_parquet(source)

    # Everything

    def assets(self) -> list[Path]:
        """The keys of all assets that have a current snapshot or a log entry, sorted."""
        return sorted(self._assets(()))

    def _assets(self, above: Path) -> Iterator[Path]:
        folder = "/".join(encode_key(part) for part in above)
        folders, files = self._reaching(folder, lambda: self._files.entries(folder))
        if above and (POINTER in files or self._holds_anything(above, folders)):
            yield above
        for name in folders:
            if (part := _part(name)) is not None:
                yield from self._assets((*above, part))

    def _holds_anything(self, asset: Path, folders: Sequence[str]) -> bool:
        if LOG_FOLDER in folders and self.log_files(asset):
            return True
        partitions = (name for name in folders if name.startswith(PARTITION_PREFIX))
        folder = _folder(asset, None)
        return any(POINTER in self._files.entries(f"{folder}/{name}")[1] for name in partitions)

    def _reaching(self, path: str, call: Callable[[], _Result]) -> _Result:
        """Call the store; FileNotFoundError passes, other failures say what was being reached."""
        try:
            return call()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(
                f"{self._files.uri(path)} cannot be read: {error}.",
                stored="Nothing was read.",
                way_out="Check that the storage is reachable and readable, then run again.",
                culprits={"uri": self._files.uri(path)},
            ) from error


_RECORDED = (
    "asset", "partition", "version", "content_hash", "created_at", "run_id", "rows",
    "size_bytes", "previous", "metadata",
)  # fmt: skip


def _record(snapshot: Snapshot) -> dict[str, Any]:
    record = {name: getattr(snapshot, name) for name in _RECORDED}
    return record | {
        "asset": list(snapshot.asset),
        "created_at": snapshot.created_at.isoformat(),
        "metadata": dict(snapshot.metadata),
    }


def _dumped(snapshot: Snapshot) -> bytes:
    return json.dumps({"format": 1, **_record(snapshot)}, ensure_ascii=False).encode()


def _next(
    before: Snapshot | None,
    asset: Path,
    partition: str | None,
    digest: str,
    run_id: str,
    metadata: Mapping[str, Any],
    rows: int,
) -> Snapshot:
    created = datetime.now(UTC)
    if before is not None:  # a clock set back must not make the newer version sort first
        created = max(created, before.created_at + timedelta(microseconds=1))
    version = f"{_stamp(created)}-{digest[:12]}"
    previous = None if before is None else before.version
    return Snapshot(
        asset, partition, version, digest, created, run_id, rows, 0, "", previous, metadata
    )


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y%m%dT%H%M%S%fZ")


def _as_json(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as reading it back will give it, so that it can be compared."""
    try:
        return json.loads(json.dumps(dict(metadata)))
    except (TypeError, ValueError) as error:
        raise StorageError(
            f"The metadata of a snapshot must be JSON: {error}.",
            way_out="Record plain numbers, text, lists and dicts.",
        ) from error


def _folder(asset: Sequence[str], partition: str | None) -> str:
    if isinstance(asset, str) or not asset:
        raise StorageError(
            f"{asset!r} is not an asset key; it is a sequence of one or more names.",
            way_out="Give it as a tuple, such as ('power_price', 'features').",
        )
    parts = [encode_key(part) for part in asset]
    if partition is not None:
        parts.append(f"{PARTITION_PREFIX}{encode_key(partition)}")
    return "/".join(parts)


def _part(folder: str) -> str | None:
    """The asset key part a folder stands for; None for any other folder."""
    try:
        return decode_key(folder)
    except StorageError:
        return None


def _log_folder(asset: Sequence[str], partition: str | None) -> str:
    root = f"{_folder(asset, None)}/{LOG_FOLDER}"
    return root if partition is None else f"{root}/{PARTITION_PREFIX}{encode_key(partition)}"


def _path(snapshot: Snapshot) -> str:
    return f"{_folder(snapshot.asset, snapshot.partition)}/{snapshot.version}{_SUFFIX}"


def _name(asset: Sequence[str], partition: str | None) -> str:
    name = "/".join(asset)
    return name if partition is None else f"{name} of partition {partition!r}"


@contextlib.contextmanager
def _writing(asset: Sequence[str], partition: str | None, *, kept: bool) -> Iterator[None]:
    """Say what a failed write leaves behind; a taken name is the caller's to explain."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise StorageError(
            f"{_name(asset, partition)} could not be written: {error}.",
            stored="What was stored before is unchanged and whole."
            if kept
            else "Nothing was written.",
            way_out="Make room or repair the storage, then materialize it again.",
            culprits={"asset": tuple(asset), "partition": partition},
        ) from error


@contextlib.contextmanager
def _reading_file(
    uri: str, asset: Sequence[str], partition: str | None, name: str
) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except StorageError as error:
        raise StorageError(
            f"{name} ({uri}): {error.problem}",
            stored=error.stored,
            way_out=error.way_out,
            culprits={**error.culprits, "asset": tuple(asset), "partition": partition, "uri": uri},
        ) from error
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(uri, asset, partition, error) from error


def _damaged(
    uri: str, asset: Sequence[str], partition: str | None, error: Exception
) -> StorageError:
    return StorageError(
        f"{uri} of {_name(asset, partition)} is damaged: {str(error)[:200]}.",
        stored="Nothing was read or changed.",
        way_out="Restore the file from a backup, or move it away and materialize "
        f"{_name(asset, partition)} again; `history` lists the earlier versions.",
        culprits={"asset": tuple(asset), "partition": partition, "uri": uri},
    )


def _missing(asset: Sequence[str], partition: str | None, version: str | None) -> StorageError:
    which = "no snapshot" if version is None else f"no version {version!r}"
    return StorageError(
        f"There is {which} of {_name(asset, partition)}.",
        stored="Nothing was read.",
        way_out=f"Materialize {_name(asset, partition)} first."
        if version is None
        else "`history` lists the versions there are.",
        culprits={"asset": tuple(asset), "partition": partition, "version": version},
    )


def _missing_file(snapshot: Snapshot) -> StorageError:
    name = _name(snapshot.asset, snapshot.partition)
    return StorageError(
        f"{snapshot.uri}, the current version of {name}, is gone.",
        stored="Nothing was read or changed.",
        way_out=f"Restore the file from a backup, or materialize {name} again.",
        culprits={"asset": snapshot.asset, "partition": snapshot.partition, "uri": snapshot.uri},
    )
