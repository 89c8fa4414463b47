"""All that is used of Celery, kombu and dagster-celery beyond what they document.

Where a task lies while it waits, how its file is called, where its state is written: none of it is
promised to stay. Each use has a test in `mlops_assets_tests/runtime/workers/test_celery_compat.py`,
so that an upgrade that breaks one says so before anything runs. Importing this is free: a name is
imported when it is asked for.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mlops_assets.runtime.late import Private, find

if TYPE_CHECKING:
    from celery import Celery
    from dagster_celery.config import TASK_EXECUTE_JOB_NAME as TASK_EXECUTE_JOB_NAME
    from dagster_celery.launcher import CeleryRunLauncher as CeleryRunLauncher
    from dagster_celery.make_app import make_app as make_app
    from kombu.transport.filesystem import Channel as Channel
    from kombu.transport.filesystem import Transport as Transport
    from kombu.utils.json import dumps as dumps

TASK_TAG = "dagster-celery/task_id"
"""Tag that dagster-celery's launcher gives a run: its task."""
QUEUE_TAG = "dagster-celery/queue"
"""Tag by which dagster-celery's launcher chooses the queue of a run."""
TASK_FILES = "celery-task-meta-"
"""Beginning of the names of the files, one a task, in which workers leave its state."""

PRIVATE: Mapping[str, Private] = {
    "CeleryRunLauncher": Private(
        "dagster_celery.launcher",
        "has `celery`, `broker` and `_instance`; `launch_run` sends the task of that name to the "
        "queue of the tag, and writes the task's id into the run's tags",
    ),
    "Channel": Private(
        "kombu.transport.filesystem",
        "`_put(queue, payload)` adds a task to `data_folder_out`, `_get(queue)` takes the oldest "
        "of a queue, as JSON, or raises `Empty`",
    ),
    "TASK_EXECUTE_JOB_NAME": Private("dagster_celery.config", "name of the launcher's task"),
    "Transport": Private("kombu.transport.filesystem", "makes channels of its `Channel`"),
    "dumps": Private("kombu.utils.json", "writes what `Channel._get` reads"),
    "make_app": Private("dagster_celery.make_app", "the app as the launcher has it"),
}
"""By name; `from mlops_assets.runtime.workers.celery_compat import <name>` gives their own."""


class Store(Protocol):
    """Where Celery keeps results: a folder or Redis; both take bytes as a key."""

    def get(self, key: bytes) -> bytes | None:
        """What was set last; None for nothing."""
        ...

    def set(self, key: bytes, value: str) -> Any:
        """Keep a value."""
        ...


def __getattr__(name: str) -> Any:
    return find(__name__, PRIVATE, name)


def store_of(app: Celery) -> Store:
    """Where an app keeps results. Relies on its backend having `get` and `set` of any key."""
    backend: Any = app.backend
    return backend


def waiting_tasks(app: Celery, queues: Sequence[str]) -> set[str]:
    """Ids of the tasks that no worker has taken yet, of an app that keeps results in its broker.

    Relies on kombu's keeping the tasks of a queue in Redis as lists whose keys begin with the
    queue's name, one a priority, each task as JSON with its id among the headers.
    """
    backend: Any = app.backend
    client = backend.client
    keys = (key for queue in queues for key in client.scan_iter(f"{queue}*", _type="list"))
    messages = [each for key in keys for each in client.lrange(key, 0, -1)]
    return {str(json.loads(each)["headers"]["id"]) for each in messages}


def state_in(file: Path) -> str:
    """The state of a task, such as STARTED, from the file its worker left.

    Relies on Celery's store for folders writing it as JSON.

    Raises:
        FileNotFoundError: nobody began it.
        json.JSONDecodeError: the file is not whole.
    """
    return str(json.loads(file.read_text())["status"])


def task_file_name(queue: str) -> str:
    """Name of the file of one more task, as kombu's transport for folders calls them.

    Relies on readers taking them in the order of their names, and those of their queue alone.
    """
    return f"{round(time.monotonic() * 1000)}_{uuid.uuid4()}.{queue}.msg"


def add_transport(name: str, path: str) -> None:
    """Let broker URLs that begin with a name use a transport.

    Relies on kombu looking for transports among its aliases.

    Args:
        name: the URL's scheme.
        path: of the transport, as module:class.
    """
    from kombu.transport import TRANSPORT_ALIASES

    TRANSPORT_ALIASES[name] = path
