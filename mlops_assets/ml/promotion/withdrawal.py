"""A model that is significantly worse than the naive rule is taken out of use, for what is better.

The very same function decides and replays what was decided: from rows that have matured, and what
is known of the pooled model that may serve instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from mlops_assets.ml.gates.gates import GateResult
from mlops_assets.ml.promotion.decision import Decision, Verdict, settings_of, spec_of
from mlops_assets.ml.stats.draws import draw_rows
from mlops_assets.ml.stats.looks import gain_on, tail_of, too_few
from mlops_assets.ml.stats.metrics import Estimate, format_gain, score
from mlops_assets.spec import MonitoringSpec, ProductSpec

WITHDRAWAL_COLUMNS = (
    "entity",
    "event_time",
    "label_time",
    "label",
    "champion",
    "baseline",
    "pooled",
)
"""Columns of the rows a withdrawal is decided from; `pooled` is NaN where it says nothing."""

_USABLE = ("loads_and_predicts", "latency_and_size")
"""Gates without whose judgement no pooled model comes into use."""

Target = Literal["champion", "pooled", "baseline"]
"""What serves once a withdrawal is decided."""


@dataclass(frozen=True)
class StandIn:
    """The pooled model that may serve in place of the champion.

    Args:
        title: what it is called; "" where there is none.
        problem: why it may not serve whatever its rows say; "" if it may.
    """

    title: str = ""
    problem: str = "there is no pooled model"


@dataclass(frozen=True)
class WithdrawalSettings:
    """What the rows of a withdrawal are judged by.

    Args:
        spec: of the country; one that was read back has the sections alone that count.
        champion: the version it is about.
        baseline: name of the one that would serve.
        stand_in: the pooled model that may serve instead.
    """

    spec: ProductSpec
    champion: str
    baseline: str
    stand_in: StandIn = StandIn()

    def to_json(self) -> str:
        """As it is recorded with the decision."""
        about = {
            "champion": self.champion,
            "baseline": self.baseline,
            "stand_in": asdict(self.stand_in),
        }
        watched = self.spec.monitoring.model_dump(mode="json")
        return json.dumps({**settings_of(self.spec), "monitoring": watched, "withdrawal": about})

    @classmethod
    def from_json(cls, text: str) -> WithdrawalSettings:
        """What `to_json` wrote."""
        held: Mapping[str, Any] = json.loads(text)
        about = held["withdrawal"]
        watched = TypeAdapter(MonitoringSpec).validate_python(held["monitoring"])
        spec = spec_of(held).model_copy(update={"monitoring": watched})
        return cls(spec, about["champion"], about["baseline"], StandIn(**about["stand_in"]))


@dataclass(frozen=True)
class Withdrawal:
    """What comes of a champion that was asked to be taken out of use.

    Args:
        decision: withdrawn; kept where it is not significantly worse after all; not_judged.
        target: what serves then.
    """

    decision: Decision
    target: Target


def decide_withdrawal(rows: pd.DataFrame, settings: WithdrawalSettings) -> Withdrawal:
    """Take the champion out of use if it is significantly worse than the baseline on its rows.

    The pooled model serves in its place, unless something rules it out (`StandIn.problem`) or it is
    significantly worse than the baseline itself, on those of the rows that it predicts and did not
    learn from. Where these are too few to tell, what all countries said of it when it was put into
    use stands. Else the baseline serves.

    Args:
        rows: with the columns `WITHDRAWAL_COLUMNS`.
        settings: what they are judged by.
    """
    spec, label = settings.spec, rows["label"].to_numpy(dtype="float64")
    ours, naive = (rows[name].to_numpy(dtype="float64") for name in ("champion", "baseline"))
    gain = gain_on(spec, rows, ours, naive, tail=tail_of(spec))
    told = _compared(settings, rows, gain)
    if not gain.has_interval or gain.upper >= 0.0:
        unjudged = too_few(spec, label) or _no_interval(spec, rows, gain)
        verdict: Verdict = "not_judged" if unjudged else "kept"
        why = unjudged or f"{told}: not significantly worse"
        return Withdrawal(
            _decision(spec, rows, gain, verdict=verdict, reason=f"{why}; it stays"), "champion"
        )
    target, instead = _instead(settings, rows)
    return Withdrawal(
        _decision(spec, rows, gain, verdict="withdrawn", reason=f"{told}; {instead}"), target
    )


def ruled_out(gates: Sequence[GateResult]) -> str:
    """Which gate keeps the pooled model from serving; "" for none.

    All but `beats_baseline`, in whose place the matured rows stand: what serves now is worse than
    the baseline on them. The files must load and predict, judged and in time.
    """
    failed = [gate for gate in gates if gate.passed is False and gate.name != "beats_baseline"]
    unjudged = [gate for gate in gates if gate.passed is None and gate.name in _USABLE]
    stopped = next(iter([*failed, *unjudged]), None)
    return f"gate {stopped.name}: {stopped.description}" if stopped else ""


def _instead(settings: WithdrawalSettings, rows: pd.DataFrame) -> tuple[Target, str]:
    """What serves in place of the champion, and why."""
    spec, stand_in = settings.spec, settings.stand_in
    serves = f"the baseline {settings.baseline} serves"
    if stand_in.problem:
        return "baseline", f"{serves}: {stand_in.problem}"
    both = rows[rows["pooled"].notna()]
    gain = gain_on(
        spec,
        both,
        both["pooled"].to_numpy(dtype="float64"),
        both["baseline"].to_numpy(dtype="float64"),
        tail=tail_of(spec),
    )
    if gain.has_interval and gain.upper < 0.0:
        told = f"{stand_in.title} is significantly worse than it, too"
        return "baseline", f"{serves}: {told} ({_told(spec, gain)} on {len(both):,} of the rows)"
    own = "its own rows are too few to speak against it"
    if np.isfinite(gain.value):
        own = f"on {len(both):,} of the rows its gain on the baseline is {_told(spec, gain)}"
    return "pooled", f"{stand_in.title} serves: {own}"


def _compared(settings: WithdrawalSettings, rows: pd.DataFrame, gain: Estimate) -> str:
    spec = settings.spec
    unit = f" {spec.target.unit}" if spec.task == "regression" else ""
    label = rows["label"].to_numpy(dtype="float64")
    ours, naive = (score(spec.metric, label, rows[name].to_numpy()) for name in _BOTH)
    return (
        f"version {settings.champion}: {spec.metric} {ours:.4g}{unit} against {naive:.4g}{unit} of "
        f"the baseline {settings.baseline} on the same {len(rows):,} matured rows, gain "
        f"{_told(spec, gain)}"
    )


_BOTH = ("champion", "baseline")


def _told(spec: ProductSpec, gain: Estimate) -> str:
    value, lower, upper = (
        format_gain(spec.metric, each) for each in (gain.value, gain.lower, gain.upper)
    )
    return f"{value} ({lower} to {upper})" if gain.has_interval else value


def _no_interval(spec: ProductSpec, rows: pd.DataFrame, gain: Estimate) -> str:
    """Why a loss has no interval; "" where it has one, and for what is no loss."""
    if gain.has_interval or gain.value >= 0.0:
        return ""
    problem = draw_rows(spec.evaluation, rows, seed=spec.seed).problem
    return problem or f"the interval of {spec.metric} cannot be told on {len(rows):,} rows"


def _decision(
    spec: ProductSpec, rows: pd.DataFrame, gain: Estimate, *, verdict: Verdict, reason: str
) -> Decision:
    label = rows["label"].to_numpy(dtype="float64")
    ours, naive = (score(spec.metric, label, rows[name].to_numpy()) for name in _BOTH)
    if not gain.has_interval:
        return Decision(
            verdict, reason, len(rows), naive, ours, gain=gain.value, own_rows=len(rows)
        )
    drawn = draw_rows(spec.evaluation, rows, seed=spec.seed)
    return Decision(
        verdict,
        reason,
        len(rows),
        naive,
        ours,
        gain.value,
        gain.lower,
        gain.upper,
        tail_of(spec),
        drawn.draws,
        drawn.block_days if drawn.time else 0,
        drawn.drawn.by,
        drawn.drawn.text,
        own_rows=len(rows),
    )
