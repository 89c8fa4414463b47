"""What a person sees of a candidate: on the page of `model`, and among the files in MLflow.

The page is an event in Dagster's database, so it holds what fits: the newest forecast, the first
slices and features. The files in MLflow hold everything, and the model card all in one.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from mlops_assets.ml.charts import plots
from mlops_assets.ml.evaluation.report import Report
from mlops_assets.ml.reports import tables
from mlops_assets.ml.reports.model_card import (
    CardFacts,
    card,
    forecast_plot,
    gain_limits,
    gain_unit,
    known_gains,
)
from mlops_assets.ml.reports.tables import metric_unit
from mlops_assets.ml.stats.metrics import Estimate
from mlops_assets.spec import GREATER_IS_BETTER, ProductSpec
from mlops_assets.stages.common.ui_metadata import facts_metadata as facts_table
from mlops_assets.stages.common.ui_metadata import rounded, svg_metadata, table_metadata
from mlops_assets.stages.training.serving import report_to_json

CARD_FILE = "model_card.md"
CARD_TAG = "mlops_assets.card"
"""On a registered version: the file of its card among the artifacts of its training run."""
REPORT_FILE = "report.json"
_PAGE_ROWS = 15
"""Slices, features and worst cases on the page; the rest is in the model card and the tables."""
_PAGE_FORECASTS = 90


def candidate_metadata(facts: CardFacts) -> dict[str, Any]:
    """Metadata of the asset `model` about the candidate and its evaluation, for people.

    Args:
        facts: as the model card has them.
    """
    report, spec, chosen = facts.report, facts.spec, facts.chosen
    found: dict[str, Any] = {
        "kind": chosen.kind,
        "why_this_model": chosen.reason,
        report.metric: rounded(report.value),
        f"baseline_{report.metric}": rounded(report.baseline_value),
        "evaluation": facts_table(_evaluation(facts)),
        "metrics": table_metadata(tables.metrics(report, spec)),
        "gates": table_metadata(tables.gates(facts.gates, spec)),
        "candidates_tried": table_metadata(chosen.tried),
        "by_month": table_metadata(tables.months(report)),
        **_page_plots(facts),
        "slices": table_metadata(tables.slice_rows(report).head(_PAGE_ROWS)),
        "importance": table_metadata(report.importance.head(_PAGE_ROWS)),
        "worst_cases": table_metadata(report.worst.head(_PAGE_ROWS)),
        "footprint": table_metadata(tables.footprint(report)),
    }
    return {name: value for name, value in found.items() if _has_content(value)}


def artifacts(facts: CardFacts) -> Mapping[str, str]:
    """Files for the candidate's MLflow run by name: card, report, tables as CSV, plots as SVG."""
    report, spec = facts.report, facts.spec
    results = {**tables.of_report(report, facts.gates, spec), "tried": facts.chosen.tried}
    return {
        CARD_FILE: card(facts),
        REPORT_FILE: report_to_json(report),
        **tables.csv_files(results),
        **{f"{name}.svg": image for name, image in _plots(facts).items()},
    }


def _evaluation(facts: CardFacts) -> dict[str, object]:
    """How the candidate did on the holdout, with units, for people."""
    report, spec, chosen = facts.report, facts.spec, facts.chosen
    unit = metric_unit(spec)
    return {
        "candidate": f"{chosen.name} ({chosen.kind})",
        "region": chosen.region,
        "registered version": chosen.version,
        "trained on": f"{facts.made.rows:,} rows",
        "judged on": f"{report.rows:,} holdout rows, {_day(report.first)} to {_day(report.last)}",
        **{
            f"{name} ({unit})" if unit else name: tables.format_estimate(
                report.estimates.get(name, Estimate(value))
            )
            for name, value in report.metrics.items()
        },
        f"{report.metric} of baseline {report.best_baseline}": report.baseline_value,
        "improvement on it": _gain(report.gain, report.improvement, spec),
        "improvement on the champion": _gain(
            report.champion_gain, report.champion_gain.value, spec
        ),
        "intervals": report.drawn.text if report.drawn and not report.interval_problem else "",
        "intervals not judged": report.interval_problem,
        **_trust(report, spec),
    }


def _trust(report: Report, spec: ProductSpec) -> dict[str, object]:
    """Whether probabilities or prediction intervals can be taken at their word."""
    if spec.task == "classification":
        return {"calibration error": tables.format_estimate(report.calibration)}
    return {
        f"labels inside the {spec.predictions.interval:.0%} interval": tables.format_estimate(
            report.coverage
        )
    }


def _plots(facts: CardFacts) -> dict[str, str]:
    """Every plot of a candidate by its name."""
    report, spec = facts.report, facts.spec
    unit = metric_unit(spec)
    drawn = {"error_by_month": plots.error_by_month(report.by_month, report.metric, unit)}
    if report.reliability is not None:
        drawn["reliability"] = plots.reliability(report.reliability)
    elif len(facts.evidence):
        drawn["forecast_against_actual"] = forecast_plot(facts.evidence, spec)
    if gains := known_gains(report):
        drawn["gains"] = plots.gains(gains, gain_unit(spec), limits=gain_limits(spec))
    if len(report.slices):
        drawn["slices"] = plots.slices(report.slices, report.metric, unit)
    if len(report.importance):
        drawn["importance"] = plots.importance(report.importance, report.metric, unit)
    return drawn


def _page_plots(facts: CardFacts) -> dict[str, dg.MarkdownMetadataValue]:
    """The plots that a table does not tell as well, small."""
    report, spec = facts.report, facts.spec
    small = {
        name: image
        for name, image in _plots(facts).items()
        if name in {"error_by_month", "reliability", "gains"}
    }
    if report.reliability is None and len(facts.evidence):
        small["forecast_against_actual"] = forecast_plot(facts.evidence, spec, _PAGE_FORECASTS)
    if len(report.slices):
        first = report.slices.head(_PAGE_ROWS)
        small["slices_plot"] = plots.slices(first, report.metric, metric_unit(spec))
    if len(report.importance):
        first = report.importance.head(_PAGE_ROWS)
        small["importance_plot"] = plots.importance(first, report.metric, metric_unit(spec))
    return {name: svg_metadata(image, name.replace("_", " ")) for name, image in small.items()}


def _gain(gain: Estimate, value: float, spec: ProductSpec) -> str | None:
    """A share of the other's error, or a difference where greater is better."""
    if not np.isfinite(value):
        return None
    form = "{:+.4g}" if spec.metric in GREATER_IS_BETTER else "{:+.1%}"
    ends = f" ({form.format(gain.lower)} to {form.format(gain.upper)})" if gain.has_interval else ""
    return form.format(value) + ends


def _day(time: pd.Timestamp | None) -> str:
    return str(time.date()) if time is not None else "-"


def _has_content(value: object) -> bool:
    """Not NaN, and no table without rows."""
    return value == value and not (isinstance(value, dg.TableMetadataValue) and not value.records)
