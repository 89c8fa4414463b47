from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.evaluation.intervals import (
    CORRECTION,
    covered_ends,
    joined_history,
    residual_history,
    rolling_intervals,
)
from mlops_assets_tests.effort import examples


def labelled(errors: np.ndarray, start: str = "2023-01-01", matures: int = 1) -> pd.DataFrame:
    """A row a day whose label is its error: everything is predicted to be 0."""
    event = pd.date_range(start, periods=len(errors))
    return pd.DataFrame(
        {
            "event_time": event,
            "label_time": event + pd.Timedelta(days=matures),
            "label": np.asarray(errors, dtype="float64"),
        }
    )


def covers(rows: pd.DataFrame, window: int = 250, coverage: float = 0.8) -> np.ndarray:
    """Whether each row is inside the interval that its own past makes."""
    none = np.zeros(len(rows))
    ends = rolling_intervals(
        residual_history(rows, none), rows["event_time"], none, coverage=coverage, window=window
    )
    return (ends.low <= rows["label"].to_numpy()) & (rows["label"].to_numpy() <= ends.high)


@settings(max_examples=examples(25), deadline=None)
@given(
    rows=st.integers(2, 60),
    window=st.integers(3, 30),
    matures=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_intervals_are_those_written_out_row_by_row(
    rows: int, window: int, matures: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    frame = labelled(np.round(rng.normal(size=rows), 2), matures=matures)
    scale = rng.integers(1, 4, rows) * 1.0
    history = residual_history(frame, np.zeros(rows), scale)
    ends = rolling_intervals(
        history, frame["event_time"], np.zeros(rows), scale, coverage=0.7, window=window
    )
    errors, level, covered = frame["label"].to_numpy() / scale, 0.3, []
    for row in range(rows):
        known = max(0, row - matures + 1)
        if 0 < known <= len(covered) and row >= matures and covered[known - 1] is not None:
            level += CORRECTION * (0.3 - (not covered[known - 1]))
        used = np.sort(errors[max(0, known - window) : known])
        if not len(used):
            assert np.isnan([ends.low[row], ends.high[row]]).all()
            covered.append(None)
            continue
        place = min(max(int((len(used) + 1) * level / 2 + 1e-9) - 1, 0), (len(used) - 1) // 2)
        low, high = used[place], used[len(used) - 1 - place]
        assert (ends.low[row], ends.high[row]) == (low * scale[row], high * scale[row])
        covered.append(low <= errors[row] <= high)


def test_no_interval_knows_its_own_label_or_a_later_one() -> None:
    rng = np.random.default_rng(0)
    rows = labelled(rng.normal(size=200), matures=3)
    spoiled = rows.assign(label=np.where(np.arange(200) >= 120, 1e6, rows["label"]))
    ends = [
        rolling_intervals(
            residual_history(frame, np.zeros(200)),
            frame["event_time"],
            np.zeros(200),
            coverage=0.8,
            window=50,
        )
        for frame in (rows, spoiled)
    ]
    np.testing.assert_array_equal(ends[0].high[:123], ends[1].high[:123])
    assert (ends[0].high[123:] != ends[1].high[123:]).any()


def test_a_source_that_says_a_label_was_known_before_its_event_changes_nothing() -> None:
    rows = labelled(np.arange(30.0), matures=0)
    early = rows.assign(label_time=rows["event_time"] - pd.Timedelta(days=9))
    none = np.zeros(30)
    ends = rolling_intervals(
        residual_history(early, none), early["event_time"], none, coverage=0.8, window=20
    )
    assert np.isnan(ends.low[0])
    assert (ends.high[1:] < rows["label"][1:]).all()


def test_intervals_follow_errors_that_grow_while_fixed_ones_do_not() -> None:
    rng = np.random.default_rng(1)
    size = np.linspace(1.0, 8.0, 900)
    rows = labelled(rng.normal(size=900) * size)
    late = np.arange(900) >= 250
    fixed = covered_ends(rows["label"].to_numpy()[~late], 0.2)
    inside = rows["label"].between(*fixed)[late].mean()
    assert inside < 0.55
    assert covers(rows)[late].mean() == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
def test_after_a_sudden_change_the_level_is_corrected_until_the_share_is_right(
    coverage: float,
) -> None:
    rng = np.random.default_rng(2)
    size = np.where(np.arange(1200) < 600, 1.0, 5.0)
    rows = labelled(rng.standard_t(3, size=1200) * size)
    inside = covers(rows, coverage=coverage)
    assert inside[100:600].mean() == pytest.approx(coverage, abs=0.05)
    assert inside[700:].mean() == pytest.approx(coverage, abs=0.05)


def test_a_scale_makes_wide_intervals_where_errors_are_large() -> None:
    rng = np.random.default_rng(3)
    scale = np.where(np.arange(600) % 2, 10.0, 1.0)
    rows = labelled(rng.normal(size=600) * scale)
    history = residual_history(rows, np.zeros(600), scale)
    ends = rolling_intervals(
        history, rows["event_time"], np.zeros(600), scale, coverage=0.8, window=250
    )
    inside = (ends.low <= rows["label"]) & (rows["label"] <= ends.high)
    for size in (1.0, 10.0):
        assert inside[(scale == size) & (np.arange(600) > 100)].mean() == pytest.approx(
            0.8, abs=0.07
        )
    nowhere = rolling_intervals(
        history, rows["event_time"], np.zeros(600), np.zeros(600), coverage=0.8, window=250
    )
    assert np.isfinite(nowhere.high[1:]).all()


def test_serving_goes_on_where_the_evaluation_ended() -> None:
    """History in, new rows out: the same as if all had been judged at once."""
    rng = np.random.default_rng(4)
    rows = labelled(rng.normal(size=300))
    none = np.zeros(300)
    history = residual_history(rows, none)
    at_once = rolling_intervals(history, rows["event_time"], none, coverage=0.8, window=100)
    for row in (150, 299):
        known = history[history["label_time"] <= rows["event_time"][row]]
        alone = rolling_intervals(
            known, rows["event_time"][row : row + 1], none[:1], coverage=0.8, window=100
        )
        assert (alone.low[0], alone.high[0]) == (at_once.low[row], at_once.high[row])


def test_histories_of_validation_and_holdout_are_one_by_event_time() -> None:
    first, second = labelled(np.ones(3)), labelled(np.zeros(2), start="2023-02-01")
    none = residual_history(first.iloc[:0], np.empty(0))
    parts = [residual_history(frame, np.zeros(len(frame))) for frame in (second, first)]
    together = joined_history([none, *parts])
    assert together["residual"].tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert joined_history([none]).empty


def test_rows_without_label_prediction_or_scale_are_no_history() -> None:
    rows = labelled(np.array([1.0, np.nan, 3.0, 4.0, 5.0]))
    history = residual_history(
        rows, np.array([0.0, 0.0, np.nan, 0.0, 0.0]), np.array([1.0, 1.0, 1.0, 0.0, 2.0])
    )
    assert history["residual"].tolist() == [1.0, 5.0]


def test_without_history_there_is_no_interval_and_no_crash() -> None:
    rows = labelled(np.zeros(3))
    none = residual_history(rows.iloc[:0], np.empty(0))
    ends = rolling_intervals(none, rows["event_time"], np.zeros(3), coverage=0.8, window=50)
    assert np.isnan(ends.low).all()


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
def test_an_interval_covers_fresh_rows_as_often_as_it_says(coverage: float) -> None:
    rng = np.random.default_rng(4)
    seen, fresh = rng.gamma(2, 1, 5000), rng.gamma(2, 1, 20000)
    low, high = covered_ends(seen, 1 - coverage)
    inside = ((fresh >= low) & (fresh <= high)).mean()
    assert inside == pytest.approx(coverage, abs=0.02)


def test_an_interval_of_few_rows_is_wide_and_of_none_missing() -> None:
    assert covered_ends(np.array([1.0, 5.0, 3.0]), 0.2) == (1.0, 5.0)
    assert np.isnan(covered_ends(np.empty(0), 0.2)).all()
