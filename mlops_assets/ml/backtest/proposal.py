"""Searching a policy of retraining on a product's own past, and judging it on a part not searched.

All policies walk side by side, so that what two of them train is trained once. At some moments of
the searched part the worse half stays behind; at its end one is chosen. That one, the policy in
use, the defaults, `never` and `every 30d` then walk on through the tail with the models they have,
and what the chosen one is worth is told by its rows there, beside those of the policy in use.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from mlops_assets.errors import ConfigurationError
from mlops_assets.ml.backtest.backtest import BacktestProgress, BacktestResult, run_backtest
from mlops_assets.ml.backtest.data import BacktestData
from mlops_assets.ml.backtest.policies import Policy, parse_policy
from mlops_assets.ml.backtest.space import (
    SPACE,
    Changes,
    Dial,
    applied,
    count,
    defaults_of,
    described,
    differing,
    space_of,
    tried_policies,
)
from mlops_assets.ml.backtest.training import Trainer
from mlops_assets.ml.stats.bootstrap import gain_estimate
from mlops_assets.ml.stats.draws import BootstrapWeights, draw_rows
from mlops_assets.ml.stats.metrics import UNKNOWN, Estimate, format_gain, improvement, score
from mlops_assets.spec import GREATER_IS_BETTER, ProductSpec

TAIL_SHARE = 1 / 3
"""Of the moments, the newest, that are not searched."""
MIN_TAIL = 8
"""Moments of the tail at least."""
MIN_SEARCHED = 12
"""Moments of the searched part at least."""
MOST_MOMENTS = 104
"""Moments of a proposal without dates at most; of weeks, two years."""
RUNGS = (0.25, 0.5, 0.75)
"""Of the searched part: where the worse half of the policies stays behind."""
TOLERATED = 0.01
"""What a training may cost in error: a policy that trains less may be worse by such a share (for
auc: by so much), and one that trains more has to be better by it."""
CHANCE = 0.03
"""Up to such a difference from the best of a search counts only where it is significant: the best
of many is best by chance as well."""
TAIL = 0.025
"""Of each end of the intervals."""
IN_USE, DEFAULTS, NEVER, MONTHLY = "in use", "defaults", "never", "every 30d"


@dataclass(frozen=True)
class PolicyWorth:
    """What one policy was worth in a part of the past.

    Args:
        name: `proposed`, `in use`, `defaults`, `never`, `every 30d`; in a search its changes.
        value: of the metric over the rows of all countries.
        trainings: of countries after their first one, and of the pooled models.
        promoted: candidates that came into use.
        rows: that were predicted, with a label known in that part.
    """

    name: str
    value: float
    trainings: int
    promoted: int
    rows: int


@dataclass(frozen=True)
class Proposal:
    """What a search found, and what that is worth.

    Args:
        begin: first moment of the search.
        tail_from: first moment of the tail: no row or label of later was searched.
        until: the end of the tail.
        changes: what is proposed, as far as it differs from the policy in use.
        gain: of the proposed policy on the one in use, on the rows of the tail, paired.
        tail: what every policy was worth there; the proposed one first, then the one in use.
        search: what each policy was worth in the searched part, up to where it stayed behind.
        adopt: whether the tail says that the proposed policy is the better one.
        reason: why, in a sentence.
        drawn: what the interval was drawn from.
    """

    begin: pd.Timestamp
    tail_from: pd.Timestamp
    until: pd.Timestamp
    changes: Changes
    gain: Estimate
    tail: tuple[PolicyWorth, ...]
    search: tuple[PolicyWorth, ...]
    adopt: bool
    reason: str
    drawn: str = ""

    @property
    def proposed(self) -> PolicyWorth:
        """On the tail."""
        return self.tail[0]

    @property
    def in_use(self) -> PolicyWorth:
        """On the tail."""
        return self.tail[1]


@dataclass(frozen=True)
class SearchBudget:
    """How much is searched.

    Args:
        most: policies that begin.
        seconds: after which fewer go on than planned; None: as many as planned.
        clock: of these seconds.
    """

    most: int = 24
    seconds: float | None = None
    clock: Callable[[], float] = lambda: 0.0


def propose(
    past: BacktestData,
    moments: Sequence[pd.Timestamp],
    trainer: Trainer,
    budget: SearchBudget,
    *,
    space: Sequence[Dial] = SPACE,
    progress: BacktestProgress = lambda moment: None,
) -> Proposal:
    """Search, choose and judge.

    Args:
        past: of the product; its policy is the one in use.
        moments: in order; the newest third, and `MIN_TAIL` at least, are the tail.
        trainer: who trains.
        budget: how much is searched. Without seconds the same past, seed and budget give the same
            proposal; with them it depends on the machine.
        space: the keys that may change.
        progress: is told each moment that is done.

    Raises:
        ConfigurationError: there are too few moments, or nothing was trained in them.
    """
    tail_from = tail_begin(moments)
    own_space = space_of(past, space)
    tried = tried_policies(past.spec, own_space, budget.most, past.spec.seed)
    search = _Search(past, tuple(moments), tail_from, budget, tried)
    policies = [*search.contenders(), *_fixed(past, own_space)]
    walks = run_backtest(
        past, policies, moments, trainer, progress=progress, going_on=search.going_on
    )
    return _judged(past, search, {each.policy.name: each for each in walks})


def searchable_moments(past: BacktestData, step: pd.Timedelta) -> tuple[pd.Timestamp, ...]:
    """The moments of a proposal nobody gave dates for.

    They end with the newest known label, and begin when half of the countries can be trained, at
    most `MOST_MOMENTS` earlier.

    Args:
        past: of the product.
        step: from a moment to the next.
    """
    frames = [past.frames[country] for country in past.countries]
    labelled = [frame.loc[frame["label"].notna(), "event_time"] for frame in frames]
    first = min(frame["event_time"].min() for frame in frames)
    last = max((each.max() for each in labelled if len(each)), default=first)
    every = list(pd.date_range(end=last, start=max(first, last - step * MOST_MOMENTS), freq=step))
    half = (len(past.countries) + 1) // 2

    def is_ready(moment: pd.Timestamp) -> bool:
        return sum(past.ready(country, moment) for country in past.countries) >= half

    return tuple(every[bisect_left(every, True, key=is_ready) :])


def tail_begin(moments: Sequence[pd.Timestamp]) -> pd.Timestamp:
    """The first moment of the tail.

    Raises:
        ConfigurationError: there are too few moments.
    """
    needed = MIN_SEARCHED + MIN_TAIL
    if len(moments) < needed:
        told = f", {moments[0]:%Y-%m-%d} to {moments[-1]:%Y-%m-%d}" if moments else ""
        raise ConfigurationError(
            f"A proposal needs {needed} moments, {MIN_SEARCHED} to search and {MIN_TAIL} to judge; "
            f"there are {len(moments)}{told}.",
            stored="Nothing was trained.",
            way_out="Give an earlier --from, a later --to or a shorter --step; where that is not "
            "possible, wait for more data.",
            culprits={"moments": len(moments)},
        )
    size = max(MIN_TAIL, round(len(moments) * TAIL_SHARE))
    return moments[len(moments) - size]


def _fixed(past: BacktestData, space: Sequence[Dial]) -> list[Policy]:
    """What is walked for comparison, whatever is searched."""
    usual = applied(past.spec, differing(past.spec, defaults_of(space)))
    defaults = Policy(DEFAULTS, "drift", rules=usual)
    return [Policy(IN_USE, "drift"), defaults, parse_policy(NEVER), parse_policy(MONTHLY)]


@dataclass
class _Search:
    """Policies that are left behind one after another, and the one that is chosen.

    Attributes:
        names: of those that still walk, by their changes.
        told: what each was worth when it was looked at last.
        chosen: name; "" before the tail.
    """

    past: BacktestData
    moments: tuple[pd.Timestamp, ...]
    tail_from: pd.Timestamp
    budget: SearchBudget
    tried: Sequence[Changes]
    names: dict[str, Changes] = field(default_factory=dict)
    told: dict[str, PolicyWorth] = field(default_factory=dict)
    chosen: str = ""
    began: float = 0.0
    worked: int = 0

    def contenders(self) -> list[Policy]:
        """The policies of the search, without the one in use, which walks anyway."""
        self.names = {described(changes): changes for changes in self.tried}
        self.began = self.budget.clock()
        return [
            Policy(name, "drift", rules=applied(self.past.spec, changes))
            for name, changes in self.names.items()
            if changes
        ]

    def going_on(
        self, moment: pd.Timestamp, results: Callable[[], tuple[BacktestResult, ...]]
    ) -> Collection[str] | None:
        """Who walks on from a moment; None: all as before."""
        if moment == self.tail_from:
            return self._choose(results())
        if self.chosen:
            return None
        if moment in self._rungs or self._late(moment):
            return self._halve(moment, results())
        self.worked += self._walking
        return None

    @property
    def _walking(self) -> int:
        return len(self.names) + 3  # defaults, never, every 30d

    @property
    def _searched(self) -> int:
        return self.moments.index(self.tail_from)

    @property
    def _rungs(self) -> list[pd.Timestamp]:
        return [self.moments[round(self._searched * share)] for share in RUNGS]

    def _late(self, moment: pd.Timestamp) -> bool:
        """Whether all would take more time than there is, at the pace so far."""
        place = self.moments.index(moment)
        if self.budget.seconds is None or len(self.names) <= 2 or place * 20 < len(self.moments):
            return False
        spent = self.budget.clock() - self.began
        left = self._walking * (self._searched - place) / 2 + 5 * (len(self.moments) - place)
        return spent * (1 + left / max(self.worked, 1)) > self.budget.seconds

    def _halve(
        self, moment: pd.Timestamp, results: Sequence[BacktestResult]
    ) -> Collection[str] | None:
        if len(self.names) <= 2:
            return None
        standing = self._standing(results, moment)
        if not standing.can_tell:
            return None
        kept = standing.best_half()
        self.names = {name: each for name, each in self.names.items() if name in kept or not each}
        self.worked += self._walking
        return {*self.names, IN_USE, DEFAULTS, NEVER, MONTHLY}

    def _choose(self, results: Sequence[BacktestResult]) -> Collection[str]:
        standing = self._standing(results, self.tail_from)
        if not standing.can_tell:
            raise ConfigurationError(
                f"No country was predicted with a known label before {self.tail_from:%Y-%m-%d}, so "
                "that there is nothing to search on.",
                stored="Nothing was stored.",
                way_out="Give later dates, or wait for more data: `split` says how much history "
                "training and holdout need.",
            )
        self.chosen = standing.cheapest_of_the_best()
        return {self.chosen, IN_USE, DEFAULTS, NEVER, MONTHLY}

    def _standing(self, results: Sequence[BacktestResult], moment: pd.Timestamp) -> _Standing:
        by_name = {_title(each): each for each in results if _title(each) in self.names}
        parts = {name: part_of(each, None, moment) for name, each in by_name.items()}
        standing = _Standing(self.past.spec, parts, self.names)
        self.told |= standing.worth
        return standing


def _title(walk: BacktestResult) -> str:
    """As the search calls it."""
    return described({}) if walk.policy.name == IN_USE else walk.policy.name


@dataclass(frozen=True)
class WalkedPart:
    """What became of one policy in a part of the moments.

    Args:
        rows: of `BacktestResult`, with an event and a label known in it.
        trainings: in it, but the first of a country and of the pooled models.
        promoted: of the trainings of countries.
    """

    rows: pd.DataFrame
    trainings: int
    promoted: int


def part_of(
    walk: BacktestResult, start: pd.Timestamp | None, end: pd.Timestamp | None
) -> WalkedPart:
    """What became of a policy from a moment (None: the first) to before another one (None: all)."""
    rows = walk.rows
    inside = np.ones(len(rows), dtype=bool)
    if start is not None:
        inside &= (rows["event_time"] > start).to_numpy()
    if end is not None:
        inside &= (rows["event_time"] <= end).to_numpy() & (rows["label_time"] <= end).to_numpy()

    def is_in(moment: pd.Timestamp) -> bool:
        return (start is None or moment >= start) and (end is None or moment < end)

    own = [each for each in walk.trainings if each.cause != "first" and is_in(each.moment)]
    pooled = sum(is_in(each) for each in walk.pooled[1:])
    promoted = sum(each.verdict == "promoted" for each in own)
    return WalkedPart(rows[inside], len(own) + pooled, promoted)


class _Standing:
    """Policies beside each other on the rows that all of them predicted."""

    def __init__(
        self, spec: ProductSpec, parts: Mapping[str, WalkedPart], changes: Mapping[str, Changes]
    ) -> None:
        self._spec, self._parts, self._changes = spec, parts, changes
        rows = next(iter(parts.values())).rows
        told = {name: each.rows["prediction"].to_numpy("float64") for name, each in parts.items()}
        known = np.isfinite(np.array(list(told.values()))).all(axis=0)
        self.rows = rows.iloc[np.flatnonzero(known)].reset_index(drop=True)
        self.predicted = {name: each[known] for name, each in told.items()}
        self.label = self.rows["label"].to_numpy("float64")
        self._draws: BootstrapWeights | None = None

    @property
    def can_tell(self) -> bool:
        """Whether there is a value to compare."""
        return any(np.isfinite(each.value) for each in self.worth.values())

    @property
    def draws(self) -> BootstrapWeights:
        """Of the rows; the same for all."""
        if self._draws is None:
            self._draws = draw_rows(self._spec.evaluation, self.rows, seed=self._spec.seed)
        return self._draws

    @property
    def worth(self) -> dict[str, PolicyWorth]:
        """Of each policy."""
        return {
            name: PolicyWorth(name, self.value(name), each.trainings, each.promoted, len(self.rows))
            for name, each in self._parts.items()
        }

    @property
    def problem(self) -> str:
        """Why no interval can be told; "" if one can."""
        return self.draws.problem if len(self.rows) else "no label is known there"

    def value(self, name: str) -> float:
        """Of the metric; NaN where it cannot be told."""
        if not len(self.rows):
            return float("nan")
        return score(self._spec.metric, self.label, self.predicted[name])

    def gain(self, name: str, other: str) -> Estimate:
        """Of one policy on another, paired on the same rows."""
        if not len(self.rows):
            return UNKNOWN
        if np.array_equal(self.predicted[name], self.predicted[other]):
            return Estimate(0.0, 0.0, 0.0)
        return gain_estimate(
            self._spec.metric,
            self.label,
            self.predicted[name],
            self.predicted[other],
            draws=self.draws,
            tail=TAIL,
        )

    def by_error(self) -> list[str]:
        """The best first."""
        return sorted(self._parts, key=self._badness)

    def _badness(self, name: str) -> float:
        value = self.value(name)
        if not np.isfinite(value):
            return np.inf
        return -value if self._spec.metric in GREATER_IS_BETTER else value

    def by_price(self) -> list[str]:
        """Those as good as the best, with the fewest trainings first; then the others."""
        order = self.by_error()
        best = order[0]
        as_good = [name for name in order if self._is_as_good(name, best)]
        as_good.sort(key=lambda name: (self._parts[name].trainings, count(self._changes[name])))
        return [*as_good, *(name for name in order if name not in as_good)]

    def _is_as_good(self, name: str, best: str) -> bool:
        if name == best:
            return True
        apart = improvement(self._spec.metric, self.value(best), self.value(name))
        return apart <= TOLERATED or (apart <= CHANCE and not self.gain(best, name).lower > 0)

    def cheapest_of_the_best(self) -> str:
        """The objective: the fewest trainings among those no worse than the best."""
        return self.by_price()[0]

    def best_half(self) -> set[str]:
        """Half of them, in turns by the objective and by error alone.

        A policy that trains seldom is cheap early on, whatever comes of it.
        """
        kept: dict[str, None] = {}
        for pair in zip(self.by_price(), self.by_error(), strict=True):
            kept |= dict.fromkeys(pair)
        return set(list(kept)[: (len(self._parts) + 1) // 2])


def _judged(past: BacktestData, search: _Search, walks: Mapping[str, BacktestResult]) -> Proposal:
    """What the chosen policy was worth in the tail."""
    changes = search.names[search.chosen]
    named = {
        "proposed": walks[search.chosen if changes else IN_USE],
        **{name: walks[name] for name in (IN_USE, DEFAULTS, NEVER, MONTHLY)},
    }
    parts = {name: part_of(each, search.tail_from, None) for name, each in named.items()}
    standing = _Standing(past.spec, parts, {name: {} for name in parts})
    worth, gain = standing.worth, standing.gain("proposed", IN_USE)
    adopt, reason = judged_on_tail(past.spec.metric, changes, gain, worth, problem=standing.problem)
    return Proposal(
        begin=search.moments[0],
        tail_from=search.tail_from,
        until=past.end,
        changes=changes,
        gain=gain,
        tail=tuple(worth.values()),
        search=tuple(search.told.values()),
        adopt=adopt,
        reason=reason,
        drawn=standing.draws.drawn.text if len(standing.rows) and changes else "",
    )


def judged_on_tail(
    metric: str,
    changes: Changes,
    gain: Estimate,
    worth: Mapping[str, PolicyWorth],
    *,
    problem: str = "",
) -> tuple[bool, str]:
    """Whether the proposed policy is the better one by the tail, and why in a sentence.

    It is when its error is lower for certain, without more trainings or by `TOLERATED` at least; or
    when it trains less and is for certain not worse by more than `TOLERATED`.

    Args:
        metric: of the product.
        changes: what is proposed; empty: the policy in use.
        gain: of it on the policy in use.
        worth: of both by name.
        problem: why there is no interval; "" if there is one.
    """
    ours, theirs = worth["proposed"].trainings, worth[IN_USE].trainings
    trainings = f"{ours} trainings instead of {theirs}"
    if not changes:
        return False, "the search found nothing better than the policy in use"
    if not gain.has_interval:
        return False, f"the tail cannot tell: {problem or 'the metric has no interval there'}"
    told = (
        f"{format_gain(metric, gain.value)} on the tail (95 % interval "
        f"{format_gain(metric, gain.lower)} to {format_gain(metric, gain.upper)}), {trainings}"
    )
    if gain.lower > 0 and (ours <= theirs or gain.value >= TOLERATED):
        return True, f"it is better: {told}"
    if gain.lower > -TOLERATED and ours < theirs:
        return True, f"it is no worse by more than {format_gain(metric, TOLERATED)}: {told}"
    return False, f"the tail does not say that it is better: {told}"
