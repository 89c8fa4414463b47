"""The Dagster instance: one storage, and settings for who launches runs on it.

The folder `DAGSTER_HOME` keeps Dagster's default launcher, so that `dagster dev` on it never waits
for a worker that nobody started. `up` has a folder of its own with the same storage and the
launcher of the warm workers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from mlops_assets.settings import Settings

QUEUE = "dagster"
BROKER = "filesystem://"
"""Tasks travel as files in a folder: one machine needs no server."""

_HEADER = "# Written by mlops-assets; changes are overwritten.\n"


def prepare_instance(settings: Settings) -> Path:
    """Folder of the instance with Dagster's default launcher; made if it is not there.

    A `dagster.yaml` that a person put there is left as it is.
    """
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    _write_ours(home / "dagster.yaml", _settings(settings, {}))
    return home


def prepare_up_instance(settings: Settings) -> Path:
    """Folder of the instance `up` serves: the same storage, runs launched on warm workers."""
    prepare_instance(settings)
    home = settings.home / "up"
    for folder in ("queue", "results", "control"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    launcher = {
        "run_launcher": {
            "module": "dagster_celery.launcher",
            "class": "CeleryRunLauncher",
            "config": {
                "broker": BROKER,
                "backend": result_backend(settings),
                "default_queue": QUEUE,
                "config_source": broker_settings(settings),
            },
        }
    }
    _write_ours(home / "dagster.yaml", _settings(settings, launcher))
    return home


def result_backend(settings: Settings) -> str:
    """Where workers leave whether a task ended well."""
    return f"file://{settings.home / 'up' / 'results'}"


def broker_settings(settings: Settings) -> dict[str, Any]:
    """How tasks travel through a folder, the same for the launcher and the workers."""
    home = settings.home / "up"
    return {
        "broker_transport_options": {
            "data_folder_in": str(home / "queue"),
            "data_folder_out": str(home / "queue"),
            "control_folder": str(home / "control"),
        },
        "broker_connection_retry_on_startup": True,
        "worker_prefetch_multiplier": 1,  # a slow country never holds others behind it
        "task_acks_late": False,
    }


def concurrency() -> int:
    """Countries worked on at once: one a core."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cpus())


def _cpus() -> int:
    return os.cpu_count() or 1


def _settings(settings: Settings, launcher: dict[str, Any]) -> dict[str, Any]:
    home = settings.dagster_home
    return {
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
        "storage": {"sqlite": {"base_dir": str(home / "storage")}},
        # Capturing stdout costs a run several processes a step; what a step logs through Dagster
        # is in the run's event log all the same.
        "compute_logs": {
            "module": "dagster._core.storage.noop_compute_log_manager",
            "class": "NoOpComputeLogManager",
        },
        "local_artifact_storage": {
            "module": "dagster._core.storage.root",
            "class": "LocalArtifactStorage",
            "config": {"base_dir": str(home)},
        },
        "run_coordinator": {
            "module": "dagster._core.run_coordinator",
            "class": "QueuedRunCoordinator",
            "config": {"dequeue_interval_seconds": 1},
        },
        "concurrency": {"runs": {"max_concurrent_runs": concurrency()}},
        **launcher,
    }


def _write_ours(file: Path, content: dict[str, Any]) -> None:
    if file.exists() and not file.read_text().startswith(_HEADER):
        return
    text = _HEADER + yaml.safe_dump(content, sort_keys=False)
    if not file.exists() or file.read_text() != text:
        file.write_text(text)
