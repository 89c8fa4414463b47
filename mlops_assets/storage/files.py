"""Where files lie: a local folder or an object store, with writes that are whole or not there.

Local files are written under a temporary name, synced and renamed; an object store's PUT is atomic
by itself. Paths are relative to the root, parts joined by `/`, and come from `keys.encode_key`.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from mlops_assets import atomic
from mlops_assets.atomic import Writer
from mlops_assets.errors import StorageError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

ATOMIC_PROTOCOLS = frozenset(
    {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "r2", "oci", "memory"}
)
"""Stores whose PUT shows a reader the old object or the new one, never a part."""

_FOOTER_BYTES = 1 << 16


class Files(Protocol):
    """What the store needs of a place for files. Missing files are None or absent, not errors."""

    def uri(self, path: str) -> str:
        """The full address of a path: absolute for local files, with protocol for others."""
        ...

    def read(self, path: str) -> bytes | None:
        """The whole content, or None where there is no such file."""
        ...

    def read_many(self, paths: Iterable[str]) -> dict[str, bytes]:
        """The contents of those that exist, in as few calls as the place allows."""
        ...

    def open_parquet(self, path: str) -> Any:
        """What pyarrow can open as a file: a path or a buffer. FileNotFoundError if missing."""
        ...

    def open_many(self, paths: Iterable[str]) -> Iterator[tuple[str, Any]]:
        """Each existing path with what pyarrow can open."""
        ...

    def entries(self, folder: str) -> tuple[list[str], list[str]]:
        """Names of the folders and of the files directly in a folder, sorted; maybe none."""
        ...

    def publish(
        self, path: str, write: Writer, pointer: str, describe: Callable[[int], bytes]
    ) -> int:
        """Write a file, then the pointer to it made from its size; both whole or not there.

        Returns:
            The size of the file in bytes.
        """
        ...

    def replace(self, path: str, content: bytes) -> None:
        """Write a small file, atomically in the place of the old one."""
        ...

    def create(self, path: str, write: Writer) -> None:
        """Write a new file. FileExistsError, and nothing changed, if the path is taken."""
        ...

    def open_footer(self, path: str) -> Any:
        """Like `open_parquet`, for metadata only: the rows may not be there to read."""
        ...

    def unlink(self, path: str) -> None:
        """Remove a file; one that is gone already is no error."""
        ...


def open_files(uri: str, storage_options: Mapping[str, Any] | None = None) -> Files:
    """The place a URI names: a path or `file://` is local, anything else goes through fsspec.

    Raises:
        StorageError: the protocol is unknown, its library is missing, or its writes are not atomic.
    """
    protocol, separator, rest = uri.partition("://")
    if not separator:
        return LocalFiles(uri)
    if protocol in {"file", "local"}:
        return LocalFiles(rest)
    if protocol not in ATOMIC_PROTOCOLS:
        raise StorageError(
            f"{uri!r}: a write over {protocol!r} is not known to be atomic, so a reader could see "
            "half a file.",
            way_out=f"Use a local folder or one of {', '.join(sorted(ATOMIC_PROTOCOLS))}.",
            culprits={"uri": uri},
        )
    return ObjectFiles(uri, storage_options or {})


class LocalFiles:
    """A folder on this machine, or one mounted here with rename in one step."""

    def __init__(self, root: str) -> None:
        self._root = os.path.abspath(os.path.expanduser(root))

    def uri(self, path: str) -> str:
        """The absolute path."""
        return f"{self._root}/{path}"

    def read(self, path: str) -> bytes | None:
        """The whole content, or None."""
        try:
            with open(self.uri(path), "rb", buffering=0) as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_many(self, paths: Iterable[str]) -> dict[str, bytes]:
        """The contents of those that exist."""
        found = ((path, self.read(path)) for path in paths)
        return {path: content for path, content in found if content is not None}

    def open_parquet(self, path: str) -> Any:
        """The absolute path of an existing file."""
        full = self.uri(path)
        os.stat(full)
        return full

    def open_many(self, paths: Iterable[str]) -> Iterator[tuple[str, Any]]:
        """Each existing path with its absolute path."""
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                yield path, self.open_parquet(path)

    def entries(self, folder: str) -> tuple[list[str], list[str]]:
        """Names of folders and files, sorted; a symlink counts as what it points to."""
        folders: list[str] = []
        files: list[str] = []
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(self.uri(folder)) as entries,
        ):
            for entry in entries:
                (folders if entry.is_dir() else files).append(entry.name)
        return sorted(folders), sorted(files)

    def publish(
        self, path: str, write: Writer, pointer: str, describe: Callable[[int], bytes]
    ) -> int:
        """Both files are on disk under temporary names before the first gets its own."""
        folder = os.path.dirname(self.uri(path))
        with atomic.temporary(folder) as data, atomic.temporary(folder) as record:
            size = atomic.write_new(data, write)
            content = describe(size)
            atomic.write_new(record, lambda file: file.write(content))
            os.replace(data, self.uri(path))
            os.replace(record, self.uri(pointer))
        atomic.sync(folder)
        return size

    def replace(self, path: str, content: bytes) -> None:
        """Temporary name, sync, rename, sync of the folder."""
        atomic.replace_file(self.uri(path), lambda file: file.write(content))

    def create(self, path: str, write: Writer) -> None:
        """A hard link to the temporary file: unlike a rename, it fails where the name is taken."""
        folder = os.path.dirname(self.uri(path))
        with atomic.temporary(folder) as data:
            atomic.write_new(data, write)
            os.link(data, self.uri(path))
        atomic.sync(folder)

    def open_footer(self, path: str) -> Any:
        """The absolute path: pyarrow reads the end of a file first, and no more than it needs."""
        return self.open_parquet(path)

    def unlink(self, path: str) -> None:
        """Remove a file."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.uri(path))


