"""How large a run is: by the YAML, or by what the country's newest runs took."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.spec import ResourcesSpec, Size, SizeClass

if TYPE_CHECKING:
    import dagster as dg

SIZE_TAG = "mlops_assets/size"
MEMORY_TAG = "mlops_assets/peak_memory_mb"
"""Of a run that has ended: the most memory its process had meanwhile, in MiB."""
PARTITION_TAG = "dagster/partition"
_LOOKED_AT = 500
"""Newest successful runs from which sizes are learned."""
_LEARN_AGAIN_SECONDS = 300.0


@dataclass(frozen=True)
class Sized:
    """How large a run is.

    Attributes:
        size: its class.
        given: what a run of that class is given.
        seconds: wall time it is expected to take, whole; 0 where nothing is known.
    """

    size: Size
    given: SizeClass
    seconds: int


@dataclass(frozen=True)
class _Took:
    """What the newest runs of a country took at most."""

    seconds: float = 0.0
    memory_mb: float = 0.0


@dataclass
class Sizes:
    """The sizes of the runs of an instance.

    Args:
        instance: whose runs are looked at.
        defs: folder with one folder a product.
    """

    instance: dg.DagsterInstance
    defs: Path
    _took: Mapping[tuple[str, str], _Took] = field(default_factory=dict)
    _looked: float | None = None
    _specs: dict[Path, tuple[float, ResourcesSpec]] = field(default_factory=dict)

    def of(self, run: dg.DagsterRun) -> Sized:
        """The size of a run that has not begun."""
        product, country = product_of(run), run.tags.get(PARTITION_TAG, "")
        resources = self._resources(product)
        took = self._newest().get((product, country), _Took())
        if country in resources.sizes:
            size = resources.sizes[country]
        elif not country and _is_heavy(run):
            size = resources.whole
        else:
            size = resources.learned(took.seconds, took.memory_mb)
        return Sized(size, resources.of(size), round(took.seconds))

    def _resources(self, product: str) -> ResourcesSpec:
        """The section of the product's YAML as it is now; the defaults where there is none."""
        file = self.defs / product / "defs.yaml"
        if not product or not file.is_file():
            return ResourcesSpec()
        changed = file.stat().st_mtime
        if file not in self._specs or self._specs[file][0] != changed:
            self._specs[file] = (changed, _read(file.parent))
        return self._specs[file][1]

    def _newest(self) -> Mapping[tuple[str, str], _Took]:
        now = time.monotonic()
        if self._looked is None or now - self._looked > _LEARN_AGAIN_SECONDS:
            self._took, self._looked = _learn(self.instance), now
        return self._took


def product_of(run: dg.DagsterRun) -> str:
    """The product a run is of: by its assets, or by its job; "" for one of none."""
    if run.asset_selection:
        return str(min(run.asset_selection).path[0])
    return run.tags.get("product", "")


def _is_heavy(run: dg.DagsterRun) -> bool:
    """Whether a run of all countries does more than take files in."""
    made = {key.path[-1] for key in run.asset_selection or ()}
    return bool(made & {"pooled_model", "shared_features"}) or run.job_name.endswith(
        ("_pooled", "_shared")
    )


def _read(folder: Path) -> ResourcesSpec:
    from mlops_assets.components.loading import load_product
    from mlops_assets.errors import ConfigurationError

    try:
        return load_product(folder).spec.resources
    except ConfigurationError:  # being edited: the code location says what is wrong with it
        return ResourcesSpec()


def _learn(instance: dg.DagsterInstance) -> dict[tuple[str, str], _Took]:
    """The most that the newest runs of each country took."""
    import dagster as dg

    succeeded = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])
    found: dict[tuple[str, str], _Took] = {}
    for record in instance.get_run_records(succeeded, limit=_LOOKED_AT):
        run = record.dagster_run
        country = run.tags.get(PARTITION_TAG, "")
        if record.start_time is None or record.end_time is None:
            continue
        key = (product_of(run), country)
        before = found.get(key, _Took())
        found[key] = _Took(
            max(before.seconds, record.end_time - record.start_time),
            max(before.memory_mb, _megabytes(run.tags.get(MEMORY_TAG, ""))),
        )
    return found


def _megabytes(text: str) -> float:
    """What the tag of a run says; 0 where a person wrote something else."""
    return float(text) if text.replace(".", "", 1).isdecimal() else 0.0
