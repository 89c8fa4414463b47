"""Pooled models are judged beside what a naive rule says in the country of each row."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mlops_assets.ml.evaluation.report import Report
from mlops_assets.ml.gates.gates import beats_baseline
from mlops_assets.ml.models.fitted_model import predict
from mlops_assets.ml.models.split import split
from mlops_assets.ml.monitoring.performance import (
    no_performance,
    promise_of,
    realised,
    record_predictions,
)
from mlops_assets.ml.training.selection import PooledModel, pooled_rows, train_pooled
from mlops_assets.spec import ProductSpec
from mlops_assets_tests.ml.scenarios import (
    CLASSIFIER,
    GBM,
    classification_rows,
    classifier,
    product,
    regression_rows,
)

MEAN = {"name": "mean", "rule": "mean"}
TREE = {
    "name": "tree",
    "estimator": "sklearn.tree.DecisionTreeRegressor",
    "params": {"min_samples_leaf": 30},
}
LEVELS = {"DEU": 1000.0, "FRA": 10.0, "LUX": -900.0}
RATES = {"DEU": 0.1, "FRA": 0.4, "LUX": 0.8}


def levels(skill: float = 0.0) -> dict[str, pd.DataFrame]:
    """Countries of very different levels; a share of what is not their mean follows `level`."""
    found = {}
    for place, (country, size) in enumerate(LEVELS.items()):
        frame = regression_rows(450, seed=place)
        noise = np.random.default_rng(place).normal(0, 50.0, len(frame))
        known = {"x": size, "kind": "a", "flag": True, "level": skill * noise}
        found[country] = frame.assign(entity=country, label=size + noise, **known)
    return found


def rates() -> dict[str, pd.DataFrame]:
    found = {}
    for place, (country, rate) in enumerate(RATES.items()):
        frame = classification_rows(450, seed=place)
        label = (np.random.default_rng(place).random(len(frame)) < rate).astype("float64")
        known = {"x": rate, "kind": "a", "flag": True, "level": 0.0}
        found[country] = frame.assign(entity=country, label=label, **known)
    return found


def trained(spec: ProductSpec, frames: Mapping[str, pd.DataFrame]) -> PooledModel:
    (model,) = train_pooled(spec, frames, clock=time.monotonic).values()
    return model


def regression() -> ProductSpec:
    return product(baselines=[MEAN], candidates=[TREE])


def prior(metric: str) -> ProductSpec:
    return classifier(baselines=[MEAN], candidates=[CLASSIFIER.model_dump()], metric=metric)


def test_a_model_that_knows_the_mean_of_each_country_alone_does_not_beat_the_mean() -> None:
    spec = regression()
    model = trained(spec, levels())
    assert abs(model.report.improvement) < 0.1
    assert beats_baseline(model.report, spec).passed is False


@pytest.mark.parametrize("metric", ["log_loss", "brier"])
def test_a_model_that_knows_the_rate_of_each_country_alone_does_not_beat_the_prior(
    metric: str,
) -> None:
    spec = prior(metric)
    model = trained(spec, rates())
    assert abs(model.report.improvement) < 0.1
    assert beats_baseline(model.report, spec).passed is False


def test_the_baseline_of_each_holdout_row_is_the_mean_of_its_country_before_the_holdout() -> None:
    spec, frames = regression(), levels()
    rows = pooled_rows(spec, frames)
    expected = [
        np.full(len(part.holdout), part.final["label"].mean())
        for country in sorted(frames)
        for part in [split(frames[country], spec.split)]
    ]
    np.testing.assert_allclose(rows.holdout_baselines["mean"], np.concatenate(expected))


def test_a_country_without_learned_rows_is_judged_beside_the_mean_of_all() -> None:
    spec, frames = regression(), levels()
    frames["LUX"] = frames["LUX"].tail(40).reset_index(drop=True)
    rows = pooled_rows(spec, frames)
    of_lux = rows.holdout_baselines["mean"][rows.holdout_country == "LUX"]
    np.testing.assert_allclose(of_lux, rows.final["label"].mean())


def outcomes(spec: ProductSpec, frames: Mapping[str, pd.DataFrame], report: Report) -> list[object]:
    """Whether each country says that the pooled promise is broken, by the same model."""
    model = trained(spec, frames)
    found = []
    for country, frame in frames.items():
        held = split(frame, spec.split).holdout
        made = held[["entity", "event_time"]].assign(
            prediction=predict(model.final, held, spec.task),
            lower=np.nan,
            upper=np.nan,
            made="ahead",
            predicted_at=held["event_time"],
            model_version="3",
            model_kind="pooled",
            previous_version="",
            previous_prediction=np.nan,
        )
        table = record_predictions(no_performance(), made, frame, spec.for_country(country))
        found.append(realised(spec, table, promise_of(spec, report, pooled=True), "3").worse)
    return found


def test_countries_of_every_size_keep_the_promise_of_a_pooled_model_that_is_as_good_there() -> None:
    spec, frames = regression(), levels(skill=0.5)
    model = trained(spec, frames)
    assert outcomes(spec, frames, model.report) == [False, False, False]


def test_a_stored_promise_beside_the_mean_of_all_countries_is_not_held_against_one() -> None:
    spec, frames = regression(), levels(skill=0.5)
    stored = replace(trained(spec, frames).report, baselines_by_country=False)
    assert outcomes(spec, frames, stored) == [None, None, None]
    feature = product(candidates=[GBM.model_dump()])
    kept = promise_of(feature, replace(stored, baselines={"level": 2.0}), pooled=True)
    assert kept.baseline == 2.0
