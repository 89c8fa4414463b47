"""The frame a decision is made from: one row per holdout row."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from mlops_assets.ml.models.baselines import baseline_predictions, best_of
from mlops_assets.ml.stats.metrics import score
from mlops_assets.spec import ProductSpec, SliceSpec

MAX_SLICES = 20
"""Values of a feature that are slices of their own; rarer ones are together in OTHER."""
MISSING, OTHER = "missing", "other"
EVIDENCE_COLUMNS = (
    "entity",
    "event_time",
    "label_time",
    "label",
    "candidate",
    "low",
    "high",
    "champion",
    "baseline",
    "baseline_name",
)
"""Columns of every evidence frame, before those of its slices."""


def evidence_frame(
    spec: ProductSpec,
    holdout: pd.DataFrame,
    predicted: np.ndarray,
    train: pd.DataFrame,
    *,
    low: np.ndarray | None = None,
    high: np.ndarray | None = None,
    champion: np.ndarray | None = None,
    countries: np.ndarray | None = None,
    naive: Mapping[str, np.ndarray] | None = None,
) -> pd.DataFrame:
    """What a decision is made from, so that it can be made again from nothing else.

    Args:
        spec: the product as it is for this country.
        holdout: labelled rows of a features frame.
        predicted: by the candidate, shape (rows,).
        train: the rows baselines take their mean from.
        low: lower ends of the prediction intervals; None: there are none.
        high: upper ends.
        champion: the champion's predictions of the same rows; None without one.
        countries: of each row, where they are of several; None: all are of one.
        naive: what each baseline says of the rows in their own country, shape (rows,) each; None:
            all rows are of one country, and it follows from `train`.

    Returns:
        One row per holdout row: entity, event_time, label_time, label, candidate, low, high and
        champion (NaN: none), baseline (the best one's prediction), baseline_name ("": none can be
        told), `country` where several are given, and a text column for each declared slice or group
        whose feature the rows have, named by `slice_column`.
    """
    if naive is None:
        naive = {each.name: baseline_predictions(each, train, holdout) for each in spec.baselines}
    label = holdout["label"].to_numpy(dtype="float64")
    best = best_of(spec.metric, {n: score(spec.metric, label, p) for n, p in naive.items()})
    none = np.full(len(holdout), np.nan)
    columns = {
        **{name: holdout[name].to_numpy() for name in ("entity", "event_time", "label_time")},
        "label": label,
        "candidate": np.asarray(predicted, dtype="float64"),
        "low": none if low is None else np.asarray(low, dtype="float64"),
        "high": none if high is None else np.asarray(high, dtype="float64"),
        "champion": none if champion is None else np.asarray(champion, dtype="float64"),
        "baseline": naive.get(best, none),
        "baseline_name": np.full(len(holdout), best, dtype="object"),
    }
    if countries is not None:
        columns["country"] = countries
    for declared in declared_slices(spec):
        if declared.feature in holdout:
            columns[slice_column(declared)] = slice_names(holdout[declared.feature], declared.edges)
    return pd.DataFrame(columns)


def slice_column(declared: SliceSpec) -> str:
    """Column of the evidence that holds each row's slice: the feature, and where it is cut."""
    return _column_of(declared, [number_name(edge) for edge in declared.edges])


def stored_column(evidence: pd.DataFrame, declared: SliceSpec) -> str | None:
    """The column of stored evidence that holds a declaration's slices; None when it has none.

    Evidence of earlier versions names its edges with six digits.
    """
    short = _column_of(declared, [f"{edge:g}" for edge in declared.edges])
    names = (slice_column(declared), short)
    return next((name for name in names if name in evidence), None)


def _column_of(declared: SliceSpec, edges: list[str]) -> str:
    return f"slice.{declared.feature}" + (f" at {', '.join(edges)}" if edges else "")


def declared_slices(spec: ProductSpec) -> Iterator[SliceSpec]:
    """Every slice and fairness group of the product, in the order of the YAML."""
    yield from spec.evaluation.slices
    yield from spec.gates.fairness


def slice_names(values: pd.Series, edges: list[float]) -> np.ndarray:
    """Name of the slice of each row, shape (rows,), text.

    With edges "under 7", "7 to 30" (30 itself is in the next one) and "90 or more"; without, the
    value as text, of which those beyond the `MAX_SLICES` with most rows are "other". Rows without
    a value are "missing".
    """
    names = _between(values, edges) if edges else _as_text(values)
    names[values.isna().to_numpy()] = MISSING
    kept, counts = np.unique(names.astype(str), return_counts=True)
    if len(kept) <= MAX_SLICES:
        return names
    most = set(kept[np.argsort(-counts, kind="stable")][:MAX_SLICES])
    return np.array([name if name in most else OTHER for name in names], dtype="object")


def edge_names(edges: list[float]) -> list[str]:
    """Names of the slices that edges make, lowest first."""
    ends = [number_name(edge) for edge in edges]
    middle = [f"{low} to {high}" for low, high in itertools.pairwise(ends)]
    return [f"under {ends[0]}", *middle, f"{ends[-1]} or more"]


def _between(values: pd.Series, edges: list[float]) -> np.ndarray:
    names = np.array(edge_names(edges), dtype="object")
    numbers = values.to_numpy(dtype="float64", na_value=np.nan)
    return names[np.searchsorted(edges, numbers, side="right")]


def _as_text(values: pd.Series) -> np.ndarray:
    if pd.api.types.is_float_dtype(values.dtype):
        return np.array([number_name(value) for value in values.to_numpy()], dtype="object")
    return np.array([str(value) for value in values], dtype="object")


def number_name(value: Any) -> str:
    """A number as a name: two numbers that differ have two names, and 7.0 is "7".

    Args:
        value: of Python or numpy; one of 32 bits has the digits that tell it from others of 32.
    """
    if pd.isna(value):
        return MISSING
    if float(value).is_integer() and abs(value) < 2**63:
        return str(int(value))
    return str(np.asarray(value)[()]).removesuffix(".0")
