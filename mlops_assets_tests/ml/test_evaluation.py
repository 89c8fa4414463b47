from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from mlops_assets.ml.evaluation import (
    auc,
    baseline_predictions,
    evaluate,
    improvement,
    interval_offsets,
    is_better,
    reliability,
    score,
)
from mlops_assets.spec import BaselineSpec
from mlops_assets_tests.ml.scenarios import (
    classification_rows,
    classifier,
    product,
    regression_rows,
)

RNG = np.random.default_rng(0)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), ties=st.integers(1, 30), rows=st.integers(2, 60))
def test_metrics_agree_with_scikit_learn(seed: int, ties: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    y, p = (rng.random(rows) < 0.4) * 1.0, rng.integers(0, ties + 1, rows) / ties
    assert score("brier", y, p) == pytest.approx(metrics.brier_score_loss(y, p, pos_label=1))
    clipped = np.clip(p, 1e-15, 1 - 1e-15)
    assert score("log_loss", y, p) == pytest.approx(
        metrics.log_loss(y, np.c_[1 - clipped, clipped], labels=[0, 1])
    )
    if 0 < y.sum() < rows:
        assert auc(y, p) == pytest.approx(metrics.roc_auc_score(y, p))
    labels = rng.normal(size=rows)
    assert score("mae", labels, p) == pytest.approx(metrics.mean_absolute_error(labels, p))
    assert score("rmse", labels, p) == pytest.approx(metrics.root_mean_squared_error(labels, p))


@pytest.mark.parametrize("metric", ["mae", "rmse", "auc", "log_loss", "brier"])
def test_without_rows_or_with_a_missing_prediction_nothing_is_judged(metric: str) -> None:
    assert np.isnan(score(metric, np.empty(0), np.empty(0)))
    assert np.isnan(score(metric, np.array([0.0, 1.0]), np.array([0.5, np.nan])))


def test_auc_of_one_class_is_not_judged() -> None:
    assert np.isnan(score("auc", np.ones(5), RNG.random(5)))


def test_better_means_lower_error_and_higher_auc() -> None:
    assert is_better("mae", 1.0, 2.0)
    assert not is_better("mae", 2.0, 2.0)
    assert is_better("auc", 0.8, 0.7)
    assert not is_better("auc", float("nan"), 0.7)
    assert improvement("mae", 8.0, 10.0) == pytest.approx(0.2)
    assert improvement("auc", 0.8, 0.75) == pytest.approx(0.05)
    assert np.isnan(improvement("mae", 1.0, 0.0))


def test_a_feature_baseline_answers_with_the_mean_where_the_feature_is_missing() -> None:
    train = regression_rows(10).assign(label=4.0)
    rows = regression_rows(3).assign(level=[1.0, np.nan, 3.0])
    naive = BaselineSpec(name="level", rule="feature", feature="level")
    assert baseline_predictions(naive, train, rows).tolist() == [1.0, 4.0, 3.0]
    mean = BaselineSpec(name="mean", rule="mean")
    assert baseline_predictions(mean, train, rows).tolist() == [4.0] * 3
    assert np.isnan(baseline_predictions(mean, train.iloc[:0], rows)).all()


def test_a_report_compares_with_every_baseline_on_the_same_rows() -> None:
    rows, train = regression_rows(90), regression_rows(50, seed=9)
    report = evaluate(rows, rows["label"].to_numpy() + 0.5, product(), train)
    assert (report.rows, report.metric) == (90, "mae")
    assert report.value == pytest.approx(0.5)
    assert set(report.metrics) == {"mae", "rmse"}
    assert report.baselines["level"] == pytest.approx((rows["level"] - rows["label"]).abs().mean())
    assert report.best_baseline == min(report.baselines, key=lambda name: report.baselines[name])
    assert report.improvement == pytest.approx(1 - 0.5 / report.baseline_value)
    assert report.reliability is None
    assert (report.first, report.last) == (rows["event_time"].min(), rows["event_time"].max())


def test_the_months_of_a_report_add_up_to_the_whole() -> None:
    rows = regression_rows(90)
    predicted = rows["x"].to_numpy() * 3
    report = evaluate(rows, predicted, product(), rows)
    months = report.by_month
    assert months["month"].tolist() == ["2023-01", "2023-02", "2023-03"]
    assert months["rows"].tolist() == [31, 28, 31]
    assert np.average(months["value"], weights=months["rows"]) == pytest.approx(report.value)
    assert np.average(months["baseline"], weights=months["rows"]) == pytest.approx(
        report.baseline_value
    )


def test_a_report_of_no_rows_is_not_judged_and_does_not_crash() -> None:
    none = regression_rows(3).iloc[:0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = evaluate(none, np.empty(0), product(), none)
    assert not report.judged
    assert report.by_month.empty
    assert report.best_baseline == ""
    assert np.isnan(report.improvement)


def test_one_class_in_the_holdout_is_not_judged_but_its_other_metrics_are() -> None:
    rows = classification_rows(30).assign(label=1.0)
    report = evaluate(rows, np.full(30, 0.7), classifier(), classification_rows())
    assert not report.judged
    assert report.metrics["brier"] == pytest.approx(0.09)
    assert report.best_baseline == ""


def test_the_prior_has_an_auc_of_a_half() -> None:
    rows = classification_rows(200)
    report = evaluate(rows, RNG.random(200), classifier(), rows)
    assert report.baselines == {"prior": 0.5}


def test_reliability_has_rows_and_shares_per_bin() -> None:
    p = np.array([0.05, 0.07, 0.95, 1.0, 0.55])
    table = reliability(np.array([0.0, 1.0, 1.0, 1.0, 0.0]), p)
    assert table["rows"].tolist() == [2, 1, 2]
    assert table["observed"].tolist() == [0.5, 0.0, 1.0]
    np.testing.assert_allclose(table["predicted"], [0.06, 0.55, 0.975])


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
def test_an_interval_covers_fresh_rows_as_often_as_it_says(coverage: float) -> None:
    rng = np.random.default_rng(4)
    seen, fresh = rng.gamma(2, 1, 5000), rng.gamma(2, 1, 20000)
    low, high = interval_offsets(seen, np.zeros(5000), coverage)
    inside = ((fresh >= low) & (fresh <= high)).mean()
    assert inside == pytest.approx(coverage, abs=0.02)


def test_an_interval_of_few_rows_is_wide_and_of_none_missing() -> None:
    assert interval_offsets(np.array([1.0, 5.0, 3.0]), np.zeros(3), 0.8) == (1.0, 5.0)
    assert np.isnan(interval_offsets(np.empty(0), np.empty(0), 0.8)).all()
