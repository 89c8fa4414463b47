"""Small drawings as SVG text: under 20 kB each, white background, no plotting library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd

WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 56, 44
MOST_POINTS = 400
"""A line of more points is thinned: more cannot be told apart and would not fit in 20 kB."""
MODEL, TRUTH, NAIVE, BAND = "#1f5fa8", "#222222", "#c05a1c", "#cfe0f3"


@dataclass(frozen=True)
class _Axes:
    """Maps values to places in the drawing."""

    x: tuple[float, float]
    y: tuple[float, float]

    def across(self, values: np.ndarray) -> np.ndarray:
        low, high = self.x
        return LEFT + (values - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def up(self, values: np.ndarray) -> np.ndarray:
        low, high = self.y
        return HEIGHT - BOTTOM - (values - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def forecast_against_actual(
    times: pd.Series | pd.DatetimeIndex | Sequence[pd.Timestamp],
    actual: np.ndarray | pd.Series,
    forecast: np.ndarray | pd.Series,
    lower: np.ndarray | pd.Series | None = None,
    upper: np.ndarray | pd.Series | None = None,
    *,
    title: str = "Forecast against actual",
    unit: str = "",
) -> str:
    """Lines of actual and forecast values over time, with the interval as a band.

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
    series = [_thin(values, step) for values in (actual, forecast, lower, upper)]
    x = stamps.to_numpy().astype("int64")[::step].astype("float64")
    axes = _Axes(_range(x), _range(*series))
    band = _band(axes, x, series[2], series[3])
    has_band = bool(band)
    legend = [("actual", TRUTH), ("forecast", MODEL), *([("interval", BAND)] if has_band else [])]
    parts = [
        *band,
        _line(axes, x, series[0], TRUTH),
        _line(axes, x, series[1], MODEL),
        *(_time_ticks(axes) if len(x) else []),
        *_value_ticks(axes, unit),
    ]
    return _svg(title, legend, parts)


def error_by_month(
    by_month: pd.DataFrame, metric: str, unit: str, *, title: str | None = None
) -> str:
    """Bars of the metric by month beside the best baseline's.

    Args:
        by_month: month, rows, value and baseline, as in `Report`.
        metric: its name, at the vertical axis.
        unit: of the metric.
        title: above the drawing; default: names the metric.
    """
    values, naive = (by_month[name].to_numpy(dtype="float64") for name in ("value", "baseline"))
    axes = _Axes((0.0, max(len(by_month), 1)), _range(values, naive, np.zeros(1)))
    parts = [*_value_ticks(axes, f"{metric} ({unit})" if unit else metric)]
    for place in range(len(by_month)):
        parts.append(_bar(axes, place + 0.12, place + 0.5, values[place], MODEL))
        parts.append(_bar(axes, place + 0.5, place + 0.88, naive[place], NAIVE))
    every = max(1, -(-len(by_month) // 10))
    labels = by_month["month"].astype(str).tolist()
    parts += [
        _bottom_label(float(axes.across(np.array(place + 0.5))), labels[place])
        for place in range(0, len(labels), every)
    ]
    legend = [("model", MODEL), ("best baseline", NAIVE)]
    return _svg(title or f"{metric} by month", legend, parts)


def reliability(table: pd.DataFrame, *, title: str = "Reliability") -> str:
    """Observed against predicted share of class 1; on the diagonal the probabilities are right.

    Args:
        table: rows, predicted and observed per bin, as in `Report`.
        title: above the drawing.
    """
    axes = _Axes((0.0, 1.0), (0.0, 1.0))
    ends = np.array([0.0, 1.0])
    predicted, observed = (table[name].to_numpy("float64") for name in ("predicted", "observed"))
    share = table["rows"].to_numpy("float64") / max(table["rows"].sum(), 1)
    dots = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3 + 9 * np.sqrt(size):.1f}" fill="{MODEL}" '
        f'fill-opacity="0.6"><title>{int(rows)} rows</title></circle>'
        for x, y, size, rows in zip(
            axes.across(predicted), axes.up(observed), share, table["rows"], strict=True
        )
    ]
    ticks = [
        _bottom_label(float(axes.across(np.array(at))), f"{at:.1f}")
        for at in np.arange(0, 1.1, 0.2)
    ]
    caption = _text(WIDTH / 2, HEIGHT - 6, "predicted probability", "middle")
    parts = [
        _line(axes, ends, ends, NAIVE),
        _line(axes, predicted, observed, MODEL),
        *dots,
        *ticks,
        caption,
        *_value_ticks(axes, "observed share"),
    ]
    return _svg(title, [("bins, area by rows", MODEL), ("perfectly calibrated", NAIVE)], parts)


