from __future__ import annotations

from collections.abc import Callable
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
    feature_columns,
)
from mlops_assets.ml.features.names import name_problems
from mlops_assets.spec import SourceSpec, TargetSpec

TARGET = TargetSpec(description="d", unit="u", matures_after="1d")
SOURCE = SourceSpec(
    columns={"country": "c", "date": "d", "price": "p", "paid": "q"},
    country="country",
    key=["country", "date"],
    event_time="date",
    known_later=["paid"],
)
Function = Callable[[pd.DataFrame], pd.DataFrame]


def validated(days: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "country": "DEU",
            "date": pd.date_range("2024-01-01", periods=days),
            "price": rng.normal(50, 5, days),
            "paid": rng.integers(0, 2, days),
        }
    )


def honest(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "entity": rows["country"],
            "event_time": rows["date"],
            "label": rows["price"].shift(-1),
            "price": rows["price"],
            "mean_7": rows["price"].rolling(7, min_periods=1).mean(),
            "weekday": rows["date"].dt.day_name(),
        }
    )


def checked(function: Function, rows: pd.DataFrame, source: SourceSpec = SOURCE) -> PointInTime:
    features = build_features(rows, function, TARGET)
    return check_point_in_time(rows, features, function, source, target=TARGET, samples=4, seed=1)


def test_features_are_sorted_and_have_keys_label_time_and_features() -> None:
    rows = validated()
    frame = build_features(
        rows.sample(frac=1, random_state=0), lambda r: honest(r.sort_values("date")), TARGET
    )
    assert list(frame.columns) == [
        "entity", "event_time", "label_time", "label", "price", "mean_7", "weekday",
    ]  # fmt: skip
    assert frame["event_time"].is_monotonic_increasing
    assert (frame["label_time"] - frame["event_time"]).eq(pd.Timedelta(days=1)).all()
    assert np.isnan(frame["label"].iloc[-1])
    assert feature_columns(frame) == ["price", "mean_7", "weekday"]


@pytest.mark.parametrize(
    ("name", "text"),
    [(0, "0"), (7.5, "7.5"), (True, "True"), (("lag", 7), "lag_7"), (("x", ""), "x")],
)
def test_names_that_are_no_text_become_text_and_the_feature_is_checked_like_any_other(
    name: Any, text: str
) -> None:
    def made(rows: pd.DataFrame) -> pd.DataFrame:
        frame = honest(rows)
        return frame.set_axis([name if each == "mean_7" else each for each in frame], axis=1)

    frame = build_features(validated(), made, TARGET)
    assert feature_columns(frame) == ["price", text, "weekday"]
    expected = build_features(validated(), honest, TARGET)
    pd.testing.assert_series_equal(frame[text], expected["mean_7"], check_names=False)
    assert checked(made, validated()).passed


def test_columns_of_a_pivot_become_features_by_their_levels() -> None:
    def made(rows: pd.DataFrame) -> pd.DataFrame:
        frame = honest(rows)
        frame.columns = pd.MultiIndex.from_tuples(
            [(name, "") if name != "mean_7" else ("mean", 7) for name in frame.columns]
        )
        return frame

    assert feature_columns(build_features(validated(), made, TARGET)) == [
        "price",
        "mean_7",
        "weekday",
    ]


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4))
def test_a_feature_is_either_refused_by_its_name_or_kept_under_it(names: list[str]) -> None:
    def made(rows: pd.DataFrame) -> pd.DataFrame:
        more = pd.DataFrame(1.0, index=rows.index, columns=pd.Index(names))
        return pd.concat([honest(rows)[["entity", "event_time", "label"]], more], axis=1)

    if wrong := name_problems(["entity", "event_time", "label", *names]):
        with pytest.raises(TrainingError, match="returned the column"):
            build_features(validated(5), made, TARGET)
        assert set(wrong) <= set(names)
    else:
        assert feature_columns(build_features(validated(5), made, TARGET)) == names


def test_the_function_cannot_change_the_validated_rows() -> None:
    def spoil(rows: pd.DataFrame) -> pd.DataFrame:
        made = honest(rows)
        rows["price"] = 0.0
        return made

    rows = validated()
    build_features(rows, spoil, TARGET)
    pd.testing.assert_frame_equal(rows, validated())


