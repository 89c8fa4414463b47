from __future__ import annotations

import datetime as dt
import itertools

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.models.split import rolling_folds, split
from mlops_assets.spec import SplitSpec
from mlops_assets_tests.effort import examples

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


@settings(max_examples=examples(200), deadline=None)
@given(frame=features(), window=st.integers(1, 90), late=st.booleans())
def test_no_label_leaks_across_a_cut(frame: pd.DataFrame, window: int, late: bool) -> None:
    spec = SplitSpec(
        train_from=dt.date(2023, 2, 1) if late else None,
        holdout_from=dt.date(2023, 9, 1),
        validation_days=window,
    )
    parts = split(frame, spec)
    cut, hold = pd.Timestamp("2023-09-01") - window * DAY, pd.Timestamp("2023-09-01")
    assert parts.holdout_from == hold
    assert (parts.train["label_time"] <= cut).all()
    assert (parts.train["event_time"] < cut).all()
    assert parts.validation["event_time"].between(cut, hold - DAY).all()
    assert (parts.validation["label_time"] <= hold).all()
    assert (parts.final["label_time"] <= hold).all()
    assert (parts.holdout["event_time"] >= hold).all()
    if spec.train_from:
        assert (parts.final["event_time"] >= pd.Timestamp(spec.train_from)).all()


@settings(max_examples=examples(100), deadline=None)
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


@settings(max_examples=examples(200), deadline=None)
@given(frame=features(), days=st.integers(1, 200), window=st.integers(1, 90), trained=st.booleans())
def test_a_rolling_holdout_is_the_newest_days_of_known_labels(
    frame: pd.DataFrame, days: int, window: int, trained: bool
) -> None:
    train_days = window + 60 if trained else None
    spec = SplitSpec(holdout_days=days, validation_days=window, train_days=train_days)
    parts = split(frame, spec)
    labelled = [row for row in frame.to_dict("records") if row["label"] == row["label"]]
    if not labelled:
        assert parts.holdout_from is None
        assert len(parts.open) == len(frame)
        assert not any(len(rows) for rows in (parts.final, parts.holdout, parts.known))
        return
    start = max(row["label_time"] for row in labelled) - days * DAY
    assert parts.holdout_from == start
    wanted = {
        "holdout": [row for row in labelled if row["event_time"] >= start],
        "final": [
            row
            for row in labelled
            if row["event_time"] < start
            and row["label_time"] <= start
            and (train_days is None or row["event_time"] >= start - train_days * DAY)
        ],
        "known": [
            row
            for row in labelled
            if train_days is None or row["event_time"] >= start - train_days * DAY
        ],
    }
    for name, rows in wanted.items():
        assert getattr(parts, name)["entity"].tolist() == [row["entity"] for row in rows], name


@settings(max_examples=examples(100), deadline=None)
@given(frame=features(), days=st.integers(1, 200))
def test_the_holdout_of_then_can_be_cut_again_when_newer_labels_have_moved_it(
    frame: pd.DataFrame, days: int
) -> None:
    rolling = SplitSpec(holdout_days=days, validation_days=30, train_days=120)
    then = split(frame, rolling)
    if then.holdout_from is None:
        return
    again = split(frame, rolling.fixed(then.holdout_from.date()))
    for name in ("train", "validation", "final", "holdout", "open", "known"):
        pd.testing.assert_frame_equal(getattr(then, name), getattr(again, name))
    newer = frame.tail(1).assign(label=1.0, label_time=frame["label_time"].max() + 9 * DAY)
    moved = split(pd.concat([frame, newer], ignore_index=True), rolling)
    assert moved.holdout_from is not None
    assert moved.holdout_from > then.holdout_from


def test_a_holdout_begins_where_it_begins_elsewhere_if_that_is_later() -> None:
    frame, spec = days_of(100, 1).assign(label=1.0), SplitSpec(holdout_days=20, validation_days=10)
    own = split(frame, spec)
    assert own.holdout_from == pd.Timestamp("2024-03-21")  # the newest label: 2024-04-10
    later = split(frame, spec, newest=pd.Timestamp("2024-04-15 06:00"))
    assert later.holdout_from == pd.Timestamp("2024-03-26")
    assert len(own.holdout) - len(later.holdout) == 5
    earlier = split(frame, spec, newest=pd.Timestamp("2024-01-15"))
    assert earlier.holdout_from == own.holdout_from
    fixed = spec.fixed(dt.date(2024, 3, 1))
    assert split(frame, fixed, newest=pd.Timestamp("2030-01-01")).holdout_from == pd.Timestamp(
        "2024-03-01"
    )


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
