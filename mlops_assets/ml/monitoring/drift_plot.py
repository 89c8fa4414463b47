"""How far the newest windows of a country are from what its model learned, as a small plot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlops_assets.ml.charts import drawing as d
from mlops_assets.ml.charts.drawing import BAND, CHAMPION, MODEL, MUTED, NAIVE, TRUTH, Axes, Key
from mlops_assets.ml.monitoring.drift import PREDICTION, Window

_COLORS = (MODEL, CHAMPION, MUTED)
"""Of the most important features, the first one first."""


def drift_plot(windows: Sequence[Window], min_effect: float) -> str:
    """Lines of the largest change by window: of the predictions and the most important features.

    Args:
        windows: the oldest first; those that are not judged leave a gap.
        min_effect: from which a change matters.
    """
    names = [PREDICTION, *_most_important(windows)]
    x = np.array([window.end.as_unit("ns").value for window in windows], dtype="float64")
    sizes = np.array([_sizes(window, names) for window in windows]).reshape(-1, len(names))
    low, high = d.extent(x)
    axes = Axes((low, high), (0.0, max(d.extent(sizes)[1], 1.2 * min_effect)))
    limit = np.full(2, min_effect)
    colors = (TRUTH, *_COLORS)
    parts = [
        *_deviating(axes, x, windows),
        *d.value_ticks(axes, "change (standard deviations, or w)"),
        *(d.time_ticks(axes) if len(x) else []),
        d.line(axes, np.array([low, high]), limit, NAIVE, dashed=True),
        *(
            d.line(axes, x, sizes[:, place], color)
            + d.dots(axes.across(x), axes.up(sizes[:, place]), color, radius=2.6)
            for place, color in zip(range(len(names)), colors, strict=False)
        ),
    ]
    legend = [
        *(Key(d.shortened(n, 18), c, "line") for n, c in zip(names, colors, strict=False)),
        Key("min_effect", NAIVE, "dashes"),
        Key("deviates", BAND),
    ]
    return d.svg("Change since the model learned, by end of window", legend, parts)


def _most_important(windows: Sequence[Window]) -> list[str]:
    judged = [window for window in windows if window.judged]
    features = judged[-1].features if judged else ()
    return [each.feature for each in features if each.feature != PREDICTION][: len(_COLORS)]


def _sizes(window: Window, names: Sequence[str]) -> list[float]:
    """The larger of effect and distance, NaN where there is none."""
    found = {each.feature: max(abs(each.effect), each.distance) for each in window.features}
    return [found.get(name, np.nan) for name in names]


def _deviating(axes: Axes, x: np.ndarray, windows: Sequence[Window]) -> list[str]:
    return [
        d.segment(at, axes.box.top, at, axes.box.base, color=BAND, width=10)
        for at, window in zip(axes.across(x), windows, strict=True)
        if window.deviates
    ]
