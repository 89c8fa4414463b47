"""From validated records to features, and the proof that they know nothing of the future."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from pandas.api import types

from mlops_assets.errors import TrainingError
from mlops_assets.ml.datasets.availability import known_records
from mlops_assets.ml.features.calendar import Calendar, calendar_arguments
from mlops_assets.ml.features.names import as_texts, name_problems
from mlops_assets.spec import FEATURE_KEYS, SourceSpec, TargetSpec

_KEYS = ("entity", "event_time")
_TOLD = 20  # differences kept of those found
FeatureFunction = Callable[..., pd.DataFrame]
"""From one country's validated records to features; with shared features, these come second; the
arguments `cutoffs` and `as_of` of a product with cut-offs are given by name."""


@dataclass(frozen=True)
class Difference:
    """A feature, or a whole row, that comes out differently when the future is hidden.

    Args:
        column: the feature; "" for a row.
        entity: "" for a feature shared by all countries.
        kind: `value`: another value; `missing`: a row that is not made from what was known then;
            `extra`: a row that is made only from what was known then.
    """

    column: str
    entity: str
    event_time: pd.Timestamp
    full: Any = None
    truncated: Any = None
    kind: Literal["value", "missing", "extra"] = "value"


@dataclass(frozen=True)
class PointInTime:
    """Result of computing features again from what was known at sampled times.

    Args:
        checked_rows: feature rows compared, over all cutoffs.
        cutoffs: the times at which the future was cut off.
        differing: the first differences found, at most 20.
        differences: how many values differ in all, and how many rows are there in one only.
        missing_rows: of these, rows that are not made from what was known then.
        extra_rows: of these, rows that are made only from what was known then.
    """

    checked_rows: int
    cutoffs: tuple[pd.Timestamp, ...]
    differing: tuple[Difference, ...]
    differences: int
    missing_rows: int = 0
    extra_rows: int = 0

    @property
    def passed(self) -> bool:
        """Whether every feature value was the same without the future."""
        return self.differences == 0


def build_features(
    validated: pd.DataFrame,
    function: FeatureFunction,
    target: TargetSpec,
    shared: pd.DataFrame | None = None,
    *,
    calendar: Calendar | None = None,
) -> pd.DataFrame:
    """One row per entity and event time: keys, label and features, sorted and unique.

    Args:
        validated: one country's records by the contract.
        function: the product's pure function; gives `entity`, `event_time`, `label`, the features
            and, where the maturity differs from row to row, `label_time`.
        target: gives the label time where the function does not.
        shared: features of all countries by event time, as `build_shared` gave them, for a
            function that takes them; None for one that does not.
        calendar: for a product with cut-offs: rows are at these, and labels that are known later
            than its clock are empty.

    Raises:
        TrainingError: the function raised or returned something else.
    """
    given = [validated.copy(), *([] if shared is None else [shared.copy()])]
    try:
        made = function(*given, **calendar_arguments(calendar, function))
    except Exception as error:
        raise TrainingError(
            f"{function_name(function)} raised {type(error).__name__}: {error}.",
            way_out="Correct the feature function; the validated rows are unchanged.",
            culprits={"function": function_name(function)},
        ) from error
    _require_columns(made, function)
    made = _typed_if_empty(made.set_axis(as_texts(made.columns), axis=1))
    frame = made.assign(
        entity=made["entity"].astype(str).astype("object"),
        event_time=times_of(made, "event_time", function),
        label=_labels(made, function),
    )
    frame["label_time"] = (
        times_of(made, "label_time", function)
        if "label_time" in made
        else frame["event_time"] + target.maturity
    )
    _require_usable(frame, function)
    if calendar is not None:
        _require_cutoffs(frame, calendar, function)
        frame["label"] = frame["label"].mask(frame["label_time"] > calendar.as_of)
    names = [*FEATURE_KEYS, *feature_columns(frame)]
    return frame[names].sort_values(["event_time", "entity"], kind="stable", ignore_index=True)


def features_as_of(
    validated: pd.DataFrame,
    function: FeatureFunction,
    source: SourceSpec,
    target: TargetSpec,
    *,
    moment: pd.Timestamp,
    shared: pd.DataFrame | None = None,
    calendar: Calendar | None = None,
) -> pd.DataFrame:
    """Features and labels as they could have been computed at a moment.

    Records of later events (or arrivals) do not exist, values known later are empty, and labels
    that mature later are not there yet.

    Args:
        validated: one country's records by the contract.
        function: the feature function.
        source: names event time, arrival time and what is known later.
        target: label maturity of records without a feature row.
        moment: naive, UTC.
        shared: features of all countries; rows of later times are hidden.
        calendar: of a product with cut-offs; later ones are hidden.
    """
    whole = build_features(validated, function, target, shared, calendar=calendar)
    matures = _label_times(validated, whole, source, target)
    known = as_known_at(validated, matures, moment, source)
    then = build_features(
        known,
        function,
        target,
        shared_until(shared, moment),
        calendar=calendar and calendar.until(moment),
    )
    return then.assign(label=then["label"].mask(then["label_time"] > moment))


def shared_until(shared: pd.DataFrame | None, moment: pd.Timestamp) -> pd.DataFrame | None:
    """The shared features of times up to a moment; None stays None."""
    if shared is None:
        return None
    return shared[shared["event_time"] <= moment].reset_index(drop=True)


def feature_columns(frame: pd.DataFrame) -> list[str]:
    """Names of the features of a features frame, in its order."""
    return [str(name) for name in frame.columns if name not in FEATURE_KEYS]


def check_point_in_time(
    validated: pd.DataFrame,
    features: pd.DataFrame,
    function: FeatureFunction,
    source: SourceSpec,
    *,
    target: TargetSpec,
    shared: pd.DataFrame | None = None,
    calendar: Calendar | None = None,
    samples: int = 3,
    seed: int = 0,
) -> PointInTime:
    """Compute features again at sampled times from what was known then; they must be equal.

    At a cutoff t only records with event (and arrival) time up to t exist, and `known_later`
    columns are empty in those whose label matures after t; of `shared` only rows up to t, and of
    the cut-offs those up to t. All feature rows up to t must come out exactly as in `features`,
    these and no others; the label may differ.

    Args:
        validated: the records `features` was built from.
        features: the frame to check, as `build_features` gave it.
        function: the feature function.
        source: names event time, key and what is known later.
        target: label maturity of records without a feature row.
        shared: the features of all countries that `features` was built with.
        calendar: that `features` was built with.
        samples: cutoffs, drawn from the later three quarters of the event times.
        seed: of the draw.
    """
    cutoffs = sampled_cutoffs(features["event_time"], samples, seed)
    matures = _label_times(validated, features, source, target)
    found: list[RowsAtCutoff] = []
    for cutoff in cutoffs:
        known = as_known_at(validated, matures, cutoff, source)
        clock = calendar and calendar.until(cutoff)
        shared_then = shared_until(shared, cutoff)
        then = build_features(known, function, target, shared_then, calendar=clock)
        expected = features[features["event_time"] <= cutoff]
        found.append(compared(expected, then, cutoff, _KEYS, source=source))
    return point_in_time(cutoffs, found)


def function_name(function: FeatureFunction) -> str:
    """Module and name, for messages."""
    module = getattr(function, "__module__", "")
    return f"{module}.{getattr(function, '__qualname__', function)}"


def wrong_frame(
    function: FeatureFunction, what: str, columns: Sequence[str], way_out: str
) -> TrainingError:
    """The error of a function whose result cannot be used."""
    return TrainingError(
        f"{function_name(function)} {what}.",
        way_out=way_out,
        culprits={"function": function_name(function), "columns": list(columns)},
    )


def _require_columns(made: Any, function: FeatureFunction) -> None:
    if not isinstance(made, pd.DataFrame):
        raise wrong_frame(
            function,
            f"returned a {type(made).__name__}, not a DataFrame",
            [],
            "Return one frame with entity, event_time, label and the features.",
        )
    require_names(made, function)
    names = as_texts(made.columns)
    missing = [name for name in ("entity", "event_time", "label") if name not in names]
    if missing:
        raise wrong_frame(
            function,
            f"returned no column {', '.join(missing)}",
            missing,
            "Every row needs entity, event_time and label (NaN while unknown).",
        )


def require_names(made: pd.DataFrame, function: FeatureFunction) -> None:
    """Every column has a name that every later place can hold.

    Raises:
        TrainingError: names each that has not, with the reason.
    """
    if wrong := name_problems(list(made.columns)):
        said = "; ".join(f"{name!r}, which {reason}" for name, reason in wrong.items())
        way_out = "Give every column a text of its own, such as weekday_0 for 0."
        raise wrong_frame(function, f"returned the column {said}", list(wrong), way_out)


def _typed_if_empty(made: pd.DataFrame) -> pd.DataFrame:
    """A frame without rows has types by chance; one that nobody is in is no mistake."""
    if len(made):
        return made
    times = [name for name in ("event_time", "label_time") if name in made]
    return made.astype({"label": "float64", **dict.fromkeys(times, "datetime64[ns]")})


def _require_cutoffs(frame: pd.DataFrame, calendar: Calendar, function: FeatureFunction) -> None:
    outside = frame[~frame["event_time"].isin(calendar.cutoffs)]
    if len(outside):
        first, newest = outside.iloc[0], max(calendar.cutoffs, default=None)
        raise wrong_frame(
            function,
            f"returned {len(outside):,} rows at times that are no cut-off reached, such as "
            f"{first['entity']} at {first['event_time']}; the newest one is {newest or 'none'}",
            ["event_time"],
            "Make rows at the times of its argument `cutoffs`, and at no others.",
        )


def times_of(made: pd.DataFrame, column: str, function: FeatureFunction) -> pd.Series:
    """A column of times in UTC, without a zone.

    Raises:
        TrainingError: another type, or a missing time.
    """
    values = made[column]
    if not types.is_datetime64_any_dtype(values.dtype) or values.isna().any():
        raise wrong_frame(
            function,
            f"returned {column} of type {values.dtype} with {int(values.isna().sum())} missing",
            [column],
            "Give every row a time (datetime64), in UTC.",
        )
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        values = values.dt.tz_convert("UTC").dt.tz_localize(None)
    return values.astype("datetime64[ns]")


def _labels(made: pd.DataFrame, function: FeatureFunction) -> pd.Series:
    values = made["label"]
    if not (types.is_numeric_dtype(values.dtype) or types.is_bool_dtype(values.dtype)):
        raise wrong_frame(
            function,
            f"returned label of type {values.dtype}",
            ["label"],
            "Labels are numbers (classes 0 and 1), NaN while unknown.",
        )
    return values.astype("float64")


def _require_usable(frame: pd.DataFrame, function: FeatureFunction) -> None:
    names = feature_columns(frame)
    if not names:
        raise wrong_frame(function, "returned no feature", [], "Add at least one column.")
    odd = [name for name in names if not is_feature(frame[name])]
    if odd:
        types_ = ", ".join(f"{name} ({frame[name].dtype})" for name in odd)
        raise wrong_frame(
            function,
            f"returned features that are neither numbers nor booleans nor text: {types_}",
            odd,
            "Turn times into numbers, such as days or hours.",
        )
    keys = ["entity", "event_time"]
    twice = frame[frame.duplicated(keys)]
    if len(twice):
        first = twice.iloc[0]
        raise wrong_frame(
            function,
            f"returned {len(twice)} rows more than one per entity and event_time, such as "
            f"{first['entity']} at {first['event_time']}",
            keys,
            "Return each entity once per event_time.",
        )


def is_feature(values: pd.Series) -> bool:
    """Whether a column holds numbers, booleans or text."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return types.is_string_dtype(values.cat.categories.dtype)
    if types.is_object_dtype(values.dtype):
        return types.infer_dtype(values, skipna=True) in ("string", "empty")
    numeric = types.is_numeric_dtype(values.dtype) and not types.is_complex_dtype(values.dtype)
    return numeric or types.is_string_dtype(values.dtype)


