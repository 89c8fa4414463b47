"""Everything a person needs in the browser, started together and stopped together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from mlops_assets.errors import MlopsAssetsError
from mlops_assets.registry import Registry
from mlops_assets.runtime.instance import QUEUE, concurrency, prepare_up_instance
from mlops_assets.settings import PROJECT_ROOT, Settings

_POLL_SECONDS = 2.0
_STOP_SECONDS = 20.0
_BIN = Path(sys.executable).parent


class AlreadyUpError(MlopsAssetsError):
    """A second `up` on the same home."""


@dataclass
class Service:
    """One child process in a group of its own."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        """Start it, its output appended to the log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                cwd=PROJECT_ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self) -> None:
        """Ask its whole group to end; after 20 s, make it."""
        if self.process is None:
            return
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, signal_number)
            except ProcessLookupError:
                break
            try:
                self.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        self.process.wait()
        self.process = None

    @property
    def ended(self) -> bool:
        """Whether it ended by itself."""
        return self.process is not None and self.process.poll() is not None


@dataclass(frozen=True)
class Ports:
    """Ports on 127.0.0.1 of the Dagster and MLflow pages."""

    dagster: int
    mlflow: int


def up(settings: Settings, ports: Ports, say: Callable[[str], None]) -> None:
    """Serve until interrupted; everything started is stopped again.

    Raises:
        AlreadyUpError: another `up` serves this home.
    """
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
    services: list[Service] = []
    try:
        _require_free(ports)
        services = _services(settings, ports)
        for service in services:
            service.start()
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        _announce(settings, ports, services, say)
        _watch(services, say)
    except KeyboardInterrupt:
        say("Stopping.")
    finally:
        for service in reversed(services):
            service.stop()
        lock.release()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _services(settings: Settings, ports: Ports) -> list[Service]:
    home = prepare_up_instance(settings)
    Registry(settings.mlflow_uri, settings.mlflow_artifacts).initialise()
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "MLOPS_ASSETS_HOME": str(settings.home),
        "MLOPS_ASSETS_MLFLOW_UI": f"http://127.0.0.1:{ports.mlflow}",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PATH": f"{_BIN}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    commands = {
        "dagster": _dagster_command(ports.dagster),
        "workers": _worker_command(),
        "mlflow": _mlflow_command(settings, ports.mlflow),
    }
    return [
        Service(name, command, environment, settings.home / "up" / "logs" / f"{name}.log")
        for name, command in commands.items()
    ]


def _dagster_command(port: int) -> list[str]:
    workspace = str(PROJECT_ROOT / "workspace.yaml")
    return [str(_BIN / "dagster"), "dev", "-w", workspace, "-h", "127.0.0.1", "-p", str(port)]


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
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                raise AlreadyUpError(
                    f"Port {port}, wanted for {name}, is in use.",
                    stored="Nothing was started.",
                    way_out="Choose another with --port or --mlflow-port.",
                )


def _announce(
    settings: Settings, ports: Ports, services: list[Service], say: Callable[[str], None]
) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any(service.ended for service in services):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", ports.dagster)) == 0:
                break
        time.sleep(0.5)
    say(f"Dagster: http://127.0.0.1:{ports.dagster}")
    say(f"MLflow:  http://127.0.0.1:{ports.mlflow}")
    say(f"Logs:    {settings.home / 'up' / 'logs'}")
    say("Stop with Ctrl-C.")


def _watch(services: list[Service], say: Callable[[str], None]) -> None:
    """Restart what ended by itself, and the workers when code or YAML changed."""
    state = _code_state()
    while True:
        time.sleep(_POLL_SECONDS)
        for service in services:
            if service.ended:
                say(f"{service.name} ended by itself and is started again; see {service.log}")
                service.start()
        if (now := _code_state()) != state:
            state = now
            say("Code or YAML changed: the workers are restarted. Reload the location in the UI.")
            workers = next(service for service in services if service.name == "workers")
            workers.stop()
            workers.start()


def _code_state() -> dict[str, float]:
    return {str(file): file.stat().st_mtime for file in _code_files()}


def _code_files() -> Iterator[Path]:
    for pattern in ("*.py", "*.yaml"):
        yield from (PROJECT_ROOT / "mlops_assets").rglob(pattern)
