"""The closed loop through the real daemon: two countries drift, and nobody touches anything."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from mlops_assets.storage import SnapshotStore
from mlops_assets_tests.browser.drifting import COUNTRIES, DRIFTED, NEW_DAYS, PARCELS, records
from mlops_assets_tests.browser.operator import Operator
from mlops_assets_tests.browser.site import Site, make_all
from mlops_assets_tests.runtime.serving import Up, eventually, graphql

# Nightly: the real daemon takes minutes to what `stages/retraining`, `stages/alerting` and
# `pipeline/test_landing.py` ask of the same sensors one by one.
pytestmark = pytest.mark.nightly

SENSORS = ("landing", "retraining", "alerts")
PATIENCE_SECONDS = 300
"""The loop takes about a minute; on a busy machine several."""

_START = """
mutation ($sensor: SensorSelector!) {
  startSensor(sensorSelector: $sensor) {
    ... on Sensor { name sensorState { id } } ... on PythonError { message }
  }
}
"""
_STOP = "mutation ($id: String!) { stopSensor(id: $id) { __typename } }"
_RUNS = """
query {
  runsOrError { ... on Runs { results { jobName status tags { key value } } } }
}
"""


@dataclass(frozen=True)
class Loop:
    """The loop after it came to rest.

    Attributes:
        site: serves it.
        trainings: runs that the retraining sensor asked for: country and tags.
        alerts: as they were received.
        seconds: from the file to the last of the two decisions.
    """

    site: Site
    trainings: list[dict[str, str]]
    alerts: list[dict[str, Any]]
    seconds: float


@pytest.fixture(scope="module")
def loop(site: Site) -> Loop:
    """Five countries made from history; then six weeks of two of them, with demand changed."""
    site.deliver(records(drifted=False), "history.parquet", PARCELS)
    make_all(site.home, PARCELS, **site.more)
    sensors = [_started(site.up, f"{PARCELS}_{name}") for name in SENSORS]
    found = _watched(site)
    for sensor in sensors:
        answer = graphql(site.up.url, _STOP, {"id": sensor})["stopSensor"]
        assert answer["__typename"] == "StopSensorMutationResult", answer
    return found


def test_just_the_drifted_countries_are_trained_again_and_every_one_is_decided_on(
    loop: Loop,
) -> None:
    assert {tags["dagster/partition"] for tags in loop.trainings} == set(DRIFTED)
    decisions = loop.site.store.read_log((PARCELS, "decisions"))
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
        table = loop.site.store.read((PARCELS, "performance"), country)
        matured = table[table["label"].notna()]
        assert len(matured) >= NEW_DAYS - 1
        assert set(table["model_version"]) <= {"1", "2", "3"}


def test_the_alert_names_country_and_owner(loop: Loop) -> None:
    told = [alert for alert in loop.alerts if alert["country"] in DRIFTED]
    assert told
    assert all(alert["owners"] == ["team:planning"] for alert in told)
    assert len({alert["id"] for alert in loop.alerts}) == len(loop.alerts)


def test_the_sensors_page_says_for_every_country_what_was_done_or_why_not(
    browser: Page, loop: Loop
) -> None:
    shown = Operator(browser, loop.site.up.url).sensor(f"{PARCELS}_retraining")
    for country in COUNTRIES:
        expect(shown.get_by_text(country).first).to_be_visible()


def test_drift_and_performance_are_shown_with_their_reason(browser: Page, loop: Loop) -> None:
    operator = Operator(browser, loop.site.up.url)
    for check in ("performance/realised_error", "drift/drift"):
        asset, name = check.split("/")
        shown = operator.check_of(f"{PARCELS}/{asset}", name, DRIFTED[0])
        expect(shown.get_by_text("Failed").first).to_be_visible()


def _started(up: Up, name: str) -> str:
    """Switch a sensor on; what it is switched off by."""
    where = {"repositoryName": "__repository__", "repositoryLocationName": "mlops_assets"}
    answer = graphql(up.url, _START, {"sensor": {**where, "sensorName": name}})["startSensor"]
    assert answer["name"] == name, answer
    return answer["sensorState"]["id"]


def _watched(site: Site) -> Loop:
    dropped = time.time()
    site.deliver(records(drifted=True), "news.parquet", PARCELS)
    eventually(lambda: _decided(site.store), "both decisions", PATIENCE_SECONDS, site.up)
    seconds = time.time() - dropped
    eventually(
        lambda: any(each["country"] in DRIFTED for each in site.receiver.documents),
        "an alert",
        PATIENCE_SECONDS,
        site.up,
    )
    eventually(lambda: not _going_on(site.up), "the end of all runs", PATIENCE_SECONDS, site.up)
    asked = [run for run in _runs(site.up) if "mlops_assets/request" in run]
    return Loop(site, asked, list(site.receiver.documents), seconds)


def _decided(store: SnapshotStore) -> bool:
    decisions = store.read_log((PARCELS, "decisions"))
    return all((decisions["country"] == country).sum() > 1 for country in DRIFTED)


def _runs(up: Up) -> list[dict[str, str]]:
    found = graphql(up.url, _RUNS)["runsOrError"]["results"]
    return [
        {**{tag["key"]: tag["value"] for tag in run["tags"]}, "status": run["status"]}
        for run in found
        if run["jobName"].startswith(PARCELS)
    ]


def _going_on(up: Up) -> bool:
    return any(run["status"] not in ("SUCCESS", "FAILURE", "CANCELED") for run in _runs(up))
