"""Drift on the whole platform: one country's chain, many countries in one run, and who is told."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg
import numpy as np
import pandas as pd
from dagster._core.event_api import PartitionKeyFilter

from mlops_assets.ml.monitoring.drift import DriftState
from mlops_assets.stages.monitoring.drift import DRIFT_COLUMNS, state_of_snapshot
from mlops_assets.stages.training.references import stored_reference
from mlops_assets_tests.platform import Platform, checks, failures, generated, made

VALUE = "Demand (parcels)"
KEY = dg.AssetKey(["parcels", "drift"])
DATASETS = ["raw", "validated", "quarantine", "features"]


def state(platform: Platform, country: str) -> DriftState:
    snapshot = platform.store.current(("parcels", "drift"), country)
    assert snapshot is not None
    found = state_of_snapshot(snapshot)
    assert found is not None
    return found


def verdicts(platform: Platform, country: str) -> list[bool]:
    """Every result of the check that Dagster holds for a country, the newest first."""
    history = platform.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(KEY, "drift"), limit=10, partition_filter=PartitionKeyFilter(key=country)
    )
    found = [record.evaluation for record in history]
    done = [each for each in found if isinstance(each, dg.AssetCheckEvaluation)]  # others: planned
    assert all(each.partition == country for each in done)
    return [each.passed for each in done]


def look_at_many(platform: Platform, first: str, last: str) -> dg.ExecuteInProcessResult:
    """One run of drift over countries next to each other, as a backfill launches it."""
    return platform.defs.resolve_job_def("parcels_all").execute_in_process(
        instance=platform.instance,
        asset_selection=[KEY],
        tags={
            "dagster/asset_partition_range_start": first,
            "dagster/asset_partition_range_end": last,
        },
        raise_on_error=False,
    )


def weeks_later(sample: pd.DataFrame, country: str, factor: float) -> pd.DataFrame:
    """The first twelve weeks of the next year: those of last year, one country's multiplied."""
    rows = sample[pd.to_datetime(sample["Date"]).between("2024-01-01", "2024-03-24")].copy()
    rows["Date"] = (pd.to_datetime(rows["Date"]) + pd.Timedelta(weeks=53)).dt.strftime("%Y-%m-%d")
    own = rows["Country"] == country
    rows[VALUE] = np.where(own, (rows[VALUE] * factor).round(), rows[VALUE])
    return rows


def test_a_country_that_changes_alarms_and_the_others_do_not(ran: Platform) -> None:
    platform, sample = ran, generated(ran)
    result = platform.run("DEU")
    assert result.success, failures(result)
    assert "drift" in made(result)
    check = checks(result)["drift.drift"]
    assert (check.passed, check.partition) == (True, "DEU"), check.description
    for country in ("DEU", "FRA"):
        assert verdicts(platform, country) == [True]
        assert state(platform, country).state == "quiet", "winter comes every year"

    platform.deliver(weeks_later(sample, "FRA", 1.6), "later.parquet")
    for country in ("DEU", "FRA"):
        result = platform.run(country, "predict", [*DATASETS, "predictions"])
        assert result.success, failures(result)
    result = look_at_many(platform, "DEU", "NOR")
    assert not result.success
    assert "no predictions yet in NOR" in failures(result)
    assert platform.materialized("drift") == {"DEU", "FRA"}
    assert [verdicts(platform, country) for country in ("DEU", "FRA", "NOR")] == [
        [True, True],
        [False, True],
        [],
    ]
    assert state(platform, "DEU").state == "quiet"
    seen = state(platform, "FRA")
    assert seen.state == "alarm"
    assert "standard deviations higher" in seen.reason
    assert "retraining sensor" in seen.next
    told = platform.told("drift", "FRA")
    assert told["mlops_assets/drift"]["state"] == "alarm"
    assert "svg" in told["change"]
    assert told["summary"].startswith("alarm: ")

    table = platform.frame("drift", "FRA")
    assert list(table.columns) == list(DRIFT_COLUMNS)
    newest = table[table["window_end"] == seen.end].set_index("feature")
    assert newest.loc["prediction", "weight"] == 1.0
    assert newest["deviates"].all()
    assert newest[newest["matters"]].index.str.contains("demand|mean|prediction").all()
    version = platform.version("drift", "FRA")

    result = look_at_many(platform, "DEU", "FRA")
    assert result.success, failures(result)
    assert verdicts(platform, "FRA") == [False, False, True]
    assert platform.version("drift", "FRA") == version
    again = platform.run("FRA", "all", ["drift"])
    assert again.success
    assert not checks(again)["drift.drift"].passed
    assert platform.version("drift", "FRA") == version
    assert platform.told("drift", "FRA")["summary"] == told["summary"]

    champion = platform.registry.champion("parcels", "DEU")
    assert champion is not None
    assert stored_reference(replace(champion, tags={}), platform.registry) is None
    (file,) = (platform.home / "mlflow" / "artifacts").rglob(f"{champion.run_id}/**/reference.json")
    file.write_text("{}")
    result = look_at_many(platform, "DEU", "FRA")
    assert result.success, failures(result)
    assert state(platform, "DEU").state == "not_judged"
    assert "version 1 is damaged" in state(platform, "DEU").reason
    assert state(platform, "FRA").state == "alarm"


def test_a_baseline_is_not_judged_and_says_so(platform: Platform) -> None:
    platform.deliver(generated(platform))
    result = platform.run("DEU", "predict")
    assert result.success, failures(result)
    check = checks(result)["drift.drift"]
    assert check.passed
    assert "the baseline serves" in str(check.description)
    assert state(platform, "DEU").state == "not_judged"
    assert platform.frame("drift", "DEU").empty
    assert list(platform.frame("drift", "DEU").columns) == list(DRIFT_COLUMNS)
    result = look_at_many(platform, "DEU", "FRA")
    assert "no predictions yet in FRA" in failures(result)
    assert verdicts(platform, "DEU") == [True, True]
