"""Datasets: delivered files become `raw`, raw becomes `validated` and `quarantine`.

`raw` has no gate, so one run takes new files for any number of countries in one scan. The contract
is a gate and isolates a country in a run of its own.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pandas as pd

from mlops_assets.ml.validation import Validation, describe, validate
from mlops_assets.product import Product
from mlops_assets.stages.base import (
    Storage,
    about,
    asset_key,
    country_step,
    failed,
    gate,
    output,
    partitions,
    passed,
    path,
    warned,
)
from mlops_assets.stages.ingestion import NEVER_DELIVERED, Delivery, Ingestion, ingest
from mlops_assets.stages.lineage import Lineage, of_validated
from mlops_assets.stages.pages import (
    as_before,
    preview,
    quarantine_schema,
    raw_schema,
    rounded,
    table,
)
from mlops_assets.storage import Snapshot, WriteResult
from mlops_assets.storage.io_manager import Unchanged

_EXAMPLES = 5  # rows and names shown where a list could be long

_RAW_GRAIN = (
    "One row is a record of the country as published, with its source file, line and time of "
    "ingestion. Append-only: a delivered file is taken once."
)
_RAW_CHECKS = {
    "files_readable": "Delivered files that were set aside, with the reason.",
    "unlisted_countries": "Rows of countries that the product's YAML does not list.",
}
_QUARANTINE_GRAIN = "One row is a rejected record of the country with the rules it broke."
_VALIDATED_GRAIN = (
    "One row is a record of the country that keeps the contract, newest of its key, with country "
    "aliases resolved."
)
_CONTRACT_DESCRIPTION = (
    "Share of rejected rows, missing columns and wrong types. Over the limit the country keeps its "
    "last good data."
)

StepEvents = Iterator[dg.Output | dg.AssetCheckResult]


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
                _RAW_GRAIN,
                raw_schema(product),
            )
        },
        check_specs=[
            dg.AssetCheckSpec(name, asset=key, description=description)
            for name, description in _RAW_CHECKS.items()
        ],
    )
    def raw(context: dg.AssetExecutionContext, storage: Storage) -> StepEvents:
        taken = ingest(
            product,
            context.partition_keys,
            storage.store(),
            storage.landing(product),
            run_id=context.run.run_id,
        )
        yield _files_readable(key, taken)
        yield _unlisted(key, taken)
        if len(context.partition_keys) == 1 and not taken.missing:
            (delivery,) = taken.deliveries.values()
            stored = WriteResult(delivery.snapshot, changed=delivery.new_rows > 0)
            yield dg.Output(stored, "raw", metadata=_delivery_metadata(delivery))
            return
        # In a run over many countries one output would mark every one of them as made.
        for country, delivery in taken.deliveries.items():
            context.log_event(_materialization(key, country, delivery))
        if taken.missing:
            raise _nothing_delivered(product, taken, storage.landing(product))

    return raw


def _validated(product: Product) -> dg.AssetsDefinition:
    key = asset_key(product, "validated")
    schema = product.contract()

    @dg.multi_asset(
        **country_step(product, "validated"),
        ins={"raw": dg.AssetIn(key=asset_key(product, "raw"))},
        outs={
            "quarantine": output(
                product,
                "quarantine",
                "datasets",
                {"parquet", "pandera"},
                _QUARANTINE_GRAIN,
                quarantine_schema(product),
            ),
            "validated": dg.AssetOut(
                key=key, is_required=False, **_validated_about(product, schema)
            ),
        },
        check_specs=[gate(product, "validated", "contract", _CONTRACT_DESCRIPTION)],
    )
    def validated(
        context: dg.AssetExecutionContext, storage: Storage, raw: pd.DataFrame
    ) -> StepEvents:
        country = context.partition_key
        spec, store = product.resolved(country), storage.store()
        lineage = of_validated(product, country, store)
        made = store.current(path(product, "validated"), country)
        rejects = store.current(path(product, "quarantine"), country)
        if made and rejects and lineage.already_made(made):
            yield from _nothing_new(context, product, made, rejects)
            return
        yield from _apply_contract(
            product, country, validate(raw, schema, spec.source, spec.aliases), lineage
        )

    return validated


def _apply_contract(
    product: Product, country: str, result: Validation, lineage: Lineage
) -> StepEvents:
    key = asset_key(product, "validated")
    limit = product.resolved(country).contract.max_rejected_share
    numbers = _numbers(result, limit)
    rejects = {**preview(result.quarantine), **lineage.metadata()}
    yield dg.Output(result.quarantine, "quarantine", metadata=rejects)
    if reason := _refusal(result, limit):
        yield failed(key, "contract", reason, numbers)
        raise dg.Failure(
            f"{product.name} {country}: {reason} The rejected rows are in quarantine; good data "
            f"and the champion that {country} had before stay in use."
        )
    accepted = {**preview(result.accepted), **lineage.metadata()}
    yield dg.Output(result.accepted, "validated", metadata=accepted)
    if result.rejected:
        share = f"{result.rejected:,} of {result.rows:,} rows ({result.rejected_share:.2%})"
        yield warned(key, "contract", f"{share} went to quarantine; limit {limit:.0%}", numbers)
    else:
        yield passed(key, "contract", f"all {result.rows:,} rows keep the contract", numbers)


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
        for column in describe(schema)
    ]
    described = dg.TableSchema(columns=columns)
    return about(product, "datasets", {"parquet", "pandera"}, _VALIDATED_GRAIN, described)


def _refusal(result: Validation, limit: float) -> str | None:
    if result.missing_columns:
        names = ", ".join(repr(name) for name in result.missing_columns)
        return f"The delivery has no column {names}, which the contract needs."
    if result.rejected_share > limit:
        worst = ", ".join(
            f"{rule} ({count:,})" for rule, count in list(result.broken.items())[:_EXAMPLES]
        )
        return (
            f"{result.rejected:,} of {result.rows:,} rows ({result.rejected_share:.1%}) break the "
            f"contract, over the limit of {limit:.1%}: {worst}."
        )
    if result.accepted.empty:
        return "The delivery has no rows that keep the contract."
    return None


def _numbers(result: Validation, limit: float) -> dict[str, Any]:
    broken = pd.DataFrame(
        {"rule": list(result.broken), "rows": list(result.broken.values())}
    ).astype({"rule": str, "rows": int})
    return {
        "rows": result.rows,
        "accepted": len(result.accepted),
        "rejected": result.rejected,
        "rejected_share": rounded(result.rejected_share),
        "limit": limit,
        "duplicates": result.duplicates,
        "duplicates_with_other_values": result.conflicts,
        "broken_rules": table(broken),
    }


def _nothing_new(
    context: dg.AssetExecutionContext, product: Product, made: Snapshot, rejects: Snapshot
) -> StepEvents:
    key = asset_key(product, "validated")
    shown = as_before(context, asset_key(product, "quarantine"))
    yield dg.Output(Unchanged(rejects), "quarantine", metadata=shown)
    yield dg.Output(Unchanged(made), "validated", metadata=as_before(context, key))
    yield passed(key, "contract", f"no new rows; {made.rows:,} rows as before", {"rows": made.rows})


def _delivery_metadata(delivery: Delivery) -> dict[str, Any]:
    return {
        "new_rows": delivery.new_rows,
        "new_files": ", ".join(delivery.new_files) or "none",
    }


def _materialization(key: dg.AssetKey, country: str, delivery: Delivery) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        key,
        partition=country,
        metadata={
            **_delivery_metadata(delivery),
            "dagster/partition_row_count": delivery.snapshot.rows,
            "dagster/uri": delivery.snapshot.uri,
        },
        tags={"dagster/data_version": delivery.snapshot.content_hash},
    )


def _nothing_delivered(product: Product, taken: Ingestion, landing: str) -> dg.Failure:
    return dg.Failure(
        f"{product.name}: no row of {', '.join(taken.missing)} {NEVER_DELIVERED} under {landing}. "
        "Every other country was taken. Drop a file that has them, or remove them from "
        "`countries`.",
        metadata={
            "missing": dg.MetadataValue.json(list(taken.missing)),
            "set_aside": dg.MetadataValue.json(dict(taken.problems)),
        },
    )


def _files_readable(key: dg.AssetKey, taken: Ingestion) -> dg.AssetCheckResult:
    if taken.problems:
        text = " ".join(list(taken.problems.values())[:_EXAMPLES])
        return warned(
            key, "files_readable", text, {"set_aside": dg.MetadataValue.json(dict(taken.problems))}
        )
    return passed(key, "files_readable", f"all {taken.files:,} files can be read")


def _unlisted(key: dg.AssetKey, taken: Ingestion) -> dg.AssetCheckResult:
    if not taken.unlisted:
        return passed(key, "unlisted_countries", "every row is of a listed country")
    counts = pd.DataFrame(
        sorted(taken.unlisted.items(), key=lambda item: -item[1]), columns=["country", "rows"]
    )
    counts["country"] = counts["country"].replace("", "(no country)")
    return warned(
        key,
        "unlisted_countries",
        f"{counts['rows'].sum():,} rows of {len(counts):,} countries that the YAML does not list "
        "stay in the landing files and are not used",
        {"rows": int(counts["rows"].sum()), "countries": table(counts)},
    )
