"""That a worker lives: it says so every few seconds, and a run of one that is silent is lost."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlops_assets.runtime.workers.celery_compat import Store

WORKER_TAG = "mlops_assets/worker"
"""Of a run: the worker it was given to."""
BEAT_SECONDS = 5.0
SILENT_SECONDS = 30.0
"""After which a worker is taken for dead: six beats, so that a busy machine is not."""
_log = logging.getLogger(__name__)
_PREFIX = "mlops_assets-worker-"


def beat(backend: Store, worker: str) -> None:
    """Say once that a worker lives; with each beat another value, whatever the clocks say."""
    backend.set(_key(worker), repr(time.time()))


def keep_beating(backend: Store, worker: str) -> None:
    """Beat for as long as this process lives, in a thread of its own."""

    def run() -> None:
        while True:
            try:
                beat(backend, worker)
            except Exception as error:  # a store that restarts gets the next beat
                _log.warning("worker %s cannot say that it lives: %s", worker, error)
            time.sleep(BEAT_SECONDS)

    threading.Thread(target=run, name="heartbeat", daemon=True).start()


def _key(worker: str) -> bytes:
    """Celery's backend for folders takes bytes alone."""
    return f"{_PREFIX}{worker}".encode()


@dataclass
class Watch:
    """When each worker was last heard, by the clock of the one who listens.

    Clocks of hosts differ, so what counts is when the value was seen to change here.
    """

    backend: Store
    _heard: dict[str, tuple[bytes | None, float]] = field(default_factory=dict)

    def is_silent(self, worker: str) -> bool:
        """Whether nothing was heard of a worker for too long."""
        said, now = self.backend.get(_key(worker)), time.monotonic()
        before = self._heard.get(worker)
        if before is None or before[0] != said:
            self._heard[worker] = (said, now)
            return False
        return now - before[1] > SILENT_SECONDS
