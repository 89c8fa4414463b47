"""Frames as Parquet and back, with every dtype as it was.

Parquet and Arrow lose some pandas types on the way: categories that are not text, categories of
empty frames, seconds, object columns of numbers, Arrow-backed strings. What they lose is noted
in the file's footer and put back on reading. Not kept: the `freq` of an index (a pandas hint), NaN
in an object column (read as None), and arrays inside lists (read as lists).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from mlops_assets.errors import StorageError

FOOTER = b"mlops_assets"
_CATEGORIES = b"mlops_assets.categories"
_STRINGS = b"mlops_assets.strings"
_OURS = (FOOTER, _CATEGORIES, _STRINGS)
# Below this many cells one thread is faster than handing the columns to several.
_CELLS_WORTH_THREADS = 500_000
_BYTES_WORTH_COMPRESSING = 16_384
# A column of mostly different values is found out soon, which saves a sixth of writing.
_DICTIONARY_BYTES = 131_072
_ROWS_WORTH_A_LOOK = 10_000
_SAMPLE = 1_000
_ROWS_WORTH_CODES = 50_000


@dataclass(frozen=True)
class Stored:
    """A Parquet file as read: its rows, and the record its writer put in the footer."""

    table: pa.Table
    record: dict[str, Any]


def to_table(data: pd.DataFrame | pa.Table, *, keep_index: bool = True) -> pa.Table:
    """A frame as the Arrow table that is stored.

    Args:
        data: n rows x m columns; an Arrow table is taken as it is.
        keep_index: whether an index that is not just 0 to n-1 becomes a column.

    Raises:
        StorageError: not a frame; a column name twice; a column that Arrow cannot hold.
    """
    if isinstance(data, pd.DataFrame):
        table = _from_pandas(data, keep_index)
    elif isinstance(data, pa.Table):
        table = data
    else:
        raise StorageError(
            f"A {type(data).__name__} cannot be stored; a snapshot is a pandas DataFrame or an "
            "Arrow table.",
            way_out="Return one of these.",
        )
    if len(set(table.column_names)) < table.num_columns:
        twice = sorted({n for n in table.column_names if table.column_names.count(n) > 1})
        raise StorageError(
            f"Columns {twice} occur more than once in one frame.",
            way_out="Give every column its own name.",
            culprits={"columns": twice},
        )
    return _with_true_range(table)


def _from_pandas(frame: pd.DataFrame, keep_index: bool) -> pa.Table:
    if len(frame) and not len(frame.columns) and isinstance(frame.index, pd.RangeIndex):
        raise StorageError(
            f"A frame of {len(frame)} rows has no columns; Parquet would lose the rows.",
            way_out="Give it at least one column.",
        )
    try:
        table = pa.Table.from_pandas(frame, preserve_index=None if keep_index else False)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        reason = " ".join(str(argument) for argument in error.args)
        raise StorageError(
            f"The frame cannot be stored: {reason}.",
            way_out="Give every column one name and one type (for mixed values: text).",
        ) from error
    return _noting_strings(table, frame)


def _noting_strings(table: pa.Table, frame: pd.DataFrame) -> pa.Table:
    """Note which text dtype columns and categories have: Arrow restores only the plainest one."""
    noted = {
        str(name): [kind.storage, kind.na_value is pd.NA]
        for name, kind in ((name, _text_kind(kind)) for name, kind in frame.dtypes.items())
        if kind is not None
    }
    if not noted:
        return table
    metadata = {**(table.schema.metadata or {}), _STRINGS: json.dumps(noted).encode()}
    return table.replace_schema_metadata(metadata)


def _text_kind(kind: Any) -> pd.StringDtype | None:
    """The text dtype that must be noted for a column of this dtype."""
    if isinstance(kind, pd.CategoricalDtype) and isinstance(kind.categories, pd.Index):
        inner = kind.categories.dtype
        return inner if isinstance(inner, pd.StringDtype) else None
    if not isinstance(kind, pd.StringDtype):
        return None
    return None if kind.storage == "python" and kind.na_value is pd.NA else kind


def _with_true_range(table: pa.Table) -> pa.Table:
    """Correct the noted 0-to-n index of a table that was sliced or filtered since.

    Otherwise the same rows would have another content hash for having been part of something else.
    """
    notes = _pandas_notes(table)
    index = notes.get("index_columns", [])
    if len(index) != 1 or not isinstance(index[0], dict):
        return table
    noted = index[0]
    if len(range(noted["start"], noted["stop"], noted["step"])) == table.num_rows:
        return table
    noted.update(start=0, stop=table.num_rows, step=1)
    metadata = {**table.schema.metadata, b"pandas": json.dumps(notes).encode()}
    return table.replace_schema_metadata(metadata)


def _pandas_notes(table: pa.Table) -> dict[str, Any]:
    raw = (table.schema.metadata or {}).get(b"pandas")
    return json.loads(raw) if raw else {}


def write_parquet(table: pa.Table, sink: BinaryIO, record: Mapping[str, Any]) -> None:
    """Write a table and a JSON record about it as one Parquet file (zstd, checksummed pages).

    Raises:
        StorageError: a type that Parquet cannot hold.
        OSError: the sink cannot take it.
    """
    metadata = {**(table.schema.metadata or {}), FOOTER: json.dumps(dict(record)).encode()}
    if categories := _categories(table):
        metadata[_CATEGORIES] = categories
    try:
        pq.write_table(
            table.replace_schema_metadata(metadata),
            sink,
            compression="zstd",
            write_page_checksum=True,
            dictionary_pagesize_limit=_DICTIONARY_BYTES,
            write_statistics=_worth_statistics(table.schema),
            **_encodings(table),
        )
    except pa.ArrowException as error:
        raise StorageError(
            f"The frame cannot be stored as Parquet: {error}.",
            way_out="Convert that column (intervals, for example, to text).",
        ) from error


def _worth_statistics(schema: pa.Schema) -> Any:
    """Columns whose least and greatest value is noted; of text it takes a fifth of writing."""
    # Any: the stubs know only all columns or none.
    return [field.name for field in schema if pt.is_primitive(field.type)]


def _encodings(table: pa.Table) -> dict[str, Any]:
    """Whole numbers that hardly repeat, such as ids, as differences: a dictionary pays for none."""
    nested = any(pt.is_nested(field.type) for field in table.schema)
    if nested or table.num_rows < _ROWS_WORTH_A_LOOK:
        return {}
    first = table.slice(0, _SAMPLE)
    numbers = [field.name for field in table.schema if pt.is_integer(field.type)]
    differ = [n for n in numbers if len(first[n].unique()) > _SAMPLE // 2]
    others = [name for name in table.column_names if name not in differ]
    return {
        "use_dictionary": others,
        "column_encoding": dict.fromkeys(differ, "DELTA_BINARY_PACKED"),
    }


def _categories(table: pa.Table) -> bytes | None:
    """The categories of every categorical column, in order, used or not."""
    found = {
        field.name: _list_of(table[field.name].unify_dictionaries())
        for field in table.schema
        if pt.is_dictionary(field.type)
    }
    if not found:
        return None
    sink = pa.BufferOutputStream()
    one_row = pa.table(found)
    # Setting up a compressor costs more than it saves on the usual handful of names.
    worth_it = one_row.nbytes > _BYTES_WORTH_COMPRESSING
    options = pa.ipc.IpcWriteOptions(compression="zstd" if worth_it else None)
    with pa.ipc.new_stream(sink, one_row.schema, options=options) as writer:
        writer.write_table(one_row)
    return base64.b64encode(sink.getvalue())


def _list_of(column: pa.ChunkedArray) -> pa.Array:
    chunks = column.chunks
    values = chunks[0].dictionary if chunks else pa.array([], column.type.value_type)
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values)


def read_parquet(source: Any, columns: Sequence[str] | None = None) -> Stored:
    """A file that `write_parquet` wrote, with the types it was written with.

    Args:
        source: a local path or an Arrow buffer.
        columns: only these, in this order (index columns come along); None for all.

    Raises:
        StorageError: a column that is not in the file.
        pyarrow.ArrowException, OSError, ValueError, KeyError: the file is damaged.
    """
    table, notes = _read(source, columns)
    return Stored(_restored(table, notes), json.loads(notes.get(FOOTER, b"{}")))


def _read(source: Any, columns: Sequence[str] | None) -> tuple[pa.Table, Mapping[bytes, bytes]]:
    """A file as Arrow reads it, with the key-value notes of its footer."""
    with _opened(source) as file:
        facts = file.metadata
        notes = facts.metadata or {}
        names = _wanted(file.schema_arrow, columns)
        coded = _repeating(file)
        threads = facts.num_rows * facts.num_columns > _CELLS_WORTH_THREADS
        plain = None if coded else file.read(columns=names, use_threads=threads)
    if plain is None:
        with _opened(source, metadata=facts, read_dictionary=coded) as file:
            table = file.read(columns=names, use_threads=threads)
    else:
        table = plain
    return table if names is None else table.select(names), notes


def _repeating(file: pq.ParquetFile) -> list[str]:
    """Text columns that Parquet keeps as codes: without them a value takes at least 4 bytes.

    Read as codes and then turned into text they take less time than read as text.
    """
    facts, schema = file.metadata, file.schema_arrow
    notes = schema.metadata or {}
    if facts.num_rows < _ROWS_WORTH_CODES:
        return []
    sizes: dict[str, int] = {}
    for group, place in product(range(facts.num_row_groups), range(facts.num_columns)):
        chunk = facts.row_group(group).column(place)
        name = chunk.path_in_schema
        sizes[name] = sizes.get(name, 0) + chunk.total_uncompressed_size
    made_of = schema.pandas_metadata or {}
    typed = [
        column["field_name"]
        for column in made_of.get("columns", [])
        if column["numpy_type"] != "object"
    ]
    kept = [*typed, *made_of.get("index_columns", []), *_noted_texts(notes)]
    return [
        field.name
        for field in schema
        if pt.is_string(field.type)
        and sizes[field.name] < 4 * facts.num_rows
        and field.name not in kept
    ]


def read_record(source: Any) -> dict[str, Any]:
    """Only the record in the footer of a file."""
    with _opened(source) as file:
        return json.loads((file.metadata.metadata or {})[FOOTER])


def _opened(source: Any, **options: Any) -> pq.ParquetFile:
    return pq.ParquetFile(
        source, memory_map=True, pre_buffer=False, page_checksum_verification=True, **options
    )


def _wanted(schema: pa.Schema, columns: Sequence[str] | None) -> list[str] | None:
    if columns is None:
        return None
    if absent := [name for name in columns if name not in schema.names]:
        raise StorageError(
            f"Columns {absent} are not in it; there are {schema.names}.",
            stored="Nothing was read.",
            way_out="Ask for columns it has, or materialize it again with them.",
            culprits={"columns": absent},
        )
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    kept = [name for name in index if isinstance(name, str) and name in schema.names]
    return list(dict.fromkeys([*columns, *kept]))


def _restored(table: pa.Table, notes: Mapping[bytes, bytes]) -> pa.Table:
    """The table with the logical types it had before Parquet, and without our footer."""
    if raw := notes.get(b"ARROW:schema"):
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(raw)))
        categories = _read_categories(notes.get(_CATEGORIES))
        for position, name in enumerate(table.column_names):
            kind = schema.field(name).type
            if pt.is_dictionary(kind) and name in categories:
                column = _coded(table.column(position), kind, categories[name])
                table = table.set_column(position, pa.field(name, kind), column)
            elif table.schema.field(position).type != kind:
                table = table.set_column(position, name, table.column(position).cast(kind))
    kept = (table.schema.metadata or {}).items()
    return table.replace_schema_metadata(
        {key: value for key, value in kept if key not in _OURS or key == _STRINGS}
    )


def _read_categories(raw: bytes | None) -> dict[str, pa.Array]:
    if raw is None:
        return {}
    table = pa.ipc.open_stream(pa.py_buffer(base64.b64decode(raw))).read_all()
    return {name: table[name].chunk(0).values for name in table.column_names}


def _coded(column: pa.ChunkedArray, kind: pa.DataType, categories: pa.Array) -> pa.ChunkedArray:
    chunks = [_coded_chunk(chunk, kind, categories) for chunk in column.chunks]
    if not chunks:
        empty = pa.array([], kind.index_type)
        chunks = [pa.DictionaryArray.from_arrays(empty, categories, ordered=kind.ordered)]
    return pa.chunked_array(chunks)


def _coded_chunk(chunk: pa.Array, kind: pa.DataType, categories: pa.Array) -> pa.Array:
    if pt.is_dictionary(chunk.type) and chunk.dictionary.equals(categories):
        codes = chunk.indices
    else:
        values = chunk.dictionary_decode() if pt.is_dictionary(chunk.type) else chunk
        lookup = pc.SetLookupOptions(value_set=categories)
        codes = pc.call_function("index_in", [values.cast(categories.type)], lookup)
    return pa.DictionaryArray.from_arrays(
        codes.cast(kind.index_type), categories, ordered=kind.ordered
    )


def to_frame(table: pa.Table) -> pd.DataFrame:
    """A stored table as the pandas frame it came from (lists are Python lists)."""
    frame = table.to_pandas(use_threads=table.nbytes > _CELLS_WORTH_THREADS * 8)
    for name in _wide_with_gaps(table):
        frame[name] = _exact(table[name], frame.index)
    texts = _noted_texts(table.schema.metadata or {})
    objects = set(_object_columns(table))
    # Positions, because pandas may name a column 0 where Arrow says "0".
    for position, name in enumerate(frame.columns):
        if str(name) in texts:
            frame.isetitem(position, _text(frame.iloc[:, position], *texts[str(name)]))
        elif str(name) in objects:
            frame.isetitem(position, _objects(table[str(name)], frame.index))
    return frame


def _wide_with_gaps(table: pa.Table) -> Iterator[str]:
    """Whole numbers of 64 bits with missing ones, which pandas would make floats of 53 bits of.

    What came from a frame says in its notes what it was; this is about records as delivered.
    """
    noted = {note["field_name"] for note in _pandas_notes(table).get("columns", ())}
    for field in table.schema:
        wide = pt.is_int64(field.type) or pt.is_uint64(field.type)
        if wide and field.name not in noted and table[field.name].null_count:
            yield field.name


def _exact(column: pa.ChunkedArray, index: pd.Index) -> pd.Series:
    kind = "int64" if pt.is_int64(column.type) else "uint64"
    missing = column.is_null().to_numpy()
    values = column.fill_null(0).to_numpy().astype(kind)
    return pd.Series(pd.arrays.IntegerArray(values, missing), index=index)


def _noted_texts(notes: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Column or categories: text dtype that `_noting_strings` wrote down."""
    return json.loads(notes.get(_STRINGS, b"{}"))


