"""The job that makes a random sample of a product's champions again, and fails when one differs."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from pydantic import Field

from mlops_assets.errors import MlopsAssetsError
from mlops_assets.product import Product
from mlops_assets.registry import MlflowRegistry, Registry
from mlops_assets.stages.common.base import Storage
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.common.ui_metadata import table_metadata
from mlops_assets.stages.upkeep.reproduction import reproduce_model
from mlops_assets.storage import SnapshotStore

_WEEKLY = "0 5 * * 0"


class SampleConfig(dg.Config):
    """Which champions are made again."""

    sample: int = Field(default=3, ge=1, description="number of champions, drawn at random")
    countries: list[str] = Field(
        default=[], description="exactly these countries instead of a sample; default: a sample"
    )
    seed: int | None = Field(
        default=None, description="of the draw; default: the id of the run, so each one differs"
    )


@dataclass(frozen=True)
class _Drawn:
    """The countries to make again, and what they were drawn from."""

    countries: Sequence[str]
    text: str


@dataclass(frozen=True)
class _Line:
    """What became of one champion, as the table shows it."""

    country: str
    version: str
    kind: str
    verdict: str
    rows: int
    largest: float | None
    why: str
    failed: bool
    """Whether a person has to look at it."""


def build_reproduction(product: Product) -> dg.JobDefinition:
    """`<product>_reproduce`: one op; its page shows a table of the champions made again."""

    @dg.op(
        name=f"{product.name}__reproduce",
        description="Trains champions again from their recorded snapshots, config and seed, and "
        "compares predictions on their holdout.",
    )
    def reproduce_sample(
        context: dg.OpExecutionContext,
        config: SampleConfig,
        storage: Storage,
        mlflow: MlflowRegistry,
    ) -> None:
        store, registry = storage.store(), mlflow.registry()
        drawn = _drawn(product, config, registry, context.run_id)
        context.log.info(drawn.text)
        lines = list(_lines(product, drawn.countries, store, registry, context=context))
        shown = {"drawn": drawn.text, "reproductions": _table(lines)}
        if any(line.failed for line in lines):
            raise dg.Failure(_failure(product, lines), metadata=shown, allow_retries=False)
        context.add_output_metadata(shown)

    @dg.job(
        name=f"{product.name}_reproduce",
        description="Makes a random sample of champions again and compares them with the "
        "registered ones. Fails when one differs, with the reason.",
        tags={"product": product.name},
    )
    def reproduction() -> None:
        reproduce_sample()

    return reproduction


def reproduction_schedule(product: Product) -> dg.ScheduleDefinition:
    """A sample every Sunday; stopped until a person starts it."""
    return dg.ScheduleDefinition(
        name=f"{product.name}_reproduce_weekly",
        job_name=f"{product.name}_reproduce",
        cron_schedule=_WEEKLY,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Makes a sample of champions again every week. Start it with the switch here.",
    )


def _drawn(product: Product, config: SampleConfig, registry: Registry, run_id: str) -> _Drawn:
    if config.countries:
        return _Drawn(config.countries, f"asked for: {', '.join(config.countries)}")
    able = sorted(set(registry.champions(product.name)) & set(product.spec.countries))
    seed = run_id if config.seed is None else config.seed
    countries = random.Random(seed).sample(able, min(config.sample, len(able)))
    return _Drawn(sorted(countries), f"{len(countries)} of {len(able)} champions drawn")


def _lines(
    product: Product,
    countries: Sequence[str],
    store: SnapshotStore,
    registry: Registry,
    *,
    context: dg.OpExecutionContext,
) -> Iterator[_Line]:
    """One after another; a country that cannot be judged does not keep the next from it."""
    for country in countries:
        try:
            found = reproduce_model(
                ProductContext(product, store, registry).country(country), run_id=context.run_id
            )
        except MlopsAssetsError as error:
            line = _Line(country, "", "", "cannot be judged", 0, None, str(error), failed=True)
        else:
            gap = found.predictions
            line = _Line(
                country=country,
                version=found.version,
                kind=found.kind,
                verdict=found.verdict,
                rows=gap.rows,
                largest=gap.largest,
                why=found.reason,
                failed=found.verdict == "differs",
            )
        context.log.info(f"{country}: {line.verdict}{f': {line.why}' if line.why else ''}")
        yield line


def _table(lines: Sequence[_Line]) -> dg.TableMetadataValue:
    import pandas as pd

    names = ["country", "version", "kind", "verdict", "rows", "largest", "why"]
    rows: list[list[Any]] = [[getattr(line, name) for name in names] for line in lines]
    return table_metadata(pd.DataFrame(rows, columns=names))


def _failure(product: Product, lines: Sequence[_Line]) -> str:
    failed = [line for line in lines if line.failed]
    said = " | ".join(f"{line.country} {line.verdict}: {line.why}" for line in failed)
    return (
        f"{product.name}: {len(failed)} of {len(lines)} champions did not come out as they were. "
        f"{said}. Nothing was changed; the champions stay in use. For one of them: mlops-assets "
        f"reproduce {product.name} {failed[0].country}"
    )
