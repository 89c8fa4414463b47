"""The policy by the clock of the records: history is played through the sensor within seconds."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from mlops_assets.spec import RetrainingSpec
from mlops_assets.stages.common.clock import clock_metadata, policy_time
from mlops_assets.stages.common.runs import AT
from mlops_assets.stages.promotion.decision_log import entries
from mlops_assets.stages.retraining.state import read_state
from mlops_assets_tests.platform import Platform, platform_of
from mlops_assets_tests.stages.proposals import COUNTRIES, PRODUCT, decide, propose
from mlops_assets_tests.stages.watched import asked, queued, quiet_everywhere, said, watch

COUNTRY = "FRA"
FIRST = pd.Timestamp("2021-01-04")
DAY = pd.Timedelta(days=1)
STATES = dg.DagsterRunStatus


def by(platform: Platform, clock: str, **policy: object) -> Platform:
    """The same platform with a policy that goes by this clock."""
    chosen = RetrainingSpec.model_validate({"clock": clock, "cooldown_days": 14, **policy})
    spec = platform.product.spec.model_copy(update={"retraining": chosen})
    return platform_of(replace(platform.product, spec=spec), platform.home, platform.instance)


def deliver(platform: Platform, until: pd.Timestamp, countries: Any = COUNTRIES) -> None:
    """Records of countries up to a day, as `validated` is left by an ingestion of today."""
    for country in countries:
        made = platform.store.current((PRODUCT, "validated"), country)
        assert made is not None
        rows = platform.frame("validated", country)
        name = platform.product.spec.source.event_time
        rows = rows.assign(**{name: rows[name] + (until - rows[name].max())})
        told = clock_metadata(rows[name], dt.datetime.now(dt.UTC).isoformat(), None)
        platform.store.write(made.asset, country, rows, metadata={**made.metadata, **told})


def played(platform: Platform, weeks: int) -> list[int]:
    """Weeks, of deliveries one after another, after which the sensor asked for FRA's training."""
    found = []
    for week in range(weeks):
        deliver(platform, FIRST + 7 * week * DAY)
        watch(platform, COUNTRY, worse=True, look=week + 1)
        requests = asked(platform)
        for request in requests:
            queued(platform, request, STATES.SUCCESS)
            found.append(week)
    return found


@pytest.fixture
def quiet(trained: Platform) -> Platform:
    quiet_everywhere(trained)
    return trained


def test_weekly_deliveries_of_the_past_are_played_with_the_cool_down_in_their_own_days(
    quiet: Platform,
) -> None:
    platform = forgotten(by(quiet, "data"))
    assert played(platform, 7) == [0, 2, 4, 6]
    deliver(platform, FIRST + 44 * DAY)
    watch(platform, COUNTRY, worse=True, look=99)
    assert "cool-down until 2021-03-01" in said(platform)


def forgotten(platform: Platform) -> Platform:
    """The platform as if its first trainings had been decided on the day before the deliveries."""
    deliver(platform, FIRST - 30 * DAY)
    for country in COUNTRIES:
        propose(platform, country, error=2.0)
        decide(platform, country)
    return platform


def test_a_log_of_before_is_dated_by_the_time_of_day(quiet: Platform) -> None:
    now = dt.datetime.now(dt.UTC)
    by_wall, by_data = (
        read_state(by(quiet, clock).context, quiet.instance, now) for clock in ("wall", "data")
    )
    assert by_wall.clock == now
    assert by_data.clock < now
    last = [each.last_training for each in by_data.country_states]
    assert None not in last
    assert last == [each.last_training for each in by_wall.country_states]


def test_by_the_time_of_day_the_same_deliveries_ask_once(quiet: Platform) -> None:
    platform = by(quiet, "wall", cooldown_days=0)
    deliver(platform, FIRST)
    watch(platform, COUNTRY, worse=True)
    (request,) = asked(platform)
    assert AT not in request.tags
    queued(platform, request, STATES.SUCCESS)
    late = by(platform, "wall")
    assert played(late, 5) == []
    newest = entries(late.context, COUNTRY)[-1]
    assert newest.dated == ""
    assert "dated" not in late.decisions(COUNTRY)


def test_requests_and_decisions_are_dated_by_the_clock_they_were_made_by(quiet: Platform) -> None:
    platform = forgotten(by(quiet, "data"))
    entry = entries(platform.context, COUNTRY)[-1]
    before = (FIRST - 30 * DAY).to_pydatetime().replace(tzinfo=dt.UTC)
    assert dt.datetime.fromisoformat(entry.dated) == before
    assert entry.decided_at > pd.Timestamp.now(tz="UTC") - pd.Timedelta(hours=1)
    deliver(platform, FIRST)
    watch(platform, COUNTRY, worse=True)
    (request,) = asked(platform)
    assert request.tags[AT] == "2021-01-04T00:00:00+00:00"


def test_the_budget_of_a_day_is_of_a_day_of_the_records(quiet: Platform) -> None:
    platform = forgotten(by(quiet, "data", per_day=1))
    for day in range(3):
        deliver(platform, FIRST + day * DAY)
        for country in COUNTRIES:
            watch(platform, country, worse=True, look=day + 1)
        (request,) = asked(platform)
        queued(platform, request, STATES.SUCCESS)
        waits = "waits for the budget of 1 trainings in 24 hours"
        assert (waits in said(platform)) == (day < 2)  # then each of the three had its day


def test_a_failed_run_is_tried_again_by_the_time_of_day(quiet: Platform) -> None:
    platform = forgotten(by(quiet, "data"))
    deliver(platform, FIRST)
    watch(platform, COUNTRY, worse=True)
    (request,) = asked(platform)
    queued(platform, request, STATES.FAILURE)
    deliver(platform, FIRST + 100 * DAY)
    assert "attempt 1 of 3 failed; the next follows soon" in said(platform)


def test_one_country_alone_moves_nobody_s_clock(quiet: Platform) -> None:
    now = dt.datetime.now(dt.UTC)
    by_data = by(quiet, "data")
    deliver(by_data, FIRST)
    deliver(by_data, FIRST + 300 * DAY, ["DEU"])
    assert policy_time(by_data.context, now) == FIRST.to_pydatetime().replace(tzinfo=dt.UTC)
    assert policy_time(by(quiet, "wall").context, now) == now


def test_without_records_it_is_the_time_of_day(platform: Platform) -> None:
    now = dt.datetime.now(dt.UTC)
    assert policy_time(by(platform, "data").context, now) == now
