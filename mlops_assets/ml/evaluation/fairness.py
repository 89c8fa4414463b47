"""Whether declared groups are treated alike."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlops_assets.ml.evaluation.slices import SlicePart, parts_of
from mlops_assets.ml.stats.bootstrap import interval, resampled, resampled_mean
from mlops_assets.ml.stats.draws import BootstrapWeights
from mlops_assets.ml.stats.metrics import Estimate, score
from mlops_assets.spec import FairnessSpec, Metric, ProductSpec


@dataclass(frozen=True)
class Unequal:
    """Two groups of which one has more of the measure than the other.

    Args:
        feature: that tells the groups apart.
        measure: error, rate or calibration.
        high: name of the group with more.
        low: name of the other.
        difference: of their measures, with its interval.
        ratio: of the low one to the high one, with its interval; NaN where it says nothing.
        broken: the limits that are broken for certain, in words.
    """

    feature: str
    measure: str
    high: str
    low: str
    difference: Estimate
    ratio: Estimate
    broken: tuple[str, ...]


@dataclass(frozen=True)
class Compared:
    """One declaration's groups, every pair of them.

    Args:
        declared: as the YAML has it.
        judged: names of the groups with enough rows, and enough to draw from.
        not_judged: name and rows of the others.
        pairs: of judged groups, the greatest difference first; empty with fewer than two.
    """

    declared: FairnessSpec
    judged: tuple[str, ...]
    not_judged: Mapping[str, int]
    pairs: tuple[Unequal, ...]


@dataclass(frozen=True)
class _Group:
    name: str
    value: float
    drawn: np.ndarray
    parts: int


def compare_groups(
    spec: ProductSpec, declared: FairnessSpec, evidence: pd.DataFrame, draws: BootstrapWeights
) -> Compared:
    """The measure of every group against that of every other one, on the same draws.

    The intervals of all pairs hold together with `evaluation.confidence` (Bonferroni), so that
    equal treatment is not refused by chance, however many groups there are.

    Args:
        spec: names metric and confidence.
        declared: feature, measure and limits.
        evidence: the evidence frame.
        draws: of its rows.
    """
    parts = parts_of(evidence, declared)
    large = [part for part in parts if _judged(part, declared, draws)]
    groups = [_measured(spec, declared, evidence, part, draws=draws) for part in large]
    count = len(groups) * (len(groups) - 1)
    tail = (1.0 - spec.evaluation.confidence) / 2.0 / max(count, 1)
    pairs = [_pair(declared, a, b, tail) for a, b in itertools.combinations(groups, 2)]
    names = {part.name for part in large}
    return Compared(
        declared=declared,
        judged=tuple(group.name for group in groups),
        not_judged={part.name: int(part.rows.sum()) for part in parts if part.name not in names},
        pairs=tuple(sorted(pairs, key=lambda pair: -pair.difference.value)),
    )


def _judged(part: SlicePart, declared: FairnessSpec, draws: BootstrapWeights) -> bool:
    return int(part.rows.sum()) >= declared.min_rows and not draws.of(part.rows).problem


def _measured(
    spec: ProductSpec,
    declared: FairnessSpec,
    evidence: pd.DataFrame,
    part: SlicePart,
    *,
    draws: BootstrapWeights,
) -> _Group:
    inside, drawn = evidence[part.rows], draws.of(part.rows)
    y, p = (inside[name].to_numpy(dtype="float64") for name in ("label", "candidate"))
    if declared.measure == "error":
        metric: Metric = "brier" if spec.metric == "auc" else spec.metric
        return _Group(part.name, score(metric, y, p), resampled(metric, y, p, drawn), drawn.parts)
    values = p if declared.measure == "rate" else p - y
    return _Group(part.name, float(values.mean()), resampled_mean(values, drawn), drawn.parts)


def _pair(declared: FairnessSpec, a: _Group, b: _Group, tail: float) -> Unequal:
    high, low = (a, b) if a.value >= b.value else (b, a)
    parts = min(a.parts, b.parts)
    difference = interval(high.value - low.value, high.drawn - low.drawn, tail, parts)
    ratio = interval(
        low.value / high.value if high.value > 0 else float("nan"),
        np.divide(low.drawn, high.drawn, out=np.full(len(low.drawn), np.nan), where=high.drawn > 0),
        tail,
        parts,
    )
    broken = []
    if declared.max_difference is not None and difference.lower > declared.max_difference:
        broken.append(f"difference {difference.value:.3g} is above {declared.max_difference:g}")
    if declared.min_ratio is not None and ratio.upper < declared.min_ratio:
        broken.append(f"ratio {ratio.value:.3g} is under {declared.min_ratio:g}")
    return Unequal(
        declared.feature, declared.measure, high.name, low.name, difference, ratio, tuple(broken)
    )
