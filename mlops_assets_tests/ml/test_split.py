from __future__ import annotations

import datetime as dt
import itertools

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.split import rolling_folds, split
from mlops_assets.spec import SplitSpec

DAY = pd.Timedelta(days=1)


@st.composite
def features(draw: st.DrawFn) -> pd.DataFrame:
    days = draw(st.lists(st.integers(0, 400), max_size=60))
    waits = draw(st.lists(st.integers(0, 120), min_size=len(days), max_size=len(days)))
    known = draw(st.lists(st.booleans(), min_size=len(days), max_size=len(days)))
    event = pd.Timestamp("2023-01-01") + pd.to_timedelta(np.array(days, dtype="int64"), unit="D")
    return pd.DataFrame(
        {
            "entity": [str(n) for n in range(len(days))],
            "event_time": event,
            "label_time": event + pd.to_timedelta(np.array(waits, dtype="int64"), unit="D"),
            "label": np.where(known, 1.0, np.nan),
            "x": np.arange(len(days)),
        }
    )


@settings(max_examples=200, deadline=None)
@given(frame=features(), window=st.integers(1, 90), late=st.booleans())
def test_no_label_leaks_across_a_cut(frame: pd.DataFrame, window: int, late: bool) -> None:
    spec = SplitSpec(
        train_from=dt.date(2023, 2, 1) if late else None,
        holdout_from=dt.date(2023, 9, 1),
        validation_days=window,
    )
    cut, hold = pd.Timestamp(spec.validation_from), pd.Timestamp(spec.holdout_from)
    parts = split(frame, spec)
    assert (parts.train["label_time"] <= cut).all()
    assert (parts.train["event_time"] < cut).all()
    assert parts.validation["event_time"].between(cut, hold - DAY).all()
    assert (parts.validation["label_time"] <= hold).all()
    assert (parts.final["label_time"] <= hold).all()
    assert (parts.holdout["event_time"] >= hold).all()
    if spec.train_from:
        assert (parts.final["event_time"] >= pd.Timestamp(spec.train_from)).all()


@settings(max_examples=100, deadline=None)
@given(frame=features())
def test_every_row_is_used_once_or_purged_for_a_reason(frame: pd.DataFrame) -> None:
    parts = split(frame, SplitSpec(holdout_from=dt.date(2023, 9, 1), validation_days=30))
    used = pd.concat([parts.train, parts.validation, parts.holdout, parts.open])["entity"]
    assert used.is_unique
    assert set(parts.open["entity"]) == set(frame.loc[frame["label"].isna(), "entity"])
    assert set(parts.train["entity"]) | set(parts.validation["entity"]) <= set(
        parts.final["entity"]
    )
    purged = frame[~frame["entity"].isin(used)]
    cuts = [pd.Timestamp("2023-08-02"), pd.Timestamp("2023-09-01")]
    crosses = [(purged["event_time"] < at) & (purged["label_time"] > at) for at in cuts]
    assert (crosses[0] | crosses[1]).all()


def days_of(rows: int, matures: int, times: int = 1) -> pd.DataFrame:
    """Shuffled rows, `times` of them a day, whose labels are known `matures` days later."""
    event = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(rows) // times, unit="D")
    frame = pd.DataFrame({"event_time": event})
    frame["label_time"] = frame["event_time"] + pd.Timedelta(days=matures)
    return frame.sample(frac=1.0, random_state=0, ignore_index=True)


@given(
    rows=st.integers(0, 200),
    count=st.integers(1, 6),
    matures=st.integers(0, 40),
    times=st.integers(1, 50),
)
def test_no_label_leaks_across_the_start_of_a_fold(
    rows: int, count: int, matures: int, times: int
) -> None:
    frame = days_of(rows, matures, times)
    folds = rolling_folds(frame, count)
    assert len(folds) <= count
    assert len(folds) == 0 if rows == 0 else len(folds) >= 1
    for fold in folds:
        learned, judged = frame.iloc[fold.learn], frame.iloc[fold.judge]
        assert judged["event_time"].min() == fold.start
        assert (learned["label_time"] <= fold.start).all()
        assert (learned["event_time"] < fold.start).all()
    judged = np.concatenate([fold.judge for fold in folds]) if folds else np.empty(0)
    assert len(set(judged)) == len(judged)
    for earlier, later in itertools.pairwise(folds):
        end = frame["event_time"].iloc[earlier.judge].max()
        assert end < frame["event_time"].iloc[later.judge].min()
        assert set(earlier.learn) <= set(later.learn)


def test_folds_cover_the_later_half_in_equal_parts() -> None:
    folds = rolling_folds(days_of(120, 0), 3)
    assert [len(fold.judge) for fold in folds] == [20, 20, 20]
    assert [len(fold.learn) for fold in folds] == [60, 80, 100]


def test_rows_whose_label_is_known_too_late_are_on_neither_side_of_a_fold() -> None:
    (fold,) = rolling_folds(days_of(100, 10), 1)
    assert len(fold.judge) == 50
    assert len(fold.learn) == 41  # the label of the row ten days before is known at the start
