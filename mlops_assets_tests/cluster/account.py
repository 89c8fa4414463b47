"""What storage, registry and history hold of a product, as JSON; for a host of a cluster.

    python -m mlops_assets_tests.cluster.account PRODUCT BACKFILL

Every list is one of faults, and empty where all is well; `countries` says what each country has.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import dagster as dg

from mlops_assets.registry import Registry
from mlops_assets.settings import load_settings
from mlops_assets.storage import SnapshotStore
from mlops_assets.storage.hashing import content_hash


def torn(store: SnapshotStore) -> list[str]:
    """Current pointers that name no readable file with the rows and the content they record."""
    found = []
    for asset in store.assets():
        for country, snapshot in store.current_all(asset).items():
            table = store.read_table(asset, country)
            if len(table) != snapshot.rows or content_hash(table) != snapshot.content_hash:
                found.append(f"{'/'.join(asset)} {country}")
    return found


def undecided(product: str, store: SnapshotStore, registry: Registry) -> list[str]:
    """Countries whose champion is not the one that their newest decision put into use."""
    decided = {}
    for entry in store.read_log((product, "decisions")).to_dict("records"):
        decided[str(entry["country"])] = str(entry["version"] or "")
    named = {country: each.champion for country, each in registry.aliases_of_all(product).items()}
    return [
        f"{country}: registry {named.get(country, '')!r}, decision {decided.get(country, '')!r}"
        for country in sorted(named | decided)
        if named.get(country, "") != decided.get(country, "")
    ]


def left_running(product: str, registry: Registry) -> list[str]:
    """MLflow runs that nobody will ever end."""
    import mlflow

    client = mlflow.MlflowClient(registry.tracking_uri)
    experiment = client.get_experiment_by_name(product)
    if experiment is None:
        return []
    runs = client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")
    return [run.info.run_id for run in runs]


def made(product: str, store: SnapshotStore, registry: Registry) -> dict[str, dict[str, Any]]:
    """Of each country: its predictions' rows and when they were made, and its champion."""
    predictions = store.current_all((product, "predictions"))
    champions = registry.champions(product)
    return {
        country: {
            "predictions": predictions[country].rows if country in predictions else 0,
            "champion": champions[country].uri if country in champions else "",
            "made_at": predictions[country].created_at.timestamp() if country in predictions else 0,
        }
        for country in sorted(predictions.keys() | champions.keys())
    }


def causes(backfill: str, home: Path) -> dict[str, str]:
    """What each failed run of a backfill says of why, by its id; "" where it says nothing."""
    tags = {"dagster/backfill": backfill}
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], tags=tags)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return {
            run.run_id: _cause(instance, run.run_id) for run in instance.get_runs(failed, limit=200)
        }


def _cause(instance: dg.DagsterInstance, run_id: str) -> str:
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    for entry in instance.all_logs(run_id, of_type=kinds):
        event = entry.get_dagster_event()
        if not event.is_step_failure:
            return event.message or ""
        error = event.step_failure_data.error
        if error is not None:
            return (error.cause or error).message.strip()
    return ""


def account(product: str, backfill: str) -> dict[str, Any]:
    """All of it."""
    settings = load_settings()
    store = SnapshotStore(settings.storage)
    registry = Registry(settings.mlflow_uri, settings.mlflow_artifacts)
    return {
        "torn": torn(store),
        "undecided": undecided(product, store, registry),
        "left_running": left_running(product, registry),
        "causes": causes(backfill, settings.home / "up"),
        "countries": made(product, store, registry),
    }


if __name__ == "__main__":
    print(json.dumps(account(*sys.argv[1:])))
