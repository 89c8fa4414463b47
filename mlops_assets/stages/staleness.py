"""The one rule of what has to be made again.

An asset of a country is stale when its inputs, the product's code or the sections of the YAML that
it is made by are others than those its current snapshot was made from; `champion` also when a
recorded decision was not carried out. `materialize` runs what is stale, `status` calls it `behind`,
sensors ask for what data made stale. What Dagster's UI calls stale follows from the same inputs and
the same table of code versions (`common/code_versions.py`).

`raw` is not looked at: whether files are new is found by taking them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mlops_assets.ml.training.selection import pooled_names
from mlops_assets.registry import Aliases
from mlops_assets.stages.common.context import CountryContext, ProductContext
from mlops_assets.stages.common.lineage import (
    MISSING,
    SHARED,
    Lineage,
    made_from,
    of_champion,
    of_drift,
    of_features,
    of_model,
    of_performance,
    of_pooled_model,
    of_predictions,
    of_shared_features,
    of_validated,
)
from mlops_assets.stages.promotion.alias_moves import is_unsettled
from mlops_assets.stages.promotion.decision_log import Entry, entries_by_country
from mlops_assets.stages.training.serving import can_choose, pooled_versions
from mlops_assets.storage import Snapshot

ASSETS = ("validated", "features", "model", "champion", "predictions", "performance", "drift")
"""Of a country, in pipeline order."""
UNSETTLED = "unsettled"
REFUSED = "refused"
STOPPED = "stopped"
_CAUSES = {
    MISSING: "it was not made yet",
    UNSETTLED: "a recorded decision was not carried out yet",
    REFUSED: "the newest delivery was refused",
    STOPPED: "a gate stopped the newest candidate",
    "code": "the product's code changed",
    "config": "the YAML changed",
    "champion": "another model is in use",
    "previous": "another model was in use before",
}


@dataclass(frozen=True)
class Stale:
    """An asset that has to be made again.

    Attributes:
        asset: its name.
        causes: what is other than when it was made: names of inputs, `code`, `config`; `missing`,
            when it never was; `unsettled`, for a decision to be carried out. Two name what an
            earlier run came to, so that another one comes to the same as long as nothing changes:
            `refused` (the contract refused the very rows) and `stopped` (a gate stopped the very
            candidate).
    """

    asset: str
    causes: tuple[str, ...]

    @property
    def is_missing(self) -> bool:
        """Whether it was never made."""
        return MISSING in self.causes

    @property
    def is_settled(self) -> bool:
        """Whether an earlier run of the very same has come to its end, by a contract or a gate."""
        return not {REFUSED, STOPPED}.isdisjoint(self.causes)

    def describe(self) -> str:
        """Asset and causes in a sentence."""
        told = [_CAUSES.get(each, f"{each} changed") for each in self.causes]
        return f"{self.asset}: {', '.join(told)}"


@dataclass(frozen=True)
class State:
    """What is stored and registered of a product at a moment; read in a few calls.

    Attributes:
        whole: the product.
        countries: by key, each with its current snapshots and what the registry names.
        pooled: version of each pooled champion by pooled name.
    """

    whole: ProductContext
    countries: Mapping[str, CountryContext]
    pooled: Mapping[str, str]

    @classmethod
    def read(cls, ctx: ProductContext, countries: Sequence[str] = ()) -> "State":
        """As it is now, of these countries (default: all listed ones)."""
        wanted = list(countries) or ctx.countries
        # Aliases first: a champion that is promoted meanwhile is then newer than what was read.
        named = _aliases(ctx, wanted)
        pooled = {name: each.version for name, each in pooled_versions(ctx).items()}
        of_all = {name: ctx.current(name) for name in (SHARED, "pooled_model")}
        known = {name: each for name, each in of_all.items() if each is not None}
        whole = ProductContext(ctx.product, ctx.store, ctx.models, known)
        made = {name: ctx.current_all(name, wanted) for name in ("raw", "quarantine", *ASSETS)}
        found = {
            country: CountryContext(
                whole,
                country,
                {name: each[country] for name, each in made.items() if country in each},
                named.get(country, Aliases()),
            )
            for country in wanted
        }
        return cls(whole, found, pooled)

    def having(self, asset: str) -> dict[str, Snapshot]:
        """The current snapshots of an asset, of the countries that have one."""
        found = {country: ctx.current(asset) for country, ctx in self.countries.items()}
        return {country: made for country, made in found.items() if made is not None}

    def first_stale(self, country: str, assets: Sequence[str] = ASSETS) -> Stale | None:
        """The first of `assets`, in pipeline order, that has to be made again; None when none."""
        return next(iter(self.stale(country, assets)), None)

    def stale(self, country: str, assets: Sequence[str] = ASSETS) -> list[Stale]:
        """Those of `assets`, in pipeline order, that are not of their inputs as these are now."""
        ctx = self.countries[country]
        causes = {name: self._causes(ctx, name) for name in ASSETS if name in assets}
        return [Stale(name, each) for name, each in causes.items() if each]

    @property
    def is_shared_stale(self) -> bool:
        """Whether the validated rows of some country changed since the shared features were made.

        False for a product without shared features, and while no country has validated rows.
        """
        validated = self.having("validated")
        if not self.whole.spec.shared_features or not validated:
            return False
        lineage = of_shared_features(self.whole, validated)
        return not lineage.already_made(self.whole.current(SHARED))

    @property
    def is_pooled_stale(self) -> bool:
        """Whether the features of some country changed since the pooled models were trained.

        False for a product without any.
        """
        if not pooled_names(self.whole.spec):
            return False
        lineage = of_pooled_model(self.whole, self.having("features"))
        return not lineage.already_made(self.whole.current("pooled_model"))

    def _causes(self, ctx: CountryContext, asset: str) -> tuple[str, ...]:
        changes = self._lineage(ctx, asset).changes(ctx.current(asset))
        if asset == "validated" and changes and _is_refused(ctx):
            return (REFUSED, *changes)
        if asset != "champion":
            return changes
        log = self._decisions.get(ctx.country, ())
        if not changes:
            return (UNSETTLED,) if is_unsettled(ctx, log) else ()
        return (STOPPED, *changes) if _is_stopped(ctx, log) else changes

    @cached_property
    def _decisions(self) -> Mapping[str, Sequence[Entry]]:
        return entries_by_country(self.whole, list(self.countries))

    def _lineage(self, ctx: CountryContext, asset: str) -> Lineage:
        """What the asset would be made from now."""
        of_inputs = {"validated": of_validated, "features": of_features, "champion": of_champion}
        of_model_in_use = {"predictions": of_predictions, "performance": of_performance}
        if asset in of_inputs:
            return of_inputs[asset](ctx)
        if asset in of_model_in_use:
            return of_model_in_use[asset](ctx, ctx.aliases())
        if asset == "drift":
            return of_drift(ctx, ctx.aliases().champion)
        own = can_choose(self.whole.spec, ctx.country)
        return of_model(ctx, {name: self.pooled[name] for name in own if name in self.pooled})


def _aliases(ctx: ProductContext, countries: Sequence[str]) -> Mapping[str, Aliases]:
    """One query for many countries, which finds those of all."""
    if len(countries) > 1:
        return ctx.registry.aliases_of_all(ctx.name)
    return {country: ctx.country(country).aliases() for country in countries}


def _is_refused(ctx: CountryContext) -> bool:
    """Whether the quarantine is of the newest raw rows, and the validated rows are not."""
    raw = ctx.current("raw")
    if raw is None or made_from(ctx.current("quarantine")).get("raw") != raw.content_hash:
        return False
    return made_from(ctx.current("validated")).get("raw") != raw.content_hash


def _is_stopped(ctx: CountryContext, log: Sequence[Entry]) -> bool:
    """Whether a gate stopped the newest candidate, and the decision that says so is recorded."""
    model = ctx.current("model")
    if model is None or not log:
        return False
    return log[-1].is_stopped_by_gate and log[-1].decided_at > model.created_at
