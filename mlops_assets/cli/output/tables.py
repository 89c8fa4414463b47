"""Tables on a terminal, of which nothing is ever cut: no number, no verdict, no sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

_SENTENCES = frozenset({"why", "reason"})
"""Columns that may go on in another line of their cell."""
_LEAST_SENTENCE = 30  # characters a line
_GAP = 2


def table_lines(
    names: Sequence[str], rows: Sequence[Sequence[str]], room: int | None
) -> Iterator[str]:
    """A table in lines: side by side where that fits, else each row as a block of `name  value`.

    Args:
        names: of the columns.
        rows: their cells, each in one line.
        room: characters of a line; None where nobody cuts, so that a row is a line.
    """
    widths = [max(map(_width, column)) for column in zip(names, *rows, strict=True)]
    whole = sum(widths) + _GAP * (len(widths) - 1)
    if room is not None and whole > room:
        fitted = _folded(names, widths, room, whole)
        if fitted is None:
            yield from _blocks(names, rows)
            return
        widths = fitted
    for row in (names, *rows):
        yield from _row(row, widths)


def cell(value: Any) -> str:
    """A value in one line."""
    return " ".join(str(value).splitlines()) if isinstance(value, str) else str(value)


def _folded(names: Sequence[str], widths: Sequence[int], room: int, whole: int) -> list[int] | None:
    """Widths that fit once sentences go on in further lines; None where even so they do not."""
    sentences = [
        n in _SENTENCES and width > _LEAST_SENTENCE for n, width in zip(names, widths, strict=True)
    ]
    long = sum(sentences)
    if not long:
        return None
    fixed = whole - sum(width for width, folds in zip(widths, sentences, strict=True) if folds)
    each = (room - fixed) // long
    if each < _LEAST_SENTENCE:
        return None
    return [
        min(width, each) if folds else width for width, folds in zip(widths, sentences, strict=True)
    ]


def _row(cells: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    """One row, in as many lines as its longest cell takes."""
    parts = [_parts(text, width) for text, width in zip(cells, widths, strict=True)]
    for place in range(max(map(len, parts))):
        line = [part[place] if place < len(part) else "" for part in parts]
        padded = (
            text + " " * (width - _width(text)) for text, width in zip(line, widths, strict=True)
        )
        yield (" " * _GAP).join(padded).rstrip()


def _parts(text: str, width: int) -> list[str]:
    from textwrap import wrap

    return [text] if _width(text) <= width else wrap(text, width)


def _blocks(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Each row as lines of its own; the terminal goes on with what is longer than it is wide."""
    widest = max(map(_width, names), default=0)
    for place, row in enumerate(rows):
        if place:
            yield ""
        for name, value in zip(names, row, strict=True):
            yield f"{name}{' ' * (widest - _width(name))}  {value}".rstrip()


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
