"""What ingestion and validation of many rows cost beside one bare DuckDB scan of the same file.

from mlops_assets.stages.common.context import ProductContext
10 million generated rows over 40 countries, 12 columns, as CSV and as Parquet. In turn, each in a
isolated process:

- *floor*: one DuckDB `COPY` from the file to a folder of Parquet files by country, with DuckDB's
  defaults, CSV as text, nothing hashed and nothing flushed to disk;
- *ingestion*: `ingest` as the platform calls it: listing, survey, one scan for all countries,
  where each row came from, content hashes, snapshots flushed to disk;
- *validation*: every country's raw snapshot read, split by a contract of 12 columns and written as
  `validated` and `quarantine`, in as many processes as there are cores.

Seconds are those of the work itself: the platform's processes are warm, so imports do not count.
Memory is the highest resident size, imports included, and for several processes the sum of each
one's highest. Printed, and kept in `benchmarks/results/ingestion.json`: medians, and the median of
the ratios to the floor of the same round, so that a slow moment of the machine hits both. The goals
are for 10 million rows: ingestion at most 2 times the time and 1.5 times the memory of the floor,
validation at most 3 times.

    python -m benchmarks ingestion [--rows 10000000] [--rounds 3] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.orders.sample import write_orders

if TYPE_CHECKING:
    from pandera.pandas import DataFrameModel

    from mlops_assets.product import Product

ROWS = 10_000_000
SEED = 7
KINDS = ("csv", "parquet")
ORDERS = Path(__file__).parent / "orders"
RESULTS = Path(__file__).parent / "results" / "ingestion.json"
_MAXRSS_MB = 2**20 if sys.platform == "darwin" else 2**10


@dataclass(frozen=True)
class Goal:
    """Most that a piece of work may cost, as multiples of the floor."""

    time: float
    memory: float


GOALS: Mapping[str, Goal] = {"ingestion": Goal(2.0, 1.5), "validation": Goal(3.0, 3.0)}


@dataclass(frozen=True)
class Cost:
    """What a piece of work took.

    Attributes:
        process: its id; of several the one that waited for the others.
        rows: that came out.
        seconds: on the clock.
        cpu_seconds: of all processes.
        peak_mb: the highest resident sizes of all processes, added up.
    """

    process: int
    rows: int
    seconds: float
    cpu_seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Figures:
    """Medians of one piece of work on one format, and of its ratios to the floor of its round."""

    format: str
    work: str
    rows: int
    seconds: float
    cpu_seconds: float
    peak_mb: float
    time_ratio: float
    cpu_ratio: float
    memory_ratio: float

    @property
    def good(self) -> bool:
        """Whether the goals are kept; the floor has none."""
        goal = GOALS.get(self.work)
        return goal is None or (self.time_ratio <= goal.time and self.memory_ratio <= goal.memory)


@dataclass(frozen=True)
class World:
    """The folders of a measurement of one format."""

    root: Path
    kind: str

    @property
    def landing(self) -> Path:
        """Holds the one file."""
        return self.root / "landing" / self.kind

    @property
    def file(self) -> Path:
        """The generated rows."""
        return self.landing / f"orders.{self.kind}"

    @property
    def store(self) -> Path:
        """The snapshots."""
        return self.root / "store" / self.kind

    @property
    def floor(self) -> Path:
        """What the bare scan writes."""
        return self.root / "floor" / self.kind


@dataclass(frozen=True)
class Done:
    """Rows that came out of a piece of work, and what other processes took for them."""

    rows: int
    elsewhere: tuple[Cost, ...] = ()


Work = Callable[[], Done]
"""What is timed. Whatever makes one does the imports and clears the place of the last round."""


def floor(world: World) -> Work:
    """One bare scan that writes Parquet by country."""
    import duckdb

    shutil.rmtree(world.floor, ignore_errors=True)
    world.floor.parent.mkdir(parents=True, exist_ok=True)
    reader = {
        "csv": "read_csv('{}', header=true, all_varchar=true)",
        "parquet": "read_parquet('{}')",
    }[world.kind]
    command = (
        f"COPY (SELECT * FROM {reader.format(world.file)}) TO '{world.floor}' "
        "(FORMAT parquet, COMPRESSION zstd, PARTITION_BY (country))"
    )

    def work() -> Done:
        with duckdb.connect() as con:
            con.execute("SET enable_progress_bar = false")
            (written,) = con.execute(command).fetchall()
            return Done(written[0])

    return work


def ingestion(world: World) -> Work:
    """The platform's path from the landing folder to the raw snapshots."""
    from mlops_assets.stages.common.context import ProductContext
    from mlops_assets.stages.datasets.ingestion import ingest
    from mlops_assets.storage import SnapshotStore, frames, hashing  # noqa: F401

    shutil.rmtree(world.store, ignore_errors=True)
    product, store = _product(), SnapshotStore(str(world.store))

    def work() -> Done:
        countries = product.spec.countries
        ingest(ProductContext(product, store), countries, str(world.landing), run_id="benchmark")
        raw = store.current_all((product.name, "raw"), countries)
        return Done(sum(snapshot.rows for snapshot in raw.values()))

    return work


def validation(world: World) -> Work:
    """Every country's raw snapshot split by the contract, in a process a core."""
    cores = os.cpu_count() or 1
    pool = ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), _warm_up)
    list(pool.map(time.sleep, [1.0] * cores))  # all of them have started and imported

    def work() -> Done:
        with pool:
            costs = pool.map(partial(validated, world), _product().spec.countries)
            found = tuple(costs)
        return Done(sum(cost.rows for cost in found), found)

    return work


