"""What may be stored and loaded: a model file is a program until it is checked."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
import pytest
import skops.io
import yaml
from lightgbm import LGBMRegressor
from mlflow.artifacts import download_artifacts
from sklearn.cluster import Birch
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer

from mlops_assets.errors import RegistryError
from mlops_assets.registry import LoggedModel, ModelVersion, Registry
from mlops_assets.registry.models import _digest, log_model, untrusted
from mlops_assets_tests.registry.conftest import ROWS, open_run

Store = Callable[..., LoggedModel]


def files(logged: LoggedModel) -> Path:
    return Path(download_artifacts(logged.uri))


def version_of(registry: Registry, logged: LoggedModel) -> ModelVersion:
    return registry.register("trust", "FRA", logged, run_id="", kind="local", tags={})


def as_it_is_now(logged: LoggedModel) -> LoggedModel:
    """What somebody who may write the registry as well as the files would register."""
    return LoggedModel(logged.uri, _digest(files(logged)))


def refusal(registry: Registry, version: ModelVersion) -> str:
    with pytest.raises(RegistryError) as caught:
        registry.load(version)
    text = str(caught.value)
    assert "trust.FRA version" in text
    assert "champion alias is as it was" in text
    assert "Materialize `model` and `champion`" in text
    return text


@pytest.mark.parametrize(
    ("function", "culprit"),
    [
        (lambda values: values, "<lambda>"),
        (functools.partial(os.system), "system"),
        (eval, "eval"),
        (np.load, "numpy.load"),
        (functools.partial(np.testing.rundocs), "numpy.testing"),
    ],
    ids=["lambda", "os.system", "eval", "numpy.load", "numpy.testing"],
)
def test_a_model_of_untrusted_parts_is_not_stored_and_the_error_names_them(
    registry: Registry, function: Callable[..., object], culprit: str
) -> None:
    with open_run(registry) as run_id:
        before = mlflow.search_logged_models(output_format="list")
        with pytest.raises(RegistryError, match=culprit) as caught:
            log_model(FunctionTransformer(function), ROWS, ROWS.to_numpy(), "model")
        assert mlflow.search_logged_models(output_format="list") == before
        assert mlflow.MlflowClient().list_artifacts(run_id) == []
    assert "The model was not logged." in str(caught.value)


def test_a_model_skops_cannot_store_is_not_stored_and_the_error_says_why(
    registry: Registry,
) -> None:
    with open_run(registry), pytest.raises(RegistryError, match=r"Birch.*not logged.*skops"):
        log_model(Birch().fit(ROWS.to_numpy()), ROWS, ROWS, "model")


def test_ordinary_estimators_are_stored_and_loaded_with_the_same_predictions(
    registry: Registry, stored: Store
) -> None:
    models = [
        HistGradientBoostingRegressor(max_iter=3, min_samples_leaf=2),
        LGBMRegressor(n_estimators=3, min_child_samples=2, verbose=-1, n_jobs=1),
        RandomForestRegressor(2, random_state=0),
        make_pipeline(
            KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf"), KNeighborsRegressor(2)
        ),
        TransformedTargetRegressor(
            RandomForestRegressor(2, random_state=0), func=np.log1p, inverse_func=np.expm1
        ),
    ]
    for model in models:
        fitted = model.fit(ROWS, ROWS["price"])
        loaded = registry.load(version_of(registry, stored(fitted))).estimator
        np.testing.assert_array_equal(loaded.predict(ROWS), fitted.predict(ROWS))


def test_a_lightgbm_model_names_its_package_among_what_it_needs(
    registry: Registry, stored: Store
) -> None:
    fitted = LGBMRegressor(n_estimators=2, min_child_samples=2, verbose=-1, n_jobs=1)
    needs = (files(stored(fitted.fit(ROWS, ROWS["price"]))) / "requirements.txt").read_text()
    assert f"lightgbm=={version('lightgbm')}" in needs
    assert "lightgbm" not in (files(stored()) / "requirements.txt").read_text()


def test_a_model_of_a_package_that_is_not_installed_is_refused_by_name(
    registry: Registry, stored: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = LGBMRegressor(n_estimators=2, min_child_samples=2, verbose=-1, n_jobs=1)
    made = version_of(registry, stored(fitted.fit(ROWS, ROWS["price"])))
    for name in [name for name in sys.modules if name.partition(".")[0] == "lightgbm"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert "needs a package that is not installed" in refusal(registry, made)


def test_parts_of_scikit_learn_that_reach_files_or_processes_are_not_trusted() -> None:
    dangerous = ["sklearn.utils._testing.check_output", "sklearn.datasets._base.load_files"]
    assert untrusted([*dangerous, "sklearn.tree._tree.Tree"]) == dangerous


def test_a_model_that_this_process_stored_is_not_parsed_again_but_its_files_are_checked(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = Ridge().fit(ROWS, ROWS["price"])
    with open_run(registry):
        logged = log_model(fitted, ROWS, fitted.predict(ROWS), "model")
    version = version_of(registry, logged)
    monkeypatch.setattr(skops.io, "load", pytest.fail)
    loaded = registry.load(version)
    assert (loaded.estimator, loaded.features) == (fitted, tuple(ROWS.columns))
    (files(logged) / "model.skops").write_bytes(b"")
    assert "not the one that was registered" in refusal(registry, version)
    shutil.rmtree(files(logged))
    assert "its files cannot be read" in refusal(registry, version)


def test_a_changed_file_is_refused(registry: Registry, stored: Store) -> None:
    logged = stored()
    version = version_of(registry, logged)
    with (files(logged) / "model.skops").open("ab") as file:
        file.write(b"\0")
    assert "not the one that was registered" in refusal(registry, version)


def test_a_changed_description_is_refused(registry: Registry, stored: Store) -> None:
    logged = stored()
    version = version_of(registry, logged)
    described = files(logged) / "MLmodel"
    described.write_text(described.read_text().replace("temperature", "humidity"))
    assert "not the one that was registered" in refusal(registry, version)


@pytest.mark.parametrize("name", ["model.skops", "MLmodel"])
def test_a_deleted_file_is_refused(registry: Registry, stored: Store, name: str) -> None:
    logged = stored()
    version = version_of(registry, logged)
    (files(logged) / name).unlink()
    assert "cannot be read" in refusal(registry, version)


def test_deleted_files_are_refused(registry: Registry, stored: Store) -> None:
    logged = stored()
    version = version_of(registry, logged)
    folder = files(logged)
    folder.rename(folder.with_name("gone"))
    assert "cannot be read" in refusal(registry, version)


def test_a_description_that_asks_for_untrusted_types_is_refused(
    registry: Registry, stored: Store
) -> None:
    logged = stored()
    described = files(logged) / "MLmodel"
    content = yaml.safe_load(described.read_text())
    content["flavors"]["sklearn"]["skops_trusted_types"] = ["posix.system"]
    described.write_text(yaml.safe_dump(content))
    version = version_of(registry, as_it_is_now(logged))
    assert "not trusted: posix.system" in refusal(registry, version)


def test_a_file_with_untrusted_types_is_refused_whatever_its_description_says(
    registry: Registry, stored: Store, tmp_path: Path
) -> None:
    logged = stored()
    order = functools.partial(os.system, f"touch {tmp_path / 'ran'}")
    (files(logged) / "model.skops").write_bytes(skops.io.dumps(FunctionTransformer(order)))
    version = version_of(registry, as_it_is_now(logged))
    assert "not trusted: posix.system" in refusal(registry, version)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("serialization_format: skops", "serialization_format: cloudpickle", "not stored with"),
        ("flavors:", "flavours:", "damaged"),
    ],
)
def test_a_description_of_something_else_is_refused(
    registry: Registry, stored: Store, old: str, new: str, reason: str
) -> None:
    logged = stored()
    described = files(logged) / "MLmodel"
    text = described.read_text()
    assert old in text
    described.write_text(text.replace(old, new))
    assert reason in refusal(registry, version_of(registry, as_it_is_now(logged)))


def test_the_description_cannot_name_another_file_or_code_to_run(
    registry: Registry, stored: Store, tmp_path: Path
) -> None:
    logged = stored()
    folder = files(logged)
    (folder / "code").mkdir()
    (folder / "code" / "sklearn.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    content = yaml.safe_load((folder / "MLmodel").read_text())
    content["flavors"]["sklearn"] |= {"pickled_model": "other.skops", "code": "code"}
    (folder / "MLmodel").write_text(yaml.safe_dump(content))
    loaded = registry.load(version_of(registry, as_it_is_now(logged)))
    assert type(loaded.estimator).__name__ == "Ridge"
    assert not (tmp_path / "ran").exists()
