"""The closed loop through the real daemon: two countries drift, and nobody touches anything."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, expect

from mlops_assets.components.scaffold import new_product
from mlops_assets.storage import SnapshotStore
from mlops_assets_tests.browser.conftest import new_page
from mlops_assets_tests.browser.operator import Operator
from mlops_assets_tests.browser.site import command
from mlops_assets_tests.platform import edit
from mlops_assets_tests.runtime.serving import Up, eventually, graphql, running

PRODUCT = "parcels"
COUNTRIES = ("DEU", "ESP", "FRA", "ITA", "NOR")
DRIFTED = ("ESP", "FRA")
NEW_DAYS = 42
SENSORS = ("landing", "retraining", "alerts")
PATIENCE_SECONDS = 300
"""The loop takes about a minute; on a busy machine several."""

_START = """
mutation ($sensor: SensorSelector!) {
  startSensor(sensorSelector: $sensor) { ... on Sensor { name } ... on PythonError { message } }
}
"""
_RUNS = """
query {
  runsOrError { ... on Runs { results { status tags { key value } } } }
}
"""


@dataclass
class Receiver:
    """A webhook on 127.0.0.1 and what it was sent."""

    url: str
    documents: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Loop:
    """The loop after it came to rest.

    Attributes:
        up: serves it.
        store: of the snapshots.
        trainings: runs that the retraining sensor asked for: country and tags.
        alerts: as they were received.
        seconds: from the file to the last of the two decisions.
    """

    up: Up
    store: SnapshotStore
    trainings: list[dict[str, str]]
    alerts: list[dict[str, Any]]
    seconds: float


@pytest.fixture(scope="module")
def loop(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """Five countries made from history; then six weeks of two of them, with demand changed."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("defs")
    _product(folder)
    _deliver(home, _records(drifted=False), "history.parquet")
    with _receiver() as receiver:
        more = {"MLOPS_ASSETS_DEFS": str(folder), "PARCELS_ALERTS": receiver.url}
        (made,) = json.loads(command(home, "materialize", PRODUCT, "--all", "--json", **more))
        assert made["failures"] == {}, made
        with running(home, **more) as up:
            yield _watched(home, up, receiver)


def test_just_the_drifted_countries_are_trained_again_and_every_one_is_decided_on(
    loop: Loop,
) -> None:
    assert {tags["dagster/partition"] for tags in loop.trainings} == set(DRIFTED)
    decisions = loop.store.read_log((PRODUCT, "decisions"))
    for country in COUNTRIES:
        own = decisions[decisions["country"] == country].sort_values("decided_at")
        triggers = own["trigger"].tolist()
        if country in DRIFTED:
            assert "retraining sensor" in triggers[-1]
            assert {"drift", "error"} & set(triggers[-1].replace(":", " ").split())
        else:
            assert len(triggers) == 1


def test_the_landed_days_are_in_the_realised_error(loop: Loop) -> None:
    for country in DRIFTED:
        table = loop.store.read((PRODUCT, "performance"), country)
        matured = table[table["label"].notna()]
        assert len(matured) >= NEW_DAYS - 1
        assert set(table["model_version"]) <= {"1", "2", "3"}


def test_the_alert_names_country_and_owner(loop: Loop) -> None:
    told = [alert for alert in loop.alerts if alert["country"] in DRIFTED]
    assert told
    assert all(alert["owners"] == ["team:planning"] for alert in told)
    assert len({alert["id"] for alert in loop.alerts}) == len(loop.alerts)


def test_the_sensors_page_says_for_every_country_what_was_done_or_why_not(
    browser: Browser, loop: Loop
) -> None:
    with new_page(browser) as page:
        shown = Operator(page, loop.up.url).sensor(f"{PRODUCT}_retraining")
        for country in COUNTRIES:
            expect(shown.get_by_text(country).first).to_be_visible()


def test_drift_and_performance_are_shown_with_their_reason(browser: Browser, loop: Loop) -> None:
    with new_page(browser) as page:
        operator = Operator(page, loop.up.url)
        for check in ("performance/realised_error", "drift/drift"):
            asset, name = check.split("/")
            shown = operator.check_of(f"{PRODUCT}/{asset}", name, DRIFTED[0])
            expect(shown.get_by_text("Failed").first).to_be_visible()


