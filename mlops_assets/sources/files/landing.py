"""Landing folders: which files lie there, and whether one is still being written.

Nothing here writes; what a pull lands goes through `writing.py`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

StorageOptions = Mapping[str, Any]

CHUNK = 1 << 20
"""Bytes read at a time, whatever the size of a file."""

TEMPORARY_ENDINGS = (".tmp", ".part", ".partial", ".crdownload", ".swp", "~")


@dataclass(frozen=True)
class SourceFile:
    """One file of a landing folder, as it was when listed.

    Attributes:
        uri: absolute path, or address with its protocol (`s3://bucket/key`).
        name: path below the landing folder, with `/`; becomes `_source_file`.
        content_hash: BLAKE2b of the content, 32 hex digits; empty when the content could not be
            read (a link to nowhere, no permission), and `survey` says so.
        size: bytes.
        modified: time of the last change (UTC), where the storage knows it.
        tag: as of `Listed`.
    """

    uri: str
    name: str
    content_hash: str
    size: int
    modified: dt.datetime | None
    tag: str = ""

    @property
    def stamp(self) -> str:
        """Name, size and tag as one text; see `Listed.stamp`."""
        return _stamp_text(self.name, self.size, self.tag)


@dataclass(frozen=True)
class Listed:
    """One file of a landing folder as listed, its content unread.

    Attributes:
        uri: as of `SourceFile`.
        name: as of `SourceFile`.
        size: bytes.
        modified: time of the last change (UTC), where the storage knows it.
        tag: what a change of the content changes: time and inode of a local file, ETag of an
            object (its time where the store has none); empty for a link to nowhere.
    """

    uri: str
    name: str
    size: int
    modified: dt.datetime | None
    tag: str

    @property
    def stamp(self) -> str:
        """Name, size and tag as one text: another content has another stamp."""
        return _stamp_text(self.name, self.size, self.tag)

    @property
    def local(self) -> bool:
        """Whether it lies on a file system, where a file can be seen half-written."""
        return "://" not in self.uri

    def is_settled(self, now: dt.datetime, seconds: float) -> bool:
        """Whether it was not changed within the last seconds; an object is there whole or not."""
        if not self.local or self.modified is None:
            return True
        return abs((now - self.modified).total_seconds()) >= seconds


def _stamp_text(name: str, size: int, tag: str) -> str:
    return f"{name}|{size}|{tag}"


class _Readable(Protocol):
    def read(self, size: int = ..., /) -> bytes: ...


@dataclass(frozen=True)
class Stamp:
    """What changes when a file is written to."""

    size: int
    modified: dt.datetime | None
    tag: str


@dataclass(frozen=True)
class Place:
    """A file system and a path on it."""

    fs: fsspec.AbstractFileSystem
    path: str

    @property
    def local(self) -> bool:
        """Whether DuckDB can open the path itself."""
        return isinstance(self.fs, LocalFileSystem)

    @property
    def uri(self) -> str:
        """The path as DuckDB reports it: plain when local, with protocol otherwise."""
        return self.path if self.local else str(self.fs.unstrip_protocol(self.path))

    def open(self) -> BinaryIO:
        """The content, forward only and without reading ahead of what is asked for."""
        return self.fs.open(self.path, "rb", block_size=4 * CHUNK)  # type: ignore[return-value]

    def is_file(self) -> bool:
        """Whether there is a regular file, links followed."""
        return bool(self.fs.isfile(self.path))

    def stamp(self) -> Stamp:
        """Size and change marks of now, past every cache.

        Raises:
            OSError: when the file is gone or cannot be reached.
        """
        if self.local:
            stat = os.stat(self.path)
            return Stamp(stat.st_size, _utc(stat.st_mtime), f"{stat.st_mtime_ns}/{stat.st_ino}")
        self.fs.invalidate_cache()
        info = self.fs.info(self.path)
        return Stamp(int(info["size"] or 0), _modified(info), _tag(info))


def file_place(uri: str, storage_options: StorageOptions | None = None) -> Place:
    """The file system and path of a URI; a path without protocol is local."""
    fs, path = url_to_fs(uri, **(storage_options or {}))
    return Place(fs, path)


def list_files(uri: str, storage_options: StorageOptions | None = None) -> list[SourceFile]:
    """Every file below a landing folder that is meant to be taken, with its hash, sorted by name.

    Passed over: names starting with `.` or `_` (also of folders), names ending like unfinished
    downloads (`.tmp`, `.part`, ...), and `README*`. Each content is read once, in chunks.

    Args:
        uri: folder or object-store prefix; one that does not exist holds no files.
        storage_options: options of the fsspec file system (endpoint, credentials).

    Raises:
        OSError: when the store itself cannot be reached. One unreadable file raises nothing.
    """
    files = (hashed(each, storage_options) for each in scan(uri, storage_options))
    return [file for file in files if file is not None]


def scan(uri: str, storage_options: StorageOptions | None = None) -> list[Listed]:
    """The files `list_files` would give, sorted by name, without reading any.

    Args:
        uri: folder or object-store prefix; one that does not exist holds no files.
        storage_options: options of the fsspec file system (endpoint, credentials).

    Raises:
        OSError: when the store itself cannot be reached.
    """
    root = file_place(uri, storage_options)
    root.fs.invalidate_cache()
    found: Any = root.fs.find(root.path, detail=True)
    named = sorted((_name_below(root, path), path) for path in found)
    listed = (
        _listed(Place(root.fs, path), name, found[path])
        for name, path in named
        if not passed_over(name)
    )
    return [each for each in listed if each is not None]


def hashed(listed: Listed, storage_options: StorageOptions | None = None) -> SourceFile | None:
    """A listed file with the hash of its content; None when it is gone since."""
    return _source_file(file_place(listed.uri, storage_options), listed.name)


NaturalOrder = tuple[tuple[str | int, ...], str]


def natural_order(name: str) -> NaturalOrder:
    """A key to sort names of files by, in which numbers count by their value: 9 before 10."""
    # Text and numbers take turns, so that like is compared with like.
    parts = re.split(r"([0-9]+)", name)
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts)), name


def _listed(place: Place, name: str, info: Mapping[str, Any]) -> Listed | None:
    if not place.local:
        return Listed(place.uri, name, int(info["size"] or 0), _modified(info), _tag(info))
    try:
        stamp = place.stamp()
    except FileNotFoundError:
        if not os.path.islink(place.path):
            return None  # taken away since the folder was listed
        return Listed(place.uri, name, 0, None, "")
    except OSError:
        return Listed(place.uri, name, 0, None, "")
    return Listed(place.uri, name, stamp.size, stamp.modified, stamp.tag)


class HashingReader:
    """Reads a stream forward and hashes every byte that went by."""

    def __init__(self, stream: _Readable) -> None:
        self._stream = stream
        self._hash = hashlib.blake2b(digest_size=16)

    def read(self, size: int = CHUNK) -> bytes:
        """The next bytes; nothing at the end."""
        chunk = self._stream.read(size)
        self._hash.update(chunk)
        return chunk

    def hexdigest(self) -> str:
        """The hash of the whole content; reads what nobody has read yet."""
        while self.read(CHUNK):
            pass
        return self._hash.hexdigest()


def chunks_of(stream: _Readable) -> Iterator[bytes]:
    """The rest of a stream in pieces of constant size."""
    while chunk := stream.read(CHUNK):
        yield chunk


def _source_file(place: Place, name: str) -> SourceFile | None:
    try:
        stamp = place.stamp()
    except FileNotFoundError:
        if not os.path.islink(place.path):
            return None  # taken away since the folder was listed
        return SourceFile(place.uri, name, "", 0, None)
    except OSError:
        return SourceFile(place.uri, name, "", 0, None)
    digest = _content_hash(place)
    return SourceFile(place.uri, name, digest, stamp.size, stamp.modified, stamp.tag)


def _content_hash(place: Place) -> str:
    if not place.is_file():  # a named pipe, opened, would wait for ever
        return ""
    try:
        with place.open() as stream:
            return HashingReader(stream).hexdigest()
    except OSError:
        return ""  # `survey` names the file and the cause


def _name_below(root: Place, path: str) -> str:
    if path == root.path:
        return path.rsplit("/", 1)[-1]
    return path.removeprefix(root.path.rstrip("/") + "/")


def passed_over(name: str) -> bool:
    """Whether a file of this name is none that was delivered: hidden, unfinished, explaining."""
    *folders, last = name.split("/")
    hidden = any(part.startswith((".", "_")) for part in [*folders, last])
    unfinished = last.lower().endswith(TEMPORARY_ENDINGS)
    return hidden or unfinished or last.upper().startswith("README")


def _tag(info: Mapping[str, Any]) -> str:
    tag = info.get("ETag") or info.get("etag") or info.get("md5Hash")
    return str(tag or _modified(info) or "")


def _modified(info: Mapping[str, Any]) -> dt.datetime | None:
    value = info.get("LastModified", info.get("mtime", info.get("created")))
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC) if value.tzinfo else value.replace(tzinfo=dt.UTC)
    return _utc(value) if isinstance(value, int | float) else None


def _utc(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
