"""Runs of the same country, or of the same thing of all countries, one after another.

Whoever comes second finds what the first one made, and has nothing to do. Runs of different
countries go on side by side.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from mlops_assets.file_locks import Holder, holding_all
from mlops_assets.stages.common.runs import PARTITION, RANGE_START

_OF_ALL = {
    "pooled": "pooled",
    "pooled_model": "pooled",
    "shared": "shared",
    "shared_features": "shared",
    "ingest": "ingestion",
}
"""Asset or job: the lock of what is one thing of all countries. No country is called like one."""
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

    with holding_all(Path(locks, "runs", product), [what], f"run {run.run_id}", told):
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


def _lock_of(run: dg.DagsterRun) -> tuple[str, str] | None:
    """Product and country, or what a run without a country makes; None: it shares nothing."""
    selected = sorted(run.asset_selection or ())
    product = run.tags.get("product") or (selected[0].path[0] if selected else "")
    if not product:
        return None
    if country := run.tags.get(PARTITION):
        return product, country
    if run.tags.get(RANGE_START):
        return product, "ingestion"
    made = [key.path[-1] for key in selected] or [run.job_name.removeprefix(f"{product}_")]
    return next(((product, _OF_ALL[name]) for name in made if name in _OF_ALL), None)
