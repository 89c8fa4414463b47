"""What a tick of the sensors costs with many countries: `python -m benchmarks ticks`."""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pandas as pd

from mlops_assets.components.loading import load_product
from mlops_assets.components.scaffold import new_product
from mlops_assets.ml.promotion.decision import Decision
from mlops_assets.product import Product
from mlops_assets.registry import Aliases, MlflowRegistry, Registry
from mlops_assets.stages.common.base import Storage
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.product import build_product
from mlops_assets.stages.promotion.decision_log import Comparison, Entry, Origin, append
from mlops_assets.storage import SnapshotStore

COUNTRIES = 200
DECISIONS = 5
RUNS_EACH = 3
GOAL_SECONDS = 1.0
SENSORS = ("retraining", "alerts", "landing")
RESULT = Path(__file__).parent / "results" / "ticks.json"
_NAME = "parcels"
_END = pd.Timestamp("2024-06-03")
_STATE = {"next": "", "since": "2024-05-27", "end": "2024-06-03", "score": 0.3, "upstream": ""}


def main(arguments: Sequence[str]) -> int:
    """Seconds of ticks of the sensors with 200 countries; exit code 1 if one is over 1 s.

    Each country has a champion and one before it, five decisions, watched errors and drift, and
    three runs that ended. The first tick of a process also imports, and reads what never changes;
    it is told and not judged.
    """
    argparse.ArgumentParser(description=main.__doc__).parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        product = _product(home)
        store, registry = SnapshotStore(str(home / "store")), _registry(home)
        for place, country in enumerate(product.spec.countries):
            _fill(product, store, registry, country, place=place)
        with dg.DagsterInstance.from_config(str(_dagster(home))) as instance:
            _runs(product, instance)
            found = {name: _ticks(product, home, instance, name) for name in SENSORS}
    RESULT.write_text(json.dumps({"countries": COUNTRIES, "seconds": found}, indent=1) + "\n")
    for name, seconds in found.items():
        print(f"{name}: first tick {seconds[0]:.2f} s, then at most {max(seconds[1:]):.2f} s")
    return int(any(max(seconds[1:]) > GOAL_SECONDS for seconds in found.values()))


def _product(home: Path) -> Product:
    codes = [f"{chr(65 + place // 26)}{chr(65 + place % 26)}X" for place in range(COUNTRIES)]
    file = new_product(_NAME, home / "defs") / "defs.yaml"
    text = re.sub(r"countries: \[.*?\]", f"countries: {json.dumps(codes)}", file.read_text())
    for section in ("aliases", "overrides"):
        text = re.sub(rf"\n  {section}:.*?(?=\n  \w|\n\n|\Z)", "\n", text, flags=re.DOTALL)
    file.write_text(f"{text}\n  retraining: {{new_labels: 90, max_age_days: 60}}\n")
    return load_product(file.parent)


def _registry(home: Path) -> Registry:
    (home / "mlflow").mkdir()
    registry = Registry(f"sqlite:///{home}/mlflow/mlflow.db", (home / "artifacts").as_uri())
    registry.initialise()
    return registry


def _fill(
    product: Product, store: SnapshotStore, registry: Registry, country: str, *, place: int
) -> None:
    """A country about which there is something to say now and then."""
    from mlflow import MlflowClient

    client, name = MlflowClient(registry.tracking_uri), f"{_NAME}.{country}"
    client.create_registered_model(name, tags={"product": _NAME, "country": country})
    for _ in range(2):
        tags = {"known_until": "2024-01-01", "until": "2023-12-31"}
        client.create_model_version(name, source=registry.artifact_root, tags=tags)
    client.set_registered_model_alias(name, "champion", "2")
    client.set_registered_model_alias(name, "previous", "1")
    frame = pd.DataFrame({"place": [place]})
    days = pd.date_range("2023-01-01", periods=500)
    features = {"event_time": days, "label_time": days + pd.Timedelta(days=1), "label": 1.0}
    store.write((_NAME, "features"), country, pd.DataFrame(features))
    store.write((_NAME, "predictions"), country, frame)
    realised = {"mlops_assets/realised": _realised(worse=place % 40 == 0)}
    gain = {"mlops_assets/on_previous": [0.1, 0.0, 0.2]}
    store.write((_NAME, "performance"), country, frame, metadata=realised | gain)
    state = "alarm" if place % 23 == 0 else "quiet"
    drift = {"mlops_assets/drift": {"state": state, "reason": "price is 1 higher", **_STATE}}
    store.write((_NAME, "drift"), country, frame, metadata=drift)
    for number in range(DECISIONS):
        append(ProductContext(product, store), _decision(country, number))


def _realised(*, worse: bool) -> dict[str, object]:
    end = _END.isoformat()
    numbers = {"value": [1.0, 0.9, 1.1], "expected": [1.0, 0.9, 1.1], "compared": [1.0, 0.9, 1.1]}
    return {
        **{"version": "2", "rows": 40, "open_rows": 1, "revised": 0, "first": end, "last": end},
        **{**numbers, "baseline": 2.0, "worse": worse, "excess": 0.1, "reason": "mae 1"},
    }


def _decision(country: str, number: int) -> Entry:
    verdict = "kept" if number % 2 else "promoted"
    decision = Decision(verdict, "because", 10, 1.0, 1.0, 0.01, 0.0, 0.02, 0.025, 100, 7)
    compared = Comparison(
        country, str(number + 1), "local", str(number), decision, [], "abc", f"features{number}"
    )
    at = pd.Timestamp("2024-01-01", tz="UTC")
    origin = Origin("retraining sensor: error", f"run{number}")
    return Entry(compared, str(number), at, origin, Aliases("0"), Aliases("1"))


def _dagster(home: Path) -> Path:
    folder = home / "dagster"
    folder.mkdir()
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return folder


def _runs(product: Product, instance: dg.DagsterInstance) -> None:
    @dg.op
    def nothing() -> None: ...

    @dg.job(name=f"{_NAME}_all")
    def job() -> None:
        nothing()

    for number in range(RUNS_EACH):
        for country in product.spec.countries:
            key = f"{_NAME} {country} error {number}"
            tags = {
                **{"product": _NAME, "dagster/partition": country, "mlops_assets/request": key},
                **{"mlops_assets/asked_by": "retraining sensor", "mlops_assets/cause": "error"},
                "mlops_assets/asked_error": key,
            }
            instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.SUCCESS)


def _ticks(product: Product, home: Path, instance: dg.DagsterInstance, name: str) -> list[float]:
    """Wall seconds of one tick after the other, each with nothing remembered by Dagster."""
    resources = {
        "storage": Storage(uri=str(home / "store"), landing_uri=str(home / "landing")),
        "mlflow": MlflowRegistry(
            tracking_uri=f"sqlite:///{home}/mlflow/mlflow.db",
            artifact_root=(home / "artifacts").as_uri(),
            ui_url="http://127.0.0.1:5000",
        ),
    }
    defs = dg.Definitions.merge(build_product(product), dg.Definitions(resources=resources))
    sensor = defs.resolve_sensor_def(f"{_NAME}_{name}")
    seconds = []
    for _ in range(6):
        with dg.build_sensor_context(
            instance=instance, sensor_name=sensor.name, resources=resources
        ) as context:
            began = time.perf_counter()
            sensor(context)
            seconds.append(round(time.perf_counter() - began, 3))
    return seconds
