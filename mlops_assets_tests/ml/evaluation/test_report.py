from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from mlops_assets.ml.evaluation.calibration import calibration_error, reliability_table
from mlops_assets.ml.evaluation.importance import REPEATS, permutation_importance
from mlops_assets.ml.evaluation.report import evaluate
from mlops_assets.ml.models.baselines import baseline_predictions
from mlops_assets.ml.models.fitted_model import fit, predict
from mlops_assets.ml.stats.metrics import auc, improvement, is_better, score
from mlops_assets.spec import BaselineSpec, ProductSpec
from mlops_assets_tests.effort import examples
from mlops_assets_tests.ml.scenarios import (
    CLASSIFIER,
    GBM,
    classification_rows,
    classifier,
    product,
    regression_rows,
)

RNG = np.random.default_rng(0)


@settings(max_examples=examples(60), deadline=None)
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
    table = reliability_table(np.array([0.0, 1.0, 1.0, 1.0, 0.0]), p)
    assert table["rows"].tolist() == [2, 1, 2]
    assert table["observed"].tolist() == [0.5, 0.0, 1.0]
    np.testing.assert_allclose(table["predicted"], [0.06, 0.55, 0.975])


def sliced(**changes: Any) -> ProductSpec:
    return product(evaluation={"slices": [{"feature": "kind"}], "draws": 300}, **changes)


def test_every_metric_has_an_interval_around_it() -> None:
    rows = regression_rows(200)
    report = evaluate(rows, rows["x"].to_numpy() * 3, product(), rows)
    assert set(report.estimates) == {"mae", "rmse"}
    for name, told in report.estimates.items():
        assert told.value == report.metrics[name]
        assert told.lower < told.value < told.upper
    assert report.gain.value == pytest.approx(report.improvement)
    assert 0 < report.gain.lower < report.gain.value


def test_a_few_days_tell_values_without_intervals_and_why() -> None:
    rows = regression_rows(20)
    report = evaluate(rows, rows["x"].to_numpy(), product(), rows)
    assert np.isfinite(report.gain.value)
    assert not report.gain.has_interval
    assert "20 daily event times, 20 rows of 1 entity are too few" in report.interval_problem


def test_the_champion_is_judged_on_the_same_rows_in_all_tables() -> None:
    rows = regression_rows(200)
    label, ours = rows["label"].to_numpy(), rows["x"].to_numpy() * 3
    theirs = label + 1.0
    report = evaluate(rows, ours, sliced(), rows, champion=theirs)
    assert report.champion.value == pytest.approx(1.0)
    assert report.champion_gain.value == pytest.approx(improvement("mae", report.value, 1.0))
    assert report.by_month["champion"].tolist() == pytest.approx([1.0] * len(report.by_month))
    assert report.slices["champion"].tolist() == pytest.approx([1.0] * len(report.slices))
    alone = evaluate(rows, ours, sliced(), rows)
    assert np.isnan([alone.champion.value, alone.champion_gain.value]).all()
    assert alone.slices["champion"].isna().all()


def test_slices_are_those_of_a_plain_loop_and_every_row_is_in_one() -> None:
    rows = regression_rows(400)
    guess = rows["x"].to_numpy() * 3
    report = evaluate(rows, guess, sliced(), rows)
    error = (rows["label"] - guess).abs()
    expected = error.groupby(rows["kind"].fillna("missing")).mean()
    table = report.slices.set_index("slice")
    assert table["rows"].sum() == 400
    assert table["value"].to_dict() == pytest.approx(expected.to_dict())
    for _, row in report.slices.iterrows():
        assert row["gain"] == pytest.approx(1 - row["value"] / row["baseline"])
    assert table.index.tolist() == ["a", "b", "c", "missing"]
    assert table["judged"].to_dict() == {"a": True, "b": True, "c": True, "missing": False}


def test_slices_of_numbers_are_in_the_order_of_their_edges() -> None:
    rows = regression_rows(200)
    spec = product(evaluation={"slices": [{"feature": "x", "edges": [-1.0, 0.0, 10.0]}]})
    table = evaluate(rows, rows["x"].to_numpy(), spec, rows).slices
    assert table["slice"].tolist() == ["under -1", "-1 to 0", "0 to 10"]


def test_a_slice_that_the_rows_do_not_have_is_there_without_rows_and_not_judged() -> None:
    rows = regression_rows(100)
    spec = product(evaluation={"slices": [{"feature": "nowhere"}]})
    table = evaluate(rows, rows["x"].to_numpy(), spec, rows).slices
    assert table[["feature", "slice", "rows", "judged"]].to_dict("records") == [
        {"feature": "nowhere", "slice": "", "rows": 0, "judged": False}
    ]


def test_a_slice_of_a_few_days_has_a_value_but_is_not_judged() -> None:
    rows = regression_rows(200).assign(part=lambda f: np.where(f.index < 20, "early", "late"))
    spec = product(evaluation={"slices": [{"feature": "part"}]}, gates={"min_slice_rows": 10})
    table = evaluate(rows, rows["x"].to_numpy(), spec, rows).slices.set_index("slice")
    assert table["value"].notna().all()
    assert table["judged"].to_dict() == {"early": False, "late": True}


