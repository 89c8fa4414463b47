"""Which values of a product's policy a proposal tries, and which policies it makes of them.

A new key of `retraining` is one more line of `SPACE`. Not every key has a place there: gates and
pooled models are judged once for all policies, so that of `decision` only `margin`,
`refresh_after_days` and `refresh_margin` can be tried, and of `monitoring` nothing that the
reference of a model is made with (`window_days`, `every_days`, `reference_days`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from mlops_assets.ml.backtest.data import BacktestData
from mlops_assets.ml.training.selection import pooled_names
from mlops_assets.spec import ProductSpec

Changes = Mapping[str, Mapping[str, Any]]
"""Values by section and key, as in the YAML."""


@dataclass(frozen=True)
class Dial:
    """One key of the YAML, and the values that are tried.

    Args:
        section: of the YAML.
        key: in it.
        values: that are tried; of `label_months` times what a country gets of labels in 30 days.
        unit: of the values.
        pooled: whether it says nothing in a product without pooled models.
    """

    section: Literal["retraining", "decision", "monitoring"]
    key: str
    values: tuple[Any, ...]
    unit: Literal["", "label_months"] = ""
    pooled: bool = False


SPACE: tuple[Dial, ...] = (
    Dial("retraining", "max_age_days", (None, 30, 60, 90, 112, 180)),
    Dial("retraining", "new_labels", (None, 1.0, 3.0), unit="label_months"),
    Dial("retraining", "on_error", (True, False)),
    Dial("retraining", "on_drift", (True, False)),
    Dial("retraining", "cooldown_days", (7.0, 14.0, 28.0, 56.0)),
    Dial("retraining", "give_up_after", (3, 6, 12)),
    Dial("retraining", "pooled_age_days", (14, 28, 56, 112), pooled=True),
    Dial("decision", "margin", (0.0, 0.01, 0.02, 0.05)),
    Dial("decision", "refresh_after_days", (None, 7, 28, 60)),
    Dial("decision", "refresh_margin", (None, 0.02, 0.05, 0.1)),
    Dial("monitoring", "tolerance", (0.02, 0.05, 0.1, 0.2)),
    Dial("monitoring", "min_effect", (0.3, 0.5, 0.8)),
)
"""What is tried, a key each."""

BUNDLES: tuple[Changes, ...] = (
    # What only works together: often trained, and let in by freshness more or less easily.
    {"retraining": {"max_age_days": 60, "give_up_after": 12}},
    {"retraining": {"max_age_days": 30, "give_up_after": 12}},
    {
        "retraining": {"max_age_days": 60, "give_up_after": 12},
        "decision": {"refresh_after_days": 28, "refresh_margin": 0.02},
    },
    {"retraining": {"max_age_days": 90, "on_drift": False, "give_up_after": 12}},
    {"retraining": {"max_age_days": 180, "on_drift": False}},
)
"""Values of several keys that are tried together."""
MOST_CHANGES = 3
"""Keys that a policy of the search changes at once, beside those of `BUNDLES`."""


def space_of(past: BacktestData, space: Sequence[Dial] = SPACE) -> tuple[Dial, ...]:
    """The space of one product: in its own units, without keys that say nothing there."""
    months = _labels_a_month(past)
    has_pooled = bool(pooled_names(past.spec))
    return tuple(_in_units(dial, months) for dial in space if has_pooled or not dial.pooled)


def _in_units(dial: Dial, months: float) -> Dial:
    if dial.unit != "label_months":
        return dial
    values = [None if each is None else max(1, round(each * months)) for each in dial.values]
    return Dial(dial.section, dial.key, tuple(dict.fromkeys(values)), pooled=dial.pooled)


def _labels_a_month(past: BacktestData) -> float:
    """Of the country in the middle."""
    counts = []
    for country in past.countries:
        times = past.frames[country].loc[past.frames[country]["label"].notna(), "label_time"]
        days = (times.max() - times.min()) / pd.Timedelta(days=1) if len(times) else 0.0
        counts.append(len(times) / max(days, 30.0) * 30.0)
    return float(np.median(counts))


def tried_policies(
    spec: ProductSpec, space: Sequence[Dial], most: int, seed: int
) -> tuple[Changes, ...]:
    """What differs from the policy in use in each policy of a search; the first is that one itself.

    Then come the defaults, `BUNDLES`, and as many as are left that change one to `MOST_CHANGES`
    keys, each key and value about equally often.

    Args:
        spec: the product.
        space: of it.
        most: policies at most.
        seed: equal seeds give equal policies.
    """
    known = {(dial.section, dial.key) for dial in space}
    rng = np.random.default_rng(seed)
    found: dict[str, Changes] = {}
    offered = [{}, defaults_of(space), *(_only(each, known) for each in BUNDLES)]
    for changes in [*offered, *_drawn(spec, space, most * 4, rng)]:
        own = differing(spec, changes)
        if (own or not found) and is_valid(spec, own):
            found.setdefault(repr(_sorted(own)), own)
    return tuple(found.values())[:most]


def defaults_of(space: Sequence[Dial]) -> Changes:
    """What a product without a word on it has for the keys of a space."""
    found: dict[str, dict[str, Any]] = {}
    for dial in space:
        section = ProductSpec.model_fields[dial.section].get_default(call_default_factory=True)
        found.setdefault(dial.section, {})[dial.key] = getattr(section, dial.key)
    return found


def differing(spec: ProductSpec, changes: Changes) -> Changes:
    """The values that a product does not have already."""
    own = {
        section: {
            key: value
            for key, value in values.items()
            if getattr(getattr(spec, section), key) != value
        }
        for section, values in changes.items()
    }
    return {section: values for section, values in own.items() if values}


def applied(spec: ProductSpec, changes: Changes) -> ProductSpec:
    """The product with other values.

    Raises:
        pydantic.ValidationError: it is not valid with them.
    """
    content = spec.model_dump()
    for section, values in changes.items():
        content[section] = {**content[section], **values}
    return ProductSpec.model_validate(content)


def is_valid(spec: ProductSpec, changes: Changes) -> bool:
    """Whether the product is valid with the values."""
    try:
        applied(spec, changes)
    except ValueError:  # of which pydantic's is one
        return False
    return True


def count(changes: Changes) -> int:
    """Keys that differ."""
    return sum(len(values) for values in changes.values())


def described(changes: Changes) -> str:
    """In a line: retraining.max_age_days=60, decision.margin=0.02."""
    told = [
        f"{section}.{key}={yaml_word(value)}"
        for section, values in changes.items()
        for key, value in values.items()
    ]
    return ", ".join(told) or "the policy in use"


def _drawn(
    spec: ProductSpec, space: Sequence[Dial], most: int, rng: np.random.Generator
) -> list[Changes]:
    """Policies with some keys changed; every other value comes before one comes again."""
    waiting: list[tuple[Dial, Any]] = []
    found: list[Changes] = []
    for place in range(most):
        taken: dict[str, dict[str, Any]] = {}
        for _ in range(1 + place % MOST_CHANGES):
            waiting = waiting or _shuffled(spec, space, rng)
            if waiting:
                dial, value = waiting.pop()
                taken.setdefault(dial.section, {})[dial.key] = value
        found.append(taken)
    return found


def _shuffled(
    spec: ProductSpec, space: Sequence[Dial], rng: np.random.Generator
) -> list[tuple[Dial, Any]]:
    every = [
        (dial, value)
        for dial in space
        for value in dial.values
        if getattr(getattr(spec, dial.section), dial.key) != value
    ]
    return [every[place] for place in rng.permutation(len(every))]


def _only(changes: Changes, known: set[tuple[str, str]]) -> Changes:
    return {
        section: {key: value for key, value in values.items() if (section, key) in known}
        for section, values in changes.items()
    }


def _sorted(changes: Changes) -> list[Any]:
    return sorted((section, sorted(values.items())) for section, values in changes.items())


def yaml_word(value: Any) -> str:
    """A value as YAML has it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else f"{value:.12g}"
