"""From records as published to the records that keep the contract."""

from __future__ import annotations

import datetime as dt
import numbers
from collections.abc import Hashable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import pandera.pandas as pa

from mlops_assets.errors import ConfigurationError
from mlops_assets.spec import SourceSpec

INGESTION_ORDER = ["_ingested_at", "_source_file", "_source_line"]
"""Among records of one key the last in this order is the newest."""

TRUTH: Mapping[str, bool] = {"true": True, "false": False, "1": True, "0": False}

USUAL_TYPES = frozenset({"float64", "int64", "bool", "datetime64[ns]", "str"})
"""What published values are typed as here."""

Kind = Literal["float", "integer", "boolean", "time", "text"]

KINDS: Mapping[str, Kind] = {
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

    `rows == len(accepted) + len(quarantine) + duplicates` always holds.

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
    """

    accepted: pd.DataFrame
    quarantine: pd.DataFrame
    rows: int
    duplicates: int
    conflicts: int
    broken: Mapping[str, int]
    missing_columns: tuple[str, ...] = ()
    empty_columns: tuple[str, ...] = ()

    @property
    def rejected(self) -> int:
        """Records in quarantine."""
        return len(self.quarantine)

    @property
    def rejected_share(self) -> float:
        """Rejected records as share of the delivered ones, 0 to 1; 0 of an empty delivery."""
        return self.rejected / self.rows if self.rows else 0.0


def validate(
    raw: pd.DataFrame,
    schema: type[pa.DataFrameModel],
    source: SourceSpec,
    aliases: Mapping[str, str],
) -> Validation:
    """Split one country's records by the contract; data never raise, they are quarantined.

    Args:
        raw: published columns, `_source_*` and `_ingested_at`; one row per record.
        schema: the contract; it adds the columns of `source.derived` by dataframe parsers.
        source: which published column is which contract column, and the key.
        aliases: value of the country column: country it stands for.

    Raises:
        ConfigurationError: `source` names a column that the contract does not have, or one of
            the contract's own parsers raised.
    """
    contract = _prepared(schema, (*source.columns, *source.derived), len(source.derived))
    raw = raw.reset_index(drop=True)
    needed = {n: p for n, p in source.columns.items() if contract.columns[n].required}
    missing = tuple(dict.fromkeys(p for p in needed.values() if p not in raw.columns))
    published = _published(raw, source, aliases)
    if missing:
        rules = {f"column_missing:{name}": np.ones(len(raw), bool) for name in missing}
        accepted = pd.DataFrame({name: [] for name in contract.columns})
    else:
        accepted, rules = _apply(published, contract)
    bad = np.logical_or.reduce([*rules.values(), np.zeros(len(raw), bool)])
    good = accepted.loc[~bad] if not missing else accepted
    kept, duplicates, conflicts = _newest(good, raw, source)
    counts = {rule: int(mask.sum()) for rule, mask in rules.items() if mask.any()}
    return Validation(
        accepted=kept,
        quarantine=_quarantine(published, raw, rules, bad),
        rows=len(raw),
        duplicates=duplicates,
        conflicts=conflicts,
        broken=dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        missing_columns=missing,
        empty_columns=tuple(str(n) for n in published if len(raw) and published[n].isna().all()),
    )


def describe(schema: type[pa.DataFrameModel]) -> list[ColumnDoc]:
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


def _published(raw: pd.DataFrame, source: SourceSpec, aliases: Mapping[str, str]) -> pd.DataFrame:
    present = {name: raw[as_] for name, as_ in source.columns.items() if as_ in raw.columns}
    frame = pd.DataFrame(present, index=raw.index)
    if source.country in frame and aliases:
        country = frame[source.country]
        resolved = country.astype("object").map(_hashable(aliases))
        frame[source.country] = country.astype("object").where(resolved.isna(), resolved)
    return frame


def _hashable(aliases: Mapping[str, str]) -> Any:
    return lambda value: aliases.get(value) if isinstance(value, str) else None


def _apply(
    published: pd.DataFrame, contract: pa.DataFrameSchema
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """The frame typed and derived by the contract, and per broken rule the rows breaking it."""
    typed: dict[str, pd.Series] = {}
    rules: dict[str, np.ndarray] = {}
    untyped: dict[str, np.ndarray] = {}
    for name in published:
        column = contract.columns[name]
        kind = _kind(column)
        values, wrong = _coerce(published[name], kind)
        typed[str(name)], unfilled = _fill(values, kind, nullable=column.nullable)
        rules[f"type:{name}"] = wrong
        rules[f"{name}: not_nullable"] = unfilled & ~wrong
        untyped[str(name)] = wrong | unfilled
    frame = pd.DataFrame(typed, index=published.index)
    checked, broken = _check(frame, contract, untyped)
    return checked, {r: m for r, m in {**rules, **broken}.items() if m.any()}


def _check(
    frame: pd.DataFrame, contract: pa.DataFrameSchema, untyped: Mapping[str, np.ndarray]
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    try:
        return contract.validate(frame, lazy=True), {}
    except pa.errors.SchemaErrors as errors:
        broken: dict[str, np.ndarray] = {}
        for error in errors.schema_errors:
            rule, mask = _broken_rule(error, frame)
            # A value that could not be typed was replaced by a filler: its own rule says so.
            mask = mask & ~untyped.get(rule.partition(":")[0], np.zeros(len(frame), bool))
            broken[rule] = broken.get(rule, np.zeros(len(frame), bool)) | mask
        data = errors.data if isinstance(errors.data, pd.DataFrame) else frame
        return data, broken
    except Exception as error:
        raise ConfigurationError(
            f"The contract {contract.name} raised {type(error).__name__}: {error}.",
            way_out="Its parsers must cope with every value its types allow, missing ones too.",
            culprits={"contract": contract.name},
        ) from error


def _broken_rule(error: pa.errors.SchemaError, frame: pd.DataFrame) -> tuple[str, np.ndarray]:
    """Rule name and the rows that break it; a rule about the whole frame is broken by all."""
    on_column = isinstance(error.schema, pa.Column)
    name = _check_name(error.check)
    rule = f"{error.schema.name}: {name}" if on_column else name
    mask = np.ones(len(frame), bool)
    output, cases = error.check_output, error.failure_cases
    if isinstance(output, pd.Series) and output.index.equals(frame.index):
        mask = ~output.astype(bool).to_numpy()
    elif isinstance(cases, pd.DataFrame) and "index" in cases and cases["index"].notna().all():
        mask = frame.index.isin(cases["index"])
    return rule, mask


def _check_name(check: Any) -> str:
    text = check.error or check.name if isinstance(check, pa.Check) else str(check)
    return str(text).replace("; ", ", ")


def _kind(column: pa.Column) -> Kind:
    native = getattr(column.dtype, "type", None)
    letter = getattr(native, "kind", "O")
    return KINDS.get(letter, "text")


def _coerce(values: pd.Series, kind: Kind) -> tuple[pd.Series, np.ndarray]:
    """Values of the kind, missing where there are none; and where something else stood."""
    if kind == "text":
        return _as_text(values), np.zeros(len(values), bool)
    if kind == "time":
        result = _as_time(values)
    elif kind == "boolean":
        result = _as_text(values).str.strip().str.lower().map(TRUTH)
    else:
        result = _as_number(values, whole=kind == "integer")
    return result, (result.isna() & ~values.isna()).to_numpy(bool)


def _as_number(values: pd.Series, *, whole: bool) -> pd.Series:
    if values.dtype.kind in "biuf" and isinstance(values.dtype, np.dtype):
        number = values.astype("float64")
    elif values.dtype.kind in "mM":
        number = pd.Series(np.nan, index=values.index)
    else:
        plain = values.astype("object").map(_number_or_text, na_action="ignore")
        number = pd.to_numeric(plain, errors="coerce").astype("float64")
    number = number.where(np.isfinite(number))
    return number.where((number == np.floor(number)) & (number.abs() < 2**53)) if whole else number


def _number_or_text(value: object) -> object:
    # Decimals, lists and dicts of JSON lines would make pandas raise instead of give up.
    if isinstance(value, str):
        return value.strip()
    return float(value) if isinstance(value, numbers.Real) else str(value)


def _as_time(values: pd.Series) -> pd.Series:
    """Naive UTC times; numbers are no times, whatever pandas would make of them."""
    if values.dtype.kind != "M":
        plain = values.astype("object").map(_time_or_nothing, na_action="ignore")
        values = pd.to_datetime(plain, errors="coerce", utc=True, format="ISO8601")
    if values.dt.tz is not None:
        values = values.dt.tz_convert("UTC").dt.tz_localize(None)
    inside = (values >= pd.Timestamp.min) & (values <= pd.Timestamp.max)
    return values.where(inside).astype("datetime64[ns]")


def _time_or_nothing(value: object) -> object:
    if isinstance(value, dt.date | np.datetime64):  # datetime and Timestamp are dates
        value = str(value)
    return value.strip() if isinstance(value, str) else ""


def _as_text(values: pd.Series) -> pd.Series:
    """Text with whole numbers written as such (agent 9.0 is "9"), None where missing."""
    if not isinstance(values.dtype, np.dtype):
        values = values.astype("object")
    codes, found = pd.factorize(values) if _hashable_values(values) else _each(values)
    written = [f"{one:.17g}" if isinstance(one, float) else str(one) for one in found]
    table = np.array([*written, None], dtype="object")  # code -1, missing, is the last
    return pd.Series(table[codes], index=values.index, name=values.name, dtype="object")


def _hashable_values(values: pd.Series) -> bool:
    kind = pd.api.types.infer_dtype(values, skipna=True)
    return kind in ("string", "empty", "integer", "floating", "boolean", "datetime64", "datetime")


def _each(values: pd.Series) -> tuple[np.ndarray, list[object]]:
    """Codes and values like a factorization, of values that are mixed or cannot be hashed."""
    codes = np.where(values.isna(), -1, np.arange(len(values)))
    return codes, values.tolist()


def _fill(values: pd.Series, kind: Kind, *, nullable: bool) -> tuple[pd.Series, np.ndarray]:
    """Fill what numpy integers and booleans cannot hold; and where that broke the contract."""
    empty = values.isna().to_numpy(bool)
    if kind == "integer" and (not nullable or not empty.any()):
        return values.fillna(0).astype("int64"), empty
    if kind == "integer":
        return values.astype("Int64"), np.zeros(len(values), bool)
    if kind == "boolean":
        return cast("pd.Series", values.map({True: True, False: False}) == True), empty  # noqa: E712
    return values, np.zeros(len(values), bool)


def _newest(
    good: pd.DataFrame, raw: pd.DataFrame, source: SourceSpec
) -> tuple[pd.DataFrame, int, int]:
    """The newest record per key in a stable order, and how many were dropped and differed."""
    order = [name for name in INGESTION_ORDER if name in raw.columns]
    newest_last = raw.loc[good.index, order].sort_values(order, kind="stable") if order else good
    ordered = good.loc[newest_last.index]
    older = ordered.duplicated(source.key, keep="last")
    by = list(dict.fromkeys([source.event_time, *source.key]))
    kept = ordered[~older].sort_values(by, kind="stable").reset_index(drop=True)
    return kept, int(older.sum()), _conflicts(ordered, older, source.key) if older.any() else 0


def _conflicts(ordered: pd.DataFrame, older: pd.Series, key: list[str]) -> int:
    dropped = ordered[older]
    newest = dropped[key].merge(ordered[~older], on=key, how="left")[dropped.columns]
    ours, theirs = dropped.reset_index(drop=True), newest
    same = (ours == theirs) | (ours.isna() & theirs.isna())
    return int((~same.fillna(False).all(axis=1)).sum())


def _quarantine(
    published: pd.DataFrame, raw: pd.DataFrame, rules: Mapping[str, np.ndarray], bad: np.ndarray
) -> pd.DataFrame:
    found = published[bad]
    text: dict[Hashable, pd.Series] = {name: _as_text(found[name]) for name in found}
    origin = {n: raw.loc[bad, n] for n in raw.columns if str(n).startswith("_")}
    names = np.full(len(raw), "", dtype=object)
    for rule, mask in rules.items():
        names[mask] = [f"{name}; {rule}" if name else rule for name in names[mask]]
    frame = pd.DataFrame({**text, **origin}, index=found.index)
    return frame.assign(_rules=names[bad]).reset_index(drop=True)
