"""Celery's tasks as files of a folder, each of which is there whole or not at all.

kombu's own transport writes a task into the file that readers look for: one that comes in between
takes an empty file, loses the task, and ends the worker with every run it executes.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

# kombu has it from amqp, which has no types.
from kombu.exceptions import ChannelError  # pyright: ignore[reportAttributeAccessIssue]

from mlops_assets.atomic import settle, temporary
from mlops_assets.runtime.workers import celery_compat

TRANSPORT_NAME = "mlops-assets-folder"
_log = logging.getLogger(__name__)


class Channel(celery_compat.Channel):
    """Writes beside a file's name and renames."""

    def _put(self, queue: str, payload: Any, **_: Any) -> None:
        folder = Path(self.data_folder_out)
        name = celery_compat.task_file_name(queue)
        try:
            with temporary(str(folder)) as part:
                Path(part).write_text(celery_compat.dumps(payload), encoding="utf-8")
                settle(part, str(folder / name))
        except OSError as error:
            raise ChannelError(f"Task {name} cannot be added to {folder}: {error}") from error

    def _get(self, queue: str) -> Any:
        while True:
            try:
                return super()._get(queue)
            except json.JSONDecodeError as error:  # cut off by a full disk or a power cut
                _log.warning("A damaged task of the queue %s was dropped: %s", queue, error)


class Transport(celery_compat.Transport):
    """kombu's with that channel."""

    Channel = Channel


celery_compat.add_transport(TRANSPORT_NAME, f"{__name__}:Transport")