def _watched(home: Path, up: Up, receiver: Receiver) -> Loop:
    for name in SENSORS:
        where = {"repositoryName": "__repository__", "repositoryLocationName": "mlops_assets"}
        sensor = {**where, "sensorName": f"{PRODUCT}_{name}"}
        assert "name" in graphql(up.url, _START, {"sensor": sensor})["startSensor"]
    store = SnapshotStore(str(home / "store"))
    dropped = time.time()
    _deliver(home, _records(drifted=True), "news.parquet")
    eventually(lambda: _decided(store), "both decisions", PATIENCE_SECONDS, up)
    seconds = time.time() - dropped
    eventually(
        lambda: any(each["country"] in DRIFTED for each in receiver.documents),
        "an alert",
        PATIENCE_SECONDS,
        up,
    )
    eventually(lambda: not _going_on(up), "the end of all runs", PATIENCE_SECONDS, up)
    asked = [run for run in _runs(up) if "mlops_assets/request" in run]
    return Loop(up, store, asked, list(receiver.documents), seconds)


def _decided(store: SnapshotStore) -> bool:
    decisions = store.read_log((PRODUCT, "decisions"))
    return all((decisions["country"] == country).sum() > 1 for country in DRIFTED)


def _runs(up: Up) -> list[dict[str, str]]:
    found = graphql(up.url, _RUNS)["runsOrError"]["results"]
    return [
        {**{tag["key"]: tag["value"] for tag in run["tags"]}, "status": run["status"]}
        for run in found
    ]


def _going_on(up: Up) -> bool:
    return any(run["status"] not in ("SUCCESS", "FAILURE", "CANCELED") for run in _runs(up))


def _product(folder: Path) -> None:
    made = new_product(PRODUCT, folder)
    edit(
        made / "defs.yaml",
        ("countries: [DEU, FRA, NOR]", f"countries: [{', '.join(COUNTRIES)}]"),
        (
            "    holdout_from: 2024-10-01\n    validation_days: 90\n",
            "    holdout_days: 120\n    validation_days: 60\n    refit: true\n",
        ),
        (
            "  # What a valid prediction is,",
            "  monitoring: {window_days: 14, every_days: 7, min_rows: 10}\n"
            "  retraining: {cooldown_days: 0}\n"
            "  alerts: {sinks: [{kind: webhook, url_env: PARCELS_ALERTS}]}\n\n"
            "  # What a valid prediction is,",
        ),
    )


def _records(*, drifted: bool) -> pd.DataFrame:
    """Two years of every country, or the six weeks after of the drifted ones."""
    first = pd.Timestamp("2023-01-01")
    split = pd.Timestamp("2025-01-01")
    days = (
        pd.date_range(split, periods=NEW_DAYS)
        if drifted
        else pd.date_range(first, split, inclusive="left")
    )
    random = np.random.default_rng(5 if drifted else 4)
    frames = []
    for place, country in enumerate(DRIFTED if drifted else COUNTRIES):
        level = 1000.0 + 300.0 * COUNTRIES.index(country)
        weekly = np.where(days.dayofweek < 5, 1.0, 0.6)
        noise = random.normal(1.0, 0.05, len(days))
        demand = level * weekly * noise * (2.5 if drifted else 1.0) + place
        frames.append(
            pd.DataFrame(
                {
                    "Country": country,
                    "Date": days.strftime("%Y-%m-%d"),
                    "Demand (parcels)": np.round(demand),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def _deliver(home: Path, frame: pd.DataFrame, name: str) -> None:
    folder = home / "landing" / PRODUCT
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(folder / f".{name}.part", index=False)
    (folder / f".{name}.part").rename(folder / name)


@contextmanager
def _receiver() -> Iterator[Receiver]:
    documents: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            documents.append(json.loads(self.rfile.read(length)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Not on the terminal of the tests."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Receiver(f"http://127.0.0.1:{server.server_address[1]}/alerts", documents)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
