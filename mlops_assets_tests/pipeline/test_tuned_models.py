"""Searched parameters and regional models through registry, MLflow run and reproduction."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from mlops_assets.errors import RegistryError
from mlops_assets.ml.promotion.reproduction_record import Reproduction
from mlops_assets.registry import ModelVersion
from mlops_assets.registry.models import registered_name
from mlops_assets.stages.training.serving import fitted, load_pooled, pooled_versions
from mlops_assets.stages.upkeep.reproduction import reproduce_model
from mlops_assets_tests.once import once
from mlops_assets_tests.platform import (
    Platform,
    edit,
    failures,
    generated,
    going_on,
    new_home,
    small_product,
)

COUNTRY, OTHER = "FRA", "NOR"
COUNTRIES = ("DEU", COUNTRY, OTHER)
DATASETS = ("raw", "validated", "quarantine", "features")
GBM = (
    "params: {max_iter: 15, learning_rate: 0.3}\n",
    "params: {max_iter: 20, learning_rate: 0.02}\n      scopes: SCOPES\n      space:\n"
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
Begun = Callable[..., Path]


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


@pytest.fixture(scope="module")
def begun(
    tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path, history_template: Path
) -> Begun:
    """A home in which a product of some scopes was trained, to copy."""

    def begin(scopes: str, *changes: tuple[str, str], countries: Sequence[str]) -> Path:
        def make(folder: Path) -> None:
            product = small_product("parcels", folder / "defs")
            edit(product / "defs.yaml", *searching(scopes), *changes)
            with new_home(folder, product, history_template, mlflow_template) as platform:
                trained(platform, countries)

        return once(tmp_path_factory, f"tuned {scopes}", make)

    return begin


@pytest.fixture
def local(begun: Begun, tmp_path: Path) -> Iterator[Platform]:
    """A country with a tuned model of its own."""
    with going_on(begun("[local]", countries=[COUNTRY]), tmp_path) as platform:
        yield platform


@pytest.fixture
def regional(begun: Begun, tmp_path: Path) -> Iterator[Platform]:
    """Tuned models of all countries and of a region, and what a country took of them."""
    made = begun("[region, pooled]", REGIONS, countries=COUNTRIES)
    with going_on(made, tmp_path) as platform:
        yield platform


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
    local: Platform,
) -> None:
    version = newest(local)
    table = trials(local, version)
    assert (len(table), set(table["candidate"])) == (4, {"gbm"})
    best = table.loc[table["value"].idxmin()]
    params = json.loads(version.tags["params"])
    assert params["max_iter"] == 20
    assert params["max_leaf_nodes"] == best["max_leaf_nodes"]
    assert params["learning_rate"] == pytest.approx(best["learning_rate"])
    assert params["learning_rate"] > 0.02
    client = MlflowClient(local.registry.tracking_uri)
    logged = client.get_run(version.run_id).data.params
    assert logged["param.max_leaf_nodes"] == str(params["max_leaf_nodes"])
    assert len(client.search_runs([client.get_run(version.run_id).info.experiment_id])) == 1
    loaded = fitted("gbm", version, local.product.spec, local.registry)
    assert loaded.params == params
    assert loaded.until == pd.Timestamp("2024-09-30")  # its label is known on the next day
    assert again(local, version).verdict == "identical"


def test_a_tuned_model_is_made_again_from_what_was_chosen_and_not_from_another_search(
    local: Platform,
) -> None:
    version = newest(local)
    params = {**json.loads(version.tags["params"]), "max_leaf_nodes": 4, "learning_rate": 0.02}
    local.registry.tag(version, {"params": json.dumps(params)})
    assert again(local, version).verdict == "differs"
    local.registry.tag(version, {"params": "{broken"})
    with pytest.raises(RegistryError, match=r"tag params of parcels.FRA version 1 is damaged"):
        again(local, version)


@pytest.mark.nightly  # trains and searches pooled models
def test_tuned_pooled_models_of_all_countries_and_of_a_region_are_registered_by_name(
    regional: Platform,
) -> None:
    product, registry = regional.product, regional.registry
    every = pooled_versions(regional.context)
    assert {name: version.name for name, version in every.items()} == {
        "gbm": "parcels.pooled-gbm",
        "gbm-south": "parcels.pooled-gbm-south",
    }
    assert {name: version.kind for name, version in every.items()} == {
        "gbm": "pooled",
        "gbm-south": "region",
    }
    assert list(pooled_versions(regional.context, OTHER)) == ["gbm"]
    assert list(pooled_versions(regional.context, COUNTRY)) == ["gbm", "gbm-south"]
    assert set(registry.champions("parcels")) <= set(COUNTRIES)
    models = load_pooled(product.spec, every, registry)
    assert models["gbm-south"].region == "south"
    assert models["gbm-south"].final.rows < models["gbm"].final.rows
    table = trials(regional, every["gbm"])
    assert table.groupby("model").size().to_dict() == {"gbm": 5, "gbm-south": 5}
    first = table[(table["model"] == "gbm-south") & (table["number"] == 0)].iloc[0]
    assert first["max_leaf_nodes"] == models["gbm"].params["max_leaf_nodes"]
    frame = regional.frame("pooled_model", None)
    assert frame["region"].tolist() == ["", "south"]
    assert frame["trials"].tolist() == [5, 5]


@pytest.mark.nightly  # trains and searches pooled models
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


@pytest.mark.nightly  # trains and searches pooled models
def test_a_country_is_trained_against_the_pooled_models_it_may_take_and_no_other(
    regional: Platform,
) -> None:
    lineage = json.loads(regional.registry.artifact(newest(regional), "lineage.json"))
    assert lineage["pooled"] == {"gbm": "1", "gbm-south": "1"}
    train(regional, OTHER)
    lineage = json.loads(regional.registry.artifact(newest(regional, OTHER), "lineage.json"))
    assert lineage["pooled"] == {"gbm": "1"}
