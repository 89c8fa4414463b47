"""The one family of errors this project raises on purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def some(names: Sequence[str], most: int = 10, between: str = ", ") -> str:
    """The first of many names or texts, and how many more there are: nothing is cut in silence."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{between.join(names[:most])}{more}"


class MlopsAssetsError(Exception):
    """Something a person must know, in four parts.

    Args:
        problem: the culprit and the rule it broke, as one sentence.
        stored: what was and was not written.
        way_out: what to do next.
        culprits: the offending values as data, for programs.
    """

    def __init__(
        self,
        problem: str,
        *,
        stored: str = "Nothing was written.",
        way_out: str = "",
        culprits: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(" ".join(part for part in (problem, stored, way_out) if part))
        self.problem = problem
        self.stored = stored
        self.way_out = way_out
        self.culprits = dict(culprits or {})


class ConfigurationError(MlopsAssetsError):
    """A product's YAML, contract or function is wrong; raised before anything runs."""


class SourceError(MlopsAssetsError):
    """A source could not be read as what it claims to be."""


class ContractError(MlopsAssetsError):
    """A country's delivery breaks its contract beyond what the product allows."""


class StorageError(MlopsAssetsError):
    """A snapshot could not be written, found or read whole."""


class TrainingError(MlopsAssetsError):
    """A model could not be trained or judged on the rows there are."""


class RegistryError(MlopsAssetsError):
    """The model registry does not hold what it should, or holds what must not be loaded."""


class AlertError(MlopsAssetsError):
    """An alert could not be handed over."""


class BusyError(MlopsAssetsError):
    """Another process works on the same things in this home."""
