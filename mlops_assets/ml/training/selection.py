"""Which model a country gets: its own, the pooled one, or the baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import numpy as np
import pandas as pd

from mlops_assets.errors import TrainingError
from mlops_assets.ml.evaluation.behaviour import Behaved, behaviours
from mlops_assets.ml.evaluation.report import Report, evaluate
from mlops_assets.ml.models.baselines import baseline_predictions
from mlops_assets.ml.models.fitted_model import FittedModel, Param, fit, predict, with_params
from mlops_assets.ml.models.split import Split, newest_label, split, with_offset
from mlops_assets.ml.stats.metrics import is_better, score
from mlops_assets.ml.training.admission import Admission, admit
from mlops_assets.ml.training.pooled_scores import (
    ChosenBaseline,
    PooledScores,
    ValidationRows,
    baselines_by_country,
    can_judge,
    choose_baseline,
    comparable,
    lacking_rows,
    merged_scores,
    pooled_scores,
    told_of,
    validation_rows,
)
from mlops_assets.ml.training.tuning import Budget, Clock, Tuned, tune
from mlops_assets.spec import CandidateSpec, ProductSpec, Scope

T = TypeVar("T")
ModelKind = Literal["local", "region", "pooled", "baseline"]
NAN = float("nan")
_WHEN_IN_DOUBT: tuple[Scope, ...] = ("pooled", "region", "local")


@dataclass(frozen=True)
class PooledModel:
    """One candidate trained on all countries together, or on those of a region.

    Args:
        candidate: its name.
        for_validation: fitted on the train rows only; judged on a country's validation rows.
        final: fitted on all rows whose label is known before the holdout; judged on the holdout.
        served: the same procedure and parameters fitted on every known label; `final` itself
            where the product does not refit.
        report: of `final` on the holdout rows of its countries.
        region: its name; "" for all countries.
        known_until: label time of the newest label that was known in one of its countries; None
            when that was not recorded.
        trials: of the search for its parameters; see `Tuned`.
        scores: of `for_validation` on the validation rows of many countries, by which those choose
            that have too few; empty where they were not recorded.
        behaved: outcome of each behavioural test, of `final` on the holdout rows of its countries.
    """

    candidate: str
    for_validation: FittedModel
    final: FittedModel
    served: FittedModel
    report: Report
    region: str = ""
    known_until: pd.Timestamp | None = None
    trials: pd.DataFrame = field(default_factory=pd.DataFrame)
    scores: PooledScores = field(default_factory=dict)
    behaved: tuple[Behaved, ...] = ()

    @property
    def name(self) -> str:
        """Under which it is kept: the candidate's, with that of its region."""
        return pooled_name(self.candidate, self.region)

    @property
    def params(self) -> Mapping[str, Param]:
        """Of the estimator, the chosen ones included."""
        return self.final.params


@dataclass(frozen=True)
class PooledRows:
    """The rows of all countries under each other, by their use as in `Split`.

    Args:
        train: of all countries; so are the others.
        final: what is judged learns these.
        holdout: it is judged on these.
        known: what serves learns these; `final` itself where the product does not refit.
        known_until: label time of the newest label that is known in a country; None without any.
        holdout_country: of each row of `holdout`, shape (rows,).
        holdout_baselines: what each baseline says of the rows of `holdout` in their own country,
            shape (rows,) each.
        validation: the rows between `train` and `holdout`, with what baselines say of them.
    """

    train: pd.DataFrame
    final: pd.DataFrame
    holdout: pd.DataFrame
    known: pd.DataFrame
    known_until: pd.Timestamp | None
    holdout_country: np.ndarray
    holdout_baselines: Mapping[str, np.ndarray]
    validation: ValidationRows


@dataclass(frozen=True)
class CandidateOutcome:
    """What became of one candidate in one scope.

    Args:
        name: of the candidate.
        scope: local, region or pooled.
        rows: it was fitted on before validation.
        value: metric on the country's validation rows; NaN when not tried or not judged.
        reason: why it was not tried or not judged; "" if it was.
        trials: parameter sets that were tried for it in this country.
    """

    name: str
    scope: Scope
    rows: int
    value: float
    reason: str = ""
    trials: int = 0


