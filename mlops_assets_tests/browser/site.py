"""One served home for every test of pages and services: what it has, and what runs on it.

It has three products, so that the tests of one file need not know what those of another did:
`power_price` made from all but its newest days, `spot_price` (the same product under another name)
delivered and never run, and `parcels`, for the test of the closed loop to make.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mlops_assets.components.loading import load_product
from mlops_assets.settings import PROJECT_ROOT
from mlops_assets.storage import SnapshotStore
from mlops_assets_tests.browser.drifting import (
    ALERTS,
    Receiver,
    drifting_product,
    receiving,
)
from mlops_assets_tests.called import call
from mlops_assets_tests.effort import WHOLE
from mlops_assets_tests.platform import edit, sample_of
from mlops_assets_tests.runtime.serving import Up, environment, graphql, processes_of, running

PRODUCT = load_product(PROJECT_ROOT / "mlops_assets" / "defs" / "power_price")
_PART = ("AUT", "BEL", "DEU", "ESP", "FRA")
COUNTRIES = list(PRODUCT.spec.countries) if WHOLE else list(_PART)
"""All 31 in `make nightly`; each is a run of its own, whatever the number."""
COUNTRY, DATE, PRICE = "ISO3 Code", "Date", "Price (EUR/MWhe)"
SENSOR = "power_price_landing"
SPOT = "spot_price"
SPOT_GOOD = ("AUT", "BEL", "BGR", "CHE")
SPOT_BROKEN = "FIN"
"""One of its countries breaks the contract."""
NEW_DAYS = 30
"""Of power prices, not delivered yet."""
RESTATED = "DEU"
"""A country whose power prices are in a file of their own."""
_MINUTES_TO_MAKE_ALL = 15

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
        deliver(self.home, frame, name, product)

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
def serving(folder: Path, mlflow_template: Path) -> Iterator[Site]:
    """The home, served until the block ends, with as many starts as wanted."""
    home, defs = folder / "home", folder / "defs"
    quickly_trained(defs / PRODUCT.name, COUNTRIES)
    quickly_trained(defs / SPOT, [*SPOT_GOOD, SPOT_BROKEN])
    drifting_product(defs)
    (home / "mlflow").mkdir(parents=True)
    shutil.copyfile(mlflow_template, home / "mlflow" / "mlflow.db")
    with ExitStack() as stack, receiving() as receiver:
        more = {"MLOPS_ASSETS_DEFS": str(defs), ALERTS: receiver.url}
        _deliver_history(home)
        make_all(home, PRODUCT.name, **more)
        yield Site(home, defs, stack, more, receiver)


def make_all(home: Path, product: str, **more: str) -> None:
    """Every country of a product, from the command line."""
    (made,) = json.loads(command(home, "materialize", product, "--all", "--json", **more))
    assert made["failures"] == {}, made


def _deliver_history(home: Path) -> None:
    frame = published()
    earlier = frame[~newest(frame, NEW_DAYS)]
    own = earlier[COUNTRY] == RESTATED
    deliver(home, earlier[~own], "history.parquet")
    deliver(home, earlier[own], f"{RESTATED}.csv")
    every = sample_of(PRODUCT)
    wrong = (every[COUNTRY] == SPOT_BROKEN) & (every[DATE] >= "2024-01-01")
    every.loc[wrong, PRICE] = 99_999.0
    listed = every[COUNTRY].isin([*SPOT_GOOD, SPOT_BROKEN])
    deliver(home, every[listed], "delivery.parquet", SPOT)


def quickly_trained(made: Path, countries: Sequence[str]) -> None:
    """The product in another folder, with small models and some of its countries.

    For tests of data, of pages and of processes, to which it is all one how good a model is.
    """
    shutil.copytree(PRODUCT.folder, made, ignore=shutil.ignore_patterns("__pycache__"))
    edit(
        made / "defs.yaml",
        (
            f"countries: [{', '.join(PRODUCT.spec.countries)}]",
            f"countries: [{', '.join(countries)}]",
        ),
        ("max_iter: 200", "max_iter: 15"),
        ("max_iter: 60", "max_iter: 8"),
    )


def published() -> pd.DataFrame:
    """The product's own generated delivery, of listed countries."""
    frame = sample_of(PRODUCT)
    return frame[frame[COUNTRY].isin(COUNTRIES)].reset_index(drop=True)


def newest(frame: pd.DataFrame, days: int) -> pd.Series:
    """Which rows are of the last days of their country."""
    day = pd.to_datetime(frame[DATE])
    return day > day.groupby(frame[COUNTRY]).transform("max") - pd.Timedelta(days=days)


def deliver(home: Path, frame: pd.DataFrame, name: str, product: str = PRODUCT.name) -> None:
    """As publishers should: whole under another name first, then renamed."""
    folder = home / "landing" / product
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{name}.part"
    if name.endswith(".csv"):
        frame.to_csv(part, index=False)
    else:
        frame.to_parquet(part, index=False)
    part.rename(folder / name)


def command(home: Path, *arguments: str, **more: str) -> str:
    """What `mlops-assets` prints with a home of its own, and `more` in its environment."""
    home.mkdir(exist_ok=True)
    seconds = _MINUTES_TO_MAKE_ALL * 60
    code, said, errors = call(arguments, environment(home, **more), home, seconds)
    assert code == 0, errors
    return said


def _sensor_run(run: Mapping[str, Any]) -> SensorRun:
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    return SensorRun(run["jobName"], tags.get("dagster/partition", ""), run["status"])
