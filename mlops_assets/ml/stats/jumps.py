"""Where a series stops being like its own past: another unit, another sign, no change at all.

Every step is judged by the steps before it alone, so that what was found at a time stays found
however the series goes on. Everything is a ratio to what went before, and how large a ratio may be
is told by those of the series itself; nothing has a unit.

Two sizes are looked at, a single step and the median of the newest four: one step shows the largest
jumps at once, four show smaller ones in data that swing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

JumpKind = Literal["higher", "lower", "sign", "constant"]

BLOCK = 4
"""Steps in the longer of the two sizes; so many plausible ones in a row end a jump."""
_TRAILING = 14
"""Steps that a new one is compared with: two weeks of daily data, so that weekdays are in them."""
_LEAST_TRAILING = 5
LEAST_PAST = 20
"""Comparisons in the past before the next one is judged."""
_SWING = 1.5
"""Power of the largest ratio of the past: data that swing once more than others swing further."""
_DIP = 2.0
"""The same downwards, where values near zero give ratios of any size."""
_NEXT_TO_NOTHING = 0.01
"""Of the typical value: what is smaller is as good as this."""
_LEAST_COUNT = 10.0
"""Whole numbers up to this are few of something: 2 after 0 is no jump."""
_TINY = 1e-300
_LEAST_LASTING = 3
"""Implausible steps before a lasting jump is taken for true."""
_OPPOSITE = 0.5
"""Of the typical size: a value of the other sign that is smaller may be one near zero."""
_AWAY = 0.25
"""Of the typical size: where values came nearer to zero, crossing it is nothing new."""


@dataclass(frozen=True)
class JumpLimits:
    """What counts as a jump, and for how long.

    Attributes:
        factor: smallest ratio to what went before, above 1.
        margin: by what factor the largest ratio of the past must be exceeded, above 1.
        lasts: how long a jump goes on before it is taken for true.
        accepted: jumps that begin up to then are true; NaT: none by declaration.
    """

    factor: float
    margin: float
    lasts: np.timedelta64
    accepted: np.datetime64 = np.datetime64("NaT")


@dataclass(frozen=True)
class SeriesJump:
    """Steps of a series that do not follow from those before them.

    Attributes:
        kind: higher or lower than anything before lets expect, of the other sign, or constant.
        held: places of the implausible steps, ascending; those from which on a lasting jump was
            taken for true are none of them.
        value: at the first of them.
        usual: what it is compared with: the typical size before (constant: steps without change).
        limit: that was passed (constant: steps without change).
        is_open: whether the newest step of the series is one of them.
    """

    kind: JumpKind
    held: tuple[int, ...]
    value: float
    usual: float
    limit: float
    is_open: bool


@dataclass(frozen=True)
class _Bounds:
    """Limits at each step, from the steps before it; NaN where there are too few.

    Attributes:
        high, low: of the size of a step.
        block_high, block_low: of the median size of a block.
        side_high, side_low: sizes from which a step is on the side of an implausible block.
        sign: the sign of nearly all values before, 0 without one.
        opposite: size from which one of the other sign is implausible.
        run: steps without change from which on they are too many.
        usual: typical size.
    """

    high: np.ndarray
    low: np.ndarray
    block_high: np.ndarray
    block_low: np.ndarray
    side_high: np.ndarray
    side_low: np.ndarray
    sign: np.ndarray
    opposite: np.ndarray
    run: np.ndarray
    usual: np.ndarray

    def at(self, place: int) -> _Bounds:
        """Those of one step, for all steps that come."""
        return _Bounds(*(getattr(self, name)[place] for name in self.__dataclass_fields__))


def find_jumps(times: np.ndarray, values: np.ndarray, limits: JumpLimits) -> list[SeriesJump]:
    """The jumps of a series, the oldest first.

    Args:
        times: of the steps, datetime64, ascending, shape (steps,).
        values: numbers without gaps, shape (steps,).
        limits: what counts as a jump.
    """
    found: list[SeriesJump] = []
    past, counts = np.ones(len(values), bool), np.ones(len(values), bool)
    begin = 0
    while (places := np.flatnonzero(past)).size > LEAST_PAST:
        bounds = _bounds(values[places], counts[places], limits)
        bad = _flags(bounds, values[places], _run_lengths(values)[places]) & counts[places]
        bad &= places >= begin
        if not bad.any():
            break
        at = int(np.argmax(bad))
        jump = _followed(times, values, int(places[at]), bounds.at(at), limits=limits)
        begin = _taken_in(jump, values, past, counts)
        if jump.steps.size:
            found.append(jump.told(values))
    return found


@dataclass(frozen=True)
class _Followed:
    """A jump from its first step to its end.

    Attributes:
        first: its first step.
        steps: that are held out.
        true_from: step from which it is taken for true; None while it is not.
        end: step after its last.
        bounds: it passed.
        open: whether the newest step is one of them.
    """

    first: int
    steps: np.ndarray
    true_from: int | None
    end: int
    bounds: _Bounds
    open: bool

    def told(self, values: np.ndarray) -> SeriesJump:
        """As others see it."""
        b, value = self.bounds, float(values[self.first])
        size, held = abs(value), tuple(self.steps.tolist())
        before = values[max(0, self.first - BLOCK + 1) : self.first + 1]
        block = float(np.median(np.abs(before)))
        usual = float(b.usual)
        if b.sign * value < 0 and size >= b.opposite:
            return SeriesJump("sign", held, value, usual * float(b.sign), 0.0, self.open)
        if size > b.high or block > b.block_high:
            limit = float(b.high if size > b.high else b.block_high)
            return SeriesJump("higher", held, value, usual, limit, self.open)
        if size < b.low or block < b.block_low:
            limit = float(b.low if size < b.low else b.block_low)
            return SeriesJump("lower", held, value, usual, limit, self.open)
        return SeriesJump("constant", held, value, usual, float(b.run), self.open)


def _followed(
    times: np.ndarray, values: np.ndarray, first: int, bounds: _Bounds, *, limits: JumpLimits
) -> _Followed:
    """The jump that begins at a step, by the limits of that step."""
    runs, blocks = _run_lengths(values)[first:], _block_sizes(values)[first:]
    bad = _flags(bounds, values[first:], runs, blocks)
    bad[0] = True
    end = _end(bad)
    steps = first + np.flatnonzero(bad[:end])
    is_open = bool(bad[-1]) and first + end == len(values)
    if not np.isnat(limits.accepted) and times[first] <= limits.accepted:
        return _Followed(first, steps[:0], first, first + end, bounds, False)
    long = np.flatnonzero(times[steps] - times[first] >= limits.lasts)
    lasting = max(int(long[0]), _LEAST_LASTING) if long.size else len(steps)
    if lasting >= len(steps):
        return _Followed(first, steps, None, first + end, bounds, is_open)
    return _Followed(first, steps[:lasting], int(steps[lasting]), first + end, bounds, False)


def _end(bad: np.ndarray) -> int:
    """Steps up to the last implausible one before `BLOCK` plausible ones in a row."""
    places = np.flatnonzero(bad)
    gaps = np.flatnonzero(np.diff(places) > BLOCK)
    return int(places[gaps[0]] if gaps.size else places[-1]) + 1


def _taken_in(jump: _Followed, values: np.ndarray, past: np.ndarray, counts: np.ndarray) -> int:
    """Note what the steps of a jump are to those after it; gives the first that is judged next.

    What is taken for true is past from then on, and says nothing of how far things swing. One that
    moves no more, and may, is not judged again before it does.
    """
    if jump.true_from is None:
        past[jump.steps] = False
        return jump.end
    known = jump.true_from + 2 * BLOCK  # from then on a whole block of it is past
    moves = np.flatnonzero(values[jump.true_from :] != values[jump.true_from])
    still = jump.true_from + int(moves[0]) if moves.size else len(values)
    if still - jump.true_from > 1:
        known = max(known, still)
    counts[jump.first : known] = False
    return known


def _flags(
    bounds: _Bounds, values: np.ndarray, runs: np.ndarray, blocks: np.ndarray | None = None
) -> np.ndarray:
    """Which steps are implausible."""
    size = np.abs(values)
    blocks = _block_sizes(values) if blocks is None else blocks
    single = (size > bounds.high) | (size < bounds.low)
    block = (blocks > bounds.block_high) & (size > bounds.side_high)
    block |= (blocks < bounds.block_low) & (size < bounds.side_low)
    flipped = (bounds.sign * values < 0) & (size >= bounds.opposite)
    return single | block | flipped | (runs >= bounds.run)


def _bounds(values: np.ndarray, counts: np.ndarray, limits: JumpLimits) -> _Bounds:
    """Limits at each step of a series of plausible ones."""
    size, blocks = pd.Series(np.abs(values)), pd.Series(_block_sizes(values))
    typical = size.where(size > 0).expanding().median().shift(1).ffill().fillna(0.0).to_numpy()
    whole = np.logical_and.accumulate(values == np.round(values))
    few = np.where(np.concatenate([whole[:1], whole[:-1]]), _LEAST_COUNT, 0.0)
    floors = (np.maximum(typical, few), np.maximum(typical * _NEXT_TO_NOTHING, few))
    high, low, _, _ = _size_bounds(size, 1, floors, counts, limits=limits)
    block_high, block_low, top, bottom = _size_bounds(blocks, BLOCK, floors, counts, limits=limits)
    usual = size.shift(1).rolling(_TRAILING, min_periods=_LEAST_TRAILING).median().fillna(0.0)
    sign, opposite = _sign_bounds(values, usual.to_numpy(), limits)
    return _Bounds(
        high=high,
        low=low,
        block_high=block_high,
        block_low=block_low,
        side_high=np.sqrt(block_high * np.maximum(top, _TINY)),
        side_low=np.sqrt(np.maximum(block_low, 0.0) * np.maximum(bottom, _TINY)),
        sign=sign,
        opposite=opposite,
        run=_run_bounds(values, size, few, limits),
        usual=usual.to_numpy(),
    )


def _size_bounds(
    size: pd.Series,
    steps: int,
    floors: tuple[np.ndarray, np.ndarray],
    counts: np.ndarray,
    *,
    limits: JumpLimits,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Highest and lowest plausible size at each step, and the extremes they are multiples of.

    What grew to a new extreme just now may go on so: waves do.
    """
    trailing = size.shift(steps).rolling(_TRAILING, min_periods=_LEAST_TRAILING)
    floor, little = floors
    top = np.maximum(trailing.max().to_numpy(), floor)
    bottom = np.maximum(trailing.min().to_numpy(), little)
    now = size.to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        up = pd.Series(np.where(counts, now / top, np.nan))
        down = pd.Series(np.where(counts, np.maximum(now, little) / bottom, np.nan))
    known = up.notna().cumsum().shift(1).to_numpy() >= LEAST_PAST
    most = up.cummax().ffill().shift(1).clip(lower=1.0).to_numpy()
    least = down.cummin().ffill().shift(1).clip(upper=1.0).to_numpy()
    swing, dip = (_SWING, _DIP) if steps == 1 else (1.0, 1.0)
    going_up = up.shift(1).clip(lower=1.0).fillna(1.0).to_numpy()
    going_down = down.shift(1).clip(upper=1.0).fillna(1.0).to_numpy()
    high = np.maximum(limits.factor, limits.margin * most**swing) * top * going_up
    low = np.minimum(1 / limits.factor, least**dip / limits.margin) * bottom * going_down
    judged = known & ~np.isnan(high) & ~np.isnan(low)
    low = np.where(judged & (low > little), low, -1.0)
    return np.where(judged, high, np.inf), low, top, bottom


