"""Taking delivered files: each content once, for just the countries that have rows in it.

Which files a country has taken, in which order, is recorded with the country's own raw snapshot:
countries ingest apart from each other and in any order, and a failure in one is its own.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd
import pyarrow as pa

from mlops_assets.errors import MlopsAssetsError, SourceError
from mlops_assets.ml.datasets.delivery_report import FileFacts
from mlops_assets.ml.datasets.validation import DELIVERED
from mlops_assets.product import Product
from mlops_assets.sources.files.landing import NaturalOrder, natural_order
from mlops_assets.sources.files.reading import read_by_country
from mlops_assets.sources.files.rules import Reading
from mlops_assets.sources.files.union import INGESTED, REPLACED
from mlops_assets.sources.files.versions import (
    Merged,
    append_rows,
    merge_version,
    move_rows,
    rows_as_of,
)
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.common.context import CountryContext, ProductContext
from mlops_assets.stages.datasets.inventory import Inventory, take_inventory
from mlops_assets.storage import Snapshot, SnapshotStore

SET_ASIDE = "set_aside"
"""In the metadata of the check `files_readable`: files of which nothing was taken, and why."""
DELIVERIES = "mlops_assets/deliveries"
_MISSING, _REFUSED = "missing", "refused"
"""Names in the metadata of a failure."""


@dataclass(frozen=True)
class NotTaken:
    """What an ingestion could not take: metadata of the failure that ends its run.

    Attributes:
        missing: countries of which no row was ever delivered.
        refused: country: why its rows could not be taken; it keeps what it had.
    """

    missing: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        """As the failure holds it, in plain values."""
        return {_MISSING: list(self.missing), _REFUSED: dict(self.refused)}

    @classmethod
    def from_metadata(cls, details: Mapping[str, Any]) -> "NotTaken | None":
        """What `metadata` gave; None when a run failed for another reason, or did not."""
        if not {_MISSING, _REFUSED} <= details.keys():
            return None
        return cls(tuple(details[_MISSING]), details[_REFUSED])


@dataclass(frozen=True)
class Delivered:
    """One version of one file, as a country took it.

    Attributes:
        name: of the file, below the landing folder.
        content_hash: of its content, with the folders that have columns (`Reading.identity`).
        rows: of the country that stand for it; 0 of a file that repeats another one.
        appended: those of them that were new or other than before.
        replaced: rows of its earlier version that are not in it.
        at: time of ingestion, UTC, ISO 8601.
        moved_from: name under which the very same content was taken before; "" for none.
        read_as: what was said about reading it (`Reading.options`); "" for nothing.
    """

    name: str
    content_hash: str
    rows: int
    appended: int
    replaced: int
    at: str
    moved_from: str = ""
    read_as: str = ""


@dataclass(frozen=True)
class Delivery:
    """What one country has after an ingestion.

    Attributes:
        snapshot: its raw rows.
        taken: the file versions this ingestion took.
        changed: whether rows were appended or replaced.
    """

    snapshot: Snapshot
    taken: tuple[Delivered, ...] = ()
    changed: bool = False

    @property
    def new_rows(self) -> int:
        """Rows appended by this ingestion."""
        return sum(each.appended for each in self.taken)

    @property
    def read_rows(self) -> int:
        """Rows of the country in the files it took, as their survey counted them."""
        return sum(each.rows for each in self.taken)

    @property
    def replaced_rows(self) -> int:
        """Rows that no longer stand."""
        return sum(each.replaced for each in self.taken)

    @property
    def new_files(self) -> tuple[str, ...]:
        """Names of the files it took."""
        return tuple(each.name for each in self.taken)


@dataclass(frozen=True)
class Ingestion:
    """Outcome of an ingestion for the countries asked for.

    Attributes:
        deliveries: country: what it has now.
        missing: countries of which no row was ever delivered.
        refused: country: why its rows could not be taken; it keeps what it had.
        unlisted: published country value: rows in the landing files.
        problems: name of a file that was set aside: why.
        unanswered: why a source that is asked (SQL, HTTP) gave nothing; "" when it did.
        waiting: names of files that may still be growing.
        files: number of files that can be read.
        file_rows: rows in them.
        asked: the countries it was for.
        taken_files: files that a country took, each as a whole.
        ahead: rows that a source gave with a watermark more than two days later than now.
    """

    deliveries: Mapping[str, Delivery]
    missing: tuple[str, ...]
    refused: Mapping[str, str]
    unlisted: Mapping[str, int]
    problems: Mapping[str, str]
    waiting: tuple[str, ...]
    files: int
    file_rows: int
    unanswered: str = ""
    asked: frozenset[str] = frozenset()
    taken_files: tuple[FileFacts, ...] = ()
    ahead: int = 0

    @property
    def with_news(self) -> list[str]:
        """Countries with rows that are new, or replaced."""
        return [country for country, each in self.deliveries.items() if each.changed]


@dataclass(frozen=True)
class _Version:
    """A file version a country has to take.

    Attributes:
        name: of the file.
        content_hash: as of `Delivered`.
        rows: of the country, as the survey counted them; 0 if another file stands for them.
        replaces: whether an earlier version of it, or in full deliveries any file, was taken.
        moved_from: as of `Delivered`, like `read_as`.
        read_as: see there.
        place: microseconds of its ingestion after that of the first: what is only read again
            comes before what is new, in the order in which it was taken before.
    """

    name: str
    content_hash: str
    rows: int
    replaces: bool
    moved_from: str = ""
    read_as: str = ""
    place: int = 0

    @property
    def is_read(self) -> bool:
        """Whether it brings rows of its own."""
        return bool(self.rows) and not self.moved_from

    def taken_at(self, now: dt.datetime) -> dt.datetime:
        """Time of its ingestion, in one that begins now."""
        return now + dt.timedelta(microseconds=self.place)


def ingest(
    ctx: ProductContext,
    countries: Sequence[str],
    landing: str,
    *,
    run_id: str,
) -> Ingestion:
    """Append the new rows of `countries` to their raw snapshots in one scan of the new files.

    A source that is asked (SQL, HTTP) first lands what is new. What fails for one country, such as
    a write to a full disk, is reported for it, and the others go on.
    """
    unanswered, ahead = _pull(ctx.product, landing)
    inventory = take_inventory(ctx, landing, run_id=run_id)
    country_of = published_names(ctx.spec, inventory)
    held = ctx.current_all("raw", countries)
    due = {
        country: _due(
            country,
            inventory,
            country_of,
            deliveries_of(held.get(country)),
            read_as=Reading.of(ctx.spec.source).options,
            full=ctx.spec.source.delivery == "full",
        )
        for country in countries
    }
    tables = _read(ctx.product, inventory, due, country_of)
    deliveries, refused = {}, {}
    for country in countries:
        try:
            taken = _take(
                ctx.country(country),
                due[country],
                tables.pop(country, None),
                held.get(country),
                run_id=run_id,
            )
        except MlopsAssetsError as error:
            refused[country] = str(error)
            continue
        if taken:
            deliveries[country] = taken
    return Ingestion(
        deliveries=deliveries,
        missing=tuple(each for each in countries if each not in {*deliveries, *refused}),
        refused=refused,
        unlisted=_unlisted(inventory, country_of),
        problems=inventory.problems,
        waiting=inventory.waiting,
        files=len(inventory.files),
        file_rows=sum(sum(inventory.rows[each].values()) for each in inventory.files),
        unanswered=unanswered,
        asked=frozenset(countries),
        taken_files=_taken_files(inventory, deliveries, country_of),
        ahead=ahead,
    )


def _taken_files(
    inventory: Inventory, deliveries: Mapping[str, Delivery], country_of: Mapping[str, str]
) -> tuple[FileFacts, ...]:
    """What was taken by some country just now, counted over all of them."""
    taken = {
        each.content_hash: each.name
        for delivery in deliveries.values()
        for each in delivery.taken
        if each.content_hash in inventory.files and not each.moved_from
    }
    found = []
    for digest, name in sorted(taken.items(), key=lambda item: item[1]):
        counts = inventory.rows[digest]
        by_country: dict[str, int] = {}
        for value, rows in counts.items():
            if value in country_of:
                country = country_of[value]
                by_country[country] = by_country.get(country, 0) + rows
        columns, rows = inventory.columns.get(digest, ()), sum(counts.values())
        unlisted = rows - sum(by_country.values())
        found.append(FileFacts(name, rows, columns, by_country, unlisted_rows=unlisted))
    return tuple(found)


def ingest_as_of(
    ctx: ProductContext,
    countries: Sequence[str],
    origin: SnapshotStore,
    moment: dt.datetime,
    *,
    run_id: str,
) -> Ingestion:
    """Copy the raw rows that were there at a moment from the snapshots of `origin`.

    A row was there when it had been taken by then. When rows of the first delivery of a country
    became known cannot be told from their ingestion, which loaded all of history at once: they
    are copied, and `validated` goes by the time of their events.
    """
    held = origin.current_all(ctx.path("raw"), countries)
    made, refused = {}, {}
    for country, raw in held.items():
        try:
            made[country] = _copy_as_of(ctx.country(country), origin, raw, moment, run_id=run_id)
        except MlopsAssetsError as error:
            refused[country] = str(error)
    return Ingestion(
        deliveries=made,
        missing=tuple(country for country in countries if country not in held),
        refused=refused,
        unlisted={},
        problems={},
        waiting=(),
        files=len({name for each in made.values() for name in each.new_files}),
        file_rows=sum(each.read_rows for each in made.values()),
    )


def _copy_as_of(
    ctx: CountryContext,
    origin: SnapshotStore,
    raw: Snapshot,
    moment: dt.datetime,
    *,
    run_id: str,
) -> Delivery:
    every = deliveries_of(raw)
    first = dt.datetime.fromisoformat(min(each.at for each in every))
    whole = origin.read_table(raw.asset, ctx.country, version=raw.version)
    table = rows_as_of(whole, moment, first)
    until = max(first, moment)
    taken = tuple(each for each in every if dt.datetime.fromisoformat(each.at) <= until)
    recorded = {DELIVERIES: [asdict(each) for each in taken]}
    written = ctx.store.write(ctx.path("raw"), ctx.country, table, run_id=run_id, metadata=recorded)
    return Delivery(written.snapshot, taken if written.changed else (), written.changed)


def published_names(spec: ProductSpec, inventory: Inventory) -> dict[str, str]:
    """Country value as published in any file: the listed country it stands for."""
    values = {value for counts in inventory.rows.values() for value in counts}
    found = {value: spec.country_names.resolve(value) for value in values}
    return {value: country for value, country in found.items() if country is not None}


def deliveries_of(raw: Snapshot | None) -> tuple[Delivered, ...]:
    """Every file version a country took, oldest first."""
    if raw is None:
        return ()
    return tuple(Delivered(**each) for each in raw.metadata[DELIVERIES])


def live_rows(raw: pd.DataFrame) -> pd.DataFrame:
    """Rows that stand, with their place among the deliveries in the column `_delivered`.

    A later ingestion is newer; of files that were taken together the later one by name is, where
    numbers in names count by their value (`export_10` is later than `export_9`).
    """
    raw = raw[raw[REPLACED].isna()].drop(columns=REPLACED)
    found = raw[[INGESTED, "_source_file"]].drop_duplicates()
    by_name = sorted(range(len(found)), key=lambda n: natural_order(found["_source_file"].iloc[n]))
    order = found.iloc[by_name].sort_values(INGESTED, kind="stable")
    places = pd.MultiIndex.from_frame(order).get_indexer(
        pd.MultiIndex.from_frame(raw[[INGESTED, "_source_file"]])
    )
    return raw.assign(**{DELIVERED: places.astype("int64")})


def first_new(live: pd.DataFrame, seen: str) -> int:
    """Place of the first delivery after a time of ingestion (ISO 8601; "": all are new)."""
    old = live.loc[live[INGESTED] <= pd.Timestamp(seen), DELIVERED] if seen else []
    return int(max(old)) + 1 if len(old) else 0


def _pull(product: Product, landing: str) -> tuple[str, int]:
    """Land what a database or web address has new; why it could not, "" if it could.

    What was landed before is taken anyway. Beside it the number of rows that say they are more
    than two days later than now.
    """
    source = product.spec.source
    if source.kind == "files":
        return "", 0
    from mlops_assets.sources.pulled.pull import pull

    try:
        return "", pull(source, landing).ahead
    except SourceError as error:
        return str(error), 0


def _due(
    country: str,
    inventory: Inventory,
    country_of: Mapping[str, str],
    taken: Sequence[Delivered],
    *,
    read_as: str,
    full: bool,
) -> list[_Version]:
    """New files with rows of the country, and new versions of what it has taken, by name.

    A content that is to be read in another way, or in which more is of the country now, is a new
    version as well, and no newer than it was: it comes first.

    A content stands once, under one name. When that name gets another content, as where files are
    moved away to make room, its rows go to the name they moved to; they are not taken again.
    """
    if full:
        return _due_in_full(country, inventory, country_of, taken, read_as=read_as)
    newest = _newest(taken)
    stands = {each.content_hash: name for name, each in newest.items() if each.rows}
    found: list[_Version] = []
    for name, digest in sorted(inventory.names.items(), key=_by_name):
        before, home = newest.get(name), stands.get(digest)
        if home is None or inventory.names.get(home, digest) != digest:
            holder = inventory.files[digest].name
        else:
            holder = home
        surveyed = _rows_of(country, inventory.rows[digest], country_of)
        rows = surveyed if name == holder else 0
        now = (digest, rows, read_as)
        as_it_was = before is not None and now == (
            before.content_hash,
            before.rows,
            before.read_as if rows else read_as,
        )
        if as_it_was or not (rows or before):
            continue
        moved = rows and home not in (None, name) and newest[str(home)].rows == rows
        moved_from = str(home) if moved and newest[str(home)].read_as == read_as else ""
        found.append(_Version(name, digest, rows, before is not None, moved_from, read_as))
    return _in_earlier_order(found, newest)


def _in_earlier_order(due: Sequence[_Version], newest: Mapping[str, Delivered]) -> list[_Version]:
    """What is only read again as it came, file by file, then what is new."""
    again = {
        each.name: newest[each.name].at
        for each in due
        if each.name in newest and newest[each.name].content_hash == each.content_hash
    }
    times = sorted(set(again.values()), key=dt.datetime.fromisoformat)
    places = {name: times.index(at) for name, at in again.items()}
    placed = [replace(each, place=places.get(each.name, len(times))) for each in due]
    return sorted(placed, key=lambda each: each.place)


def _due_in_full(
    country: str,
    inventory: Inventory,
    country_of: Mapping[str, str],
    taken: Sequence[Delivered],
    *,
    read_as: str,
) -> list[_Version]:
    """New files and new versions by name, of which each replaces all that was there before it.

    A content that was taken before is no newer one because it lies under another name now, or is to
    be read in another way: of these only the one that stands is read again, before what is new. A
    file without a row of the country may be older than what it has, and then says nothing about it.
    """
    newest, known = _newest(taken), {each.content_hash for each in taken}
    last = max((dt.datetime.fromisoformat(each.at) for each in taken), default=None)
    stands, again = taken[-1] if taken else None, list[_Version]()
    found: list[_Version] = []
    for name, digest in sorted(inventory.names.items(), key=_by_name):
        rows = _rows_of(country, inventory.rows[digest], country_of)
        modified = inventory.files[digest].modified
        newer = last is not None and modified is not None and modified > last
        if stands and (name, digest) == (stands.name, stands.content_hash):
            if read_as != stands.read_as:
                again.append(_Version(name, digest, rows, replaces=True, read_as=read_as))
            continue
        changed = name in newest and newest[name].content_hash != digest
        if changed or (name not in newest and digest not in known and (rows or newer)):
            found.append(_Version(name, digest, rows, replaces=True, read_as=read_as))
            known.add(digest)
    return again + found


def _by_name(named: tuple[str, str]) -> NaturalOrder:
    return natural_order(named[0])


def _newest(taken: Sequence[Delivered]) -> dict[str, Delivered]:
    """What a country took last of each name, in the order of taking."""
    newest: dict[str, Delivered] = {}
    for each in taken:
        newest.pop(each.name, None)
        newest[each.name] = each
    return newest


def _rows_of(country: str, counts: Mapping[str, int], country_of: Mapping[str, str]) -> int:
    return sum(count for value, count in counts.items() if country_of.get(value) == country)


def _read(
    product: Product,
    inventory: Inventory,
    due: Mapping[str, Sequence[_Version]],
    country_of: Mapping[str, str],
) -> dict[str, pa.Table]:
    needed = {country: _to_read(versions) for country, versions in due.items()}
    hashes = sorted({digest for each in needed.values() for digest in each})
    if not hashes:
        return {}
    how = Reading.of(product.spec.source)
    wanted = {value: country for value, country in country_of.items() if needed.get(country)}
    tables = read_by_country([inventory.files[each] for each in hashes], how, wanted)
    return {
        country: _only(rows, needed[country], hashes)
        for country, rows in tables.items()
        if rows.num_rows
    }


def _to_read(versions: Sequence[_Version]) -> list[str]:
    return [each.content_hash for each in versions if each.is_read]


def _only(rows: pa.Table, due: Sequence[str], scanned: Sequence[str]) -> pa.Table:
    """Rows of the files this country has not taken; others may have needed more of them."""
    import pyarrow.compute as pc

    if len(due) == len(scanned):
        return rows
    return rows.filter(pc.field("_source_hash").isin(list(due)))


def _take(
    ctx: CountryContext,
    due: Sequence[_Version],
    rows: pa.Table | None,
    held: Snapshot | None,
    *,
    run_id: str,
) -> Delivery | None:
    """Write what is due to the country; None when there is nothing and never was."""
    _require_all_rows(ctx.country, due, rows)
    if not due or (rows is None and held is None):
        return Delivery(held) if held else None
    asset, now = ctx.path("raw"), dt.datetime.now(dt.UTC)
    before = ctx.store.read_table(asset, ctx.country) if held else None
    full = ctx.product.spec.source.delivery == "full"
    whole, taken = _merged(before, rows, due, now, full=full)
    _require_balance(ctx.country, whole, taken[-1:] if full else taken, full=full)
    every = [asdict(each) for each in (*deliveries_of(held), *taken)]
    written = ctx.store.write(
        asset, ctx.country, whole, run_id=run_id, metadata={DELIVERIES: every}
    )
    return Delivery(written.snapshot, taken, written.changed)


def _merged(
    held: pa.Table | None,
    rows: pa.Table | None,
    due: Sequence[_Version],
    now: dt.datetime,
    *,
    full: bool,
) -> tuple[pa.Table, tuple[Delivered, ...]]:
    """All rows after the versions were taken, and what each of them changed."""
    whole, taken = held, {each.name: _delivered(each, now) for each in due}
    moves = {each.moved_from: each.name for each in due if each.moved_from}
    replacing = [each for each in due if each.replaces]
    emptied = [each for each in replacing if not each.is_read and each.name not in moves]
    merging = [each for each in replacing if each.is_read]
    for each in due if full else emptied:  # before anything moves to their names
        name, at = None if full else each.name, each.taken_at(now)
        merged = merge_version(whole, _of(rows, [each], held), name, at)
        whole, taken[each.name] = merged.table, _delivered(each, now, merged)
    if moves and whole is not None:
        whole = move_rows(whole, moves)
    for each in [] if full else merging:
        merged = merge_version(whole, _of(rows, [each], held), each.name, each.taken_at(now))
        whole, taken[each.name] = merged.table, _delivered(each, now, merged)
    plain = [each for each in due if each.is_read and not each.replaces]
    if plain:  # nothing stands that they could replace: one append for all of them
        new = rows if len(plain) == len(due) and rows is not None else _of(rows, plain, held)
        whole = append_rows(whole, new, plain[0].taken_at(now))
    assert whole is not None
    return whole, tuple(taken.values())


def _delivered(version: _Version, now: dt.datetime, merged: Merged | None = None) -> Delivered:
    plain = version.rows if version.is_read else 0
    return Delivered(
        version.name,
        version.content_hash,
        version.rows,
        merged.appended if merged else plain,
        merged.replaced if merged else 0,
        version.taken_at(now).isoformat(),
        version.moved_from,
        version.read_as,
    )


def _of(rows: pa.Table | None, versions: Sequence[_Version], held: pa.Table | None) -> pa.Table:
    """Rows of these versions as they were read; none of a version that has none."""
    import pyarrow.compute as pc

    if rows is not None:
        hashes = pa.array(_to_read(versions), pa.string())
        return rows.filter(pc.field("_source_hash").isin(hashes))
    assert held is not None
    return held.slice(0, 0).drop_columns([INGESTED, REPLACED])


def _require_all_rows(country: str, due: Sequence[_Version], rows: pa.Table | None) -> None:
    """What was read is what the survey counted, file by file; else nothing of it is taken."""
    versions = [each for each in due if each.is_read]
    expected = {each.content_hash: each.rows for each in versions}
    found = {} if rows is None else _rows_by_file(rows)
    if found == expected:
        return
    names = {each.content_hash: each.name for each in due}
    different = {
        names.get(digest, digest): (expected.get(digest, 0), found.get(digest, 0))
        for digest in expected.keys() | found.keys()
        if expected.get(digest, 0) != found.get(digest, 0)
    }
    told = ", ".join(f"{n} has {a:,}, {b:,} were read" for n, (a, b) in sorted(different.items()))
    raise SourceError(
        f"The rows of {country} that were read are not those that were counted: {told}.",
        stored=f"Nothing was taken for {country}; what it had is unchanged.",
        way_out="Do not change files in the landing folder while they are read; run it again.",
        culprits={"country": country, "files": sorted(different)},
    )


def _require_balance(
    country: str, whole: pa.Table, taken: Sequence[Delivered], *, full: bool
) -> None:
    """Rows that stand for each file are those it has; else nothing is written."""
    standing = whole.select(["_source_file"]).filter(whole[REPLACED].is_null())
    counted = standing.group_by("_source_file").aggregate([([], "count_all")]).to_pylist()
    rows = {row["_source_file"]: row["count_all"] for row in counted}
    for each in taken:
        found = len(standing) if full else rows.get(each.name, 0)
        if found != each.rows:
            raise SourceError(
                f"{each.name} has {each.rows:,} rows of {country}, and {found:,} would stand for "
                "it.",
                stored=f"Nothing was taken for {country}; what it had is unchanged.",
                way_out="Please report this with the file: it is an error of the platform.",
                culprits={"country": country, "file": each.name},
            )


def _rows_by_file(rows: pa.Table) -> dict[str, int]:
    counted = rows.select(["_source_hash"]).group_by("_source_hash").aggregate([([], "count_all")])
    return {row["_source_hash"]: row["count_all"] for row in counted.to_pylist()}


def _unlisted(inventory: Inventory, country_of: Mapping[str, str]) -> dict[str, int]:
    """Rows that nobody takes, in the files that lie there now."""
    counts: dict[str, int] = {}
    for digest in inventory.files:
        for value, count in inventory.rows[digest].items():
            if count and value not in country_of:
                counts[value] = counts.get(value, 0) + count
    return counts
