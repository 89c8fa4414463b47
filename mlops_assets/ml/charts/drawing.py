"""Parts of drawings as SVG text: axes, lines, bars, whiskers, legends; no plotting library.

A report has a dozen charts for every country: one takes 0.7 ms and 11 kB here, and 25 ms and 41 kB
with matplotlib.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

MODEL, TRUTH, NAIVE, CHAMPION, BAND = "#1f5fa8", "#222222", "#c05a1c", "#2e7d4f", "#cfe0f3"
MUTED, FADED, GRID, FRAME = "#9a9a9a", "#5b7896", "#ddd", "#666"

_NOT_XML = re.compile(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document may hold, not even escaped."""

Mark = Literal["box", "dot", "diamond", "line", "dashes"]


@dataclass(frozen=True)
class Box:
    """Size of a drawing and the room around its plot, in pixels."""

    width: int = 720
    height: int = 320
    left: int = 64
    right: int = 16
    top: int = 56
    bottom: int = 44

    @property
    def base(self) -> int:
        """Where the lower edge of the plot is."""
        return self.height - self.bottom


@dataclass(frozen=True)
class Axes:
    """Maps values to places in the drawing."""

    x: tuple[float, float]
    y: tuple[float, float]
    box: Box = Box()

    def across(self, values: np.ndarray) -> np.ndarray:
        """Pixels from the left."""
        low, high = self.x
        return self.box.left + (values - low) / (high - low) * (
            self.box.width - self.box.left - self.box.right
        )

    def up(self, values: np.ndarray) -> np.ndarray:
        """Pixels from the top."""
        low, high = self.y
        return self.box.base - (values - low) / (high - low) * (self.box.base - self.box.top)

    def x_at(self, value: float) -> float:
        """Pixels from the left of one value."""
        return float(self.across(np.array(value)))

    def y_at(self, value: float) -> float:
        """Pixels from the top of one value."""
        return float(self.up(np.array(value)))


@dataclass(frozen=True)
class Key:
    """An entry of the legend."""

    name: str
    color: str
    mark: Mark = "box"


def extent(*series: np.ndarray) -> tuple[float, float]:
    """Lowest and highest finite value, with some room; never empty. 0 stays the edge it is."""
    values = np.concatenate([np.ravel(each) for each in series]) if series else np.empty(0)
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    room = (high - low) * 0.04 or max(abs(high) * 0.05, 1.0)
    return (low - room if low else low), high + room


def nice_steps(low: float, high: float, wanted: int = 5) -> np.ndarray:
    """Round values (1, 2, 5 times a power of ten apart) within the range."""
    raw = (high - low) / wanted
    power = 10.0 ** np.floor(np.log10(raw))
    step = power * min((n for n in (1, 2, 5, 10) if n * power >= raw), default=10)
    return np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step


def value_ticks(axes: Axes, caption: str) -> list[str]:
    """Grid lines and numbers at the vertical axis, with what they are."""
    box, steps = axes.box, nice_steps(*axes.y)
    places = axes.up(steps)
    parts = [_grid(f"M{box.left} {at:.1f}H{box.width - box.right}" for at in places)]
    for value, at in zip(steps, places, strict=True):
        parts.append(text(box.left - 6, at + 4, number(value), "end"))
    middle = (box.top + box.base) / 2
    parts.append(
        f'<text x="14" y="{middle:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {middle:.0f})">{_xml(caption)}</text>'
    )
    return parts


def measure_ticks(axes: Axes, caption: str, *, share: bool = False) -> list[str]:
    """Grid lines and numbers at the horizontal axis, with what they are.

    Args:
        axes: of the drawing.
        caption: under the numbers.
        share: write them as percentages.
    """
    box, steps = axes.box, nice_steps(*axes.x)
    places = axes.across(steps)
    parts = [_grid(f"M{at:.1f} {box.top}V{box.base}" for at in places)]
    for value, at in zip(steps, places, strict=True):
        parts.append(bottom_label(axes, at, f"{number(100 * value)} %" if share else number(value)))
    middle = (box.left + box.width - box.right) / 2
    return [*parts, text(middle, box.height - 8, caption, "middle")]


def time_ticks(axes: Axes) -> list[str]:
    """Dates at the horizontal axis, whose values are nanoseconds."""
    places = np.linspace(*axes.x, 7)[1:-1]
    return [
        bottom_label(axes, at, pd.Timestamp(int(place)).strftime("%Y-%m-%d"))
        for place, at in zip(places, axes.across(places), strict=True)
    ]


def bottom_label(axes: Axes, x: float, label: str) -> str:
    """A mark and a text under the plot."""
    base = axes.box.base
    return segment(x, base, x, base + 4, color=FRAME) + text(x, base + 17, label, "middle")


def row_labels(axes: Axes, names: Sequence[str]) -> list[str]:
    """Names of rows left of the plot, the first one on top; row `n` is at height `n + 0.5`."""
    return [
        text(axes.box.left - 8, axes.y_at(place + 0.5) + 4, shortened(name), "end")
        for place, name in enumerate(names)
    ]


