"""Retention: which snapshots something still needs, and removing the others on purpose.

A snapshot is needed when it is current, when the as-of window can show it, when a registered model
or a decision names its content, or when a needed snapshot was made from it. Only a version that
nothing of this needs can be removed, and only when a person asks for it. Logs are never removed.

Whatever is named is looked up by content hash or version in the whole product, so that it does not
matter under which name a model or a snapshot recorded it.
"""

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_assets.errors import ConfigurationError, RegistryError
from mlops_assets.ml.gates.succession import comparisons_from_json
from mlops_assets.product import Product
from mlops_assets.registry import Registry
from mlops_assets.registry.models import POOLED
from mlops_assets.registry.trained import TrainedVersion, trained_versions
from mlops_assets.settings import without_password
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.common.lineage import INPUTS
from mlops_assets.stages.training.training_record import LINEAGE_FILE, SNAPSHOT_TAG
from mlops_assets.storage import Snapshot, SnapshotStore, StoredVersion, VersionGoneError
from mlops_assets.storage.records import moment_in_utc

if TYPE_CHECKING:
    import pandas as pd

_EVERY_COUNTRY = ""
_LEFT_BEHIND = "never was current: its writer was killed, or overtaken by another one"


@dataclass(frozen=True)
class Judged:
    """One stored snapshot, and why it is kept or can go.

    Attributes:
        snapshot: the stored version.
        reason: in words.
    """

    snapshot: Snapshot
    reason: str


@dataclass(frozen=True)
class RetentionPlan:
    """What retention would do to a product.

    Attributes:
        product: its name.
        now: when the plan was made (UTC).
        keep_days: length of the as-of window in days.
        kept: snapshots that are needed, each with the first reason found.
        removable: snapshots that nothing needs.
    """

    product: str
    now: dt.datetime
    keep_days: int
    kept: tuple[Judged, ...]
    removable: tuple[Judged, ...]

    def frame(self) -> "pd.DataFrame":
        """One row a stored snapshot: asset, country, version, written, rows, bytes, verdict, why.

        Those that can go come first, the oldest of a partition last.
        """
        import pandas as pd

        rows = [
            *(_row(each, "removable") for each in self.removable),
            *(_row(each, "kept") for each in self.kept),
        ]
        return pd.DataFrame(rows, columns=list(_COLUMNS))

    def summary(self) -> str:
        """How much can go, in one line."""
        every = [*self.kept, *self.removable]
        return (
            f"{self.product}: {len(self.removable):,} of {len(every):,} snapshots "
            f"({_size(self.removable)} of {_size(every)}) can be removed; every moment of the last "
            f"{_days_text(self.keep_days)} stays"
        )


@dataclass(frozen=True)
class Removed:
    """What a retention run did.

    Attributes:
        product: its name.
        removed: snapshots that are gone, each with the reason that the log keeps.
        spared: snapshots of the plan that something has come to need since, or that were gone.
    """

    product: str
    removed: tuple[Judged, ...]
    spared: tuple[Judged, ...]

    def summary(self) -> str:
        """How much went, in one line."""
        spared = f"; {len(self.spared):,} are needed since the plan" if self.spared else ""
        count = len(self.removed)
        return f"{self.product}: {count:,} snapshots removed, {_size(self.removed)} freed{spared}"


@dataclass(frozen=True)
class _Shelf:
    """The versions of one partition.

    Attributes:
        current: what the pointer named before the others were listed.
        at_start: what was current when the as-of window begins.
        versions: every stored file, newest first.
    """

    current: Snapshot
    at_start: Snapshot | None
    versions: Sequence[StoredVersion]


@dataclass(frozen=True)
class _Claims:
    """What models and decisions name.

    Attributes:
        named: content hash or version of a snapshot: who names it.
        unknown: country, or `_EVERY_COUNTRY`: which model of it does not say what it is made from.
    """

    named: Mapping[str, str]
    unknown: Mapping[str, str]


def plan_retention(
    ctx: ProductContext,
    *,
    now: dt.datetime,
    keep_days: int | None = None,
) -> RetentionPlan:
    """Judge every stored snapshot of a product; nothing is removed.

    Args:
        ctx: the product.
        now: end of the as-of window, with a time zone.
        keep_days: its length in days, at least 1; None for what the product says.

    Raises:
        ConfigurationError: a window under a day.
        RegistryError: the registry does not answer, or does not hold the product's models.
        StorageError: a snapshot cannot be read.
    """
    days = _days(ctx.product, keep_days)
    moment = moment_in_utc(now)
    since = moment - dt.timedelta(days=days)
    # Snapshots first: a model registered meanwhile is then among those that are asked.
    shelves = list(_shelves(ctx, since))
    claims = _claims(ctx)
    reasons = _with_ancestors(shelves, _needed(shelves, claims, since, days))
    ago = "a day" if days == 1 else _days_text(days)
    unneeded = f"replaced more than {ago} ago; no model, decision or kept snapshot needs it"
    kept, removable = [], []
    for version in _every(shelves):
        snapshot = version.snapshot
        if (reason := reasons.get(_key(snapshot))) is not None:
            kept.append(Judged(snapshot, reason))
        elif version.was_current:
            removable.append(Judged(snapshot, unneeded))
        else:
            kept.append(Judged(snapshot, _LEFT_BEHIND))
    return RetentionPlan(ctx.product.name, moment, days, tuple(kept), tuple(removable))