@pytest.mark.parametrize(
    ("metric", "fewest", "judged"), [("auc", 9, True), ("auc", 10, False), ("brier", 10, True)]
)
def test_ranks_against_a_handful_of_rows_are_not_judged(
    metric: str, fewest: int, judged: bool
) -> None:
    rows = classification_rows(400)
    few = np.flatnonzero(rows["label"] == 1)[::20][:9]
    rows = rows.assign(
        part=np.where(np.isin(np.arange(400), few) | (rows["label"] == 0), "few", "rest")
    )
    spec = classifier(
        metric=metric,
        evaluation={"slices": [{"feature": "part"}]},
        gates={"min_slice_class_rows": fewest},
    )
    table = evaluate(rows, rows["x"].to_numpy(), spec, rows).slices.set_index("slice")
    assert table["judged"].to_dict() == {"few": judged, "rest": metric != "auc"}
    assert table["value"].notna().to_dict() == {"few": True, "rest": metric != "auc"}


def test_coverage_is_the_share_of_the_labels_between_the_ends() -> None:
    rows = regression_rows(300)
    label = rows["label"].to_numpy()
    inside = np.arange(300) % 4 > 0
    low = np.where(inside, label - 1, label + 1)
    report = evaluate(rows, label, product(), rows, low=low, high=low + 2)
    assert report.coverage.value == pytest.approx(0.75)
    assert report.coverage.lower < 0.75 < report.coverage.upper
    low[:30] = np.nan
    known = evaluate(rows, label, product(), rows, low=low, high=low + 2)
    assert known.coverage.value == pytest.approx(inside[30:].mean())
    assert np.isnan(evaluate(rows, label, product(), rows).coverage.value)


@settings(max_examples=examples(40), deadline=None)
@given(seed=st.integers(0, 999), rows=st.integers(1, 80), digits=st.integers(0, 3))
def test_the_calibration_error_is_that_of_a_plain_loop(seed: int, rows: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    p, y = np.round(rng.random(rows), digits), (rng.random(rows) < 0.5) * 1.0
    below = [(p < value).sum() + (p == value).sum() / 2 for value in p]
    bins = [int(10 * rank / rows) for rank in below]
    gaps = [abs(sum(p[i] - y[i] for i in range(rows) if bins[i] == place)) for place in range(10)]
    assert calibration_error(y, p) == pytest.approx(sum(gaps) / rows)


def test_the_calibration_interval_knows_what_chance_adds() -> None:
    rng = np.random.default_rng(0)
    rows = classification_rows(400)
    p = rng.random(400)
    honest = rows.assign(label=(rng.random(400) < p) * 1.0)
    report = evaluate(honest, p, classifier(), honest)
    assert 0.02 < report.calibration_error < 0.1
    assert report.calibration.lower < 0.02
    assert report.calibration_error == report.calibration.value <= report.calibration.upper
    constant = evaluate(honest, np.full(400, honest["label"].mean()), classifier(), honest)
    assert constant.calibration_error == pytest.approx(0.0)
    assert np.isnan(evaluate(regression_rows(9), np.ones(9), product(), rows).calibration_error)


def test_worst_cases_are_the_rows_of_greatest_loss_in_order() -> None:
    rows = regression_rows(100)
    guess = rows["label"].to_numpy().copy()
    guess[[5, 50, 7]] += [3.0, -9.0, 6.0]
    spec = product(evaluation={"worst_cases": 3})
    worst = evaluate(rows, guess, spec, rows).worst
    assert worst["event_time"].tolist() == [rows["event_time"].iloc[place] for place in (50, 7, 5)]
    assert worst["loss"].tolist() == pytest.approx([9.0, 6.0, 3.0])
    assert worst["predicted"].iloc[0] == pytest.approx(guess[50])
    assert evaluate(rows, guess, product(evaluation={"worst_cases": 0}), rows).worst.empty


def test_importance_is_the_harm_of_permuting_one_feature_at_a_time() -> None:
    rows = regression_rows(300)
    model = fit(GBM, rows, "regression", 0)
    table = permutation_importance(model, rows, "mae", seed=5)
    assert table["feature"].iloc[0] == "x"
    assert set(table["feature"]) == set(model.features)
    assert table["importance"].is_monotonic_decreasing
    rng = np.random.default_rng(5)
    before = score("mae", rows["label"].to_numpy(), predict(model, rows, "regression"))
    harm: dict[str, list[float]] = {}
    for name in model.features:
        for _ in range(REPEATS):
            order = rng.permutation(300)
            permuted = rows.assign(**{name: rows[name].to_numpy()[order]})
            after = score("mae", rows["label"].to_numpy(), predict(model, permuted, "regression"))
            harm.setdefault(name, []).append(after - before)
    for _, row in table.iterrows():
        assert row["importance"] == pytest.approx(np.mean(harm[row["feature"]]))
        assert row["deviation"] == pytest.approx(np.std(harm[row["feature"]]))


def test_importance_of_auc_is_its_loss_and_of_one_class_cannot_be_told() -> None:
    rows = classification_rows(900)
    model = fit(CLASSIFIER, rows, "classification", 0)
    table = permutation_importance(model, rows, "auc", seed=0)
    assert table["feature"].iloc[0] == "x"
    assert 0.1 < table["importance"].iloc[0] < 0.6
    assert permutation_importance(model, rows.assign(label=1.0), "auc", seed=0).empty
