"""What pooled models and baselines are worth on the validation rows of many countries.

Told once, when the pooled models are trained, and stored with them: a country that has too few
validation rows of its own to choose by chooses by these.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from mlops_assets.ml.models.baselines import baseline_predictions, best_of
from mlops_assets.ml.models.fitted_model import FittedModel, predict
from mlops_assets.ml.models.split import Split
from mlops_assets.ml.stats.metrics import NAN, score
from mlops_assets.spec import BaselineSpec, ProductSpec

ALL = ""
"""Stands for the region where the rows are those of all countries."""


@dataclass(frozen=True)
class PooledScore:
    """A pooled model on validation rows it has not seen, of many countries.

    Args:
        rows: that it was scored on.
        countries: they are of.
        value: the product's metric; NaN when it cannot be told.
        baselines: the metric of each baseline on the same rows.
    """

    rows: int
    countries: int
    value: float
    baselines: Mapping[str, float]


PooledScores = Mapping[str, PooledScore]
"""By the region whose rows they are of; `ALL` for those of all countries."""


@dataclass(frozen=True)
class ValidationRows:
    """The validation rows of many countries under each other.

    Args:
        rows: as in `Split.validation`.
        country: of each row, shape (rows,).
        baselines: what each baseline says in the row's country, shape (rows,) each.
    """

    rows: pd.DataFrame
    country: np.ndarray
    baselines: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ChosenBaseline:
    """The naive rule that serves where no model does.

    Args:
        name: of the baseline.
        reason: why this one, in a sentence.
    """

    name: str
    reason: str


def validation_rows(spec: ProductSpec, parts: Mapping[str, Split]) -> ValidationRows:
    """The validation rows of countries, with what baselines say that know the own country's mean.

    Args:
        spec: the product.
        parts: rows of each country by their use; at least one country.
    """
    names = [name for name in sorted(parts) if len(parts[name].validation)] or sorted(parts)[:1]
    naive = baselines_by_country(
        spec,
        {name: part.train for name, part in parts.items()},
        {name: parts[name].validation for name in names},
    )
    rows = pd.concat([parts[name].validation for name in names], ignore_index=True)
    country = np.repeat(np.array(names, dtype="object"), [len(parts[n].validation) for n in names])
    return ValidationRows(rows, country, naive)


def baselines_by_country(
    spec: ProductSpec, learned: Mapping[str, pd.DataFrame], rows: Mapping[str, pd.DataFrame]
) -> dict[str, np.ndarray]:
    """What each baseline says of rows in their own country, shape (all rows,) each.

    Args:
        spec: the product.
        learned: rows of each country that its mean label is of; that of all countries stands in
            where a country has none.
        rows: to predict, by country; at least one country, each also in `learned`.
    """
    every = float(pd.concat([each["label"] for each in learned.values()]).mean())
    return {
        base.name: np.concatenate(
            [_naive(base, learned[name], each, every) for name, each in rows.items()]
        )
        for base in spec.baselines
    }


def pooled_scores(
    spec: ProductSpec, held: ValidationRows, model: FittedModel, region: str = ALL
) -> dict[str, PooledScore]:
    """A model on the validation rows of all countries and of each region it is for.

    Args:
        spec: the product.
        held: of all countries.
        model: fitted on train rows only.
        region: that it was trained for; `ALL` for every country.
    """
    regions = [region] if region else [ALL, *spec.regions]
    inside = {
        each: np.isin(held.country, spec.regions[each]) if each else np.ones(len(held.rows), bool)
        for each in regions
    }
    predicted = predict(model, held.rows, spec.task) if len(held.rows) else np.empty(0)
    return {each: _score(spec, held, predicted, inside[each]) for each in regions}


def merged_scores(models: Iterable[PooledScores]) -> dict[str, PooledScore]:
    """Scores by every region that any model is for, of the first that has it: for the baselines."""
    found: dict[str, PooledScore] = {}
    for each in models:
        found = {**each, **found}
    return found


def lacking_rows(spec: ProductSpec, validation: pd.DataFrame) -> str:
    """Why a country's own validation rows are too few to choose by; "" if they are not.

    Too few are fewer than `split.min_validation_rows`, and for auc fewer than
    `gates.min_slice_class_rows` of either class, as ranks against a handful of rows say little.

    Args:
        spec: the product as it is for the country.
        validation: its rows.
    """
    needed, few = spec.split.min_validation_rows, spec.gates.min_slice_class_rows
    if len(validation) < needed:
        return f"the country has {len(validation)} validation rows of {needed} needed to choose by"
    rarer = _rarer_class(validation)
    if spec.metric == "auc" and rarer < few:
        return (
            f"{rarer} of the country's {len(validation)} validation rows are of the rarer class, "
            f"and {few} are needed to choose by"
        )
    return ""


def can_judge(spec: ProductSpec, validation: pd.DataFrame) -> bool:
    """Whether own validation rows say enough of a local model, which no other country can judge.

    As many are needed as judge a country on its own, `split.min_holdout_rows`; for auc as in
    `lacking_rows`.

    Args:
        spec: the product as it is for the country.
        validation: its rows.
    """
    few = spec.gates.min_slice_class_rows if spec.metric == "auc" else 0
    return len(validation) >= spec.split.min_holdout_rows and _rarer_class(validation) >= few


def comparable(scores: Sequence[PooledScores], region: str) -> str | None:
    """The rows by which models can be compared: those of the region, else of all countries.

    Args:
        scores: of each model.
        region: the country is in; `ALL` for none.

    Returns:
        A key that every one of `scores` has with a value; None without one.
    """
    for each in dict.fromkeys((region, ALL)):
        if scores and all(each in one and np.isfinite(one[each].value) for one in scores):
            return each
    return None


def choose_baseline(
    spec: ProductSpec, parts: Split, pooled: PooledScores, region: str
) -> ChosenBaseline:
    """The baseline that is best on validation rows: the country's own, or those of many countries.

    Args:
        spec: the product as it is for the country.
        parts: its rows.
        pooled: of any pooled model, for the baselines on its rows; empty where there are none.
        region: the country is in; `ALL` for none.
    """
    if len(spec.baselines) == 1:
        return ChosenBaseline(spec.baselines[0].name, "it is the only one")
    lacking = lacking_rows(spec, parts.validation)
    held = pooled.get(region) or pooled.get(ALL)
    if lacking and held is not None and (best := best_of(spec.metric, held.baselines)):
        text = f"it has the best validation {spec.metric} {told_of(held, region)}"
        return ChosenBaseline(best, f"{text}{_others(held.baselines, best)}, because {lacking}")
    label = parts.validation["label"].to_numpy(dtype="float64")
    values = {
        base.name: score(spec.metric, label, _naive(base, parts.train, parts.validation, NAN))
        for base in spec.baselines
    }
    best = best_of(spec.metric, values)
    if not best:
        text = f"it is the first: {spec.metric} cannot be told on {len(label)} validation rows"
        return ChosenBaseline(spec.baselines[0].name, text)
    text = f"it is the best of {len(values)} on {len(label)} validation rows of the country"
    return ChosenBaseline(best, f"{text}{_others(values, best)}")


def told_of(held: PooledScore, region: str) -> str:
    """Which rows a score is of, in words."""
    of = f"of region {region}" if region else "of all countries"
    return f"on {held.rows:,} rows {of} ({held.countries:,} with rows)"


def scores_to_json(scores: PooledScores) -> str:
    """As it is stored with a pooled model; `scores_from_json` reads it."""
    return json.dumps({name: _plain(asdict(each)) for name, each in scores.items()})


def scores_from_json(text: str) -> dict[str, PooledScore]:
    """What `scores_to_json` wrote; empty for ""."""
    return {
        name: PooledScore(
            rows=held["rows"],
            countries=held["countries"],
            value=_float(held["value"]),
            baselines={base: _float(value) for base, value in held["baselines"].items()},
        )
        for name, held in json.loads(text or "{}").items()
    }


def _rarer_class(validation: pd.DataFrame) -> int:
    ones = int((validation["label"] > 0.5).sum())
    return min(ones, len(validation) - ones)


def _naive(
    base: BaselineSpec, learned: pd.DataFrame, rows: pd.DataFrame, otherwise: float
) -> np.ndarray:
    """What a baseline says of a country's rows; of one without history what is given otherwise."""
    values = baseline_predictions(base, learned, rows)
    return np.where(np.isfinite(values), values, otherwise)


def _score(
    spec: ProductSpec, held: ValidationRows, predicted: np.ndarray, inside: np.ndarray
) -> PooledScore:
    label = held.rows["label"].to_numpy(dtype="float64")[inside]
    return PooledScore(
        rows=int(inside.sum()),
        countries=len(set(held.country[inside])),
        value=score(spec.metric, label, predicted[inside]),
        baselines={
            name: score(spec.metric, label, values[inside])
            for name, values in held.baselines.items()
        },
    )


def _others(values: Mapping[str, float], best: str) -> str:
    told = [f"{name} {value:.4g}" for name, value in values.items() if np.isfinite(value)]
    return f" ({', '.join(told)})" if best in values else ""


def _plain(held: dict[str, object]) -> dict[str, object]:
    """JSON has no NaN."""
    baselines = held["baselines"]
    assert isinstance(baselines, dict)
    value = held["value"]
    return {
        **held,
        "value": None if value != value else value,
        "baselines": {name: None if v != v else v for name, v in baselines.items()},
    }


def _float(value: float | None) -> float:
    return NAN if value is None else value
