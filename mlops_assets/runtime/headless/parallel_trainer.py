"""Trainings of a backtest in forked processes, which see its rows without a copy."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType

import pandas as pd

from mlops_assets.ml.backtest.data import BacktestData
from mlops_assets.ml.backtest.training import (
    BacktestCandidate,
    ModelInUse,
    Pooled,
    TrainingOrder,
    TrainingRequest,
    candidate_at,
    compared_at,
    pooled_at,
    with_pooled,
    without_pooled,
)
from mlops_assets.ml.gates.succession import PooledComparison
from mlops_assets.settings import ONE_THREAD

SHARES = 5
"""Parts a process gets of a moment's countries, so that none waits long for another."""
_PAST: list[BacktestData] = []
"""What a process results; empty in the one that forks."""


class ParallelTrainer:
    """A `Trainer` of several processes.

    Args:
        past: of the product.
        processes: how many.
    """

    def __init__(self, past: BacktestData, processes: int) -> None:
        self._processes = processes
        self._newest: dict[pd.Timestamp, tuple[Pooled, float]] = {}
        self._pool = ProcessPoolExecutor(
            processes,
            mp_context=multiprocessing.get_context("fork"),
            initializer=_start,
            initargs=(past,),
        )

    def __enter__(self) -> ParallelTrainer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def pooled(self, moment: pd.Timestamp) -> tuple[Pooled, float]:
        """`pooled_at` a moment; kept for it, as several policies ask."""
        if moment not in self._newest:
            self._newest = {moment: self._pool.submit(_pooled, moment).result()}
        return self._newest[moment]

    def compared(self, newer: Pooled, rivals: Sequence[ModelInUse]) -> tuple[PooledComparison, ...]:
        """`compared_at` the moment at which they were trained."""
        return self._pool.submit(_compared, newer, rivals).result()

    def candidates(
        self, moment: pd.Timestamp, wanted: Sequence[TrainingRequest]
    ) -> list[list[BacktestCandidate]]:
        """`candidate_at` a moment for each order, in the order given."""
        waiting = [
            [
                self._pool.submit(_candidates, moment, pooled, share)
                for share in _shares(orders, self._processes * SHARES)
            ]
            for pooled, orders in wanted
        ]
        return [
            _in_order(pooled, orders, [future.result() for future in futures])
            for (pooled, orders), futures in zip(wanted, waiting, strict=True)
        ]


def _shares(orders: Sequence[TrainingOrder], most: int) -> list[list[TrainingOrder]]:
    parts = min(len(orders), most)
    return [list(orders[place::parts]) for place in range(parts)]


def _in_order(
    pooled: Pooled, orders: Sequence[TrainingOrder], shares: Sequence[Sequence[BacktestCandidate]]
) -> list[BacktestCandidate]:
    found = {each.country: each for share in shares for each in share}
    return [with_pooled(found[order.country], pooled) for order in orders]


def _start(past: BacktestData) -> None:
    """In a process of its own, before it computes anything: one thread."""
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    _PAST.append(past)


def _pooled(moment: pd.Timestamp) -> tuple[Pooled, float]:
    return pooled_at(_PAST[0], moment, time.process_time)


def _compared(newer: Pooled, rivals: Sequence[ModelInUse]) -> tuple[PooledComparison, ...]:
    return compared_at(_PAST[0], newer, rivals)


def _candidates(
    moment: pd.Timestamp, pooled: Pooled, orders: Sequence[TrainingOrder]
) -> list[BacktestCandidate]:
    return [
        without_pooled(candidate_at(_PAST[0], moment, pooled, order, clock=time.process_time))
        for order in orders
    ]
