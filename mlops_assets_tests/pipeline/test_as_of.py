"""Everything made again as of a moment: only what was known then, and nothing in use is touched."""

from __future__ import annotations

import datetime as dt
import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from mlops_assets.defs.booking_cancellation.sample import generate as generate_bookings
from mlops_assets.settings import DEFS
from mlops_assets_tests.pipeline.test_outcomes import CHAIN, COUNTRY, OTHER, VALUE, later, only
from mlops_assets_tests.platform import (
    Platform,
    as_of,
    build_platform,
    checks,
    failures,
    generated,
)

RECORDS = ["raw", "validated", "quarantine"]
TO_FEATURES = [*RECORDS, "features"]
KEYS = ["entity", "event_time", "label_time", "label"]
Then = Callable[..., Platform]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """One in memory: what Dagster holds of these runs is held by other tests."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def then(mlflow_template: Path) -> Iterator[Then]:
    """Makes assets of a country as of a moment, and gives the platform they are in."""
    with ExitStack() as instances:

        def make(
            platform: Platform,
            moment: dt.datetime | str,
            country: str = COUNTRY,
            assets: Sequence[str] = TO_FEATURES,
        ) -> Platform:
            made = as_of(platform, utc(moment), mlflow_template)
            instances.enter_context(made.instance)
            if assets:
                result = made.run(country, assets=assets)
                assert result.success, failures(result)
            return made

        yield make


def utc(moment: dt.datetime | str) -> dt.datetime:
    return pd.Timestamp(moment).tz_localize(None).tz_localize("UTC").to_pydatetime()


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def features_by_pandas(validated: pd.DataFrame, platform: Platform, moment: str) -> pd.DataFrame:
    """The features of the days up to a moment; the label of a day is known a day later."""
    cutoff = pd.Timestamp(moment)
    made = platform.product.feature_function()(validated[validated["date"] <= cutoff])
    made = made.sort_values("event_time", ignore_index=True)
    made["label_time"] = made["event_time"] + pd.Timedelta(days=1)
    made["label"] = made["label"].where(made["label_time"] <= cutoff)
    return made[[*KEYS, *(name for name in made if name not in KEYS)]]


def test_features_are_those_of_history_cut_off_at_the_moment(
    platform: Platform, sample: pd.DataFrame, then: Then
) -> None:
    platform.deliver(sample)
    assert platform.run(COUNTRY, assets=TO_FEATURES).success
    for moment in ("2023-01-20", "2024-02-29T11:30"):
        made = then(platform, moment)
        expected = features_by_pandas(platform.frame("validated", COUNTRY), platform, moment)
        pd.testing.assert_frame_equal(made.frame("features", COUNTRY), expected, check_exact=True)
        assert made.frame("features", COUNTRY)["label"].isna().sum() == 1
        validated = made.frame("validated", COUNTRY)
        assert validated["date"].max() == pd.Timestamp(moment).normalize()
        assert len(validated) == (pd.Timestamp(moment) - pd.Timestamp("2023-01-01")).days + 1


def test_the_ledger_counts_the_records_that_were_not_known_yet(
    platform: Platform, sample: pd.DataFrame, then: Then
) -> None:
    mine = sample.index[sample["Country"] == COUNTRY]
    sample.loc[[mine[3], mine[-3]], VALUE] = -1.0
    sample.loc[mine[5], "Date"] = "some day"
    platform.deliver(sample)
    assert platform.run(COUNTRY, assets=["raw"]).success
    result = then(platform, "2024-12-01", assets=[]).run(COUNTRY, assets=TO_FEATURES)
    assert result.success, failures(result)
    found = checks(result)
    assert found["validated.ledger"].description == (
        f"{len(mine)} raw = {len(mine) - 32} validated + 2 quarantine + 0 duplicates + 30 held back"
    )
    assert found["validated.contract"].metadata["rejected"].value == 2, "the third one is of later"
    assert all(check.passed for name, check in found.items() if name != "validated.contract")


def test_rows_that_a_later_delivery_brought_are_not_there_even_if_they_speak_of_days_before(
    platform: Platform, sample: pd.DataFrame, then: Then
) -> None:
    late = sample["Date"] == "2024-05-05"
    platform.deliver(sample[~late])
    assert platform.run(COUNTRY, assets=TO_FEATURES).success
    between = now()
    first = platform.frame("features", COUNTRY)
    platform.deliver(pd.concat([sample[late], later(sample)]), "second.parquet")
    assert platform.run(COUNTRY, assets=TO_FEATURES).success
    assert len(platform.frame("validated", COUNTRY)) == len(first) + 11
    pd.testing.assert_frame_equal(then(platform, between).frame("features", COUNTRY), first)
    early = then(platform, "2024-06-30", assets=RECORDS).frame("validated", COUNTRY)
    assert not (early["date"] == "2024-05-05").any()
    whole = then(platform, now())
    pd.testing.assert_frame_equal(
        whole.frame("features", COUNTRY), platform.frame("features", COUNTRY)
    )


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_value_that_was_restated_is_the_old_one_before_and_the_new_one_after(
    platform: Platform, sample: pd.DataFrame, then: Then
) -> None:
    row = sample.index[(sample["Country"] == COUNTRY) & (sample["Date"] == "2024-03-04")][0]
    gone = sample.index[(sample["Country"] == COUNTRY) & (sample["Date"] == "2024-03-06")]
    old = float(sample[VALUE].to_numpy()[row])
    platform.deliver(sample)
    assert platform.run(COUNTRY, assets=TO_FEATURES).success
    between = now()
    restated = sample.drop(index=gone)
    restated.loc[row, VALUE] = old + 100
    platform.deliver(restated)
    assert platform.run(COUNTRY, assets=TO_FEATURES).success
    for moment, value, days in ((between, old, 1), (now(), old + 100, 0), ("2024-03-10", old, 1)):
        validated = then(platform, moment).frame("validated", COUNTRY).set_index("date")
        assert validated.loc["2024-03-04", "demand"] == value
        assert (validated.index == "2024-03-06").sum() == days


@pytest.mark.nightly  # one more of a kind
def test_as_of_a_moment_twice_is_the_same_whatever_came_since(
    platform: Platform, sample: pd.DataFrame, then: Then
) -> None:
    platform.deliver(sample)
    assert platform.run(COUNTRY, assets=TO_FEATURES).success
    moment = now()
    made = then(platform, moment)
    versions = {name: made.version(name, COUNTRY) for name in TO_FEATURES}
    platform.deliver(sample.assign(**{VALUE: sample[VALUE] + 1}))
    assert platform.run(COUNTRY, assets=TO_FEATURES).success
    again = then(platform, moment)
    assert {name: again.version(name, COUNTRY) for name in TO_FEATURES} == versions


def everything_in(home: Path) -> dict[str, str]:
    """Every file of a home but those made as of a moment, with a hash of its content."""
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(home.rglob("*"))
        if path.is_file() and path.relative_to(home).parts[0] != "as_of"
    }


def test_a_model_as_of_a_moment_touches_no_store_registry_or_instance_in_use(
    ran: Platform, then: Then
) -> None:
    # Before the files are looked at: opening a registry makes SQLite's own files beside it.
    champion = ran.registry.champion("parcels", COUNTRY)
    before, runs = everything_in(ran.home), ran.instance.get_runs_count()
    made = then(ran, "2024-12-27", assets=CHAIN)
    assert everything_in(ran.home) == before
    assert ran.instance.get_runs_count() == runs
    assert ran.registry.champion("parcels", COUNTRY) == champion
    of_then = made.registry.champion("parcels", COUNTRY)
    assert of_then is not None
    predictions = made.frame("predictions", COUNTRY)
    assert predictions["event_time"].max() == pd.Timestamp("2024-12-27")
    assert set(predictions["model_version"]) == {of_then.version}
    assert not (made.landing.exists() and any(made.landing.iterdir()))


def test_before_any_record_nothing_is_made_and_the_reason_says_so(
    platform: Platform, sample: pd.DataFrame, then: Then
) -> None:
    platform.deliver(sample)
    assert platform.run(COUNTRY, assets=["raw"]).success
    made = then(platform, "2022-12-31", assets=[])
    result = made.run(COUNTRY, assets=TO_FEATURES)
    assert not result.success
    assert "731 rows were not known at the moment of this run" in failures(result)
    assert made.version("validated", COUNTRY) is None


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_country_that_was_never_taken_fails_alone_and_is_told_where_it_was_looked_for(
    platform: Platform, sample: pd.DataFrame, then: Then
) -> None:
    platform.deliver(only(sample, COUNTRY))
    assert platform.run(COUNTRY, assets=["raw"]).success
    made = then(platform, "2024-06-30", assets=[])
    result = made.run_range("DEU", "NOR")
    assert not result.success
    assert "no row of DEU, NOR was ever delivered" in failures(result)
    assert platform.store.uri in failures(result)
    assert "Drop a file" not in failures(result)
    assert made.materialized("raw") == {COUNTRY}


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_country_whose_rows_cannot_be_read_keeps_the_others_from_nothing(
    platform: Platform, sample: pd.DataFrame, then: Then
) -> None:
    platform.deliver(sample)
    assert platform.run_range("DEU", "NOR").success
    held = platform.store.current(("parcels", "raw"), OTHER)
    assert held is not None
    Path(held.uri).write_bytes(b"damaged")
    made = then(platform, "2024-06-30", assets=[])
    result = made.run_range("DEU", "NOR")
    assert not result.success
    assert OTHER in failures(result)
    assert made.materialized("raw") == {"FRA", "NOR"}


ARRIVES = (
    ("      demand: Demand (parcels)\n", "      demand: Demand (parcels)\n      out: Published\n"),
    ("    event_time: date\n", "    event_time: date\n    arrival_time: out\n"),
)
ARRIVAL = ("    demand: float", "    out: pd.Timestamp = pa.Field()\n    demand: float")


def published(sample: pd.DataFrame, days: int = 0, every: int = 1) -> pd.DataFrame:
    """The sample with the day each record was published: every so many days, days too late."""
    date = pd.to_datetime(sample["Date"])
    late = (date.dt.dayofyear % every == 0) * days
    return sample.assign(Published=(date + pd.to_timedelta(late, unit="D")).dt.strftime("%Y-%m-%d"))


@pytest.mark.nightly  # one more of a kind
def test_records_count_from_their_arrival_on(
    make_platform: Callable[..., Platform], then: Then
) -> None:
    platform = make_platform(*ARRIVES, contract=ARRIVAL)
    sample = published(generated(platform))
    late = (sample["Country"] == COUNTRY) & sample["Date"].isin(["2024-06-03", "2024-06-05"])
    sample.loc[late, "Published"] = "2024-06-20"
    platform.deliver(sample)
    assert platform.run(COUNTRY, assets=["raw", "validated", "quarantine"]).success
    validated = platform.frame("validated", COUNTRY)
    for moment, missing in (("2024-06-10", 2), ("2024-06-19", 2), ("2024-06-20", 0)):
        made = then(platform, moment)
        known = made.frame("validated", COUNTRY)
        expected = validated[(validated["date"] <= moment) & (validated["out"] <= moment)]
        pd.testing.assert_frame_equal(known, expected.reset_index(drop=True))
        assert len(known) == (validated["date"] <= moment).sum() - missing
        features = made.frame("features", COUNTRY)
        (day,) = features[features["event_time"] == "2024-06-09"].to_dict("records")
        days = known[known["date"].between("2024-06-03", "2024-06-09")]["demand"]
        assert day["mean_of_week"] == pytest.approx(days.mean(), rel=1e-12)
        assert np.isnan(day["demand_week_ago"]) == bool(missing)


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_of_two_published_values_the_one_known_at_the_moment_is_used(
    make_platform: Callable[..., Platform], then: Then
) -> None:
    platform = make_platform(*ARRIVES, contract=ARRIVAL)
    sample = only(published(generated(platform)), COUNTRY)
    revised = sample[sample["Date"] == "2024-06-03"].assign(Published="2024-07-01", **{VALUE: 1.0})
    first = sample.loc[sample["Date"] == "2024-06-03", VALUE].item()
    platform.deliver(pd.concat([sample, revised], ignore_index=True))
    assert platform.run(COUNTRY, assets=["raw"]).success
    for moment, value in (("2024-06-30", first), ("2024-07-01", 1.0)):
        made = then(platform, moment).frame("validated", COUNTRY).set_index("date")
        assert made.loc["2024-06-03", "demand"] == value


def test_a_feature_that_uses_a_record_before_it_arrived_is_caught(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform(*ARRIVES, contract=ARRIVAL)
    sample = only(generated(platform), COUNTRY)
    platform.deliver(published(sample))
    assert platform.run(COUNTRY, assets=TO_FEATURES).success
    before = platform.version("features", COUNTRY)
    platform.deliver(published(sample, days=10, every=3))
    result = platform.run(COUNTRY, assets=TO_FEATURES)
    assert not result.success
    check = checks(result)["features.point_in_time"]
    assert (check.passed, check.partition) == (False, COUNTRY)
    assert "know the future" in check.description
    assert platform.version("features", COUNTRY) == before


@pytest.fixture
def bookings(tmp_path: Path, instance: dg.DagsterInstance, mlflow_template: Path) -> Platform:
    """Cancellations of hotel bookings in one country, delivered and validated."""
    folder = shutil.copytree(DEFS / "booking_cancellation", tmp_path / "defs" / "bookings")
    platform = build_platform(folder, tmp_path / "home", instance, mlflow_template)
    sample = generate_bookings(7)
    platform.deliver(sample[sample["country"] == "NOR"])
    result = platform.run("NOR", assets=["raw", "validated", "quarantine"])
    assert result.success, failures(result)
    return platform


def test_what_is_known_on_arrival_is_hidden_from_bookings_whose_guests_have_not_arrived(
    bookings: Platform, then: Then
) -> None:
    validated = bookings.frame("validated", "NOR")
    for moment in ("2016-08-15T13:00", "2017-08-31"):
        cutoff, made = pd.Timestamp(moment), then(bookings, moment, "NOR")
        known = validated[validated["booking_date"] <= cutoff].copy()
        happened = known["is_canceled"].where(known["arrival_date"] <= cutoff)
        known["is_canceled"] = happened.astype("Int64")
        expected = bookings.product.feature_function()(known).sort_values(
            ["event_time", "entity"], ignore_index=True
        )
        expected = expected[[*KEYS, *(name for name in expected if name not in KEYS)]]
        found = made.frame("features", "NOR")
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
        to_come = found["label_time"] > cutoff
        assert found["label"].isna().equals(to_come)
        assert to_come.any() == (moment != "2017-08-31")
        assert 0 < len(found) <= len(validated)
