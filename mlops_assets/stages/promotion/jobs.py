"""Jobs by which a person rolls back, promotes, approves and undoes; each has a launchpad form."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import dagster as dg
from pydantic import Field

from mlops_assets.errors import ConfigurationError, MlopsAssetsError
from mlops_assets.product import Product
from mlops_assets.registry import MlflowRegistry
from mlops_assets.stages.common.base import Storage, asset_key
from mlops_assets.stages.common.locks import alone_in, changing
from mlops_assets.stages.common.runs import DATA_VERSION, leave_to_the_older, trigger_of
from mlops_assets.stages.common.ui_metadata import table_metadata
from mlops_assets.stages.promotion.assets import ALIAS_CHECK, alias_check
from mlops_assets.stages.promotion.champion_metadata import champion_metadata
from mlops_assets.stages.promotion.plan import (
    ChangePlan,
    MovedCountry,
    ProductContext,
    Requester,
    apply_plan,
    plan_approval,
    plan_promotion,
    plan_rollback,
    plan_undo,
)
from mlops_assets.storage.io_manager import METADATA_PREFIX

_ROLLBACK = (
    "Puts the version that was in use before, or a named one, into use again. Launched once more "
    "it comes back to where it began."
)
_PROMOTE = "Puts the newest candidate, or a named version, into use whatever evidence says."
_APPROVE = "Puts the versions into use that wait for a person's approval."
_UNDO = "Sets every country that a change set moved back as it was."
_TOGETHER = (
    " All countries are moved as one change set: nothing is done if one of them cannot be, and "
    "those "
    "done are moved back if one fails. `champion` of each country shows it at once."
)


class WordConfig(dg.Config):
    """Who asks, and why."""

    person: str = Field(description="who asks; recorded with the decision")
    reason: str = Field(description="why; recorded with the decision")


class MoveConfig(WordConfig):
    """Where, who asks and why."""

    countries: list[str] = Field(default=[], description="codes, such as [FRA, DEU]")
    all_countries: bool = Field(default=False, description="every listed country instead")
    expected: dict[str, str] = Field(
        default={},
        description='country: version that is to be in use now, or nothing is done; "" for the '
        "baseline; default: not looked at",
    )


class VersionConfig(MoveConfig):
    """With the version to put into use."""

    version: str = Field(
        default="",
        description="registered version to put into use; default: rollback: the one in use before, "
        "promote: the newest candidate",
    )


class UndoConfig(WordConfig):
    """Which change set is undone."""

    change_set: str = Field(
        default="", description="its id, as the run that did it and `decisions` show it"
    )
    unit: str = Field(default="", description="the same, under its older name")


def build_promotion_jobs(product: Product) -> list[dg.JobDefinition]:
    """`<product>_rollback`, `_promote`, `_approve` and `_undo`, each of one op."""

    def rollback(whole: ProductContext, config: VersionConfig) -> ChangePlan:
        return plan_rollback(whole, _countries(product, config), config.version)

    def promote(whole: ProductContext, config: VersionConfig) -> ChangePlan:
        return plan_promotion(whole, _countries(product, config), config.version)

    def approve(whole: ProductContext, config: MoveConfig) -> ChangePlan:
        return plan_approval(whole, _countries(product, config))

    def undo(whole: ProductContext, config: UndoConfig) -> ChangePlan:
        return plan_undo(whole, config.change_set or config.unit)

    return [
        _job(product, "rollback", VersionConfig, rollback, description=_ROLLBACK + _TOGETHER),
        _job(product, "promote", VersionConfig, promote, description=_PROMOTE + _TOGETHER),
        _job(product, "approve", MoveConfig, approve, description=_APPROVE + _TOGETHER),
        _job(product, "undo", UndoConfig, undo, description=_UNDO + _TOGETHER),
    ]


_Config = TypeVar("_Config", bound=WordConfig)


def op_name(product: str, kind: str) -> str:
    """Name of the one op of a job, under which its form is."""
    return f"{product}__{kind}"


def _job(
    product: Product,
    kind: str,
    form: type[_Config],
    planner: Callable[[ProductContext, _Config], ChangePlan],
    *,
    description: str,
) -> dg.JobDefinition:
    def step(
        context: dg.OpExecutionContext, config: Any, storage: Storage, mlflow: MlflowRegistry
    ) -> None:
        leave_to_the_older(context)
        whole = storage.product(product, mlflow.registry())
        moved = [move.country for move in planner(whole, config).moves]
        with (
            alone_in(storage.locks, product.name, moved, context),
            changing(storage.locks, product.name, context),
        ):
            # Planned once more: a run of one of them may have moved something until it ended.
            plan = _checked(planner(whole, config), config, context)
            trigger = trigger_of(context.run.tags)
            asked = Requester(config.person, config.reason, trigger, context.run_id)
            try:
                change_set = apply_plan(whole, plan, asked, lambda each: report_move(context, each))
            except MlopsAssetsError as error:
                raise plan_failure(plan, error) from error
        undo = f"mlops-assets undo {product.name} {change_set.id} --reason '...'"
        context.add_output_metadata(
            {"change_set": change_set.id, "undo": undo, "moves": table_metadata(plan.frame())}
        )

    step.__annotations__["config"] = form
    made = dg.op(name=op_name(product.name, kind), description=description)(step)

    @dg.job(name=f"{product.name}_{kind}", description=description, tags={"product": product.name})
    def job() -> None:
        made()

    return job


def _countries(product: Product, config: MoveConfig) -> Sequence[str]:
    if bool(config.countries) == config.all_countries:
        raise dg.Failure(
            "Say which countries: either `countries`, or `all_countries: true`. Nothing was moved.",
            allow_retries=False,
        )
    return list(config.countries or product.spec.countries)


def _checked(plan: ChangePlan, config: WordConfig, context: dg.OpExecutionContext) -> ChangePlan:
    """The plan, if it starts from what the person who asks has seen."""
    context.log.info("\n".join(f"{line}" for line in plan.frame().to_dict("records")))
    expected = config.expected if isinstance(config, MoveConfig) else {}
    now = {move.country: move.before.champion for move in plan.moves}
    others = {c: now[c] for c, version in expected.items() if c in now and now[c] != version}
    if others and plan.resumes is None:
        told = ", ".join(
            f"{country}: {version or 'the baseline'}" for country, version in others.items()
        )
        error = ConfigurationError(
            f"{plan.product}: other versions are in use than were listed ({told}).",
            stored="Nothing was moved.",
            way_out="List again and confirm again.",
        )
        raise plan_failure(plan, error)
    return plan


def plan_failure(plan: ChangePlan, error: MlopsAssetsError) -> dg.Failure:
    """The failure of a run whose plan could not be carried out, with the plan."""
    return dg.Failure(
        str(error), metadata={"plan": table_metadata(plan.frame())}, allow_retries=False
    )


def report_move(context: dg.OpExecutionContext, moved: MovedCountry) -> None:
    """Tell Dagster at once what the asset `champion` of the country is now, and check it."""
    ctx, snapshot = moved.ctx, moved.snapshot
    key = asset_key(ctx.product, "champion")
    told = {
        **champion_metadata(moved.frame, moved.entry, ctx.product.name),
        **snapshot.metadata,
        "dagster/partition_row_count": snapshot.rows,
        "dagster/uri": snapshot.uri,
        f"{METADATA_PREFIX}version": snapshot.version,
        f"{METADATA_PREFIX}content_hash": snapshot.content_hash,
    }
    context.log_event(
        dg.AssetMaterialization(
            key,
            partition=ctx.country,
            metadata=told,
            tags={DATA_VERSION: snapshot.content_hash},
        )
    )
    result = alias_check(ctx, key, moved.entry.after.champion)
    check = dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=ALIAS_CHECK,
        passed=result.passed,
        severity=result.severity,
        description=result.description,
        metadata=result.metadata or {},
        partition=ctx.country,
        blocking=True,
    )
    context.log_event(check)  # pyright: ignore[reportArgumentType] (it takes these, too)
    context.log.info(f"{ctx.country}: {moved.entry.comparison.decision.reason}")
