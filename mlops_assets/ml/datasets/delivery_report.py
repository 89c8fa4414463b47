"""What a delivery has that the earlier ones did not, and what it lacks."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mlops_assets.errors import some
from mlops_assets.spec import ContractSpec

_EARLIER = 2
"""Deliveries that had a country, at least, for one without it to be told."""
_USUAL = 5
"""Deliveries of a country a median of its rows is taken of, at least."""
_NAMES = 5  # shown where a list could be long


@dataclass(frozen=True)
class FileFacts:
    """One file of a delivery.

    Attributes:
        name: below the landing folder.
        rows: in it.
        columns: as published; empty when they are not known any more.
        by_country: listed country: rows.
        unlisted_rows: rows of other countries.
        set_aside: why no row of it was taken; "" for a file that was.
    """

    name: str
    rows: int
    columns: tuple[str, ...]
    by_country: Mapping[str, int]
    unlisted_rows: int = 0
    set_aside: str = ""


@dataclass(frozen=True)
class DeliveryFacts:
    """The files of one ingestion.

    Attributes:
        files: that it took, and those that it set aside.
        whole: whether it was for every listed country.
    """

    files: tuple[FileFacts, ...]
    whole: bool = True

    @property
    def taken(self) -> list[FileFacts]:
        """The files that are not set aside."""
        return [file for file in self.files if not file.set_aside]

    @property
    def by_country(self) -> dict[str, int]:
        """Listed country: rows in all files."""
        found: dict[str, int] = {}
        for file in self.files:
            for country, rows in file.by_country.items():
                found[country] = found.get(country, 0) + rows
        return {country: rows for country, rows in found.items() if rows}

    def summary(self) -> str:
        """Files, rows and countries in a line."""
        names = _listed([file.name for file in self.taken])
        aside = _listed([file.name for file in self.files if file.set_aside])
        rows, by_country = sum(file.rows for file in self.files), self.by_country
        unlisted = sum(file.unlisted_rows for file in self.files)
        more = f"; {unlisted:,} rows of countries that are not listed" if unlisted else ""
        more += f"; set aside: {aside}" if aside else ""
        return (
            f"files: {len(self.taken):,}{f' ({names})' if names else ''}; rows: {rows:,}; "
            f"countries: {len(by_country):,}{more}"
        )


def compare_deliveries(
    now: DeliveryFacts,
    earlier: Sequence[DeliveryFacts],
    limits: Mapping[str, ContractSpec],
) -> tuple[str, ...]:
    """What is unusual about a delivery, a sentence each; nothing without earlier ones.

    Args:
        now: the delivery.
        earlier: those before, oldest first.
        limits: country: how many rows are usual.
    """
    earlier = [each for each in earlier if each.taken]
    return (
        *_set_aside(now),
        *_columns(now, earlier),
        *_missing_countries(now, [each for each in earlier if each.whole]),
        *_unusual_rows(now, earlier, limits),
    )


def _set_aside(now: DeliveryFacts) -> Iterator[str]:
    aside = [file.name for file in now.files if file.set_aside]
    if aside:
        yield f"set aside, so that no row of it is used: {some(aside, _NAMES)}"


def _columns(now: DeliveryFacts, earlier: Sequence[DeliveryFacts]) -> Iterator[str]:
    """Columns that every earlier file had, and those that none had, by the files they concern."""
    known = [set(file.columns) for each in earlier for file in each.files if file.columns]
    if not known:
        return
    always, ever = set.intersection(*known), set.union(*known)
    found: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for file in now.files:
        missing = tuple(sorted(always - set(file.columns))) if file.columns else ()
        new = tuple(name for name in file.columns if name not in ever)
        if missing or new:
            found.setdefault((missing, new), []).append(file.name)
    for (missing, new), files in found.items():
        said = []
        if missing:
            said.append(f"no column {_quoted(missing)}, which every earlier file had")
        if new:
            said.append(f"a column {_quoted(new)}, which no earlier file had")
        yield f"{_listed(files)}: {'; '.join(said)}"


def _missing_countries(now: DeliveryFacts, earlier: Sequence[DeliveryFacts]) -> Iterator[str]:
    if not now.whole or not now.taken or len(earlier) < _EARLIER:
        return
    always = set.intersection(*(set(each.by_country) for each in earlier))
    missing = sorted(always - set(now.by_country))
    if missing:
        yield (
            f"no row of {_listed(missing)}, which all of the {len(earlier):,} deliveries before had"
        )


def _unusual_rows(
    now: DeliveryFacts, earlier: Sequence[DeliveryFacts], limits: Mapping[str, ContractSpec]
) -> Iterator[str]:
    """Countries with many more or fewer rows than the median of their earlier deliveries."""
    found = []
    before: dict[str, list[int]] = {}
    for each in earlier:
        for country, rows in each.by_country.items():
            before.setdefault(country, []).append(rows)
    for country, rows in now.by_country.items():
        counts = before.get(country, [])
        if len(counts) < _USUAL or country not in limits:
            continue
        usual, limit = statistics.median(counts), limits[country]
        if not limit.min_volume_ratio * usual <= rows <= limit.max_volume_ratio * usual:
            found.append(f"{country} {rows:,} (usually {usual:,.0f})")
    if found:
        yield f"rows far from the usual number: {_listed(found)}"


def _quoted(names: Sequence[str]) -> str:
    return _listed([repr(name) for name in names])


def _listed(names: Sequence[str]) -> str:
    """The first of them, and how many there are."""
    shown = ", ".join(names[:_NAMES])
    return f"{shown} and {len(names) - _NAMES:,} more" if len(names) > _NAMES else shown
