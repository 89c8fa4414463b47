"""Invented invoices of a shop that sells nearly all it sells in one country."""

from __future__ import annotations

import numpy as np
import pandas as pd

FIRST, LAST = "2022-01-01", "2024-12-31"
CUSTOMERS = {
    "GBR": 600, "DEU": 12, "FRA": 11, "IRL": 6, "ESP": 5, "BEL": 4, "NLD": 4, "CHE": 4, "PRT": 3,
    "AUS": 3, "ITA": 3, "NOR": 3, "SWE": 2, "AUT": 2, "FIN": 2, "POL": 2, "DNK": 2, "JPN": 2,
    "USA": 2, "CYP": 2,
}  # fmt: skip
"""Customers of the countries with more than one."""
SINGLE = (
    "GRC", "CZE", "LTU", "ISL", "CAN", "MLT", "ISR", "ARE", "SGP", "LBN", "BRA", "ZAF", "SAU",
    "THA", "KOR", "HUN", "LUX", "EST", "LVA", "SVN",
)  # fmt: skip
GUESTS_ONLY = ("HKG", "BHR", "NGA")
"""Countries in which nobody has an account."""
UNLISTED = ("BMU", "ISV")
RATE = (0.8, 1.2)
"""Invoices of a customer in a month: the mean, and the shape of how customers differ."""
YEARS_TO_STAY = 1.5
GUEST_SHARE = 0.08


def generate(seed: int) -> pd.DataFrame:
    """Three years of invoices in 43 listed and 2 unlisted countries, one with nine tenths.

    Customers come at any time, buy at a rate of their own, more before Christmas, and stop one
    day. Some invoices are of guests, some are dirty (nothing sold, an absurd amount), some are
    delivered twice.

    Args:
        seed: same seed, same frame.

    Returns:
        About 10,000 rows by time, columns as published.
    """
    rng = np.random.default_rng(seed)
    customers = {**CUSTOMERS, **dict.fromkeys(SINGLE, 1), **dict.fromkeys(UNLISTED, 1)}
    country = np.repeat([*customers], [*customers.values()]).astype("object")
    bought = _of_customers(rng, country)
    frame = pd.concat([bought, _of_guests(rng, bought)], ignore_index=True)
    frame = frame.sort_values("InvoiceDate", kind="stable", ignore_index=True)
    size = rng.poisson(8, len(frame)) + 1
    frame["Quantity"] = size
    frame["Amount"] = (size * rng.gamma(4.0, 0.8, len(frame))).round(2)
    frame.insert(0, "Invoice", [f"{500_000 + number}" for number in range(len(frame))])
    return _with_quirks(rng, frame).assign(
        InvoiceDate=lambda made: made["InvoiceDate"].dt.strftime("%Y-%m-%d %H:%M:%S")
    )


def _of_customers(rng: np.random.Generator, country: np.ndarray) -> pd.DataFrame:
    """Invoices of customers, each of whom buys at least once."""
    days = (pd.Timestamp(LAST) - pd.Timestamp(FIRST)).days
    begin = rng.uniform(-365, days - 120, len(country)).clip(0)
    end = np.minimum(begin + rng.exponential(YEARS_TO_STAY * 365, len(country)) + 1, days)
    mean, shape = RATE
    rate = rng.gamma(shape, mean / shape, len(country)) / 30
    number = rng.poisson(rate * (end - begin)) + 1
    who = np.repeat(np.arange(len(country)), number)
    day = np.floor(rng.uniform(begin[who], end[who]))
    christmas = rng.random(len(who)) < 0.15
    day = np.where(christmas, np.floor(day / 365) * 365 + rng.integers(300, 355, len(who)), day)
    kept = (day >= begin[who] - 1) & (day <= end[who])
    return _frame(rng, country[who[kept]], day[kept]).assign(
        **{"Customer ID": [f"{12_000 + number}" for number in who[kept]]}
    )


def _of_guests(rng: np.random.Generator, bought: pd.DataFrame) -> pd.DataFrame:
    large = rng.choice(bought["Country"].to_numpy(), int(len(bought) * GUEST_SHARE))
    country = np.concatenate([large, np.repeat(GUESTS_ONLY, 9)]).astype("object")
    days = (pd.Timestamp(LAST) - pd.Timestamp(FIRST)).days
    return _frame(rng, country, rng.integers(0, days + 1, len(country))).assign(
        **{"Customer ID": None}
    )


def _frame(rng: np.random.Generator, country: np.ndarray, day: np.ndarray) -> pd.DataFrame:
    second = rng.integers(8 * 3600, 20 * 3600, len(day))
    time = pd.Timestamp(FIRST) + pd.to_timedelta(day, unit="D") + pd.to_timedelta(second, unit="s")
    return pd.DataFrame({"InvoiceDate": time, "Country": country})


def _with_quirks(rng: np.random.Generator, frame: pd.DataFrame) -> pd.DataFrame:
    """Invoices of nothing, of an absurd amount, and some delivered twice; in the large country."""
    large = np.flatnonzero(frame["Country"] == "GBR")
    odd = rng.choice(large, 60, replace=False)
    frame.loc[odd[:30], "Quantity"] = 0
    frame.loc[odd[30:40], "Amount"] = 1e7
    again = frame.iloc[np.sort(odd[40:])]
    made = pd.concat([frame, again]).sort_values("InvoiceDate", kind="stable", ignore_index=True)
    return made[["Invoice", "InvoiceDate", "Customer ID", "Country", "Quantity", "Amount"]]
