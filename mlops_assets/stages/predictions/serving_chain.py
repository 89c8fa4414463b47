"""Who predicts: what is in use, or else what served before it, or the baseline.

The predictions of each are held against the range of the product; the first whose predictions are
taken gives them all.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mlops_assets.errors import RegistryError, TrainingError
from mlops_assets.ml.evaluation.intervals import Intervals, intervals_around, residual_history
from mlops_assets.ml.models.baselines import baseline_predictions
from mlops_assets.ml.models.fitted_model import predict
from mlops_assets.ml.models.prediction_range import Admitted, awaited_rows, held_to_range
from mlops_assets.ml.models.split import newest_label, split
from mlops_assets.registry import ModelVersion, Registry
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.common.lineage import BASELINE
from mlops_assets.stages.predictions.given_out import GivenOut, called
from mlops_assets.stages.training.intervals import intervals_of
from mlops_assets.stages.training.serving import (
    Served,
    evaluation_model,
    evaluation_split,
    fitted,
    known_to,
)


@dataclass(frozen=True)
class PredictedCountry:
    """What predictions of a country follow from.

    Attributes:
        spec: the product as it is for the country.
        features: of it, with the labels known by now.
        registry: where the models are.
        features_version: content hash of the features.
        baseline: name of the one that serves where no model does.
        blocked: versions that were rolled back from or withdrawn; they stand in for nobody.
    """

    spec: ProductSpec
    features: pd.DataFrame
    registry: Registry
    features_version: str
    baseline: str
    blocked: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Predictions:
    """The predictions of a country as they are given out.

    Attributes:
        frame: one row a prediction; rows that are left out are not in it.
        by: who predicts.
        given_out: how they differ from what the model in use says.
        problem: why there are none that can be taken; "" if there are.
        problem_of_previous: why the version in use before gives none to compare with.
    """

    frame: pd.DataFrame
    by: Served
    given_out: GivenOut
    problem: str = ""
    problem_of_previous: str = ""


def predictions_of(country: PredictedCountry, served: Served) -> Predictions:
    """Those of what is in use, if they can be taken; else of who is to serve in its place.

    Args:
        country: whose.
        served: what is in use, and what was before.

    Raises:
        RegistryError: the files of what is in use are lost or damaged.
        TrainingError: it cannot predict the rows.
    """
    made = _made(country, served)
    if not made.refusal:
        return _taken(served, made, GivenOut())
    refused, problems = _name_of(served), [f"{called(_name_of(served))}: {made.refusal}"]
    why = made.admitted.verdict.describe(country.spec.predictions)
    for other in _in_its_place(country, served):
        name = _name_of(other)
        try:
            instead = _made(country, other)
        except (RegistryError, TrainingError) as error:  # as good as none; the next one is asked
            problems.append(f"{called(name)}: {error.problem}")
            continue
        if not instead.refusal:
            given_out = GivenOut(by=name, refused=refused, why=why)
            told = replace(other, reason=given_out.describe())
            return _taken(told, instead, given_out)
        problems.append(f"{called(name)}: {instead.refusal}")
    return Predictions(made.frame, served, GivenOut(), "; ".join(problems))


def _name_of(served: Served) -> str:
    """The version that serves, or `baseline`."""
    return served.version.version if served.version else BASELINE


def _in_its_place(country: PredictedCountry, served: Served) -> Iterator[Served]:
    """Who serves where the predictions of what is in use are refused, in turn."""
    wanted = country.spec.predictions.if_refused
    if wanted == "keep" or served.version is None:
        return
    before = served.previous
    if wanted == "previous" and before is not None and before.version not in country.blocked:
        yield Served(before.kind, before, "")
    yield Served(BASELINE, None, "", baseline=country.baseline)


@dataclass(frozen=True)
class _Made:
    """What one of them predicts.

    Attributes:
        frame: every row, those that are left out with NaN.
        admitted: the same held against the range.
        refusal: why it cannot be taken; "" if it can.
        problem_of_previous: as in `Predictions`.
    """

    frame: pd.DataFrame
    admitted: Admitted
    refusal: str
    problem_of_previous: str


def _made(country: PredictedCountry, served: Served) -> _Made:
    spec, rows = country.spec, _unseen(country.spec, country.features, served)
    known = _known(served, rows)
    said = _said(country, rows, known, served)
    naive = _Naive(country, rows)
    admitted = held_to_range(
        said,
        rows,
        awaited_rows(rows, newest_label(country.features)),
        spec.predictions,
        baseline=naive.values,
    )
    around = _around(country, rows, admitted, served, naive=naive)
    before = _of_previous(country, rows, known, served)
    version = served.version.version if served.version else ""
    by_baseline = admitted.answers == "baseline"
    why = f"in place of version {version}, beyond the range" if version else "beyond the range"
    frame = pd.DataFrame(
        {
            "entity": rows["entity"],
            "event_time": rows["event_time"],
            "prediction": admitted.values,
            "lower": around.low,
            "upper": around.high,
            "made": np.select([known, rows["label"].notna()], ["hindcast", "late"], "ahead"),
            "model_kind": np.where(by_baseline, BASELINE, served.kind).astype("object"),
            "model_version": np.where(by_baseline, "", version).astype("object"),
            "reason": np.where(by_baseline, why, served.reason).astype("object"),
            "features_version": country.features_version,
            "previous_version": served.previous.version if served.previous else "",
            "previous_prediction": before.values,
            "beyond": admitted.answers,
            "as_predicted": np.where(admitted.answers == "", np.nan, said),
        }
    )
    return _Made(frame.reset_index(drop=True), admitted, admitted.refusal, before.problem)


def _taken(served: Served, made: _Made, given_out: GivenOut) -> Predictions:
    """As they are stored: without the rows that have no prediction."""
    own = made.frame["beyond"] != BASELINE
    frame = made.frame.assign(reason=made.frame["reason"].mask(own, served.reason))
    counted = frame["beyond"][frame["beyond"] != ""].value_counts()
    answers = {str(name): int(rows) for name, rows in counted.items()}
    given_out = replace(given_out, answers=answers, told=made.admitted.told)
    kept = frame[(frame["beyond"] != "left_out").to_numpy()].reset_index(drop=True)
    return Predictions(kept, served, given_out, problem_of_previous=made.problem_of_previous)


@dataclass(frozen=True)
class _Previous:
    """Predictions of rows, shape (rows,), NaN where there are none; and why, if all are."""

    values: np.ndarray
    problem: str = ""


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


def _said(
    country: PredictedCountry, rows: pd.DataFrame, known: np.ndarray, served: Served
) -> np.ndarray:
    """What it predicts, shape (rows,), exactly as the candidate was judged."""
    if served.version is None:
        return _Naive(country, rows, served.baseline).values()
    return _of_champion(served.version, rows, known, country.spec, registry=country.registry)


def _around(
    country: PredictedCountry,
    rows: pd.DataFrame,
    admitted: Admitted,
    served: Served,
    *,
    naive: "_Naive",
) -> Intervals:
    """Intervals around what is given out; around the baseline where that answers."""
    by_baseline = admitted.answers == "baseline"
    if served.version is None:
        return _Naive(country, rows, served.baseline).around(admitted.values)
    own = np.where(by_baseline, np.nan, admitted.values)
    around = intervals_of(served.version, rows, own, country.spec, registry=country.registry)
    if not by_baseline.any():
        return around
    other = naive.around(admitted.values)
    return Intervals(
        np.where(by_baseline, other.low, around.low), np.where(by_baseline, other.high, around.high)
    )


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
    country: PredictedCountry, rows: pd.DataFrame, known: np.ndarray, served: Served
) -> _Previous:
    """What the model in use before would have predicted, for the rows that neither has seen.

    One that cannot predict is no reason to be without predictions.
    """
    values, version = np.full(len(rows), np.nan), served.previous
    new = ~known if version is None else ~known & ~known_to(version, rows)
    if version is None or not new.any():
        return _Previous(values)
    spec = country.spec
    try:
        model = fitted(version.name, version, spec, country.registry)
        values[new] = predict(model, rows[new], spec.task)
    except (RegistryError, TrainingError) as error:
        return _Previous(values, error.problem)
    return _Previous(values)


class _Naive:
    """What a baseline says of rows.

    Args:
        country: whose.
        rows: of its features.
        name: of the baseline; "" for the one that serves where no model does.
    """

    def __init__(self, country: PredictedCountry, rows: pd.DataFrame, name: str = "") -> None:
        spec, wanted = country.spec, name or country.baseline
        self._spec, self._rows, self._features = spec, rows, country.features
        self._baseline = next(each for each in spec.baselines if each.name == wanted)

    def values(self) -> np.ndarray:
        """Shape (rows,); NaN where it says nothing."""
        parts = split(self._features, self._spec.split)
        known = self._features[self._features["label"].notna()]
        learned = parts.final if len(parts.final) else known
        return baseline_predictions(self._baseline, learned, self._rows)

    def around(self, values: np.ndarray) -> Intervals:
        """Intervals around values of the rows, by the errors of the baseline on validation rows."""
        parts = split(self._features, self._spec.split)
        naive = baseline_predictions(self._baseline, parts.train, parts.validation)
        errors = residual_history(parts.validation, naive)
        return intervals_around(errors, self._rows, values, None, spec=self._spec)
