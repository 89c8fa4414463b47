"""What a bootstrap draws: blocks of calendar days, entities, or both.

Rows are alike in two ways. Errors of neighbouring days are, so days are drawn in blocks (Politis &
Romano, A circular block-resampling procedure for stationary data, 1992). Errors of one entity are,
however far apart: a customer scored each month is one customer, so an entity is drawn with all its
rows (cluster bootstrap: Davison & Hinkley, Bootstrap methods and their application, 1997, 3.8).
Where both are many, a row counts as often as its entity times its day (pigeonhole bootstrap: Owen,
The pigeonhole bootstrap, 2007), which is never too narrow by much and too wide where neither
matters. Which it is for a product: `evaluation.draw_by`, and `draw_rows` for `auto`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from mlops_assets.spec import EvaluationSpec

DrawnBy = Literal["time", "entity", "both"]

MIN_BLOCKS = 5
"""Fewer blocks of days say nothing about how much a number varies between them."""
MIN_ENTITIES = 20
"""Fewer entities, of as unequal size as they come, make intervals that hold less than they say."""
RECURRING = 1.5
"""Event days of an entity, on average, from which on entities are taken to come back."""
MOST_GROUPS, FEWEST_GROUPS = 1000, 200
"""Entities beyond are drawn in groups at random, each whole: no draw says more with more units."""
UNIT_NUMBERS = 1_000_000
"""Weights of entities, or sums by entity and day, that are kept at once, by fewer groups."""
BATCH_NUMBERS = 2_000_000
"""Numbers worked on at once, so that memory stays at some dozens of megabytes."""
SECONDS_A_DAY = 86_400.0
_RHYTHMS = (("daily", 1, 1), ("weekly", 7, 7), ("monthly", 28, 31), ("quarterly", 89, 92))
"""Names of usual distances between event days: shortest and longest, in days."""


@dataclass(frozen=True)
class Drawn:
    """What intervals were drawn from, for people.

    Args:
        by: time, entity or both.
        draws: how many samples.
        rows: they are of.
        days: with rows.
        rhythm: daily, weekly, monthly or quarterly; "" for none of these.
        block_days: calendar days drawn together.
        blocks: of so many days that have rows.
        entities: that have rows; None where nobody counted them.
    """

    by: DrawnBy
    draws: int
    rows: int
    days: int
    rhythm: str
    block_days: int
    blocks: int
    entities: int | None = None

    @property
    def counts(self) -> str:
        """Such as "4 monthly event times, 17,325 rows of 6,021 entities"."""
        rhythm = f"{self.rhythm} " if self.rhythm else ""
        whose = "" if self.entities is None else f" of {_many(self.entities, 'entity', 'entities')}"
        times = _many(self.days, f"{rhythm}event time", f"{rhythm}event times")
        return f"{times}, {_many(self.rows, 'row', 'rows')}{whose}"

    @property
    def text(self) -> str:
        """How it was drawn, from what, and what such intervals do not know."""
        blocks = f"blocks of {_many(self.block_days, 'calendar day', 'calendar days')}"
        by = {
            "time": f"{blocks} ({self.blocks:,} have rows)",
            "entity": "entities, each with all its rows",
            "both": f"entities, each with all its rows, and {blocks} ({self.blocks:,} have rows)",
        }[self.by]
        rest = {
            "time": "",
            "entity": "; what all entities share at one event time is not in the intervals, as "
            "there are too few event times to tell it",
            "both": "",
        }[self.by]
        return f"{self.draws:,} draws of {by}; {self.counts}{rest}"

    @property
    def unless_by_time(self) -> str:
        """For the end of a sentence about an interval; "" where days are drawn, as is usual."""
        by = {"time": "", "entity": "by entity", "both": "by entity and time"}[self.by]
        return f", drawn {by} ({self.counts})" if by else ""


@dataclass(frozen=True)
class Units:
    """What is drawn with replacement, and the rows it stands for.

    Args:
        weights: how often each unit is in each draw, shape (draws, units).
        of_row: the place of each row's unit, shape (rows,).
        counted: which independent part each row is of, shape (rows,): a block of days, an entity.
    """

    weights: np.ndarray
    of_row: np.ndarray
    counted: np.ndarray

    def of(self, rows: np.ndarray) -> Units:
        """The same draws for a part of the rows, chosen by a mask."""
        return replace(self, of_row=self.of_row[rows], counted=self.counted[rows])

    def sums(self, values: np.ndarray | None, part: np.ndarray | None, parts: int) -> np.ndarray:
        """Sum of the rows' values (None: their number) by unit and part, shape (units, parts)."""
        size = self.weights.shape[1]
        place = self.of_row if part is None else self.of_row * parts + part
        cells = np.bincount(place, values, minlength=size * parts)
        return cells.astype("float64").reshape(size, parts)

    @property
    def units(self) -> int:
        """That have rows."""
        return _distinct(self.of_row)

    @property
    def parts(self) -> int:
        """Independent parts that have rows."""
        return _distinct(self.counted)


