"""A candidate that was really fitted and judged, with all that a card tells of it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd

from mlops_assets.ml.evaluation.report import Footprint
from mlops_assets.ml.gates.gates import GateResult
from mlops_assets.ml.gates.judgement import judge
from mlops_assets.ml.models.fitted_model import fit, predict
from mlops_assets.ml.models.split import split
from mlops_assets.ml.promotion.decision import Decision
from mlops_assets.ml.reports.model_card import CardFacts, Chosen, MadeFrom
from mlops_assets.spec import ProductSpec
from mlops_assets_tests.ml.scenarios import (
    classification_rows,
    classifier,
    product,
    regression_rows,
)

FOOTPRINT = Footprint(123_456, 0.25, 1.5, 100, 3.5)
SLICES = {"slices": [{"feature": "kind"}, {"feature": "level", "edges": [0.0]}]}
FAIRNESS = {"fairness": [{"feature": "flag", "max_difference": 0.2, "min_rows": 5}]}
NOTES = "What was known that day.\n\n# not a heading\n- <b>not</b> a list | nor a cell"


@cache
def regression() -> CardFacts:
    """A country with 245 holdout rows, slices and groups."""
    return _facts(product(evaluation=SLICES, gates=FAIRNESS), regression_rows(580))


@cache
def classification() -> CardFacts:
    """The same for the probability of a yes."""
    return _facts(classifier(evaluation=SLICES, gates=FAIRNESS), classification_rows(580))


def small() -> CardFacts:
    """A country with too few rows to be judged by itself."""
    return _facts(product(evaluation=SLICES), regression_rows(345))


def promoted(facts: CardFacts) -> Decision:
    """What may have become of it."""
    return Decision(
        "promoted", "better for certain", 245, 1.0, 1.25, 0.2, 0.11, 0.3, level=0.05, draws=1000
    )


def _facts(spec: ProductSpec, rows: pd.DataFrame) -> CardFacts:
    parts = split(rows, spec.split)
    candidate = spec.candidates[0]
    model = fit(candidate, parts.final, spec.task, spec.seed)
    predicted = predict(model, parts.holdout, spec.task)
    ends = (None, None) if spec.task == "classification" else (predicted - 0.3, predicted + 0.3)
    usable = [
        GateResult("loads_and_predicts", True, 0.1, 1.0, "the same in an isolated process"),
        GateResult("latency_and_size", False, 300.0, 200.0, "300 ms a row, 200 ms are allowed"),
    ]
    judged = judge(
        spec,
        parts.holdout,
        model,
        predicted,
        train=parts.final,
        low=ends[0],
        high=ends[1],
        champion=predicted + np.where(np.arange(len(predicted)) % 2, 0.05, -0.05),
        usable=usable,
        footprint=FOOTPRINT,
    )
    tried = pd.DataFrame(
        [("gbm", "local", len(parts.train), 0.3, ""), ("gbm", "pooled", 0, np.nan, "not there")],
        columns=["name", "scope", "rows", "value", "reason"],
    )
    return CardFacts(
        product="parcels",
        country="DEU",
        spec=spec,
        chosen=Chosen(
            "local",
            "gbm",
            "7",
            "local gbm has the best validation mae",
            candidate.estimator,
            {"max_iter": 40, "learning_rate": 0.0625},
            tried,
        ),
        made=MadeFrom(
            len(parts.final),
            parts.final["event_time"].min(),
            parts.final["event_time"].max(),
            {"features": "20251101T101112000000Z-abcdef123456"},
            {"code version": "0123abcd", "config hash": spec.config_hash(), "seed": "3"},
        ),
        report=judged.report,
        gates=judged.gates,
        evidence=judged.evidence,
        notes=NOTES,
    )


def hostile(facts: CardFacts, text: str) -> CardFacts:
    """The same candidate where whatever comes from outside is this text."""
    report = facts.report
    worst = report.worst.assign(entity=text)
    slices = report.slices.assign(slice=text)
    importance = report.importance.assign(feature=text)
    return replace(
        facts,
        chosen=replace(facts.chosen, reason=text, params={text: text}),
        report=replace(report, worst=worst, slices=slices, importance=importance),
        gates=[GateResult("slices", None, np.nan, np.nan, text)],
        notes=text,
    )
