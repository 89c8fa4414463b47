"""How the files of a source are to be read, and what a file without its columns is told.

What is not said in the YAML is proposed here and never assumed: the message of a file that cannot
be read names the line to add.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from mlops_assets.spec import SourceSpec

SEPARATOR_LINE = "sep="
_CLOSE = 0.6
_CHANGE = "Rename the column, or set `source.columns` of the product to the published name."
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_IN = "-"  # between the hash of a content and that of the folders it lies in
_SIGNS = (",", ";", "\t", "|")


class Unusable(Exception):
    """Why a file is set aside: the rule it breaks and the way out. Never leaves the package."""

    def __init__(self, rule: str, way_out: str) -> None:
        super().__init__(rule)
        self.rule = rule
        self.way_out = way_out


@dataclass(frozen=True)
class Reading:
    """How the files of a source are read.

    Attributes:
        country: the names under which the country is published.
        encoding: of CSV and JSON lines.
        delimiter: of CSV; "" for the one with which the header has the country.
        skip_rows: lines above the header of CSV.
        folders: published columns that stand in names of folders.
    """

    country: tuple[str, ...]
    encoding: str = "utf-8"
    delimiter: str = ""
    skip_rows: int = 0
    folders: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: SourceSpec | Reading | str) -> Reading:
        """As the YAML says; a bare name is that of the country's column."""
        if isinstance(source, Reading):
            return source
        if isinstance(source, str):
            return cls((source,))
        return cls(
            source.published(source.country),
            source.encoding,
            source.delimiter or "",
            source.skip_rows,
            tuple(source.folder_columns),
        )

    @property
    def options(self) -> str:
        """One text for all that decides which rows a file has; "" where nothing is said."""
        said = (self.encoding, self.delimiter, self.skip_rows, self.folders)
        return "" if said == ("utf-8", "", 0, ()) else repr(said)

    @property
    def signature(self) -> str:
        """The same with the column that is counted by; its bare name where nothing is said."""
        return "|".join(filter(None, (*self.country, self.options)))

    def folder_values(self, name: str) -> Mapping[str, str | None]:
        """Columns that stand in the folders of a file, below the landing folder: their values."""
        found: dict[str, str | None] = {}
        for folder in name.split("/")[:-1]:
            column, is_one, value = folder.partition("=")
            if is_one and unquote(column) in self.folders:
                found[unquote(column)] = None if value == _NO_VALUE else unquote(value)
        return found

    def identity(self, content_hash: str, name: str) -> str:
        """What tells the rows of a file from those of any other, whatever it is called.

        Its content; where names of folders have columns, with their values: the same bytes in
        another such folder are other rows.

        Args:
            content_hash: of the file; "" when it could not be read.
            name: of the file below the landing folder.
        """
        values = self.folder_values(name)
        if not values or not content_hash:
            return content_hash
        text = json.dumps(sorted(values.items()))
        return f"{content_hash}{_IN}{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"

    @staticmethod
    def content_of(identity: str) -> str:
        """The content hash in an identity."""
        return identity.partition(_IN)[0]

    def country_in(self, columns: Sequence[str]) -> str:
        """The one column of these that holds the country.

        Raises:
            Unusable: when there is none, or more than one.
        """
        found = [name for name in self.country if name in columns]
        if len(found) == 1:
            return found[0]
        if found:
            raise Unusable(
                f"it has more than one column for the country ({_listed(found)})",
                "Leave out one of them.",
            )
        wanted = " or ".join(map(repr, self.country))
        raise Unusable(
            f"it has no country column {wanted}; its columns are {_listed(columns)}",
            _nearest(self.country[0], columns),
        )


def missing_columns(columns: Sequence[str], source: SourceSpec) -> list[str]:
    """Contract columns that a file has to have and has not, under none of their names."""
    return [
        name
        for name in source.columns
        if name not in source.optional and not {*source.published(name)} & {*columns}
    ]


def doubled_columns(columns: Sequence[str], source: SourceSpec) -> dict[str, list[str]]:
    """Contract columns that a file has under several of their names."""
    having = {name: [p for p in source.published(name) if p in columns] for name in source.columns}
    return {name: found for name, found in having.items() if len(found) > 1}


