from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.errors import TrainingError
from mlops_assets.ml.features.feature_frame import (
    PointInTime,
    build_features,
    check_point_in_time,
    features_as_of,
    shared_until,
)
from mlops_assets.ml.features.shared_features import (
    SharedFunction,
    build_shared,
    build_shared_as_of,
    check_shared_point_in_time,
)
from mlops_assets.spec import SourceSpec, TargetSpec

TARGET = TargetSpec(description="d", unit="u", matures_after="3d")
SOURCE = SourceSpec(
    columns={"country": "c", "date": "d", "price": "p", "paid": "q"},
    country="country",
    key=["country", "date"],
    event_time="date",
    known_later=["paid"],
)
ARRIVING = SOURCE.model_copy(update={"arrival_time": "out"})
Records = dict[str, pd.DataFrame]


def records(days: int = 40) -> Records:
    """Two countries, of which the second begins ten days later, and a third without any row."""
    rng = np.random.default_rng(0)

    def country(name: str, first: str, rows: int) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "country": pd.Series([name] * rows, dtype="object"),
                "date": pd.date_range(first, periods=rows),
                "price": rng.normal(50, 5, rows),
                "paid": rng.integers(0, 2, rows),
            }
        )

    return {
        "DEU": country("DEU", "2024-01-01", days),
        "FRA": country("FRA", "2024-01-11", days - 10),
        "NOR": country("NOR", "2024-01-01", 0),
    }


def wide(rows: Mapping[str, pd.DataFrame], column: str = "price") -> pd.DataFrame:
    prices = {name: each.set_index("date")[column].astype("float64") for name, each in rows.items()}
    return pd.DataFrame(prices)


