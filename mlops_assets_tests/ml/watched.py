"""Generated countries whose drift is looked at: stationary, seasonal, changed, broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlops_assets.ml.monitoring.drift import (
    DriftState,
    Reference,
    Window,
    compare_window,
    make_reference,
    profile,
    state_of,
    window_ends,
    window_rows,
)
from mlops_assets.spec import ProductSpec
from mlops_assets_tests.ml.scenarios import product

SPEC = product(monitoring={})
LEARNED = 365
"""Days of the reference."""
IMPORTANCE = {"x": 4.0, "y": 3.0, "z": 2.0, "kind": 2.0, "noise": 0.1}


def days(start: int, count: int, seed: int, *, a_day: int = 1, memory: float = 0.0) -> pd.DataFrame:
    """Rows of a features frame, the same every time; numbers remember the day before.

    Args:
        start: first day, counted from the beginning of the reference.
        count: of days.
        seed: of everything random.
        a_day: rows a day; half of the variance of a number is then the day's.
        memory: autocorrelation of neighbouring days, 0 to 1.
    """
    rng = np.random.default_rng([seed, start])
    day = np.repeat(np.arange(start, start + count), a_day)
    event = pd.Timestamp("2022-01-01") + pd.to_timedelta(day, "D")
    size = len(day)

    def number() -> np.ndarray:
        own = np.repeat(remembering(rng, count, memory), a_day)
        if a_day == 1 or memory == 0.0:
            return own if a_day == 1 else rng.normal(size=size)
        return np.sqrt(0.5) * own + np.sqrt(0.5) * rng.normal(size=size)

    return pd.DataFrame(
        {
            "entity": [f"e{each}" for each in range(size)],
            "event_time": event,
            "label_time": event,
            "label": 0.0,
            **{name: number() for name in ("x", "y", "z", "noise")},
            "kind": rng.choice(["a", "b", "c"], size, p=[0.5, 0.3, 0.2]),
        }
    )


def remembering(rng: np.random.Generator, count: int, memory: float) -> np.ndarray:
    """An autoregressive process of the first order with variance 1."""
    shocks = rng.normal(size=count) * np.sqrt(1 - memory**2)
    made, last = np.empty(count), rng.normal()
    for place, shock in enumerate(shocks):
        last = memory * last + shock
        made[place] = last
    return made


def predictions(rows: pd.DataFrame) -> pd.Series:
    """What a model that knows the features predicts."""
    return 4 * rows["x"].fillna(0.0) + 3 * rows["y"] + 2 * rows["z"]


@dataclass(frozen=True)
class Watched:
    """What was seen of a country week by week."""

    reference: Reference
    windows: tuple[Window, ...]
    states: tuple[DriftState, ...]

    @property
    def alarms(self) -> int:
        """How often an alarm began."""
        names = [each.state for each in self.states]
        return sum(
            now == "alarm" and before != "alarm"
            for before, now in zip(["quiet", *names], names, strict=False)
        )


def watch(
    learned: pd.DataFrame,
    new: pd.DataFrame,
    spec: ProductSpec = SPEC,
    *,
    predicted: Sequence[pd.Series] | None = None,
) -> Watched:
    """Look at new rows every week, as a country's runs would."""
    before, now = predicted or (predictions(learned), predictions(new))
    reference = make_reference(spec, learned, before.to_numpy(), IMPORTANCE)
    newest = new["event_time"].max() + pd.Timedelta(days=1)
    ends = [end for end in window_ends(spec, newest, 80) if end > reference.last]
    windows: list[Window] = []
    for end in ends:
        rows = window_rows(spec, reference, new, end)
        windows.append(
            compare_window(spec, reference, profile(reference, rows, now[rows.index], end))
        )
    states = [state_of(spec, windows[: place + 1]) for place in range(len(windows))]
    return Watched(reference, tuple(windows), tuple(states))
