"""What a person sees of damaged, restated and newly landed data, a run a country."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from mlops_assets_tests.browser.operator import Operator
from mlops_assets_tests.browser.site import SENSOR, SensorRun, Site, Standing
from mlops_assets_tests.made import (
    COUNTRIES,
    COUNTRY,
    DATE,
    LISTED,
    NEW_DAYS,
    PRICE,
    RESTATED,
    UNDELIVERED,
    newest,
    published,
)
from mlops_assets_tests.runtime.serving import eventually

DAMAGED = "FRA"
GOOD = [country for country in COUNTRIES if country != DAMAGED]
NOT_MADE = 1 + len(UNDELIVERED)
LANDED = ("AUT", "DEU")
TEXT = "not published"
BACKFILL_SECONDS = 900
"""The runs of all countries take a minute; on a busy machine several."""


@dataclass(frozen=True)
class Backfill:
    """One backfill over every country, from before to after."""

    before: Standing
    after: Standing
    targeted: int
    succeeded: int
    failed: int


@pytest.fixture(scope="module")
def backfill(browser: Page, site: Site) -> Backfill:
    """The newest days of every country, one of them damaged, in one backfill by clicking."""
    before = site.standing()
    frame = published()
    news = frame[newest(frame, NEW_DAYS)].astype({PRICE: str})
    news.loc[news[COUNTRY] == DAMAGED, PRICE] = TEXT
    site.deliver(news, "news.csv")
    operator = Operator(browser, site.up.url)
    operator.launch_all("power_price_predict")
    operator.follow("100% completed", BACKFILL_SECONDS)
    counts = operator.backfill_counts()
    return Backfill(before, site.standing(), *counts)


def test_all_countries_finish_but_the_damaged_and_those_without_data_in_one_backfill(
    backfill: Backfill, site: Site, operator: Operator
) -> None:
    assert backfill.targeted == len(LISTED)
    assert (backfill.succeeded, backfill.failed) == (len(GOOD), NOT_MADE)
    before, after = backfill.before.predictions, backfill.after.predictions
    assert [country for country in COUNTRIES if before[country] != after[country]] == GOOD
    last_days = published().groupby(COUNTRY)[DATE].max()
    for country in GOOD:
        newest_day = site.frame("predictions", country)["event_time"].max()
        assert newest_day == pd.Timestamp(last_days[country]), country

    page = operator.partition("power_price/predictions", GOOD[0])
    expect(page.get_by_text(f"Materialized ({len(GOOD)})", exact=True)).to_be_visible()
    expect(page.get_by_text(f"Failed ({NOT_MADE})", exact=True)).to_be_visible()
    expect(page.get_by_text("did not materialize this asset")).not_to_be_visible()
    expect(page.get_by_text(last_days[GOOD[0]], exact=True).first).to_be_visible()


def test_the_damaged_country_keeps_its_last_good_data_and_champion(
    backfill: Backfill, operator: Operator
) -> None:
    before, after = backfill.before, backfill.after
    assert before.validated[DAMAGED] == after.validated[DAMAGED]
    assert before.predictions[DAMAGED] == after.predictions[DAMAGED]
    was, now = before.status[DAMAGED], after.status[DAMAGED]
    assert (was["state"], now["state"]) == ("ok", "contract_broken")
    kept = ("champion_version", "champion_kind", "prediction_rows", "predicted_at")
    assert {name: now[name] for name in kept} == {name: was[name] for name in kept}
    assert "contract_broken" not in {after.status[country]["state"] for country in GOOD}

    for asset in ("validated", "features", "predictions"):
        page = operator.partition(f"power_price/{asset}", DAMAGED)
        expect(page.get_by_text("failed, and did not materialize this asset")).to_be_visible()
        expect(page.get_by_text("Materialized", exact=True).first).to_be_visible()


def test_the_refused_delivery_is_red_with_its_numbers_and_the_failing_records(
    backfill: Backfill, site: Site, operator: Operator
) -> None:
    check = operator.check_of("power_price/validated", "contract", DAMAGED)
    told = "30 of 30 rows delivered since the last good data (100.0%) break the contract"
    expect(check.get_by_text(told)).to_be_visible()
    assert operator.colour_of("Failed") == "red"
    for cell in (r"^type:price$", rf"^{TEXT}$", r"^news\.csv, record \d+$"):
        expect(check.get_by_role("cell").get_by_text(re.compile(cell)).first).to_be_visible()

    rejected = site.frame("quarantine", DAMAGED)
    assert rejected["price"].tolist() == [TEXT] * NEW_DAYS
    page = operator.partition("power_price/quarantine", DAMAGED)
    expect(page.get_by_text(TEXT, exact=True).first).to_be_visible()
    expect(page.get_by_text("type:price", exact=True).first).to_be_visible()


# Nightly: another run and page; `pipeline/test_trust.py` has what the check says.
@pytest.mark.nightly
def test_restated_history_is_shown_by_month_with_the_number_of_records(
    site: Site, operator: Operator
) -> None:
    frame = published()
    own = frame[(frame[COUNTRY] == RESTATED) & ~newest(frame, NEW_DAYS)].reset_index(drop=True)
    changed, withdrawn = own.index[[-1, -2, -40]], own.index[[-60, -61]]
    own.loc[changed, PRICE] += 10.0
    site.deliver(own.drop(withdrawn), f"{RESTATED}.csv")
    operator.launch("power_price_predict", [RESTATED])
    operator.follow("Success")

    check = operator.check_of("power_price/validated", "restated_history", RESTATED)
    months = own[DATE].str[:7]
    span = f"{months[withdrawn].min()} to {months[changed].max()}"
    told = f"3 changed and 2 withdrawn records, of {span}; both versions are kept"
    expect(check.get_by_text(told)).to_be_visible()
    assert operator.colour_of("Failed") == "yellow"
    by_month = [f"{m} price {rows} 10 10 0" for m, rows in Counter(months[changed]).items()]
    by_month += [f"{m} 0 {rows}" for m, rows in Counter(months[withdrawn]).items()]
    for cells in by_month:
        expect(check.get_by_role("row", name=cells, exact=True)).to_be_visible()


# Nightly: two minutes of the real daemon and a restart; `pipeline/test_landing.py` has the sensor.
@pytest.mark.nightly
def test_the_landing_sensor_runs_just_the_countries_that_got_rows_also_across_a_restart(
    site: Site, operator: Operator
) -> None:
    operator.switch(SENSOR)
    # The backfill before this test left the shared features behind: the sensor brings them up.
    eventually(lambda: _is_quiet(site), "a tick with nothing to do", 300, site.up)
    before, known = site.standing(), len(site.sensor_runs())
    page = operator.pointing_at_a_tick(SENSOR, "0 runs requested")
    expect(page.get_by_text("no new file in").first).to_be_visible()

    site.deliver(_next_days(5), "landed.csv")
    eventually(lambda: len(site.sensor_runs()) > known, "the ingestion", 120, site.up)
    assert site.end()[:2] == (0, [])
    # Records of those that got rows, what the countries share, and whoever reads that.
    expected = [SensorRun("power_price_ingest", "", "SUCCESS")]
    expected += [SensorRun("power_price_shared", "", "SUCCESS")]
    expected += [
        SensorRun("power_price_predict", name, "SUCCESS") for name in (*LANDED, *COUNTRIES)
    ]
    expected = _in_order(expected)
    eventually(lambda: _in_order(site.sensor_runs()[known:]) == expected, "good runs", 400, site.up)
    eventually(lambda: _is_quiet(site), "a tick with nothing new", 90, site.up)

    assert _in_order(site.sensor_runs()[known:]) == expected
    after = site.standing()
    made = [c for c in COUNTRIES if before.predictions[c] != after.predictions[c]]
    assert tuple(made) == LANDED
    operator.url = site.up.url
    page = operator.pointing_at_a_tick(SENSOR, "0 runs requested")
    expect(page.get_by_text("no new file in").first).to_be_visible()
    expect(page.get_by_text("2 runs requested", exact=True).first).to_be_visible()
    operator.switch(SENSOR)


def _is_quiet(site: Site) -> bool:
    """Whether the newest tick found nothing to do and nothing on its way."""
    newest = next(iter(site.ticks()), None)
    return newest is not None and newest.status == "SKIPPED" and "on their way" not in newest.reason


def _next_days(days: int) -> pd.DataFrame:
    """Prices of the days after the newest ones, of two countries."""
    frame = published()
    found = frame[frame[COUNTRY].isin(LANDED)].groupby(COUNTRY).tail(days)
    later = pd.to_datetime(found[DATE]) + pd.Timedelta(days=days)
    return found.assign(**{DATE: later.dt.strftime("%Y-%m-%d")})


def _in_order(runs: list[SensorRun]) -> list[SensorRun]:
    return sorted(runs, key=lambda run: (run.job, run.country))
