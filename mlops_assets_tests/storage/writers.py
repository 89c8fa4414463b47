"""What other processes do to a store while a test watches (module level: forkserver imports it)."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess

import numpy as np
import pandas as pd

# Imported here so that the fork server has them and a writer starts in milliseconds.
import mlops_assets.storage.frames
import mlops_assets.storage.hashing  # noqa: F401
from mlops_assets.storage import Snapshot, SnapshotStore
from mlops_assets_tests.forks import forks

ASSET = ("power_price", "features")


def start(target: object, *arguments: object) -> ForkServerProcess:
    process = forks().Process(target=target, args=arguments, daemon=True)  # pyright: ignore[reportArgumentType] (any function of this module)
    process.start()
    return process


def marked(partition: int, mark: int, rows: int = 500) -> pd.DataFrame:
    """A frame of which every row says which partition and which write it is from."""
    return pd.DataFrame(
        {"partition": partition, "mark": mark, "row": np.arange(rows), "text": f"{mark}"}
    )


def write_rounds(root: str, partitions: Sequence[int], marks: Sequence[int]) -> None:
    store = SnapshotStore(root)
    for mark in marks:
        for partition in partitions:
            store.write(ASSET, f"P{partition}", marked(partition, mark))


def rewrite_for_ever(root: str, first_mark: int, rows: int, ready: Connection) -> None:
    store = SnapshotStore(root)
    mark = first_mark
    with tempfile.TemporaryDirectory() as folder:  # the first write imports, which takes longer
        SnapshotStore(folder).write(ASSET, "P0", marked(0, mark, rows))
    ready.send(None)
    while True:
        store.write(ASSET, "P0", marked(0, mark, rows), metadata={"mark": mark})
        mark += 1


def die_at(call: str, ending: str) -> None:
    """From now on, this process is killed when it calls `os.<call>` for a path that ends so."""
    really = getattr(os, call)

    def deadly(*paths: str) -> None:
        if paths[-1].endswith(ending):
            os.kill(os.getpid(), signal.SIGKILL)
        really(*paths)

    setattr(os, call, deadly)


def write_and_die_before_the_pointer(root: str, partition: str, mark: int) -> None:
    die_at("replace", "_current.json")
    SnapshotStore(root).write(ASSET, partition, marked(0, mark))


def remove_and_die_before_the_file_goes(root: str, snapshot: Snapshot) -> None:
    die_at("unlink", f"{snapshot.version}.parquet")
    SnapshotStore(root).remove(snapshot, reason="too old")
