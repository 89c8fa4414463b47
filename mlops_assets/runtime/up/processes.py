"""The programs `up` starts, and how: one process each, with one environment."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from mlops_assets.runtime.up.services import Service
from mlops_assets.settings import ONE_THREAD, PROJECT_ROOT, Settings
from mlops_assets.spec import SIZES, Size

_BIN = Path(sys.executable).parent
_LOCATION = "mlops_assets"
_MODULE = "mlops_assets.definitions"


@dataclass(frozen=True)
class Ports:
    """Ports on 127.0.0.1 of the Dagster and MLflow pages."""

    dagster: int
    mlflow: int


@dataclass(frozen=True)
class Crew:
    """Worker processes of this host.

    Attributes:
        processes: runs at once here; 0 for none, where other hosts work.
        queues: size classes of the runs they take.
    """

    processes: int
    queues: tuple[Size, ...] = SIZES


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pages(settings: Settings, ports: Ports, crew: Crew, home: Path) -> list[Service]:
    """Everything a person needs in the browser: code, webserver, daemon, MLflow, and workers."""
    environment = {
        **_environment(settings, home),
        # Ten processes that serve features of MLflow that nothing here uses.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # Not among its arguments, which everybody on the machine can read: it may have a password.
        "MLFLOW_BACKEND_STORE_URI": settings.mlflow_uri,
    }
    environment.setdefault("MLOPS_ASSETS_DAGSTER_UI", f"http://127.0.0.1:{ports.dagster}")
    if has_mlflow_page(settings):
        environment["MLOPS_ASSETS_MLFLOW_UI"] = f"http://127.0.0.1:{ports.mlflow}"
    code, workspace = free_port(), str(home / "workspace.yaml")
    _write_workspace(Path(workspace), code)
    commands = {
        "code": _code(code),
        "webserver": _webserver(workspace, ports.dagster),
        "daemon": _python("mlops_assets.runtime.up.daemon", "run", "-w", workspace),
        **({"workers": _celery(settings, crew)} if crew.processes else {}),
        **({"mlflow": _mlflow(settings, ports.mlflow)} if has_mlflow_page(settings) else {}),
    }
    services = [_service(name, command, environment, home) for name, command in commands.items()]
    of_services = {"code": code, "webserver": ports.dagster}
    for service in services:
        service.port = of_services.get(service.name, 0)
    return services


def workers(settings: Settings, crew: Crew, home: Path) -> Service:
    """The workers of a host alone."""
    return _service("workers", _celery(settings, crew), _environment(settings, home), home)


def has_mlflow_page(settings: Settings) -> bool:
    """Whether `up` serves MLflow's page: a tracking server has one of its own."""
    return not settings.mlflow_uri.startswith("http")


def _service(name: str, command: list[str], environment: Mapping[str, str], home: Path) -> Service:
    # Dagster's programs end in order on the signal of Ctrl-C only.
    asks = {"webserver": signal.SIGINT, "daemon": signal.SIGINT}
    # Not in `logs`: what lies there Dagster takes for telemetry, sends away and deletes.
    log = home / "output" / f"{name}.log"
    return Service(name, command, environment, log, asks.get(name, signal.SIGTERM))


def _environment(settings: Settings, home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "MLOPS_ASSETS_HOME": str(settings.home),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        **dict.fromkeys(ONE_THREAD, "1"),
        "PATH": f"{_BIN}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def _write_workspace(file: Path, port: int) -> None:
    """One code server for webserver and daemon, under the name that cursors are kept by."""
    server = {"host": "127.0.0.1", "port": port, "location_name": _LOCATION}
    file.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))


def _python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def _code(port: int) -> list[str]:
    return _python(
        *("dagster", "api", "grpc", "--module-name", _MODULE, "--location-name", _LOCATION),
        *("--working-directory", str(PROJECT_ROOT), "--host", "127.0.0.1", "--port", str(port)),
        # A product with a mistake in it is shown as such in the UI, and does not end the server.
        "--lazy-load-user-code",
    )


def _webserver(workspace: str, port: int) -> list[str]:
    return _python("dagster_webserver", "-w", workspace, "-h", "127.0.0.1", "-p", str(port))


def _celery(settings: Settings, crew: Crew) -> list[str]:
    return _python(
        *("celery", "-A", "mlops_assets.runtime.workers.worker", "worker"),
        *("-Q", ",".join(crew.queues), "--concurrency", str(crew.processes)),
        *("--max-tasks-per-child", str(settings.worker_runs)),
        *("--max-memory-per-child", str(1024 * settings.worker_memory_mb)),
        *("--hostname", f"{os.getpid()}@%h", "--loglevel", "warning"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    )


def _mlflow(settings: Settings, port: int) -> list[str]:
    return _python(
        *("mlops_assets.registry.mlflow_ui", "--host", "127.0.0.1", "--port", str(port)),
        *("--default-artifact-root", settings.mlflow_artifacts),
    )


def queues_named(names: Sequence[str]) -> tuple[Size, ...]:
    """The size classes of these names; all where none is named."""
    return tuple(size for size in SIZES if size in names) if names else SIZES
