"""The content hash of a table: what it says, not how it lies in memory.

Equal for the same columns, types and values, however the table is sliced, chunked or padded,
whatever lies under its nulls, and whichever pandas or Arrow wrote it. The order of rows and of
columns counts.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

if TYPE_CHECKING:
    from collections.abc import Iterator

HASH_LENGTH = 32
"""Hex digits of a content hash: 128 bits."""

# Arrow's 32-bit offsets end here; longer text must be put together with 64-bit ones.
_MAX_OFFSET = 2**31 - 1


def content_hash(table: pa.Table) -> str:
    """The content of a table as 32 hex digits.

    The schema counts with names and types (and what pandas noted about dtypes and index, without
    version numbers); key-value metadata of other programs does not.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps(_schema(table), sort_keys=True, ensure_ascii=False).encode())
    for column in table.columns:
        for part in _parts(_whole(column)):
            digest.update(part)
    return digest.hexdigest()[:HASH_LENGTH]


def _schema(table: pa.Table) -> dict[str, Any]:
    return {
        "hash": 1,
        "rows": table.num_rows,
        "columns": [[field.name, _describe(field.type)] for field in table.schema],
        "pandas": _pandas_notes((table.schema.metadata or {}).get(b"pandas")),
    }


def _pandas_notes(raw: bytes | None) -> dict[str, Any] | None:
    """What pandas notes about the frame, less what depends on the versions of the libraries."""
    if raw is None:
        return None
    notes = json.loads(raw)
    return {
        "index": notes.get("index_columns"),
        "attributes": notes.get("attributes") or {},
        "columns": [
            [column["field_name"], column["name"], column["pandas_type"], column["numpy_type"]]
            for column in notes.get("columns", ())
        ],
        "names": [
            [level["name"], level["pandas_type"]] for level in notes.get("column_indexes", ())
        ],
    }


def _describe(kind: pa.DataType) -> Any:
    """A type as JSON, without names that Parquet may change (list items) or narrow (codes)."""
    if isinstance(kind, pa.BaseExtensionType):
        return [kind.extension_name, str(kind), _describe(kind.storage_type)]
    if pt.is_dictionary(kind):
        return ["dictionary", kind.ordered, _describe(kind.value_type)]
    if pt.is_list(kind) or pt.is_large_list(kind):
        return [str(kind).partition("<")[0], _describe(kind.value_type)]
    if pt.is_fixed_size_list(kind):
        return ["fixed_size_list", kind.list_size, _describe(kind.value_type)]
    if pt.is_struct(kind):
        return ["struct", [[field.name, _describe(field.type)] for field in kind]]
    return str(kind)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """One array of all chunks (chunks of categories may each have their own dictionary)."""
    if pt.is_dictionary(column.type):
        column = column.unify_dictionaries()
    if column.nbytes > _MAX_OFFSET and pt.is_string(column.type):
        column = column.cast(pa.large_string())
    whole = column.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole


def _parts(array: pa.Array) -> Iterator[bytes | memoryview]:
    if pt.is_string_view(array.type) or pt.is_binary_view(array.type):
        # Arrow has no filter for views, and their buffers depend on how they were made.
        array = array.cast(pa.large_binary())
    kind = array.type
    yield b"%d;" % len(array)
    if isinstance(array, pa.ExtensionArray):
        yield from _parts(array.storage)
    elif pt.is_dictionary(kind):
        yield from _parts(array.indices.cast(pa.int64()))
        yield from _parts(array.dictionary)
    elif not pt.is_null(kind):
        if array.null_count:
            yield b"nulls"
            yield np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes()
            array = array.drop_null()
        yield from _values(array)


def _values(array: pa.Array) -> Iterator[bytes | memoryview]:
    """The bytes of an array without nulls."""
    kind = array.type
    if pt.is_boolean(kind):
        yield from _fixed(array.cast(pa.uint8()))
    elif pt.is_string(kind) or pt.is_binary(kind):
        yield from _variable(array, np.int32)
    elif pt.is_large_string(kind) or pt.is_large_binary(kind):
        yield from _variable(array, np.int64)
    elif pt.is_list(kind) or pt.is_large_list(kind):
        yield array.value_lengths().cast(pa.int64()).to_numpy().tobytes()
        yield from _parts(array.flatten())
    elif pt.is_fixed_size_list(kind):
        yield from _parts(array.flatten())
    elif pt.is_struct(kind):
        for child in array.flatten():
            yield from _parts(child)
    elif _is_fixed(kind):
        yield from _fixed(array)
    else:  # maps and unions: rare, and only their values say what they mean
        yield repr(array.to_pylist()).encode("utf-8", "surrogatepass")


def _is_fixed(kind: pa.DataType) -> bool:
    return pt.is_primitive(kind) or pt.is_decimal(kind) or pt.is_fixed_size_binary(kind)


def _fixed(array: pa.Array) -> Iterator[bytes | memoryview]:
    width = array.type.bit_width // 8
    yield _slice(array.buffers()[1], array.offset * width, len(array) * width)


def _variable(
    array: pa.Array, offset_type: type[np.int32] | type[np.int64]
) -> Iterator[bytes | memoryview]:
    _, positions, data = array.buffers()
    if not len(array) or positions is None:
        return
    width = np.dtype(offset_type).itemsize
    ends = np.frombuffer(positions, offset_type, len(array) + 1, array.offset * width)
    yield np.diff(ends).astype(np.int64).tobytes()
    yield _slice(data, int(ends[0]), int(ends[-1] - ends[0]))


def _slice(buffer: pa.Buffer | None, start: int, length: int) -> bytes | memoryview:
    return memoryview(buffer)[start : start + length] if buffer is not None and length else b""
