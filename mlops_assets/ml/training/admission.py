"""Which rows of each country go into what is trained on all countries together.

A pooled model is of many countries, so that no one of them may decide what becomes of it: what does
not fit the others is left out with its reason, and the rest goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import pandas as pd
from pandas.api import types

from mlops_assets.ml.features.feature_frame import feature_columns
from mlops_assets.ml.infinite import without_infinite
from mlops_assets.ml.models.split import common_offset
from mlops_assets.spec import ProductSpec

Frames = Mapping[str, pd.DataFrame]
ColumnHolds = Literal["number", "text", "empty"]
H = TypeVar("H", bound=Hashable)
_SHOWN = 5


@dataclass(frozen=True)
class LeftOut:
    """A country, some or all of whose rows are not trained on with the others.

    Args:
        country: its key.
        rows: left out.
        of: rows it has.
        reason: why, as the end of a sentence.
    """

    country: str
    rows: int
    of: int
    reason: str

    def __str__(self) -> str:
        return f"{self.country}: {self.rows:,} of {self.of:,} rows, {self.reason}"


@dataclass(frozen=True)
class Admission:
    """The countries as they are trained on together.

    Args:
        frames: features frame by country, alphabetically; each has the same features, of the same
            types where they have rows, and no infinite value.
        left_out: what is not in them.
    """

    frames: Frames
    left_out: tuple[LeftOut, ...]

    @property
    def sample(self) -> pd.DataFrame:
        """Rows as they are trained on: those of the first country that has any."""
        return next((each for each in self.frames.values() if len(each)), pd.DataFrame())


def admit(spec: ProductSpec, frames: Frames) -> Admission:
    """Leave out what would decide over all other countries; the others are untouched by it.

    Left out whole are countries that have other features than most, a feature of another kind (text
    where it is a number), or labels that are no classes where classes are learned. Of a country
    with labels from a time that the others do not know (see `common_end`), those rows are; and so
    are labelled rows without the offset that all pooled candidates have, which have no prediction,
    so that one of them would leave all countries without a metric.

    Args:
        spec: the product.
        frames: features frame per country.
    """
    found = {country: without_infinite(frames[country]) for country in sorted(frames)}
    strangers = dict(_strangers(spec, found))
    kept = {country: frame for country, frame in found.items() if country not in strangers}
    end = common_end(spec, kept)
    timely = {country: _until(frame, end) for country, frame in kept.items()}
    cut = {country: len(kept[country]) - len(frame) for country, frame in timely.items()}
    late = f"with labels known after {end}, long after those of the others"
    offset = common_offset(spec, ("region", "pooled"))
    usable = {country: _having(frame, offset) for country, frame in timely.items()}
    lacking = {country: len(timely[country]) - len(frame) for country, frame in usable.items()}
    without = f"with a label and without a value of {offset}, which is the offset"
    left_out = [
        *(
            LeftOut(each, len(found[each]), len(found[each]), why)
            for each, why in strangers.items()
        ),
        *(LeftOut(each, rows, len(kept[each]), late) for each, rows in cut.items() if rows),
        *(LeftOut(each, rows, len(kept[each]), without) for each, rows in lacking.items() if rows),
    ]
    return Admission(_same_types(usable), tuple(sorted(left_out, key=lambda each: each.country)))


def common_end(spec: ProductSpec, frames: Frames) -> pd.Timestamp | None:
    """Label time up to which labels make the holdout of all; None: all of them do.

    A holdout that moves begins `holdout_days` before the newest label, so that a few rows of one
    country, dated years ahead, would be all of it. Labels after a gap in the label times of all
    countries longer than a quarter of the holdout wait until at least half of the countries from
    before it have some; after one as long as the holdout, there are to be `min_holdout_rows` too,
    unless several countries come back after it together, as those do that have labels once a year.

    Args:
        spec: the product.
        frames: features frame per country.
    """
    times = {country: _known_times(frame) for country, frame in frames.items()}
    every = np.unique(np.concatenate([*times.values(), np.empty(0, "datetime64[ns]")]))
    days = spec.split.holdout_days
    if not spec.split.rolling or days is None or len(every) < 2:
        return None
    holdout = np.timedelta64(days, "D")
    gaps = np.flatnonzero(np.diff(every) > holdout / 4)
    end: np.datetime64 | None = None
    for place in gaps[::-1].tolist():
        before, start = (pd.Timestamp(each).to_datetime64() for each in every[place : place + 2])
        after = {name for name, each in times.items() if _between(each, start, end)}
        usual = {name for name, each in times.items() if _between(each, before - holdout, before)}
        few = len(after) * 2 < len(usual)
        together = len(usual) > 1 and usual <= after
        rows = sum(_between(each, start, None) for each in times.values())
        lone = rows < spec.split.min_holdout_rows and not together
        if not (few or (lone and start - before > holdout)):
            break
        end = before
    return None if end is None else pd.Timestamp(end)


def _known_times(frame: pd.DataFrame) -> np.ndarray:
    known = frame["label"].notna().to_numpy(bool)
    return frame["label_time"].to_numpy("datetime64[ns]")[known]


def _between(times: np.ndarray, first: np.datetime64, last: np.datetime64 | None) -> int:
    return int(((times >= first) & ((times <= last) if last is not None else True)).sum())


def _until(frame: pd.DataFrame, end: pd.Timestamp | None) -> pd.DataFrame:
    if end is None:
        return frame
    late = frame["label"].notna() & (frame["label_time"] > end)
    return frame[~late].reset_index(drop=True) if late.any() else frame


def _having(frame: pd.DataFrame, offset: str | None) -> pd.DataFrame:
    """Without the labelled rows in which the offset is missing."""
    if offset is None or offset not in frame:
        return frame
    lacking = frame["label"].notna() & frame[offset].isna()
    return frame[~lacking].reset_index(drop=True) if lacking.any() else frame


def _strangers(spec: ProductSpec, frames: Frames) -> Iterator[tuple[str, str]]:
    """Countries whose frames do not fit those of most countries, and why."""
    filled = {country: frame for country, frame in frames.items() if len(frame)}
    if not filled:
        return
    usual = _most({country: frozenset(feature_columns(f)) for country, f in filled.items()}, filled)
    same = {c: f for c, f in filled.items() if frozenset(feature_columns(f)) == usual}
    kinds = {country: _kinds(frame) for country, frame in same.items()}
    common: dict[str, ColumnHolds] = {name: _common_kind(name, kinds, filled) for name in usual}
    for country, frame in filled.items():
        reason = (
            _other_kinds(kinds[country], common)
            if country in same
            else _other_features(frozenset(feature_columns(frame)), usual)
        )
        reason = reason or _no_classes(spec, frame)
        if reason:
            yield country, reason


def _most(of: Mapping[str, H], frames: Frames) -> H:
    """What most of the countries, at least one, have; of equally many that of most rows."""
    countries = Counter(of.values())
    rows: Counter[H] = Counter()
    for country, each in of.items():
        rows[each] += len(frames[country])
    return max(countries, key=lambda each: (countries[each], rows[each]))


def _kinds(frame: pd.DataFrame) -> dict[str, ColumnHolds]:
    return {name: _kind(frame[name]) for name in feature_columns(frame)}


def _kind(values: pd.Series) -> ColumnHolds:
    """What a feature holds; a column without a value may be of any type."""
    if values.isna().all():
        return "empty"
    return "number" if types.is_numeric_dtype(values.dtype) else "text"


def _common_kind(
    name: str, kinds: Mapping[str, Mapping[str, ColumnHolds]], frames: Frames
) -> ColumnHolds:
    known = {country: kind for country, each in kinds.items() if (kind := each[name]) != "empty"}
    if not known:
        return "empty"
    return "number" if _most(known, frames) == "number" else "text"


def _other_kinds(own: Mapping[str, ColumnHolds], common: Mapping[str, ColumnHolds]) -> str:
    other = [n for n, kind in own.items() if kind not in ("empty", common[n])]
    if not other:
        return ""
    name = other[0]
    more = f", and so for {len(other) - 1} more" if len(other) > 1 else ""
    return f"because the feature {name} is {own[name]} and elsewhere {common[name]}{more}"


def _other_features(own: frozenset[str], usual: frozenset[str]) -> str:
    lacks, extra = sorted(usual - own), sorted(own - usual)
    said = [
        f"{verb} {', '.join(names[:_SHOWN])}" + (" and more" if len(names) > _SHOWN else "")
        for verb, names in (("lacks", lacks), ("alone has", extra))
        if names
    ]
    return f"because its features are others: it {' and '.join(said)}"


def _no_classes(spec: ProductSpec, frame: pd.DataFrame) -> str:
    if spec.task != "classification":
        return ""
    strange = sorted(set(frame["label"].dropna().unique()) - {0.0, 1.0})
    shown = ", ".join(str(value) for value in strange[:_SHOWN])
    return f"because its labels are not only 0 and 1, but also {shown}" if strange else ""


def _same_types(frames: Frames) -> Frames:
    """The frames with one type a feature; nothing is touched where they agree."""
    filled = [frame for frame in frames.values() if len(frame)]
    odd = {
        name: any(_kind(frame[name]) == "number" for frame in filled)
        for name in (feature_columns(filled[0]) if filled else ())
        if len({frame[name].dtype for frame in filled}) > 1
    }
    if not odd:
        return frames
    return {
        country: frame.assign(**{n: _as_common(frame[n], number) for n, number in odd.items()})
        if len(frame)
        else frame
        for country, frame in frames.items()
    }


def _as_common(values: pd.Series, number: bool) -> pd.Series:
    if number:
        return pd.Series(values.to_numpy("float64", na_value=np.nan), index=values.index)
    return pd.Series(
        [value if known else None for value, known in zip(values, values.notna(), strict=True)],
        index=values.index,
        dtype="object",
    )
