"""Known-bad candidates, and known-equal ones, made out of a champion and its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mlops_assets.ml.evaluation.evidence import declared_slices, slice_names
from mlops_assets.ml.models.fitted_model import FittedModel, fit, predict
from mlops_assets.ml.models.prediction_range import RangeVerdict, judge_range
from mlops_assets.ml.models.split import Split
from mlops_assets.spec import CandidateSpec, ProductSpec

UNIT = 1000.0
STALE_SHARE = 0.25
"""Of the training rows, the oldest: what a model trained on stale data has seen."""
BETTER = 0.3
"""By how much of its error an otherwise bad candidate is better than the champion: without that
the comparison alone would stop it, and the gate meant for it would not be tried."""
WORSE = 1.6
"""By which factor its error is larger in the slice it is bad in."""
NARROW = 0.3
"""Width of a miscalibrated interval, as a share of the right one."""
TIMID = 3
"""Power of miscalibrated probabilities: the order, and so the AUC, stays, and all are too low."""

LITTLE = 1e-3
"""By how much a prediction is beyond the range, as a share of it."""


@dataclass(frozen=True)
class Ground:
    """A country in which candidates are tried.

    Attributes:
        country: the partition.
        spec: the product as it is there.
        parts: the country's rows.
        rows: what the champion had learned when it was judged: the country's rows, or those of all
            countries.
        other: training rows of the country that is least like it.
        recipe: estimator and parameters of the champion.
        champion: the model in use, as it was judged.
        predicted: by it, on the holdout.
        width: of its prediction intervals on the holdout: low and high, less the prediction.
    """

    country: str
    spec: ProductSpec
    parts: Split
    rows: pd.DataFrame
    other: pd.DataFrame
    recipe: CandidateSpec
    champion: FittedModel
    predicted: np.ndarray
    width: tuple[np.ndarray, np.ndarray]

    @property
    def label(self) -> np.ndarray:
        """Of the holdout rows."""
        return self.parts.holdout["label"].to_numpy(dtype="float64")


@dataclass(frozen=True)
class Mutant:
    """A candidate as the gates see it.

    Attributes:
        model: fitted, or the champion where only its predictions were spoiled.
        predicted: of the holdout rows.
        width: of the intervals, as in `Ground`.
        next_rows: its predictions of the rows that come next; None: there are none.
    """

    model: FittedModel
    predicted: np.ndarray
    width: tuple[np.ndarray, np.ndarray]
    next_rows: RangeVerdict | None = None


def another_seed(ground: Ground, seed: int) -> Mutant:
    """Equal: the champion's recipe and rows, another seed."""
    return _fitted(ground, ground.rows, seed)


def shuffled_labels(ground: Ground, seed: int) -> Mutant:
    """Labels of the training rows in random order."""
    labels = np.random.default_rng(seed).permutation(ground.rows["label"].to_numpy())
    return _fitted(ground, ground.rows.assign(label=labels), seed)


def shifted_by_a_day(ground: Ground, seed: int) -> Mutant:
    """Trained with the features of another day: of the next event of the entity's country."""
    rows = ground.rows
    shifted = [
        name for name in ground.champion.features if name in rows and rows[name].nunique() > 1
    ]
    return _fitted(ground, rows.assign(**{name: rows[name].shift(-1) for name in shifted}), seed)


def another_country(ground: Ground, seed: int) -> Mutant:
    """Trained on the rows of a country that is not like this one."""
    return _fitted(ground, ground.other, seed)


def another_unit(ground: Ground, seed: int) -> Mutant:
    """Trained while the feature that matters most was delivered in a unit 1,000 times larger."""
    name = ground.recipe.offset or _steepest(ground, seed)
    rows = ground.rows.assign(**{name: ground.rows[name].astype("float64") / UNIT})
    return _fitted(ground, rows, seed)


def constant(ground: Ground, seed: int) -> Mutant:
    """Always the mean of the labels."""
    del seed
    value = float(ground.parts.final["label"].mean())
    return replace(_as_champion(ground), predicted=np.full(len(ground.predicted), value))


def overfitted(ground: Ground, seed: int) -> Mutant:
    """A single tree without limits: every training row by heart."""
    trees = {
        "regression": "sklearn.tree.DecisionTreeRegressor",
        "classification": "sklearn.tree.DecisionTreeClassifier",
    }
    tree = CandidateSpec(name="tree", estimator=trees[ground.spec.task])
    rows = ground.rows.tail(20_000)  # a tree of more rows takes minutes and is no better
    return _fitted(replace(ground, recipe=tree), rows, seed)


