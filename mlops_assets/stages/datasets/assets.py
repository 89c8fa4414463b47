"""Datasets: delivered files become `raw`, raw becomes `validated` and `quarantine`.

`raw` has no gate, so one run takes new files for any number of countries in one scan. The contract
is a gate and isolates a country in a run of its own.
"""

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import dagster as dg
import pandas as pd
from pydantic import Field

from mlops_assets.errors import ConfigurationError, some
from mlops_assets.ml.datasets.published import INFINITE_RULE
from mlops_assets.ml.datasets.validation import Validation, describe_columns
from mlops_assets.product import Product
from mlops_assets.spec import ContractSpec
from mlops_assets.stages.common.base import (
    Storage,
    about,
    asset_key,
    country_check,
    country_step,
    failed,
    gate,
    output,
    partitions,
    passed,
    warned,
)
from mlops_assets.stages.common.clock import INGESTED_UNTIL, clock_metadata
from mlops_assets.stages.common.code_versions import RECIPES
from mlops_assets.stages.common.context import CountryContext
from mlops_assets.stages.common.lineage import CODE, Lineage, named_input, of_validated
from mlops_assets.stages.common.ui_metadata import (
    as_before,
    preview,
    quarantine_schema,
    raw_schema,
    rounded,
    table_metadata,
)
from mlops_assets.stages.datasets.delivery_checks import LIMITS, check_limits
from mlops_assets.stages.datasets.delivery_report import (
    DELIVERY,
    DELIVERY_CHECK,
    check_delivery,
    delivery_reports,
    report_delivery,
)
from mlops_assets.stages.datasets.ingestion import (
    SET_ASIDE,
    Delivered,
    Delivery,
    Ingestion,
    NotTaken,
    deliveries_of,
    ingest,
    ingest_as_of,
)
from mlops_assets.stages.datasets.judgement import (
    JudgedCountry,
    describe_not_used,
    judge_country,
    not_used_metadata,
    not_used_of,
    refusal_of,
)
from mlops_assets.stages.datasets.ledger import (
    LEDGER,
    RAW_LEDGER,
    VALIDATED_LEDGER,
    check_ledger,
    check_raw_ledger,
)
from mlops_assets.stages.datasets.quarantine import RULES, record_release
from mlops_assets.stages.datasets.restatements import (
    RESTATED,
    RESTATED_DESCRIPTION,
    check_restatement,
    compare_with_stored,
    last_restated,
    record_restatement,
    same_rules,
)
from mlops_assets.storage import Snapshot, WriteResult
from mlops_assets.storage.io_manager import Unchanged

_SEEN = INGESTED_UNTIL
"""Newest ingestion when a country's rows were last accepted: later ones are judged alone, too."""
_EXAMPLES = 5  # rows and names shown where a list could be long
_EXPLAINED = 50  # country values of which it is told why they are not listed: each is a search

_RAW_GRAIN = (
    "One row is a record of the country as published, with its source file, line and time of "
    "ingestion. Append-only: a delivered file is taken once."
)
_RAW_CHECKS = {
    "files_readable": "Delivered files that were set aside, with the reason.",
    "unlisted_countries": "Rows of countries that the product's YAML does not list.",
    LEDGER: RAW_LEDGER,
    DELIVERY: DELIVERY_CHECK,
}
_QUARANTINE_GRAIN = "One row is a rejected record of the country with the rules it broke."
_VALIDATED_GRAIN = (
    "One row is a record of the country that keeps the contract, newest of its key, with country "
    "aliases resolved."
)
_CONTRACT_DESCRIPTION = (
    "Share of rejected rows, of all and of each new delivery; missing columns. A delivery over the "
    "limit is not used; when nothing else is new the country keeps its last good data."
)

StepEvents = Iterator[dg.Output | dg.AssetCheckResult]


class Taking(dg.Config):
    """What a run of `raw` reports."""

    only_with_news: bool = Field(
        default=False,
        description="report only countries that took a file; what the landing sensor asks for, "
        "which does not know whose rows a new file holds",
    )


