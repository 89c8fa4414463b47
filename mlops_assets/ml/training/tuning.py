"""The search for a candidate's parameters on time-ordered folds, within a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mlops_assets.errors import TrainingError
from mlops_assets.ml.models.fitted_model import Param, fit, make_core, predict, with_params
from mlops_assets.ml.models.split import Fold, rolling_folds
from mlops_assets.ml.stats.metrics import score
from mlops_assets.spec import GREATER_IS_BETTER, CandidateSpec, ProductSpec, SpaceSpec

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

NAN = float("nan")
Clock = Callable[[], float]
"""Seconds that never go back, such as `time.monotonic`."""

_RANDOM_TRIALS = 5
"""Trials before the sampler models the space; Optuna's own ten would use up a small budget."""
_FITS_AFTER = 2
"""Fits with what was found: one to be judged by validation, one to serve."""
_MOST_REPEATS = 20
"""Parameter sets in a row that were tried before: the space is exhausted."""


@dataclass(frozen=True)
class Budget:
    """What a search may spend; the limit reached first ends it.

    Args:
        trials: parameter sets to try; 0: no limit but the deadline's.
        deadline: on the clock; None: no limit but that of trials.
    """

    trials: int
    deadline: float | None

    @property
    def is_none(self) -> bool:
        """Whether nothing may be spent."""
        return not self.trials and self.deadline is None


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Args:
        params: the best parameters of the space; empty when no trial could be judged, or none was
            made: the candidate's own hold then.
        value: the metric over the folds with them; NaN without.
        trials: number, a column a parameter, value, seconds, error ("" if none); in order.
        ended: why it ended before all its trials; "" if it did not.
    """

    params: Mapping[str, Param]
    value: float
    trials: pd.DataFrame
    ended: str


@dataclass(frozen=True)
class _Trial:
    params: Mapping[str, Param]
    value: float
    seconds: float
    error: str


@dataclass
class _Search:
    """One search while it goes on; `longest_...`: what its fits took so far, in seconds."""

    candidate: CandidateSpec
    rows: pd.DataFrame
    spec: ProductSpec
    folds: Sequence[Fold]
    budget: Budget
    clock: Clock
    known: dict[str, tuple[float, str]] = field(default_factory=dict)
    trials: list[_Trial] = field(default_factory=list)
    repeats: int = 0
    longest_fold: float = 0.0
    longest_trial: float = 0.0

    def ended(self) -> str:
        """Why no further trial is made; "" if one is."""
        if self.budget.trials and len(self.trials) >= self.budget.trials:
            return "trials"
        if self.repeats >= _MOST_REPEATS:
            return "every parameter set was tried"
        return "time" if self._would_pass(self.longest_trial) else ""

    def judge(self, params: Mapping[str, Param]) -> _Trial:
        """One trial, recorded; a parameter set that was tried before is not fitted again."""
        name, started = repr(sorted(params.items())), self.clock()
        self.repeats = self.repeats + 1 if name in self.known else 0
        if name not in self.known:
            self.known[name] = self._outcome(params)
        value, error = self.known[name]
        self.trials.append(_Trial(params, value, self.clock() - started, error))
        self.longest_trial = max(self.longest_trial, self.trials[-1].seconds)
        return self.trials[-1]

    def _outcome(self, params: Mapping[str, Param]) -> tuple[float, str]:
        """The metric over the folds, and why there is none; "" if there is."""
        candidate, values = with_params(self.candidate, params), []
        for fold in self.folds:
            if self._would_pass(self.longest_fold):
                return NAN, f"the time was up after {len(values)} folds"
            started = self.clock()
            try:
                values.append(_value(candidate, self.rows, fold, self.spec))
            except TrainingError as error:  # of these parameters; the search goes on without them
                return NAN, error.problem
            self.longest_fold = max(self.longest_fold, self.clock() - started)
        mean = float(np.average(values, weights=[len(fold.judge) for fold in self.folds]))
        return mean, "" if np.isfinite(mean) else "a prediction is missing"

    def _would_pass(self, seconds: float) -> bool:
        """Whether so many seconds more, and the fits after the search, would pass the deadline."""
        deadline, after = self.budget.deadline, _FITS_AFTER * self.longest_fold
        return deadline is not None and self.clock() + seconds + after > deadline

    def found(self, ended: str) -> Tuned:
        """The first of the best trials, with all of them as a table."""
        judged = [trial for trial in self.trials if not trial.error]
        order = max if self.spec.metric in GREATER_IS_BETTER else min
        best = order(judged, key=lambda trial: trial.value, default=_Trial({}, NAN, 0.0, ""))
        return Tuned(best.params, best.value, _table(self.trials, self.candidate), ended)


def tune(
    candidate: CandidateSpec,
    rows: pd.DataFrame,
    spec: ProductSpec,
    budget: Budget,
    *,
    clock: Clock,
    start: Mapping[str, Param] | None = None,
) -> Tuned:
    """Search the candidate's space for the parameters with the best metric over time-ordered folds.

    Each fold is judged by a model of the rows whose label was known before it; their metrics are
    averaged by rows. The first trial is `start`, the second the candidate's own parameters, both
    as far as the space holds them; further ones are drawn by a tree-structured Parzen estimator
    (Bergstra et al. 2011). No trial is begun that, by the longest so far, would pass the deadline,
    and one whose folds take longer is broken off. With trials alone the result depends on nothing
    but the arguments.

    Args:
        candidate: with a `space`; without one nothing is searched.
        rows: labelled rows to learn from and to judge by; no row of validation or holdout.
        spec: names metric, task, seed and number of folds.
        budget: what may be spent.
        clock: gives the time; read only to keep the deadline and to say what a trial took.
        start: the best parameters of the same candidate elsewhere, such as of the pooled one.

    Raises:
        ConfigurationError: the estimator does not exist or has no such parameter.
    """
    folds = _judgeable(candidate, rows, spec)
    if not candidate.space or budget.is_none or not folds:
        why = "" if folds or not candidate.space else "no fold of the rows can be judged"
        return Tuned({}, NAN, _table([], candidate), why)
    search = _Search(candidate, rows, spec, folds, budget, clock)
    own = _inside(candidate, _own(candidate, spec.seed))
    warm = _inside(candidate, start or {})
    ended = _run(search, [{**own, **warm}, own] if warm else [own])
    return search.found("" if ended == "trials" else ended)


def _run(search: _Search, starts: Sequence[Mapping[str, Param]]) -> str:
    """Make trials until something ends them; says what."""
    import optuna

    space = {name: _distribution(each) for name, each in search.candidate.space.items()}
    better = "maximize" if search.spec.metric in GREATER_IS_BETTER else "minimize"
    sampler = optuna.samplers.TPESampler(
        seed=search.spec.seed, n_startup_trials=_RANDOM_TRIALS, multivariate=False
    )
    with _quiet():
        study = optuna.create_study(sampler=sampler, direction=better)
        for point in starts:
            study.enqueue_trial(dict(point))
        while not (ended := search.ended()):
            trial = study.ask(fixed_distributions=space)
            judged = search.judge(trial.params)
            failed = optuna.trial.TrialState.FAIL if judged.error else None
            study.tell(trial, None if failed else judged.value, failed)
    return ended


def _table(trials: Sequence[_Trial], candidate: CandidateSpec) -> pd.DataFrame:
    told = ["value", "seconds", "error"]
    rows = [{**each.params, **{name: getattr(each, name) for name in told}} for each in trials]
    # Parameters as they are: 7 and None in one column must not become 7.0 and NaN.
    frame = pd.DataFrame(rows, columns=[*candidate.space, *told], dtype="object")
    frame = frame.astype({"value": "float64", "seconds": "float64"})
    return frame.rename_axis("number").reset_index()


def _judgeable(candidate: CandidateSpec, rows: pd.DataFrame, spec: ProductSpec) -> list[Fold]:
    """Folds in which any model can be fitted and judged, without rows nobody can predict."""
    label = rows["label"]
    if candidate.offset is not None and candidate.offset in rows:
        label = label.where(rows[candidate.offset].notna())
    label = label.to_numpy(dtype="float64")
    able = []
    for fold in rolling_folds(rows, spec.tuning.folds):
        judge = fold.judge[np.isfinite(label[fold.judge])]
        told = np.isfinite(score(spec.metric, label[judge], np.full(len(judge), 0.5)))
        learned = label[fold.learn]
        if told and len(np.unique(learned[np.isfinite(learned)])) > 1:
            able.append(Fold(fold.learn, judge, fold.start))
    return able


def _value(candidate: CandidateSpec, rows: pd.DataFrame, fold: Fold, spec: ProductSpec) -> float:
    model = fit(candidate, rows.iloc[fold.learn], spec.task, spec.seed)
    judged = rows.iloc[fold.judge]
    return score(spec.metric, judged["label"].to_numpy(), predict(model, judged, spec.task))


def _own(candidate: CandidateSpec, seed: int) -> Mapping[str, Param]:
    """The parameters the candidate has without a search, those its estimator gives included."""
    corner = {
        n: part.choices[0] if part.choices else part.low for n, part in candidate.space.items()
    }
    make_core(with_params(candidate, corner), seed)  # refuses a parameter that does not exist
    has = make_core(candidate, seed).get_params()
    return {name: has[name] for name in candidate.space if name in has}


def _inside(candidate: CandidateSpec, point: Mapping[str, Param]) -> dict[str, Param]:
    """The values of a point that the space holds; Optuna draws the others."""
    return {
        name: point[name]
        for name, part in candidate.space.items()
        if name in point and _holds(part, point[name])
    }


def _distribution(part: SpaceSpec) -> BaseDistribution:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if part.low is None or part.high is None:
        return CategoricalDistribution(part.choices)
    if isinstance(part.low, int) and isinstance(part.high, int):
        return IntDistribution(part.low, part.high, log=part.log)
    return FloatDistribution(part.low, part.high, log=part.log)


def _holds(part: SpaceSpec, value: Param) -> bool:
    """Whether the space has this very value: 1, 1.0 and true are three."""
    if part.low is None or part.high is None:
        return any(type(value) is type(each) and value == each for each in part.choices)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    whole = isinstance(part.low, int) and isinstance(part.high, int)
    return part.low <= value <= part.high and (isinstance(value, int) or not whole)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna tells of every study and trial on stderr unless it is asked not to."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)
