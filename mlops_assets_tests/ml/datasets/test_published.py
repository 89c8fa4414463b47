"""What is published in many ways is one record of the contract, or is told."""

from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.ml.datasets.coercion import typed
from mlops_assets.ml.datasets.notation import Notation, whole_as_such
from mlops_assets.ml.datasets.validation import Validation, validate
from mlops_assets.spec import CountryNames, SourceSpec

NAMES = CountryNames(("DEU", "FRA"), {"250": "FRA"})


class Orders(pa.DataFrameModel):
    country: str = pa.Field()
    order: str = pa.Field(nullable=True)
    date: pd.Timestamp = pa.Field()
    amount: float = pa.Field(nullable=True)
    customer: str = pa.Field(nullable=True)


COLUMNS: dict[str, Any] = {
    "country": "Country", "order": "Order", "date": "Date", "amount": "Amount",
    "customer": ["Customer ID", "CustomerID"],
}  # fmt: skip


def source(**options: Any) -> SourceSpec:
    given = {"columns": COLUMNS, "country": "country", "key": ["order"], "event_time": "date"}
    return SourceSpec(**{**given, **options})


def orders(file: str = "a.csv", /, **columns: Any) -> pd.DataFrame:
    rows = len(next(iter(columns.values())))
    frame = pd.DataFrame(
        {
            "Country": "DEU", "Order": [str(n) for n in range(rows)], "Date": "2024-05-02",
            "Amount": "1.5", "Customer ID": "7", **columns,
        }
    )  # fmt: skip
    origin = {"_source_file": file, "_source_line": np.arange(1, rows + 1), "_delivered": 0}
    return frame.assign(**origin)


def checked(frame: pd.DataFrame, **options: Any) -> Validation:
    result = validate(frame, Orders, source(**options), NAMES)
    assert result.rows == len(result.accepted) + len(result.quarantine) + result.duplicates
    return result


@pytest.mark.parametrize("written", ["DEU ", " deu", "Germany", "GERMANY ", "DE"])
def test_a_country_however_written_is_the_listed_one_for_the_contract(written: str) -> None:
    again = orders("b.csv", Country=[written], Order=["0"], Amount=["2.5"]).assign(_delivered=1)
    result = checked(pd.concat([orders(Order=["0"]), again], ignore_index=True))
    assert result.accepted[["country", "amount"]].to_numpy().tolist() == [["DEU", 2.5]]
    assert result.duplicates == 1, "it is the same record again, not another one"


def test_a_number_that_stands_for_a_country_is_that_country() -> None:
    assert checked(orders(Country=[250, 250])).accepted["country"].tolist() == ["FRA"] * 2


def test_a_key_written_as_a_decimal_is_the_same_key_and_told() -> None:
    first = orders("a.parquet", Order=[1802, 1803])
    second = orders("b.csv", Order=["1802.0", None], Amount=["9", "8"]).assign(_delivered=1)
    result = checked(pd.concat([first, second], ignore_index=True))
    amounts = result.accepted.dropna(subset=["order"]).set_index("order")["amount"].to_dict()
    assert amounts == {"1802": 9.0, "1803": 1.5}
    assert "1 values of order written as 1802.0 are 1802, and so on" in result.remarks


def test_beside_keys_only_columns_without_a_number_with_a_fraction_are_rewritten() -> None:
    versions = checked(orders(**{"Customer ID": ["1.0", "1.1", "2.0"]}))
    assert versions.accepted["customer"].tolist() == ["1.0", "1.1", "2.0"]
    whole = checked(orders(**{"Customer ID": ["1.0", "3", None]}))
    assert whole.accepted["customer"].tolist() == ["1", "3", None]


@pytest.mark.parametrize("other", ["guest", "A-1.5", "", "1.00", "1.0.1", "v1.1"])
def test_other_text_that_comes_beside_whole_numbers_leaves_them_in_the_form_they_have(
    other: str,
) -> None:
    found = checked(orders(**{"Customer ID": ["1.0", "3", other]})).accepted["customer"].tolist()
    assert found[:2] == ["1", "3"]


@pytest.mark.parametrize("fraction", ["1.1", "-0.5", "2.010", "7.25"])
def test_whole_numbers_beside_one_with_a_fraction_stay_as_they_are_written(fraction: str) -> None:
    texts = ["1.0", "2.00", fraction]
    assert checked(orders(**{"Customer ID": texts})).accepted["customer"].tolist() == texts


@given(st.lists(st.one_of(st.none(), st.from_regex(r"-?[0-9]{1,4}(\.0{0,2}1?)?", fullmatch=True))))
def test_whole_numbers_in_text_have_one_form_and_nothing_else_is_touched(
    texts: list[str | None],
) -> None:
    written, changed = whole_as_such(pd.Series(texts, dtype="object"))
    for before, after, is_changed in zip(texts, written, changed, strict=True):
        whole = before is not None and "." in before and set(before.partition(".")[2]) == {"0"}
        assert is_changed == whole
        assert after == (before.partition(".")[0] if whole and before else before)


