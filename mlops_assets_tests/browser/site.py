"""A served home of power prices: what is delivered to it, runs on it and is stored in it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mlops_assets.components.loading import load_product
from mlops_assets.settings import PROJECT_ROOT
from mlops_assets.storage import SnapshotStore
from mlops_assets_tests.effort import WHOLE
from mlops_assets_tests.platform import edit
from mlops_assets_tests.runtime.serving import BIN, Up, environment, graphql, running

PRODUCT = load_product(PROJECT_ROOT / "mlops_assets" / "defs" / "power_price")
_PART = ("AUT", "BEL", "DEU", "ESP", "FRA")
COUNTRIES = list(PRODUCT.spec.countries) if WHOLE else list(_PART)
"""All 31 in `make nightly`; each is a run of its own, whatever the number."""
COUNTRY, DATE, PRICE = "ISO3 Code", "Date", "Price (EUR/MWhe)"
SENSOR = "power_price_landing"
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
    """A home and the `up` that serves it now."""

    home: Path
    up: Up
    stack: ExitStack
    more: Mapping[str, str]

    @property
    def store(self) -> SnapshotStore:
        return SnapshotStore(str(self.home / "store"))

    def restart(self) -> None:
        """Stop everything that runs and serve the same home again, on other ports."""
        self.stack.close()
        self.up = self.stack.enter_context(running(self.home, **self.more))

    def deliver(self, frame: pd.DataFrame, name: str) -> None:
        deliver(self.home, frame, name)

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
def serving(home: Path, **more: str) -> Iterator[Site]:
    """Serve a home until the block ends, with as many restarts as wanted."""
    with ExitStack() as stack:
        yield Site(home, stack.enter_context(running(home, **more)), stack, more)


def quickly_trained(folder: Path) -> dict[str, str]:
    """The environment in which the product's models are small, and it has the countries of here.

    For tests of data and of pages, to which it is all one how good a model is.
    """
    made = folder / PRODUCT.name
    shutil.copytree(PRODUCT.folder, made, ignore=shutil.ignore_patterns("__pycache__"))
    edit(
        made / "defs.yaml",
        (
            f"countries: [{', '.join(PRODUCT.spec.countries)}]",
            f"countries: [{', '.join(COUNTRIES)}]",
        ),
        ("max_iter: 200", "max_iter: 15"),
        ("max_iter: 60", "max_iter: 8"),
    )
    return {"MLOPS_ASSETS_DEFS": str(folder)}


def published() -> pd.DataFrame:
    """The product's own generated delivery, of listed countries."""
    function = PRODUCT.sample_function()
    assert function is not None
    frame = function(7)
    return frame[frame[COUNTRY].isin(COUNTRIES)].reset_index(drop=True)


def newest(frame: pd.DataFrame, days: int) -> pd.Series:
    """Which rows are of the last days of their country."""
    day = pd.to_datetime(frame[DATE])
    return day > day.groupby(frame[COUNTRY]).transform("max") - pd.Timedelta(days=days)


def deliver(home: Path, frame: pd.DataFrame, name: str) -> None:
    """As publishers should: whole under another name first, then renamed."""
    folder = home / "landing" / PRODUCT.name
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{name}.part"
    if name.endswith(".csv"):
        frame.to_csv(part, index=False)
    else:
        frame.to_parquet(part, index=False)
    part.rename(folder / name)


def materialize_all(home: Path, **more: str) -> None:
    """Every listed country, headless, before anything is served."""
    (said,) = json.loads(command(home, "materialize", PRODUCT.name, "--all", "--json", **more))
    assert said["failures"] == {}, said


def command(home: Path, *arguments: str, **more: str) -> str:
    """What `mlops-assets` prints with a home of its own, and `more` in its environment."""
    return subprocess.run(
        [BIN / "mlops-assets", *arguments],
        env=environment(home, **more),
        cwd=PROJECT_ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=_MINUTES_TO_MAKE_ALL * 60,
    ).stdout


def _sensor_run(run: Mapping[str, Any]) -> SensorRun:
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    return SensorRun(run["jobName"], tags.get("dagster/partition", ""), run["status"])
