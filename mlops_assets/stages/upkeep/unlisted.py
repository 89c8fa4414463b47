"""Countries that are stored and no longer listed: dropped, or moved to the name they have now."""

import datetime as dt
from dataclasses import dataclass

import pandas as pd

from mlops_assets.errors import ConfigurationError
from mlops_assets.spec import country_text
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.datasets.ingestion import DELIVERIES
from mlops_assets.storage import Snapshot

DROPPED = "dropped"
"""Log of the product: what was dropped, one row a snapshot that was current."""


@dataclass(frozen=True)
class Unlisted:
    """A country that is stored and not listed.

    Attributes:
        country: its key.
        snapshots: its current ones.
    """

    country: str
    snapshots: tuple[Snapshot, ...]

    @property
    def raw_rows(self) -> int:
        """Rows as published."""
        return sum(each.rows for each in self.snapshots if each.asset[-1] == "raw")


def unlisted_countries(ctx: ProductContext) -> list[Unlisted]:
    """Stored countries that the YAML does not list, by key."""
    found: dict[str, list[Snapshot]] = {}
    for asset in ctx.store.assets():
        if asset[0] != ctx.name:
            continue
        for country, snapshot in ctx.store.current_all(asset).items():
            if country not in ctx.countries:
                found.setdefault(country, []).append(snapshot)
    return [Unlisted(country, tuple(each)) for country, each in sorted(found.items())]


def drop_country(ctx: ProductContext, country: str, *, reason: str) -> Unlisted:
    """Remove everything stored of a country that is not listed; logs and models stay.

    It is noted in the log `dropped` first. What was killed half-way is finished by dropping again.

    Raises:
        ConfigurationError: the country is listed, or nothing is stored of it.
        StorageError: a file cannot be removed; those before it are gone.
    """
    found = _stored(ctx, country)
    now = dt.datetime.now(dt.UTC)
    rows = [
        {
            "dropped_at": now,
            "country": country,
            "asset": each.asset[-1],
            "version": each.version,
            "content_hash": each.content_hash,
            "rows": each.rows,
            "reason": reason,
        }
        for each in found.snapshots
    ]
    ctx.store.append(ctx.path(DROPPED), None, pd.DataFrame(rows))
    for each in found.snapshots:
        ctx.store.drop(each.asset, country)
    return found


def move_country(ctx: ProductContext, old: str, new: str, *, reason: str) -> Unlisted:
    """Give the raw rows of a country that is not listed to a listed one, then drop the old.

    Everything else of the new country is made from these rows by the next run.

    Raises:
        ConfigurationError: the old one is listed, or nothing is stored of it; the new one is not
            listed, or has taken files by itself; or the YAML does not say that the one is the
            other.
    """
    ctx.product.resolved(new)
    found = _stored(ctx, old)
    raw = ctx.store.current(ctx.path("raw"), old)
    if raw is None:
        raise _refused(f"{ctx.name} {old} has no raw rows to move.", f"Drop it: {_drop(ctx, old)}")
    _require_names(ctx, old, new)
    held = ctx.store.current(ctx.path("raw"), new)
    if held is not None and held.content_hash != raw.content_hash:
        raise _refused(
            f"{ctx.name} {new} has taken files by itself; rows of both would count twice.",
            f"Drop the old one: {_drop(ctx, old)}. If files that {old} took are no longer in the "
            f"landing folder, put them back first: {new} takes what it does not have.",
        )
    table = ctx.store.read_table(raw.asset, old, version=raw.version)
    noted = {DELIVERIES: raw.metadata[DELIVERIES]}
    ctx.store.write(ctx.path("raw"), new, table, run_id=raw.run_id, metadata=noted)
    drop_country(ctx, old, reason=f"moved to {new}: {reason}")
    return found


def _stored(ctx: ProductContext, country: str) -> Unlisted:
    if country in ctx.countries:
        raise _refused(
            f"{ctx.name} lists {country}.",
            f"Take it out of `countries` in {ctx.product.folder / 'defs.yaml'} first.",
        )
    found = {each.country: each for each in unlisted_countries(ctx)}
    if country not in found:
        told = ", ".join(found) or "none"
        raise _refused(
            f"Nothing is stored of {ctx.name} {country}.", f"Stored and not listed: {told}."
        )
    return found[country]


def _require_names(ctx: ProductContext, old: str, new: str) -> None:
    """The names under which rows of the old country came are names of the new one now."""
    source, names = ctx.spec.source, ctx.spec.country_names
    rows = ctx.store.read(ctx.path("raw"), old)
    published = [rows[each] for each in source.published(source.country) if each in rows]
    came = {country_text(each) for column in published for each in column.dropna().unique()}
    other = sorted(each for each in came if names.resolve(each) != new)
    if other:
        raise _refused(
            f"Rows of {ctx.name} {old} came as {', '.join(map(repr, other))}, which is no name of "
            f"{new}.",
            f"Say so in the YAML: `aliases: {{{other[0]}: {new}}}`.",
        )


def _drop(ctx: ProductContext, country: str) -> str:
    return f"mlops-assets unlisted {ctx.name} --drop {country} --reason '...'"


def _refused(problem: str, way_out: str) -> ConfigurationError:
    return ConfigurationError(problem, stored="Nothing was changed.", way_out=way_out)
