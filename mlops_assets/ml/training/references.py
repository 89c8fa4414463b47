"""What a champion learned from, counted so that new rows can be compared with it later."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from mlops_assets.ml.features.feature_frame import feature_columns
from mlops_assets.ml.stats import distances as d
from mlops_assets.ml.stats.distances import BINS, STEPS, FeatureKind
from mlops_assets.spec import ProductSpec

PREDICTION = "prediction"
"""Name under which the distribution of predictions is compared."""
REST = "\0rest"
"""Stands for the values of a category that the reference does not name."""
LEAST_VALUES = 5
"""Fewer values of a feature in a window say nothing about their mean or shape."""
LEAST_DISTANCE = 1e-4
"""Taken for 0 where logarithms of distances are compared."""

_MOST_NAMES = 50
_LEAST_DEVIATION = 0.1
"""Of the logarithms of distances: windows that are all the same would make anything unlikely."""


@dataclass(frozen=True)
class FeatureReference:
    """One feature as it was in the champion's newest training rows.

    Args:
        kind: number or category.
        weight: its share of the champion's importance, 0 to 1 (`PREDICTION`: 1).
        rows: with a value.
        nulls: share of rows without one.
        center: median of a number.
        scale: robust standard deviation of a number, above 0.
        counts: number: rows between `EDGES` of (value - center) / scale, with one bin below the
            first and one from the last on; category: rows by value, at most 50 and the rest.
        names: of the categories, in the order of `counts`; empty for a number.
        mean: of the standardised, clipped number.
        deviation: of the same.
        windows: per window of the reference, how much it differs from all of it by chance: name
            of the statistic: values, so that neighbouring days alike are accounted for. `rows`
            with a value, `nulls`; of a number `mean`, `deviation` and `distance`, of a category
            `effect`.
        spread: standard deviation of the mean of a window if nothing changes.
        degrees: of freedom of `spread`.
        apart: how many windows the reference would have without overlap.
    """

    kind: FeatureKind
    weight: float
    rows: int
    nulls: float
    center: float
    scale: float
    counts: tuple[int, ...]
    names: tuple[str, ...]
    mean: float
    deviation: float
    windows: Mapping[str, tuple[float, ...]]
    spread: float = 0.0
    degrees: float = 1.0
    apart: float = 0.0


@dataclass(frozen=True)
class Reference:
    """What a champion's new data are compared with; stored with the model as JSON.

    Args:
        first: event time of the first row it is made of.
        last: of the last.
        rows: it is made of.
        features: by name; with `PREDICTION`.
    """

    first: pd.Timestamp
    last: pd.Timestamp
    rows: int
    features: Mapping[str, FeatureReference]

    @cached_property
    def numbers(self) -> Numbers:
        """The numbers as arrays."""
        return Numbers.of(self.features)

    @cached_property
    def categories(self) -> Categories:
        """The categories as arrays."""
        return Categories.of(self.features)


@dataclass(frozen=True)
class Numbers:
    """The references of all numbers side by side; arrays of shape (features,) unless said."""

    names: tuple[str, ...]
    weight: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    counts: np.ndarray  # (features, bins)
    mean: np.ndarray
    deviation: np.ndarray
    usual: np.ndarray  # rows with a value in a window
    spread: np.ndarray  # of the means of windows
    degrees: np.ndarray
    of_new: np.ndarray  # variance of a new window's difference, beside its own
    shape: np.ndarray  # (features, 2): logarithm of the distance of windows, and its deviation
    shape_degrees: np.ndarray
    gaps: np.ndarray  # (features, 2): share of gaps in windows, and its deviation
    most_gaps: np.ndarray
    is_feature: np.ndarray  # and not the predictions
    calmest: np.ndarray  # smallest deviation within a window
    wildest: np.ndarray

    @classmethod
    def of(cls, features: Mapping[str, FeatureReference]) -> Numbers:
        """Those among the features."""
        found = {name: each for name, each in features.items() if each.kind == "number"}
        each = list(found.values())
        deviation = np.array([ref.deviation for ref in each])
        within = [values_or(ref.windows["deviation"], 0.0) for ref in each]
        return cls(
            names=tuple(found),
            weight=np.array([ref.weight for ref in each]),
            center=np.array([ref.center for ref in each]),
            scale=np.array([ref.scale for ref in each]),
            counts=np.array([ref.counts for ref in each], dtype="int64").reshape(-1, BINS),
            mean=np.array([ref.mean for ref in each]),
            deviation=np.where(deviation > 0, deviation, 1.0),
            usual=np.array([_usual(ref) for ref in each]),
            spread=np.array([ref.spread for ref in each]),
            degrees=np.array([ref.degrees for ref in each]),
            of_new=np.array([1.0 + 1.0 / max(ref.apart, 1.0) for ref in each]),
            shape=np.array([_of_chance(ref, "distance") for ref in each]).reshape(-1, 2),
            shape_degrees=np.array([_degrees(ref) for ref in each]),
            gaps=np.array([_of_gaps(ref) for ref in each]).reshape(-1, 2),
            most_gaps=np.array([max(ref.windows["nulls"], default=0.0) for ref in each]),
            is_feature=np.array([name != PREDICTION for name in found], dtype=bool),
            calmest=np.array([values.min() for values in within]),
            wildest=np.array([values.max() for values in within]),
        )


@dataclass(frozen=True)
class Categories:
    """The references of all categories side by side; arrays of shape (features,) unless said."""

    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]  # those that are named, then `REST`, of each feature
    weight: np.ndarray
    counts: np.ndarray  # (features, values), filled up with 0
    usual: np.ndarray  # rows with a value in a window
    effect: np.ndarray  # (features, 2): logarithm of that of windows, and its deviation
    degrees: np.ndarray
    gaps: np.ndarray  # (features, 2): share of gaps in windows, and its deviation
    most_gaps: np.ndarray

    @classmethod
    def of(cls, features: Mapping[str, FeatureReference]) -> Categories:
        """Those among the features."""
        found = {name: each for name, each in features.items() if each.kind == "category"}
        each = list(found.values())
        widest = max((len(ref.counts) for ref in each), default=0)
        counts = [(*ref.counts, *(0,) * (widest - len(ref.counts))) for ref in each]
        return cls(
            names=tuple(found),
            values=tuple((*ref.names, REST) for ref in each),
            weight=np.array([ref.weight for ref in each]),
            counts=np.array(counts, dtype="int64").reshape(len(each), widest),
            usual=np.array([_usual(ref) for ref in each]),
            effect=np.array([_of_chance(ref, "effect") for ref in each]).reshape(-1, 2),
            degrees=np.array([_degrees(ref) for ref in each]),
            gaps=np.array([_of_gaps(ref) for ref in each]).reshape(-1, 2),
            most_gaps=np.array([max(ref.windows["nulls"], default=0.0) for ref in each]),
        )


def newest_rows(spec: ProductSpec, rows: pd.DataFrame) -> pd.DataFrame:
    """The newest `monitoring.reference_days` of rows."""
    last = rows["event_time"].max()
    length = pd.Timedelta(days=spec.monitoring.reference_days)
    return rows[(rows["event_time"] > last - length).to_numpy()]


def make_reference(
    spec: ProductSpec,
    rows: pd.DataFrame,
    predicted: np.ndarray,
    importance: Mapping[str, float],
) -> Reference:
    """The reference of a model.

    Args:
        spec: the product as it is for this country.
        rows: of a features frame: the country's newest `monitoring.reference_days` that the model
            learned from; for a pooled model, too, the country's own. Older ones are left out.
        predicted: what the model predicts for them, shape (rows,).
        importance: increase of the error by feature when it is permuted; negative counts as 0.

    Raises:
        ValueError: there are no rows.
    """
    if rows.empty:
        raise ValueError("a reference needs rows")
    numbered = rows.reset_index(drop=True)
    rows = newest_rows(spec, numbered)
    predicted = np.asarray(predicted, dtype="float64")[rows.index]
    buckets = d.cut(rows["event_time"], spec.monitoring.window_days)
    weights = _weights(feature_columns(rows), importance)
    columns = {name: rows[name] for name in weights} | {PREDICTION: pd.Series(predicted)}
    weights[PREDICTION] = 1.0
    features = {
        name: _feature_reference(values, weights[name], buckets)
        for name, values in columns.items()
        if d.kind_of(values) is not None
    }
    times = rows["event_time"]
    return Reference(times.min(), times.max(), len(rows), features)


def _weights(names: Sequence[str], importance: Mapping[str, float]) -> dict[str, float]:
    """Shares of the importance; equal ones where nothing is known to be important."""
    harm = {name: max(0.0, float(np.nan_to_num(importance.get(name, 0.0)))) for name in names}
    total = sum(harm.values())
    if total <= 0:
        return dict.fromkeys(names, 1.0 / max(len(names), 1))
    return {name: each / total for name, each in harm.items()}


def _feature_reference(values: pd.Series, weight: float, buckets: d.Buckets) -> FeatureReference:
    if d.kind_of(values) == "number":
        return _number_reference(d.numbers_of(values), weight, buckets)
    return _category_reference(d.texts_of(values), weight, buckets)


def _number_reference(values: np.ndarray, weight: float, buckets: d.Buckets) -> FeatureReference:
    there = ~np.isnan(values)
    bucket = buckets.bucket[there]
    center, scale = d.center_and_scale(values[there])
    steps = d.fixed_point(values[there], center, scale)
    rows = np.bincount(bucket, minlength=buckets.count)
    total = np.bincount(bucket, weights=steps, minlength=buckets.count) / STEPS
    squares = np.bincount(bucket, weights=steps**2, minlength=buckets.count) / STEPS**2
    counts = _by_bucket(bucket, d.bin_of(steps), buckets.count, BINS)
    mean, deviation = moments(rows.sum(), total.sum(), squares.sum())
    spread, degrees = d.spread_of_means(total, rows, float(deviation), buckets)
    windows = _usable(buckets, rows)
    means, deviations = moments(*(buckets.windows(each) for each in (rows, total, squares)))
    apart = d.wasserstein(buckets.windows(counts), counts.sum(axis=0)) / (deviation or 1.0)
    shown = {"mean": means, "deviation": deviations, "distance": apart}
    return FeatureReference(
        kind="number",
        weight=weight,
        rows=int(there.sum()),
        nulls=float(1 - there.mean()),
        center=center,
        scale=scale,
        counts=tuple(counts.sum(axis=0).tolist()),
        names=(),
        mean=float(mean),
        deviation=float(deviation),
        windows={
            **_rows_and_gaps(buckets, rows),
            **{n: _short(v[windows]) for n, v in shown.items()},
        },
        spread=spread,
        degrees=degrees,
        apart=buckets.apart,
    )


def _category_reference(values: pd.Series, weight: float, buckets: d.Buckets) -> FeatureReference:
    there = values.notna().to_numpy()
    bucket = buckets.bucket[there]
    names = tuple(values[there].value_counts().index[:_MOST_NAMES])
    counts = _by_bucket(bucket, codes_of(values[there], names), buckets.count, len(names) + 1)
    rows = counts.sum(axis=1)
    effect = d.cohens_w(buckets.windows(counts), counts.sum(axis=0))
    windows = {"effect": _short(effect[_usable(buckets, rows)])}
    return FeatureReference(
        kind="category",
        weight=weight,
        rows=int(there.sum()),
        nulls=float(1 - there.mean()),
        center=0.0,
        scale=1.0,
        counts=tuple(counts.sum(axis=0).tolist()),
        names=names,
        mean=0.0,
        deviation=0.0,
        windows={**_rows_and_gaps(buckets, rows), **windows},
        degrees=buckets.degrees,
        apart=buckets.apart,
    )


def _by_bucket(bucket: np.ndarray, bin_: np.ndarray, buckets: int, bins: int) -> np.ndarray:
    found = np.bincount(bucket * bins + bin_, minlength=buckets * bins)
    return found.reshape(buckets, bins)


def codes_of(values: pd.Series, names: Sequence[str]) -> np.ndarray:
    """Place of each value among the names, the last place for others."""
    places = {name: place for place, name in enumerate(names)}
    return np.array([places.get(value, len(names)) for value in values], dtype="int64")


def _usable(buckets: d.Buckets, rows: np.ndarray) -> np.ndarray:
    """Which windows have enough values to be compared with the whole."""
    return buckets.windows(rows) >= LEAST_VALUES


def _rows_and_gaps(buckets: d.Buckets, rows: np.ndarray) -> dict[str, tuple[float, ...]]:
    every = buckets.windows(np.bincount(buckets.bucket, minlength=buckets.count))
    there = buckets.windows(rows)
    known = every > 0
    return {
        "rows": tuple(there.tolist()),
        "nulls": _short((1 - there / np.maximum(every, 1))[known]),
    }


def moments(rows: Any, total: Any, squares: Any) -> tuple[Any, Any]:
    """Mean and standard deviation; 0 without rows."""
    rows = np.maximum(rows, 1)
    mean = total / rows
    return mean, np.sqrt(np.maximum(squares / rows - mean**2, 0.0))


def _short(values: np.ndarray) -> tuple[float, ...]:
    """Six significant digits: more say nothing and take room."""
    return tuple(float(f"{value:.6g}") for value in values)


def values_or(values: Sequence[float], otherwise: float) -> np.ndarray:
    """The values; one other where there are none."""
    return np.array(values if len(values) else [otherwise])


def _usual(reference: FeatureReference) -> float:
    """Rows with a value in a typical window, at least 1."""
    return max(1.0, float(np.median(values_or(reference.windows["rows"], 1.0))))


def _degrees(reference: FeatureReference) -> float:
    return max(1.0, 1.5 * reference.apart - 1.0)


def _of_chance(reference: FeatureReference, statistic: str) -> np.ndarray:
    """Mean and deviation of the logarithm of a distance if nothing changed.

    Distances are skewed, and their logarithms hardly. The windows of the reference are part of
    what they were compared with, a new one is not.
    """
    values, apart = values_or(reference.windows[statistic], 0.0), max(reference.apart, 1.5)
    logarithms = np.log(np.maximum(values, LEAST_DISTANCE))
    farther = 0.5 * np.log((1 + 1 / apart) / (1 - 1 / apart))
    deviation = logarithms.std() * np.sqrt((1 + 1 / apart) / (1 - 1 / apart))
    return np.array([logarithms.mean() + farther, max(deviation, _LEAST_DEVIATION)])


def _of_gaps(reference: FeatureReference) -> np.ndarray:
    values, apart = (
        values_or(reference.windows["nulls"], reference.nulls),
        max(reference.apart, 1.5),
    )
    return np.array([reference.nulls, np.sqrt(((values - reference.nulls) ** 2).mean())]) * [
        1.0,
        np.sqrt((1 + 1 / apart) / (1 - 1 / apart)),
    ]


def reference_to_json(reference: Reference) -> str:
    """As it is stored with a model."""
    held = {
        "first": reference.first.isoformat(),
        "last": reference.last.isoformat(),
        "rows": reference.rows,
        "features": {name: asdict(each) for name, each in reference.features.items()},
    }
    return json.dumps(held)


def reference_from_json(text: str) -> Reference:
    """What `reference_to_json` wrote."""
    held = json.loads(text)
    return Reference(
        pd.Timestamp(held["first"]),
        pd.Timestamp(held["last"]),
        held["rows"],
        {name: _feature_from(each) for name, each in held["features"].items()},
    )


def _feature_from(held: dict[str, Any]) -> FeatureReference:
    windows = {name: tuple(values) for name, values in held["windows"].items()}
    as_tuples = {name: tuple(held[name]) for name in ("counts", "names")}
    return FeatureReference(**{**held, **as_tuples, "windows": windows})
