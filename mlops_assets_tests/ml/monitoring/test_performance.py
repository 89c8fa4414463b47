"""Predictions meet their labels: what counts, what it is worth, and what was promised."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mlops_assets.ml.evaluation.report import evaluate
from mlops_assets.ml.monitoring.performance import (
    PERFORMANCE_COLUMNS,
    PERFORMANCE_SLICE_COLUMNS,
    PERIOD_COLUMNS,
    Promise,
    against_previous,
    by_period,
    by_slice,
    no_performance,
    promise_of,
    promised_in,
    realised,
    record_predictions,
)
from mlops_assets.ml.monitoring.performance_plot import MOST_PERIODS, realised_plot
from mlops_assets.ml.stats.metrics import UNKNOWN, Estimate
from mlops_assets.spec import ProductSpec
from mlops_assets_tests.effort import examples
from mlops_assets_tests.ml.scenarios import (
    classification_rows,
    classifier,
    product,
    regression_rows,
)

NAN = math.nan
START = pd.Timestamp("2024-01-01")
NOON = pd.Timestamp("2024-06-01 12:00")
SKLEARN: dict[str, Callable[..., float]] = {
    "mae": sk.mean_absolute_error,
    "rmse": sk.root_mean_squared_error,
    "auc": sk.roc_auc_score,
    "brier": sk.brier_score_loss,
    "log_loss": lambda y, p: sk.log_loss(y, p, labels=[0, 1]),
}


def days(count: int, start: pd.Timestamp = START) -> pd.DatetimeIndex:
    return pd.date_range(start, periods=count)


def features(label: Any, **columns: Any) -> pd.DataFrame:
    """A row a day whose label is known a day later."""
    label = np.asarray(label, dtype="float64")
    event = days(len(label))
    made = {
        "entity": "DEU",
        "event_time": event,
        "label_time": event + pd.Timedelta(days=1),
        "label": label,
        "level": 0.0,
        **columns,
    }
    return pd.DataFrame(made)


def predictions(values: Any, made: Any = "ahead", *, at: int = 0, **columns: Any) -> pd.DataFrame:
    """A prediction a day, of version 1, made so many hours after `NOON`."""
    values = np.asarray(values, dtype="float64")
    frame = {
        "entity": "DEU",
        "event_time": days(len(values)),
        "prediction": values,
        "lower": values - 1.0,
        "upper": values + 1.0,
        "made": made,
        "model_kind": "local",
        "model_version": "1",
        "reason": "the best",
        "features_version": "f",
        "previous_version": "",
        "previous_prediction": NAN,
        "predicted_at": NOON + pd.Timedelta(hours=at),
        **columns,
    }
    return pd.DataFrame(frame)


def recorded(
    label: Any, values: Any, spec: ProductSpec | None = None, **columns: Any
) -> pd.DataFrame:
    """A table of performance of predictions made ahead."""
    frame = features(label)
    given = {name: columns.pop(name) for name in ("level", "kind") if name in columns}
    new = predictions(values, **columns)
    return record_predictions(no_performance(), new, frame.assign(**given), spec or product())


def promised(value: float, width: float = 0.0, baseline: float = NAN) -> Promise:
    return Promise("mae", Estimate(value, value - width, value + width), baseline, 100)


def noisy(count: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions with errors of deviation 1."""
    rng = np.random.default_rng(seed)
    label = rng.normal(size=count)
    return label, label + rng.normal(size=count)


# What counts


def plainly_recorded(
    held: dict[tuple[str, pd.Timestamp], dict[str, Any]],
    new: pd.DataFrame,
    now: pd.DataFrame,
) -> None:
    """The rules of the table a row at a time, as they are said."""
    for row in new.to_dict("records"):
        key = (row["entity"], row["event_time"])
        before = held.get(key)
        if row["made"] == "hindcast" or (before and before["first_label"] is not None):
            continue
        if before and before["made"] == "ahead" and row["made"] == "late":
            continue
        if before and before["made"] == row["made"] == "late":
            continue
        values = {str(name): value for name, value in row.items()}
        held[key] = {**values, "label": None, "first_label": None}
    for row in now.to_dict("records"):
        found = held.get((row["entity"], row["event_time"]))
        if found:
            found["label"] = None if row["label"] != row["label"] else row["label"]
            if found["first_label"] is None:
                found["first_label"] = found["label"]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """Predictions and features frames, as they come one after another."""
    steps, entities = draw(st.integers(1, 5)), ["a", "b"]
    found = []
    for step in range(steps):
        frames = []
        for entity in entities:
            count = draw(st.integers(0, 6))
            rng = np.random.default_rng(draw(st.integers(0, 10_000)))
            made = rng.choice(["ahead", "late", "hindcast"], count)
            new = predictions(rng.normal(size=count), made, at=step).assign(
                entity=entity, model_version=str(step)
            )
            label = np.where(rng.random(7) < 0.5, rng.integers(0, 3, 7), np.nan)
            frames.append((new, features(label).assign(entity=entity).head(count + 1)))
        found.append(
            tuple(pd.concat(each, ignore_index=True) for each in zip(*frames, strict=True))
        )
    return found


