"""What the platform costs beside a plain script that does the same work.

Cases, each on a fresh home with one delivered file of daily prices, for each number of countries:

- *floor*: `benchmarks/overhead/floor.py`, one process without Dagster; its docstring says what of
  the platform's work it leaves out;
- *floor_parallel*: the same with its loops over countries in as many processes as cores;
- *headless*: `mlops-assets materialize power_price --all`;
- *ui*: `mlops-assets up`, and what an operator does in the browser, by GraphQL; from the first
  launch, with the services idle, to the end of the last backfill;
- *default*: the same under `dagster dev` with Dagster's default launcher and executor, measured
  with few countries for the first number and scaled for each.

All cases of one number of countries are measured in turn, and the floor once more at the end (not
with 200), so that a machine that changes its speed is seen. Printed, and kept in
`benchmarks/results/latest.json` (medians). Exit code 1 if a case did not do the floor's work: a
country is lost or its predictions are other ones.

    python -m benchmarks overhead [--countries 8 31 200] [--cases floor headless ui default]
        [--data FOLDER] [--default-countries 3] [--repeats N]
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.overhead import commands, report, served, world
from benchmarks.overhead.measured import Measured, differing
from benchmarks.overhead.report import Row
from benchmarks.overhead.world import Source, World

CASES = ("floor", "floor_parallel", "headless", "ui", "default")
COUNTRIES = (8, 31, 200)
_ONCE_FROM = 100
"""So many countries are measured once, the floor too; fewer twice, the floor three times."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        source: the delivered rows.
        numbers: of countries, in the order in which they are measured.
        cases: names, in the order in which they are measured.
        repeats: of each; None: by the number of countries.
        default_countries: with so many the case `default` is measured.
        root: folder for the homes.
        defaults: what `default` took, which is scaled for each number of countries.
    """

    source: Source
    numbers: tuple[int, ...]
    cases: tuple[str, ...]
    repeats: int | None
    default_countries: int
    root: Path
    defaults: list[Measured] = field(default_factory=list)


@dataclass
class Found:
    """All runs of one number of countries.

    Attributes:
        runs: by case.
        problems: by case: what did not do the floor's work.
    """

    runs: dict[str, list[Measured]] = field(default_factory=lambda: defaultdict(list))
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def main(arguments: Sequence[str]) -> int:
    """Run from the command line; exit code 1 if a case did not do the floor's work."""
    given = _arguments(arguments)
    with _to_be_stopped(), tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        plan = Plan(
            world.source(given.data),
            tuple(given.countries),
            tuple(case for case in CASES if case in given.cases or case == "floor"),
            given.repeats,
            given.default_countries,
            Path(folder),
        )
        rows: list[Row] = []
        for number in plan.numbers:
            found = _measure(plan, number)
            rows += report.rows_of(
                number, found.runs, found.problems, world.told(plan.source, number)
            )
            report.write(rows)
    report.show(rows)
    return int(any(row.problems for row in rows))


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks overhead", description=__doc__)
    parser.add_argument("--countries", type=int, nargs="+", default=list(COUNTRIES))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--data", type=Path, help="folder of the published file; else generated")
    parser.add_argument("--default-countries", type=int, default=3)
    parser.add_argument("--repeats", type=int)
    return parser.parse_args(arguments)


@contextmanager
def _to_be_stopped() -> Iterator[None]:
    """A request to end is taken like Ctrl-C, so that everything is cleared up."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _measure(plan: Plan, number: int) -> Found:
    """Every case in turn, as often as planned, and of few countries the floor once more."""
    repeats = plan.repeats or (1 if number >= _ONCE_FROM else 2)
    found = Found()
    first = _floor(plan, number, "floor-first", found)
    for again in range(repeats):
        for case in plan.cases:
            if case == "floor":
                if again:
                    shutil.rmtree(_floor(plan, number, f"floor-{again}", found).home)
            else:
                _run(plan, number, case, first, found=found)
    if number < _ONCE_FROM:
        shutil.rmtree(_floor(plan, number, "floor-last", found).home)
    shutil.rmtree(first.home)
    return found


def _floor(plan: Plan, number: int, name: str, found: Found) -> World:
    home = world.make(plan.root / name, plan.source, number)
    _note(found, "floor", number, commands.floor(home))
    return home


def _run(plan: Plan, number: int, case: str, first: World, *, found: Found) -> None:
    few = plan.default_countries if case == "default" else number
    if case == "default" and number != plan.numbers[0]:
        for measured in plan.defaults:
            _note(found, case, number, served.scaled(measured, few, number))
        return
    home = world.make(plan.root / case, plan.source, few)
    work: Mapping[str, Callable[[World], Measured]] = {
        "floor_parallel": lambda each: commands.floor_parallel(each, report.cores()),
        "headless": commands.headless,
        "ui": served.ui,
        "default": served.default,
    }
    try:
        measured = work[case](home)
        found.problems[case] += _problems(case, measured, home, first, found=found)
        if case == "default":
            plan.defaults.append(measured)
            measured = served.scaled(measured, few, number)
        _note(found, case, number, measured)
    finally:
        _remove(home)


def _problems(
    case: str, measured: Measured, home: World, first: World, *, found: Found
) -> list[str]:
    """How the case did other work than the floor."""
    told = [f"{name}: {'; '.join(why)}" for name, why in measured.failures.items()]
    if case == "headless":
        stopped = set(measured.extra["fallback"])
        told = [each for each in told if each.partition(":")[0] not in stopped]
    elif runs := found.runs.get("headless"):
        told = [each for each in told if each.partition(":")[0] not in runs[0].failures]
    if case not in ("headless", "ui"):
        return told
    unlike = differing(home, first)
    print(f"  predictions of {len(home.countries) - len(unlike)} countries are those of the floor")
    return told + [f"{country}: {why}" for country, why in unlike.items()]


def _note(found: Found, case: str, number: int, measured: Measured) -> None:
    found.runs[case].append(measured)
    print(
        f"{number} countries, {case}: {measured.cpu_s:.1f} CPU s, {measured.wall_s:.1f} s, "
        f"{measured.peak_rss_mb:.0f} MB",
        flush=True,
    )


def _remove(home: World) -> None:
    """Keep the homes of cases that are looked at by hand: OVERHEAD_KEEP=folder."""
    if keep := os.environ.get("OVERHEAD_KEEP"):
        shutil.copytree(home.home, Path(keep) / home.home.name, dirs_exist_ok=True)
    shutil.rmtree(home.home)