@dataclass(frozen=True)
class BootstrapWeights:
    """How often each row counts in each draw.

    Args:
        time: days drawn in blocks; None: rows are drawn by entity alone.
        entity: entities, or groups of them; None: rows are drawn by time alone.
        days: number of each row's event day, shape (rows,).
        block: number of each row's block of calendar days, shape (rows,).
        block_days: calendar days of a block.
        rhythm: of the event days, in a word.
        entities: number of each row's entity, shape (rows,); None where nobody counted them.
        apart: whether event days are so few or far apart that entities may be drawn instead.
        calendar: whether blocks are of calendar days; not in decisions recorded before they were.
    """

    time: Units | None
    entity: Units | None
    days: np.ndarray
    block: np.ndarray
    block_days: int
    rhythm: str
    entities: np.ndarray | None
    apart: bool
    calendar: bool = True

    def of(self, rows: np.ndarray) -> BootstrapWeights:
        """The same draws for a part of the rows, chosen by a mask."""
        return replace(
            self,
            time=self.time and self.time.of(rows),
            entity=self.entity and self.entity.of(rows),
            days=self.days[rows],
            block=self.block[rows],
            entities=None if self.entities is None else self.entities[rows],
        )

    @property
    def draws(self) -> int:
        """How many samples."""
        return len(self._axes[0].weights)

    @property
    def parts(self) -> int:
        """Independent parts the rows are of: blocks, entities (or their groups), the fewer of both.

        0 where they are too few to tell an interval.
        """
        return 0 if self._few else min(min(axis.units, axis.parts) for axis in self._axes)

    @property
    def drawn(self) -> Drawn:
        """What was drawn, for people."""
        by: DrawnBy = "both" if self.time and self.entity else "time" if self.time else "entity"
        return Drawn(
            by,
            self.draws,
            len(self.days),
            _distinct(self.days),
            self.rhythm,
            self.block_days,
            _distinct(self.block),
            None if self.entities is None else _distinct(self.entities),
        )

    @property
    def problem(self) -> str:
        """Why no interval can be told, and what to do; "" if one can."""
        drawn = self.drawn
        if not self._few:
            return ""
        if not self.calendar:
            return (
                f"{drawn.days} days with rows make {drawn.blocks} blocks of {drawn.block_days} "
                f"days, and {MIN_BLOCKS} are needed to tell an interval"
            )
        return _too_few(drawn, self._few, self.apart)

    @property
    def _few(self) -> list[DrawnBy]:
        """What there is too little of."""
        time, entity = self.time, self.entity
        found: list[DrawnBy] = []
        if time is not None and time.parts < MIN_BLOCKS:
            found.append("time")
        if entity is not None and entity.parts < MIN_ENTITIES:
            found.append("entity")
        return found

    def sums(
        self, values: np.ndarray | None = None, part: np.ndarray | None = None, parts: int = 1
    ) -> np.ndarray:
        """Sum of the rows' values in each draw, shape (draws,); by part of them (draws, parts).

        Args:
            values: shape (rows,); None: rows are counted.
            part: number of each row's part, from 0 on, shape (rows,); None: all are one.
            parts: how many there are.
        """
        if self.time and self.entity:
            return self._two_way_sums(self.time, self.entity, values, part, parts=parts)
        (axis,) = self._axes
        cells = axis.sums(values, part, parts)
        return axis.weights @ (cells[:, 0] if part is None else cells)

    def totals(self, values: np.ndarray, part: np.ndarray, parts: int) -> np.ndarray:
        """Sum of the rows' values by part of them, shape (parts,)."""
        return self._axes[0].sums(values, part, parts).sum(axis=0)

    def of_rows(self, rows: np.ndarray, first: int, last: int) -> np.ndarray:
        """Weights of some rows in the draws from `first` to before `last`.

        Args:
            rows: places of rows.
            first: place of the first draw.
            last: place after the last.

        Returns:
            Shape (draws, rows).
        """
        head, *rest = (axis.weights[first:last][:, axis.of_row[rows]] for axis in self._axes)
        return head * rest[0] if rest else head

    @property
    def _axes(self) -> list[Units]:
        return [axis for axis in (self.time, self.entity) if axis is not None]

    def _two_way_sums(
        self,
        time: Units,
        entity: Units,
        values: np.ndarray | None,
        part: np.ndarray | None,
        *,
        parts: int,
    ) -> np.ndarray:
        """Weights of entities times sums by entity and day times weights of days."""
        groups, days = entity.weights.shape[1], time.weights.shape[1]
        place = (entity.of_row * days + time.of_row) * parts + (0 if part is None else part)
        cells = np.bincount(place, values, minlength=groups * days * parts).astype("float64")
        cells = cells.reshape(groups, days * parts)
        found = np.empty((len(time.weights), parts))
        step = max(1, BATCH_NUMBERS // max(days * parts, 1))
        for first in range(0, len(found), step):
            at = slice(first, first + step)
            by_day = (entity.weights[at] @ cells).reshape(-1, days, parts)
            found[at] = np.einsum("dtk,dt->dk", by_day, time.weights[at])
        return found[:, 0] if part is None else found


def draw_rows(
    evaluation: EvaluationSpec, rows: pd.DataFrame, *, seed: int, draws: int | None = None
) -> BootstrapWeights:
    """Draw rows the way the product declares, by `auto` the way their times and entities ask for.

    `auto`: by time, as long as event days are dense. Where they are apart (a block holds one), the
    draw is both ways if there are `MIN_BLOCKS` blocks and entities come back, by time if they do
    not, and by entity where blocks are fewer. With fewer than `MIN_ENTITIES` entities it is by
    time. Blocks are `block_days` long; as long as labels take where event days are apart, and yet
    labels overlap: they share what happened.

    Args:
        evaluation: how the product is judged.
        rows: `event_time`, `label_time`, `entity`, and `country` where they are of several, in any
            order: an entity is then of its country.
        seed: equal seeds draw equal units.
        draws: how many samples; None: `evaluation.draws`.
    """
    count = evaluation.draws if draws is None else draws
    days = _Days.of(rows, evaluation)
    codes = _entities(rows) if days.asks_for_entities(evaluation.draw_by) else None
    by = evaluation.draw_by
    if by == "auto":
        by = "time" if codes is None else days.drawn_by(codes)
    return BootstrapWeights(
        time=None if by == "entity" else days.drawn(count, seed),
        entity=None
        if by == "time" or codes is None
        else _entities_drawn(codes, len(days.found) if by == "both" else 1, count, seed),
        days=days.of_row,
        block=days.block[days.of_row],
        block_days=days.block_days,
        rhythm=days.rhythm,
        entities=codes,
        apart=days.apart,
        calendar=evaluation.calendar,
    )


@dataclass(frozen=True)
class _Days:
    """Event days of rows.

    Args:
        found: the days with rows, in order, shape (days,).
        of_row: place of each row's day, shape (rows,).
        block: number of each day's block, shape (days,).
        block_days: days of a block.
        apart: whether blocks of the declared length hold one event day, or all are few.
        calendar: whether days without rows count.
    """

    found: np.ndarray
    of_row: np.ndarray
    block: np.ndarray
    block_days: int
    apart: bool
    calendar: bool

    @classmethod
    def of(cls, rows: pd.DataFrame, evaluation: EvaluationSpec) -> _Days:
        times = rows["event_time"].to_numpy(dtype="datetime64[ns]").astype("datetime64[D]")
        found, of_row = np.unique(times, return_inverse=True)
        since = (found - found[:1]).astype("int64") if len(found) else np.empty(0, "int64")
        gap, block = _usual(np.diff(since)), evaluation.block_days
        apart = evaluation.calendar and (len(found) <= MIN_BLOCKS or gap >= max(block, 2))
        if apart and (takes := _label_days(rows)) > gap:
            block = max(block, takes)
        place = since if evaluation.calendar else np.arange(len(found))
        return cls(found, of_row, place // block, block, apart, evaluation.calendar)

    def asks_for_entities(self, by: str) -> bool:
        """Whether entities are told apart: not in the dense series that most products are."""
        few = self.calendar and _distinct(self.block) < MIN_BLOCKS
        return by in ("entity", "both") or self.apart or few

    def drawn_by(self, entities: np.ndarray) -> DrawnBy:
        """What `auto` draws."""
        count = _distinct(entities)
        if not self.apart or count < MIN_ENTITIES:
            return "time"
        if _distinct(self.block) < MIN_BLOCKS:
            return "entity"
        pairs = np.unique(entities * len(self.found) + self.of_row)
        return "both" if len(pairs) >= RECURRING * count else "time"

    @property
    def rhythm(self) -> str:
        """The usual distance of event days in a word; "" without a word for it."""
        gap = _usual(np.diff(self.found).astype("int64"))
        named = (name for name, low, high in _RHYTHMS if low <= gap <= high)
        return next(named, "") if len(self.found) > 1 else ""

    def drawn(self, draws: int, seed: int) -> Units:
        """Days drawn in blocks.

        A long way without rows is as long as a block: two days so far apart are never drawn
        together, and a day in a far future makes no larger draw.
        """
        gaps = np.minimum(np.diff(self.found).astype("int64"), self.block_days)
        gaps = gaps if self.calendar else np.ones_like(gaps)
        at = np.concatenate([[0], np.cumsum(gaps)])[: len(self.found)]
        size = int(at[-1]) + max(_usual(gaps), 1) if len(at) else 0
        rng = np.random.default_rng(seed)
        weights = _weights(rng, size, min(self.block_days, size), draws, at=at)
        return Units(weights, self.of_row, self.block[self.of_row])


def _entities(rows: pd.DataFrame) -> np.ndarray:
    """Number of each row's entity, shape (rows,); those of two countries are two."""
    keys = [name for name in ("country", "entity") if name in rows]
    grouped = rows.groupby(keys, sort=True, dropna=False, observed=True)
    return grouped.ngroup().to_numpy("int64")


def _entities_drawn(entities: np.ndarray, days: int, draws: int, seed: int) -> Units:
    """Entities drawn whole; where they are many, in groups put together by chance."""
    rng = np.random.default_rng([seed, 1])
    count = _size(entities)
    most = UNIT_NUMBERS // max(draws, days, 1)
    groups = min(count, max(FEWEST_GROUPS, min(MOST_GROUPS, most)))
    group = rng.permutation(count) % groups if groups < count else np.arange(count)
    weights = _weights(rng, groups, 1, draws, at=np.arange(groups))
    return Units(weights, group[entities], entities)


def _weights(
    rng: np.random.Generator, days: int, block: int, draws: int, *, at: np.ndarray
) -> np.ndarray:
    """How often each day is in each draw: whole blocks, and a last one cut to fit.

    Args:
        rng: what is drawn with.
        days: there are.
        block: days of a block.
        draws: how many.
        at: the days that are looked at, ascending.

    Returns:
        Shape (draws, days looked at).
    """
    if not days:
        return np.zeros((draws, 0))
    lengths = np.full(-(-days // block), block)
    lengths[-1] = days - block * (len(lengths) - 1)
    starts = rng.integers(0, days, size=(draws, len(lengths)))
    weights = np.empty((draws, len(at)))
    step = max(1, BATCH_NUMBERS // days)
    for first in range(0, draws, step):
        part = _covered(starts[first : first + step], lengths, days)
        weights[first : first + step] = part if len(at) == days else part[:, at]
    return weights


def _covered(starts: np.ndarray, lengths: np.ndarray, days: int) -> np.ndarray:
    """How often blocks with these starts cover each day, shape (draws, days).

    A block counts from its first day on and no longer from the day after its last; one that goes
    round the end of the days counts from the first day on, too.
    """
    ends = starts + lengths
    round_the_end = (ends > days).sum(axis=1)
    weights = _counted(starts, days)
    weights -= _counted(np.where(ends > days, ends - days, ends), days + 1)[:, :days]
    weights[:, 0] += round_the_end
    return np.cumsum(weights, axis=1, out=weights)


def _counted(places: np.ndarray, size: int) -> np.ndarray:
    """How often each place is in each row of `places`, shape (rows, size)."""
    flat = (places + np.arange(len(places))[:, None] * size).ravel()
    counts = np.bincount(flat, minlength=len(places) * size)
    return counts.reshape(len(places), size).astype("float64")


def _label_days(rows: pd.DataFrame) -> int:
    """Days from an event to its label, as for most rows; at least 1."""
    took = (rows["label_time"] - rows["event_time"]).dt.total_seconds().median()
    return 1 if pd.isna(took) else max(1, math.ceil(took / SECONDS_A_DAY))


def _too_few(drawn: Drawn, few: Sequence[DrawnBy], apart: bool) -> str:
    """What there is, what is needed, and what to do."""
    entities = drawn.entities or 0
    lacking = []
    if "time" in few:
        blocks = _many(drawn.blocks, "block", "blocks")
        days = _many(drawn.block_days, "calendar day", "calendar days")
        has = "has" if drawn.blocks == 1 else "have"
        lacking.append(f"{blocks} of {days} {has} rows, and {MIN_BLOCKS} are needed")
    if entities < MIN_ENTITIES and ("entity" in few or apart):
        lacking.append(f"to draw by entity {MIN_ENTITIES} entities are needed")
    ways = ["wait for more event times", "make the holdout longer"]
    if drawn.by == "both" and len(few) == 1:
        other = "time" if few[0] == "entity" else "entity"
        ways.append(f"declare evaluation.draw_by: {other}")
    elif drawn.by == "time" and entities >= MIN_ENTITIES:
        ways.append(
            "declare evaluation.draw_by: entity if neighbouring days are no more alike than others"
        )
    return (
        f"{drawn.counts} are too few to tell an interval: {'; '.join(lacking)} "
        f"({', '.join(ways[:-1])} or {ways[-1]})"
    )


def _usual(gaps: np.ndarray) -> int:
    """The median distance; 0 without one."""
    return int(np.median(gaps)) if len(gaps) else 0


def _distinct(numbers: np.ndarray) -> int:
    return int(np.count_nonzero(np.bincount(numbers))) if len(numbers) else 0


def _size(numbers: np.ndarray) -> int:
    return int(numbers.max()) + 1 if len(numbers) else 0


def _many(count: int, one: str, more: str) -> str:
    return f"{count:,} {one if count == 1 else more}"
