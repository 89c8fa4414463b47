"""Dagster's daemon, looking at backfills every few seconds, and at runs that do not start.

Dagster looks at backfills every thirty, with no setting for it: one whose countries take seconds
would wait most of its time. An idle look costs some milliseconds. Runs that were handed over and
have not started it leaves alone for as long as any queue might take; ours knows which are lost.
"""

from __future__ import annotations

from mlops_assets.runtime.dagster_compat import serve_daemon, tune_daemon
from mlops_assets.runtime.workers.launcher import monitor_starting_run

_BACKFILL_SECONDS = 3
_WORKSPACE_SECONDS = 3600
"""Dagster asks the code server for everything once a minute, which costs both a second; a server
that was restarted is noticed at once without that."""

if __name__ == "__main__":
    tune_daemon(_BACKFILL_SECONDS, _WORKSPACE_SECONDS, monitor_starting_run)
    serve_daemon()
