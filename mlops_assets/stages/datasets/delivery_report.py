"""The report that ends an ingestion: what came, against what came before; kept as a log."""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pandas as pd

from mlops_assets.ml.datasets.delivery_report import (
    DeliveryFacts,
    FileFacts,
    compare_deliveries,
)
from mlops_assets.stages.common.base import passed, warned
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.common.ui_metadata import table_metadata
from mlops_assets.stages.datasets.ingestion import Ingestion

DELIVERY = "delivery"
DELIVERY_CHECK = (
    "What was delivered, against the earlier deliveries: columns, countries, rows by country. "
    "Every ingestion that took a file has a row in the log `deliveries` for each."
)
DELIVERY_LOG = "deliveries"
_COMPARED = 20
"""Ingestions before that one is compared with."""


@dataclass(frozen=True)
class DeliveryReport:
    """What one ingestion took.

    Attributes:
        taken_at: when, UTC.
        run_id: of its run.
        facts: its files.
        said: what is unusual, a sentence each.
    """

    taken_at: dt.datetime
    run_id: str
    facts: DeliveryFacts
    said: tuple[str, ...] = ()

    def summary(self) -> str:
        """In a line."""
        return self.facts.summary()


def report_delivery(ctx: ProductContext, taken: Ingestion, run_id: str) -> DeliveryReport | None:
    """Compare what was taken with the deliveries before and append it to the log.

    A file that is set aside takes part once, until it is taken or is set aside for another reason.
    None when no file was taken, and none is newly set aside.
    """
    reports = delivery_reports(ctx, last=_COMPARED)
    files = (*taken.taken_files, *_newly_set_aside(taken.problems, reports))
    if not files:
        return None
    limits = {country: ctx.product.resolved(country).contract for country in ctx.countries}
    whole = set(ctx.countries) <= taken.asked
    facts = DeliveryFacts(files, whole)
    said = compare_deliveries(facts, [each.facts for each in reports], limits)
    report = DeliveryReport(dt.datetime.now(dt.UTC), run_id, facts, said)
    ctx.store.append(ctx.path(DELIVERY_LOG), None, _frame(report))
    return report


def _newly_set_aside(
    problems: Mapping[str, str], reports: Sequence[DeliveryReport]
) -> list[FileFacts]:
    told = {file.name: file.set_aside for each in reports for file in each.facts.files}
    return [
        FileFacts(name, 0, (), {}, set_aside=problem)
        for name, problem in problems.items()
        if told.get(name) != problem
    ]


def delivery_reports(ctx: ProductContext, *, last: int | None = None) -> list[DeliveryReport]:
    """The reports of the newest ingestions that took a file, oldest first."""
    log = ctx.store.read_log(ctx.path(DELIVERY_LOG), None, last=last)
    if log.empty:
        return []
    rows = log.to_dict("records")
    by_ingestion: dict[tuple[Any, str], list[Mapping[Any, Any]]] = {}
    for row in rows:
        by_ingestion.setdefault((row["taken_at"], row["run_id"]), []).append(row)
    return [_read(each) for each in by_ingestion.values()]


def report_of_run(ctx: ProductContext, run_id: str) -> DeliveryReport | None:
    """What an ingestion took; None when it took no file."""
    found = [each for each in delivery_reports(ctx, last=1) if each.run_id == run_id]
    return found[0] if found else None


def check_delivery(
    key: dg.AssetKey,
    report: DeliveryReport | None,
    taken: Ingestion,
    newest: DeliveryReport | None,
) -> dg.AssetCheckResult:
    """The report as a check: it warns of what is unusual.

    Args:
        key: of `raw`.
        report: of this ingestion; None without a new file.
        taken: what it took.
        newest: the newest report there is; shown on where there is nothing new.
    """
    said = list(report.said) if report else []
    if taken.ahead:
        said.append(
            f"{taken.ahead:,} rows have a watermark more than two days later than now; they were "
            "taken, and the watermark did not move to them"
        )
    before = newest and f"; the newest, of {newest.taken_at:%Y-%m-%d %H:%M} UTC: {newest.summary()}"
    told = f"delivered: {report.summary()}" if report else f"no new files{before or ''}"
    shown = {"files": table_metadata(files_table([newest]))} if newest else {}
    if said:
        return warned(key, DELIVERY, f"{'. '.join(said)}. {told}", shown)
    return passed(key, DELIVERY, told, shown)


def files_table(reports: Sequence[DeliveryReport]) -> pd.DataFrame:
    """One row a file: when it was taken, rows, countries, columns, and what is unusual."""
    rows = [
        {
            "taken_at": report.taken_at.isoformat(timespec="seconds"),
            "file": file.name,
            "rows": file.rows,
            "countries": len([each for each in file.by_country.values() if each]),
            "unlisted_rows": file.unlisted_rows,
            "columns": len(file.columns),
            "why": file.set_aside or ". ".join(report.said),
        }
        for report in reports
        for file in report.facts.files
    ]
    names = ["taken_at", "file", "rows", "countries", "unlisted_rows", "columns", "why"]
    return pd.DataFrame(rows, columns=names)


def _frame(report: DeliveryReport) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "taken_at": report.taken_at,
                "run_id": report.run_id,
                "whole": report.facts.whole,
                "file": file.name,
                "rows": file.rows,
                "unlisted_rows": file.unlisted_rows,
                "columns": json.dumps(list(file.columns)),
                "by_country": json.dumps(dict(file.by_country)),
                "set_aside": file.set_aside,
                "said": json.dumps(list(report.said)),
            }
            for file in report.facts.files
        ]
    )


def _read(rows: Sequence[Mapping[Any, Any]]) -> DeliveryReport:
    files = tuple(
        FileFacts(
            str(row["file"]),
            int(row["rows"]),
            tuple(json.loads(row["columns"])),
            json.loads(row["by_country"]),
            unlisted_rows=int(row["unlisted_rows"]),
            set_aside=str(row["set_aside"]),
        )
        for row in rows
    )
    first = rows[0]
    return DeliveryReport(
        first["taken_at"].to_pydatetime(),
        str(first["run_id"]),
        DeliveryFacts(files, bool(first["whole"])),
        tuple(json.loads(first["said"])),
    )
