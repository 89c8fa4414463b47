"""What the UI shows as out of date: Dagster's staleness by country, asked as the UI asks it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mlops_assets.settings import PROJECT_ROOT
from mlops_assets_tests.called import call
from mlops_assets_tests.pipeline.test_outcomes import CHAIN, later
from mlops_assets_tests.platform import Platform, failures, generated
from mlops_assets_tests.runtime.serving import environment

COUNTRIES = ["DEU", "FRA", "NOR"]
TO_FEATURES = ["raw", "validated", "quarantine", "features"]
STALE = """
query ($keys: [AssetKeyInput!]!) {
  assetNodes(assetKeys: $keys) { assetKey { path } staleStatusByPartition }
}
"""


def test_a_rerun_over_unchanged_data_leaves_nothing_stale(
    platform: Platform, sample: pd.DataFrame, tmp_path: Path
) -> None:
    platform.deliver(sample)
    _make(platform, "all")
    _make(platform, "all")
    assert _stale(platform, tmp_path) == {}

    platform.deliver(later(sample), "second.parquet")
    _make(platform, "predict")
    assert _stale(platform, tmp_path) == {"model": COUNTRIES, "champion": COUNTRIES}


def test_a_rerun_of_shared_features_over_unchanged_data_leaves_nothing_stale(
    sharing: Platform, tmp_path: Path
) -> None:
    sharing.deliver(generated(sharing))
    _make_shared(sharing)
    _make_shared(sharing)
    assert _stale(sharing, tmp_path, TO_FEATURES) == {}


def _make_shared(platform: Platform) -> None:
    results = [platform.run_range(COUNTRIES[0], COUNTRIES[-1])]
    results += [platform.run(each, assets=["validated", "quarantine"]) for each in COUNTRIES]
    results += [platform.run(None, "shared")]
    results += [platform.run(each, assets=["features"]) for each in COUNTRIES]
    assert all(each.success for each in results), [failures(each) for each in results]


def _make(platform: Platform, job: str) -> None:
    """As `materialize` does: files once for all countries, then a run of each."""
    results = [platform.run_range(COUNTRIES[0], COUNTRIES[-1])]
    after = [name for name in CHAIN if name != "raw"]
    made = after if job == "all" else [n for n in after if n not in ("model", "champion")]
    results += [platform.run(country, job, made) for country in COUNTRIES]
    assert all(each.success for each in results), [failures(each) for each in results]


def _stale(platform: Platform, folder: Path, assets: Sequence[str] = CHAIN) -> dict[str, list[str]]:
    """Asset: the countries in which it is not shown as fresh."""
    nodes = _asked(platform, folder, assets)["assetNodes"]
    shown = {node["assetKey"]["path"][-1]: node["staleStatusByPartition"] for node in nodes}
    assert set(shown) == set(assets)
    stale = {
        name: [c for c, status in zip(COUNTRIES, statuses, strict=True) if status != "FRESH"]
        for name, statuses in shown.items()
    }
    return {name: found for name, found in stale.items() if found}


def _asked(
    platform: Platform, folder: Path, assets: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    keys = [{"path": [platform.product.name, name]} for name in assets]
    answer = folder / "answer.json"
    settings = {
        "MLOPS_ASSETS_DEFS": str(platform.product.folder.parent),
        "DAGSTER_HOME": platform.instance.root_directory,
    }
    workspace, variables = str(PROJECT_ROOT / "workspace.yaml"), json.dumps({"keys": keys})
    arguments = ["--workspace", workspace, "--text", STALE, "--variables", variables]
    code, _, errors = call(
        [*arguments, "--output", str(answer)],
        environment(platform.home, **settings),
        folder,
        300,
        program="dagster_graphql.cli",
    )
    assert code == 0, errors
    return json.loads(answer.read_text())["data"]
