"""Where a home may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlops_assets.errors import ConfigurationError
from mlops_assets.settings import load_settings


@pytest.mark.parametrize("name", ["a?b", "50%20off", "a\nb"])
def test_a_home_that_databases_would_look_for_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("MLOPS_ASSETS_HOME", str(tmp_path / name))
    with pytest.raises(ConfigurationError, match="Nothing was read or written"):
        load_settings()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a b", "50%", "a#b", "Côte d'Ivoire", 'quo"te', "[x]", "a+b"])
def test_a_home_with_any_other_name_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("MLOPS_ASSETS_HOME", str(tmp_path / name))
    assert load_settings().home == tmp_path / name