def test_a_column_under_its_second_name_is_the_same_column() -> None:
    renamed = orders("b.csv", Order=["8"]).rename(columns={"Customer ID": "CustomerID"})
    renamed["CustomerID"] = 9
    both = pd.concat([orders(Order=["1"]), renamed], ignore_index=True)
    assert checked(both).accepted["customer"].tolist() == ["7", "9"]


def test_an_optional_column_that_no_file_has_is_empty() -> None:
    frame = orders(Order=["1"]).drop(columns="Customer ID")
    assert checked(frame, optional=["customer"]).accepted["customer"].isna().all()
    assert checked(frame).missing_columns == ("Customer ID",)


@pytest.mark.parametrize("alone", ["2024", "2024-05", "2024/5", " 2024-05 "])
def test_a_year_or_a_month_alone_is_no_day_unless_the_yaml_says_so(alone: str) -> None:
    frame = orders(Order=["1", "2"], Date=["2024-05-01", alone])
    result = checked(frame)
    assert dict(result.broken) == {"date: year_or_month_without_day": 1}
    assert len(result.proposals) == 1
    assert "date_format" in result.proposals[0]
    form = {4: "%Y", 7: "%Y-%m", 6: "%Y/%m"}[len(alone.strip())]
    said = checked(frame[1:], date_format=form)
    assert said.accepted["date"].tolist() == [pd.Timestamp(2024, 5 if "5" in alone else 1, 1)]


@given(st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1)))
def test_a_declared_format_reads_every_day_as_it_was_written(day: dt.date) -> None:
    frame = orders(Date=[day.strftime("%d.%m.%Y"), day.strftime("%d.%m.%Y")])
    result = checked(frame, date_format={"date": "%d.%m.%Y"})
    assert result.accepted["date"].dt.date.tolist() == [day] * 2


def test_a_whole_number_is_a_day_when_its_format_says_so() -> None:
    frame = orders(Date=[20240502, 20240503])
    assert checked(frame).broken["type:date"] == 2
    assert checked(frame, date_format="%Y%m%d").accepted["date"].dt.day.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("column", "values", "proposed"),
    [
        ("Amount", ["1,5", "2,75"], '`decimal: ","`'),
        ("Amount", ["1.234,5", "2,75"], '`decimal: ","` and `thousands: "."`'),
        ("Amount", ["1,234.5", "12.5"], '`thousands: ","`'),
        ("Amount", ["n/a", "-"], '`nulls: ["-", "n/a"]`'),
        ("Date", ["31/12/2024", "01/02/2024"], '`date_format: "%d/%m/%Y"`'),
        ("Date", ["12/31/2024", "01/02/2024"], '`date_format: "%m/%d/%Y"`'),
        ("Date", ["03.04.2024 10:00"], '"%d.%m.%Y %H:%M"` or `date_format: "%m.%d.%Y %H:%M"`'),
        ("Date", ["2024-05"], '`date_format: {date: "%Y-%m"}`'),
    ],
)
def test_what_would_read_refused_values_is_proposed_and_not_done(
    column: str, values: list[str], proposed: str
) -> None:
    result = checked(orders(**{column: values}))
    assert result.rejected >= 1
    assert any(proposed in each for each in result.proposals), result.proposals


@given(
    st.decimals(-(10**9), 10**9, places=3),
    st.sampled_from([(",", "."), (",", ""), (",", " "), (".", ","), (".", "'")]),
)
def test_a_number_in_a_declared_notation_is_that_number(
    number: Any, signs: tuple[str, str]
) -> None:
    decimal, thousands = signs
    plain = f"{number:,f}"
    written = plain.replace(",", "T").replace(".", decimal).replace("T", thousands)
    found = typed(pd.Series([written]), "float", Notation(decimal, thousands), nullable=True)
    assert found.values.tolist() == [float(number)]
    assert not found.wrong.any()


@pytest.mark.parametrize("wrong", ["1.5", "1.23,5", "12.34.567", "x", "1,2,3"])
def test_what_is_not_of_the_declared_notation_is_refused_and_never_guessed(wrong: str) -> None:
    found = typed(pd.Series([wrong, "1.234,5"]), "float", Notation(",", "."), nullable=True)
    assert found.wrong.tolist() == [True, False]


def test_words_for_nothing_are_nothing_but_for_the_country() -> None:
    frame = orders(Country=["DEU", "NA"], Amount=["n/a", " - "])
    result = validate(frame, Orders, source(nulls=["n/a", "-", "NA"]), CountryNames(("DEU", "NAM")))
    assert result.accepted["amount"].isna().all()
    assert result.accepted["country"].tolist() == ["DEU", "NAM"]


