"""The Dagster instance: one storage, and settings for who launches runs on it.

The folder `DAGSTER_HOME` keeps Dagster's default launcher, so that `dagster dev` on it never waits
for a worker that nobody started. `up` has a folder of its own with the same storage and the
launcher of the warm workers. What each setting is worth: docs/guide/scale.md.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from mlops_assets.runtime.dagster_compat import LOCAL_FILES, NO_COMPUTE_LOGS
from mlops_assets.runtime.dagster_storage.create_schema import create_tables
from mlops_assets.runtime.workers.broker import launcher_config
from mlops_assets.runtime.workers.sizes import SIZE_TAG
from mlops_assets.settings import DAGSTER_DB, Settings, load_settings

_HEADER = "# Written by mlops-assets; changes are overwritten.\n"
_MONITOR_SECONDS = 10


def prepare_instance(settings: Settings) -> Path:
    """Folder of the instance with Dagster's default launcher; made if it is not there.

    A `dagster.yaml` that a person put there is left as it is.
    """
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    _write_ours(home / "dagster.yaml", _settings(settings, concurrency()))
    return home


def prepare_up_instance(settings: Settings, workers: int) -> Path:
    """Folder of the instance `up` serves: the same storage, runs launched on warm workers.

    Args:
        settings: where everything is.
        workers: runs at once, on all hosts together.

    Raises:
        NoHistoryError: the database of Dagster's history does not answer.
    """
    prepare_instance(settings)
    home = settings.home / "up"
    for folder in ("queue", "results", "control"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    _write_ours(home / "dagster.yaml", _settings(settings, workers) | _on_workers(settings))
    if settings.dagster_db:
        create_tables(home)
    return home


def concurrency() -> int:
    """Countries worked on at once: one a core of this machine, or as the environment says."""
    if given := load_settings().concurrency:
        return given
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cpus())


def _cpus() -> int:
    return os.cpu_count() or 1


def _settings(settings: Settings, runs: int) -> dict[str, Any]:
    home = settings.dagster_home
    return {
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
        "storage": _storage(settings),
        # Capturing stdout costs a run several processes a step; what a step logs through Dagster
        # is in the run's event log all the same.
        "compute_logs": {**NO_COMPUTE_LOGS},
        "local_artifact_storage": {**LOCAL_FILES, "config": {"base_dir": str(home)}},
        "run_coordinator": {
            "module": "mlops_assets.runtime.workers.coordinator",
            "class": "SizedRunCoordinator",
            "config": {"dequeue_interval_seconds": 1},
        },
        "concurrency": {
            "runs": {
                "max_concurrent_runs": runs,
                # The smallest never wait behind the biggest: one worker at least is left to them.
                "tag_concurrency_limits": [
                    {"key": SIZE_TAG, "value": "large", "limit": max(1, runs - 1)}
                ],
            }
        },
    }


def _storage(settings: Settings) -> dict[str, Any]:
    if settings.dagster_db:
        return {
            "custom": {
                "module": "mlops_assets.runtime.dagster_storage.postgres",
                "class": "PostgresHistory",
                "config": {"postgres_url": {"env": DAGSTER_DB}},
            }
        }
    return {
        "custom": {
            "module": "mlops_assets.runtime.dagster_storage.sqlite",
            "class": "SqliteHistory",
            "config": {"base_dir": str(settings.dagster_home / "history")},
        }
    }


def _on_workers(settings: Settings) -> dict[str, Any]:
    return {
        "run_launcher": {
            "module": "mlops_assets.runtime.workers.launcher",
            "class": "WarmRunLauncher",
            "config": launcher_config(settings),
        },
        "run_monitoring": {
            "enabled": True,
            "poll_interval_seconds": _MONITOR_SECONDS,
            "start_timeout_seconds": 300,
            # A worker that is told to end is gone at once, without a word.
            "cancel_timeout_seconds": 20,
            "max_resume_run_attempts": 0,
        },
        # Of a worker that was killed, not of a country that fails: once, from the beginning; what
        # is there already is not made again.
        "run_retries": {
            "enabled": True,
            "max_retries": 1,
            "retry_on_asset_or_op_failure": False,
        },
    }


def _write_ours(file: Path, content: dict[str, Any]) -> None:
    if file.exists() and not file.read_text().startswith(_HEADER):
        return
    text = _HEADER + yaml.safe_dump(content, sort_keys=False)
    if not file.exists() or file.read_text() != text:
        file.write_text(text)
