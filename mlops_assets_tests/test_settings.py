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


@pytest.mark.parametrize("name", ["a?b", "50%20off", "a\nb"])
@pytest.mark.parametrize(
    ("variable", "form"),
    [("DAGSTER_HOME", "{}"), ("MLFLOW_TRACKING_URI", "sqlite:///{}/mlflow.db")],
)
def test_so_is_a_database_that_is_set_on_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, variable: str, form: str
) -> None:
    monkeypatch.setenv("MLOPS_ASSETS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(variable, form.format(tmp_path / name))
    with pytest.raises(ConfigurationError, match=f"Nothing was read or written.*{variable}"):
        load_settings()


def test_the_address_of_a_tracking_server_may_have_any_characters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.com/a%20b?x=1")
    assert load_settings().mlflow_uri == "https://mlflow.example.com/a%20b?x=1"


@pytest.mark.parametrize("name", ["a b", "50%", "a#b", "Côte d'Ivoire", 'quo"te', "[x]", "a+b"])
def test_a_home_with_any_other_name_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("MLOPS_ASSETS_HOME", str(tmp_path / name))
    assert load_settings().home == tmp_path / name
