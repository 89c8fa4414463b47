from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mlops_assets.errors import RegistryError
from mlops_assets.stages.training.serving import who_serves
from mlops_assets.stages.training.version_identity import RUN_OF_VERSION
from mlops_assets_tests.platform import Platform

COUNTRY = "FRA"


def another_model_has_the_number(platform: Platform) -> None:
    """As in the registry of another home, whose version 1 is of another training."""
    database = Path(platform.registry.tracking_uri.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("update model_versions set run_id = ?", ("f" * 32,))
        connection.commit()


def test_a_champion_of_the_same_number_in_another_registry_does_not_serve(ran: Platform) -> None:
    ctx = ran.context.country(COUNTRY)
    version = ctx.champion()
    assert version is not None
    assert ran.frame("champion", COUNTRY)[RUN_OF_VERSION].tolist() == [version.run_id]
    assert who_serves(ctx).version == version
    another_model_has_the_number(ran)
    with pytest.raises(RegistryError, match="this is another registry") as refused:
        who_serves(ctx)
    assert version.run_id in refused.value.problem
    before = ran.version("predictions", COUNTRY)
    result = ran.run(COUNTRY, assets=["champion", "predictions"])
    assert not result.success
    (check,) = [
        each
        for each in result.get_asset_check_evaluations()
        if each.asset_key.path[-1] == "champion"
    ]
    assert not check.passed
    assert "this is another registry" in (check.description or "")
    assert ran.version("predictions", COUNTRY) == before