@settings(max_examples=examples(40), deadline=None)
@given(histories())
def test_what_is_recorded_is_what_the_rules_say_row_by_row(
    history: list[tuple[pd.DataFrame, pd.DataFrame]],
) -> None:
    table, plain = no_performance(), {}
    for new, now in history:
        table = record_predictions(table, new.sample(frac=1, random_state=1), now, product())
        plainly_recorded(plain, new, now)
    assert list(table.columns) == list(PERFORMANCE_COLUMNS)
    assert list(zip(table["event_time"], table["entity"], strict=True)) == sorted(
        (time, entity) for entity, time in plain
    )
    for row in table.to_dict("records"):
        expected = plain[row["entity"], row["event_time"]]
        for name in ("made", "prediction", "model_version", "predicted_at", "lower", "upper"):
            assert row[name] == expected[name], name
        for name in ("label", "first_label"):
            assert (None if row[name] != row[name] else row[name]) == expected[name], name


@settings(max_examples=examples(15), deadline=None)
@given(histories())
def test_recording_the_same_again_changes_nothing(
    history: list[tuple[pd.DataFrame, pd.DataFrame]],
) -> None:
    table = no_performance()
    for new, now in history:
        table = record_predictions(table, new, now, product())
        pd.testing.assert_frame_equal(table, record_predictions(table, new, now, product()))


def test_predictions_of_several_days_at_once_are_as_one_after_the_other() -> None:
    first = predictions([1.0, 2.0], at=0)
    second = predictions([5.0, 6.0, 7.0], ["late", "ahead", "ahead"], at=1, model_version="2")
    now = features([0.5, NAN, NAN])
    at_once = record_predictions(
        no_performance(), pd.concat([second, first], ignore_index=True), now, product()
    )
    one = record_predictions(no_performance(), first, features([NAN, NAN]), product())
    pd.testing.assert_frame_equal(at_once, record_predictions(one, second, now, product()))
    assert at_once["prediction"].tolist() == [1.0, 6.0, 7.0]
    assert at_once["model_version"].tolist() == ["1", "2", "2"]


def test_the_last_prediction_before_the_label_counts_and_none_after() -> None:
    table = recorded([NAN], [1.0])
    table = record_predictions(table, predictions([2.0], at=1), features([NAN]), product())
    assert table["prediction"].tolist() == [2.0]
    late = predictions([3.0], "late", at=2)
    table = record_predictions(table, late, features([9.0]), product())
    assert table[["prediction", "made", "label"]].to_numpy().tolist() == [[2.0, "ahead", 9.0]]
    ahead_of_a_withdrawn_label = predictions([4.0], "ahead", at=3)
    table = record_predictions(table, ahead_of_a_withdrawn_label, features([9.0]), product())
    assert table["prediction"].tolist() == [2.0]


def test_a_row_that_the_model_learned_from_never_counts() -> None:
    table = recorded([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], made=["hindcast", "late", "hindcast"])
    assert table["event_time"].tolist() == [days(2)[1]]
    later = predictions([9.0, 9.0], "hindcast", at=5, model_version="2")
    pd.testing.assert_frame_equal(
        table, record_predictions(table, later, features([1.0, 2.0]), product())
    )


def test_a_revised_label_is_judged_as_it_is_now_and_counted() -> None:
    spec = product(monitoring={"min_labels": 2})
    table = recorded([1.0, 2.0], [1.0, 2.0])
    assert realised(spec, table, promised(1.0), "1").value.value == 0.0
    table = record_predictions(table, predictions([1.0, 2.0], "late"), features([1.0, 6.0]), spec)
    assert table["label"].tolist() == [1.0, 6.0]
    assert table["first_label"].tolist() == [1.0, 2.0]
    found = realised(spec, table, promised(1.0), "1")
    assert (found.revised, found.value.value) == (1, 2.0)


def test_a_label_computed_again_with_another_rounding_is_not_revised() -> None:
    table = recorded([0.3], [0.0])
    table = record_predictions(table, predictions([0.0]), features([0.1 + 0.2]), product())
    assert realised(product(), table, promised(1.0), "1").revised == 0


