"""The cases with a UI: ours, served by `mlops-assets up`, and Dagster's own defaults."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmarks.overhead.commands import BIN
from benchmarks.overhead.measured import Measured
from benchmarks.overhead.operator import AFTER_TRAINING, BEFORE_TRAINING, SERVING, Operator
from benchmarks.overhead.processes import Child, Usage, running
from benchmarks.overhead.world import PRODUCT, World

_QUIET_SHARE = 0.2
"""Share of a core that idle services take at most."""
_QUIET_SECONDS = 5.0
_LONGEST_START = 180.0


def ui(world: World) -> Measured:
    """What an operator does in the browser, phase by phase as the headless run, with `up`."""
    port, mlflow_port = _free_port(), _free_port()
    command = [str(BIN / "mlops-assets"), "up", "--port", str(port)]
    return _operated(
        world,
        [*command, "--mlflow-port", str(mlflow_port)],
        port,
        {},
        workers=("workers", "spawned"),
    )


def default(world: World) -> Measured:
    """The same under `dagster dev` with Dagster's default launcher and executor."""
    home = world.home / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    port, module = _free_port(), "benchmarks.overhead.default_location"
    command = [sys.executable, "-m", "dagster", "dev", "-m", module]
    return _operated(
        world,
        [*command, "-h", "127.0.0.1", "-p", str(port)],
        port,
        {"DAGSTER_HOME": str(home), "PATH": f"{BIN}:{_path(world)}"},
        workers=("run processes", "spawned", "other"),
    )


def scaled(measured: Measured, countries: int, to: int) -> Measured:
    """As it would be with more countries if each took the same."""
    factor = to / countries
    return replace(
        measured,
        cpu_s=round(measured.cpu_s * factor, 2),
        wall_s=round(measured.wall_s * factor, 2),
        parts={name: round(seconds * factor, 2) for name, seconds in measured.parts.items()},
        extra={**measured.extra, "measured_countries": countries},
    )


def _operated(
    world: World,
    command: Sequence[str],
    port: int,
    more: Mapping[str, str],
    *,
    workers: tuple[str, ...],
) -> Measured:
    with running(command, world.environment(more), world.home) as child:
        operator = Operator(f"http://127.0.0.1:{port}", lambda: child.process.poll() is None)
        operator.wait_until_served()
        started = _quiet(child)
        idle = child.memory_mb()
        phases, failures = _phases(world, operator, child)
        ended = child.usage()
        done, runs = ended.since(started), operator.runs()
    extra = {
        "phases_wall_s": phases,
        "services_start_cpu_s": round(started.total, 2),
        "services_idle_pss_mb": idle,
        "services_idle_pss_total_mb": round(sum(idle.values()), 1),
        "runs": runs,
    }
    peak = round(child.peak_of(*workers) or child.peak_mb, 1)
    return Measured(
        round(done.total, 2), round(done.wall, 2), peak, dict(done.cpu), extra, failures
    )


def _quiet(child: Child) -> Usage:
    """Usage once the services do nothing; as it is after three minutes if they never rest."""
    deadline = time.monotonic() + _LONGEST_START
    before = child.usage()
    while True:
        time.sleep(_QUIET_SECONDS)
        now = child.usage()
        busy = (now.total - before.total) / (now.wall - before.wall)
        if busy < _QUIET_SHARE or now.wall > deadline:
            return now
        before = now


def _phases(
    world: World, operator: Operator, child: Child
) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Wall seconds by phase, and countries with a failed run."""
    walls: dict[str, float] = {}
    failures: dict[str, list[str]] = {}

    def phase(name: str, assets: Sequence[str], countries: Sequence[str]) -> None:
        began = time.monotonic()
        if assets:
            for country, why in operator.backfill(assets, countries).items():
                failures.setdefault(country, []).extend(why)
        else:
            operator.run(name)
        walls[name] = round(time.monotonic() - began, 1)

    records, features = BEFORE_TRAINING
    phase("records", records, world.countries)
    phase("shared", (), ())
    phase("features", features, world.countries)
    phase("pooled", (), ())
    phase("models", AFTER_TRAINING, world.countries)
    if stopped := _without_predictions(world):
        phase("fallback", SERVING, stopped)
    return walls, failures


def _without_predictions(world: World) -> list[str]:
    """Countries a gate has stopped: an operator asks for their predictions afterwards."""
    from mlops_assets.storage import SnapshotStore

    store = SnapshotStore(str(world.home / "store"))
    held = store.current_all((PRODUCT, "predictions"), list(world.countries))
    return [country for country in world.countries if country not in held]


def _path(world: World) -> str:
    return world.environment().get("PATH", "")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
