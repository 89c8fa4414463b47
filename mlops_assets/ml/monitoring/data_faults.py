"""Features of a window that look broken rather than changed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mlops_assets.ml.monitoring.profiles import NOTHING, Profile
from mlops_assets.ml.stats.distances import EDGES, NORMAL_IQR
from mlops_assets.ml.training.references import (
    LEAST_VALUES,
    REST,
    Categories,
    Numbers,
    Reference,
    moments,
)

OTHER_UNIT = 8.0
"""Factor from which a changed unit is suspected."""
_BEYOND = 3.0
"""How many times the spread must leave what the windows of the reference ever had."""
_MOSTLY = 0.9
"""Share of gaps or of unknown values from which there is nothing else."""
_NEAR = 0.08
"""Difference in decimal logarithms, about a fifth: windows differ, units are what they are."""
_TOLD = 3
_BOTH_SIDES = 0.02
"""Share of values on the other side of zero from which a number is one around zero."""
_FAR_OUT = 0.002
"""Share of values beyond `EDGES` from which tails are heavy."""
_STEADY = 4.0
"""Ratio of the widest to the calmest window up to which a spread is one that can be told."""


@dataclass(frozen=True)
class Faults:
    """What looks broken in a window, in words; "" for nothing.

    Attributes:
        upstream: features the model goes by, which stops it from being trained on them.
        aside: features that weigh nothing, which are told and stop nothing.
    """

    upstream: str = ""
    aside: str = ""


def looks_broken(reference: Reference, window: Profile, min_weight: float = 0.0) -> Faults:
    """What looks broken in a window, the most important features first.

    A feature that is empty, constant, looks multiplied by a factor, or has only values the
    reference does not name, though no window of the reference was ever like that. Predictions are
    left out: they follow from the features.

    Args:
        reference: what the model learned from.
        window: that is looked at.
        min_weight: share of the importance from which on broken features together count.
    """
    found = [
        *_broken_numbers(reference.numbers, window),
        *_broken_categories(reference.categories, window),
    ]
    weight = {name: reference.features[name].weight for name, _ in found}
    found.sort(key=lambda each: -weight[each[0]])
    counts = sum(weight.values()) >= min_weight
    weighty = [each for each in found if counts and weight[each[0]] > 0]
    aside = [each for each in found if each not in weighty]
    return Faults(_in_words(weighty), _in_words(aside))


def _in_words(found: Sequence[tuple[str, str]]) -> str:
    told = [f"{name} {what}" for name, what in found[:_TOLD]]
    more = [f"{len(found) - _TOLD} more"] if len(found) > _TOLD else []
    return "; ".join([*told, *more])


def _broken_numbers(known: Numbers, window: Profile) -> Iterator[tuple[str, str]]:
    held = [window.numbers.get(name, NOTHING) for name in known.names]
    rows, total, squares = (np.array([each[i] for each in held], "float64") for i in range(3))
    mean, deviation = moments(rows, total, squares)
    empty = (rows == 0) & (known.most_gaps < _MOSTLY)
    calm = (rows >= LEAST_VALUES) & (deviation * OTHER_UNIT < known.deviation)
    far = np.array([name in window.quartiles for name in known.names], dtype=bool)
    for place in np.flatnonzero((empty | calm | far) & known.is_feature):
        name, center, scale = known.names[place], known.center[place], known.scale[place]
        factor, middle = deviation[place] / known.deviation[place], center + mean[place] * scale
        if name in window.quartiles:
            low, middle, high = window.quartiles[name]
            factor = (high - low) / NORMAL_IQR / scale
        if empty[place]:
            yield name, "is empty"
        elif deviation[place] < 1e-9 and factor < 1e-9:
            if known.calmest[place] > 0:
                yield name, f"is constant ({middle:.4g})"
        elif told := _other_unit(known, int(place), factor, middle):
            yield name, told


def _other_unit(known: Numbers, place: int, factor: float, middle: float) -> str:
    """In words, if a number looks multiplied by a factor; "" if not.

    Args:
        known: the references.
        place: of the feature.
        factor: its spread, as a multiple of the reference's.
        middle: median or mean in the window.
    """
    calm = known.calmest[place] / known.deviation[place]
    wild = known.wildest[place] / known.deviation[place]
    beyond = factor > _BEYOND * max(wild, 1.0) or factor * _BEYOND < calm
    if factor <= 0 or not (beyond and (factor >= OTHER_UNIT or factor * OTHER_UNIT <= 1)):
        return ""  # most values are equal, which is no other unit
    if _around_zero(known, place) and not _is_steady(known, place):
        return ""
    before = known.center[place]
    if abs(before) > known.scale[place]:  # else it says little of a factor
        moved = middle / before
        if not 0.25 <= moved / factor <= 4:
            return ""
        factor = moved
    return f"looks like another unit: about {_plain(factor)} times what it was"


def _around_zero(known: Numbers, place: int) -> bool:
    """Whether a number changes its sign, so that one near zero is a factor of any size apart.

    What is of one sign is not, however near to zero most of it is, as amounts and counts are.
    """
    counts, center, scale = known.counts[place], known.center[place], known.scale[place]
    at_zero = int(np.searchsorted(EDGES, -center / scale))
    sides = float(counts[:at_zero].sum()), float(counts[at_zero + 1 :].sum())
    return bool(min(sides) > _BOTH_SIDES * max(float(counts.sum()), 1.0))


def _is_steady(known: Numbers, place: int) -> bool:
    """Whether the spread of a number was much the same in all windows, without heavy tails."""
    counts = known.counts[place]
    far_out = (counts[0] + counts[-1]) / max(float(counts.sum()), 1.0)
    return bool(far_out <= _FAR_OUT and 0 < known.wildest[place] <= _STEADY * known.calmest[place])


def _plain(factor: float) -> str:
    """A power of ten where it is near one, else two significant digits; never with an exponent."""
    power = round(math.log10(abs(factor)))
    near = abs(math.log10(abs(factor)) - power) < _NEAR
    short = math.copysign(10.0**power, factor) if near else float(f"{factor:.2g}")
    return f"{short:,.10g}" if abs(short) < 1 else f"{short:,.0f}"


def _broken_categories(known: Categories, window: Profile) -> Iterator[tuple[str, str]]:
    for place, name in enumerate(known.names):
        held = window.categories.get(name, {})
        rows, counts = sum(held.values()), known.counts[place]
        rest = counts[len(known.values[place]) - 1]
        if not rows and known.most_gaps[place] < _MOSTLY:
            yield name, "is empty"
        elif (
            rows >= LEAST_VALUES and held.get(REST, 0) > _MOSTLY * rows and 2 * rest < counts.sum()
        ):
            yield name, "has only values never seen before"
