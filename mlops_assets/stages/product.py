"""All stages of one product, and the jobs that run them."""

import warnings

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mlops_assets.product import Product
from mlops_assets.stages.base import asset_key
from mlops_assets.stages.champions import build_champions
from mlops_assets.stages.datasets import build_datasets
from mlops_assets.stages.features import build_features_stage
from mlops_assets.stages.landing import ingest_job, landing_sensor
from mlops_assets.stages.models import build_models
from mlops_assets.stages.predictions import build_predictions
from mlops_assets.stages.reproduction_job import build_reproduction, reproduction_schedule

# Intended: `raw` alone is taken for many countries in one run, and a job that has it with gated
# assets runs a country at a time, which is what Dagster then chooses.
warnings.filterwarnings("ignore", message="Asset job .* materializes assets with varying")

DATASETS = ("raw", "validated", "quarantine", "features")
TRAINING = ("model", "champion")
PREDICTIONS = ("predictions",)
JOBS: dict[str, tuple[str, ...]] = {
    "all": (*DATASETS, *TRAINING, *PREDICTIONS),
    "train": (*DATASETS, *TRAINING),
    "predict": (*DATASETS, *PREDICTIONS),
}
"""Job: the assets of one country that a run of it makes, in pipeline order."""


def build_product(product: Product) -> dg.Definitions:
    """Assets, checks, jobs, schedules and sensors of a product."""
    models = build_models(product)
    by_name = {name: _job(product, name, assets) for name, assets in JOBS.items()}
    by_name["ingest"] = ingest_job(product)
    pooled = len(models) > 1
    if pooled:
        by_name["pooled"] = _pooled_job(product)
    return dg.Definitions(
        assets=[
            *build_datasets(product),
            *build_features_stage(product),
            *models,
            *build_champions(product),
            *build_predictions(product),
        ],
        jobs=[*by_name.values(), build_reproduction(product)],
        schedules=[*_schedules(product, pooled), reproduction_schedule(product)],
        sensors=[landing_sensor(product, [by_name["ingest"], by_name["predict"]])],
    )


def _job(product: Product, name: str, assets: tuple[str, ...]) -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        f"{product.name}_{name}",
        selection=dg.AssetSelection.assets(*(asset_key(product, asset) for asset in assets)),
        description=f"{', '.join(assets)} of a country, in one run. Launch a backfill for many.",
        tags={"product": product.name},
    )


def _pooled_job(product: Product) -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        f"{product.name}_pooled",
        selection=dg.AssetSelection.assets(asset_key(product, "pooled_model")),
        description="Trains the pooled model on the features every country has now.",
        tags={"product": product.name},
    )


def _schedules(product: Product, pooled: bool) -> list[dg.ScheduleDefinition]:
    """Periodic retraining of every country, and of the pooled model; stopped until started."""
    cron = product.spec.retrain_cron
    if cron is None:
        return []

    @dg.schedule(
        name=f"{product.name}_periodic",
        job_name=f"{product.name}_all",
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Asks for one run of every country. Start it with the switch on this page.",
    )
    def periodic(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest]:
        when = context.scheduled_execution_time.isoformat()
        return [
            dg.RunRequest(run_key=f"{country}@{when}", partition_key=country)
            for country in product.spec.countries
        ]

    return [periodic, *([_pooled_schedule(product, cron)] if pooled else [])]


def _pooled_schedule(product: Product, cron: str) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        name=f"{product.name}_pooled_periodic",
        job_name=f"{product.name}_pooled",
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Trains the pooled model again; countries use it from their next training on.",
    )
