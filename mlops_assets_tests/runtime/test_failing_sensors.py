"""A sensor that fails is told where people look: `doctor` and `status`."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import TickStatus

from mlops_assets.cli import views
from mlops_assets.components.loading import load_products
from mlops_assets.runtime import doctor
from mlops_assets.runtime.instance import prepare_instance
from mlops_assets.settings import Settings, load_settings
from mlops_assets.stages.alerting.failing_sensors import failing_sensors
from mlops_assets_tests.platform import small_product
from mlops_assets_tests.stages.histories import write_ticks


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_template: Path) -> Settings:
    """A home with the product `parcels`."""
    (tmp_path / "home" / "mlflow").mkdir(parents=True)
    shutil.copyfile(mlflow_template, tmp_path / "home" / "mlflow" / "mlflow.db")
    small_product("parcels", tmp_path / "defs")
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("MLOPS_ASSETS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLOPS_ASSETS_DEFS", str(tmp_path / "defs"))
    return load_settings()


def found(settings: Settings) -> tuple[bool, str]:
    """What `doctor` says of sensors."""
    (finding,) = [each for each in doctor.examine(settings) if each.check == "sensors"]
    assert finding.ok or "Automation" in finding.way_out
    return finding.ok, finding.found


def test_doctor_and_status_name_a_sensor_that_fails_until_a_tick_goes_well(
    settings: Settings,
) -> None:
    products = load_products(settings.defs)
    assert views.failing_sensors(products) == [], "a home in which nothing ever ran"
    assert found(settings)[0]
    with dg.DagsterInstance.from_config(str(prepare_instance(settings))) as instance:
        failed = [TickStatus.SUCCESS, TickStatus.FAILURE, TickStatus.FAILURE, TickStatus.STARTED]
        write_ticks(instance, "parcels_alerts", True, failed)
        write_ticks(instance, "parcels_landing", True, [TickStatus.FAILURE, TickStatus.SKIPPED])
        write_ticks(instance, "parcels_retraining", False, failed)
        write_ticks(instance, "gone_alerts", True, failed)
    (told,) = views.failing_sensors(products)
    assert told.startswith("the sensor parcels_alerts fails since ")
    assert told.endswith("(2 ticks in a row): an error")
    assert found(settings) == (False, f"RuntimeError: {told}")


def test_alerts_that_fail_are_told_by_other_products_while_they_are_declared(
    settings: Settings, tmp_path: Path
) -> None:
    small_product("letters", tmp_path / "defs")
    letters, parcels = load_products(settings.defs)
    with dg.DagsterInstance.from_config(str(prepare_instance(settings))) as instance:
        for name in ("parcels_alerts", "gone_alerts"):
            write_ticks(instance, name, True, [TickStatus.FAILURE, TickStatus.FAILURE])
        assert [each.place for each in failing_sensors(letters, instance)] == [
            "sensor parcels_alerts"
        ]
        assert failing_sensors(parcels, instance) == []


@pytest.mark.parametrize("before", [[], [TickStatus.FAILURE, TickStatus.SUCCESS]])
def test_a_sensor_that_fails_for_weeks_is_told_once(
    settings: Settings, before: list[TickStatus]
) -> None:
    (product,) = load_products(settings.defs)
    name, failures = "parcels_landing", 49
    raised: dict[int, tuple[str, str]] = {}
    with dg.DagsterInstance.from_config(str(prepare_instance(settings))) as instance:
        write_ticks(instance, name, True, [*before, *[TickStatus.FAILURE] * failures])
        for count in (49, 50, 51, 120):
            add_ticks(instance, name, [TickStatus.FAILURE] * (count - failures))
            failures = count
            (condition,) = failing_sensors(product, instance)
            raised[count] = condition.id, condition.text
    assert len({each for each, _ in raised.values()}) == 1
    assert "(49 ticks in a row)" in raised[49][1]
    assert all("(50 or more ticks in a row)" in raised[count][1] for count in (50, 51, 120))


def add_ticks(instance: dg.DagsterInstance, name: str, statuses: list[TickStatus]) -> None:
    """Newer ticks of a sensor that has some, a minute after each other."""
    (state,) = (each for each in instance.all_instigator_state() if each.name == name)
    newest = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)[0]
    for place, status in enumerate(statuses, 1):
        data = newest.tick_data._replace(status=status, timestamp=newest.timestamp + 60 * place)
        instance.create_tick(data)
