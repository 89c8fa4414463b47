"""a backtest through history: what a policy of retraining would have been worth.

Moment after moment each policy sees what was known by then, watches the models it has in use, asks
for trainings, and its candidates pass the same gates and the same comparison as live. Whatever is
the same for two policies (a training on the same rows, a watched week of the same model) is done
once.

Three things are simpler than live. A training takes no time, so that its model predicts from the
very moment on. Nobody looks in: a country that is given up, held or waits for a person's approval
stays with what serves. And a moment stands for all ticks of the sensor until the next one, so that
`retraining.at_once` orders trainings but does not put any off; `per_day` does.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from mlops_assets.ml.backtest.data import BacktestData, naive_predictions
from mlops_assets.ml.backtest.policies import Policy
from mlops_assets.ml.backtest.training import (
    BacktestCandidate,
    ModelInUse,
    Pooled,
    Trainer,
    TrainingOrder,
)
from mlops_assets.ml.backtest.way_back import pooled_instead, withdrawal_target
from mlops_assets.ml.gates.succession import PooledComparison
from mlops_assets.ml.monitoring.beside_baseline import against_baseline
from mlops_assets.ml.monitoring.drift import (
    DriftState,
    Reference,
    Window,
    compare_window,
    continued,
    profile,
    state_of,
    window_ends,
    window_rows,
)
from mlops_assets.ml.monitoring.performance import Realised, against_previous, realised
from mlops_assets.ml.retraining.follow_up import PastTraining
from mlops_assets.ml.retraining.plan import (
    Action,
    Attempts,
    CountryState,
    PooledModels,
    plan_retraining,
)
from mlops_assets.ml.stats.metrics import UNKNOWN, Estimate, improvement, score
from mlops_assets.ml.training.selection import pooled_names
from mlops_assets.spec import BaselineSpec, ProductSpec

HELPED_WEEKS = 8
"""Weeks after a training in which its model is compared with the one it was to replace."""

BacktestProgress = Callable[[pd.Timestamp], None]


GoingOn = Callable[
    [pd.Timestamp, Callable[[], "tuple[BacktestResult, ...]"]], Collection[str] | None
]
"""Names of the policies that take part from a moment on (None: all), by what became of them: whose
rows are all that are known at the end, so that whoever asks leaves out those of later."""


@dataclass(frozen=True)
class BacktestTraining:
    """A training that a policy asked for in a country.

    Args:
        moment: when.
        country: its key.
        cause: first, every, or that of `retraining.plan`.
        kind: of the candidate.
        verdict: of the comparison with the model in use.
        reason: of the verdict.
        gain: of the candidate on the model in use, over the next `HELPED_WEEKS` weeks on the same
            rows, promoted or not (`metrics.improvement`: positive is better); NaN where it cannot
            be told.
        seconds: of training; the pooled models have their own.
    """

    moment: pd.Timestamp
    country: str
    cause: str
    kind: str
    verdict: str
    reason: str
    gain: float
    seconds: float


@dataclass(frozen=True)
class MonitoredCountry:
    """What was seen of a country's model at a moment.

    Args:
        moment: when.
        country: its key.
        version: in use; "" for the baseline.
        worse: whether it is significantly worse than promised; None when that is not judged.
        alarm: whether drift alarms.
        asked: what was done (`retraining.Action`); "" for policies that do not look.
        reason: of that.
    """

    moment: pd.Timestamp
    country: str
    version: str
    worse: bool | None
    alarm: bool
    asked: str
    reason: str

    @property
    def bad(self) -> bool:
        """Whether it is significantly worse than promised."""
        return self.worse is True


@dataclass(frozen=True)
class BacktestResult:
    """What became of one policy.

    Args:
        policy: the rule.
        rows: a row per predicted row with a known label: country, entity, event_time, label_time,
            label, prediction, baseline, version ("" for the baseline).
        trainings: in the order of time.
        watched: the same, a country a moment.
        pooled: moments of trainings of the pooled models.
        pooled_seconds: these took.
    """

    policy: Policy
    rows: pd.DataFrame
    trainings: tuple[BacktestTraining, ...]
    watched: tuple[MonitoredCountry, ...]
    pooled: tuple[pd.Timestamp, ...]
    pooled_seconds: float


def run_backtest(
    past: BacktestData,
    policies: Sequence[Policy],
    moments: Sequence[pd.Timestamp],
    trainer: Trainer,
    *,
    progress: BacktestProgress = lambda moment: None,
    going_on: GoingOn = lambda moment, results: None,
) -> tuple[BacktestResult, ...]:
    """Take every policy through the same moments.

    A country takes part from the first moment at which it is `Past.ready`: it is trained then,
    under every policy, and its rows count from there on. Until a first candidate passes its gates,
    the baseline serves.

    Args:
        past: of the product.
        policies: with different names.
        moments: in order, before the end of the past; the first one is the start.
        trainer: who trains.
        progress: is told each moment that is done.
        going_on: is asked before each moment which policies still take part, by name.

    Returns:
        What became of those that took part to the end, in their order.
    """
    ground = _Ground(past, tuple(moments))
    walkers = [_Walker(policy, ground, trainer) for policy in policies]
    for moment in moments:
        walkers = _left(walkers, moment, going_on)
        ground.come_to(moment)
        for walker in walkers:
            walker.look(moment)
        _train(walkers, moment, trainer)
        progress(moment)
    return tuple(walker.backtested() for walker in walkers)


def rules_of(policy: Policy, past: BacktestData) -> tuple[ProductSpec, Mapping[str, ProductSpec]]:
    """What a policy goes by: of the whole product, and of each country."""
    if policy.rules is None:
        return past.spec, past.specs
    return policy.rules, {country: policy.rules.for_country(country) for country in past.specs}


def _left(walkers: list[_Walker], moment: pd.Timestamp, going_on: GoingOn) -> list[_Walker]:
    names = going_on(moment, lambda: tuple(walker.backtested() for walker in walkers))
    return walkers if names is None else [each for each in walkers if each.policy.name in names]


def _train(walkers: Sequence[_Walker], moment: pd.Timestamp, trainer: Trainer) -> None:
    """What the policies ask for at a moment, each training once."""
    groups: dict[Any, list[_Walker]] = {}
    for walker in walkers:
        if walker.asked:
            groups.setdefault(walker.pooled.key, []).append(walker)
    wanted = [(_pooled_of(group), _orders(group)) for group in groups.values()]
    for group, trained in zip(groups.values(), trainer.candidates(moment, wanted), strict=True):
        found = {each.country: each for each in trained}
        for walker in group:
            walker.take({country: found[country] for country in walker.asked})


def _pooled_of(walkers: Sequence[_Walker]) -> Pooled:
    """The pooled models that policies share, with what each of them compared them with."""
    return walkers[0].pooled.having([one for each in walkers for one in each.pooled.compared])


def _orders(walkers: Sequence[_Walker]) -> list[TrainingOrder]:
    """A training a country, judged beside the model of each policy that asks."""
    orders: dict[str, TrainingOrder] = {}
    for walker in walkers:
        for country in walker.asked:
            rival, watches = walker.rival(country), walker.policy.kind == "drift"
            held = orders.get(country, TrainingOrder(country, (), False))
            known = {each.key for each in held.rivals}
            rivals = held.rivals if rival.key in known else (*held.rivals, rival)
            orders[country] = TrainingOrder(country, rivals, held.watched or watches)
    return list(orders.values())


@dataclass
class _Ground:
    """What is the same for every policy."""

    past: BacktestData
    moments: tuple[pd.Timestamp, ...]
    baselines: dict[str, np.ndarray] = field(default_factory=dict)
    joined: dict[str, pd.Timestamp] = field(default_factory=dict)
    labelled: dict[str, pd.DataFrame] = field(default_factory=dict)
    realised: dict[Any, Realised] = field(default_factory=dict)
    windows: dict[Any, Window] = field(default_factory=dict)
    watched: dict[Any, tuple[DriftState | None, Estimate]] = field(default_factory=dict)
    compared: dict[Any, tuple[PooledComparison, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for country in self.past.countries:
            self.baselines[country] = naive_predictions(self.past, country)

    def joining(self, moment: pd.Timestamp) -> list[str]:
        """Countries that could take part from a moment on and do not yet."""
        return [
            country
            for country in self.past.countries
            if country not in self.joined and self.past.ready(country, moment)
        ]

    def come_to(self, moment: pd.Timestamp) -> None:
        """Countries join; what was kept for earlier moments goes."""
        self.joined |= dict.fromkeys(self.joining(moment), moment)
        self.realised.clear()
        self.watched.clear()
        self.compared.clear()
        self.labelled.clear()
        oldest = moment - pd.Timedelta(days=self._kept_days)
        self.windows = {key: held for key, held in self.windows.items() if key[-1] >= oldest}

    def labelled_rows(self, country: str, moment: pd.Timestamp) -> pd.DataFrame:
        """A country's rows with a label that is known at the newest moment."""
        if country not in self.labelled:
            rows = self.past.known(country, moment)
            self.labelled[country] = rows[rows["label"].notna()]
        return self.labelled[country]

    def due(self, policy: Policy, moment: pd.Timestamp) -> bool:
        """Whether a periodic policy trains at a moment of the backtest."""
        place = self.moments.index(moment)
        return place > 0 and policy.due(self.moments[0], self.moments[place - 1], moment)

    @property
    def _kept_days(self) -> int:
        return max(
            each.monitoring.every_days * (each.monitoring.of_windows + 2)
            for each in self.past.specs.values()
        )


