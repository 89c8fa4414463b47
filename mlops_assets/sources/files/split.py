"""Rows by country, told apart batch by batch as a scan gives them.

Memory that is touched for the first time costs more than all else here, so a batch is sorted by
country, cut and forgotten, and what says where a row came from is a number until a table is asked
for.
"""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute

from mlops_assets.spec import country_text

pc: Any = pyarrow.compute  # made at import time, so no type checker sees its functions

FILE, LINE = "file", "line"
"""Columns of a batch: position of the file in the scan, from 0; record number in it, from 1."""

_Pieces = Mapping[int, pa.RecordBatch]

_ROW = "row"  # where the reader numbers the records of a file itself, from 0
_MOST_THREADS = 4  # each holds a batch twice


class RowsByCountry(Mapping[str, pa.Table]):
    """Tables by country, each put together whenever it is asked for, by any thread."""

    def __init__(self, makers: Mapping[str, Callable[[], pa.Table]]) -> None:
        self._makers = dict(makers)

    def __getitem__(self, country: str) -> pa.Table:
        return self._makers[country]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def split_by_country(
    batches: Iterable[pa.RecordBatch], country_column: str, wanted: Mapping[str, str]
) -> dict[str, pa.Table]:
    """The rows of the wanted countries in order, with their `line`; others are dropped.

    Args:
        batches: in order, with the column `file`, which never falls, and maybe `row`.
        country_column: its name in the batches.
        wanted: country by published value.
    """
    countries = list(dict.fromkeys(wanted.values()))
    code_of = {value.strip(): countries.index(country) for value, country in wanted.items()}
    lines = _Lines()
    pieces: dict[int, list[pa.RecordBatch]] = defaultdict(list)
    cut = partial(_cut, country_column, code_of, len(countries))
    for found in _side_by_side(cut, map(lines.noted_in, batches)):
        for code, piece in found.items():
            pieces[code].append(piece)
    return {countries[code]: pa.Table.from_batches(pieces[code]) for code in sorted(pieces)}


def _side_by_side(
    cut: Callable[[pa.RecordBatch], _Pieces], batches: Iterable[pa.RecordBatch]
) -> Iterator[_Pieces]:
    """The pieces of each batch in order, a few batches at a time."""
    threads = min(os.cpu_count() or 1, _MOST_THREADS)
    with ThreadPoolExecutor(threads) as pool:
        cutting: deque[Future[_Pieces]] = deque()
        for batch in batches:
            cutting.append(pool.submit(cut, batch))
            if len(cutting) > threads:
                yield cutting.popleft().result()
        for each in cutting:
            yield each.result()


def _cut(
    country_column: str, code_of: Mapping[str, int], countries: int, batch: pa.RecordBatch
) -> _Pieces:
    """The rows of each country that has any, in order, by sorting the batch."""
    codes = _codes(batch.column(country_column), code_of)
    order = np.argsort(codes, kind="stable").astype(np.int32)
    edges = np.searchsorted(codes[order], np.arange(countries + 1))
    taken = pc.take(batch, pa.array(order[edges[0] :]), boundscheck=False)
    starts, rows = edges[:-1] - edges[0], np.diff(edges)
    return {code: taken.slice(starts[code], rows[code]) for code in np.flatnonzero(rows).tolist()}


def _codes(published: pa.Array, code_of: Mapping[str, int]) -> np.ndarray:
    """For each row the number of its country; -1 when nobody wants it."""
    encoded = published.dictionary_encode(null_encoding="encode")
    codes = [code_of.get(country_text(value), -1) for value in encoded.dictionary.to_pylist()]
    # Sorting is four times faster by 16 bits than by 32.
    kind = np.int16 if len(code_of) < np.iinfo(np.int16).max else np.int32
    return np.array(codes, kind)[encoded.indices.to_numpy()]


class _Lines:
    """Record numbers within each file, for batches in order.

    DuckDB numbers Parquet rows. The other readers keep the order of files and records, so a
    record's number is its position less that of its file's first record.
    """

    def __init__(self) -> None:
        self._seen = 0
        self._file = 0
        self._first = 0

    def noted_in(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if _ROW in batch.schema.names:
            lines = pc.add(batch.column(_ROW), 1)
            return batch.drop_columns([_ROW]).append_column(LINE, lines)
        return batch.append_column(LINE, pa.array(self._counted(batch.column(FILE).to_numpy())))

    def _counted(self, files: np.ndarray) -> np.ndarray:
        steps = np.diff(files, prepend=self._file)
        if np.any(steps < 0):
            raise duckdb.InternalException("the scan did not keep the order of the files")
        places = np.arange(self._seen, self._seen + len(files))
        firsts = np.concatenate([[self._first], places[steps > 0]])
        self._seen += len(files)
        self._first = int(firsts[-1])
        self._file = int(files[-1]) if len(files) else self._file
        return places - firsts[np.cumsum(steps > 0)] + 1
