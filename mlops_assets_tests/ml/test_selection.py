from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_assets.errors import TrainingError
from mlops_assets.ml import selection as module
from mlops_assets.ml.models import fit, predict
from mlops_assets.ml.selection import selected_predictions, train_candidates, train_pooled
from mlops_assets.ml.split import Split, split
from mlops_assets.spec import ProductSpec
from mlops_assets_tests.ml.scenarios import (
    GBM,
    classification_rows,
    classifier,
    product,
    regression_rows,
)

FRAMES = {
    "DEU": regression_rows(420, seed=1),
    "FRA": regression_rows(420, seed=2).assign(entity="FRA"),
    "LUX": regression_rows(50, seed=3, start="2023-11-10").assign(entity="LUX"),
}


def parts_of(spec: ProductSpec, country: str = "DEU") -> Split:
    return split(FRAMES[country], spec.for_country(country).split)


def by_scope(selection: module.Selection) -> dict[tuple[str, str], module.Tried]:
    return {(one.name, one.scope): one for one in selection.tried}


def test_the_best_on_the_countrys_own_validation_rows_is_chosen() -> None:
    spec = product()
    chosen = train_candidates(spec, parts_of(spec), train_pooled(spec, FRAMES))
    tried = by_scope(chosen)
    assert set(tried) == {("gbm", "local"), ("gbm", "pooled"), ("ridge", "local")}
    best = min(tried.values(), key=lambda one: one.value)
    assert (chosen.name, chosen.kind, chosen.value) == (best.name, best.scope, best.value)
    assert all(one.reason == "" for one in tried.values())
    assert f"{best.scope} {best.name} has the best validation mae" in chosen.reason


def test_validation_values_are_of_models_that_have_not_seen_the_rows() -> None:
    spec = product()
    parts = parts_of(spec)
    tried = by_scope(train_candidates(spec, parts, train_pooled(spec, FRAMES)))
    blind = fit(GBM, parts.train, "regression", spec.seed)
    error = np.abs(predict(blind, parts.validation, "regression") - parts.validation["label"])
    assert tried["gbm", "local"].value == pytest.approx(error.mean())
    assert tried["gbm", "local"].rows == len(parts.train)
    stacked = pd.concat([parts_of(spec, country).train for country in sorted(FRAMES)])
    pooled = fit(GBM, stacked.reset_index(drop=True), "regression", spec.seed)
    error = np.abs(predict(pooled, parts.validation, "regression") - parts.validation["label"])
    assert tried["gbm", "pooled"].value == pytest.approx(error.mean())


def test_what_serves_has_learned_everything_up_to_the_holdout() -> None:
    spec = product(candidates=[GBM.model_copy(update={"scopes": ["local"]}).model_dump()])
    parts = parts_of(spec)
    chosen = train_candidates(spec, parts, {})
    assert chosen.kind == "local"
    assert chosen.model is not None
    assert chosen.model.rows == len(parts.final) > len(parts.train)


def test_pooled_models_are_judged_on_the_holdout_of_all_countries() -> None:
    spec = product()
    pooled = train_pooled(spec, FRAMES)
    assert set(pooled) == {"gbm"}
    assert pooled["gbm"].report.rows == sum(len(parts_of(spec, c).holdout) for c in FRAMES)
    assert pooled["gbm"].for_validation.rows < pooled["gbm"].final.rows
    assert "country" not in pooled["gbm"].final.features


def test_pooled_models_do_not_depend_on_the_order_of_countries() -> None:
    spec = product()
    backwards = train_pooled(spec, dict(reversed(FRAMES.items())))
    rows = FRAMES["DEU"]
    np.testing.assert_array_equal(
        predict(train_pooled(spec, FRAMES)["gbm"].final, rows, "regression"),
        predict(backwards["gbm"].final, rows, "regression"),
    )


def test_a_country_with_its_own_split_is_pooled_by_it() -> None:
    override: dict[str, Any] = {"FRA": {"split": {"train_from": "2023-06-01"}}}
    fewer = train_pooled(product(overrides=override), FRAMES)["gbm"].final.rows
    assert fewer < train_pooled(product(), FRAMES)["gbm"].final.rows


def test_a_country_with_too_few_rows_gets_the_pooled_model_and_the_reason() -> None:
    spec = product()
    pooled = train_pooled(spec, FRAMES)
    chosen = train_candidates(spec, parts_of(spec, "LUX"), pooled)
    assert (chosen.kind, chosen.name) == ("pooled", "gbm")
    assert chosen.model is pooled["gbm"].final
    assert by_scope(chosen)["gbm", "local"].reason == "100 training rows are needed, there are 0"


def test_without_any_model_the_first_baseline_serves_and_says_how_many_rows_are_needed() -> None:
    spec = product()
    parts = parts_of(spec, "LUX")
    chosen = train_candidates(spec, parts, {})
    assert (chosen.kind, chosen.name, chosen.model) == ("baseline", "level", None)
    assert "100 training rows are needed, there are 0" in chosen.reason
    assert "no pooled model is there" in chosen.reason
    predicted = selected_predictions(chosen, spec, parts.holdout, parts.final)
    np.testing.assert_array_equal(predicted, parts.holdout["level"])
    assert chosen.interval[0] < chosen.interval[1]


def test_labels_of_one_value_are_a_reason_and_no_crash() -> None:
    spec = classifier()
    parts = split(classification_rows(420).assign(label=1.0), spec.split)
    chosen = train_candidates(spec, parts, {})
    assert chosen.kind == "baseline"
    assert "labels are 1" in chosen.reason


def test_a_local_winner_that_cannot_be_fitted_again_raises() -> None:
    spec = product(candidates=[GBM.model_copy(update={"scopes": ["local"]}).model_dump()])
    parts = parts_of(spec)
    broken = Split(parts.train, parts.validation, parts.final.iloc[:0], parts.holdout, parts.open)
    with pytest.raises(TrainingError, match="no labelled rows"):
        train_candidates(spec, broken, {})


def test_when_validation_cannot_tell_the_pooled_model_goes_first() -> None:
    spec = classifier()
    frames = {"DEU": classification_rows(420), "FRA": classification_rows(420, seed=5)}
    parts = split(frames["DEU"], spec.split)
    blind = Split(parts.train, parts.validation.iloc[:0], parts.final, parts.holdout, parts.open)
    chosen = train_candidates(spec, blind, train_pooled(spec, frames))
    assert chosen.kind == "pooled"
    assert "auc cannot be told on 0 rows" in chosen.reason
    assert np.isnan(chosen.interval).all()


def test_without_pooled_candidates_or_countries_there_is_no_pooled_model() -> None:
    local = [GBM.model_copy(update={"scopes": ["local"]}).model_dump()]
    assert train_pooled(product(candidates=local), FRAMES) == {}
    assert train_pooled(product(), {}) == {}


def test_a_selected_model_predicts_every_row() -> None:
    spec = product()
    parts = parts_of(spec)
    chosen = train_candidates(spec, parts, train_pooled(spec, FRAMES))
    predicted = selected_predictions(chosen, spec, parts.holdout, parts.final)
    assert np.abs(predicted - parts.holdout["label"]).mean() < 1
