"""How runs travel to workers: a folder on one machine, or Redis between many.

Launcher and workers have the same queues, one a size class, and the same place for what became of a
task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlops_assets.runtime.workers import folder_queue
from mlops_assets.settings import BROKER, Settings
from mlops_assets.spec import SIZES

if TYPE_CHECKING:
    from celery import Celery

DEFAULT_QUEUE = SIZES[0]
"""Of runs without a size."""
_FOLDER = f"{folder_queue.TRANSPORT_NAME}://"
_PATIENCE_SECONDS = 60
_KEPT_SECONDS = 7 * 24 * 3600


def broker_url(settings: Settings) -> str:
    """Where tasks wait."""
    return settings.broker or _FOLDER


def results_url(settings: Settings) -> str:
    """Where workers leave what became of a task, and that they live."""
    return settings.broker or f"file://{settings.home / 'up' / 'results'}"


def launcher_config(settings: Settings) -> dict[str, Any]:
    """The launcher's section of `dagster.yaml`; a URL, with its password, is not in it."""
    shared = {"env": BROKER}
    return {
        "broker": shared if settings.broker else _FOLDER,
        "backend": shared if settings.broker else results_url(settings),
        "default_queue": DEFAULT_QUEUE,
        "config_source": celery_settings(settings),
    }


def celery_settings(settings: Settings) -> dict[str, Any]:
    """The same for launcher and workers."""
    return {
        "broker_transport_options": _transport(settings),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # a broker that restarts is waited for
        "worker_prefetch_multiplier": 1,  # a slow country never holds others behind it
        # Nor behind one that another host could take at once; files cannot be left like that.
        "worker_disable_prefetch": bool(settings.broker),
        "task_acks_late": False,  # a run that killed its worker must not kill the next one
        "task_publish_retry_policy": {
            "max_retries": _PATIENCE_SECONDS,
            "interval_start": 0.1,
            "interval_step": 0.3,
            "interval_max": 1.0,
        },
        "result_expires": _KEPT_SECONDS,
    }


def with_queues(app: Celery) -> Celery:
    """The app with a queue for each size class."""
    from kombu.entity import Queue

    app.conf.task_queues = [Queue(size, routing_key=f"{size}.#") for size in SIZES]
    app.conf.task_routes = {}
    return app


def _transport(settings: Settings) -> dict[str, Any]:
    if settings.broker:
        return {
            "socket_timeout": _PATIENCE_SECONDS,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "retry_on_timeout": True,
        }
    home = settings.home / "up"
    return {
        "data_folder_in": str(home / "queue"),
        "data_folder_out": str(home / "queue"),
        "control_folder": str(home / "control"),
    }
