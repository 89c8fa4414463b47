"""What monitoring found in a country, as a test wants it, and the sensors that look at it."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import dagster as dg
import pandas as pd

from mlops_assets.ml.monitoring.drift import DriftState
from mlops_assets.ml.monitoring.performance import Realised
from mlops_assets.ml.stats.metrics import UNKNOWN, Estimate
from mlops_assets.registry import MlflowRegistry
from mlops_assets.stages.common.base import Storage
from mlops_assets_tests.platform import Platform
from mlops_assets_tests.stages.proposals import PRODUCT, in_use

END = pd.Timestamp("2024-06-03")
SINCE = END - pd.Timedelta(days=7)
QUIET = DriftState("quiet", "nothing that matters changed", "goes on", end=END)
ALARM = DriftState("alarm", "demand_lag_0 is 1.2 higher", "", since=SINCE, end=END, score=0.4)


def watch(
    platform: Platform,
    country: str,
    *,
    worse: bool | None = False,
    excess: float = 0.2,
    drift: DriftState = QUIET,
    on_previous: Estimate = UNKNOWN,
    on_baseline: Estimate = UNKNOWN,
    table: pd.DataFrame | None = None,
    look: int = 1,
) -> None:
    """Snapshots of `performance` and `drift` of the champion; another `look` is other evidence.

    A `table` of performance takes the place of the one there is.
    """
    found = Realised(
        in_use(platform, country),
        40,
        1,
        0,
        SINCE,
        END,
        Estimate(9.0, 8.0, 10.0),
        12.0,
        Estimate(7.0, 6.5, 7.5),
        worse=worse,
        excess=excess,
        reason="mae 9 where 7 was promised",
    )
    performance = {
        "mlops_assets/realised": _plain(found),
        "mlops_assets/on_previous": _value(on_previous),
        "mlops_assets/on_baseline": _value(on_baseline),
        "mlops_assets/recorded": platform.version("predictions", country),
    }
    made = platform.frame("performance", country) if table is None else table
    made = made.assign(lower=float(look))
    platform.store.write((PRODUCT, "performance"), country, made, metadata=performance)
    rows = pd.DataFrame({"look": [look]})
    champion = {"champion": in_use(platform, country)}
    state = {"mlops_assets/drift": _plain(drift), "mlops_assets/inputs": champion}
    platform.store.write((PRODUCT, "drift"), country, rows, metadata=state)


def quiet_everywhere(platform: Platform) -> None:
    for country in platform.product.spec.countries:
        watch(platform, country)


def tick(platform: Platform, sensor: str = "retraining") -> dg.SensorResult | dg.SkipReason:
    """One evaluation, as the daemon makes it, with nothing remembered from earlier ones."""
    name = f"{PRODUCT}_{sensor}"
    with dg.build_sensor_context(
        instance=platform.instance, sensor_name=name, resources=resources(platform)
    ) as context:
        found = platform.defs.resolve_sensor_def(name)(context)
    assert isinstance(found, dg.SensorResult | dg.SkipReason)
    return found


def resources(platform: Platform) -> dict[str, Any]:
    return {
        "storage": Storage(uri=platform.store.uri, landing_uri=str(platform.landing.parent)),
        "mlflow": MlflowRegistry(
            tracking_uri=platform.registry.tracking_uri,
            artifact_root=platform.registry.artifact_root,
            ui_url="http://127.0.0.1:5000",
        ),
    }


def scheduled(platform: Platform, moment: dt.datetime) -> list[dg.RunRequest] | dg.SkipReason:
    """One tick of the periodic schedule."""
    schedule = platform.defs.resolve_schedule_def(f"{PRODUCT}_periodic")
    with dg.build_schedule_context(
        instance=platform.instance,
        scheduled_execution_time=moment,
        resources=resources(platform),
    ) as context:
        return schedule(context)  # pyright: ignore[reportReturnType]


def asked(platform: Platform) -> list[dg.RunRequest]:
    """Trainings and rollbacks."""
    return [each for each in requests(platform) if "mlops_assets/request" in each.tags]


def followed_up(platform: Platform) -> list[dg.RunRequest]:
    """Predictions of countries whose champion or features have changed."""
    return [each for each in requests(platform) if "mlops_assets/request" not in each.tags]


def requests(platform: Platform) -> list[dg.RunRequest]:
    found = tick(platform)
    return list(found.run_requests or ()) if isinstance(found, dg.SensorResult) else []


def said(platform: Platform, sensor: str = "retraining") -> str:
    """The text of a tick that asks for nothing."""
    found = tick(platform, sensor)
    assert isinstance(found, dg.SkipReason), found
    assert found.skip_message
    return found.skip_message


def queued(platform: Platform, request: dg.RunRequest, status: dg.DagsterRunStatus) -> str:
    """A run of a request as the daemon makes it, before or after a worker had it; its id."""
    assert request.job_name
    run = platform.instance.create_run_for_job(
        platform.defs.resolve_job_def(request.job_name), status=status, tags=tags(request)
    )
    return run.run_id


def tags(request: dg.RunRequest) -> dict[str, str]:
    partition = {"dagster/partition": request.partition_key} if request.partition_key else {}
    return {**request.tags, **partition, "dagster/run_key": request.run_key or ""}


def launch(platform: Platform, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    """What the daemon and a worker do with a request."""
    assert request.job_name
    return platform.defs.resolve_job_def(request.job_name).execute_in_process(
        instance=platform.instance,
        run_config=request.run_config,
        partition_key=request.partition_key,
        asset_selection=list(request.asset_selection or ()) or None,
        tags=dict(request.tags),
        raise_on_error=False,
    )


def _plain(record: Any) -> dict[str, Any]:
    """A record as its stage keeps it: times in ISO 8601, estimates as three numbers."""
    return {name: _value(value) for name, value in vars(record).items()}


def _value(value: Any) -> Any:
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if isinstance(value, Estimate):
        return [_number(end) for end in dataclasses.astuple(value)]
    return _number(value) if isinstance(value, float) else value


def _number(value: float) -> float | None:
    return None if value != value else value