def test_a_withdrawn_label_is_open_again_and_a_row_that_is_gone_keeps_its_label() -> None:
    table = recorded([1.0, 2.0], [1.0, 2.0])
    then = features([NAN, 2.0]).head(1)
    table = record_predictions(table, predictions([]), then, product())
    np.testing.assert_array_equal(table["label"], [NAN, 2.0])
    assert realised(product(), table, promised(1.0), "1").open_rows == 1
    assert table["first_label"].tolist() == [1.0, 2.0]


def test_nothing_predicted_is_an_empty_table_of_the_same_types() -> None:
    table = recorded([], [])
    pd.testing.assert_frame_equal(table, no_performance())
    assert len(by_period(product(), table)) == 0
    assert against_previous(product(), table, "1") == UNKNOWN
    assert realised(product(), table, promised(1.0), "1").rows == 0


def test_the_baseline_is_the_first_of_the_product_on_the_very_rows() -> None:
    table = recorded([1.0, 2.0, NAN], [0.0, 0.0, 0.0], level=[7.0, 8.0, 9.0])
    assert table["baseline"].tolist() == [7.0, 8.0, 9.0]
    rows = regression_rows(200)
    mean = product(baselines=[{"name": "mean", "rule": "mean"}])
    new = predictions(np.zeros(3)).assign(event_time=rows["event_time"].tail(3).to_numpy())
    table = record_predictions(no_performance(), new, rows, mean)
    until = pd.Timestamp("2023-12-01")
    learned = rows.loc[(rows["event_time"] < until) & (rows["label_time"] <= until), "label"]
    assert table["baseline"].tolist() == pytest.approx([learned.mean()] * 3)


# What it is worth


