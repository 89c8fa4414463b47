"""The candidate against the model in use: the evidence, made again where it has to be, the verdict.

The step `model` stores evidence about the champion of that time. If another one is in use by now,
its predictions of the very same rows take that one's place.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mlops_assets.errors import RegistryError, TrainingError
from mlops_assets.ml.decision import Decision, Sides
from mlops_assets.ml.evidence import evidence_frame
from mlops_assets.ml.gates import GateResult
from mlops_assets.ml.judgement import gates_again
from mlops_assets.ml.split import split
from mlops_assets.registry import ModelVersion
from mlops_assets.stages.base import path
from mlops_assets.stages.decisions import (
    Comparison,
    Entry,
    barred,
    gates_from_json,
    sides_from_json,
)
from mlops_assets.stages.desk import Desk
from mlops_assets.stages.intervals import intervals_of
from mlops_assets.stages.lineage import INPUTS
from mlops_assets.stages.serving import judged_split, time_of, unseen_predictions
from mlops_assets.stages.verdicts import Circumstances, Settings, conclude
from mlops_assets.storage import Snapshot

EVIDENCE = "evidence"
"""Name of the snapshots that hold what decisions were made from."""
_NAN = float("nan")


@dataclass(frozen=True)
class _Judged:
    """Everything a verdict follows from.

    Attributes:
        evidence: one row per holdout row.
        content_hash: of its snapshot.
        gates: every gate's outcome against the model in use.
        sides: what is compared.
        champion_problem: why the model in use cannot predict these rows; "" when it can.
    """

    evidence: pd.DataFrame
    content_hash: str
    gates: Sequence[GateResult]
    sides: Sides
    champion_problem: str = ""


@dataclass(frozen=True)
class _Side:
    """Predictions of a registered version, or why there are none."""

    predicted: np.ndarray | None
    until: pd.Timestamp | None = None
    bytes: int = 0
    problem: str = ""


def compare(
    desk: Desk, model: Snapshot, in_use: ModelVersion | None, log: Sequence[Entry], run_id: str
) -> Comparison:
    """What evidence says of the country's candidate and the model in use.

    Args:
        desk: the country.
        model: the snapshot of the candidate.
        in_use: the version the candidate is to replace; None without one.
        log: the recorded decisions of the country.
        run_id: who writes evidence that has to be made again.
    """
    row = desk.store.read(model.asset, desk.country, version=model.version).iloc[0]
    features = _features_of(desk, model)
    candidate, champion = str(row["version"]), in_use.version if in_use else ""
    about = Comparison(
        country=desk.country,
        candidate=candidate,
        kind=str(row["kind"]),
        champion=champion,
        decision=_without_comparison(row, champion),
        gates=gates_from_json(str(row["gates"])),
        config_hash=desk.spec.config_hash(),
        features=features.content_hash,
        validated=features.metadata[INPUTS]["validated"],
    )
    if not candidate or candidate == champion:
        return about
    judged = _judged(desk, row, features, in_use, run_id)
    known = Circumstances(
        rolled_back=_rolled_back(candidate, log),
        champion_problem=judged.champion_problem,
    )
    settings = Settings(desk.spec, known)
    return replace(
        about,
        decision=conclude(judged.evidence, judged.gates, judged.sides, settings),
        gates=judged.gates,
        evidence=judged.content_hash,
        settings=settings.to_json(),
        sides=judged.sides,
    )


def _without_comparison(row: pd.Series, champion: str) -> Decision:
    """The verdict where there is nothing to compare."""
    rows = int(row["holdout_rows"])
    if not row["version"]:
        text = f"no model to compare: {row['reason']}"
        return Decision("not_judged", text, rows, _NAN, _NAN)
    text = "the candidate is the champion already"
    return Decision("promoted", text, rows, float(row["value"]), float(row["value"]))


def _features_of(desk: Desk, model: Snapshot) -> Snapshot:
    """The very features the candidate was judged on: newer ones may be there by now.

    Raises:
        RegistryError: they are gone.
    """
    wanted = model.metadata[INPUTS]["features"]
    found = desk.store.find(path(desk.product, "features"), desk.country, wanted)
    if found is None:
        raise RegistryError(
            f"{desk.product.name} {desk.country}: the features {wanted!r}, on which the candidate "
            "was judged, are gone.",
            way_out="Materialize `features` and `model` of the country again.",
            culprits={"country": desk.country, "features": wanted},
        )
    return found


def _judged(
    desk: Desk, row: pd.Series, features: Snapshot, in_use: ModelVersion | None, run_id: str
) -> _Judged:
    held = _stored(desk, row)
    champion = in_use.version if in_use else ""
    if held is not None and row["champion_version"] == champion:
        frame = desk.store.read(held.asset, desk.country, version=held.version)
        if not champion or frame["champion"].notna().any():
            gates = gates_from_json(str(row["gates"]))
            return _Judged(frame, held.content_hash, gates, sides_from_json(row["sides"]))
    return _again(desk, row, features, in_use, held, run_id)


def _stored(desk: Desk, row: pd.Series) -> Snapshot | None:
    """The evidence that the row of the candidate names; None if it is gone."""
    return desk.store.find(path(desk.product, EVIDENCE), desk.country, row[EVIDENCE])


def _again(
    desk: Desk,
    row: pd.Series,
    features: Snapshot,
    in_use: ModelVersion | None,
    held: Snapshot | None,
    run_id: str,
) -> _Judged:
    """Evidence about the model that is in use now, stored beside the one that was there."""
    candidate = desk.version(str(row["version"]))
    frame = desk.store.read(features.asset, desk.country, version=features.version)
    parts = split(frame, judged_split(candidate, desk.spec))
    theirs = _side(desk, in_use, parts.holdout)
    if held is not None:
        before = desk.store.read(held.asset, desk.country, version=held.version)
        evidence = _with_champion(before, parts.holdout, theirs)
        ours = _as_recorded(sides_from_json(row["sides"]))
    else:
        ours = _side(desk, candidate, parts.holdout)
        if ours.predicted is None:
            raise RegistryError(ours.problem)
        evidence = _built(desk, candidate, ours.predicted, parts.holdout, parts.final, theirs)
    return _Judged(
        evidence,
        _store(desk, evidence, row, features, in_use, run_id),
        gates_again(desk.spec, evidence, gates_from_json(str(row["gates"]))),
        _sides(str(row["version"]), in_use, ours, theirs),
        theirs.problem,
    )


def _side(desk: Desk, version: ModelVersion | None, holdout: pd.DataFrame) -> _Side:
    """A version as it was judged; how new and how large it is, is said of what serves."""
    if version is None:
        return _Side(None)
    try:
        predicted = unseen_predictions(version, holdout, desk.spec, desk.registry)
        size = desk.registry.bytes_of(version)
    except (TrainingError, RegistryError) as error:
        return _Side(None, problem=error.problem)
    return _Side(predicted, time_of(version, "until"), size)


def _as_recorded(sides: Sides) -> _Side:
    return _Side(None, sides.candidate_until, sides.candidate_bytes)


def _with_champion(before: pd.DataFrame, holdout: pd.DataFrame, theirs: _Side) -> pd.DataFrame:
    """The same rows, candidate and baseline, with the predictions of another champion."""
    if theirs.predicted is None:
        return before.assign(champion=np.full(len(before), _NAN))
    keys = ["entity", "event_time"]
    predicted = holdout[keys].assign(champion=theirs.predicted)
    rows = before[keys].merge(predicted, on=keys, how="left", validate="one_to_one")
    return before.assign(champion=rows["champion"].to_numpy())


def _built(
    desk: Desk,
    version: ModelVersion,
    predicted: np.ndarray,
    holdout: pd.DataFrame,
    train: pd.DataFrame,
    theirs: _Side,
) -> pd.DataFrame:
    around = intervals_of(version, holdout, predicted, desk.spec, desk.registry)
    return evidence_frame(
        desk.spec,
        holdout,
        predicted,
        train,
        low=around.low,
        high=around.high,
        champion=theirs.predicted,
    )


def _store(
    desk: Desk,
    evidence: pd.DataFrame,
    row: pd.Series,
    features: Snapshot,
    in_use: ModelVersion | None,
    run_id: str,
) -> str:
    made_from = {
        "features": features.content_hash,
        "candidate": str(row["version"]),
        "champion": in_use.version if in_use else "",
    }
    asset = path(desk.product, EVIDENCE)
    written = desk.store.write(
        asset, desk.country, evidence, run_id=run_id, metadata={INPUTS: made_from}
    )
    return written.snapshot.content_hash


def _sides(candidate: str, in_use: ModelVersion | None, ours: _Side, theirs: _Side) -> Sides:
    return Sides(
        candidate=candidate,
        champion=in_use.version if in_use else "",
        candidate_until=ours.until,
        champion_until=theirs.until,
        candidate_bytes=ours.bytes,
        champion_bytes=theirs.bytes,
    )


def _rolled_back(candidate: str, log: Sequence[Entry]) -> str:
    entry = barred(log).get(candidate)
    if entry is None:
        return ""
    day = entry.decided_at.date()
    return f"{entry.origin.person} rolled back from version {candidate} on {day}"
