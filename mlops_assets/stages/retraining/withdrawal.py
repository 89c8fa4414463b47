"""The job that takes a champion out of use: rows, what may serve instead, one recorded change."""

from dataclasses import dataclass, replace
from functools import partial

import dagster as dg
import pandas as pd
from pydantic import Field

from mlops_assets.errors import ConfigurationError, MlopsAssetsError, RegistryError, TrainingError
from mlops_assets.ml.gates.gates import GateResult
from mlops_assets.ml.monitoring.beside_baseline import serving_naive, withdrawal_rows
from mlops_assets.ml.promotion.withdrawal import (
    StandIn,
    Withdrawal,
    WithdrawalSettings,
    decide_withdrawal,
    ruled_out,
)
from mlops_assets.product import Product
from mlops_assets.registry import MlflowRegistry
from mlops_assets.stages.common.base import Storage
from mlops_assets.stages.common.context import CountryContext
from mlops_assets.stages.common.lineage import INPUTS, serving_baseline
from mlops_assets.stages.common.locks import alone_in, changing
from mlops_assets.stages.common.runs import PERSON, WITHDRAW, leave_to_the_older, trigger_of
from mlops_assets.stages.common.ui_metadata import table_metadata
from mlops_assets.stages.promotion.change_sets import open_change_set
from mlops_assets.stages.promotion.comparison import WithdrawalEvidence, store_withdrawal
from mlops_assets.stages.promotion.decision_log import blocked_versions, log_of
from mlops_assets.stages.promotion.jobs import op_name, plan_failure, report_move
from mlops_assets.stages.promotion.plan import (
    Requester,
    apply_plan,
    plan_withdrawal,
    withdrawal_request,
)
from mlops_assets.stages.training.pooled_choice import (
    PooledChoice,
    choose_pooled,
    register_pooled,
)
from mlops_assets.stages.training.serving import can_choose, pooled_versions
from mlops_assets.stages.training.succession import pooled_title
from mlops_assets.storage import Snapshot

_ABOUT = (
    "Takes the champion of a country out of use where it is significantly worse than the baseline "
    "on the same matured rows: the pooled model serves in its place, unless it is worse, too, or a "
    "gate rules it out, and else the baseline. A recorded decision that can be replayed and "
    "undone. The retraining sensor asks for it (`retraining.withdraw`)."
)


class WithdrawConfig(dg.Config):
    """What is taken out of use, and why it was asked for."""

    country: str = Field(description="code, such as FRA")
    version: str = Field(description="version that is to be in use now, or nothing is done")
    reason: str = Field(description="why it is asked for; what is decided has its own")


@dataclass(frozen=True)
class _Sources:
    """What a withdrawal is decided from.

    Attributes:
        champion: the version in use.
        performance: the snapshot of its matured rows.
        features: the newest.
        table: of performance.
        frame: of features.
    """

    champion: str
    performance: Snapshot
    features: Snapshot
    table: pd.DataFrame
    frame: pd.DataFrame


def withdrawal_job(product: Product) -> dg.JobDefinition:
    """`<product>_withdraw`, of one op."""

    def step(
        context: dg.OpExecutionContext,
        config: WithdrawConfig,
        storage: Storage,
        mlflow: MlflowRegistry,
    ) -> None:
        leave_to_the_older(context)
        ctx = storage.product(product, mlflow.registry()).country(config.country)
        with alone_in(storage.locks, product.name, [config.country], context):
            target, evidence = "", ""
            if not _begun(ctx):  # else that is finished
                weighed = _weighed(ctx, config.version, context, storage, mlflow=mlflow)
                if weighed is None:
                    return
                target, evidence = weighed
            with changing(storage.locks, product.name, context):
                _carry_out(ctx, target, evidence, config, context=context)

    step.__annotations__["config"] = WithdrawConfig
    made = dg.op(name=op_name(product.name, WITHDRAW), description=_ABOUT)(step)

    @dg.job(name=f"{product.name}_{WITHDRAW}", description=_ABOUT, tags={"product": product.name})
    def job() -> None:
        made()

    return job


def _begun(ctx: CountryContext) -> bool:
    """Whether a withdrawal of the country was begun and not finished."""
    left = open_change_set(ctx.whole)
    return left is not None and left.request == withdrawal_request(ctx.country)


def _carry_out(
    ctx: CountryContext,
    target: str,
    evidence: str,
    config: WithdrawConfig,
    *,
    context: dg.OpExecutionContext,
) -> None:
    plan = plan_withdrawal(ctx.whole, ctx.country, target, evidence)
    trigger = trigger_of(context.run.tags)
    asked = Requester(PERSON, config.reason, trigger, context.run_id)
    try:
        change_set = apply_plan(ctx.whole, plan, asked, partial(report_move, context))
    except MlopsAssetsError as error:
        raise plan_failure(plan, error) from error
    undo = f"mlops-assets undo {ctx.product.name} {change_set.id} --reason '...'"
    context.add_output_metadata(
        {"change_set": change_set.id, "undo": undo, "moves": table_metadata(plan.frame())}
    )


