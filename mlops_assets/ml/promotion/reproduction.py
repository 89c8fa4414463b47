"""A model made again next to the one that is registered: how far they are apart, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from mlops_assets.ml.features.feature_frame import same_values
from mlops_assets.provenance import Provenance

What = Literal["product code", "platform code", "python", "library", "machine"]
_KEYS = ["entity", "event_time"]


@dataclass(frozen=True)
class PredictionGap:
    """How far two predictions of the same rows are apart.

    Attributes:
        rows: compared.
        differing: rows in which they are not equal bit for bit.
        largest: largest absolute difference, in the target's unit; infinite when only one of them
            predicts something in a row; 0 without rows.
        mean: mean absolute difference over all rows, likewise.
    """

    rows: int
    differing: int
    largest: float
    mean: float

    @property
    def identical(self) -> bool:
        """Whether they are equal bit for bit."""
        return self.differing == 0

    @property
    def share(self) -> float:
        """Share of rows that differ, 0 to 1."""
        return self.differing / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class ColumnGap:
    """A column that came out differently.

    Attributes:
        name: of the column.
        values: how many differ, over the rows that both frames have.
        what: "values"; or "type", "gone" and "new", where every value counts.
    """

    name: str
    values: int
    what: Literal["values", "type", "gone", "new"]


@dataclass(frozen=True)
class FeaturesGap:
    """How far two features frames are apart.

    Attributes:
        rows: of the recorded frame.
        gone: rows only the recorded frame has.
        new: rows only the other one has.
        columns: those that differ, in order of the recorded frame; new ones last.
    """

    rows: int
    gone: int
    new: int
    columns: tuple[ColumnGap, ...]

    @property
    def identical(self) -> bool:
        """Whether rows, columns, types and values are the same."""
        return not (self.gone or self.new or self.columns)


@dataclass(frozen=True)
class Change:
    """Something a model depends on that is not as it was."""

    what: What
    text: str


def prediction_gap(registered: np.ndarray, rebuilt: np.ndarray) -> PredictionGap:
    """Compare predictions of shape (rows,) bit for bit; two that are missing are equal."""
    one, other = (np.asarray(each, dtype="float64") for each in (registered, rebuilt))
    same = (one.view("uint64") == other.view("uint64")) | (np.isnan(one) & np.isnan(other))
    distance = np.abs(one[~same] - other[~same])
    distance[np.isnan(distance)] = np.inf
    return PredictionGap(
        rows=len(one),
        differing=len(distance),
        largest=float(distance.max(initial=0.0)),
        mean=float(distance.sum() / len(one)) if len(one) else 0.0,
    )


def features_gap(recorded: pd.DataFrame, rebuilt: pd.DataFrame) -> FeaturesGap:
    """Compare two features frames row by row; rows are matched by entity and event time.

    Args:
        recorded: as `build_features` gave it then.
        rebuilt: as it gives it now.
    """
    before, now = recorded.set_index(_KEYS), rebuilt.set_index(_KEYS)
    both = before.index.intersection(now.index, sort=False)
    return FeaturesGap(
        rows=len(before),
        gone=len(before) - len(both),
        new=len(now) - len(both),
        columns=tuple(_column_gaps(before.loc[both], now.loc[both])),
    )


def _column_gaps(before: pd.DataFrame, now: pd.DataFrame) -> Iterator[ColumnGap]:
    for name in before.columns:
        if name not in now:
            yield ColumnGap(str(name), len(before), "gone")
        elif count := int((~same_values(before[name], now[name])).sum()):
            yield ColumnGap(str(name), count, "values")
        elif before[name].dtype != now[name].dtype:
            yield ColumnGap(str(name), len(before), "type")
    for name in now.columns.difference(before.columns, sort=False):
        yield ColumnGap(str(name), len(now), "new")


def changes(recorded: Provenance, now: Provenance) -> tuple[Change, ...]:
    """What is not as it was when a model was trained, the likeliest reason first."""
    return (
        *_code("product code", recorded.product_code, now.product_code, recorded, now=now),
        *_code("platform code", recorded.platform_code, now.platform_code, recorded, now=now),
        *_moved("library", recorded.libraries, now.libraries),
        *_moved("python", {"Python": recorded.python}, {"Python": now.python}),
        *_moved("machine", recorded.machine, now.machine),
    )


def reasons(found: Iterable[Change], *, without: What | None = None) -> str:
    """The changes as one sentence for something that came out differently.

    Args:
        found: what changed.
        without: what cannot be a reason because it was not used.
    """
    texts = [change.text for change in found if change.what != without]
    if texts:
        return "; ".join(texts)
    return "nothing recorded changed, so it does not come out the same twice (not deterministic)"


def _code(
    what: Literal["product code", "platform code"],
    before: str,
    after: str,
    recorded: Provenance,
    *,
    now: Provenance,
) -> Iterator[Change]:
    if before == after:
        return
    minor = [each.python.rpartition(".")[0] for each in (recorded, now)]
    doubt = "" if minor[0] == minor[1] else ", or is only read differently by another Python"
    yield Change(what, f"{what} changed from {before} to {after}{doubt}")


def _moved(what: What, before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Change]:
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name, "none"), now.get(name, "none")
        if old != new:
            yield Change(what, f"{name} changed from {old} to {new}")
