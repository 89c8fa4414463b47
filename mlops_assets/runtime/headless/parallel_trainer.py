"""Trainings of a walk through history in forked processes, which see its rows without a copy."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from types import TracebackType

import pandas as pd

from mlops_assets.ml.backtest.data import Past
from mlops_assets.ml.backtest.training import (
    Order,
    Pooled,
    Trained,
    Wanted,
    candidate_at,
    pooled_at,
    with_pooled,
    without_pooled,
)
from mlops_assets.settings import ONE_THREAD

AHEAD = 4
"""Moments for which the pooled models are trained before they are asked for: a process that has
nothing to do at one moment begins with the next ones."""
SHARES = 5
"""Parts a process gets of a moment's countries, so that none waits long for another."""
_PAST: list[Past] = []
"""What a process walks; empty in the one that forks."""


class Forked:
    """A `Trainer` of several processes.

    Args:
        past: of the product.
        processes: how many.
    """

    def __init__(self, past: Past, processes: int) -> None:
        self._processes = processes
        self._expected: deque[pd.Timestamp] = deque()
        self._coming: dict[pd.Timestamp, Future[tuple[Pooled, float]]] = {}
        self._pool = ProcessPoolExecutor(
            processes,
            mp_context=multiprocessing.get_context("fork"),
            initializer=_start,
            initargs=(past,),
        )

    def __enter__(self) -> Forked:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def expect(self, moments: Sequence[pd.Timestamp]) -> None:
        """The first of these are begun at once."""
        self._expected.extend(moments)
        self._begin()

    def pooled(self, moment: pd.Timestamp) -> tuple[Pooled, float]:
        """`pooled_at` a moment."""
        if moment not in self._coming:
            self._coming[moment] = self._pool.submit(_pooled, moment)
        made = self._coming[moment].result()
        self._begin(moment)
        return made

    def candidates(self, moment: pd.Timestamp, wanted: Sequence[Wanted]) -> list[list[Trained]]:
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

    def _begin(self, now: pd.Timestamp | None = None) -> None:
        """Forget what was before a moment, and begin what is asked for next."""
        if now is not None:
            while self._expected and self._expected[0] <= now:
                self._expected.popleft()
            for past in [moment for moment in self._coming if moment < now]:
                del self._coming[past]
        for moment in list(self._expected)[:AHEAD]:
            if moment not in self._coming:
                self._coming[moment] = self._pool.submit(_pooled, moment)


def _shares(orders: Sequence[Order], most: int) -> list[list[Order]]:
    parts = min(len(orders), most)
    return [list(orders[place::parts]) for place in range(parts)]


def _in_order(
    pooled: Pooled, orders: Sequence[Order], shares: Sequence[Sequence[Trained]]
) -> list[Trained]:
    found = {each.country: each for share in shares for each in share}
    return [with_pooled(found[order.country], pooled) for order in orders]


def _start(past: Past) -> None:
    """In a process of its own, before it computes anything: one thread."""
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    _PAST.append(past)


def _pooled(moment: pd.Timestamp) -> tuple[Pooled, float]:
    return pooled_at(_PAST[0], moment, time.process_time)


def _candidates(moment: pd.Timestamp, pooled: Pooled, orders: Sequence[Order]) -> list[Trained]:
    return [
        without_pooled(candidate_at(_PAST[0], moment, pooled, order, time.process_time))
        for order in orders
    ]
