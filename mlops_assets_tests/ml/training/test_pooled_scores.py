"""A country with a handful of validation rows chooses by those of many countries."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mlops_assets.ml.models.fitted_model import predict
from mlops_assets.ml.models.split import split
from mlops_assets.ml.training.pooled_scores import (
    PooledScore,
    choose_baseline,
    comparable,
    merged_scores,
    scores_from_json,
    scores_to_json,
)
from mlops_assets.ml.training.selection import (
    PooledModel,
    Selection,
    train_candidates,
    train_pooled,
)
from mlops_assets.spec import ProductSpec
from mlops_assets_tests.ml.scenarios import (
    CLASSIFIER,
    classification_rows,
    classifier,
    product,
    regression_rows,
)

GOOD = {**CLASSIFIER.model_dump(), "name": "good", "scopes": ["pooled"]}
WEAK = {
    **CLASSIFIER.model_dump(),
    "name": "weak",
    "scopes": ["pooled"],
    "params": {"max_iter": 1, "max_leaf_nodes": 2, "learning_rate": 0.01},
}
PRIOR = {"name": "prior", "rule": "mean"}
LEVEL = {"name": "recency", "rule": "feature", "feature": "level"}
FRAMES = {
    "DEU": classification_rows(420, seed=1),
    "FRA": classification_rows(420, seed=2).assign(entity="FRA"),
}


def spec_of(**changes: Any) -> ProductSpec:
    # The worse one first, so that the order of the YAML decides nothing.
    sections: dict[str, Any] = {"candidates": [WEAK, GOOD], "baselines": [PRIOR, LEVEL]}
    return classifier(**{**sections, **changes})


def tiny(rows: int, seed: int) -> pd.DataFrame:
    """The last rows before the holdout, whose labels say nothing of what they are made of."""
    frame = classification_rows(420, seed).tail(90 + rows).assign(entity="LUX")
    start = pd.Timestamp("2023-12-01") - pd.Timedelta(days=rows + 1)
    moved = frame.assign(event_time=pd.date_range(start, periods=len(frame)))
    label = np.random.default_rng(seed).integers(0, 2, len(frame)).astype("float64")
    return moved.assign(label_time=moved["event_time"] + pd.Timedelta(days=1), label=label)


def chosen(
    spec: ProductSpec,
    frame: pd.DataFrame,
    pooled: Mapping[str, PooledModel],
    country: str = "LUX",
) -> Selection:
    parts = split(frame, spec.split)
    return train_candidates(spec, parts, pooled, country=country, clock=time.monotonic)


@pytest.fixture(scope="module")
def pooled() -> Mapping[str, PooledModel]:
    return train_pooled(spec_of(), FRAMES, clock=time.monotonic)


def test_scores_are_of_the_validation_rows_of_all_countries_that_no_model_has_seen(
    pooled: Mapping[str, PooledModel],
) -> None:
    spec = spec_of()
    rows = pd.concat([split(FRAMES[name], spec.split).validation for name in ("DEU", "FRA")])
    label = rows["label"].to_numpy()
    for model in pooled.values():
        score = model.scores[""]
        told = roc_auc_score(label, predict(model.for_validation, rows, "classification"))
        assert (score.rows, score.countries) == (len(rows), 2)
        assert score.value == pytest.approx(told)
        assert score.baselines["recency"] == pytest.approx(roc_auc_score(label, rows["level"]))
        assert scores_from_json(scores_to_json(model.scores)) == model.scores


def test_a_region_chooses_its_baseline_by_its_own_rows_whichever_model_was_trained_first() -> None:
    first, second = (PooledScore(900, 2, 0.7, {"prior": 0.5, "recency": r}) for r in (0.4, 0.8))
    held = merged_scores([{"north": first}, {"south": second}, {"north": second}])
    assert held == {"north": first, "south": second}
    parts = split(FRAMES["DEU"].head(0), spec_of().split)
    chosen = [choose_baseline(spec_of(), parts, held, each).name for each in ("north", "south")]
    assert chosen == ["prior", "recency"]


@given(rows=st.integers(0, 60), seed=st.integers(0, 20))
def test_a_country_with_few_validation_rows_takes_the_pooled_model_that_is_best_over_all(
    pooled: Mapping[str, PooledModel], rows: int, seed: int
) -> None:
    found = chosen(spec_of(), tiny(rows, seed), pooled)
    assert (found.kind, found.name) == ("pooled", "good")
    for told in ("of all countries", "pooled weak", "because the country has", "100 needed"):
        assert told in found.reason


def test_with_enough_rows_of_both_classes_a_country_chooses_by_its_own(
    pooled: Mapping[str, PooledModel],
) -> None:
    spec = spec_of(split={"holdout_from": "2023-12-01", "validation_days": 200})
    found = chosen(spec, FRAMES["DEU"], pooled, "DEU")
    values = {one.name: one.value for one in found.tried}
    assert found.name == max(values, key=lambda name: values[name])
    assert "pooled good has the best validation auc, " in found.reason
    frame = FRAMES["DEU"].copy()
    frame["label"] = (np.arange(len(frame)) % 40 == 0) * 1.0
    assert "of the rarer class" in chosen(spec, frame, pooled, "DEU").reason


def test_models_of_before_that_recorded_no_scores_are_taken_in_the_order_of_the_yaml(
    pooled: Mapping[str, PooledModel],
) -> None:
    old = {name: replace(model, scores={}) for name, model in pooled.items()}
    found = chosen(spec_of(), tiny(4, 0), old)
    assert found.name == "weak"
    assert "nothing is recorded" in found.reason


def test_a_local_model_is_chosen_on_as_many_rows_as_judge_a_country_and_not_on_fewer() -> None:
    local = {"name": "ridge", "estimator": "sklearn.linear_model.Ridge", "scopes": ["local"]}
    weak = {
        "name": "gbm",
        "estimator": "sklearn.ensemble.HistGradientBoostingRegressor",
        "params": {"max_iter": 1, "learning_rate": 0.01},
        "scopes": ["pooled"],
    }
    frames = {"DEU": regression_rows(420, 1), "FRA": regression_rows(420, 2)}
    for days, kind in ((60, "local"), (12, "pooled")):
        split_of = {"holdout_from": "2023-12-01", "validation_days": days, "min_train_rows": 100}
        spec = product(candidates=[weak, local], split={**split_of, "min_holdout_rows": 20})
        made = train_pooled(spec, frames, clock=time.monotonic)
        assert chosen(spec, frames["DEU"], made, "DEU").kind == kind


def test_the_worst_possible_value_is_never_the_reason_for_a_choice() -> None:
    spec = spec_of(
        candidates=[{**GOOD, "scopes": ["local"]}],
        split={"holdout_from": "2023-12-01", "validation_days": 3, "min_train_rows": 50},
    )
    frame = FRAMES["DEU"].copy()
    found = chosen(spec, frame, {}, "DEU")
    assert found.kind == "local"
    assert "the best validation" not in found.reason
    assert found.reason == "local good is the only one that could be had"


# Baselines


def test_the_best_baseline_serves_by_own_rows_or_by_those_of_all_countries_and_says_why(
    pooled: Mapping[str, PooledModel],
) -> None:
    spec, frame = spec_of(), tiny(6, 3)
    alone = train_candidates(
        spec,
        split(frame, spec.split),
        {},
        country="LUX",
        clock=time.monotonic,
        scores=pooled["good"].scores,
    )
    assert (alone.kind, alone.name, alone.baseline.name) == ("baseline", "recency", "recency")
    for told in ("best validation auc", "of all countries", "prior 0.5", "validation rows of 100"):
        assert told in alone.reason
    wide = spec_of(split={"holdout_from": "2023-12-01", "validation_days": 200})
    own = choose_baseline(wide, split(FRAMES["DEU"], wide.split), {}, "")
    assert own.name == "recency"
    assert "validation rows of the country" in own.reason


def test_nobody_to_ask_leaves_the_first_baseline() -> None:
    spec = spec_of()
    parts = split(classification_rows(30, start="2024-01-01"), spec.split)
    found = choose_baseline(spec, parts, {}, "")
    assert found.name == "prior"
    assert "it is the first" in found.reason


def test_a_region_goes_before_all_countries_where_every_model_is_scored_on_it() -> None:
    all_, west = PooledScore(9, 3, 0.6, {}), PooledScore(5, 2, 0.7, {})
    both, only = {"": all_, "west": west}, {"west": west}
    assert comparable([both, only], "west") == "west"
    assert comparable([both, {"": all_}], "west") == ""
    assert comparable([both, only], "") is None
    assert comparable([{"": replace(all_, value=float("nan"))}], "") is None
    assert comparable([], "") is None
