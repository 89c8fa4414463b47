from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.split import split
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
