"""Predictions: the champion, else the baseline, on the rows no model has learned from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from mlops_assets.errors import RegistryError, TrainingError
from mlops_assets.ml.charts.plots import forecast_against_actual
from mlops_assets.ml.evaluation.intervals import Intervals, intervals_around, residual_history
from mlops_assets.ml.models.baselines import baseline_predictions
from mlops_assets.ml.models.fitted_model import predict
from mlops_assets.ml.models.split import newest_label, split
from mlops_assets.product import Product
from mlops_assets.registry import MlflowRegistry, ModelVersion, Registry
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.common.base import (
    NO_ROWS,
    Storage,
    asset_key,
    country_step,
    failed,
    gate,
    output,
    passed,
    warned,
)
from mlops_assets.stages.common.lineage import named_input, of_predictions
from mlops_assets.stages.common.ui_metadata import (
    as_before,
    facts_metadata,
    predictions_schema,
    preview,
    svg_metadata,
)
from mlops_assets.stages.training.intervals import intervals_of
from mlops_assets.stages.training.serving import (
    Served,
    evaluation_model,
    evaluation_split,
    fitted,
    known_to,
    who_serves,
)
from mlops_assets.storage.io_manager import Unchanged

_CHECK = "schema_and_range"
_CHECK_DESCRIPTION = (
    "There are predictions, one for each entity and time, none empty, each within the range of the "
    "YAML. If not, the last good predictions stay."
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
            yield passed(key, _CHECK, f"nothing new to predict; {made.rows:,} rows as before")
            return
        spec, source = ctx.spec, named_input(ctx, lineage, "features")
        features = ctx.store.read(source.asset, ctx.country, version=source.version)
        frame, problem_of_previous = _predict(
            spec, features, served, ctx.registry, features_version=lineage.inputs["features"]
        )
        if problem := _problem(frame, spec):
            yield failed(key, _CHECK, problem)
            raise dg.Failure(
                f"{product.name} {ctx.country}: {problem}. The last good predictions stay; look at "
                "`features` and `champion` of the country."
            )
        shown = {
            **_shown(spec, frame, features, served),
            **({"previous_is_not_there": problem_of_previous} if problem_of_previous else {}),
        }
        yield dg.Output(frame, "predictions", metadata={**shown, **lineage.metadata()})
        text = f"{len(frame):,} predictions from {frame['prediction'].min():.4g} to "
        yield passed(key, _CHECK, f"{text}{frame['prediction'].max():.4g}")

    return [predictions]


@dataclass(frozen=True)
class _Predicted:
    """Predictions of rows, shape (rows,), NaN where there are none; and why, if all are."""

    values: np.ndarray
    problem: str = ""


def _predict(
    spec: ProductSpec,
    features: pd.DataFrame,
    served: Served,
    registry: Registry,
    *,
    features_version: str,
) -> tuple[pd.DataFrame, str]:
    """The predictions, and why the previous model gives none."""
    rows = _unseen(spec, features, served)
    known = _known(served, rows)
    values, around = _values(spec, features, rows, known, served=served, registry=registry)
    before = _of_previous(spec, rows, known, served, registry=registry)
    frame = pd.DataFrame(
        {
            "entity": rows["entity"],
            "event_time": rows["event_time"],
            "prediction": values,
            "lower": around.low,
            "upper": around.high,
            "made": np.select([known, rows["label"].notna()], ["hindcast", "late"], "ahead"),
            "model_kind": served.kind,
            "model_version": served.version.version if served.version else "",
            "reason": served.reason,
            "features_version": features_version,
            "previous_version": served.previous.version if served.previous else "",
            "previous_prediction": before.values,
        }
    )
    return frame.reset_index(drop=True), before.problem


def _unseen(spec: ProductSpec, features: pd.DataFrame, served: Served) -> pd.DataFrame:
    """Rows since the start of the holdout; the newest ones when there are none since then.

    Of the holdout that the champion was judged on: it stays where it is as long as that serves.
    """
    judged = evaluation_split(served.version, spec) if served.version else spec.split
    dates = judged.dates(newest_label(features))
    if dates is not None:
        rows = features[features["event_time"] >= pd.Timestamp(dates.holdout_from)]
        if len(rows):
            return rows
    return features[features["event_time"] == features["event_time"].max()]


def _known(served: Served, rows: pd.DataFrame) -> np.ndarray:
    """Whether the truth of a row was known when the model was trained, shape (rows,)."""
    if served.version is None:
        return rows["label"].notna().to_numpy()
    return known_to(served.version, rows)


def _values(
    spec: ProductSpec,
    features: pd.DataFrame,
    rows: pd.DataFrame,
    known: np.ndarray,
    *,
    served: Served,
    registry: Registry,
) -> tuple[np.ndarray, Intervals]:
    """Predictions of the rows with their intervals, exactly as the candidate was judged."""
    if served.version is None:
        return _of_baseline(spec, features, rows, served.baseline)
    values = _of_champion(served.version, rows, known, spec, registry=registry)
    return values, intervals_of(served.version, rows, values, spec, registry=registry)


def _of_champion(
    version: ModelVersion,
    rows: pd.DataFrame,
    known: np.ndarray,
    spec: ProductSpec,
    *,
    registry: Registry,
) -> np.ndarray:
    """By the evaluation model what was known at the training, by what serves everything since.

    So no prediction is of a row that its model has learned.
    """
    twin = evaluation_model(version)
    if twin is version:
        return predict(fitted(version.name, version, spec, registry), rows, spec.task)
    values = np.full(len(rows), np.nan)
    for files, own in ((twin, known), (version, ~known)):
        if own.any():
            model = fitted(version.name, files, spec, registry)
            values[own] = predict(model, rows[own], spec.task)
    return values


def _of_previous(
    spec: ProductSpec,
    rows: pd.DataFrame,
    known: np.ndarray,
    served: Served,
    *,
    registry: Registry,
) -> _Predicted:
    """What the model in use before would have predicted, for the rows that neither has seen.

    One that cannot predict is no reason to be without predictions.
    """
    values, version = np.full(len(rows), np.nan), served.previous
    new = ~known if version is None else ~known & ~known_to(version, rows)
    if version is None or not new.any():
        return _Predicted(values)
    try:
        values[new] = predict(fitted(version.name, version, spec, registry), rows[new], spec.task)
    except (RegistryError, TrainingError) as error:
        return _Predicted(values, error.problem)
    return _Predicted(values)


def _of_baseline(
    spec: ProductSpec, features: pd.DataFrame, rows: pd.DataFrame, name: str
) -> tuple[np.ndarray, Intervals]:
    parts = split(features, spec.split)
    baseline = next(each for each in spec.baselines if each.name == name)
    known = parts.final if len(parts.final) else features[features["label"].notna()]
    values = baseline_predictions(baseline, known, rows)
    naive = baseline_predictions(baseline, parts.train, parts.validation)
    errors = residual_history(parts.validation, naive)
    return values, intervals_around(errors, rows, values, None, spec=spec)


def _problem(frame: pd.DataFrame, spec: ProductSpec) -> str | None:
    if frame.empty:
        return "there is no row to predict"
    if frame.duplicated(["entity", "event_time"]).any():
        return "an entity has two predictions for the same time"
    values, limits = frame["prediction"], spec.predictions
    if missing := int(values.isna().sum()):
        return f"{missing:,} of {len(frame):,} predictions are empty"
    outside = frame[~values.between(limits.minimum, limits.maximum)]
    if len(outside):
        worst = outside.loc[(outside["prediction"] - limits.minimum).abs().idxmax()]
        return (
            f"{len(outside):,} of {len(frame):,} predictions are outside {limits.minimum:g} to "
            f"{limits.maximum:g}, such as {worst['prediction']:.4g} for {worst['entity']} at "
            f"{worst['event_time']}"
        )
    return None


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