def _text(column: pd.Series, storage: str, missing_is_na: bool) -> pd.Series:
    # Any: the stubs are those of a later pandas than the one pinned here.
    text_dtype: Any = pd.StringDtype
    kind = text_dtype(storage, na_value=pd.NA if missing_is_na else np.nan)
    if not isinstance(column.dtype, pd.CategoricalDtype):
        return column.astype(kind)
    categories: Any = column.cat.categories.astype(kind)
    return column.cat.rename_categories(categories)


def _object_columns(table: pa.Table) -> Iterator[str]:
    """Columns that were Python objects and that Arrow would give back as something else."""
    notes = {column["field_name"]: column for column in _pandas_notes(table).get("columns", ())}
    were_objects = {name for name, note in notes.items() if note["numpy_type"] == "object"}
    for field in table.schema:
        if _is_list(field.type) or (field.name in were_objects and _turns_native(field.type)):
            yield field.name


def _turns_native(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.UuidType) or any(
        test(kind) for test in (pt.is_integer, pt.is_floating, pt.is_timestamp, pt.is_duration)
    )


def _is_list(kind: pa.DataType) -> bool:
    return pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)


def _objects(column: pa.ChunkedArray, index: pd.Index) -> pd.Series:
    values = np.empty(len(column), dtype=object)
    values[:] = column.to_pylist()
    return pd.Series(values, index=index, dtype=object)


