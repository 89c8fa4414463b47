from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingRegressor

from mlops_assets.errors import ConfigurationError
from mlops_assets.ml.training.tuning import Budget, Tuned, tune
from mlops_assets.spec import CandidateSpec, ProductSpec
from mlops_assets_tests.effort import examples
from mlops_assets_tests.ml.scenarios import (
    CLASSIFIER,
    GBM,
    classification_rows,
    classifier,
    product,
    regression_rows,
)
from mlops_assets_tests.ml.slow import CLOCK

SPACE = {
    "learning_rate": {"low": 0.01, "high": 0.5, "log": True},
    "max_leaf_nodes": {"low": 3, "high": 31},
    "loss": {"choices": ["squared_error", "absolute_error"]},
}
LEVELS = {"level": {"low": 0.0, "high": 3.0}}


def searched(space: Mapping[str, Any] = SPACE, **changes: Any) -> CandidateSpec:
    return CandidateSpec.model_validate({**GBM.model_dump(), "space": space, **changes})


def slow(space: Mapping[str, Any] = LEVELS, **params: Any) -> CandidateSpec:
    return searched(space, estimator="mlops_assets_tests.ml.slow.SlowRegressor", params=params)


def spec_of(candidate: CandidateSpec, **changes: Any) -> ProductSpec:
    return product(
        **{
            "candidates": [candidate.model_dump()],
            "tuning": {"trials": 1, "pooled_trials": 1},
            **changes,
        }
    )


def tuned(
    candidate: CandidateSpec,
    trials: int = 6,
    deadline: float | None = None,
    start: Mapping[str, Any] | None = None,
    rows: pd.DataFrame | None = None,
) -> Tuned:
    rows = regression_rows(400) if rows is None else rows
    budget = Budget(trials, None if deadline is None else CLOCK.now + deadline)
    return tune(candidate, rows, spec_of(candidate), budget, clock=CLOCK, start=start)


def points(found: Tuned, *names: str) -> list[tuple[Any, ...]]:
    return list(found.trials[list(names)].itertuples(index=False, name=None))


@pytest.mark.nightly  # many models, to see how often
def test_the_same_search_twice_is_the_same() -> None:
    first, second = (tuned(searched()) for _ in range(2))
    assert first.params == second.params
    assert first.value == second.value
    pd.testing.assert_frame_equal(
        first.trials.drop(columns="seconds"), second.trials.drop(columns="seconds")
    )
    assert first.ended == ""


def test_a_trial_is_judged_by_models_that_knew_only_labels_of_before() -> None:
    candidate = searched({"max_leaf_nodes": {"low": 3, "high": 31}})
    # Labels are known after five days, so the rows just before a fold are on neither side.
    rows = regression_rows(400).assign(
        label_time=lambda f: f["event_time"] + pd.Timedelta(days=5), kind="a"
    )
    found = tuned(candidate, 3, rows=rows)
    inputs = rows[["x", "level", "flag"]].to_numpy("float64")
    for leaves, value in points(found, "max_leaf_nodes", "value"):
        errors = []
        for start, end in ((200, 266), (266, 333), (333, 400)):
            model = HistGradientBoostingRegressor(
                max_iter=40, max_leaf_nodes=leaves, random_state=3
            )
            known = start - 4  # event plus five days, at the latest when the fold starts
            model.fit(inputs[:known], rows["label"][:known])
            errors.append(np.abs(model.predict(inputs[start:end]) - rows["label"][start:end]))
        assert value == pytest.approx(np.concatenate(errors).mean())


def test_the_best_trial_is_chosen_in_the_direction_of_the_metric() -> None:
    found = tuned(searched(), 4)
    assert found.value == found.trials["value"].min()
    best = found.trials.loc[found.trials["value"].idxmin()]
    assert {name: best[name] for name in SPACE} == found.params
    candidate = CandidateSpec.model_validate(
        {**CLASSIFIER.model_dump(), "space": {"learning_rate": {"low": 0.0001, "high": 0.5}}}
    )
    spec = classifier(candidates=[candidate.model_dump()], tuning={"trials": 3, "pooled_trials": 1})
    greater = tune(candidate, classification_rows(400), spec, Budget(3, None), clock=CLOCK)
    assert greater.value == greater.trials["value"].max() > greater.trials["value"].min()


def test_a_search_finds_better_parameters_than_bad_ones() -> None:
    bad = searched({"learning_rate": {"low": 0.0001, "high": 0.5, "log": True}})
    bad = bad.model_copy(update={"params": {"max_iter": 40, "learning_rate": 0.0001}})
    found = tuned(bad, 8)
    own = found.trials["value"].iloc[0]
    assert found.trials["learning_rate"].iloc[0] == 0.0001
    assert found.value < own / 3


def test_the_first_trial_starts_where_another_search_ended_and_the_second_is_its_own() -> None:
    found = tuned(searched(), 3, start={"learning_rate": 0.2, "max_leaf_nodes": 5, "max_iter": 9})
    first, second = points(found, *SPACE)[:2]
    assert first == (0.2, 5, "squared_error")
    assert second == (0.1, 31, "squared_error")


def test_a_start_outside_the_space_is_taken_as_far_as_it_goes() -> None:
    start = {"learning_rate": 9.0, "max_leaf_nodes": 5.0, "loss": "poisson"}
    assert points(tuned(searched(), 2, start=start), *SPACE)[0] == (0.1, 31, "squared_error")
    outside = searched({"max_leaf_nodes": {"low": 40, "high": 60}})
    (leaves,) = points(tuned(outside, 1), "max_leaf_nodes")[0]
    assert 40 <= leaves <= 60


