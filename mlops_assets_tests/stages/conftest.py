from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from mlops_assets.registry import Aliases
from mlops_assets_tests.platform import Platform
from mlops_assets_tests.stages.proposals import (
    COUNTRIES,
    aliases,
    build_trained,
    copied,
    decide,
    propose,
)


@pytest.fixture(scope="session")
def once_trained(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Platform:
    return build_trained(tmp_path_factory.mktemp("trained"), mlflow_template)


@pytest.fixture
def trained(once_trained: Platform, tmp_path: Path, instance: dg.DagsterInstance) -> Platform:
    """Three countries with version 1 in use, for a test to do with as it likes."""
    return copied(once_trained, tmp_path, instance)


@pytest.fixture(scope="session")
def once_two(once_trained: Platform, tmp_path_factory: pytest.TempPathFactory) -> Platform:
    with dg.DagsterInstance.ephemeral() as instance:
        platform = copied(once_trained, tmp_path_factory.mktemp("two"), instance)
        for country in COUNTRIES:
            propose(platform, country, error=0.5)
            decide(platform, country)
            assert aliases(platform, country) == Aliases("2", "1", "2")
    return platform


@pytest.fixture
def two(once_two: Platform, tmp_path: Path, instance: dg.DagsterInstance) -> Platform:
    """Version 2 in use in every country, version 1 before it."""
    return copied(once_two, tmp_path, instance)
