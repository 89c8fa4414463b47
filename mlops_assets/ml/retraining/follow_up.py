"""How soon a country may be trained again: the sooner after a change, then ever later.

A model that is trained as soon as the world has changed knows a few days of what holds now, and one
that is trained when these have doubled knows twice as many. What a model learns from more rows
falls with their number by a power (Hestness et al. 2017, "Deep learning scaling is predictable,
empirically"), so that each doubling is worth about the same and each training costs the same:
trainings follow at doubling distances. Candidates that bring nothing wait the longer for the next
one, by the same rule.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

FOLLOW_UPS = 4
"""Trainings that follow the one for a change: with a cool-down of a week the last of them comes
seven months after it."""
LONGEST, LONGEST_FRUITLESS = 2, 4
"""An alarm waits for at most two to this power cool-downs, however many trainings went before, or
brought nothing."""
FRUITLESS = 2
"""So many candidates in a row that are not promoted end what follows."""
_CHANGES = ("error", "drift")


@dataclass(frozen=True)
class PastTraining:
    """A training of a country that led to a decision.

    Args:
        moment: of the decision.
        cause: that asked for it (`spec.Cause`); "" where nothing but a person or a backtest did.
        promoted: whether its candidate came into use.
    """

    moment: dt.datetime
    cause: str
    promoted: bool


@dataclass(frozen=True)
class WorldChange:
    """A change of the world that trainings answer.

    Args:
        begun: when the first training for it was decided.
        trainings: for it so far, the first one included.
        last: when the newest of them was decided.
        fruitless: the newest of them that brought nothing, in a row.
    """

    begun: dt.datetime
    trainings: int
    last: dt.datetime
    fruitless: int


def newest_change(past: Sequence[PastTraining], cooldown: dt.timedelta) -> WorldChange | None:
    """The change that a country's trainings answer at last; None when none is being answered.

    Args:
        past: in the order of time.
        cooldown: of the product.
    """
    found: WorldChange | None = None
    for each in past:
        found = _with(found, each, cooldown)
    return found


def _with(
    found: WorldChange | None, each: PastTraining, cooldown: dt.timedelta
) -> WorldChange | None:
    fruitless = 0 if each.promoted else 1
    over = (
        found is None or found.trainings > FOLLOW_UPS or each.moment > _forgotten(found, cooldown)
    )
    if over:
        return (
            WorldChange(each.moment, 1, each.moment, fruitless) if each.cause in _CHANGES else None
        )
    assert found is not None
    in_a_row = found.fruitless + 1 if fruitless else 0
    return WorldChange(found.begun, found.trainings + 1, each.moment, in_a_row)


def _forgotten(change: WorldChange, cooldown: dt.timedelta) -> dt.datetime:
    """From when on a training answers something else."""
    return change.last + 2 * _distance(change, cooldown)


def _distance(change: WorldChange, cooldown: dt.timedelta) -> dt.timedelta:
    return cooldown * 2**change.trainings


def follow_up_due(change: WorldChange | None, cooldown: dt.timedelta) -> dt.datetime | None:
    """When the next training follows by itself; None for never."""
    if change is None or change.trainings > FOLLOW_UPS or change.fruitless >= FRUITLESS:
        return None
    return change.last + _distance(change, cooldown)


def alarm_rest(past: Sequence[PastTraining], refused: int, cooldown: dt.timedelta) -> dt.timedelta:
    """How long an alarm waits after the newest training.

    Args:
        past: in the order of time.
        refused: candidates in a row that were judged and not promoted.
        cooldown: of the product.
    """
    change = newest_change(past, cooldown)
    trainings = change.trainings if change is not None and change.trainings <= FOLLOW_UPS else 0
    fruitless = max(refused, _fruitless(past))
    return cooldown * 2 ** max(min(trainings, LONGEST), min(fruitless, LONGEST_FRUITLESS))


def _fruitless(past: Sequence[PastTraining]) -> int:
    """Newest trainings in a row that brought nothing, be it the very model that serves already."""
    promoted = [place for place, each in enumerate(past) if each.promoted]
    return len(past) - 1 - promoted[-1] if promoted else len(past)
