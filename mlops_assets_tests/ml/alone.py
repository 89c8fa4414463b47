"""Trainings of a walk in the process that walks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from mlops_assets.ml.backtest.data import BacktestData
from mlops_assets.ml.backtest.training import (
    BacktestCandidate,
    ModelInUse,
    Pooled,
    TrainingRequest,
    candidate_at,
    compared_at,
    pooled_at,
)
from mlops_assets.ml.gates.succession import PooledComparison


@dataclass
class Alone:
    """A `Trainer` that calls what those of several processes call."""

    past: BacktestData
    _pooled: dict[pd.Timestamp, tuple[Pooled, float]] = field(default_factory=dict)

    def pooled(self, moment: pd.Timestamp) -> tuple[Pooled, float]:
        if moment not in self._pooled:
            self._pooled[moment] = pooled_at(self.past, moment, time.process_time)
        return self._pooled[moment]

    def compared(self, newer: Pooled, rivals: Sequence[ModelInUse]) -> tuple[PooledComparison, ...]:
        return compared_at(self.past, newer, rivals)

    def candidates(
        self, moment: pd.Timestamp, wanted: Sequence[TrainingRequest]
    ) -> list[list[BacktestCandidate]]:
        return [
            [
                candidate_at(self.past, moment, pooled, each, clock=time.process_time)
                for each in orders
            ]
            for pooled, orders in wanted
        ]
