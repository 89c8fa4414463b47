"""Reading what is stored from a notebook: one function, no Dagster."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlops_assets.errors import StorageError
from mlops_assets.settings import load_settings, parse_moment

if TYPE_CHECKING:
    import pandas as pd

    from mlops_assets.storage import SnapshotStore


def load(
    product: str,
    asset: str,
    country: str | None = None,
    *,
    as_of: dt.datetime | str | None = None,
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """A stored asset as a frame, as it is or as it was.

    Args:
        product: such as `power_price`.
        asset: such as `features`; also a log, such as `decisions` (all countries without one).
        country: the partition; None for an asset without partitions.
        as_of: the snapshot that was current at this moment; a time without a zone is UTC; None:
            now.
        columns: only these, in this order; None for all.

    Raises:
        StorageError: it was never stored, was not stored yet at that moment, has no such column,
            or retention has removed the snapshot of that moment.
        ConfigurationError: `as_of` is no time.
    """
    from mlops_assets.storage import SnapshotStore

    store, key = SnapshotStore(load_settings().storage), (product, asset)
    moment = None if as_of is None else _in_utc(as_of)
    if store.current(key, country) is not None:
        if moment is not None and store.as_of(key, country, moment) is None:
            raise _not_yet(store, key, country, moment)
        return store.read(key, country, columns=columns, as_of=moment)
    if not store.log_files(key, country):
        raise _never_stored(store, key, country)
    log = store.read_log(key, country, as_of=moment)
    if log.empty and moment is not None:
        raise _no_entry_yet(key, country, moment)
    return log if columns is None else _only(log, columns, key)


def _in_utc(as_of: dt.datetime | str) -> dt.datetime:
    if isinstance(as_of, str):
        return parse_moment(as_of)
    return as_of.replace(tzinfo=dt.UTC) if as_of.tzinfo is None else as_of.astimezone(dt.UTC)


def _only(log: pd.DataFrame, columns: Sequence[str], key: tuple[str, str]) -> pd.DataFrame:
    missing = [name for name in columns if name not in log]
    if missing:
        raise StorageError(
            f"The log {'/'.join(key)} has no column {', '.join(map(repr, missing))}.",
            stored="Nothing was read.",
            way_out=f"It has {', '.join(map(str, log.columns))}.",
            culprits={"columns": missing},
        )
    return log[list(columns)]


def _not_yet(
    store: SnapshotStore, key: tuple[str, str], country: str | None, moment: dt.datetime
) -> StorageError:
    first = store.versions(key, country)[-1].created_at
    return StorageError(
        f"There was no snapshot of {_name(key, country)} at {moment:%Y-%m-%d %H:%M} UTC. The first "
        f"is of {first:%Y-%m-%d %H:%M} UTC.",
        stored="Nothing was read.",
        way_out="To compute what could have been known then: mlops-assets materialize "
        f"{key[0]} --country {country or 'CODE'} --as-of {moment:%Y-%m-%dT%H:%M:%SZ}",
        culprits={"product": key[0], "asset": key[1], "country": country},
    )


def _no_entry_yet(key: tuple[str, str], country: str | None, moment: dt.datetime) -> StorageError:
    return StorageError(
        f"The log {_name(key, country)} had no entry at {moment:%Y-%m-%d %H:%M} UTC.",
        stored="Nothing was read.",
        way_out="Ask for a later time, or leave out as_of.",
        culprits={"product": key[0], "asset": key[1], "country": country},
    )


def _never_stored(store: SnapshotStore, key: tuple[str, str], country: str | None) -> StorageError:
    countries = list(store.current_all(key))
    there = ["/".join(each) for each in store.assets() if each[:1] == key[:1]]
    if countries:
        known = f"It is stored of {', '.join(countries)}."
    else:
        known = f"Of {key[0]} there is {', '.join(there) or 'nothing'}."
    return StorageError(
        f"There is no snapshot of {_name(key, country)}.",
        stored="Nothing was read.",
        way_out=f"{known} To make it: mlops-assets materialize {key[0]} "
        f"--country {country or 'CODE'}",
        culprits={"product": key[0], "asset": key[1], "country": country},
    )


def _name(key: tuple[str, str], country: str | None) -> str:
    return "/".join(key) + (f" of {country}" if country else "")
