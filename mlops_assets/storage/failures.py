"""How the store says what went wrong: each failure of a file as a StorageError with its way out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar

from mlops_assets.errors import StorageError
from mlops_assets.storage.files import Files
from mlops_assets.storage.records import name_of

_Result = TypeVar("_Result")


class VersionGoneError(StorageError):
    """The version that was current at a moment is no longer stored."""


def reached(files: Files, path: str, call: Callable[[], _Result]) -> _Result:
    """Call the store; FileNotFoundError passes, other failures say what was being reached."""
    try:
        return call()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(
            f"{files.uri(path)} cannot be read: {error}.",
            stored="Nothing was read.",
            way_out="Check that the storage is reachable and readable, then run again.",
            culprits={"uri": files.uri(path)},
        ) from error


@contextlib.contextmanager
def writing(asset: Sequence[str], partition: str | None, *, kept: bool) -> Iterator[None]:
    """Say what a failed write leaves behind; a taken name is the caller's to explain."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise StorageError(
            f"{name_of(asset, partition)} could not be written: {error}.",
            stored="What was stored before is unchanged and whole."
            if kept
            else "Nothing was written.",
            way_out="Make room or repair the storage, then materialize it again.",
            culprits={"asset": tuple(asset), "partition": partition},
        ) from error


@contextlib.contextmanager
def reading_file(
    uri: str, asset: Sequence[str], partition: str | None, name: str
) -> Iterator[None]:
    """Say which file cannot be understood."""
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
        raise damaged(uri, asset, partition, error) from error


def damaged(
    uri: str, asset: Sequence[str], partition: str | None, error: Exception
) -> StorageError:
    """A file that is not what it was when it was written."""
    return StorageError(
        f"{uri} of {name_of(asset, partition)} is damaged: {str(error)[:200]}.",
        stored="Nothing was read or changed.",
        way_out="Restore the file from a backup, or move it away and materialize "
        f"{name_of(asset, partition)} again; `versions` lists the earlier ones.",
        culprits={"asset": tuple(asset), "partition": partition, "uri": uri},
    )


def missing(asset: Sequence[str], partition: str | None, version: str | None) -> StorageError:
    """A version that never was, or a partition without any."""
    which = "no snapshot" if version is None else f"no version {version!r}"
    return StorageError(
        f"There is {which} of {name_of(asset, partition)}.",
        stored="Nothing was read.",
        way_out=f"Materialize {name_of(asset, partition)} first."
        if version is None
        else "`versions` lists those there are.",
        culprits={"asset": tuple(asset), "partition": partition, "version": version},
    )


def not_yet_stored(asset: Sequence[str], partition: str | None, moment: datetime) -> StorageError:
    """Asked for a time before the first version."""
    return StorageError(
        f"At {moment} nothing of {name_of(asset, partition)} was stored yet.",
        stored="Nothing was read.",
        way_out="Ask for a later time; `versions` lists what is stored.",
        culprits={"asset": tuple(asset), "partition": partition, "moment": str(moment)},
    )


def missing_file(uri: str, asset: Sequence[str], partition: str | None) -> StorageError:
    """A version that is named, without its file."""
    name = name_of(asset, partition)
    return StorageError(
        f"{uri}, a version of {name}, is gone.",
        stored="Nothing was read or changed.",
        way_out=f"Restore the file from a backup, or materialize {name} again.",
        culprits={"asset": tuple(asset), "partition": partition, "uri": uri},
    )


def not_removed(
    asset: Sequence[str], partition: str | None, version: str, error: Exception
) -> StorageError:
    """A removal that the place for files did not take."""
    return StorageError(
        f"Version {version} of {name_of(asset, partition)} could not be removed: {error}.",
        stored="Its file is still there, though the log may name it as removed already.",
        way_out="Repair the storage and remove it again.",
        culprits={"asset": tuple(asset), "partition": partition, "version": version},
    )
