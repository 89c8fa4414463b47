"""Parts of the rows, judged one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlops_assets.ml.evaluation.evidence import MISSING, OTHER, edge_names, stored_column
from mlops_assets.ml.stats.bootstrap import estimate, gain_estimate
from mlops_assets.ml.stats.draws import BootstrapWeights
from mlops_assets.ml.stats.metrics import score
from mlops_assets.spec import ProductSpec, SliceSpec

SLICE_COLUMNS = (
    "feature",
    "slice",
    "rows",
    "value",
    "lower",
    "upper",
    "baseline",
    "champion",
    "gain",
    "gain_lower",
    "gain_upper",
    "judged",
)
SURER = 5.0
"""With 90 % confidence, 5 % are beyond a bound; of all slices' gains together, 1 %."""


def no_slices() -> pd.DataFrame:
    """The table of slices without a row."""
    return pd.DataFrame(columns=list(SLICE_COLUMNS))


@dataclass(frozen=True)
class SlicePart:
    """The rows of one slice.

    Args:
        feature: that tells the slices apart.
        name: of the slice; "" for a feature that the rows do not have.
        rows: mask over the evidence, shape (rows,).
    """

    feature: str
    name: str
    rows: np.ndarray


def parts_of(evidence: pd.DataFrame, declared: SliceSpec) -> list[SlicePart]:
    """The slices of one declaration in their order; without the feature, one part without rows."""
    column = stored_column(evidence, declared)
    if column is None:
        return [SlicePart(declared.feature, "", np.zeros(len(evidence), dtype="bool"))]
    names = evidence[column].to_numpy(dtype="object")
    present = set(names)
    known = edge_names(declared.edges) if declared.edges else []
    order = [*known, *sorted(present - {*known, MISSING, OTHER})]
    return [
        SlicePart(declared.feature, name, names == name)
        for name in dict.fromkeys([*order, OTHER, MISSING])
        if name in present
    ]


def slice_table(spec: ProductSpec, evidence: pd.DataFrame, draws: BootstrapWeights) -> pd.DataFrame:
    """How the candidate does in every declared slice.

    Returns:
        A row per slice with the columns `SLICE_COLUMNS`: metric with its interval, the best
        baseline's and the champion's metric on the same rows, and the gain on the champion, else
        on the best baseline. Not judged are slices with fewer than `gates.min_slice_rows` rows, for
        auc with fewer than `gates.min_slice_class_rows` of either class, those with too few blocks
        of days or entities to draw from, and a feature that the rows do not have (slice "", 0
        rows). The intervals of all judged gains hold together (Bonferroni), and more significantly
        than `evaluation.confidence` by the factor `SURER`: a slice that fails stops a promotion,
        and equal models are to fail practically never, however many slices there are.
    """
    parts = [part for declared in spec.evaluation.slices for part in parts_of(evidence, declared)]
    tail = (1.0 - spec.evaluation.confidence) / 2.0
    labels = evidence["label"].to_numpy(dtype="float64")
    large = sum(_large(spec, labels[part.rows]) for part in parts)
    rows = [
        _row(spec, evidence, part, draws, tail=tail, tail_of_all=tail / SURER / max(large, 1))
        for part in parts
    ]
    return pd.DataFrame(rows, columns=list(SLICE_COLUMNS)) if rows else no_slices()


def _row(
    spec: ProductSpec,
    evidence: pd.DataFrame,
    part: SlicePart,
    draws: BootstrapWeights,
    *,
    tail: float,
    tail_of_all: float,
) -> dict[str, object]:
    inside, drawn = evidence[part.rows], draws.of(part.rows)
    y, candidate, baseline, champion = _numbers(inside)
    values = {
        name: score(spec.metric, y, each)
        for name, each in zip(("baseline", "champion"), (baseline, champion), strict=True)
    }
    own = estimate(spec.metric, y, candidate, drawn, tail=tail)
    reference = champion if np.isfinite(values["champion"]) else baseline
    gain = gain_estimate(spec.metric, y, candidate, reference, draws=drawn, tail=tail_of_all)
    return {
        "feature": part.feature,
        "slice": part.name,
        "rows": len(inside),
        **vars(own),
        **values,
        "gain": gain.value,
        "gain_lower": gain.lower,
        "gain_upper": gain.upper,
        "judged": _large(spec, y) and gain.has_interval,
    }


def _large(spec: ProductSpec, y: np.ndarray) -> bool:
    """Whether a slice with these labels has the rows it takes to be judged."""
    if len(y) < spec.gates.min_slice_rows:
        return False
    positive = int((y > 0.5).sum())
    fewest = min(positive, len(y) - positive)
    return spec.metric != "auc" or fewest >= spec.gates.min_slice_class_rows


def _numbers(evidence: pd.DataFrame) -> Iterator[np.ndarray]:
    for name in ("label", "candidate", "baseline", "champion"):
        yield evidence[name].to_numpy(dtype="float64")
