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

_PLAIN = {
    "null": (re.compile(".*"), lambda _: None),
    "bool": (re.compile("true|false", re.IGNORECASE), lambda text: text.lower() == "true"),
    "int": (re.compile(r"[-+]?(0|[1-9]\d{0,17})"), int),
    "float": (re.compile(r"[-+]?(0|[1-9]\d*|(?=\.\d))(\.\d*)?([eE][-+]\d+)?"), float),
}
"""By kind: how it has to be written, and its value; every other kind is text."""
_LOOKS_NUMERIC = re.compile(r"[-+]?(0o[0-7]+|\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?")
_TEMPLATE = re.compile(r"\{\{|\{%|\{#")
_SURROGATE = re.compile("[\ud800-\udfff]")

_MAX_DEPTH = 30
_NO_TEMPLATES = (
    "the value itself, for templates are not filled in here: a product is what its file says"
)
_COMPOUND_KEYS = {
    yaml.MappingNode: ("a template {{ ... }} or a table as a key", _NO_TEMPLATES),
    yaml.SequenceNode: ("a list as a key", "a text"),
}
_MEANT = {
    "bool": "true or false",
    "int": "a whole number in plain digits, such as 1000",
    "float": "a finite number in plain digits, such as 0.5 or 1.0e-3",
    "merge": "the keys written out",
    "value": "something else",
    "str": "a number with a point and a signed exponent, such as 0.001 or 1.0e-3",
}
"""By the kind of a surprise: how to write what was perhaps meant."""


@dataclass(frozen=True)
class YamlProblem:
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
    problems: list[YamlProblem] = field(default_factory=list)

    def line(self, loc: Loc) -> int:
        """Line of `loc` or of the nearest key around it."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc, 1)

    def refuse(self, loc: Loc, found: str, expected: str, line: int | None = None) -> None:
        """Note a problem at `loc`, or at a line of its own."""
        self.problems.append(YamlProblem(loc, found, expected, line=line))


def read(content: bytes) -> Document:
    """The one mapping a file holds; `value` is None when there is none.

    Never raises: whatever is wrong is among the problems.
    """
    document = Document()
    try:
        roots = list(yaml.compose_all(content.decode("utf-8-sig"), _Composer))
    except (UnicodeDecodeError, yaml.YAMLError, ValueError, OverflowError) as error:
        document.refuse((), *_unreadable(content, error))
        return document
    if not roots:
        document.refuse((), "an empty file", "`type` and `attributes`")
    elif len(roots) > 1:
        expected = "one, for a folder is one product"
        document.refuse((), "several documents (---)", expected, _line(roots[1]))
    elif not isinstance(roots[0], yaml.MappingNode):
        kind = "a list" if isinstance(roots[0], yaml.SequenceNode) else "a single value"
        document.refuse((), kind, "a table with `type` and `attributes`")
    else:
        document.value = _value(roots[0], (), document)
    return document


class _Refused(yaml.MarkedYAMLError):
    """Something that YAML allows and this project does not: what, None, what instead, where."""


class _Composer(yaml.SafeLoader):
    """Nodes with their positions, without anchors and tags, to a sane depth."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()
        at = event.start_mark
        if event.anchor is not None:
            raise _Refused("an anchor or alias (& or *)", None, "the value written out", at)
        if event.tag is not None:
            raise _Refused(f"the tag {event.tag}", None, "a plain value; quote texts", at)
        if self.depth > _MAX_DEPTH:
            raise _Refused("very deep nesting", None, f"at most {_MAX_DEPTH} levels", at)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _unreadable(content: bytes, error: Exception) -> tuple[str, str, int]:
    """What was found, what was expected, and the line."""
    if isinstance(error, UnicodeDecodeError):
        line = content[: error.start].count(b"\n") + 1
        return "bytes that are not UTF-8", "a text file in UTF-8", line
    if isinstance(error, yaml.reader.ReaderError):
        line = content.decode("utf-8-sig")[: error.position].count("\n") + 1
        return f"the unprintable character {error.character!r}", "printable text", line
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line + 1 if mark else 1
    said = str(getattr(error, "problem", None) or error)
    if isinstance(error, _Refused):
        return str(error.context), said, line
    if "'\\t'" in said:
        return "a tab", "spaces, for YAML is not indented by tabs", line
    expected = "`key: value`, quoted where a text has : # or brackets"
    return f"something that is not YAML ({said})", expected, line


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _value(node: yaml.Node, loc: Loc, document: Document) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _table(node, loc, document)
    if isinstance(node, yaml.SequenceNode):
        document.lines.update({(*loc, i): _line(item) for i, item in enumerate(node.value)})
        return [_value(item, (*loc, i), document) for i, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)
    return _scalar(node, loc, document)


def _table(node: yaml.MappingNode, loc: Loc, document: Document) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line, key = _line(key_node), key_node.value
        if not isinstance(key_node, yaml.ScalarNode):
            document.refuse(loc, *_COMPOUND_KEYS[type(key_node)], line)
            continue
        at = (*loc, key)
        if key in table:
            found = f"the key `{key}` again; it stands in line {document.lines[at]} already"
            document.refuse(at, found, "every key once", line)
            continue
        document.lines[at] = line
        _check_key(key_node, at, document)
        table[key] = _value(value_node, at, document)
    return table


def _check_key(node: yaml.ScalarNode, loc: Loc, document: Document) -> None:
    """Keys are texts: what YAML reads as something else has to be quoted."""
    text = node.value
    if _TEMPLATE.search(text):
        document.refuse(loc, f"a template, {_as_written(node)}", _NO_TEMPLATES)
    value, surprise = _plain(node)
    if _SURROGATE.search(text):
        surprise = "a broken character"
    elif not surprise and not isinstance(value, str):
        surprise = f"{value} and no text"
    if surprise:
        found = f"the unquoted key {text or 'nothing'}, which is read as {surprise}"
        document.refuse(loc, found, f'a text; write "{text}"')


def _scalar(node: yaml.ScalarNode, loc: Loc, document: Document) -> Any:
    text = node.value
    document.written[loc] = _as_written(node)
    if _TEMPLATE.search(text):
        document.refuse(loc, f"a template, {_as_written(node)}", _NO_TEMPLATES)
        return text
    if _SURROGATE.search(text):
        document.refuse(loc, "half a surrogate pair", "whole characters")
        return ""
    value, surprise = _plain(node)
    if surprise:
        expected = f'a text, then write "{text}", or {_MEANT[_kind(node)]}'
        document.refuse(loc, f"unquoted {text}, which is read as {surprise}", expected)
    return value


def _plain(node: yaml.ScalarNode) -> tuple[Any, str | None]:
    """Value of a scalar and, if it may surprise, what YAML 1.1 reads it as; quoted ones do not."""
    text, kind = node.value, _kind(node)
    if kind in _PLAIN:
        form, value = _PLAIN[kind]
        if form.fullmatch(text):
            return value(text), None
        if kind == "bool":
            return text, str(yaml.SafeLoader.bool_values[text.lower()]).lower()
        return text, "a number in another notation"
    if kind in ("merge", "value"):
        return text, "a sign of YAML itself"
    if kind == "str" and node.style is None and _LOOKS_NUMERIC.fullmatch(text):
        return text, "text by some programs and a number by others"
    return text, None


def _kind(node: yaml.ScalarNode) -> str:
    """Of an unquoted scalar as YAML 1.1 resolves it, such as int; quoted ones are `str`."""
    return node.tag.rpartition(":")[2]


def _as_written(node: yaml.ScalarNode) -> str:
    return node.value if node.style is None else f'"{node.value}"'
