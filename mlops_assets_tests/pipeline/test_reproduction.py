"""Models made again from what their training recorded: the same bits, or the reason why not."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.tracking import MlflowClient
from sklearn.ensemble import HistGradientBoostingRegressor

from mlops_assets.components.loading import load_product
from mlops_assets.errors import ConfigurationError, RegistryError, StorageError
from mlops_assets.ml.promotion.reproduction_record import (
    Reproduction,
    as_dict,
    describe_reproduction,
)
from mlops_assets.product import Product
from mlops_assets.provenance import LIBRARIES, OPTIONAL_LIBRARIES, platform_code
from mlops_assets.registry import ModelVersion
from mlops_assets.registry.models import registered_name
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.training.training_record import recorded
from mlops_assets.stages.upkeep.reproduction import reproduce_model
from mlops_assets_tests.pipeline.test_outcomes import later
from mlops_assets_tests.platform import (
    Platform,
    build_platform,
    dagster_home,
    failures,
    generated,
    small_product,
)

COUNTRY, OTHER, OVERRIDDEN = "FRA", "DEU", "NOR"
COUNTRIES = (OTHER, COUNTRY, OVERRIDDEN)
HOLDOUT = "2024-10-01"
DATASETS = ("raw", "validated", "quarantine", "features")
POOLED_ONLY = (
    ("learning_rate: 0.3}\n", "learning_rate: 0.3}\n      scopes: [pooled]\n"),
    (
        "    - name: ridge\n      estimator: sklearn.linear_model.Ridge\n      scopes: [local]\n",
        "",
    ),
)
Make = Callable[..., Platform]


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path, history_template: Path
) -> Iterator[Platform]:
    """A local champion in each country, and a pooled model trained after them."""
    home = tmp_path_factory.mktemp("reproduction")
    dagster_home(home / "dagster", history_template)
    folder = small_product("parcels", home / "defs")
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        platform = build_platform(folder, home / "home", instance, mlflow_template)
        train(platform, *COUNTRIES)
        assert platform.run(None, "pooled").success
        yield platform


@pytest.fixture
def champions(trained: Platform) -> Iterator[Platform]:
    """The same, put back as it was when the test has damaged it."""
    versions = [champion(trained, country) for country in COUNTRIES]
    folders = (trained.home / "store", trained.home / "mlflow" / "artifacts")
    every = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    files = {file: file.read_bytes() for file in every}
    yield trained
    for file, content in files.items():
        if not file.exists() or file.read_bytes() != content:
            file.write_bytes(content)
    for version in versions:
        trained.registry.tag(version, version.tags)


def train(platform: Platform, *countries: str, delivery: pd.DataFrame | None = None) -> None:
    """A champion in each country."""
    platform.deliver(generated(platform) if delivery is None else delivery)
    for country in countries:
        result = platform.run(country, "train")
        assert result.success, failures(result)


def again(
    platform: Platform, country: str = COUNTRY, product: Product | None = None, **how: Any
) -> Reproduction:
    made_by = product or platform.product
    return reproduce_model(
        ProductContext(made_by, platform.store, platform.registry).country(country), **how
    )


def edited(platform: Platform, to: Path, file: str, *changes: tuple[str, str]) -> Product:
    """The product after one of its files was changed, in a folder of its own."""
    folder = to / "edited" / platform.product.name
    shutil.copytree(platform.product.folder, folder)
    path = folder / file
    text = path.read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    path.write_text(text)
    return load_product(folder)


def champion(platform: Platform, country: str = COUNTRY) -> ModelVersion:
    found = platform.registry.champion("parcels", country)
    assert found is not None
    return found


def artifact(platform: Platform, version: ModelVersion, name: str) -> Path:
    run = MlflowClient(platform.registry.tracking_uri).get_run(version.run_id)
    return Path(urlparse(str(run.info.artifact_uri)).path) / name


def rewrite(file: Path, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return content


def without_features(lineage: dict[str, Any]) -> None:
    lineage["features"].clear()


def snapshot_file(platform: Platform, asset: str, country: str = COUNTRY) -> Path:
    made = platform.store.current(("parcels", asset), country)
    assert made is not None
    return Path(made.uri)


def by_hand(rows: pd.DataFrame, estimator: Any) -> tuple[np.ndarray, np.ndarray]:
    """Holdout predictions and labels of an estimator fitted without this project's code."""
    names = [name for name in rows if name not in ("entity", "event_time", "label_time", "label")]
    known = rows[rows["label"].notna()]
    before = known[(known["event_time"] < HOLDOUT) & (known["label_time"] <= HOLDOUT)]
    holdout = known[known["event_time"] >= HOLDOUT]
    estimator.fit(before[names].to_numpy("float64"), before["label"].to_numpy())
    return estimator.predict(holdout[names].to_numpy("float64")), holdout["label"].to_numpy()


