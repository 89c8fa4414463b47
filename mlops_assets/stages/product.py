"""All stages of one product, and the jobs that run them."""

import warnings
from collections.abc import Sequence

import dagster as dg

from mlops_assets.product import Product
from mlops_assets.stages.alerting.sensor import alerts_sensor
from mlops_assets.stages.common.base import AssetJob, asset_key
from mlops_assets.stages.common.lineage import SHARED
from mlops_assets.stages.common.runs import POOLED_JOB
from mlops_assets.stages.datasets.assets import build_datasets
from mlops_assets.stages.features.assets import build_features_stage
from mlops_assets.stages.features.shared_asset import build_shared_stage
from mlops_assets.stages.landing.sensor import ingest_job, landing_sensor
from mlops_assets.stages.monitoring.drift import build_drift
from mlops_assets.stages.monitoring.performance import build_performance
from mlops_assets.stages.predictions.assets import build_predictions
from mlops_assets.stages.promotion.assets import build_champions, decide_in_run
from mlops_assets.stages.promotion.jobs import build_promotion_jobs
from mlops_assets.stages.retraining.sensor import retraining_schedule, retraining_sensor
from mlops_assets.stages.retraining.withdrawal import withdrawal_job
from mlops_assets.stages.training.assets import build_models
from mlops_assets.stages.upkeep.reproduction_job import build_reproduction, reproduction_schedule

# Intended: `raw` alone is taken for many countries in one run, and a job that has it with gated
# assets runs a country at a time, which is what Dagster then chooses.
warnings.filterwarnings("ignore", message="Asset job .* materializes assets with varying")
# Dagster's own: a sensor that asks for a job of ops is made again when this gets its resources.
warnings.filterwarnings("ignore", message="Parameter `owners` of initializer `SensorDefinition")

DATASETS = ("raw", "validated", "quarantine", "features")
TRAINING = ("model", "champion")
PREDICTIONS = ("predictions",)
MONITORING = ("performance", "drift")
JOBS: dict[str, tuple[str, ...]] = {
    "all": (*DATASETS, *TRAINING, *PREDICTIONS, *MONITORING),
    "train": (*DATASETS, *TRAINING),
    "predict": (*DATASETS, *PREDICTIONS, *MONITORING),
    "monitor": MONITORING,
}
"""Job: the assets of one country that a run of it makes, in pipeline order."""

_SHARED_JOB = "Makes the shared features of the validated rows every country has now."
_POOLED_JOB = "Trains the pooled model on the features every country has now."
_PERIODIC = {
    "shared": "Makes the shared features again; countries use them from their next features on.",
    POOLED_JOB: "Trains the pooled model again; countries use it from their next training on.",
}
"""Job of one thing of all countries: what its schedule is for."""


def build_product(product: Product) -> dg.Definitions:
    """Assets, checks, jobs, schedules and sensors of a product."""
    models, shared = build_models(product, decide_in_run), build_shared_stage(product)
    by_name = {name: _job(product, name, assets) for name, assets in JOBS.items()}
    by_name["ingest"] = ingest_job(product)
    if shared:
        by_name["shared"] = _whole_job(product, "shared", SHARED, _SHARED_JOB)
    if len(models) > 1:
        by_name[POOLED_JOB] = _whole_job(product, POOLED_JOB, "pooled_model", _POOLED_JOB)
    promotions = build_promotion_jobs(product)
    withdrawal = withdrawal_job(product)
    back = [job for job in promotions if job.name == f"{product.name}_rollback"] + [withdrawal]
    return dg.Definitions(
        assets=[
            *build_datasets(product),
            *shared,
            *build_features_stage(product),
            *models,
            *build_champions(product),
            *build_predictions(product),
            *build_performance(product),
            *build_drift(product),
        ],
        jobs=[
            *by_name.values(),
            build_reproduction(product),
            *promotions,
            withdrawal,
        ],
        schedules=[
            *_schedules(product, [name for name in _PERIODIC if name in by_name]),
            reproduction_schedule(product),
        ],
        sensors=[
            landing_sensor(
                product,
                [by_name[name] for name in ("ingest", "predict", "shared") if name in by_name],
            ),
            retraining_sensor(
                product,
                [
                    *(
                        by_name[name]
                        for name in ("train", "predict", POOLED_JOB)
                        if name in by_name
                    ),
                    *back,
                ],
            ),
            alerts_sensor(product),
        ],
    )


def _job(product: Product, name: str, assets: tuple[str, ...]) -> AssetJob:
    return dg.define_asset_job(
        f"{product.name}_{name}",
        selection=dg.AssetSelection.assets(*(asset_key(product, asset) for asset in assets)),
        description=f"{', '.join(assets)} of a country, in one run. Launch a backfill for many.",
        tags={"product": product.name},
    )


def _whole_job(product: Product, name: str, asset: str, description: str) -> AssetJob:
    """A job of an asset that is one thing of all countries."""
    return dg.define_asset_job(
        f"{product.name}_{name}",
        selection=dg.AssetSelection.assets(asset_key(product, asset)),
        description=description,
        tags={"product": product.name},
    )


def _schedules(product: Product, jobs: Sequence[str]) -> list[dg.ScheduleDefinition]:
    """Periodic retraining of every country, and of what is one thing of all of them."""
    cron = product.spec.retrain_cron
    if cron is None:
        return []

    whole = [name for name in _PERIODIC if name in jobs]
    return [
        retraining_schedule(product, cron),
        *(_whole_schedule(product, name, cron) for name in whole),
    ]


def _whole_schedule(product: Product, name: str, cron: str) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        name=f"{product.name}_{name}_periodic",
        job_name=f"{product.name}_{name}",
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=_PERIODIC[name],
    )
