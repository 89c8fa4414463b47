"""What people are told of deliveries: not used, not shared, or unlike the ones before."""

import datetime as dt
from collections.abc import Iterator

from mlops_assets.ml.features.plausibility import HeldOut, UpstreamIncident
from mlops_assets.product import Product
from mlops_assets.stages.alerting.conditions import LOOKS_BACK, AlertCondition, asset_page
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.common.lineage import SHARED, made_from
from mlops_assets.stages.datasets.delivery_report import DeliveryReport, delivery_reports
from mlops_assets.stages.datasets.judgement import NotUsed, not_used_by_country
from mlops_assets.stages.features.held_out import WAY_OUT, held_out_now, open_by_country

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


def held_out_conditions(ctx: ProductContext) -> Iterator[AlertCondition]:
    """Records that no other country sees: an incident as one, and each other country's own."""
    found, together = held_out_now(ctx), ()
    if found.incident is not None and found.incident.is_open:
        yield _upstream(ctx.product, found.incident)
        together = found.incident.countries
    for held in open_by_country(found).values():
        if held.country not in together:
            yield _held_out(ctx.product, held)


def _upstream(product: Product, incident: UpstreamIncident) -> AlertCondition:
    text = (
        f"{incident.describe()}.\nSince: {incident.first}.\nNext: shared features have no newer "
        "rows of such days; what goes on as it is counts as true after "
        f"{product.spec.sharing.accept_after}.\nYou can: {WAY_OUT}."
    )
    return AlertCondition(
        f"{product.name} upstream since {incident.first}",
        "delivery",
        "",
        f"{product.name}: upstream incident, {len(incident.countries)} countries jumped at once",
        text,
        *asset_page(product, SHARED),
    )


def _held_out(product: Product, held: HeldOut) -> AlertCondition:
    text = (
        f"{held.describe()}.\nSince: {held.first}.\nNext: the other countries go on without "
        f"them; what goes on as it is counts as true after {product.spec.sharing.accept_after}.\n"
        f"You can: {WAY_OUT}."
    )
    return AlertCondition(
        f"{product.name} {held.country} held out since {held.first}",
        "delivery",
        held.country,
        f"{product.name} {held.country}: its newest {held.column} is held out of what is shared",
        text,
        *asset_page(product, SHARED),
    )
