"""The floor: what a plain script would take for the same work.

One process without Dagster calls the functions of `ml/` in the order of the platform, on the same
file, with the same calls of MLflow, and writes plain Parquet. Pooled models stay in memory.

What it does not do, and the platform does:

- a run, its events and its checks for each country, whose history is shown in the UI;
- isolation: here the first country that fails ends the script; no rerun goes on where it stopped;
- snapshots: content hashes, versions that are kept, pointers, flushing to disk, logs of decisions
  and restatements; the inventory and ledger of delivered files; one file per country is replaced;
- fingerprints of code, config and inputs, by which nothing is made twice, and the records by which
  a model can be made again (`lineage.json`, tags of libraries and code);
- loading the registered model in an isolated process, row by row and as a whole: the model in
memory is
  timed once, and the gate is taken as passed;
- a look for a champion that is there already, and checking that the registry names the new one;
- reading back: models from the registry with their digests and types checked, snapshots of the
  step before, the report and the errors a version was registered with;
- checks of volume, freshness, null shares, limits and restated history;
- pages for people in the UI: previews, schemas, tables and plots in Dagster's database, realised
  error by period and by slice.

    python -m benchmarks.overhead.floor HOME [--processes 1]

Prints JSON: CPU seconds by part, countries with a model, and those the baseline serves.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import pickle
import resource
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.overhead.clock import Clock

_AT_NEED = ("mlflow.sklearn", "sklearn.ensemble", "skops.io", "pandera.pandas")
"""What the functions of the floor import at need, and no part should be charged with."""

Work = Callable[[Any, str, Any, Any], Any]
Loop = Callable[[Work, Mapping[str, Any], Any], dict[str, Any]]


@dataclass(frozen=True)
class Imported:
    """The modules of the floor, imported while the clock runs."""

    place: Any
    datasets: Any
    training: Any
    serving: Any


def main(arguments: Sequence[str]) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args(arguments)
    with _looping(given.home, given.processes) as (place, loop, seconds):
        outcome = _whole(place, loop)
    assert "dagster" not in sys.modules, "the floor is to be without Dagster"
    print(json.dumps({"parts": _parts(place.clock, seconds, given.processes), **outcome}))
    return 0


def _parts(clock: Clock, elsewhere: dict[str, float], processes: int) -> dict[str, float]:
    parts = _sum(elsewhere, clock.read())
    if processes == 1:  # else the pool is among the children
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        parts["mlflow database, made by a process"] = used.ru_utime + used.ru_stime
    return {name: round(seconds, 2) for name, seconds in parts.items()}


def _whole(place: Any, loop: Loop) -> dict[str, Any]:
    """All phases; countries by who serves them."""
    modules = _imported(place.clock)
    with place.clock.part("mlflow"):
        place.registry.initialise()
    raw = modules.datasets.delivered(place)
    records = loop(_validate, raw, None)
    shared = modules.datasets.shared(place, records)
    frames = loop(_features, records, shared)
    pooled = modules.training.pooled(place, frames)
    serves = loop(_country, frames, pooled)
    return {
        "model": sorted(country for country, does in serves.items() if does),
        "baseline": sorted(country for country, does in serves.items() if not does),
    }


def _validate(place: Any, country: str, rows: Any, _: Any) -> Any:
    return _imported(place.clock).datasets.validated(place, country, rows)


def _features(place: Any, country: str, rows: Any, shared: Any) -> Any:
    return _imported(place.clock).datasets.features(place, country, rows, shared)


def _country(place: Any, country: str, features: Any, pooled: Any) -> bool:
    modules = _imported(place.clock)
    trained = modules.training.train(place, country, features, pooled)
    modules.serving.serve(place, country, features, trained)
    return trained.serves


def _imported(clock: Clock) -> Imported:
    with clock.part("imports"):
        for name in _AT_NEED:
            importlib.import_module(name)
        from benchmarks.overhead import datasets, place, serving, training
    return Imported(place, datasets, training, serving)


@contextmanager
def _looping(home: Path, processes: int) -> Iterator[tuple[Any, Loop, dict[str, float]]]:
    """The place, how to loop over countries, and the seconds of other processes by part."""
    clock = Clock()
    with clock.part("imports"):
        from benchmarks.overhead.place import Place
    place, elsewhere = Place(home, clock), defaultdict[str, float](float)
    if processes == 1:
        yield place, _one_by_one(place), elsewhere
        return
    _imported(clock)  # before the fork, and nothing computed: no library has threads at work yet
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork")) as pool:
        pool.submit(os.getpid).result()
        yield place, _side_by_side(place, pool, elsewhere), elsewhere


def _one_by_one(place: Any) -> Loop:
    def loop(work: Work, of: Mapping[str, Any], common: Any) -> dict[str, Any]:
        return {country: work(place, country, each, common) for country, each in of.items()}

    return loop


def _side_by_side(place: Any, pool: ProcessPoolExecutor, elsewhere: dict[str, float]) -> Loop:
    """What is the same for all countries travels once, as a file."""

    def loop(work: Work, of: Mapping[str, Any], common: Any) -> dict[str, Any]:
        file = place.home / f"{work.__name__}.pickle"
        file.write_bytes(pickle.dumps(common))
        waiting = {
            country: pool.submit(_elsewhere, work, place.home, country, each, file=file)
            for country, each in of.items()
        }
        found = {}
        for country, each in waiting.items():
            found[country], seconds = each.result()
            elsewhere.update(_sum(elsewhere, seconds))
        return found

    return loop


@cache
def _place_here(home: Path) -> Any:
    from benchmarks.overhead.place import Place

    return Place(home, _clock())


@cache
def _clock() -> Clock:
    return Clock()


@cache
def _common(file: Path) -> Any:
    return pickle.loads(file.read_bytes())


def _elsewhere(work: Work, home: Path, country: str, each: Any, *, file: Path) -> Any:
    """Result and CPU seconds by part of one country in a process of the pool."""
    before = _clock().read()
    result = work(_place_here(home), country, each, _common(file))
    after = _clock().read()
    return result, {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}


def _sum(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: one.get(name, 0.0) + other.get(name, 0.0) for name in {**one, **other}}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