def honest(rows: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    prices = wide(rows)
    made = prices.add_prefix("price_").assign(mean=prices.mean(axis=1))
    return made.rename_axis("event_time").reset_index()


def with_feature(make: Callable[[pd.DataFrame], pd.Series]) -> SharedFunction:
    """The honest function with one more feature, made from the prices by country."""

    def function(rows: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        return honest(rows).assign(more=make(wide(rows)).to_numpy())

    return function


def checked(
    function: SharedFunction, rows: Records | None = None, source: SourceSpec = SOURCE
) -> PointInTime:
    rows = rows or records()
    shared = build_shared(rows, function)
    return check_shared_point_in_time(
        rows, shared, function, source, target=TARGET, samples=5, seed=1
    )


def test_shared_features_are_sorted_by_time_and_have_every_country() -> None:
    frame = build_shared(records(), lambda r: honest(r).sample(frac=1, random_state=0))
    names = ["event_time", "price_DEU", "price_FRA", "price_NOR", "mean"]
    assert list(frame.columns) == names
    assert frame["event_time"].tolist() == list(pd.date_range("2024-01-01", periods=40))
    assert frame["price_NOR"].isna().all()
    assert frame["price_FRA"].isna().sum() == 10


def test_the_result_does_not_depend_on_the_order_of_the_countries() -> None:
    rows = records()
    turned = dict(reversed(list(rows.items())))
    pd.testing.assert_frame_equal(build_shared(rows, honest), build_shared(turned, honest))


def test_the_function_cannot_change_the_validated_rows() -> None:
    def spoil(rows: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        made = honest(rows)
        rows["DEU"]["price"] = 0.0
        return made

    rows = records()
    build_shared(rows, spoil)
    pd.testing.assert_frame_equal(rows["DEU"], records()["DEU"])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda f: None, "returned a NoneType, not a DataFrame"),
        (lambda f: f.drop(columns="event_time"), "returned no column event_time"),
        (lambda f: f[["event_time"]], "returned no feature"),
        (lambda f: f.assign(entity="DEU"), "returned entity, which belongs to the features of a"),
        (lambda f: f.assign(event_time="2024"), "event_time of type object"),
        (lambda f: f.assign(event_time=pd.NaT), "with 40 missing"),
        (lambda f: f.assign(bag=[[1]] * len(f)), r"neither numbers nor booleans nor text: \['bag"),
        (
            lambda f: pd.concat([f, f]),
            "40 rows more than one per event_time, such as at 2024-01-01",
        ),
        (lambda f: pd.concat([f, f[["mean"]]], axis=1), "'mean', which is there 2 times"),
        (lambda f: f["nowhere"], "raised KeyError: 'nowhere'"),
    ],
)
def test_a_wrong_frame_is_refused_with_function_and_column(
    change: Callable[[pd.DataFrame], Any], text: str
) -> None:
    def made(rows: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        return change(honest(rows))

    with pytest.raises(TrainingError, match=text) as caught:
        build_shared(records(), made)
    assert "made" in caught.value.culprits["function"]


def test_shared_features_of_the_past_pass_the_point_in_time_check() -> None:
    result = checked(with_feature(lambda prices: prices["FRA"].rolling(7, min_periods=1).mean()))
    assert result.passed, result.differing
    assert len(result.cutoffs) == 5
    assert result.checked_rows > 50


@pytest.mark.parametrize(
    "leak",
    [
        lambda prices: prices["FRA"].shift(-1),
        lambda prices: prices["DEU"] - prices["FRA"].mean(),
        lambda prices: prices["FRA"].rolling(5, center=True, min_periods=1).mean(),
        lambda prices: prices["DEU"].rank(),
    ],
    ids=["tomorrow elsewhere", "overall mean elsewhere", "centred mean", "rank"],
)
def test_a_shared_feature_that_knows_the_future_of_any_country_fails(
    leak: Callable[[pd.DataFrame], pd.Series],
) -> None:
    result = checked(with_feature(leak))
    assert not result.passed
    assert {each.column for each in result.differing} == {"more"}
    assert {each.entity for each in result.differing} == {""}
    assert len(result.differing) <= 20


@pytest.mark.parametrize(("days", "passes"), [(0, False), (2, False), (3, True), (9, True)])
def test_what_is_known_later_counts_from_the_label_maturity_on(days: int, passes: bool) -> None:
    def outcomes(rows: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        return honest(rows).assign(paid=wide(rows, "paid")["DEU"].shift(days).to_numpy())

    assert checked(outcomes).passed == passes


def test_a_record_that_arrives_late_may_not_be_used_before() -> None:
    rows = {name: each.assign(out=each["date"]) for name, each in records().items()}
    assert checked(honest, rows, ARRIVING).passed
    late = rows["FRA"]["date"].dt.dayofyear % 3 == 0
    delay = pd.to_timedelta(np.where(late, 15, 0), unit="D")
    rows["FRA"] = rows["FRA"].assign(out=rows["FRA"]["date"] + delay)
    result = checked(honest, rows, ARRIVING)
    assert not result.passed
    assert {each.column for each in result.differing} == {"price_FRA", "mean"}


@given(cut=st.integers(0, 60))
def test_as_of_a_moment_is_what_the_rows_up_to_then_give(cut: int) -> None:
    moment = pd.Timestamp("2023-12-25") + pd.Timedelta(days=cut)
    rows = records()
    then = build_shared_as_of(rows, honest, SOURCE, TARGET, moment=moment)
    known = {name: each[each["date"] <= moment] for name, each in rows.items()}
    expected = build_shared(known, honest)
    pd.testing.assert_frame_equal(then, expected)


def features(rows: pd.DataFrame, shared: pd.DataFrame) -> pd.DataFrame:
    today = rows["date"].map(shared.set_index("event_time")["mean"])
    return pd.DataFrame(
        {
            "entity": rows["country"],
            "event_time": rows["date"],
            "label": rows["price"].shift(-1),
            "gap": today - rows["price"],
        }
    )


def tomorrow_of_all(rows: pd.DataFrame, shared: pd.DataFrame) -> pd.DataFrame:
    following = rows["date"] + pd.Timedelta(days=1)
    leak = following.map(shared.set_index("event_time")["mean"])
    return features(rows, shared).assign(leak=leak)


def test_features_of_a_country_use_the_shared_ones_of_their_time() -> None:
    rows = records()
    shared = build_shared(rows, honest)
    frame = build_features(rows["FRA"], features, TARGET, shared)
    expected = (rows["DEU"]["price"].to_numpy()[10:] - rows["FRA"]["price"].to_numpy()) / 2
    np.testing.assert_allclose(frame["gap"], expected)
    result = check_point_in_time(rows["FRA"], frame, features, SOURCE, target=TARGET, shared=shared)
    assert result.passed
    assert result.checked_rows > 0


def test_a_feature_that_reads_a_later_shared_row_fails() -> None:
    rows = records()
    shared = build_shared(rows, honest)
    frame = build_features(rows["FRA"], tomorrow_of_all, TARGET, shared)
    result = check_point_in_time(
        rows["FRA"], frame, tomorrow_of_all, SOURCE, target=TARGET, shared=shared
    )
    assert not result.passed
    assert {each.column for each in result.differing} == {"leak"}


def test_as_of_a_moment_later_shared_rows_are_hidden() -> None:
    rows, moment = records(), pd.Timestamp("2024-01-20")
    shared = build_shared(rows, honest)
    then = features_as_of(
        rows["FRA"], tomorrow_of_all, SOURCE, TARGET, moment=moment, shared=shared
    )
    assert then["event_time"].max() == moment
    assert np.isnan(then["leak"].iloc[-1])
    assert then["leak"].notna().sum() == len(then) - 1


def test_without_shared_features_there_is_nothing_to_cut() -> None:
    assert shared_until(None, pd.Timestamp("2024-01-01")) is None
