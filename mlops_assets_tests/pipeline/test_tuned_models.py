"""Searched parameters and regional models through registry, MLflow run and reproduction."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from mlops_assets.errors import RegistryError
from mlops_assets.ml.promotion.reproduction_record import Reproduction
from mlops_assets.registry import ModelVersion
from mlops_assets.registry.models import registered_name
from mlops_assets.stages.training.serving import fitted, load_pooled, pooled_versions
from mlops_assets.stages.upkeep.reproduction import reproduce_model
from mlops_assets_tests.platform import Platform, failures, generated

COUNTRY, OTHER = "FRA", "NOR"
COUNTRIES = ("DEU", COUNTRY, OTHER)
DATASETS = ("raw", "validated", "quarantine", "features")
GBM = (
    "params: {max_iter: 100, learning_rate: 0.1}\n",
    "params: {max_iter: 60, learning_rate: 0.02}\n      scopes: SCOPES\n      space:\n"
    "        learning_rate: {low: 0.02, high: 0.4, log: true}\n"
    "        max_leaf_nodes: {low: 4, high: 40}\n",
)
NO_RIDGE = (
    "    - name: ridge\n      estimator: sklearn.linear_model.Ridge\n      scopes: [local]\n",
    "",
)
BUDGET = ("  candidates:\n", "  tuning: {trials: 4, pooled_trials: 5}\n  candidates:\n")
REGIONS = ("  task: ", "  regions: {south: [DEU, FRA]}\n  task: ")
Make = Callable[..., Platform]


def searching(scopes: str) -> list[tuple[str, str]]:
    old, new = GBM
    return [(old, new.replace("SCOPES", scopes)), NO_RIDGE, BUDGET]


def trained(platform: Platform, countries: Sequence[str] = COUNTRIES) -> Platform:
    """Pooled models of these countries' features, then a candidate in `COUNTRY`."""
    platform.deliver(generated(platform))
    for country in countries:
        platform.run(country, "train", DATASETS)
    if platform.product.spec.candidates[0].scopes != ["local"]:
        result = platform.run(None, "pooled")
        assert result.success, failures(result)
    train(platform)
    return platform


def train(platform: Platform, country: str = COUNTRY) -> None:
    platform.run(country, "train", ["model"])


def newest(platform: Platform, country: str = COUNTRY) -> ModelVersion:
    found = platform.registry.by_alias(registered_name("parcels", country), "challenger")
    assert found is not None
    return found


def again(platform: Platform, version: ModelVersion) -> Reproduction:
    return reproduce_model(platform.context.country(COUNTRY), version=version.version)


def trials(platform: Platform, version: ModelVersion) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(platform.registry.artifact(version, "trials.csv")))


def test_a_tuned_local_model_tells_its_search_and_is_made_again_without_one(
    make_platform: Make,
) -> None:
    platform = trained(make_platform(*searching("[local]")), [COUNTRY])
    version = newest(platform)
    table = trials(platform, version)
    assert (len(table), set(table["candidate"])) == (4, {"gbm"})
    best = table.loc[table["value"].idxmin()]
    params = json.loads(version.tags["params"])
    assert params["max_iter"] == 60
    assert params["max_leaf_nodes"] == best["max_leaf_nodes"]
    assert params["learning_rate"] == pytest.approx(best["learning_rate"])
    assert params["learning_rate"] > 0.02
    client = MlflowClient(platform.registry.tracking_uri)
    logged = client.get_run(version.run_id).data.params
    assert logged["param.max_leaf_nodes"] == str(params["max_leaf_nodes"])
    assert len(client.search_runs([client.get_run(version.run_id).info.experiment_id])) == 1
    loaded = fitted("gbm", version, platform.product.spec, platform.registry)
    assert loaded.params == params
    assert loaded.until == pd.Timestamp("2024-09-30")  # its label is known on the next day
    assert again(platform, version).verdict == "identical"


def test_a_tuned_model_is_made_again_from_what_was_chosen_and_not_from_another_search(
    make_platform: Make,
) -> None:
    platform = trained(make_platform(*searching("[local]")), [COUNTRY])
    version = newest(platform)
    params = {**json.loads(version.tags["params"]), "max_leaf_nodes": 4, "learning_rate": 0.02}
    platform.registry.tag(version, {"params": json.dumps(params)})
    assert again(platform, version).verdict == "differs"
    platform.registry.tag(version, {"params": "{broken"})
    with pytest.raises(RegistryError, match=r"tag params of parcels.FRA version 1 is damaged"):
        again(platform, version)


def test_tuned_pooled_models_of_all_countries_and_of_a_region_are_registered_by_name(
    make_platform: Make,
) -> None:
    platform = trained(make_platform(*searching("[region, pooled]"), REGIONS))
    product, registry = platform.product, platform.registry
    every = pooled_versions(platform.context)
    assert {name: version.name for name, version in every.items()} == {
        "gbm": "parcels.pooled-gbm",
        "gbm-south": "parcels.pooled-gbm-south",
    }
    assert {name: version.kind for name, version in every.items()} == {
        "gbm": "pooled",
        "gbm-south": "region",
    }
    assert list(pooled_versions(platform.context, OTHER)) == ["gbm"]
    assert list(pooled_versions(platform.context, COUNTRY)) == ["gbm", "gbm-south"]
    assert set(registry.champions("parcels")) <= set(COUNTRIES)
    models = load_pooled(product.spec, every, registry)
    assert models["gbm-south"].region == "south"
    assert models["gbm-south"].final.rows < models["gbm"].final.rows
    table = trials(platform, every["gbm"])
    assert table.groupby("model").size().to_dict() == {"gbm": 5, "gbm-south": 5}
    first = table[(table["model"] == "gbm-south") & (table["number"] == 0)].iloc[0]
    assert first["max_leaf_nodes"] == models["gbm"].params["max_leaf_nodes"]
    frame = platform.frame("pooled_model", None)
    assert frame["region"].tolist() == ["", "south"]
    assert frame["trials"].tolist() == [5, 5]


def test_a_regional_model_a_country_took_is_made_again_from_its_regions_rows(
    make_platform: Make,
) -> None:
    platform = trained(make_platform(*searching("[region]"), REGIONS))
    version = newest(platform)
    assert (version.kind, version.tags["region"]) == ("region", "south")
    assert version.tags["pooled_version"] == "1"
    pooled = platform.registry.version("parcels.pooled-gbm-south", "1")
    assert version.uri == pooled.uri
    assert again(platform, version).verdict == "identical"
    train(platform, OTHER)
    assert platform.registry.by_alias(registered_name("parcels", OTHER), "challenger") is None
    reason = platform.frame("model", OTHER)["reason"].iloc[0]
    assert "the country is in no region" in reason


def test_a_country_is_trained_against_the_pooled_models_it_may_take_and_no_other(
    make_platform: Make,
) -> None:
    platform = trained(make_platform(*searching("[region, pooled]"), REGIONS))
    lineage = json.loads(platform.registry.artifact(newest(platform), "lineage.json"))
    assert lineage["pooled"] == {"gbm": "1", "gbm-south": "1"}
    train(platform, OTHER)
    lineage = json.loads(platform.registry.artifact(newest(platform, OTHER), "lineage.json"))
    assert lineage["pooled"] == {"gbm": "1"}
