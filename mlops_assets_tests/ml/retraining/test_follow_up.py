"""Trainings follow the one for a change, and alarms wait the longer, the less trainings bring."""

from __future__ import annotations

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.ml.retraining.follow_up import (
    FOLLOW_UPS,
    LONGEST,
    LONGEST_FRUITLESS,
    PastTraining,
    alarm_rest,
    follow_up_due,
    newest_change,
)

WEEK, DAY = dt.timedelta(days=7), dt.timedelta(days=1)
BEGUN = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def at(days: float, cause: str = "error", promoted: bool = True) -> PastTraining:
    return PastTraining(BEGUN + days * DAY, cause, promoted)


def due_after(*past: PastTraining) -> dt.datetime | None:
    return follow_up_due(newest_change(past, WEEK), WEEK)


def played() -> list[PastTraining]:
    """A training for an error, and each that follows by itself when it is due."""
    past = [at(0)]
    while (due := due_after(*past)) is not None:
        past.append(PastTraining(due, "follow_up", promoted=True))
    return past


def test_trainings_follow_a_change_at_doubling_distances_and_end() -> None:
    assert [(each.moment - BEGUN).days for each in played()] == [0, 14, 42, 98, 210]
    assert len(played()) == 1 + FOLLOW_UPS


def test_age_a_schedule_and_a_first_training_are_no_change() -> None:
    for cause in ("age", "schedule", "no_model", "new_labels", ""):
        assert due_after(at(0, cause)) is None


def test_two_candidates_in_a_row_that_bring_nothing_end_what_follows() -> None:
    assert due_after(at(0, promoted=False)) is not None
    assert due_after(at(0, promoted=False), at(14, "follow_up", promoted=False)) is None
    assert due_after(at(0), at(14, "follow_up", promoted=False)) is not None


def test_an_alarm_long_after_the_last_training_is_another_change() -> None:
    first = newest_change([at(0), at(20)], WEEK)
    second = newest_change([at(0), at(60)], WEEK)
    assert first is not None
    assert (first.begun, first.trainings) == (BEGUN, 2)
    assert second is not None
    assert (second.begun, second.trainings) == (BEGUN + 60 * DAY, 1)


def test_an_alarm_waits_the_longer_the_more_trainings_went_before_or_brought_nothing() -> None:
    assert alarm_rest([], 0, WEEK) == WEEK
    assert alarm_rest([at(0)], 0, WEEK) == 2 * WEEK
    assert alarm_rest([at(0), at(14)], 0, WEEK) == 4 * WEEK
    assert alarm_rest([at(0), at(14), at(42)], 0, WEEK) == 2**LONGEST * WEEK
    refused = [at(28 * n, promoted=False) for n in range(9)]
    assert alarm_rest(refused, 6, WEEK) == 2**LONGEST_FRUITLESS * WEEK
    assert alarm_rest([at(n * 365, "age", promoted=False) for n in range(2)], 0, WEEK) == 4 * WEEK


TRAININGS = st.lists(
    st.tuples(
        st.integers(0, 400), st.sampled_from(["error", "drift", "age", "follow_up"]), st.booleans()
    ),
    max_size=12,
)


@given(TRAININGS)
def test_whatever_went_before_what_follows_is_later_and_rests_are_bounded(
    drawn: list[tuple[int, str, bool]],
) -> None:
    past = [at(*each) for each in sorted(drawn)]
    change = newest_change(past, WEEK)
    due = follow_up_due(change, WEEK)
    assert due is None or due >= past[-1].moment + 2 * WEEK
    assert change is None or change.begun <= change.last == past[-1].moment
    assert WEEK <= alarm_rest(past, 0, WEEK) <= 2**LONGEST_FRUITLESS * WEEK
