"""Each delivery is judged by its own rows, small ones by what can be chance."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.datasets.deliveries import SURE, JudgedDelivery, Judging, chance_of
from mlops_assets.ml.datasets.validation import DELIVERED, Validation, validate
from mlops_assets_tests.effort import examples
from mlops_assets_tests.ml.scenarios import NAMES, SOURCE, Prices, raw

LIMIT = Judging(0.05, min_rows=20)


def delivered(position: int, days: int, bad: int = 0, first: int = 0) -> pd.DataFrame:
    """A delivery of so many days from a day on, the first ones with a price that cannot be."""
    frame = raw(first + days).iloc[first:]
    price = frame["Price"].to_numpy().copy()
    price[:bad] = 99999.0
    return frame.assign(Price=price, **{DELIVERED: position})


def judged(*frames: pd.DataFrame, **changes: Any) -> Validation:
    rows = pd.concat(frames, ignore_index=True)
    judging = Judging(**{"limit": 0.05, "min_rows": 20, **changes})
    result = validate(rows, Prices, SOURCE, NAMES, new_since=judging.new_since, judging=judging)
    parts = len(result.accepted) + len(result.quarantine) + result.duplicates + result.set_aside
    assert parts == result.rows
    return result


def verdicts(result: Validation) -> dict[int, str]:
    return {each.position: each.verdict for each in result.deliveries}


@given(st.integers(1, 40), st.integers(0, 40), st.sampled_from([0.0, 0.01, 0.05, 0.3, 1.0]))
def test_the_chance_is_that_of_counting_out_every_way_it_can_happen(
    rows: int, rejected: int, share: float
) -> None:
    rejected = min(rejected, rows)
    ways = (comb(rows, k) * share**k * (1 - share) ** (rows - k) for k in range(rejected, rows + 1))
    assert chance_of(rejected, rows, share) == pytest.approx(sum(ways), abs=1e-12)


def test_a_small_delivery_at_its_limit_is_refused_by_chance_hardly_ever() -> None:
    rng = np.random.default_rng(5)
    for rows in (1, 2, 7, 19):
        counts = rng.binomial(rows, LIMIT.limit, 20_000)
        assert np.mean([LIMIT.is_over(rows, int(count)) for count in counts]) < 1.2 * SURE


@pytest.mark.parametrize(
    ("rows", "rejected", "over"),
    [
        (7, 7, True),  # a week of a country under the wrong column name
        (7, 3, True),
        (7, 2, False),
        (2, 2, True),
        (1, 1, False),  # one row in twenty may be bad, so that one alone tells nothing
        (19, 5, True),
        (19, 4, False),
        (20, 2, True),
        (20, 1, False),
    ],
)
def test_a_small_delivery_is_refused_when_it_is_over_the_limit_for_certain(
    rows: int, rejected: int, over: bool
) -> None:
    assert LIMIT.is_over(rows, rejected) is over


def test_where_no_row_may_be_bad_one_is_enough() -> None:
    assert Judging(0.0, min_rows=20).is_over(7, 1)


def test_a_small_delivery_that_is_wholly_bad_is_refused_beside_a_long_history() -> None:
    result = judged(delivered(0, 2000), delivered(1, 7, bad=7, first=2000), new_since=1)
    assert result.deliveries == (JudgedDelivery(1, 7, 7, "refused", is_new=True),)
    assert len(result.accepted) == 2000


def test_good_files_are_used_and_a_bad_one_beside_them_is_set_aside_whole() -> None:
    good, bad = delivered(1, 7, first=100), delivered(2, 7, bad=4, first=107)
    result = judged(delivered(0, 100), good, bad, new_since=1)
    assert verdicts(result) == {1: "taken", 2: "refused"}
    assert len(result.accepted) == 107
    assert (result.rejected, result.set_aside) == (4, 3)
    assert result.used_rejected_share == 0


def test_a_row_alone_that_is_bad_is_told_and_refuses_nothing() -> None:
    result = judged(delivered(0, 100), delivered(1, 1, bad=1, first=100), new_since=1)
    assert verdicts(result) == {1: "all_rejected"}
    assert result.used_rejected_share < 0.05


def test_what_was_refused_before_is_judged_until_it_is_corrected() -> None:
    history, refused = delivered(0, 100), delivered(1, 7, bad=4, first=100)
    later = delivered(2, 7, first=107)
    result = judged(history, refused, later, new_since=2, again=frozenset({1}))
    assert verdicts(result) == {1: "refused", 2: "taken"}
    assert len(result.accepted) == 107
    corrected = delivered(3, 4, first=100)
    result = judged(history, refused, later, corrected, new_since=3, again=frozenset({1}))
    assert verdicts(result) == {1: "taken", 3: "taken"}
    assert len(result.accepted) == 114
    assert result.corrected == 4


def test_a_good_row_of_a_refused_delivery_corrects_no_other() -> None:
    first = delivered(0, 7, bad=4)
    both = pd.concat([delivered(1, 4), delivered(1, 7, bad=7, first=200)])
    result = judged(first, both)
    assert verdicts(result) == {0: "refused", 1: "refused"}
    assert result.accepted.empty


def test_an_older_delivery_is_used_where_the_newer_one_of_its_days_is_refused() -> None:
    newer = delivered(1, 30, bad=15).assign(Price=lambda rows: rows["Price"] + 1000)
    result = judged(delivered(0, 30), newer, new_since=1)
    assert result.accepted["price"].tolist() == raw(30)["Price"].tolist()


DELIVERY = st.tuples(st.integers(1, 25), st.integers(0, 25), st.integers(0, 40))


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(DELIVERY, min_size=1, max_size=5), st.integers(0, 4))
def test_the_verdicts_are_those_of_judging_from_the_newest_delivery_backwards(
    shapes: list[tuple[int, int, int]], new_since: int
) -> None:
    """In plain Python: a bad day is corrected by a later delivery that is used."""
    frames = [
        delivered(place, days, bad=min(bad, days), first=first)
        for place, (days, bad, first) in enumerate(shapes)
    ]
    result = judged(*frames, new_since=new_since)
    expected: dict[int, str] = {}
    good_days: set[int] = set()
    for place, (days, bad, first) in reversed(list(enumerate(shapes))):
        bad_days = set(range(first, first + min(bad, days)))
        rejected = len(bad_days - good_days)
        over = Judging(0.05, 20).is_over(days, rejected) and place >= new_since
        if place >= new_since:
            expected[place] = "refused" if over else "all_rejected" if rejected == days else "taken"
        if not over:
            good_days |= set(range(first, first + days)) - bad_days
    assert verdicts(result) == expected
    assert len(result.accepted) == len(good_days)
