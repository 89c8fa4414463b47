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
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from mlops_assets.errors import StorageError
from mlops_assets.storage.failures import (
    damaged,
    missing,
    missing_file,
    not_removed,
    not_yet_stored,
    reached,
    reading_file,
    writing,
)
from mlops_assets.storage.files import Files, ObjectFiles, open_files
from mlops_assets.storage.keys import decode_key, encode_key
from mlops_assets.storage.records import (
    LOG_FOLDER,
    PARTITION_PREFIX,
    POINTER,
    SUFFIX,
    VERSION,
    LogFile,
    Path,
    Snapshot,
    StoredVersion,
    WriteResult,
    dumped,
    folder_of,
    from_record,
    log_folder_of,
    moment_in_utc,
    name_of,
    path_of,
    stamp,
    to_record,
)
from mlops_assets.storage.versions import Removal, Timeline, removal_log, side_by_side

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from mlops_assets.storage.frames import Stored

__all__ = ["LogFile", "Path", "Snapshot", "SnapshotStore", "StoredVersion", "WriteResult"]

_Result = TypeVar("_Result")


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
        folder = folder_of(asset, partition)
        table = to_table(data)
        digest = content_hash(table)
        now = self.current(asset, partition)
        with writing(asset, partition, kept=now is not None):
            if now is not None and now.content_hash == digest and self._is_whole(now):
                return WriteResult(self._annotated(folder, now, recorded), changed=False)
            snapshot = _next(
                now,
                tuple(asset),
                partition,
                digest,
                run_id=run_id,
                metadata=recorded or {},
                rows=len(table),
            )
            return WriteResult(self._publish(folder, snapshot, now, table), changed=True)

    def _publish(
        self, folder: str, snapshot: Snapshot, before: Snapshot | None, table: pa.Table
    ) -> Snapshot:
        from mlops_assets.storage.frames import write_parquet

        # The footer keeps the record of the version it replaces: the pointer, which had it, is
        # about to be overwritten.
        record = {
            "snapshot": to_record(snapshot),
            "previous": None if before is None else to_record(before),
        }
        path = f"{folder}/{snapshot.version}{SUFFIX}"
        size = self._files.publish(
            path,
            lambda sink: write_parquet(table, sink, record),
            f"{folder}/{POINTER}",
            lambda size: dumped(replace(snapshot, size_bytes=size)),
        )
        return replace(snapshot, size_bytes=size, uri=self._files.uri(path))

    def _annotated(
        self, folder: str, snapshot: Snapshot, metadata: Mapping[str, Any] | None
    ) -> Snapshot:
        if metadata is None or metadata == snapshot.metadata:
            return snapshot
        changed = replace(snapshot, metadata=metadata)
        self._files.replace(f"{folder}/{POINTER}", dumped(changed))
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
        folder = folder_of(asset, partition)
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
        root = folder_of(asset, None)
        keys = self._partitions(root) if partitions is None else list(partitions)
        paths = {f"{folder_of(asset, key)}/{POINTER}": key for key in keys}
        contents = self._reaching(root, lambda: self._files.read_many(paths))
        return {
            key: self._pointed(folder_of(asset, key), contents[path], tuple(asset), key)
            for path, key in paths.items()
            if path in contents
        }

    def as_of(
        self, asset: Sequence[str], partition: str | None, moment: datetime
    ) -> Snapshot | None:
        """What was current at a moment, without its rows; None when nothing was stored yet.

        A version counts from the time in its name, when its writing began. The snapshot has the
        metadata it had when the next version was written.

        Args:
            asset: the asset key.
            partition: its partition key; None for an asset without partitions.
            moment: with a time zone.

        Raises:
            VersionGoneError: the version of that moment was removed.
            StorageError: the moment has no time zone, or a file is damaged.
        """
        at = moment_in_utc(moment)
        return self._at(self.current(asset, partition), asset, partition, at)

    def as_of_all(
        self, asset: Sequence[str], moment: datetime, partitions: Sequence[str] | None = None
    ) -> dict[str, Snapshot]:
        """Like `as_of` for many partitions, those that had nothing then left out.

        Args:
            asset: the asset key.
            moment: with a time zone.
            partitions: which, in this order; None for all there are now, sorted.

        Raises:
            VersionGoneError: the version of a partition at that moment was removed.
            StorageError: the moment has no time zone, or a file is damaged.
        """
        at = moment_in_utc(moment)
        now = self.current_all(asset, partitions)
        found = side_by_side(self._files, lambda key: self._at(now[key], asset, key, at), list(now))
        return {key: then for key, then in zip(now, found, strict=True) if then is not None}

    def _at(
        self,
        current: Snapshot | None,
        asset: Sequence[str],
        partition: str | None,
        moment: datetime,
    ) -> Snapshot | None:
        if current is None or current.created_at <= moment:
            return current
        return Timeline(self._files, tuple(asset), partition, current).as_of(moment)

    def _timeline(self, asset: Sequence[str], partition: str | None) -> Timeline:
        current = self.current(asset, partition)
        return Timeline(self._files, tuple(asset), partition, current)

    def _partitions(self, folder: str) -> list[str]:
        folders, _ = self._reaching(folder, lambda: self._files.entries(folder))
        encoded = (
            n.removeprefix(PARTITION_PREFIX) for n in folders if n.startswith(PARTITION_PREFIX)
        )
        return sorted(decode_key(name) for name in encoded)

    def _pointed(self, folder: str, content: bytes, asset: Path, partition: str | None) -> Snapshot:
        path = f"{folder}/{POINTER}"
        try:
            record = json.loads(content)
            uri = self._files.uri(f"{folder}/{record['version']}{SUFFIX}")
            snapshot = from_record(record, uri)
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(self._files.uri(path), asset, partition, error) from error
        if (snapshot.asset, snapshot.partition) != (asset, partition):
            owner = name_of(snapshot.asset, snapshot.partition)
            raise StorageError(
                f"{self._files.uri(path)} belongs to {owner}, "
                f"not to {name_of(asset, partition)}: the file system does not tell capital from "
                "small letters.",
                way_out="Rename one of the two keys, or store on a file system that does.",
                culprits={"asset": asset, "partition": partition},
            )
        return snapshot

    def read(
        self,
        asset: Sequence[str],
        partition: str | None,
        *,
        columns: Sequence[str] | None = None,
        version: str | None = None,
        as_of: datetime | None = None,
    ) -> pd.DataFrame:
        """One version of a partition as the frame that was written.

        Args:
            asset: the asset key.
            partition: its partition key; None for an asset without partitions.
            columns: only these, in this order; None for all.
            version: which; None for the current one.
            as_of: instead of a version, a moment with its time zone at which it was current.

        Raises:
            StorageError: no such snapshot or column, or a file that is damaged.
        """
        from mlops_assets.storage.frames import to_frame

        table = self.read_table(asset, partition, columns=columns, version=version, as_of=as_of)
        return to_frame(table)

    def read_table(
        self,
        asset: Sequence[str],
        partition: str | None,
        *,
        columns: Sequence[str] | None = None,
        version: str | None = None,
        as_of: datetime | None = None,
    ) -> pa.Table:
        """Like `read`, as an Arrow table."""
        if version is not None and as_of is not None:
            raise StorageError(
                f"Both the version {version!r} and the moment {as_of} are given.",
                stored="Nothing was read.",
                way_out="Give one of them.",
            )
        if version is not None:
            snapshot = self._bare(asset, partition, version)
        elif as_of is not None:
            snapshot = self.as_of(asset, partition, as_of)
        else:
            snapshot = self.current(asset, partition)
        if snapshot is None and as_of is not None and self.current(asset, partition) is not None:
            raise not_yet_stored(asset, partition, as_of)
        if snapshot is None:
            raise missing(asset, partition, version)
        return self._stored(snapshot, columns).table

    def _bare(self, asset: Sequence[str], partition: str | None, version: str) -> Snapshot | None:
        """Enough of a snapshot to read its file; None if there is no such file."""
        folder = folder_of(asset, partition)
        _, names = self._reaching(folder, lambda: self._files.entries(folder))
        if not VERSION.fullmatch(version) or f"{version}{SUFFIX}" not in names:
            return None
        uri = self._files.uri(f"{folder}/{version}{SUFFIX}")
        never = datetime.fromtimestamp(0, UTC)
        return Snapshot(tuple(asset), partition, version, "", never, "", 0, 0, uri, None)

    def read_all(
        self,
        asset: Sequence[str],
        partitions: Sequence[str] | None = None,
        *,
        columns: Sequence[str] | None = None,
        as_of: datetime | None = None,
    ) -> dict[str, pd.DataFrame]:
        """The frames of many partitions by key, current now or (`as_of`) at a moment.

        Partitions that have none are left out.
        """
        from mlops_assets.storage.frames import to_frame

        tables = self.read_all_tables(asset, partitions, columns=columns, as_of=as_of)
        return {key: to_frame(table) for key, table in tables.items()}

    def read_all_tables(
        self,
        asset: Sequence[str],
        partitions: Sequence[str] | None = None,
        *,
        columns: Sequence[str] | None = None,
        as_of: datetime | None = None,
    ) -> dict[str, pa.Table]:
        """Like `read_all`, as Arrow tables."""
        if as_of is None:
            snapshots = self.current_all(asset, partitions)
        else:
            snapshots = self.as_of_all(asset, as_of, partitions)
        paths = {path_of(asset, key, each.version): key for key, each in snapshots.items()}
        opened = self._files.open_many(paths)
        tables: dict[str, pa.Table] = {}
        while (
            found := self._reaching(folder_of(asset, None), lambda: next(opened, None))
        ) is not None:
            path, source = found
            snapshot = snapshots[paths[path]]
            tables[paths[path]] = self._decoded(snapshot, source, columns).table
        for key in snapshots.keys() - tables.keys():
            raise missing_file(snapshots[key].uri, asset, key)
        return {key: tables[key] for key in snapshots}

    def _stored(self, snapshot: Snapshot, columns: Sequence[str] | None) -> Stored:
        path = path_of(snapshot.asset, snapshot.partition, snapshot.version)
        try:
            source = self._reaching(path, lambda: self._files.open_parquet(path))
        except FileNotFoundError as error:
            raise missing_file(snapshot.uri, snapshot.asset, snapshot.partition) from error
        return self._decoded(snapshot, source, columns)

    def _decoded(self, snapshot: Snapshot, source: Any, columns: Sequence[str] | None) -> Stored:
        from mlops_assets.storage.frames import read_parquet

        name = name_of(snapshot.asset, snapshot.partition)
        with reading_file(snapshot.uri, snapshot.asset, snapshot.partition, name):
            return read_parquet(source, columns)

    def versions(self, asset: Sequence[str], partition: str | None) -> list[Snapshot]:
        """Every stored version that ever was current, newest first, each with its last metadata.

        Versions that were removed are left out; those before them are still there.

        Raises:
            StorageError: a file on the way is damaged.
        """
        stored = self.stored_versions(asset, partition)
        return [version.snapshot for version in stored if version.was_current]

    def stored_versions(self, asset: Sequence[str], partition: str | None) -> list[StoredVersion]:
        """Every version file, newest first, whether or not it ever was current.

        Raises:
            StorageError: one of them is damaged.
        """
        return self._timeline(asset, partition).all()

    def find(
        self, asset: Sequence[str], partition: str | None, content_hash: str
    ) -> Snapshot | None:
        """The newest stored version with this content; None if there is none.

        A version that is not current has the metadata it was written with.

        Args:
            asset: the asset key.
            partition: its partition key; None for an asset without partitions.
            content_hash: all 32 digits.
        """
        return self._timeline(asset, partition).find(content_hash)

    def remove(self, snapshot: Snapshot, *, reason: str = "") -> None:
        """Remove a version that another one has replaced; what was known of it stays in a log.

        The log is `removals` beside the asset. A removal that was killed half-way is finished by
        removing again.

        Args:
            snapshot: which; one of `versions`.
            reason: why, for the log.

        Raises:
            StorageError: it is the current version, or was never stored; nothing was removed.
        """
        asset, partition, version = snapshot.asset, snapshot.partition, snapshot.version
        removal = self._timeline(asset, partition).removal(snapshot, reason)
        try:
            if removal is not None:
                self._log_removal(removal)
            self._files.unlink(path_of(asset, partition, version))
        except OSError as error:
            raise not_removed(asset, partition, version, error) from error

    def drop(self, asset: Sequence[str], partition: str | None) -> None:
        """Remove a partition: first what names its current version, then every version.

        A reader sees all of it or nothing. What was killed half-way is finished by dropping again.

        Raises:
            StorageError: a file cannot be removed; those before it are gone.
        """
        folder = folder_of(asset, partition)
        _, names = self._reaching(folder, lambda: self._files.entries(folder))
        ordered = sorted(names, key=lambda name: (name != POINTER, name))
        for name in (each for each in ordered if each == POINTER or each.endswith(SUFFIX)):
            try:
                self._files.unlink(f"{folder}/{name}")
            except OSError as error:
                raise not_removed(asset, partition, name, error) from error

    def _log_removal(self, removal: Removal) -> None:
        log, partition = removal_log(removal.version.asset), removal.version.partition
        # Another one may be removing the same version: one entry is enough.
        with contextlib.suppress(FileExistsError):
            self._create_entry(log, partition, removal.table(datetime.now(UTC)), removal.entry)

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
        from mlops_assets.storage.frames import to_table

        entry = f"{stamp(datetime.now(UTC))}-{uuid.uuid4().hex[:12]}" if name is None else name
        try:
            with writing(asset, partition, kept=True):
                self._create_entry(asset, partition, to_table(data, keep_index=False), entry)
        except FileExistsError as error:
            raise StorageError(
                f"The log of {name_of(asset, partition)} already has an entry {entry!r}; entries "
                "are never replaced.",
                way_out="Append under another name, or skip what is already there.",
                culprits={"asset": tuple(asset), "partition": partition, "name": entry},
            ) from error
        return entry

    def _create_entry(
        self, asset: Sequence[str], partition: str | None, table: pa.Table, entry: str
    ) -> None:
        from mlops_assets.storage.frames import write_parquet

        record = {"entry": entry, "written_ns": time.time_ns()}
        path = f"{log_folder_of(asset, partition)}/{encode_key(entry)}{SUFFIX}"
        self._files.create(path, lambda sink: write_parquet(table, sink, record))

    def log_files(
        self,
        asset: Sequence[str],
        partition: str | None = None,
        *,
        as_of: datetime | None = None,
    ) -> list[LogFile]:
        """The entries of an asset's log, by partition and id.

        Args:
            asset: the asset key.
            partition: which; None for all, and for entries of no partition.
            as_of: only entries written up to this moment, which has a time zone.
        """
        root = log_folder_of(asset, None)
        keys: list[str | None] = [partition]
        if partition is None:
            keys += self._partitions(root)
        entries = [entry for key in keys for entry in self._log_files(asset, key)]
        if as_of is None:
            return entries
        last = _microseconds(as_of)
        written = side_by_side(self._files, lambda entry: self._written(asset, entry), entries)
        return [entry for entry, at in zip(entries, written, strict=True) if at <= last]

    def _written(self, asset: Sequence[str], entry: LogFile) -> int:
        """When an entry was written, in microseconds since 1970."""
        from mlops_assets.storage.frames import read_record

        path = _entry_path(asset, entry)
        source = self._reaching(path, lambda: self._files.open_footer(path))
        with reading_file(entry.uri, asset, entry.partition, _log_name(asset, entry)):
            return int(read_record(source)["written_ns"]) // 1000

    def _log_files(self, asset: Sequence[str], partition: str | None) -> Iterator[LogFile]:
        folder = log_folder_of(asset, partition)
        _, names = self._reaching(folder, lambda: self._files.entries(folder))
        for name in names:
            if name.endswith(SUFFIX):
                entry = decode_key(name.removesuffix(SUFFIX))
                yield LogFile(partition, entry, self._files.uri(f"{folder}/{name}"))

    def read_log(
        self,
        asset: Sequence[str],
        partition: str | None = None,
        *,
        as_of: datetime | None = None,
        last: int | None = None,
    ) -> pd.DataFrame:
        """All rows of a log, oldest entry first.

        Args:
            asset: the asset key.
            partition: which; None for the entries of all partitions and of none.
            as_of: only entries written up to this moment, which has a time zone.
            last: only so many entries, the newest by their ids (which begin with the time, where
                the caller gave none).

        Returns:
            The rows of all entries under each other; a frame of 0 rows x 0 columns if none.
        """
        from mlops_assets.storage.frames import stack, to_frame

        listed = self.log_files(asset, partition, as_of=as_of)
        if last is not None:
            listed = sorted(listed, key=lambda entry: entry.id)[-last:]
        entries = {_entry_path(asset, entry): entry for entry in listed}
        opened = self._files.open_many(entries)
        found: list[tuple[int, str, pa.Table]] = []
        while (
            one := self._reaching(log_folder_of(asset, None), lambda: next(opened, None))
        ) is not None:
            entry, stored = entries[one[0]], self._read_entry(asset, entries[one[0]], one[1])
            found.append((int(stored.record["written_ns"]), entry.id, stored.table))
        found.sort(key=lambda item: item[:2])
        return to_frame(stack([(name, table) for _, name, table in found]))

    def _read_entry(self, asset: Sequence[str], entry: LogFile, source: Any) -> Stored:
        from mlops_assets.storage.frames import read_parquet

        with reading_file(entry.uri, asset, entry.partition, _log_name(asset, entry)):
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
        folder = folder_of(asset, None)
        return any(POINTER in self._files.entries(f"{folder}/{name}")[1] for name in partitions)

    def _reaching(self, path: str, call: Callable[[], _Result]) -> _Result:
        return reached(self._files, path, call)


