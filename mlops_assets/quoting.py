"""Names and texts in the SQL of DuckDB."""

from __future__ import annotations


def identifier(name: str) -> str:
    """A name of a column, view or schema, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as a value."""
    return "'" + text.replace("'", "''") + "'"
