"""Every registered version of a product with what its training run says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.errors import MlopsAssetsError, RegistryError
from mlops_assets.registry.models import ModelVersion, Registry, every_page
from mlops_assets.settings import without_password

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


@dataclass(frozen=True)
class TrainedVersion:
    """A registered version and the run it is from.

    Attributes:
        version: as registered.
        country: what the registered model is for; `pooled-<candidate>` for a pooled one.
        run_tags: of its training run; None when MLflow no longer has that run.
    """

    version: ModelVersion
    country: str
    run_tags: Mapping[str, str] | None


def trained_versions(registry: Registry, product: str) -> list[TrainedVersion]:
    """Every registered version of a product, in use or not, of countries and pooled.

    A few searches, however many versions there are.

    Raises:
        RegistryError: the registry does not answer, or its database is not there.
    """
    uri = registry.tracking_uri
    try:
        _require_database(uri)
        return _found(registry.client(), product)
    except MlopsAssetsError:
        raise
    except Exception as error:
        raise RegistryError(
            without_password(f"The model registry {uri} does not answer: {error}."),
            stored="Nothing was read or changed.",
            way_out="Start it, or set MLFLOW_TRACKING_URI, and run again.",
        ) from error


def _require_database(uri: str) -> None:
    """MLflow would make an empty database where there is none, and find no model in it."""
    from sqlalchemy.engine import make_url

    url = make_url(uri)
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
        raise FileNotFoundError(f"there is no database {url.database}")


def _found(client: MlflowClient, product: str) -> list[TrainedVersion]:
    # `_` in a LIKE stands for any character, so other products may be among them.
    like, own = f"name LIKE '{product}.%'", f"{product}."
    models = every_page(client.search_registered_models, like)
    # By default the one changed last comes first: pages would move while they are turned.
    order = ["name ASC", "version_number ASC"]
    made = every_page(client.search_model_versions, like, order_by=order)
    countries = {model.name: model.tags.get("country", "") for model in models}
    versions = [
        ModelVersion(
            name=each.name,
            version=str(each.version),
            uri=each.source or "",
            run_id=each.run_id or "",
            kind=each.tags.get("kind", ""),
            tags=dict(each.tags),
        )
        for each in made
        if each.name.startswith(own)
    ]
    tags = _tags_of_runs(client, product, {version.run_id for version in versions})
    return [TrainedVersion(v, countries.get(v.name, ""), tags.get(v.run_id)) for v in versions]


def _tags_of_runs(
    client: MlflowClient, product: str, wanted: Iterable[str]
) -> dict[str, Mapping[str, str]]:
    """Tags by run; a run that was deleted in MLflow's UI is still there and counts."""
    from mlflow.entities import ViewType

    experiment = client.get_experiment_by_name(product)
    ids = [] if experiment is None else [experiment.experiment_id]
    runs = every_page(client.search_runs, "", experiment_ids=ids, run_view_type=ViewType.ALL)
    tags: dict[str, Mapping[str, str]] = {run.info.run_id: run.data.tags for run in runs}
    # Those of another experiment, one by one.
    return tags | {
        run_id: found for run_id in set(wanted) - tags.keys() if (found := _tags_of(client, run_id))
    }


def _tags_of(client: MlflowClient, run_id: str) -> Mapping[str, str] | None:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id).data.tags if run_id else None
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