def _next(
    before: Snapshot | None,
    asset: Path,
    partition: str | None,
    digest: str,
    *,
    run_id: str,
    metadata: Mapping[str, Any],
    rows: int,
) -> Snapshot:
    created = datetime.now(UTC)
    if before is not None:  # a clock set back must not make the newer version sort first
        created = max(created, before.created_at + timedelta(microseconds=1))
    version = f"{stamp(created)}-{digest[:12]}"
    previous = None if before is None else before.version
    return Snapshot(
        asset, partition, version, digest, created, run_id, rows, 0, "", previous, metadata
    )


def _as_json(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as reading it back will give it, so that it can be compared."""
    try:
        return json.loads(json.dumps(dict(metadata)))
    except (TypeError, ValueError) as error:
        raise StorageError(
            f"The metadata of a snapshot must be JSON: {error}.",
            way_out="Record plain numbers, text, lists and dicts.",
        ) from error


def _part(folder: str) -> str | None:
    """The asset key part a folder stands for; None for any other folder."""
    try:
        return decode_key(folder)
    except StorageError:
        return None


def _entry_path(asset: Sequence[str], entry: LogFile) -> str:
    return f"{log_folder_of(asset, entry.partition)}/{encode_key(entry.id)}{SUFFIX}"


def _log_name(asset: Sequence[str], entry: LogFile) -> str:
    return f"the log of {name_of(asset, entry.partition)}"


def _microseconds(moment: datetime) -> int:
    """Since 1970, without the rounding of a float."""
    return (moment_in_utc(moment) - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
