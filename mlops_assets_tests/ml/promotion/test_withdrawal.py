"""A champion beside the naive rule on matured rows: what is withdrawn, and for what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.models.fitted_model import FittedModel
from mlops_assets.ml.monitoring.beside_baseline import (
    against_baseline,
    serving_naive,
    withdrawal_rows,
)
from mlops_assets.ml.monitoring.performance import PERFORMANCE_COLUMNS
from mlops_assets.ml.promotion.withdrawal import (
    StandIn,
    Withdrawal,
    WithdrawalSettings,
    decide_withdrawal,
)
from mlops_assets.spec import ProductSpec
from mlops_assets_tests.effort import examples
from mlops_assets_tests.ml.scenarios import classifier, product

POOLED = StandIn("pooled gbm 4", "")
NONE = StandIn()
SPEC = product(evaluation={"block_days": 7, "draws": 500})
START = pd.Timestamp("2024-01-01")


def table(
    rows: int = 56, *, error: float = 1.0, naive: float = 1.0, seed: int = 0, version: str = "1"
) -> pd.DataFrame:
    """Performance of a version: a row a day, errors of model and baseline at these sizes."""
    rng = np.random.default_rng(seed)
    event = START + pd.to_timedelta(np.arange(rows), "D")
    label = 10 + rng.normal(size=rows)
    blank: dict[str, Any] = dict.fromkeys(PERFORMANCE_COLUMNS, np.nan)
    return pd.DataFrame(
        {
            **blank,
            "entity": "DEU",
            "event_time": event,
            "label_time": event + pd.Timedelta(days=1),
            "made": "ahead",
            "predicted_at": event,
            "model_version": version,
            "model_kind": "local",
            "prediction": label + error * rng.normal(size=rows),
            "baseline": label + naive * rng.normal(size=rows),
            "previous_version": "",
            "label": label,
            "first_label": label,
        }
    )


def settings_of(spec: ProductSpec = SPEC, stand_in: StandIn = NONE) -> WithdrawalSettings:
    return WithdrawalSettings(spec, "1", spec.baselines[0].name, stand_in)


def decided(
    found: pd.DataFrame, pooled_error: float | None = None, stand_in: StandIn = POOLED
) -> Withdrawal:
    naive = found["baseline"].to_numpy()
    rows = withdrawal_rows(SPEC, found, found[[]], "1", naive=naive)
    if pooled_error is not None:
        noise = np.random.default_rng(7).normal(size=len(rows))
        rows = rows.assign(pooled=rows["label"] + pooled_error * noise)
    return decide_withdrawal(rows, settings_of(stand_in=stand_in))


def test_a_model_four_times_worse_than_the_naive_rule_makes_way_for_the_pooled_one() -> None:
    found = decided(table(error=4.2), pooled_error=0.5)
    assert (found.decision.verdict, found.target) == ("withdrawn", "pooled")
    assert "pooled gbm 4 serves" in found.decision.reason


def test_the_numbers_are_those_that_a_person_would_compute_from_the_rows() -> None:
    made = table(error=4.2)
    decision = decided(made).decision
    ours = (made["prediction"] - made["label"]).abs().mean()
    naive = (made["baseline"] - made["label"]).abs().mean()
    assert decision.champion_value == pytest.approx(ours)
    assert decision.candidate_value == pytest.approx(naive)
    assert decision.gain == pytest.approx(1 - ours / naive)
    assert decision.lower < decision.gain < decision.upper < 0
    assert decision.rows == len(made)


@pytest.mark.parametrize(
    ("pooled_error", "stand_in", "why"),
    [
        (4.2, POOLED, "significantly worse than it, too"),
        (0.5, StandIn("pooled gbm 4", "it is what serves already"), "serves already"),
        (None, StandIn(), "there is no pooled model"),
    ],
)
def test_the_baseline_serves_where_something_speaks_against_the_pooled_model(
    pooled_error: float | None, stand_in: StandIn, why: str
) -> None:
    found = decided(table(error=4.2), pooled_error, stand_in)
    assert (found.decision.verdict, found.target) == ("withdrawn", "baseline")
    assert f"the baseline {SPEC.baselines[0].name} serves" in found.decision.reason
    assert why in found.decision.reason


def test_few_rows_of_its_own_do_not_speak_against_the_pooled_model() -> None:
    made = table(error=4.2)
    rows = withdrawal_rows(SPEC, made, made[[]], "1", naive=made["baseline"].to_numpy())
    few = rows.assign(pooled=np.where(np.arange(len(rows)) < 5, rows["label"] + 9, np.nan))
    found = decide_withdrawal(few, settings_of(stand_in=POOLED))
    assert found.target == "pooled"
    assert "too few to speak against it" in found.decision.reason


@pytest.mark.parametrize("rows", [0, 1, 19])
def test_nothing_is_decided_on_fewer_rows_than_the_yaml_asks_for(rows: int) -> None:
    made = table(rows, error=9.0)
    found = decided(made)
    assert (found.decision.verdict, found.target) == ("not_judged", "champion")
    assert "20 are needed" in found.decision.reason
    naive = made["baseline"].to_numpy(dtype="float64")
    assert not against_baseline(SPEC, made, "1", naive).has_interval


def test_nothing_is_decided_where_all_rows_are_of_too_few_blocks() -> None:
    crowded = table(40, error=4.2).assign(event_time=START, label_time=START + pd.Timedelta(days=1))
    found = decided(crowded)
    assert (found.decision.verdict, found.target) == ("not_judged", "champion")
    assert "needed" in found.decision.reason


def test_a_version_is_judged_by_its_own_newest_rows_alone() -> None:
    good_long_ago = table(200, error=0.1)
    bad_now = table(56, error=4.2, seed=1)
    later = pd.Timedelta(days=200)
    bad_now = bad_now.assign(
        event_time=bad_now["event_time"] + later, label_time=bad_now["label_time"] + later
    )
    of_another = table(56, error=9.0, version="2")
    both = pd.concat([good_long_ago, of_another, bad_now], ignore_index=True)
    found = decided(both)
    assert found.decision.rows == 56
    assert found.decision.verdict == "withdrawn"


def test_what_asks_and_what_decides_see_the_same_numbers() -> None:
    for seed in range(6):
        made = table(error=1.4, seed=seed)
        asked = against_baseline(SPEC, made, "1", made["baseline"].to_numpy())
        decision = decided(made).decision
        assert decision.gain == asked.value
        assert (decision.verdict == "withdrawn") == (asked.has_interval and asked.upper < 0)


def test_a_model_as_good_as_the_naive_rule_is_hardly_ever_withdrawn() -> None:
    withdrawn = [decided(table(seed=seed)).decision.verdict == "withdrawn" for seed in range(150)]
    assert sum(withdrawn) <= 5


@pytest.mark.parametrize("metric", ["auc", "brier"])
def test_classes_are_compared_in_the_direction_of_their_metric(metric: str) -> None:
    spec = classifier(metric=metric, evaluation={"block_days": 7, "draws": 500})
    rng = np.random.default_rng(0)
    made = table(112, error=0.0)
    label = rng.integers(0, 2, 112).astype("float64")
    naive = np.clip(label * 0.6 + 0.2 + rng.normal(0, 0.05, 112), 0, 1)
    wrong = made.assign(label=label, prediction=1 - naive, baseline=naive)
    assert against_baseline(spec, wrong, "1", naive).upper < 0
    right = wrong.assign(prediction=naive, baseline=1 - naive)
    assert against_baseline(spec, right, "1", 1 - naive).value > 0


def test_the_baseline_that_would_serve_is_compared_and_not_always_the_first() -> None:
    made = table(40)
    features = pd.DataFrame(
        {
            **{name: made[name] for name in ("entity", "event_time", "label_time", "label")},
            "level": 3.0,
        }
    )
    first, mean = (serving_naive(SPEC, made, features, name) for name in ("level", "mean"))
    assert np.array_equal(first, made["baseline"])
    assert np.allclose(mean, mean[0])
    assert not np.allclose(mean, first)


class _Level:
    """An estimator that says what the feature says."""

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        return rows["level"].to_numpy()


def test_the_pooled_model_is_not_judged_by_rows_it_learned_from() -> None:
    made = table(40)
    features = made[["entity", "event_time", "label_time", "label"]].assign(level=5.0)
    until = START + pd.Timedelta(days=29)
    model = FittedModel("gbm", _Level(), ("level",), "regression", 10, until=until)
    naive = made["baseline"].to_numpy()
    rows = withdrawal_rows(SPEC, made, features.iloc[::-1], "1", naive=naive, pooled=model)
    known = rows["event_time"] <= until
    assert rows.loc[known, "pooled"].isna().all()
    assert (rows.loc[~known, "pooled"] == 5.0).all()
    unknown = replace(model, until=None)
    rows = withdrawal_rows(SPEC, made, features, "1", naive=naive, pooled=unknown)
    assert rows["pooled"].isna().all()


@given(
    st.floats(0.1, 6.0),
    st.floats(0.1, 6.0),
    st.integers(0, 80),
    st.integers(0, 2**16),
    st.booleans(),
)
@settings(max_examples=examples(40), deadline=None)
def test_what_is_stored_decides_the_same_again_to_the_bit(
    error: float, pooled: float, rows: int, seed: int, may_serve: bool
) -> None:
    made = table(rows, error=error, seed=seed)
    held = withdrawal_rows(SPEC, made, made[[]], "1", naive=made["baseline"].to_numpy(float))
    held = held.assign(pooled=held["label"] + pooled)
    stand_in = POOLED if may_serve else StandIn()
    first = settings_of(stand_in=stand_in)
    again = WithdrawalSettings.from_json(first.to_json())
    one, other = decide_withdrawal(held, first), decide_withdrawal(held, again)
    assert repr(one) == repr(other)
    assert (one.target == "champion") == (one.decision.verdict != "withdrawn")
