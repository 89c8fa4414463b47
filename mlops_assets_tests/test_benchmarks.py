from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from benchmarks.ingestion import KINDS, SEED, World, floor, ingestion, validated
from benchmarks.orders.sample import write_orders
from mlops_assets.storage import SnapshotStore

ROWS = 6_000


@pytest.fixture
def worlds(tmp_path: Path) -> dict[str, World]:
    found = {kind: World(tmp_path, kind) for kind in KINDS}
    for world in found.values():
        world.landing.mkdir(parents=True)
    write_orders(**{kind: world.file for kind, world in found.items()}, rows=ROWS, seed=SEED)
    for world in found.values():
        os.utime(world.file, (0, 0))
    return found


def test_floor_ingestion_and_validation_handle_every_generated_row(
    worlds: dict[str, World],
) -> None:
    for world in worlds.values():
        assert floor(world)().rows == ROWS
        assert ingestion(world)().rows == ROWS
        counted = f"SELECT count(*) FROM '{world.file}' WHERE country = 'C07'"
        assert [(validated(world, "C07").rows,)] == duckdb.execute(counted).fetchall()


def test_what_is_validated_does_not_depend_on_the_format_it_came_in(
    worlds: dict[str, World],
) -> None:
    for world in worlds.values():
        ingestion(world)()
        validated(world, "C07")
    stores = [SnapshotStore(str(world.store)) for world in worlds.values()]
    made = [store.current(("orders", "validated"), "C07") for store in stores]
    assert len({snapshot and snapshot.content_hash for snapshot in made}) == 1


def test_the_same_seed_gives_the_same_rows(worlds: dict[str, World], tmp_path: Path) -> None:
    again, other = tmp_path / "again.parquet", tmp_path / "other.parquet"
    for file, seed in ((again, SEED), (other, SEED + 1)):
        write_orders(parquet=file, csv=file.with_suffix(".csv"), rows=ROWS, seed=seed)
    first = pq.read_table(worlds["parquet"].file)
    assert pq.read_table(again).equals(first)
    assert not pq.read_table(other).equals(first)
    assert [first.column(name).null_count > 0 for name in ("share", "age", "note")] == [True] * 3


def test_the_allocator_of_arrow_is_chosen_unless_a_person_did() -> None:
    code = "import mlops_assets, pyarrow as p; print(p.default_memory_pool().backend_name)"
    name = "ARROW_DEFAULT_MEMORY_POOL"
    plain = {key: value for key, value in os.environ.items() if key != name}
    cases = (
        (plain, "system", f"import dagster, {code.removeprefix('import ')}"),  # loaded before
        ({**plain, name: "mimalloc"}, "mimalloc", code),
    )
    for environment, expected, program in cases:
        command = [sys.executable, "-W", "ignore", "-c", program]
        assert subprocess.check_output(command, env=environment, text=True).strip() == expected
