"""Putting fetched files into a landing folder: whole or not there, under a name that was free.

Local files are written beside their place and linked or renamed into it; an object store's PUT is
atomic by itself. What is unfinished lies in hidden folders, which listings pass over.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.atomic import settle
from mlops_assets.sources.files.landing import Place, StorageOptions, file_place

SCRATCH = ".pull-"
"""Prefix of folders with unfinished files."""
_LEFT_BEHIND_SECONDS = 24 * 3600
"""Age at which a scratch folder is one that a killed process left."""


@dataclass(frozen=True)
class Pulled:
    """What a pull landed.

    Attributes:
        files: names of new or replaced files, below the landing folder.
        rows: in them; None for fetched files, which nobody has read yet.
        watermark: largest value of the watermark landed so far, as text; None without one. Never
            later than the pull.
        ahead: rows that say they are later than the pull by more than two days.
        unchanged: addresses whose file is the one that was landed before, passwords masked.
    """

    files: tuple[str, ...] = ()
    rows: int | None = None
    watermark: str | None = None
    unchanged: tuple[str, ...] = ()
    ahead: int = 0


@dataclass(frozen=True)
class Landing:
    """A landing folder to write to.

    Attributes:
        uri: folder or object-store prefix; it need not exist.
        storage_options: options of the fsspec file system (endpoint, credentials).
    """

    uri: str
    storage_options: StorageOptions | None = None

    def place(self, name: str) -> Place:
        """Where a file of this name lies, or would."""
        root = file_place(self.uri, self.storage_options)
        return Place(root.fs, f"{root.path.rstrip('/')}/{name}")

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A local folder for unfinished files, removed afterwards; what is left by others, too."""
        root = file_place(self.uri, self.storage_options)
        if root.local:
            os.makedirs(root.path, exist_ok=True)
            _sweep(Path(root.path))
        # In the landing folder itself: only within one file system can a file be moved in one step.
        parent = root.path if root.local else None
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=parent) as folder:
            yield Path(folder)

    def create(self, name: str, file: Path) -> None:
        """Land a finished file under a new name.

        Raises:
            FileExistsError: the name is taken; nothing changed.
        """
        place = self.place(name)
        if not place.local:
            put(place.fs, file, place.path, mode="create")
            return
        settle(str(file), place.path, new=True)

    def replace(self, name: str, file: Path) -> None:
        """Land a finished file; readers see the old one until they see the new one."""
        place = self.place(name)
        if not place.local:
            put(place.fs, file, place.path, mode="overwrite")
            return
        settle(str(file), place.path)

    def read(self, name: str) -> bytes | None:
        """The content of a small file, or None where there is none."""
        place = self.place(name)
        place.fs.invalidate_cache()
        try:
            with place.open() as stream:
                return stream.read()
        except (FileNotFoundError, NotADirectoryError):
            return None


def put(fs: Any, file: Path, path: str, *, mode: str) -> None:
    """Upload in one step; every failure of the store's client arrives as OSError."""
    try:
        fs.put_file(str(file), path, mode=mode)
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _sweep(folder: Path) -> None:
    for left in folder.glob(f"{SCRATCH}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _LEFT_BEHIND_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
