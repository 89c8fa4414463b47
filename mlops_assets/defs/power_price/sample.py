"""Invented prices in the shape of the published file, for demonstrations without a download."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.signal import lfilter

FIRST, LAST = "2021-01-01", "2026-04-30"
NAMES = {
    "AUT": "Austria", "BEL": "Belgium", "BGR": "Bulgaria", "CHE": "Switzerland",
    "CZE": "Czechia", "DEU": "Germany", "DNK": "Denmark", "ESP": "Spain", "EST": "Estonia",
    "FIN": "Finland", "FRA": "France", "GBR": "United Kingdom", "GRC": "Greece",
    "HRV": "Croatia", "HUN": "Hungary", "IRL": "Ireland", "ITA": "Italy", "LTU": "Lithuania",
    "LUX": "Luxembourg", "LVA": "Latvia", "MKD": "North Macedonia", "MNE": "Montenegro",
    "NLD": "Netherlands", "NOR": "Norway", "POL": "Poland", "PRT": "Portugal",
    "ROU": "Romania", "SRB": "Serbia", "SVK": "Slovakia", "SVN": "Slovenia", "SWE": "Sweden",
}  # fmt: skip
UNLISTED = {"MDA": "Moldova", "UKR": "Ukraine"}
STARTS = {"MKD": "2023-05-10", "MNE": "2023-04-26", "UKR": "2024-01-01", "MDA": "2025-01-01"}
ENDS = {"CHE": "2025-09-30", "MKD": "2025-09-30", "MNE": "2025-09-30"}
NULLS, RESTATED = 22, 36


def generate(seed: int) -> pd.DataFrame:
    """Daily prices in EUR/MWh of 31 listed and 2 unlisted countries, 2021-01-01 to 2026-04-30.

    A crisis that comes and goes, seasons of week and year, shocks that fade and are shared by
    neighbours; some days without a price, some with two, some prices below zero, late starters.

    Args:
        seed: same seed, same frame.

    Returns:
        About 62,000 rows, columns as published: `Country`, `ISO3 Code`, `Date` (text), `Price
        (EUR/MWhe)`.
    """
    rng = np.random.default_rng(seed)
    names = {**NAMES, **UNLISTED}
    days = pd.date_range(FIRST, LAST, freq="D")
    price = _prices(rng, days, len(names))
    frame = pd.DataFrame(
        {
            "Country": np.tile(list(names.values()), len(days)),
            "ISO3 Code": np.tile(list(names), len(days)),
            "Date": np.repeat(days.strftime("%Y-%m-%d").to_numpy(), len(names)),
            "Price (EUR/MWhe)": price.round(2).ravel(),
        }
    )
    return _with_quirks(rng, frame[_published(frame)].reset_index(drop=True))


def _prices(rng: np.random.Generator, days: pd.DatetimeIndex, countries: int) -> np.ndarray:
    """Prices of shape (days, countries)."""
    years = np.arange(len(days)) / 365.25
    level = 60 + 160 * np.exp(-(((years - 1.6) / 0.55) ** 2)) + 8 * np.cos(2 * np.pi * years)
    own = 1 + 0.25 * rng.standard_normal(countries)
    shared = _fading(rng, (len(days), 1), keeps=0.9, size=0.09)
    single = _fading(rng, (len(days), countries), keeps=0.7, size=0.10)
    weekday = np.array([0.04, 0.05, 0.05, 0.04, 0.02, -0.12, -0.22])[days.dayofweek]
    weekly = weekday[:, None] * rng.uniform(0.6, 1.4, countries)
    windy = np.where(rng.random((len(days), countries)) < 0.02, -0.9, 0.0)
    return level[:, None] * own.clip(0.6) * (1 + shared + single + weekly + windy)


def _fading(
    rng: np.random.Generator, shape: tuple[int, int], *, keeps: float, size: float
) -> np.ndarray:
    """Shocks of which a share of `keeps` is left the next day (autoregressive, order 1)."""
    return np.asarray(lfilter([1.0], [1.0, -keeps], size * rng.standard_normal(shape), axis=0))


def _published(frame: pd.DataFrame) -> pd.Series:
    first = frame["ISO3 Code"].map(STARTS).fillna(FIRST)
    last = frame["ISO3 Code"].map(ENDS).fillna(LAST)
    return (frame["Date"] >= first) & (frame["Date"] <= last)


def _with_quirks(rng: np.random.Generator, frame: pd.DataFrame) -> pd.DataFrame:
    """Some prices missing, and some days twice with different prices; in order of date."""
    young = np.flatnonzero(frame["ISO3 Code"] == "MKD")
    frame.loc[rng.choice(young, NULLS, replace=False), "Price (EUR/MWhe)"] = np.nan
    islands = np.flatnonzero(frame["ISO3 Code"].isin(["GBR", "IRL"]))
    twice = frame.iloc[np.sort(rng.choice(islands, RESTATED, replace=False))].copy()
    twice["Price (EUR/MWhe)"] += rng.uniform(1, 5, RESTATED).round(2)
    both = pd.concat([frame, twice], ignore_index=True)
    return both.sort_values(["Date", "ISO3 Code"], kind="stable", ignore_index=True)