def _weighed(
    ctx: CountryContext,
    version: str,
    context: dg.OpExecutionContext,
    storage: Storage,
    *,
    mlflow: MlflowRegistry,
) -> tuple[str, str] | None:
    """The version that is to serve ("": the baseline) and the evidence; None: nothing changes."""
    sources = _sources(ctx, version)
    choice, stand_in = _stand_in(ctx, sources)
    settings = WithdrawalSettings(ctx.spec, version, serving_baseline(ctx).name, stand_in)
    rows, found = _decided(settings, sources, choice)
    if found.target == "champion":
        context.log.info(f"{ctx.country}: {found.decision.reason}")
        context.add_output_metadata({"outcome": found.decision.reason})
        return None
    target, gates = "", ()
    if found.target == "pooled" and choice is not None:
        candidate = register_pooled(ctx, choice, sources.features, storage=storage, mlflow=mlflow)
        gates = tuple(candidate.judged.gates)
        stand_in = replace(stand_in, problem=ruled_out(gates))
        settings = replace(settings, stand_in=stand_in)
        if decide_withdrawal(rows, settings).target == "pooled":
            target = candidate.model_pair.candidate
    stored = _evidence(sources, rows, settings, gates)
    return target, store_withdrawal(ctx, stored, context.run_id)


def _sources(ctx: CountryContext, version: str) -> _Sources:
    """The matured rows and the features there are now.

    Raises:
        dagster.Failure: another version is in use by now, or something is gone.
    """
    in_use, made = ctx.aliases().champion, ctx.current("performance")
    features = ctx.current("features")
    if in_use != version or made is None or features is None:
        gone = "its performance or features are gone"
        why = gone if in_use == version else f"version {in_use or 'none'} is in use now"
        error = ConfigurationError(
            f"{ctx.product.name} {ctx.country}: version {version} is not withdrawn, as {why}.",
            stored="Nothing was moved.",
            way_out="Nothing is to be done: the next tick of the sensor looks again.",
        )
        raise dg.Failure(str(error), allow_retries=False)
    table = ctx.store.read(made.asset, ctx.country, version=made.version)
    frame = ctx.store.read(features.asset, ctx.country, version=features.version)
    return _Sources(version, made, features, table, frame)


def _decided(
    settings: WithdrawalSettings, sources: _Sources, choice: PooledChoice | None
) -> tuple[pd.DataFrame, Withdrawal]:
    """The matured rows, and what they say."""
    spec, table, frame = settings.spec, sources.table, sources.frame
    naive = serving_naive(spec, table, frame, settings.baseline)
    pooled = choice.model.final if choice else None
    rows = withdrawal_rows(spec, table, frame, sources.champion, naive=naive, pooled=pooled)
    return rows, decide_withdrawal(rows, settings)


def _stand_in(ctx: CountryContext, sources: _Sources) -> tuple[PooledChoice | None, StandIn]:
    """The pooled model that may serve instead; why none may, where it is so."""
    if not can_choose(ctx.spec, ctx.country) or not pooled_versions(ctx.whole, ctx.country):
        return None, StandIn()
    if ctx.spec.decision.approval:
        return None, StandIn("", "a pooled model would wait for a person's approval")
    try:
        choice = choose_pooled(ctx, sources.frame, _excluded(ctx, sources.champion))
    except (RegistryError, TrainingError) as error:
        return None, StandIn("", f"the pooled model cannot be used: {error.problem}")
    if choice is None:
        text = "no pooled model is newer than the one in use or those that were withdrawn"
        return None, StandIn("", text)
    return choice, StandIn(f"pooled {choice.title}", "")


def _excluded(ctx: CountryContext, champion: str) -> set[str]:
    """Titles of the pooled models that serve already, or were taken out of use."""
    found = set()
    for number in (champion, *blocked_versions(log_of(ctx))):
        try:
            found.add(pooled_title(ctx.version(number)))
        except RegistryError:  # no longer registered, so that nothing of it is offered
            continue
    return found


def _evidence(
    sources: _Sources,
    rows: pd.DataFrame,
    settings: WithdrawalSettings,
    gates: tuple[GateResult, ...],
) -> WithdrawalEvidence:
    features = sources.features
    return WithdrawalEvidence(
        rows,
        settings,
        features.content_hash,
        features.metadata[INPUTS]["validated"],
        sources.performance.version,
        gates,
    )
