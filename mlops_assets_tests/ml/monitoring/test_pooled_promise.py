"""What a country of a dozen holdout rows is promised, and that it can be broken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_assets.ml.evaluation.report import Report, evaluate, promises_little
from mlops_assets.ml.monitoring.performance import (
    describe_promise,
    no_performance,
    promise_of,
    realised,
    record_predictions,
)
from mlops_assets.ml.stats.metrics import Estimate
from mlops_assets.spec import ProductSpec
from mlops_assets_tests.ml.scenarios import (
    classification_rows,
    classifier,
    product,
    regression_rows,
)

DAYS = 120


def report(spec: ProductSpec, rows: int, error: float = 0.5) -> Report:
    """Errors of `error` beside those of the first baseline, which are 1 on average."""
    rng = np.random.default_rng(rows)
    frame = regression_rows(rows).assign(label=rng.normal(size=rows))
    frame["level"] = frame["label"] + rng.normal(0, 1.25, rows)
    predicted = frame["label"].to_numpy() + rng.normal(0, 1.25 * error, rows)
    return evaluate(frame, predicted, spec, frame)


def table(spec: ProductSpec, size: float, error: float) -> pd.DataFrame:
    """Matured predictions of a country whose values are `size` times as large as elsewhere."""
    rng = np.random.default_rng(1)
    event = pd.date_range("2024-01-01", periods=DAYS)
    label = size * rng.normal(size=DAYS)
    features = pd.DataFrame(
        {
            "entity": "LUX",
            "event_time": event,
            "label_time": event + pd.Timedelta(days=1),
            "label": label,
            "level": label + size * rng.normal(0, 1.25, DAYS),
        }
    )
    made = features[["entity", "event_time"]].assign(
        prediction=label + size * rng.normal(0, 1.25 * error, DAYS),
        lower=np.nan,
        upper=np.nan,
        made="ahead",
        predicted_at=event,
        model_version="3",
        model_kind="pooled",
        previous_version="",
        previous_prediction=np.nan,
    )
    return record_predictions(no_performance(), made, features, spec)


@pytest.mark.parametrize("rows", [1, 12, 19, 25])
def test_a_promise_of_too_few_rows_is_none_that_could_be_broken(rows: int) -> None:
    spec = product()
    own = report(spec, rows)
    assert promises_little(spec, own)
    assert not promises_little(spec, report(spec, 200))
    assert realised(spec, table(spec, 1.0, 5.0), promise_of(spec, own), "3").worse is not True


@pytest.mark.parametrize("size", [0.01, 1.0, 500.0])
def test_a_broken_pooled_promise_alarms_in_a_country_of_any_size_and_a_kept_one_does_not(
    size: float,
) -> None:
    spec = product()
    promise = promise_of(spec, report(spec, 900), pooled=True)
    broken, kept = (realised(spec, table(spec, size, e), promise, "3") for e in (3.0, 0.5))
    assert (broken.worse, kept.worse) == (True, False)
    assert (broken.harder, kept.harder) == (False, False)
    assert ", pooled)" in broken.reason
    # Independently: the promised share of the naive error, times the naive error here.
    expected = promise.value.value / promise.baseline * kept.baseline
    assert kept.expected.value == pytest.approx(expected, rel=0.02)


def test_a_pooled_promise_of_errors_without_a_naive_rule_to_scale_it_is_not_judged() -> None:
    spec = product()
    made = report(spec, 900)
    lost: dict[str, Any] = {**vars(made), "baselines": {}, "best_baseline": ""}
    found = realised(
        spec, table(spec, 1.0, 3.0), promise_of(spec, Report(**lost), pooled=True), "3"
    )
    assert found.worse is None
    assert "another size" in found.reason


def test_ranks_are_promised_as_they_are() -> None:
    spec = classifier()
    frame = classification_rows(600)
    predicted = np.clip(frame["label"] * 0.4 + np.random.default_rng(0).random(600) * 0.6, 0, 1)
    promise = promise_of(spec, evaluate(frame, predicted, spec, frame), pooled=True)
    assert promise.value.lower > 0.7
    noise = np.random.default_rng(1).random(600)
    made = frame[["entity", "event_time"]].assign(
        prediction=noise,
        lower=np.nan,
        upper=np.nan,
        made="ahead",
        predicted_at=frame["event_time"],
        model_version="3",
        model_kind="pooled",
        previous_version="",
        previous_prediction=np.nan,
    )
    rows = record_predictions(no_performance(), made, frame, spec)
    assert realised(spec, rows, promise, "3").worse is True


def test_a_promise_is_shown_with_its_interval_and_that_it_is_pooled() -> None:
    assert describe_promise(Estimate(0.31, 0.22, 0.4), True) == "0.31 (0.22 to 0.4, pooled)"
    assert describe_promise(Estimate(0.31, 0.22, 0.4), False) == "0.31 (0.22 to 0.4)"
    assert describe_promise(Estimate(0.31), True) == "0.31 (pooled)"
