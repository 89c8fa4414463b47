"""What has to be made again: one rule, asked by status and `materialize`, and told by the UI."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest

from mlops_assets import provenance
from mlops_assets.runtime.headless.materialize import Materializer, Outcome
from mlops_assets.runtime.headless.workers import RunOrder, RunOutcome, WarmWorkers
from mlops_assets.stages.staleness import Staleness
from mlops_assets_tests.called import call
from mlops_assets_tests.pipeline.test_outcomes import CHAIN, later, only
from mlops_assets_tests.platform import Platform, edit, failures, generated, going_on, rebuilt
from mlops_assets_tests.runtime.serving import environment

COUNTRIES = ["DEU", "FRA", "NOR"]
TO_FEATURES = ["raw", "validated", "quarantine", "features"]
STALE = """
query ($keys: [AssetKeyInput!]!) {
  assetNodes(assetKeys: $keys) { assetKey { path } staleStatusByPartition }
}
"""


@pytest.mark.nightly  # starts another program that imports everything
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


@pytest.mark.nightly  # starts another program that imports everything
def test_a_rerun_of_shared_features_over_unchanged_data_leaves_nothing_stale(
    sharing: Platform, tmp_path: Path
) -> None:
    sharing.deliver(generated(sharing))
    _make_shared(sharing)
    _make_shared(sharing)
    assert _stale(sharing, tmp_path, TO_FEATURES) == {}


@pytest.fixture
def trained(once_trained: Path, tmp_path: Path) -> Iterator[Platform]:
    """Three countries made by whole runs, and the history of these runs."""
    with going_on(once_trained, tmp_path) as platform:
        yield platform


def test_status_materialize_and_the_ui_tell_a_change_alike(
    trained: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = trained
    folder = platform.product.folder
    assert _told_alike(platform, tmp_path) == {}

    with (folder / "features.py").open("a") as file:
        file.write("\n# A remark changes nothing that is computed.\n")
    assert _told_alike(rebuilt(platform), tmp_path) == {}

    with monkeypatch.context() as patch:
        patch.setattr(provenance, "_libraries", lambda: {"scikit-learn": "99.0"})
        assert _told_alike(rebuilt(platform), tmp_path) == {}

    edit(folder / "defs.yaml", ("min_improvement: 0.02", "min_improvement: 0.01"))
    judged_anew = {"model": COUNTRIES, "champion": COUNTRIES}
    assert _told_alike(rebuilt(platform), tmp_path) == judged_anew

    with (folder / "features.py").open("a") as file:
        file.write("\nADDED = 1\n")
    made_anew = dict.fromkeys(("features", "model", "champion", "predictions"), COUNTRIES)
    assert _told_alike(rebuilt(platform), tmp_path) == made_anew


def test_a_snapshot_that_was_changed_by_hand_makes_what_follows_from_it_stale(
    trained: Platform, sample: pd.DataFrame, tmp_path: Path
) -> None:
    platform = trained
    platform.deliver(only(later(sample), COUNTRIES[1]), "second.parquet")
    platform.run(COUNTRIES[1], assets=["raw", "validated", "quarantine"])
    assert _told_alike(platform, tmp_path) == {"features": [COUNTRIES[1]]}
    platform.run(COUNTRIES[1])
    assert _told_alike(platform, tmp_path) == {}

    asset, country = ("parcels", "validated"), COUNTRIES[0]
    made = platform.store.current(asset, country)
    assert made is not None
    rows = platform.frame("validated", country).iloc[:-1]
    platform.store.write(asset, country, rows, run_id="", metadata=dict(made.metadata))
    status = platform.status()
    assert {each: status[each].state for each in COUNTRIES} == {
        country: "behind",
        **dict.fromkeys(COUNTRIES[1:], "ok"),
    }
    assert status[country].why == "features: validated changed"
    assert _materialized(platform) == {country}


def _told_alike(platform: Platform, folder: Path) -> dict[str, list[str]]:
    """What is stale by the rule, after status, `materialize` and the UI have said the same."""
    state = Staleness(platform.context)
    stale = {country: [each.asset for each in state.all(country)] for country in COUNTRIES}
    by_asset = {
        name: found for name in CHAIN if (found := [c for c in COUNTRIES if name in stale[c]])
    }
    assert _stale(platform, folder) == by_asset
    late = {country for country in COUNTRIES if stale[country]}
    behind = {name for name, each in platform.status().items() if each.state == "behind"}
    assert (behind, _materialized(platform)) == (late, late)
    return by_asset


class _Noting:
    """Workers that note what they are asked for, and make nothing."""

    def __init__(self) -> None:
        self.countries: set[str] = set()

    def run(self, orders: Sequence[RunOrder]) -> Iterator[RunOutcome]:
        for order in orders:
            self.countries |= {order.country} if order.country else set()
            yield RunOutcome(order, "", (), (), 0.0)


def _materialized(platform: Platform) -> set[str]:
    """The countries for which `materialize --all` would launch a run."""
    workers, silent = _Noting(), lambda *_: None
    run = Materializer(
        platform.context, "all", cast("WarmWorkers", workers), silent, Outcome("parcels")
    )
    run.run(COUNTRIES)
    return workers.countries


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
    code, _, errors = call(
        [STALE, json.dumps({"keys": keys}), str(answer)],
        environment(platform.home, **settings),
        folder,
        300,
        program="mlops_assets_tests.runtime.asked",
    )
    assert code == 0, errors
    return json.loads(answer.read_text())["data"]