@cache
def _product() -> Product:
    from mlops_assets.components.loading import load_product

    return load_product(ORDERS)


@cache
def _contract() -> type[DataFrameModel]:
    return _product().contract()


def _warm_up() -> None:
    """What a worker of the platform has done before it gets its first country."""
    import mlops_assets.ml.datasets.validation
    import mlops_assets.storage.frames
    import mlops_assets.storage.hashing  # noqa: F401

    _contract()


def validated(world: World, country: str) -> Cost:
    """One country's way from its raw snapshot to those of `validated` and `quarantine`."""
    from mlops_assets.ml.datasets.validation import validate
    from mlops_assets.storage import SnapshotStore

    product, store = _product(), SnapshotStore(str(world.store))

    def work() -> Done:
        raw = store.read((product.name, "raw"), country)
        result = validate(raw, _contract(), product.spec.source, product.spec.country_names)
        store.write((product.name, "validated"), country, result.accepted)
        store.write((product.name, "quarantine"), country, result.quarantine)
        return Done(len(result.accepted) + len(result.quarantine) + result.duplicates)

    return _cost(work)


def _cost(work: Work) -> Cost:
    cpu, start = time.process_time(), time.perf_counter()
    done = work()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    peaks: dict[int, float] = {}
    for cost in done.elsewhere:
        peaks[cost.process] = max(cost.peak_mb, peaks.get(cost.process, 0.0))
    return Cost(
        process=os.getpid(),
        rows=done.rows,
        seconds=seconds,
        cpu_seconds=cpu_seconds + sum(cost.cpu_seconds for cost in done.elsewhere),
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MAXRSS_MB
        + sum(peaks.values()),
    )


def _in_new_process(prepare: Callable[[World], Work], world: World, rows: int) -> Cost:
    """The cost of work in a process of its own; nobody pays for what others left to be flushed."""
    os.sync()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        cost = pool.submit(_prepared, prepare, world).result()
    if cost.rows != rows:
        raise AssertionError(f"{prepare.__name__} gave {cost.rows:,} of {rows:,} rows")
    return cost


def _prepared(prepare: Callable[[World], Work], world: World) -> Cost:
    return _cost(prepare(world))


def measure(root: Path, rows: int, rounds: int) -> list[Figures]:
    """Generate and measure.

    Args:
        root: an empty folder for about 300 bytes a row.
        rows: to generate, in each format.
        rounds: of floor, ingestion and validation, one after the other; the first one counts too.
    """
    worlds = [World(root, kind) for kind in KINDS]
    for world in worlds:
        world.landing.mkdir(parents=True)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        files = {world.kind: world.file for world in worlds}
        pool.submit(write_orders, **files, rows=rows, seed=SEED).result()
    for world in worlds:
        os.utime(world.file, (0, 0))  # a file just written is waited for, lest it still grow
    return [figures for world in worlds for figures in _measured(world, rows, rounds)]


def _measured(world: World, rows: int, rounds: int) -> Iterator[Figures]:
    costs: dict[str, list[Cost]] = {work.__name__: [] for work in (floor, ingestion, validation)}
    for _ in range(rounds):
        for work in (floor, ingestion, validation):
            costs[work.__name__].append(_in_new_process(work, world, rows))
    for name, found in costs.items():
        yield _figures(world.kind, name, found, costs["floor"])


def _figures(kind: str, work: str, costs: Sequence[Cost], floors: Sequence[Cost]) -> Figures:
    def median(what: Callable[[Cost], float]) -> float:
        return statistics.median(what(cost) for cost in costs)

    def ratio(what: Callable[[Cost], float]) -> float:
        pairs = zip(costs, floors, strict=True)
        return statistics.median(what(cost) / what(floor) for cost, floor in pairs)

    takes = [lambda c: c.seconds, lambda c: c.cpu_seconds, lambda c: c.peak_mb]
    return Figures(kind, work, costs[0].rows, *map(median, takes), *map(ratio, takes))


def report(found: Sequence[Figures]) -> bool:
    """Print the table; whether every goal is kept."""
    print(f"{found[0].rows:,} rows; x: of one bare DuckDB scan writing Parquet by country")
    print(
        f"{'':8} {'':11} {'s':>6} {'CPU s':>6} {'MB':>6} {'time x':>7} {'goal':>5} {'CPU x':>6}"
        f" {'memory x':>9} {'goal':>5}"
    )
    for row in found:
        goal = GOALS.get(row.work)
        time_goal, memory_goal = (f"{goal.time}", f"{goal.memory}") if goal else ("", "")
        print(
            f"{row.format:8} {row.work:11} {row.seconds:6.1f} {row.cpu_seconds:6.1f} "
            f"{row.peak_mb:6.0f} {row.time_ratio:7.2f} {time_goal:>5} {row.cpu_ratio:6.2f} "
            f"{row.memory_ratio:9.2f} {memory_goal:>5}"
        )
    return all(row.good for row in found)


def keep(found: Sequence[Figures], file: Path) -> None:
    """Write the figures as JSON."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; exit code 1 if a goal is missed with all the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: temporary")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = measure(Path(folder), options.rows, options.rounds)
    good = report(found)
    if options.rows < ROWS:
        return 0
    keep(found, RESULTS)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
