"""Names that other packages do not export, imported from where they lie when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Private:
    """A name of another package that no release promises to keep.

    Attributes:
        module: in which it is now.
        relied_on: what is used of it; a test of the compat module asks for just that.
    """

    module: str
    relied_on: str


def find(here: str, names: Mapping[str, Private], name: str) -> Any:
    """The object of a name; its module, which may be a heavy one, is imported now.

    Args:
        here: name of the compat module that is asked for it.
        names: all that this one has.
        name: of the object.

    Raises:
        AttributeError: the compat module has no such name, or the other package no longer has.
        ModuleNotFoundError: the module is gone from the other package.
    """
    if name not in names:
        raise AttributeError(f"module {here!r} has no attribute {name!r}")
    return getattr(import_module(names[name].module), name)
