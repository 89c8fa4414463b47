"""What is held out of the records of all countries before they are shared."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from mlops_assets.ml.features.plausibility import held_from, plausible_records
from mlops_assets.ml.features.shared_features import build_shared, check_shared_point_in_time
from mlops_assets.spec import SharingSpec, SourceSpec, TargetSpec

SOURCE = SourceSpec(
    columns={"country": "c", "date": "d", "shop": "s", "price": "p", "final": "f"},
    country="country",
    key=["country", "date", "shop"],
    event_time="date",
    known_later=["final"],
)
TARGET = TargetSpec(description="price", unit="EUR", matures_after="1d")
COUNTRIES = ("DEU", "ESP", "FRA", "NOR", "POL")
DAYS, WEEK = 120, 7


def records(shops: int = 1, hours: int = 24) -> dict[str, pd.DataFrame]:
    """Prices of each country, of some shops at each time; Poland delivered nothing."""
    times = pd.date_range("2024-01-01", periods=DAYS * 24 // hours, freq=f"{hours}h")
    made = {}
    for place, country in enumerate(COUNTRIES):
        rng = np.random.default_rng(place)
        index = pd.MultiIndex.from_product([times, range(shops)], names=["date", "shop"])
        frame = index.to_frame(index=False).assign(country=country)
        price = 10.0 ** (place + 1) * np.exp(rng.normal(0, 0.2, len(frame)))
        made[country] = frame.assign(price=price, final=price)
    made["POL"] = made["POL"].iloc[:0]
    return made


def scaled(
    rows: Mapping[str, pd.DataFrame], countries: tuple[str, ...], factor: float, days: int = WEEK
) -> dict[str, pd.DataFrame]:
    """With the newest days of some countries in another unit."""
    found = dict(rows)
    for country in countries:
        frame = rows[country].copy()
        late = frame["date"] >= frame["date"].max().normalize() - pd.Timedelta(days=days - 1)
        frame["price"] = frame["price"].where(~late, frame["price"] * factor)
        found[country] = frame
    return found


def wide(rows: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    prices = {f"price_{c}": f.groupby("date")["price"].mean() for c, f in rows.items()}
    return pd.DataFrame(prices).rename_axis("event_time").reset_index()


@pytest.mark.parametrize(("shops", "hours"), [(1, 24), (5, 24), (1, 6)])
def test_the_jump_of_one_country_is_held_out_and_all_else_is_shared_as_before(
    shops: int, hours: int
) -> None:
    clean = records(shops, hours)
    found = plausible_records(scaled(clean, ("FRA",), 1000.0), SOURCE, SharingSpec())
    newest = clean["FRA"]["date"].max().normalize() - pd.Timedelta(days=WEEK - 1)
    for country in COUNTRIES:
        before = clean[country]
        kept = before[before["date"] < newest] if country == "FRA" else before
        pd.testing.assert_frame_equal(found.records[country], kept.reset_index(drop=True))
    assert {each.country for each in found.held} == {"FRA"}
    held = found.held[0]
    assert (held.column, held.kind, held.is_open) == ("price", "higher", True)
    assert held.rows == WEEK * shops * 24 // hours
    assert held.value > held.limit > held.usual
    for part in ("price is ", "usual is ", "follows from its past", f"{held.rows:,} rows"):
        assert part in held.describe()
    assert found.incident is None


def test_nothing_is_held_out_of_plausible_records_and_the_very_frames_are_shared() -> None:
    clean = records()
    found = plausible_records(clean, SOURCE, SharingSpec())
    assert not found.held
    assert all(found.records[country] is clean[country] for country in COUNTRIES)


def test_what_is_known_later_and_the_key_hold_nothing_out() -> None:
    rows = records()
    late = rows["FRA"].copy()
    late.loc[late.index[-7:], ["final", "shop"]] = [1e9, 10**6]
    assert not plausible_records({**rows, "FRA": late}, SOURCE, SharingSpec()).held


def test_most_countries_at_once_are_an_incident_and_nobody_shares_those_days() -> None:
    clean = records()
    found = plausible_records(scaled(clean, ("DEU", "ESP"), 1e3), SOURCE, SharingSpec())
    assert found.incident is None  # two of four with records are fewer than three
    found = plausible_records(scaled(clean, ("DEU", "ESP", "FRA"), 1e3), SOURCE, SharingSpec())
    incident = found.incident
    assert incident is not None
    assert (incident.countries, incident.of, incident.is_open) == (("DEU", "ESP", "FRA"), 4, True)
    assert (incident.first, incident.last) == ("2024-04-23", "2024-04-29")
    for country in COUNTRIES[:4]:
        kept = clean[country][:-WEEK]
        pd.testing.assert_frame_equal(found.records[country], kept)
    assert {each.country for each in found.held} == {"DEU", "ESP", "FRA"}
    assert found.incident == held_from(found.plain()).incident


def test_an_incident_goes_on_although_another_country_delivers_a_day_ahead() -> None:
    rows = scaled(records(), ("DEU", "ESP", "FRA"), 1e3)
    other = next(c for c in COUNTRIES if c not in ("DEU", "ESP", "FRA") and len(rows[c]))
    newest = rows[other].tail(1)
    ahead = newest.assign(**{SOURCE.event_time: newest[SOURCE.event_time] + pd.Timedelta(days=1)})
    rows[other] = pd.concat([rows[other], ahead], ignore_index=True)
    found = plausible_records(rows, SOURCE, SharingSpec())
    assert found.incident is not None
    assert found.incident.is_open
    over = records()
    for country in ("DEU", "ESP", "FRA"):
        at = over[country].index[-3 * WEEK : -2 * WEEK]
        over[country].loc[at, "price"] *= 1e3
    ended = plausible_records(over, SOURCE, SharingSpec()).incident
    assert ended is not None
    assert not ended.is_open


def test_switch_limits_and_the_word_of_a_person_decide_what_is_held_out() -> None:
    rows = scaled(records(), ("FRA",), 1000.0)
    assert not plausible_records(rows, SOURCE, SharingSpec(plausible=False)).held
    assert not plausible_records(rows, SOURCE, SharingSpec(min_factor=1e5)).held
    began = dt.date(2024, 4, 23)
    assert not plausible_records(rows, SOURCE, SharingSpec(accepted={"FRA": began})).held
    for other in ({"FRA": began - dt.timedelta(days=1)}, {"DEU": began}):
        assert plausible_records(rows, SOURCE, SharingSpec(accepted=other)).held
    lasting = scaled(records(), ("FRA",), 1000.0, days=40)
    found = plausible_records(lasting, SOURCE, SharingSpec(accept_after="2w"))
    assert [(each.rows, each.is_open) for each in found.held] == [(14, False)]


def test_what_was_held_out_is_stored_and_read_again_and_older_snapshots_have_nothing() -> None:
    found = plausible_records(scaled(records(), ("FRA",), 1000.0), SOURCE, SharingSpec())
    assert held_from(found.plain()).held == found.held
    assert held_from(None).held == ()


def test_shared_features_without_a_jump_know_nothing_of_the_future() -> None:
    found = plausible_records(scaled(records(), ("FRA",), 1000.0), SOURCE, SharingSpec())
    shared = build_shared(found.records, wide)
    assert shared["price_FRA"].isna().sum() == WEEK
    assert shared["price_DEU"].notna().all()
    result = check_shared_point_in_time(
        found.records, shared, wide, SOURCE, target=TARGET, samples=5
    )
    assert result.passed
