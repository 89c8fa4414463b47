"""Jumps of a series: found in any unit, by the past alone, and seldom where there is none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.stats.jumps import JumpLimits, SeriesJump, find_jumps

LIMITS = JumpLimits(factor=5.0, margin=3.0, lasts=np.timedelta64(28, "D"))
World = Callable[[np.random.Generator, int], np.ndarray]
WEEKDAYS = np.array([1.2, 1.2, 1.2, 1.2, 1.1, 0.6, 0.5])


def times(steps: int) -> np.ndarray:
    return np.datetime64("2022-01-01", "ns") + np.arange(steps) * np.timedelta64(1, "D")


def prices(rng: np.random.Generator, days: int) -> np.ndarray:
    season = 1 + 0.5 * np.sin(np.arange(days) * 2 * np.pi / 365)
    return 80 * season * np.exp(rng.normal(0, 0.2, days))


def around_zero(rng: np.random.Generator, days: int) -> np.ndarray:
    return rng.normal(0, 3, days)


def heavy_tails(rng: np.random.Generator, days: int) -> np.ndarray:
    return rng.standard_t(3, days)


def temperatures(rng: np.random.Generator, days: int) -> np.ndarray:
    return 10 + 12 * np.sin(np.arange(days) * 2 * np.pi / 365) + rng.normal(0, 3, days)


def counts(rng: np.random.Generator, days: int) -> np.ndarray:
    return rng.poisson(300 * np.resize(WEEKDAYS, days)).astype("float64")


def few(rng: np.random.Generator, days: int) -> np.ndarray:
    return (rng.random(days) < 0.1) * rng.poisson(4, days).astype("float64")


def cumulative(rng: np.random.Generator, days: int) -> np.ndarray:
    return np.cumsum(counts(rng, days))


def price_list(rng: np.random.Generator, days: int) -> np.ndarray:
    return 100 + np.cumsum((rng.random(days) < 0.05) * rng.normal(0, 1, days))


def waves(rng: np.random.Generator, days: int) -> np.ndarray:
    """An epidemic: waves of a hundredfold, at most a doubling in four days, quiet weekends."""
    height = 3 + 2.3 * np.sin(np.arange(days) * 2 * np.pi / 180 + rng.uniform(0, 6))
    return rng.poisson(np.exp(height) * np.resize(WEEKDAYS, days)).astype("float64")


def regimes(rng: np.random.Generator, days: int) -> np.ndarray:
    """Prices whose level doubles or halves for good every hundred days."""
    level = np.exp(np.cumsum(rng.choice([-0.7, 0.7], days // 100 + 1)))
    return np.repeat(level, 100)[:days] * prices(rng, days)


WORLDS = (
    prices,
    around_zero,
    heavy_tails,
    temperatures,
    counts,
    few,
    cumulative,
    price_list,
    waves,
    regimes,
)


def jumps(values: np.ndarray, limits: JumpLimits = LIMITS) -> list[SeriesJump]:
    return find_jumps(times(len(values)), values, limits)


def held(values: np.ndarray, limits: JumpLimits = LIMITS) -> set[int]:
    return {place for jump in jumps(values, limits) for place in jump.held}


def changed(values: np.ndarray, fault: Callable[[np.ndarray], np.ndarray], begin: int) -> set[int]:
    return held(np.concatenate([values[:begin], fault(values[begin:])]))


@pytest.mark.parametrize("world", WORLDS, ids=lambda each: each.__name__)
def test_data_that_only_do_as_they_always_did_are_hardly_ever_held_out(world: World) -> None:
    found = [held(world(np.random.default_rng(seed), 730)) for seed in range(15)]
    # Two years each: at most one country in four years, and one step in a thousand.
    assert sum(bool(each) for each in found) <= 7
    assert sum(map(len, found)) <= 15 * 730 // 1000 + 1


@pytest.mark.parametrize(
    ("world", "factor"),
    [
        (prices, 1000),
        (prices, 100),
        (prices, 0.001),
        (around_zero, 1000),
        (heavy_tails, 1000),
        (counts, 100),
        (counts, 10),
        (counts, 0.001),
        (cumulative, 1000),
        (cumulative, 0.001),
        (waves, 1000),
        (price_list, 10),
    ],
)
def test_a_week_in_another_unit_is_held_out_whatever_the_data_look_like(
    world: World, factor: float
) -> None:
    for seed in range(5):
        values = world(np.random.default_rng(seed), 400)
        found = changed(values, lambda new: new * factor, 393)
        assert len(found & set(range(393, 400))) >= 4, seed
        assert jumps(np.append(values[:393], values[393:] * factor))[-1].is_open


@pytest.mark.parametrize(
    ("world", "fault"),
    [
        (prices, lambda new: -new),
        (counts, lambda new: -new),
        (cumulative, lambda new: -new),
        (prices, lambda new: np.full_like(new, 80.0)),
        (around_zero, np.zeros_like),
        (counts, np.zeros_like),
        (cumulative, lambda new: np.diff(new, prepend=new[0] - 300)),
        (counts, lambda new: 60_000 + np.cumsum(new)),
    ],
    ids=["sign", "counts below 0", "falling", "constant", "zeros", "none", "daily", "cumulative"],
)
def test_another_sign_no_change_and_sums_for_numbers_are_held_out(
    world: World, fault: Callable[[np.ndarray], np.ndarray]
) -> None:
    for seed in range(5):
        found = changed(world(np.random.default_rng(seed), 400), fault, 386)
        assert len(found & set(range(386, 400))) >= 6, seed


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    world=st.sampled_from(WORLDS),
    factor=st.sampled_from([0.001, 1.0, 10.0, 1000.0, -1.0]),
    begin=st.integers(50, 190),
    length=st.integers(1, 60),
    end=st.integers(60, 200),
)
def test_what_is_held_out_of_a_time_does_not_change_with_what_comes_later(
    seed: int, world: World, factor: float, begin: int, length: int, end: int
) -> None:
    values = world(np.random.default_rng(seed), 200)
    values[begin : begin + length] *= factor
    then = {place for place in held(values) if place < end}
    assert held(values[:end]) == then


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    world=st.sampled_from([prices, around_zero, heavy_tails, temperatures, price_list]),
    unit=st.sampled_from([2.0**-20, 2.0**20, -(2.0**7)]),
)
def test_the_unit_of_a_column_changes_nothing(seed: int, world: World, unit: float) -> None:
    values = world(np.random.default_rng(seed), 300)
    values[250:260] *= 1000
    assert held(values * unit) == held(values)


def test_a_jump_that_lasts_is_true_after_its_time_and_the_next_one_is_seen_again() -> None:
    values = prices(np.random.default_rng(1), 500)
    values[300:] *= 100
    first, *more = jumps(values)
    assert (first.kind, first.held, first.is_open) == ("higher", tuple(range(300, 328)), False)
    assert not more
    values[450:457] *= 1000
    assert held(values) == {*range(300, 328), *range(450, 457)}


@pytest.mark.parametrize("freeze", [40, 365, 3000])
def test_a_series_that_stops_moving_for_good_is_one_jump_that_is_taken_for_true(
    freeze: int,
) -> None:
    moving = prices(np.random.default_rng(3), 300)
    (only,) = jumps(np.concatenate([moving, np.full(freeze, 77.0)]))
    assert only.kind == "constant"
    assert len(only.held) <= 29
    again = np.concatenate([moving, np.full(freeze, 77.0), moving[:60] * 1000])
    assert [each.kind for each in jumps(again)] == ["constant", "higher"]


def test_a_jump_a_person_has_accepted_is_held_out_at_no_time_and_later_ones_are() -> None:
    values = prices(np.random.default_rng(2), 400)
    values[300:] *= 100
    values[390:] *= 1000
    day = times(400)[300]
    assert held(values, JumpLimits(5.0, 3.0, LIMITS.lasts, day)) == set(range(390, 400))
    before = JumpLimits(5.0, 3.0, LIMITS.lasts, day - np.timedelta64(1, "D"))
    assert 300 in held(values, before)


@pytest.mark.parametrize("length", range(26))
def test_a_short_past_judges_nobody(length: int) -> None:
    values = np.geomspace(1, 10.0**length, length) if length else np.empty(0)
    assert held(values) == set()