@dataclass(frozen=True)
class Selection:
    """The choice for one country.

    Args:
        kind: local, region, pooled, or baseline when no model could be had.
        name: of the candidate or the baseline.
        model: the choice fitted up to the holdout, on which it is judged; None for a baseline.
        served: what serves: the same procedure and parameters fitted on every known label;
            `model` itself where the product does not refit, None for a baseline.
        reason: the choice in a sentence.
        tried: every candidate, in the order of the YAML.
        value: metric of the choice on the validation rows; NaN when not judged.
        region: of the country if the choice is its model; else "".
        validated: what was predicted for `Split.validation` by the choice as it was before it
            saw those rows, shape (rows,).
        trials: of all local searches: candidate, then as in `Tuned`.
        baseline: what serves as long as no model does, and why.
    """

    kind: ModelKind
    name: str
    model: FittedModel | None
    served: FittedModel | None
    reason: str
    tried: tuple[CandidateOutcome, ...]
    value: float
    region: str = ""
    validated: np.ndarray = field(default_factory=lambda: np.empty(0))
    trials: pd.DataFrame = field(default_factory=pd.DataFrame)
    baseline: ChosenBaseline = ChosenBaseline("", "")

    @property
    def pooled_name(self) -> str:
        """Of the pooled model that was chosen; "" for a local one or a baseline."""
        return pooled_name(self.name, self.region) if self.kind in ("region", "pooled") else ""

    @property
    def params(self) -> Mapping[str, Param]:
        """Of the estimator, the chosen ones included; empty for a baseline."""
        return self.model.params if self.model else {}


@dataclass(frozen=True, eq=False)
class _Contender:
    """One candidate in one scope; `final` and `served` are there for a pooled model."""

    tried: CandidateOutcome
    candidate: CandidateSpec
    fitted: FittedModel | None = None
    predicted: np.ndarray | None = None
    final: FittedModel | None = None
    served: FittedModel | None = None
    trials: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class _Country:
    """What the candidates of one country are tried with."""

    spec: ProductSpec
    parts: Split
    pooled: Mapping[str, PooledModel]
    region: str
    clock: Clock
    deadline: float | None
    baseline: ChosenBaseline


def pooled_name(candidate: str, region: str = "") -> str:
    """Under which a pooled model is kept: `<candidate>`, or `<candidate>-<region>`."""
    return f"{candidate}-{region}" if region else candidate


def pooled_names(spec: ProductSpec) -> dict[str, tuple[CandidateSpec, str]]:
    """Candidate and region ("" for all countries) of every pooled model by its name.

    Those of all countries first, so that a region's search can start at what they found.
    """
    of_all = [(each, "") for each in spec.candidates if "pooled" in each.scopes]
    of_regions = [
        (each, region)
        for each in spec.candidates
        if "region" in each.scopes
        for region in spec.regions
    ]
    return {pooled_name(each.name, region): (each, region) for each, region in of_all + of_regions}


def region_of(spec: ProductSpec, country: str) -> str:
    """The region a country is in; "" if in none."""
    return next((name for name, members in spec.regions.items() if country in members), "")


def members(spec: ProductSpec, of: Mapping[str, T], region: str) -> dict[str, T]:
    """What is of a region's countries, by country; all of it without a region."""
    return {
        country: each
        for country, each in of.items()
        if not region or country in spec.regions[region]
    }


def train_pooled(
    spec: ProductSpec,
    frames: Mapping[str, pd.DataFrame],
    *,
    clock: Clock,
    admission: Admission | None = None,
) -> Mapping[str, PooledModel]:
    """Train every pooled candidate on the rows of all countries, and of each region.

    What of a country does not fit the others is left out (see `admit`). The country is no feature
    unless the product makes it one. A candidate with a `space` is tuned
    on the train rows first, within the budget that all pooled models share; the search of a region
    starts at what was found for all countries.

    Args:
        spec: the product; a country's override of `split` applies to its own rows.
        frames: features frame per country.
        clock: gives the time, for the budget.
        admission: `admit` of them, where it is known already.

    Returns:
        Model per pooled name; without those of regions whose countries have no `min_train_rows`
        together. Empty when no candidate is pooled or there are no frames.

    Raises:
        TrainingError: a candidate cannot be fitted on the rows there are.
    """
    wanted = pooled_names(spec) if frames else {}
    deadline = _deadline(spec.tuning.pooled_seconds, clock)
    admitted = (admission or admit(spec, frames)).frames if wanted else {}
    rows = {
        region: _stacked(spec, of_region)
        for region in dict.fromkeys(["", *(region for _, region in wanted.values())])
        if wanted and (of_region := members(spec, admitted, region))
    }
    wanted = {n: one for n, one in wanted.items() if _trainable(spec, rows.get(one[1]), one[1])}
    searches = sum(bool(candidate.space) for candidate, _ in wanted.values())
    models: dict[str, PooledModel] = {}
    for name, (candidate, region) in wanted.items():
        share = _share(spec.tuning.pooled_trials, deadline, clock, searches)
        found = models.get(candidate.name)
        start = found.params if found and region else None
        tuned = tune(candidate, rows[region].train, spec, share, clock=clock, start=start)
        searches -= bool(candidate.space)
        models[name] = _pooled(
            candidate, region, tuned, spec, rows=rows[region], validation=rows[""].validation
        )
    return models


