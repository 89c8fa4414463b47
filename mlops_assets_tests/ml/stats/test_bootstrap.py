from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlops_assets.ml.stats.bootstrap import (
    estimate,
    gain_estimate,
    interval,
    resampled,
    resampled_gain,
    resampled_mean,
)
from mlops_assets.ml.stats.draws import BootstrapWeights, draw_rows
from mlops_assets.ml.stats.metrics import improvement, score
from mlops_assets.spec import EvaluationSpec
from mlops_assets_tests.effort import examples

METRICS = ["mae", "rmse", "auc", "brier", "log_loss"]


def draw_days(days: np.ndarray, *, block_days: int, draws: int, seed: int) -> BootstrapWeights:
    """Of one entity's rows on these days."""
    at = pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(days, unit="D"))
    rows = pd.DataFrame({"entity": "a", "event_time": at, "label_time": at + pd.Timedelta("1D")})
    # Fewer draws than a product may declare: here each is looked at.
    return draw_rows(EvaluationSpec(block_days=block_days), rows, seed=seed, draws=draws)


def weights(draws: BootstrapWeights) -> np.ndarray:
    assert draws.time is not None
    return draws.time.weights


def drawn_days(days: int, block: int, draws: int, seed: int) -> list[list[int]]:
    """The days of each draw, written out: block after block, round the end, cut to fit."""
    count = -(-days // block)
    starts = np.random.default_rng(seed).integers(0, days, size=(draws, count))
    return [[(int(s) + j) % days for s in row for j in range(block)][:days] for row in starts]


@settings(max_examples=examples(40), deadline=None)
@given(
    days=st.integers(1, 40),
    block=st.integers(1, 15),
    rows=st.integers(1, 60),
    seed=st.integers(0, 999),
)
def test_the_bootstrap_is_the_one_written_out_day_by_day_and_row_by_row(
    days: int, block: int, rows: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    at = np.concatenate([np.arange(days), rng.integers(0, days, rows)])
    y = (rng.random(len(at)) < 0.4) * 1.0
    p = np.round(rng.random(len(at)), 1)
    draws = draw_days(at, block_days=block, draws=20, seed=seed)
    slow = drawn_days(days, min(block, days), 20, seed)
    for metric in METRICS:
        expected = [
            score(metric, *(np.concatenate([each[at == day] for day in picked]) for each in (y, p)))
            for picked in slow
        ]
        np.testing.assert_allclose(resampled(metric, y, p, draws), expected, atol=1e-9)


@settings(max_examples=examples(30), deadline=None)
@given(days=st.integers(1, 200), block=st.integers(1, 30), seed=st.integers(0, 99))
def test_every_draw_has_as_many_days_as_there_are(days: int, block: int, seed: int) -> None:
    draws = draw_days(np.arange(days), block_days=block, draws=15, seed=seed)
    assert weights(draws).shape == (15, days)
    assert (weights(draws) >= 0).all()
    np.testing.assert_array_equal(weights(draws).sum(axis=1), days)


def test_days_without_rows_do_not_count_and_the_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    at, y, p = rng.integers(0, 300, 200), rng.normal(size=200), rng.normal(size=200)
    order = rng.permutation(200)
    one = draw_days(at, block_days=7, draws=30, seed=5)
    other = draw_days(at[order], block_days=7, draws=30, seed=5)
    assert weights(one).shape[1] == len(np.unique(at))
    np.testing.assert_allclose(
        resampled("mae", y, p, one), resampled("mae", y[order], p[order], other)
    )


@pytest.mark.nightly  # the import of the other library takes seconds; above all is written out
@pytest.mark.parametrize("block", [1, 7, 30])
def test_what_is_drawn_is_distributed_as_by_another_library(block: int) -> None:
    """`arch` draws row by row and one frame at a time; each day has one row here."""
    from arch.bootstrap import CircularBlockBootstrap

    rng = np.random.default_rng(6)
    values = np.convolve(rng.normal(size=240), np.ones(5), mode="valid")[:210]
    draws = draw_days(np.arange(len(values)), block_days=block, draws=4000, seed=0)
    ours = resampled_mean(values, draws)
    other = CircularBlockBootstrap(block, values, seed=np.random.default_rng(1))
    theirs = other.apply(lambda drawn: drawn.mean(), 4000)[:, 0]
    compared: Any = stats.ks_2samp(ours, theirs)
    assert compared.pvalue > 0.01
    assert ours.std() == pytest.approx(theirs.std(), rel=0.05)


def test_neighbouring_days_are_drawn_together() -> None:
    draws = draw_days(np.arange(140), block_days=14, draws=200, seed=0)
    singles = draw_days(np.arange(140), block_days=1, draws=200, seed=0)
    together, alone = (
        np.corrcoef(weights(each)[:, 50], weights(each)[:, 51])[0, 1] for each in (draws, singles)
    )
    assert together > 0.8
    assert abs(alone) < 0.3


def test_gains_are_paired_on_identical_draws() -> None:
    rng = np.random.default_rng(2)
    y, p = rng.normal(size=100), rng.normal(size=100)
    draws = draw_days(np.arange(100), block_days=7, draws=50, seed=0)
    np.testing.assert_array_equal(resampled_gain("mae", y, p, p, draws=draws), 0.0)
    half = y + (p - y) / 2
    np.testing.assert_allclose(resampled_gain("mae", y, half, p, draws=draws), 0.5)
    np.testing.assert_allclose(resampled_gain("rmse", y, half, p, draws=draws), 0.5)


@pytest.mark.parametrize("metric", METRICS)
def test_an_estimate_has_the_value_of_the_rows_and_bounds_around_it(metric: str) -> None:
    rng = np.random.default_rng(3)
    y = (rng.random(300) < 0.4) * 1.0
    a, b = np.clip(0.4 * y + 0.6 * rng.random(300), 0.01, 0.99), rng.random(300)
    draws = draw_days(np.arange(300) // 3, block_days=7, draws=400, seed=0)
    own = estimate(metric, y, a, draws, tail=0.05)
    assert own.value == pytest.approx(score(metric, y, a))
    assert own.lower < own.value < own.upper
    gain = gain_estimate(metric, y, a, b, draws=draws, tail=0.05)
    assert gain.value == pytest.approx(improvement(metric, own.value, score(metric, y, b)))
    assert 0 < gain.lower < gain.value < gain.upper


def test_the_bounds_are_quantiles_widened_as_students_t_is() -> None:
    drawn = np.random.default_rng(4).normal(10, 1, 1000)
    for blocks, tail in ((5, 0.05), (9, 0.03), (52, 0.05), (400, 0.01)):
        told = interval(10.0, drawn, tail, blocks)
        factor = np.sqrt(blocks / (blocks - 1)) * stats.t.ppf(tail, blocks - 1)
        factor /= stats.norm.ppf(tail)
        plain = np.quantile(drawn, [tail, 1 - tail]) - 10
        np.testing.assert_allclose([told.lower - 10, told.upper - 10], factor * plain, rtol=0.02)


def test_too_few_days_tell_no_interval_and_the_reason_says_how_many_are_needed() -> None:
    y = np.arange(28.0)
    few = draw_days(np.arange(28), block_days=7, draws=50, seed=0)
    told = estimate("mae", y, y + 1, few, tail=0.05)
    assert told.value == 1.0
    assert np.isnan([told.lower, told.upper]).all()
    assert "28 daily event times, 28 rows of 1 entity are too few" in few.problem
    assert "4 blocks of 7 calendar days have rows, and 5 are needed" in few.problem
    enough = draw_days(np.arange(29), block_days=7, draws=50, seed=0)
    assert enough.problem == ""
    assert enough.of(np.arange(29) < 20).problem


def test_draws_in_which_a_metric_cannot_be_told_are_left_out() -> None:
    rng = np.random.default_rng(5)
    rare, p = np.zeros(100), rng.random(100)
    rare[:5] = 1.0
    draws = draw_days(np.arange(100), block_days=7, draws=200, seed=0)
    values = resampled("auc", rare, p, draws)
    assert 0 < np.isnan(values).sum() < 100
    assert estimate("auc", rare, p, draws, tail=0.05).has_interval
    assert not estimate("auc", np.zeros(100), p, draws, tail=0.05).has_interval
    nothing = draws.of(np.zeros(100, dtype="bool"))
    assert np.isnan(resampled_mean(np.empty(0), nothing)).all()


def test_no_rows_at_all_are_no_crash() -> None:
    none = draw_days(np.empty(0, dtype="int64"), block_days=7, draws=50, seed=0)
    assert none.problem
    assert np.isnan(estimate("mae", np.empty(0), np.empty(0), none, tail=0.05).value)


def test_the_same_seed_draws_the_same_days_and_another_seed_others() -> None:
    at = np.arange(50)
    one, same, other = (draw_days(at, block_days=7, draws=9, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(weights(one), weights(same))
    assert (weights(one) != weights(other)).any()


@pytest.mark.parametrize(
    ("days", "memory", "least"),
    [
        (40, 0.0, 0.87),
        (240, 0.3, 0.84),
        # Nightly: hundreds of intervals each, of another length and of a longer memory.
        pytest.param(60, 0.3, 0.84, marks=pytest.mark.nightly),
        pytest.param(240, 0.6, 0.78, marks=pytest.mark.nightly),
    ],
)
def test_intervals_of_autocorrelated_errors_hold_the_truth_about_as_often_as_they_say(
    days: int, memory: float, least: float
) -> None:
    """Errors of a first-order autoregression: nominal 90 %; of days drawn singly far less.

    Blocks of 7 days know of what is alike within them: with a memory of 0.6 a little is lost.
    """
    held = {7: 0, 1: 0}
    for seed in range(300):
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=days + 30)
        errors = np.zeros(days + 30)
        for day in range(1, days + 30):
            errors[day] = memory * errors[day - 1] + noise[day]
        rows = np.abs(errors[30:] + 10.0)  # the mean of their sizes is 10 in the long run
        for block in held:
            draws = draw_days(np.arange(days), block_days=block, draws=200, seed=seed)
            told = estimate("mae", np.zeros(days), rows, draws, tail=0.05)
            held[block] += told.lower <= 10.0 <= told.upper
    assert least < held[7] / 300 < 0.95
    if memory:
        assert held[7] > held[1] + 15