def _sign_bounds(
    values: np.ndarray, usual: np.ndarray, limits: JumpLimits
) -> tuple[np.ndarray, np.ndarray]:
    """The usual sign at each step, and the size of the other one that is implausible.

    What comes near zero may cross it; what stayed away from it does not, from one step to the next.
    """
    sign = np.sign(pd.Series(np.sign(values)).cumsum().shift(1).fillna(0.0).to_numpy())
    with np.errstate(divide="ignore", invalid="ignore"):
        opposite = pd.Series(-sign * values / usual).clip(lower=0.0)
    largest = opposite.replace(np.inf, np.nan).cummax().ffill().shift(1).fillna(0.0).to_numpy()
    bound = np.maximum(_OPPOSITE, limits.margin * largest) * usual
    trailing = pd.Series(values).shift(1).rolling(_TRAILING, min_periods=_LEAST_TRAILING)
    nearest = np.where(sign > 0, trailing.min(), -trailing.max())
    away = nearest >= _AWAY * usual
    judged = (np.arange(len(values)) >= LEAST_PAST) & (bound > 0) & away
    return sign, np.where(judged, bound, np.inf)


def _run_bounds(
    values: np.ndarray, size: pd.Series, few: np.ndarray, limits: JumpLimits
) -> np.ndarray:
    """Steps without change at each step that are too many for a series that changed as this did."""
    runs = pd.Series(_run_lengths(values))
    ended = runs.where(runs.shift(-1) == 1.0)
    longest = ended.cummax().ffill().shift(1).fillna(0.0).to_numpy()
    changes = ended.notna().cumsum().shift(1).fillna(0.0).to_numpy()
    judged = (changes >= LEAST_PAST) & (size.rolling(_TRAILING).max().to_numpy() > few)
    return np.where(judged, limits.margin * (longest + 1), np.inf)


def _block_sizes(values: np.ndarray) -> np.ndarray:
    """Median size of each step and those before it; NaN before there are `BLOCK`."""
    return pd.Series(np.abs(values)).rolling(BLOCK).median().to_numpy()


def _run_lengths(values: np.ndarray) -> np.ndarray:
    """How many steps in a row, up to each, have its value."""
    same = np.concatenate([[False], values[1:] == values[:-1]])
    place = np.arange(len(values))
    return place - np.maximum.accumulate(np.where(same, 0, place)) + 1.0
