"""YAML that means what it looks like, with the line of every key.

Texts that two versions of YAML read differently (`NO`, `on`, `010`, `1:30`, `1e-3`) are refused
instead of guessed, and so are duplicate keys, anchors, tags and templates. What is accepted reads
the same here, in Dagster's loader and in an editor.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

Loc = tuple[str | int, ...]
"""Keys and list positions that lead to a value."""

WHOLE_NUMBER = re.compile(r"[-+]?(0|[1-9]\d{0,17})")
NUMBER = re.compile(r"[-+]?(0|[1-9]\d*|(?=\.\d))(\.\d*)?([eE][-+]\d+)?")
LOOKS_NUMERIC = re.compile(r"[-+]?(0o[0-7]+|\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?")
TEMPLATE = re.compile(r"\{\{|\{%|\{#")

_MAX_DEPTH = 30
_TAG = "tag:yaml.org,2002:"
_NO_TEMPLATES = (
    "the value itself, for templates are not filled in here: a product is what its file says"
)


@dataclass(frozen=True)
class Problem:
    """One thing to correct.

    Attributes:
        loc: keys that lead to it.
        found: what stands there.
        expected: what should, as a phrase.
        example: a line that would be right; empty when the phrase says it all.
        line: its line, counted from 1; None: that of `loc`.
        is_rule: `found` is a sentence about the rule that is broken.
    """

    loc: Loc
    found: str
    expected: str
    example: str = ""
    line: int | None = None
    is_rule: bool = False


@dataclass
class Document:
    """What a file says.

    Attributes:
        value: texts, numbers, booleans, None, lists and dicts with text keys.
        lines: line of every key and list item, counted from 1.
        written: every scalar as it is written, quotes included.
        problems: what was refused; `value` holds the text as written in its place.
    """

    value: Any = None
    lines: dict[Loc, int] = field(default_factory=dict)
    written: dict[Loc, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, loc: Loc) -> int:
        """Line of `loc` or of the nearest key around it."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc, 1)

    def refuse(self, loc: Loc, found: str, expected: str, example: str = "") -> None:
        """Note a problem at `loc`."""
        self.problems.append(Problem(loc, found, expected, example))


def read(content: bytes) -> Document:
    """The one mapping a file holds; `value` is None when there is none.

    Never raises: whatever is wrong is among the problems.
    """
    document = Document()
    try:
        roots = _compose(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, yaml.YAMLError, ValueError, OverflowError) as error:
        document.problems.append(_unreadable(content, error))
        return document
    if not roots:
        document.refuse((), "an empty file", "`type` and `attributes`")
    elif len(roots) > 1:
        again = roots[1].start_mark.line + 1
        expected = "one, for a folder is one product"
        document.problems.append(Problem((), "several documents (---)", expected, "", again))
    elif not isinstance(roots[0], yaml.MappingNode):
        document.refuse((), _kind(roots[0]), "a table with `type` and `attributes`")
    else:
        document.value = _value(roots[0], (), document)
    return document


