"""Everything stored as Parquet: immutable snapshots, append-only logs, and SQL over both.

Names are loaded on first use: importing this package imports neither Dagster nor DuckDB.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlops_assets.storage.catalog import connect, run_sql, write_catalog
    from mlops_assets.storage.failures import VersionGoneError
    from mlops_assets.storage.io_manager import SnapshotIOManager, Unchanged
    from mlops_assets.storage.keys import decode_key, encode_key
    from mlops_assets.storage.records import LogFile, Snapshot, StoredVersion, WriteResult
    from mlops_assets.storage.snapshots import SnapshotStore

__all__ = [
    "LogFile",
    "Snapshot",
    "SnapshotIOManager",
    "SnapshotStore",
    "StoredVersion",
    "Unchanged",
    "VersionGoneError",
    "WriteResult",
    "connect",
    "decode_key",
    "encode_key",
    "run_sql",
    "write_catalog",
]

_MODULES = {
    "LogFile": "records",
    "Snapshot": "records",
    "SnapshotIOManager": "io_manager",
    "SnapshotStore": "snapshots",
    "StoredVersion": "records",
    "Unchanged": "io_manager",
    "VersionGoneError": "failures",
    "WriteResult": "records",
    "connect": "catalog",
    "decode_key": "keys",
    "encode_key": "keys",
    "run_sql": "catalog",
    "write_catalog": "catalog",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
