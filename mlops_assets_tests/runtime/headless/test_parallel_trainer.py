from __future__ import annotations

from dataclasses import replace

import pandas as pd

from mlops_assets.ml.backtest.backtest import BacktestResult, run_backtest
from mlops_assets.ml.backtest.data import backtest_data, backtest_moments
from mlops_assets.runtime.headless.parallel_trainer import ParallelTrainer
from mlops_assets_tests.ml.alone import Alone
from mlops_assets_tests.ml.backtest.test_backtest import (
    DRIFT,
    MONTHLY,
    POOLED,
    START,
    world,
)

EARLY = pd.Timestamp("2022-02-15")
END = pd.Timestamp("2022-05-15")
STEP = pd.Timedelta(weeks=2)


def told(walks: tuple[BacktestResult, ...]) -> list[str]:
    """All but the seconds, as text: what is not known equals nothing."""
    return [
        repr([replace(one, seconds=0.0) for one in each.trainings])
        + repr((each.watched, each.pooled))
        + each.rows.to_csv()
        for each in walks
    ]


def test_a_walk_in_two_processes_is_that_in_one() -> None:
    past, _ = backtest_data(POOLED, world(EARLY), END)
    policies, moments = (MONTHLY, DRIFT), backtest_moments(START, END, STEP)
    alone = run_backtest(past, policies, moments, Alone(past))
    with ParallelTrainer(past, 2) as trainer:
        together = run_backtest(past, policies, moments, trainer)
    assert told(together) == told(alone)
    assert all(len(each.trainings) > 2 * 2 for each in alone)
