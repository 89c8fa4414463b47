"""What is wrong with an MLflow backend that people can put right, and how."""

from __future__ import annotations

import re
import shlex

from mlops_assets.errors import RegistryError
from mlops_assets.settings import without_password

_OTHER_SCHEMA = re.compile(r"schema \(found version (\S+), but expected (\S+?)\)")


def no_answer(uri: str, error: Exception) -> RegistryError:
    """A backend that cannot be used; of another version of MLflow, or not to be reached.

    Args:
        uri: of the backend.
        error: what MLflow said.
    """
    if found := _OTHER_SCHEMA.search(str(error)):
        return _other_schema(uri, found[1], found[2])
    return RegistryError(
        without_password(f"The model registry {uri} does not answer: {error}."),
        way_out="Start it, or set MLFLOW_TRACKING_URI, and run again.",
    )


def deleted_experiment(uri: str, product: str, experiment_id: str) -> RegistryError:
    """The experiment of a product was deleted in MLflow, which keeps its name taken."""
    address = shlex.quote(without_password(uri))
    return RegistryError(
        f"The MLflow experiment {product} was deleted, so that no training can be recorded in it.",
        stored="Nothing was trained; champions and their predictions go on.",
        way_out=f"Restore it: MLFLOW_TRACKING_URI={address} mlflow experiments restore "
        f"--experiment-id {experiment_id}. Do not run `mlflow gc` before, which removes the files "
        "of its models.",
        culprits={"experiment": product, "experiment_id": experiment_id},
    )


def older_schema(uri: str, found: str) -> RegistryError:
    """A database without tables that the installed MLflow has.

    Args:
        uri: of the database.
        found: revision of its tables.
    """
    from mlops_assets.registry.mlflow_compat import newest_schema

    return _other_schema(uri, found, newest_schema())


def _other_schema(uri: str, found: str, expected: str) -> RegistryError:
    from mlops_assets.registry.mlflow_compat import knows_schema

    shown = without_password(uri)
    if found != "None" and not knows_schema(found):
        told = "a newer MLflow, or none at all, has written it"
        way = (
            "Install the MLflow that wrote it, or restore the database from a backup; it cannot "
            "be taken back to an older version."
        )
    else:
        told = "an older MLflow has written it"
        way = (
            "Stop what uses it, make a backup (copy the folder of the database, or dump it), then "
            f"run: mlflow db upgrade {shlex.quote(shown)}"
        )
    return RegistryError(
        f"The tables of the model registry {shown} have version {found}, and this MLflow needs "
        f"{expected}: {told}.",
        stored="Nothing was read, changed or migrated.",
        way_out=way,
        culprits={"found": found, "expected": expected},
    )