def stack(parts: Sequence[tuple[str | None, pa.Table]], label: str | None = None) -> pa.Table:
    """Several tables under each other; a column that some lack is null there.

    Args:
        parts: (key, table), in order; indexes are dropped.
        label: name of a first column holding the key; None for no such column.

    Raises:
        StorageError: a column has types with no common one, or is itself named like the label.
    """
    tables = []
    for key, table in parts:
        rows = _without_index(table)
        if label in rows.column_names:
            raise StorageError(
                f"Column {label!r} of {key!r} has the name that tells the parts apart.",
                stored="Nothing was read.",
                way_out="Rename that column, or ask for a dict of frames.",
            )
        if label is not None:
            rows = rows.add_column(0, label, pa.repeat(pa.scalar(key, pa.string()), len(rows)))
        tables.append(rows)
    if not tables:
        return pa.table({} if label is None else {label: pa.array([], pa.string())})
    return _concatenated(tables, [key for key, _ in parts])


def _concatenated(tables: Sequence[pa.Table], keys: Sequence[str | None]) -> pa.Table:
    having_a_say = _without_empty_opinions(tables)
    different = _columns_of_different_categories(having_a_say)
    plain = [_dense(table, different) for table in having_a_say]
    try:
        whole = pa.concat_tables(plain, promote_options="permissive")
    except (pa.ArrowException, TypeError) as error:
        raise StorageError(
            f"The tables of {list(keys)[:5]} do not fit under each other: {error}.",
            stored="Nothing was read.",
            way_out="Materialize them again with the same types, or read them one by one.",
        ) from error
    return whole.replace_schema_metadata(_merged_notes(plain, whole))


