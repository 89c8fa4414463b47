"""Whatever the history holds, people are told, and nobody who reads it fails."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import TickStatus
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from mlops_assets.runtime.workers.sizes import Sizes
from mlops_assets.spec import AlertsSpec, SinkSpec
from mlops_assets.stages.alerting import failed_runs
from mlops_assets.stages.alerting import sensor as alerting
from mlops_assets.stages.alerting.failing_sensors import failing_sensors
from mlops_assets.stages.common.history.automation import automation_names, failing_automation
from mlops_assets.stages.retraining import state
from mlops_assets_tests.effort import WHOLE, examples
from mlops_assets_tests.platform import Platform, copied, dagster_home, platform_of
from mlops_assets_tests.stages.histories import (
    PRODUCT,
    Event,
    PastRun,
    histories,
    ticks,
    write_run,
    write_ticks,
)
from mlops_assets_tests.stages.watched import said, scheduled, tick

COUNTRY = "FRA"
STATES = dg.DagsterRunStatus
MODEL = dg.AssetKey([PRODUCT, "model"])
CONTRACT = dg.AssetKey([PRODUCT, "validated"])
NOW = dt.datetime.now(dt.UTC)
CRASH = PastRun(
    f"{PRODUCT}_all",
    STATES.FAILURE,
    {"product": PRODUCT, "dagster/partition": COUNTRY},
    None,
    [],
    removed=False,
)
WENT_WELL = PastRun(CRASH.job, STATES.SUCCESS, CRASH.tags, None, [], removed=False)


def check(passed: bool | None, asset: dg.AssetKey = CONTRACT, name: str = "contract") -> Event:
    """An evaluation; None for one that was planned and never made."""
    kind = "planned" if passed is None else "evaluated"
    return Event(
        kind, asset, name, COUNTRY, bool(passed), dg.AssetCheckSeverity.ERROR, True, "broken"
    )


def of_country(*events: Event, status: dg.DagsterRunStatus = STATES.FAILURE) -> PastRun:
    return PastRun(CRASH.job, status, CRASH.tags, None, events, removed=False)


@pytest.fixture(scope="module")
def made(
    once_trained: Path, history_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Platform:
    """Trained countries that tell the log; each history has an instance of its own."""
    into = tmp_path_factory.mktemp("any_history")
    platform = copied(once_trained, into, dg.DagsterInstance.ephemeral())
    spec = platform.product.spec
    told = {"alerts": AlertsSpec(sinks=[SinkSpec(kind="log")]), "retrain_cron": "0 4 * * 1"}
    product = type(platform.product)(PRODUCT, platform.product.folder, spec.model_copy(update=told))
    shutil.copytree(history_template, platform.home / "template")
    return platform_of(product, platform.home, platform.instance)


@contextmanager
def another_history(made: Platform) -> Iterator[Platform]:
    """The same countries with an empty history, as after a restart, and nobody told of anything."""
    for each in (alerting._read, failed_runs._known_failures, state._by_gate):
        each.clear()
    shutil.rmtree(made.home / "store" / PRODUCT / "alerts", ignore_errors=True)
    home = made.home / "dagster"
    shutil.rmtree(home, ignore_errors=True)
    with dg.DagsterInstance.from_config(
        str(dagster_home(home, made.home / "template"))
    ) as instance:
        platform = platform_of(made.product, made.home, instance)
        platform.__dict__["defs"] = made.defs  # the same, and not made again for each history
        yield platform


def raised(platform: Platform) -> str:
    """Everything that was raised, as text."""
    return platform.store.read_log((PRODUCT, "alerts")).to_json()


# Each history is a database of its own: one that fails is shown as it was drawn.
@settings(max_examples=1000 if WHOLE else 30, phases=[Phase.explicit, Phase.generate])
@given(history=histories, sensors=ticks)
@example(history=[of_country(check(False)), of_country(check(None), status=STATES.CANCELED)],
         sensors={})  # fmt: skip
def test_alerts_and_every_other_reader_survive_any_history(
    made: Platform, history: Sequence[PastRun], sensors: dict[str, tuple[bool, list[TickStatus]]]
) -> None:
    with another_history(made) as platform:
        instance = platform.instance
        for past in history:
            write_run(instance, past)
        for name, (on, statuses) in sensors.items():
            write_ticks(instance, name, on, statuses)
        write_run(instance, WENT_WELL)
        crash = write_run(instance, CRASH)
        said(platform, "alerts")
        assert f"fails since {crash}" in raised(platform) or "runs failed" in raised(platform)
        assert isinstance(tick(platform), dg.SensorResult | dg.SkipReason)
        assert isinstance(tick(platform, "landing"), dg.SensorResult | dg.SkipReason)
        scheduled(platform, NOW)
        _sized(platform, crash)
        on = {name for name, (switched, found) in sensors.items() if switched and fails(found)}
        found = failing_automation(instance, automation_names(made.product))
        assert {each.name for each in found} == on


def fails(statuses: Sequence[TickStatus]) -> bool:
    """Whether the newest tick that has ended failed."""
    ended = [each for each in statuses if each != TickStatus.STARTED]
    return bool(ended) and ended[-1] == TickStatus.FAILURE


def _sized(platform: Platform, run_id: str) -> None:
    run = platform.instance.get_run_by_id(run_id)
    assert run is not None
    assert Sizes(platform.instance, platform.product.folder.parent).of(run).size


@settings(max_examples=examples(200))
@given(st.lists(st.sampled_from((True, False, None)), max_size=8))
def test_a_gate_fails_since_the_first_run_that_failed_whatever_was_planned_in_between(
    made: Platform, earlier: list[bool | None]
) -> None:
    with another_history(made) as platform:
        instance = platform.instance
        outcomes = [*earlier, False]
        ids = [write_run(instance, of_country(check(each))) for each in outcomes]
        since_passed = ids[max((i for i, each in enumerate(outcomes) if each), default=-1) + 1 :]
        expected = next(run for run in since_passed if outcomes[ids.index(run)] is False)
        newest = instance.get_run_records(limit=1)[0]
        (found,) = failed_runs.conditions_of_run(made.product, instance, newest)
        assert found.kind == "gate"
        assert found.id.endswith(f"validated.contract fails since {expected}")


def test_a_check_that_a_stopped_run_never_made_keeps_nobody_from_being_told(
    made: Platform,
) -> None:
    with another_history(made) as platform:
        instance = platform.instance
        write_run(instance, of_country(check(False)))
        write_run(instance, of_country(check(None), status=STATES.CANCELED))
        gate = write_run(instance, of_country(check(False, MODEL, "beats_baseline")))
        assert "sent" in said(platform, "alerts")
        assert f"model.beats_baseline fails since {gate}" in raised(platform)
        assert "validated.contract fails since" in raised(platform)


def test_a_rule_that_cannot_look_is_told_and_keeps_none_of_the_others_from_it(
    made: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: Any) -> None:
        raise AttributeError("no such thing as a state")

    with another_history(made) as platform:
        instance = platform.instance
        crash = write_run(instance, CRASH)
        monkeypatch.setattr("mlops_assets.stages.alerting.rules.read_state", damaged)
        for _ in range(2):  # once, however often it cannot look
            with pytest.raises(Exception, match="no such thing as a state"):
                tick(platform, "alerts")
        log = platform.store.read_log((PRODUCT, "alerts"))
        assert list(log[log["event"] == "raised"]["event"]) == ["raised"] * 2
        assert list(log[log["event"] == "sent"]["event"]) == ["sent"] * 2
        assert f"fails since {crash}" in log.to_json()
        assert "the state of countries cannot be looked at" in log.to_json()


@contextmanager
def declared_beside(made: Platform, name: str) -> Iterator[None]:
    """Another product in the same folder, for as long as the block goes."""
    folder = made.product.folder.parent / name
    folder.mkdir()
    (folder / "defs.yaml").touch()
    try:
        yield
    finally:
        shutil.rmtree(folder)


def test_a_sensor_that_fails_is_told_by_the_alerts_and_alerts_that_fail_by_those_of_others(
    made: Platform,
) -> None:
    failed = [TickStatus.SKIPPED, TickStatus.FAILURE, TickStatus.FAILURE]
    with another_history(made) as platform, declared_beside(made, "another"):
        instance = platform.instance
        write_ticks(instance, f"{PRODUCT}_retraining", True, failed)
        write_ticks(instance, "another_alerts", True, failed)
        write_ticks(instance, "gone_alerts", True, failed)
        write_ticks(instance, "another_landing", True, failed)
        write_ticks(instance, f"{PRODUCT}_landing", True, failed[:2])
        found = failing_sensors(made.product, instance)
        assert [each.title for each in found] == [
            f"{PRODUCT}: the sensor another_alerts fails",
            f"{PRODUCT}: the sensor {PRODUCT}_retraining fails",
        ]
        assert "an error" in found[0].text
