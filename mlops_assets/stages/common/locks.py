"""Runs of the same country, or of the same thing of all countries, one after another.

Whoever comes second finds what the first one made, and has nothing to do. Runs of different
countries go on side by side.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg

from mlops_assets.file_locks import (
    Holder,
    Told,
    holder_of,
    holding,
    holding_all,
    is_held,
    lock_file,
)
from mlops_assets.stages.common.runs import PARTITION, RANGE_START

INGESTION = "ingestion"
_OF_ALL = {
    "pooled": "pooled",
    "pooled_model": "pooled",
    "shared": "shared",
    "shared_features": "shared",
    "ingest": INGESTION,
}
"""Asset or job: the lock of what is one thing of all countries. No country is called like one."""
_OF_COUNTRY_WITH_RAW = ("all", "train", "predict")
"""Jobs of a country that take its new files, where a run of one names no assets."""
_NOTHING = "Nothing was moved."


@contextmanager
def alone(locks: str | None, context: dg.InitResourceContext) -> Iterator[None]:
    """Hold the lock of what a run is of until the block ends; its log says who is waited for.

    Args:
        locks: folder of all locks; None: nothing is held.
        context: of a resource; without a run nothing is held.
    """
    run = context.run
    name = _lock_of(run) if run is not None and locks is not None else None
    if run is None or locks is None or name is None:
        yield
        return
    product, what = name

    def told(holder: Holder | None) -> None:
        if context.log is not None:
            context.log.info(f"{product} {what}: waits for {holder or 'another run'}")

    folder, command = Path(locks, "runs", product), f"run {run.run_id}"
    with ExitStack() as held:
        if _takes_files_of_one(run, product):
            # Countries may at once; the ingestion of all, which takes the same files, may not.
            file = lock_file(folder, INGESTION)
            held.enter_context(holding(file, command, told, shared=True))
        held.enter_context(holding_all(folder, [what], command, told))
        yield


@contextmanager
def alone_in(
    locks: str | None, product: str, countries: Sequence[str], context: dg.OpExecutionContext
) -> Iterator[None]:
    """Hold the locks of countries until the block ends, once their runs have ended."""
    if locks is None:
        yield
        return

    def told(holder: Holder | None) -> None:
        context.log.info(f"{product}: waits for {holder or 'another run'}. {_NOTHING}")

    folder = Path(locks, "runs", product)
    with holding_all(folder, list(countries), f"run {context.run_id}", told, why=_NOTHING):
        yield


@contextmanager
def changing(locks: str | None, product: str, context: dg.OpExecutionContext) -> Iterator[None]:
    """Hold the lock of a product's change sets, of which one is open at a time.

    Taken after the locks of countries everywhere, so that no two wait for each other: runs that go
    back in several countries at once follow one another instead of failing.
    """
    if locks is None:
        yield
        return

    def told(holder: Holder | None) -> None:
        context.log.info(f"{product}: a change set waits for {holder or 'another run'}. {_NOTHING}")

    file = lock_file(Path(locks, "changes"), product)
    with holding(file, f"run {context.run_id}", told, why=_NOTHING):
        yield


@contextmanager
def alone_with_raw(
    locks: Path, product: str, countries: Sequence[str], told: Told, *, command: str
) -> Iterator[None]:
    """Hold the locks of countries and that of the ingestion, which comes first everywhere.

    Args:
        locks: folder of all locks.
        product: whose countries.
        countries: of which raw rows are changed by no run.
        told: hears who is waited for.
        command: what the holder is called when others meet the locks.
    """
    folder = Path(locks, "runs", product)
    with (
        holding(lock_file(folder, INGESTION), command, told),
        holding_all(folder, list(countries), command, told),
    ):
        yield


def waited_for(locks: Path, product: str, countries: Sequence[str]) -> dict[str, Holder | None]:
    """Countries that somebody is at just now, and who, as far as that can be known.

    Args:
        locks: folder of all locks.
        product: whose countries.
        countries: that are asked for.
    """
    files = {each: lock_file(Path(locks, "runs", product), each) for each in countries}
    return {each: holder_of(file) for each, file in files.items() if is_held(file)}


def _takes_files_of_one(run: dg.DagsterRun, product: str) -> bool:
    """Whether a run of one country makes its raw rows."""
    if not run.tags.get(PARTITION):
        return False
    if run.asset_selection:
        return any(key.path[-1] == "raw" for key in run.asset_selection)
    return run.job_name.removeprefix(f"{product}_") in _OF_COUNTRY_WITH_RAW


def _lock_of(run: dg.DagsterRun) -> tuple[str, str] | None:
    """Product and country, or what a run without a country makes; None: it shares nothing."""
    selected = sorted(run.asset_selection or ())
    product = run.tags.get("product") or (selected[0].path[0] if selected else "")
    if not product:
        return None
    if country := run.tags.get(PARTITION):
        return product, country
    if run.tags.get(RANGE_START):
        return product, INGESTION
    made = [key.path[-1] for key in selected] or [run.job_name.removeprefix(f"{product}_")]
    return next(((product, _OF_ALL[name]) for name in made if name in _OF_ALL), None)
