"""How often drift alarms for nothing, how much it finds, and what it costs.

*Chance*, on generated countries of 20 features (16 numbers of falling importance, 4 categories): a
year of reference, then a year in which nothing changes (alarms a country and year: each would be a
training for nothing), and 17 weeks in which the most important feature moves by one standard
deviation after six weeks (share of countries in which an alarm comes within two windows of it; the
grid of windows may add six days). Rows are one a day or 20 a day, independent or remembering the
day before (autocorrelation 0.8; with 20 rows a day a quarter of the variance is the day's), with
and without a yearly season in half of the numbers.

*Cost*, 200 countries x 20 features x 1 million rows in the newest three windows, as snapshots: the
scan of features and predictions with all statistics, states included, against one bare DuckDB
aggregate of the same files (count, mean and deviation of each number by file, count of each
category), in turn; and against Evidently on some of the same countries, in an environment that is
made for it in a temporary folder. Both are given clear cases: features moved by a deviation, and
features left alone.

    python -m benchmarks drift [--countries 60] [--rounds 5] [--no-evidently]

`EVIDENTLY_PYTHON` names a Python that has it already.

Printed, and kept in `benchmarks/results/drift.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlops_assets.components.loading import load_product
from mlops_assets.ml.monitoring.drift import (
    Reference,
    Window,
    compare_all,
    compare_window,
    make_reference,
    profile,
    state_of,
    window_ends,
    window_rows,
)
from mlops_assets.settings import PROJECT_ROOT
from mlops_assets.spec import MonitoringSpec, ProductSpec
from mlops_assets.storage import SnapshotStore
from mlops_assets.storage.profiles import ProfileRequest, window_profiles

RESULTS = Path(__file__).parent / "results" / "drift.json"
EVIDENTLY = "evidently==0.7.23"
BESIDE = "pandas<3"
"""What that version needs and does not say."""
NUMBERS = tuple(f"number_{place:02d}" for place in range(16))
CATEGORIES = tuple(f"category_{place}" for place in range(4))
IMPORTANCE = {n: 0.75**place for place, n in enumerate(NUMBERS)} | dict.fromkeys(CATEGORIES, 0.1)
ALIKE = dict.fromkeys((*NUMBERS, *CATEGORIES), 1.0)
YEAR, CHANGED_AFTER, CHANGED_FOR = 365, 42, 77
START = pd.Timestamp("2021-01-01")
COUNTRIES, ROWS_OF_COUNTRY = 200, 5_000
CLEAR = 20
"""Countries that are judged by Evidently, too."""
MOVED = 5
"""Of every second country: so many numbers moved by a deviation."""
GOAL_FALSE, GOAL_FOUND, GOAL_SCAN, GOAL_EVIDENTLY = 1.0, 0.95, 3.0, 50.0


@dataclass(frozen=True)
class World:
    """What generated countries are like.

    Attributes:
        a_day: rows a day.
        memory: autocorrelation of neighbouring days.
        season: height of a yearly wave in every second number, in standard deviations.
    """

    a_day: int
    memory: float
    season: float

    @property
    def name(self) -> str:
        """In words."""
        rows = "1 row a day" if self.a_day == 1 else f"{self.a_day} rows a day"
        season = f", season of {self.season:g}" if self.season else ""
        return f"{rows}, autocorrelation {self.memory:g}{season}"


WORLDS = tuple(
    World(a_day, memory, season)
    for a_day in (1, 20)
    for memory, season in ((0.0, 0.0), (0.8, 0.0), (0.0, 1.0))
)


def spec_of() -> ProductSpec:
    """A product as it is watched by default."""
    product = load_product(PROJECT_ROOT / "mlops_assets" / "defs" / "power_price")
    return product.spec.model_copy(update={"monitoring": MonitoringSpec()})


def rows_of(rng: np.random.Generator, world: World, days: int, moved: float = 0.0) -> pd.DataFrame:
    """A country's rows; the most important number moves after the reference and six weeks."""
    day = np.repeat(np.arange(days), world.a_day)
    columns: dict[str, Any] = {}
    for place, name in enumerate(NUMBERS):
        values = _number(rng, world, days)
        if place % 2 == 0:
            values = values + world.season * np.sin(2 * np.pi * day / 365.25 + place)
        if moved and place == 0:
            learned = values[: YEAR * world.a_day].std()
            values = values + np.where(day >= YEAR + CHANGED_AFTER, moved * learned, 0.0)
        columns[name] = values
    for name in CATEGORIES:
        columns[name] = rng.choice(["a", "b", "c", "d"], len(day), p=[0.4, 0.3, 0.2, 0.1])
    return pd.DataFrame({"event_time": START + pd.to_timedelta(day, "D"), **columns})


