"""Which records of each country follow from its own past, so that others may read them.

What one country delivers is a feature of all others. Records that do not follow from those before
them are held out of what is shared; the country itself keeps them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from mlops_assets.ml.stats.jumps import JumpKind, JumpLimits, SeriesJump, find_jumps
from mlops_assets.spec import SharingSpec, SourceSpec
from mlops_assets.spec.fields import duration

Records = Mapping[str, pd.DataFrame]
_DAY = np.timedelta64(1, "D")
_TOLD: Mapping[JumpKind, str] = {
    "higher": "at most {limit} follows from its past",
    "lower": "at least {limit} in size follows from its past",
    "sign": "its past has the other sign",
    "constant": "so many equal values in a row never came before (limit {limit})",
}


@dataclass(frozen=True)
class HeldOut:
    """Records of one country that are not shared, because of one column.

    Args:
        country: whose fault it is.
        column: that does not follow from its past.
        kind: higher or lower than it lets expect, of the other sign, or constant.
        first: event time of the first record held out, ISO 8601.
        last: of the last.
        rows: held out.
        value: of the first (of several records at a time: their median or mean).
        usual: typical value before; of a constant the value itself.
        limit: that was passed.
        is_open: whether the newest records are held out.
    """

    country: str
    column: str
    kind: JumpKind
    first: str
    last: str
    rows: int
    value: float
    usual: float
    limit: float
    is_open: bool

    def describe(self) -> str:
        """Column, numbers and limit in a sentence, without the country."""
        why = _TOLD[self.kind].format(limit=_short(self.limit))
        return (
            f"{self.column} is {_short(self.value)} at {self.first}, usual is "
            f"{_short(self.usual)}; {why}; {self.rows:,} rows up to {self.last} are held out"
        )


@dataclass(frozen=True)
class UpstreamIncident:
    """Days of which nobody's records are shared, because most countries jumped at once.

    Args:
        first: the first such day, ISO 8601.
        last: the newest.
        countries: that jumped on the newest.
        of: countries with records of that day.
        is_open: whether it is the newest day of which there are records.
    """

    first: str
    last: str
    countries: tuple[str, ...]
    of: int
    is_open: bool

    def describe(self) -> str:
        """In a sentence."""
        shown = ", ".join(self.countries[:5]) + (" and more" if len(self.countries) > 5 else "")
        return (
            f"{len(self.countries)} of {self.of} countries jumped at once on {self.last} "
            f"({shown}), so that nobody's records of such days, the first {self.first}, are shared"
        )


@dataclass(frozen=True)
class Plausible:
    """What may be shared, and what is held out of it.

    Args:
        records: of every country that was given, without what is held out; a country of which all
            is held out has a frame without rows.
        held: by country and time.
        incident: the newest incident upstream; None without one.
    """

    records: Records
    held: tuple[HeldOut, ...] = ()
    incident: UpstreamIncident | None = None

    def plain(self) -> dict[str, Any]:
        """As it is stored with what is shared: JSON types alone."""
        incident = self.incident and {**asdict(self.incident)}
        if incident:
            incident["countries"] = list(incident["countries"])
        return {"held": [asdict(each) for each in self.held], "incident": incident}


def held_from(plain: Mapping[str, Any] | None) -> Plausible:
    """What `Plausible.plain` wrote, without the records; nothing held where nothing was stored."""
    if not plain:
        return Plausible({})
    incident = plain["incident"]
    return Plausible(
        {},
        tuple(HeldOut(**each) for each in plain["held"]),
        UpstreamIncident(**{**incident, "countries": tuple(incident["countries"])})
        if incident
        else None,
    )


def plausible_records(records: Records, source: SourceSpec, sharing: SharingSpec) -> Plausible:
    """Hold out records that do not follow from the country's own past.

    Each number that is known at its event time is judged, step by step, by the steps before it; a
    step is a day where there are several times a day, else an event time. So what is held out of
    some time is the same however much is known later.

    Args:
        records: validated records by country.
        source: names event time, key and what is known later.
        sharing: what is held out, and what a person has accepted.
    """
    if not sharing.plausible:
        return Plausible(records)
    places: dict[str, np.ndarray] = {}
    held: list[HeldOut] = []
    for country in sorted(records):
        found = _judged(country, records[country], source, _limits(sharing, country))
        held += [each for each, _ in found]
        if found:
            places[country] = np.unique(np.concatenate([rows for _, rows in found]))
    if not held:
        return Plausible(records)
    shared = {
        country: frame.drop(index=frame.index[places[country]]) if country in places else frame
        for country, frame in records.items()
    }
    days, incident = _incident(records, places, held, source.event_time, sharing=sharing)
    if len(days):
        shared = {c: f[~_days(f[source.event_time]).isin(days)] for c, f in shared.items()}
    touched = {c: frame.reset_index(drop=True) for c, frame in shared.items()}
    whole = {c: records[c] if len(records[c]) == len(f) else f for c, f in touched.items()}
    return Plausible(whole, tuple(held), incident)


def _limits(sharing: SharingSpec, country: str) -> JumpLimits:
    day = sharing.accepted.get(country)
    accepted = np.datetime64("NaT") if day is None else np.datetime64(day) + _DAY
    return JumpLimits(
        sharing.min_factor,
        sharing.margin,
        np.timedelta64(duration(sharing.accept_after)),
        accepted - np.timedelta64(1, "us"),
    )


def _judged(
    country: str, frame: pd.DataFrame, source: SourceSpec, limits: JumpLimits
) -> list[tuple[HeldOut, np.ndarray]]:
    """What is held out of a country, each with the places of its rows."""
    if frame.empty:
        return []
    times = _steps(frame[source.event_time])
    found = []
    for column in _columns(frame, source):
        values = frame[column].to_numpy("float64", na_value=np.nan)
        for jump, rows in _jumps(times, values, limits):
            at = frame[source.event_time].iloc[rows]
            told = (jump.value, jump.usual, jump.limit, jump.is_open)
            first, last = str(at.min()), str(at.max())
            found.append((HeldOut(country, column, jump.kind, first, last, len(rows), *told), rows))
    return found


def _columns(frame: pd.DataFrame, source: SourceSpec) -> Iterator[str]:
    """Numbers that are known at the event time and are not part of the key."""
    known_later = {str(name) for name in source.known_later}
    for name in map(str, frame.columns):
        dtype = frame[name].dtype
        number = types.is_numeric_dtype(dtype) and not types.is_bool_dtype(dtype)
        if number and name not in source.key and name not in known_later:
            yield name


def _jumps(
    times: np.ndarray, values: np.ndarray, limits: JumpLimits
) -> Iterator[tuple[SeriesJump, np.ndarray]]:
    """Jumps of the typical value of each step and, of several rows a step, of their mean size."""
    known = np.flatnonzero(np.isfinite(values))
    steps = pd.Series(values[known]).groupby(times[known])
    series: list[pd.Series] = [steps.median()]
    if len(series[0]) < len(known):
        series.append(pd.Series(np.abs(values[known])).groupby(times[known]).mean())
    for each in series:
        at = each.index.to_numpy("datetime64[ns]")
        for jump in find_jumps(at, each.to_numpy("float64"), limits):
            rows = np.flatnonzero(np.isin(times, at[list(jump.held)]))
            yield jump, rows


def _steps(times: pd.Series) -> np.ndarray:
    """The step of each row: its day where most steps are shorter than one, else its time."""
    every = np.unique(times.to_numpy("datetime64[ns]"))
    short = len(every) > 1 and np.median(np.diff(every)) < _DAY
    return (_days(times) if short else times).to_numpy("datetime64[ns]")


def _days(times: pd.Series) -> pd.Series:
    return times.dt.floor("D")


def _incident(
    records: Records,
    places: Mapping[str, np.ndarray],
    held: Sequence[HeldOut],
    time: str,
    *,
    sharing: SharingSpec,
) -> tuple[pd.Index, UpstreamIncident | None]:
    """Days on which most countries that have records jumped, and the newest of these incidents.

    It is open as long as newest records of one of its countries are held out for it, whoever has
    delivered later days.
    """
    every = {c: _days(frame[time]).drop_duplicates() for c, frame in records.items() if len(frame)}
    jumped = {c: _days(records[c][time].iloc[rows]).drop_duplicates() for c, rows in places.items()}
    there = pd.concat(list(every.values())).value_counts()
    count = pd.concat(list(jumped.values())).value_counts()
    most = count / there.reindex(count.index) >= sharing.incident_share
    days = count.index[most & (count >= sharing.incident_countries)].sort_values()
    if days.empty:
        return days, None
    last = days[-1]
    own = tuple(c for c, each in jumped.items() if (each == last).any())
    newest = there.index.sort_values()
    together = np.searchsorted(newest, days)
    begins = np.flatnonzero(np.diff(together) > 1)
    first = days[begins[-1] + 1] if begins.size else days[0]
    is_open = any(
        each.is_open and each.country in own and pd.Timestamp(each.last) >= last for each in held
    )
    return days, UpstreamIncident(_day(first), _day(last), own, int(there[last]), is_open)


def _day(value: Any) -> str:
    return str(pd.Timestamp(str(value)).date())


def _short(value: float) -> str:
    """Whole numbers from a thousand on, else four significant digits."""
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e15 else f"{value:.4g}"


def describe_held(held: Sequence[HeldOut]) -> str:
    """Each with its country, in one line."""
    return "; ".join(f"{each.country}: {each.describe()}" for each in held)
