"""Cut-offs of a calendar, the clock, and features made by them."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.errors import TrainingError
from mlops_assets.ml.features.calendar import Calendar, calendar_of
from mlops_assets.ml.features.feature_frame import (
    FeatureFunction,
    PointInTime,
    build_features,
    check_point_in_time,
    features_as_of,
)
from mlops_assets.ml.features.shared_features import build_shared, check_shared_point_in_time
from mlops_assets.spec import CutoffsSpec, SourceSpec, TargetSpec, duration

TARGET = TargetSpec(description="d", unit="u", matures_after="30d")
SOURCE = SourceSpec(
    columns={"invoice": "i", "customer": "c", "date": "d", "country": "l"},
    country="country",
    key=["invoice"],
    event_time="date",
)
MONTHLY = CutoffsSpec(every="month", first=dt.date(2024, 2, 1))
FREQ = {"day": "D", "week": "W-MON", "month": "MS", "quarter": "QS", "year": "YS"}
DAYS = st.dates(dt.date(1990, 1, 1), dt.date(2090, 1, 1))


def invoices(until: str = "2024-07-20", customers: int = 8, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    dates = pd.date_range("2024-01-01 09:00", until, freq="17h")
    return pd.DataFrame(
        {
            "invoice": [f"I{number}" for number in range(len(dates))],
            "customer": rng.integers(0, customers, len(dates)),
            "date": dates,
            "country": "DEU",
        }
    )


def at(cutoffs: pd.DatetimeIndex, rows: pd.DataFrame) -> pd.DataFrame:
    """One row a customer and cut-off; 1 if the customer buys within 30 days after it."""
    made = []
    for cutoff in cutoffs:
        past = rows[rows["date"] < cutoff].groupby("customer").size()
        after = (rows["date"] >= cutoff) & (rows["date"] < cutoff + pd.Timedelta(days=30))
        label = past.index.isin(rows.loc[after, "customer"]).astype(float)
        made.append(
            pd.DataFrame(
                {"entity": past.index, "event_time": cutoff, "label": label, "n": past.to_numpy()}
            )
        )
    empty = {"entity": [], "event_time": [], "label": [], "n": []}
    return pd.concat(made) if made else pd.DataFrame(empty)


def build(validated: pd.DataFrame, cutoffs: pd.DatetimeIndex) -> pd.DataFrame:
    return at(cutoffs, validated)


def natural(validated: pd.DataFrame) -> pd.DataFrame:
    """As one writes it: up to the newest record."""
    days = validated["date"]
    return at(pd.date_range(days.min(), days.max(), freq="MS", normalize=True), validated)


def calendar(as_of: str, spec: CutoffsSpec = MONTHLY) -> Calendar:
    found = calendar_of(spec, dt.datetime.fromisoformat(as_of))
    assert found is not None
    return found


def checked(rows: pd.DataFrame, function: FeatureFunction, clock: Calendar | None) -> PointInTime:
    frame = build_features(rows, function, TARGET, calendar=clock)
    return check_point_in_time(rows, frame, function, SOURCE, target=TARGET, calendar=clock)


@given(
    every=st.sampled_from(sorted(FREQ)),
    first=DAYS,
    length=st.integers(0, 1500),
    offset=st.sampled_from(["0d", "6h", "3d", "14d", "5w"]),
)
def test_cutoffs_are_those_that_pandas_finds_in_the_calendar(
    every: str, first: dt.date, length: int, offset: str
) -> None:
    spec = CutoffsSpec.model_validate({"every": every, "first": first, "offset": offset})
    until = dt.datetime.combine(first, dt.time(12)) + dt.timedelta(days=length)
    wide = pd.date_range(first - dt.timedelta(days=500), until, freq=FREQ[every])
    moved = wide.normalize() + pd.Timedelta(duration(offset))
    expected = moved[(moved >= pd.Timestamp(first)) & (moved <= pd.Timestamp(until))]
    assert spec.reached(until) == [time.to_pydatetime() for time in expected]


@given(first=DAYS, hours=st.integers(0, 24 * 800), more=st.integers(0, 24 * 60))
def test_the_clock_stands_still_until_something_of_the_calendar_happens_and_never_goes_back(
    first: dt.date, hours: int, more: int
) -> None:
    spec, maturity = CutoffsSpec(every="month", first=first), TARGET.maturity
    known = dt.datetime.combine(first, dt.time()) + dt.timedelta(hours=hours)
    later = known + dt.timedelta(hours=more)
    before, after = spec.clock(known, maturity), spec.clock(later, maturity)
    assert before <= after <= later
    # What the clock leaves out changes neither the cut-offs nor which labels are known.
    assert spec.reached(before) == spec.reached(known)
    mature = [time for time in spec.reached(known) if time + maturity <= known]
    assert [time for time in spec.reached(before) if time + maturity <= before] == mature
    happened = spec.reached(later) != spec.reached(known) or any(
        known < time + maturity <= later for time in spec.reached(later)
    )
    assert (before != after) == happened


def test_a_cutoff_is_reached_within_the_grace_but_never_before_its_records_were_ingested() -> None:
    newest, cutoff = dt.datetime(2024, 5, 31, 17), dt.datetime(2024, 6, 1)
    same_day, next_day = dt.datetime(2024, 5, 31, 18), dt.datetime(2024, 6, 1, 6)
    assert MONTHLY.known_until(newest, next_day) >= cutoff
    assert MONTHLY.known_until(newest, same_day) < cutoff
    assert MONTHLY.known_until(dt.datetime(2024, 5, 29), next_day) < cutoff
    longer = CutoffsSpec(every="month", first=dt.date(2024, 2, 1), grace="3d")
    assert longer.known_until(dt.datetime(2024, 5, 29), next_day) >= cutoff


def test_rows_are_at_the_cutoffs_and_the_newest_has_no_label_yet() -> None:
    clock = calendar("2024-07-01")
    made = build_features(invoices(customers=60), build, TARGET, calendar=clock)
    assert list(made["event_time"].unique()) == list(clock.cutoffs)
    unknown = made["label"].isna()
    assert set(made.loc[unknown, "event_time"]) == {pd.Timestamp("2024-07-01")}
    assert {0.0, 1.0} == set(made.loc[~unknown, "label"])


def test_that_nobody_bought_is_known_where_a_country_has_no_later_record() -> None:
    clock, few = calendar("2024-07-01"), invoices(until="2024-03-10")
    made = build_features(few, build, TARGET, calendar=clock)
    assert made.loc[made["event_time"] == "2024-05-01", "label"].eq(0).all()
    assert made.loc[made["event_time"] == "2024-07-01", "label"].isna().all()


def test_features_by_cutoffs_know_nothing_of_the_future() -> None:
    result = checked(invoices(), build, calendar("2024-07-01"))
    assert result.passed
    assert result.checked_rows > 0


@given(seed=st.integers(0, 50), customers=st.integers(1, 12))
def test_what_is_made_as_of_a_moment_is_what_was_there_then(seed: int, customers: int) -> None:
    rows, moment = invoices(customers=customers, seed=seed), pd.Timestamp("2024-05-01")
    now = build_features(rows, build, TARGET, calendar=calendar("2024-07-01"))
    then = features_as_of(
        rows, build, SOURCE, TARGET, moment=moment, calendar=calendar("2024-07-01")
    )
    past = now[now["event_time"] <= moment].reset_index(drop=True)
    past["label"] = past["label"].mask(past["label_time"] > moment)
    pd.testing.assert_frame_equal(then, past)


def test_a_function_that_ends_at_its_newest_record_is_told_that_a_row_is_missing() -> None:
    # Nobody buys between 20 April and 2 May, so at the cut-off nothing says that it has come.
    rows = invoices()
    quiet = rows[~rows["date"].between("2024-04-20", "2024-05-02")]
    result = checked(quiet, natural, None)
    assert not result.passed
    assert result.missing_rows == result.differences > 0
    assert {each.kind for each in result.differing} == {"missing"}
    assert {each.column for each in result.differing} == {""}


def test_a_row_that_the_future_takes_away_is_told_as_such() -> None:
    def survivors(validated: pd.DataFrame, cutoffs: pd.DatetimeIndex) -> pd.DataFrame:
        """Without the customers who have not bought for three weeks: who stays is known later."""
        newest = validated.groupby("customer")["date"].max()
        gone = newest.index[newest < validated["date"].max() - pd.Timedelta(days=21)]
        return at(cutoffs, validated[~validated["customer"].isin(gone)])

    rows = invoices(customers=4)
    rows = rows[(rows["customer"] != 3) | (rows["date"] < "2024-05-20")]
    result = checked(rows, survivors, calendar("2024-07-01"))
    assert result.extra_rows > 0
    assert {each.entity for each in result.differing if each.kind == "extra"} == {"3"}


def test_a_value_that_knows_the_future_is_still_a_value() -> None:
    def leaking(validated: pd.DataFrame, cutoffs: pd.DatetimeIndex) -> pd.DataFrame:
        return at(cutoffs, validated).assign(total=len(validated))

    result = checked(invoices(), leaking, calendar("2024-07-01"))
    assert (result.missing_rows, result.extra_rows) == (0, 0)
    assert {each.column for each in result.differing} == {"total"}


def test_rows_at_other_times_than_cutoffs_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"no cut-off reached, such as .* at 2024-01-15"):
        build_features(
            invoices(),
            lambda validated, cutoffs: at(pd.DatetimeIndex(["2024-01-15"]), validated),
            TARGET,
            calendar=calendar("2024-07-01"),
        )


def test_the_clock_is_given_to_a_function_that_asks_for_it() -> None:
    given: list[pd.Timestamp] = []

    def asking(
        validated: pd.DataFrame, cutoffs: pd.DatetimeIndex, as_of: pd.Timestamp
    ) -> pd.DataFrame:
        given.append(as_of)
        return at(cutoffs, validated)

    assert checked(invoices(), asking, calendar("2024-06-30")).passed
    assert given[0] == pd.Timestamp("2024-06-30")
    assert all(time <= pd.Timestamp("2024-06-01") for time in given[1:])


def test_a_country_without_entities_has_a_frame_without_rows() -> None:
    def listed(validated: pd.DataFrame, cutoffs: pd.DatetimeIndex) -> pd.DataFrame:
        return pd.DataFrame({"entity": [], "event_time": [], "label": [], "n": []})

    made = build_features(invoices(), listed, TARGET, calendar=calendar("2024-07-01"))
    assert made.empty
    assert str(made["label"].dtype) == "float64"
    assert made["label_time"].dtype == made["event_time"].dtype == "datetime64[ns]"


def test_shared_features_are_made_at_the_same_cutoffs() -> None:
    def shared(records: dict[str, pd.DataFrame], cutoffs: pd.DatetimeIndex) -> pd.DataFrame:
        everything = pd.concat(records.values())
        before = [int((everything["date"] < cutoff).sum()) for cutoff in cutoffs]
        return pd.DataFrame({"event_time": cutoffs, "sold": before})

    records = {"DEU": invoices(), "FRA": invoices(seed=1)}
    clock = calendar("2024-07-01")
    made = build_shared(records, shared, clock)
    assert list(made["event_time"]) == list(clock.cutoffs)
    assert check_shared_point_in_time(
        records, made, shared, SOURCE, target=TARGET, calendar=clock
    ).passed


def test_shared_times_that_end_at_the_newest_record_are_told_as_missing_rows() -> None:
    def shared(records: dict[str, pd.DataFrame]) -> pd.DataFrame:
        days = pd.concat(records.values())["date"]
        times = pd.date_range(days.min(), days.max(), freq="MS", normalize=True)
        return pd.DataFrame({"event_time": times, "n": 1})

    rows = invoices()
    records = {"DEU": rows[~rows["date"].between("2024-04-20", "2024-05-02")]}
    made = build_shared(records, shared)
    result = check_shared_point_in_time(records, made, shared, SOURCE, target=TARGET)
    assert result.missing_rows == result.differences > 0
