"""What a delivery changed in the history that was there before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api import types

COLUMNS = ("period", "column", "rows", "mean_change", "largest_change", "withdrawn")


@dataclass(frozen=True)
class Restatement:
    """The difference between two versions of a country's validated records.

    Args:
        added: records of keys that were not there before.
        changed: records of which another value than before was delivered.
        withdrawn: records that were there before and are no longer.
        by_period: one row per month of the event time and changed column: `period` (YYYY-MM),
            `column`, `rows` that changed, `mean_change` and `largest_change` (absolute, in the
            column's unit; NaN for what is no number); withdrawn records have a row of their own
            with the column "" and their number in `withdrawn`.
    """

    added: int
    changed: int
    withdrawn: int
    by_period: pd.DataFrame

    @property
    def restated(self) -> bool:
        """Whether anything that was there before is other than it was."""
        return bool(self.changed or self.withdrawn)


def compare_versions(
    before: pd.DataFrame, now: pd.DataFrame, key: Sequence[str], event_time: str
) -> Restatement:
    """Compare two versions of validated records, each unique by key, by key and value.

    Args:
        before: the records as they were.
        now: the records as they are; columns that only one side has are left out.
        key: columns that identify a record.
        event_time: the column of which the month is the period.
    """
    old, new = _by_key(before, list(key)), _by_key(now, list(key))
    kept = old.index.isin(new.index)
    old_kept = old[kept]
    new_kept = new.loc[old_kept.index] if kept.any() else new.iloc[:0]
    shared = [name for name in old.columns if name in new.columns]
    differing = {name: _differs(old_kept[name], new_kept[name]) for name in shared}
    changed = np.logical_or.reduce([*differing.values(), np.zeros(len(old_kept), bool)])
    rows = [
        _of_column(name, mask, old_kept, new_kept, months=_months(old_kept, event_time))
        for name, mask in differing.items()
        if mask.any()
    ]
    rows.append(_of_withdrawn(_months(old[~kept], event_time)))
    return Restatement(
        added=int((~new.index.isin(old.index)).sum()),
        changed=int(changed.sum()),
        withdrawn=int((~kept).sum()),
        by_period=_joined(rows),
    )


def _by_key(rows: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """By an index in which a missing part of a key is equal to a missing one.

    That of a single column is not: there None, NaN and NA differ from each other.
    """
    return rows.drop(columns=key).set_axis(pd.MultiIndex.from_frame(rows[key]), axis=0)


def _differs(old: pd.Series, new: pd.Series) -> np.ndarray:
    a, b = old.to_numpy(), new.to_numpy()
    missing, missing_too = pd.isna(a), pd.isna(b)
    same = missing & missing_too
    either = missing | missing_too
    same[~either] = a[~either] == b[~either]
    return ~same


def _months(rows: pd.DataFrame, event_time: str) -> np.ndarray:
    times = rows[event_time] if event_time in rows else rows.index.get_level_values(event_time)
    return pd.DatetimeIndex(times).strftime("%Y-%m").to_numpy()


def _of_column(
    name: str, mask: np.ndarray, old: pd.DataFrame, new: pd.DataFrame, *, months: np.ndarray
) -> pd.DataFrame:
    kind = old[name].dtype
    size = np.full(int(mask.sum()), np.nan)
    if types.is_numeric_dtype(kind) and not types.is_bool_dtype(kind):
        pair = (part[name].to_numpy("float64", na_value=np.nan)[mask] for part in (old, new))
        size = np.abs(np.subtract(*pair))
    found = pd.DataFrame({"period": months[mask], "size": size}).groupby("period")["size"]
    table = found.agg(rows="size", mean_change="mean", largest_change="max").reset_index()
    return table.assign(column=name, withdrawn=0)


def _of_withdrawn(months: np.ndarray) -> pd.DataFrame:
    counts = pd.Series(months, name="period", dtype="object").value_counts(sort=False)
    table = counts.rename("withdrawn").rename_axis("period").reset_index()
    return table.assign(column="", rows=0, mean_change=np.nan, largest_change=np.nan)


def _joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    filled = [part for part in parts if len(part)]
    kinds = {"period": "object", "column": "object", "rows": "int64", "withdrawn": "int64"}
    kinds |= {"mean_change": "float64", "largest_change": "float64"}
    if not filled:
        return pd.DataFrame({name: pd.Series(dtype=kinds[name]) for name in COLUMNS})
    table = pd.concat(filled, ignore_index=True)[list(COLUMNS)].astype(kinds)
    return table.sort_values(["period", "column"], kind="stable", ignore_index=True)
