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
from mlops_assets.stages.common.context import CountryContext, ProductContext
from mlops_assets.stages.common.lineage import (
    CLOCK,
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
from mlops_assets.stages.common.readable import readable_again
from mlops_assets.stages.predictions.given_out import Refusal, refusals
from mlops_assets.stages.promotion.alias_moves import is_unsettled
from mlops_assets.stages.promotion.decision_log import Entry, entries_by_country
from mlops_assets.stages.training.serving import can_choose, pooled_versions
from mlops_assets.storage import Snapshot

_OF_ROWS = ("model", "champion", "predictions", "performance", "drift")
"""Made of the rows of `features`: of none nothing is made."""
ASSETS = ("validated", "features", "model", "champion", "predictions", "performance", "drift")
"""Of a country, in pipeline order."""
UNSETTLED = "unsettled"
REFUSED = "refused"
STOPPED = "stopped"
BEYOND = "beyond"
OTHER_RULES = "rules"
REPAIRED = "repaired"
_POOLED = "pooled."
_CAUSES = {
    MISSING: "it was not made yet",
    UNSETTLED: "a recorded decision was not carried out yet",
    REFUSED: "the newest delivery was refused",
    STOPPED: "a gate stopped the newest candidate",
    BEYOND: "no predictions of these could be taken",
    OTHER_RULES: "the contract is another one since",
    "code": "the product's code changed",
    "config": "the YAML changed",
    CLOCK: "a new cut-off was reached, or the labels of an earlier one became known",
    "champion": "another model is in use",
    "previous": "another model was in use before",
}


@dataclass(frozen=True)
class Stale:
    """An asset that has to be made again.

    Attributes:
        asset: its name.
        causes: what is other than when it was made: names of inputs, `code`, `config`; `missing`,
            when it never was; `unsettled`, for a decision to be carried out. Three name what an
            earlier run came to, so that another one comes to the same as long as nothing changes:
            `refused` (the contract refused the very rows), `stopped` (a gate stopped the very
            candidate) and `beyond` (nobody's predictions of the very rows could be taken).
            `rules` beside `refused`: the contract is another one since.
    """

    asset: str
    causes: tuple[str, ...]

    @property
    def is_missing(self) -> bool:
        """Whether it was never made."""
        return MISSING in self.causes

    @property
    def is_settled(self) -> bool:
        """Whether an earlier run of the very same has ended, by contract, gate or range."""
        return not {REFUSED, STOPPED, BEYOND}.isdisjoint(self.causes)

    @property
    def is_decided(self) -> bool:
        """Whether another run would come to the very same: settled, and by the rules of now."""
        return self.is_settled and OTHER_RULES not in self.causes

    @property
    def waits_for_policy(self) -> bool:
        """Whether a candidate is of older data, and nothing else: policy says when it is made anew.

        Nothing has to be done about it: a delivery is answered with predictions, and a training
        follows from the policy of the product (`retraining`), its schedule, or a person.
        """
        return (
            self.asset in ("model", "champion")
            and not self.is_missing
            and not self.is_settled
            and all(each == "features" or each.startswith(_POOLED) for each in self.causes)
        )

    @property
    def is_of_data(self) -> bool:
        """Whether what it is made from changed, or it was never made.

        Sensors answer to data. Another code or YAML is a person's doing, who says when what is
        there is made again (`materialize`, a backfill), as it may be wrong for a while.
        """
        return not set(self.causes) <= {"code", "config"}

    def describe(self) -> str:
        """Asset and causes in a sentence."""
        told = [_CAUSES.get(each, f"{each} changed") for each in self.causes]
        return f"{self.asset}: {', '.join(told)}"


class Staleness:
    """What is stale of a product at a moment; what it follows from is read once, when asked for.

    Args:
        ctx: the product; of datasets and features alone, its models are not asked.
        countries: that are looked at; default: every listed one.

    Attributes:
        whole: the product as it was looked at.
        countries: that are looked at.
    """

    def __init__(self, ctx: ProductContext, countries: Sequence[str] | None = None) -> None:
        self.countries = ctx.countries if countries is None else list(countries)
        self.whole = ctx.read_once(self.countries)

    def first(self, country: str, assets: Sequence[str] = ASSETS) -> Stale | None:
        """The first of `assets`, in pipeline order, that has to be made again; None when none."""
        found = (self._stale(country, name) for name in ASSETS if name in assets)
        return next((stale for stale in found if stale is not None), None)

    def all(self, country: str, assets: Sequence[str] = ASSETS) -> list[Stale]:
        """Those of `assets`, in pipeline order, that are not of their inputs as these are now."""
        found = (self._stale(country, name) for name in ASSETS if name in assets)
        return [stale for stale in found if stale is not None]

    def current(self, country: str, asset: str) -> Snapshot | None:
        """The snapshot that was looked at."""
        return self.whole.country(country).current(asset)

    def having(self, asset: str) -> dict[str, Snapshot]:
        """The snapshots of an asset that were looked at, of the countries that have one."""
        found = {country: self.current(country, asset) for country in self.countries}
        return {country: made for country, made in found.items() if made is not None}

    def inputs(self, country: str, asset: str) -> Mapping[str, str]:
        """What an asset of a country would be made from now, by name."""
        return self._lineage(self.whole.country(country), asset).inputs

    def shared_inputs(self) -> Mapping[str, str] | None:
        """What the shared features have to be made from now; None when they are not stale.

        None for a product without shared features, and while no country has validated rows. With
        `repaired` where files that were damaged can be read again, which changes no other input.
        """
        validated = self.having("validated")
        if not self.whole.spec.shared_features or not validated:
            return None
        lineage, made = of_shared_features(self.whole, validated), self.whole.current(SHARED)
        if made is None or not lineage.already_made(made):
            return lineage.inputs
        again = readable_again(self.whole, made, "validated")
        return {**lineage.inputs, REPAIRED: f"{made.version} {again}"} if again else None

    def is_pooled_stale(self) -> bool:
        """Whether the features of some country changed since the pooled models were trained.

        Also where those of one could not be read then, and can be now.

        False for a product without any.
        """
        if not pooled_names(self.whole.spec):
            return False
        made = self.whole.current("pooled_model")
        if not of_pooled_model(self.whole, self.having("features")).already_made(made):
            return True
        return made is not None and bool(readable_again(self.whole, made, "features"))

    def _stale(self, country: str, asset: str) -> Stale | None:
        ctx = self.whole.country(country)
        if asset in _OF_ROWS and ctx.has_nothing_to_predict:
            return None
        changes = self._lineage(ctx, asset).changes(ctx.current(asset))
        if asset == "champion":
            changes = self._causes_of_champion(ctx, changes)
        elif asset == "validated" and changes and _is_refused(ctx):
            changes = (
                REFUSED,
                *changes,
                *(() if _is_refused_by_rules_of_now(ctx) else (OTHER_RULES,)),
            )
        elif asset == "predictions" and changes and self.refusal_of(country):
            changes = (BEYOND, *changes)
        return Stale(asset, changes) if changes else None

    def refusal_of(self, country: str) -> str:
        """Why nobody's predictions could be taken of what is there now; "" where they could."""
        found = self._refusals.get(country)
        if found is None:
            return ""
        lineage = self._lineage(self.whole.country(country), "predictions")
        return found.told if lineage.fingerprint == found.fingerprint else ""

    def _causes_of_champion(self, ctx: CountryContext, changes: tuple[str, ...]) -> tuple[str, ...]:
        log = self._decisions.get(ctx.country, ())
        if not changes:
            return (UNSETTLED,) if is_unsettled(ctx, log) else ()
        return (STOPPED, *changes) if _is_stopped(ctx, log) else changes

    @cached_property
    def _decisions(self) -> Mapping[str, Sequence[Entry]]:
        return entries_by_country(self.whole, self.countries)

    @cached_property
    def _refusals(self) -> Mapping[str, Refusal]:
        return refusals(self.whole)

    @cached_property
    def _pooled(self) -> Mapping[str, str]:
        return {name: each.version for name, each in pooled_versions(self.whole).items()}

    def _lineage(self, ctx: CountryContext, asset: str) -> Lineage:
        """What the asset would be made from now."""
        of_data = {"validated": of_validated, "features": of_features, "champion": of_champion}
        of_model_in_use = {"predictions": of_predictions, "performance": of_performance}
        if asset in of_data:
            return of_data[asset](ctx)
        if asset in of_model_in_use:
            return of_model_in_use[asset](ctx, ctx.aliases())
        if asset == "drift":
            return of_drift(ctx, ctx.aliases().champion)
        if self.whole.recorded is not None:
            return of_model(ctx, _pooled_of(ctx.current("model")))
        own = can_choose(ctx.product.spec, ctx.country)
        return of_model(ctx, {name: self._pooled[name] for name in own if name in self._pooled})


def _pooled_of(model: Snapshot | None) -> dict[str, str]:
    """The pooled versions a candidate was made from, for where nobody can say which are newer."""
    made = made_from(model)
    return {name.removeprefix(_POOLED): made[name] for name in made if name.startswith(_POOLED)}


def _is_refused(ctx: CountryContext) -> bool:
    """Whether the quarantine is of the newest raw rows, and the validated rows are not."""
    raw = ctx.current("raw")
    if raw is None or made_from(ctx.current("quarantine")).get("raw") != raw.content_hash:
        return False
    return made_from(ctx.current("validated")).get("raw") != raw.content_hash


def _is_refused_by_rules_of_now(ctx: CountryContext) -> bool:
    """Whether the quarantine was made by the contract as it is now, so that it would be again."""
    return of_validated(ctx).already_made(ctx.current("quarantine"))


def _is_stopped(ctx: CountryContext, log: Sequence[Entry]) -> bool:
    """Whether a gate stopped the newest candidate, and the decision that says so is recorded."""
    model = ctx.current("model")
    if model is None or not log:
        return False
    return log[-1].is_stopped_by_gate and log[-1].decided_at > model.created_at
