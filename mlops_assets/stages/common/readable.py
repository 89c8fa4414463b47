"""What many countries have stored, although files of some of them are damaged."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from mlops_assets.errors import StorageError
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.storage import Snapshot
from mlops_assets.storage.io_manager import METADATA_PREFIX

_Found = TypeVar("_Found")
_UNREAD = f"{METADATA_PREFIX}unread"
"""JSON: the countries without whose rows something of all countries was made."""


@dataclass(frozen=True)
class Readable(Generic[_Found]):
    """What could be read.

    Attributes:
        found: of the other countries.
        damaged: country: why nothing of it could be read.
    """

    found: _Found
    damaged: Mapping[str, str]


def read_readable(
    countries: Sequence[str], read: Callable[[Sequence[str]], _Found]
) -> Readable[_Found]:
    """Read all countries but those whose own files are damaged or gone.

    Args:
        countries: wanted.
        read: reads those it is given, in one call; asked again without each that is damaged.

    Raises:
        StorageError: what went wrong is about no one of them, as a store that does not answer.
    """
    damaged: dict[str, str] = {}
    while True:
        try:
            return Readable(read([each for each in countries if each not in damaged]), damaged)
        except StorageError as error:
            country = error.culprits.get("partition")
            if country not in countries or country in damaged:
                raise
            damaged[str(country)] = error.problem


def unread_metadata(damaged: Mapping[str, str]) -> dict[str, str]:
    """What is stored with something of all countries that was made without those of `damaged`."""
    return {_UNREAD: json.dumps(sorted(damaged))} if damaged else {}


def readable_again(ctx: ProductContext, made: Snapshot, asset: str) -> list[str]:
    """Countries that something was made without, and whose files can be read now.

    A file that was put back has the content that it had: no hash tells that it was away.

    Args:
        ctx: the product.
        made: what was made of all countries.
        asset: of the countries, that it was made from.
    """
    unread = [
        each for each in json.loads(made.metadata.get(_UNREAD, "[]")) if each in ctx.countries
    ]
    if not unread:
        return []
    read = read_readable(unread, lambda wanted: ctx.store.read_all(ctx.path(asset), wanted))
    return [country for country in unread if country in read.found]