def _trainable(spec: ProductSpec, rows: PooledRows | None, region: str) -> bool:
    """Whether a pooled model is tried: always of all countries, of a region with enough rows."""
    return rows is not None and (not region or len(rows.train) >= spec.split.min_train_rows)


def pooled_rows(
    spec: ProductSpec, frames: Mapping[str, pd.DataFrame], region: str = ""
) -> PooledRows:
    """Split the admitted rows of each country and stack them.

    Countries are stacked in alphabetical order, so the result does not depend on theirs. A holdout
    that moves begins in all of them where it begins by the newest label of any: a country whose
    labels come later is not judged by a model that has seen the others' of those days.

    Args:
        spec: the product; a country's override of `split` applies to its own rows.
        frames: features frame per country; at least one that is admitted.
        region: of whose countries; "" for all. Which rows are admitted depends on all countries.
    """
    return _stacked(spec, members(spec, admit(spec, frames).frames, region))


def _stacked(spec: ProductSpec, frames: Mapping[str, pd.DataFrame]) -> PooledRows:
    newest = [each for frame in frames.values() if (each := newest_label(frame)) is not None]
    until = max(newest, default=None)
    of = {
        country: split(frames[country], spec.for_country(country).split, newest=until)
        for country in sorted(frames)
    }
    parts = list(of.values())
    held = [name for name, part in of.items() if len(part.holdout)] or list(of)[:1]
    final = _stack([part.final for part in parts])
    return PooledRows(
        train=_stack([part.train for part in parts]),
        final=final,
        holdout=_stack([part.holdout for part in parts]),
        known=_stack([part.known for part in parts]) if spec.split.refit else final,
        known_until=until,
        holdout_country=np.repeat(
            np.array(list(of), dtype="object"), [len(part.holdout) for part in parts]
        ),
        holdout_baselines=baselines_by_country(
            spec,
            {name: part.final for name, part in of.items()},
            {name: of[name].holdout for name in held},
        ),
        validation=validation_rows(spec, of),
    )


def country_split(
    features: pd.DataFrame, spec: ProductSpec, pooled: Iterable[pd.Timestamp | None] = ()
) -> Split:
    """A country's rows, such that none of its holdout is from before that of a pooled model.

    Rows without the offset of all candidates are not judged by (see `with_offset`).

    Args:
        features: of the country.
        spec: the product as it is for this country.
        pooled: `PooledModel.known_until` of those that the country can choose.
    """
    newest = max((each for each in pooled if each is not None), default=None)
    return with_offset(split(features, spec.split, newest=newest), spec)


def rows_served(spec: ProductSpec, parts: Split) -> pd.DataFrame:
    """The country's own rows that a model learns which serves it."""
    return parts.known if spec.split.refit else parts.final


