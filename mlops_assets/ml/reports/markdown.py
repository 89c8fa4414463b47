"""Markdown of reports: tables, pictures inside the text, and text from outside made harmless."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from mlops_assets.ml.reports.tables import NOT_JUDGED

MOST_TABLE_ROWS = 40
MOST_TEXT = 300
"""Characters of a cell."""
_DATA = r"data:image/svg\+xml;base64,[A-Za-z0-9+/=]+"
_FIGURE = re.compile(rf"^\[(figure-\w+)\]: ({_DATA})\n", re.MULTILINE)


def without_figures(text: str) -> str:
    """A card for a terminal: the pictures themselves left out."""
    return _FIGURE.sub("", text).rstrip() + "\n"


def figures_last(text: str) -> str:
    """Pictures as references, their data at the end, so that the text can be read as it is."""
    found = {figure[1]: figure[2] for figure in _FIGURE.finditer(text)}

    def refer(picture: re.Match[str]) -> str:
        name = f"figure-{hashlib.sha256(picture[2].encode()).hexdigest()[:10]}"
        found[name] = picture[2]
        return f"![{picture[1]}][{name}]"

    body = re.sub(rf"!\[([^\]]*)\]\(({_DATA})\)", refer, _FIGURE.sub("", text)).rstrip()
    shown = dict.fromkeys(re.findall(r"\]\[(figure-\w+)\]", body))
    return "\n".join([body, "", *(f"[{name}]: {found[name]}" for name in shown)]) + "\n"


def escaped(value: object, most: int = MOST_TEXT) -> str:
    """Text that markdown shows as it is, in a cell of a table or within a line."""
    text = " ".join(str(value).split())
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~$])", r"\\\1", text)
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # within a word it is a letter
    return re.sub(r"(?i)\b(https?|ftp|mailto|www)([:.])", r"\1&#8203;\2", text)  # no links


def format_number(value: float) -> str:
    """Four significant digits; of one that is not known, that it was not judged."""
    return f"{value:.4g}" if np.isfinite(value) else NOT_JUDGED


def quoted(text: str) -> str:
    """A text of several lines as a quotation."""
    lines = [escaped(line, 1000) for line in text.strip().splitlines()[:MOST_TABLE_ROWS]]
    # What would begin a heading, a list or a rule begins nothing after a blank that has no width.
    plain = [re.sub(r"^(?=[#+=-]|\d+[.)])", "&#8203;", line) for line in lines]
    return "\n".join(f"> {line}".rstrip() for line in plain)


def image(svg: str, alt: str) -> str:
    """A picture inside the text."""
    encoded = base64.b64encode(svg.encode()).decode()
    return f"![{alt}](data:image/svg+xml;base64,{encoded})"


def facts_table(values: Mapping[str, object]) -> str:
    """A table of two columns; what is not there is left out."""
    rows = [(name, value) for name, value in values.items() if value not in (None, "")]
    return _rows(["", ""], rows)


def frame_table(frame: pd.DataFrame) -> str:
    """A frame as a table; of a long one the first rows, and how many are left out."""
    shown = frame.head(MOST_TABLE_ROWS)
    columns = [str(name).replace("_", " ") for name in frame.columns]
    text = _rows(columns, shown.itertuples(index=False))
    more = len(frame) - len(shown)
    return text if more <= 0 else f"{text}\n\n{more:,} more rows are with the MLflow run."


def _rows(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [[escaped(name) for name in columns], ["---"] * len(columns)]
    lines += [[escaped(_cell(value)) for value in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> object:
    if value is None or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d}" if value == value.normalize() else f"{value:%Y-%m-%d %H:%M}"
    return value
