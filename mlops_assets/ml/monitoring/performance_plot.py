"""The realised error beside the promised one, as a small plot."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mlops_assets.ml.charts import drawing as d
from mlops_assets.ml.charts.drawing import BAND, CHAMPION, MODEL, MUTED, NAIVE, Axes, Key
from mlops_assets.ml.monitoring.performance import Promise, promised_in
from mlops_assets.spec import ProductSpec

MOST_PERIODS = 60
"""Newest periods drawn."""
_MOST_LABELS = 9


def realised_plot(
    spec: ProductSpec, periods: pd.DataFrame, promise: Promise, version: str, *, unit: str
) -> str:
    """The metric by period: the champion's, that of models before it, baseline and promise.

    Args:
        spec: the product as it is for this country.
        periods: as `by_period` gives them; the newest `MOST_PERIODS` are drawn.
        promise: of the champion.
        version: of the champion; "" for the baseline.
        unit: of the metric.
    """
    names = sorted(set(periods["period"]))[-MOST_PERIODS:]
    shown = periods[periods["period"].isin(names)].reset_index(drop=True)
    own = shown[shown["model_version"] == version]
    promised = promised_in(spec, promise, own["baseline"].to_numpy("float64"))
    ends = [shown["value"].to_numpy(), shown["baseline"].to_numpy(), *promised]
    axes = Axes((0.0, float(max(len(names), 1))), d.extent(*ends))
    x = _middles(own, names)
    band = d.band(axes, x, promised[1], promised[2])
    before = [rows for which, rows in shown.groupby("model_version") if which != version]
    parts = [
        *band,
        *d.value_ticks(axes, f"{spec.metric} ({unit})" if unit else spec.metric),
        *_labels(axes, names),
        *(
            _marks(axes, rows, names, "baseline", color=NAIVE, dashed=True)
            for rows in [*before, own]
        ),
        *(_marks(axes, rows, names, "value", color=MUTED) for rows in before),
        d.line(axes, x, promised[0], CHAMPION),
        _marks(axes, own, names, "value", color=MODEL),
    ]
    legend = [
        Key("realised", MODEL, "line"),
        *([Key("models before", MUTED, "line")] if before else []),
        Key(f"baseline {spec.baselines[0].name}", NAIVE, "dashes"),
        *([Key("promised", CHAMPION, "line")] if np.isfinite(promised[0]).any() else []),
        *([Key("its interval", BAND)] if band else []),
    ]
    return d.svg(f"{spec.metric} by {spec.monitoring.period}, realised", legend, parts)


def _middles(rows: pd.DataFrame, names: list[str]) -> np.ndarray:
    return pd.Categorical(rows["period"], names).codes + 0.5


def _marks(
    axes: Axes,
    rows: pd.DataFrame,
    names: list[str],
    column: str,
    *,
    color: str,
    dashed: bool = False,
) -> str:
    """A line with a dot a value; no line where periods are between that the model has no row in."""
    places = np.full(len(names), np.nan)
    places[pd.Categorical(rows["period"], names).codes] = rows[column].to_numpy("float64")
    x = np.arange(len(names)) + 0.5
    drawn = d.line(axes, x, places, color, dashed=dashed)
    return drawn + d.dots(axes.across(x), axes.up(places), color, radius=2.6)


def _labels(axes: Axes, names: list[str]) -> list[str]:
    every = max(1, -(-len(names) // _MOST_LABELS))
    return [
        d.bottom_label(axes, axes.x_at(place + 0.5), names[place])
        for place in range(0, len(names), every)
    ]
