"""The landing sensor: nothing lost, nothing asked for twice, only countries with new rows."""

from __future__ import annotations

import dagster as dg
import pandas as pd
import pytest

from mlops_assets.stages.common.base import Storage
from mlops_assets_tests.pipeline.test_outcomes import COUNTRY, OTHER, VALUE, later, only
from mlops_assets_tests.platform import Platform, failures, settle

COUNTRIES = ["DEU", "FRA", "NOR"]


def tick(platform: Platform) -> dg.SensorResult | dg.SkipReason:
    """One evaluation, as the daemon makes it, with nothing remembered from earlier ones."""
    sensor = platform.defs.resolve_sensor_def("parcels_landing")
    storage = Storage(uri=platform.store.uri, landing_uri=str(platform.landing.parent))
    with dg.build_sensor_context(
        instance=platform.instance, sensor_name="parcels_landing", resources={"storage": storage}
    ) as context:
        found = sensor(context)
    assert isinstance(found, dg.SensorResult | dg.SkipReason)
    return found


def asked(platform: Platform) -> list[dg.RunRequest]:
    found = tick(platform)
    return list(found.run_requests or ()) if isinstance(found, dg.SensorResult) else []


def reason(platform: Platform) -> str:
    found = tick(platform)
    assert isinstance(found, dg.SkipReason), found
    assert found.skip_message
    return found.skip_message


