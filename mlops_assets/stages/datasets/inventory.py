"""What lies in the landing folder: each content surveyed once, and the survey kept.

The inventory is a memory, not the truth: which files a country has taken is recorded with its own
raw snapshot. A lost inventory costs a survey of every file, and nothing else.
"""

import datetime as dt
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from mlops_assets.product import Product
from mlops_assets.sources.files.landing import Listed, hashed, scan
from mlops_assets.sources.files.reading import SourceFile, Survey, survey
from mlops_assets.sources.files.rules import Reading, column_problem, missing_columns
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.storage import Snapshot

_STAMPS = "mlops_assets/stamps"
_PROBLEMS = "mlops_assets/problems"
_COLUMN = "mlops_assets/country_column"
"""How files were read: the country's column, and what else is said of it (`Reading.signature`)."""
_HEADERS = "mlops_assets/headers"
_HEADER_OF = "mlops_assets/header_of"
"""Columns as published, each header once; identity: which of them. A content that was surveyed
before they were kept has none, and is not asked for its columns."""
_PATIENCE_SECONDS = 5.0
"""Longest wait for a file that was just dropped; one with a longer quiet time is taken later."""


@dataclass(frozen=True)
class Inventory:
    """What can be taken now, and why something cannot.

    Attributes:
        files: identity (`Reading.identity`): the file that has it, for readable files that lie
            there now.
        names: of each of these files: its identity.
        rows: identity: published country value: rows; of every one ever surveyed.
        problems: name of a file that was set aside: why.
        waiting: names of files that may still be growing.
        columns: identity: its columns as published, where they are known.
    """

    files: Mapping[str, SourceFile]
    names: Mapping[str, str]
    rows: Mapping[str, Mapping[str, int]]
    problems: Mapping[str, str]
    waiting: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class _Memory:
    """What is known from earlier ingestions.

    Attributes:
        stamps: stamp of a file: its identity.
        problems: stamp of a file that was set aside: why.
        rows: as in `Inventory`.
        columns: identity: columns as published, where they are known.
    """

    stamps: Mapping[str, str]
    problems: Mapping[str, str]
    rows: Mapping[str, Mapping[str, int]]
    columns: Mapping[str, tuple[str, ...]]


def take_inventory(ctx: ProductContext, landing: str, *, run_id: str = "") -> Inventory:
    """Survey what is new by content and recall the surveys of the rest.

    A file changed less than `source.settle_seconds` ago is waited for, if that is soon.
    """
    memory = _recall(ctx)
    listed, waiting = _settled(landing, _quiet_seconds(ctx.product), memory)
    how = _reading(ctx.product)
    files = {each.stamp: file for each in listed if (file := _identified(each, memory))}
    identities = {file.name: _identity(file, how) for file in files.values()}
    new = {
        identity: f for f in files.values() if (identity := identities[f.name]) not in memory.rows
    }
    surveys = {identity: survey(file, how) for identity, file in new.items()}
    rows = {**memory.rows, **{d: _counted(s) for d, s in surveys.items() if not s.problem}}
    columns = {**memory.columns, **{d: s.columns for d, s in surveys.items() if not s.problem}}
    problems = {identity: str(s.problem) for identity, s in surveys.items() if s.problem}
    of_stamp = {stamp: identities[file.name] for stamp, file in files.items()}
    _remember(ctx, of_stamp, _Memory({}, problems, rows, columns), memory=memory, run_id=run_id)
    problems |= _lacking(ctx.product, identities, columns)
    readable = (f for f in files.values() if identities[f.name] in rows)
    sound = [f for f in readable if identities[f.name] not in problems]
    sound.sort(key=_name, reverse=True)
    return Inventory(
        files={identities[file.name]: file for file in sound},
        names={file.name: identities[file.name] for file in sound},
        rows=rows,
        problems={name: problems[each] for name, each in identities.items() if each in problems},
        waiting=tuple(each.name for each in waiting),
        columns=columns,
    )


def unknown_files(ctx: ProductContext, landing: str) -> list[Listed]:
    """Settled files that no ingestion has looked at since they last changed.

    Lists the folder and reads no content, so that a sensor can ask often.
    """
    held = ctx.store.current(ctx.path("inventory"), None)
    known = _known_stamps(held, _reading(ctx.product).signature) if held else set()
    now, quiet = dt.datetime.now(dt.UTC), _quiet_seconds(ctx.product)
    return [
        each for each in scan(landing) if each.stamp not in known and each.is_settled(now, quiet)
    ]


def _known_stamps(held: Snapshot, column: str) -> set[str]:
    """Stamps of files that were looked at by their column of now; by another one none were."""
    if held.metadata[_COLUMN] != column:
        return set()
    return {*held.metadata[_STAMPS], *held.metadata[_PROBLEMS]}


def _quiet_seconds(product: Product) -> float:
    """How long a file must not have changed; what the platform landed itself is whole."""
    source = product.spec.source
    return source.settle_seconds if source.kind == "files" else 0.0


