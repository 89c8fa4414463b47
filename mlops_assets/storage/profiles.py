"""Windows of many countries counted in one scan of their features and one of their predictions.

DuckDB reads the rows of the windows of many countries; their numbers become whole steps of their
country's reference, which are counted by country and bucket of time, and windows are sums of
buckets. Whole numbers add up to the same in any order: `ml.monitoring.profiles.profile` counts
exactly the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mlops_assets.errors import StorageError
from mlops_assets.ml.monitoring.profiles import NOTHING, Counted, Profile, is_outside
from mlops_assets.ml.stats.distances import (
    BINS,
    FIRST_BIN,
    STEPS,
    STEPS_PER_BIN,
    fixed_point,
    numbers_of,
    quartiles_of,
)
from mlops_assets.ml.training.references import PREDICTION, REST, FeatureReference, Reference
from mlops_assets.quoting import identifier, literal
from mlops_assets.storage.records import Snapshot

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from mlops_assets.storage.snapshots import SnapshotStore

_FILE = "__mlops_assets_file"
"""A column that no data has, for DuckDB to say which file a row is from."""
_NONE = -(2**15)
"""In place of the steps of a number that is not there."""
_ROWS_AT_ONCE = 500_000
"""Of a batch: what is counted stays near the processor."""
_CELLS_AT_ONCE = 50_000_000
_NUMBERS = (
    *("FLOAT", "DOUBLE"),
    *("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"),
)

_databases: dict[tuple[int, Any, bool], duckdb.DuckDBPyConnection] = {}
"""By process, object store and whether one thread scans."""


@dataclass(frozen=True)
class ProfileRequest:
    """Windows that are wanted of a country.

    Attributes:
        reference: what they will be compared with.
        features: the snapshot of the rows.
        predictions: the snapshot of their predictions; None: there are none.
        ends: of the windows, the oldest first.
        length: of a window.
    """

    reference: Reference
    features: Snapshot
    predictions: Snapshot | None
    ends: tuple[pd.Timestamp, ...]
    length: pd.Timedelta


@dataclass(frozen=True)
class _Part:
    """One file of a country, and what is counted in it.

    Attributes:
        country: whose.
        asked: its windows.
        snapshot: the file.
        counted: column: its reference; none for rows alone.
        base: group of the first bucket, among those of all parts of the scan.
    """

    country: str
    asked: ProfileRequest
    snapshot: Snapshot
    counted: Mapping[str, FeatureReference]
    base: int = 0

    @property
    def start(self) -> int:
        """Beginning of the first window, in nanoseconds."""
        return (self.asked.ends[0] - self.asked.length).as_unit("ns").value

    @property
    def width(self) -> int:
        """Of a bucket: all windows are whole numbers of buckets."""
        steps = [(b - a).as_unit("ns").value for a, b in pairwise(self.asked.ends)]
        return int(np.gcd.reduce([self.asked.length.as_unit("ns").value, *steps]))

    @property
    def buckets(self) -> int:
        """From the beginning of the first window to the end of the last."""
        return (self.asked.ends[-1].as_unit("ns").value - self.start) // self.width

    @property
    def last_buckets(self) -> np.ndarray:
        """Group after the last one of each window."""
        ends = np.array([end.as_unit("ns").value for end in self.asked.ends])
        return self.base + (ends - self.start) // self.width

    @property
    def first_buckets(self) -> np.ndarray:
        """Group of the first bucket of each window."""
        return self.last_buckets - self.asked.length.as_unit("ns").value // self.width


def newest_times(store: SnapshotStore, features: Mapping[str, Snapshot]) -> dict[str, pd.Timestamp]:
    """Newest event time of each country, those without rows left out.

    Args:
        store: the snapshots.
        features: of the countries.
    """
    files = {each.uri: country for country, each in features.items() if each.rows}
    if not files:
        return {}
    with _connected(store) as connection:
        found = connection.sql(
            f"select {_FILE}, max(epoch_ns(event_time)) from {_read(files)} group by all"
        ).fetchall()
    return {files[file]: pd.Timestamp(newest) for file, newest in found}


def columns_of(store: SnapshotStore, features: Mapping[str, Snapshot]) -> dict[str, list[str]]:
    """Names of the columns of each country.

    Args:
        store: the snapshots.
        features: of the countries.
    """
    files = {each.uri: country for country, each in features.items()}
    if not files:
        return {}
    with _connected(store) as connection:
        found = connection.sql(
            f"select file_name, list(name) from parquet_schema({_list(files)}) "
            "where num_children is null group by all"
        ).fetchall()
    return {files[file]: names for file, names in found}


def window_profiles(
    store: SnapshotStore, asked: Mapping[str, ProfileRequest]
) -> dict[str, list[Profile]]:
    """Profiles of the windows of each country, the oldest first.

    Equal to `ml.monitoring.profiles.profile`.

    Args:
        store: the snapshots.
        asked: by country; one without windows gets none.

    Raises:
        StorageError: a file cannot be read.
    """
    wanted = {country: each for country, each in asked.items() if each.ends}
    found: dict[str, list[Profile]] = {country: [] for country in asked}
    rows = _scanned(store, [_of_features(country, each) for country, each in wanted.items()])
    with_predictions = {c: each for c, each in wanted.items() if each.predictions is not None}
    parts = [_of_predictions(country, each) for country, each in with_predictions.items()]
    predicted = _scanned(store, [part for part in parts if part.counted])
    for country, each in wanted.items():
        profiles = _merged(each, rows.get(country, []), predicted.get(country, []))
        found[country] = list(_with_quartiles(store, each, profiles))
    return found


def _of_features(country: str, asked: ProfileRequest) -> _Part:
    known = asked.reference.features.items()
    return _Part(country, asked, asked.features, {n: each for n, each in known if n != PREDICTION})


def _of_predictions(country: str, asked: ProfileRequest) -> _Part:
    assert asked.predictions is not None
    known = asked.reference.features.get(PREDICTION)
    return _Part(country, asked, asked.predictions, {PREDICTION: known} if known else {})


def _merged(
    asked: ProfileRequest, rows: Sequence[Profile], predicted: Sequence[Profile]
) -> Iterator[Profile]:
    """Profiles of features with those of predictions; every feature of the reference is there."""
    kinds = {name: each.kind for name, each in asked.reference.features.items()}
    numbers = {name: NOTHING for name, kind in kinds.items() if kind == "number"}
    categories = {name: {} for name, kind in kinds.items() if kind == "category"}
    for place, end in enumerate(asked.ends):
        own = [found[place] for found in (rows, predicted) if found]
        yield Profile(
            end,
            rows[place].rows if rows else 0,
            {**numbers, **{n: c for each in own for n, c in each.numbers.items()}},
            {**categories, **{n: c for each in own for n, c in each.categories.items()}},
        )


def _scanned(store: SnapshotStore, parts: Sequence[_Part]) -> dict[str, list[Profile]]:
    """Profiles of what the parts count."""
    import duckdb

    parts = [part for part in parts if part.snapshot.rows]
    if not parts:
        return {}
    try:
        with _connected(store) as connection:
            batches = [
                (types, batch)
                for types, alike in _by_schema(connection, parts)
                for batch in _batches(alike)
            ]
        with ThreadPoolExecutor(min(len(batches), os.cpu_count() or 1)) as pool:
            counted = pool.map(lambda each: _counted(store, *each), batches)
            return {country: profiles for each in counted for country, profiles in each.items()}
    except duckdb.Error as error:
        raise StorageError(
            f"The rows of {', '.join(part.country for part in parts)} cannot be scanned: {error}.",
            way_out="Materialize what the message names again.",
            culprits={"countries": [part.country for part in parts]},
        ) from error


def _by_schema(
    connection: duckdb.DuckDBPyConnection, parts: Sequence[_Part]
) -> Iterator[tuple[dict[str, str], list[_Part]]]:
    """Parts with the same columns together, and DuckDB's types of these."""
    files = {part.snapshot.uri: part for part in parts}
    schemas = connection.sql(
        "select file_name, list((name, type, logical_type)) "
        f"from parquet_schema({_list(files)}) group by all"
    ).fetchall()
    alike: dict[str, list[_Part]] = {}
    for file, columns in schemas:
        alike.setdefault(repr(sorted(map(repr, columns))), []).append(files[file])
    for group in alike.values():
        one = connection.sql(f"select * from {_read([group[0].snapshot.uri])} limit 0")
        types = dict(zip(one.columns, map(str, one.types), strict=True))
        yield types, sorted(group, key=lambda part: list(files).index(part.snapshot.uri))