@dataclass
class _Country:
    """What one policy has in use in one country, and what that predicts.

    Attributes:
        prediction: of each row by what serves at its event; NaN before the country takes part.
        version: of what serves; "" for the baseline.
        previous: of each row by the model in use before; NaN without one.
        previous_version: its name.
        champion: in use; None for the baseline.
        before: in use before it.
        since: when it came into use.
        refused: candidates in a row that were not promoted.
        last_training: newest one.
        tried: what was asked for before.
        waiting: version that waits for a person; "" for none.
        drift: as it was seen last, of the champion.
        baseline: name of the one that its newest training chose to serve; "" for the first.
        labels_tried: known labels at its newest training; None without one.
        withdrawn: titles of pooled models that were taken out of use.
    """

    prediction: np.ndarray
    version: np.ndarray
    previous: np.ndarray
    previous_version: np.ndarray
    champion: BacktestCandidate | None = None
    before: BacktestCandidate | None = None
    since: pd.Timestamp | None = None
    refused: int = 0
    last_training: pd.Timestamp | None = None
    tried: dict[str, Attempts] = field(default_factory=dict)
    waiting: str = ""
    drift: DriftState | None = None
    past: list[PastTraining] = field(default_factory=list)
    baseline: str = ""
    labels_tried: int | None = None
    withdrawn: set[str] = field(default_factory=set)


