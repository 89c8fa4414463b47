"""A country's candidate, from its features to what it predicts on the holdout.

Live training and backtest call the same function, so that a backtest tests what runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlops_assets.ml.evaluation.intervals import (
    HISTORY_COLUMNS,
    Intervals,
    intervals_around,
    residual_history,
    scale_of,
)
from mlops_assets.ml.models.fitted_model import predict
from mlops_assets.ml.models.prediction_range import RangeVerdict, awaited_rows, judge_range
from mlops_assets.ml.models.split import Split
from mlops_assets.ml.training.pooled_scores import PooledScores
from mlops_assets.ml.training.selection import (
    PooledModel,
    Selection,
    country_split,
    pooled_name,
    region_of,
    selected_predictions,
    train_candidates,
)
from mlops_assets.ml.training.tuning import Clock
from mlops_assets.spec import ProductSpec


@dataclass(frozen=True)
class TrainedCandidate:
    """The choice among a country's candidates, and what its intervals follow from.

    Args:
        spec: the product as it is for the country.
        parts: the country's rows by their use.
        selection: what was chosen, and why.
        errors: of the choice on the validation rows, before it had seen them: one row a
            validation row, with `HISTORY_COLUMNS`; empty where it made none.
        next_rows: of the country's features, that it would predict first (`awaited_rows`).
    """

    spec: ProductSpec
    parts: Split
    selection: Selection
    errors: pd.DataFrame
    next_rows: pd.DataFrame

    @property
    def scale(self) -> str | None:
        """The feature by which the errors grow; None for none."""
        return scale_feature(self.selection, self.spec)

    def on_holdout(self) -> tuple[np.ndarray, Intervals]:
        """What it predicts for the holdout, shape (rows,), and the intervals around that."""
        selection, parts = self.selection, self.parts
        predicted = selected_predictions(selection, self.spec, parts.holdout, parts.final)
        return predicted, intervals_around(
            self.errors, parts.holdout, predicted, self.scale, spec=self.spec
        )

    def on_next_rows(self) -> RangeVerdict | None:
        """What serves, on the rows it would predict first, against the range; None: a baseline."""
        if self.selection.served is None:
            return None
        predicted = predict(self.selection.served, self.next_rows, self.spec.task)
        return judge_range(predicted, self.next_rows, self.spec.predictions)


def train_country(
    spec: ProductSpec,
    features: pd.DataFrame,
    pooled: Mapping[str, PooledModel],
    *,
    country: str,
    clock: Clock,
    scores: PooledScores | None = None,
) -> TrainedCandidate:
    """Choose among local and pooled models on validation rows.

    Args:
        spec: the product as it is for the country.
        features: one row per entity and event time, with the labels known by now.
        pooled: the pooled models in use by pooled name; the holdout begins after all they know.
        country: its key.
        clock: seconds, for the budget of the search.
        scores: as in `train_candidates`.
    """
    parts = country_split(features, spec, (each.known_until for each in pooled.values()))
    selection = train_candidates(spec, parts, pooled, country=country, clock=clock, scores=scores)
    errors = validation_errors(selection, parts, spec)
    return TrainedCandidate(spec, parts, selection, errors, features[awaited_rows(features)])


def only_pooled(spec: ProductSpec, names: Collection[str], country: str) -> ProductSpec:
    """The product with nothing to choose from in a country but pooled models, none of them fitted.

    Args:
        spec: the product as it is for this country.
        names: of the pooled models; at least one that the country can choose.
        country: its key.
    """
    region = region_of(spec, country)
    of_scope = {"pooled": "", **({"region": region} if region else {})}
    narrowed = [
        candidate.model_copy(update={"scopes": scopes})
        for candidate in spec.candidates
        if (
            scopes := [
                scope
                for scope in candidate.scopes
                if scope in of_scope and pooled_name(candidate.name, of_scope[scope]) in names
            ]
        )
    ]
    return spec.model_copy(update={"candidates": narrowed})


def scale_feature(selection: Selection, spec: ProductSpec) -> str | None:
    """The feature by which the errors of the choice grow: what its candidate learns in units of."""
    return next((each.scale for each in spec.candidates if each.name == selection.name), None)


def validation_errors(selection: Selection, parts: Split, spec: ProductSpec) -> pd.DataFrame:
    """What the choice got wrong on the validation rows, before it had seen them."""
    units = scale_of(parts.validation, scale_feature(selection, spec))
    if len(selection.validated) != len(parts.validation):
        return pd.DataFrame(columns=list(HISTORY_COLUMNS))
    return residual_history(parts.validation, selection.validated, units)
