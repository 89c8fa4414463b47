"""Two versions of a country's records: what is new, other, or gone."""

from __future__ import annotations

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.datasets.restatement import COLUMNS, Restatement, compare_versions
from mlops_assets_tests.effort import examples

KEY = ["country", "date"]


def prices(*values: float | None, start: str = "2024-01-30") -> pd.DataFrame:
    days = pd.date_range(start, periods=len(values))
    return pd.DataFrame(
        {"country": "FRA", "date": days, "price": pd.Series(values, dtype="float64"), "hub": "EPEX"}
    )


def compare(before: pd.DataFrame, now: pd.DataFrame) -> Restatement:
    return compare_versions(before, now, KEY, "date")


def test_the_same_records_are_not_restated() -> None:
    found = compare(prices(1.0, None, 3.0), prices(1.0, None, 3.0))
    assert (found.added, found.changed, found.withdrawn) == (0, 0, 0)
    assert not found.restated
    assert list(found.by_period.columns) == list(COLUMNS)
    assert found.by_period.empty


def test_new_days_are_added_and_restate_nothing() -> None:
    found = compare(prices(1.0, 2.0), prices(1.0, 2.0, 3.0))
    assert (found.added, found.restated) == (1, False)


def test_another_value_is_counted_in_its_month_with_its_size() -> None:
    before, now = prices(1.0, 2.0, 3.0, 4.0), prices(1.5, 2.0, 5.0, 0.0)
    found = compare(before, now)
    assert (found.changed, found.withdrawn, found.added) == (3, 0, 0)
    rows = found.by_period.set_index("period")
    assert rows["rows"].to_dict() == {"2024-01": 1, "2024-02": 2}
    assert rows["mean_change"].to_dict()["2024-02"] == 3.0
    assert rows["largest_change"].to_dict()["2024-02"] == 4.0


def test_a_value_that_appears_or_vanishes_is_a_change_without_a_size() -> None:
    found = compare(prices(None, 2.0), prices(1.0, None))
    assert found.changed == 2
    assert found.by_period["mean_change"].isna().all()


def test_changed_text_is_counted_without_a_size() -> None:
    now = prices(1.0, 2.0)
    now.loc[0, "hub"] = "OMIE"
    found = compare(prices(1.0, 2.0), now)
    assert found.by_period[["column", "rows"]].to_numpy().tolist() == [["hub", 1]]
    assert found.by_period["largest_change"].isna().all()


def test_a_record_that_is_gone_is_withdrawn_from_its_month() -> None:
    found = compare(prices(1.0, 2.0, 3.0), prices(1.0, 2.0))
    assert (found.withdrawn, found.changed) == (1, 0)
    assert found.by_period[["period", "column", "withdrawn"]].to_numpy().tolist() == [
        ["2024-02", "", 1]
    ]


def test_a_record_that_differs_in_two_columns_is_one_changed_record() -> None:
    now = prices(9.0)
    now["hub"] = "OMIE"
    found = compare(prices(1.0), now)
    assert found.changed == 1
    assert found.by_period["rows"].sum() == 2


@pytest.mark.parametrize("swap", [False, True])
def test_everything_gone_and_everything_new(swap: bool) -> None:
    pair = [prices(1.0, 2.0), prices()]
    found = compare(*(reversed(pair) if swap else pair))
    assert (found.withdrawn, found.added) == ((0, 2) if swap else (2, 0))


records = st.dictionaries(
    st.integers(0, 70), st.one_of(st.none(), st.integers(0, 3).map(float)), max_size=30
)


def frame_of(values: dict[int, float | None]) -> pd.DataFrame:
    start = pd.Timestamp("2024-01-01")
    return pd.DataFrame(
        {
            "country": pd.Series(["FRA"] * len(values), dtype="object"),
            "date": pd.to_datetime([start + pd.Timedelta(days=day) for day in values]),
            "price": pd.Series(list(values.values()), dtype="float64"),
        }
    )


@settings(max_examples=examples(60), deadline=None)
@given(records, records)
def test_the_counts_are_those_of_an_outer_join_in_sql(
    earlier: dict[int, float | None], later: dict[int, float | None]
) -> None:
    before, now = frame_of(earlier), frame_of(later)
    found = compare(before, now)
    with duckdb.connect() as connection:
        connection.register("a", before)
        connection.register("b", now)
        (expected,) = connection.sql(
            "select count(*) filter (a.date is null), count(*) filter (b.date is null), "
            "count(*) filter (a.date is not null and b.date is not null "
            "and nullif(a.price, 'nan') is distinct from nullif(b.price, 'nan')) "
            "from a full join b using (country, date)"
        ).fetchall()
    assert (found.added, found.withdrawn, found.changed) == expected
    assert found.by_period["rows"].sum() == found.changed
    assert found.by_period["withdrawn"].sum() == found.withdrawn
    sizes = found.by_period["largest_change"].dropna()
    assert (sizes > 0).all()
    assert np.isfinite(sizes).all()


EMPTY_KEYS = {
    "text, as None and as NaN": (
        pd.Series(["a", None, "c"], dtype="object"),
        pd.Series(["a", np.nan, "c"], dtype="object"),
    ),
    "whole numbers": (pd.Series([1, None, 3], dtype="Int64"),) * 2,
    "numbers": (pd.Series([1.0, np.nan, 3.0]),) * 2,
    "times": (pd.Series(["2024-01-01", None, "2024-01-03"], dtype="datetime64[ns]"),) * 2,
}


@pytest.mark.parametrize("kind", EMPTY_KEYS)
@pytest.mark.parametrize("key", [["order"], ["order", "country"]])
def test_a_record_with_an_empty_part_of_its_key_is_found_again(kind: str, key: list[str]) -> None:
    before, now = (prices(1.0, 2.0, 3.0).assign(order=order) for order in EMPTY_KEYS[kind])
    found = compare_versions(before, now.assign(price=[1.0, 9.0, 3.0]), key, "date")
    assert (found.added, found.changed, found.withdrawn) == (0, 1, 0)
    gone = compare_versions(before, now.drop(index=1), key, "date")
    assert (gone.added, gone.changed, gone.withdrawn) == (0, 0, 1)