@dataclass(frozen=True)
class _Step:
    """One country's way from raw to validated.

    Attributes:
        ctx: the country, with the snapshots as they were before.
        deliveries: every file version the country took, oldest first.
        lineage: what the validated rows are made from.
        made: the validated rows so far.
        tags: of the run.
        run_id: of the run.
        moment: whose knowledge the country is made from; None: now.
    """

    ctx: CountryContext
    deliveries: tuple[Delivered, ...]
    lineage: Lineage
    made: Snapshot | None
    tags: Mapping[str, str]
    run_id: str
    moment: dt.datetime | None

    @property
    def key(self) -> dg.AssetKey:
        """Of the asset whose checks these are."""
        return asset_key(self.ctx.product, "validated")

    @property
    def seen(self) -> str:
        """Time of the newest ingestion that was accepted before; "" for none."""
        return str(self.made.metadata[_SEEN]) if self.made else ""

    @property
    def newest(self) -> str:
        """Time of the newest ingestion."""
        return self.deliveries[-1].at if self.deliveries else ""


def build_datasets(product: Product) -> list[dg.AssetsDefinition]:
    """`raw`, `validated` and `quarantine` of a product with their checks."""
    return [_raw(product), _validated(product)]


def _raw(product: Product) -> dg.AssetsDefinition:
    key = asset_key(product, "raw")

    @dg.multi_asset(
        name=f"{product.name}__raw",
        partitions_def=partitions(product),
        backfill_policy=dg.BackfillPolicy.single_run(),
        outs={
            "raw": output(
                product,
                "raw",
                "datasets",
                {"parquet", "duckdb"},
                description=_RAW_GRAIN,
                columns=raw_schema(product),
            )
        },
        check_specs=[
            dg.AssetCheckSpec(name, asset=key, description=description)
            for name, description in _RAW_CHECKS.items()
        ],
    )
    def raw(context: dg.AssetExecutionContext, config: Taking, storage: Storage) -> StepEvents:
        taken = _taken(product, context, storage)
        yield _files_readable(key, taken)
        yield _unlisted(product, key, taken)
        yield check_raw_ledger(key, taken)
        report = report_delivery(storage.product(product), taken, context.run.run_id)
        newest = delivery_reports(storage.product(product), last=1)
        yield check_delivery(key, report, taken, newest[-1] if newest else None)
        if len(context.partition_keys) == 1 and taken.deliveries and not taken.unanswered:
            (delivery,) = taken.deliveries.values()
            stored = WriteResult(delivery.snapshot, changed=delivery.changed)
            yield dg.Output(stored, "raw", metadata=_delivery_metadata(delivery))
            return
        # In a run over many countries one output would mark every one of them as made.
        for country in taken.with_news if config.only_with_news else taken.deliveries:
            context.log_event(_materialization(product, country, taken.deliveries[country]))
        if taken.unanswered:
            raise _no_answer(product, taken)
        if problem := _not_taken(product, taken, storage, told_missing=not config.only_with_news):
            raise problem

    return raw


def _taken(product: Product, context: dg.AssetExecutionContext, storage: Storage) -> Ingestion:
    ctx, countries = storage.product(product), context.partition_keys
    run_id, moment = context.run.run_id, storage.moment
    if moment is not None:
        return ingest_as_of(ctx, countries, storage.origin(), moment, run_id=run_id)
    return ingest(ctx, countries, storage.landing(product), run_id=run_id)


def _validated(product: Product) -> dg.AssetsDefinition:
    key = asset_key(product, "validated")
    schema = product.contract()

    @dg.multi_asset(
        **country_step(product, "validated"),
        deps=[asset_key(product, "raw")],
        outs={
            "quarantine": output(
                product,
                "quarantine",
                "datasets",
                {"parquet", "pandera"},
                description=_QUARANTINE_GRAIN,
                columns=quarantine_schema(product),
            ),
            "validated": dg.AssetOut(
                key=key,
                is_required=False,
                code_version=RECIPES["validated"].code_version(product),
                **_validated_about(product, schema),
            ),
        },
        check_specs=[
            gate(product, "validated", "contract", _CONTRACT_DESCRIPTION),
            gate(product, "validated", LEDGER, VALIDATED_LEDGER),
            *(country_check(product, "validated", name, text) for name, text in LIMITS.items()),
            country_check(product, "validated", RESTATED, RESTATED_DESCRIPTION),
        ],
    )
    def validated(context: dg.AssetExecutionContext, storage: Storage) -> StepEvents:
        step = _step(product, context, storage)
        rejects = step.ctx.current("quarantine")
        if step.made and rejects and step.lineage.already_made(step.made):
            yield from _nothing_new(context, step, step.made, rejects)
            return
        source = named_input(step.ctx, step.lineage, "raw")
        raw = step.ctx.store.read(source.asset, step.ctx.country, version=source.version)
        try:
            judged = judge_country(
                step.ctx, raw, seen=step.seen, before=not_used_of(rejects), moment=step.moment
            )
        except ConfigurationError as error:  # told as a check too, where a person looks for it
            yield from _at_fault(step, error)
            raise
        yield from _apply_contract(step, judged)

    return validated


