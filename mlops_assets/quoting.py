"""Any text as a name: in the SQL of DuckDB, and in the few characters that a store takes.

Partition keys come from data and from YAML: `Côte d'Ivoire`, `a/b`, `..`. Each store refuses other
characters (a file system, MLflow's models, MLflow's tags), so each has a mark of its own; what is
escaped, and how, is the same for all.
"""

from __future__ import annotations

import re

_SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"


def identifier(name: str) -> str:
    """A name of a column, view or schema, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as a value."""
    return "'" + text.replace("'", "''") + "'"


def escape(text: str, mark: str, keep: str = "") -> str:
    """Every byte outside `A-Z a-z 0-9 _ -` and `keep` as the mark and two hex digits.

    Args:
        text: any.
        mark: one character that is neither of the safe ones nor kept.
        keep: ASCII characters that stay as they are, too.

    Returns:
        Text that `unescape` turns into the same again; others never lead to it.

    Raises:
        UnicodeEncodeError: the text is not valid Unicode.
    """
    safe = frozenset((_SAFE + keep).encode())
    return "".join(
        chr(byte) if byte in safe else f"{mark}{byte:02X}" for byte in text.encode("utf-8")
    )


def unescape(text: str, mark: str) -> str:
    """What `escape` wrote with this mark.

    Raises:
        ValueError: it wrote nothing like that.
    """
    raw = re.sub(re.escape(mark).encode() + rb"(..)", _byte, text.encode("ascii"))
    return raw.decode("utf-8")


def _byte(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 16)])
