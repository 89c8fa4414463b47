"""What people are told of deliveries: those that are not used, and those unlike the ones before."""

import datetime as dt
from collections.abc import Iterator

from mlops_assets.product import Product
from mlops_assets.stages.alerting.conditions import LOOKS_BACK, AlertCondition, asset_page
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.common.lineage import made_from
from mlops_assets.stages.datasets.delivery_report import DeliveryReport, delivery_reports
from mlops_assets.stages.datasets.judgement import NotUsed, not_used_by_country

_REPORTS = 10


def delivery_conditions(ctx: ProductContext, now: dt.datetime) -> Iterator[AlertCondition]:
    """Deliveries of the last days that say something, and those that a country goes on without.

    One that stops its country is told by the gate that failed.
    """
    for report in delivery_reports(ctx, last=_REPORTS):
        if report.said and report.taken_at >= now - LOOKS_BACK:
            yield _unusual(ctx.product, report)
    quarantines, validated = ctx.current_all("quarantine"), ctx.current_all("validated")
    raw = ctx.current_all("raw")
    for country, found in not_used_by_country(quarantines, raw, ctx.product).items():
        judged = made_from(quarantines[country]).get("raw")
        if made_from(validated.get(country)).get("raw") == judged:
            yield from (_not_used(ctx.product, country, each) for each in found)


def _unusual(product: Product, report: DeliveryReport) -> AlertCondition:
    aside = "".join(f"\n{file.set_aside}" for file in report.facts.files if file.set_aside)
    text = (
        f"{'. '.join(report.said)}.{aside}\nDelivered: {report.summary()}.\nSince: "
        f"{report.taken_at:%Y-%m-%d %H:%M} UTC.\nNext: what keeps the contract is used.\nYou can: "
        f"look at it with `mlops-assets deliveries {product.name}`, and have the file corrected."
    )
    return AlertCondition(
        f"{product.name} delivery of {report.run_id}",
        "delivery",
        "",
        f"{product.name}: a delivery is unlike those before",
        text,
        *asset_page(product, "raw"),
    )


def _not_used(product: Product, country: str, found: NotUsed) -> AlertCondition:
    text = (
        f"{found.describe()}.\nSince: {found.ingested_at}.\nNext: no row of it is used; what else "
        "was delivered is.\nYou can: look at the rows with `mlops-assets quarantine "
        f"{product.name} {country}`, and deliver the file again, corrected."
    )
    return AlertCondition(
        f"{product.name} {country} delivery {found.content_hash} of {found.ingested_at} not used",
        "delivery",
        country,
        f"{product.name} {country}: {found.file} is not used",
        text,
        *asset_page(product, "validated", country),
    )
