"""A sensor that fails is told where people look: `doctor` and `status`."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import TickStatus

from mlops_assets.cli import views
from mlops_assets.components.loading import load_products
from mlops_assets.runtime import doctor
from mlops_assets.runtime.instance import prepare_instance
from mlops_assets.settings import Settings, load_settings
from mlops_assets_tests.platform import small_product
from mlops_assets_tests.stages.histories import write_ticks


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home with the product `parcels`."""
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
