"""Any text as one safe file name, and back.

Partition and asset keys come from data and from YAML: `Côte d'Ivoire`, `a/b`, `..`. Every byte
outside `A-Z a-z 0-9 _ -` is written as `%XX`, so the encoded text has no separator, no dot and no
shell or SQL quote, and names made here can never meet the store's own names, which all hold a
character that is always encoded (`.` or `=`).
"""

from __future__ import annotations

import re

from mlops_assets.errors import StorageError
from mlops_assets.quoting import escape, unescape

MAX_ENCODED_BYTES = 247
"""255, the longest file name of common file systems, less the prefix `country=` or a suffix."""

_SAFE = re.compile(r"[A-Za-z0-9_-]+")
_ENCODED = re.compile(r"(?:[A-Za-z0-9_-]|%[0-9A-F]{2})+")


def encode_key(key: str) -> str:
    """One key as one file name.

    Args:
        key: any non-empty text.

    Returns:
        1 to 247 ASCII characters of `A-Za-z0-9_-%`; `decode_key` gives the key back.

    Raises:
        StorageError: the key is empty, not valid Unicode, or too long for a file name.
    """
    if not key:
        raise StorageError(
            "A storage key is empty; it must name something.",
            way_out="Give every asset and partition a name.",
        )
    encoded = key if _SAFE.fullmatch(key) else _percent(key)
    if len(encoded) > MAX_ENCODED_BYTES:
        raise StorageError(
            f"The key {key[:40]!r}... takes {len(encoded)} bytes as a file name; "
            f"the most is {MAX_ENCODED_BYTES}.",
            way_out="Shorten it.",
            culprits={"key": key},
        )
    return encoded


def decode_key(text: str) -> str:
    """The key that `encode_key` wrote as `text`.

    Raises:
        StorageError: `text` is not something `encode_key` writes.
    """
    try:
        key = unescape(text, "%")
    except ValueError:
        key = ""
    if not _ENCODED.fullmatch(text) or not key or _percent(key) != text:
        raise StorageError(
            f"{text!r} is not an encoded storage key.",
            way_out="Look for a file or folder in the storage root that something else made.",
            culprits={"text": text},
        )
    return key


def _percent(key: str) -> str:
    try:
        return escape(key, "%")
    except UnicodeEncodeError as error:
        raise StorageError(
            f"The key {key!r} is not valid Unicode.",
            way_out="Correct it where it comes from.",
            culprits={"key": key},
        ) from error
