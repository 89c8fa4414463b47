"""One served home for every test of pages and services: what it has, and what runs on it.

It has three products, so that the tests of one file need not know what those of another did:
`power_price` as the command line made it from all but its newest days, `spot_price` (the same
product under another name) delivered and never run, and `parcels`, for the test of the closed loop
to make.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mlops_assets.storage import SnapshotStore
from mlops_assets_tests import made
from mlops_assets_tests.browser.drifting import (
    ALERTS,
    Receiver,
    drifting_product,
    receiving,
)
from mlops_assets_tests.called import call
from mlops_assets_tests.made import COUNTRIES, COUNTRY, DATE, PRICE, PRODUCT
from mlops_assets_tests.platform import sample_of
from mlops_assets_tests.runtime.serving import Up, environment, graphql, processes_of, running

SENSOR = "power_price_landing"
SPOT = "spot_price"
SPOT_GOOD = ("AUT", "BEL", "BGR", "CHE")
SPOT_BROKEN = "FIN"
"""One of its countries breaks the contract."""
_SECONDS_TO_MAKE_ALL = 300

_RUNS = """
query ($tags: [ExecutionTag!]!) {
  runsOrError(filter: {tags: $tags}) {
    ... on Runs { results { jobName status tags { key value } } }
  }
}
"""
_TICKS = """
query ($sensor: SensorSelector!) {
  sensorOrError(sensorSelector: $sensor) {
    ... on Sensor { sensorState { ticks(limit: 50) { status skipReason runIds } } }
  }
}
"""


@dataclass(frozen=True)
class SensorRun:
    """A run the landing sensor asked for; `country` is "" for one over all."""

    job: str
    country: str
    status: str


@dataclass(frozen=True)
class Tick:
    """One look of the landing sensor: SKIPPED with a reason, or SUCCESS with runs."""

    status: str
    reason: str
    runs: int


@dataclass(frozen=True)
class Standing:
    """What a home holds: version of each country's snapshot, and the rows of `status`."""

    validated: Mapping[str, str]
    predictions: Mapping[str, str]
    status: Mapping[str, Mapping[str, Any]]


@dataclass
class Site:
    """A home and the `up` that serves it, started when somebody wants it.

    Attributes:
        defs: folder of its products; everything in it is watched for changes.
        more: what is in the environment besides the home.
        receiver: of the alerts of `parcels`.
    """

    home: Path
    defs: Path
    stack: ExitStack
    more: Mapping[str, str]
    receiver: Receiver
    _up: Up | None = None

    @property
    def up(self) -> Up:
        if self._up is None:
            self._up = self.stack.enter_context(running(self.home, **self.more))
        return self._up

    @property
    def store(self) -> SnapshotStore:
        return SnapshotStore(str(self.home / "store"))

    def end(self) -> tuple[int, list[int], str]:
        """End everything with Ctrl-C: its exit code, what outlived it, and what it said."""
        up = self.up
        code = up.stop(signal.SIGINT)
        left = processes_of(self.home)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        self.stack.close()
        self._up = None
        return code, left, up.said

    def deliver(self, frame: pd.DataFrame, name: str, product: str = PRODUCT.name) -> None:
        made.deliver(self.home, frame, name, product)

    def frame(self, asset: str, country: str) -> pd.DataFrame:
        return self.store.read((PRODUCT.name, asset), country)

    def standing(self) -> Standing:
        said = command(self.home, "status", PRODUCT.name, "--json", **self.more)
        return Standing(
            validated=self._versions("validated"),
            predictions=self._versions("predictions"),
            status={row["country"]: row for row in json.loads(said)},
        )

    def sensor_runs(self) -> list[SensorRun]:
        """Oldest first."""
        tags = [{"key": "dagster/sensor_name", "value": SENSOR}]
        found = graphql(self.up.url, _RUNS, {"tags": tags})["runsOrError"]["results"]
        return [_sensor_run(run) for run in reversed(found)]

    def ticks(self) -> list[Tick]:
        """Newest first."""
        where = {"repositoryName": "__repository__", "repositoryLocationName": "mlops_assets"}
        found = graphql(self.up.url, _TICKS, {"sensor": {**where, "sensorName": SENSOR}})
        ticks = found["sensorOrError"]["sensorState"]["ticks"]
        return [Tick(t["status"], t["skipReason"] or "", len(t["runIds"])) for t in ticks]

    def _versions(self, asset: str) -> dict[str, str]:
        held = self.store.current_all((PRODUCT.name, asset), COUNTRIES)
        return {country: snapshot.version for country, snapshot in held.items()}


@contextmanager
def serving(folder: Path, once_made: Path) -> Iterator[Site]:
    """The home, served until the block ends, with as many starts as wanted."""
    home, defs = made.going_on(once_made, folder), folder / "defs"
    made.quickly_trained(defs / SPOT, [*SPOT_GOOD, SPOT_BROKEN])
    drifting_product(defs)
    with ExitStack() as stack, receiving() as receiver:
        more = {"MLOPS_ASSETS_DEFS": str(defs), ALERTS: receiver.url}
        _deliver_spot(home)
        yield Site(home, defs, stack, more, receiver)


def make_all(home: Path, product: str, **more: str) -> None:
    """Every country of a product, from the command line."""
    (outcome,) = json.loads(command(home, "materialize", product, "--all", "--json", **more))
    assert outcome["failures"] == {}, outcome


def _deliver_spot(home: Path) -> None:
    every = sample_of(PRODUCT)
    wrong = (every[COUNTRY] == SPOT_BROKEN) & (every[DATE] >= "2024-01-01")
    every.loc[wrong, PRICE] = 99_999.0
    listed = every[COUNTRY].isin([*SPOT_GOOD, SPOT_BROKEN])
    made.deliver(home, every[listed], "delivery.parquet", SPOT)


def command(home: Path, *arguments: str, **more: str) -> str:
    """What `mlops-assets` prints with a home of its own, and `more` in its environment."""
    home.mkdir(exist_ok=True)
    code, said, errors = call(arguments, environment(home, **more), home, _SECONDS_TO_MAKE_ALL)
    assert code == 0, errors
    return said


def _sensor_run(run: Mapping[str, Any]) -> SensorRun:
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    return SensorRun(run["jobName"], tags.get("dagster/partition", ""), run["status"])
