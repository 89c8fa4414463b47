"""The times at which a snapshot product describes its entities."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from mlops_assets.spec.fields import Day, Duration, Strict, duration

Period = Literal["day", "week", "month", "quarter", "year"]
_MONTHS = {"month": 1, "quarter": 3, "year": 12}


class CutoffsSpec(Strict):
    """Cut-offs of a calendar, up to the time that the records reach."""

    every: Period = Field(
        description="a cut-off at the beginning (00:00 UTC) of each day, week (Monday), month, "
        "quarter or year",
        examples=["month"],
    )
    first: Day = Field(
        description="no cut-off is before this date; the feature function gets them all, so choose "
        "one with enough history before it",
        examples=["2023-01-01"],
    )
    offset: Duration = Field(
        default="0d",
        description="how long after the beginning of its period a cut-off is, in hours (h), days "
        "(d) or weeks (w)",
        examples=["14d"],
    )
    grace: Duration = Field(
        default="1d",
        description="a cut-off is reached when the newest record is at most this long before it, "
        "and it was past when that record was ingested; longer where records come with gaps",
        examples=["3d"],
    )

    def reached(self, until: dt.datetime) -> list[dt.datetime]:
        """Every cut-off that is not later than `until`, in order; times are UTC without a zone."""
        offset, first = duration(self.offset), dt.datetime.combine(self.first, dt.time())
        found = []
        for begin in _beginnings(self.every, (first - offset).date()):
            cutoff = dt.datetime.combine(begin, dt.time()) + offset
            if cutoff > until:
                return found
            if cutoff >= first:
                found.append(cutoff)
        return found

    def clock(self, known_until: dt.datetime | None, maturity: dt.timedelta) -> dt.datetime:
        """The newest time up to `known_until` at which anything of the calendar happened.

        That is a cut-off, or the time the labels of one become known. Between two of them nothing
        has to be made again.

        Args:
            known_until: up to which records are there (UTC without a zone); None: there are none.
            maturity: of labels.

        Returns:
            A day before `first` while nothing has happened.
        """
        before = dt.datetime.combine(self.first, dt.time()) - dt.timedelta(days=1)
        if known_until is None:
            return before
        reached = self.reached(known_until)
        mature = [cutoff + maturity for cutoff in reached if cutoff + maturity <= known_until]
        return max([*reached, *mature], default=before)

    def known_until(self, newest: dt.datetime, ingested: dt.datetime) -> dt.datetime:
        """Up to when records are known, by the newest of them and when that was ingested."""
        return min(newest + duration(self.grace), ingested)


def _beginnings(every: Period, day: dt.date) -> Iterator[dt.date]:
    """The beginning of the period that holds a day, and of every one after it."""
    if every in _MONTHS:
        step = _MONTHS[every]
        month = day.year * 12 + (day.month - 1) // step * step
        while month < (dt.MAXYEAR + 1) * 12:
            yield dt.date(month // 12, month % 12 + 1, 1)
            month += step
        return
    step = 7 if every == "week" else 1
    number = day.toordinal() - (day.weekday() if every == "week" else 0)
    while number <= dt.date.max.toordinal():
        yield dt.date.fromordinal(number)
        number += step
