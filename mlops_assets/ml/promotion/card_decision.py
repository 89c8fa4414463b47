"""The decision in a model card, which is written before it is taken."""

from __future__ import annotations

import numpy as np

from mlops_assets.ml.charts import plots
from mlops_assets.ml.promotion.decision import Decision
from mlops_assets.ml.reports import markdown
from mlops_assets.ml.reports.model_card import (
    DECISION_MARKS,
    gain_limits,
    gain_unit,
    gain_with_ends,
)
from mlops_assets.ml.stats.metrics import Estimate
from mlops_assets.spec import ProductSpec


def with_decision(text: str, decision: Decision, spec: ProductSpec) -> str:
    """A card with this decision in place of the one it shows; another text stays as it is.

    Args:
        text: the card.
        decision: what became of its model.
        spec: the product as it is for the country.
    """
    start, end = (text.find(mark) for mark in DECISION_MARKS)
    if start < 0 or end < start:
        return text
    after = text[end + len(DECISION_MARKS[1]) :]
    return markdown.figures_last(text[:start] + _section(decision, spec) + after)


def _section(decision: Decision, spec: ProductSpec) -> str:
    gain = Estimate(decision.gain, decision.lower, decision.upper)
    withdrawn = decision.verdict == "withdrawn"
    other = "baseline" if withdrawn else "candidate"
    title = "gain of the champion on the baseline" if withdrawn else "gain on the champion"
    chance = "withdrawing" if withdrawn else "promoting"
    facts = {
        "verdict": decision.verdict.replace("_", " "),
        "why": decision.reason,
        "rows compared": f"{decision.rows:,}",
        f"{spec.metric} of the {other}": markdown.format_number(decision.candidate_value),
        f"{spec.metric} of the champion": markdown.format_number(decision.champion_value),
        title: gain_with_ends(gain, spec),
        "interval drawn from": decision.drawn,
        f"chance taken of {chance} an equal one": markdown.format_number(decision.level),
    }
    image = plots.gains({title: gain}, gain_unit(spec), limits=gain_limits(spec))
    drawn = [markdown.image(image, title)] if np.isfinite(gain.value) else []
    body = "\n\n".join([markdown.facts_table(facts), *drawn])
    return f"{DECISION_MARKS[0]}\n\n## Decision\n\n{body}\n\n{DECISION_MARKS[1]}"
