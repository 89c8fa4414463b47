"""From evidence to a verdict: the very same function decides, and replays what was decided.

Nothing here loads a model or asks the registry: what a verdict depends on beside the evidence is in
its settings, which are recorded with it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import pandas as pd

from mlops_assets.ml.gates.gates import GateResult
from mlops_assets.ml.gates.model_pair import ModelPair
from mlops_assets.ml.gates.succession import PooledComparison
from mlops_assets.ml.promotion.decision import Decision, decide, settings_of, spec_of
from mlops_assets.spec import ProductSpec

_PROMOTES = ("promoted", "waiting")


@dataclass(frozen=True)
class Circumstances:
    """What a verdict depends on that no prediction shows.

    Attributes:
        rolled_back: how a person rolled back from the candidate before; "" when nobody did.
        champion_problem: why the champion cannot predict the rows; "" when it can, or there is
            none.
    """

    rolled_back: str = ""
    champion_problem: str = ""


@dataclass(frozen=True)
class VerdictSettings:
    """What evidence is judged by.

    Attributes:
        spec: of the country; one that was read back has the sections alone that count.
        circumstances: what else counts.
    """

    spec: ProductSpec
    circumstances: Circumstances = Circumstances()

    def to_json(self) -> str:
        """As it is recorded with a decision."""
        return json.dumps({**settings_of(self.spec), "circumstances": asdict(self.circumstances)})

    @classmethod
    def from_json(cls, text: str) -> "VerdictSettings":
        """What `to_json` wrote."""
        held = json.loads(text)
        return cls(spec_of(held), Circumstances(**held["circumstances"]))


def conclude(
    evidence: pd.DataFrame,
    gates: Sequence[GateResult],
    pair: ModelPair,
    settings: VerdictSettings,
    *,
    pooled: PooledComparison | None = None,
) -> Decision:
    """The verdict on a candidate.

    A candidate that a person rolled back from is kept. A champion that cannot predict today's rows
    serves nobody, so that the gates alone decide. Everything else is `decision.decide`.

    Args:
        evidence: one row per holdout row (`ml.evaluation.evidence`).
        gates: every gate's outcome.
        pair: what is compared.
        settings: what it is judged by.
        pooled: as in `decision.decide`.
    """
    spec, known = settings.spec, settings.circumstances
    if known.champion_problem:
        alone = replace(pair, champion="", champion_until=None, champion_bytes=0)
        decision = decide(spec, evidence, gates, alone)
        decision = replace(decision, reason=_alone(decision, known.champion_problem))
    else:
        decision = decide(spec, evidence, gates, pair, pooled=pooled)
    if known.rolled_back and decision.verdict in _PROMOTES:
        reason = f"{known.rolled_back}; only a person puts it into use again. {decision.reason}"
        return replace(decision, verdict="kept", reason=reason)
    return decision


def _alone(decision: Decision, problem: str) -> str:
    if decision.verdict == "promoted":
        outcome = "The candidate passed every gate."
    elif decision.verdict == "waiting":
        outcome = "The candidate passed every gate and waits for a person's approval."
    else:
        outcome = f"Nor did the candidate pass: {decision.reason}"
    return f"the champion cannot be compared: {problem} {outcome}"
