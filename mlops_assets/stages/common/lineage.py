"""What every asset is made from, stored with it as its fingerprint.

A step asks it before it works, and `stages/staleness.py` asks the same for everybody else.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import dagster as dg

from mlops_assets.registry import Aliases
from mlops_assets.stages.common.clock import clock_of, clock_of_all
from mlops_assets.stages.common.code_versions import RECIPES
from mlops_assets.stages.common.context import CountryContext, ProductContext
from mlops_assets.storage import Snapshot

FINGERPRINT = "mlops_assets/fingerprint"
CODE = "mlops_assets/code"
CONFIG = "mlops_assets/config"
INPUTS = "mlops_assets/inputs"
MISSING = "missing"
BASELINE = "baseline"
"""Stands for the champion where none is in use."""
SERVING_BASELINE = "mlops_assets/serving_baseline"
"""In the metadata of a country's `model`: name of the baseline that serves as long as no model
does, and the reason; missing where the product has one alone, and in older ones."""
SHARED = "shared_features"
"""Name of the asset of shared features, and of that input of a country's features."""
CLOCK = "as_of"
"""The clock of a product with cut-offs, as an input of what is made by it."""


@dataclass(frozen=True)
class Lineage:
    """What one output was made from; its fingerprint says whether it has to be made again.

    Attributes:
        inputs: name of each input: its content hash or version; "" when it is not there.
        code: hash of the product's functions that were used.
        config: hash of the config sections that were used.
    """

    inputs: Mapping[str, str]
    code: str
    config: str

    @property
    def fingerprint(self) -> str:
        """16 hex digits over inputs, code and config."""
        content = json.dumps([dict(self.inputs), self.code, self.config], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def plain(self) -> dict[str, Any]:
        """As it is stored with a snapshot."""
        return {
            FINGERPRINT: self.fingerprint,
            INPUTS: dict(self.inputs),
            CODE: self.code,
            CONFIG: self.config,
        }

    def metadata(self) -> dict[str, Any]:
        """As Dagster shows it, and the IO manager stores it."""
        return {**self.plain(), INPUTS: dg.MetadataValue.json(dict(self.inputs))}

    def already_made(self, snapshot: Snapshot | None) -> bool:
        """True when `snapshot` was made from exactly this."""
        return snapshot is not None and snapshot.metadata.get(FINGERPRINT) == self.fingerprint

    def changes(self, snapshot: Snapshot | None) -> tuple[str, ...]:
        """What is other than when `snapshot` was made: input names, `code`, `config`.

        Empty when nothing is; `missing` when there is no snapshot.
        """
        if snapshot is None:
            return (MISSING,)
        if self.already_made(snapshot):
            return ()
        before = made_from(snapshot)
        names = [*self.inputs, *(name for name in before if name not in self.inputs)]
        changed = [name for name in names if before.get(name) != self.inputs.get(name)]
        for key, now in ((CODE, self.code), (CONFIG, self.config)):
            if snapshot.metadata.get(key) != now:
                changed.append(key.rpartition("/")[2])
        return tuple(changed)


def made_from(snapshot: Snapshot | None) -> Mapping[str, str]:
    """The inputs a snapshot was made from, by name; empty without a snapshot or a lineage."""
    return (snapshot.metadata.get(INPUTS) or {}) if snapshot else {}


def holds(snapshot: Snapshot | None, name: str) -> TypeGuard[Snapshot]:
    """Whether there is a snapshot with something recorded under a name.

    One that was put there by hand, or by a version that recorded something else, has nothing.
    """
    return snapshot is not None and bool(snapshot.metadata.get(name))


def named_input(ctx: CountryContext, lineage: Lineage, name: str) -> Snapshot:
    """The very snapshot that a lineage names: another run may have written a newer one since.

    Raises:
        dagster.Failure: there is none.
    """
    found = ctx.find(name, lineage.inputs[name])
    if found is None:
        raise dg.Failure(
            f"{ctx.product.name} {ctx.country} has no {name} yet. Nothing was made; materialize "
            f"`{name}` of the country first."
        )
    return found


def named_shared(ctx: ProductContext, lineage: Lineage) -> Snapshot | None:
    """The very snapshot of shared features that a lineage names; None for a product without.

    Raises:
        dagster.Failure: there is none.
    """
    if SHARED not in lineage.inputs:
        return None
    found = ctx.store.find(ctx.path(SHARED), None, lineage.inputs[SHARED])
    if found is None:
        raise dg.Failure(
            f"{ctx.name} has no {SHARED} yet. Nothing was made; launch the job "
            f"{ctx.name}_shared once `validated` of the countries is there, or use: "
            f"mlops-assets materialize {ctx.name} --all"
        )
    return found


def of_validated(ctx: CountryContext) -> Lineage:
    """Raw rows, the contract, and how columns are named."""
    return _of_country(ctx, "validated", _inputs(ctx, "raw"))


def of_shared_features(ctx: ProductContext, validated: Mapping[str, Snapshot]) -> Lineage:
    """The validated rows of every country that has some, and the function of all countries."""
    lineage = _of_product(ctx, SHARED, validated)
    return replace(lineage, inputs={**lineage.inputs, **_time(clock_of_all(ctx))})


def of_features(ctx: CountryContext) -> Lineage:
    """Validated rows, the feature function, and the shared features of a product that has them.

    With cut-offs also the time up to which things are known.
    """
    shared = {}
    if ctx.product.spec.shared_features:
        made = ctx.whole.current(SHARED)
        shared[SHARED] = made.content_hash if made else ""
    inputs = {**_inputs(ctx, "validated"), **shared, **_time(clock_of(ctx))}
    return _of_country(ctx, "features", inputs)


def of_pooled_model(ctx: ProductContext, features: Mapping[str, Snapshot]) -> Lineage:
    """The features of every country that has some."""
    return _of_product(ctx, "pooled_model", features)


def of_model(ctx: CountryContext, pooled: Mapping[str, str]) -> Lineage:
    """The country's features, and the pooled champions it can choose.

    Args:
        ctx: the country.
        pooled: version of each of them by pooled name.
    """
    versions = {f"pooled.{name}": version for name, version in pooled.items()}
    return _of_country(ctx, "model", {**_inputs(ctx, "features"), **versions})


def of_champion(ctx: CountryContext) -> Lineage:
    """The candidate and the rows it is compared on."""
    return _of_country(ctx, "champion", _inputs(ctx, "model", "features"))


def of_predictions(ctx: CountryContext, in_use: Aliases) -> Lineage:
    """The rows to predict, who serves, and who did before."""
    served = {
        "champion": in_use.champion or BASELINE,
        "previous": in_use.previous if in_use.champion else "",
    }
    naive = serving_baseline(ctx)
    if not in_use.champion and naive.name != ctx.spec.baselines[0].name:
        served["baseline"] = naive.name
    return _of_country(ctx, "predictions", {**_inputs(ctx, "features"), **served})


@dataclass(frozen=True)
class ServingBaseline:
    """The naive rule that serves where no model does.

    Attributes:
        name: of the baseline.
        reason: why this one; "" for the first, where none was chosen.
    """

    name: str
    reason: str = ""


def serving_baseline(ctx: CountryContext) -> ServingBaseline:
    """The baseline that the newest training of the country chose; else the first."""
    names = [each.name for each in ctx.spec.baselines]
    made = ctx.current("model") if len(names) > 1 else None
    chosen = (made.metadata.get(SERVING_BASELINE) or {}) if made else {}
    if chosen.get("name") in names:
        return ServingBaseline(chosen["name"], chosen["reason"])
    return ServingBaseline(names[0])


def of_performance(ctx: CountryContext, in_use: Aliases) -> Lineage:
    """The newest predictions, the labels as they are now, and whose promise is judged."""
    served = {"champion": in_use.champion or BASELINE}
    return _of_country(ctx, "performance", {**_inputs(ctx, "predictions", "features"), **served})


def of_drift(ctx: CountryContext, champion: str) -> Lineage:
    """The newest rows and their predictions, and the champion that learned from older ones.

    Args:
        ctx: the country.
        champion: version in use; "" for none.
    """
    served = {"champion": champion or BASELINE}
    return _of_country(ctx, "drift", {**_inputs(ctx, "features", "predictions"), **served})


def _of_country(ctx: CountryContext, asset: str, inputs: Mapping[str, str]) -> Lineage:
    recipe = RECIPES[asset]
    config = recipe.config_hash(ctx.product, ctx.country)
    return Lineage(inputs, recipe.code_hash(ctx.product), config)


def _of_product(ctx: ProductContext, asset: str, inputs: Mapping[str, Snapshot]) -> Lineage:
    recipe, hashes = RECIPES[asset], {name: each.content_hash for name, each in inputs.items()}
    return Lineage(hashes, recipe.code_hash(ctx.product), recipe.config_hash(ctx.product))


def as_of_in(inputs: Mapping[str, str]) -> dt.datetime | None:
    """The clock among the inputs that something was made from, UTC without a zone; None: none."""
    return dt.datetime.fromisoformat(inputs[CLOCK]) if inputs.get(CLOCK) else None


def _time(clock: dt.datetime | None) -> dict[str, str]:
    return {} if clock is None else {CLOCK: clock.isoformat()}


def _inputs(ctx: CountryContext, *names: str) -> dict[str, str]:
    found = {name: ctx.current(name) for name in names}
    return {name: made.content_hash if made else "" for name, made in found.items()}
