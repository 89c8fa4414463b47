"""Realised errors of many countries together, where each alone has too few labels to tell.

A country with eight labels in two months is never judged by itself, and two hundred of them are
never judged either, though a model that all of them share has become a third worse. Together they
tell: what their models were worth against what they promised, with the chance of countries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlops_assets.ml.monitoring.performance import Realised
from mlops_assets.ml.stats.metrics import UNKNOWN, Estimate, format_gain
from mlops_assets.spec import GREATER_IS_BETTER, ProductSpec

FEWEST_COUNTRIES = 8
"""So many, or the draws of countries say nothing of their chance."""
DRAWS = 1000


@dataclass(frozen=True)
class Together:
    """What the models in use of countries that are not judged alone are worth together.

    Args:
        countries: how many.
        rows: matured ones of all.
        excess: how much worse than promised: of errors a share of the promised error, of auc the
            difference; with its interval over countries at `monitoring.confidence`.
        worse: whether its lower end is beyond `monitoring.tolerance`.
        reason: in a sentence.
    """

    countries: int = 0
    rows: int = 0
    excess: Estimate = UNKNOWN
    worse: bool = False
    reason: str = ""


def judged_together(spec: ProductSpec, found: Sequence[Realised]) -> Together:
    """Judge countries together that cannot be judged alone.

    Args:
        spec: the whole product.
        found: what the model in use of each such country is worth; those without a matured row, or
            whose model promised nothing, do not count.
    """
    known = [each for each in found if each.rows and _told(each)]
    rows = sum(each.rows for each in known)
    if len(known) < FEWEST_COUNTRIES or rows < spec.monitoring.min_labels:
        return Together(len(known), rows)
    weight = np.array([float(each.rows) for each in known])
    real = weight * np.array([each.compared.value for each in known])
    promised = weight * np.array([each.expected.value for each in known])
    excess = _interval(spec, weight, real, promised)
    worse = bool(excess.lower > spec.monitoring.tolerance)
    return Together(len(known), rows, excess, worse, _reason(spec, len(known), rows, excess))


def _told(each: Realised) -> bool:
    return bool(np.isfinite(each.compared.value) and np.isfinite(each.expected.value))


def _interval(
    spec: ProductSpec, weight: np.ndarray, real: np.ndarray, promised: np.ndarray
) -> Estimate:
    """The excess over all, and its interval over draws of whole countries."""
    rng = np.random.default_rng(spec.seed)
    drawn = rng.multinomial(len(weight), np.full(len(weight), 1 / len(weight)), size=DRAWS)
    tail = (1.0 - spec.monitoring.confidence) / 2.0
    values = _excess(spec.metric, drawn @ weight, drawn @ real, drawn @ promised)
    value = _excess(spec.metric, weight.sum(), real.sum(), promised.sum())
    lower, upper = np.quantile(values, [tail, 1.0 - tail])
    return Estimate(float(value), float(lower), float(upper))


def _excess(
    metric: str,
    weight: np.ndarray | float,
    real: np.ndarray | float,
    promised: np.ndarray | float,
) -> np.ndarray:
    if metric in GREATER_IS_BETTER:
        return np.asarray((promised - real) / weight)
    return np.asarray(real) / np.asarray(promised) - 1.0


def _reason(spec: ProductSpec, countries: int, rows: int, excess: Estimate) -> str:
    value, lower, upper = (
        format_gain(spec.metric, each) for each in (excess.value, excess.lower, excess.upper)
    )
    return (
        f"{countries} countries that are not judged alone are together {value} worse than promised "
        f"({lower} to {upper}) on {rows:,} rows"
    )
