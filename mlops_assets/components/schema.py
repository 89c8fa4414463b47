"""What each key of `attributes` may hold, in words and as JSON schema, both from `ProductSpec`."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import yaml

from mlops_assets.components.strict_yaml import Loc
from mlops_assets.spec import OVERRIDABLE, ProductSpec

Schema = Mapping[str, Any]

_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a table",
}
_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minLength": "that is not empty",
    "minItems": "with at least {} item",
    "minProperties": "with at least {} key",
}


@cache
def attributes_schema() -> dict[str, Any]:
    """JSON schema of `attributes` without references, so that it can be put into any other."""
    whole = ProductSpec.model_json_schema()
    schema = _inlined(whole, whole.pop("$defs", {}))
    schema["properties"]["overrides"]["additionalProperties"] = _override(schema["properties"])
    return schema


def _override(sections: Schema) -> dict[str, Any]:
    """What one country may change: any keys of the sections that can differ."""
    changes: dict[str, Any] = {}
    for name in sorted(OVERRIDABLE):
        kept = {key: value for key, value in sections[name].items() if key != "required"}
        changes[name] = copy.deepcopy(kept)
    share = changes["contract"]["properties"]["max_rejected_share"]
    changes["contract"]["properties"] = {"max_rejected_share": share}
    changes["contract"]["examples"] = [{"max_rejected_share": share["examples"][0]}]
    return {"type": "object", "properties": changes, "additionalProperties": False}


def _inlined(part: Any, definitions: Schema) -> Any:
    if isinstance(part, list):
        return [_inlined(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    reference = part.get("$ref", "")
    around = {key: value for key, value in part.items() if key != "$ref"}
    whole = {**definitions[reference.rpartition("/")[2]], **around} if reference else around
    return {key: _inlined(value, definitions) for key, value in whole.items()}


def known_part(loc: Loc) -> Loc:
    """The longest start of `loc` that the schema knows."""
    while loc and schema_of(loc) is None:
        loc = loc[:-1]
    return loc


def schema_of(loc: Loc) -> Schema | None:
    """Schema of the value at `loc`, or None when nothing may stand there."""
    schema: Schema | None = attributes_schema()
    for step in loc:
        schema = _below(schema, step) if schema is not None else None
    return schema


def _below(schema: Schema, step: str | int) -> Schema | None:
    for choice in schema.get("anyOf", [schema]):
        if isinstance(step, int) and "items" in choice:
            return choice["items"]
        if step in choice.get("properties", {}):
            return choice["properties"][step]
        if isinstance(step, str) and isinstance(choice.get("additionalProperties"), dict):
            return choice["additionalProperties"]
    return None


def expectation(loc: Loc) -> str:
    """What is expected at `loc`: its type and limits, then what it means."""
    loc = known_part(loc)
    schema = schema_of(loc) or {}
    described = _nearest(loc, "description")
    meaning = described[1]["description"] if described else ""
    phrase = _phrase(schema)
    if "default" in schema and schema["default"] not in (None, [], {}):
        phrase += f" (default {schema['default']})" if _is_scalar(schema["default"]) else ""
    return f"{phrase} ({meaning})" if meaning else phrase


def _phrase(schema: Schema) -> str:
    if "anyOf" in schema:
        choices = [_phrase(choice) for choice in schema["anyOf"] if choice.get("type") != "null"]
        return " or ".join(choices)
    if "enum" in schema or "const" in schema:
        return "one of " + ", ".join(schema.get("enum", [schema.get("const")]))
    kind = "a date (YYYY-MM-DD)" if schema.get("format") == "date" else ""
    kind = kind or _TYPES.get(schema.get("type", ""), "a value")
    limits = [text.format(schema[key]) for key, text in _LIMITS.items() if key in schema]
    return " ".join([kind, " and ".join(limits)]).strip()


def _is_scalar(value: object) -> bool:
    return isinstance(value, bool | int | float | str)


def example_value(loc: Loc) -> str:
    """A right line for `loc`, or for the nearest key around it that has an example."""
    found = _nearest(loc, "examples")
    if not found:
        return ""
    at, schema = found
    return _line(str(at[-1]), schema["examples"][0])


def _line(key: str, value: Any) -> str:
    text = yaml.safe_dump({key: value}, default_flow_style=True, sort_keys=False, width=10_000)
    return text.strip()[1:-1]


def _nearest(loc: Loc, attribute: str) -> tuple[Loc, Schema] | None:
    for length in range(len(loc), 0, -1):
        schema = schema_of(loc[:length])
        if schema and attribute in schema and isinstance(loc[length - 1], str):
            return loc[:length], schema
    return None


def keys_at(loc: Loc) -> list[str]:
    """Keys that the table at `loc` may have."""
    return list((schema_of(loc) or {}).get("properties", {}))


def closest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` was probably meant to be."""
    by_lower = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def homes_of(key: str) -> Iterator[str]:
    """Sections that have a key of this name."""
    for section, schema in attributes_schema()["properties"].items():
        properties = schema.get("properties") or schema.get("items", {}).get("properties", {})
        if key in properties:
            yield section
