"""What tests of compat modules look for in the code of other packages."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any


def names_in(function: Callable[..., Any]) -> set[str]:
    """Every global and attribute that a function names, functions inside it too."""
    unwrapped: Any = inspect.unwrap(function)
    return set(_names(unwrapped.__code__))


def parameters(function: Callable[..., Any]) -> list[str]:
    """Names of what a function takes, in order."""
    return list(inspect.signature(function).parameters)


def typed(module: ModuleType) -> dict[str, str]:
    """What a compat module imports for the type checker alone, as name and module.

    Only names that it gives out, which are those imported under their own name.
    """
    (block,) = (
        node
        for node in ast.parse(Path(str(module.__file__)).read_text()).body
        if isinstance(node, ast.If)
    )
    return {
        alias.name: str(node.module)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)
