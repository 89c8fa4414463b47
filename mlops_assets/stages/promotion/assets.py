"""Champions: the candidate against the model in use, the recorded decision, the alias."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from mlops_assets.errors import RegistryError
from mlops_assets.product import Product
from mlops_assets.registry import MlflowRegistry
from mlops_assets.stages.common.base import (
    Storage,
    asset_key,
    country_step,
    failed,
    gate,
    output,
    passed,
)
from mlops_assets.stages.common.context import CountryContext
from mlops_assets.stages.common.lineage import Lineage, named_input, of_champion
from mlops_assets.stages.common.ui_metadata import as_before
from mlops_assets.stages.promotion.alias_moves import carry_out, unfinished
from mlops_assets.stages.promotion.approvals import approve_by_tag
from mlops_assets.stages.promotion.champion_metadata import champion_frame, champion_metadata
from mlops_assets.stages.promotion.comparison import compare_with_champion
from mlops_assets.stages.promotion.decision_card import write_decision
from mlops_assets.stages.promotion.decision_log import Entry, Origin, log_of, record_decision
from mlops_assets.stages.training.evaluation_metadata import CARD_TAG
from mlops_assets.stages.training.version_identity import other_than_recorded
from mlops_assets.storage import Snapshot
from mlops_assets.storage.io_manager import Unchanged

ALIAS_CHECK = "equals_registry_alias"
_CHECK_DESCRIPTION = "The champion alias of the model registry names this version, and it loads."
_GRAIN = (
    "One row: the model in use in the country, with the decision that compared the newest "
    "candidate with it on the same holdout rows, or that a person took."
)


def build_champions(product: Product) -> list[dg.AssetsDefinition]:
    """`champion` of a product with its check against the registry."""
    key = asset_key(product, "champion")

    @dg.multi_asset(
        **country_step(product, "champion"),
        deps=[asset_key(product, "model"), asset_key(product, "features")],
        outs={"champion": output(product, "champion", "models", {"mlflow"}, description=_GRAIN)},
        check_specs=[gate(product, "champion", ALIAS_CHECK, _CHECK_DESCRIPTION)],
    )
    def champion(
        context: dg.AssetExecutionContext, storage: Storage, mlflow: MlflowRegistry
    ) -> Iterator[dg.Output | dg.AssetCheckResult]:
        ctx = storage.product(product, mlflow.registry()).country(context.partition_key)
        origin = Origin.of_run(context.run.run_id, context.run.tags)
        lineage, made = of_champion(ctx), ctx.current("champion")
        entry = _left_behind(ctx, origin)
        if made is not None and entry is None and _stands(ctx, made, lineage):
            yield dg.Output(Unchanged(made), "champion", metadata=as_before(context, key))
            yield alias_check(ctx, key, _held(ctx, made))
            return
        if entry is None or not _is_about(entry, ctx, made, lineage):
            model = named_input(ctx, lineage, "model")
            entry = decide_on(ctx, model, origin)
        frame = champion_frame(ctx, entry)
        metadata = {**champion_metadata(frame, entry, product.name), **lineage.metadata()}
        yield dg.Output(frame, "champion", metadata=metadata)
        yield alias_check(ctx, key, entry.after.champion)

    return [champion]


def alias_check(ctx: CountryContext, key: dg.AssetKey, version: str) -> dg.AssetCheckResult:
    """Whether the registry's champion is this version (""; none), and its files are whole."""
    named = ctx.champion()
    if (named.version if named else "") != version:
        text = f"the registry names version {named and named.version}, the asset {version or None}"
        return failed(key, ALIAS_CHECK, f"{text}; materialize `champion` again")
    if named is not None and (problem := other_than_recorded(ctx, named)):
        return failed(key, ALIAS_CHECK, problem)
    if named is None:
        return passed(key, ALIAS_CHECK, "no champion alias and none expected: the baseline serves")
    try:
        ctx.registry.load(named)
    except RegistryError as error:
        return failed(key, ALIAS_CHECK, str(error))
    return passed(key, ALIAS_CHECK, f"{named.name} version {version} is the champion and loads")


def _left_behind(ctx: CountryContext, origin: Origin) -> Entry | None:
    """A decision of before that is to be carried out now: a killed one, or an approved one."""
    log = log_of(ctx)
    entry = unfinished(ctx, log) or approve_by_tag(ctx, log, origin)
    if entry is not None:
        carry_out(ctx, entry)
    return entry


def _stands(ctx: CountryContext, made: Snapshot, lineage: Lineage) -> bool:
    """The asset was made from the very same, and shows what the registry names."""
    return lineage.already_made(made) and _held(ctx, made) == ctx.aliases().champion


def _held(ctx: CountryContext, made: Snapshot) -> str:
    held = ctx.store.read(made.asset, made.partition, columns=["version"])
    return str(held["version"].iloc[0])


def _is_about(entry: Entry, ctx: CountryContext, made: Snapshot | None, lineage: Lineage) -> bool:
    """Whether nothing is to be compared beside what a decision of before was about."""
    if made is not None and lineage.already_made(made):
        return True
    model = named_input(ctx, lineage, "model")
    row: Any = ctx.store.read(model.asset, ctx.country, version=model.version).iloc[0]
    return str(row["version"]) == entry.comparison.candidate


def decide_on(ctx: CountryContext, model: Snapshot, origin: Origin) -> Entry:
    """Compare a candidate, record, and then carry out: tags, and the alias last.

    Args:
        ctx: the country.
        model: the snapshot of the candidate.
        origin: who or what asks.
    """
    in_use = ctx.champion()
    comparison = compare_with_champion(ctx, model, in_use, log_of(ctx), run_id=origin.run_id)
    entry = record_decision(ctx, comparison, origin, ctx.aliases())
    carry_out(ctx, entry)
    _add_to_card(ctx, entry)
    return entry


def decide_in_run(ctx: CountryContext, model: Snapshot, run: dg.DagsterRun) -> None:
    """`decide_on` a candidate in the run that made it."""
    decide_on(ctx, model, Origin.of_run(run.run_id, run.tags))


def _add_to_card(ctx: CountryContext, entry: Entry) -> None:
    """The decision in the candidate's model card, which was written before it."""
    candidate = entry.comparison.candidate
    version = ctx.version(candidate) if candidate else None
    if version is not None and CARD_TAG in version.tags:
        write_decision(ctx.registry, version, entry.comparison.decision, ctx.spec)