def guesses(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Probabilities, some of them equal."""
    return rng.integers(1, 10, rows) / 10.0


def random_table(metric: str, seed: int, rows: int = 40) -> tuple[ProductSpec, pd.DataFrame]:
    """Rows of three versions over some months, a third of them open."""
    rng = np.random.default_rng(seed)
    classes = metric not in ("mae", "rmse")
    label = (rng.random(rows) < 0.4) * 1.0 if classes else rng.normal(size=rows)
    guess = guesses(rng, rows) if classes else rng.normal(size=rows)
    table = pd.DataFrame(
        {
            "entity": [f"e{place}" for place in range(rows)],
            "event_time": START + pd.to_timedelta(rng.integers(0, 50, rows), unit="D"),
            "made": "ahead",
            "predicted_at": NOON,
            "model_version": rng.choice(["", "2", "10"], rows).astype("object"),
            "model_kind": "local",
            "prediction": guess,
            "lower": NAN,
            "upper": NAN,
            "baseline": guesses(rng, rows),
            "previous_version": "1",
            "previous_prediction": guesses(rng, rows),
            "label": np.where(rng.random(rows) < 0.33, np.nan, label),
        }
    ).assign(
        first_label=lambda made: made["label"],
        label_time=lambda made: (
            made["event_time"] + pd.to_timedelta(rng.integers(1, 60, rows), unit="D")
        ),
    )
    spec = classifier(metric=metric) if classes else product(metric=metric)
    return spec, table[list(PERFORMANCE_COLUMNS)]


def by_sklearn(metric: str, label: pd.Series, guess: pd.Series) -> float:
    if label.empty or (metric == "auc" and label.nunique() < 2):
        return NAN
    return SKLEARN[metric](label, guess)


@settings(max_examples=examples(20), deadline=None)
@given(
    metric=st.sampled_from(list(SKLEARN)),
    period=st.sampled_from([("day", "D"), ("week", "W-SUN"), ("month", "M")]),
    seed=st.integers(0, 999),
)
def test_metrics_by_period_are_those_of_each_period_by_itself(
    metric: str, period: tuple[str, str], seed: int
) -> None:
    spec, table = random_table(metric, seed)
    name, alias = period
    spec = spec.model_copy(
        update={"monitoring": spec.monitoring.model_copy(update={"period": name})}
    )
    starts = table["event_time"].dt.to_period(alias).dt.start_time
    expected = []
    for start in sorted(starts.unique()):
        for version in ("", "2", "10"):
            part = table[(starts == start) & (table["model_version"] == version)]
            if part.empty:
                continue
            known = part[part["label"].notna()]
            first = start.strftime("%Y-%m" if name == "month" else "%Y-%m-%d")
            values = [
                by_sklearn(metric, known["label"], known[guess])
                for guess in ("prediction", "baseline")
            ]
            expected.append((first, version, len(known), *values, len(part) - len(known)))
    wanted = pd.DataFrame(expected, columns=list(PERIOD_COLUMNS))
    pd.testing.assert_frame_equal(by_period(spec, table), wanted, check_dtype=False, atol=1e-9)


@settings(max_examples=examples(15), deadline=None)
@given(metric=st.sampled_from(list(SKLEARN)), seed=st.integers(0, 999))
def test_metrics_by_slice_are_of_the_newest_labels_of_each_slice(metric: str, seed: int) -> None:
    spec, table = random_table(metric, seed)
    rng = np.random.default_rng(seed)
    where = table[["entity", "event_time"]].assign(
        hotel=rng.choice(np.array(["city", "beach", None]), len(table)),
        size=rng.integers(0, 9, len(table)),
    )
    where = where.sample(frac=1, random_state=seed).iloc[5:]
    slices = [{"feature": "hotel"}, {"feature": "size", "edges": [3]}, {"feature": "not_there"}]
    spec = type(spec).model_validate(
        {**spec.model_dump(), "evaluation": {"slices": slices}, "monitoring": {"label_days": 20}}
    )
    names = _named(where)
    newest = table.loc[table["label"].notna(), "label_time"].max()
    rows: dict[tuple[str, str, str], list[tuple[float, float, float]]] = {}
    for row in table.to_dict("records"):
        if row["label"] == row["label"] and row["label_time"] <= newest - pd.Timedelta(days=20):
            continue
        found = names.get((row["entity"], row["event_time"]), {})
        for feature in ("hotel", "size"):
            key = (feature, found.get(feature, "missing"), row["model_version"])
            numbers = (row["label"], row["prediction"], row["baseline"])
            rows.setdefault(key, []).append(numbers)
    made = by_slice(spec, table, where)
    assert list(made.columns) == list(PERFORMANCE_SLICE_COLUMNS)
    assert {tuple(key) for key in made[["feature", "slice", "model_version"]].to_numpy()} == set(
        rows
    )
    for row in made.to_dict("records"):
        numbers = pd.DataFrame(rows[row["feature"], row["slice"], row["model_version"]])
        known = numbers[numbers[0].notna()]
        assert (row["rows"], row["open_rows"]) == (len(known), len(numbers) - len(known))
        for name, column in (("value", 1), ("baseline", 2)):
            expected = by_sklearn(metric, known[0], known[column])
            assert row[name] == pytest.approx(expected, nan_ok=True)


def _named(where: pd.DataFrame) -> dict[tuple[str, pd.Timestamp], dict[str, str]]:
    return {
        (row["entity"], row["event_time"]): {
            "hotel": row["hotel"] or "missing",
            "size": "under 3" if row["size"] < 3 else "3 or more",
        }
        for row in where.to_dict("records")
    }


@pytest.mark.parametrize("metric", SKLEARN)
def test_a_metric_of_rows_of_which_one_has_no_prediction_is_not_told(metric: str) -> None:
    spec = classifier(metric=metric) if metric in ("auc", "brier", "log_loss") else product()
    naive = [NAN, 0.5, 0.6, 0.7, 0.2, 0.3, 0.4, *[0.1, 0.9] * 3, 0.5]
    table = recorded([0.0, 1.0] * 7, [0.2, 0.8] * 7, spec).assign(baseline=naive)
    told = by_period(spec, table)
    assert told["value"].notna().tolist() == [True, True]
    assert told["baseline"].notna().tolist() == [False, True]


def test_periods_and_slices_are_in_the_order_a_person_expects() -> None:
    spec, table = random_table("mae", 1)
    periods = by_period(spec, table)
    versions = periods[periods["period"] == periods["period"].iloc[-1]]["model_version"].tolist()
    assert versions == [each for each in ("", "2", "10") if each in versions]
    spec = product(evaluation={"slices": [{"feature": "size", "edges": [9, 10]}]})
    where = table[["entity", "event_time"]].assign(size=np.arange(len(table)) % 12)
    found = by_slice(spec, table, where)["slice"].drop_duplicates().tolist()
    assert found == ["under 9", "9 to 10", "10 or more"]
    assert by_slice(product(), table, where).empty


@settings(max_examples=examples(20), deadline=None)
@given(metric=st.sampled_from(list(SKLEARN)), seed=st.integers(0, 999))
def test_the_realised_metric_is_of_the_version_and_the_newest_labels(
    metric: str, seed: int
) -> None:
    spec, table = random_table(metric, seed)
    own = table[table["model_version"] == "10"]
    known = own[own["label"].notna()]
    newest = table.loc[table["label"].notna(), "label_time"].max()
    rows = known[known["label_time"] > newest - pd.Timedelta(days=56)]
    found = realised(spec, table, promised(0.5, 0.1), "10")
    if rows.empty:
        assert (found.rows, found.first, found.last) == (0, None, None)
        return
    assert (found.rows, found.open_rows) == (len(rows), len(own) - len(known))
    assert (found.first, found.last) == (rows["event_time"].min(), rows["event_time"].max())
    for value, guess in ((found.value.value, "prediction"), (found.baseline, "baseline")):
        expected = by_sklearn(metric, rows["label"], rows[guess])
        assert value == pytest.approx(expected, nan_ok=True)


def test_rows_of_models_before_stay_in_the_table_and_out_of_the_champions_worth() -> None:
    label, guess = noisy()
    version = np.where(np.arange(120) < 60, "1", "2").astype("object")
    table = recorded(label, np.where(version == "1", guess + 50, guess), model_version=version)
    found = realised(product(), table, promised(1.0, 0.1), "2")
    assert found.rows == 56
    assert found.first == days(120)[64]
    assert found.value.value < 2
    assert set(by_period(product(), table)["model_version"]) == {"1", "2"}


def test_what_a_version_did_before_another_served_for_months_says_nothing_of_today() -> None:
    label, guess = noisy(160)
    version = np.where(np.arange(160) < 80, "1", "2").astype("object")
    rolled_back = recorded(label, guess, model_version=version)
    assert realised(product(), rolled_back, promised(1.0, 0.1), "1").rows == 0
    assert realised(product(), rolled_back.head(80), promised(1.0, 0.1), "1").rows == 56


def test_the_newest_days_are_those_in_which_labels_became_known() -> None:
    """Of the newest events only those are known whose truth shows soon."""
    frame = features(np.zeros(100))
    frame["label_time"] = frame["event_time"] + pd.to_timedelta(
        np.where(np.arange(100) % 2, 1, 90), unit="D"
    )
    frame.loc[frame["label_time"] > frame["event_time"].max(), "label"] = NAN
    table = record_predictions(no_performance(), predictions(np.ones(100)), frame, product())
    found = realised(product(), table, promised(1.0, 0.1), "1")
    newest = frame.loc[frame["label"].notna(), "label_time"].max()
    matured = frame[frame["label"].notna()]
    within = matured[matured["label_time"] > newest - pd.Timedelta(days=56)]
    assert found.rows == len(within)
    assert found.first == days(1)[0], "an early event whose label became known late"


# What was promised


def test_a_model_as_good_as_promised_is_not_worse_and_one_far_worse_is() -> None:
    label, guess = noisy()
    as_good = realised(product(), recorded(label, guess), promised(0.8, 0.1), "1")
    assert as_good.worse is False
    assert "not significantly worse" in as_good.reason
    worse = realised(
        product(), recorded(label, label + 2 * (guess - label)), promised(0.8, 0.1), "1"
    )
    assert worse.worse is True
    assert worse.excess == pytest.approx(2 * (1 + as_good.excess) - 1)
    assert f"{100 * worse.excess:.3g} % worse than the promised 0.8 (0.7 to 0.9)" in worse.reason


@pytest.mark.parametrize("tolerance", [0.0, 0.05, 0.5])
def test_worse_is_a_lower_end_above_the_upper_end_of_the_promise_beyond_the_tolerance(
    tolerance: float,
) -> None:
    spec = product(monitoring={"tolerance": tolerance})
    table = recorded(*noisy())
    lower = realised(spec, table, promised(0.8, 0.1), "1").compared.lower
    for shift, expected in ((-1e-6, True), (1e-6, False)):
        upper = lower / (1 + tolerance) + shift
        promise = Promise("mae", Estimate(0.5, 0.4, upper), NAN, 100)
        assert realised(spec, table, promise, "1").worse is expected


def test_worse_is_an_auc_whose_upper_end_is_under_the_lower_end_of_the_promise() -> None:
    spec = classifier(monitoring={"tolerance": 0.02})
    rng = np.random.default_rng(0)
    label = (rng.random(300) < 0.5) * 1.0
    table = recorded(label, 0.3 * label + 0.7 * rng.random(300), spec, level=0.0)
    upper = realised(spec, table, Promise("auc", Estimate(0.5, 0.4, 0.6), 0.5, 9), "1").value.upper
    for shift, expected in ((1e-6, True), (-1e-6, False)):
        promise = Promise("auc", Estimate(0.99, upper + 0.02 + shift, 1.0), 0.5, 100)
        found = realised(spec, table, promise, "1")
        assert found.worse is expected
        assert found.expected == promise.value, "an auc is not a share of the baseline's"
        assert found.excess == pytest.approx(0.99 - found.value.value)


def test_a_restless_month_is_not_a_bad_model() -> None:
    label, guess = noisy()
    level = label + np.random.default_rng(5).normal(size=120) * 2
    promise = promised(0.8, 0.1, baseline=1.6)
    calm = realised(product(), recorded(label, guess, level=level), promise, "1")
    restless = recorded(10 * label, 10 * guess, level=10 * level)
    wild = realised(product(), restless, promise, "1")
    assert wild.worse is calm.worse is False
    assert wild.value.value == pytest.approx(10 * calm.value.value)
    assert wild.excess == pytest.approx(calm.excess)
    assert wild.expected.value == pytest.approx(0.5 * wild.baseline)
    alone = realised(product(), restless, promised(0.8, 0.1), "1")
    assert alone.worse is True, "without a baseline there is nothing to tell it by"


def test_what_is_compared_is_the_share_of_the_baselines_error_on_the_same_draws() -> None:
    rng = np.random.default_rng(2)
    label, size = rng.normal(size=56), np.repeat(np.exp(rng.normal(0, 1, 8)), 7)
    noise = rng.normal(size=56)
    table = recorded(label, label + size * noise, level=label + 2 * size * noise)
    found = realised(product(), table, promised(0.8, 0.1, baseline=1.6), "1")
    assert found.compared.value == pytest.approx(found.value.value)
    assert found.compared.upper - found.compared.lower < 1e-9, "always half of the baseline's"
    assert found.value.upper - found.value.lower > 0.1


@pytest.mark.nightly  # many models, to see how often
def test_models_as_good_as_promised_are_called_worse_practically_never() -> None:
    calm, broken = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        size = np.exp(np.cumsum(rng.normal(0, 0.1, 536)))  # restless and quiet times
        label, shock = np.zeros(536), rng.normal(size=536)
        error = size * (0.75 * shock + 0.5 * rng.normal(size=536))
        naive = size * (shock + 0.6 * rng.normal(size=536))
        held = features(label[:480], level=naive[:480])
        spec = product(evaluation={"draws": 200})
        report = evaluate(held, error[:480], spec, held)
        promise = promise_of(spec, report)
        for found, factor in ((calm, 1.0), (broken, 2.5)):
            table = recorded(label[480:], factor * error[480:], spec, level=naive[480:])
            found.append(realised(spec, table, promise, "1").worse)
    assert sum(calm) <= 1
    assert sum(broken) >= 38


NOT_JUDGED: dict[str, tuple[Callable[[], Any], str]] = {
    "a baseline serves": (
        lambda: (product(), recorded(*noisy(), model_version=""), promise_of(product(), None), ""),
        "baseline serves, which promised nothing",
    ),
    "no label": (
        lambda: (product(), recorded([NAN] * 30, [0.0] * 30), promised(1.0, 0.1), "1"),
        "0 labels have matured, 20 are needed; 30 more are open",
    ),
    "too few rows": (
        lambda: (product(), recorded(*noisy(19)), promised(1.0, 0.1), "1"),
        "19 labels have matured, 20 are needed",
    ),
    "too few days": (
        lambda: (product(), recorded(*noisy(21)), promised(1.0, 0.1), "1"),
        "3 blocks of 7 calendar days have rows, and 5 are needed",
    ),
    "no promise": (
        lambda: (product(), recorded(*noisy()), Promise("mae", UNKNOWN, NAN, 0), "1"),
        "what the model promised is not known",
    ),
    "no interval of the promise": (
        lambda: (product(), recorded(*noisy()), Promise("mae", Estimate(1.0), NAN, 33), "1"),
        "its holdout of 33 rows being too short",
    ),
    "one class": (
        lambda: (
            classifier(),
            recorded(np.ones(60), np.full(60, 0.5), classifier(), level=0.0),
            Promise("auc", Estimate(0.8, 0.7, 0.9), 0.5, 100),
            "1",
        ),
        "0 matured rows of the rarer class, and 20 are needed for auc",
    ),
    "few of a class": (
        lambda: (
            classifier(),
            recorded((np.arange(56) < 19) * 1.0, np.linspace(1, 0, 56), classifier(), level=0.0),
            Promise("auc", Estimate(0.8, 0.7, 0.9), 0.5, 100),
            "1",
        ),
        "19 matured rows of the rarer class",
    ),
}


@pytest.mark.parametrize("case", NOT_JUDGED)
def test_what_cannot_be_judged_is_not_and_says_why(case: str) -> None:
    make, reason = NOT_JUDGED[case]
    found = realised(*make())
    assert found.worse is None
    assert math.isnan(found.excess)
    assert found.reason.startswith("not judged: ")
    assert reason in found.reason


def test_what_a_baseline_is_worth_is_told_though_it_promised_nothing() -> None:
    label, guess = noisy()
    spec = product()
    found = realised(spec, recorded(label, guess, model_version=""), promise_of(spec, None), "")
    expected = float(np.abs(label - guess)[-56:].mean())
    assert found.value.value == pytest.approx(expected)
    assert found.value.has_interval


def test_probabilities_are_judged_by_their_errors_like_numbers() -> None:
    rng = np.random.default_rng(4)
    chance = rng.random(200)
    label = (rng.random(200) < chance) * 1.0
    for metric in ("brier", "log_loss"):
        spec = classifier(metric=metric)
        good = recorded(label, np.clip(chance, 0.02, 0.98), spec, level=0.0)
        known = float(by_sklearn(metric, good["label"], good["prediction"]))
        promise = Promise(metric, Estimate(known, 0.9 * known, 1.1 * known), NAN, 500)
        assert realised(spec, good, promise, "1").worse is False
        wrong = good.assign(prediction=1.0 - good["prediction"])
        assert realised(spec, wrong, promise, "1").worse is True


def report(spec: ProductSpec, rows: pd.DataFrame, guess: np.ndarray) -> Any:
    return evaluate(rows, guess, spec, rows)


def test_a_report_promises_its_metric_and_its_share_of_the_first_baselines_error() -> None:
    rows = regression_rows(300)
    guess = 3 * rows["x"].to_numpy()
    spec = product(monitoring={"confidence": 0.9})  # as evaluation
    found = report(spec, rows, guess)
    promise = promise_of(spec, found)
    naive = float(np.abs(rows["label"] - rows["level"]).mean())
    assert promise.value == found.estimates["mae"]
    assert promise.baseline == pytest.approx(naive)
    assert promise.rows == 300
    share = float(np.abs(rows["label"] - guess).mean()) / naive
    assert promise.share.value == pytest.approx(share)
    assert promise.share.upper == pytest.approx(1 - found.gain.lower)
    wider = promise_of(product(), found)
    factor = 1.959964 / 1.644854
    assert wider.share.upper - share == pytest.approx(factor * (promise.share.upper - share))


def test_a_first_baseline_that_is_not_the_best_has_no_paired_share() -> None:
    rows = regression_rows(300)
    baselines = [{"name": "mean", "rule": "mean"}, {"name": "x", "rule": "feature", "feature": "x"}]
    spec = product(baselines=baselines, monitoring={"confidence": 0.9})
    promise = promise_of(spec, report(spec, rows, 3 * rows["x"].to_numpy()))
    assert math.isnan(promise.share.value)
    assert promise.baseline == pytest.approx(
        float((rows["label"] - rows["label"].mean()).abs().mean())
    )
    value, lower, upper = promised_in(spec, promise, np.array([promise.baseline, 2.0]))
    assert [value[0], lower[0], upper[0]] == pytest.approx(list(vars(promise.value).values()))
    assert value[1] == pytest.approx(2 * promise.value.value / promise.baseline)


def test_an_auc_is_promised_as_it_is_and_another_metric_without_a_baseline() -> None:
    rows = classification_rows(300)
    spec = classifier()
    found = report(spec, rows, 1 / (1 + np.exp(-rows["x"].to_numpy())))
    promise = promise_of(spec, found)
    assert math.isnan(promise.share.value)
    assert promised_in(spec, promise, np.array([0.5]))[0] == promise.value.value
    changed = promise_of(classifier(metric="brier"), found)
    assert changed.value.value == found.estimates["brier"].value
    assert math.isnan(changed.baseline)


def test_a_promise_that_could_not_be_judged_is_unknown() -> None:
    rows = regression_rows(3)
    promise = promise_of(product(), report(product(), rows.head(0), np.empty(0)))
    assert math.isnan(promise.value.value)
    assert promise.rows == 0


@pytest.mark.parametrize(("factor", "harder"), [(1.0, False), (5.0, True)])
def test_an_error_that_grows_with_the_baseline_s_is_harder_and_not_worse(
    factor: float, harder: bool
) -> None:
    spec = product()
    rng = np.random.default_rng(3)
    label = factor * rng.normal(size=120)
    table = recorded(label, 0.5 * label, baseline=np.zeros(120))
    found = realised(spec, table, promised(0.4, 0.05, 0.8), "1")
    assert (found.worse, found.harder) == (False, harder)


# The version before


def test_the_gain_on_the_version_before_is_on_the_rows_both_predicted() -> None:
    label, guess = noisy(200)
    before = label + 0.5 * (guess - label)
    before[:50] = NAN
    table = recorded(
        label, guess, previous_version="1", previous_prediction=before, model_version="2"
    )
    found = against_previous(product(), table, "2")
    assert found.value == pytest.approx(-1.0)
    assert found.upper == pytest.approx(-1.0)
    better = recorded(
        label, before, previous_version="1", previous_prediction=guess, model_version="2"
    )
    assert against_previous(
        product(), better.assign(label=better["label"].where(better.index >= 50)), "2"
    ).value == pytest.approx(0.5)


@pytest.mark.nightly  # how often; what is clearly worse and what is not is above
def test_a_champion_no_better_or_worse_than_before_is_not_called_clearly_worse() -> None:
    clearly = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        label = rng.normal(size=70)
        ours, theirs = (label + rng.normal(size=70) for _ in range(2))
        table = recorded(label, ours, previous_version="1", previous_prediction=theirs)
        clearly += against_previous(product(), table, "1").upper < 0
    assert clearly <= 4


@pytest.mark.nightly
def test_looking_every_week_for_a_year_hardly_ever_finds_an_equal_version_clearly_worse() -> None:
    """Errors of neighbouring days are alike; at most the 2.5 % of a single look, by a wide mark."""
    clearly, found_out, spec = 0, 0, product()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        label = np.zeros(364)
        noise = rng.normal(size=(3, 364))
        near = noise + 0.5 * np.roll(noise, 1, axis=1)
        for ours, add in ((near[0], 0), (1.5 * near[2], 1)):
            table = recorded(label, ours, previous_version="1", previous_prediction=near[1])
            weeks = (table.head(7 * week) for week in range(1, 53))
            worse = any(against_previous(spec, each, "1").upper < 0 for each in weeks)
            clearly, found_out = clearly + worse * (1 - add), found_out + worse * add
    assert clearly <= 3
    assert found_out >= 55


def test_too_few_rows_or_another_version_before_say_nothing_of_the_version_before() -> None:
    label, guess = noisy(60)
    columns = {"previous_version": "1", "previous_prediction": guess + 1}
    few = recorded(
        label, guess, **{**columns, "previous_prediction": np.where(np.arange(60) < 19, 1.0, NAN)}
    )
    assert against_previous(product(), few, "1") == UNKNOWN
    assert against_previous(product(), recorded(label, guess, **columns), "7") == UNKNOWN
    mixed = recorded(label, guess, **columns)
    mixed["previous_version"] = np.where(np.arange(60) < 30, "1", "3")
    mixed["predicted_at"] = NOON + pd.to_timedelta(np.arange(60), unit="h")
    mixed.loc[:29, "previous_prediction"] = 1000.0
    # Of the 30 rows beside the newest one the first 20 are looked at, until there are 40.
    ours, theirs = (np.abs(each - label)[30:50].mean() for each in (guess, guess + 1))
    assert against_previous(product(), mixed, "1").value == pytest.approx(1 - ours / theirs)
    for ones, told in ((19, False), (20, True)):
        classes = (np.arange(60) % 2 == 0) * 1.0
        classes[np.flatnonzero(classes)[ones:]] = 0.0
        table = recorded(classes, np.linspace(0, 1, 60), classifier(), level=0.0, **columns)
        assert against_previous(classifier(), table, "1").has_interval is told


# The plot


def test_the_plot_is_small_valid_and_labelled() -> None:
    spec, table = random_table("mae", 3, rows=4000)
    table["event_time"] = START + pd.to_timedelta(np.arange(4000), unit="D")
    image = realised_plot(spec, by_period(spec, table), promised(1.0, 0.1, 1.2), "10", unit="EUR")
    root = ElementTree.fromstring(image)
    words = {node.text for node in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"mae by week, realised", "mae (EUR)", "realised", "models before", "promised"} <= words
    assert {"its interval", "baseline level"} <= words
    assert "nan" not in image
    assert len(image.encode()) < 50_000
    assert image.count("h0") <= 4 * MOST_PERIODS * 3


def test_nothing_to_draw_is_drawn_without_a_crash() -> None:
    for spec, table in (random_table("auc", 1, rows=2), (product(), no_performance())):
        image = realised_plot(spec, by_period(spec, table), promise_of(spec, None), "", unit="")
        ElementTree.fromstring(image)
        assert "nan" not in image
        assert "promised" not in image