def train_candidates(
    spec: ProductSpec,
    parts: Split,
    pooled: Mapping[str, PooledModel],
    *,
    country: str,
    clock: Clock,
    scores: PooledScores | None = None,
) -> Selection:
    """Fit the local candidates and choose the best of all by validation rows.

    By the country's own. Where they are too few to tell (`lacking_rows`), the pooled and regional
    models are compared on those of all countries of the region, or of all countries, as it was
    recorded when they were trained; a local one is chosen where it does better on rows enough to
    judge by (`can_judge`), or where none of them is there.

    A local candidate with a `space` is tuned on the train rows first; its search starts at the
    parameters of the pooled model of its name, or else of its region's. The winner, if local, is
    fitted again on every row whose label is known before the holdout, to be judged there, and, if
    the product refits, once more on every known label, to serve. When validation cannot tell, a
    pooled model goes before one of a region, and that before a local one.

    Args:
        spec: the product as it is for this country.
        parts: the country's rows; see `country_split`.
        pooled: models trained before on many countries, by pooled name.
        country: says which region's models are its own.
        clock: gives the time, for the budget.
        scores: of the pooled models of the newest training, in use or not, for the baselines on the
            same rows; None for those of `pooled`.
    """
    deadline, region = _deadline(spec.tuning.seconds, clock), region_of(spec, country)
    if scores is None:
        scores = merged_scores(model.scores for model in pooled.values())
    naive = choose_baseline(spec, parts, scores, region)
    world = _Country(spec, parts, pooled, region, clock, deadline, naive)
    contenders = _contenders(world)
    tried = tuple(contender.tried for contender in contenders)
    trials = _all_trials(contenders)
    able = [contender for contender in contenders if contender.fitted is not None]
    if not able:
        return _baseline(world, tried, trials)
    best, reason = _chosen(world, able, tried)
    if parts.without_offset:
        reason += f"; {parts.without_offset:,} labelled rows without the offset are not judged by"
    model = best.final or fit(best.candidate, parts.final, spec.task, spec.seed)
    predicted = np.empty(0) if best.predicted is None else best.predicted
    return Selection(
        kind=best.tried.scope,
        name=best.tried.name,
        model=model,
        served=best.served or _again(best.candidate, model, parts.known, spec),
        reason=reason,
        tried=tried,
        value=best.tried.value,
        region=world.region if best.tried.scope == "region" else "",
        validated=predicted,
        trials=trials,
        baseline=naive,
    )


def selected_predictions(
    selection: Selection, spec: ProductSpec, rows: pd.DataFrame, train: pd.DataFrame
) -> np.ndarray:
    """What the choice, as it is judged, predicts for rows of a features frame, shape (rows,).

    Args:
        selection: the choice.
        spec: the product as it is for this country.
        rows: with all features.
        train: the country's rows to take a baseline's mean from (`Split.final`).
    """
    if selection.model is not None:
        return predict(selection.model, rows, spec.task)
    baseline = next(base for base in spec.baselines if base.name == selection.name)
    return baseline_predictions(baseline, train, rows)


