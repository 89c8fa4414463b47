"""Weighted percentiles, sorted once: what takes most of the time of a small gradient boosting.

scikit-learn bins weighted rows by one percentile after the other, and sorts the rows for each; and
what it does for arrays of any library costs more than the percentile of a leaf itself. This gives
the very same numbers, for the duration of a fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class _Sorted:
    """An array with positive weights in the order of its values, and its cumulated weights."""

    array: np.ndarray
    weights: np.ndarray
    order: np.ndarray
    cumulated: np.ndarray


class SortedOnce:
    """Stands for scikit-learn's weighted percentile, to the bit.

    Args:
        original: asked for whatever is not a vector of known numbers with positive weights.
    """

    def __init__(self, original: Callable[..., Any]) -> None:
        self.original = original
        self._held: _Sorted | None = None

    def __call__(
        self,
        array: Any,
        sample_weight: Any,
        percentile_rank: Any = 50,
        average: bool = False,
        xp: Any = None,
    ) -> Any:
        """The percentile; see scikit-learn's `_weighted_percentile`."""
        held = self._sorted(array, sample_weight) if np.ndim(percentile_rank) == 0 else None
        if held is None:
            return self.original(array, sample_weight, percentile_rank, average, xp)
        most = held.cumulated[-1]
        wanted = np.float64(percentile_rank) / 100 * most
        wanted = np.nextafter(wanted, wanted + 1) if wanted == 0 else wanted
        last = len(held.order) - 1
        place = min(int(np.searchsorted(held.cumulated, wanted)), last)
        value = held.array[held.order[place]]
        if not average or held.cumulated[place] - wanted > np.finfo(np.float64).eps:
            return value
        return (value + held.array[held.order[min(place + 1, last)]]) / 2

    def _sorted(self, array: Any, weights: Any) -> _Sorted | None:
        held = self._held
        if held is not None and held.array is array and held.weights is weights:
            return held
        if not (_vector(array) and _vector(weights) and len(array) == len(weights) > 0):
            return None
        order = np.argsort(array[:, None], axis=0)[:, 0]
        if np.isnan(array[order[-1]]) or not weights.min() > 0:
            return None
        self._held = _Sorted(array, weights, order, np.cumsum(weights[order]))
        return self._held


@contextmanager
def sorted_once() -> Iterator[None]:
    """Fits inside give the same models in less time; not for threads side by side."""
    from sklearn._loss import loss
    from sklearn.ensemble._hist_gradient_boosting import binning

    places = [each for each in (loss, binning) if hasattr(each, "_weighted_percentile")]
    before = [getattr(each, "_weighted_percentile") for each in places]  # noqa: B009
    for place, original in zip(places, before, strict=True):
        setattr(place, "_weighted_percentile", SortedOnce(original))  # noqa: B010
    try:
        yield
    finally:
        for place, original in zip(places, before, strict=True):
            setattr(place, "_weighted_percentile", original)  # noqa: B010


def _vector(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype == np.float64
