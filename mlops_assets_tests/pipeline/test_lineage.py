"""From a model back to the data, code and config it was made from, and the way there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import dagster as dg
import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.models import Model
from mlflow.tracking import MlflowClient

from mlops_assets.registry.models import CHAMPION, registered_name
from mlops_assets_tests.platform import Platform, failures, generated, going_on

COUNTRY = "FRA"
CHAIN = (
    "raw",
    "validated",
    "quarantine",
    "features",
    "model",
    "champion",
    "predictions",
    "performance",
    "drift",
)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, once_ran: Path) -> Iterator[Platform]:
    with going_on(once_ran, tmp_path_factory.mktemp("lineage")) as platform:
        yield platform


@pytest.fixture(scope="module")
def first(platform: Platform) -> dg.DagsterRun:
    """The run every test looks at the traces of."""
    (run,) = platform.instance.get_runs()
    return run


@pytest.fixture(scope="module")
def training(platform: Platform, first: dg.DagsterRun) -> Run:
    """The one MLflow run of that Dagster run."""
    client = MlflowClient(platform.registry.tracking_uri)
    experiment = client.get_experiment_by_name("parcels")
    assert experiment is not None
    (found,) = client.search_runs(
        [experiment.experiment_id], f"tags.dagster_run_id = '{first.run_id}'"
    )
    return found


def materialization(platform: Platform, asset: str, run_id: str) -> dg.AssetMaterialization:
    """What Dagster holds of an asset that a run made."""
    records = platform.instance.fetch_materializations(
        dg.AssetKey(["parcels", asset]), limit=20
    ).records
    found = next(record for record in records if record.run_id == run_id)
    assert found.asset_materialization is not None
    return found.asset_materialization


def data_versions(platform: Platform, run_id: str) -> dict[str, str]:
    every = {name: materialization(platform, name, run_id) for name in CHAIN}
    return {name: (found.tags or {})["dagster/data_version"] for name, found in every.items()}


def test_a_training_run_says_how_the_model_was_made_and_how_good_it_is(training: Run) -> None:
    assert training.info.status == "FINISHED"
    params, metrics = training.data.params, training.data.metrics
    assert {"estimator", "kind", "seed", "train_rows", "holdout_from"} <= set(params)
    assert int(params["train_rows"]) > 0
    assert {name.partition(".")[0] for name in metrics} >= {"holdout", "baseline", "validation"}
    assert metrics["improvement"] > 0
    assert all(value == value for value in metrics.values())


def test_a_training_run_names_its_snapshots_code_config_and_dagster_run(
    platform: Platform, first: dg.DagsterRun, training: Run
) -> None:
    tags = training.data.tags
    source = platform.store.current(("parcels", "features"), COUNTRY)
    assert source is not None
    assert tags["snapshot.features"] == source.content_hash
    assert tags["code_version"] == platform.product.code_version("features")
    assert tags["config_hash"] == platform.product.resolved(COUNTRY).config_hash()
    assert (tags["product"], tags["country"]) == ("parcels", COUNTRY)
    assert tags["dagster_run_id"] == first.run_id


def test_the_model_of_a_training_run_has_the_signature_of_the_features(
    platform: Platform, training: Run
) -> None:
    champion = platform.registry.champion("parcels", COUNTRY)
    assert champion is not None
    assert champion.run_id == training.info.run_id
    mlflow.set_tracking_uri(platform.registry.tracking_uri)
    described = Model.load(champion.uri)
    assert described.signature is not None
    features = platform.frame("features", COUNTRY)
    known = {"entity", "event_time", "label_time", "label"}
    assert set(described.signature.inputs.input_names()) <= set(features.columns) - known
    assert described.signature.outputs is not None


def test_a_model_version_says_where_it_is_from(platform: Platform, training: Run) -> None:
    champion = platform.registry.by_alias(registered_name("parcels", COUNTRY), CHAMPION)
    assert champion is not None
    tags = champion.tags
    assert tags["kind"] == "local"
    assert tags["candidate"] == training.data.params["candidate"]
    assert tags["config_hash"] == training.data.tags["config_hash"]
    assert tags["train_rows"] == training.data.params["train_rows"]
    assert {"report", "reason", "holdout_from"} <= set(tags)


def test_the_asset_in_dagster_links_to_the_training_run(
    platform: Platform, first: dg.DagsterRun, training: Run
) -> None:
    shown = materialization(platform, "model", first.run_id).metadata["mlflow_run"]
    assert isinstance(shown, dg.UrlMetadataValue)
    assert shown.url is not None
    link = urlparse(shown.url)
    experiment, run_id = training.info.experiment_id, training.info.run_id
    assert link.netloc == "127.0.0.1:5000"
    assert link.fragment == f"/experiments/{experiment}/runs/{run_id}"


def test_a_decision_names_its_run_config_and_rows(
    platform: Platform, first: dg.DagsterRun, training: Run
) -> None:
    (decision,) = platform.decisions(COUNTRY).to_dict(orient="records")
    source = platform.store.current(("parcels", "features"), COUNTRY)
    assert source is not None
    assert decision["dagster_run_id"] == first.run_id
    assert decision["config_hash"] == training.data.tags["config_hash"]
    assert decision["features_hash"] == source.content_hash
    assert (decision["verdict"], decision["candidate_version"]) == ("promoted", "1")


def test_predictions_name_the_model_and_the_features_they_are_from(
    platform: Platform, first: dg.DagsterRun
) -> None:
    assert first.is_success
    predictions = platform.frame("predictions", COUNTRY)
    source = platform.store.current(("parcels", "features"), COUNTRY)
    assert source is not None
    assert set(predictions["features_version"]) == {source.content_hash}
    assert set(predictions["model_version"]) == {"1"}


def test_the_data_version_in_dagster_is_that_of_the_content(
    platform: Platform, first: dg.DagsterRun
) -> None:
    """Unchanged over a rerun, for every asset; another one where content changed. Runs last."""
    before = data_versions(platform, first.run_id)
    for name, version in before.items():
        current = platform.store.current(("parcels", name), COUNTRY)
        assert current is not None
        assert version == current.content_hash, name
    again = platform.run(COUNTRY)
    assert again.success, failures(again)
    assert data_versions(platform, again.run_id) == before
    platform.deliver(later(generated(platform)), "second.parquet")
    changed = platform.run(COUNTRY)
    assert changed.success, failures(changed)
    after = data_versions(platform, changed.run_id)
    assert {name for name in CHAIN if after[name] == before[name]} <= {"quarantine"}


def later(frame: pd.DataFrame) -> pd.DataFrame:
    """The last ten days again, two weeks later and so on the same weekdays."""
    tail = frame.groupby("Country").tail(10).copy()
    tail["Date"] = (pd.to_datetime(tail["Date"]) + pd.Timedelta(weeks=2)).dt.strftime("%Y-%m-%d")
    return tail.reset_index(drop=True)
