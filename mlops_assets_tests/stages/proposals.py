"""A trained platform, and candidates whose evidence a test writes itself.

The countries have a first champion made by the pipeline. Every further candidate is a registered
version with the same files; what it predicts on the holdout is in its evidence, at a chosen share
of the first champion's error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd

from mlops_assets.components.scaffold import new_product
from mlops_assets.ml.evaluation.evidence import evidence_frame
from mlops_assets.ml.gates.gates import GateResult, gates_to_json
from mlops_assets.ml.gates.model_pair import ModelPair
from mlops_assets.ml.models.fitted_model import predict
from mlops_assets.ml.models.split import split
from mlops_assets.registry import Aliases, LoggedModel, ModelVersion
from mlops_assets.registry.models import registered_name
from mlops_assets.stages.promotion.plan import Requester
from mlops_assets.stages.training.serving import fitted, logged
from mlops_assets_tests.platform import (
    Platform,
    failures,
    generated,
    new_home,
)

PRODUCT = "parcels"
COUNTRIES = ("DEU", "FRA", "NOR")
ASKED = Requester("ana", "prices went wrong")
ONE_CANDIDATE = """  candidates:
    - name: gbm
      estimator: sklearn.ensemble.HistGradientBoostingRegressor
      params: {max_iter: 15, learning_rate: 0.3}
      scopes: [local]
"""


def build_trained(folder: Path, history_template: Path, mlflow_template: Path) -> None:
    """Three countries, each with version 1 as champion and predictions made by it."""
    product = new_product(PRODUCT, folder / "defs")
    yaml = product / "defs.yaml"
    before, _, rest = yaml.read_text().partition("  candidates:\n")
    yaml.write_text(before + ONE_CANDIDATE + rest[rest.index("\n  # Limits") :])
    with new_home(folder, product, history_template, mlflow_template) as platform:
        platform.deliver(generated(platform))
        for country in COUNTRIES:
            result = platform.run(country)
            assert result.success, failures(result)
            assert in_use(platform, country) == "1"


def aliases(platform: Platform, country: str) -> Aliases:
    return platform.registry.aliases(registered_name(PRODUCT, country))


def in_use(platform: Platform, country: str) -> str:
    return aliases(platform, country).champion


def shows(platform: Platform, country: str) -> str:
    """The version that the asset `champion` names."""
    return str(platform.frame("champion", country)["version"].iloc[0])


def registered(platform: Platform, country: str, files: LoggedModel | None = None) -> ModelVersion:
    """One more version with the files (unless others are given) and tags of the first."""
    first = platform.registry.version(registered_name(PRODUCT, country), "1")
    tags = {name: text for name, text in first.tags.items() if not name.startswith("mlops_assets.")}
    return platform.registry.register(
        PRODUCT, country, files or logged(first), run_id=first.run_id, kind="local", tags=tags
    )


def propose(
    platform: Platform,
    country: str,
    *,
    error: float = 0.5,
    champion_error: float = 1.0,
    gates: Sequence[GateResult] | None = None,
    lost: bool = False,
    files: LoggedModel | None = None,
) -> str:
    """A new candidate with its `model` row and evidence, as the step `model` leaves them.

    Args:
        platform: where.
        country: of the candidate.
        error: its error as a share of that of version 1, row by row.
        champion_error: the same of the champion it was compared with.
        gates: their outcomes; None: all passed.
        lost: the evidence that the row names is gone.
        files: of another model; None: those of version 1.

    Returns:
        Its registered version.
    """
    version, champion = registered(platform, country, files), in_use(platform, country)
    evidence = evidence_of(platform, country, error, champion_error)
    written = platform.store.write((PRODUCT, "evidence"), country, evidence)
    row = platform.frame("model", country)
    row["version"] = version.version
    row["gates"] = gates_to_json(gates or passed())
    row["evidence"] = "0" * 32 if lost else written.snapshot.content_hash
    row["champion_version"] = champion
    row["model_pair"] = ModelPair(version.version, champion).to_json()
    write_model(platform, country, row)
    return version.version


def write_model(platform: Platform, country: str, row: pd.DataFrame) -> None:
    """Another `model` snapshot, made from the same as the one before."""
    made = platform.store.current((PRODUCT, "model"), country)
    assert made is not None
    platform.store.write((PRODUCT, "model"), country, row, metadata=made.metadata)


def evidence_of(
    platform: Platform, country: str, error: float, champion_error: float = 1.0
) -> pd.DataFrame:
    """Evidence of a candidate and a champion whose errors are shares of that of version 1."""
    spec = platform.product.resolved(country)
    parts = split(platform.frame("features", country), spec.split)
    first = platform.registry.version(registered_name(PRODUCT, country), "1")
    model = fitted(first.name, first, spec, platform.registry)
    predicted = predict(model, parts.holdout, spec.task)
    label = parts.holdout["label"].to_numpy(dtype="float64")
    ours = label + error * (predicted - label)
    theirs = label + champion_error * (predicted - label)
    wide = np.full(len(label), 50.0)
    return evidence_frame(
        spec, parts.holdout, ours, parts.final, low=ours - wide, high=ours + wide, champion=theirs
    )


def passed() -> list[GateResult]:
    """Gates that stand for those that need the model itself."""
    names = ("loads_and_predicts", "latency_and_size")
    return [GateResult(n, True, 0.1, 1.0, "in time", {"milliseconds": 0.1 + 0.2}) for n in names]


def decide(platform: Platform, country: str) -> dg.ExecuteInProcessResult:
    """A run of `champion` alone."""
    result = platform.run(country, job="train", assets=["champion"])
    assert result.success, failures(result)
    return result
