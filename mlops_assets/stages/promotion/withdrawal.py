"""The record of a withdrawal: its rows as evidence, the decision as it follows from them."""

from dataclasses import dataclass

import pandas as pd

from mlops_assets.errors import RegistryError
from mlops_assets.ml.gates.gates import GateResult, gates_from_json, gates_to_json
from mlops_assets.ml.promotion.withdrawal import WithdrawalSettings, decide_withdrawal
from mlops_assets.stages.common.context import CountryContext
from mlops_assets.stages.common.lineage import INPUTS
from mlops_assets.stages.promotion.decision_log import Comparison
from mlops_assets.stages.training.succession import pooled_title
from mlops_assets.storage import Snapshot
from mlops_assets.storage.io_manager import METADATA_PREFIX

WITHDRAWAL_EVIDENCE = "withdrawal_evidence"
"""Snapshots of the matured rows that withdrawals are decided from, by country."""
_WITHDRAWAL = f"{METADATA_PREFIX}withdrawal"


@dataclass(frozen=True)
class WithdrawalEvidence:
    """What a withdrawal is decided from, once it is stored.

    Attributes:
        rows: with the columns `ml.promotion.withdrawal.WITHDRAWAL_COLUMNS`.
        settings: what they are judged by.
        features: content hash of the features that the predictions are of.
        validated: content hash of the validated rows these were made from.
        performance: version of the snapshot the rows are of.
        gates: of the pooled version that is to serve; empty for the baseline.
    """

    rows: pd.DataFrame
    settings: WithdrawalSettings
    features: str
    validated: str
    performance: str
    gates: tuple[GateResult, ...] = ()


def store_withdrawal(ctx: CountryContext, found: WithdrawalEvidence, run_id: str) -> str:
    """Write the rows, and beside them all that the decision depends on; their content hash."""
    told = {
        INPUTS: {"features": found.features, "performance": found.performance},
        _WITHDRAWAL: {
            "settings": found.settings.to_json(),
            "gates": gates_to_json(found.gates),
            "validated": found.validated,
        },
    }
    asset = ctx.path(WITHDRAWAL_EVIDENCE)
    written = ctx.store.write(asset, ctx.country, found.rows, run_id=run_id, metadata=told)
    return written.snapshot.content_hash


def stored_comparison(ctx: CountryContext, evidence: str, target: str) -> Comparison:
    """The decision about a withdrawal, made from what is stored.

    Args:
        ctx: the country.
        evidence: content hash of the rows.
        target: version that is to serve; "" for the baseline.

    Raises:
        RegistryError: they are gone.
    """
    held = ctx.store.find(ctx.path(WITHDRAWAL_EVIDENCE), ctx.country, evidence)
    if held is None:
        raise RegistryError(
            f"{ctx.model_name}: the evidence {evidence!r} of a withdrawal is gone.",
            way_out="Take the change set back with `mlops-assets undo`; the next tick asks again.",
            culprits={"country": ctx.country, "evidence": evidence},
        )
    told = held.metadata[_WITHDRAWAL]
    settings = WithdrawalSettings.from_json(told["settings"])
    return Comparison(
        country=ctx.country,
        candidate=target,
        kind=ctx.version(target).kind if target else "baseline",
        champion=settings.champion,
        decision=decide_withdrawal(_rows(ctx, held), settings).decision,
        gates=gates_from_json(told["gates"]),
        config_hash=ctx.spec.config_hash(),
        features=held.metadata[INPUTS]["features"],
        validated=told["validated"],
        evidence=evidence,
        settings=told["settings"],
    )


def is_same_pooled(ctx: CountryContext, one: str, other: str) -> bool:
    """Whether two versions of a country are the same pooled model under two numbers.

    One that is no longer registered is none.
    """
    try:
        first, second = (pooled_title(ctx.version(number)) for number in (one, other))
    except RegistryError:
        return False
    return bool(first) and first == second


def _rows(ctx: CountryContext, held: Snapshot) -> pd.DataFrame:
    return ctx.store.read(held.asset, ctx.country, version=held.version)
