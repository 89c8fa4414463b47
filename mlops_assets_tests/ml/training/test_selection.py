from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_assets.errors import TrainingError
from mlops_assets.ml.models.fitted_model import FittedModel, fit, predict, with_params
from mlops_assets.ml.models.split import Split, split
from mlops_assets.ml.training import selection as module
from mlops_assets.ml.training.admission import admit
from mlops_assets.ml.training.selection import (
    PooledModel,
    Selection,
    country_split,
    pooled_rows,
    selected_predictions,
)
from mlops_assets.spec import ProductSpec
from mlops_assets_tests.ml.scenarios import (
    CLASSIFIER,
    GBM,
    RIDGE,
    classification_rows,
    classifier,
    product,
    regression_rows,
)
from mlops_assets_tests.ml.slow import CLOCK

FRAMES = {
    "DEU": regression_rows(420, seed=1),
    "FRA": regression_rows(420, seed=2).assign(entity="FRA"),
    "LUX": regression_rows(50, seed=3, start="2023-11-10").assign(entity="LUX"),
}


def train_pooled(
    spec: ProductSpec, frames: Mapping[str, pd.DataFrame]
) -> Mapping[str, PooledModel]:
    return module.train_pooled(spec, frames, clock=time.monotonic)


def train_candidates(
    spec: ProductSpec, parts: Split, pooled: Mapping[str, PooledModel], country: str = "DEU"
) -> Selection:
    return module.train_candidates(spec, parts, pooled, country=country, clock=time.monotonic)


def parts_of(spec: ProductSpec, country: str = "DEU") -> Split:
    return split(FRAMES[country], spec.for_country(country).split)


def by_scope(selection: module.Selection) -> dict[tuple[str, str], module.CandidateOutcome]:
    return {(one.name, one.scope): one for one in selection.tried}


@pytest.fixture(scope="module")
def pooled() -> Mapping[str, PooledModel]:
    """The pooled models of the usual product, which nobody changes."""
    return train_pooled(product(), FRAMES)


@pytest.fixture(scope="module")
def chosen(pooled: Mapping[str, PooledModel]) -> Selection:
    """What is chosen for DEU in the usual product."""
    return train_candidates(product(), parts_of(product()), pooled)


def test_the_best_on_the_countrys_own_validation_rows_is_chosen(chosen: Selection) -> None:
    tried = by_scope(chosen)
    assert set(tried) == {("gbm", "local"), ("gbm", "pooled"), ("ridge", "local")}
    best = min(tried.values(), key=lambda one: one.value)
    assert (chosen.name, chosen.kind, chosen.value) == (best.name, best.scope, best.value)
    assert all(one.reason == "" for one in tried.values())
    assert f"{best.scope} {best.name} has the best validation mae" in chosen.reason


def test_validation_values_are_of_models_that_have_not_seen_the_rows(chosen: Selection) -> None:
    spec = product()
    parts = parts_of(spec)
    tried = by_scope(chosen)
    blind = fit(GBM, parts.train, "regression", spec.seed)
    error = np.abs(predict(blind, parts.validation, "regression") - parts.validation["label"])
    assert tried["gbm", "local"].value == pytest.approx(error.mean())
    assert tried["gbm", "local"].rows == len(parts.train)
    stacked = pd.concat([parts_of(spec, country).train for country in sorted(FRAMES)])
    of_all = fit(GBM, stacked.reset_index(drop=True), "regression", spec.seed)
    error = np.abs(predict(of_all, parts.validation, "regression") - parts.validation["label"])
    assert tried["gbm", "pooled"].value == pytest.approx(error.mean())


def test_what_serves_has_learned_everything_up_to_the_holdout() -> None:
    spec = product(candidates=[GBM.model_copy(update={"scopes": ["local"]}).model_dump()])
    parts = parts_of(spec)
    chosen = train_candidates(spec, parts, {})
    assert chosen.kind == "local"
    assert chosen.model is not None
    assert chosen.model.rows == len(parts.final) > len(parts.train)


