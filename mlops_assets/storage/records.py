"""What a snapshot is, how it is written down, and where its files lie."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mlops_assets.errors import StorageError
from mlops_assets.storage.keys import encode_key

Path = tuple[str, ...]
"""An asset key: one or more parts, each any non-empty text."""

POINTER = "_current.json"
PARTITION_PREFIX = "country="
LOG_FOLDER = "log.d"
SUFFIX = ".parquet"
VERSION = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{12}")

_STAMP = "%Y%m%dT%H%M%S%fZ"
_RECORDED = (
    "asset", "partition", "version", "content_hash", "created_at", "run_id", "rows",
    "size_bytes", "previous", "metadata",
)  # fmt: skip


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
class StoredVersion:
    """A version whose file is there, with all that was ever recorded of it.

    Attributes:
        snapshot: with its last metadata.
        first_metadata: what was recorded when the file was written; the same content written
            again may have replaced it since.
        was_current: False for a file whose writer was killed before it moved the pointer, or was
            overtaken by another one before anybody wrote after it.
    """

    snapshot: Snapshot
    first_metadata: Mapping[str, Any]
    was_current: bool


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


def to_record(snapshot: Snapshot) -> dict[str, Any]:
    """All of a snapshot but its address, as JSON."""
    record = {name: getattr(snapshot, name) for name in _RECORDED}
    return record | {
        "asset": list(snapshot.asset),
        "created_at": snapshot.created_at.isoformat(),
        "metadata": dict(snapshot.metadata),
    }


def from_record(record: Mapping[str, Any], uri: str) -> Snapshot:
    """What `to_record` wrote; the address is where it lies now, so that roots can be moved.

    Raises:
        KeyError, TypeError, ValueError: it is no such record.
    """
    values = {name: record[name] for name in _RECORDED}
    values["asset"] = tuple(record["asset"])
    values["created_at"] = datetime.fromisoformat(record["created_at"])
    return Snapshot(**values, uri=uri)


def dumped(snapshot: Snapshot) -> bytes:
    """The content of a pointer."""
    return json.dumps({"format": 1, **to_record(snapshot)}, ensure_ascii=False).encode()


def stamp(moment: datetime) -> str:
    """The time as names begin with it; later times sort later."""
    return moment.strftime(_STAMP)


def time_of(version: str) -> datetime:
    """When a version was written, from its name; UTC."""
    return datetime.strptime(version.partition("-")[0], _STAMP).replace(tzinfo=UTC)


def moment_in_utc(moment: datetime) -> datetime:
    """A time that names one moment.

    Raises:
        StorageError: it has no time zone.
    """
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise StorageError(
            f"The time {moment} has no time zone, so that it names no moment.",
            stored="Nothing was read.",
            way_out="Give one: datetime(2025, 1, 31, tzinfo=UTC), or 2025-01-31T00:00:00Z.",
            culprits={"moment": str(moment)},
        )
    return moment.astimezone(UTC)


def folder_of(asset: Sequence[str], partition: str | None) -> str:
    """Where the versions of a partition lie, below the root.

    Raises:
        StorageError: the asset key has no name.
    """
    if isinstance(asset, str) or not asset:
        raise StorageError(
            f"{asset!r} is not an asset key; it is a sequence of one or more names.",
            way_out="Give it as a tuple, such as ('power_price', 'features').",
        )
    parts = [encode_key(part) for part in asset]
    if partition is not None:
        parts.append(f"{PARTITION_PREFIX}{encode_key(partition)}")
    return "/".join(parts)


def log_folder_of(asset: Sequence[str], partition: str | None) -> str:
    """Where the log entries of a partition lie, below the root."""
    root = f"{folder_of(asset, None)}/{LOG_FOLDER}"
    return root if partition is None else f"{root}/{PARTITION_PREFIX}{encode_key(partition)}"


def path_of(asset: Sequence[str], partition: str | None, version: str) -> str:
    """Where the file of a version lies, below the root."""
    return f"{folder_of(asset, partition)}/{version}{SUFFIX}"


def name_of(asset: Sequence[str], partition: str | None) -> str:
    """A partition of an asset as a person reads it."""
    name = "/".join(asset)
    return name if partition is None else f"{name} of partition {partition!r}"
