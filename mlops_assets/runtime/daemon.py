"""Dagster's daemon, looking at backfills every few seconds.

Dagster looks every thirty, with no setting for it: a backfill whose countries take seconds would
wait most of its time. An idle look costs some milliseconds.
"""

from __future__ import annotations

from dagster._daemon import controller
from dagster._daemon.cli import main

_BACKFILL_SECONDS = 3

if __name__ == "__main__":
    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = _BACKFILL_SECONDS
    main()