def _step(product: Product, context: dg.AssetExecutionContext, storage: Storage) -> _Step:
    ctx = storage.product(product).country(context.partition_key)
    return _Step(
        ctx=ctx,
        deliveries=deliveries_of(ctx.current("raw")),
        lineage=of_validated(ctx),
        made=ctx.current("validated"),
        tags=context.run.tags,
        run_id=context.run.run_id,
        moment=storage.moment,
    )


def _apply_contract(step: _Step, judged: JudgedCountry) -> StepEvents:
    """Store what keeps the contract, or nothing of it when too much breaks it."""
    limits, result = step.ctx.spec.contract, judged.result
    numbers = _numbers(judged, limits)
    reason = refusal_of(result, limits)
    if reason and result.proposals:
        reason += f" {' '.join(result.proposals)}"
    if reason and judged.not_known:
        reason += f" {judged.not_known:,} rows were not known at the moment of this run."
    if reason is None:
        _release(step, result, judged.used)
    rejects = {**preview(result.quarantine), **step.lineage.metadata()}
    rejects |= not_used_metadata(judged.not_used)
    yield dg.Output(result.quarantine, "quarantine", metadata=rejects)
    if reason is not None:
        yield failed(step.key, "contract", reason, numbers)
        yield _ledger(step, judged, refused=True)
        for name in (*LIMITS, RESTATED):
            yield warned(step.key, name, "not judged: the delivery was refused")
        raise _refused(step, reason)
    restated = compare_with_stored(step.ctx, result.accepted)
    times = result.accepted[step.ctx.spec.source.event_time]
    accepted = {
        **preview(result.accepted),
        **step.lineage.metadata(),
        _SEEN: step.newest,
        **clock_metadata(times, step.newest, step.moment),
    }
    yield dg.Output(result.accepted, "validated", metadata=accepted)
    yield _contract_kept(step, judged, numbers, limits.max_rejected_share)
    yield _ledger(step, judged, refused=False)
    yield from check_limits(
        step.ctx.product, step.ctx.country, result.accepted, step.deliveries, moment=step.moment
    )
    rules_changed = step.made is not None and not same_rules(step.made, step.lineage)
    if restated is not None and not rules_changed:
        record_restatement(step.ctx, restated, step.run_id)
    yield check_restatement(step.ctx.product, restated, rules_changed=rules_changed)


def _refused(step: _Step, reason: str) -> dg.Failure:
    product, country = step.ctx.product.name, step.ctx.country
    return dg.Failure(
        f"{product} {country}: {reason} The rejected rows are in quarantine; good data and the "
        f"champion that {country} had before stay in use. Deliver the file again under the "
        f"same name, or look at the rows with: mlops-assets quarantine {product} {country}"
    )


def _at_fault(step: _Step, error: ConfigurationError) -> StepEvents:
    """The checks of a contract that cannot judge: it fails, and nothing else is judged."""
    yield failed(step.key, "contract", f"{error} Good data of before stays in use.")
    for name in (LEDGER, *LIMITS, RESTATED):
        yield warned(step.key, name, "not judged: the contract itself is at fault")


def _release(step: _Step, result: Validation, used: pd.DataFrame) -> None:
    """Record which rows leave quarantine, if that is because the contract is another one."""
    judged = step.ctx.current("quarantine")
    if judged is None or same_rules(judged, step.lineage):
        return
    rules = (str(judged.metadata[CODE]), step.lineage.code)
    record_release(
        step.ctx,
        result.quarantine,
        used,
        rules,
        tags=step.tags,
        run_id=step.run_id,
    )


