"""Features that all countries share, and the proof that they know nothing of the future."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from mlops_assets.errors import TrainingError
from mlops_assets.ml.features.calendar import Calendar, calendar_arguments
from mlops_assets.ml.features.feature_frame import (
    PointInTime,
    as_known_at,
    compared,
    function_name,
    is_feature,
    point_in_time,
    require_names,
    sampled_cutoffs,
    times_of,
    wrong_frame,
)
from mlops_assets.ml.features.names import as_texts
from mlops_assets.spec import FEATURE_KEYS, SourceSpec, TargetSpec

SharedFunction = Callable[..., pd.DataFrame]
"""From the validated records of every country; may take `cutoffs` and `as_of` by name as well."""
_KEYS = ("event_time",)
_NOT_SHARED = tuple(name for name in FEATURE_KEYS if name not in _KEYS)


def build_shared(
    records: Mapping[str, pd.DataFrame],
    function: SharedFunction,
    calendar: Calendar | None = None,
) -> pd.DataFrame:
    """One row per event time with what is the same for every country, sorted and unique.

    Args:
        records: validated records of every listed country, in alphabetical order; a country
            without any has an empty frame with the same columns.
        function: the product's pure function; gives `event_time` and the shared features.
        calendar: of a product with cut-offs.

    Raises:
        TrainingError: the function raised or returned something else.
    """
    try:
        given = {country: records[country].copy() for country in sorted(records)}
        made = function(given, **calendar_arguments(calendar, function))
    except Exception as error:
        raise TrainingError(
            f"{function_name(function)} raised {type(error).__name__}: {error}.",
            way_out="Correct the function of `shared_features`; the validated rows are unchanged.",
            culprits={"function": function_name(function)},
        ) from error
    _require_columns(made, function)
    made = made.set_axis(as_texts(made.columns), axis=1)
    frame = made.assign(event_time=times_of(made, "event_time", function))
    _require_one_row_a_time(frame, function)
    names = ["event_time", *(str(name) for name in frame.columns if name != "event_time")]
    return frame[names].sort_values("event_time", ignore_index=True)


def build_shared_as_of(
    records: Mapping[str, pd.DataFrame],
    function: SharedFunction,
    source: SourceSpec,
    target: TargetSpec,
    *,
    moment: pd.Timestamp,
    calendar: Calendar | None = None,
) -> pd.DataFrame:
    """Shared features as they could have been computed at a moment.

    Records of later events (or arrivals) do not exist. What is known later is empty in records
    whose event is less than the label maturity ago: a shared function has no feature rows that
    could tell the label time of each.

    Args:
        records: as for `build_shared`.
        function: the shared function.
        source: names event time, arrival time and what is known later.
        target: label maturity.
        moment: naive, UTC.
        calendar: of a product with cut-offs; later ones are hidden.
    """
    known = _known(records, source, target, moment)
    return build_shared(known, function, calendar and calendar.until(moment))


def check_shared_point_in_time(
    records: Mapping[str, pd.DataFrame],
    shared: pd.DataFrame,
    function: SharedFunction,
    source: SourceSpec,
    *,
    target: TargetSpec,
    calendar: Calendar | None = None,
    samples: int = 3,
    seed: int = 0,
) -> PointInTime:
    """Compute shared features again at sampled times from what was known then, of all countries.

    All rows up to the cutoff must come out exactly as in `shared`.

    Args:
        records: what `shared` was built from.
        shared: the frame to check, as `build_shared` gave it.
        function: the shared function.
        source: names event time, arrival time and what is known later.
        target: label maturity.
        calendar: that `shared` was built with.
        samples: cutoffs, drawn from the later three quarters of the event times.
        seed: of the draw.
    """
    cutoffs = sampled_cutoffs(shared["event_time"], samples, seed)
    found = []
    for cutoff in cutoffs:
        known = _known(records, source, target, cutoff)
        then = build_shared(known, function, calendar and calendar.until(cutoff))
        expected = shared[shared["event_time"] <= cutoff]
        found.append(compared(expected, then, cutoff, _KEYS, source=source))
    return point_in_time(cutoffs, found)


def _known(
    records: Mapping[str, pd.DataFrame],
    source: SourceSpec,
    target: TargetSpec,
    moment: pd.Timestamp,
) -> dict[str, pd.DataFrame]:
    return {
        country: as_known_at(frame, frame[source.event_time] + target.maturity, moment, source)
        for country, frame in records.items()
    }


def _require_columns(made: Any, function: SharedFunction) -> None:
    if not isinstance(made, pd.DataFrame):
        what = f"returned a {type(made).__name__}, not a DataFrame"
        raise wrong_frame(function, what, [], "Return one frame with event_time and the features.")
    require_names(made, function)
    if "event_time" not in made:
        what, way_out = "returned no column event_time", "Every row needs the time it is known at."
        raise wrong_frame(function, what, ["event_time"], way_out)
    foreign = [name for name in _NOT_SHARED if name in made]
    if foreign:
        what = f"returned {', '.join(foreign)}, which belongs to the features of a country"
        raise wrong_frame(function, what, foreign, "Leave it out, or give it another name.")
    names = [name for name in made.columns if name != "event_time"]
    odd = [str(name) for name in names if not is_feature(made[name])]
    if odd or not names:
        what = f"returned features that are neither numbers nor booleans nor text: {odd}"
        what = what if odd else "returned no feature"
        raise wrong_frame(function, what, odd, "Return numbers or text beside event_time.")


def _require_one_row_a_time(frame: pd.DataFrame, function: SharedFunction) -> None:
    twice = frame[frame["event_time"].duplicated()]
    if len(twice):
        time = twice["event_time"].iloc[0]
        what = f"returned {len(twice)} rows more than one per event_time, such as at {time}"
        raise wrong_frame(function, what, ["event_time"], "Return each event_time once.")