def _batches(parts: Sequence[_Part]) -> Iterator[list[_Part]]:
    """Parts that fit in memory together, their groups side by side."""
    batch: list[_Part] = []
    rows = base = 0
    for part in parts:
        if batch and rows + part.snapshot.rows > _ROWS_AT_ONCE:
            yield batch
            batch, rows, base = [], 0, 0
        batch.append(replace(part, base=base))
        rows, base = rows + part.snapshot.rows, base + part.buckets
    yield batch


def _counted(
    store: SnapshotStore, types: Mapping[str, str], parts: Sequence[_Part]
) -> dict[str, list[Profile]]:
    numbers, categories = _columns(parts, types)
    with _connected(store, one_thread=True) as connection:  # a batch a core
        connection.register("asked", _files(parts))
        table = connection.sql(_query(parts, numbers, categories)).to_arrow_table()
    windows = _Windows.of(parts, table["g"].to_numpy())
    rows = windows.sums(np.bincount(windows.group, minlength=windows.groups)).tolist()
    by_number = {
        name: windows.numbers(table[f"n{place}"].to_numpy(), [p.counted.get(name) for p in parts])
        for place, name in enumerate(numbers)
    }
    by_category = {
        name: windows.categories(table[f"c{place}"]) for place, name in enumerate(categories)
    }
    found: dict[str, list[Profile]] = {}
    place = 0
    for part in parts:
        kinds = {name: each.kind for name, each in part.counted.items()}
        profiles = found.setdefault(part.country, [])
        for end in part.asked.ends:
            profiles.append(
                Profile(
                    end,
                    rows[place],
                    {
                        n: by_number[n][place]
                        for n, k in kinds.items()
                        if k == "number" and n in by_number
                    },
                    {
                        n: _named(by_category[n][place], part.counted[n])
                        for n, k in kinds.items()
                        if k == "category" and n in by_category
                    },
                )
            )
            place += 1
    return found


