"""From records as published to the records that keep the contract."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa

from mlops_assets.errors import ConfigurationError
from mlops_assets.ml.datasets.availability import known_records
from mlops_assets.ml.datasets.coercion import ColumnKind, as_text
from mlops_assets.ml.datasets.deliveries import JudgedDelivery, Judging, judge_deliveries
from mlops_assets.ml.datasets.event_times import TimeLimits, time_rules
from mlops_assets.ml.datasets.local_time import repeated_hours
from mlops_assets.ml.datasets.notation import proposal
from mlops_assets.ml.datasets.published import no_day_rule, published_columns, typed_column
from mlops_assets.spec import CountryNames, SourceSpec

DELIVERED = "_delivered"
"""Column of raw rows: the position of their file among the country's deliveries, oldest first."""

INGESTION_ORDER = [DELIVERED, "_ingested_at", "_source_file", "_source_line"]
"""Among records of one key the last in this order is the newest."""

_PROBED = 50
"""First rows on which a check shows what it answers."""

USUAL_TYPES = frozenset({"float64", "int64", "bool", "datetime64[ns]", "str"})
"""What published values are typed as here."""

COLUMN_KINDS: Mapping[str, ColumnKind] = {
    "f": "float",
    "i": "integer",
    "u": "integer",
    "b": "boolean",
    "M": "time",
}
"""What values become, by numpy's letter of the contract's type; all others become text."""


@dataclass(frozen=True)
class ColumnDoc:
    """One column of a contract, for people."""

    name: str
    dtype: str
    description: str
    nullable: bool
    constraints: tuple[str, ...]


@dataclass(frozen=True)
class Validation:
    """What became of the delivered records of one country.

    `rows == len(accepted) + len(quarantine) + duplicates + set_aside` always holds.

    Args:
        accepted: one row per key with the contract's columns and types, sorted by event time, key.
        quarantine: one row per rejected record: the contract's published columns as text, the
            `_source_*` columns and `_rules`, the names of all broken rules joined by "; ".
        rows: delivered records.
        duplicates: records that keep the contract but are older than another of their key.
        conflicts: duplicates with other values than the record kept.
        broken: records breaking each rule, most frequent first.
        missing_columns: published names that the contract needs and the delivery lacks.
        empty_columns: contract columns without one value among the delivered records.
        corrected: rejected records whose key was delivered again later and kept the contract.
        new_rows: delivered records of the newest deliveries.
        new_rejected: rejected records among them that were not corrected.
        remarks: what was read otherwise than it is written, or may mean another thing, in words.
        proposals: lines of YAML that would take values which broke their type, in words.
        deliveries: those that were judged as such.
        set_aside: records that keep the contract and are not used, as their delivery is refused.
        refused_rows: all records of refused deliveries.
        refused_rejected: of them, rejected and not corrected.
    """

    accepted: pd.DataFrame
    quarantine: pd.DataFrame
    rows: int
    duplicates: int
    conflicts: int
    broken: Mapping[str, int]
    missing_columns: tuple[str, ...] = ()
    empty_columns: tuple[str, ...] = ()
    corrected: int = 0
    new_rows: int = 0
    new_rejected: int = 0
    remarks: tuple[str, ...] = ()
    proposals: tuple[str, ...] = ()
    deliveries: tuple[JudgedDelivery, ...] = ()
    set_aside: int = 0
    refused_rows: int = 0
    refused_rejected: int = 0

    @property
    def rejected(self) -> int:
        """Records in quarantine."""
        return len(self.quarantine)

    @property
    def rejected_share(self) -> float:
        """Rejected, never corrected records as share of all, 0 to 1; 0 of an empty delivery."""
        return (self.rejected - self.corrected) / self.rows if self.rows else 0.0

    @property
    def used_rejected_share(self) -> float:
        """The same of the deliveries that are not refused."""
        rejected = self.rejected - self.corrected - self.refused_rejected
        rows = self.rows - self.refused_rows
        return rejected / rows if rows else 0.0

    @property
    def new_rejected_share(self) -> float:
        """The same of the newest deliveries alone."""
        return self.new_rejected / self.new_rows if self.new_rows else 0.0


