"""Tables with different columns or types under one another, without losing a row or a text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute  # made at import time, so no type checker sees its functions

SOURCE_COLUMNS = ("_source_file", "_source_hash", "_source_line")
INGESTED = "_ingested_at"
REPLACED = "_replaced_at"
TECHNICAL_COLUMNS = (*SOURCE_COLUMNS, INGESTED, REPLACED)
"""Columns the platform adds to published ones; they come last."""

_LONG, _EXACT = 1e15, 2.0**53
"""From where Arrow writes floats with an exponent; up to where they tell whole numbers apart."""


def append_tables(earlier: pa.Table | None, new: pa.Table) -> pa.Table:
    """The rows of `earlier`, then those of `new`, with the columns of both.

    A column that one side lacks is null there. Where the types disagree, whole numbers become the
    wider whole number and everything else becomes text: as published for text, else the value in
    full (`1.5`, `true`, `2024-01-31`).
    """
    if earlier is None:
        return new
    schema = common_schema([earlier.schema, new.schema])
    return pa.concat_tables([conform(earlier, schema), conform(new, schema)])


def common_schema(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """The union of columns by name, in order of first appearance, technical columns last."""
    types: dict[str, pa.DataType] = {}
    for schema in schemas:
        for field in schema:
            known = types.get(field.name)
            types[field.name] = field.type if known is None else _common_type(known, field.type)
    published = [name for name in types if name not in TECHNICAL_COLUMNS]
    technical = [name for name in TECHNICAL_COLUMNS if name in types]
    return pa.schema([(name, types[name]) for name in [*published, *technical]])


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the columns and types of a schema that `common_schema` gave."""
    if table.schema.equals(schema):
        return table.replace_schema_metadata()
    columns = [
        _conform_column(table.column(field.name), field.type)
        if field.name in table.column_names
        else pa.chunked_array([pa.nulls(table.num_rows, field.type)])
        for field in schema
    ]
    return pa.table(columns, schema=schema) if columns else table.select([])


def _common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one.equals(other) or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    pair = (_plain(one), _plain(other))
    if pair[0].equals(pair[1]):
        return pair[0]
    for same_kind in (pa.types.is_signed_integer, pa.types.is_unsigned_integer):
        if same_kind(pair[0]) and same_kind(pair[1]):
            return max(pair, key=lambda kind: kind.bit_width)
    return pa.large_string() if any(map(pa.types.is_large_string, pair)) else pa.string()


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if isinstance(kind, pa.DictionaryType) else kind


def _conform_column(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if column.type.equals(kind):
        return column
    if pa.types.is_null(column.type):
        return pa.chunked_array([pa.nulls(len(column), kind)])
    if isinstance(column.type, pa.DictionaryType):
        column = pc.cast(column, column.type.value_type)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        floats = pa.types.is_floating(column.type)
        return _float_text(column, kind) if floats else _as_text(column, kind)
    return pc.cast(column, kind)


def _as_text(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    try:
        return pc.cast(column, kind)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        # Lists, structs and bytes that are not UTF-8: rare, so one value at a time.
        write: Callable[[object], str] = _hex if _is_bytes(column.type) else _json
        values = [None if value is None else write(value) for value in column.to_pylist()]
        return pa.chunked_array([pa.array(values, kind)])


def _float_text(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Long whole numbers digit by digit, as the files beside it have them, not as 1e+15."""
    size = pc.abs(pc.cast(column, pa.float64()))
    whole = pc.and_(pc.equal(size, pc.floor(size)), pc.less(size, _EXACT))
    long = pc.fill_null(pc.and_(whole, pc.greater_equal(size, _LONG)), False)
    text = pc.cast(column, kind)
    if not pc.any(long).as_py():
        return text
    digits = pc.cast(pc.cast(pc.if_else(long, column, None), pa.int64()), kind)
    return pc.if_else(long, digits, text)


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _hex(value: object) -> str:
    return cast("bytes", value).hex()


def _json(value: object) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)
