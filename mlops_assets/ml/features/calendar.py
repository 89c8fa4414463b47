"""What a feature function is told of time: its cut-offs, and up to when things are known."""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mlops_assets.spec import CutoffsSpec


@dataclass(frozen=True)
class Calendar:
    """The clock of a product with `cutoffs`; times are UTC without a zone.

    Attributes:
        cutoffs: those that are reached, in order.
        as_of: the time up to which things are known; not before the newest cut-off.
    """

    cutoffs: pd.DatetimeIndex
    as_of: pd.Timestamp

    def until(self, moment: pd.Timestamp) -> Calendar:
        """The same as it was at a moment, which may be later: then it is as it is."""
        return Calendar(self.cutoffs[self.cutoffs <= moment], min(self.as_of, moment))

    def told(self, function: Callable[..., Any]) -> dict[str, Any]:
        """What of it the function takes, by the names of its parameters."""
        takes = inspect.signature(function).parameters
        given = {"cutoffs": self.cutoffs, "as_of": self.as_of}
        return {name: value for name, value in given.items() if name in takes}


def calendar_of(spec: CutoffsSpec | None, as_of: dt.datetime | None) -> Calendar | None:
    """The calendar at a time; None for a product without cut-offs.

    Args:
        spec: the section `cutoffs`.
        as_of: by the product's clock, UTC without a zone; None only without `spec`.
    """
    if spec is None or as_of is None:
        return None
    reached = pd.DatetimeIndex(spec.reached(as_of)).as_unit("ns")
    return Calendar(reached, pd.Timestamp(as_of))


def calendar_arguments(calendar: Calendar | None, function: Callable[..., Any]) -> dict[str, Any]:
    """The keyword arguments of a function of features; none without a calendar."""
    return {} if calendar is None else calendar.told(function)
