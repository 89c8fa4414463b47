"""Retention on a platform that really ingested, trained and decided."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from mlops_assets.registry import Registry
from mlops_assets.registry.trained import trained_versions
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.upkeep.reproduction import reproduce_model
from mlops_assets.stages.upkeep.retention import RetentionPlan, apply_retention, plan_retention
from mlops_assets.storage import SnapshotStore, VersionGoneError
from mlops_assets_tests.forks import forks
from mlops_assets_tests.pipeline.test_outcomes import CHAIN, later
from mlops_assets_tests.platform import Platform, failures
from mlops_assets_tests.stages.history import History
from mlops_assets_tests.stages.killed import remove_some_and_die
from mlops_assets_tests.stages.upkeep.test_retention import late, one_chain, registry, removable

__all__ = ["registry"]  # the fixture
COUNTRY = "FRA"
UP_TO_FEATURES = CHAIN[:4]


def ran(platform: Platform, assets: list[str] | None = None) -> None:
    result = platform.run(COUNTRY, assets=assets)
    assert result.success, failures(result)


@pytest.fixture
def lived(platform: Platform, sample: pd.DataFrame) -> Platform:
    """Three deliveries: trained on, not trained on, trained on; pooled after the first."""
    platform.deliver(sample, "first.parquet")
    ran(platform, UP_TO_FEATURES)
    assert platform.run(None, job="pooled").success
    ran(platform, CHAIN[4:])
    second = later(sample)
    platform.deliver(second, "second.parquet")
    ran(platform, UP_TO_FEATURES)
    platform.deliver(later(second), "third.parquet")
    ran(platform)
    return platform


def in_a_year(platform: Platform) -> RetentionPlan:
    now = datetime.now(UTC) + timedelta(days=365)
    return plan_retention(platform.context, now=now)


def kept(made: RetentionPlan, asset: str) -> list[str]:
    return [each.reason for each in made.kept if each.snapshot.asset[1] == asset]


def count(made: RetentionPlan) -> dict[str, int]:
    assets = [each.snapshot.asset[1] for each in made.removable]
    return {asset: assets.count(asset) for asset in sorted(set(assets))}


@pytest.mark.nightly  # one more of a kind
def test_all_stays_in_the_window_and_later_what_models_were_trained_on(lived: Platform) -> None:
    today = plan_retention(lived.context, now=datetime.now(UTC))
    assert (today.removable, today.keep_days) == ((), 90)
    made = in_a_year(lived)
    newest, first = kept(made, "features")
    assert newest == "current"
    assert first.startswith("decision 1-none-")
    assert kept(made, "validated") == ["current", "parcels.FRA version 1 was made from it"]
    newest, first = kept(made, "raw")
    assert newest == "current"
    assert first.startswith("validated of FRA, version ")
    replaced = {"champion", "features", "model", "predictions", "raw", "validated"}
    assert count(made).items() >= dict.fromkeys(replaced, 1).items()
    tags = [each.run_tags for each in trained_versions(lived.registry, "parcels")]
    assert len(tags) >= 3
    assert all(any(name.startswith("snapshot.") for name in each or {}) for each in tags)


def test_after_retention_every_model_can_be_made_again_and_nothing_is_stale(
    lived: Platform,
) -> None:
    between = lived.store.versions(("parcels", "features"), COUNTRY)[1].created_at
    before = {name: lived.version(name, COUNTRY) for name in CHAIN}
    done = apply_retention(in_a_year(lived), lived.context)
    assert done.removed
    for number in ("1", "2"):
        again = reproduce_model(lived.context.country(COUNTRY), number)
        assert again.verdict == "identical", again.reason
    ran(lived)
    assert {name: lived.version(name, COUNTRY) for name in CHAIN} == before
    with pytest.raises(VersionGoneError, match="was removed on"):
        lived.store.read(("parcels", "features"), COUNTRY, as_of=between)
    assert len(lived.decisions(COUNTRY)) == 2


def test_a_removal_killed_half_way_is_finished_by_the_next_one(
    registry: Registry, tmp_path: Path
) -> None:
    history = History(registry, SnapshotStore(str(tmp_path / "store")))
    for content in (1, 2, 3):
        one_chain(history, content)
    made = late(history)
    process = forks().Process(target=remove_some_and_die, args=(history, made, 4))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(late(history).removable) == 4
    apply_retention(late(history), ProductContext(history.product, history.store, history.registry))
    log = history.store.read_log((history.name, "removals"))
    assert sorted(log["version"]) == sorted(removable(made))
    assert late(history).removable == ()