def _stack(frames: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    return pd.concat(filled, ignore_index=True)


def _pooled(
    candidate: CandidateSpec,
    region: str,
    tuned: Tuned,
    spec: ProductSpec,
    *,
    rows: PooledRows,
    validation: ValidationRows,
) -> PooledModel:
    chosen = with_params(candidate, tuned.params)
    final = fit(chosen, rows.final, spec.task, spec.seed)
    predicted = predict(final, rows.holdout, spec.task)
    for_validation = fit(chosen, rows.train, spec.task, spec.seed)
    return PooledModel(
        candidate=candidate.name,
        for_validation=for_validation,
        final=final,
        served=_again(chosen, final, rows.known, spec),
        report=evaluate(
            rows.holdout,
            predicted,
            spec,
            rows.final,
            countries=rows.holdout_country,
            naive=rows.holdout_baselines,
        ),
        region=region,
        known_until=rows.known_until,
        trials=tuned.trials,
        scores=pooled_scores(spec, validation, for_validation, region),
        behaved=tuple(behaviours(spec, final, rows.holdout)),
    )


def _again(
    candidate: CandidateSpec, judged: FittedModel, known: pd.DataFrame, spec: ProductSpec
) -> FittedModel:
    """What serves: the judged model's procedure on all known labels, where the product refits."""
    return fit(candidate, known, spec.task, spec.seed) if spec.split.refit else judged


def _deadline(seconds: float | None, clock: Clock) -> float | None:
    return None if seconds is None else clock() + seconds


def _share(trials: int, deadline: float | None, clock: Clock, searches: int) -> Budget:
    """The budget of the next of `searches` searches that are still to be made."""
    if deadline is None:
        return Budget(trials, None)
    now = clock()
    return Budget(trials, now + (deadline - now) / max(searches, 1))


def _contenders(world: _Country) -> list[_Contender]:
    """Every candidate in each of its scopes, in the order of the YAML."""
    searches = sum("local" in one.scopes and bool(one.space) for one in world.spec.candidates)
    found = []
    for candidate in world.spec.candidates:
        for scope in candidate.scopes:
            if scope == "local":
                found.append(_local(candidate, world, searches))
                searches -= bool(candidate.space)
            else:
                found.append(_of_many(candidate, scope, world))
    return found


def _of_many(candidate: CandidateSpec, scope: Scope, world: _Country) -> _Contender:
    """The pooled model of all countries or of the country's region, judged in this country."""
    name = pooled_name(candidate.name, world.region if scope == "region" else "")
    if scope == "region" and not world.region:
        problem = "the country is in no region"
    elif name not in world.pooled:
        region = f" of region {world.region}" if scope == "region" else ""
        problem = f"no pooled model{region} is there"
    else:
        model = world.pooled[name]
        validation = world.parts.validation
        try:
            judged = _judged(
                model.for_validation, scope, candidate, world.spec, validation=validation
            )
            for each in (model.final, model.served):  # it has to read what it is to predict
                predict(each, world.parts.holdout.head(1), world.spec.task)
            return replace(judged, final=model.final, served=model.served)
        except TrainingError as error:  # the country's own model may do
            problem = error.problem
    return _Contender(CandidateOutcome(candidate.name, scope, 0, NAN, problem), candidate)


def _local(candidate: CandidateSpec, world: _Country, searches: int) -> _Contender:
    """The candidate tuned and fitted on the country's own rows, if there are enough."""
    spec, train = world.spec, world.parts.train
    rows, needed = len(train), spec.split.min_train_rows
    if rows < needed:
        reason = f"{needed} training rows are needed, there are {rows}"
        return _Contender(CandidateOutcome(candidate.name, "local", rows, NAN, reason), candidate)
    share = _share(spec.tuning.trials, world.deadline, world.clock, searches)
    tuned = tune(candidate, train, spec, share, clock=world.clock, start=_start(candidate, world))
    chosen = with_params(candidate, tuned.params)
    try:
        fitted = fit(chosen, train, spec.task, spec.seed)
    except TrainingError as error:  # the reason is recorded; other candidates may do
        failed = CandidateOutcome(
            candidate.name, "local", rows, NAN, error.problem, len(tuned.trials)
        )
        return _Contender(failed, chosen, trials=tuned.trials)
    judged = _judged(fitted, "local", chosen, spec, validation=world.parts.validation)
    tried = replace(judged.tried, trials=len(tuned.trials))
    return replace(judged, tried=tried, trials=tuned.trials)


def _start(candidate: CandidateSpec, world: _Country) -> Mapping[str, Param] | None:
    """The best parameters of the same candidate pooled, or else in the country's region."""
    names = (candidate.name, pooled_name(candidate.name, world.region))
    return next((world.pooled[name].params for name in names if name in world.pooled), None)


def _all_trials(contenders: list[_Contender]) -> pd.DataFrame:
    tables = [
        one.trials.assign(candidate=one.candidate.name) for one in contenders if len(one.trials)
    ]
    if not tables:
        return pd.DataFrame()
    stacked = pd.concat(tables, ignore_index=True)
    return stacked[["candidate", *stacked.columns.drop("candidate")]]


def _judged(
    fitted: FittedModel,
    scope: Scope,
    candidate: CandidateSpec,
    spec: ProductSpec,
    *,
    validation: pd.DataFrame,
) -> _Contender:
    predicted = predict(fitted, validation, spec.task)
    value = score(spec.metric, validation["label"].to_numpy(), predicted)
    reason = "" if np.isfinite(value) else f"{spec.metric} cannot be told on {len(validation)} rows"
    tried = CandidateOutcome(candidate.name, scope, fitted.rows, value, reason)
    return _Contender(tried, candidate, fitted, predicted)


def _chosen(
    world: _Country, able: list[_Contender], tried: tuple[CandidateOutcome, ...]
) -> tuple[_Contender, str]:
    """The choice, and the reason for it: by the country's own rows where there are enough."""
    metric, validation = world.spec.metric, world.parts.validation
    lacking = lacking_rows(world.spec, validation)
    local = [contender for contender in able if contender.tried.scope == "local"]
    of_many = [contender for contender in able if contender not in local]
    if not lacking:
        best = _best(able, metric)
    elif of_many:
        first, reason = _by_many(world, of_many, lacking)
        best = _best([first, *local], metric) if can_judge(world.spec, validation) else first
        if best is first:
            return first, f"{reason}{_without_local(tried, local)}"
    else:
        best = _best(local, metric)
        if len(local) == 1:
            return best, f"local {best.tried.name} is the only one that could be had"
        rows = f"{len(validation)} validation rows, though {lacking}"
        return best, f"local {best.tried.name}, the best of {len(local)} on {rows}"
    return best, _reason(best.tried, tried, metric)


def _without_local(tried: tuple[CandidateOutcome, ...], local: list[_Contender]) -> str:
    """Why no local model was chosen from, where none could be had."""
    missed = [one for one in tried if one.scope == "local"] if not local else []
    told = "; ".join(f"local {one.name} not judged: {one.reason}" for one in missed)
    return f" ({told})" if told else ""


def _by_many(world: _Country, of_many: list[_Contender], lacking: str) -> tuple[_Contender, str]:
    """The choice among pooled and regional models on the validation rows of many countries."""
    of = [world.pooled[_name(one, world)].scores for one in of_many]
    region = comparable(of, world.region)
    if region is None:
        first = min(of_many, key=lambda one: _WHEN_IN_DOUBT.index(one.tried.scope))
        return first, (
            f"{first.tried.scope} {first.tried.name}, because {lacking}, and nothing is recorded "
            "of those of other countries"
        )
    held = {one: score[region] for one, score in zip(of_many, of, strict=True)}
    best = of_many[0]
    for other in of_many[1:]:
        if is_better(world.spec.metric, held[other].value, held[best].value):
            best = other
    others = [f"{_title(one)} {held[one].value:.4g}" for one in of_many if one is not best]
    against = f" ({'; '.join(others)})" if others else ""
    return best, (
        f"{_title(best)} has the best validation {world.spec.metric} "
        f"{told_of(held[best], region)}, {held[best].value:.4g}{against}, because {lacking}"
    )


def _name(one: _Contender, world: _Country) -> str:
    return pooled_name(one.tried.name, world.region if one.tried.scope == "region" else "")


def _title(one: _Contender) -> str:
    return f"{one.tried.scope} {one.tried.name}"


def _best(able: list[_Contender], metric: str) -> _Contender:
    judged = [contender for contender in able if np.isfinite(contender.tried.value)]
    if not judged:
        return min(able, key=lambda one: _WHEN_IN_DOUBT.index(one.tried.scope))
    best = judged[0]
    for other in judged[1:]:
        if is_better(metric, other.tried.value, best.tried.value):
            best = other
    return best


def _reason(best: CandidateOutcome, tried: tuple[CandidateOutcome, ...], metric: str) -> str:
    if not np.isfinite(best.value):
        return f"{best.scope} {best.name}, because {best.reason}"
    others = [
        f"{other.scope} {other.name} "
        + (f"{other.value:.4g}" if np.isfinite(other.value) else f"not judged: {other.reason}")
        for other in tried
        if other is not best
    ]
    against = f" ({'; '.join(others)})" if others else ""
    return f"{best.scope} {best.name} has the best validation {metric}, {best.value:.4g}{against}"


def _baseline(
    world: _Country, tried: tuple[CandidateOutcome, ...], trials: pd.DataFrame
) -> Selection:
    spec, parts, chosen = world.spec, world.parts, world.baseline
    baseline = next(base for base in spec.baselines if base.name == chosen.name)
    predicted = baseline_predictions(baseline, parts.train, parts.validation)
    label = parts.validation["label"].to_numpy()
    reasons = dict.fromkeys(f"{one.scope} {one.name}: {one.reason}" for one in tried)
    why = f"; {chosen.reason}" if len(spec.baselines) > 1 else ""
    return Selection(
        kind="baseline",
        name=baseline.name,
        model=None,
        served=None,
        reason=f"baseline {baseline.name}, because no model could be had "
        f"({'; '.join(reasons)}){why}",
        tried=tried,
        value=score(spec.metric, label, predicted),
        validated=predicted,
        trials=trials,
        baseline=chosen,
    )
