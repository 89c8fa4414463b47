"""What many countries have stored, although files of some of them are damaged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from mlops_assets.errors import StorageError

_Found = TypeVar("_Found")


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
