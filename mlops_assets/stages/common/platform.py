"""What every product shares: where data and models are kept, and how a run is executed."""

import dagster as dg

from mlops_assets.registry import MlflowRegistry
from mlops_assets.settings import Settings
from mlops_assets.stages.common.base import Storage
from mlops_assets.storage.io_manager import SnapshotIOManager


def platform_definitions(settings: Settings) -> dg.Definitions:
    """Resources and executor of the code location.

    The executor is in-process: a country's chain is one run in one process, which is what makes
    a run of one country cheap.
    """
    return dg.Definitions(
        resources={
            "io_manager": SnapshotIOManager(uri=settings.storage),
            "storage": Storage(
                uri=settings.storage,
                landing_uri=settings.landing,
                as_of=settings.as_of.isoformat() if settings.as_of else None,
                origin_uri=settings.origin,
                locks=str(settings.locks),
            ),
            "mlflow": MlflowRegistry(
                tracking_uri=settings.mlflow_uri,
                artifact_root=settings.mlflow_artifacts,
                ui_url=settings.mlflow_ui,
            ),
        },
        executor=dg.in_process_executor,
    )
