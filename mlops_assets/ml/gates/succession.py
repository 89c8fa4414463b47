"""Whether one pooled model may follow another, by the holdout of all their countries.

A country with few rows can never say by itself that a pooled model is better than the one in use.
All countries together can. They are asked once, when the pooled model is trained: its predictions
of the holdout rows are stored beside those of the pooled models in use, and every comparison with
them is made there and then. What a country decides by is what was stored, so that it depends on
nothing that happens in another country at that moment.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from mlops_assets.errors import TrainingError
from mlops_assets.ml.models.fitted_model import FittedModel, predict
from mlops_assets.ml.stats.bootstrap import gain_estimates
from mlops_assets.ml.stats.draws import BootstrapWeights, draw_rows
from mlops_assets.ml.stats.metrics import NAN, UNKNOWN, Estimate, score
from mlops_assets.spec import EvaluationSpec, ProductSpec

DECISION_TAIL_DRAWS = 20
"""Draws that are to be beyond the bound of a decision, so that its place is not chance."""
KEYS = ("country", "region", "entity", "event_time", "label_time", "label")
"""Columns of every frame of pooled evidence, before a column of predictions for each model."""


@dataclass(frozen=True)
class PooledComparison:
    """A pooled model beside the one it may follow, on the holdout rows both predict.

    Args:
        candidate: pooled name and version, as `model_title` makes it.
        champion: the same of the one it may follow.
        region: whose rows they are; "" for those of all countries.
        rows: both were scored on.
        countries: they are of.
        candidate_value: metric of the candidate; NaN without a comparison.
        champion_value: metric of the champion.
        gain: improvement on the champion, with its bounds at `level` on either side.
        metric: of the product.
        level: one-sided.
        draws: of the bootstrap.
        block_days: calendar days drawn together.
        draw_by: how the product wants rows drawn (`EvaluationSpec.draw_by`).
        seed: of the draws.
        drawn_by: what was drawn: time, entity or both; "" without a comparison.
        drawn: from how many rows of what (`draws.Drawn.text`).
        problem: why nothing can be told; "" if it can.
        evidence: content hash of the rows; "" where they are not stored.
        fresher_level: one-sided, of `fresher_lower`; NaN for `level`, as it was before there was
            another one.
        fresher_lower: bound of the gain that a candidate which knows more days is judged by.
    """

    candidate: str
    champion: str
    region: str = ""
    rows: int = 0
    countries: int = 0
    candidate_value: float = NAN
    champion_value: float = NAN
    gain: Estimate = UNKNOWN
    metric: str = ""
    level: float = NAN
    draws: int = 0
    block_days: int = 0
    draw_by: Literal["auto", "time", "entity", "both"] = "auto"
    seed: int = 0
    drawn_by: str = ""
    drawn: str = ""
    problem: str = ""
    evidence: str = ""
    fresher_level: float = NAN
    fresher_lower: float = NAN

    @property
    def is_same(self) -> bool:
        """Whether the candidate is the very model that is in use."""
        return self.candidate == self.champion

    @property
    def told_of(self) -> str:
        """Which rows these are, in words."""
        of = f" of region {self.region}" if self.region else ""
        return f"{self.rows:,} rows of {self.countries:,} countries{of}"


@dataclass(frozen=True)
class HoldoutRows:
    """The holdout rows of many countries under each other, that pooled models are compared on.

    Args:
        rows: as in `Split.holdout`.
        country: of each row, shape (rows,).
        predictions: by `model_title`, shape (rows,) each; NaN for what a model is not for, or may
            have seen.
    """

    rows: pd.DataFrame
    country: np.ndarray
    predictions: Mapping[str, np.ndarray] = field(default_factory=dict)

    def having(self, title: str, predicted: np.ndarray) -> HoldoutRows:
        """With the predictions of one more model."""
        return replace(self, predictions={**self.predictions, title: predicted})

    def frame(self, spec: ProductSpec) -> pd.DataFrame:
        """As it is stored: `KEYS`, then a column a model."""
        region = {country: name for name, every in spec.regions.items() for country in every}
        named = {
            "country": self.country,
            "region": np.array([region.get(each, "") for each in self.country], dtype="object"),
            "entity": self.rows["entity"].astype(str).to_numpy(dtype="object"),
            **{name: self.rows[name].to_numpy() for name in ("event_time", "label_time")},
            "label": self.rows["label"].to_numpy(dtype="float64"),
        }
        return pd.DataFrame({**named, **self.predictions})


def model_title(name: str, version: str) -> str:
    """What a registered pooled model is called where it is compared: pooled name and version."""
    return f"{name} version {version}"


def level_used(spec: ProductSpec) -> float:
    """The level of a decision: one-sided, lowered where many countries decide.

    With n countries and no candidate better than its champion, n times the level are promoted on
    average; that is to be `decision.max_false_promotions` at most.
    """
    return min(spec.decision.level, spec.decision.max_false_promotions / len(spec.countries))


def level_of_fresher(spec: ProductSpec) -> float:
    """The level at which a candidate that knows more days must not be worse: one-sided.

    Not lowered where many countries decide; in a decision recorded before there was one, that of
    any candidate.
    """
    earlier = spec.decision.before_refresh_margin
    return level_used(spec) if earlier else spec.decision.refresh_level


def decision_draws(spec: ProductSpec, level: float) -> int:
    """Draws of the bootstrap that a decision at a level needs."""
    return max(spec.evaluation.draws, math.ceil(DECISION_TAIL_DRAWS / level))


def pooled_predictions(
    spec: ProductSpec,
    held: HoldoutRows,
    model: FittedModel,
    *,
    region: str = "",
    unseen_from: pd.Timestamp | None = None,
) -> np.ndarray | None:
    """What a pooled model, as it was judged, predicts for the holdout rows, shape (rows,).

    Args:
        spec: the product.
        held: the rows.
        model: fitted on none of them, or on those up to `unseen_from`.
        region: that it was trained for; "" for all countries.
        unseen_from: event time up to which it may have seen rows; None: it has seen none.

    Returns:
        NaN for rows of other regions and for those it may have seen; None where it needs features
        that are no more.
    """
    inside = np.ones(len(held.rows), dtype=bool)
    if region:
        inside &= np.isin(held.country, spec.regions.get(region, []))
    if unseen_from is not None:
        inside &= (held.rows["event_time"] > unseen_from).to_numpy()
    values = np.full(len(held.rows), NAN)
    if not inside.any():
        return values
    try:
        values[inside] = predict(model, held.rows[inside], spec.task)
    except TrainingError:
        return None
    return values


def compare_successors(
    spec: ProductSpec, evidence: pd.DataFrame, candidates: Iterable[str], champions: Iterable[str]
) -> list[PooledComparison]:
    """Each candidate beside each champion, on the rows of all countries and of each region.

    Args:
        spec: the product.
        evidence: the frame of `HoldoutRows`.
        candidates: columns of it.
        champions: columns of it.
    """
    drawn: dict[bytes, BootstrapWeights] = {}  # most pairs are of the same rows
    return [
        compared_again(_asked(spec, candidate, champion, region), evidence, drawn)
        for candidate in candidates
        for champion in champions
        for region in ("", *spec.regions)
    ]


def compare_pooled(
    spec: ProductSpec, evidence: pd.DataFrame, candidate: str, champion: str, *, region: str = ""
) -> PooledComparison:
    """One pooled model beside another on the rows that both predict.

    Args:
        spec: the product.
        evidence: the frame of `HoldoutRows`.
        candidate: column of it.
        champion: column of it.
        region: whose rows; "" for those of all countries.
    """
    return compared_again(_asked(spec, candidate, champion, region), evidence)


def _asked(spec: ProductSpec, candidate: str, champion: str, region: str) -> PooledComparison:
    """A comparison that is still to be made."""
    level = level_used(spec)
    return PooledComparison(
        candidate,
        champion,
        region,
        metric=spec.metric,
        level=level,
        draws=decision_draws(spec, level),
        block_days=spec.evaluation.block_days,
        draw_by=spec.evaluation.draw_by,
        seed=spec.seed,
        fresher_level=level_of_fresher(spec),
    )


def compared_again(
    asked: PooledComparison,
    evidence: pd.DataFrame,
    drawn: MutableMapping[bytes, BootstrapWeights] | None = None,
) -> PooledComparison:
    """The same comparison from the rows it was made from; what it says beside them is taken.

    Args:
        asked: a comparison; its numbers are not looked at.
        evidence: its frame.
        drawn: what was drawn of its rows before, by which of them, for comparisons that are drawn
            alike; added to.
    """
    inside = (evidence["region"] == asked.region) if asked.region else evidence["country"].notna()
    both = inside & evidence[asked.candidate].notna() & evidence[asked.champion].notna()
    rows = evidence[both]
    of, known = both.to_numpy(bool).tobytes(), {} if drawn is None else drawn
    if of not in known:
        evaluation = EvaluationSpec(block_days=asked.block_days, draw_by=asked.draw_by)
        known[of] = draw_rows(evaluation, rows, seed=asked.seed, draws=asked.draws)
    draws = known[of]
    y, ours, theirs = (
        rows[name].to_numpy(dtype="float64") for name in ("label", asked.candidate, asked.champion)
    )
    levels = (asked.level, asked.fresher_level)
    gain, fresher = gain_estimates(asked.metric, y, ours, theirs, draws=draws, tails=levels)
    told = f"{asked.metric} cannot be told on {len(rows)} rows"
    return replace(
        asked,
        rows=len(rows),
        countries=rows["country"].nunique(),
        candidate_value=score(asked.metric, y, ours),
        champion_value=score(asked.metric, y, theirs),
        gain=gain,
        fresher_lower=fresher.lower,
        drawn_by=draws.drawn.by,
        drawn=draws.drawn.text,
        problem="" if gain.has_interval else draws.problem or told,
    )


def comparison_for(
    made: Sequence[PooledComparison], candidate: str, champion: str, region: str
) -> PooledComparison:
    """What a country goes by: the rows of its region where these can tell, else of all countries.

    Args:
        made: with the candidate, when it was trained.
        candidate: pooled name and version.
        champion: the same of the one in use.
        region: the country is in; "" for none.
    """
    if candidate == champion:
        return PooledComparison(candidate, champion)
    found = {
        each.region: each
        for each in made
        if (each.candidate, each.champion) == (candidate, champion)
    }
    told = [found[of] for of in dict.fromkeys((region, "")) if of in found]
    if not told:
        problem = f"{candidate} was not compared with {champion} when it was trained"
        return PooledComparison(candidate, champion, region, problem=problem)
    return next((each for each in told if not each.problem), told[-1])


def comparisons_to_json(made: Sequence[PooledComparison]) -> str:
    """As they are stored with a pooled model and with decisions; `comparisons_from_json` reads."""
    return json.dumps([_plain(each) for each in made])


def comparisons_from_json(text: str) -> list[PooledComparison]:
    """What `comparisons_to_json` wrote; none for ""."""
    return [_read(held) for held in json.loads(text or "[]")]


_NUMBERS = ("candidate_value", "champion_value", "level", "fresher_level", "fresher_lower")


def _plain(made: PooledComparison) -> dict[str, Any]:
    """JSON has no NaN."""
    held = asdict(made)
    gain = [_number(each) for each in (made.gain.value, made.gain.lower, made.gain.upper)]
    return {**held, **{name: _number(held[name]) for name in _NUMBERS}, "gain": gain}


def _read(held: Mapping[str, Any]) -> PooledComparison:
    numbers = {name: _float(held.get(name)) for name in _NUMBERS}
    gain = Estimate(*(_float(each) for each in held["gain"]))
    if "fresher_lower" not in held:
        numbers["fresher_lower"] = gain.lower  # as it is told again of `fresher_level` NaN
    return PooledComparison(**{**held, **numbers, "gain": gain})


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _float(value: float | None) -> float:
    return NAN if value is None else value
