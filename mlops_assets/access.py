"""Reading what is stored from a notebook: one function, no Dagster."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlops_assets.errors import StorageError
from mlops_assets.settings import load_settings, parse_moment

if TYPE_CHECKING:
    import pandas as pd


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
        StorageError: it was never stored, was not stored yet at that moment, or retention has
            removed the snapshot of that moment.
    """
    from mlops_assets.storage import SnapshotStore

    store, key = SnapshotStore(load_settings().storage), (product, asset)
    moment = parse_moment(as_of) if isinstance(as_of, str) else as_of
    if moment is not None and moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    if store.current(key, country) is None:
        log = store.read_log(key, country, as_of=moment)
        if len(log):
            return log if columns is None else log[list(columns)]
    if moment is not None and store.as_of(key, country, moment) is None:
        raise _not_yet(store.versions(key, country), product, asset, country, moment)
    return store.read(key, country, columns=columns, as_of=moment)


def _not_yet(
    versions: Sequence[object], product: str, asset: str, country: str | None, moment: dt.datetime
) -> StorageError:
    name = f"{product}/{asset}" + (f" of {country}" if country else "")
    first = getattr(versions[-1], "created_at", None) if versions else None
    since = f" The first is of {first:%Y-%m-%d %H:%M} UTC." if first else ""
    return StorageError(
        f"There was no snapshot of {name} at {moment:%Y-%m-%d %H:%M} UTC.{since}",
        stored="Nothing was read.",
        way_out="To compute what could have been known then: mlops-assets materialize "
        f"{product} --country {country or 'CODE'} --as-of {moment:%Y-%m-%d}",
        culprits={"product": product, "asset": asset, "country": country},
    )