ZONES = st.sampled_from(["Europe/Berlin", "America/New_York", "America/Santiago", "Asia/Tokyo"])


@given(ZONES, st.booleans(), st.sampled_from(["h", "30min", "15min"]))
def test_local_hours_of_a_year_become_their_moments_one_by_one(
    zone: str, falling: bool, every: str
) -> None:
    moments = pd.date_range("2024-03-01", "2024-11-15", freq=every, tz="UTC")
    near = pd.Series(moments)[lambda at: at.dt.month.isin([3, 4, 10, 11])]
    at = near[::-1] if falling else near
    wall = [one.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S") for one in at]
    result = checked(orders(Date=wall, Order="x"), key=["country", "date"], time_zone=zone)
    assert result.rejected == result.duplicates == 0
    assert result.accepted["date"].tolist() == near.dt.tz_localize(None).tolist()


def test_an_hour_that_comes_twice_and_stands_alone_is_told_and_so_is_one_that_never_comes() -> None:
    hours = ["2024-10-27 01:00", "2024-10-27 02:00", "2024-10-27 03:00", "2024-03-31 02:30"]
    by_hour = checked(orders(Date=hours), key=["country", "date"], time_zone="Europe/Berlin")
    assert dict(by_hour.broken) == {
        "date: hour_twice_in_Europe/Berlin": 1,
        "date: no_such_hour_in_Europe/Berlin": 1,
    }
    by_order = checked(orders(Date=hours[:3]), time_zone="Europe/Berlin")
    assert by_order.rejected == 0, "the hour tells no orders apart, so none is lost"
    assert "the first one was taken" in by_order.remarks[0]
    assert by_order.accepted["date"].dt.hour.tolist() == [23, 0, 2]


def _versions(*kept: tuple[list[str], list[int]]) -> pd.DataFrame:
    """What stands of versions of a file: hours of the day of autumn and their lines."""
    parts = [
        orders(Date=[f"2024-10-27 {hour}" for hour in hours], Order="x").assign(
            _source_line=lines, _ingested_at=pd.Timestamp(f"2024-10-{28 + n}", tz="UTC")
        )
        for n, (hours, lines) in enumerate(kept)
    ]
    return pd.concat(parts, ignore_index=True)


def test_an_hour_that_comes_twice_is_told_apart_over_versions_of_a_file() -> None:
    how: dict[str, Any] = {"key": ["country", "date"], "time_zone": "Europe/Berlin"}
    moved = _versions((["01:00", "02:00"], [4, 5]), (["02:00", "03:00", "04:00"], [4, 5, 6]))
    result = checked(moved.assign(Amount=["1", "2", "3", "4", "5"]), **how)
    assert result.accepted["amount"].tolist() == [1, 2, 3, 4, 5], "the first lines were dropped"
    in_place = _versions(
        (["01:00", "02:00", "02:00", "03:00", "05:00"], [2, 3, 4, 5, 7]), (["00:00"], [1])
    )
    assert checked(in_place, **how).rejected == 0, "one record was corrected later"


def test_two_versions_that_contradict_each_other_about_an_hour_leave_it_unclear() -> None:
    both = _versions((["01:00", "02:00", "03:00"], [1, 3, 4]), (["02:00"], [2]))
    result = checked(both, key=["country", "date"], time_zone="Europe/Berlin")
    assert dict(result.broken) == {"date: hour_twice_in_Europe/Berlin": 2}


def test_dates_and_times_with_an_offset_are_what_they_are_in_any_zone() -> None:
    dates = ["2024-10-27", "2024-10-27T02:00+02:00", "2024-10-27T02:00+01:00", "20241027"]
    result = checked(orders(Date=dates), time_zone="Europe/Berlin")
    assert result.accepted["date"].dt.hour.tolist() == [0, 0, 0, 1]


def test_without_a_zone_an_hour_that_was_lost_as_a_duplicate_is_told() -> None:
    hours = ["2024-10-27 01:00", "2024-10-27 02:00", "2024-10-27 02:00", "2024-10-27 03:00"]
    frame = orders(Date=hours, Amount=["1", "2", "3", "4"])
    result = checked(frame, key=["country", "date"])
    assert result.duplicates == 1
    assert "1 of the duplicates are in an hour that clocks show twice" in result.remarks[0]


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63) + 1, 2**63 - 1)), min_size=1, max_size=9))
def test_64_bit_whole_numbers_are_exact_as_text_and_as_numbers(values: list[int | None]) -> None:
    as_texts = pd.Series([None if one is None else str(one) for one in values], dtype="object")
    as_numbers = pd.Series(pd.array(values, dtype="Int64"))
    for published in (as_texts, as_numbers):
        found = typed(published, "integer", nullable=True)
        assert not found.wrong.any()
        assert [None if pd.isna(one) else int(one) for one in found.values] == values
        text = typed(published, "text", nullable=True).values
        assert text.tolist() == [None if one is None else str(one) for one in values]