class _Walker:
    """One policy on its way."""

    def __init__(self, policy: Policy, ground: _Ground, trainer: Trainer) -> None:
        self.policy, self.ground, self.trainer = policy, ground, trainer
        self.past, self.pooled = ground.past, Pooled()
        self.spec, self.specs = rules_of(policy, ground.past)
        self.watched_by = {each: str(spec.monitoring) for each, spec in self.specs.items()}
        self.countries: dict[str, _Country] = {}
        self.asked: dict[str, str] = {}
        self.trainings: list[BacktestTraining] = []
        self.watched: list[MonitoredCountry] = []
        self.pooled_moments: list[pd.Timestamp] = []
        self.pooled_seconds = 0.0
        self._times: list[pd.Timestamp] = []

    def look(self, moment: pd.Timestamp) -> None:
        """Watch the models in use, decide what is trained, and train the pooled models first."""
        seen = {country: self._seen(country, moment) for country in self.countries}
        actions = self._planned(seen, moment) if self.policy.kind == "drift" else {}
        for country, each in seen.items():
            self.watched.append(_watched(moment, each, actions.get(country)))
            if (action := actions.get(country)) and action.kind == "rollback":
                self._roll_back(country, moment)
            elif action and action.kind == "withdraw":
                self._withdraw(country, moment)
        self.asked = {c: str(a.cause) for c, a in actions.items() if a.kind == "retrain"}
        if self.ground.due(self.policy, moment):
            self.asked |= dict.fromkeys(self.countries, "every")
        self._join(moment)
        if self._all_again(moment):
            self._train_pooled(moment)

    def rival(self, country: str) -> ModelInUse:
        """What a candidate of the country is to replace."""
        champion, own = self.countries[country].champion, self.specs[country].decision
        rules = None if own == self.past.specs[country].decision else own
        return replace(champion.rival if champion else ModelInUse(), rules=rules)

    def take(self, trained: Mapping[str, BacktestCandidate]) -> None:
        """The candidates that were asked for: into use, or not."""
        for country, each in trained.items():
            held = self.countries[country]
            decision = each.decisions[self.rival(country).key]
            gain = self._gain(country, each)
            blocked = decision.verdict == "promoted" and each.pooled_title in held.withdrawn
            verdict = "kept" if blocked else decision.verdict  # a person alone would use it again
            self.trainings.append(
                BacktestTraining(
                    each.moment,
                    country,
                    self.asked[country],
                    each.kind,
                    verdict,
                    decision.reason,
                    gain,
                    each.seconds,
                )
            )
            promoted = verdict == "promoted"
            held.past.append(PastTraining(_utc(each.moment), self.asked[country], promoted))
            held.last_training, held.baseline = each.moment, each.baseline
            held.labels_tried = self._labels(country, each.moment)
            self._serve_baseline(country, each)
            if blocked:
                held.refused += 1
            elif promoted:
                self._into_use(country, each)
            elif verdict == "waiting":
                held.waiting = each.version
            elif decision.gain != 0.0:  # else the very same model again: nothing new was tried
                held.refused += 1
        self.asked = {}

    def backtested(self) -> BacktestResult:
        """What became of the policy."""
        rows = [self._counted(country) for country in self.countries]
        together = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=_ROWS)
        return BacktestResult(
            self.policy,
            together,
            tuple(self.trainings),
            tuple(self.watched),
            tuple(self.pooled_moments),
            self.pooled_seconds,
        )

    def _join(self, moment: pd.Timestamp) -> None:
        """Countries that take part from this moment on: the baseline serves, a first training."""
        for country, joined in self.ground.joined.items():
            if joined != moment:
                continue
            baseline = self.ground.baselines[country]
            first = self.past.first_after(country, moment)
            prediction = np.where(np.arange(len(baseline)) >= first, baseline, np.nan)
            none, nothing = (
                np.full(len(baseline), "", dtype="object"),
                np.full(len(baseline), np.nan),
            )
            self.countries[country] = _Country(prediction, none, nothing, none.copy())
            self.asked[country] = "first"

    def _all_again(self, moment: pd.Timestamp) -> bool:
        """Whether the pooled models are due whatever was planned: at first, and each period."""
        return bool(self.asked) and (
            not self.pooled_moments or self.ground.due(self.policy, moment)
        )

    def _train_pooled(self, moment: pd.Timestamp) -> None:
        newer, seconds = self.trainer.pooled(moment)
        rivals = self._pooled_rivals()
        key = (newer.key, frozenset((each.pooled, each.region) for each in rivals))
        if key not in self.ground.compared:
            self.ground.compared[key] = self.trainer.compared(newer, rivals)
        newer = newer.having(self.ground.compared[key])
        self.pooled = self.pooled.joined(newer)
        self.pooled_moments.append(moment)
        self.pooled_seconds += seconds

    def _pooled_rivals(self) -> list[ModelInUse]:
        """The pooled models in use in a country, and those offered to all so far."""
        in_use = [held.champion.rival for held in self.countries.values() if held.champion]
        rivals = [*self.pooled.rivals(), *in_use]
        return list({each.pooled: each for each in rivals if each.pooled}.values())

    def _serve_baseline(self, country: str, trained: BacktestCandidate) -> None:
        """As long as no model does, the one that the newest training chose."""
        held, first = self.countries[country], self.past.first_after(country, trained.moment)
        spec = self.past.specs[country]
        chosen = next((one for one in spec.baselines if one.name == trained.baseline), None)
        if held.champion is None and chosen is not None:
            held.prediction[first:] = naive_predictions(self.past, country, chosen)[first:]

    def _into_use(self, country: str, trained: BacktestCandidate) -> None:
        held = self.countries[country]
        first = self.past.first_after(country, trained.moment)
        if held.champion is not None:
            held.previous[first:] = held.prediction[first:]
            held.previous_version[first:] = held.champion.version
        held.prediction[first:] = trained.predicted
        held.version[first:] = trained.version
        held.before, held.champion = held.champion, trained
        held.since, held.refused, held.drift = trained.moment, 0, None

    def _roll_back(self, country: str, moment: pd.Timestamp) -> None:
        """The model in use before serves again, and nothing is before it."""
        held = self.countries[country]
        if held.before is None:
            return
        first = self.past.first_after(country, moment)
        held.prediction[first:] = held.previous[first:]
        held.version[first:] = held.before.version
        held.previous[first:], held.previous_version[first:] = np.nan, ""
        held.champion, held.before, held.since = held.before, None, moment
        held.refused, held.drift = 0, None

    def _withdraw(self, country: str, moment: pd.Timestamp) -> None:
        """The pooled model serves in place of the champion, or the baseline; as the job decides."""
        held, champion = self.countries[country], self.countries[country].champion
        if champion is None:
            return
        without = {champion.pooled_title, *held.withdrawn}
        instead = pooled_instead(self.past, moment, self.pooled, country, without=without)
        table, naive = self._beside_baseline(country, moment)
        target = withdrawal_target(
            self.past,
            moment,
            table,
            naive,
            champion=champion,
            baseline=self._serving(country).name,
            instead=instead,
        )
        if target == "champion":
            return
        held.withdrawn |= {champion.pooled_title} - {""}
        if target == "pooled" and instead is not None:
            self._into_use(country, instead)
        else:
            self._back_to_baseline(country, moment)

    def _back_to_baseline(self, country: str, moment: pd.Timestamp) -> None:
        held, first = self.countries[country], self.past.first_after(country, moment)
        naive = naive_predictions(self.past, country, self._serving(country))
        held.prediction[first:], held.version[first:] = naive[first:], ""
        held.previous[first:], held.previous_version[first:] = np.nan, ""
        held.champion, held.before, held.since = None, None, None
        held.refused, held.drift = 0, None

    def _serving(self, country: str) -> BaselineSpec:
        """The baseline that serves where no model does."""
        every, name = self.past.specs[country].baselines, self.countries[country].baseline
        return next((each for each in every if each.name == name), every[0])

    def _beside_baseline(
        self, country: str, moment: pd.Timestamp
    ) -> tuple[pd.DataFrame, np.ndarray]:
        """The champion's newest rows, and what the baseline says that would serve."""
        table, serving = self._table(country, moment), self._serving(country)
        if serving == self.past.specs[country].baselines[0]:
            return table, table["baseline"].to_numpy(dtype="float64")
        naive = naive_predictions(self.past, country, serving)
        events = self.past.frames[country].reset_index(drop=True)
        keys = ["entity", "event_time"]
        place = table[keys].merge(events[keys].reset_index(), on=keys, how="left")["index"]
        return table, naive[place.to_numpy(dtype="int64")]

    def _labels(self, country: str, moment: pd.Timestamp) -> int:
        return int(self.past.known(country, moment)["label"].notna().sum())

    def _gain(self, country: str, trained: BacktestCandidate) -> float:
        """Of the candidate on what serves, in the weeks after; both as if they served."""
        until = trained.moment + pd.Timedelta(weeks=HELPED_WEEKS)
        first, last = (self.past.first_after(country, each) for each in (trained.moment, until))
        spec, rows = self.past.specs[country], self.past.frames[country].iloc[first:last]
        known = (rows["label"].notna() & (rows["label_time"] <= self.past.end)).to_numpy()
        if trained.judged is None or known.sum() < spec.monitoring.min_labels:
            return float("nan")
        label = rows["label"].to_numpy(dtype="float64")[known]
        ours = trained.predicted[: last - first][known]
        theirs = self.countries[country].prediction[first:last][known]
        values = (score(spec.metric, label, each) for each in (ours, theirs))
        return improvement(spec.metric, *values)

    def _counted(self, country: str) -> pd.DataFrame:
        """The country's rows since it takes part, with the labels known at the end."""
        rows, held = self.past.frames[country], self.countries[country]
        begun = (rows["event_time"] > self.ground.joined[country]).to_numpy()
        known = (rows["label"].notna() & (rows["label_time"] <= self.past.end)).to_numpy()
        kept = begun & known
        return pd.DataFrame(
            {
                "country": country,
                "entity": rows["entity"].to_numpy()[kept],
                "event_time": rows["event_time"].to_numpy()[kept],
                "label_time": rows["label_time"].to_numpy()[kept],
                "label": rows["label"].to_numpy(dtype="float64")[kept],
                "prediction": held.prediction[kept],
                "baseline": self.ground.baselines[country][kept],
                "version": held.version[kept],
            }
        )

    # What a policy sees of a country.

    def _seen(self, country: str, moment: pd.Timestamp) -> _Seen:
        held, spec = self.countries[country], self.specs[country]
        if held.champion is None:
            return _Seen(country, held)
        key = (country, held.champion.version, held.since, self.watched_by[country])
        if key not in self.ground.realised:
            table = self._table(country, moment)
            self.ground.realised[key] = realised(
                spec, table, held.champion.promise, held.champion.version
            )
        seen = _Seen(country, held, self.ground.realised[key])
        if self.policy.kind != "drift":
            return seen
        before = held.before.version if held.before else ""
        if (*key, before) not in self.ground.watched:
            found = (self._drift(country, moment), self._on_previous(country, moment))
            self.ground.watched[*key, before] = found
        held.drift, on_previous = self.ground.watched[*key, before]
        return replace(
            seen,
            drift=held.drift,
            on_previous=on_previous,
            on_baseline=self._on_baseline(country, moment),
        )

    def _table(
        self, country: str, moment: pd.Timestamp, *, everything: bool = False
    ) -> pd.DataFrame:
        """What `performance.record_predictions` would hold of the champion's rows.

        Without `everything` the rows alone that `performance.realised` looks at: those whose label
        became known in the newest `monitoring.label_days`.
        """
        held, rows = self.countries[country], self.past.frames[country]
        assert held.champion is not None
        assert held.since is not None
        first, last = (self.past.first_after(country, each) for each in (held.since, moment))
        own = rows.iloc[first:last]
        known = (own["label"].notna() & (own["label_time"] <= moment)).to_numpy()
        newest = own["label_time"].to_numpy()[known]
        if not everything and len(newest):
            days = np.timedelta64(self.specs[country].monitoring.label_days, "D")
            known &= own["label_time"].to_numpy() > newest.max() - days
        place = first + np.flatnonzero(known)
        return _performance(rows, held, self.ground.baselines[country], place)

    def _on_baseline(self, country: str, moment: pd.Timestamp) -> Estimate:
        """Gain of the champion on the baseline that would serve."""
        champion, spec = self.countries[country].champion, self.specs[country]
        assert champion is not None
        table, naive = self._beside_baseline(country, moment)
        return against_baseline(spec, table, champion.version, naive)

    def _on_previous(self, country: str, moment: pd.Timestamp) -> Estimate:
        """Gain of the champion on the model before it; only told where it is a loss."""
        held, spec = self.countries[country], self.specs[country]
        if held.champion is None or held.before is None:
            return UNKNOWN
        table = self._table(country, moment, everything=True)
        label, ours, theirs = (
            table[name].to_numpy() for name in ("label", "prediction", "previous_prediction")
        )
        gain = improvement(
            spec.metric, score(spec.metric, label, ours), score(spec.metric, label, theirs)
        )
        if not gain < 0:
            return UNKNOWN
        return against_previous(spec, table, held.champion.version)

    def _drift(self, country: str, moment: pd.Timestamp) -> DriftState | None:
        held, spec = self.countries[country], self.specs[country]
        reference = held.champion.reference if held.champion else None
        if reference is None:
            return None
        last = self.past.first_after(country, moment)
        newest = self.past.frames[country]["event_time"].iloc[last - 1]
        ends = window_ends(spec, newest, spec.monitoring.of_windows)
        windows = [self._window(country, reference, end) for end in ends if end > reference.last]
        return continued(state_of(spec, windows), held.drift)

    def _window(self, country: str, reference: Reference, end: pd.Timestamp) -> Window:
        held, spec = self.countries[country], self.specs[country]
        version, watched_by = held.champion and held.champion.version, self.watched_by[country]
        key = (country, version, held.since, watched_by, end)
        if key not in self.ground.windows:
            start = end - pd.Timedelta(days=spec.monitoring.window_days + 1)
            first, last = (self.past.first_after(country, each) for each in (start, end))
            near = self.past.frames[country].iloc[first:last]
            rows = window_rows(spec, reference, near, end)
            predicted = pd.Series(held.prediction[rows.index], index=rows.index)
            counted = profile(reference, rows, predicted, end)
            self.ground.windows[key] = compare_window(spec, reference, counted)
        return self.ground.windows[key]

    # What it does about it.

    def _planned(self, seen: Mapping[str, _Seen], moment: pd.Timestamp) -> dict[str, Action]:
        """The plan of a moment: asked again until the causes or the day's budget are spent."""
        country_states = {country: self._situation(each, moment) for country, each in seen.items()}
        asked: dict[str, Action] = {}
        while True:
            found = plan_retraining(
                self.spec,
                list(country_states.values()),
                now=_utc(moment),
                asked_today=self._asked_since(moment - pd.Timedelta(days=1)),
                resolve=self.specs,
                pooled=self._pooled_models(moment),
            )
            if found.pooled is not None:
                self._train_pooled(moment)
                continue
            kinds = ("retrain", "rollback", "withdraw")
            fresh = [each for each in found.actions if each.kind in kinds]
            if not fresh:
                return {each.country: each for each in found.actions} | asked
            for action in fresh:
                self._note(action, moment)
                country_states[action.country] = replace(
                    country_states[action.country],
                    last_training=_utc(moment),
                    tried=dict(self.countries[action.country].tried),
                )
                asked.setdefault(action.country, action)

    def _pooled_models(self, moment: pd.Timestamp) -> PooledModels | None:
        """As the sensor sees them: None where there are none, or they have learned all there is."""
        newest = self.pooled_moments[-1] if self.pooled_moments else None
        if newest == moment or not pooled_names(self.past.spec):
            return None
        return PooledModels(_utc(newest) if newest is not None else None)

    def _asked_since(self, moment: pd.Timestamp) -> int:
        return sum(each > moment for each in self._times)

    def _note(self, action: Action, moment: pd.Timestamp) -> None:
        """Every request of the backtest leads to a decision."""
        done = Attempts(finished=True, last=_utc(moment))
        self.countries[action.country].tried |= dict.fromkeys(action.covers, done)
        self._times += [moment] * (action.kind == "retrain")

    def _situation(self, seen: _Seen, moment: pd.Timestamp) -> CountryState:
        held, country = seen.held, seen.country
        champion = held.champion
        labelled = self.ground.labelled_rows(country, moment)
        trained = champion.moment if champion else moment
        return CountryState(
            country=country,
            champion=champion.version if champion else "",
            previous=held.before.version if held.before else "",
            since=_utc(held.since) if held.since is not None else None,
            learned_until=champion.until if champion else None,
            known_until=labelled["event_time"].max() if len(labelled) else None,
            new_labels=int((labelled["label_time"] > trained).sum()),
            drift=seen.drift,
            realised=seen.realised,
            on_previous=seen.on_previous,
            on_baseline=seen.on_baseline,
            refused=held.refused,
            last_training=_utc(held.last_training) if held.last_training is not None else None,
            tried=dict(held.tried),
            waiting=held.waiting,
            past=tuple(held.past),
            serves_pooled=bool(champion and champion.pooled_name),
            evidence={"performance": moment.isoformat(), "drift": moment.isoformat()},
            labels=0 if champion else len(labelled),
            labels_tried=held.labels_tried,
        )


