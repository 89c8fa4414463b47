"""Times that cannot be: events later than their delivery, and placeholders of the far past."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlops_assets.spec import ContractSpec, SourceSpec

BEYOND_NOW = "beyond_now"
BEFORE_EARLIEST = "before_earliest"
"""Names of the rules, after the column: `date: beyond_now`."""


@dataclass(frozen=True)
class TimeLimits:
    """Which times a record can have.

    Attributes:
        earliest: first event time, naive, UTC; None: no limit.
        latest: last event time, and last arrival, naive, UTC; None: no limit.
    """

    earliest: pd.Timestamp | None = None
    latest: pd.Timestamp | None = None

    @classmethod
    def of(cls, contract: ContractSpec, taken: dt.datetime | None) -> TimeLimits:
        """The limits for records of which the newest were taken at a time.

        Not the clock but the newest delivery of a country is its now, so that the same records are
        always judged the same, and one that was ahead of its time is free when a later delivery
        comes after it.

        Args:
            contract: which says how far ahead an event may be.
            taken: time of the newest ingestion, aware; None: nothing is too late.
        """
        earliest = None if contract.earliest is None else pd.Timestamp(contract.earliest)
        if taken is None or contract.ahead is None:
            return cls(earliest)
        now = pd.Timestamp(taken)
        utc = now.tz_convert("UTC").tz_localize(None) if now.tzinfo else now
        longest = pd.Timestamp.max - utc
        return cls(earliest, utc + min(pd.Timedelta(contract.ahead), longest))


def time_rules(
    records: pd.DataFrame, source: SourceSpec, limits: TimeLimits
) -> dict[str, np.ndarray]:
    """Per rule the records that break it; a time that is missing breaks none of these.

    Args:
        records: typed by the contract; times are naive, UTC.
        source: names event time and arrival time.
        limits: which times can be.

    Returns:
        Rule name: truth values, shape (rows,).
    """
    rules: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(filter(None, (source.event_time, source.arrival_time))):
        if name not in records or records[name].dtype.kind != "M":
            continue
        times = records[name]
        if limits.latest is not None:
            rules[f"{name}: {BEYOND_NOW}"] = (times > limits.latest).to_numpy(bool)
        if limits.earliest is not None and name == source.event_time:
            rules[f"{name}: {BEFORE_EARLIEST}"] = (times < limits.earliest).to_numpy(bool)
    return {rule: mask for rule, mask in rules.items() if mask.any()}
