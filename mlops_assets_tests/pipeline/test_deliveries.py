"""Deliveries as a person sees them: which are used, which are not, and how that is told."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pandas as pd
import pytest

from mlops_assets.cli import main
from mlops_assets.cli.runs import report
from mlops_assets.runtime.headless.materialize import Outcome
from mlops_assets.stages.alerting.deliveries import delivery_conditions
from mlops_assets.stages.datasets.delivery_report import delivery_reports
from mlops_assets.stages.datasets.judgement import not_used_of
from mlops_assets_tests.pipeline.test_outcomes import COUNTRY, DATASETS, OTHER, VALUE, only
from mlops_assets_tests.pipeline.test_trust import balanced, facts
from mlops_assets_tests.platform import Platform, checks, failures

WEEK = ["2025-01-06", "2025-01-13", "2025-01-20", "2025-01-27"]


def week(first: str, *countries: str) -> pd.DataFrame:
    days = pd.date_range(first, periods=7).strftime("%Y-%m-%d")
    return pd.DataFrame(
        [(country, day, 2000.0) for country in countries or (COUNTRY,) for day in days],
        columns=["Country", "Date", VALUE],
    )


def bad(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(**{VALUE: -1.0})


def not_used(platform: Platform) -> list[tuple[str, int, int, str]]:
    made = platform.store.current(("parcels", "quarantine"), COUNTRY)
    return [(each.file, each.rows, each.rejected, each.verdict) for each in not_used_of(made)]


def told(platform: Platform) -> list[str]:
    now = dt.datetime.now(dt.UTC)
    return [each.title for each in delivery_conditions(platform.context, now)]


def days_of(platform: Platform) -> int:
    return len(platform.frame("validated", COUNTRY))


def test_a_small_delivery_that_is_wholly_bad_stops_its_country_and_no_row_of_it_is_used(
    platform: Platform, sample: pd.DataFrame
) -> None:
    platform.deliver(sample)
    assert platform.run(COUNTRY, assets=DATASETS).success
    before = platform.version("validated", COUNTRY)
    platform.deliver(week(WEEK[0]).assign(**{VALUE: -1.0}), "week.parquet")
    result = platform.run(COUNTRY, assets=DATASETS)
    assert not result.success
    assert "7 of 7 rows delivered since the last good data (100.0%)" in failures(result)
    assert platform.version("validated", COUNTRY) == before
    assert not_used(platform) == [("week.parquet", 7, 7, "refused")]
    assert platform.status()[COUNTRY].state == "contract_broken"
    assert checks(result)["validated.ledger"].passed


def test_a_good_file_is_used_beside_a_bad_one_until_that_is_corrected(
    platform: Platform, sample: pd.DataFrame
) -> None:
    mine = len(only(sample, COUNTRY))
    platform.deliver(sample)
    assert platform.run(COUNTRY, assets=DATASETS).success
    broken = week(WEEK[0])
    broken.loc[:3, VALUE] = -1.0
    platform.deliver(broken, "broken.parquet")
    platform.deliver(week(WEEK[1]), "good.parquet")
    result = platform.run(COUNTRY, assets=DATASETS)
    assert result.success, failures(result)
    contract = checks(result)["validated.contract"]
    assert (contract.passed, contract.severity.value) == (False, "WARN")
    assert "broken.parquet (4 of 7 rows break the contract)" in str(contract.description)
    assert days_of(platform) == mine + 7
    ledger = facts(checks(result)["validated.ledger"])
    assert ledger["held back (delivery refused, or not known yet)"] == "3"
    assert checks(result)["validated.ledger"].passed
    status = platform.status()[COUNTRY]
    assert status.state == "behind"
    assert "not used: broken.parquet (4 of 7 rows break the contract)" in status.why
    assert told(platform) == [f"parcels {COUNTRY}: broken.parquet is not used"]

    platform.deliver(week(WEEK[2]), "next.parquet")
    assert platform.run(COUNTRY, assets=["raw"]).success
    assert "broken.parquet" not in str(platform.status()[COUNTRY]), "until it is judged again"
    assert told(platform) == []
    assert platform.run(COUNTRY, assets=DATASETS).success
    assert days_of(platform) == mine + 14, "no row of it slips in with a later delivery"
    assert not_used(platform) == [("broken.parquet", 7, 4, "refused")]

    platform.deliver(week(WEEK[0]).iloc[:4], "corrected.parquet")
    result = platform.run(COUNTRY, assets=DATASETS)
    assert result.success, failures(result)
    assert days_of(platform) == mine + 21
    assert not_used(platform) == []
    assert told(platform) == []
    assert checks(result)["validated.ledger"].passed
    assert balanced(platform, COUNTRY)


def test_a_bad_new_version_of_a_file_leaves_the_rows_it_replaced_in_use(
    platform: Platform, sample: pd.DataFrame
) -> None:
    mine = len(only(sample, COUNTRY))
    platform.deliver(sample)
    platform.deliver(week(WEEK[0]), "first.parquet")
    assert platform.run(COUNTRY, assets=DATASETS).success
    platform.deliver(bad(week(WEEK[0])), "first.parquet")
    platform.deliver(week(WEEK[1]), "second.parquet")
    result = platform.run(COUNTRY, assets=DATASETS)
    assert result.success, failures(result)
    assert days_of(platform) == mine + 14
    assert not_used(platform) == [("first.parquet", 7, 7, "refused")]
    assert checks(result)["validated.ledger"].passed
    assert checks(result)["validated.restated_history"].passed

    platform.deliver(week(WEEK[0]).assign(**{VALUE: 2100.0}), "first.parquet")
    result = platform.run(COUNTRY, assets=DATASETS)
    assert result.success, failures(result)
    assert not_used(platform) == []
    used = platform.frame("validated", COUNTRY)
    assert used.loc[used["demand"] == 2100.0, "date"].dt.strftime("%Y-%m-%d").tolist() == list(
        week(WEEK[0])["Date"]
    )
    assert checks(result)["validated.ledger"].passed


def test_two_records_of_2062_are_rejected_and_the_country_goes_on(
    platform: Platform, sample: pd.DataFrame
) -> None:
    ahead = pd.DataFrame(
        {"Country": COUNTRY, "Date": ["2062-11-15", "2062-11-16", "1970-01-01"], VALUE: 3000.0}
    )
    platform.deliver(pd.concat([sample, ahead], ignore_index=True))
    result = platform.run(COUNTRY, assets=DATASETS)
    assert result.success, failures(result)
    rules = platform.frame("quarantine", COUNTRY)["_rules"].value_counts().to_dict()
    assert rules == {"date: beyond_now": 2, "date: before_earliest": 1}
    last = platform.frame("validated", COUNTRY)["date"].max()
    assert last == pd.Timestamp(only(sample, COUNTRY)["Date"].max())
    freshness = checks(result)["validated.freshness"].description
    assert str(last) in str(freshness)


def test_every_ingestion_ends_with_a_report_against_those_before(
    platform: Platform, sample: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    first, last = "DEU", "NOR"
    platform.deliver(sample)
    found = checks(platform.run_range(first, last))["raw.delivery"]
    assert found.passed
    assert f"files: 1 (delivery.parquet); rows: {len(sample):,}; countries: 3" in found.description
    platform.deliver(week(WEEK[0], "DEU", "FRA", "NO"), "week.parquet")
    assert checks(platform.run_range(first, last))["raw.delivery"].passed
    found = checks(platform.run_range(first, last))["raw.delivery"]
    assert found.description.startswith("no new files; the newest, of ")
    assert found.description.endswith("UTC: files: 1 (week.parquet); rows: 21; countries: 3")
    platform.deliver(week(WEEK[1], COUNTRY, "XXX").assign(Deliveries=1.0), "odd.parquet")
    platform.deliver(week(WEEK[2]).rename(columns={VALUE: "Deliveries"}), "lacking.parquet")
    result = platform.run_range(first, last)
    found = checks(result)["raw.delivery"]
    assert (found.passed, found.severity.value) == (False, "WARN")
    assert found.description == (
        "set aside, so that no row of it is used: lacking.parquet. odd.parquet: a column "
        "'Deliveries', which no earlier file had. no row of DEU, NOR, which all of the 2 "
        "deliveries before had. "
        "delivered: files: 1 (odd.parquet); rows: 14; countries: 1; 7 rows of countries that are "
        "not listed; set aside: lacking.parquet"
    )
    row, other = found.metadata["files"].records
    assert (other.data["file"], other.data["rows"]) == ("lacking.parquet", 0)
    assert f"no column '{VALUE}'" in str(other.data["why"])
    assert (row.data["file"], row.data["rows"], row.data["countries"]) == ("odd.parquet", 14, 1)
    reports = delivery_reports(platform.context)
    assert [len(each.said) for each in reports] == [0, 0, 3]
    assert reports[-1].run_id == result.run_id
    assert reports[-1].facts.by_country == {COUNTRY: 7}
    assert told(platform) == ["parcels: a delivery is unlike those before"]

    monkeypatch.setenv("MLOPS_ASSETS_HOME", str(platform.home))
    monkeypatch.setenv("MLOPS_ASSETS_DEFS", str(platform.product.folder.parent))
    for name, arguments in (("all", []), ("of one", ["--country", OTHER])):
        monkeypatch.setattr("sys.argv", ["mlops-assets", "deliveries", "parcels", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0
        assert ("odd.parquet" in capsys.readouterr().out) == (name == "all")


def test_what_is_not_used_is_a_line_for_all_countries_of_which_the_same_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = "week.csv (7 of 7 rows break the contract)"
    outcome = Outcome("parcels", runs=3, delivered="files: 2 (week.csv, more.csv); rows: 28")
    outcome.not_used.update({"DEU": said, "FRA": said})
    report([outcome])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "delivered: parcels: files: 2 (week.csv, more.csv); rows: 28"
    assert lines[1].startswith(f"not used: parcels DEU, FRA: {said}; the rest goes on.")


def test_a_file_that_is_set_aside_needs_a_person_and_its_reason_is_told_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    why = "b.csv: it has no column 'Demand'."
    outcome = Outcome("parcels", runs=1, delivered="files: 0; rows: 0; set aside: b.csv")
    outcome.warnings["all countries"] = (
        f"raw.files_readable: {why}",
        f"raw.delivery: set aside, so that no row of it is used: b.csv. delivered: "
        f"{outcome.delivered}",
    )
    outcome.set_aside = ("b.csv",)
    assert outcome.needed == 1
    report([outcome])
    said = capsys.readouterr().out
    assert said.count(why) == said.count(outcome.delivered) == 1
    assert "not used: parcels: b.csv; the warning of files_readable says why." in said
    assert said.splitlines()[-1] == "parcels: 1 runs; 1 need a person"