def column_problem(columns: Sequence[str], source: SourceSpec, missing: Sequence[str]) -> str:
    """Why a file is set aside whole that lacks columns, or has one twice; "" when it is not.

    Args:
        columns: of the file, as published.
        source: what is published and what it means.
        missing: contract columns that it lacks.
    """
    if doubled := doubled_columns(columns, source):
        told = "; ".join(f"{_listed(found)} for {name!r}" for name, found in doubled.items())
        return f"it has more than one column {told}. Nothing of it was taken. Leave out one of them"
    if not missing:
        return ""
    free = [name for name in columns if name not in source.all_published]
    near = {name: _near(source.published(name)[0], free) for name in missing}
    told = ", ".join(
        " or ".join(map(repr, source.published(name)))
        + (f" (near: {near[name]!r})" if near[name] else "")
        for name in missing
    )
    name = next((name for name in missing if near[name]), missing[0])
    both = ", ".join([*source.published(name), near[name] or "..."])
    return (
        f"it has no column {told}; its columns are {_listed(columns)}. Nothing of it was taken. "
        f"Correct the header; or, where it is published under another name as well, set "
        f"`{name}: [{both}]` under `source.columns`; or, where files may lack it, "
        f"`optional: [{', '.join(missing)}]` under `source`"
    )


def require_header(lines: Sequence[str], header: Sequence[str], name: str, how: Reading) -> None:
    """Refuse a CSV header without the country, with what the first lines say about why.

    Args:
        lines: the first lines of the file, those that are skipped too.
        header: the columns as read.
        name: of the file below the landing folder.
        how: it was read.

    Raises:
        Unusable: with the lines of YAML to add, when the file says which.
    """
    if {*header, *how.folder_values(name)} & {*how.country}:
        return
    if proposal := _separator_line(lines, how) or _header_below(lines, how):
        raise proposal
    require_folder(header, name, how)


def require_folder(columns: Sequence[str], name: str, how: Reading) -> None:
    """Refuse columns without the country where a folder's name has it.

    Raises:
        Unusable: with the line of YAML to add.
    """
    if {*columns, *how.folder_values(name)} & {*how.country}:
        return
    for folder in name.split("/")[:-1]:
        column, is_one, value = folder.partition("=")
        if is_one and unquote(column) in how.country:
            raise Unusable(
                f"it has no country column {unquote(column)!r}, which stands in the name of its "
                f"folder ({folder!r})",
                f"To take {unquote(value)!r} from there, set `folder_columns: [{unquote(column)}]` "
                "under `source`.",
            )


def _separator_line(lines: Sequence[str], how: Reading) -> Unusable | None:
    """Excel's first line that says what separates the fields."""
    first = lines[0].strip() if lines else ""
    if how.skip_rows or not first.lower().startswith(SEPARATOR_LINE) or len(first) > 5:
        return None
    sign = first[len(SEPARATOR_LINE) :] or "\t"
    return Unusable(
        f"its first line {first!r} is none of column names: it says what separates the fields",
        f"To read it so, set `skip_rows: 1` and `delimiter: {_quoted(sign)}` under `source`.",
    )


def _header_below(lines: Sequence[str], how: Reading) -> Unusable | None:
    """A line further down that has the country as a field, below titles."""
    for number, line in enumerate(lines):
        for sign in (how.delimiter,) if how.delimiter else _SIGNS:
            fields = [field.strip() for field in next(csv.reader([line], delimiter=sign), [])]
            if number == how.skip_rows or not {*fields} & {*how.country}:
                continue
            say = "" if len(fields) > 1 else f" and `delimiter: {_quoted(sign)}`"
            return Unusable(
                f"line {how.skip_rows + 1} is none of column names; line {number + 1} has "
                f"{_listed([name for name in fields if name], 5)}",
                f"To take that for the header, set `skip_rows: {number}`{say} under `source`.",
            )
    return None


def _quoted(sign: str) -> str:
    return '"\\t"' if sign == "\t" else f'"{sign}"'


def _nearest(wanted: str, columns: Sequence[str]) -> str:
    near = _near(wanted, columns, 0.5)
    return f"Did you mean {near!r}? {_CHANGE}" if near else _CHANGE


def _near(wanted: str, columns: Sequence[str], least: float = _CLOSE) -> str:
    plain = {name.strip().casefold(): name for name in columns}
    close = difflib.get_close_matches(wanted.strip().casefold(), plain, 1, least)
    return plain[close[0]] if close else ""


def _listed(names: Sequence[str], most: int = 40) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