def stale_data(ground: Ground, seed: int) -> Mutant:
    """Trained on the oldest rows alone."""
    rows = ground.rows.sort_values("event_time", kind="stable")
    return _fitted(ground, rows.head(max(int(len(rows) * STALE_SHARE), 50)), seed)


def bad_in_a_slice(ground: Ground, seed: int) -> Mutant:
    """Better than the champion on average, and much worse in one declared slice."""
    inside = _some_slice(ground)
    truth, own = ground.label, ground.predicted
    if ground.spec.task == "regression":
        spoiled = truth + (own - truth) * np.where(inside, WORSE, 1.0 - BETTER)
    else:
        spoiled = own + (truth - own) * BETTER
        drawn = np.random.default_rng(seed).permutation(own[inside])
        spoiled[inside] = drawn
    return replace(_as_champion(ground), predicted=spoiled)


def miscalibrated(ground: Ground, seed: int) -> Mutant:
    """Better than the champion, but its probabilities or intervals claim too much."""
    del seed
    better = _better(ground)
    low, high = ground.width
    if ground.spec.task == "regression":
        return Mutant(ground.champion, better, (low * NARROW, high * NARROW))
    return Mutant(ground.champion, better**TIMID, (low, high))


def beyond_the_range(ground: Ground, seed: int) -> Mutant:
    """Better than the champion, and for one row that comes next a little beyond the range."""
    del seed
    limits, better = ground.spec.predictions, _better(ground)
    little = LITTLE * (limits.maximum - limits.minimum)
    ahead = np.append(better, limits.maximum + little)
    rows = ground.parts.holdout
    after = judge_range(ahead, pd.concat([rows, rows.tail(1)]), limits)
    return replace(_as_champion(ground), predicted=better, next_rows=after)


BAD: Mapping[str, Callable[[Ground, int], Mutant]] = {
    "shuffled labels": shuffled_labels,
    "features shifted by a day": shifted_by_a_day,
    "trained on another country": another_country,
    "a unit changed by 1,000": another_unit,
    "a constant": constant,
    "heavily overfitted": overfitted,
    "trained on stale data": stale_data,
    "good on average, bad in one slice": bad_in_a_slice,
    "miscalibrated": miscalibrated,
    "a row beyond the range": beyond_the_range,
}
"""Kinds of bad candidates that reach the gates; a leaked target is stopped before them."""


def _fitted(ground: Ground, rows: pd.DataFrame, seed: int) -> Mutant:
    model = fit(ground.recipe, rows, ground.spec.task, seed)
    predicted = predict(model, ground.parts.holdout, ground.spec.task)
    return Mutant(model, predicted, ground.width)


def _better(ground: Ground) -> np.ndarray:
    """Predictions of the holdout that are nearer to the labels than the champion's."""
    return ground.predicted + (ground.label - ground.predicted) * BETTER


def _as_champion(ground: Ground) -> Mutant:
    return Mutant(ground.champion, ground.predicted, ground.width)


def _steepest(ground: Ground, seed: int) -> str:
    """The number among the features by whose order the champion's predictions change most."""
    rows = ground.parts.holdout.head(500)
    own = predict(ground.champion, rows, ground.spec.task)
    drawn = np.random.default_rng(seed).permutation(len(rows))
    moved = {
        name: float(
            np.abs(
                predict(
                    ground.champion,
                    rows.assign(**{name: rows[name].to_numpy()[drawn]}),
                    ground.spec.task,
                )
                - own
            ).mean()
        )
        for name in ground.champion.features
        if pd.api.types.is_numeric_dtype(rows[name].dtype)
    }
    return max(moved, key=lambda name: moved[name])


def _some_slice(ground: Ground) -> np.ndarray:
    """Rows of the largest declared slice that is less than half of the holdout."""
    best = np.zeros(len(ground.predicted), dtype=bool)
    for declared in declared_slices(ground.spec):
        names = slice_names(ground.parts.holdout[declared.feature], declared.edges)
        for name in np.unique(names.astype(str)):
            rows = names == name
            if best.sum() < rows.sum() < len(rows) / 2:
                best = rows
    if not best.any():
        raise ValueError(f"{ground.country} has no declared slice of less than half of its rows")
    return best