def validate(
    raw: pd.DataFrame,
    schema: type[pa.DataFrameModel],
    source: SourceSpec,
    names: CountryNames,
    *,
    new_since: int = 0,
    judging: Judging | None = None,
    times: TimeLimits | None = None,
) -> Validation:
    """Split one country's records by the contract; data never raise, they are quarantined.

    Args:
        raw: published columns, `_source_*` and `_ingested_at`; one row per record.
        schema: the contract; it adds the columns of `source.derived` by dataframe parsers.
        source: which published column is which contract column, and the key.
        names: what values of the country column stand for.
        new_since: first position (`_delivered`) of the newest deliveries, which are judged by
            themselves as well; a `raw` without positions is one delivery.
        judging: by what each delivery is judged as such; None: none is.
        times: which event times can be; None: all.

    Raises:
        ConfigurationError: `source` names a column that the contract does not have, or one of
            the contract's own parsers or checks raised, or answered with what is no answer.
    """
    contract = _prepared(schema, (*source.columns, *source.derived), len(source.derived))
    if not raw.index.equals(pd.RangeIndex(len(raw))):
        raw = raw.reset_index(drop=True)
    needed = [name for name in source.columns if contract.columns[name].required]
    published = published_columns(raw, source, names)
    missing = tuple(source.published(name)[0] for name in needed if name not in published)
    if missing:
        rules = {f"column_missing:{name}": np.ones(len(raw), bool) for name in missing}
        applied = _Applied(pd.DataFrame({name: [] for name in contract.columns}), rules)
    else:
        applied = _apply(published, contract, source, raw)
    accepted, rules = applied.records, dict(applied.rules)
    if not missing:
        rules |= time_rules(accepted, source, times or TimeLimits())
    bad = np.logical_or.reduce([*rules.values(), np.zeros(len(raw), bool)])
    position = raw[DELIVERED].to_numpy() if DELIVERED in raw else np.full(len(raw), new_since)
    corrected, refused, judged = bad & False, bad & False, ()
    if not missing:
        by = partial(_corrected, typed=accepted, bad=bad, position=position, key=source.key)
        if judging is not None:
            judged, refused = judge_deliveries(position, bad, judging, by)
        corrected = by(~bad & ~refused)
    good = ~bad & ~refused if not missing else np.zeros(0, bool)
    newest = _newest(accepted, good, raw, source)
    counts = {rule: int(mask.sum()) for rule, mask in rules.items() if mask.any()}
    new = position >= new_since
    return Validation(
        accepted=newest.kept,
        quarantine=_quarantine(published, raw, rules, bad),
        rows=len(raw),
        duplicates=len(newest.older),
        conflicts=newest.conflicts,
        broken=dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        missing_columns=missing,
        empty_columns=tuple(str(name) for name in published if _is_empty(published[name])),
        corrected=int(corrected.sum()),
        new_rows=int(new.sum()),
        new_rejected=int((bad & new & ~corrected).sum()),
        remarks=(*applied.remarks, *_repeated_hours(accepted, newest, source)),
        proposals=_proposals(published, rules, contract, source),
        deliveries=judged,
        set_aside=int((refused & ~bad).sum()),
        refused_rows=int(refused.sum()),
        refused_rejected=int((refused & bad & ~corrected).sum()),
    )


def known_rows(
    raw: pd.DataFrame,
    schema: type[pa.DataFrameModel],
    source: SourceSpec,
    names: CountryNames,
    *,
    moment: pd.Timestamp,
) -> np.ndarray:
    """Which delivered records were there at a moment, before the newest of each key is chosen.

    A record whose event time cannot be told counts as there: it will be rejected for that.

    Args:
        raw: as of `validate`.
        schema: as of `validate`.
        source: names event time and arrival time.
        names: as of `validate`.
        moment: naive, UTC.

    Returns:
        Truth values, shape (rows,).
    """
    contract = _prepared(schema, (*source.columns, *source.derived), len(source.derived))
    raw = raw.reset_index(drop=True)
    published = published_columns(raw, source, names)
    needed = [n for n in source.columns if contract.columns[n].required]
    if not set(needed) <= set(published):
        return np.ones(len(raw), bool)  # nothing of it will be accepted
    records = _apply(published, contract, source, raw).records
    known = known_records(records, source, moment) | records[source.event_time].isna()
    return known.to_numpy(bool)


def describe_columns(schema: type[pa.DataFrameModel]) -> list[ColumnDoc]:
    """Name, type, sentence and constraints of every column of a contract."""
    return [
        ColumnDoc(
            name=str(name),
            dtype=str(column.dtype),
            description=column.description or "",
            nullable=bool(column.nullable),
            constraints=tuple(_check_name(check) for check in column.checks),
        )
        for name, column in schema.to_schema().columns.items()
    ]


