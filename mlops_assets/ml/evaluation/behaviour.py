"""What a model does when features of a row change (Ribeiro et al., CheckList, 2020)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from mlops_assets.ml.models.fitted_model import FittedModel, predict
from mlops_assets.spec import BehaviourSpec, ChangeSpec, ProductSpec

TESTED_ROWS = 200
ROUNDING = 1e-9
"""Share of a prediction by which sums of numbers may differ that are equal."""


@dataclass(frozen=True)
class Behaved:
    """One behavioural test's outcome.

    Args:
        name: of the test.
        rows: tested.
        behaved: of these, rows that did as declared.
        passed: whether enough did; None when it could not be tried.
        example: the row that did worst, in words; "" when all behaved.
        problem: why it could not be tried; "" if it could.
    """

    name: str
    rows: int
    behaved: int
    passed: bool | None
    example: str = ""
    problem: str = ""


def behaviours(spec: ProductSpec, model: FittedModel, holdout: pd.DataFrame) -> list[Behaved]:
    """Every behavioural test of the product on at most `TESTED_ROWS` seeded rows.

    Args:
        spec: the product as it is for this country.
        model: the candidate.
        holdout: rows with its features.
    """
    rng = np.random.default_rng(spec.seed)
    rows = holdout
    if len(rows) > TESTED_ROWS:
        rows = rows.iloc[np.sort(rng.choice(len(rows), TESTED_ROWS, replace=False))]
    return [behave(test, model, rows) for test in spec.gates.behaviour]


def behave(test: BehaviourSpec, model: FittedModel, rows: pd.DataFrame) -> Behaved:
    """One test: predictions before and after the change.

    A row behaves if its prediction moves by no more than `tolerance` (invariance), does not move
    against `expect` by more than that (direction: standing still is allowed), or is from `at_least`
    to `at_most` after the change (minimum).

    Args:
        test: as the YAML has it.
        model: what predicts.
        rows: with its features.
    """
    if problem := _problem(test, model, rows):
        return Behaved(test.name, 0, 0, None, problem=problem)
    before = predict(model, rows, model.task)
    after = predict(model, perturbed(rows, test.change), model.task)
    amiss = misbehaviour(test, before, after)
    behaved = int((amiss <= ROUNDING * np.maximum(1.0, np.abs(after))).sum())
    worst = int(np.argmax(np.where(np.isnan(amiss), np.inf, amiss)))
    example = "" if behaved == len(rows) else _example(rows.iloc[worst], before, after, worst)
    return Behaved(test.name, len(rows), behaved, behaved >= test.min_share * len(rows), example)


def behaved_to_json(tried: Sequence[Behaved]) -> str:
    """As it is stored with a pooled model; `behaved_from_json` reads it."""
    return json.dumps([asdict(each) for each in tried])


def behaved_from_json(text: str) -> tuple[Behaved, ...]:
    """What `behaved_to_json` wrote; none for ""."""
    return tuple(Behaved(**held) for held in json.loads(text or "[]"))


def perturbed(rows: pd.DataFrame, change: dict[str, ChangeSpec]) -> pd.DataFrame:
    """The rows with the declared features set, added to or multiplied; missing values stay so."""
    columns = {}
    for feature, what in change.items():
        values = rows[feature]
        if what.add is not None:
            columns[feature] = values.astype("float64") + what.add
        elif what.multiply is not None:
            columns[feature] = values.astype("float64") * what.multiply
        else:
            columns[feature] = _constant(values, what.set)
    return rows.assign(**columns)


def misbehaviour(test: BehaviourSpec, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """By how much each row is beyond what the test allows, shape (rows,); 0 or less: it behaves."""
    moved = after - before
    if test.test == "invariance":
        return np.abs(moved) - test.tolerance
    if test.test == "direction":
        return (-moved if test.expect == "higher" else moved) - test.tolerance
    least = -np.inf if test.at_least is None else test.at_least
    most = np.inf if test.at_most is None else test.at_most
    return np.maximum(least - after, after - most) - test.tolerance


def _problem(test: BehaviourSpec, model: FittedModel, rows: pd.DataFrame) -> str:
    if rows.empty:
        return "there is no holdout row"
    missing = [name for name in test.change if name not in model.features]
    return f"the model has no feature {', '.join(missing)}" if missing else ""


def _constant(values: pd.Series, value: bool | int | float | str | None) -> pd.Series:
    """The value in every row, a number as float64 so that any number fits."""
    kind = "float64" if pd.api.types.is_numeric_dtype(values.dtype) else "object"
    return pd.Series(value, index=values.index, dtype=kind)


def _example(row: pd.Series, before: np.ndarray, after: np.ndarray, place: int) -> str:
    return (
        f"{row['entity']} at {row['event_time']}: {before[place]:.4g} before, {after[place]:.4g} "
        "after the change"
    )