def boosting(iterations: int = 15) -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(max_iter=iterations, learning_rate=0.3, random_state=0)


def test_a_local_champion_comes_out_bit_for_bit(champions: Platform) -> None:
    found = again(champions)
    assert (found.verdict, found.reason, found.kind) == ("identical", "", "local")
    assert found.in_use
    assert found.predictions.identical
    assert found.features.gap is not None
    assert found.features.gap.identical
    assert (found.changes, found.config_changed) == ((), ())
    predicted, labels = by_hand(champions.frame("features", COUNTRY), boosting())
    assert found.predictions.rows == len(labels)
    assert found.value == np.abs(predicted - labels).mean() == found.recorded_value


def test_how_far_off_is_what_a_fit_by_hand_says(champions: Platform) -> None:
    version = champion(champions)
    config = rewrite(
        artifact(champions, version, "config.json"),
        lambda held: held["candidates"][0]["params"].update(max_iter=20),
    )
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
    champions.registry.tag(version, {"config_hash": digest})
    found = again(champions)
    features = champions.frame("features", COUNTRY)
    distance = np.abs(by_hand(features, boosting(20))[0] - by_hand(features, boosting())[0])
    assert found.verdict == "differs"
    assert found.predictions.differing == int((distance > 0).sum())
    assert found.predictions.largest == distance.max() > 0
    assert found.predictions.mean == pytest.approx(distance.mean(), rel=1e-12)
    assert "parcels" in found.reason
    assert "nothing recorded changed" in found.reason
    assert found.config_changed == ("candidates",)


def pooled_trained(platform: Platform, delivery: pd.DataFrame, name: str) -> None:
    """A pooled model of the features of every country, and a candidate that is it."""
    platform.deliver(delivery, name)
    for country in COUNTRIES:
        platform.run(country, "train", DATASETS)
    assert platform.run(None, "pooled").success
    platform.run(COUNTRY, "train", ["model", "champion"])


def test_a_pooled_champion_is_made_again_from_the_features_of_every_country(
    make_platform: Make,
) -> None:
    platform = make_platform(*POOLED_ONLY)
    pooled_trained(platform, generated(platform), "first.parquet")
    found = again(platform)
    assert (found.verdict, found.kind, found.version) == ("identical", "pooled", "1")


@pytest.mark.nightly  # the chain of the test before it twice; the record names the pooled version
def test_each_of_two_pooled_versions_is_made_again_from_the_features_of_its_training(
    make_platform: Make,
) -> None:
    platform = make_platform(*POOLED_ONLY)
    sample = generated(platform)
    pooled_trained(platform, sample, "first.parquet")
    pooled_trained(platform, later(sample), "second.parquet")
    second = platform.registry.version(registered_name("parcels", COUNTRY), "2")
    newest = recorded(second, platform.registry)
    pooled = platform.registry.by_alias("parcels.pooled-gbm", "champion")
    assert pooled is not None
    assert newest.pooled == {"gbm": pooled.version} == {"gbm": "2"}
    assert again(platform, version="1").verdict == "identical"
    assert again(platform, version="2").verdict == "identical"


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_the_model_before_is_made_again_from_its_own_snapshot(platform: Platform) -> None:
    sample = generated(platform)
    train(platform, COUNTRY, delivery=sample)
    before = again(platform)
    platform.deliver(later(sample), "second.parquet")
    assert platform.run(COUNTRY, "train").success
    registry = platform.registry
    registry.promote(registry.version(registered_name("parcels", COUNTRY), "2"))
    old, new = again(platform, version="1"), again(platform)
    assert (old.version, new.version) == ("1", "2")
    assert (old.verdict, new.verdict) == ("identical", "identical")
    assert old.snapshot == before.snapshot != new.snapshot
    rows = platform.frame("features", COUNTRY)
    judged = rows["label"].notna() & (rows["event_time"] >= HOLDOUT)
    assert new.predictions.rows == judged.sum() > old.predictions.rows
    assert (before.in_use, old.in_use, new.in_use) == (True, False, True)


