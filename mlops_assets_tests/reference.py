"""The table of every YAML key in the guide, made from the spec.

Write it again with `python -m mlops_assets_tests.reference`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlops_assets.components.schema import attributes_schema

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "docs" / "guide" / "adding-a-product.md"
BEGIN, END = "<!-- reference: begin -->", "<!-- reference: end -->"

_TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "null": "nothing",
    "array": "list",
    "object": "table",
}
_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
}
_LONG = 10**7


@dataclass(frozen=True)
class Key:
    """One key of `attributes` and its path, such as `candidates[].name`."""

    path: str
    required: bool
    schema: Mapping[str, Any]


def keys(schema: Mapping[str, Any] | None = None, above: str = "") -> Iterator[Key]:
    """Every key in the order of the spec, those of a section after the section."""
    schema = attributes_schema() if schema is None else schema
    for name, below in schema["properties"].items():
        path = f"{above}{name}"
        yield Key(path, name in schema.get("required", ()), below)
        items = below.get("items", {})
        below = next((part for part in below.get("anyOf", ()) if "properties" in part), below)
        if "properties" in below:
            yield from keys(below, f"{path}.")
        elif "properties" in items:
            yield from keys(items, f"{path}[].")


def table() -> str:
    """The markdown table."""
    head = "| key | value | default | meaning | example |\n|---|---|---|---|---|\n"
    return head + "".join(f"{_row(key)}\n" for key in keys())


def written() -> str:
    """The table as it stands in the guide."""
    return GUIDE.read_text(encoding="utf-8").partition(f"{BEGIN}\n")[2].partition(END)[0]


def write() -> None:
    """Replace the table in the guide."""
    text = GUIDE.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    GUIDE.write_text(f"{before}{BEGIN}\n{table()}{END}{after}", encoding="utf-8")


def _row(key: Key) -> str:
    cells = [f"`{key.path}`", _value(key.schema), _default(key), _meaning(key), _example(key)]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _meaning(key: Key) -> str:
    """The description, without the default that has a column of its own."""
    return re.sub(r"; default: none$", "", key.schema["description"])


def _value(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        choices = [_value(part) for part in schema["anyOf"] if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(choices))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{choice}`" for choice in schema.get("enum", [schema.get("const")]))
    if schema.get("format") == "date":
        return "date"
    kind = _TYPES[schema["type"]]
    if "items" in schema:
        kind += f" of {_value(schema['items'])}"
    limits = [
        text.format(_number(schema[name])) for name, text in _LIMITS.items() if name in schema
    ]
    return f"{kind}, {' and '.join(limits)}" if limits else kind


def _default(key: Key) -> str:
    if key.required:
        return "required"
    value = key.schema.get("default")
    if value in (None, [], {}):
        return "none"
    if isinstance(value, Mapping):
        return "those below"
    return f"`{_inline(value)}`"


def _example(key: Key) -> str:
    name = key.path.rpartition(".")[2]
    return f"`{_inline({name: key.schema['examples'][0]}).strip()[1:-1]}`"


def _inline(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=_LONG)
    return text.removesuffix("...\n").strip()


def _number(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e6 else str(value)


if __name__ == "__main__":
    write()
