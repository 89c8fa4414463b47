"""Watermarks later than the pull that read them: a clock that runs ahead, 9999-12-31 for no end."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute  # made at import time, so no type checker sees its functions

TOLERANCE = dt.timedelta(days=2)
"""A day ahead, as of prices for tomorrow, and the farthest time zone: nobody is told of these."""


def latest_watermark() -> dt.datetime:
    """The latest a series can be held at, aware: this moment, as rows of it are still to come."""
    return dt.datetime.now(dt.UTC)


def latest_untold(pulled: dt.datetime) -> dt.datetime:
    """The latest watermark that nobody is told of, aware.

    Args:
        pulled: time of the pull, aware.
    """
    return min(pulled, dt.datetime.max.replace(tzinfo=dt.UTC) - TOLERANCE) + TOLERANCE


def is_ahead(values: Any, latest: dt.datetime) -> pa.BooleanArray | None:
    """Which watermarks are later than can be; None when none is.

    A time or date by itself, a text where it is a time in ISO 8601. Whether a number counts seconds
    or rows nobody can tell: none is.

    Args:
        values: Arrow array of a watermark, possibly with nulls.
        latest: the latest that can be, aware.
    """
    if _is_text(values.type):
        largest = pc.max(values).as_py()
        if largest is None or not _is_later(largest, latest):
            return None
        return pa.array([_is_later(each, latest) for each in values.to_pylist()], pa.bool_())
    limit = _limit(values.type, latest)
    if limit is None:
        return None
    later = pc.fill_null(pc.greater(values, limit), False)
    return later if pc.any(later).as_py() else None


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _limit(kind: pa.DataType, latest: dt.datetime) -> pa.Scalar | None:
    if pa.types.is_date(kind):
        return pa.scalar(latest.astimezone(dt.UTC).date(), kind)
    if not pa.types.is_timestamp(kind):
        return None
    return pa.scalar(latest if kind.tz else latest.astimezone(dt.UTC).replace(tzinfo=None), kind)


def _is_later(text: str | None, latest: dt.datetime) -> bool:
    try:
        found = dt.datetime.fromisoformat(text or "")
        return (found if found.tzinfo else found.replace(tzinfo=dt.UTC)) > latest
    except (ValueError, OverflowError):  # no time; 10000-01-01 is none, and sorts before 2024
        return False
