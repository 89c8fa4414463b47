"""The rows of the result: medians, ratios to the floor, and what they are worth."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.overhead.measured import Measured

RESULTS = Path(__file__).resolve().parents[1] / "results" / "latest.json"
CAPTION = (
    "ratio: CPU seconds of all processes to those of floor, which is one process; wall ratio: to "
    "floor_parallel, which uses as many processes as cores, or to floor where that is faster. ui "
    "and default: from the first launch with idle services to the end of the last backfill; what "
    "the services took to start is beside it."
)
_SCALED = "measured with {few} countries and multiplied: a run of it with all would take hours"


@dataclass(frozen=True)
class Row:
    """One case with one number of countries; figures are medians of its runs.

    Attributes:
        case: its name.
        countries: how many.
        cpu_s: of all processes.
        wall_s: from beginning to end.
        peak_rss_mb: highest resident size of one process.
        ratio_to_floor: of CPU seconds.
        wall_ratio: of wall seconds to those of the faster floor; None without `floor_parallel`.
        scaled: why the figures are not measured as they are; "" when they are.
        cores: there are.
        parts: CPU seconds by part or service, of the last run.
        beyond_floor: CPU seconds more than the floor.
        runs_cpu_s: of each run, in order: how far the machine drifts.
        runs_wall_s: the same of wall seconds.
        extra: other figures, of the last run.
        problems: how it did other work than the floor; then its figures say nothing.
        world: what the countries are.
    """

    case: str
    countries: int
    cpu_s: float
    wall_s: float
    peak_rss_mb: float
    ratio_to_floor: float
    wall_ratio: float | None
    scaled: str
    cores: int
    parts: Mapping[str, float]
    beyond_floor: float
    runs_cpu_s: Sequence[float]
    runs_wall_s: Sequence[float]
    extra: Mapping[str, Any]
    problems: Sequence[str]
    world: str


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


def rows_of(
    countries: int,
    runs: Mapping[str, Sequence[Measured]],
    problems: Mapping[str, Sequence[str]],
    world: str,
) -> list[Row]:
    """One row a case."""
    floor = _median(runs["floor"], "cpu_s")
    beside = _fastest(runs)
    return [
        _row(
            case,
            countries,
            each,
            floor,
            beside=beside,
            problems=problems.get(case, ()),
            world=world,
        )
        for case, each in runs.items()
    ]


def _fastest(runs: Mapping[str, Sequence[Measured]]) -> float | None:
    """Wall seconds of the faster of the two floors: with few countries a pool costs more."""
    if not runs.get("floor_parallel"):
        return None
    return min(_median(runs[case], "wall_s") for case in ("floor", "floor_parallel"))


def _row(
    case: str,
    countries: int,
    runs: Sequence[Measured],
    floor: float,
    *,
    beside: float | None,
    problems: Sequence[str],
    world: str,
) -> Row:
    cpu, wall, last = _median(runs, "cpu_s"), _median(runs, "wall_s"), runs[-1]
    few = last.extra.get("measured_countries", countries)
    return Row(
        case=case,
        countries=countries,
        cpu_s=cpu,
        wall_s=wall,
        peak_rss_mb=_median(runs, "peak_rss_mb"),
        ratio_to_floor=round(cpu / floor, 3),
        wall_ratio=round(wall / beside, 3) if beside else None,
        scaled=_SCALED.format(few=few) if few != countries else "",
        cores=cores(),
        parts=last.parts,
        beyond_floor=round(cpu - floor, 2),
        runs_cpu_s=[each.cpu_s for each in runs],
        runs_wall_s=[each.wall_s for each in runs],
        extra=last.extra,
        problems=list(dict.fromkeys(problems)),
        world=world,
    )


def write(rows: Sequence[Row]) -> None:
    """Keep all rows with the machine they are from."""
    held = {"machine": machine(), "caption": CAPTION, "rows": [asdict(row) for row in rows]}
    RESULTS.write_text(json.dumps(held, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """What the figures are of."""
    names = ("dagster", "mlflow", "scikit-learn", "pandas")
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": cores(),
        "processor": _processor(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def show(rows: Sequence[Row]) -> None:
    """Print the table, parts, and what was not as it should be."""
    head = f"{'case':<15}{'countries':>10}{'CPU s':>9}{'wall s':>9}{'MB':>7}{'ratio':>8}{'wall':>7}"
    print(f"\n{head}")
    for row in rows:
        beside = f"{row.wall_ratio:.2f}" if row.wall_ratio else "-"
        print(
            f"{row.case:<15}{row.countries:>10}{row.cpu_s:>9.1f}{row.wall_s:>9.1f}"
            f"{row.peak_rss_mb:>7.0f}{row.ratio_to_floor:>8.2f}{beside:>7}"
            f"{'  scaled' if row.scaled else ''}{'  INVALID' if row.problems else ''}"
        )
    print(f"\n{CAPTION}")
    for row in rows:
        _show_parts(row)
    for world in dict.fromkeys(row.world for row in rows):
        print(f"Countries: {world}.")


def _show_parts(row: Row) -> None:
    parts = sorted(row.parts.items(), key=lambda part: -part[1])
    told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in parts if seconds >= 0.05)
    print(f"\n{row.case} with {row.countries}, CPU s: {told}")
    print(f"  each run: {', '.join(f'{seconds:.1f}' for seconds in row.runs_cpu_s)} CPU s")
    if "services_start_cpu_s" in row.extra:
        print(
            f"  services: {row.extra['services_start_cpu_s']} CPU s to start, "
            f"{row.extra['services_idle_pss_total_mb']} MB idle; phases "
            f"{row.extra['phases_wall_s']}"
        )
    for problem in row.problems:
        print(f"  PROBLEM: {problem}")


def _median(runs: Sequence[Measured], name: str) -> float:
    return round(statistics.median(getattr(each, name) for each in runs), 2)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())
