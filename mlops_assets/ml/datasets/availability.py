"""Which records were there at a moment."""

from __future__ import annotations

import pandas as pd

from mlops_assets.spec import SourceSpec


def known_records(validated: pd.DataFrame, source: SourceSpec, moment: pd.Timestamp) -> pd.Series:
    """Which records were there at a moment: their event, and their arrival, are not later."""
    known = validated[source.event_time] <= moment
    if source.arrival_time is not None:
        arrived = validated[source.arrival_time]
        known &= arrived.isna() | (arrived <= moment)
    return known
