"""Generated products whose world changes, and one whose world does not.

Features are made directly, as a product's own function would give them, so that a policy is tried
on hundreds of countries in minutes.

- `calm`: a row is a day of a shop; nothing changes.
- `demand`: the same; in a third of the countries what drives demand changes at once, in a third
  slowly.
- `clinics`: a week of a clinic, in small countries; what brings patients changes twice, country
  after country.
- `waves`: a week of an epidemic, in 200 countries; variants arrive at different times, and people
  react.
- `conversion`: an offer to a visitor; what makes people buy changes for all in one night, and for a
  third of the countries slowly as well.

`calm`, `demand` and `clinics` are what defaults may be tuned on; `waves` and `conversion` are not
looked at while they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlops_assets.spec import ProductSpec

DAY, WEEK = pd.Timedelta(days=1), pd.Timedelta(weeks=1)
_PERIOD = pd.Timestamp("2021-01-04"), pd.Timestamp("2022-06-30")
"""First moment of every walk, and the last event."""
_WEEKLY = {
    "holdout_days": 91,
    "validation_days": 56,
    "refit": True,
    "min_train_rows": 40,
    "min_holdout_rows": 10,
}
"""Split of products with a row a week."""


@dataclass(frozen=True)
class World:
    """A product with its features, and the stretch of time a policy is tried on.

    Attributes:
        name: of the world.
        spec: of the product; monitoring, retraining and decision are the defaults.
        frames: features by country, by event time.
        start: first moment.
        end: no event, and no label known, after it.
    """

    name: str
    spec: ProductSpec
    frames: Mapping[str, pd.DataFrame]
    start: pd.Timestamp
    end: pd.Timestamp


def calm(seed: int = 1, countries: int = 24) -> World:
    """Shops whose demand follows the same rules for ever."""
    return _shops("calm", seed, countries, changes=False)


def demand(seed: int = 2, countries: int = 24) -> World:
    """Shops: a third of the countries changes at once, a third slowly, a third not."""
    return _shops("demand", seed, countries, changes=True)


def clinics(seed: int = 5, countries: int = 80) -> World:
    """Patients of one to three clinics a country: too few rows to judge a country alone."""
    keys = _keys(countries)
    frames = {key: _patients(np.random.default_rng([seed, n])) for n, key in enumerate(keys)}
    spec = _spec(
        keys,
        task="regression",
        metric="mae",
        unit="patients a bed",
        matures_after="1w",
        split=_WEEKLY,
        baselines=[
            {"name": "as_last_week", "rule": "feature", "feature": "load"},
            {"name": "mean", "rule": "mean"},
        ],
        limits=(-100.0, 100.0),
        loss="squared_error",
    )
    return World("clinics", spec, frames, *_PERIOD)


def waves(seed: int = 3, countries: int = 200) -> World:
    """An epidemic: growth of next week's cases, in countries of all sizes."""
    keys = _keys(countries)
    frames = {key: _epidemic(np.random.default_rng([seed, n])) for n, key in enumerate(keys)}
    spec = _spec(
        keys,
        task="regression",
        metric="mae",
        unit="log ratio",
        matures_after="1w",
        split=_WEEKLY,
        baselines=[
            {"name": "as_last_week", "rule": "feature", "feature": "growth_1"},
            {"name": "mean", "rule": "mean"},
        ],
        limits=(-10.0, 10.0),
        loss="squared_error",
    )
    return World("waves", spec, frames, *_PERIOD)


def conversion(seed: int = 4, countries: int = 40) -> World:
    """Offers: whether a visitor buys; what makes people buy changes for all in one night."""
    keys = _keys(countries)
    frames = {
        key: _offers(np.random.default_rng([seed, n]), slowly=n % 3 == 0)
        for n, key in enumerate(keys)
    }
    spec = _spec(
        keys,
        task="classification",
        metric="auc",
        unit="probability",
        matures_after="3d",
        split={"holdout_days": 120, "validation_days": 60, "refit": True, "min_train_rows": 1000},
        baselines=[{"name": "prior", "rule": "mean"}],
        limits=(0.0, 1.0),
        loss="log_loss",
    )
    return World("conversion", spec, frames, *_PERIOD)


WORLDS: Mapping[str, Callable[..., World]] = {
    "calm": calm,
    "demand": demand,
    "clinics": clinics,
    "waves": waves,
    "conversion": conversion,
}
"""By name; each is the same on every machine."""
TUNED_ON = ("calm", "demand", "clinics")


# Shops


def _shops(name: str, seed: int, countries: int, *, changes: bool) -> World:
    keys = _keys(countries)
    frames = {
        key: _shop(np.random.default_rng([seed, n]), n % 3 if changes else 0)
        for n, key in enumerate(keys)
    }
    spec = _spec(
        keys,
        task="regression",
        metric="mae",
        unit="items",
        matures_after="1d",
        split={"holdout_days": 120, "validation_days": 60, "refit": True, "min_train_rows": 250},
        baselines=[
            {"name": "as_today", "rule": "feature", "feature": "sold"},
            {"name": "mean", "rule": "mean"},
        ],
        limits=(-1000.0, 10000.0),
        loss="squared_error",
    )
    return World(name, spec, frames, *_PERIOD)


