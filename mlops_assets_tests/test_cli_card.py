"""The command `card` on a registered version with its card."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mlops_assets.cli import app
from mlops_assets.errors import RegistryError
from mlops_assets_tests.platform import Platform
from mlops_assets_tests.stages.candidates import registered_with_card


@pytest.fixture
def home(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """The platform as the environment's settings find it."""
    monkeypatch.setenv("MLOPS_ASSETS_HOME", str(platform.home))
    monkeypatch.setenv("MLOPS_ASSETS_DEFS", str(platform.product.folder.parent))
    for name in ("MLFLOW_TRACKING_URI", "MLOPS_ASSETS_STORAGE", "MLOPS_ASSETS_MLFLOW_ARTIFACTS"):
        monkeypatch.delenv(name, raising=False)
    return platform


def said(*words: str) -> Result:
    return CliRunner().invoke(app, ["card", *words])


def test_the_card_of_a_version_is_printed_or_written_whole(home: Platform, tmp_path: Path) -> None:
    version = registered_with_card(home.registry)
    printed = said("parcels", "FRA", "--version", version.version)
    assert printed.exit_code == 0, printed.output
    assert printed.stdout.startswith("# Model card: parcels, DEU")
    assert "data:image/svg+xml;base64," in printed.stdout

    written = said("parcels", "FRA", "--version", "1", "--out", str(tmp_path / "card.md"))
    assert written.exit_code == 0, written.output
    assert written.stdout.startswith(str(tmp_path / "card.md"))
    assert (tmp_path / "card.md").read_text() == printed.stdout


def test_the_champion_is_shown_unless_a_version_is_named(home: Platform) -> None:
    first = registered_with_card(home.registry)
    missing = said("parcels", "FRA")
    assert missing.exit_code != 0
    assert isinstance(missing.exception, RegistryError)
    assert "no champion in FRA" in str(missing.exception)
    home.registry.promote(first)
    assert said("parcels", "FRA").stdout.startswith("# Model card: parcels")


def test_a_version_that_is_not_there_is_said(home: Platform) -> None:
    refused = said("parcels", "FRA", "--version", "99")
    assert isinstance(refused.exception, RegistryError)
    assert "no version 99" in str(refused.exception)
