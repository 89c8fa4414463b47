"""Rows put aside on disk while a pull goes on, compared with landed ones and written as Parquet."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from mlops_assets.sources.files.landing import Place
from mlops_assets.sources.files.union import common_schema, conform

pc: Any = pyarrow.compute  # made at import time, so no type checker sees its functions

METADATA = b"mlops_assets.pull"
"""Key of what a pull notes in the footer of a file."""
_EXACT_IN_FLOAT = 2**53
_DIGITS_OF_INTEGER = 19
_LONGEST_DECIMAL = 38


class Spool:
    """Tables with the same columns, in one file for as long as their types stay the same.

    Attributes:
        schemas: of the files.
        counts: rows in them.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._writer: Any = None
        self.schemas: list[pa.Schema] = []
        self.counts: list[int] = []

    def write(self, table: pa.Table) -> None:
        """Add rows; a table without any only tells the columns."""
        if not self.schemas or not self.schemas[-1].equals(table.schema):
            self.close()
            self.schemas.append(table.schema)
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            self._writer = pa.ipc.new_file(self._file(-1), table.schema, options=options)
            self.counts.append(0)
        self._writer.write_table(table)
        self.counts[-1] += table.num_rows

    @property
    def rows(self) -> int:
        """Number of all rows."""
        return sum(self.counts)

    def close(self) -> None:
        """Finish the file that is open, so that the rows can be read."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def tables(self) -> Iterator[pa.Table]:
        """The rows, in the order they came in."""
        for number in range(len(self.schemas)):
            yield from self.tables_of(number)

    def tables_of(self, number: int) -> Iterator[pa.Table]:
        """The rows with one of the schemas."""
        self.close()
        with pa.memory_map(self._file(number)) as source, pa.ipc.open_file(source) as reader:
            for place in range(reader.num_record_batches):
                yield pa.Table.from_batches([reader.get_batch(place)])

    def _file(self, number: int) -> str:
        return str(self._folder / f"{range(len(self.schemas))[number]:06}.arrow")

    def schema(self) -> pa.Schema:
        """The schema that holds all values: numbers of several types as the widest, else text."""
        names = self.schemas[0].names
        wide = {name: self._number(name) for name in names}
        fields = ([(f.name, wide[f.name] or f.type) for f in schema] for schema in self.schemas)
        return common_schema(map(pa.schema, fields))

    def _number(self, name: str) -> pa.DataType | None:
        """The type of a column with numbers of several types; None where there is none."""
        kinds = {schema.field(name).type for schema in self.schemas} - {pa.null()}
        floating = [pa.types.is_floating(kind) for kind in kinds]
        if len(kinds) < 2 or not all(map(_is_number, kinds)):
            return None
        if not any(floating):
            return _decimal(kinds)
        if any(map(pa.types.is_decimal, kinds)) or self._has_long_integer(name):
            return None
        return pa.float64()

    def _has_long_integer(self, name: str) -> bool:
        columns = (table.column(name) for table in self.tables())
        limits = (pc.min_max(column) for column in columns if pa.types.is_integer(column.type))
        return any(
            abs(each["min"].as_py() or 0) > _EXACT_IN_FLOAT
            or abs(each["max"].as_py() or 0) > _EXACT_IN_FLOAT
            for each in limits
        )


@dataclass(frozen=True)
class Held:
    """Rows of a landed Parquet file: all, or those with one value in a column."""

    place: Place
    column: str = ""
    value: pa.Scalar | None = None

    def reader(self) -> pa.RecordBatchReader:
        """The rows, streamed."""
        import pyarrow.dataset as ds
        from pyarrow import fs

        files = fs.PyFileSystem(fs.FSSpecHandler(self.place.fs))
        dataset = ds.dataset(self.place.path, format="parquet", filesystem=files)
        if self.value is None:
            return dataset.scanner().to_reader()
        kind = dataset.schema.field(self.column).type
        return dataset.scanner(filter=ds.field(self.column) == self.value.cast(kind)).to_reader()


def write_spooled(spool: Spool, schema: pa.Schema, noted: Mapping[str, Any], file: Path) -> None:
    """Write all rows with one schema, and what is noted about them in the footer."""
    metadata = {METADATA: json.dumps(noted)}
    with pq.ParquetWriter(file, schema.with_metadata(metadata), compression="zstd") as writer:
        for table in spool.tables():
            writer.write_table(conform(table, schema))


def rows_not_in(spool: Spool, held: Sequence[Held]) -> pa.Int64Array:
    """Positions (from 0) of rows that the held ones do not account for, each held row once.

    Rows are equal when all columns are; a column that one side lacks is empty there, and values of
    different types are compared as DuckDB unites them.
    """
    import duckdb

    known = [each.reader() for each in held]
    names = sorted({name for each in (*spool.schemas, *known) for name in _names(each)})
    readers = [*_placed(spool, names), *(_numbered(each, names) for each in known)]
    columns = ", ".join(f"c{number}" for number in range(len(names)))
    with duckdb.connect(config={"temp_directory": tempfile.gettempdir()}) as connection:
        for number, reader in enumerate(readers):
            connection.register(f"rows_{number}", reader)
        rows = " UNION ALL BY NAME ".join(f"FROM rows_{number}" for number in range(len(readers)))
        counted = (
            f"SELECT position, count(*) FILTER (position IS NULL) OVER (PARTITION BY {columns}) "
            f"AS held, row_number() OVER (PARTITION BY {columns}, position IS NULL "
            f"ORDER BY position) AS copy FROM ({rows})"
        )
        found = connection.sql(
            f"SELECT position FROM ({counted}) WHERE position IS NOT NULL AND copy > held "
            "ORDER BY position"
        )
        return found.to_arrow_table().column(0).combine_chunks()


def _names(source: pa.Schema | pa.RecordBatchReader) -> list[str]:
    return (source if isinstance(source, pa.Schema) else source.schema).names


def _placed(spool: Spool, names: Sequence[str]) -> Iterator[pa.RecordBatchReader]:
    """A reader for each schema of a spool, its rows with their positions."""
    first = 0
    for number, schema in enumerate(spool.schemas):
        placed = _renamed(schema, names).append(pa.field("position", pa.int64()))
        yield pa.RecordBatchReader.from_batches(
            placed, _with_positions(spool.tables_of(number), placed, first)
        )
        first += spool.counts[number]


def _with_positions(
    tables: Iterator[pa.Table], schema: pa.Schema, first: int
) -> Iterator[pa.RecordBatch]:
    for table in tables:
        positions = pa.array(np.arange(first, first + table.num_rows))
        first += table.num_rows
        yield from pa.table([*table.columns, positions], schema=schema).to_batches()


def _numbered(reader: pa.RecordBatchReader, names: Sequence[str]) -> pa.RecordBatchReader:
    schema = _renamed(reader.schema, names)
    batches = (pa.RecordBatch.from_arrays(batch.columns, schema=schema) for batch in reader)
    return pa.RecordBatchReader.from_batches(schema, batches)


def _renamed(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    """Numbers for names: DuckDB folds case."""
    return pa.schema([(f"c{names.index(field.name)}", field.type) for field in schema])


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _decimal(kinds: set[pa.DataType]) -> pa.DataType | None:
    """The decimal that holds all digits before and after the point, if any is a decimal."""
    if not any(map(pa.types.is_decimal, kinds)):
        return None
    scale = max(getattr(kind, "scale", 0) for kind in kinds)
    whole = max(
        getattr(kind, "precision", _DIGITS_OF_INTEGER) - getattr(kind, "scale", 0) for kind in kinds
    )
    return pa.decimal128(whole + scale, scale) if whole + scale <= _LONGEST_DECIMAL else None