def test_a_changed_feature_function_is_named_as_the_reason(
    champions: Platform, tmp_path: Path
) -> None:
    changed = edited(champions, tmp_path, "features.py", ("demand.rolling(7,", "demand.rolling(5,"))
    found = again(champions, product=changed)
    assert found.verdict == "differs"
    assert found.predictions.identical
    assert found.features.gap is not None
    (column,) = found.features.gap.columns
    recorded_mean = champions.frame("features", COUNTRY)["mean_of_week"]
    demand = champions.frame("validated", COUNTRY).sort_values("date")["demand"]
    expected = demand.rolling(5, min_periods=1).mean().to_numpy() != recorded_mean.to_numpy()
    assert (column.name, column.values) == ("mean_of_week", int(expected.sum()))
    assert f"mean_of_week in {column.values} of 731 rows" in found.reason
    assert "product code changed from" in found.reason


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_feature_function_that_fails_on_the_rows_of_then_is_a_difference(
    champions: Platform,
    tmp_path: Path,
) -> None:
    changed = edited(champions, tmp_path, "features.py", ('set_index("date")', 'set_index("day")'))
    found = again(champions, product=changed)
    assert (found.verdict, found.features.broken) == ("differs", True)
    assert "KeyError" in found.reason


def test_a_comment_in_the_code_changes_nothing(champions: Platform, tmp_path: Path) -> None:
    changed = edited(
        champions, tmp_path, "features.py", ("import pandas", "# a comment\n\nimport pandas")
    )
    found = again(champions, product=changed)
    assert (found.verdict, found.changes) == ("identical", ())


def test_the_recorded_config_is_used_whatever_the_yaml_says_today(
    champions: Platform, tmp_path: Path
) -> None:
    changed = edited(
        champions,
        tmp_path,
        "defs.yaml",
        ("seed: 0", "seed: 7"),
        ("max_iter: 15", "max_iter: 20"),
        (f"holdout_from: {HOLDOUT}", "holdout_from: 2024-06-01"),
    )
    found = again(champions, product=changed)
    assert found.verdict == "identical"
    assert found.config_changed == ("split", "candidates", "seed")
    assert any(
        "changed since in split, candidates, seed" in line for line in describe_reproduction(found)
    )


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_candidate_that_the_yaml_no_longer_has_is_made_again(
    champions: Platform, tmp_path: Path
) -> None:
    changed = edited(champions, tmp_path, "defs.yaml", ("name: gbm", "name: trees"))
    found = again(champions, product=changed)
    assert (found.candidate, found.verdict) == ("gbm", "identical")


def test_another_library_version_is_named(champions: Platform) -> None:
    rewrite(
        artifact(champions, champion(champions), "lineage.json"),
        lambda held: held["provenance"]["libraries"].update({"scikit-learn": "1.0.2"}),
    )
    found = again(champions)
    assert found.verdict == "identical"
    (change,) = found.changes
    assert change.text.startswith("scikit-learn changed from 1.0.2 to ")
    assert any(change.text in line for line in describe_reproduction(found))


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_another_metric_under_other_platform_code_names_that_as_the_reason(
    champions: Platform,
) -> None:
    version = champion(champions)
    report = json.loads(version.tags["report"])
    champions.registry.tag(version, {"report": json.dumps({**report, "value": 1.0})})
    rewrite(
        artifact(champions, version, "lineage.json"),
        lambda held: held["provenance"].update(platform_code="0" * 12),
    )
    found = again(champions)
    assert (found.verdict, found.predictions.identical) == ("differs", True)
    assert f"platform code changed from 000000000000 to {platform_code()}" in found.reason
    assert "had 1" in found.reason


def test_every_reproduction_is_logged_and_can_be_read_by_programs(champions: Platform) -> None:
    before = len(champions.store.read_log(("parcels", "reproductions"), COUNTRY))
    found = again(champions)
    again(champions, version=found.version, run_id="a-run")
    log = champions.store.read_log(("parcels", "reproductions"), COUNTRY).iloc[before:]
    assert log["verdict"].tolist() == ["identical", "identical"]
    assert log["dagster_run_id"].tolist() == ["", "a-run"]
    assert log["rows"].tolist() == [found.predictions.rows] * 2
    held = json.loads(json.dumps(as_dict(found), allow_nan=False))
    assert (held["verdict"], held["predictions"]["rows"]) == ("identical", found.predictions.rows)
    assert describe_reproduction(found)[0].endswith(": identical")


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_model_without_holdout_rows_cannot_be_judged(make_platform: Make) -> None:
    platform = make_platform((f"holdout_from: {HOLDOUT}", "holdout_from: 2025-01-01"))
    platform.deliver(generated(platform))
    platform.run(COUNTRY, "train")
    found = again(platform, version="1")
    assert found.verdict == "cannot be judged"
    assert "no rows" in found.reason
    assert as_dict(found)["value"] is None


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_features_whose_validated_rows_are_gone_are_told_and_the_model_still_judged(
    champions: Platform,
) -> None:
    snapshot_file(champions, "validated").unlink()
    found = again(champions)
    assert found.verdict == "identical"
    assert "no longer stored" in found.features.problem


