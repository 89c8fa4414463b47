"""What a snapshot costs beside a bare Parquet file.

One frame of 1,000 rows x 15 columns of mixed types is written and read through the store (hash,
footer, fsync, pointer, history) and with bare pandas, in turn, so that a slow moment of the machine
hits both. Printed: medians in milliseconds and the median of the ratios of the pairs. The goal is
at most 2.5 for writing, reading and both together.

    python -m benchmarks.storage [--pairs 200] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mlops_assets.storage import SnapshotStore

GOAL = 2.5
ASSET = ("benchmark", "frame")


@dataclass(frozen=True)
class Pair:
    """Seconds of one round: the store's and the bare file's."""

    store_write: float
    bare_write: float
    store_read: float
    bare_read: float


def mixed_frame(rows: int = 1_000, seed: int = 0) -> pd.DataFrame:
    """`rows` x 15: floats, integers, text, categories, bools, nullable types, times."""
    random = np.random.default_rng(seed)
    times = pd.date_range("2024-01-01", periods=rows, freq="h")
    return pd.DataFrame(
        {
            **{f"float_{i}": random.normal(size=rows) for i in range(5)},
            **{f"integer_{i}": random.integers(0, 1_000, rows) for i in range(3)},
            "text": random.choice(["one", "two", "three"], rows),
            "key": [f"entity-{seed}-{i}" for i in range(rows)],
            "category": pd.Categorical(random.choice(["a", "b", "c"], rows)),
            "flag": random.random(rows) > 0.5,
            "nullable": pd.array(random.integers(0, 9, rows), dtype="Int64"),
            "time": times,
            "zoned": times.tz_localize("UTC"),
        }
    )


def measure(folder: Path, pairs: int) -> list[Pair]:
    """Interleaved rounds; every round writes other content, or the store would write nothing."""
    store = SnapshotStore(str(folder / "store"))
    bare = folder / "bare.parquet"
    rounds = []
    for number in range(pairs + 5):
        frame = mixed_frame(seed=number)
        rounds.append(
            Pair(
                _seconds(lambda frame=frame: store.write(ASSET, "DEU", frame)),
                _seconds(lambda frame=frame: frame.to_parquet(bare, compression="zstd")),
                _seconds(lambda: store.read(ASSET, "DEU")),
                _seconds(lambda: pd.read_parquet(bare)),
            )
        )
    return rounds[5:]  # the first ones import and warm up


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def report(rounds: list[Pair]) -> bool:
    """Print the table; whether every ratio keeps the goal."""
    store = {
        "write": [r.store_write for r in rounds],
        "read": [r.store_read for r in rounds],
        "both": [r.store_write + r.store_read for r in rounds],
    }
    bare = {
        "write": [r.bare_write for r in rounds],
        "read": [r.bare_read for r in rounds],
        "both": [r.bare_write + r.bare_read for r in rounds],
    }
    ratios = {
        what: statistics.median(a / b for a, b in zip(store[what], bare[what], strict=True))
        for what in store
    }
    print(f"{'':6} {'store ms':>9} {'bare ms':>9} {'ratio':>6}   (goal {GOAL})")
    for what, ratio in ratios.items():
        ours, theirs = (statistics.median(side[what]) * 1e3 for side in (store, bare))
        print(f"{what:6} {ours:9.2f} {theirs:9.2f} {ratio:6.2f}")
    return all(ratio <= GOAL for ratio in ratios.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; exit code 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: temporary")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        return 0 if report(measure(Path(folder), options.pairs)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
