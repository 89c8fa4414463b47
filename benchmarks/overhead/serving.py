"""The floor's predictions, and what it sees of them: performance and drift."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from benchmarks.overhead.place import Place
from benchmarks.overhead.training import Trained
from mlops_assets.ml.evaluation.intervals import Intervals, intervals_around, residual_history
from mlops_assets.ml.models.baselines import baseline_predictions
from mlops_assets.ml.models.fitted_model import predict
from mlops_assets.ml.models.split import newest_label
from mlops_assets.ml.monitoring.drift import compare_all, drift_not_judged, state_of, window_ends
from mlops_assets.ml.monitoring.performance import (
    against_previous,
    no_performance,
    promise_of,
    realised,
    record_predictions,
)
from mlops_assets.ml.monitoring.profiles import profile, window_rows

_LOOKED_AT = 13


@dataclass(frozen=True)
class _Values:
    """Predictions of rows with their intervals."""

    values: np.ndarray
    around: Intervals


def serve(place: Place, country: str, features: pd.DataFrame, trained: Trained) -> None:
    """Predict with who serves the country, and look at predictions and rows."""
    with place.clock.part("predictions and monitoring"):
        predictions = _predictions(features, trained)
        performance, told = _performance(features, predictions, trained)
        drift = _drift(features, predictions, trained)
    place.write(predictions, "predictions", country)
    place.write(performance, "performance", country)
    place.write(told, "realised", country)
    place.write(drift, "drift", country)


def _predictions(features: pd.DataFrame, trained: Trained) -> pd.DataFrame:
    rows = _unseen(features, trained)
    known = _known(rows, trained)
    found = _of_model(rows, known, trained) if trained.serves else _of_baseline(rows, trained)
    selection = trained.selection
    return pd.DataFrame(
        {
            "entity": rows["entity"],
            "event_time": rows["event_time"],
            "prediction": found.values,
            "lower": found.around.low,
            "upper": found.around.high,
            "made": np.select([known, rows["label"].notna()], ["hindcast", "late"], "ahead"),
            "model_kind": selection.kind if trained.serves else "baseline",
            "model_version": trained.version if trained.serves else "",
            "reason": selection.reason if trained.serves else trained.decision.reason,
            "previous_version": "",
            "previous_prediction": np.nan,
        }
    ).reset_index(drop=True)


def _unseen(features: pd.DataFrame, trained: Trained) -> pd.DataFrame:
    """Rows since the start of the holdout; the newest when there are none since then."""
    began = trained.parts.holdout_from
    if not trained.serves:
        dates = trained.spec.split.dates(newest_label(features))
        began = pd.Timestamp(dates.holdout_from) if dates else None
    rows = features[features["event_time"] >= began] if began is not None else features.iloc[:0]
    return rows if len(rows) else features[features["event_time"] == features["event_time"].max()]


def _known(rows: pd.DataFrame, trained: Trained) -> np.ndarray:
    if not trained.serves:
        return rows["label"].notna().to_numpy()
    return (rows["label_time"] <= newest_label(trained.parts.known)).to_numpy()


def _of_model(rows: pd.DataFrame, known: np.ndarray, trained: Trained) -> _Values:
    """By the evaluation model what was known at the training, by what serves everything since."""
    judged, served, spec = trained.selection.model, trained.selection.served, trained.spec
    assert judged is not None
    assert served is not None
    values = np.full(len(rows), np.nan)
    for model, own in ((judged, known), (served, ~known)):
        if own.any():
            values[own] = predict(model, rows[own], spec.task)
    return _Values(values, intervals_around(trained.errors, rows, values, trained.scale, spec=spec))


def _of_baseline(rows: pd.DataFrame, trained: Trained) -> _Values:
    spec, parts = trained.spec, trained.parts
    baseline = spec.baselines[0]
    values = baseline_predictions(baseline, parts.final, rows)
    naive = baseline_predictions(baseline, parts.train, parts.validation)
    errors = residual_history(parts.validation, naive)
    return _Values(values, intervals_around(errors, rows, values, None, spec=spec))


def _performance(
    features: pd.DataFrame, predictions: pd.DataFrame, trained: Trained
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of performance, and the one row it amounts to."""
    spec, version = trained.spec, trained.version if trained.serves else ""
    now = pd.Timestamp.now("UTC").tz_localize(None).as_unit("ns")
    table = record_predictions(
        no_performance(), predictions.assign(predicted_at=now), features, spec
    )
    promise = promise_of(spec, trained.judged.report if trained.serves else None)
    found = realised(spec, table, promise, version)
    gain = against_previous(spec, table, version)
    return table, pd.DataFrame(
        [{"reason": found.reason, "value": found.value.value, "gain": gain.value}]
    )


def _drift(features: pd.DataFrame, predictions: pd.DataFrame, trained: Trained) -> pd.DataFrame:
    """One row per judged window and feature; one row with the reason where nothing is judged."""
    spec, reference = trained.spec, trained.reference
    if reference is None or not trained.serves:
        return pd.DataFrame([{"reason": drift_not_judged("the baseline serves").reason}])
    newest = features["event_time"].max()
    count = max(_LOOKED_AT, spec.monitoring.of_windows)
    ends = [end for end in window_ends(spec, newest, count) if end > reference.last]
    profiles = [
        profile(
            reference,
            window_rows(spec, reference, features, end),
            window_rows(spec, reference, predictions, end)["prediction"],
            end,
        )
        for end in ends
    ]
    windows = compare_all(spec, reference, profiles)
    state = state_of(spec, windows)
    rows = [{"end": window.end, **asdict(each)} for window in windows for each in window.features]
    return pd.DataFrame(rows or [{"reason": state.reason}])
