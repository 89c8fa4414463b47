"""The measurements, one after the other, or the one named: `make bench`.

Ratios are taken within one run, because machines are noisy.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from benchmarks import drift, ingestion, storage, ticks, tuning
from benchmarks.loop import run as loop
from benchmarks.overhead import run as overhead

_LOADING = """
import time
started = time.process_time()
import dagster
imported = time.process_time()
from mlops_assets.definitions import defs
defs().get_repository_def()
print(imported - started, time.process_time() - imported)
"""
_ROUNDS = 5


def loading(arguments: Sequence[str]) -> int:
    """CPU seconds to load the code location, above `import dagster`; the goal is at most 2."""
    argparse.ArgumentParser(description=loading.__doc__).parse_args(arguments)
    command = [sys.executable, "-W", "ignore", "-c", _LOADING]
    rounds = [
        [float(value) for value in subprocess.check_output(command, text=True).split()]
        for _ in range(_ROUNDS)
    ]
    best = min(above for _, above in rounds)
    print(f"loading the code location: {best:.2f} CPU s above import dagster (best of {_ROUNDS})")
    return 0


MEASUREMENTS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "loading": loading,
    "storage": storage.main,
    "ingestion": ingestion.main,
    "tuning": tuning.main,
    "drift": drift.main,
    "ticks": ticks.main,
    "overhead": overhead.main,
}
BY_NAME: Mapping[str, Callable[[Sequence[str]], int]] = {**MEASUREMENTS, "loop": loop.main}
"""With what takes hours, and is only run when it is named."""


def main() -> int:
    """Run from the command line; exit code 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("measurement", nargs="?", choices=BY_NAME, help="default: all")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="of the one named")
    given = parser.parse_args()
    names = [given.measurement] if given.measurement else list(MEASUREMENTS)
    return max(BY_NAME[name](given.options) for name in names)


if __name__ == "__main__":
    sys.exit(main())