def test_a_label_time_of_the_function_is_kept() -> None:
    late = build_features(
        validated(), lambda r: honest(r).assign(label_time=r["date"] + pd.Timedelta(days=9)), TARGET
    )
    assert (late["label_time"] - late["event_time"]).eq(pd.Timedelta(days=9)).all()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda f: f.drop(columns="entity"), "returned no column entity"),
        (lambda f: f.drop(columns=["label", "event_time"]), "no column event_time, label"),
        (lambda f: None, "returned a NoneType, not a DataFrame"),
        (lambda f: f[["entity", "event_time", "label"]], "returned no feature"),
        (lambda f: f.assign(event_time="2024"), "event_time of type object"),
        (lambda f: f.assign(event_time=pd.NaT), "with 40 missing"),
        (lambda f: f.assign(label="yes"), "label of type object"),
        (lambda f: f.assign(age=f["event_time"]), r"age \(datetime64\[ns\]\)"),
        (lambda f: f.assign(bag=[[1]] * len(f)), r"bag \(object\)"),
        (lambda f: pd.concat([f, f]), "40 rows more than one per entity and event_time"),
        (
            lambda f: pd.concat([f, f[["price"]]], axis=1),
            "returned the column 'price', which is there 2 times",
        ),
        (lambda f: f.assign(**{"0": 1.0}).rename(columns={"price": 0}), "'0', which is there 2 "),
        (lambda f: f.rename(columns={"price": None}), "'None', which is empty"),
        (lambda f: f.rename(columns={"price": float("nan")}), "'nan', which is empty"),
        (lambda f: f.rename(columns={"price": " "}), "' ', which is empty"),
        (lambda f: f.rename(columns={"price": "price "}), "'price ', which has blanks"),
        (lambda f: f.rename(columns={"price": "a\nb"}), "cannot be printed"),
        (lambda f: f.rename(columns={"price": "p" * 201}), "more than 200 characters"),
        (lambda f: f.assign(Price=1.0), "differs from another one by capital letters alone"),
        (lambda f: f.rename(columns={"price": "_country"}), "platform's own column _country"),
        (lambda f: f.assign(Label=1.0), "'Label', which differs from another one by capital"),
        (lambda f: f.assign(Label_Time=1.0), "platform's own column label_time"),
        (lambda f: f["nowhere"], "raised KeyError: 'nowhere'"),
    ],
)
def test_a_wrong_frame_is_refused_with_function_and_column(
    change: Callable[[pd.DataFrame], Any], text: str
) -> None:
    def made(rows: pd.DataFrame) -> pd.DataFrame:
        return change(honest(rows))

    with pytest.raises(TrainingError, match=text) as caught:
        build_features(validated(), made, TARGET)
    assert "made" in caught.value.culprits["function"]


def test_features_of_the_past_pass_the_point_in_time_check() -> None:
    result = checked(honest, validated())
    assert result.passed
    assert len(result.cutoffs) == 4
    assert result.checked_rows > 40


@pytest.mark.parametrize(
    "leak",
    [
        lambda r: r["price"].shift(-1),
        lambda r: r["price"] - r["price"].mean(),
        lambda r: r["price"].rolling(5, center=True, min_periods=1).mean(),
        lambda r: r["price"].rank(),
        lambda r: r["price"].bfill().shift(-3),
        lambda r: r["paid"].astype("float64"),
    ],
    ids=["tomorrow", "overall mean", "centred mean", "rank", "shift", "known later"],
)
def test_a_feature_that_knows_the_future_fails(leak: Callable[[pd.DataFrame], pd.Series]) -> None:
    def leaking(rows: pd.DataFrame) -> pd.DataFrame:
        return honest(rows).assign(leak=leak(rows))

    result = checked(leaking, validated())
    assert not result.passed
    first = result.differing[0]
    assert (first.column, first.entity) == ("leak", "DEU")
    assert first.event_time in pd.to_datetime(validated()["date"]).to_list()
    assert len(result.differing) <= 20 <= max(20, result.differences)


def test_outcomes_known_at_the_time_may_be_used() -> None:
    def past_outcome(rows: pd.DataFrame) -> pd.DataFrame:
        return honest(rows).assign(paid_2_days_ago=rows["paid"].shift(2).astype("Float64"))

    assert checked(past_outcome, validated()).passed


def test_outcomes_not_yet_known_may_not_be_used() -> None:
    def slow_outcome(rows: pd.DataFrame) -> pd.DataFrame:
        made = honest(rows).assign(label_time=rows["date"] + pd.Timedelta(days=5))
        return made.assign(paid_2_days_ago=rows["paid"].shift(2).astype("Float64"))

    assert not checked(slow_outcome, validated()).passed


def test_without_an_entity_among_the_keys_the_latest_label_time_hides() -> None:
    def other_entity(rows: pd.DataFrame) -> pd.DataFrame:
        return honest(rows).assign(entity="market", leak=rows["paid"].astype("float64"))

    assert not checked(other_entity, validated()).passed
    assert checked(lambda r: honest(r).assign(entity="market"), validated()).passed


def test_no_rows_pass_the_check() -> None:
    result = checked(honest, validated(0).astype({"date": "datetime64[ns]", "country": "object"}))
    assert result.passed
    assert result.cutoffs == ()
