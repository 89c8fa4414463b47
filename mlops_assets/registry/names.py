"""What a country is called in MLflow: in the name of its model, and in names of tags.

MLflow takes other characters in either, refuses what looks like a path that leads elsewhere, and
cuts nothing. Both are reversible, so that no two countries meet in one name.
"""

from __future__ import annotations

from mlops_assets.quoting import escape, unescape

_MODEL, _TAG = "~", ":"
_KEPT_IN_TAGS = " ."


def registered_name(product: str, country: str) -> str:
    """`<product>.<COUNTRY>` with characters MLflow refuses written as `~XX`, reversibly."""
    return f"{product}.{escape(country, _MODEL)}"


def country_named(name: str) -> str:
    """The country, or what stands for it, that `registered_name` wrote.

    Raises:
        ValueError: it wrote no such name.
    """
    return unescape(name.partition(".")[2], _MODEL)


def tag_name(prefix: str, key: str) -> str:
    """`<prefix><key>` as MLflow takes it for a tag: other characters as `:XX`, reversibly."""
    return prefix + escape(key, _TAG, _KEPT_IN_TAGS)


def key_of_tag(prefix: str, name: str) -> str:
    """The key that `tag_name` wrote behind a prefix.

    Raises:
        ValueError: it wrote no such name.
    """
    return unescape(name.removeprefix(prefix), _TAG)