def _number(rng: np.random.Generator, world: World, days: int) -> np.ndarray:
    own = _remembering(rng, days, world.memory)
    if world.a_day == 1:
        return own
    size = days * world.a_day
    if not world.memory:
        return rng.normal(size=size)
    return 0.5 * np.repeat(own, world.a_day) + np.sqrt(0.75) * rng.normal(size=size)


def _remembering(rng: np.random.Generator, days: int, memory: float) -> np.ndarray:
    """An autoregressive process of the first order with variance 1."""
    from scipy.signal import lfilter

    shocks = rng.normal(size=days + 200) * np.sqrt(1 - memory**2)
    return np.asarray(lfilter([1.0], [1.0, -memory], shocks))[200:]


def predicted(rows: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """What a model would predict that uses every number by its importance."""
    known = [IMPORTANCE[name] * rows[name].to_numpy() for name in NUMBERS]
    return np.sum(known, axis=0) + rng.normal(size=len(rows))


def states_of(
    spec: ProductSpec, rng: np.random.Generator, world: World, days: int, *, moved: float = 0.0
) -> list[tuple[pd.Timestamp, str]]:
    """End and state of a country week by week."""
    rows = rows_of(rng, world, days, moved)
    values = pd.Series(predicted(rows, rng))
    learned = YEAR * world.a_day
    features = rows.assign(entity="", label_time=rows["event_time"], label=0.0)
    reference = make_reference(
        spec, features.head(learned), values.head(learned).to_numpy(), IMPORTANCE
    )
    new = features.iloc[learned:]
    windows: list[Window] = []
    states: list[tuple[pd.Timestamp, str]] = []
    for end in window_ends(spec, new["event_time"].max(), 60):
        if end <= reference.last:
            continue
        own = window_rows(spec, reference, new, end)
        windows.append(
            compare_window(spec, reference, profile(reference, own, values[own.index], end))
        )
        if windows[-1].judged:
            states.append((end, state_of(spec, windows).state))
    return states


def alarms_of(states: Sequence[tuple[pd.Timestamp, str]]) -> int:
    """How often an alarm began."""
    names = ["quiet", *(state for _, state in states)]
    return sum(now == "alarm" and before != "alarm" for before, now in pairwise(names))


def chance(spec: ProductSpec, world: World, countries: int) -> dict[str, float]:
    """Alarms a country and year without a change, and share of changes that are found."""
    rng = np.random.default_rng(11)
    alarms = weeks = found = 0
    for _ in range(countries):
        states = states_of(spec, rng, world, 2 * YEAR)
        alarms, weeks = alarms + alarms_of(states), weeks + len(states)
    changed = START + pd.Timedelta(days=YEAR + CHANGED_AFTER)
    every = pd.Timedelta(days=spec.monitoring.every_days - 1)
    latest = changed + 2 * pd.Timedelta(days=spec.monitoring.window_days) + every
    for _ in range(countries):
        days = YEAR + CHANGED_AFTER + CHANGED_FOR
        states = states_of(spec, rng, world, days, moved=1.0)
        found += any(s == "alarm" and changed < end <= latest for end, s in states)
    return {"alarms_a_year": alarms / (weeks / 52.18), "found": found / countries}


@dataclass(frozen=True)
class Countries:
    """The countries of the measurement of cost."""

    spec: ProductSpec
    store: SnapshotStore
    asked: Mapping[str, ProfileRequest]
    learned: Mapping[str, pd.DataFrame]


def make_countries(folder: Path) -> Countries:
    """A million rows in three windows, a country a snapshot, with references."""
    spec, store = spec_of(), SnapshotStore(str(folder / "store"))
    watched, asked, frames = spec.monitoring, {}, {}
    days = watched.window_days + 2 * watched.every_days
    ends = tuple(window_ends(spec, pd.Timestamp("2024-03-07"), 3))
    for place in range(COUNTRIES):
        rng = np.random.default_rng([5, place])
        name = f"C{place:03d}"
        learned = _spread(rng, START, YEAR, ROWS_OF_COUNTRY)
        new = _spread(rng, ends[-1] - pd.Timedelta(days=days), days, ROWS_OF_COUNTRY)
        if place < CLEAR and place % 2:
            new[list(NUMBERS[:MOVED])] += 1.0
        frames[name] = learned
        reference = make_reference(spec, learned, predicted(learned, rng), ALIKE)
        own = new[["entity", "event_time"]].assign(prediction=predicted(new, rng))
        asked[name] = ProfileRequest(
            reference,
            store.write(("bench", "features"), name, new).snapshot,
            store.write(("bench", "predictions"), name, own).snapshot,
            ends,
            pd.Timedelta(days=watched.window_days),
        )
    return Countries(spec, store, asked, frames)


def _spread(rng: np.random.Generator, start: pd.Timestamp, days: int, rows: int) -> pd.DataFrame:
    """Rows at any second of the days, in order."""
    event = start + pd.to_timedelta(np.sort(rng.integers(0, days * 86_400, rows)), "s")
    numbers = {name: rng.normal(size=rows) for name in NUMBERS}
    texts = {
        name: rng.choice(["a", "b", "c", "d"], rows, p=[0.4, 0.3, 0.2, 0.1]) for name in CATEGORIES
    }
    keys = {"entity": [str(each) for each in range(rows)], "event_time": event}
    return pd.DataFrame({**keys, "label_time": event, "label": 0.0, **numbers, **texts})


def bare_scan(countries: Countries) -> Callable[[], object]:
    """One aggregate of all files by file."""
    import duckdb

    files = ", ".join(f"'{each.features.uri}'" for each in countries.asked.values())
    numbers = ", ".join(f"avg({name}), stddev_pop({name})" for name in NUMBERS)
    texts = ", ".join(f"count({name})" for name in CATEGORIES)
    query = (
        f"select filename, count(*), {numbers}, {texts} "
        f"from read_parquet([{files}], filename=true) group by all"
    )

    def run() -> object:
        with duckdb.connect() as connection:
            return connection.sql(query).fetchall()

    return run


def drift_of(countries: Countries) -> dict[str, tuple[str, tuple[Window, ...]]]:
    """State and windows of every country."""
    profiles = window_profiles(countries.store, countries.asked)
    found: dict[str, tuple[str, tuple[Window, ...]]] = {}
    for name, each in profiles.items():
        reference: Reference = countries.asked[name].reference
        windows = tuple(compare_all(countries.spec, reference, each))
        found[name] = state_of(countries.spec, windows).state, windows
    return found


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def cost(countries: Countries, rounds: int) -> dict[str, float]:
    """Medians, and the median of the ratios of pairs that ran one after the other."""
    bare = bare_scan(countries)

    def ours() -> object:
        return drift_of(countries)

    for work in (bare, ours):
        work()
    pairs = [(timed(bare), timed(ours)) for _ in range(rounds)]

    def middle(values: Sequence[float]) -> float:
        return statistics.median(values)

    return {
        "rows": float(COUNTRIES * ROWS_OF_COUNTRY),
        "bare_seconds": middle([b[0] for b, _ in pairs]),
        "bare_cpu_seconds": middle([b[1] for b, _ in pairs]),
        "drift_seconds": middle([d[0] for _, d in pairs]),
        "drift_cpu_seconds": middle([d[1] for _, d in pairs]),
        "time_ratio": middle([d[0] / b[0] for b, d in pairs]),
        "cpu_ratio": middle([d[1] / b[1] for b, d in pairs]),
    }


def evidently(countries: Countries, folder: Path, ours: Mapping[str, float]) -> dict[str, Any]:
    """Evidently on the clear countries: seconds, seconds by row against ours, and verdicts."""
    names = list(countries.asked)[:CLEAR]
    columns = [*NUMBERS, *CATEGORIES]
    for name in names:
        snapshot = countries.asked[name].features
        current = countries.store.read(snapshot.asset, name)
        current[columns].to_parquet(folder / f"{name}.current.parquet")
        countries.learned[name][columns].to_parquet(folder / f"{name}.reference.parquet")
    told = subprocess.check_output(
        [
            *(_environment(folder), str(Path(__file__).with_name("evidently_drift.py"))),
            *(str(folder), ",".join(names)),
        ],
        text=True,
        env={**os.environ, "DO_NOT_TRACK": "1"},
    )
    found = json.loads(told.splitlines()[-1])
    looked = drift_of(countries)
    same = judged = 0
    for name in names:
        newest = {each.feature: each for each in looked[name][1][-1].features}
        for column in columns:
            judged += 1
            same += found["verdicts"][name].get(column) == newest[column].matters
    a_row = found["seconds"] / found["rows"], found["cpu_seconds"] / found["rows"]
    return {
        "version": EVIDENTLY,
        "rows": found["rows"],
        "seconds": found["seconds"],
        "cpu_seconds": found["cpu_seconds"],
        "times_slower": a_row[0] / (ours["drift_seconds"] / ours["rows"]),
        "times_slower_cpu": a_row[1] / (ours["drift_cpu_seconds"] / ours["rows"]),
        "columns_judged": judged,
        "same_verdicts": same,
        "alarms": [name for name in names if looked[name][0] == "alarm"],
    }


def _environment(folder: Path) -> str:
    """Python of an environment with Evidently, which is in no lock of ours."""
    made = os.environ.get("EVIDENTLY_PYTHON")
    if made:
        return made
    home = folder / "evidently"
    venv.create(home, with_pip=True)
    python = str(home / "bin" / "python")
    subprocess.check_call([python, "-m", "pip", "install", "-q", EVIDENTLY, BESIDE])
    return python


def _tell(found: Mapping[str, Any]) -> None:
    for name, each in found["chance"].items():
        print(f"{name:45s} alarms a year {each['alarms_a_year']:.2f}, found {each['found']:.0%}")
    spent = found["cost"]
    print(
        f"{spent['rows']:,.0f} rows: {spent['drift_seconds']:.2f} s, bare scan "
        f"{spent['bare_seconds']:.2f} s; ratio {spent['time_ratio']:.2f} "
        f"(processor {spent['cpu_ratio']:.2f}, goal {GOAL_SCAN:g})"
    )
    other = found.get("evidently")
    if other:
        print(
            f"{other['version']}: {other['seconds']:.1f} s for {other['rows']:,} rows, "
            f"{other['times_slower']:.0f} times slower by row; "
            f"{other['same_verdicts']} of {other['columns_judged']} verdicts the same"
        )


def _good(found: Mapping[str, Any]) -> bool:
    """Whether every goal is kept; a shift is to be found where days do not remember others."""
    false = max(each["alarms_a_year"] for each in found["chance"].values())
    plain = [w.name for w in WORLDS if not w.memory and not w.season]
    least = min(found["chance"][name]["found"] for name in plain)
    other = found.get("evidently")
    slower = other is None or other["times_slower"] >= GOAL_EVIDENTLY
    kept = found["cost"]["cpu_ratio"] <= GOAL_SCAN
    return false <= GOAL_FALSE and least >= GOAL_FOUND and kept and slower


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; exit code 1 if a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--countries", type=int, default=60, help="of each generated world")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-evidently", action="store_true", help="it is installed for the run")
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {"countries": options.countries}
    with tempfile.TemporaryDirectory() as folder:
        countries = make_countries(Path(folder))
        found["cost"] = cost(countries, options.rounds)
        if not options.no_evidently:
            found["evidently"] = evidently(countries, Path(folder), found["cost"])
    spec = spec_of()
    found["chance"] = {world.name: chance(spec, world, options.countries) for world in WORLDS}
    _tell(found)
    if not options.no_evidently:
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if _good(found) else 1


if __name__ == "__main__":
    sys.exit(main())