@lru_cache(maxsize=64)
def _prepared(
    schema: type[pa.DataFrameModel], names: tuple[str, ...], derived: int
) -> pa.DataFrameSchema:
    """A copy that leaves typing to this module, which tells row by row what has another type.

    Types this module does not make, such as categories, are still coerced by pandera. Text is not
    looked at again, value by value. A derived column (the last of `names`) of a usual type has to
    have it.
    """
    contract = schema.to_schema()
    _check_names(contract, names)
    copied = deepcopy(contract)
    copied.coerce = False
    for name, column in copied.columns.items():
        column.coerce = str(column.dtype) not in USUAL_TYPES
        if name in names[: len(names) - derived] and str(column.dtype) == "str":
            column.dtype = None
    return copied


def _check_names(contract: pa.DataFrameSchema, names: tuple[str, ...]) -> None:
    known = [str(name) for name in contract.columns]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigurationError(
            f"source names the columns {', '.join(unknown)}, which the contract {contract.name} "
            "does not have.",
            way_out=f"It has {', '.join(known)}.",
            culprits={"columns": unknown},
        )


@dataclass(frozen=True)
class _Applied:
    """What a contract makes of published records.

    Attributes:
        records: typed and derived; a filler where a value broke its type.
        rules: broken rule: where, shape (rows,).
        remarks: as of `Validation`.
    """

    records: pd.DataFrame
    rules: dict[str, np.ndarray]
    remarks: tuple[str, ...] = ()


def _apply(
    published: pd.DataFrame, contract: pa.DataFrameSchema, source: SourceSpec, raw: pd.DataFrame
) -> _Applied:
    """The records typed and derived by the contract, and which of them break which rule."""
    columns: dict[str, pd.Series] = {}
    rules: dict[str, np.ndarray] = {}
    untyped: dict[str, np.ndarray] = {}
    remarks: list[str] = []
    for name in map(str, published):
        rule = contract.columns[name]
        column = typed_column(published, name, _kind(rule), source, nullable=rule.nullable, raw=raw)
        columns[name], untyped[name] = column.values, column.untyped
        rules |= column.rules
        remarks += column.remarks
    frame = pd.DataFrame(columns, index=published.index)
    checked, broken = _check(frame, contract, untyped)
    found_rules = {rule: mask for rule, mask in {**rules, **broken}.items() if mask.any()}
    return _Applied(checked, found_rules, tuple(remarks))


def _repeated_hours(records: pd.DataFrame, newest: _Newest, source: SourceSpec) -> list[str]:
    """Duplicates that may be no duplicates but the hour that clocks show twice."""
    if source.time_zone is not None or source.event_time not in source.key or not newest.conflicts:
        return []
    count = repeated_hours(records.loc[newest.older, source.event_time])
    told = (
        f"{count:,} of the duplicates are in an hour that clocks show twice in autumn: if times "
        "are local, set `time_zone` under `source`"
    )
    return [told] if count else []


def _proposals(
    published: pd.DataFrame,
    rules: Mapping[str, np.ndarray],
    contract: pa.DataFrameSchema,
    source: SourceSpec,
) -> tuple[str, ...]:
    """For every column with values that are not of its kind what would take them, if anything."""
    found = []
    for name in map(str, published):
        masks = [rules.get(rule) for rule in (f"type:{name}", no_day_rule(name))]
        wrong = np.logical_or.reduce([mask for mask in masks if mask is not None] or [[False]])
        if wrong.any():
            values = published[name][wrong].astype("object")
            found.append(proposal(values, _kind(contract.columns[name]), source, name))
    return tuple(filter(None, found))


def _check(
    frame: pd.DataFrame, contract: pa.DataFrameSchema, untyped: Mapping[str, np.ndarray]
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    try:
        with warnings.catch_warnings():
            # From pandera's own table of failures, when one of them has missing values alone.
            warnings.filterwarnings("ignore", "The behavior of DataFrame conc", FutureWarning)
            return _sound(contract, contract.validate(frame, lazy=True)), {}
    except pa.errors.SchemaErrors as errors:
        _require_sound_checks(contract, errors.schema_errors)
        broken: dict[str, np.ndarray] = {}
        for error in errors.schema_errors:
            rule, mask = _broken_rule(error, frame)
            # A value that could not be typed was replaced by a filler: its own rule says so.
            mask = mask & ~untyped.get(rule.partition(":")[0], np.zeros(len(frame), bool))
            broken[rule] = broken.get(rule, np.zeros(len(frame), bool)) | mask
        data = errors.data if isinstance(errors.data, pd.DataFrame) else frame
        return _sound(contract, data), broken
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"The contract {contract.name} raised {type(error).__name__}: {error}.",
            way_out="Its parsers must cope with every value its types allow, missing ones too.",
            culprits={"contract": contract.name},
        ) from error