def shortened(name: str, most: int = 33) -> str:
    """A name that fits beside the plot."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def stretches(known: np.ndarray) -> list[np.ndarray]:
    """Positions of each run of known values."""
    breaks = np.flatnonzero(np.diff(known.astype("int8")))
    runs = np.split(np.arange(len(known)), breaks + 1)
    return [run for run in runs if len(run) and known[run[0]]]


def line(axes: Axes, x: np.ndarray, y: np.ndarray, color: str, *, dashed: bool = False) -> str:
    """One polyline for each stretch without a gap."""
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return "".join(
        f'<polyline fill="none" stroke="{color}" stroke-width="1.3"{dashes} '
        f'points="{_points(axes.across(x[run]), axes.up(y[run]))}"/>'
        for run in stretches(np.isfinite(y))
    )


def band(axes: Axes, x: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> list[str]:
    """One polygon for each stretch with both ends: along the lower one and back."""
    if not len(lower) or not len(upper):
        return []
    parts = []
    for run in stretches(np.isfinite(lower) & np.isfinite(upper)):
        round_trip = np.concatenate([x[run], x[run][::-1]])
        ends = np.concatenate([lower[run], upper[run][::-1]])
        points = _points(axes.across(round_trip), axes.up(ends))
        parts.append(f'<polygon fill="{BAND}" points="{points}"/>')
    return parts


def bar(left: float, top: float, right: float, bottom: float, *, color: str) -> str:
    """A filled rectangle; nothing where an edge is not known."""
    if not np.isfinite([left, top, right, bottom]).all():
        return ""
    x, y = min(left, right), min(top, bottom)
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{abs(right - left):.1f}" '
        f'height="{abs(bottom - top):.1f}" fill="{color}"/>'
    )


def segment(
    x1: float, y1: float, x2: float, y2: float, *, color: str, width: float = 1.0, dash: str = ""
) -> str:
    """A straight line; nothing where an end is not known."""
    if not np.isfinite([x1, y1, x2, y2]).all():
        return ""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}" stroke="{color}" '
        f'stroke-width="{width:g}"{dashes}/>'
    )


def dot(x: float, y: float, color: str, *, radius: float = 3.5) -> str:
    """A filled circle; nothing where the place is not known."""
    return dots(np.array([x]), np.array([y]), color, radius=radius)


def dots(x: np.ndarray, y: np.ndarray, color: str, *, radius: float = 3.5) -> str:
    """Filled circles as one line with round ends at each place that is known."""
    known = np.isfinite(x) & np.isfinite(y)
    places = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(x[known], y[known], strict=True))
    if not places:
        return ""
    return (
        f'<path d="{places}" stroke="{color}" stroke-width="{2 * radius:g}" '
        'stroke-linecap="round"/>'
    )


def diamond(x: float, y: float, color: str) -> str:
    """A hollow diamond: what something is compared with; nothing where the place is not known."""
    if not np.isfinite([x, y]).all():
        return ""
    path = f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z"
    return f'<path d="{path}" fill="#fff" stroke="{color}" stroke-width="1.6"/>'


def whisker(x1: float, x2: float, y: float, color: str) -> str:
    """A horizontal interval with its ends; nothing where an end is not known."""
    if not np.isfinite([x1, x2, y]).all():
        return ""
    path = f"M{x1:.1f} {y - 4:.1f}v8m0 -4H{x2:.1f}m0 -4v8"
    return f'<path d="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>'


def text(x: float, y: float, words: str, anchor: str, *, color: str = "") -> str:
    """Words at a place."""
    fill = f' fill="{color}"' if color else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{fill}>{_xml(words)}</text>'


def number(value: float) -> str:
    """A number of an axis; never -0."""
    return f"{value + 0.0:.6g}"


def svg(title: str, legend: Sequence[Key], parts: Sequence[str], box: Box = Box()) -> str:
    """The whole drawing: title, legend, parts and the frame of the plot."""
    frame = (
        f'<path d="M{box.left} {box.top}V{box.base}H{box.width - box.right}" fill="none" '
        f'stroke="{FRAME}"/>'
    )
    named = _xml(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {box.width} {box.height}" '
        f'width="{box.width}" height="{box.height}" font-family="sans-serif" font-size="12" '
        f'fill="#222" role="img" aria-label="{named}">'
        f'<rect width="{box.width}" height="{box.height}" fill="#fff"/>'
        f'<text x="16" y="22" font-size="15" font-weight="bold">{_xml(title)}</text>'
        f"{''.join(_legend(legend))}{''.join(parts)}{frame}</svg>"
    )


def _legend(keys: Sequence[Key]) -> list[str]:
    parts, x = [], 16
    for key in keys:
        parts.append(_mark(key, x))
        parts.append(text(x + 19, 42, key.name, "start"))
        x += 36 + int(6.5 * len(key.name))
    return parts


def _mark(key: Key, x: float) -> str:
    if key.mark == "dot":
        return dot(x + 7, 38, key.color)
    if key.mark == "diamond":
        return diamond(x + 7, 38, key.color)
    if key.mark == "box":
        return bar(x, 34, x + 14, 42, color=key.color)
    return segment(
        x, 38, x + 14, 38, color=key.color, width=1.6, dash="4 3" * (key.mark == "dashes")
    )


def _grid(lines: Iterable[str]) -> str:
    return f'<path d="{"".join(lines)}" stroke="{GRID}" stroke-width="0.7"/>'


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _xml(words: str) -> str:
    return html.escape(_NOT_XML.sub("\ufffd", words), quote=True)