def test_pooled_models_are_judged_on_the_holdout_of_all_countries(
    pooled: Mapping[str, PooledModel],
) -> None:
    spec = product()
    assert set(pooled) == {"gbm"}
    assert pooled["gbm"].report.rows == sum(len(parts_of(spec, c).holdout) for c in FRAMES)
    assert pooled["gbm"].for_validation.rows < pooled["gbm"].final.rows
    assert "country" not in pooled["gbm"].final.features


def test_pooled_models_do_not_depend_on_the_order_of_countries(
    pooled: Mapping[str, PooledModel],
) -> None:
    backwards = train_pooled(product(), dict(reversed(FRAMES.items())))
    rows = FRAMES["DEU"]
    np.testing.assert_array_equal(
        predict(pooled["gbm"].final, rows, "regression"),
        predict(backwards["gbm"].final, rows, "regression"),
    )


def test_a_country_with_its_own_split_is_pooled_by_it(pooled: Mapping[str, PooledModel]) -> None:
    override: dict[str, Any] = {"FRA": {"split": {"train_from": "2023-06-01"}}}
    fewer = train_pooled(product(overrides=override), FRAMES)["gbm"].final.rows
    assert fewer < pooled["gbm"].final.rows


def test_a_country_with_too_few_rows_gets_the_pooled_model_and_the_reason(
    pooled: Mapping[str, PooledModel],
) -> None:
    spec = product()
    chosen = train_candidates(spec, parts_of(spec, "LUX"), pooled)
    assert (chosen.kind, chosen.name) == ("pooled", "gbm")
    assert chosen.model is pooled["gbm"].final
    assert by_scope(chosen)["gbm", "local"].reason == "100 training rows are needed, there are 0"