def test_a_removed_snapshot_is_named_with_when_and_why(ran: Platform, sample: pd.DataFrame) -> None:
    before = ran.store.current(("parcels", "features"), COUNTRY)
    assert before is not None
    ran.deliver(later(sample), "second.parquet")
    assert ran.run(COUNTRY, "train", DATASETS).success
    ran.store.remove(before, reason="older than a year")
    with pytest.raises(StorageError, match=r"removed on .* \(older than a year\)") as refused:
        again(ran, version="1")
    assert before.content_hash in str(refused.value)
    assert "--version" in refused.value.way_out
    assert ran.store.read_log(("parcels", "reproductions")).empty


def test_a_lost_snapshot_is_said_to_be_lost(champions: Platform) -> None:
    snapshot_file(champions, "features").unlink()
    with pytest.raises(StorageError, match="no longer stored, and no log says why"):
        again(champions)


def test_a_snapshot_with_other_rows_is_not_taken_for_the_recorded_one(champions: Platform) -> None:
    file = snapshot_file(champions, "features")
    table = pq.read_table(file)
    place = table.schema.get_field_index("demand_today")
    other = table.set_column(place, table.schema.field(place), pa.array([1.0] * len(table)))
    file.chmod(0o644)
    pq.write_table(other, file)
    with pytest.raises(StorageError, match="is not what was written"):
        again(champions)


def test_a_damaged_snapshot_is_named(champions: Platform) -> None:
    file = snapshot_file(champions, "features")
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(StorageError, match="features"):
        again(champions)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("lineage.json", Path.unlink, "cannot be read"),
        ("config.json", Path.unlink, "cannot be read"),
        ("lineage.json", lambda file: file.write_text("{"), "is damaged"),
        ("lineage.json", lambda file: file.write_text("{}"), "is damaged"),
        ("lineage.json", lambda file: rewrite(file, without_features), "no features of FRA"),
        (
            "config.json",
            lambda file: rewrite(file, lambda held: held.update(seed=9)),
            "not the one",
        ),
    ],
)
def test_a_lost_or_changed_record_is_named(
    champions: Platform, name: str, change: Callable[[Path], object], said: str
) -> None:
    change(artifact(champions, champion(champions), name))
    with pytest.raises(RegistryError, match=f"{name}.*{said}") as refused:
        again(champions)
    assert refused.value.way_out
    assert champion(champions).run_id in str(refused.value)


def test_damaged_model_files_are_named(champions: Platform) -> None:
    for file in (champions.home / "mlflow" / "artifacts").rglob("model.skops"):
        file.write_bytes(b"")
    with pytest.raises(RegistryError, match="cannot be used"):
        again(champions)


def test_what_does_not_exist_is_refused_with_the_way_out(platform: Platform) -> None:
    with pytest.raises(RegistryError, match="no champion") as refused:
        again(platform)
    assert "--version" in refused.value.way_out
    with pytest.raises(ConfigurationError, match="XXX"):
        again(platform, "XXX")
    with pytest.raises(RegistryError, match="version 12"):
        again(platform, version="12")


def test_a_pooled_model_of_all_countries_says_nothing_of_any_left_out(champions: Platform) -> None:
    made = champions.store.current(("parcels", "pooled_model"), None)
    assert made is not None
    key = dg.AssetKey(["parcels", "pooled_model"])
    (shown,) = champions.instance.fetch_materializations(key, limit=1).records
    assert shown.asset_materialization is not None
    page = shown.asset_materialization.metadata
    assert "candidates" in page
    told = [*made.metadata, *page]
    assert [name for name in told if "left_out" in name or "unread" in name] == []


@pytest.mark.parametrize("country", [COUNTRY, OVERRIDDEN])
def test_a_version_leads_to_all_it_was_made_from(champions: Platform, country: str) -> None:
    version = champion(champions, country)
    record = recorded(version, champions.registry)
    spec = champions.product.resolved(country)
    assert record.spec == spec
    assert record.config_hash == spec.config_hash() == version.tags["config_hash"]
    assert (record.product, record.country) == ("parcels", country)
    features = champions.store.current(("parcels", "features"), country)
    validated = champions.store.current(("parcels", "validated"), country)
    assert features is not None
    assert validated is not None
    (held,) = record.features.values()
    assert (held.version, held.content_hash) == (features.version, features.content_hash)
    assert (held.validated, held.rows) == (validated.content_hash, features.rows)
    assert held.code == champions.product.code_version("features") == version.tags["code_version"]
    assert set(record.provenance.libraries) == {*LIBRARIES, *OPTIONAL_LIBRARIES}
    assert record.provenance.platform_code == version.tags["platform_code"]
    assert "scikit-learn" in version.tags["libraries"]
    assert version.tags["seed"] == "0"
    run = MlflowClient(champions.registry.tracking_uri).get_run(version.run_id)
    assert run.data.tags["snapshot.features"] == features.content_hash
    assert run.data.tags["libraries"] == version.tags["libraries"]


