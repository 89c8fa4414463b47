"""Local files that are whole or not there: a temporary name, a sync of the disk, a rename."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from typing import BinaryIO

TEMPORARY = ".tmp-"
"""Prefix of files being written; whoever lists a folder passes over names with a dot in front."""

Writer = Callable[[BinaryIO], object]


@contextlib.contextmanager
def temporary(folder: str) -> Iterator[str]:
    """A free name in a folder; whatever is still there under it afterwards is removed."""
    path = f"{folder}/{TEMPORARY}{uuid.uuid4().hex}"
    try:
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(path)


def write_new(path: str, write: Writer) -> int:
    """Write a new file down to the disk, and its folder if need be; its size in bytes.

    Raises:
        FileExistsError: the name is taken; nothing changed.
        OSError: it cannot be written; a part of it may be there.
    """
    try:
        file = open(path, "xb", buffering=1 << 20)  # noqa: SIM115 (closed just below)
    except FileNotFoundError:
        make_folder(os.path.dirname(path))
        file = open(path, "xb", buffering=1 << 20)  # noqa: SIM115
    with file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def replace_file(path: str, write: Writer) -> None:
    """Write a file in the place of the old one, if any; readers see one of the two, whole.

    Raises:
        OSError: it cannot be written; the old one is as it was.
    """
    folder = os.path.dirname(os.path.abspath(path))
    with temporary(folder) as written:
        write_new(written, write)
        os.replace(written, path)
    sync(folder)


def settle(finished: str, path: str, *, new: bool = False) -> None:
    """Give a finished file of the same file system its own name, down to the disk.

    Args:
        finished: where it lies.
        path: where it goes; the folder is made if need be.
        new: whether the name must be free. The file stays under its old name, too, then.

    Raises:
        FileExistsError: the name is taken and has to be free; nothing changed.
    """
    folder = os.path.dirname(os.path.abspath(path))
    sync(finished)
    make_folder(folder)
    # A hard link fails where the name is taken; a rename does not.
    (os.link if new else os.replace)(finished, path)
    sync(folder)


def make_folder(folder: str) -> None:
    """Make a folder and its parents, and sync the parents, or a power cut forgets the folder."""
    missing = []
    while folder and not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
        sync(os.path.dirname(path))


def sync(path: str) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
