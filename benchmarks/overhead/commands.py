"""The cases that are one command: the floor, and the platform without a UI."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.overhead.measured import Measured
from benchmarks.overhead.processes import Child, Usage, running
from benchmarks.overhead.world import PRODUCT, World

BIN = Path(sys.executable).parent
_HOURS = 4 * 3600.0


def floor(world: World) -> Measured:
    """The plain script in one process."""
    return _floor(world, 1)


def floor_parallel(world: World, processes: int) -> Measured:
    """The plain script with its loops over countries in several processes."""
    return _floor(world, processes)


def headless(world: World) -> Measured:
    """`mlops-assets materialize --all` on a fresh home."""
    command = [str(BIN / "mlops-assets"), "materialize", PRODUCT, "--all", "--json"]
    with running(command, world.environment(), world.home) as child:
        usage = child.wait(_HOURS)
        ended = child.process.returncode
    text = (world.home / "stdout.txt").read_text()
    if ended not in (0, 1) or not text.strip():
        raise RuntimeError(f"headless ended with {ended}: {_last_words(child)}")
    (outcome,) = json.loads(text)
    extra = {"runs": outcome["runs"], "fallback": sorted(outcome.get("fallback", []))}
    return _measured(child, usage, child.seen(), extra, failures=outcome["failures"])


def _floor(world: World, processes: int) -> Measured:
    module = "benchmarks.overhead.floor"
    command = [sys.executable, "-m", module, str(world.home), "--processes", str(processes)]
    with running(command, world.environment(), world.home) as child:
        usage = child.wait(_HOURS)
        ended = child.process.returncode
    if ended:
        raise RuntimeError(f"the floor ended with {ended}: {_last_words(child)}")
    said = json.loads((world.home / "stdout.txt").read_text().splitlines()[-1])
    return _measured(child, usage, said["parts"], {"baseline": said["baseline"]}, failures={})


def _measured(
    child: Child,
    usage: Usage,
    parts: dict[str, float],
    extra: dict[str, object],
    *,
    failures: dict[str, list[str]],
) -> Measured:
    return Measured(
        cpu_s=round(usage.total, 2),
        wall_s=round(usage.wall, 2),
        peak_rss_mb=round(child.peak_mb, 1),
        parts=parts,
        extra=extra,
        failures=failures,
    )


def _last_words(child: Child) -> str:
    return child.log.read_text(errors="replace")[-2000:]
