"""A backtest takes a champion out of use as the sensor and its job do."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlops_assets.ml.backtest.backtest import BacktestResult, run_backtest
from mlops_assets.ml.backtest.data import backtest_data, backtest_moments
from mlops_assets.ml.backtest.policies import parse_policy
from mlops_assets.ml.backtest.training import pooled_at
from mlops_assets.ml.backtest.way_back import pooled_instead, withdrawal_target
from mlops_assets.spec import ProductSpec
from mlops_assets_tests.ml.alone import Alone
from mlops_assets_tests.ml.backtest.test_backtest import CANDIDATE, spec_of

START, CHANGE, END = (pd.Timestamp(day) for day in ("2022-01-03", "2022-02-01", "2022-06-30"))
WEEK = pd.Timedelta(weeks=1)
NOTHING_ELSE = {"on_error": False, "on_drift": False, "new_labels": 10_000}
POOLED = spec_of(candidates=[{**CANDIDATE, "scopes": ["pooled"]}])


def turning(seed: int, change: pd.Timestamp = CHANGE) -> pd.DataFrame:
    """A row a day whose label follows `x` until the change, and its opposite from then on."""
    rng = np.random.default_rng(seed)
    event = pd.date_range("2021-02-01", "2022-07-31")
    x = rng.normal(size=len(event))
    sign = np.where(event >= change, -1.0, 1.0)
    return pd.DataFrame(
        {
            "entity": "one",
            "event_time": event,
            "label_time": event + pd.Timedelta(days=1),
            "label": 3 * sign * x + rng.normal(0, 0.3, len(event)),
            "x": x,
        }
    )


def walked(spec: ProductSpec) -> BacktestResult:
    past, _ = backtest_data(spec, {"DEU": turning(0)}, END)
    moments = backtest_moments(START, END, WEEK)
    (found,) = run_backtest(past, [parse_policy("drift")], moments, Alone(past))
    return found


@pytest.fixture(scope="module")
def taken_out() -> BacktestResult:
    return walked(spec_of(retraining=NOTHING_ELSE))


def test_the_baseline_serves_soon_after_the_champion_got_worse_than_it(
    taken_out: BacktestResult,
) -> None:
    done = [each.moment for each in taken_out.watched if each.asked == "withdraw"]
    assert len(done) == 1
    assert CHANGE < done[0] <= CHANGE + 8 * WEEK
    after = taken_out.rows[taken_out.rows["event_time"] > done[0]]
    assert (after["version"] == "").all()
    assert np.array_equal(after["prediction"], after["baseline"])
    before = taken_out.rows[taken_out.rows["event_time"] <= done[0]]
    assert (before["version"] != "").all()


def test_a_backtest_that_keeps_the_champion_is_worse_by_what_the_way_back_saves(
    taken_out: BacktestResult,
) -> None:
    kept = walked(spec_of(retraining={**NOTHING_ELSE, "withdraw": False}))
    assert not [each for each in kept.watched if each.asked == "withdraw"]

    def error(each: BacktestResult) -> float:
        rows = each.rows[each.rows["event_time"] > CHANGE + 8 * WEEK]
        return float((rows["label"] - rows["prediction"]).abs().mean())

    assert error(taken_out) < 0.6 * error(kept)


def test_a_country_back_on_the_baseline_is_trained_again_as_its_labels_grow() -> None:
    found = walked(spec_of(retraining={**NOTHING_ELSE, "new_labels": 60}))
    causes = [each.cause for each in found.trainings]
    assert "no_model" in causes


def test_the_pooled_model_that_may_serve_is_the_one_that_nothing_speaks_against() -> None:
    frames = {"DEU": turning(0, END), "FRA": turning(1, END), "LUX": turning(2, END)}
    past, _ = backtest_data(POOLED, frames, END)
    pooled, _ = pooled_at(past, START, lambda: 0.0)
    found = pooled_instead(past, START, pooled, "DEU", without=set())
    assert found is not None
    assert (found.kind, found.pooled_name) == ("pooled", "gbm")
    assert found.reference is not None
    assert pooled_instead(past, START, pooled, "DEU", without={found.pooled_title}) is None
    asks_first = spec_of(
        candidates=[{**CANDIDATE, "scopes": ["pooled"]}], decision={"approval": True}
    )
    waits, _ = backtest_data(asks_first, frames, END)
    assert pooled_instead(waits, START, pooled, "DEU", without=set()) is None


@pytest.mark.parametrize(("turned", "target"), [(False, "pooled"), (True, "baseline")])
def test_the_pooled_model_serves_unless_it_is_worse_than_the_baseline_too(
    turned: bool, target: str
) -> None:
    change = CHANGE if turned else END
    frames = {name: turning(place, change) for place, name in enumerate(("DEU", "FRA", "LUX"))}
    past, _ = backtest_data(POOLED, frames, END)
    pooled, _ = pooled_at(past, START, lambda: 0.0)
    instead = pooled_instead(past, START, pooled, "DEU", without=set())
    assert instead is not None
    rows = past.known("DEU", END)
    since = rows[(rows["event_time"] > CHANGE) & rows["label"].notna()].tail(60)
    table = since.assign(
        model_version=instead.version,
        prediction=-3 * since["label"] - 20,
        baseline=since["label"].mean(),
    )
    found = withdrawal_target(
        past,
        END,
        table,
        table["baseline"].to_numpy(),
        champion=instead,
        baseline="mean",
        instead=instead,
    )
    assert found == target