def _columns(parts: Sequence[_Part], types: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Columns to count as numbers and as categories: those of the right type."""
    asked = {(n, each.kind) for part in parts for n, each in part.counted.items()}
    numbers = [n for n in types if (n, "number") in asked and types[n] in _NUMBERS]
    texts = [n for n, kind in types.items() if kind == "VARCHAR" or kind.startswith("ENUM")]
    return numbers, [n for n in texts if (n, "category") in asked]


def _files(parts: Sequence[_Part]) -> pa.Table:
    """The table of files and their buckets."""
    import pyarrow as pa

    return pa.table(
        {
            "file": [part.snapshot.uri for part in parts],
            "base": [part.base for part in parts],
            "start": [part.start for part in parts],
            "stop": [part.start + part.width * part.buckets for part in parts],
            "after": [part.asked.reference.last.as_unit("ns").value for part in parts],
            "width": [part.width for part in parts],
        }
    )


def _query(
    parts: Sequence[_Part],
    numbers: Sequence[str],
    categories: Sequence[str],
) -> str:
    """Group and counted columns of every row of a window that is newer than its reference."""
    first = pd.Timestamp(min(part.start for part in parts))
    time = "epoch_ns(f.event_time)"
    columns = [
        f"cast(a.base + ({time} - a.start) // a.width as integer) as g",
        *(
            f"cast(f.{identifier(name)} as double) as n{place}"
            for place, name in enumerate(numbers)
        ),
        *(
            f"cast(f.{identifier(name)} as varchar) as c{place}"
            for place, name in enumerate(categories)
        ),
    ]
    return (
        f"select {', '.join(columns)} from {_read(part.snapshot.uri for part in parts)} f "
        f"join asked a on f.{_FILE} = a.file where f.event_time >= '{first.isoformat()}' "
        f"and {time} >= a.start and {time} < a.stop and {time} > a.after"
    )


@dataclass(frozen=True)
class _Windows:
    """The rows of a batch by group, and the windows of all its parts, one after the other.

    Attributes:
        group: of each row.
        order: that brings rows of a group together; None when they are.
        starts: first row of each group that has rows, in that order.
        there: these groups.
        groups: how many there are.
        parts: first row of each part, and the end.
        first: group of the first bucket of each window.
        last: group after the last one.
    """

    group: np.ndarray
    order: np.ndarray | None
    starts: np.ndarray
    there: np.ndarray
    groups: int
    parts: list[int]
    first: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[_Part], group: np.ndarray) -> _Windows:
        group = group.astype("int64")
        order = None if (group[1:] >= group[:-1]).all() else np.argsort(group, kind="stable")
        group = group if order is None else group[order]
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        return cls(
            group,
            order,
            starts,
            group[starts],
            sum(part.buckets for part in parts),
            [*np.searchsorted(group, [part.base for part in parts]).tolist(), len(group)],
            np.concatenate([part.first_buckets for part in parts]),
            np.concatenate([part.last_buckets for part in parts]),
        )

    def sums(self, by_group: np.ndarray) -> np.ndarray:
        """Sums over each window, shape (windows, ...)."""
        added = np.zeros((len(by_group) + 1, *by_group.shape[1:]), dtype=by_group.dtype)
        np.cumsum(by_group, axis=0, out=added[1:])
        return added[self.last] - added[self.first]

    def numbers(
        self, values: np.ndarray, known: Sequence[FeatureReference | None]
    ) -> list[Counted]:
        """Of one number: what each window counts, in the units of each part's reference."""
        values = values if self.order is None else values[self.order]
        steps = np.full(len(values), _NONE, dtype="int16")
        for each, first, last in zip(known, self.parts, self.parts[1:], strict=False):
            if each is not None and each.kind == "number":
                own = values[first:last]
                there = ~np.isnan(own)
                if there.all():
                    steps[first:last] = fixed_point(own, each.center, each.scale)
                else:
                    steps[first:last][there] = fixed_point(own[there], each.center, each.scale)
        width = BINS + 1
        keys = _PLACE_OF_STEPS[steps.view("uint16")]
        keys += self.keys
        counts = np.bincount(keys, minlength=self.groups * width).reshape(self.groups, width)
        wide = steps.astype("int32")
        if counts[:, BINS].any():
            wide[steps == _NONE] = 0
        total, squares = self._added(wide), self._added(np.multiply(wide, wide, out=wide))
        counts = self.sums(counts[:, :BINS])
        rows = counts.sum(axis=1).tolist()
        sums = ((total / STEPS).tolist(), (squares / STEPS**2).tolist())
        return list(zip(rows, *sums, map(tuple, counts.tolist()), strict=True))

    @cached_property
    def keys(self) -> np.ndarray:
        """Of each row its group's first cell in a table of groups and bins."""
        return self.group * (BINS + 1)

    def _added(self, values: np.ndarray) -> np.ndarray:
        by_group = np.zeros(self.groups, dtype="int64")
        if len(values):
            by_group[self.there] = np.add.reduceat(values, self.starts, dtype="int64")
        return self.sums(by_group)

    def categories(self, texts: pa.ChunkedArray) -> list[dict[str, int]]:
        """Of one category: rows by value in each window."""
        encoded = texts.dictionary_encode().combine_chunks()
        names: list[str] = encoded.dictionary.to_pylist()
        codes = encoded.indices.fill_null(len(names)).to_numpy()
        codes = codes if self.order is None else codes[self.order]
        width = len(names) + 1
        keys = self.group * width + codes
        if self.groups * width <= _CELLS_AT_ONCE:
            counts = np.bincount(keys, minlength=self.groups * width)
            return self._by_name(counts.reshape(self.groups, width)[:, :-1], names)
        return self._by_rare_name(*np.unique(keys, return_counts=True), width, names)

    def _by_name(self, counts: np.ndarray, names: list[str]) -> list[dict[str, int]]:
        rows = self.sums(counts)
        return [{names[int(at)]: int(row[at]) for at in np.flatnonzero(row)} for row in rows]

    def _by_rare_name(
        self, keys: np.ndarray, counts: np.ndarray, width: int, names: list[str]
    ) -> list[dict[str, int]]:
        """Where most values occur in few groups, a table of all would not fit in memory."""
        group, code = np.divmod(keys, width)
        found: list[dict[str, int]] = []
        for first, last in zip(self.first, self.last, strict=True):
            low, high = np.searchsorted(group, [first, last])
            own: dict[str, int] = {}
            for at, count in zip(code[low:high].tolist(), counts[low:high].tolist(), strict=True):
                if at < len(names):
                    own[names[at]] = own.get(names[at], 0) + count
            found.append(own)
        return found


_ALL_STEPS = np.arange(2**16, dtype="uint16").view("int16").astype("int64")
_PLACE_OF_STEPS = np.where(
    _ALL_STEPS == _NONE,
    BINS,
    np.clip(_ALL_STEPS // STEPS_PER_BIN + FIRST_BIN, 0, BINS - 1),
)
"""Bin of a number by its steps, read as an unsigned number; the one after the last for none."""


def _named(counts: Mapping[str, int], reference: FeatureReference) -> dict[str, int]:
    """Rows by the names of the reference, in its order; the others together."""
    named = {name: counts[name] for name in reference.names if name in counts}
    rest = sum(counts.values()) - sum(named.values())
    return {**named, **({REST: rest} if rest else {})}


def _with_quartiles(
    store: SnapshotStore, asked: ProfileRequest, profiles: Iterable[Profile]
) -> Iterator[Profile]:
    """With the quartiles of numbers that are far out: few, so that these are read again."""
    held: dict[str, pd.DataFrame] = {}
    for each in profiles:
        far = [name for name, counted in each.numbers.items() if is_outside(counted)]
        values = {name: _values(store, asked, name, each.end, held=held) for name in far}
        yield replace(each, quartiles={n: quartiles_of(v) for n, v in values.items()})


def _values(
    store: SnapshotStore,
    asked: ProfileRequest,
    name: str,
    end: pd.Timestamp,
    *,
    held: dict[str, pd.DataFrame],
) -> np.ndarray:
    """The numbers of one feature in one window."""
    if name not in held:
        source = asked.predictions if name == PREDICTION else asked.features
        assert source is not None
        columns = ["event_time", name]
        held[name] = store.read(
            source.asset, source.partition, version=source.version, columns=columns
        )
    rows, start = held[name], end - asked.length
    times = rows["event_time"]
    own = rows[((times >= start) & (times < end) & (times > asked.reference.last)).to_numpy()]
    values = numbers_of(own[name])
    return values[~np.isnan(values)]


@contextmanager
def _connected(
    store: SnapshotStore, *, one_thread: bool = False
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to a database in memory that this process keeps.

    Opening one takes as long as a scan of one country. A fork never uses its parent's, whose
    threads it has not got; and after an error, which may have spoiled it, the next is a new one.
    """
    import duckdb

    key = (os.getpid(), store.filesystem, one_thread)
    if key not in _databases:
        settings = {"enable_external_file_cache": False, **({"threads": 1} if one_thread else {})}
        made = duckdb.connect(config=settings)
        if store.filesystem is not None:
            made.register_filesystem(store.filesystem)
        _databases[key] = made
    try:
        with _databases[key].cursor() as connection:
            yield connection
    except duckdb.Error:
        _databases.pop(key, None)
        raise


def _read(files: Iterable[str]) -> str:
    return f"read_parquet({_list(files)}, hive_partitioning=false, filename={literal(_FILE)})"


def _list(files: Iterable[str]) -> str:
    return f"[{', '.join(literal(file) for file in files)}]"
