"""A backtest tests what runs: on the same rows it comes to the candidate of a live training."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd

from mlops_assets.ml.backtest.data import backtest_data
from mlops_assets.ml.backtest.training import ModelInUse, Pooled, TrainingOrder, candidate_at
from mlops_assets.ml.models.fitted_model import predict
from mlops_assets_tests.platform import Platform

COUNTRY = "FRA"
KEYS = ["entity", "event_time"]


def test_a_backtest_step_and_a_live_training_on_the_same_rows_give_the_same_candidate(
    ran: Platform,
) -> None:
    live, evidence = ran.frame("model", COUNTRY).iloc[0], ran.frame("evidence", COUNTRY)
    features = ran.frame("features", COUNTRY)

    now = max(features["event_time"].max(), features["label_time"][features["label"].notna()].max())
    data, _ = backtest_data(ran.product.spec, {COUNTRY: features}, now)
    order = TrainingOrder(COUNTRY, (ModelInUse(),), watched=False)
    found = candidate_at(data, now, Pooled(), order, clock=time.monotonic)

    assert (found.kind, found.pooled_name) == (live["kind"], "")
    assert str(found.holdout_from) == str(pd.Timestamp(evidence["event_time"].min()).normalize())
    assert found.judged is not None
    rows = evidence[KEYS].merge(features, on=KEYS, how="left", validate="one_to_one")
    predicted = predict(found.judged, rows, ran.product.spec.task)
    np.testing.assert_array_equal(predicted, evidence["candidate"].to_numpy())
    assert found.decisions[""].candidate_value == live["value"]
