"""Time-ordered split in which no label leaks across a cut."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mlops_assets.spec import ProductSpec, Scope, SplitSpec


@dataclass(frozen=True)
class Split:
    """Rows of a features frame by their use.

    `final` overlaps `train` and `validation`; `known` overlaps these and `holdout`.

    Args:
        train: labels known when the validation window starts.
        validation: events of the validation window with labels known before the holdout.
        final: every row whose label is known before the holdout; what a model learns that is
            judged on the holdout.
        holdout: labelled events from the start of the holdout on.
        open: rows whose label is not known yet.
        known: every labelled row since the start of training, the holdout included; what a model
            learns that is fitted again once it is judged.
        holdout_from: start of the holdout; None while there is no label that says.
        without_offset: rows that validation and holdout lack, as no candidate could predict them;
            see `with_offset`.
    """

    train: pd.DataFrame
    validation: pd.DataFrame
    final: pd.DataFrame
    holdout: pd.DataFrame
    open: pd.DataFrame
    known: pd.DataFrame
    holdout_from: pd.Timestamp | None
    without_offset: int = 0


def split(features: pd.DataFrame, spec: SplitSpec, *, newest: pd.Timestamp | None = None) -> Split:
    """Cut a features frame by event time and purge by label time.

    A row is trained on only if its label was known when the next part starts: rows whose event
    is before a cut and whose label matures after it belong to neither side of that cut.

    Args:
        features: of one country.
        spec: as it is for the country.
        newest: label time of the newest label known elsewhere, if that is later than all in
            `features`: a holdout that moves then begins where it begins there (see
            `country_split`). Not used by a split of fixed dates.
    """
    dates = spec.dates(_latest(newest, newest_label(features)))
    known = features["label"].notna()
    if dates is None:
        none = features.iloc[:0].reset_index(drop=True)
        return Split(none, none, none, none, features.reset_index(drop=True), none, None)
    validation_from, holdout_from = (
        pd.Timestamp(each) for each in (dates.validation_from, dates.holdout_from)
    )
    event, matures = features["event_time"], features["label_time"]
    started = event >= pd.Timestamp(dates.train_from) if dates.train_from else known | ~known
    before_validation = (event < validation_from) & (matures <= validation_from)
    before_holdout = (event < holdout_from) & (matures <= holdout_from)

    def rows(mask: pd.Series) -> pd.DataFrame:
        return features[np.asarray(mask)].reset_index(drop=True)

    return Split(
        train=rows(known & started & before_validation),
        validation=rows(known & (event >= validation_from) & before_holdout),
        final=rows(known & started & before_holdout),
        holdout=rows(known & (event >= holdout_from)),
        open=rows(~known),
        known=rows(known & started),
        holdout_from=holdout_from,
    )


def with_offset(parts: Split, spec: ProductSpec) -> Split:
    """Judged on the rows alone that have the offset of all candidates: others no model predicts.

    What models learn is as it was: they take no notice of a row without their offset.
    """
    offset = common_offset(spec, ("local", "region", "pooled"))
    if offset is None:
        return parts
    validation, holdout = (_having(each, offset) for each in (parts.validation, parts.holdout))
    rows = len(parts.validation) + len(parts.holdout) - len(validation) - len(holdout)
    return replace(parts, validation=validation, holdout=holdout, without_offset=rows)


def common_offset(spec: ProductSpec, scopes: Collection[Scope]) -> str | None:
    """The offset that every candidate of these scopes has; None where they have no common one."""
    found = {each.offset for each in spec.candidates if set(scopes) & set(each.scopes)}
    return found.pop() if len(found) == 1 else None


def _having(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    known = rows[name].notna() if name in rows else pd.Series(True, index=rows.index)
    return rows if known.all() else rows[known].reset_index(drop=True)


def newest_label(features: pd.DataFrame) -> pd.Timestamp | None:
    """Label time of the newest label that is known; None without any."""
    times = features.loc[features["label"].notna(), "label_time"]
    newest = times.max() if len(times) else pd.NaT
    return None if pd.isna(newest) else newest


def _latest(*times: pd.Timestamp | None) -> pd.Timestamp | None:
    return max((time for time in times if time is not None), default=None)


@dataclass(frozen=True)
class Fold:
    """One fold of a rolling origin: positions of rows, and the time between the two sides.

    Args:
        learn: rows whose event is before `start` and whose label is known by then.
        judge: rows whose event is at `start` or later, up to the next fold.
        start: event time of the first judged row.
    """

    learn: np.ndarray
    judge: np.ndarray
    start: pd.Timestamp


def rolling_folds(rows: pd.DataFrame, count: int) -> tuple[Fold, ...]:
    """Time-ordered folds over the later half of the rows, each learned from all before it.

    The first half of the rows (by event time) is only learned from; the rest is cut into `count`
    parts of about equal size. Rows of one event time are never cut apart. As in `split`, a row
    whose event is before a cut and whose label matures after it is on neither side of it.

    Args:
        rows: labelled rows of a features frame, in any order.
        count: folds wanted; there are fewer where event times are too few.
    """
    if rows.empty:
        return ()
    event, matures = rows["event_time"], rows["label_time"]
    ordered = event.sort_values(ignore_index=True)
    places = [len(rows) * (count + part) // (2 * count) for part in range(count)]
    starts = sorted({ordered[place] for place in places})
    ends = [*starts[1:], None]
    return tuple(
        Fold(
            learn=np.flatnonzero((event < start) & (matures <= start)),
            judge=np.flatnonzero((event >= start) & ((event < end) if end else True)),
            start=start,
        )
        for start, end in zip(starts, ends, strict=True)
    )