def _shop(rng: np.random.Generator, change: int) -> pd.DataFrame:
    """A country's days; change 0: none, 1: at once, 2: slowly."""
    event = pd.date_range("2019-01-01", "2022-06-30")
    days = len(event)
    price, weather = _remembering(rng, days, 0.9), _remembering(rng, days, 0.7)
    weekday = event.dayofweek.to_numpy()
    when = int(rng.integers(760, 1150))
    if change == 1:
        turned = (np.arange(days) >= when).astype("float64")
    elif change == 2:
        turned = np.clip((np.arange(days) - when) / 240, 0, 1)
    else:
        turned = np.zeros(days)
    size = float(rng.lognormal(3, 0.6))
    drive = -0.3 * price * (1 - 1.6 * turned) + 0.2 * weather * (1 + turned)
    level = size * np.exp(drive + 0.25 * (weekday >= 5) + 0.3 * turned)
    sold = level * np.exp(rng.normal(0, 0.12, days))
    return pd.DataFrame(
        {
            "entity": "shop",
            "event_time": event[:-1],
            "label_time": event[1:],
            "label": sold[1:],
            "price": price[1:],
            "weather": weather[1:] + rng.normal(0, 0.3, days - 1),
            "weekday": weekday[1:].astype("float64"),
            "sold": sold[:-1],
            "sold_week_ago": np.r_[np.full(6, np.nan), sold[:-7]],
        }
    )


def _remembering(rng: np.random.Generator, length: int, memory: float) -> np.ndarray:
    """A standard autoregressive series, shape (length,)."""
    noise = rng.normal(0, np.sqrt(1 - memory**2), length)
    found = np.empty(length)
    found[0] = rng.normal()
    for n in range(1, length):
        found[n] = memory * found[n - 1] + noise[n]
    return found


# Clinics


def _patients(rng: np.random.Generator) -> pd.DataFrame:
    """A country's weeks; what brings patients changes twice, up to two months apart by country."""
    event = pd.date_range("2019-06-03", "2022-06-27", freq="W-MON")
    lag = int(rng.integers(0, 9))
    parts = [_clinic(rng, event, f"clinic {n}", lag) for n in range(int(rng.integers(1, 4)))]
    frame = pd.concat(parts, ignore_index=True)
    return frame.sort_values(["event_time", "entity"], ignore_index=True)


def _clinic(rng: np.random.Generator, event: pd.DatetimeIndex, name: str, lag: int) -> pd.DataFrame:
    weeks = len(event)
    age = np.arange(weeks) - lag
    first, second = (np.clip((age - begin) / 4, 0, 1) for begin in (100, 128))
    cold, holiday = _remembering(rng, weeks, 0.8), (rng.random(weeks) < 0.15).astype("float64")
    news = _remembering(rng, weeks, 0.6)
    load = (
        0.8 * cold * (1 - 1.3 * first + 0.9 * second)
        - 1.0 * holiday * (1 - second)
        + 0.6 * news * (first + 0.2)
        + 0.5 * second
        + rng.normal(0, 0.35, weeks)
    )
    return pd.DataFrame(
        {
            "entity": name,
            "event_time": event[:-1],
            "label_time": event[:-1] + WEEK,
            "label": load[1:],
            "cold": cold[1:],
            "holiday": holiday[1:],
            "news": news[1:],
            "load": load[:-1],
        }
    )


# An epidemic

_GENERATION = np.array([0.6, 0.3, 0.1])
"""Of those infected in a week: share of their infections one, two and three weeks later."""
_WEEKS = pd.date_range("2020-03-02", "2022-06-27", freq="W-MON")


def _epidemic(rng: np.random.Generator) -> pd.DataFrame:
    cases = _cases(rng)
    log = np.log1p(cases)
    growth = np.diff(log, prepend=log[0])
    known = np.arange(len(cases)) >= 6
    columns = {f"growth_{lag}": _before(growth, lag - 1) for lag in (1, 2, 3, 4)}
    peak = np.maximum.accumulate(cases)
    frame = pd.DataFrame(
        {
            "entity": "country",
            "event_time": _WEEKS,
            "label_time": _WEEKS + WEEK,
            "label": np.r_[np.diff(log), np.nan],
            "log_cases": log,
            "to_peak": np.divide(cases, peak, out=np.zeros_like(cases), where=peak > 0),
            "to_month_ago": _before(log, 0) - _before(log, 4),
            "month_of_year": _WEEKS.month.to_numpy("float64"),
            **columns,
        }
    )
    return frame[known & frame["label"].notna().to_numpy()].reset_index(drop=True)


def _before(values: np.ndarray, lag: int) -> np.ndarray:
    return np.r_[np.full(lag, np.nan), values[: len(values) - lag]]


