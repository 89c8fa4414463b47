"""What holds after a fault, whatever it was; and how long until it did."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mlops_assets_tests.cluster import hosts
from mlops_assets_tests.cluster.hosts import Cluster, Site

COUNTRIES = int(os.environ.get("MLOPS_ASSETS_TEST_COUNTRIES") or 3)
"""Of the product; `make test-cluster` takes 31."""
OUTCOMES: list[str] = []
_OPEN = {"NOT_STARTED", "QUEUED", "STARTING", "STARTED", "CANCELING"}
_ENDED = {"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED"}
_PARTITION = "dagster/partition"
LOST_SECONDS = 60.0
"""Within which a run whose worker was killed has ended."""


@dataclass
class Backfill:
    """A backfill over all countries, as a person in the UI follows it."""

    cluster: Site
    id: str

    @property
    def limit(self) -> float:
        """Seconds all of it may take: of its countries, and of what was lost and tried again."""
        return 240.0 + 20.0 * COUNTRIES

    def runs(self) -> list[dict[str, Any]]:
        return self.cluster.runs(self.id)

    def working(self, at_least: int = 1) -> list[dict[str, Any]]:
        """Runs that a worker has begun, once there are so many; others still wait then."""
        found: list[dict[str, Any]] = []

        def begun() -> bool:
            runs = self.runs()
            found[:] = [run for run in runs if run["status"] == "STARTED"]
            return len(found) >= at_least

        self.cluster.eventually(begun, f"{at_least} runs that are worked on", 120)
        return found

    def settled(self) -> bool:
        """Whether nothing of it is to come: no run is open, and none is to be tried again."""
        try:
            status, runs = self.cluster.backfill_status(self.id), self.runs()
        except OSError:  # the webserver is being started again
            return False
        tried_again = {run.get("dagster/parent_run_id") for run in runs}
        waiting = [
            run
            for run in runs
            if run["status"] in _OPEN
            or (run.get("dagster/will_retry") == "true" and run["runId"] not in tried_again)
        ]
        return status in _ENDED and not waiting and len(runs) >= COUNTRIES

    def settle(self) -> None:
        """Wait until it is settled; the failure has where each run stands."""
        try:
            self.cluster.eventually(self.settled, "the end of the backfill", self.limit)
        except AssertionError as error:
            status, runs = self.cluster.backfill_status(self.id), self.runs()
            stand = "\n".join(str(run) for run in runs)
            raise AssertionError(f"{error}\n--- backfill {status}\n{stand}") from None

    def states(self) -> dict[str, str]:
        """The state of each country's newest run."""
        newest = sorted(self.runs(), key=lambda run: run["startTime"] or 0.0)
        return {run[_PARTITION]: run["status"] for run in newest}


def launch(cluster: Site) -> Backfill:
    """Start one over all countries."""
    return Backfill(cluster, cluster.launch(hosts.codes(COUNTRIES)))


def whole(backfill: Backfill) -> dict[str, Any]:
    """Check all that a fault must not break; what storage, registry and history hold."""
    found = backfill.cluster.account(backfill.id)
    assert found["torn"] == []
    assert found["undecided"] == []
    assert found["left_running"] == []
    assert all(found["causes"].values()), found["causes"]
    return found


def complete(backfill: Backfill, since: float) -> None:
    """Every country has a champion and predictions that were made since a time."""
    assert backfill.states() == dict.fromkeys(hosts.codes(COUNTRIES), "SUCCESS")
    countries = whole(backfill)["countries"]
    assert set(countries) == set(hosts.codes(COUNTRIES))
    for each in countries.values():
        assert each["champion"]
        assert each["predictions"]
        assert each["made_at"] > since


@contextmanager
def during(cluster: Cluster, what: str, *, repeat: bool = True) -> Iterator[Backfill]:
    """The block does harm to a backfill that is half-way; afterwards everything holds.

    Every country has new data, so that each has a model to train and a decision to take.

    Args:
        cluster: where.
        what: of the fault, for the table of outcomes.
        repeat: whether a second backfill makes the rest, if there is any; else there is none.
    """
    since = time.time()
    cluster.deliver()
    backfill = launch(cluster)
    backfill.working()
    began = time.monotonic()
    yield backfill
    backfill.settle()
    seconds = time.monotonic() - began
    OUTCOMES.append(f"{what}: settled in {seconds:.0f} s; {_outcome(backfill)}")
    if repeat and set(backfill.states().values()) != {"SUCCESS"}:
        backfill = launch(cluster)
        backfill.settle()
    complete(backfill, since)
    cluster.eventually(lambda: hosts.ready(cluster), "all hosts", 120)


def _outcome(backfill: Backfill) -> str:
    found, states = whole(backfill), list(backfill.states().values())
    retried = sum("dagster/parent_run_id" in run for run in backfill.runs())
    causes = sorted({text[:200] for text in found["causes"].values()})
    return f"{states.count('SUCCESS')} of {COUNTRIES} finished, {retried} tried again, {causes}"