def apply_retention(planned: RetentionPlan, ctx: ProductContext) -> Removed:
    """Remove what a plan calls removable and what is unneeded still.

    Each removal is noted in the log `removals` of the product before its file goes. A run that is
    killed has removed a part of them, each of them whole.

    Raises:
        ConfigurationError: the plan is of another product.
        RegistryError: the registry does not answer; nothing was removed.
        StorageError: a removal failed; those before it are done and noted.
    """
    if planned.product != ctx.product.name:
        raise ConfigurationError(
            f"The plan is of {planned.product}, not of {ctx.product.name}.",
            stored="Nothing was removed.",
            way_out="Plan and remove with the same product.",
        )
    fresh = plan_retention(ctx, now=planned.now, keep_days=planned.keep_days)
    unneeded = {_key(each.snapshot): each for each in fresh.removable}
    removed = []
    for each in sorted(planned.removable, key=lambda judged: judged.snapshot.version):
        if (still := unneeded.get(_key(each.snapshot))) is not None:
            ctx.store.remove(still.snapshot, reason=still.reason)
            removed.append(still)
    spared = [each for each in planned.removable if _key(each.snapshot) not in unneeded]
    return Removed(ctx.product.name, tuple(removed), tuple(spared))


def _days(product: Product, keep_days: int | None) -> int:
    days = product.spec.retention.as_of_days if keep_days is None else keep_days
    if days < 1:
        raise ConfigurationError(
            f"The as-of window of {product.name} is {days} days; it is at least 1.",
            stored="Nothing was removed.",
            way_out="Give --keep-days 1 or more.",
            culprits={"keep_days": days},
        )
    return days


def _shelves(ctx: ProductContext, since: dt.datetime) -> Iterator[_Shelf]:
    for asset in ctx.store.assets():
        if asset[0] == ctx.product.name:
            unpartitioned = ctx.store.current(asset, None)
            current = [unpartitioned, *ctx.store.current_all(asset).values()]
            yield from (_shelf(ctx.store, each, since) for each in current if each is not None)


def _shelf(store: SnapshotStore, current: Snapshot, since: dt.datetime) -> _Shelf:
    asset, partition = current.asset, current.partition
    try:
        at_start = store.as_of(asset, partition, since)
    except VersionGoneError:  # removed by an earlier run with a shorter window
        at_start = None
    return _Shelf(current, at_start, store.stored_versions(asset, partition))


def _every(shelves: Sequence[_Shelf]) -> Iterator[StoredVersion]:
    for shelf in shelves:
        yield from shelf.versions


def _key(snapshot: Snapshot) -> tuple[tuple[str, ...], str | None, str]:
    return snapshot.asset, snapshot.partition, snapshot.version


_Reasons = dict[tuple[tuple[str, ...], str | None, str], str]


def _needed(shelves: Sequence[_Shelf], claims: _Claims, since: dt.datetime, days: int) -> _Reasons:
    """Why each snapshot is needed that is so by itself."""
    found = {
        _key(version.snapshot): _reason(shelf, version.snapshot, claims, since, days=days)
        for shelf in shelves
        for version in shelf.versions
    }
    return {key: reason for key, reason in found.items() if reason}


def _reason(
    shelf: _Shelf, snapshot: Snapshot, claims: _Claims, since: dt.datetime, *, days: int
) -> str:
    if snapshot.version == shelf.current.version:
        return "current"
    if snapshot.version > shelf.current.version:
        return "newer than the current one: its writer may be about to make it current"
    if snapshot.created_at >= since:
        return f"written in the last {_days_text(days)}"
    if shelf.at_start is not None and snapshot.version == shelf.at_start.version:
        return f"was current {'a day' if days == 1 else _days_text(days)} ago"
    for name in (snapshot.content_hash, snapshot.version):
        if name in claims.named:
            return claims.named[name]
    for country in (_EVERY_COUNTRY, snapshot.partition or _EVERY_COUNTRY):
        if country in claims.unknown:
            return claims.unknown[country]
    return ""


def _with_ancestors(shelves: Sequence[_Shelf], reasons: _Reasons) -> _Reasons:
    """The needed ones with all they were made from, and what those were made from."""
    holders: dict[str, list[StoredVersion]] = {}
    for version in _every(shelves):
        for name in (version.snapshot.content_hash, version.snapshot.version):
            holders.setdefault(name, []).append(version)
    found = dict(reasons)
    waiting = [version for version in _every(shelves) if _key(version.snapshot) in found]
    while waiting:
        made = waiting.pop()
        for source in (source for name in _inputs(made) for source in holders.get(name, ())):
            if _key(source.snapshot) not in found:
                found[_key(source.snapshot)] = f"{_name(made.snapshot)} was made from it"
                waiting.append(source)
    return found