@pytest.mark.parametrize(
    "fits",
    [lambda f: f.assign(x=np.where(f["x"] > 0, "much", "little")), lambda f: f.drop(columns="x")],
)
def test_a_country_whose_features_the_pooled_model_cannot_read_trains_its_own(
    pooled: Mapping[str, PooledModel], fits: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    spec = product()
    parts = split(fits(FRAMES["DEU"]), spec.split)
    selection = train_candidates(spec, parts, pooled)
    assert selection.kind == "local"
    tried = by_scope(selection)["gbm", "pooled"]
    assert np.isnan(tried.value)
    assert tried.reason.startswith("Model gbm")
    with pytest.raises(TrainingError, match="Model gbm"):
        predict(pooled["gbm"].final, parts.holdout, spec.task)


@pytest.mark.parametrize("scope", ["local", "pooled"])
def test_rows_without_the_offset_keep_no_country_without_a_judged_holdout(scope: str) -> None:
    offset = {**GBM.model_dump(), "offset": "level", "scopes": [scope]}
    spec = product(candidates=[offset])
    frame = FRAMES["DEU"]
    spoilt = frame.assign(level=frame["level"].where(~frame.index.isin([300, 350, 360])))
    models = train_pooled(spec, {**FRAMES, "DEU": spoilt})
    parts = country_split(spoilt, spec)
    selection = train_candidates(spec, parts, models)
    assert selection.kind == scope
    assert np.isfinite(selected_predictions(selection, spec, parts.holdout, parts.final)).all()
    assert "; 3 labelled rows without the offset are not judged by" in selection.reason
    whole = split(spoilt, spec.split)
    assert (
        len(whole.holdout) + len(whole.validation) == len(parts.holdout) + len(parts.validation) + 3
    )
    pd.testing.assert_frame_equal(parts.final, whole.final)


def test_rows_without_the_offset_of_one_candidate_are_judged_by_the_others() -> None:
    offset = {**GBM.model_dump(), "offset": "level"}
    spec = product(candidates=[offset, {**GBM.model_dump(), "name": "plain"}])
    frames = {c: f.assign(level=f["level"].where(f.index < 340)) for c, f in FRAMES.items()}
    parts = country_split(frames["DEU"], spec)
    pd.testing.assert_frame_equal(parts.holdout, split(frames["DEU"], spec.split).holdout)
    assert admit(spec, frames).left_out == ()
    assert np.isfinite(train_pooled(spec, frames)["plain"].report.value)


def test_without_any_model_the_first_baseline_serves_and_says_how_many_rows_are_needed() -> None:
    spec = product()
    parts = parts_of(spec, "LUX")
    chosen = train_candidates(spec, parts, {})
    assert (chosen.kind, chosen.name, chosen.model) == ("baseline", "level", None)
    assert "100 training rows are needed, there are 0" in chosen.reason
    assert "no pooled model is there" in chosen.reason
    predicted = selected_predictions(chosen, spec, parts.holdout, parts.final)
    np.testing.assert_array_equal(predicted, parts.holdout["level"])
    assert len(chosen.validated) == len(parts.validation)


def test_labels_of_one_value_are_a_reason_and_no_crash() -> None:
    spec = classifier()
    parts = split(classification_rows(420).assign(label=1.0), spec.split)
    chosen = train_candidates(spec, parts, {})
    assert chosen.kind == "baseline"
    assert "labels are 1" in chosen.reason


def test_a_local_winner_that_cannot_be_fitted_again_raises() -> None:
    spec = product(candidates=[GBM.model_copy(update={"scopes": ["local"]}).model_dump()])
    parts = parts_of(spec)
    broken = replace(parts, final=parts.final.iloc[:0])
    with pytest.raises(TrainingError, match="no labelled rows"):
        train_candidates(spec, broken, {})


def test_when_validation_cannot_tell_the_pooled_model_goes_first() -> None:
    spec = classifier()
    frames = {"DEU": classification_rows(420), "FRA": classification_rows(420, seed=5)}
    parts = split(frames["DEU"], spec.split)
    blind = replace(parts, validation=parts.validation.iloc[:0])
    chosen = train_candidates(spec, blind, train_pooled(spec, frames))
    assert chosen.kind == "pooled"
    assert "0 validation rows of 100 needed to choose by" in chosen.reason
    assert len(chosen.validated) == 0


def test_without_pooled_candidates_or_countries_there_is_no_pooled_model() -> None:
    local = [GBM.model_copy(update={"scopes": ["local"]}).model_dump()]
    assert train_pooled(product(candidates=local), FRAMES) == {}
    assert train_pooled(product(), {}) == {}


def test_a_selected_model_predicts_every_row(chosen: Selection) -> None:
    spec = product()
    parts = parts_of(spec)
    predicted = selected_predictions(chosen, spec, parts.holdout, parts.final)
    assert np.abs(predicted - parts.holdout["label"]).mean() < 1


SPACE = {"learning_rate": {"low": 0.01, "high": 0.5, "log": True}}
REGIONS = {"west": ["FRA", "LUX"]}


def tuned_gbm(*scopes: str) -> dict[str, Any]:
    """A candidate that learns next to nothing unless its learning rate is searched."""
    params = {"max_iter": 40, "learning_rate": 0.01}
    return {**GBM.model_dump(), "scopes": list(scopes), "params": params, "space": SPACE}


@pytest.fixture(scope="module")
def of_regions() -> Mapping[str, PooledModel]:
    """The pooled models of the usual product with a region, which nobody changes."""
    return train_pooled(regional(), FRAMES)


def regional(**changes: Any) -> ProductSpec:
    candidate = {**GBM.model_dump(), "scopes": ["region", "pooled"]}
    return product(**{"candidates": [candidate], "regions": REGIONS, **changes})


def test_a_region_has_a_model_of_its_countries_alone(
    of_regions: Mapping[str, PooledModel],
) -> None:
    spec = regional()
    assert list(of_regions) == ["gbm", "gbm-west"]
    west = of_regions["gbm-west"]
    assert (west.name, west.candidate, west.region) == ("gbm-west", "gbm", "west")
    own = [parts_of(spec, country) for country in ("FRA", "LUX")]
    stacked = pd.concat([part.final for part in own if len(part.final)], ignore_index=True)
    by_hand = fit(GBM, stacked, "regression", spec.seed)
    rows = FRAMES["FRA"]
    np.testing.assert_array_equal(
        predict(west.final, rows, "regression"), predict(by_hand, rows, "regression")
    )
    assert west.report.rows == sum(len(part.holdout) for part in own)


def test_a_country_chooses_among_all_countries_and_its_region() -> None:
    spec = regional()
    # What `x` means in the region is the opposite of elsewhere: its own model must do better.
    sign = {"DEU": -1.0, "FRA": 1.0, "LUX": 1.0}
    frames = {
        country: rows.assign(label=sign[country] * rows["x"]) for country, rows in FRAMES.items()
    }
    pooled = train_pooled(spec, frames)
    parts = split(frames["FRA"], spec.split)
    chosen = train_candidates(spec, parts, pooled, "FRA")
    assert (chosen.kind, chosen.name, chosen.region) == ("region", "gbm", "west")
    assert chosen.pooled_name == "gbm-west"
    assert chosen.model is pooled["gbm-west"].final
    expected = predict(pooled["gbm-west"].for_validation, parts.validation, "regression")
    np.testing.assert_array_equal(chosen.validated, expected)


def test_a_country_in_no_region_has_no_regional_candidate_and_the_reason(
    of_regions: Mapping[str, PooledModel],
) -> None:
    spec = regional()
    chosen = train_candidates(spec, parts_of(spec), of_regions, "DEU")
    assert by_scope(chosen)["gbm", "region"].reason == "the country is in no region"
    assert (chosen.kind, chosen.region, chosen.pooled_name) == ("pooled", "", "gbm")


def test_a_region_with_too_few_rows_has_no_model_and_its_countries_say_so() -> None:
    spec = regional(regions={"small": ["LUX"]})
    pooled = train_pooled(spec, FRAMES)
    assert list(pooled) == ["gbm"]
    chosen = train_candidates(spec, parts_of(spec, "LUX"), pooled, "LUX")
    reason = by_scope(chosen)["gbm", "region"].reason
    assert reason == "no pooled model of region small is there"


def test_when_validation_cannot_tell_a_region_goes_before_a_local_model() -> None:
    candidate = {**CLASSIFIER.model_dump(), "scopes": ["local", "region"]}
    spec = classifier(candidates=[candidate], regions={"west": ["DEU", "FRA"]})
    frames = {"DEU": classification_rows(420), "FRA": classification_rows(420, seed=5)}
    parts = split(frames["DEU"], spec.split)
    blind = replace(parts, validation=parts.validation.iloc[:0])
    assert train_candidates(spec, blind, train_pooled(spec, frames)).kind == "region"


def test_a_tuned_local_model_is_better_and_tells_what_was_chosen() -> None:
    spec = product(candidates=[tuned_gbm("local")], tuning={"trials": 5})
    untuned = product(candidates=[{**tuned_gbm("local"), "space": {}}])
    parts = parts_of(spec)
    chosen = train_candidates(spec, parts, {})
    assert chosen.value < train_candidates(untuned, parts, {}).value / 2
    assert by_scope(chosen)["gbm", "local"].trials == len(chosen.trials) == 5
    assert set(chosen.trials["candidate"]) == {"gbm"}
    best = chosen.trials.loc[chosen.trials["value"].idxmin()]
    assert chosen.params == {"max_iter": 40, "learning_rate": best["learning_rate"]}


def test_what_serves_is_fitted_with_the_chosen_parameters() -> None:
    spec = product(candidates=[tuned_gbm("local")], tuning={"trials": 4})
    parts = parts_of(spec)
    chosen = train_candidates(spec, parts, {})
    by_hand = fit(with_params(GBM, chosen.params), parts.final, "regression", spec.seed)
    assert chosen.model is not None
    np.testing.assert_array_equal(
        predict(chosen.model, parts.holdout, "regression"),
        predict(by_hand, parts.holdout, "regression"),
    )


def test_neither_validation_nor_holdout_rows_change_what_a_search_finds() -> None:
    spec = product(candidates=[tuned_gbm("local")], tuning={"trials": 4})
    parts = parts_of(spec)
    validation, holdout = (rows.assign(label=-9.0) for rows in (parts.validation, parts.holdout))
    other = replace(parts, validation=validation, holdout=holdout)
    first, second = (train_candidates(spec, each, {}) for each in (parts, other))
    pd.testing.assert_frame_equal(
        first.trials.drop(columns="seconds"), second.trials.drop(columns="seconds")
    )
    assert first.params == second.params
    assert first.value != second.value


def test_a_local_search_starts_at_what_was_found_for_all_countries() -> None:
    spec = product(
        candidates=[tuned_gbm("local", "pooled")], tuning={"trials": 2, "pooled_trials": 4}
    )
    pooled = train_pooled(spec, FRAMES)
    assert len(pooled["gbm"].trials) == 4
    rate = pooled["gbm"].params["learning_rate"]
    assert rate != 0.01
    chosen = train_candidates(spec, parts_of(spec), pooled)
    assert chosen.trials["learning_rate"].tolist() == [rate, 0.01]


@pytest.mark.nightly  # many models, to see how often
def test_a_regions_search_starts_at_what_was_found_for_all_countries() -> None:
    spec = product(
        candidates=[tuned_gbm("region", "pooled")], regions=REGIONS, tuning={"pooled_trials": 4}
    )
    pooled = train_pooled(spec, FRAMES)
    first = pooled["gbm-west"].trials["learning_rate"].iloc[0]
    assert first == pooled["gbm"].params["learning_rate"]


def test_training_twice_gives_the_same_models() -> None:
    spec = product(
        candidates=[tuned_gbm("local", "pooled")], tuning={"trials": 2, "pooled_trials": 2}
    )
    first, second = (
        train_candidates(spec, parts_of(spec), train_pooled(spec, FRAMES)) for _ in range(2)
    )
    assert first.params == second.params
    assert first.reason == second.reason
    rows = parts_of(spec).holdout
    np.testing.assert_array_equal(
        selected_predictions(first, spec, rows, rows),
        selected_predictions(second, spec, rows, rows),
    )


def slow(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "estimator": "mlops_assets_tests.ml.slow.SlowRegressor",
        "scopes": ["local", "pooled"],
        "space": {"level": {"low": 0.0, "high": 1.0}},
    }


def test_the_seconds_of_a_country_are_shared_by_its_searches_and_kept() -> None:
    names = ["one", "two", "three"]
    spec = product(candidates=[slow(name) for name in names], tuning={"seconds": 60})
    before = CLOCK.now
    chosen = module.train_candidates(spec, parts_of(spec), {}, country="DEU", clock=CLOCK)
    assert 50 < CLOCK.now - before <= 60 + 1
    trials = chosen.trials.groupby("candidate").size()
    assert set(trials.index) == set(names)
    assert trials.max() - trials.min() <= 1


def test_the_seconds_of_the_pooled_models_are_shared_by_their_searches_and_kept() -> None:
    names = ["one", "two"]
    spec = product(candidates=[slow(name) for name in names], tuning={"pooled_seconds": 60})
    before = CLOCK.now
    pooled = module.train_pooled(spec, FRAMES, clock=CLOCK)
    assert 50 < CLOCK.now - before <= 60 + 1
    assert abs(len(pooled["one"].trials) - len(pooled["two"].trials)) <= 1


def test_a_new_country_without_a_known_label_is_predicted_on_its_first_day() -> None:
    spec = regional()
    first_day = FRAMES["LUX"].tail(1).assign(label=np.nan)
    parts = split(first_day, spec.split)
    assert len(parts.open) == 1
    assert not len(parts.final)
    pooled = train_pooled(spec, {country: FRAMES[country] for country in ("DEU", "FRA")})
    chosen = train_candidates(spec, parts, pooled, "LUX")
    assert (chosen.kind, chosen.name) == ("pooled", "gbm")
    predicted = selected_predictions(chosen, spec, parts.open, parts.final)
    np.testing.assert_array_equal(predicted, predict(pooled["gbm"].final, parts.open, "regression"))
    assert np.isfinite(predicted).all()
    alone = train_candidates(spec, parts, {}, "LUX")
    assert alone.kind == "baseline"
    predicted = selected_predictions(alone, spec, parts.open, parts.final)
    np.testing.assert_array_equal(predicted, parts.open["level"])


ROLLING = {
    "holdout_days": 60,
    "validation_days": 60,
    "refit": True,
    "min_train_rows": 100,
    "min_holdout_rows": 20,
}
DAY = pd.Timedelta(days=1)


def refit(**changes: Any) -> ProductSpec:
    return product(split={**ROLLING, **changes})


def same(one: FittedModel | None, other: FittedModel | None, rows: pd.DataFrame) -> bool:
    assert one is not None
    assert other is not None
    predicted = [predict(model, rows, "regression") for model in (one, other)]
    return bool((predicted[0] == predicted[1]).all())


@pytest.mark.parametrize("scope", ["local", "pooled"])
def test_what_serves_has_learned_the_holdout_and_what_was_judged_has_not(scope: str) -> None:
    candidate = GBM.model_copy(update={"scopes": [scope]})
    spec = product(split=ROLLING, candidates=[candidate.model_dump()])
    pooled = train_pooled(spec, FRAMES)
    parts = country_split(FRAMES["DEU"], spec, (each.known_until for each in pooled.values()))
    chosen = train_candidates(spec, parts, pooled)
    assert chosen.kind == scope
    every = [FRAMES[country] for country in (sorted(FRAMES) if scope == "pooled" else ["DEU"])]
    known = pd.concat([frame[frame["label"].notna()] for frame in every], ignore_index=True)
    start = max(frame["label_time"].max() for frame in every) - 60 * DAY
    before = known[(known["event_time"] < start) & (known["label_time"] <= start)]
    by_hand = [
        fit(candidate, rows.reset_index(drop=True), "regression", spec.seed)
        for rows in (known, before)
    ]
    assert same(chosen.served, by_hand[0], parts.holdout)
    assert same(chosen.model, by_hand[1], parts.holdout)
    assert not same(chosen.served, chosen.model, parts.holdout)
    assert chosen.served is not None
    assert chosen.served.until == known["event_time"].max()


def test_no_label_of_the_holdout_reaches_what_is_judged() -> None:
    spec = refit()
    spoiled = {
        country: frame.assign(
            label=frame["label"].where(frame["event_time"] < pd.Timestamp("2023-12-27"), -99.0)
        )
        for country, frame in FRAMES.items()
    }
    chosen = []
    for frames in (FRAMES, spoiled):
        pooled = train_pooled(spec, frames)
        parts = country_split(frames["DEU"], spec, (each.known_until for each in pooled.values()))
        assert parts.holdout_from == pd.Timestamp("2023-12-27")  # the newest label: 2024-02-25
        selection = train_candidates(spec, parts, pooled)
        chosen.append((pooled["gbm"].final, selection.model, selection.served, selection.validated))
    rows = FRAMES["FRA"]
    assert same(chosen[0][0], chosen[1][0], rows)
    assert same(chosen[0][1], chosen[1][1], rows)
    assert not same(chosen[0][2], chosen[1][2], rows)
    np.testing.assert_array_equal(chosen[0][3], chosen[1][3])


def test_without_refit_what_was_judged_serves(
    pooled: Mapping[str, PooledModel], chosen: Selection
) -> None:
    spec = product()
    assert pooled["gbm"].served is pooled["gbm"].final
    assert chosen.served is chosen.model is not None
    assert pooled_rows(spec, FRAMES).known.equals(pooled_rows(spec, FRAMES).final)


def test_a_country_whose_labels_are_older_is_judged_where_no_pooled_model_learned() -> None:
    """On its own it would begin its holdout on days of which the others' labels were learned."""
    spec = refit()
    late = {**FRAMES, "LUX": FRAMES["LUX"].assign(label_time=lambda rows: rows["event_time"])}
    (model,) = train_pooled(spec, late).values()
    assert model.known_until == max(frame["label_time"].max() for frame in late.values())
    learned = pd.concat([late["DEU"], late["FRA"]])
    newest = learned.loc[learned["event_time"] <= model.final.until, "label_time"].max()
    alone = country_split(late["LUX"], spec)
    parts = country_split(late["LUX"], spec, [model.known_until])
    assert alone.holdout["event_time"].min() < newest
    assert parts.holdout["event_time"].min() >= newest
    assert 0 < len(parts.holdout) < len(alone.holdout)
    unlabelled = late["LUX"].assign(label=np.nan)
    assert country_split(unlabelled, spec).holdout_from is None
    assert country_split(unlabelled, spec, [model.known_until]).holdout_from == parts.holdout_from


def test_a_country_without_models_is_served_by_its_baseline_with_or_without_refit() -> None:
    spec = product(split=ROLLING | {"min_train_rows": 10_000}, candidates=[RIDGE.model_dump()])
    chosen = train_candidates(spec, split(FRAMES["DEU"], spec.split), {})
    assert (chosen.kind, chosen.model, chosen.served) == ("baseline", None, None)