def _require_sound_checks(contract: Any, errors: Iterable[pa.errors.SchemaError]) -> None:
    """A check that raised says nothing of the data: it is a fault of the contract.

    Raises:
        ConfigurationError: one did; the message has each with what it raised.
    """
    raised = {
        _rule_of(error): _what_was_raised(str(error.failure_cases))
        for error in errors
        if error.reason_code == pa.errors.SchemaErrorReason.CHECK_ERROR
    }
    if raised:
        said = "; ".join(f"the check `{rule}` {what}" for rule, what in raised.items())
        raise _contract_at_fault(contract, said, list(raised))


def _what_was_raised(text: str) -> str:
    # What pandera raises itself when it can make nothing of what a check returned.
    if text in ("NotImplementedError()", "AssertionError()"):
        return f"raised {text}: what it returns is neither one truth value a row nor a single one"
    return f"raised {text}"


def _sound(contract: pa.DataFrameSchema, frame: pd.DataFrame) -> pd.DataFrame:
    """The frame, once each check has shown on its first rows that it answers for every row.

    pandera takes what is shorter, of other rows or no truth value for an answer.

    Raises:
        ConfigurationError: a check does not.
    """
    head = frame.head(_PROBED)
    odd = {
        rule: what
        for rule, check, values in _probes(contract, head)
        if (what := _unusable_answer(check, values))
    }
    if odd:
        said = "; ".join(f"the check `{rule}` returned {what}" for rule, what in odd.items())
        raise _contract_at_fault(contract, said, list(odd))
    return frame


def _probes(contract: pa.DataFrameSchema, head: pd.DataFrame) -> Iterator[tuple[str, Any, Any]]:
    """Every check of a contract that is a function of its own: rule, check, what it is about."""
    for name, column in contract.columns.items():
        for check in column.checks:
            if name in head and _is_own(check):
                yield f"{name}: {_check_name(check)}", check, head[name]
    for check in contract.checks or ():
        if _is_own(check):
            yield _check_name(check), check, head


def _is_own(check: Any) -> bool:
    """Whether a check is a function of the contract that answers a row at a time."""
    return not type(check).is_builtin_check(check.name) and check.groupby is None


def _unusable_answer(check: Any, values: Any) -> str:
    """What is wrong with what a check answers; "" if nothing is, or if it does not answer."""
    try:
        answer = check(values).check_output
    except Exception:  # on these few rows; over all of them it did not, or that is told
        return ""
    if not isinstance(answer, pd.Series):
        return ""
    # A check that ignores missing values is not asked about them.
    if not any(answer.index.equals(each.index) for each in (values, values.dropna())):
        return f"{len(answer)} values for {len(values)} rows, or of other rows"
    numeric = pd.api.types.is_numeric_dtype(answer.dtype)
    if numeric and answer.dropna().isin([0, 1]).all():
        return ""
    kind = pd.api.types.infer_dtype(answer, skipna=True)
    return "" if kind in ("boolean", "empty") else f"{kind} values, not truth values"


def _contract_at_fault(contract: Any, said: str, checks: list[str]) -> ConfigurationError:
    return ConfigurationError(
        f"The contract {contract.name} is at fault, not the data: {said}.",
        stored="Nothing was written, and no row was put into quarantine for it.",
        way_out="A check returns one truth value a row, for every value its types allow, missing "
        "ones too; or a single one about the whole table.",
        culprits={"contract": str(contract.name), "checks": checks},
    )


def _broken_rule(error: pa.errors.SchemaError, frame: pd.DataFrame) -> tuple[str, np.ndarray]:
    """Rule name and the rows that break it; a rule about the whole frame is broken by all."""
    rule = _rule_of(error)
    mask = np.ones(len(frame), bool)
    output, cases = error.check_output, error.failure_cases
    if isinstance(output, pd.Series) and output.index.equals(frame.index):
        mask = ~output.astype(bool).to_numpy()
    elif isinstance(cases, pd.DataFrame) and "index" in cases and cases["index"].notna().all():
        mask = frame.index.isin(cases["index"])
    return rule, mask


def _rule_of(error: pa.errors.SchemaError) -> str:
    name = _check_name(error.check)
    return f"{error.schema.name}: {name}" if isinstance(error.schema, pa.Column) else name


def _check_name(check: Any) -> str:
    text = check.error or check.name if isinstance(check, pa.Check) else str(check)
    return str(text).replace("; ", ", ")


