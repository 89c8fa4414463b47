"""A process that holds the code location, and executes one run after another.

The same for headless runs and for Celery's workers. Dagster loads the code location anew for each
run it executes, opens its storage anew and migrates it; a process that stays can do that once.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.gc_pause import gc_paused
from mlops_assets.runtime.dagster_compat import (
    ModuleCodePointer,
    ReconstructableJob,
    ReconstructableRepository,
    core_execute_run,
)
from mlops_assets.runtime.workers.sizes import MEMORY_TAG
from mlops_assets.settings import ONE_THREAD, Settings, load_settings

if TYPE_CHECKING:
    from mlops_assets.runtime.dagster_compat import CodePointer


class _HeldRepository(ReconstructableRepository):
    """The code location of this process, whatever a run says of where it is from.

    A run is recorded with the interpreter and folder of the host that asked for it; this host has
    its own.
    """

    def get_definition(self) -> dg.RepositoryDefinition:
        return repository()


def definitions() -> dg.Definitions:
    """The code location, loaded once; what its runs need is imported with it."""
    return _definitions(load_settings())


def is_loaded() -> bool:
    """Whether this process has the code location."""
    return bool(_definitions.cache_info().currsize)


def repository() -> dg.RepositoryDefinition:
    """The same as Dagster's runs take it."""
    return _repository(load_settings())


@cache
def _definitions(settings: Settings) -> dg.Definitions:
    with gc_paused():
        from mlops_assets.definitions import defs
        from mlops_assets.provenance import warm_up
        from mlops_assets.registry import preload

        # Said once where it is used; a line a run would drown what a person watches.
        warnings.simplefilter("ignore", dg.BetaWarning)
        preload()
        warm_up()
        return defs()


@cache
def _repository(settings: Settings) -> dg.RepositoryDefinition:
    return _definitions(settings).get_repository_def()


def instance() -> dg.DagsterInstance:
    """The Dagster instance of `DAGSTER_HOME`; each process, forked ones too, has its own."""
    return _instance_of(os.getpid())


@cache
def _instance_of(process: int) -> dg.DagsterInstance:
    return dg.DagsterInstance.get()


def create_run(
    job: str,
    assets: Sequence[tuple[str, str]],
    tags: Mapping[str, str],
    config: Mapping[str, Any],
) -> dg.DagsterRun:
    """A run of some assets of a job, to be executed here.

    Args:
        job: its name.
        assets: keys of a part of its assets.
        tags: of the run; its partition is one of them.
        config: of the run.
    """
    definition = _part_of(_Held(repository()), job, frozenset(map(dg.AssetKey, assets)))
    return instance().create_run_for_job(
        job_def=definition,
        asset_selection=definition.asset_selection,
        tags={**definition.run_tags, **tags},
        run_config=dict(config),
    )


def execute_run(run: dg.DagsterRun) -> Iterator[dg.DagsterEvent]:
    """Execute a run that was created, here and now; its events as they come.

    Everything that goes wrong in it is an event and its status; nothing is raised but an interrupt.
    """
    job = ReconstructableJob(_HeldRepository(_pointer(repository())), run.job_name)
    forget_peak()
    try:
        yield from core_execute_run(job, run, instance(), inject_env_vars=False)
    finally:
        note_peak(instance(), run.run_id)


@dataclass(frozen=True, eq=False)
class _Held:
    """A code location as part of a key: it is itself and no other."""

    repository: dg.RepositoryDefinition

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and other.repository is self.repository

    def __hash__(self) -> int:
        return id(self.repository)


@lru_cache(maxsize=64)
def _part_of(held: _Held, job: str, assets: frozenset[dg.AssetKey]) -> dg.JobDefinition:
    """A part of a job; made once, with all that Dagster derives from it."""
    return held.repository.get_maybe_subset_job_def(job, asset_selection=assets)


def _pointer(held: dg.RepositoryDefinition) -> CodePointer:
    """What Dagster keeps definitions by in a process: another code location has another one."""
    return ModuleCodePointer("mlops_assets.definitions", f"held_{id(held)}", None)


def one_thread() -> None:
    """Before anything is computed in this process."""
    for name in ONE_THREAD:
        os.environ[name] = "1"


def forget_peak() -> None:
    """Let the kernel count the most memory of this process from here on (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # another system, or not allowed here: then sizes are learned from time alone
        return


def note_peak(on: dg.DagsterInstance, run_id: str) -> None:
    """Record the most memory this process had during a run, where the system tells."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    on.add_run_tags(run_id, {MEMORY_TAG: f"{float(line.split()[1]) / 1024:.0f}"})
