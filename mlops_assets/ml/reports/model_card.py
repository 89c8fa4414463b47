"""The model card: what a person should know of a model before using it, as one markdown file.

Plots are inside as data URIs, so that it opens without a network. Whatever comes from outside
(names, texts, values of features) is escaped: it can neither break a table nor become a link.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mlops_assets.ml.charts import plots
from mlops_assets.ml.evaluation.report import Report
from mlops_assets.ml.gates.gates import GateResult
from mlops_assets.ml.reports import markdown, tables
from mlops_assets.ml.reports.tables import NOT_JUDGED, metric_unit
from mlops_assets.ml.stats.metrics import Estimate
from mlops_assets.spec import GREATER_IS_BETTER, ProductSpec

PLOTTED_ROWS = 180
DECISION_MARKS = ("[//]: # (decision)", "[//]: # (end of decision)")
"""Around the section, and not shown: to markdown these are definitions of links nobody uses."""
OPEN_DECISION = (
    f"{DECISION_MARKS[0]}\n\n## Decision\n\nNot decided when this card was written."
    f"\n\n{DECISION_MARKS[1]}"
)
"""The section about the decision until there is one: that is taken after the card is written."""
_KINDS = {
    "local": "trained on the country's own rows",
    "region": "trained on the rows of the country's region",
    "pooled": "trained on the rows of all countries together",
    "baseline": "a naive rule, because no model could be had",
}


@dataclass(frozen=True)
class Chosen:
    """Which candidate was chosen, and from what.

    Args:
        kind: local, region, pooled or baseline.
        name: of the candidate or baseline.
        version: as registered; "" for a baseline.
        reason: why this one.
        estimator: import path; "" for a baseline.
        params: all of its parameters, those found by the search included.
        tried: candidates with what became of each, in columns of any name.
        region: name of the region it was trained on; "" unless kind is region.
    """

    kind: str
    name: str
    version: str
    reason: str
    estimator: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    tried: pd.DataFrame = field(default_factory=pd.DataFrame)
    region: str = ""


@dataclass(frozen=True)
class Learned:
    """What a model learned.

    Args:
        rows: its training rows.
        first: event time of the oldest of the country's; None when not known.
        last: event time of the newest; None when not known.
    """

    rows: int
    first: pd.Timestamp | None = None
    last: pd.Timestamp | None = None


@dataclass(frozen=True)
class MadeFrom:
    """What a model was made from and with.

    Args:
        rows: training rows of the model that serves.
        first: event time of the oldest of them; None when not known.
        last: event time of the newest; None when not known.
        snapshots: what was read: the snapshot's version, such as `features`: 2025....
        facts: by name in words: code version, config hash, libraries, seed, runs.
        holdout_from: when the holdout begins that it was judged on; None: as the spec says.
        judged: what it had learned when it was judged; None where that very model serves.
    """

    rows: int
    first: pd.Timestamp | None = None
    last: pd.Timestamp | None = None
    snapshots: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    holdout_from: pd.Timestamp | None = None
    judged: Learned | None = None


@dataclass(frozen=True)
class CardFacts:
    """All that a card tells.

    Args:
        product: its name.
        country: for which the model is.
        spec: the product as it is for this country.
        chosen: the candidate.
        made: what it was made from.
        report: its evaluation.
        gates: every gate's outcome.
        evidence: the holdout rows with predictions (see `mlops_assets.ml.evaluation.evidence`),
            for the plot of a forecast; empty for none.
        notes: what the writer of the features says of them, such as a docstring; "" for nothing.
    """

    product: str
    country: str
    spec: ProductSpec
    chosen: Chosen
    made: MadeFrom
    report: Report
    gates: Sequence[GateResult]
    evidence: pd.DataFrame = field(default_factory=pd.DataFrame)
    notes: str = ""


def card(facts: CardFacts) -> str:
    """The card as markdown, under 300 kB."""
    sections = [
        _head(facts),
        _purpose(facts),
        _limits(facts),
        _data(facts),
        _training(facts),
        _evaluation(facts),
        _slices(facts),
        _fairness(facts),
        _trust_in_numbers(facts),
        _importance(facts),
        _worst(facts),
        _footprint(facts),
        _gates(facts),
        OPEN_DECISION,
        _again(facts),
    ]
    return markdown.figures_last("\n\n".join(sections) + "\n")


def _head(facts: CardFacts) -> str:
    report, spec = facts.report, facts.spec
    chosen = facts.chosen
    version = f"version {chosen.version}" if chosen.version else "not registered"
    counts = tables.gates(facts.gates, spec)["outcome"].value_counts()
    estimate = report.estimates.get(report.metric, Estimate(report.value))
    rows = {
        "model": f"{chosen.name}, {_KINDS.get(chosen.kind, chosen.kind)} ({version})",
        f"{report.metric} on the holdout": _estimate(estimate, metric_unit(spec)),
        f"{report.metric} of baseline {report.best_baseline}": markdown.format_number(
            report.baseline_value
        ),
        "gain on the baseline": gain_with_ends(report.gain, spec),
        "gain on the champion": gain_with_ends(report.champion_gain, spec),
        "judged on": _period(report.rows, report.first, report.last, "holdout rows"),
        "gates": ", ".join(f"{count} {name}" for name, count in counts.items()) or NOT_JUDGED,
    }
    title = f"# Model card: {markdown.escaped(facts.product)}, {markdown.escaped(facts.country)}"
    return f"{title}\n\n{markdown.facts_table(rows)}"


def _purpose(facts: CardFacts) -> str:
    spec, chosen = facts.spec, facts.chosen
    answer = "a number" if spec.task == "regression" else "the probability of a yes"
    region = f" ({chosen.region})" if chosen.region else ""
    rows = {
        "predicts": f"{spec.target.description}; {answer}",
        "purpose": spec.description,
        "unit": spec.target.unit,
        "country": facts.country,
        "model": _KINDS.get(chosen.kind, chosen.kind) + region,
        "truth is known": f"{spec.target.matures_after} after the event",
        "owners": ", ".join(spec.owners),
    }
    return f"## What it predicts, and for whom\n\n{markdown.facts_table(rows)}"


def _limits(facts: CardFacts) -> str:
    spec, report = facts.spec, facts.report
    valid = f"{spec.predictions.minimum:g} to {spec.predictions.maximum:g}"
    lines = [
        f"Made for {markdown.escaped(facts.country)}; it was not judged in any other country.",
        f"Predictions outside {valid} {markdown.escaped(spec.target.unit)} are refused.",
        "It was judged up to "
        + (f"{report.last:%Y-%m-%d}" if report.last is not None else "no day at all")
        + "; how it does later is for monitoring to tell.",
    ]
    if spec.source.known_later:
        names = ", ".join(map(markdown.escaped, spec.source.known_later))
        lines.append(f"Not known at the event, and therefore hidden from the features: {names}.")
    if report.rows < spec.split.min_holdout_rows:
        lines.append(
            f"The country has {report.rows:,} holdout rows; {spec.split.min_holdout_rows:,} are "
            "needed to judge it by itself, so it is judged with other countries or not at all."
        )
    lines += [
        f"The gate {markdown.escaped(name)} is switched off: {markdown.escaped(reason)}."
        for name, reason in spec.gates.switched_off.items()
    ]
    parts = ["## Intended use and limits", "\n".join(f"- {line}" for line in lines)]
    if facts.notes.strip():
        parts += [
            "What the features are, in the words of who wrote them:",
            markdown.quoted(facts.notes),
        ]
    return "\n\n".join(parts)


def _data(facts: CardFacts) -> str:
    made = facts.made
    shown = list(made.snapshots.items())[: markdown.MOST_TABLE_ROWS]
    snapshots = {f"snapshot of {name}": version for name, version in shown}
    more = len(made.snapshots) - len(shown)
    rows = {
        "learned from": _period(made.rows, made.first, made.last, "rows"),
        "had learned from, when it was judged": _learned(made.judged),
        "judged on": _period(facts.report.rows, facts.report.first, facts.report.last, "rows"),
        **snapshots,
        "more snapshots": f"{more} more" if more > 0 else "",
    }
    return f"## Data\n\n{markdown.facts_table(rows)}"


def _training(facts: CardFacts) -> str:
    chosen = facts.chosen
    rows = {
        "candidate": f"{chosen.name} ({chosen.kind})",
        "estimator": chosen.estimator,
        "why this one": chosen.reason,
        **_times(facts),
    }
    parts = ["## Training", markdown.facts_table(rows)]
    if chosen.params:
        parts += [
            "Parameters:",
            markdown.facts_table({name: str(v) for name, v in chosen.params.items()}),
        ]
    if len(chosen.tried):
        parts += ["Candidates tried:", markdown.frame_table(chosen.tried)]
    return "\n\n".join(parts)


def _times(facts: CardFacts) -> dict[str, str]:
    """When the parts of the split began, and what was done after the holdout was judged."""
    split, began = facts.spec.split, facts.made.holdout_from
    holdout = split.holdout_from if began is None else began.date()
    if holdout is None:
        return {"holdout": "no label is known that says when it begins"}
    dates = split.fixed(holdout).dates(None)
    judged = facts.made.judged is not None
    return {
        "train from": str((dates and dates.train_from) or "all history"),
        "validation": f"the {split.validation_days} days before {holdout}",
        "holdout": f"from {holdout} on; no candidate and no search saw it",
        "after that": "fitted again on every known label, the holdout included, with the same "
        "procedure and parameters; that model serves, and its figures are those of the one before"
        if judged
        else "",
    }


def _learned(judged: Learned | None) -> str:
    return "" if judged is None else _period(judged.rows, judged.first, judged.last, "rows")


def _evaluation(facts: CardFacts) -> str:
    spec, report = facts.spec, facts.report
    share = f"{spec.evaluation.confidence:.0%}"
    direction = "higher" if report.metric in GREATER_IS_BETTER else "lower"
    drawn = f"{spec.evaluation.draws:,} draws" if report.drawn is None else report.drawn.text
    about = (
        f"Compared by {report.metric}: {direction} is better. Intervals hold {share} of a "
        f"bootstrap's {drawn}. Gains compare the same rows."
    )
    parts = ["## Evaluation", about, markdown.frame_table(_formatted(tables.metrics(report, spec)))]
    if report.interval_problem:
        parts.append(f"Intervals are {NOT_JUDGED}: {markdown.escaped(report.interval_problem)}.")
    if known := known_gains(report):
        image = plots.gains(known, gain_unit(spec), limits=gain_limits(spec))
        parts.append(markdown.image(image, "gains with intervals"))
    if len(report.by_month):
        unit = metric_unit(spec)
        image = plots.error_by_month(report.by_month, report.metric, unit)
        parts += [
            "### By month",
            markdown.image(image, "metric by month"),
            markdown.frame_table(tables.months(report)),
        ]
    return "\n\n".join(parts)


def known_gains(report: Report) -> dict[str, Estimate]:
    """The gains of a report that can be told, by name."""
    named = {"gain on the best baseline": report.gain, "gain on the champion": report.champion_gain}
    return {name: each for name, each in named.items() if np.isfinite(each.value)}


def gain_limits(spec: ProductSpec) -> dict[str, float]:
    """What the lower ends of the gains must be above, by name."""
    return {
        "gain on the best baseline": spec.gates.min_improvement,
        "gain on the champion": spec.decision.margin,
    }


def _slices(facts: CardFacts) -> str:
    spec, table = facts.spec, facts.report.slices
    title = "## Slices"
    if not len(table):
        declared = ", ".join(markdown.escaped(each.feature) for each in spec.evaluation.slices)
        why = f"declared, but without a row: {declared}" if declared else "none are declared"
        return f"{title}\n\n{NOT_JUDGED.capitalize()}: {why}."
    image = plots.slices(table, facts.report.metric, metric_unit(spec))
    return "\n\n".join(
        [
            title,
            markdown.image(image, "slices"),
            markdown.frame_table(tables.slice_rows(facts.report)),
        ]
    )


def _fairness(facts: CardFacts) -> str:
    declared = facts.spec.gates.fairness
    title = "## Groups that must be treated alike"
    if not declared:
        return f"{title}\n\nNo groups are declared, so nothing was compared."
    rules = [
        f"- {markdown.escaped(each.feature)}: {each.measure}"
        + (f", at most {each.max_difference:g} apart" if each.max_difference is not None else "")
        + (f", at least a share of {each.min_ratio:g}" if each.min_ratio is not None else "")
        + f", groups of {each.min_rows:,} rows or more"
        for each in declared
    ]
    return "\n\n".join([title, "\n".join(rules), _gate_of(facts, "fairness")])


def _trust_in_numbers(facts: CardFacts) -> str:
    report, spec = facts.report, facts.spec
    if spec.task == "classification":
        error = _estimate(report.calibration, "")
        parts = ["## Calibration", f"Expected calibration error: {error}."]
        if report.reliability is not None and len(report.reliability):
            parts.append(markdown.image(plots.reliability(report.reliability), "reliability"))
        return "\n\n".join([*parts, _gate_of(facts, "calibration")])
    share = f"{spec.predictions.interval:.0%}"
    text = (
        f"The {share} interval covers this share of the labels: {_estimate(report.coverage, '')}."
    )
    parts = ["## Prediction intervals", text]
    if len(facts.evidence):
        parts.append(markdown.image(forecast_plot(facts.evidence, spec), "forecast and actual"))
    return "\n\n".join([*parts, _gate_of(facts, "coverage")])


def forecast_plot(evidence: pd.DataFrame, spec: ProductSpec, rows: int = PLOTTED_ROWS) -> str:
    """The newest holdout rows: labels, forecasts and intervals, by the time of the label."""
    newest = evidence.sort_values("label_time", kind="stable").tail(rows)
    return plots.forecast_against_actual(
        newest["label_time"],
        newest["label"],
        newest["candidate"],
        newest["low"],
        upper=newest["high"],
        title=f"Forecast against actual, the newest {len(newest):,} holdout rows",
        unit=spec.target.unit,
    )


def _importance(facts: CardFacts) -> str:
    table, spec = facts.report.importance, facts.spec
    title = "## What it looks at"
    if not len(table):
        return f"{title}\n\nPermutation importance: {NOT_JUDGED}."
    about = "How much worse the holdout predictions get when a feature is shuffled among the rows."
    image = plots.importance(table, facts.report.metric, metric_unit(spec))
    return "\n\n".join(
        [title, about, markdown.image(image, "importance"), markdown.frame_table(table)]
    )


def _worst(facts: CardFacts) -> str:
    table = facts.report.worst
    title = "## Worst cases"
    if not len(table):
        return f"{title}\n\nNone are recorded."
    return f"{title}\n\nThe holdout rows with the greatest loss.\n\n{markdown.frame_table(table)}"


def _footprint(facts: CardFacts) -> str:
    table = tables.footprint(facts.report)
    body = markdown.frame_table(table) if len(table) else f"{NOT_JUDGED.capitalize()}."
    return f"## Size and latency\n\n{body}"


def _gates(facts: CardFacts) -> str:
    table = tables.gates(facts.gates, facts.spec)
    body = (
        markdown.frame_table(table)
        if len(table)
        else f"{NOT_JUDGED.capitalize()}: no gate was asked."
    )
    return f"## Gates\n\n{body}"


def _again(facts: CardFacts) -> str:
    version = f" --version {facts.chosen.version}" if facts.chosen.version else ""
    command = f"mlops-assets reproduce {_plain(facts.product)} {_plain(facts.country)}{version}"
    parts = ["## How to make it again", markdown.facts_table(dict(facts.made.facts))]
    if facts.chosen.version:
        parts += ["```sh\n" + command + "\n```"]
    return "\n\n".join(parts)


def _gate_of(facts: CardFacts, name: str) -> str:
    table = tables.gates(facts.gates, facts.spec)
    found = table[table["gate"] == name]
    if found.empty:
        return f"The gate {name}: {NOT_JUDGED}."
    row = found.iloc[0]
    return f"The gate {name}: {row['outcome']}. {markdown.escaped(row['why'])}"


def gain_unit(spec: ProductSpec) -> str:
    """As `plots.gains` takes it."""
    return spec.metric if spec.metric in GREATER_IS_BETTER else "share"


def gain_with_ends(gain: Estimate, spec: ProductSpec) -> str:
    """A share of the other's error, or a difference where greater is better."""
    if not np.isfinite(gain.value):
        return NOT_JUDGED
    form = "{:+.4g}" if spec.metric in GREATER_IS_BETTER else "{:+.1%}"
    ends = [form.format(end) for end in (gain.lower, gain.upper) if np.isfinite(end)]
    return form.format(gain.value) + (f" ({ends[0]} to {ends[1]})" if len(ends) == 2 else "")


def _estimate(estimate: Estimate, unit: str) -> str:
    unit = unit if np.isfinite(estimate.value) else ""
    return f"{tables.format_estimate(estimate)} {unit}".rstrip()


def _period(rows: int, first: pd.Timestamp | None, last: pd.Timestamp | None, what: str) -> str:
    days = (
        f", {first:%Y-%m-%d} to {last:%Y-%m-%d}" if first is not None and last is not None else ""
    )
    return f"{rows:,} {what}{days}"


def _plain(name: str) -> str:
    """A name in a command of a code block; quoted where a shell would take it apart."""
    text = " ".join(name.replace("`", "").split())
    return text if re.fullmatch(r"[\w./-]+", text) else "'" + text.replace("'", "'\\''") + "'"


def _formatted(table: pd.DataFrame) -> pd.DataFrame:
    """Values that cannot be told are said to be so, not left empty."""
    told = [markdown.format_number(value) for value in table["value"]]
    return table.assign(value=told)