def _ledger(step: _Step, judged: JudgedCountry, *, refused: bool) -> dg.AssetCheckResult:
    result = judged.result
    not_used = len(result.accepted) if refused else 0
    return check_ledger(
        step.ctx,
        older=result.duplicates,
        replaced=judged.replaced,
        held_back=judged.not_known + result.set_aside + not_used,
        refused=refused,
        remarks=result.remarks,
    )


def _contract_kept(
    step: _Step, judged: JudgedCountry, numbers: dict[str, Any], limit: float
) -> dg.AssetCheckResult:
    result = judged.result
    if not result.rejected:
        text = f"all {result.rows:,} rows keep the contract"
        return passed(step.key, "contract", _remarked(text, result), numbers)
    share = f"{result.rejected:,} of {result.rows:,} rows ({result.rejected / result.rows:.2%})"
    text = " ".join([f"{share} went to quarantine; limit {limit:.0%}", *result.proposals])
    if judged.not_used:
        text = f"not used: {describe_not_used(judged.not_used)}; what else came is used. {text}"
    return warned(step.key, "contract", _remarked(text, result), numbers)


def _remarked(text: str, result: Validation) -> str:
    """With what was read otherwise than it is written, and what decided between duplicates."""
    said = list(result.remarks)
    if result.conflicts:
        said.append(
            f"{result.conflicts:,} older records of a key had other values (newest ingestion, then "
            "last file by name and number, then last line stays)"
        )
    return "; ".join([text, *said])


def _validated_about(product: Product, schema: Any) -> dict[str, Any]:
    columns = [
        dg.TableColumn(
            column.name,
            type=column.dtype,
            description=column.description,
            constraints=dg.TableColumnConstraints(
                nullable=column.nullable, other=list(column.constraints)
            ),
        )
        for column in describe_columns(schema)
    ]
    described = dg.TableSchema(columns=columns)
    return about(product, "datasets", {"parquet", "pandera"}, _VALIDATED_GRAIN, columns=described)


def _numbers(judged: JudgedCountry, limits: ContractSpec) -> dict[str, Any]:
    result = judged.result
    broken = pd.DataFrame(
        {"rule": list(result.broken), "rows": list(result.broken.values())}
    ).astype({"rule": str, "rows": int})
    shown: dict[str, Any] = {}
    if result.rejected:
        shown["failing_cases"] = table_metadata(_failing_cases(result))
    if judged.not_used:
        shown["deliveries_not_used"] = table_metadata(
            pd.DataFrame([asdict(each) for each in judged.not_used])
        )
    return {
        "rows": result.rows,
        "accepted": len(result.accepted),
        "rejected": result.rejected,
        "rejected_share": rounded(result.rejected_share),
        "limit": limits.max_rejected_share,
        "new_rows": result.new_rows,
        "new_rejected": result.new_rejected,
        "set_aside_with_their_delivery": result.set_aside,
        "duplicates": result.duplicates,
        "duplicates_with_other_values": result.conflicts,
        "broken_rules": table_metadata(broken),
        **shown,
    }


def _failing_cases(result: Validation) -> pd.DataFrame:
    """The first records of each rule: where they are from, and the value the rule is about."""
    rejects = result.quarantine
    rules = rejects[RULES].astype(str)
    records = []
    for rule in list(result.broken)[:_EXAMPLES]:
        found = rejects[[rule in each.split("; ") for each in rules]].head(_EXAMPLES)
        column = rule.removeprefix("type:").removeprefix(INFINITE_RULE).partition(":")[0]
        values = found[column] if column in found else [""] * len(found)
        for (_, row), value in zip(found.iterrows(), values, strict=True):
            where = f"{row['_source_file']}, record {row['_source_line']}"
            records.append({"rule": rule, "value": str(value), "where": where})
    return pd.DataFrame(records, columns=["rule", "value", "where"])