class _Composer(yaml.SafeLoader):
    """Nodes with their positions, without anchors and tags, to a sane depth."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if getattr(event, "anchor", None) is not None:
            raise _refused("an anchor or alias (& or *)", "the value written out", event)
        if getattr(event, "tag", None) is not None:
            raise _refused(f"the tag {event.tag}", "a plain value; quote texts", event)
        if self.depth > _MAX_DEPTH:
            raise _refused("very deep nesting", f"at most {_MAX_DEPTH} levels", event)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Refused(yaml.MarkedYAMLError):
    """Something that YAML allows and this project does not."""


def _refused(found: str, expected: str, event: yaml.Event) -> _Refused:
    return _Refused(found, None, expected, event.start_mark)


def _compose(text: str) -> list[yaml.Node]:
    loader = _Composer(text)
    try:
        roots = []
        while loader.check_node():
            roots.append(loader.get_node())
        return roots
    finally:
        loader.dispose()


def _unreadable(content: bytes, error: Exception) -> Problem:
    if isinstance(error, UnicodeDecodeError):
        line = content[: error.start].count(b"\n") + 1
        return Problem((), "bytes that are not UTF-8", "a text file in UTF-8", "", line)
    if isinstance(error, _Refused):
        assert error.problem_mark is not None
        found, expected = str(error.context), str(error.problem)
        return Problem((), found, expected, "", error.problem_mark.line + 1)
    if isinstance(error, yaml.reader.ReaderError):
        line = content.decode("utf-8-sig")[: error.position].count("\n") + 1
        found = f"the unprintable character {error.character!r}"
        return Problem((), found, "printable text", "", line)
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = str(getattr(error, "problem", None) or error)
    line = mark.line + 1 if mark else 1
    if "'\\t'" in said:
        return Problem((), "a tab", "spaces, for YAML is not indented by tabs", "", line)
    found = f"something that is not YAML ({said})"
    return Problem((), found, "`key: value`, quoted where a text has : # or brackets", "", line)


def _kind(node: yaml.Node) -> str:
    return "a list" if isinstance(node, yaml.SequenceNode) else "a single value"


def _value(node: yaml.Node, loc: Loc, document: Document) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _table(node, loc, document)
    if isinstance(node, yaml.SequenceNode):
        for place, item in enumerate(node.value):
            document.lines[*loc, place] = item.start_mark.line + 1
        return [_value(item, (*loc, i), document) for i, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)
    return _scalar(node, loc, document)


def _table(node: yaml.MappingNode, loc: Loc, document: Document) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            _refuse_compound_key(key_node, loc, document)
            continue
        key = key_node.value
        at = (*loc, key)
        line = key_node.start_mark.line + 1
        if key in table:
            found = f"the key `{key}` again; it stands in line {document.lines[at]} already"
            document.problems.append(Problem(at, found, "every key once", "", line))
            continue
        document.lines[at] = line
        _check_key(key_node, at, document)
        table[key] = _value(value_node, at, document)
    return table


def _refuse_compound_key(key: yaml.Node, loc: Loc, document: Document) -> None:
    if isinstance(key, yaml.MappingNode):
        found, expected = "a template {{ ... }} or a table as a key", _NO_TEMPLATES
    else:
        found, expected = "a list as a key", "a text"
    document.problems.append(Problem(loc, found, expected, "", key.start_mark.line + 1))


def _check_key(node: yaml.ScalarNode, loc: Loc, document: Document) -> None:
    """Keys are texts: what YAML reads as something else has to be quoted."""
    if TEMPLATE.search(node.value):
        document.refuse(loc, f"a template, {_as_written(node)}", _NO_TEMPLATES)
    if _is_quoted(node):
        meaning = None if _is_storable(node.value) else "a broken character"
    else:
        value, surprise = _plain(node)
        meaning = surprise or (None if isinstance(value, str) else f"{value} and no text")
    if meaning:
        found = f"the unquoted key {node.value or 'nothing'}, which is read as {meaning}"
        document.refuse(loc, found, f'a text; write "{node.value}"')


def _scalar(node: yaml.ScalarNode, loc: Loc, document: Document) -> Any:
    document.written[loc] = _as_written(node)
    if TEMPLATE.search(node.value):
        document.refuse(loc, f"a template, {_as_written(node)}", _NO_TEMPLATES)
        return node.value
    if not _is_storable(node.value):
        document.refuse(loc, "half a surrogate pair", "whole characters")
        return ""
    if _is_quoted(node):
        return node.value
    value, surprise = _plain(node)
    if surprise:
        found = f"unquoted {node.value}, which is read as {surprise}"
        document.refuse(loc, found, f'a text, then write "{node.value}", or {_MEANT[node.tag]}')
    return value


_MEANT = {
    f"{_TAG}bool": "true or false",
    f"{_TAG}int": "a whole number in plain digits, such as 1000",
    f"{_TAG}float": "a finite number in plain digits, such as 0.5 or 1.0e-3",
    f"{_TAG}merge": "the keys written out",
    f"{_TAG}value": "something else",
    f"{_TAG}str": "a number with a point and a signed exponent, such as 0.001 or 1.0e-3",
}
"""By the tag of a surprise: how to write what was perhaps meant."""


def _plain(node: yaml.ScalarNode) -> tuple[Any, str | None]:
    """Value of an unquoted scalar and, if it may surprise, what YAML 1.1 reads it as."""
    text = node.value
    match node.tag.removeprefix(_TAG):
        case "null":
            return None, None
        case "bool":
            meaning = yaml.SafeLoader.bool_values[text.lower()]
            plain = text.lower() in ("true", "false")
            return (meaning, None) if plain else (text, str(meaning).lower())
        case "int":
            plain = WHOLE_NUMBER.fullmatch(text)
            return (int(text), None) if plain else (text, "a number in another notation")
        case "float":
            plain = NUMBER.fullmatch(text)
            return (float(text), None) if plain else (text, "a number in another notation")
        case "merge" | "value":
            return text, "a sign of YAML itself"
        case _:
            surprising = LOOKS_NUMERIC.fullmatch(text)
            return text, "text by some programs and a number by others" if surprising else None


def _is_quoted(node: yaml.ScalarNode) -> bool:
    return node.style is not None


def _is_storable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _as_written(node: yaml.ScalarNode) -> str:
    return f'"{node.value}"' if _is_quoted(node) else node.value
