"""The candidate against the model in use: the evidence, made again where it has to be, the verdict.

The step `model` stores evidence about the champion of that time. If another one is in use by now,
its predictions of the very same rows take that one's place.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mlops_assets.errors import RegistryError, TrainingError
from mlops_assets.ml.evaluation.evidence import evidence_frame
from mlops_assets.ml.gates.gates import GateResult, gates_from_json, gates_to_json
from mlops_assets.ml.gates.judgement import gates_again
from mlops_assets.ml.gates.model_pair import ModelPair
from mlops_assets.ml.models.split import split, with_offset
from mlops_assets.ml.promotion.decision import Decision
from mlops_assets.ml.promotion.verdicts import Circumstances, VerdictSettings, conclude
from mlops_assets.ml.promotion.withdrawal import WithdrawalSettings, decide_withdrawal
from mlops_assets.registry import ModelVersion
from mlops_assets.stages.common.base import EVIDENCE
from mlops_assets.stages.common.context import CountryContext
from mlops_assets.stages.common.lineage import INPUTS
from mlops_assets.stages.promotion.decision_log import Comparison, Entry, blocked_versions
from mlops_assets.stages.training.intervals import intervals_of
from mlops_assets.stages.training.serving import evaluation_split, tagged_time, unseen_predictions
from mlops_assets.stages.training.succession import comparison_of, pooled_title
from mlops_assets.storage import Snapshot
from mlops_assets.storage.io_manager import METADATA_PREFIX

_NAN = float("nan")
WITHDRAWAL_EVIDENCE = "withdrawal_evidence"
"""Snapshots of the matured rows that withdrawals are decided from, by country."""
_WITHDRAWAL = f"{METADATA_PREFIX}withdrawal"


@dataclass(frozen=True)
class _Judged:
    """Everything a verdict follows from.

    Attributes:
        evidence: one row per holdout row.
        content_hash: of its snapshot.
        gates: every gate's outcome against the model in use.
        model_pair: what is compared.
        champion_problem: why the model in use cannot predict these rows; "" when it can.
    """

    evidence: pd.DataFrame
    content_hash: str
    gates: Sequence[GateResult]
    model_pair: ModelPair
    champion_problem: str = ""


@dataclass(frozen=True)
class _Side:
    """Predictions of a registered version, or why there are none."""

    predicted: np.ndarray | None
    until: pd.Timestamp | None = None
    bytes: int = 0
    problem: str = ""


def compare_with_champion(
    ctx: CountryContext,
    model: Snapshot,
    in_use: ModelVersion | None,
    log: Sequence[Entry],
    *,
    run_id: str,
) -> Comparison:
    """What evidence says of the country's candidate and the model in use.

    Args:
        ctx: the country.
        model: the snapshot of the candidate.
        in_use: the version the candidate is to replace; None without one.
        log: the recorded decisions of the country.
        run_id: who writes evidence that has to be made again.
    """
    row = ctx.store.read(model.asset, ctx.country, version=model.version).iloc[0]
    features = _features_of(ctx, model)
    candidate, champion = str(row["version"]), in_use.version if in_use else ""
    about = Comparison(
        country=ctx.country,
        candidate=candidate,
        kind=str(row["kind"]),
        champion=champion,
        decision=_without_comparison(row, champion),
        gates=gates_from_json(str(row["gates"])),
        config_hash=ctx.spec.config_hash(),
        features=features.content_hash,
        validated=features.metadata[INPUTS]["validated"],
    )
    if not candidate or candidate == champion:
        return about
    judged = _judged(ctx, row, features, in_use, run_id=run_id)
    pooled = comparison_of(ctx, ctx.version(candidate), in_use)
    known = Circumstances(
        rolled_back=_rolled_back(ctx, candidate, log),
        champion_problem=judged.champion_problem,
    )
    settings = VerdictSettings(ctx.spec, known)
    return replace(
        about,
        decision=conclude(
            judged.evidence, judged.gates, judged.model_pair, settings, pooled=pooled
        ),
        gates=judged.gates,
        evidence=judged.content_hash,
        settings=settings.to_json(),
        model_pair=judged.model_pair,
        pooled=pooled,
    )


def _without_comparison(row: pd.Series, champion: str) -> Decision:
    """The verdict where there is nothing to compare."""
    rows = int(row["holdout_rows"])
    if not row["version"]:
        text = f"no model to compare: {row['reason']}"
        return Decision("not_judged", text, rows, _NAN, _NAN)
    text = "the candidate is the champion already"
    return Decision("promoted", text, rows, float(row["value"]), float(row["value"]))


def _features_of(ctx: CountryContext, model: Snapshot) -> Snapshot:
    """The very features the candidate was judged on: newer ones may be there by now.

    Raises:
        RegistryError: they are gone.
    """
    wanted = model.metadata[INPUTS]["features"]
    found = ctx.find("features", wanted)
    if found is None:
        raise RegistryError(
            f"{ctx.product.name} {ctx.country}: the features {wanted!r}, on which the candidate "
            "was judged, are gone.",
            way_out="Materialize `features` and `model` of the country again.",
            culprits={"country": ctx.country, "features": wanted},
        )
    return found


def _judged(
    ctx: CountryContext,
    row: pd.Series,
    features: Snapshot,
    in_use: ModelVersion | None,
    *,
    run_id: str,
) -> _Judged:
    held = _stored(ctx, row)
    champion = in_use.version if in_use else ""
    if held is not None and row["champion_version"] == champion:
        frame = ctx.store.read(held.asset, ctx.country, version=held.version)
        if not champion or frame["champion"].notna().any():
            gates = gates_from_json(str(row["gates"]))
            return _Judged(frame, held.content_hash, gates, ModelPair.from_json(_pair_of(row)))
    return _again(ctx, row, features, in_use, held=held, run_id=run_id)


def _stored(ctx: CountryContext, row: pd.Series) -> Snapshot | None:
    """The evidence that the row of the candidate names; None if it is gone."""
    return ctx.find(EVIDENCE, row[EVIDENCE])


def _again(
    ctx: CountryContext,
    row: pd.Series,
    features: Snapshot,
    in_use: ModelVersion | None,
    *,
    held: Snapshot | None,
    run_id: str,
) -> _Judged:
    """Evidence about the model that is in use now, stored beside the one that was there."""
    candidate = ctx.version(str(row["version"]))
    frame = ctx.store.read(features.asset, ctx.country, version=features.version)
    parts = with_offset(split(frame, evaluation_split(candidate, ctx.spec)), ctx.spec)
    theirs = _side(ctx, in_use, parts.holdout)
    if held is not None:
        before = ctx.store.read(held.asset, ctx.country, version=held.version)
        evidence = _with_champion(before, parts.holdout, theirs)
        ours = _as_recorded(ModelPair.from_json(_pair_of(row)))
    else:
        ours = _side(ctx, candidate, parts.holdout)
        if ours.predicted is None:
            raise RegistryError(ours.problem)
        evidence = _built(
            ctx, candidate, ours.predicted, parts.holdout, train=parts.final, theirs=theirs
        )
    return _Judged(
        evidence,
        _store(ctx, evidence, row, features, in_use=in_use, run_id=run_id),
        gates_again(ctx.spec, evidence, gates_from_json(str(row["gates"]))),
        _pair(str(row["version"]), in_use, ours, theirs),
        theirs.problem,
    )


def _side(ctx: CountryContext, version: ModelVersion | None, holdout: pd.DataFrame) -> _Side:
    """A version as it was judged; how new and how large it is, is said of what serves."""
    if version is None:
        return _Side(None)
    try:
        predicted = unseen_predictions(version, holdout, ctx.spec, ctx.registry)
        size = ctx.registry.bytes_of(version)
    except (TrainingError, RegistryError) as error:
        return _Side(None, problem=error.problem)
    return _Side(predicted, tagged_time(version, "until"), size)


def _pair_of(row: pd.Series) -> str:
    """What was compared, as JSON; under its older name in rows that were stored before."""
    return str(row["model_pair"] if "model_pair" in row else row["sides"])


def _as_recorded(pair: ModelPair) -> _Side:
    return _Side(None, pair.candidate_until, pair.candidate_bytes)


def _with_champion(before: pd.DataFrame, holdout: pd.DataFrame, theirs: _Side) -> pd.DataFrame:
    """The same rows, candidate and baseline, with the predictions of another champion."""
    if theirs.predicted is None:
        return before.assign(champion=np.full(len(before), _NAN))
    keys = ["entity", "event_time"]
    predicted = holdout[keys].assign(champion=theirs.predicted)
    rows = before[keys].merge(predicted, on=keys, how="left", validate="one_to_one")
    return before.assign(champion=rows["champion"].to_numpy())


def _built(
    ctx: CountryContext,
    version: ModelVersion,
    predicted: np.ndarray,
    holdout: pd.DataFrame,
    *,
    train: pd.DataFrame,
    theirs: _Side,
) -> pd.DataFrame:
    around = intervals_of(version, holdout, predicted, ctx.spec, registry=ctx.registry)
    return evidence_frame(
        ctx.spec,
        holdout,
        predicted,
        train,
        low=around.low,
        high=around.high,
        champion=theirs.predicted,
    )


def _store(
    ctx: CountryContext,
    evidence: pd.DataFrame,
    row: pd.Series,
    features: Snapshot,
    *,
    in_use: ModelVersion | None,
    run_id: str,
) -> str:
    made_from = {
        "features": features.content_hash,
        "candidate": str(row["version"]),
        "champion": in_use.version if in_use else "",
    }
    asset = ctx.path(EVIDENCE)
    written = ctx.store.write(
        asset, ctx.country, evidence, run_id=run_id, metadata={INPUTS: made_from}
    )
    return written.snapshot.content_hash


def _pair(candidate: str, in_use: ModelVersion | None, ours: _Side, theirs: _Side) -> ModelPair:
    return ModelPair(
        candidate=candidate,
        champion=in_use.version if in_use else "",
        candidate_until=ours.until,
        champion_until=theirs.until,
        candidate_bytes=ours.bytes,
        champion_bytes=theirs.bytes,
    )


def _rolled_back(ctx: CountryContext, candidate: str, log: Sequence[Entry]) -> str:
    """Why a person alone may put the candidate into use again; "" where evidence may.

    The same pooled model is the same, whatever its number in the country.
    """
    blocked = blocked_versions(log)
    alike = (number for number in blocked if is_same_pooled(ctx, number, candidate))
    number = candidate if candidate in blocked else next(alike, "")
    if not number:
        return ""
    entry = blocked[number]
    day, also = entry.decided_at.date(), "" if number == candidate else ", the same pooled model,"
    if entry.verdict == "withdrawn":
        return f"version {number}{also} was withdrawn on {day}, as it was worse than the baseline"
    return f"{entry.origin.person} rolled back from version {number}{also} on {day}"


# Withdrawals: their rows as evidence, the decision as it follows from them.


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
