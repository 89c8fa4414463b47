"""Invented bookings in the shape of the published file, for demonstrations without a download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

ROWS = 25_000
FEWEST = 60
"""Bookings of the smallest listed country."""
FIRST_ARRIVAL, LAST_ARRIVAL = "2015-07-01", "2017-08-31"
COUNTRIES = {
    "PRT": 40.7, "GBR": 10.2, "FRA": 8.7, "ESP": 7.2, "DEU": 6.1, "ITA": 3.2, "IRL": 2.8,
    "BEL": 2.0, "BRA": 1.9, "NLD": 1.8, "USA": 1.8, "CHE": 1.4, "CN": 1.1, "AUT": 1.1,
    "SWE": 0.9, "CHN": 0.8, "POL": 0.8, "ISR": 0.6, "RUS": 0.5, "NOR": 0.5, "ROU": 0.4,
}  # fmt: skip
"""Share of the bookings in percent; `CN` is another name of `CHN`."""
SMALL = (
    "FIN", "DNK", "AUS", "AGO", "LUX", "MAR", "TUR", "HUN", "ARG", "JPN", "CZE", "IND", "KOR",
    "GRC", "DZA", "SRB", "HRV",
)  # fmt: skip
UNLISTED = ("CPV", "EGY", "MEX")
HOTELS = ("City Hotel", "Resort Hotel")
MEALS = ("BB", "HB", "SC", "Undefined", "FB")
SEGMENTS = ("Online TA", "Offline TA/TO", "Groups", "Direct", "Corporate")
CHANNEL_OF = {"Direct": "Direct", "Corporate": "Corporate"}
RISK_OF_SEGMENT = {"Online TA": 0.3, "Offline TA/TO": -0.3, "Groups": 0.9, "Direct": -0.9}
CUSTOMERS = ("Transient", "Transient-Party", "Contract", "Group")


def generate(seed: int) -> pd.DataFrame:
    """Bookings of 37 listed and 3 unlisted countries, arrivals 2015-07-01 to 2017-08-31.

    Lead time, market segment, agent, requests and earlier cancellations make a cancellation more
    or less probable; some records are dirty (nobody comes, impossible rates, a record twice).

    Args:
        seed: same seed, same frame.

    Returns:
        About 25,000 rows by arrival, columns as published, with `source_row`.
    """
    rng = np.random.default_rng(seed)
    country = _countries(rng)
    known = _known_at_booking(rng, len(country))
    arrival = _arrivals(rng, known["lead_time"].to_numpy())
    canceled = rng.random(len(country)) < _probability(rng, known, country)
    frame = known.assign(country=country, is_canceled=canceled.astype("int32"))
    frame = frame.assign(**_arrival_columns(arrival), **_known_later(rng, arrival, frame))
    frame = frame.iloc[np.argsort(arrival.to_numpy(), kind="stable")].reset_index(drop=True)
    return _with_quirks(rng, frame.assign(source_row=np.arange(len(frame), dtype="int32")))[COLUMNS]


def _countries(rng: np.random.Generator) -> np.ndarray:
    shares = np.array(list(COUNTRIES.values()))
    certain = np.repeat([*COUNTRIES, *SMALL], FEWEST)
    few = np.repeat(UNLISTED, 8)
    rest = rng.choice(list(COUNTRIES), ROWS - len(certain) - len(few), p=shares / shares.sum())
    return rng.permutation(np.concatenate([certain, few, rest])).astype("object")


def _known_at_booking(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    segment = _pick(rng, rows, SEGMENTS, [0.47, 0.2, 0.17, 0.11, 0.05])
    by_agent = np.isin(segment, ["Online TA", "Offline TA/TO", "Groups"])
    nights = rng.poisson(3.0, rows) + 1
    weekend = rng.binomial(nights, 0.27)
    channel = pd.Series(segment).map(CHANNEL_OF).fillna("TA/TO").to_numpy()
    return pd.DataFrame(
        {
            "hotel": _pick(rng, rows, HOTELS, [0.66, 0.34]),
            "lead_time": np.floor(rng.exponential(100, rows)).clip(0, 700).astype("int32"),
            "stays_in_weekend_nights": weekend.astype("int32"),
            "stays_in_week_nights": (nights - weekend).astype("int32"),
            "adults": rng.choice([1, 2, 3], rows, p=[0.2, 0.74, 0.06]).astype("int32"),
            "children": rng.choice([0.0, 1.0, 2.0], rows, p=[0.93, 0.04, 0.03]),
            "babies": (rng.random(rows) < 0.008).astype("int32"),
            "meal": _pick(rng, rows, MEALS, [0.77, 0.12, 0.09, 0.01, 0.01]),
            "market_segment": segment,
            "distribution_channel": channel,
            "is_repeated_guest": (rng.random(rows) < 0.03).astype("int32"),
            "previous_cancellations": (rng.random(rows) < 0.05).astype("int32"),
            "previous_bookings_not_canceled": (rng.random(rows) < 0.03).astype("int32"),
            "reserved_room_type": _pick(rng, rows, "ADEFG", [0.72, 0.16, 0.06, 0.04, 0.02]),
            "deposit_type": _pick(rng, rows, ("No Deposit", "Non Refund"), [0.98, 0.02]),
            "agent": np.where(by_agent, np.floor(rng.exponential(40, rows)) + 1, np.nan),
            "company": np.where(segment == "Corporate", rng.integers(1, 60, rows), np.nan),
            "customer_type": _pick(rng, rows, CUSTOMERS, [0.75, 0.21, 0.03, 0.01]),
            "adr": rng.gamma(6.0, 17.0, rows).round(2),
            "total_of_special_requests": rng.poisson(0.57, rows).clip(0, 5).astype("int32"),
        }
    )


def _arrivals(rng: np.random.Generator, lead_time: np.ndarray) -> pd.Series:
    """Days of arrival, more of them in summer."""
    days = pd.date_range(FIRST_ARRIVAL, LAST_ARRIVAL, freq="D")
    weight = 1.0 + 0.4 * np.cos(2 * np.pi * (days.dayofyear.to_numpy() - 200) / 365.25)
    return pd.Series(rng.choice(days.to_numpy(), len(lead_time), p=weight / weight.sum()))


def _probability(rng: np.random.Generator, known: pd.DataFrame, country: np.ndarray) -> np.ndarray:
    """Chance of a cancellation by a logistic rule, shape (rows,)."""
    of_agent = rng.normal(0, 0.7, 1000)
    agent = known["agent"].fillna(0).clip(0, 999).astype("int64").to_numpy()
    score = (
        -1.3
        + 0.55 * (np.log1p(known["lead_time"]) - 4.0)
        + known["market_segment"].map(RISK_OF_SEGMENT).fillna(0.0)
        + np.where(agent > 0, of_agent[agent], 0.0)
        + 1.0 * (country == "PRT")
        + 2.5 * known["previous_cancellations"]
        + 2.0 * (known["deposit_type"] == "Non Refund")
        - 0.8 * known["total_of_special_requests"]
        - 1.5 * known["is_repeated_guest"]
        + 0.004 * (known["adr"] - 100)
    )
    return (1.0 / (1.0 + np.exp(-score))).to_numpy()


def _arrival_columns(arrival: pd.Series) -> dict[str, pd.Series]:
    return {
        "arrival_date_year": arrival.dt.year.astype("int32"),
        "arrival_date_month": arrival.dt.month_name().astype("object"),
        "arrival_date_week_number": arrival.dt.isocalendar().week.astype("int32"),
        "arrival_date_day_of_month": arrival.dt.day.astype("int32"),
    }


def _known_later(
    rng: np.random.Generator, arrival: pd.Series, frame: pd.DataFrame
) -> dict[str, Any]:
    rows, canceled = len(frame), frame["is_canceled"].to_numpy() == 1
    nights = frame["stays_in_weekend_nights"] + frame["stays_in_week_nights"]
    before = np.floor(rng.random(rows) * (frame["lead_time"] + 1))
    days = np.where(canceled, -before, nights)
    no_show = canceled & (rng.random(rows) < 0.03)
    outcome = np.where(no_show, "No-Show", np.where(canceled, "Canceled", "Check-Out"))
    moved = rng.random(rows) < 0.1
    return {
        "assigned_room_type": np.where(moved, "D", frame["reserved_room_type"]),
        "booking_changes": rng.poisson(0.2, rows).astype("int32"),
        "days_in_waiting_list": np.where(rng.random(rows) < 0.03, 30, 0).astype("int32"),
        "required_car_parking_spaces": (~canceled & (rng.random(rows) < 0.1)).astype("int32"),
        "reservation_status": outcome,
        "reservation_status_date": (arrival + pd.to_timedelta(days, unit="D"))
        .dt.strftime("%Y-%m-%d")
        .astype("object"),
    }


def _with_quirks(rng: np.random.Generator, frame: pd.DataFrame) -> pd.DataFrame:
    """Bookings of nobody, impossible rates, children unknown, and records delivered twice."""
    odd = rng.choice(len(frame), 80, replace=False)
    frame.loc[odd[:40], ["adults", "babies"]] = 0
    frame.loc[odd[:40], "children"] = 0.0
    frame.loc[odd[40:60], "adr"] = -6.38
    frame.loc[odd[60], "adr"] = 5400.0
    frame.loc[odd[61:65], "children"] = np.nan
    again = frame.iloc[np.sort(odd[65:])]
    return pd.concat([frame, again]).sort_values("source_row", kind="stable", ignore_index=True)


def _pick(
    rng: np.random.Generator, rows: int, values: Sequence[str], shares: Sequence[float]
) -> np.ndarray:
    return rng.choice(np.array(list(values), dtype="object"), rows, p=np.array(shares))


COLUMNS = [
    "hotel", "is_canceled", "lead_time", "arrival_date_year", "arrival_date_month",
    "arrival_date_week_number", "arrival_date_day_of_month", "stays_in_weekend_nights",
    "stays_in_week_nights", "adults", "children", "babies", "meal", "country", "market_segment",
    "distribution_channel", "is_repeated_guest", "previous_cancellations",
    "previous_bookings_not_canceled", "reserved_room_type", "assigned_room_type",
    "booking_changes", "deposit_type", "agent", "company", "days_in_waiting_list",
    "customer_type", "adr", "required_car_parking_spaces", "total_of_special_requests",
    "reservation_status", "reservation_status_date", "source_row",
]  # fmt: skip
