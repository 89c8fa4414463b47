"""Names of features: what a function gives, as text that every later place can hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

from mlops_assets.spec import FEATURE_KEYS

_OWN = frozenset({*FEATURE_KEYS, "_country"})
"""Columns that frames, or tables made of them, have beside the features."""
_LONGEST = 200


def as_texts(names: Iterable[Hashable]) -> list[str]:
    """Names as text: 7 is "7", True is "True", ("lag", 7) as of a pivot is "lag_7"."""
    return [
        "_".join(str(part) for part in name if part != "") if isinstance(name, tuple) else str(name)
        for name in names
    ]


def name_problems(names: Sequence[Hashable]) -> dict[str, str]:
    """Names that cannot be those of features, with the reason; in order.

    Args:
        names: as the function gives them, `FEATURE_KEYS` among them.
    """
    texts = as_texts(names)
    times, lower = Counter(texts), Counter(text.lower() for text in set(texts))
    return {
        text: reason
        for name, text in zip(names, texts, strict=True)
        if (reason := _problem(name, text, times[text], lower[text.lower()]))
    }


def _problem(name: Hashable, text: str, times: int, in_any_case: int) -> str:
    if times > 1:
        kind = "" if isinstance(name, str) else " once it is text"
        return f"is there {times} times{kind}"
    if name is None or name != name or not text.strip():
        return "is empty"
    if text != text.strip() or not text.isprintable():
        return "has blanks around it or characters that cannot be printed"
    if len(text) > _LONGEST:
        return f"has more than {_LONGEST} characters"
    if in_any_case > 1:
        return "differs from another one by capital letters alone, which SQL does not tell apart"
    if text.lower() in _OWN and text not in FEATURE_KEYS:
        return f"is that of the platform's own column {text.lower()}"
    return ""