def launch(platform: Platform, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    """What the daemon does with a request."""
    assert request.job_name
    return platform.defs.resolve_job_def(request.job_name).execute_in_process(
        instance=platform.instance,
        run_config=request.run_config,
        partition_key=request.partition_key,
        asset_selection=list(request.asset_selection or ()) or None,
        tags=dict(request.tags),
        raise_on_error=False,
    )


def ingest(platform: Platform) -> dg.ExecuteInProcessResult:
    (request,) = asked(platform)
    assert request.job_name == "parcels_ingest"
    return launch(platform, request)


def test_an_empty_landing_folder_asks_for_nothing_and_says_where_it_looked(
    platform: Platform,
) -> None:
    assert str(platform.landing) in reason(platform)


def test_new_files_are_taken_in_one_run_and_then_every_country_with_rows_goes_on(
    platform: Platform, sample: pd.DataFrame
) -> None:
    platform.deliver(sample[sample["Country"] != "NO"].iloc[::2], "one.parquet")
    platform.deliver(sample[sample["Country"] != "NO"].iloc[1::2], "two.parquet")
    result = ingest(platform)
    assert result.success, failures(result)
    countries = asked(platform)
    assert [each.partition_key for each in countries] == ["DEU", "FRA"]
    assert {each.job_name for each in countries} == {"parcels_predict"}
    for each in countries:
        made = launch(platform, each)
        assert made.success, failures(made)
    assert "no new file" in reason(platform)
    assert platform.version("predictions", COUNTRY) is not None


def test_only_the_countries_with_new_rows_are_asked_for(
    platform: Platform, sample: pd.DataFrame
) -> None:
    platform.deliver(sample[sample["Country"] != "NO"])
    ingest(platform)
    for each in asked(platform):
        launch(platform, each)
    platform.deliver(only(later(sample), OTHER), "second.parquet")
    result = ingest(platform)
    made = {e.partition for e in result.all_events if e.event_type_value == "ASSET_MATERIALIZATION"}
    assert made == {OTHER}
    assert [each.partition_key for each in asked(platform)] == [OTHER]


def test_repeated_ticks_ask_with_the_same_key_so_that_nothing_runs_twice(
    platform: Platform, sample: pd.DataFrame
) -> None:
    platform.deliver(sample)
    keys = {each.run_key for _ in range(3) for each in asked(platform)}
    assert len(keys) == 1
    ingest(platform)
    keys = {each.run_key for _ in range(3) for each in asked(platform)}
    assert len(keys) == len(COUNTRIES)


def test_no_second_ingestion_is_asked_for_while_one_is_going_on(
    platform: Platform, sample: pd.DataFrame
) -> None:
    platform.deliver(sample)
    job = platform.defs.resolve_job_def("parcels_ingest")
    platform.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert "takes files now" in reason(platform)


def test_a_refused_delivery_is_asked_for_once_and_its_correction_again(
    platform: Platform, sample: pd.DataFrame
) -> None:
    platform.deliver(only(sample, COUNTRY))
    ingest(platform)
    (first,) = asked(platform)
    assert launch(platform, first).success
    good = only(later(sample, 40), COUNTRY)
    platform.deliver(good.assign(**{VALUE: -1.0}), "second.parquet")
    ingest(platform)
    (request,) = asked(platform)
    assert not launch(platform, request).success
    assert "no new file" in reason(platform)
    platform.deliver(good, "second.parquet")
    ingest(platform)
    (again,) = asked(platform)
    assert again.partition_key == COUNTRY
    assert again.run_key != request.run_key
    assert launch(platform, again).success


def test_a_file_that_was_set_aside_is_not_asked_for_at_every_tick(
    platform: Platform, sample: pd.DataFrame
) -> None:
    whole = platform.deliver(sample)
    content = whole.read_bytes()
    whole.write_bytes(content[:2000])
    settle(whole)
    ingest(platform)
    assert "no new file" in reason(platform)
    whole.write_bytes(content)
    settle(whole)
    ingest(platform)
    assert len(asked(platform)) == len(COUNTRIES)


def test_an_ingestion_that_a_person_ended_is_left_to_the_person_until_another_file_comes(
    platform: Platform, sample: pd.DataFrame
) -> None:
    platform.deliver(only(sample, COUNTRY))
    (request,) = asked(platform)
    platform.instance.create_run_for_job(
        platform.defs.resolve_job_def("parcels_ingest"),
        status=dg.DagsterRunStatus.CANCELED,
        tags=dict(request.tags),
    )
    assert "was ended by a person" in reason(platform)
    platform.deliver(only(sample, OTHER), "another.parquet")
    (request,) = asked(platform)
    assert request.job_name == "parcels_ingest"


def test_a_failed_ingestion_is_tried_again_three_times_and_then_a_person_is_told(
    platform: Platform, sample: pd.DataFrame
) -> None:
    platform.deliver(sample[sample["Country"] != "NO"])
    folder = platform.home / "store" / "parcels" / "raw"
    folder.mkdir(parents=True)
    blocked = folder / f"country={COUNTRY}"
    blocked.write_text("a file where the folder should be")
    keys = set()
    for attempt in (1, 2, 3):
        (request,) = [each for each in asked(platform) if each.job_name == "parcels_ingest"]
        keys.add(request.run_key)
        assert request.tags["mlops_assets/attempt"] == str(attempt)
        assert not launch(platform, request).success
    assert len(keys) == 3
    (other,) = asked(platform)
    assert other.partition_key == OTHER
    launch(platform, other)
    assert "failed 3 times" in reason(platform)
    blocked.unlink()
    platform.deliver(only(later(sample), OTHER), "second.parquet")
    assert ingest(platform).success
    assert {each.partition_key for each in asked(platform)} == {COUNTRY, OTHER}


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELED])
def test_an_ingestion_about_to_start_is_waited_for_and_a_cancelled_one_is_asked_for_again(
    platform: Platform, sample: pd.DataFrame, status: dg.DagsterRunStatus
) -> None:
    platform.deliver(sample)
    job = platform.defs.resolve_job_def("parcels_ingest")
    platform.instance.create_run_for_job(job, status=status)
    if status is dg.DagsterRunStatus.STARTING:
        assert "takes files now" in reason(platform)
    else:
        assert [each.job_name for each in asked(platform)] == ["parcels_ingest"]
