"""Small plots of a model as SVG text: each under 50 kB, white background, labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from mlops_assets.ml.charts import drawing as d
from mlops_assets.ml.charts.drawing import (
    BAND,
    CHAMPION,
    MODEL,
    MUTED,
    NAIVE,
    TRUTH,
    Axes,
    Box,
    Key,
)
from mlops_assets.ml.stats.metrics import Estimate

MOST_POINTS = 400
"""A line of more points is thinned: more cannot be told apart and would not fit in 20 kB."""
MOST_ROWS = 40
"""Slices, features or gains drawn; the rest is counted."""
_ROW_HEIGHT = 24
_ROWS_BOX = Box(left=250, top=56, bottom=46)


def forecast_against_actual(
    times: pd.Series | pd.DatetimeIndex | Sequence[pd.Timestamp],
    actual: np.ndarray | pd.Series,
    forecast: np.ndarray | pd.Series,
    lower: np.ndarray | pd.Series | None = None,
    *,
    upper: np.ndarray | pd.Series | None = None,
    title: str = "Forecast against actual",
    unit: str = "",
) -> str:
    """Lines of actual and forecast values over time, with the interval as a band.

    The legend says which share of the labels the interval covers.

    Args:
        times: event times, in order.
        actual: labels; NaN leaves a gap.
        forecast: predictions.
        lower: lower end of the interval; None for no band.
        upper: upper end of the interval.
        title: above the drawing.
        unit: of the values, at the vertical axis.
    """
    stamps = pd.DatetimeIndex(pd.Series(times, dtype="datetime64[ns]"))
    step = max(1, -(-len(stamps) // MOST_POINTS))
    whole = [_values(values) for values in (actual, forecast, lower, upper)]
    series = [values[::step] for values in whole]
    x = stamps.to_numpy().astype("int64")[::step].astype("float64")
    axes = Axes(d.extent(x), d.extent(*series))
    drawn = d.band(axes, x, series[2], series[3])
    words = "interval" + _share_inside(whole[0], whole[2], whole[3])
    legend = [Key("actual", TRUTH, "line"), Key("forecast", MODEL, "line")]
    parts = [
        *drawn,
        d.line(axes, x, series[0], TRUTH),
        d.line(axes, x, series[1], MODEL),
        *(d.time_ticks(axes) if len(x) else []),
        *d.value_ticks(axes, unit),
    ]
    return d.svg(title, [*legend, *([Key(words, BAND)] if drawn else [])], parts)


def error_by_month(
    by_month: pd.DataFrame, metric: str, unit: str, *, title: str | None = None
) -> str:
    """Lines of the metric by month: candidate with its interval, champion, best baseline.

    Args:
        by_month: month, rows, value and baseline, as in `Report`; champion, and lower and upper
            of the value, where they are known.
        metric: its name, at the vertical axis.
        unit: of the metric.
        title: above the drawing; default: names the metric.
    """
    series = {
        name: _values(by_month[name]) if name in by_month else np.full(len(by_month), np.nan)
        for name in ("value", "baseline", "champion", "lower", "upper")
    }
    axes = Axes((0.0, max(len(by_month), 1)), d.extent(*series.values()))
    x = np.arange(len(by_month)) + 0.5
    has_champion = bool(np.isfinite(series["champion"]).any())
    months = by_month["month"].astype(str).tolist()
    parts = [
        *d.value_ticks(axes, f"{metric} ({unit})" if unit else metric),
        *_month_labels(axes, months),
        *_upright(axes, x, series["lower"], series["upper"]),
        *_marked_line(axes, x, series["baseline"], NAIVE, dashed=True),
        *_marked_line(axes, x, series["champion"], CHAMPION),
        *_marked_line(axes, x, series["value"], MODEL),
    ]
    legend = [
        Key("candidate", MODEL, "line"),
        *([Key("champion", CHAMPION, "line")] if has_champion else []),
        Key("best baseline", NAIVE, "dashes"),
        *([Key("interval", BAND)] if np.isfinite(series["lower"]).any() else []),
    ]
    return d.svg(title or f"{metric} by month", legend, parts)


def reliability(table: pd.DataFrame, *, title: str = "Reliability") -> str:
    """Observed against predicted share of class 1; on the diagonal the probabilities are right.

    Bars at the bottom, with counts, tell how many rows each bin has.

    Args:
        table: rows, predicted and observed per bin, as in `Report`.
        title: above the drawing.
    """
    axes = Axes((0.0, 1.0), (0.0, 1.0), Box(height=380))
    ends = np.array([0.0, 1.0])
    predicted, observed, rows = (_values(table[n]) for n in ("predicted", "observed", "rows"))
    parts = [
        *d.value_ticks(axes, "observed share"),
        *d.measure_ticks(axes, "predicted probability"),
        *_counts(axes, predicted, rows),
        d.line(axes, ends, ends, NAIVE, dashed=True),
        d.line(axes, predicted, observed, MODEL),
        d.dots(axes.across(predicted), axes.up(observed), MODEL, radius=4),
    ]
    legend = [
        Key("bins", MODEL, "dot"),
        Key("perfectly calibrated", NAIVE, "dashes"),
        Key("rows in the bin", BAND),
    ]
    return d.svg(title, legend, parts, axes.box)


def slices(table: pd.DataFrame, metric: str, unit: str, *, title: str = "Slices") -> str:
    """The metric in each slice with its interval, beside the champion's or the best baseline's.

    Args:
        table: feature, slice, rows, value, lower, upper, baseline, champion and judged, as in
            `Report`; what was not judged is grey.
        metric: its name, at the axis.
        unit: of the metric.
        title: above the drawing.
    """
    shown = table.head(MOST_ROWS)
    champion, baseline = _values(shown["champion"]), _values(shown["baseline"])
    judged = shown["judged"].astype(bool).to_numpy()
    value, low, high = (_values(shown[name]) for name in ("value", "lower", "upper"))
    axes = _row_axes(len(shown), d.extent(value, low, high, champion, baseline))
    caption = (f"{metric} ({unit})" if unit else metric) + _left_out(table)
    parts = d.measure_ticks(axes, caption) + d.row_labels(axes, _slice_names(shown))
    for place in range(len(shown)):
        y, color = axes.y_at(place + 0.5), MODEL if judged[place] else MUTED
        ends = axes.across(np.array([value[place], low[place], high[place]]))
        parts.append(d.whisker(ends[1], ends[2], y, color))
        parts.append(d.dot(ends[0], y, color))
        parts.append(d.diamond(axes.x_at(baseline[place]), y, NAIVE))
        parts.append(d.diamond(axes.x_at(champion[place]), y, CHAMPION))
    legend = [Key("candidate with interval", MODEL, "dot"), Key("best baseline", NAIVE, "diamond")]
    if np.isfinite(champion).any():
        legend.append(Key("champion", CHAMPION, "diamond"))
    if not judged.all():
        legend.append(Key("not judged: too few rows", MUTED, "dot"))
    return d.svg(title, legend, parts, axes.box)


def importance(
    table: pd.DataFrame, metric: str, unit: str, *, title: str = "Permutation importance"
) -> str:
    """Bars of how much worse the metric gets when a feature is shuffled.

    Args:
        table: feature, importance and deviation, as in `Report`, the greatest first.
        metric: its name, at the axis.
        unit: of the metric.
        title: above the drawing.
    """
    shown = table.head(MOST_ROWS)
    value, spread = _values(shown["importance"]), np.nan_to_num(_values(shown["deviation"]))
    axes = _row_axes(len(shown), d.extent(value - spread, value + spread, np.zeros(1)))
    worse = f"loss of {metric}" if metric == "auc" else f"increase of {metric}"
    caption = (f"{worse} ({unit})" if unit else worse) + _left_out(table)
    names = shown["feature"].astype(str).tolist()
    parts = d.measure_ticks(axes, caption) + d.row_labels(axes, names)
    for place, (middle, wide) in enumerate(zip(value, spread, strict=True)):
        y = axes.y_at(place + 0.5)
        ends = axes.across(np.array([0.0, middle, middle - wide, middle + wide]))
        parts.append(d.bar(ends[0], y - 7, ends[1], y + 7, color=BAND))
        parts.append(d.whisker(ends[2], ends[3], y, MODEL))
    parts.append(_upright_line(axes, 0.0, TRUTH))
    legend = [Key("mean of the repeats", BAND), Key("one deviation either side", MODEL, "line")]
    return d.svg(title, legend, parts, axes.box)


def gains(
    estimates: Mapping[str, Estimate],
    unit: str,
    *,
    limits: Mapping[str, float] | None = None,
    title: str = "Gain",
) -> str:
    """Gains with their intervals against 0, and against the limit that each must be above.

    Args:
        estimates: name: the gain, positive is better; one that is not known has no mark.
        unit: of the gains; "share": shares of the other's error, written as percentages.
        limits: name: what the lower end must be above; default: 0 for all.
        title: above the drawing.
    """
    limits, names = limits or {}, list(estimates)[:MOST_ROWS]
    numbers = np.array(
        [[e.value, e.lower, e.upper, limits.get(name, 0.0)] for name, e in estimates.items()]
    ).reshape(-1, 4)
    low, high = d.extent(numbers, np.zeros(1))
    axes = _row_axes(len(names), (low or -0.04 * high, high))  # 0 itself is a line to be seen
    caption = "gain, share of the error" if unit == "share" else f"gain ({unit})" * bool(unit)
    parts = d.measure_ticks(axes, caption or "gain", share=unit == "share")
    parts += [*d.row_labels(axes, names), _upright_line(axes, 0.0, TRUTH)]
    for place, row in enumerate(numbers[: len(names)]):
        y, ends = axes.y_at(place + 0.5), axes.across(row)
        parts.append(d.segment(ends[3], y - 10, ends[3], y + 10, color=NAIVE, width=2, dash="4 3"))
        parts.append(d.whisker(ends[1], ends[2], y, MODEL))
        parts.append(d.dot(ends[0], y, MODEL))
        if not np.isfinite(row[0]):
            parts.append(d.text(axes.x_at(0.0) + 8, y + 4, "not judged", "start", color=MUTED))
    legend = [
        Key("gain with interval", MODEL, "dot"),
        Key("no difference", TRUTH, "line"),
        Key("must be above", NAIVE, "dashes"),
    ]
    return d.svg(title, legend, parts, axes.box)


def _values(values: np.ndarray | pd.Series | None) -> np.ndarray:
    if values is None:
        return np.empty(0)
    return pd.to_numeric(pd.Series(values), errors="raise").to_numpy("float64", na_value=np.nan)


def _share_inside(actual: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> str:
    if not len(lower) or not len(upper):
        return ""
    known = np.isfinite(actual) & np.isfinite(lower) & np.isfinite(upper)
    if not known.any():
        return ""
    inside = (lower <= actual) & (actual <= upper)
    return f", {inside[known].mean():.0%} of {int(known.sum()):,} labels inside"


def _marked_line(
    axes: Axes, x: np.ndarray, y: np.ndarray, color: str, *, dashed: bool = False
) -> list[str]:
    """A line with a dot a value: a value between two gaps has no line."""
    marks = d.dots(axes.across(x), axes.up(y), color, radius=2.6)
    return [d.line(axes, x, y, color, dashed=dashed), marks]


def _upright(axes: Axes, x: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> list[str]:
    """Vertical intervals."""
    places = zip(axes.across(x), axes.up(lower), axes.up(upper), strict=True)
    return [d.segment(at, low, at, high, color=BAND, width=6) for at, low, high in places]


def _upright_line(axes: Axes, value: float, color: str) -> str:
    at = axes.x_at(value)
    return d.segment(at, axes.box.top, at, axes.box.base, color=color)


def _month_labels(axes: Axes, months: Sequence[str]) -> list[str]:
    every = max(1, -(-len(months) // 10))
    return [
        d.bottom_label(axes, axes.x_at(place + 0.5), months[place])
        for place in range(0, len(months), every)
    ]


def _counts(axes: Axes, predicted: np.ndarray, rows: np.ndarray) -> list[str]:
    """Bars of the number of rows in the lowest fifth of the plot, with the number on top."""
    most = max(rows.max(initial=0.0), 1.0)
    parts = []
    for middle, count in zip(predicted, rows, strict=True):
        left, right = axes.across(np.array([middle - 0.03, middle + 0.03]))
        top = axes.y_at(0.2 * count / most)
        parts.append(d.bar(left, top, right, axes.box.base, color=BAND))
        parts.append(
            d.text((left + right) / 2, top - 4, f"{int(count):,}", "middle", color=d.FADED)
        )
    return parts


def _row_axes(rows: int, x: tuple[float, float]) -> Axes:
    """Axes of a drawing with a row for each thing, the first on top."""
    height = _ROWS_BOX.top + _ROWS_BOX.bottom + _ROW_HEIGHT * max(rows, 1)
    return Axes(x, (float(max(rows, 1)), 0.0), replace(_ROWS_BOX, height=height))


def _slice_names(table: pd.DataFrame) -> list[str]:
    return [
        f"{d.shortened(f'{feature} {name}', 22)} ({int(rows):,} rows)"
        for feature, name, rows in zip(table["feature"], table["slice"], table["rows"], strict=True)
    ]


def _left_out(table: pd.DataFrame) -> str:
    more = len(table) - MOST_ROWS
    return f"; {more} more are not drawn" if more > 0 else ""
