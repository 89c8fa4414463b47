"""Predictions: the champion, else the baseline, on the rows no model has learned from."""

import datetime as dt
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pandas as pd

from mlops_assets.ml.charts.plots import forecast_against_actual
from mlops_assets.product import Product
from mlops_assets.registry import MlflowRegistry
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.common.base import (
    NO_ROWS,
    Storage,
    asset_key,
    country_step,
    failed,
    gate,
    naive,
    output,
    passed,
    warned,
)
from mlops_assets.stages.common.context import CountryContext
from mlops_assets.stages.common.lineage import (
    Lineage,
    named_input,
    of_predictions,
    serving_baseline,
)
from mlops_assets.stages.common.ui_metadata import (
    as_before,
    facts_metadata,
    predictions_schema,
    preview,
    svg_metadata,
)
from mlops_assets.stages.predictions.given_out import given_out_of, record_refusal
from mlops_assets.stages.predictions.serving_chain import (
    PredictedCountry,
    Predictions,
    predictions_of,
)
from mlops_assets.stages.promotion.decision_log import blocked_versions, entries
from mlops_assets.stages.training.serving import Served, who_serves
from mlops_assets.storage import Snapshot
from mlops_assets.storage.io_manager import Unchanged

_CHECK = "schema_and_range"
_CHECK_DESCRIPTION = (
    "There are predictions, one for each entity and time, each within the range of the YAML. Warns "
    "of those that `predictions.beyond` treats, and when the predictions of the model in use were "
    "refused and another one predicts. With nobody to predict, the last good predictions stay."
)
_GRAIN = (
    "One row is a prediction for an entity of the country at an event time, with its interval, the "
    "model that made it and why that one; for every row since the start of the holdout. No model "
    "predicts a row that it learned from."
)
_PLOTTED_ROWS = 120
_SAID_ONCE = ("model_kind", "model_version", "reason", "features_version", "previous_version")
"""The same in every row of a partition: said beside the preview instead."""


def build_predictions(product: Product) -> list[dg.AssetsDefinition]:
    """`predictions` of a product with their check."""
    key = asset_key(product, "predictions")

    @dg.multi_asset(
        **country_step(product, "predictions"),
        deps=[asset_key(product, "features"), asset_key(product, "champion")],
        outs={
            "predictions": output(
                product,
                "predictions",
                "predictions",
                {"parquet"},
                description=_GRAIN,
                columns=predictions_schema(product),
            )
        },
        check_specs=[gate(product, "predictions", _CHECK, _CHECK_DESCRIPTION)],
    )
    def predictions(
        context: dg.AssetExecutionContext, storage: Storage, mlflow: MlflowRegistry
    ) -> Iterator[dg.Output | dg.AssetCheckResult]:
        ctx = storage.product(product, mlflow.registry()).country(context.partition_key)
        if ctx.has_nothing_to_predict:  # what was predicted of earlier rows stays
            yield warned(key, _CHECK, NO_ROWS)
            return
        served = who_serves(ctx)
        lineage, made = of_predictions(ctx, served.aliases), ctx.current("predictions")
        if made is not None and lineage.already_made(made):
            yield dg.Output(Unchanged(made), "predictions", metadata=as_before(context, key))
            yield _as_before(key, made)
            return
        country = _country(ctx, lineage)
        given = predictions_of(country, served)
        if problem := _problem(given):
            record_refusal(ctx, lineage, problem, naive(dt.datetime.now(dt.UTC)))
            yield failed(key, _CHECK, problem)
            raise dg.Failure(
                f"{product.name} {ctx.country}: {problem}. The last good predictions stay; look at "
                "`features` and `champion` of the country."
            )
        shown = {**_shown(ctx.spec, given.frame, country.features, given.by), **_told(given)}
        yield dg.Output(given.frame, "predictions", metadata={**shown, **lineage.metadata()})
        yield _result(key, given)

    return [predictions]


def _country(ctx: CountryContext, lineage: Lineage) -> PredictedCountry:
    source, naming = named_input(ctx, lineage, "features"), serving_baseline(ctx)
    return PredictedCountry(
        spec=ctx.spec,
        features=ctx.store.read(source.asset, ctx.country, version=source.version),
        registry=ctx.registry,
        features_version=lineage.inputs["features"],
        baseline=naming.name,
        blocked=frozenset(blocked_versions(entries(ctx.whole, ctx.country))),
    )


def _as_before(key: dg.AssetKey, made: Snapshot) -> dg.AssetCheckResult:
    """The check of predictions that are there already."""
    text, told = f"nothing new to predict; {made.rows:,} rows as before", given_out_of(made)
    said = told.describe()
    return warned(key, _CHECK, f"{text}; {said}") if said else passed(key, _CHECK, text)


def _problem(made: Predictions) -> str | None:
    """Why these are no predictions, or nobody's could be taken; None: all is well."""
    if made.frame.empty and not made.problem:
        return "there is no row to predict"
    if made.frame.duplicated(["entity", "event_time"]).any():
        return "an entity has two predictions for the same time"
    return made.problem or None


def _told(made: Predictions) -> dict[str, Any]:
    """What a person has to know of them, and what the snapshot keeps of it."""
    problem, given_out = made.problem_of_previous, made.given_out
    told = given_out.describe()
    return {
        **({"previous_is_not_there": problem} if problem else {}),
        **({"not_as_the_champion_says": told} if told else {}),
        **given_out.metadata(),
    }


def _result(key: dg.AssetKey, made: Predictions) -> dg.AssetCheckResult:
    """The check of predictions that are given out."""
    values, told = made.frame["prediction"], made.given_out.describe()
    text = f"{len(values):,} predictions from {values.min():.4g} to {values.max():.4g}"
    return warned(key, _CHECK, f"{text}; {told}") if told else passed(key, _CHECK, text)


def _shown(
    spec: ProductSpec, frame: pd.DataFrame, features: pd.DataFrame, served: Served
) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "model_kind": served.kind,
        "model_version": served.version.version if served.version else "none",
        "why_this_model": served.reason,
        "previous_version": served.previous.version if served.previous else "none",
        "rows_by_when_made": facts_metadata(_counted(frame["made"])),
        **preview(frame.drop(columns=list(_SAID_ONCE))),
    }
    if frame["lower"].notna().any():
        shown["forecast_against_actual"] = svg_metadata(
            _plot(spec, frame, features), "forecast and actual"
        )
    return shown


def _counted(values: pd.Series) -> dict[str, object]:
    return {str(value): int(rows) for value, rows in values.value_counts().items()}


def _plot(spec: ProductSpec, frame: pd.DataFrame, features: pd.DataFrame) -> str:
    keys = ["entity", "event_time"]
    joined = frame.merge(features[[*keys, "label_time", "label"]], on=keys).tail(_PLOTTED_ROWS)
    return forecast_against_actual(
        joined["label_time"],
        joined["label"],
        joined["prediction"],
        joined["lower"],
        upper=joined["upper"],
        unit=spec.target.unit,
    )
