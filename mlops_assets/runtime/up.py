"""Everything a person needs in the browser, started together and stopped together."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from mlops_assets.errors import MlopsAssetsError
from mlops_assets.registry import Registry
from mlops_assets.runtime.instance import QUEUE, concurrency, prepare_up_instance
from mlops_assets.runtime.lost_runs import end_lost_runs
from mlops_assets.runtime.services import Service, end_left_over, remember, stop_all
from mlops_assets.settings import PROJECT_ROOT, Settings

_POLL_SECONDS = 0.2
_LOOK_AT_CODE_SECONDS = 1.0
_LOOK_AT_RUNS_SECONDS = 10.0
_START_SECONDS = 180.0
_STOP_SECONDS = 20.0
_BIN = Path(sys.executable).parent
_OLD_RESULT_SECONDS = 7 * 24 * 3600.0

Say = Callable[[str], None]


class AlreadyUpError(MlopsAssetsError):
    """A second `up` on the same home, or a port in use."""


class NotUpError(MlopsAssetsError):
    """A service did not start."""


@dataclass(frozen=True)
class Ports:
    """Ports on 127.0.0.1 of the Dagster and MLflow pages."""

    dagster: int
    mlflow: int


@dataclass
class _Up:
    """What runs now.

    Attributes:
        stopping: set by a signal; every loop looks at it, so that no signal falls between a
            process that was just started and the note of it.
        due: when a service that ended by itself is started again, in monotonic seconds.
        leaving: workers that finish their last runs with the code they have.
    """

    settings: Settings
    ports: Ports
    say: Say
    stopping: bool = False
    services: list[Service] = field(default_factory=list)
    leaving: list[Service] = field(default_factory=list)
    due: dict[str, float] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.settings.home / "up"

    @property
    def workers(self) -> Service:
        return next(service for service in self.services if service.name == "workers")

    def remember(self) -> None:
        remember(self.folder / "processes.json", [*self.services, *self.leaving])


def up(settings: Settings, ports: Ports, say: Say) -> None:
    """Serve until Ctrl-C or SIGTERM; everything started is stopped again.

    Raises:
        AlreadyUpError: another `up` serves this home, or a port is in use.
        NotUpError: Dagster did not start.
    """
    state = _Up(settings, ports, say)
    with _alone(settings), _told_to_stop(state):
        try:
            _tidy(state)
            _require_free(ports)
            _start(state)
            _announce(state)
            _watch(state)
        finally:
            _stop(state)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    settings.home.mkdir(parents=True, exist_ok=True)
    lock = FileLock(settings.home / "up.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise AlreadyUpError(
            f"Another `mlops-assets up` serves {settings.home}.",
            stored="Nothing was started.",
            way_out="Stop it with Ctrl-C where it runs, or set another MLOPS_ASSETS_HOME.",
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _told_to_stop(state: _Up) -> Iterator[None]:
    """Signals set a mark; also a second one, so that stopping is never cut short."""

    def mark(number: int, frame: object) -> None:
        state.stopping = True

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, mark) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tidy(state: _Up) -> None:
    """Clear up after an `up` that was killed, and old states of tasks."""
    if ended := end_left_over(state.folder / "processes.json"):
        state.say(f"Ended {ended} processes that an earlier `up` had left behind.")
    oldest = time.time() - _OLD_RESULT_SECONDS
    for file in (state.folder / "results").glob("celery-task-meta-*"):
        if file.stat().st_mtime < oldest:
            file.unlink()


def _start(state: _Up) -> None:
    home = prepare_up_instance(state.settings)
    Registry(state.settings.mlflow_uri, state.settings.mlflow_artifacts).initialise()
    _end_lost_runs(state, workers_stopped=True)
    state.services = _services(state.settings, state.ports, home)
    for service in state.services:
        if not state.stopping:
            service.start()
            state.remember()


def _stop(state: _Up) -> None:
    started = [service for service in (*state.services, *state.leaving) if service.process]
    if not started:
        return
    state.say(f"Stopping; runs in progress have {_STOP_SECONDS:.0f} s to finish.")
    stop_all(started, _STOP_SECONDS)
    _end_lost_runs(state, workers_stopped=True)
    (state.folder / "processes.json").unlink(missing_ok=True)
    state.say("Stopped.")


def _end_lost_runs(state: _Up, *, workers_stopped: bool) -> None:
    lost = end_lost_runs(state.folder, state.folder / "results", workers_stopped=workers_stopped)
    if not lost:
        return
    registry = Registry(state.settings.mlflow_uri, state.settings.mlflow_artifacts)
    for run_id in lost:
        registry.end_runs_of(run_id)
    state.say(f"{len(lost)} runs had lost their worker and are marked as failed; run them again.")


def _services(settings: Settings, ports: Ports, home: Path) -> list[Service]:
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "MLOPS_ASSETS_HOME": str(settings.home),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        # Ten processes that serve features of MLflow that nothing here uses.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PATH": f"{_BIN}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    environment.setdefault("MLOPS_ASSETS_DAGSTER_UI", f"http://127.0.0.1:{ports.dagster}")
    commands = {"dagster": _dagster_command(ports.dagster), "workers": _worker_command()}
    if not settings.mlflow_uri.startswith("http"):  # a tracking server has a UI of its own
        commands["mlflow"] = _mlflow_command(settings, ports.mlflow)
        environment["MLOPS_ASSETS_MLFLOW_UI"] = f"http://127.0.0.1:{ports.mlflow}"
    # Dagster ends its own children only on the signal of Ctrl-C.
    signals = {"dagster": signal.SIGINT}
    return [
        Service(name, command, environment, _log(home, name), signals.get(name, signal.SIGTERM))
        for name, command in commands.items()
    ]


def _log(home: Path, name: str) -> Path:
    """Not in `logs`: what lies there Dagster takes for telemetry, sends away and deletes."""
    return home / "output" / f"{name}.log"


def _dagster_command(port: int) -> list[str]:
    workspace = str(PROJECT_ROOT / "workspace.yaml")
    return [
        *(sys.executable, "-m", "dagster", "dev", "-w", workspace),
        *("-h", "127.0.0.1", "-p", str(port)),
    ]


def _worker_command() -> list[str]:
    return [
        *(sys.executable, "-m", "celery", "-A", "mlops_assets.runtime.worker", "worker"),
        *("-Q", QUEUE, "--concurrency", str(concurrency()), "--loglevel", "warning"),
        *("--without-gossip", "--without-mingle"),
    ]


def _mlflow_command(settings: Settings, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", settings.mlflow_uri, "--workers", "1"),
        *("--default-artifact-root", settings.mlflow_artifacts),
    ]


def _require_free(ports: Ports) -> None:
    for name, port in (("Dagster", ports.dagster), ("MLflow", ports.mlflow)):
        if _answers(port):
            raise AlreadyUpError(
                f"Port {port}, wanted for {name}, is in use.",
                stored="Nothing was started.",
                way_out="Choose another with --port or --mlflow-port.",
            )


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _announce(state: _Up) -> None:
    """Say where the pages are once Dagster answers.

    Raises:
        NotUpError: it ended, or does not answer in three minutes.
    """
    deadline = time.monotonic() + _START_SECONDS
    dagster = state.services[0]
    while not state.stopping and not _answers(state.ports.dagster):
        if dagster.ended or time.monotonic() > deadline:
            raise NotUpError(
                f"Dagster did not start: {dagster.last_words()}",
                stored="What was started is stopped again.",
                way_out=f"Read {dagster.log}.",
            )
        time.sleep(_POLL_SECONDS)
    if not state.stopping:
        state.say(f"Dagster: http://127.0.0.1:{state.ports.dagster}")
        if any(service.name == "mlflow" for service in state.services):
            state.say(f"MLflow:  http://127.0.0.1:{state.ports.mlflow}")
        state.say(f"Logs:    {dagster.log.parent}")
        state.say("Stop with Ctrl-C.")


def _watch(state: _Up) -> None:
    """Until told to stop: restart what ended, renew the workers, end runs without a worker."""
    code, look_at_code, look_at_runs = _code_state(state.settings), 0.0, 0.0
    while not state.stopping:
        time.sleep(_POLL_SECONDS)
        now = time.monotonic()
        _start_again(state, now)
        if now >= look_at_code:
            look_at_code = now + _LOOK_AT_CODE_SECONDS
            if (found := _code_state(state.settings)) != code:
                code = found
                _renew_workers(state)
        if now >= look_at_runs:
            look_at_runs = now + _LOOK_AT_RUNS_SECONDS
            _end_lost_runs(state, workers_stopped=False)


def _start_again(state: _Up, now: float) -> None:
    for service in state.services:
        if service.ended:
            wait = service.note_end()
            state.due[service.name] = now + wait
            state.say(
                f"{service.name} ended by itself ({service.last_words()}) and is started again in "
                f"{wait:.0f} s; see {service.log}"
            )
            if service is state.workers and not state.leaving:
                _end_lost_runs(state, workers_stopped=True)
        elif service.process is None and now >= state.due.get(service.name, 0.0):
            service.start()
            state.remember()
    for service in [each for each in state.leaving if each.ended]:
        service.end(now)
        state.leaving.remove(service)


def _renew_workers(state: _Up) -> None:
    state.say(
        "Code or YAML changed: new runs get it at once, runs in progress end with what they have. "
        "Press `Reload definitions` in the UI."
    )
    if state.workers.process is not None:
        state.leaving.append(state.workers.retire())
    state.workers.start()
    state.remember()


def _code_state(settings: Settings) -> dict[str, float]:
    """Time of change of every file the workers import or read."""
    found = {}
    for folder in {PROJECT_ROOT / "mlops_assets", settings.defs.resolve()}:
        for pattern in ("*.py", "*.yaml"):
            for file in folder.rglob(pattern):
                try:
                    found[str(file)] = file.stat().st_mtime
                except FileNotFoundError:  # an editor replaced it just now
                    continue
    return found
