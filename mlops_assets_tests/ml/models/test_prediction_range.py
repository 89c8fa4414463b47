"""Which predictions are valid ones, and what becomes of the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.ml.models.prediction_range import (
    Admitted,
    awaited_rows,
    beyond_range,
    held_to_range,
    judge_range,
)
from mlops_assets.spec import PredictionsSpec

LOW, HIGH = -2.0, 10.0
NAN, INF = math.nan, math.inf
NEAR = st.sampled_from(
    [LOW, HIGH, math.nextafter(LOW, -INF), math.nextafter(HIGH, INF), NAN, INF, -INF, -2.016, 0.0]
)
VALUES = st.lists(NEAR | st.floats(-20, 20), max_size=40)
DECLARED = st.sampled_from(["refuse", "clip", "leave_out", "baseline"])
SHARES = st.sampled_from([0.0, 0.01, 0.05, 0.07, 0.29, 0.5, 1.0]) | st.floats(0, 1)


def limits(**changes: Any) -> PredictionsSpec:
    return PredictionsSpec(**{"minimum": LOW, "maximum": HIGH, **changes})


def rows(count: int, known: int = 0) -> pd.DataFrame:
    """A row a day, the first `known` of which have their label."""
    event = pd.date_range("2024-01-01", periods=count)
    return pd.DataFrame(
        {
            "entity": [f"e{place}" for place in range(count)],
            "event_time": event,
            "label_time": event + pd.Timedelta(days=1),
            "label": [1.0] * known + [NAN] * (count - known),
        }
    )


def given_out(
    values: Sequence[float], spec: PredictionsSpec, naive: float = 1.0, known: int = 0
) -> Admitted:
    frame = rows(len(values), known)
    return held_to_range(
        np.array(values, dtype="float64"),
        frame,
        awaited_rows(frame),
        spec,
        baseline=lambda: np.full(len(values), naive),
    )


def is_valid(value: float) -> bool:
    """By plain comparisons."""
    return not math.isnan(value) and LOW <= value <= HIGH


@given(VALUES, DECLARED, SHARES)
def test_what_is_given_out_is_valid_and_what_was_valid_is_as_it_was(
    values: list[float], beyond: Any, share: float
) -> None:
    found = given_out(values, limits(beyond=beyond, beyond_share=share))
    for value, out, how in zip(values, found.values, found.answers, strict=True):
        if is_valid(value):
            assert (out, how) == (value, "")
        else:
            assert how != ""
            assert math.isnan(out) if how == "left_out" else is_valid(out)
    assert list(found.left_out) == [math.isnan(each) for each in found.values]


@given(VALUES, DECLARED, SHARES)
def test_predictions_are_refused_beyond_the_share_and_never_up_to_it(
    values: list[float], beyond: Any, share: float
) -> None:
    found = given_out(values, limits(beyond=beyond, beyond_share=share))
    bad = sum(not is_valid(each) for each in values)
    most = max(1, math.floor(Fraction(share) * len(values) + Fraction(1, 10**9))) if share else 0
    if beyond == "refuse":
        most = 0
    nothing_left = all(how == "left_out" for how in found.answers)
    assert bool(found.refusal) == (bad > most or nothing_left)
    assert (found.verdict.beyond, found.verdict.rows) == (bad, len(values))


@given(VALUES, VALUES, DECLARED, SHARES)
def test_old_rows_never_decide_about_the_newest_ones(
    old: list[float], new: list[float], beyond: Any, share: float
) -> None:
    spec = limits(beyond=beyond, beyond_share=share)
    new = [*new, 1.0]
    alone, together = given_out(new, spec), given_out([*old, *new], spec, known=len(old))
    assert bool(together.refusal) == bool(alone.refusal)
    assert together.verdict.beyond == alone.verdict.beyond
    np.testing.assert_array_equal(together.values[len(old) :], alone.values)


@pytest.mark.parametrize("beyond", ["refuse", "clip", "leave_out", "baseline"])
def test_three_old_rows_beyond_the_range_are_told_and_nothing_is_refused(beyond: Any) -> None:
    found = given_out([-9.0, 99.0, NAN, *[1.0] * 5], limits(beyond=beyond), known=3)
    assert found.refusal == ""
    assert found.told.startswith("3 of 8 predictions are beyond -2 to 10 (1 of them no number), ")
    assert "the worst 99 by 89, for e1 at 2024-01-02 00:00:00" in found.told


@pytest.mark.parametrize(
    ("declared", "out", "how"),
    [
        ("clip", [LOW, HIGH, NAN, NAN, NAN, 4.0], ["clipped"] * 2 + ["left_out"] * 3 + [""]),
        ("leave_out", [NAN] * 5 + [4.0], ["left_out"] * 5 + [""]),
        ("baseline", [1.0] * 5 + [4.0], ["baseline"] * 5 + [""]),
    ],
)
def test_rows_beyond_are_answered_as_declared(
    declared: Any, out: list[float], how: list[str]
) -> None:
    spec = limits(beyond=declared, beyond_share=1.0)
    found = given_out([-2.016, 12.0, NAN, INF, -INF, 4.0], spec)
    assert found.refusal == ""
    np.testing.assert_array_equal(found.values, out)
    assert list(found.answers) == how


@pytest.mark.parametrize("naive", [NAN, INF, 11.0])
def test_a_row_for_which_the_baseline_says_nothing_valid_is_left_out(naive: float) -> None:
    found = given_out([12.0, 4.0], limits(beyond="baseline"), naive)
    assert list(found.answers) == ["left_out", ""]
    assert found.refusal == ""


def test_a_refusal_says_how_many_the_worst_the_limit_and_the_way_out() -> None:
    values = [1.0] * 88 + [-2.016, -2.001, -2.002, -2.003]
    assert given_out(values, limits(beyond="clip")).refusal == ""
    refused = given_out(values, limits(beyond="clip", beyond_share=0.03)).refusal
    assert refused.startswith(
        "4 of 92 predictions are beyond -2 to 10, the worst -2.016 by 0.016, for e88 at "
        "2024-03-29 00:00:00; `predictions.beyond_share` 0.03 takes 2. Way out: "
    )
    assert "takes none" in given_out(values, limits()).refusal


@pytest.mark.parametrize("beyond", ["clip", "baseline"])
def test_the_only_row_of_a_country_can_be_answered_as_declared(beyond: Any) -> None:
    assert given_out([99.0], limits(beyond=beyond)).refusal == ""
    assert given_out([99.0], limits(beyond=beyond, beyond_share=0.0)).refusal
    assert given_out([99.0], limits(beyond="leave_out")).refusal  # nothing would be left
    assert given_out([NAN], limits(beyond="clip")).refusal


def test_the_baseline_is_asked_only_where_it_is_needed() -> None:
    def never() -> np.ndarray:
        raise AssertionError("it was asked")

    frame = rows(3)
    for beyond, value in (("baseline", 1.0), ("clip", 99.0), ("refuse", 99.0)):
        spec = limits(beyond=beyond)
        held_to_range(np.array([1.0, 1.0, value]), frame, np.ones(3, bool), spec, baseline=never)


def test_rows_are_awaited_whose_label_is_neither_known_nor_due() -> None:
    frame = rows(6, known=4)
    frame.loc[1, "label"] = NAN  # due since long: it may never come
    assert list(awaited_rows(frame)) == [False] * 4 + [True] * 2
    assert list(awaited_rows(rows(3))) == [True] * 3
    frame["label"] = 1.0
    assert list(awaited_rows(frame)) == [False] * 5 + [True]
    assert len(awaited_rows(frame.iloc[:0])) == 0


def test_nothing_to_predict_is_no_prediction() -> None:
    found = given_out([], limits())
    assert found.verdict.rows == 0
    assert "no row that waits" in found.refusal
    assert not judge_range(np.empty(0), rows(0), limits()).is_refused


@given(VALUES)
def test_both_limits_are_inside(values: list[float]) -> None:
    assert list(beyond_range(np.array(values), limits())) == [not is_valid(v) for v in values]
    assert not beyond_range(np.array([LOW, HIGH]), limits()).any()
