"""A version is known by more than its number: another registry has a version 3, too."""

from mlops_assets.errors import RegistryError
from mlops_assets.registry import ModelVersion
from mlops_assets.stages.common.context import CountryContext

RUN_OF_VERSION = "mlflow_run"
"""Column of the asset `champion`: the MLflow run that made the version in use; "" for none."""


def other_than_recorded(ctx: CountryContext, named: ModelVersion) -> str:
    """Why a version is not the one that the asset `champion` knows by its number; "" if it is.

    Nothing is said of a champion that was recorded without the run it is from, as earlier ones
    were, nor of another number: whoever compares numbers sees that.
    """
    made = ctx.current("champion")
    if made is None:
        return ""
    row = ctx.store.read(made.asset, made.partition).iloc[0]
    run = str(row.get(RUN_OF_VERSION) or "")
    if str(row["version"]) != named.version or not run or run == named.run_id:
        return ""
    return (
        f"version {named.version} of {named.name} is from MLflow run {named.run_id} in this "
        f"registry, and the champion is from run {run}: this is another registry"
    )


def require_recorded(ctx: CountryContext, named: ModelVersion) -> None:
    """Check that a version is the one that was put into use.

    Raises:
        RegistryError: another model has its number.
    """
    if problem := other_than_recorded(ctx, named):
        raise RegistryError(
            f"{problem[0].upper()}{problem[1:]}.",
            stored="Nothing was written.",
            way_out="Set MLFLOW_TRACKING_URI (or MLOPS_ASSETS_HOME) to the registry that belongs "
            "to these snapshots, or restore its database. To go on with this one all the same: "
            "mlops-assets rollback or promote --force to a version of it.",
            culprits={"model": named.name, "version": named.version, "run": named.run_id},
        )