def _cases(rng: np.random.Generator) -> np.ndarray:
    """Reported cases a week: renewal, susceptibles, variants, people who react, and reporting."""
    weeks, people = len(_WEEKS), float(rng.lognormal(15.0, 2.0)) + 2e4
    reports, spread = rng.uniform(0.05, 0.5), 10 ** rng.uniform(0.5, 2.5)
    infected, immune = np.zeros(weeks), 0.0
    reacts, lag = rng.uniform(0.5, 2.0), int(rng.integers(0, 12))
    infected[:3] = np.maximum(rng.uniform(0, 40, 3), 1)
    for week in range(3, weeks):
        strength, escape, patience = _variant(week - lag)
        immune *= 1 - escape
        season = 1 + 0.15 * np.cos(2 * np.pi * (week - 44) / 52)
        fear = 1 / (1 + reacts * patience * 400 * infected[week - 1] / people)
        rate = strength * season * fear * max(1 - immune / people, 0.0)
        mean = rate * float(_GENERATION @ infected[week - 3 : week][::-1])
        infected[week] = min(mean * rng.lognormal(0, 0.12), people * 0.2) + rng.poisson(0.3)
        immune = min(immune + infected[week], people)
    mean = np.maximum(infected * reports, 1e-9)
    seen = rng.negative_binomial(spread, spread / (spread + mean)).astype("float64")
    return _late_reports(rng, seen)


def _variant(week: int) -> tuple[float, float, float]:
    """Reproduction number, share of immunity lost this week, and how much people still react."""
    arrivals = ((0, 1.6, 1.0), (44, 2.1, 0.9), (68, 3.0, 0.6), (91, 4.5, 0.25))
    strength, patience = 1.6, 1.0
    for begin, reproduction, care in arrivals:
        share = float(np.clip((week - begin) / 6, 0, 1))
        strength += share * (reproduction - strength)
        patience += share * (care - patience)
    return strength, 0.12 if 91 <= week < 96 else 0.004, patience


def _late_reports(rng: np.random.Generator, cases: np.ndarray) -> np.ndarray:
    """A week in forty is reported with the next one."""
    late = np.flatnonzero(rng.random(len(cases) - 1) < 1 / 40)
    for week in late:
        cases[week + 1] += cases[week]
        cases[week] = 0.0
    return cases


# Offers


def _offers(rng: np.random.Generator, *, slowly: bool) -> pd.DataFrame:
    days = pd.date_range("2020-01-01", "2022-06-30")
    counts = rng.poisson(rng.lognormal(2.2, 0.9), len(days))
    event = np.repeat(days.to_numpy(), counts) + rng.integers(0, 86_400, counts.sum()).astype(
        "timedelta64[s]"
    )
    event.sort()
    n = len(event)
    age = (event - np.datetime64("2020-01-01")) / np.timedelta64(1, "D")
    night = 420 + 120 + 0 * age  # the same for all: late in June 2021
    turned = (age >= night).astype("float64")
    slow = np.clip((age - 450) / 400, 0, 1) if slowly else 0 * age
    discount, visits, income = rng.normal(size=(3, n))
    device = rng.choice(["phone", "tablet", "desk"], n, p=[0.6, 0.1, 0.3]).astype("object")
    own = rng.normal(0, 0.3)
    logit = (
        -1.2
        + own
        + 0.9 * discount * (1 - 1.2 * turned)
        + 0.7 * visits * (1 - slow)
        + 0.5 * income * (1 + turned) * np.where(device == "desk", 1.0, 0.4)
        + 0.6 * slow * np.tanh(income * visits)
    )
    bought = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype("float64")
    event_time = pd.Series(event)
    return pd.DataFrame(
        {
            "entity": [f"v{place}" for place in range(n)],
            "event_time": event_time,
            "label_time": event_time + 3 * DAY,
            "label": bought,
            "discount": discount,
            "visits": visits,
            "income": income,
            "device": device,
        }
    )


# What all have


def _keys(countries: int) -> list[str]:
    return [f"C{place:03d}" for place in range(countries)]


def _spec(
    countries: list[str],
    *,
    task: str,
    metric: str,
    unit: str,
    matures_after: str,
    split: Mapping[str, Any],
    baselines: list[Mapping[str, Any]],
    limits: tuple[float, float],
    loss: str,
) -> ProductSpec:
    """A product with defaults wherever there is one."""
    kind = "Regressor" if task == "regression" else "Classifier"
    params = {"loss": loss, "max_iter": 40, "learning_rate": 0.15, "max_leaf_nodes": 8}
    boosting = f"sklearn.ensemble.HistGradientBoosting{kind}"
    return ProductSpec.model_validate(
        {
            "description": "generated",
            "owners": ["team:bench"],
            "countries": countries,
            "source": {
                "columns": {"country": "country", "time": "time"},
                "country": "country",
                "key": ["country", "time"],
                "event_time": "time",
            },
            "contract": {"schema_class": "contract.Rows"},
            "features": "features.build",
            "task": task,
            "target": {"description": "generated", "unit": unit, "matures_after": matures_after},
            "metric": metric,
            "split": {"min_holdout_rows": 20, **split},
            "baselines": baselines,
            "candidates": [{"name": "gbm", "estimator": boosting, "params": params}],
            "predictions": {"minimum": limits[0], "maximum": limits[1]},
        }
    )