def test_chosen_parameters_have_the_types_of_the_space() -> None:
    space = {
        "max_leaf_nodes": {"low": 3, "high": 31},
        "l2_regularization": {"low": 0, "high": 1.5},
        "early_stopping": {"choices": [True, False]},
        "loss": {"choices": ["squared_error", "absolute_error"]},
    }
    params = tuned(searched(space), 2).params
    assert [type(params[name]) for name in space] == [int, float, bool, str]


def test_parameters_that_fail_are_recorded_and_passed_over() -> None:
    found = tuned(slow({"level": {"choices": [-2.0, -1.0, 0.5, 1.5]}}, level=-1.0), 40)
    failed = found.trials[found.trials["error"] != ""]
    assert set(failed["level"]) == {-1.0, -2.0}
    assert failed["value"].isna().all()
    assert failed["error"].str.contains("the level is below 0").all()
    assert found.params["level"] in (0.5, 1.5)


def test_when_every_trial_fails_the_candidates_own_parameters_hold() -> None:
    found = tuned(slow({"level": {"low": -2.0, "high": -1.0}}), 3)
    assert (found.params, len(found.trials)) == ({}, 3)
    assert np.isnan(found.value)


def test_a_parameter_set_is_fitted_once_and_an_exhausted_space_ends_the_search() -> None:
    before = CLOCK.now
    found = tuned(slow({"level": {"choices": [0.5, 1.5]}}), 1000)
    assert CLOCK.now - before == 2 * 3
    assert found.ended == "every parameter set was tried"
    assert len(found.trials) < 200


# A fit takes one second, a trial has three folds, and two fits come after the search.
@pytest.mark.parametrize(
    ("deadline", "trials"), [(0.0, 1), (4.9, 1), (5.0, 1), (7.9, 1), (8.0, 2), (10.9, 2), (11.0, 3)]
)
def test_no_trial_is_begun_that_would_pass_the_deadline(deadline: float, trials: int) -> None:
    before = CLOCK.now
    found = tuned(slow(), 100, deadline)
    assert len(found.trials) == trials
    assert found.ended == "time"
    spent = CLOCK.now - before
    assert spent <= max(deadline - 2, 1)


def test_a_trial_that_takes_longer_than_those_before_is_broken_off() -> None:
    space = {"seconds": {"choices": [1.0, 50.0]}, "level": {"low": 0.0, "high": 1.0}}
    before = CLOCK.now
    found = tuned(slow(space, seconds=1.0), 1000, 100.0)
    assert "the time was up after 1 folds" in set(found.trials["error"])
    assert found.params["seconds"] == 1.0
    assert CLOCK.now - before < 100


def test_the_deadline_and_the_trials_end_a_search_whichever_is_first() -> None:
    assert (len(tuned(slow(), 2, 1000).trials), tuned(slow(), 2, 1000).ended) == (2, "")
    assert len(tuned(slow(), 0, 8.0).trials) == 2


def test_a_deadline_that_has_passed_leaves_the_candidate_as_it_is() -> None:
    found = tuned(slow(), 5, -1.0)
    assert (found.params, len(found.trials), found.ended) == ({}, 0, "time")
    assert list(found.trials) == ["number", "level", "value", "seconds", "error"]


def test_without_a_space_or_a_budget_nothing_is_searched() -> None:
    for found in (tuned(searched({})), tuned(searched(), trials=0)):
        assert (found.params, len(found.trials), found.ended) == ({}, 0, "")


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_rows_that_no_fold_can_be_made_of_are_no_reason_to_fail(rows: int) -> None:
    found = tuned(searched(), rows=regression_rows(400).iloc[:rows])
    assert (found.params, found.ended) == ({}, "no fold of the rows can be judged")


def test_folds_with_labels_of_one_class_are_not_judged() -> None:
    candidate = CandidateSpec.model_validate(
        {**CLASSIFIER.model_dump(), "space": {"learning_rate": {"low": 0.01, "high": 0.5}}}
    )
    spec = classifier(candidates=[candidate.model_dump()], tuning={"trials": 2, "pooled_trials": 1})
    rows = classification_rows(400)
    rows.loc[266:332, "label"] = 1.0  # the second of three folds
    found = tune(candidate, rows, spec, Budget(2, None), clock=CLOCK)
    assert found.trials["value"].notna().all()


def test_rows_without_the_offset_do_not_spoil_a_search() -> None:
    rows = regression_rows(400)
    rows.loc[::7, "level"] = np.nan
    found = tuned(searched(offset="level"), 2, rows=rows)
    assert found.trials["value"].notna().all()


def test_a_parameter_the_estimator_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="bogus"):
        tuned(searched({"bogus": {"low": 1, "high": 2}}))


def test_a_search_is_silent_and_leaves_the_loggers_as_they_were(
    capfd: pytest.CaptureFixture[str],
) -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    tuned(searched(), 2)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before
    assert logging.getLogger().level == logging.WARNING


@settings(max_examples=examples(20))
@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_every_trial_is_inside_the_space_whatever_the_seed(trials: int, seed: int) -> None:
    candidate = slow()
    spec = spec_of(candidate, seed=seed)
    found = tune(candidate, regression_rows(60), spec, Budget(trials, None), clock=time.monotonic)
    assert len(found.trials) == trials
    assert found.trials["level"].between(0, 3).all()
