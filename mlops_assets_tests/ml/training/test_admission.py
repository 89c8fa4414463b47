"""What of each country is trained on with the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.models.fitted_model import predict
from mlops_assets.ml.training.admission import admit, common_end
from mlops_assets.ml.training.selection import pooled_rows, train_pooled
from mlops_assets.spec import ProductSpec
from mlops_assets_tests.effort import examples
from mlops_assets_tests.ml.scenarios import (
    GBM,
    classification_rows,
    classifier,
    product,
    regression_rows,
)

FOREST = {
    "name": "forest",
    "estimator": "sklearn.ensemble.RandomForestRegressor",
    "params": {"n_estimators": 5},
}
ROLLING = {"holdout_days": 60, "validation_days": 60, "min_train_rows": 100, "min_holdout_rows": 20}
Spoil = Callable[[pd.DataFrame], pd.DataFrame]


def frames(of: Callable[..., pd.DataFrame] = regression_rows) -> dict[str, pd.DataFrame]:
    names = ("DEU", "FRA", "LUX")
    return {name: of(400, seed=place).assign(entity=name) for place, name in enumerate(names)}


def rolling(**changes: Any) -> ProductSpec:
    return product(split={**ROLLING, **changes})


def with_one(spoil: Spoil, whose: str = "LUX") -> dict[str, pd.DataFrame]:
    good = frames()
    return {**good, whose: spoil(good[whose].copy())}


def dated(frame: pd.DataFrame, first: str, rows: int = 2) -> pd.DataFrame:
    """Some more records of another time, labels and all."""
    more = frame.tail(rows).reset_index(drop=True)
    event = pd.date_range(first, periods=rows)
    more = more.assign(event_time=event, label_time=event + pd.Timedelta(days=1))
    return pd.concat([frame, more], ignore_index=True)


def infinite(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(x=frame["x"].where(frame.index != 7, np.inf))


def test_countries_that_fit_are_taken_as_they_are() -> None:
    good = frames()
    found = admit(product(), good)
    assert found.left_out == ()
    for country, frame in good.items():
        pd.testing.assert_frame_equal(found.frames[country], frame)


@pytest.mark.parametrize("candidate", [GBM.model_dump(), FOREST], ids=["gbm", "forest"])
@pytest.mark.parametrize("column", ["x", "label"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
def test_one_infinite_value_of_one_country_stops_no_pooled_training(
    candidate: dict[str, Any], column: str, value: float
) -> None:
    spec = product(candidates=[candidate])
    spoilt = with_one(lambda f: f.assign(**{column: f[column].where(f.index != 7, value)}))
    expected = with_one(lambda f: f.assign(**{column: f[column].where(f.index != 7)}))

    (model,) = train_pooled(spec, spoilt, clock=time.monotonic).values()
    (other,) = train_pooled(spec, expected, clock=time.monotonic).values()

    rows = frames()["DEU"]
    assert model.final.rows == other.final.rows
    np.testing.assert_array_equal(
        predict(model.final, rows, "regression"), predict(other.final, rows, "regression")
    )


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda f: f.assign(x=f["x"].astype(str)), "feature x is text and elsewhere number"),
        (lambda f: f.assign(kind=1.0), "feature kind is number and elsewhere text"),
        (lambda f: f.assign(extra=1.0), "it alone has extra"),
        (lambda f: f.drop(columns="flag"), "it lacks flag"),
        (lambda f: f.rename(columns={"x": "y"}), "it lacks x and alone has y"),
    ],
)
def test_a_country_that_does_not_fit_is_left_out_with_the_reason_and_the_others_go_on(
    spoil: Spoil, reason: str
) -> None:
    spoilt = with_one(spoil)
    found = admit(product(), spoilt)

    (out,) = found.left_out
    assert (out.country, out.rows, out.of) == ("LUX", 400, 400)
    assert reason in str(out)
    models = train_pooled(product(), spoilt, clock=time.monotonic)
    others = {country: frame for country, frame in frames().items() if country != "LUX"}
    expected = train_pooled(product(), others, clock=time.monotonic)
    rows = others["FRA"]
    assert models["gbm"].final.features == expected["gbm"].final.features
    np.testing.assert_array_equal(
        predict(models["gbm"].final, rows, "regression"),
        predict(expected["gbm"].final, rows, "regression"),
    )


@pytest.mark.parametrize("spoil", [lambda f: f.drop(columns="flag"), lambda f: f.iloc[:0]])
def test_the_first_country_left_out_is_no_example_of_what_is_trained_on(spoil: Spoil) -> None:
    spoilt = with_one(spoil, "DEU")
    found = admit(product(), spoilt)
    models = train_pooled(product(), spoilt, clock=time.monotonic, admission=found)
    assert np.isfinite(predict(models["gbm"].served, found.sample, "regression")).all()
    assert set(found.sample["entity"]) == {"FRA"}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: f.assign(x=None),
        lambda f: f.assign(x=np.nan),
        lambda f: f.assign(flag=None),
        lambda f: f.assign(kind=np.nan),
        lambda f: f.assign(kind=None),
        lambda f: f.assign(flag=f["flag"].astype("float64")),
        lambda f: f.assign(flag=f["flag"].astype("boolean").where(f.index != 3)),
        lambda f: f.assign(label=5.0),
        lambda f: f.iloc[:0],
    ],
    ids=["x none", "x nan", "flag none", "kind nan", "kind none", "flag float", "flag null",
         "one label", "no rows"],
)  # fmt: skip
def test_a_country_without_values_of_a_feature_changes_the_type_for_nobody(spoil: Spoil) -> None:
    found = admit(product(), with_one(spoil))
    assert found.left_out == ()
    rows = pooled_rows(product(), with_one(spoil)).final
    numeric = {n: pd.api.types.is_numeric_dtype(rows[n]) for n in ("x", "flag", "kind")}
    assert numeric == {"x": True, "flag": True, "kind": False}
    assert set(train_pooled(product(), with_one(spoil), clock=time.monotonic)) == {"gbm"}


def test_labels_that_are_no_classes_leave_their_country_out() -> None:
    good = frames(classification_rows)
    spoilt = {**good, "LUX": good["LUX"].assign(label=lambda f: f["label"] + 1)}
    (out,) = admit(classifier(), spoilt).left_out
    assert "LUX" in str(out)
    assert "its labels are not only 0 and 1, but also 2.0" in str(out)
    models = train_pooled(classifier(), spoilt, clock=time.monotonic)
    two = {name: frame for name, frame in good.items() if name != "LUX"}
    assert models["gbm"].report.rows == len(pooled_rows(classifier(), two).holdout)


@pytest.mark.parametrize("rows", [1, 2, 25])
def test_records_years_ahead_in_one_country_leave_the_holdout_of_all_as_it_is(rows: int) -> None:
    spec = rolling()
    expected = pooled_rows(spec, frames())
    found = pooled_rows(spec, with_one(lambda f: dated(f, "2062-11-15", rows), "DEU"))

    assert found.known_until == expected.known_until
    pd.testing.assert_frame_equal(found.holdout, expected.holdout)
    pd.testing.assert_frame_equal(found.final, expected.final)
    (out,) = admit(spec, with_one(lambda f: dated(f, "2062-11-15", rows), "DEU")).left_out
    assert (out.country, out.rows) == ("DEU", rows)
    assert "long after those of the others" in out.reason


def test_two_records_ahead_count_for_little_where_there_are_two_countries_or_one() -> None:
    spec = rolling()
    for names in (("DEU", "FRA"), ("DEU",)):
        few = {name: frames()[name] for name in names}
        ahead = {**few, "DEU": dated(few["DEU"], "2062-11-15")}
        assert pooled_rows(spec, ahead).known_until == pooled_rows(spec, few).known_until


@pytest.mark.parametrize("late", [0, 1, 13, 40, 200])
def test_a_country_that_is_late_or_fresh_is_taken_whole(late: int) -> None:
    """By some days it is usual, and one that stopped long ago holds nobody back."""
    spec = rolling()
    stopped = with_one(lambda f: f.iloc[: len(f) - late])
    assert admit(spec, stopped).left_out == ()
    assert common_end(spec, stopped) is None
    others = {**with_one(lambda f: f.iloc[: len(f) - late]), "FRA": stopped["LUX"]}
    if late <= ROLLING["holdout_days"] / 4:
        assert admit(spec, others).left_out == ()


def test_after_a_pause_of_everybody_the_holdout_is_of_the_new_records() -> None:
    spec = rolling()
    again = {name: dated(frame, "2026-01-01", 30) for name, frame in frames().items()}
    assert admit(spec, again).left_out == ()
    assert pooled_rows(spec, again).known_until == pd.Timestamp("2026-01-31")


def yearly(rows: int, first: int) -> pd.DataFrame:
    """Some records on the first days of each of eight years."""
    days = pd.DatetimeIndex(
        [f"{year}-01-{first + day:02}" for year in range(2016, 2024) for day in range(rows)]
    )
    return regression_rows(len(days)).assign(event_time=days, label_time=days)


@pytest.mark.parametrize("rows", [1, 3, 6, 9])
@pytest.mark.parametrize("apart", [0, 3])
def test_countries_with_labels_once_a_year_lose_no_year(rows: int, apart: int) -> None:
    spec = rolling(min_holdout_rows=30)
    sparse = {
        name: yearly(rows, 1 + place * apart).assign(entity=name)
        for place, name in enumerate(("DEU", "FRA", "LUX"))
    }
    assert admit(spec, sparse).left_out == ()
    ahead = {**sparse, "FRA": dated(sparse["FRA"], "2062-11-15")}
    (out,) = admit(spec, ahead).left_out
    assert (out.country, out.rows) == ("FRA", 2)


def test_one_country_with_labels_once_a_year_loses_no_more_than_its_newest_ones() -> None:
    spec = rolling(min_holdout_rows=15)
    assert common_end(spec, {"DEU": yearly(9, 1)}) == pd.Timestamp("2022-01-09")


def test_fixed_dates_take_all_labels() -> None:
    ahead = with_one(lambda f: dated(f, "2062-11-15"), "DEU")
    assert common_end(product(), ahead) is None


@given(
    spoils=st.lists(
        st.sampled_from(
            [
                infinite,
                lambda f: dated(f, "2062-11-15"),
                lambda f: f.assign(x=f["x"].astype(str)),
                lambda f: f.assign(x=np.nan),
                lambda f: f.assign(extra=1.0),
                lambda f: f.iloc[:0],
            ]
        ),
        max_size=3,
    ),
    whose=st.sampled_from(["DEU", "FRA", "LUX"]),
)
@settings(max_examples=examples(25))
def test_whatever_is_wrong_with_one_country_the_others_rows_are_in_it_unchanged(
    spoils: list[Spoil], whose: str
) -> None:
    spec, spoilt = rolling(), frames()
    for spoil in spoils:
        spoilt[whose] = spoil(spoilt[whose])
    expected = {name: frame for name, frame in frames().items() if name != whose}

    found = pooled_rows(spec, spoilt)

    for name, rows in _by_entity(found.holdout).items():
        if name != whose:
            pd.testing.assert_frame_equal(
                rows, _by_entity(pooled_rows(spec, expected).holdout)[name]
            )
    again = admit(spec, admit(spec, spoilt).frames)
    assert again.left_out == ()


def _by_entity(rows: pd.DataFrame) -> Mapping[str, pd.DataFrame]:
    columns = ["event_time", "label", "x", "level"]
    return {
        str(name): part[columns].reset_index(drop=True) for name, part in rows.groupby("entity")
    }


def test_rows_without_the_offset_leave_no_country_without_a_pooled_metric() -> None:
    candidate = {**GBM.model_dump(), "offset": "level"}
    spec = product(candidates=[candidate])
    spoilt = with_one(lambda frame: frame.assign(level=frame["level"].where(frame.index < 390)))
    (told,) = admit(spec, spoilt).left_out
    assert (told.country, told.rows, told.of) == ("LUX", 10, 400)
    assert "without a value of level" in told.reason
    expected = with_one(lambda frame: frame.head(390))
    ours, theirs = (train_pooled(spec, each, clock=time.monotonic) for each in (spoilt, expected))
    assert np.isfinite(ours["gbm"].report.value)
    assert ours["gbm"].report.value == theirs["gbm"].report.value
