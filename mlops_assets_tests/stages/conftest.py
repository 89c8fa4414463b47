from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from mlops_assets.registry import Aliases
from mlops_assets_tests.once import once
from mlops_assets_tests.platform import Platform, copied
from mlops_assets_tests.stages.proposals import COUNTRIES, aliases, decide, propose


@pytest.fixture
def trained(once_trained: Path, tmp_path: Path, instance: dg.DagsterInstance) -> Platform:
    """Three countries with version 1 in use, for a test to do with as it likes."""
    return copied(once_trained, tmp_path, instance)


@pytest.fixture(scope="session")
def once_two(once_trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            platform = copied(once_trained, folder, instance)
            for country in COUNTRIES:
                propose(platform, country, error=0.5)
                decide(platform, country)
                assert aliases(platform, country) == Aliases("2", "1", "2")

    return once(tmp_path_factory, "two", make)


@pytest.fixture
def two(once_two: Path, tmp_path: Path, instance: dg.DagsterInstance) -> Platform:
    """Version 2 in use in every country, version 1 before it."""
    return copied(once_two, tmp_path, instance)
