"""What a model relies on: the harm done by permuting one feature."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from mlops_assets.ml.models.fitted_model import FittedModel, predict
from mlops_assets.ml.stats.metrics import score
from mlops_assets.spec import GREATER_IS_BETTER

IMPORTANCE_COLUMNS = ("feature", "importance", "deviation")
SAMPLED_ROWS = 500
REPEATS = 3
PREDICTED_ROWS = 20_000
"""Rows of permuted copies that are predicted in one call."""


def no_importance() -> pd.DataFrame:
    """The table of importances without a row."""
    return pd.DataFrame(columns=list(IMPORTANCE_COLUMNS))


def permutation_importance(
    model: FittedModel, rows: pd.DataFrame, metric: str, seed: int
) -> pd.DataFrame:
    """How much worse the metric gets when a feature is permuted (Breiman, Random forests, 2001).

    Over `REPEATS` permutations of at most `SAMPLED_ROWS` rows, both seeded.

    Args:
        model: what predicts.
        rows: labelled rows with its features.
        metric: of the harm, in its unit.
        seed: of sample and permutations.

    Returns:
        feature, importance (increase of the error, for auc its loss) and deviation (standard, over
        the repeats), greatest first; empty where the metric cannot be told on the sample.
    """
    rng = np.random.default_rng(seed)
    if len(rows) > SAMPLED_ROWS:
        rows = rows.iloc[np.sort(rng.choice(len(rows), SAMPLED_ROWS, replace=False))]
    label = rows["label"].to_numpy(dtype="float64")
    before = score(metric, label, predict(model, rows, model.task))
    if not np.isfinite(before) or not model.features:
        return no_importance()
    copies = [(name, rng.permutation(len(rows))) for name in model.features for _ in range(REPEATS)]
    after = np.array([score(metric, label, p) for p in _predicted(model, rows, copies)])
    harm = (before - after if metric in GREATER_IS_BETTER else after - before).reshape(-1, REPEATS)
    columns = (list(model.features), harm.mean(axis=1), harm.std(axis=1))
    table = pd.DataFrame(dict(zip(IMPORTANCE_COLUMNS, columns, strict=True)))
    return table.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


def _predicted(
    model: FittedModel, rows: pd.DataFrame, copies: list[tuple[str, np.ndarray]]
) -> Iterator[np.ndarray]:
    """Predictions of each permuted copy of the rows, several copies in a call."""
    step = max(1, PREDICTED_ROWS // len(rows))
    for first in range(0, len(copies), step):
        together = copies[first : first + step]
        yield from predict(model, _permuted(model, rows, together), model.task).reshape(
            len(together), -1
        )


def _permuted(
    model: FittedModel, rows: pd.DataFrame, copies: list[tuple[str, np.ndarray]]
) -> pd.DataFrame:
    """The copies under each other, one feature of each permuted."""
    columns = {}
    for name in model.features:
        order = np.tile(np.arange(len(rows)), (len(copies), 1))
        for place, (permuted, permutation) in enumerate(copies):
            if permuted == name:
                order[place] = permutation
        columns[name] = rows[name].take(order.ravel()).reset_index(drop=True)
    return pd.DataFrame(columns)
