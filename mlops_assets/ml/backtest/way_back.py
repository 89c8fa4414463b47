"""Taking a champion out of use in a backtest: the same rows, the same rule as live."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pandas as pd

from mlops_assets.ml.backtest.data import BacktestData
from mlops_assets.ml.backtest.training import (
    BacktestCandidate,
    ModelInUse,
    Pooled,
    TrainingOrder,
    candidate_at,
)
from mlops_assets.ml.monitoring.beside_baseline import withdrawal_rows
from mlops_assets.ml.promotion.withdrawal import (
    StandIn,
    Target,
    WithdrawalSettings,
    decide_withdrawal,
    ruled_out,
)
from mlops_assets.ml.training.candidate import only_pooled
from mlops_assets.ml.training.selection import region_of


def pooled_instead(
    past: BacktestData,
    moment: pd.Timestamp,
    pooled: Pooled,
    country: str,
    *,
    without: Collection[str],
) -> BacktestCandidate | None:
    """The pooled model a country would choose, were there no local one; None where none is left.

    Args:
        past: of the product.
        moment: of the choice.
        pooled: the models in use.
        country: its key.
        without: titles of pooled models that are not chosen from.
    """
    own, spec = ("", region_of(past.spec, country)), past.specs[country]
    models = {
        name: model
        for name, model in pooled.models.items()
        if model.region in own and pooled.title(name) not in without
    }
    if not models or spec.decision.approval:
        return None
    narrowed = {**past.specs, country: only_pooled(spec, models, country)}
    order = TrainingOrder(country, (ModelInUse(),), watched=True, serves=True)
    offered = replace(pooled, models=models)
    found = candidate_at(replace(past, specs=narrowed), moment, offered, order, clock=lambda: 0.0)
    return found if found.pooled_name else None


def withdrawal_target(
    past: BacktestData,
    moment: pd.Timestamp,
    table: pd.DataFrame,
    naive: np.ndarray,
    *,
    champion: BacktestCandidate,
    baseline: str,
    instead: BacktestCandidate | None,
) -> Target:
    """What serves once the champion was asked to be taken out of use, as the job decides live.

    Args:
        past: of the product.
        moment: of the decision.
        table: of performance, of the champion's newest rows.
        naive: what the baseline that would serve says of them, shape (rows,).
        champion: in use.
        baseline: name of that baseline.
        instead: the pooled model that may serve; None without one.
    """
    country = champion.country
    spec, features = past.specs[country], past.known(country, moment)
    judged = instead.judged if instead else None
    rows = withdrawal_rows(spec, table, features, champion.version, naive=naive, pooled=judged)
    stand_in = StandIn()
    if instead is not None:
        stand_in = StandIn(f"pooled {instead.pooled_title}", ruled_out(instead.gates))
    settings = WithdrawalSettings(spec, champion.version, baseline, stand_in)
    return decide_withdrawal(rows, settings).target
