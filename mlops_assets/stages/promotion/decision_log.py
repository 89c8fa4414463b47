"""The append-only record of what became of candidates and champions, and of who or what decided.

A row is written before anything moves and is never changed. The rows of verdicts that put a
version into use (`MOVES`) say what the aliases named before and name after, so that one that was
not carried out, because its process was killed, is found and finished.
"""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from mlops_assets.ml.gates.gates import GateResult, gates_from_json, gates_to_json
from mlops_assets.ml.gates.model_pair import ModelPair
from mlops_assets.ml.gates.succession import (
    PooledComparison,
    comparisons_from_json,
    comparisons_to_json,
)
from mlops_assets.ml.promotion.decision import Decision
from mlops_assets.product import Product
from mlops_assets.registry import Aliases
from mlops_assets.stages.common.clock import dated
from mlops_assets.stages.common.context import CountryContext, ProductContext
from mlops_assets.stages.common.runs import trigger_of

MOVES = ("promoted", "forced", "rolled_back", "withdrawn")
"""Verdicts after which another version may be in use."""

DATED = "dated"
"""Column of entries of a product whose policy goes by the clock of its records."""
RENAMED = {"unit": "change_set", "sides": "model_pair"}
"""Columns of the log by their older names, which stored entries may have."""
LATER_TEXTS = ("drawn_by", "drawn")
"""Columns that entries of earlier versions lack."""
_ORIGIN = ("trigger", "dagster_run_id", "person", "change_set", "undoes")
_NAN = float("nan")


@dataclass(frozen=True)
class Origin:
    """Who or what asked for a decision.

    Attributes:
        trigger: why it was taken now, such as `schedule power_price_periodic` or `by hand`.
        run_id: of the Dagster run it was taken in; "" outside one.
        person: who took it; "" when evidence did.
        change_set: id that decisions share which a person took as one, for one country or many.
        undoes: id of the decision of the country that this one takes back.
    """

    trigger: str
    run_id: str = ""
    person: str = ""
    change_set: str = ""
    undoes: str = ""

    @classmethod
    def of_run(cls, run_id: str, tags: Mapping[str, str]) -> "Origin":
        """A decision that evidence makes in a Dagster run with these tags."""
        return cls(trigger_of(tags), run_id)


@dataclass(frozen=True)
class Comparison:
    """A decision with what it was about.

    Attributes:
        country: the partition.
        candidate: registered version of the candidate; "" for a baseline.
        kind: local, pooled, region or baseline.
        champion: registered version it was compared with; "" without one.
        decision: the verdict and its numbers.
        gates: every gate's outcome.
        config_hash: of the country's resolved config.
        features: content hash of the features both were scored on.
        validated: content hash of the validated rows these were made from.
        evidence: content hash of the evidence it was made from; "" when there was none.
        settings: JSON of what the evidence was judged by; "" when there was no evidence.
        model_pair: what was compared, beside its predictions; None when nothing was.
        pooled: the pooled models behind both, as they were compared on the rows of all countries;
            None where one of them is no pooled model.
    """

    country: str
    candidate: str
    kind: str
    champion: str
    decision: Decision
    gates: Sequence[GateResult]
    config_hash: str
    features: str
    validated: str = ""
    evidence: str = ""
    settings: str = ""
    model_pair: ModelPair | None = None
    pooled: PooledComparison | None = None

    @property
    def decision_id(self) -> str:
        """Same inputs, same id: a rerun finds the decision instead of taking it again."""
        pair = f"{self.candidate or self.kind}-{self.champion or 'none'}"
        return f"{pair}-{self.features[:12]}-{self.config_hash}"


@dataclass(frozen=True)
class Entry:
    """A decision as it is recorded.

    Attributes:
        comparison: what was decided, about what.
        decision_id: unique in the country.
        decided_at: when, UTC.
        origin: who or what asked.
        before: what the aliases named when it was taken.
        after: what they name once it is carried out.
        dated: when by the clock of `retraining.clock` (ISO 8601); "" by the time of day, which is
            `decided_at`.
    """

    comparison: Comparison
    decision_id: str
    decided_at: pd.Timestamp
    origin: Origin
    before: Aliases = field(default_factory=Aliases)
    after: Aliases = field(default_factory=Aliases)
    dated: str = ""

    @property
    def verdict(self) -> str:
        """Of the decision."""
        return self.comparison.decision.verdict

    @property
    def is_stopped_by_gate(self) -> bool:
        """Whether a gate that failed kept the candidate from being compared."""
        return self.verdict == "kept" and any(g.passed is False for g in self.comparison.gates)

    @property
    def moves(self) -> bool:
        """Whether another version is in use once it is carried out."""
        return self.verdict in MOVES and self.before.champion != self.after.champion


