"""Features and label of next-day prices."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from dateutil.easter import easter

CHANGES = (1, 2, 3, 5, 6, 13, 20, 27)
"""Days back; 6, 13, 20 and 27 days before today have the weekday of tomorrow."""
WEEKS = (1, 2, 3, 4)
MARKETS = ("DEU", "ESP", "FRA", "GBR", "GRC", "HUN", "ITA", "NOR", "POL", "SWE")
"""Large markets of each region. Their neighbours follow them: with the prices of every country a
model was half as long again in training and no better."""
FIXED_HOLIDAYS = ((1, 1), (5, 1), (12, 24), (12, 25), (12, 26), (12, 31))
"""Month and day of holidays with low demand in nearly every country."""
SMALLEST_SPREAD = 3.0
"""EUR/MWh; the spread of a quiet country, so that nothing is divided by next to nothing."""
YOUNG_SPREAD = 20.0
"""EUR/MWh; the spread of a country that has fewer than 14 days of history."""


def shared(validated: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The prices of every country on each day, in EUR/MWh; NaN where there is none.

    Args:
        validated: `country`, `date` and `price` of each country; without rows for one that has
            no good data.

    Returns:
        `event_time` (each calendar day) and `price_<country>`.
    """
    prices = {f"price_{name}": _every_day(rows) for name, rows in validated.items()}
    days = sorted(day for price in prices.values() for day in (*price.index[:1], *price.index[-1:]))
    every = pd.date_range(days[0], days[-1], freq="D") if days else pd.DatetimeIndex([])
    columns = {name: price.reindex(every).to_numpy("float64") for name, price in prices.items()}
    return pd.DataFrame({"event_time": every, **columns})


def build(validated: pd.DataFrame, shared: pd.DataFrame) -> pd.DataFrame:
    """One row per day with a price: what is known at its end, and the next day's price as label.

    Prices rose tenfold within two years and swing more in some countries than in others, so a
    feature says how another day or another country differs from today here, in units of `spread`,
    rather than how high a price was. A day without a price is a gap, not a shift: lags count
    calendar days.

    Args:
        validated: one country's `country`, `date` (midnight, unique) and `price`.
        shared: the prices of all countries by day.

    Returns:
        `entity` (country), `event_time` (the day), `label` (the next day's price; NaN where it
        is not there) and the features; `price`, `price_week_ago`, `spread` (of the last 28
        days) and `dispersion` (among the countries today) in EUR/MWh.
    """
    country = "" if validated.empty else str(validated["country"].iloc[0])
    price = _every_day(validated)
    deviation = price.rolling(28, min_periods=14).std()
    spread = deviation.clip(lower=SMALLEST_SPREAD).fillna(YOUNG_SPREAD)
    everywhere = shared.set_index("event_time").reindex(price.index).astype("float64")
    relative = pd.DataFrame({**_own(price), **_others(price, everywhere)}).div(spread, axis=0)
    frame = pd.DataFrame(
        {
            "entity": country,
            "event_time": price.index,
            "label": price.shift(-1),
            "country": country,
            "price": price,
            "price_week_ago": price.shift(6),
            "spread": spread,
            "dispersion": everywhere.std(axis=1),
            **relative,
            **_calendar(pd.DatetimeIndex(price.index + pd.Timedelta(days=1))),
        }
    )
    return frame[price.notna()].reset_index(drop=True)


def _own(price: pd.Series) -> dict[str, pd.Series]:
    """Earlier prices of the country, less today's."""
    same_weekday = [price.shift(7 * week - 1) for week in WEEKS]
    step = [price.shift(7 * week - 1) - price.shift(7 * week) for week in WEEKS]
    return {
        **{f"change_{days}": price.shift(days) - price for days in CHANGES},
        "mean_7": price.rolling(7, min_periods=3).mean() - price,
        "mean_28": price.rolling(28, min_periods=14).mean() - price,
        "same_weekday": pd.concat(same_weekday, axis=1).mean(axis=1) - price,
        "weekday_step": pd.concat(step, axis=1).mean(axis=1),
    }


def _others(price: pd.Series, everywhere: pd.DataFrame) -> dict[str, pd.Series]:
    """Today's price of the large markets less this one's, and where all countries come from."""
    middle = everywhere.median(axis=1)
    gap = middle - price
    return {
        "gap": gap,
        "gap_mean_7": gap.rolling(7, min_periods=3).mean() - gap,
        "gap_mean_28": gap.rolling(28, min_periods=14).mean() - gap,
        "middle_change_1": middle - middle.shift(1),
        "middle_change_6": middle.shift(6) - middle,
        "middle_mean_7": middle.rolling(7, min_periods=3).mean() - middle,
        **{
            f"gap_{market}": everywhere[f"price_{market}"] - price
            for market in MARKETS
            if f"price_{market}" in everywhere
        },
    }


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