def test_a_pooled_version_leads_to_the_features_of_every_country(champions: Platform) -> None:
    version = champions.registry.by_alias("parcels.pooled-gbm", "champion")
    assert version is not None
    record = recorded(version, champions.registry)
    held = champions.store.current_all(("parcels", "features"))
    assert {country: each.content_hash for country, each in record.features.items()} == {
        country: each.content_hash for country, each in held.items()
    }
    assert (record.country, record.spec) == ("", champions.product.spec)


# The job


def sampled(platform: Platform, **config: Any) -> dg.ExecuteInProcessResult:
    ops = {"ops": {"parcels__reproduce": {"config": config}}} if config else None
    return platform.defs.resolve_job_def("parcels_reproduce").execute_in_process(
        run_config=ops, instance=platform.instance, raise_on_error=False
    )


def _of_failure(event: dg.DagsterEvent) -> Mapping[str, dg.MetadataValue]:
    told = event.step_failure_data.user_failure_data
    assert told is not None
    return told.metadata


def shown(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    """Rows of the table on the op's page, by country."""
    (found,) = [
        event.step_output_data.metadata
        if event.event_type_value == "STEP_OUTPUT"
        else _of_failure(event)
        for event in result.all_events
        if event.event_type_value in ("STEP_OUTPUT", "STEP_FAILURE")
    ]
    rows = found["reproductions"]
    assert isinstance(rows, dg.TableMetadataValue)
    return {str(row.data["country"]): dict(row.data) for row in rows.records}


def test_the_job_makes_a_sample_of_champions_again(champions: Platform) -> None:
    result = sampled(champions)
    assert result.success, failures(result)
    assert {row["verdict"] for row in shown(result).values()} == {"identical"}
    assert set(shown(result)) == set(COUNTRIES)
    two = sampled(champions, sample=2, seed=1)
    assert len(shown(two)) == 2
    assert set(shown(sampled(champions, sample=2, seed=1))) == set(shown(two))
    assert set(shown(sampled(champions, countries=[OTHER]))) == {OTHER}
    log = champions.store.read_log(("parcels", "reproductions"))
    assert set(log["dagster_run_id"]) >= {result.run_id, two.run_id}


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_the_job_fails_with_the_reason_and_judges_the_other_countries(champions: Platform) -> None:
    version = champion(champions)
    report = json.loads(version.tags["report"])
    champions.registry.tag(version, {"report": json.dumps({**report, "value": 1.0})})
    snapshot_file(champions, "features", OTHER).unlink()
    result = sampled(champions)
    assert not result.success
    assert "2 of 3 champions" in failures(result)
    assert "nothing recorded changed" in failures(result)
    assert "no longer stored" in failures(result)
    verdicts = {country: row["verdict"] for country, row in shown(result).items()}
    assert verdicts == {
        OTHER: "cannot be judged",
        COUNTRY: "differs",
        OVERRIDDEN: "identical",
    }


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_the_job_runs_with_the_config_the_launchpad_starts_with(platform: Platform) -> None:
    job = platform.defs.resolve_job_def("parcels_reproduce")
    assert dg.validate_run_config(job, {})["ops"]["parcels__reproduce"]["config"]["sample"] == 3
    with pytest.raises(dg.DagsterInvalidConfigError):
        dg.validate_run_config(job, {"ops": {"parcels__reproduce": {"config": {"samples": 3}}}})


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_linear_model_comes_out_bit_for_bit_too(make_platform: Make) -> None:
    gbm = (
        "    - name: gbm\n      estimator: sklearn.ensemble.HistGradientBoostingRegressor\n"
        "      params: {max_iter: 15, learning_rate: 0.3}\n"
    )
    platform = make_platform((gbm, ""))
    platform.deliver(generated(platform))
    platform.run(COUNTRY, "train")  # a gate may stop it, the version is registered before
    found = again(platform, version="1")
    assert (found.candidate, found.verdict) == ("ridge", "identical")
