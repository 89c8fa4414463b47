"""Policies of retraining on generated products whose world changes.

    python -m benchmarks loop [--world waves] [--countries 60] [--policy drift] [--processes 2]

For each world the error over all rows under `never`, `every 30d` and `drift` with the defaults of
the platform, and the goals: under `drift` at most the error of `every 30d` with at most half of its
trainings. Exit code 1 where one is missed.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence

import pandas as pd

from benchmarks.loop.worlds import WEEK, WORLDS, World
from mlops_assets.cli.backtest import changed
from mlops_assets.ml.backtest.backtest import BacktestResult, run_backtest
from mlops_assets.ml.backtest.data import backtest_data, backtest_moments
from mlops_assets.ml.backtest.policies import parse_policy
from mlops_assets.ml.backtest.report import summary
from mlops_assets.runtime.headless.parallel_trainer import ParallelTrainer
from mlops_assets.spec import GREATER_IS_BETTER

MONTHLY, DRIFT = "every 30d", "drift"
POLICIES = ("never", MONTHLY, DRIFT)


def walked(
    world: World, policies: Sequence[str], processes: int, changes: Sequence[str] = ()
) -> tuple[BacktestResult, ...]:
    """Each policy's way through a world, a week a step."""
    past, _ = backtest_data(changed(world.spec, changes), world.frames, world.end)
    moments = backtest_moments(world.start, world.end, WEEK)
    with ParallelTrainer(past, processes) as trainer:
        return run_backtest(past, [parse_policy(each) for each in policies], moments, trainer)


def main(arguments: Sequence[str]) -> int:
    """Run from the command line; exit code 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks loop", description=__doc__)
    parser.add_argument("--world", action="append", choices=list(WORLDS))
    parser.add_argument("--policy", action="append")
    parser.add_argument("--countries", type=int)
    parser.add_argument("--set", action="append", dest="changes", default=[])
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args(arguments)
    missed = False
    for name in given.world or WORLDS:
        world = WORLDS[name](countries=given.countries) if given.countries else WORLDS[name]()
        began = time.perf_counter()
        results = walked(world, given.policy or POLICIES, given.processes, given.changes)
        table = summary(world.spec.metric, results, WEEK)
        print(f"{name}, {len(world.frames)} countries, {time.perf_counter() - began:.0f} s")
        print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
        for problem in goals_missed(world.spec.metric, table):
            print(f"goal missed: {problem}")
            missed = True
    return int(missed)


def goals_missed(metric: str, table: pd.DataFrame) -> Iterator[str]:
    """What `drift` lacks beside `every 30d`; nothing where one of them was not walked.

    Args:
        metric: of the product.
        table: `report.summary`.
    """
    rows = {row["policy"]: row for row in table.to_dict("records")}
    if not {MONTHLY, DRIFT} <= rows.keys():
        return
    ours, theirs = (float(rows[name][metric]) for name in (DRIFT, MONTHLY))
    if (ours < theirs) if metric in GREATER_IS_BETTER else (ours > theirs):
        yield f"{metric} {ours:.4g} is worse than the {theirs:.4g} of {MONTHLY}"
    trained, allowed = (int(rows[name]["retrainings"]) for name in (DRIFT, MONTHLY))
    if 2 * trained > allowed:
        yield f"{trained} trainings are more than half of the {allowed} of {MONTHLY}"
