"""Times of the clock as UTC: an hour a year comes twice, and another one never."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

_CLOCKS = (
    "Europe/London",
    "Europe/Berlin",
    "Europe/Helsinki",
    "America/New_York",
    "America/Chicago",
    "America/Los_Angeles",
    "Australia/Sydney",
)
"""Time zones whose repeated hours are looked for where none is declared."""


@dataclass(frozen=True)
class UtcTimes:
    """Times of the clock as UTC.

    Attributes:
        values: naive UTC; missing where there is no such hour, or it cannot be told which.
        no_such_hour: where the clock was put forward, shape (rows,).
        unclear: where the hour comes twice and nothing says which one it is.
        first_of_two: where it comes twice and the first one was taken.
    """

    values: pd.Series
    no_such_hour: np.ndarray
    unclear: np.ndarray
    first_of_two: np.ndarray


def as_utc(
    wall: pd.Series,
    clock: np.ndarray,
    zone: str,
    series: pd.Series | None,
    *,
    positions: Sequence[np.ndarray],
) -> UtcTimes:
    """Times as the clocks of a zone showed them, as UTC.

    Of a time that comes twice in autumn, a file that is in order of time says which is which: the
    record that comes first there is the earlier one.

    Args:
        wall: naive times; those of `clock` are of the zone, the others are UTC already.
        clock: truth values, shape (rows,).
        zone: such as Europe/Berlin.
        series: what tells records of one time apart (file and the rest of the key); None: the time
            is no part of the key, so that the first of both is taken and nothing is lost.
        positions: orders in which the records may have come, shape (rows,) each: an order in which
            a file neither rises nor falls says nothing, and where two contradict, none does.
    """
    nowhere = np.zeros(len(wall), bool)
    local = wall[clock]
    if local.empty:
        return UtcTimes(wall, nowhere, nowhere, nowhere)
    summer = np.ones(len(local), bool)
    by_summer = _localized(local, zone, summer)
    twice = by_summer.notna() & _localized(local, zone, None).isna()
    unclear = np.zeros(len(local), bool)
    if twice.any() and series is not None:
        told = _agreed(
            [_which(local, twice.to_numpy(), series[clock], each[clock]) for each in positions]
        )
        summer, unclear = told != _SECOND, twice.to_numpy() & (told == _UNKNOWN)
        by_summer = _localized(local, zone, summer)
    gone = (by_summer.isna() & local.notna()).to_numpy()
    values = wall.copy()
    values[clock] = by_summer.mask(unclear)
    first = twice.to_numpy() if series is None else np.zeros(len(local), bool)
    return UtcTimes(values, *(_spread(each, clock) for each in (gone, unclear, first)))


def repeated_hours(times: pd.Series) -> int:
    """How many naive times are in an hour that clocks of a widely used zone show twice."""
    daily = times.dt.normalize() == times
    hours = times[~daily].dropna()
    if hours.empty:
        return 0
    twice = np.zeros(len(hours), bool)
    for zone in _CLOCKS:
        by_summer = _localized(hours, zone, np.ones(len(hours), bool))
        twice |= (by_summer.notna() & _localized(hours, zone, None).isna()).to_numpy()
    return int(twice.sum())


_UNKNOWN, _FIRST, _SECOND = 0, 1, 2


def _localized(local: pd.Series, zone: str, summer: np.ndarray | None) -> pd.Series:
    """Naive UTC; missing where there is no such hour, and without `summer` where there are two."""
    ambiguous = "NaT" if summer is None else summer
    aware = local.dt.tz_localize(zone, ambiguous=ambiguous, nonexistent="NaT")  # type: ignore[arg-type]
    return aware.dt.tz_convert("UTC").dt.tz_localize(None)


def _agreed(found: Sequence[np.ndarray]) -> np.ndarray:
    """What some of them say and none denies."""
    said = np.array(found)
    least = np.where(said == _UNKNOWN, _SECOND, said).min(axis=0)
    most = said.max(axis=0)
    return np.where(least == most, most, _UNKNOWN)


def _which(
    local: pd.Series, twice: np.ndarray, series: pd.Series, position: np.ndarray
) -> np.ndarray:
    """For each time that comes twice whether it is the first or the second, or unknown."""
    told = np.zeros(len(local), "int8")
    concerned = series.isin(series[twice].unique()).to_numpy()
    near = pd.DataFrame(
        {
            "wall": local.to_numpy()[concerned],
            "series": series.to_numpy()[concerned],
            "twice": twice[concerned],
            "row": np.flatnonzero(concerned),
            "at": position[concerned],
        }
    ).sort_values("at", kind="stable")
    direction = _directions(near[~near["twice"]])
    again = near[near["twice"]]
    by = [again["series"], again["wall"]]
    pair = again.groupby(by)["row"].transform("size") == 2
    number = again.groupby(by).cumcount()
    ways = again["series"].map(direction).fillna(0)
    clear = pair & (ways != 0)
    first = (number == 0) == (ways > 0)
    told[again["row"][clear]] = np.where(first[clear], _FIRST, _SECOND)
    return told


def _directions(rows: pd.DataFrame) -> pd.Series:
    """By series 1 where its times never fall in the file, -1 where they never rise, else 0."""
    steps = rows.groupby("series")["wall"].diff().dropna()
    of = rows["series"].loc[steps.index]
    never_falls = (steps >= pd.Timedelta(0)).groupby(of).all()
    never_rises = (steps <= pd.Timedelta(0)).groupby(of).all()
    return never_falls.astype(int) - never_rises.astype(int)


def _spread(found: np.ndarray, where: np.ndarray) -> np.ndarray:
    whole = np.zeros(len(where), bool)
    whole[where] = found
    return whole
