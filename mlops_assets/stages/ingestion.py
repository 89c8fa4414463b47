"""Taking delivered files: each once, for just the countries that have rows in them.

A file is surveyed once and the survey is kept in an append-only inventory, so that what a file
holds is known without reading it again. Which files a country has taken is recorded with the
country's own raw snapshot: countries ingest apart from each other and in any order.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import pyarrow as pa

from mlops_assets.product import Product
from mlops_assets.sources.files import (
    SourceFile,
    Survey,
    append_tables,
    list_files,
    read_by_country,
    survey,
)
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.base import path
from mlops_assets.storage import Snapshot, SnapshotStore

FILES = "mlops_assets/files"
NEVER_DELIVERED = "was ever delivered"
"""How a run says that it took everything, but there is no row of a country."""


@dataclass(frozen=True)
class Delivery:
    """What one country has after an ingestion."""

    snapshot: Snapshot
    new_rows: int
    new_files: tuple[str, ...]


@dataclass(frozen=True)
class Ingestion:
    """Outcome of an ingestion for the countries asked for.

    Attributes:
        deliveries: country: what it has now.
        missing: countries of which no row was ever delivered.
        unlisted: published country value: rows in the landing files.
        problems: name of a file that was set aside: why.
        files: number of files that can be read.
    """

    deliveries: Mapping[str, Delivery]
    missing: tuple[str, ...]
    unlisted: Mapping[str, int]
    problems: Mapping[str, str]
    files: int


@dataclass(frozen=True)
class _Inventory:
    """Surveys of the files that lie in the landing folder now."""

    files: Mapping[str, SourceFile]
    rows: Mapping[str, Mapping[str, int]]  # content hash: published country: rows
    problems: Mapping[str, str] = field(default_factory=dict)


def ingest(
    product: Product,
    countries: Sequence[str],
    store: SnapshotStore,
    landing: str,
    *,
    run_id: str,
) -> Ingestion:
    """Append the new rows of `countries` to their raw snapshots in one scan of the new files."""
    inventory = take_inventory(product, store, landing)
    country_of = published_names(product.spec)
    held = store.current_all(path(product, "raw"), countries)
    due = {
        country: _new_files(country, inventory, country_of, held.get(country))
        for country in countries
    }
    tables = _read(product, inventory, due, country_of)
    deliveries = {}
    for country in countries:
        if country in tables:
            deliveries[country] = _append(product, country, tables[country], store, held, run_id)
        elif country in held:
            deliveries[country] = Delivery(held[country], 0, ())
    return Ingestion(
        deliveries=deliveries,
        missing=tuple(country for country in countries if country not in deliveries),
        unlisted=_unlisted(inventory, country_of),
        problems=inventory.problems,
        files=len(inventory.rows),
    )


def published_names(spec: ProductSpec) -> dict[str, str]:
    """Country value as published: listed country."""
    return {**{country: country for country in spec.countries}, **spec.aliases}


def take_inventory(product: Product, store: SnapshotStore, landing: str) -> _Inventory:
    """Survey the files that are new by content and recall the surveys of the others."""
    column = product.spec.source.columns[product.spec.source.country]
    known = _known_surveys(product, store, column)
    files = {file.content_hash: file for file in list_files(landing)}
    problems: dict[str, str] = {}
    rows: dict[str, Mapping[str, int]] = {}
    for content_hash, file in files.items():
        if content_hash in known:
            rows[content_hash] = known[content_hash]
            continue
        found = survey(file, column)
        if found.problem is not None:
            problems[file.name] = found.problem
            continue
        rows[content_hash] = found.rows_by_country
        store.append(path(product, "inventory"), None, _survey_frame(found, column))
    return _Inventory(files, rows, problems)


def _known_surveys(
    product: Product, store: SnapshotStore, column: str
) -> dict[str, dict[str, int]]:
    log = store.read_log(path(product, "inventory"))
    if log.empty:
        return {}
    log = log[log["country_column"] == column].drop_duplicates(["content_hash", "country"])
    return {
        str(content_hash): dict(zip(group["country"], group["rows"].astype(int), strict=True))
        for content_hash, group in log.groupby("content_hash")
    }


def _survey_frame(found: Survey, column: str) -> pd.DataFrame:
    counts = found.rows_by_country or {"": 0}  # an empty file is known, too
    return pd.DataFrame(
        {
            "content_hash": found.file.content_hash,
            "file": found.file.name,
            "country_column": column,
            "country": list(counts),
            "rows": list(counts.values()),
            "surveyed_at": pd.Timestamp.now(tz="UTC"),
        }
    )


def _new_files(
    country: str,
    inventory: _Inventory,
    country_of: Mapping[str, str],
    held: Snapshot | None,
) -> list[str]:
    taken = set(held.metadata.get(FILES, {})) if held else set()
    return [
        content_hash
        for content_hash, rows in inventory.rows.items()
        if content_hash not in taken
        and any(country_of.get(value) == country and count for value, count in rows.items())
    ]


def _read(
    product: Product,
    inventory: _Inventory,
    due: Mapping[str, Sequence[str]],
    country_of: Mapping[str, str],
) -> dict[str, pa.Table]:
    hashes = sorted({content_hash for files in due.values() for content_hash in files})
    if not hashes:
        return {}
    column = product.spec.source.columns[product.spec.source.country]
    wanted = {value: country for value, country in country_of.items() if due.get(country)}
    tables = read_by_country([inventory.files[each] for each in hashes], column, wanted)
    return {
        country: _only(rows, due[country], hashes)
        for country, rows in tables.items()
        if rows.num_rows
    }


def _only(rows: pa.Table, due: Sequence[str], scanned: Sequence[str]) -> pa.Table:
    """Rows of the files this country has not taken; others may have needed more of them."""
    import pyarrow.compute as pc

    if len(due) == len(scanned):
        return rows
    return rows.filter(pc.field("_source_hash").isin(list(due)))


def _append(
    product: Product,
    country: str,
    rows: pa.Table,
    store: SnapshotStore,
    held: Mapping[str, Snapshot],
    run_id: str,
) -> Delivery:
    now = pa.scalar(dt.datetime.now(dt.UTC), pa.timestamp("us", tz="UTC"))
    stamped = rows.append_column("_ingested_at", pa.array([now] * rows.num_rows, now.type))
    earlier = held.get(country)
    asset = path(product, "raw")
    before = store.read_table(asset, country) if earlier else None
    new_files = _names(rows)
    taken = {**(earlier.metadata.get(FILES, {}) if earlier else {}), **new_files}
    written = store.write(
        asset,
        country,
        append_tables(before, stamped),
        run_id=run_id,
        metadata={FILES: taken},
    )
    return Delivery(written.snapshot, rows.num_rows, tuple(sorted(new_files.values())))


def _names(rows: pa.Table) -> dict[str, str]:
    pairs = rows.select(["_source_hash", "_source_file"]).group_by(["_source_hash", "_source_file"])
    return {
        str(row["_source_hash"]): str(row["_source_file"])
        for row in pairs.aggregate([]).to_pylist()
    }


def _unlisted(inventory: _Inventory, country_of: Mapping[str, str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for rows in inventory.rows.values():
        for value, count in rows.items():
            if count and value not in country_of:
                counts[value] = counts.get(value, 0) + count
    return counts