@dataclass(frozen=True)
class _Seen:
    """What is known of a country's model at a moment."""

    country: str
    held: _Country
    realised: Realised | None = None
    drift: DriftState | None = None
    on_previous: Estimate = UNKNOWN
    on_baseline: Estimate = UNKNOWN


_ROWS = (
    "country", "entity", "event_time", "label_time", "label", "prediction", "baseline", "version",
)  # fmt: skip


def _performance(
    rows: pd.DataFrame, held: _Country, baseline: np.ndarray, place: np.ndarray
) -> pd.DataFrame:
    """Rows of the table of performance, all with a known label."""
    nothing = np.full(len(place), np.nan)
    label = rows["label"].to_numpy(dtype="float64")[place]
    event = rows["event_time"].to_numpy()[place]
    return pd.DataFrame(
        {
            "entity": rows["entity"].to_numpy()[place],
            "event_time": event,
            "label_time": rows["label_time"].to_numpy()[place],
            "made": "ahead",
            "predicted_at": event,
            "model_version": held.version[place],
            "model_kind": held.champion.kind if held.champion else "baseline",
            "prediction": held.prediction[place],
            "lower": nothing,
            "upper": nothing,
            "baseline": baseline[place],
            "previous_version": held.previous_version[place],
            "previous_prediction": held.previous[place],
            "label": label,
            "first_label": label,
        }
    )


def _watched(moment: pd.Timestamp, seen: _Seen, action: Action | None) -> MonitoredCountry:
    champion, found, drift = seen.held.champion, seen.realised, seen.drift
    return MonitoredCountry(
        moment,
        seen.country,
        champion.version if champion else "",
        found.worse if found else None,
        drift is not None and drift.state == "alarm",
        action.kind if action else "",
        action.reason if action else "",
    )


def _utc(moment: pd.Timestamp) -> dt.datetime:
    return moment.to_pydatetime().replace(tzinfo=dt.UTC)
