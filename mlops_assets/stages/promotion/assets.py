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
from mlops_assets.stages.common.context import Desk
from mlops_assets.stages.common.lineage import Lineage, named_input, of_champion
from mlops_assets.stages.common.ui_metadata import as_before
from mlops_assets.stages.promotion.alias_moves import carry_out, unfinished
from mlops_assets.stages.promotion.approvals import approve_by_tag
from mlops_assets.stages.promotion.champion_metadata import champion_frame, shown
from mlops_assets.stages.promotion.comparison import compare
from mlops_assets.stages.promotion.decision_card import tell_decision
from mlops_assets.stages.promotion.decision_log import Entry, Origin, log_of, record
from mlops_assets.stages.training.evaluation_metadata import CARD_TAG
from mlops_assets.storage import Snapshot
from mlops_assets.storage.io_manager import Unchanged

CHECK = "equals_registry_alias"
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
        outs={"champion": output(product, "champion", "models", {"mlflow"}, _GRAIN)},
        check_specs=[gate(product, "champion", CHECK, _CHECK_DESCRIPTION)],
    )
    def champion(
        context: dg.AssetExecutionContext, storage: Storage, mlflow: MlflowRegistry
    ) -> Iterator[dg.Output | dg.AssetCheckResult]:
        desk = Desk(product, context.partition_key, storage.store(), mlflow.registry())
        origin = Origin.of_run(context.run.run_id, context.run.tags)
        lineage, made = of_champion(product, desk.country, desk.store), desk.made("champion")
        entry = _left_behind(desk, origin)
        if made is not None and entry is None and _stands(desk, made, lineage):
            yield dg.Output(Unchanged(made), "champion", metadata=as_before(context, key))
            yield alias_check(desk, key, _held(desk, made))
            return
        if entry is None or not _is_about(entry, desk, made, lineage):
            model = named_input(desk.product, desk.country, desk.store, lineage, "model")
            entry = decide_on(desk, model, origin)
        frame = champion_frame(desk, entry)
        metadata = {**shown(frame, entry, product.name), **lineage.metadata()}
        yield dg.Output(frame, "champion", metadata=metadata)
        yield alias_check(desk, key, entry.after.champion)

    return [champion]


def alias_check(desk: Desk, key: dg.AssetKey, version: str) -> dg.AssetCheckResult:
    """Whether the registry's champion is this version (""; none), and its files are whole."""
    named = desk.registry.champion(desk.product.name, desk.country)
    if (named.version if named else "") != version:
        text = f"the registry names version {named and named.version}, the asset {version or None}"
        return failed(key, CHECK, f"{text}; materialize `champion` again")
    if named is None:
        return passed(key, CHECK, "no champion alias and none expected: the baseline serves")
    try:
        desk.registry.load(named)
    except RegistryError as error:
        return failed(key, CHECK, str(error))
    return passed(key, CHECK, f"{named.name} version {version} is the champion and loads")


def _left_behind(desk: Desk, origin: Origin) -> Entry | None:
    """A decision of before that is to be carried out now: a killed one, or an approved one."""
    log = log_of(desk)
    entry = unfinished(desk, log) or approve_by_tag(desk, log, origin)
    if entry is not None:
        carry_out(desk, entry)
    return entry


def _stands(desk: Desk, made: Snapshot, lineage: Lineage) -> bool:
    """The asset was made from the very same, and shows what the registry names."""
    return lineage.already_made(made) and _held(desk, made) == desk.aliases().champion


def _held(desk: Desk, made: Snapshot) -> str:
    held = desk.store.read(made.asset, made.partition, columns=["version"])
    return str(held["version"].iloc[0])


def _is_about(entry: Entry, desk: Desk, made: Snapshot | None, lineage: Lineage) -> bool:
    """Whether nothing is to be compared beside what a decision of before was about."""
    if made is not None and lineage.already_made(made):
        return True
    model = named_input(desk.product, desk.country, desk.store, lineage, "model")
    row: Any = desk.store.read(model.asset, desk.country, version=model.version).iloc[0]
    return str(row["version"]) == entry.comparison.candidate


def decide_on(desk: Desk, model: Snapshot, origin: Origin) -> Entry:
    """Compare a candidate, record, and then carry out: tags, and the alias last.

    Args:
        desk: the country.
        model: the snapshot of the candidate.
        origin: who or what asks.
    """
    in_use = desk.registry.champion(desk.product.name, desk.country)
    comparison = compare(desk, model, in_use, log_of(desk), origin.run_id)
    entry = record(desk.product, desk.store, comparison, origin, desk.aliases())
    carry_out(desk, entry)
    _tell(desk, entry)
    return entry


def decide_in_run(desk: Desk, model: Snapshot, run: dg.DagsterRun) -> None:
    """`decide_on` a candidate in the run that made it."""
    decide_on(desk, model, Origin.of_run(run.run_id, run.tags))


def _tell(desk: Desk, entry: Entry) -> None:
    """The decision in the candidate's model card, which was written before it."""
    candidate = entry.comparison.candidate
    version = desk.version(candidate) if candidate else None
    if version is not None and CARD_TAG in version.tags:
        tell_decision(desk.registry, version, entry.comparison.decision, desk.spec)