def entries(ctx: ProductContext, country: str | None = None) -> list[Entry]:
    """The recorded decisions, oldest first; of every country when none is given."""
    return [_entry(row) for row in decision_table(ctx, country).to_dict("records")]


def decision_table(ctx: ProductContext, country: str | None = None) -> pd.DataFrame:
    """One row a decision, oldest first, under the names that columns have today."""
    log = with_new_names(ctx.store.read_log(ctx.path("decisions"), country), RENAMED)
    return log if log.empty else with_later_texts(log, LATER_TEXTS)


def with_new_names(log: pd.DataFrame, renamed: Mapping[str, str]) -> pd.DataFrame:
    """A log whose older entries have other names for some columns.

    Args:
        log: as it is stored.
        renamed: the name of today by the older one.
    """
    for old, new in renamed.items():
        if old in log:
            now = log[new].fillna(log[old]) if new in log else log[old]
            log = log.drop(columns=old).assign(**{new: now})
    return log


def with_later_texts(log: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """A log whose older entries lack some texts, which are "" there."""
    texts = {name: log[name].fillna("") if name in log else "" for name in names}
    return log.assign(**texts)


def log_of(ctx: CountryContext) -> list[Entry]:
    """The recorded decisions of a country, oldest first."""
    return entries(ctx.whole, ctx.country)


def entries_by_country(ctx: ProductContext, countries: Sequence[str]) -> dict[str, list[Entry]]:
    """The recorded decisions of some countries, oldest first; those without any left out."""
    if len(countries) == 1:
        recorded = entries(ctx, countries[0])
        return {countries[0]: recorded} if recorded else {}
    found: dict[str, list[Entry]] = {}
    for entry in entries(ctx):
        found.setdefault(entry.comparison.country, []).append(entry)
    return {country: found[country] for country in countries if country in found}


def newest_move(log: Sequence[Entry]) -> Entry | None:
    """The last decision after which another version was to be in use; None if there is none."""
    return next((entry for entry in reversed(log) if entry.moves), None)


def recorded_aliases(ctx: ProductContext) -> dict[str, Aliases]:
    """By country what its aliases name once all that is recorded is carried out.

    Countries that never had a version in use are left out.
    """
    moves = {
        country: newest_move(log) for country, log in entries_by_country(ctx, ctx.countries).items()
    }
    return {country: move.after for country, move in moves.items() if move is not None}


def blocked_versions(log: Sequence[Entry]) -> dict[str, Entry]:
    """Versions that were rolled back from or withdrawn, with that decision.

    Evidence does not promote them again; a person who puts one into use lifts it, and a rollback
    that was undone never was.
    """
    found: dict[str, Entry] = {}
    for entry in _standing(log):
        found.pop(entry.after.champion, None)
        if entry.verdict in ("rolled_back", "withdrawn") and entry.before.champion:
            found[entry.before.champion] = entry
    return found


def _standing(log: Sequence[Entry]) -> list[Entry]:
    """What persons decided and did not undo, oldest first, without the undoing itself."""
    undone: set[str] = set()
    standing = []
    for entry in reversed(log):
        if entry.decision_id in undone or not (entry.moves and entry.origin.person):
            continue
        if entry.origin.undoes:
            undone.add(entry.origin.undoes)
        else:
            standing.append(entry)
    return standing[::-1]


def record_decision(
    ctx: CountryContext,
    comparison: Comparison,
    origin: Origin,
    aliases: Aliases | None = None,
) -> Entry:
    """Append what evidence decided unless it is there: once recorded it is never changed.

    Args:
        ctx: the country.
        comparison: the decision with what it was about.
        origin: who or what asked.
        aliases: what the aliases name now; None: the champion compared with, and nothing else.

    Returns:
        The recorded one, which may be of an earlier run that was killed before it was carried out.
    """
    log = log_of(ctx)
    same = [entry for entry in log if _about_the_same(entry, comparison)]
    if same and same[-1].verdict == comparison.decision.verdict:
        return same[-1]
    number = f"-{len(same) + 1}" if same else ""
    before = aliases or Aliases(comparison.champion)
    promoted = comparison.decision.verdict == "promoted"
    moved = promoted and comparison.candidate != before.champion
    after = before.moved_to(comparison.candidate) if moved else before
    entry = Entry(
        comparison, f"{comparison.decision_id}{number}", now(), origin, before=before, after=after
    )
    append(ctx.whole, entry)
    return entry


def append(ctx: ProductContext, entry: Entry) -> None:
    """Write one more row of the log, dated by the clock that the policy goes by."""
    told = {DATED: at} if (at := dated(ctx, dt.datetime.now(dt.UTC))) else {}
    row = pd.DataFrame([{**_row(ctx.product, entry), **told}])
    ctx.store.append(ctx.path("decisions"), entry.comparison.country, row)


def _about_the_same(entry: Entry, comparison: Comparison) -> bool:
    wanted = comparison.decision_id
    number = entry.decision_id.removeprefix(wanted)
    return entry.decision_id.startswith(wanted) and (not number or number[1:].isdigit())


def _row(product: Product, entry: Entry) -> Mapping[str, Any]:
    comparison, origin = entry.comparison, entry.origin
    return {
        "decision_id": entry.decision_id,
        "decided_at": entry.decided_at,
        "product": product.name,
        "country": comparison.country,
        **_outcome(comparison.decision),
        "candidate_version": comparison.candidate,
        "candidate_kind": comparison.kind,
        "champion_version": comparison.champion,
        "version": entry.after.champion,
        "previous": entry.before.champion,
        "gates": gates_to_json(comparison.gates),
        "config_hash": comparison.config_hash,
        "features_hash": comparison.features,
        "snapshots": json.dumps(
            {"features": comparison.features, "validated": comparison.validated}
        ),
        "evidence": comparison.evidence,
        "settings": comparison.settings,
        "model_pair": "" if comparison.model_pair is None else comparison.model_pair.to_json(),
        "pooled": "" if comparison.pooled is None else comparisons_to_json([comparison.pooled]),
        "aliases": json.dumps({"before": vars(entry.before), "after": vars(entry.after)}),
        "trigger": origin.trigger,
        "person": origin.person,
        "change_set": origin.change_set,
        "undoes": origin.undoes,
        "dagster_run_id": origin.run_id,
    }


def _outcome(decision: Decision) -> dict[str, Any]:
    return {
        "verdict": decision.verdict,
        "reason": decision.reason,
        "rows": decision.rows,
        "candidate_value": decision.candidate_value,
        "champion_value": decision.champion_value,
        "gain": decision.gain,
        "gain_lower": decision.lower,
        "gain_upper": decision.upper,
        "level": decision.level,
        "draws": decision.draws,
        "block_days": decision.block_days,
        "drawn_by": decision.drawn_by,
        "drawn": decision.drawn,
        "basis": decision.basis,
        "own_rows": decision.own_rows,
        "veto": decision.veto,
        "fresher_lower": decision.fresher_lower,
    }


def _entry(row: Mapping[Any, Any]) -> Entry:
    named = json.loads(row["aliases"])
    return Entry(
        _comparison(row),
        row["decision_id"],
        pd.Timestamp(row["decided_at"]),
        Origin(*(row[name] for name in _ORIGIN)),
        before=Aliases(**named["before"]),
        after=Aliases(**named["after"]),
        dated=_given(row, DATED, ""),
    )


def _comparison(row: Mapping[Any, Any]) -> Comparison:
    return Comparison(
        country=row["country"],
        candidate=row["candidate_version"],
        kind=row["candidate_kind"],
        champion=row["champion_version"],
        decision=_decision(row),
        gates=gates_from_json(row["gates"]),
        config_hash=row["config_hash"],
        features=row["features_hash"],
        validated=json.loads(row["snapshots"])["validated"],
        evidence=row["evidence"],
        settings=row["settings"],
        model_pair=ModelPair.from_json(row["model_pair"]) if row["model_pair"] else None,
        pooled=next(iter(comparisons_from_json(_given(row, "pooled", ""))), None),
    )


def _decision(row: Mapping[Any, Any]) -> Decision:
    return Decision(
        verdict=row["verdict"],
        reason=row["reason"],
        rows=int(row["rows"]),
        candidate_value=float(row["candidate_value"]),
        champion_value=float(row["champion_value"]),
        gain=float(row["gain"]),
        lower=float(row["gain_lower"]),
        upper=float(row["gain_upper"]),
        level=float(row["level"]),
        draws=int(row["draws"]),
        block_days=int(row["block_days"]),
        drawn_by=row["drawn_by"],
        drawn=row["drawn"],
        basis=_given(row, "basis", "own"),
        own_rows=int(_given(row, "own_rows", row["rows"])),
        veto=bool(_given(row, "veto", False)),
        fresher_lower=float(_given(row, "fresher_lower", float("nan"))),
    )


def _given(row: Mapping[Any, Any], name: str, otherwise: Any) -> Any:
    """A column that entries of earlier versions do not have."""
    value = row.get(name)
    return otherwise if value is None or value != value else value


def now() -> pd.Timestamp:
    """The moment a decision is taken, UTC."""
    return pd.Timestamp(dt.datetime.now(dt.UTC))