class ObjectFiles:
    """An object store through fsspec; every failure of its client arrives as OSError."""

    def __init__(self, uri: str, storage_options: Mapping[str, Any]) -> None:
        from fsspec.core import url_to_fs

        try:
            # A cached listing would hide what another process has written since.
            filesystem, root = url_to_fs(uri, **{"use_listings_cache": False, **storage_options})
        except (ImportError, ValueError) as error:
            raise StorageError(
                f"The storage {uri!r} cannot be opened: {error}",
                way_out="Install the extra for it (`[s3]` for s3://) and check storage_options.",
                culprits={"uri": uri},
            ) from error
        self.filesystem: AbstractFileSystem = filesystem
        self._root: str = root.rstrip("/")

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def uri(self, path: str) -> str:
        """The address with its protocol, as DuckDB and other clients take it."""
        return str(self.filesystem.unstrip_protocol(self._full(path)))

    def read(self, path: str) -> bytes | None:
        """The whole content, or None."""
        try:
            with _client_errors():
                content: Any = self.filesystem.cat_file(self._full(path))
                return content
        except FileNotFoundError:
            return None

    def read_many(self, paths: Iterable[str]) -> dict[str, bytes]:
        """One call for all: the client asks for them side by side."""
        wanted = {self._full(path): path for path in paths}
        if not wanted:
            return {}
        with _client_errors():
            found: Any = self.filesystem.cat(list(wanted), on_error="return")
        contents: dict[str, bytes] = {}
        for full, content in found.items():
            if isinstance(content, FileNotFoundError):
                continue
            if isinstance(content, Exception):
                raise OSError(f"{type(content).__name__}: {content}") from content
            contents[wanted[full]] = content
        return contents

    def open_parquet(self, path: str) -> Any:
        """The content as an Arrow buffer."""
        import pyarrow as pa

        with _client_errors():
            return pa.py_buffer(self.filesystem.cat_file(self._full(path)))

    def open_many(self, paths: Iterable[str]) -> Iterator[tuple[str, Any]]:
        """The contents, fetched in groups so that they need not all fit at once."""
        import pyarrow as pa

        remaining = list(paths)
        for start in range(0, len(remaining), 32):
            group = self.read_many(remaining[start : start + 32])
            for path in remaining[start : start + 32]:
                if path in group:
                    yield path, pa.py_buffer(group.pop(path))

    def entries(self, folder: str) -> tuple[list[str], list[str]]:
        """Names of "folders" (common prefixes) and objects."""
        full = self._full(folder)
        try:
            with _client_errors():
                found = self.filesystem.ls(full, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return [], []
        names: dict[str, list[str]] = {"directory": [], "file": []}
        for entry in found:
            if name := entry["name"].rstrip("/")[len(full) :].strip("/"):
                names[entry["type"]].append(name)
        return sorted(names["directory"]), sorted(names["file"])

    def publish(
        self, path: str, write: Writer, pointer: str, describe: Callable[[int], bytes]
    ) -> int:
        """PUT the file, then PUT the pointer; without the second, no reader knows the first."""
        content = _in_memory(write)
        with _client_errors():
            self.filesystem.pipe_file(self._full(path), content)
            self.filesystem.pipe_file(self._full(pointer), describe(len(content)))
        return len(content)

    def replace(self, path: str, content: bytes) -> None:
        """One PUT."""
        with _client_errors():
            self.filesystem.pipe_file(self._full(path), content)

    def create(self, path: str, write: Writer) -> None:
        """One PUT that the store refuses where the name is taken."""
        with _client_errors():
            self.filesystem.pipe_file(self._full(path), _in_memory(write), mode="create")

    def open_footer(self, path: str) -> Any:
        """The end of the object, in a second request only where the footer is a large one."""
        import pyarrow as pa

        with _client_errors():
            end: Any = self.filesystem.cat_file(self._full(path), start=-_FOOTER_BYTES)
            # A Parquet file ends with its footer, the footer's length in 4 bytes, and 4 more.
            if len(end) < (whole := int.from_bytes(end[-8:-4], "little") + 8):
                end = self.filesystem.cat_file(self._full(path), start=-whole)
        return pa.py_buffer(end)

    def unlink(self, path: str) -> None:
        """DELETE."""
        with contextlib.suppress(FileNotFoundError), _client_errors():
            self.filesystem.rm_file(self._full(path))


def _in_memory(write: Writer) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


@contextlib.contextmanager
def _client_errors() -> Iterator[None]:
    """Clients raise their own families (no credentials, no route): one family from here on."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
