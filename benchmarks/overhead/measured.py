"""What a case took, and what it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.overhead.world import PRODUCT, World

EQUAL = 1e-9
_NUMBERS = ("prediction", "lower", "upper")
_TEXTS = ("entity", "event_time", "made", "model_kind")


@dataclass(frozen=True)
class Measured:
    """One run of one case.

    Attributes:
        cpu_s: of all its processes.
        wall_s: from beginning to end.
        peak_rss_mb: highest resident size of one process; of `ui` and `default` of one that runs
            countries.
        parts: CPU seconds by part or service.
        extra: other figures.
        failures: country: why it did not get through.
    """

    cpu_s: float
    wall_s: float
    peak_rss_mb: float
    parts: Mapping[str, float]
    extra: Mapping[str, Any] = field(default_factory=dict)
    failures: Mapping[str, Sequence[str]] = field(default_factory=dict)


def differing(world: World, floor: World) -> dict[str, str]:
    """Countries whose predictions are not those of the floor up to 1e-9, and why."""
    from mlops_assets.storage import SnapshotStore

    store, found = SnapshotStore(str(world.home / "store")), {}
    for country in world.countries:
        if store.current((PRODUCT, "predictions"), country) is None:
            found[country] = "has no predictions"
            continue
        theirs = store.read((PRODUCT, "predictions"), country)
        ours = pd.read_parquet(floor.home / "floor" / "predictions" / f"{country}.parquet")
        if problem := _difference(theirs, ours):
            found[country] = problem
    return found


def _difference(theirs: pd.DataFrame, ours: pd.DataFrame) -> str:
    if len(theirs) != len(ours):
        return f"{len(theirs)} rows, of the floor {len(ours)}"
    keys = ["entity", "event_time"]
    theirs, ours = (each.sort_values(keys, ignore_index=True) for each in (theirs, ours))
    for name in _TEXTS:
        if (unlike := (theirs[name].to_numpy() != ours[name].to_numpy())).any():
            return f"{name} differs in {unlike.sum()} of {len(ours)} rows"
    for name in _NUMBERS:
        a, b = (each[name].to_numpy("float64") for each in (theirs, ours))
        if (np.isnan(a) != np.isnan(b)).any():
            return f"{name} is missing in other rows"
        largest = np.nanmax(np.abs(a - b) / np.maximum(1.0, np.abs(b)), initial=0.0)
        if largest > EQUAL:
            return f"{name} differs by up to {largest:.2g}"
    return ""