def _without_empty_opinions(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """A part without rows has no say in the types of columns that others fill."""
    filled = {name for table in tables if len(table) for name in table.column_names}
    return [
        table if len(table) else table.select([n for n in table.column_names if n not in filled])
        for table in tables
    ]


def _without_index(table: pa.Table) -> pa.Table:
    noted = _pandas_notes(table).get("index_columns", [])
    index = [name for name in noted if isinstance(name, str) and name in table.column_names]
    return table.drop_columns(index) if index else table


def _columns_of_different_categories(tables: Sequence[pa.Table]) -> set[str]:
    """Categorical columns that do not have the same categories in every part that has them."""
    first: dict[str, pa.ChunkedArray] = {}
    different: set[str] = set()
    for table in tables:
        for field in table.schema:
            known = first.setdefault(field.name, table[field.name])
            either = pt.is_dictionary(field.type) or pt.is_dictionary(known.type)
            if either and not _same_categories(known, table[field.name]):
                different.add(field.name)
    return different


def _same_categories(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    return one.type == other.type and _list_of(one).equals(_list_of(other))


def _dense(table: pa.Table, names: set[str]) -> pa.Table:
    """The table with these categorical columns as plain values."""
    for position, field in enumerate(table.schema):
        if field.name in names and pt.is_dictionary(field.type):
            plain = table.column(position).cast(field.type.value_type)
            table = table.set_column(position, field.name, plain)
    return table


def _merged_notes(tables: Sequence[pa.Table], whole: pa.Table) -> dict[bytes, bytes] | None:
    """The pandas notes of all parts, for the columns whose type is the same in all of them."""
    columns: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    template: dict[str, Any] = {}
    for table in tables:
        template = _pandas_notes(table) or template
        texts |= _noted_texts(table.schema.metadata or {})
        for note in _pandas_notes(table).get("columns", ()):
            columns[note["field_name"]] = note
    if not template:
        return None
    kept = {field.name for field in whole.schema if _is_shared(field, tables)}
    notes = template | {"index_columns": [], "attributes": {}}
    notes["columns"] = [note for name, note in columns.items() if name in kept]
    merged = {b"pandas": json.dumps(notes).encode()}
    if texts := {name: kind for name, kind in texts.items() if name in kept}:
        merged[_STRINGS] = json.dumps(texts).encode()
    return merged


def _is_shared(field: pa.Field, tables: Sequence[pa.Table]) -> bool:
    having = (table.schema for table in tables if field.name in table.column_names)
    return all(schema.field(field.name).type == field.type for schema in having)