def _thin(values: np.ndarray | pd.Series | None, step: int) -> np.ndarray:
    if values is None:
        return np.empty(0)
    return np.asarray(values, dtype="float64")[::step]


def _range(*series: np.ndarray) -> tuple[float, float]:
    """Lowest and highest finite value, with some room; never empty."""
    values = np.concatenate(series) if series else np.empty(0)
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    room = (high - low) * 0.04 or max(abs(high) * 0.05, 1.0)
    return (low - room if low else low), high + room


def _nice_steps(low: float, high: float, wanted: int = 5) -> np.ndarray:
    """Round values (1, 2, 5 times a power of ten apart) within the range."""
    raw = (high - low) / wanted
    power = 10.0 ** np.floor(np.log10(raw))
    step = power * min((n for n in (1, 2, 5, 10) if n * power >= raw), default=10)
    return np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step


def _value_ticks(axes: _Axes, caption: str) -> list[str]:
    parts = []
    steps = _nice_steps(*axes.y)
    for value, at in zip(steps, axes.up(steps), strict=True):
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" '
            'stroke="#ddd" stroke-width="0.7"/>'
        )
        parts.append(_text(LEFT - 6, at + 4, f"{value + 0.0:.6g}", "end"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text x="14" y="{middle:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {middle:.0f})">{escape(caption)}</text>'
    )
    return parts


def _time_ticks(axes: _Axes) -> list[str]:
    places = np.linspace(*axes.x, 7)[1:-1]
    return [
        _bottom_label(float(at), pd.Timestamp(int(place)).strftime("%Y-%m-%d"))
        for place, at in zip(places, axes.across(places), strict=True)
    ]


def _bottom_label(x: float, text: str) -> str:
    base = HEIGHT - BOTTOM
    mark = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{base}" y2="{base + 4}" stroke="#666"/>'
    return mark + _text(x, base + 17, text, "middle")


def _stretches(known: np.ndarray) -> list[np.ndarray]:
    """Positions of each run of known values."""
    breaks = np.flatnonzero(np.diff(known.astype("int8")))
    runs = np.split(np.arange(len(known)), breaks + 1)
    return [run for run in runs if len(run) and known[run[0]]]


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _line(axes: _Axes, x: np.ndarray, y: np.ndarray, color: str) -> str:
    """One polyline for each stretch without a gap."""
    return "".join(
        f'<polyline fill="none" stroke="{color}" stroke-width="1.3" '
        f'points="{_points(axes.across(x[run]), axes.up(y[run]))}"/>'
        for run in _stretches(np.isfinite(y))
    )


def _band(axes: _Axes, x: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> list[str]:
    """One polygon for each stretch with both ends: along the lower one and back."""
    if not len(lower) or not len(upper):
        return []
    parts = []
    for run in _stretches(np.isfinite(lower) & np.isfinite(upper)):
        round_trip = np.concatenate([x[run], x[run][::-1]])
        ends = np.concatenate([lower[run], upper[run][::-1]])
        points = _points(axes.across(round_trip), axes.up(ends))
        parts.append(f'<polygon fill="{BAND}" points="{points}"/>')
    return parts


def _bar(axes: _Axes, start: float, end: float, value: float, color: str) -> str:
    if not np.isfinite(value):
        return ""
    x, right = axes.across(np.array([start, end]))
    base, top = axes.up(np.array([0.0, value]))
    y, height = min(base, top), abs(base - top)
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{right - x:.1f}" height="{height:.1f}" '
        f'fill="{color}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(title: str, legend: Sequence[tuple[str, str]], parts: Sequence[str]) -> str:
    base = HEIGHT - BOTTOM
    frame = f'<path d="M{LEFT} {TOP}V{base}H{WIDTH - RIGHT}" fill="none" stroke="#666"/>'
    keys, x = [], LEFT
    for name, color in legend:
        keys.append(f'<rect x="{x}" y="34" width="14" height="8" fill="{color}"/>')
        keys.append(_text(x + 19, 42, name, "start"))
        x += 36 + int(6.5 * len(name))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="sans-serif" font-size="12" fill="#222" role="img">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        f'<text x="{LEFT}" y="22" font-size="15" font-weight="bold">{escape(title)}</text>'
        f"{''.join(keys)}{''.join(parts)}{frame}</svg>"
    )