def _nothing_new(
    context: dg.AssetExecutionContext, step: _Step, made: Snapshot, rejects: Snapshot
) -> StepEvents:
    key, product = step.key, step.ctx.product
    shown = as_before(context, asset_key(product, "quarantine"))
    yield dg.Output(Unchanged(rejects), "quarantine", metadata=shown)
    yield dg.Output(Unchanged(made), "validated", metadata=as_before(context, key))
    same = f"no new rows; {made.rows:,} rows as before"
    yield passed(key, "contract", same, {"rows": made.rows})
    for name in (LEDGER, *LIMITS):
        yield passed(key, name, same)
    restated = last_restated(step.ctx)
    yield passed(key, RESTATED, f"no new rows{restated}")


def _delivery_metadata(delivery: Delivery) -> dict[str, Any]:
    return {
        "new_rows": delivery.new_rows,
        "replaced_rows": delivery.replaced_rows,
        "new_files": ", ".join(delivery.new_files) or "none",
    }


def _materialization(product: Product, country: str, delivery: Delivery) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        asset_key(product, "raw"),
        partition=country,
        metadata={
            **_delivery_metadata(delivery),
            "dagster/partition_row_count": delivery.snapshot.rows,
            "dagster/uri": delivery.snapshot.uri,
        },
        tags={
            "dagster/data_version": delivery.snapshot.content_hash,
            "dagster/code_version": RECIPES["raw"].code_version(product),
        },
    )


def _no_answer(product: Product, taken: Ingestion) -> dg.Failure:
    took = ", ".join(taken.with_news) or "none"
    return dg.Failure(
        f"{product.name}: {taken.unanswered} What had landed before was taken (new rows: {took}). "
        "Nothing that was in use is lost; run it again when the source answers."
    )


def _not_taken(
    product: Product, taken: Ingestion, storage: Storage, *, told_missing: bool
) -> dg.Failure | None:
    """What could not be taken, as the end of the run; None when everything was."""
    said = [f"{country}: {why}" for country, why in taken.refused.items()]
    if taken.missing and told_missing:
        where = f"under {storage.landing(product)}. Drop a file that has them"
        if storage.moment is not None:
            where = f"to {storage.origin().uri}. Take a file that has them first, without --as-of"
        said.append(
            f"no row of {', '.join(taken.missing)} was ever delivered {where}, or remove them from "
            "`countries`."
        )
        said += [f"Set aside: {why}" for why in list(taken.problems.values())[:_EXAMPLES]]
    if not said:
        return None
    return dg.Failure(
        f"{product.name}: {' '.join(said)} Every other country was taken.",
        metadata={
            **NotTaken(taken.missing, taken.refused).metadata(),
            "set_aside": dg.MetadataValue.json(dict(taken.problems)),
        },
    )


def _files_readable(key: dg.AssetKey, taken: Ingestion) -> dg.AssetCheckResult:
    said = list(taken.problems.values())
    if len(said) > _EXAMPLES:
        said = [f"{some(said, _EXAMPLES, ' ')}: `set_aside` of this check has every one."]
    if taken.waiting:
        said.append(
            f"{some(taken.waiting, _EXAMPLES)} changed just now and may still be growing; "
            "taken once unchanged."
        )
    if not said:
        return passed(key, "files_readable", f"all {taken.files:,} files can be read")
    shown = {
        SET_ASIDE: dg.MetadataValue.json(dict(taken.problems)),
        "waiting": dg.MetadataValue.json(list(taken.waiting)),
    }
    return warned(key, "files_readable", " ".join(said), shown)


def _unlisted(product: Product, key: dg.AssetKey, taken: Ingestion) -> dg.AssetCheckResult:
    if not taken.unlisted:
        return passed(key, "unlisted_countries", "every row is of a listed country")
    counts = pd.DataFrame(
        sorted(taken.unlisted.items(), key=lambda item: -item[1]), columns=["country", "rows"]
    )
    names = product.spec.country_names
    said = [names.explain(country).reason for country in counts["country"].head(_EXPLAINED)]
    counts["why"] = said + [""] * (len(counts) - len(said))
    counts["country"] = counts["country"].replace("", "(no country)")
    shown = [f"{c!r}: {why}" for c, why in counts[["country", "why"]].head(_EXAMPLES).to_numpy()]
    return warned(
        key,
        "unlisted_countries",
        f"{counts['rows'].sum():,} rows of {len(counts):,} countries that the YAML does not list "
        f"stay in the landing files and are not used. {'; '.join(shown)}",
        {"rows": int(counts["rows"].sum()), "countries": table_metadata(counts)},
    )