def sampled_cutoffs(event_times: pd.Series, samples: int, seed: int) -> list[pd.Timestamp]:
    """Some of the later three quarters of the times, in order."""
    times = np.unique(event_times.to_numpy())
    late = times[len(times) // 4 :]
    picked = np.random.default_rng(seed).choice(late, min(samples, len(late)), replace=False)
    return [pd.Timestamp(time) for time in np.sort(picked)]


def _label_times(
    validated: pd.DataFrame, features: pd.DataFrame, source: SourceSpec, target: TargetSpec
) -> pd.Series:
    """When the label of each record is known, as far as its feature row can be told."""
    event = validated[source.event_time]
    entities = set(features["entity"])
    for name in source.key:
        text = validated[name].astype(str)
        if entities and entities <= set(text):
            by_row = features.set_index(["entity", "event_time"])["label_time"]
            index = pd.MultiIndex.from_arrays([text, event])
            matched = pd.Series(by_row.reindex(index).to_numpy(), index=event.index)
            return matched.fillna(event + target.maturity)
    # No key column is the entity: the latest label of that time hides more, never less.
    latest = features.groupby("event_time")["label_time"].max()
    return event.map(latest).fillna(event + target.maturity)


def as_known_at(
    validated: pd.DataFrame, matures: pd.Series, cutoff: pd.Timestamp, source: SourceSpec
) -> pd.DataFrame:
    """The records that were there at a cutoff, what matures later missing in them.

    Args:
        validated: one country's records.
        matures: of each record, when what is known later is known.
        cutoff: naive, UTC.
        source: names event time, arrival time and what is known later.
    """
    past = known_records(validated, source, cutoff)
    known, unknown_label = validated[past].copy(), matures[past] > cutoff
    for name in source.known_later:
        hidden = known[name].convert_dtypes() if known[name].dtype.kind in "iub" else known[name]
        known[name] = hidden.mask(unknown_label)
    return known.reset_index(drop=True)


def having_rows(expected: pd.DataFrame, then: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The expected rows whose keys the other frame has."""
    there = pd.MultiIndex.from_frame(then[[*keys]])
    return expected[pd.MultiIndex.from_frame(expected[[*keys]]).isin(there)]


@dataclass(frozen=True)
class RowsAtCutoff:
    """The rows up to a cutoff beside those made from what was known then.

    Attributes:
        rows: how many were expected.
        differing: every difference.
    """

    rows: int
    differing: tuple[Difference, ...]


def compared(
    expected: pd.DataFrame,
    then: pd.DataFrame,
    cutoff: pd.Timestamp,
    keys: Sequence[str],
    *,
    source: SourceSpec,
) -> RowsAtCutoff:
    """Every value, and every row up to the cutoff, that is not the same in both frames.

    Args:
        expected: rows up to the cutoff, made with the future.
        then: made from what was known at the cutoff.
        cutoff: naive, UTC.
        keys: that name a row.
        source: with an arrival time, rows that are missing then may have arrived later.
    """
    then = then[then["event_time"] <= cutoff]
    if source.arrival_time is not None:  # what arrived later has no row yet
        expected = having_rows(expected, then, keys)
    return RowsAtCutoff(len(expected), tuple(differences(expected, then, keys)))


def point_in_time(cutoffs: Sequence[pd.Timestamp], found: Sequence[RowsAtCutoff]) -> PointInTime:
    """The comparisons at all cutoffs as one result."""
    differing = [each for one in found for each in one.differing]
    kinds = [each.kind for each in differing]
    return PointInTime(
        checked_rows=sum(one.rows for one in found),
        cutoffs=tuple(cutoffs),
        differing=tuple(differing[:_TOLD]),
        differences=len(differing),
        missing_rows=kinds.count("missing"),
        extra_rows=kinds.count("extra"),
    )


def differences(
    expected: pd.DataFrame, then: pd.DataFrame, keys: Sequence[str]
) -> list[Difference]:
    """Every row that one frame has and the other has not, and every other value in those of both.

    Whole rows come first: where they are others, so are values that are computed from them.
    """
    expected, then = expected.reset_index(drop=True), then.reset_index(drop=True)
    found: list[Difference] = []
    if not expected[[*keys]].equals(then[[*keys]]):
        found += [*_rows_only_in(expected, then, keys, "missing")]
        found += [*_rows_only_in(then, expected, keys, "extra")]
        expected = having_rows(expected, then, keys).reset_index(drop=True)
        then = expected[[*keys]].merge(then, on=[*keys], how="left")
    for name in feature_columns(expected):
        full = expected[name]
        cut = then[name] if name in then else pd.Series(None, index=full.index, dtype="object")
        for place in np.flatnonzero(~same_values(full, cut)):
            entity, time = _row_at(expected, int(place), keys)
            found.append(Difference(name, entity, time, full.iloc[place], cut.iloc[place]))
    return found


def _rows_only_in(
    one: pd.DataFrame, other: pd.DataFrame, keys: Sequence[str], kind: Literal["missing", "extra"]
) -> Iterator[Difference]:
    alone = ~one.index.isin(having_rows(one, other, keys).index)
    for place in np.flatnonzero(alone):
        yield Difference("", *_row_at(one, int(place), keys), kind=kind)


def _row_at(frame: pd.DataFrame, place: int, keys: Sequence[str]) -> tuple[str, pd.Timestamp]:
    entity = str(frame["entity"].iloc[place]) if "entity" in keys else ""
    return entity, pd.Timestamp(frame["event_time"].iloc[place])


def same_values(full: pd.Series, cut: pd.Series) -> np.ndarray:
    """Where both are equal or both missing; exactly, for the future must not matter at all."""
    if types.is_numeric_dtype(full.dtype) and types.is_numeric_dtype(cut.dtype):
        a, b = (values.to_numpy("float64", na_value=np.nan) for values in (full, cut))
        return (a == b) | (np.isnan(a) & np.isnan(b))
    a, b = full.to_numpy("object"), cut.to_numpy("object")
    missing, missing_too = pd.isna(a), pd.isna(b)
    either = missing | missing_too
    same = missing & missing_too
    same[~either] = a[~either] == b[~either]
    return same