def _settled(landing: str, quiet: float, memory: _Memory) -> tuple[list[Listed], list[Listed]]:
    """Files that no longer change, and those that may."""
    listed = scan(landing)
    until = time.monotonic() + _PATIENCE_SECONDS
    while (growing := _growing(listed, quiet, memory)) and quiet <= _PATIENCE_SECONDS:
        if time.monotonic() >= until:
            break
        time.sleep(min(quiet, 0.5))
        listed = scan(landing)
    return [each for each in listed if each not in growing], growing


def _growing(listed: Iterable[Listed], quiet: float, memory: _Memory) -> list[Listed]:
    now = dt.datetime.now(dt.UTC)
    return [
        each
        for each in listed
        if each.stamp not in memory.stamps and not each.is_settled(now, quiet)
    ]


def _identified(listed: Listed, memory: _Memory) -> SourceFile | None:
    """The file with its content hash; read only when its stamp is new."""
    if listed.stamp in memory.stamps:
        return SourceFile(
            listed.uri,
            listed.name,
            Reading.content_of(memory.stamps[listed.stamp]),
            listed.size,
            listed.modified,
            listed.tag,
        )
    return hashed(listed)


def _name(file: SourceFile) -> str:
    return file.name


def _identity(file: SourceFile, how: Reading) -> str:
    """`Reading.identity`, or the name of a file whose content cannot be read."""
    return how.identity(file.content_hash, file.name) or file.name


def _counted(found: Survey) -> dict[str, int]:
    return dict(found.rows_by_country)


def _reading(product: Product) -> Reading:
    return Reading.of(product.spec.source)


def _lacking(
    product: Product, identities: Mapping[str, str], columns: Mapping[str, tuple[str, ...]]
) -> dict[str, str]:
    """Identity of a file without a column that it has to have: why it is set aside.

    Asked every time, because the YAML may say since that a column is optional.
    """
    source, found = product.spec.source, {}
    for name, identity in identities.items():
        header = columns.get(identity)
        if header is None:
            continue
        missing = missing_columns(header, source)
        if missing:  # the contract is loaded for such a file alone
            missing = [each for each in missing if each not in _not_required(product)]
        if problem := column_problem(header, source, missing):
            found[identity] = f"{name}: {problem}."
    return found


def _not_required(product: Product) -> set[str]:
    """Columns that the contract itself can do without."""
    columns = product.contract().to_schema().columns
    return {str(name) for name, column in columns.items() if not column.required}


def _recall(ctx: ProductContext) -> _Memory:
    asset, column = ctx.path("inventory"), _reading(ctx.product).signature
    held = ctx.store.current(asset, None)
    if held is None:
        return _Memory({}, {}, {}, {})
    frame = ctx.store.read(asset, None)
    frame = frame[frame["country_column"] == column]
    rows = {
        str(digest): dict(zip(group["country"], group["rows"].astype(int), strict=True))
        for digest, group in frame.groupby("content_hash", sort=False)
    }
    stamps = {s: d for s, d in held.metadata[_STAMPS].items() if d in rows}
    headers = held.metadata.get(_HEADERS, [])
    header_of = held.metadata.get(_HEADER_OF, {})
    columns = {digest: tuple(headers[n]) for digest, n in header_of.items() if digest in rows}
    return _Memory(stamps, held.metadata[_PROBLEMS], rows, columns)


def _remember(
    ctx: ProductContext,
    identities: Mapping[str, str],
    found: _Memory,
    *,
    memory: _Memory,
    run_id: str,
) -> None:
    rows, problems = found.rows, found.problems
    stamps = {stamp: each for stamp, each in identities.items() if each in rows}
    aside = {stamp: problems[each] for stamp, each in identities.items() if each in problems}
    if (stamps, aside, len(rows)) == (memory.stamps, memory.problems, len(memory.rows)):
        return
    column = _reading(ctx.product).signature
    headers = list(dict.fromkeys(found.columns.values()))
    place_of = {header: place for place, header in enumerate(headers)}
    metadata: dict[str, Any] = {
        _STAMPS: stamps,
        _PROBLEMS: aside,
        _COLUMN: column,
        _HEADERS: [list(header) for header in headers],
        _HEADER_OF: {digest: place_of[header] for digest, header in found.columns.items()},
    }
    ctx.store.write(
        ctx.path("inventory"),
        None,
        _frame(rows, column),
        run_id=run_id,
        metadata=metadata,
    )


def _frame(rows: Mapping[str, Mapping[str, int]], column: str) -> pd.DataFrame:
    """One row is a published country value in a content; an empty file has one with 0 rows."""
    records = [
        (digest, column, country, count)
        for digest, counts in rows.items()
        for country, count in (counts or {"": 0}).items()
    ]
    return pd.DataFrame(
        records, columns=["content_hash", "country_column", "country", "rows"]
    ).astype({"content_hash": str, "country_column": str, "country": str, "rows": "int64"})
