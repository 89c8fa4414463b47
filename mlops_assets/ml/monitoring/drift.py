"""Whether what comes in is still what the champion was trained on, where it matters.

Every feature of a window is compared with the reference in three ways: its mean, its shape and its
share of gaps. A change matters when it is unlikely, large and of an important feature. What is
unlikely is told by the reference's own windows, so that neighbouring days that are alike, and
seasons, are no alarm; all that may go wrong in a window is shared by its features, by weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from mlops_assets.ml.monitoring.data_faults import looks_broken
from mlops_assets.ml.monitoring.profiles import NOTHING, Profile, profile, window_ends, window_rows
from mlops_assets.ml.stats import distances as d
from mlops_assets.ml.stats.distances import BINS, EDGES, LIMIT, FeatureKind
from mlops_assets.ml.training.references import (
    LEAST_DISTANCE,
    LEAST_VALUES,
    PREDICTION,
    REST,
    Categories,
    FeatureReference,
    Numbers,
    Reference,
    make_reference,
    newest_rows,
    reference_from_json,
    reference_to_json,
)
from mlops_assets.spec import FEATURE_KEYS, ProductSpec

__all__ = [
    "EDGES",
    "PREDICTION",
    "REST",
    "DriftLevel",
    "DriftState",
    "FeatureDrift",
    "FeatureReference",
    "Profile",
    "Reference",
    "Window",
    "compare_all",
    "compare_window",
    "continued",
    "drift_not_judged",
    "make_reference",
    "new_columns",
    "newest_rows",
    "profile",
    "reference_from_json",
    "reference_to_json",
    "state_of",
    "window_ends",
    "window_rows",
]

DriftLevel = Literal["quiet", "watch", "alarm", "not_judged"]

_LEAST_WINDOWS = 3.0
"""A reference of fewer windows side by side does not tell what chance does."""
_LEAST_SHARE = 0.5
"""Least share of a window that is newer than the reference."""
_SPLIT = np.array([2.0, 4.0, 4.0])
"""What the chances of a mean, a shape and a share of gaps are multiplied by: 1/2 + 1/4 + 1/4."""
_WHY_NOT = (
    "no more than chance does",
    "changed, but of little importance",
    "changed, but by little",
)
_AXIS_OF_FEATURES = {
    **{"weight": 0, "before": 0, "distance": 1, "effect": 1, "nulls": 1},
    **{"chances": 1, "sizes": 1},
}
_MOSTLY_MEAN = 0.7
"""A change is told as one of the mean when that is at least this share of the distance."""
_DAYS_OF_YEAR = 365.25
_TOLD = 3
"""Features named in a sentence."""


@dataclass(frozen=True)
class FeatureDrift:
    """How one feature of one window differs from the reference.

    Args:
        feature: its name, or `PREDICTION`.
        distance: number: Wasserstein distance in standard deviations of the reference; category:
            total variation, 0 to 1.
        effect: number: shift of the mean in standard deviations, signed; category: Cohen's w.
        nulls: share of rows without a value in the window, less that in the reference.
        weight: its share of the champion's importance.
        probability: of a window so different if nothing changed (by the reference's own windows).
        matters: unlikely enough, large enough and important enough.
        reason: in words.
    """

    feature: str
    distance: float
    effect: float
    nulls: float
    weight: float
    probability: float
    matters: bool
    reason: str


@dataclass(frozen=True)
class Window:
    """One window compared with the reference.

    Args:
        end: event time at which it ends, not part of it.
        rows: in it.
        judged: False with fewer than `monitoring.min_rows`.
        deviates: whether some feature matters.
        score: weighted sum of the effects that matter; orders countries.
        features: all of them, the most important first.
        upstream: features that look broken rather than changed (empty, constant, another unit),
            in words; "" for none.
        aside: the same of features that weigh nothing, which hold nothing back.
        problem: why it is not judged; "" when it is.
    """

    end: pd.Timestamp
    rows: int
    judged: bool
    deviates: bool
    score: float
    features: tuple[FeatureDrift, ...]
    upstream: str = ""
    problem: str = ""
    aside: str = ""


@dataclass(frozen=True)
class DriftState:
    """What the newest windows amount to.

    Args:
        state: alarm: `alarm_after` of the newest `of_windows` deviate; watch: some do; quiet: none
            does; not_judged: too few rows, or no reference.
        reason: in words, with features and numbers.
        next: what happens next, in words.
        since: end of the first of the deviating windows; None when quiet.
        end: of the newest window; None without one.
        score: of the newest deviating window; 0 when quiet.
        upstream: of the newest window.
    """

    state: DriftLevel
    reason: str
    next: str
    since: pd.Timestamp | None = None
    end: pd.Timestamp | None = None
    score: float = 0.0
    upstream: str = ""


@dataclass(frozen=True)
class _Measured:
    """How features of windows differ; arrays of shape (windows, features) unless said.

    Args:
        names: of the features.
        kinds: number or category.
        weight: share of the importance, shape (features,).
        before: share of gaps in the reference, shape (features,).
        distance: as in `FeatureDrift`.
        effect: as in `FeatureDrift`.
        nulls: share of gaps, less that of the reference.
        chances: (windows, features, 3): probability of such a mean, such a shape, so many gaps.
        sizes: (windows, features, 3): how large each of these changes is.
    """

    names: tuple[str, ...]
    kinds: tuple[FeatureKind, ...]
    weight: np.ndarray
    before: np.ndarray
    distance: np.ndarray
    effect: np.ndarray
    nulls: np.ndarray
    chances: np.ndarray
    sizes: np.ndarray

    @cached_property
    def order(self) -> list[int]:
        """Places of the features, the most important first."""
        return np.argsort(-self.weight, kind="stable").tolist()


def new_columns(reference: Reference, columns: Sequence[str]) -> tuple[list[str], list[str]]:
    """Features the reference does not know, and features of the reference that are gone.

    Args:
        reference: what the model learned from.
        columns: of a features frame.
    """
    known = [name for name in reference.features if name != PREDICTION]
    return (
        [name for name in columns if name not in known and name not in FEATURE_KEYS],
        [name for name in known if name not in columns],
    )


def compare_window(spec: ProductSpec, reference: Reference, window: Profile) -> Window:
    """One window against the reference."""
    return compare_all(spec, reference, [window])[0]


def compare_all(
    spec: ProductSpec, reference: Reference, windows: Sequence[Profile]
) -> list[Window]:
    """Windows of one country against its reference; one by one they come out the same."""
    problems = [_not_judged(spec, reference, each) for each in windows]
    measured = [each for each, problem in zip(windows, problems, strict=True) if not problem]
    judged = iter(_compared(spec, reference, measured) if measured else ())
    return [
        Window(each.end, each.rows, False, False, 0.0, (), problem=problem)
        if problem
        else next(judged)
        for each, problem in zip(windows, problems, strict=True)
    ]


def _compared(
    spec: ProductSpec, reference: Reference, windows: Sequence[Profile]
) -> Iterator[Window]:
    rows = np.array([[window.rows] for window in windows], dtype="float64")
    measured = _together(
        _numbers_measured(reference.numbers, windows, rows),
        _categories_measured(reference.categories, windows, rows),
    )
    allowed = _allowed(spec, measured.weight)
    chances, sizes = measured.chances * _SPLIT, np.abs(measured.sizes)
    hits = (chances <= allowed[:, None]) & (sizes >= spec.monitoring.min_effect)
    important = measured.weight >= spec.monitoring.min_weight
    matters = hits.any(axis=-1) & important
    felt = np.where(hits, np.minimum(sizes, LIMIT), 0.0).max(axis=-1)
    scores = np.where(matters, measured.weight * felt, 0.0).sum(axis=-1)
    probability = np.minimum(chances.min(axis=-1), 1.0)
    unlikely = probability <= _limit_of_words(allowed)
    for place, window in enumerate(windows):
        reasons = np.select([~unlikely[place], ~important], _WHY_NOT[:2], _WHY_NOT[2]).tolist()
        for feature in np.flatnonzero(matters[place]):
            reasons[feature] = _why(measured, place, int(feature), hits[place, feature])
        columns = (measured.distance, measured.effect, measured.nulls)
        judged = (measured.weight, probability[place], matters[place])
        told = [each.tolist() for each in (*(column[place] for column in columns), *judged)]
        found = [FeatureDrift(*row) for row in zip(measured.names, *told, reasons, strict=True)]
        faults = looks_broken(reference, window, spec.monitoring.min_weight)
        yield Window(
            end=window.end,
            rows=window.rows,
            judged=True,
            deviates=bool(matters[place].any()),
            score=float(scores[place]),
            features=tuple(found[each] for each in measured.order),
            upstream=faults.upstream,
            aside=faults.aside,
        )


def _not_judged(spec: ProductSpec, reference: Reference, window: Profile) -> str:
    watched = spec.monitoring
    if window.rows < watched.min_rows:
        return f"{window.rows:,} rows, fewer than min_rows {watched.min_rows:,}"
    length = pd.Timedelta(days=watched.window_days)
    newer = window.end - max(window.end - length, reference.last)
    if newer < _LEAST_SHARE * length:
        return "less than half of the window is newer than what the model learned from"
    apart = max((each.apart for each in reference.features.values()), default=0.0)
    if apart < _LEAST_WINDOWS:
        days = (reference.last - reference.first).days
        return f"the model's reference of {days:,} days is shorter than three windows"
    return ""


def _allowed(spec: ProductSpec, weight: np.ndarray) -> np.ndarray:
    """Probability below which each feature may alarm, shape (features,).

    An alarm takes `alarm_after` deviating windows, and there are so many windows a year; what may
    go wrong in one window is shared by the features that can alarm, by weight.
    """
    watched = spec.monitoring
    a_window = watched.max_false_alarms * watched.alarm_after * watched.every_days / _DAYS_OF_YEAR
    able = np.where(weight >= watched.min_weight, weight, 0.0)
    return min(a_window, 0.5) * able / max(able.sum(), 1e-12)


def _limit_of_words(allowed: np.ndarray) -> np.ndarray:
    """The same, with one for features that can never alarm: they can have changed, too."""
    return np.where(allowed > 0, allowed, np.min(allowed, where=allowed > 0, initial=1.0))


def _numbers_measured(known: Numbers, windows: Sequence[Profile], every: np.ndarray) -> _Measured:
    held = [[each.numbers.get(name, NOTHING) for name in known.names] for each in windows]
    rows, total = (
        np.array([[each[at] for each in own] for own in held], dtype="float64") for at in (0, 1)
    )
    counts = np.array([[each[3] for each in own] for own in held], dtype="int64")
    counts = counts.reshape(len(windows), len(known.names), BINS)
    enough = rows >= LEAST_VALUES
    effect = np.where(enough, total / np.maximum(rows, 1) - known.mean, 0.0) / known.deviation
    distance = np.where(enough, d.wasserstein(counts, known.counts), 0.0) / known.deviation
    fewer = np.maximum(1.0, known.usual / np.maximum(rows, 1))
    wide = np.maximum(known.spread * np.sqrt(known.of_new * fewer), 1e-9)
    of_mean = 2 * d.beyond_chance(np.abs(effect) * known.deviation / wide, known.degrees)
    far = np.log(np.maximum(distance / np.sqrt(fewer), LEAST_DISTANCE))
    of_shape = d.beyond_chance((far - known.shape[:, 0]) / known.shape[:, 1], known.shape_degrees)
    return _measured(
        known,
        "number",
        every,
        rows,
        differences=(distance, effect),
        chances=(np.where(enough, of_mean, 1.0), np.where(enough, of_shape, 1.0)),
        sizes=(effect, distance),
        degrees=known.shape_degrees,
    )


def _categories_measured(
    known: Categories, windows: Sequence[Profile], every: np.ndarray
) -> _Measured:
    counts = np.zeros((len(windows), *known.counts.shape), dtype="int64")
    for place, (name, values) in enumerate(zip(known.names, known.values, strict=True)):
        for window, each in enumerate(windows):
            held = each.categories.get(name, {})
            counts[window, place, : len(values)] = [held.get(value, 0) for value in values]
    rows = counts.sum(axis=-1).astype("float64")
    enough = rows >= LEAST_VALUES
    effect = np.where(enough, d.cohens_w(counts, known.counts), 0.0)
    distance = np.where(enough, d.total_variation(counts, known.counts), 0.0)
    fewer = np.maximum(1.0, known.usual / np.maximum(rows, 1))
    far = np.log(np.maximum(effect / np.sqrt(fewer), LEAST_DISTANCE))
    of_shares = d.beyond_chance((far - known.effect[:, 0]) / known.effect[:, 1], known.degrees)
    return _measured(
        known,
        "category",
        every,
        rows,
        differences=(distance, effect),
        chances=(np.where(enough, of_shares, 1.0), np.ones_like(rows)),
        sizes=(effect, np.zeros_like(rows)),
        degrees=known.degrees,
    )


def _measured(
    known: Numbers | Categories,
    kind: FeatureKind,
    every: np.ndarray,
    rows: np.ndarray,
    *,
    differences: tuple[np.ndarray, np.ndarray],
    chances: tuple[np.ndarray, np.ndarray],
    sizes: tuple[np.ndarray, np.ndarray],
    degrees: np.ndarray,
) -> _Measured:
    """With the shares of gaps, which numbers and categories have alike."""
    before = known.gaps[:, 0]
    share = np.clip(1 - rows / np.maximum(every, 1), 0.0, 1.0)
    usual = (before * every + 1) / (every + 2)
    wide = np.sqrt(known.gaps[:, 1] ** 2 + usual * (1 - usual) / np.maximum(every, 1))
    of_gaps = 2 * d.beyond_chance(np.abs(share - before) / wide, degrees)
    return _Measured(
        known.names,
        (kind,) * len(known.names),
        known.weight,
        before,
        *differences,
        share - before,
        np.stack([*chances, of_gaps], axis=-1),
        np.stack([*sizes, d.cohens_h(share, before)], axis=-1),
    )


def _together(one: _Measured, other: _Measured) -> _Measured:
    return _Measured(
        one.names + other.names,
        one.kinds + other.kinds,
        *(
            np.concatenate([getattr(one, name), getattr(other, name)], axis=axis)
            for name, axis in _AXIS_OF_FEATURES.items()
        ),
    )


def _why(measured: _Measured, window: int, place: int, hits: np.ndarray) -> str:
    """What changed most in a feature of a window, in words."""
    sizes = measured.sizes[window, place]
    felt = np.abs(sizes) * [1.0, _MOSTLY_MEAN, 1.0]
    which = int(np.argmax(np.where(hits, felt, 0.0)))
    size = float(sizes[which])
    if which == 2:
        before = float(measured.before[place])
        now = before + float(measured.nulls[window, place])
        changed = f"{now:.0%} empty instead of {before:.0%}"
    elif which == 1:
        changed = f"another shape, {size:.2g} standard deviations away"
    elif measured.kinds[place] == "category":
        changed = f"other shares of its values (Cohen's w {size:.2g})"
    else:
        way = "higher" if size > 0 else "lower"
        changed = f"{abs(size):.2g} standard deviations {way}"
    return f"{changed}, {_odds(float(measured.chances[window, place, which]))}"


def _odds(probability: float) -> str:
    if probability < 1e-6:
        return "by chance in less than one of a million windows"
    return f"by chance in one of {1 / probability:,.0f} windows"


def state_of(spec: ProductSpec, windows: Sequence[Window]) -> DriftState:
    """The newest windows (oldest first) with hysteresis."""
    if not windows:
        return drift_not_judged(
            "there is no complete window of rows newer than what the model learned"
        )
    watched = spec.monitoring
    newest = windows[-watched.of_windows :]
    judged = [each for each in newest if each.judged]
    if not judged:
        return drift_not_judged(f"newest window: {newest[-1].problem}", newest[-1].end)
    deviating = [each for each in newest if each.deviates]
    upstream = newest[-1].upstream
    broken = f" Looks broken: {upstream}." if upstream else ""
    if newest[-1].aside:
        broken += f" Of no weight to the model, and so no reason to wait: {newest[-1].aside}."
    if not deviating:
        quiet = f"nothing that matters differs in the newest {_windows(len(judged))}"
        return DriftState(
            "quiet", f"{quiet}.{broken}", "nothing", None, newest[-1].end, 0.0, upstream
        )
    state: DriftLevel = "alarm" if len(deviating) >= watched.alarm_after else "watch"
    counted = f"{len(deviating)} of the newest {len(newest)} windows deviate"
    counted += "s" if len(deviating) == 1 else ""
    counted = "the newest window deviates" if len(newest) == 1 else counted
    return DriftState(
        state,
        f"{counted}: {_what(deviating[-1])}.{broken}",
        _what_next(spec, newest) if state == "watch" else _what_follows(spec),
        _since(windows, watched.of_windows),
        newest[-1].end,
        deviating[-1].score,
        upstream,
    )


def continued(state: DriftState, before: DriftState | None) -> DriftState:
    """The state with the beginning of what was going on already, though it is out of sight now.

    Args:
        state: of the windows that are looked at.
        before: as it was told last, about the same reference.
    """
    if state.since is None or before is None or before.since is None or before.end is None:
        return state
    if before.since < state.since <= before.end:
        return replace(state, since=before.since)
    return state


def drift_not_judged(reason: str, end: pd.Timestamp | None = None) -> DriftState:
    """The state where nothing can be compared.

    Args:
        reason: in words, without a full stop.
        end: of the newest window; None without one.
    """
    later = "it is looked at again with new rows"
    return DriftState("not_judged", f"{reason.rstrip('.')}.", later, None, end)


def _windows(count: int) -> str:
    return "window" if count == 1 else f"{count} windows"


def _what(window: Window) -> str:
    """What matters in a window, the most important features first."""
    found = [each for each in window.features if each.matters]
    told = [
        f"{each.feature} ({each.weight:.0%} of the importance) {each.reason}"
        if each.feature != PREDICTION
        else f"{each.feature} {each.reason}"
        for each in found[:_TOLD]
    ]
    more = [f"{len(found) - _TOLD} more"] if len(found) > _TOLD else []
    return "; ".join([*told, *more])


def _what_next(spec: ProductSpec, newest: Sequence[Window]) -> str:
    """How many deviating windows of how many coming ones would be an alarm."""
    watched = spec.monitoring
    ways: list[tuple[int, int]] = []
    for ahead in range(1, watched.of_windows + 1):
        kept = newest[max(0, len(newest) + ahead - watched.of_windows) :]
        needed = watched.alarm_after - sum(each.deviates for each in kept)
        if needed <= ahead:
            ways.append((needed, -ahead))
    needed, coming = min(ways)[0], -min(ways)[1]
    alarm = "an alarm, and the country is trained again" if spec.retraining.on_drift else "an alarm"
    if coming == 1:
        return f"if the next window deviates too, it is {alarm}"
    more = "one more deviating window" if needed == 1 else f"{needed} more deviating windows"
    return f"{more} of the next {coming} {'is' if needed == 1 else 'are'} {alarm}"


def _what_follows(spec: ProductSpec) -> str:
    if spec.retraining.on_drift:
        return (
            "the country is trained again, within cool-down and budget; see the retraining sensor"
        )
    return "nothing by itself: retraining.on_drift is off; a person decides"


def _since(windows: Sequence[Window], of_windows: int) -> pd.Timestamp | None:
    """End of the first of the deviating windows that followed each other closely enough."""
    since: int | None = None
    for place in range(len(windows) - 1, -1, -1):
        behind = (len(windows) if since is None else since) - place
        if behind > of_windows:
            break
        if windows[place].deviates:
            since = place
    return None if since is None else windows[since].end
