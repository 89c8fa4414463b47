"""Features and label of next-day prices."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

import numpy as np
import pandas as pd
from dateutil.easter import easter

CHANGES = (1, 2, 3, 5, 6, 13, 20, 27)
"""Days back; 6, 13, 20 and 27 days before today have the weekday of tomorrow."""
WEEKS = (1, 2, 3, 4)
FIXED_HOLIDAYS = ((1, 1), (5, 1), (12, 24), (12, 25), (12, 26), (12, 31))
"""Month and day of holidays with low demand in nearly every country."""


def build(validated: pd.DataFrame) -> pd.DataFrame:
    """One row per day with a price: what is known at its end, and the next day's price as label.

    Prices rose tenfold within two years, so a feature says how another day differs from today
    (EUR/MWh) rather than how high it was. A day without a price is a gap, not a shift: lags count
    calendar days.

    Args:
        validated: one country's `country`, `date` (midnight, unique) and `price`.

    Returns:
        `entity` (country), `event_time` (the day), `label` (the next day's price; NaN where it
        is not there) and the features.
    """
    country = "" if validated.empty else str(validated["country"].iloc[0])
    price = _every_day(validated)
    change = {f"change_{days}": price.shift(days) - price for days in CHANGES}
    same_weekday = [price.shift(7 * week - 1) for week in WEEKS]
    step = [price.shift(7 * week - 1) - price.shift(7 * week) for week in WEEKS]
    frame = pd.DataFrame(
        {
            "entity": country,
            "event_time": price.index,
            "label": price.shift(-1),
            "price": price,
            "price_week_ago": price.shift(6),
            **change,
            "mean_7": price.rolling(7, min_periods=3).mean() - price,
            "mean_28": price.rolling(28, min_periods=14).mean() - price,
            "spread_28": price.rolling(28, min_periods=14).std(),
            "same_weekday": pd.concat(same_weekday, axis=1).mean(axis=1) - price,
            "weekday_step": pd.concat(step, axis=1).mean(axis=1),
            **_calendar(pd.DatetimeIndex(price.index + pd.Timedelta(days=1))),
        }
    )
    return frame[price.notna()].reset_index(drop=True)


def _every_day(validated: pd.DataFrame) -> pd.Series:
    """Prices by calendar day, NaN where there is none."""
    price = validated.set_index("date")["price"].astype("float64").sort_index()
    if price.empty:
        return price
    return price.reindex(pd.date_range(price.index[0], price.index[-1], freq="D"))


def _calendar(tomorrow: pd.DatetimeIndex) -> dict[str, np.ndarray]:
    return {
        "tomorrow_weekday": tomorrow.dayofweek.to_numpy(),
        "tomorrow_yearday": tomorrow.dayofyear.to_numpy(),
        "tomorrow_holiday": tomorrow.isin(_holidays(tomorrow.year.unique())),
    }


def _holidays(years: Iterable[int]) -> list[pd.Timestamp]:
    """Fixed holidays, Good Friday, Easter and Easter Monday (western churches)."""
    days: list[pd.Timestamp] = []
    for year in years:
        days += [pd.Timestamp(year, month, day) for month, day in FIXED_HOLIDAYS]
        sunday = easter(int(year))
        days += [pd.Timestamp(sunday + dt.timedelta(days=shift)) for shift in (-2, 0, 1)]
    return days
