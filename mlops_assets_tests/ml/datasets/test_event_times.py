"""Times that cannot be are rejected rows with a rule of their own."""

from __future__ import annotations

import datetime as dt

import pandas as pd
import pandera.pandas as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.ml.datasets.event_times import TimeLimits
from mlops_assets.ml.datasets.validation import Validation, validate
from mlops_assets.spec import ContractSpec, SourceSpec
from mlops_assets_tests.ml.scenarios import NAMES, SOURCE, raw

TAKEN = dt.datetime(2024, 2, 1, 12, tzinfo=dt.UTC)
MADE = ContractSpec(schema_class="contract.Prices")


class AnyTime(pa.DataFrameModel):
    country: str
    date: pd.Timestamp
    price: float
    units: int
    kind: str = pa.Field(nullable=True)
    published: pd.Timestamp = pa.Field(nullable=True)


ARRIVES = SOURCE.model_copy(
    update={
        "columns": {**SOURCE.columns, "published": "Published"},
        "arrival_time": "published",
    }
)


def check(
    *days: str | None, source: SourceSpec = ARRIVES, contract: ContractSpec = MADE, at: str = "Day"
) -> Validation:
    frame = raw(len(days)).assign(Published="2024-01-31")
    frame[at] = days
    result = validate(frame, AnyTime, source, NAMES, times=TimeLimits.of(contract, TAKEN))
    assert result.rows == len(result.accepted) + len(result.quarantine) + result.duplicates
    return result


@pytest.mark.parametrize("day", ["2062-11-15", "2024-02-03T12:00:01Z", "2261-12-31"])
def test_an_event_later_than_its_delivery_is_rejected_under_that_name(day: str) -> None:
    result = check("2024-01-31", day)
    assert result.quarantine["_rules"].tolist() == ["date: beyond_now"]
    assert result.quarantine["date"].tolist() == [day]
    assert len(result.accepted) == 1


def test_tomorrow_is_known_today_where_prices_are_of_the_day_ahead() -> None:
    assert check("2024-02-02", "2024-02-03").quarantine.empty


def test_a_product_whose_events_lie_ahead_says_how_far() -> None:
    ahead = MADE.model_copy(update={"max_ahead": "52w"})
    result = check("2024-12-24", "2062-01-01", contract=ahead)
    assert result.accepted["date"].tolist() == [pd.Timestamp("2024-12-24")]
    assert check("2062-01-01", contract=MADE.model_copy(update={"max_ahead": None})).rejected == 0


@pytest.mark.parametrize("day", ["1970-01-01", "1900-01-01", "1899-12-30", "1753-01-01"])
def test_what_systems_write_for_a_time_they_do_not_know_is_rejected_under_that_name(
    day: str,
) -> None:
    result = check("2024-01-31", day)
    assert result.quarantine["_rules"].tolist() == ["date: before_earliest"]


def test_a_long_history_says_where_it_begins() -> None:
    long = MADE.model_copy(update={"earliest": dt.date(1850, 1, 1)})
    assert check("1900-01-01", "1970-01-01", contract=long).rejected == 0
    assert check("1753-01-01", contract=long).rejected == 1


def test_an_arrival_later_than_its_delivery_is_rejected_and_a_missing_one_is_not() -> None:
    result = check("2024-01-31", "9999-12-31", "2062-01-01", None, at="Published")
    # Year 9999 is outside what the types of the contract hold, and so none of the time.
    assert result.quarantine["_rules"].tolist() == ["type:published", "published: beyond_now"]


def test_a_record_that_was_ahead_is_free_when_a_later_delivery_comes() -> None:
    frame = raw(1).assign(Day="2024-02-10", Published="2024-01-31")
    later = TAKEN + dt.timedelta(days=9)
    for taken, rejected in ((TAKEN, 1), (later, 0)):
        times = TimeLimits.of(MADE, taken)
        assert validate(frame, AnyTime, ARRIVES, NAMES, times=times).rejected == rejected


@given(
    st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2261, 12, 31)),
    st.integers(0, 20_000),
)
def test_a_time_is_rejected_exactly_when_it_is_outside(when: dt.datetime, ahead_days: int) -> None:
    contract = MADE.model_copy(update={"max_ahead": f"{ahead_days}d"})
    result = check(when.isoformat(), contract=contract)
    last = TAKEN.replace(tzinfo=None) + dt.timedelta(days=ahead_days)
    assert bool(result.rejected) == (when > last or when < dt.datetime(1971, 1, 1))


def test_a_tolerance_longer_than_the_calendar_is_no_limit() -> None:
    contract = MADE.model_copy(update={"max_ahead": "99999w"})
    assert check("2261-12-31", contract=contract).rejected == 0
