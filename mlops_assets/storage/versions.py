"""The versions of one partition over time: which were current, when, and which were removed.

Each version file holds, in its footer, the record of the version it replaced. A writer copies that
record from the pointer, so whatever a file names as replaced was current once; a file that neither
the pointer nor any other file names was never current, or for no longer than it took another
writer to move the pointer on. What was current at a moment is what the first version after that
moment replaced: one listing and one footer.

A version is removed in two steps: an entry in the append-only log `removals` beside the asset, with
all that the footer said, and then the file. So nothing is forgotten but the rows, and a removal
that was killed half-way is finished by removing again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from mlops_assets.errors import StorageError
from mlops_assets.storage.failures import (
    VersionGoneError,
    missing,
    missing_file,
    reached,
    reading_file,
)
from mlops_assets.storage.files import Files, ObjectFiles
from mlops_assets.storage.keys import encode_key
from mlops_assets.storage.records import (
    SUFFIX,
    VERSION,
    Path,
    Snapshot,
    StoredVersion,
    folder_of,
    from_record,
    log_folder_of,
    name_of,
    path_of,
    time_of,
)

if TYPE_CHECKING:
    import pyarrow as pa

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_SIDE_BY_SIDE = 16

REMOVALS = "removals"
"""Name of the log of removed versions; it stands beside the asset."""

_ENTRY = re.compile(rf"({VERSION.pattern})-([0-9a-f]{{12}})-(first|{VERSION.pattern})")


@dataclass(frozen=True)
class Removal:
    """A version about to be removed: all that is known of it but its rows.

    Attributes:
        version: as it was written, with the size of its file.
        record: the footer of its file.
        reason: why it goes.
    """

    version: Snapshot
    record: Mapping[str, Any]
    reason: str

    @property
    def entry(self) -> str:
        """Name of the log entry: the version, its asset, and the version it replaced.

        So a listing tells the order of versions and no entry need be read for it.
        """
        return f"{self.version.version}-{_mark(self.version.asset)}-{self._previous or 'first'}"

    @property
    def _previous(self) -> str | None:
        replaced = self.record["previous"]
        return None if replaced is None else replaced["version"]

    def table(self, removed_at: datetime) -> pa.Table:
        """One row, as the log shows it."""
        import pyarrow as pa

        version = self.version
        values: dict[str, tuple[Any, pa.DataType]] = {
            "asset": ("/".join(version.asset), pa.string()),
            "partition": (version.partition, pa.string()),
            "version": (version.version, pa.string()),
            "previous": (self._previous, pa.string()),
            "content_hash": (version.content_hash, pa.string()),
            "rows": (version.rows, pa.int64()),
            "size_bytes": (version.size_bytes, pa.int64()),
            "removed_at": (removed_at, pa.timestamp("us", tz="UTC")),
            "reason": (self.reason, pa.string()),
            "record": (json.dumps(self.record), pa.string()),
        }
        return pa.table({name: pa.array([value], kind) for name, (value, kind) in values.items()})


def side_by_side(
    files: Files, call: Callable[[_Item], _Result], items: Sequence[_Item]
) -> list[_Result]:
    """The results in order, many at a time where each call waits for an object store."""
    if len(items) < 2 or not isinstance(files, ObjectFiles):
        return [call(item) for item in items]
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        return list(pool.map(call, items))


def removal_log(asset: Sequence[str]) -> Path:
    """Key of the log of removed versions of an asset and of its siblings."""
    return (*asset[:-1], REMOVALS)


@dataclass(frozen=True)
class _Footer:
    """What a version file says: of itself, its size not known yet, and of what it replaced."""

    written: Snapshot
    replaced: Snapshot | None
    record: Mapping[str, Any]


@dataclass(frozen=True)
class _Removed:
    """An entry of the removal log, as its name tells it."""

    replaced: str | None
    path: str


class Timeline:
    """The versions of one partition, listed once; footers are read when they are needed.

    Args:
        files: where they lie.
        asset: the asset key.
        partition: its partition key; None for an asset without partitions.
        current: what its pointer says; None without one.
    """

    def __init__(
        self, files: Files, asset: Path, partition: str | None, current: Snapshot | None
    ) -> None:
        self._files = files
        self._asset = asset
        self._partition = partition
        self._current = current
        folder = folder_of(asset, partition)
        _, names = reached(files, folder, lambda: files.entries(folder))
        self._footers: dict[str, _Footer] = {}
        stems = (name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))
        self._stored = [stem for stem in stems if VERSION.fullmatch(stem)]

    @cached_property
    def _removed(self) -> dict[str, _Removed]:
        folder = log_folder_of(removal_log(self._asset), self._partition)
        _, names = reached(self._files, folder, lambda: self._files.entries(folder))
        own = _mark(self._asset)
        found = ((name, _ENTRY.fullmatch(name.removesuffix(SUFFIX))) for name in names)
        return {
            match[1]: _Removed(None if match[3] == "first" else match[3], f"{folder}/{name}")
            for name, match in found
            if match is not None and match[2] == own
        }

    def as_of(self, moment: datetime) -> Snapshot | None:
        """What was current at a moment (UTC), as the next version found it; None before the first.

        Raises:
            VersionGoneError: that version was removed.
            StorageError: a file on the way is damaged.
        """
        if self._current is None or self._current.created_at <= moment:
            return self._current
        after = self._first_after(moment, self._stored)
        found = self._replaced_by(after)
        if found is not None and time_of(found) > moment:  # a gap: the removed ones know more
            after = self._first_after(moment, [*self._stored, *self._removed])
            found = self._replaced_by(after)
        if found is None:
            return None
        if found not in self._stored or time_of(found) > moment:
            raise self._gone(found, moment)
        return self._footer(after).replaced

    def _first_after(self, moment: datetime, known: Iterable[str]) -> str:
        assert self._current is not None
        after = (version for version in known if time_of(version) > moment)
        return min(after, default=self._current.version)

    def _replaced_by(self, version: str) -> str | None:
        if version not in self._stored and version in self._removed:
            return self._removed[version].replaced
        replaced = self._footer(version).replaced
        return None if replaced is None else replaced.version

    def all(self) -> list[StoredVersion]:
        """Every version file there is, newest first.

        Raises:
            StorageError: one of them is damaged.
        """
        read = side_by_side(self._files, self._footer, self._stored)
        footers = dict(zip(self._stored, read, strict=True))
        said = dict(footers)
        for version, removal in self._removed.items():
            if removal.replaced in footers:
                said[version] = self._footer(version)
        # Of several that replaced one version, the youngest saw its metadata last.
        replaced = [said[version].replaced for version in sorted(said)]
        last = {snapshot.version: snapshot for snapshot in replaced if snapshot is not None}
        if self._current is not None:
            last[self._current.version] = self._current
        return [
            StoredVersion(
                snapshot=last.get(version) or self._with_size(footer.written),
                first_metadata=footer.written.metadata,
                was_current=version in last,
            )
            for version, footer in reversed(footers.items())
        ]

    def find(self, content_hash: str) -> Snapshot | None:
        """The newest stored version with this content, whether or not it ever was current."""
        for version in reversed(self._stored):
            if version.endswith(f"-{content_hash[:12]}"):
                if self._current is not None and self._current.version == version:
                    written = self._current
                else:
                    written = self._with_size(self._footer(version).written)
                if written.content_hash == content_hash:
                    return written
        return None

    def removal(self, snapshot: Snapshot, reason: str) -> Removal | None:
        """What the log has to keep of a version before its file goes; None if it keeps it already.

        Raises:
            StorageError: the version is the current one or may become it, or is not stored.
        """
        version = snapshot.version
        if not VERSION.fullmatch(version) or not {version} & {*self._stored, *self._removed}:
            raise missing(self._asset, self._partition, version)
        if self._current is None or version >= self._current.version:
            raise self._still_in_use(version)
        if version in self._removed:
            return None
        footer = self._footer(version)
        if footer.written.content_hash != snapshot.content_hash:
            raise missing(self._asset, self._partition, f"{version} with this content")
        return Removal(self._with_size(footer.written), footer.record, reason)

    def _footer(self, version: str) -> _Footer:
        if version not in self._footers:
            stored = version in self._stored or version not in self._removed
            read = self._footer_of_file if stored else self._footer_from_log
            self._footers[version] = read(version)
        return self._footers[version]

    def _footer_of_file(self, version: str) -> _Footer:
        from mlops_assets.storage.frames import read_record

        path = path_of(self._asset, self._partition, version)
        uri = self._files.uri(path)
        try:
            source = reached(self._files, path, lambda: self._files.open_footer(path))
        except FileNotFoundError as error:
            raise missing_file(uri, self._asset, self._partition) from error
        with self._reading(uri):
            return self._as_footer(version, read_record(source))

    def _footer_from_log(self, version: str) -> _Footer:
        removed = self._removed[version]
        with self._reading(self._files.uri(removed.path)):
            (record,) = self._entry(removed)["record"].to_pylist()
            return self._as_footer(version, json.loads(record))

    def _entry(self, removed: _Removed) -> pa.Table:
        from mlops_assets.storage.frames import read_parquet

        path = removed.path
        source = reached(self._files, path, lambda: self._files.open_parquet(path))
        with self._reading(self._files.uri(path)):
            return read_parquet(source).table

    def _reading(self, uri: str) -> contextlib.AbstractContextManager[None]:
        name = name_of(self._asset, self._partition)
        return reading_file(uri, self._asset, self._partition, name)

    def _as_footer(self, version: str, record: Mapping[str, Any]) -> _Footer:
        """The records as they lie here: a copy of a file under another name is another version."""
        written = self._snapshot({**record["snapshot"], "version": version})
        replaced = record["previous"]
        return _Footer(written, None if replaced is None else self._snapshot(replaced), record)

    def _snapshot(self, record: Mapping[str, Any]) -> Snapshot:
        path = path_of(self._asset, self._partition, record["version"])
        return from_record(record, self._files.uri(path))

    def _with_size(self, snapshot: Snapshot) -> Snapshot:
        path = path_of(self._asset, self._partition, snapshot.version)
        return replace(snapshot, size_bytes=_size(self._files, path))

    def _still_in_use(self, version: str) -> StorageError:
        name = name_of(self._asset, self._partition)
        return StorageError(
            f"Version {version} of {name} is the current one, or not older than it.",
            stored="Nothing was removed.",
            way_out="Only a version that another one has replaced can be removed.",
            culprits={"asset": self._asset, "partition": self._partition, "version": version},
        )

    def _gone(self, version: str, moment: datetime) -> VersionGoneError:
        assert self._current is not None
        name = name_of(self._asset, self._partition)
        why = "is gone, and no log says why"
        if version in self._removed:
            why = self._why_removed(self._removed[version])
        left = (time_of(other) for other in self._stored if time_of(other) > moment)
        return VersionGoneError(
            f"What was current of {name} at {moment}, version {version}, {why}.",
            stored="Nothing was read.",
            way_out=f"The next version that is stored is of {min(left, default='none')}.",
            culprits={
                "asset": self._asset,
                "partition": self._partition,
                "version": version,
                "moment": str(moment),
            },
        )

    def _why_removed(self, removed: _Removed) -> str:
        (row,) = self._entry(removed).select(["removed_at", "reason"]).to_pylist()
        reason = f" ({row['reason']})" if row["reason"] else ""
        return f"was removed on {row['removed_at']:%Y-%m-%d %H:%M} UTC{reason}"


def _size(files: Files, path: str) -> int:
    if isinstance(files, ObjectFiles):
        filesystem: Any = files.filesystem
        return reached(files, path, lambda: filesystem.size(files.uri(path)))
    return os.path.getsize(files.uri(path))


def _mark(asset: Sequence[str]) -> str:
    """Tells the entries of assets that share a log apart; keys may be too long for a name."""
    key = "/".join(encode_key(part) for part in asset)
    return hashlib.sha256(key.encode()).hexdigest()[:12]