def _inputs(version: StoredVersion) -> set[str]:
    """All that a snapshot was made from: at first, and as its content was made again later."""
    recorded = (version.first_metadata, version.snapshot.metadata)
    return {text for metadata in recorded for text in _texts(metadata.get(INPUTS))}


def _name(snapshot: Snapshot) -> str:
    country = f" of {snapshot.partition}" if snapshot.partition is not None else ""
    return f"{'/'.join(snapshot.asset[1:])}{country}, version {snapshot.version},"


def _claims(ctx: ProductContext) -> _Claims:
    trained = trained_versions(ctx.registry, ctx.product.name)
    decisions = ctx.store.read_log(ctx.path("decisions"))
    named: dict[str, str] = {}
    unknown: dict[str, str] = {}
    for row in decisions.to_dict("records"):
        for name in _named_by(row):
            named.setdefault(name, f"decision {row['decision_id']} names it")
    for country, name in _evidence_of_candidates(ctx):
        named.setdefault(name, f"the candidate of {country} was judged on it")
    if not trained and _ever_registered(ctx, decisions):
        raise _other_registry(ctx.product, ctx.registry)
    for each in trained:
        title = f"{each.version.name} version {each.version.version}"
        names = _made_from(each, ctx.registry)
        if not names:
            pooled = each.country.startswith(f"{POOLED}-")
            country = _EVERY_COUNTRY if pooled else each.country
            unknown.setdefault(country, f"{title} does not say any more what it was made from")
        for name in names:
            named.setdefault(name, f"{title} was made from it")
    return _Claims(named, unknown)


def _named_by(decision: Mapping[Any, Any]) -> list[str]:
    """Content hashes that a decision names: its features, and the evidence it is replayed from."""
    pooled = decision.get("pooled")
    shared = comparisons_from_json(pooled) if isinstance(pooled, str) else []
    names = [decision["features_hash"], decision["evidence"], *(each.evidence for each in shared)]
    return [name for name in names if name]


def _evidence_of_candidates(ctx: ProductContext) -> Iterator[tuple[str, str]]:
    """Country and content hash of evidence about a candidate that may not be decided on yet."""
    for country, row in ctx.store.read_all(ctx.path("model")).items():
        yield country, row["evidence"].iloc[0]


def _made_from(trained: TrainedVersion, registry: Registry) -> set[str]:
    """Content hashes and versions that a model names; none when a part of that is lost."""
    tags = {**trained.version.tags, **(trained.run_tags or {})}
    named = {value for tag, value in tags.items() if tag.startswith(SNAPSHOT_TAG) and value}
    try:
        lineage = json.loads(registry.artifact(trained.version, LINEAGE_FILE))
    except (RegistryError, ValueError):  # kept for want of knowing better
        return set()
    return named | set(_texts(lineage))


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value that is not the name of something."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, Sequence):
        for each in value:
            yield from _texts(each)


def _ever_registered(ctx: ProductContext, decisions: "pd.DataFrame") -> bool:
    """Whether what is stored names a registered model."""
    if len(decisions) and any(decisions["candidate_version"]):
        return True
    candidates = ctx.store.read_all(ctx.path("model"), columns=["version"])
    pooled = ctx.store.current(ctx.path("pooled_model"), None)
    return pooled is not None or any(any(frame["version"]) for frame in candidates.values())


def _other_registry(product: Product, registry: Registry) -> RegistryError:
    address = without_password(registry.tracking_uri)
    return RegistryError(
        f"The model registry {address} has no model of {product.name}, but the store "
        "names some: it is another registry.",
        stored="Nothing was removed.",
        way_out="Set MLFLOW_TRACKING_URI to the registry of this store and run again.",
        culprits={"product": product.name, "registry": address},
    )


_COLUMNS = ("asset", "country", "version", "written", "rows", "bytes", "verdict", "why")


def _row(judged: Judged, verdict: str) -> tuple[Any, ...]:
    snapshot = judged.snapshot
    return (
        "/".join(snapshot.asset[1:]),
        snapshot.partition or "",
        snapshot.version,
        snapshot.created_at,
        snapshot.rows,
        snapshot.size_bytes,
        verdict,
        judged.reason,
    )


def _days_text(days: int) -> str:
    return "day" if days == 1 else f"{days} days"


def _size(judged: Sequence[Judged]) -> str:
    total = sum(each.snapshot.size_bytes for each in judged)
    for unit, bytes_each in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if total >= bytes_each:
            return f"{total / bytes_each:,.1f} {unit}"
    return f"{total} bytes"