def _kind(column: pa.Column) -> ColumnKind:
    native = getattr(column.dtype, "type", None)
    letter = getattr(native, "kind", "O")
    return COLUMN_KINDS.get(letter, "text")


@dataclass(frozen=True)
class _Newest:
    """The newest good record of every key, and the older ones.

    Attributes:
        kept: in a stable order.
        older: labels of the records that are older than another of their key.
        conflicts: how many of those have other values.
    """

    kept: pd.DataFrame
    older: pd.Index
    conflicts: int


def _newest(
    typed: pd.DataFrame, good: np.ndarray, raw: pd.DataFrame, source: SourceSpec
) -> _Newest:
    places = np.flatnonzero(good)
    by = list(dict.fromkeys([source.event_time, *source.key]))
    varying = [name for name in by if _varies(typed[name].iloc[places])]
    key = [name for name in source.key if name in varying] or source.key
    again = typed[key].iloc[places].duplicated(keep=False).to_numpy()
    ordered = _oldest_first(typed.iloc[places[again]], raw)
    older = ordered.duplicated(source.key, keep="last")
    conflicts = _conflicts(ordered, older, source.key) if older.any() else 0
    good = good.copy()
    good[ordered.index[older]] = False
    kept = _sorted(typed, np.flatnonzero(good), varying)
    return _Newest(kept, ordered.index[older], conflicts)


def _varies(values: pd.Series) -> bool:
    """Whether a column tells records apart; that of the country usually does not."""
    if values.empty:
        return False
    same = values == values.iloc[0]
    return not same.fillna(False).astype(bool).all()


def _oldest_first(records: pd.DataFrame, raw: pd.DataFrame) -> pd.DataFrame:
    order = [name for name in INGESTION_ORDER if name in raw.columns]
    if not order or records.empty:
        return records
    return records.loc[raw.loc[records.index, order].sort_values(order, kind="stable").index]


def _sorted(typed: pd.DataFrame, places: np.ndarray, by: list[str]) -> pd.DataFrame:
    keys = typed[by].iloc[places].reset_index(drop=True)
    if all(isinstance(kind, np.dtype) and kind.kind in "biufM" for kind in keys.dtypes):
        columns = [keys[name].to_numpy() for name in reversed(by)]
        order = np.lexsort(columns) if by else np.arange(len(places))
    else:
        order = keys.sort_values(by, kind="stable").index
    kept = typed.iloc[places[order]]
    kept.index = pd.RangeIndex(len(kept))
    return kept


def _corrected(
    used: np.ndarray, *, typed: pd.DataFrame, bad: np.ndarray, position: np.ndarray, key: list[str]
) -> np.ndarray:
    """Rejected records whose key came again with a later delivery in a record that is used."""
    corrected = np.zeros(len(typed), bool)
    later = used & (position > position[bad].min(initial=position.max(initial=0)))
    if not bad.any() or not later.any():
        return corrected
    good = typed.loc[later, key].assign(**{DELIVERED: position[later]})
    newest = good.groupby(key, as_index=False, sort=False, dropna=False)[DELIVERED].max()
    found = typed.loc[bad, key].merge(newest, on=key, how="left")[DELIVERED]
    corrected[bad] = found.to_numpy() > position[bad]
    return corrected


def _conflicts(ordered: pd.DataFrame, older: pd.Series, key: list[str]) -> int:
    dropped = ordered[older]
    newest = dropped[key].merge(ordered[~older], on=key, how="left")[dropped.columns]
    ours, theirs = dropped.reset_index(drop=True), newest
    same = (ours == theirs) | (ours.isna() & theirs.isna())
    return int((~same.fillna(False).all(axis=1)).sum())


def _is_empty(values: pd.Series) -> bool:
    """Whether there are values and all are missing; most columns show at once that they are not."""
    return len(values) > 0 and bool(values.head(100).isna().all() and values.isna().all())


def _quarantine(
    published: pd.DataFrame, raw: pd.DataFrame, rules: Mapping[str, np.ndarray], bad: np.ndarray
) -> pd.DataFrame:
    found = published[bad]
    text: dict[Hashable, pd.Series] = {name: as_text(found[name]) for name in found}
    technical = [n for n in raw.columns if str(n).startswith("_") and n != DELIVERED]
    origin = {n: raw.loc[bad, n] for n in technical}
    names = np.full(len(raw), "", dtype=object)
    for rule, mask in rules.items():
        names[mask] = [f"{name}; {rule}" if name else rule for name in names[mask]]
    frame = pd.DataFrame({**text, **origin}, index=found.index)
    return frame.assign(_rules=names[bad]).reset_index(drop=True)
