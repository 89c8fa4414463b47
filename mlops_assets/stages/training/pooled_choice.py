"""A pooled model as the candidate of a country, with nothing else to choose from."""

import time
from collections.abc import Collection
from dataclasses import dataclass, replace

import pandas as pd

from mlops_assets.ml.gates.succession import model_title
from mlops_assets.ml.training.candidate import only_pooled, train_country
from mlops_assets.ml.training.selection import PooledModel
from mlops_assets.registry import MlflowRegistry, ModelVersion
from mlops_assets.registry.isolated.process import start_server
from mlops_assets.stages.common.base import Storage
from mlops_assets.stages.common.context import CountryContext
from mlops_assets.stages.common.lineage import of_model
from mlops_assets.stages.training.candidate import Candidate, TrainingContext, train
from mlops_assets.stages.training.serving import load_pooled, pooled_versions
from mlops_assets.stages.training.training_record import record_now, run_tags
from mlops_assets.storage import Snapshot


@dataclass(frozen=True)
class PooledChoice:
    """The pooled model that a country would choose, were there no local one.

    Attributes:
        name: of the pooled model.
        model: ready to be compared.
        version: as it is registered for all countries.
    """

    name: str
    model: PooledModel
    version: ModelVersion

    @property
    def title(self) -> str:
        """What it is called in comparisons."""
        return model_title(self.name, self.version.version)


def choose_pooled(
    ctx: CountryContext, features: pd.DataFrame, without: Collection[str]
) -> PooledChoice | None:
    """The pooled model that is best by validation; None where none is left.

    Args:
        ctx: the country.
        features: its features.
        without: titles of pooled models that are not chosen from.

    Raises:
        RegistryError: the files of one are lost or damaged.
        TrainingError: one cannot predict the features.
    """
    versions = {
        name: version
        for name, version in pooled_versions(ctx.whole, ctx.country).items()
        if model_title(name, version.version) not in without
    }
    if not versions:
        return None
    pooled = load_pooled(ctx.spec, versions, ctx.registry)
    spec = only_pooled(ctx.spec, versions, ctx.country)
    trained = train_country(spec, features, pooled, country=ctx.country, clock=time.monotonic)
    name = trained.selection.pooled_name
    return PooledChoice(name, pooled[name], versions[name]) if name else None


def register_pooled(
    ctx: CountryContext,
    choice: PooledChoice,
    source: Snapshot,
    *,
    storage: Storage,
    mlflow: MlflowRegistry,
) -> Candidate:
    """The choice as a version of the country: registered, tried in isolation, judged by every gate.

    Args:
        ctx: the country.
        choice: what is registered; nothing is fitted.
        source: the features of the country.
        storage: says whose knowledge they are.
        mlflow: of the run.
    """
    start_server()
    versions = {choice.name: choice.version}
    record = record_now(
        ctx.product, ctx.country, {ctx.country: source}, versions, as_of=storage.moment
    )
    spec = only_pooled(record.spec, versions, ctx.country)
    record = replace(record, spec=spec, config_hash=spec.config_hash())
    lineage = of_model(ctx, {choice.name: choice.version.version})
    features = ctx.store.read(source.asset, ctx.country, version=source.version)
    with mlflow.training_run(ctx.product.name, ctx.country, run_tags(record, lineage)) as run:
        training = TrainingContext(ctx, record, run, {choice.name: choice.model}, versions)
        return train(training, features)
