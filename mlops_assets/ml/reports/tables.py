"""The tables of a report as people read them: on the asset's page, as CSV, in the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mlops_assets.ml.evaluation.report import Report
from mlops_assets.ml.gates.gates import GateResult
from mlops_assets.ml.stats.metrics import Estimate
from mlops_assets.spec import GREATER_IS_BETTER, ProductSpec

NOT_JUDGED = "not judged"
_OUTCOMES = {True: "passed", False: "failed", None: NOT_JUDGED}
_METRIC_COLUMNS = ["what", "value", "lower", "upper", "unit"]


def metrics(report: Report, spec: ProductSpec) -> pd.DataFrame:
    """What, value, lower, upper and unit: metrics, baselines, champion, gains, calibration.

    A value that cannot be told is NaN; a baseline has no interval of its own, its gain has.
    """
    unit = metric_unit(spec)
    gain_unit = "" if report.metric in GREATER_IS_BETTER else "share of the error"
    rows = [
        (name, report.estimates.get(name, Estimate(value)), unit)
        for name, value in report.metrics.items()
    ]
    named = {name: Estimate(value) for name, value in report.baselines.items()}
    rows += [(f"{report.metric} of baseline {name}", each, unit) for name, each in named.items()]
    rows.append((f"{report.metric} of the champion", report.champion, unit))
    rows.append((f"gain on baseline {report.best_baseline}", report.gain, gain_unit))
    rows.append(("gain on the champion", report.champion_gain, gain_unit))
    if spec.task == "classification":
        rows.append(("calibration error", report.calibration, "share"))
        rows.append(("gain in calibration on the champion", report.calibration_gain, "share"))
    else:
        share = f"{spec.predictions.interval:.0%} interval: labels inside"
        rows.append((share, report.coverage, "share"))
    cells = [(name, e.value, e.lower, e.upper, u) for name, e, u in rows]
    return pd.DataFrame(cells, columns=_METRIC_COLUMNS)


def metric_unit(spec: ProductSpec) -> str:
    """Unit of the metric: that of the target for an error, none for a probability's."""
    return spec.target.unit if spec.task == "regression" else ""


def gates(results: Sequence[GateResult], spec: ProductSpec) -> pd.DataFrame:
    """Gate, outcome, value, limit and why; those that the product switches off are named, too."""
    off = spec.gates.switched_off
    rows = [
        (
            result.name,
            "switched off" if result.name in off else _OUTCOMES[result.passed],
            result.value,
            result.limit,
            result.description.removeprefix(f"{NOT_JUDGED}: "),
        )
        for result in results
    ]
    judged = {result.name for result in results}
    nan = float("nan")
    rows += [
        (str(name), "switched off", nan, nan, reason)
        for name, reason in off.items()
        if name not in judged
    ]
    return pd.DataFrame(rows, columns=["gate", "outcome", "value", "limit", "why"])


def gate_numbers(results: Sequence[GateResult]) -> pd.DataFrame:
    """Gate, number and value: what each gate measured beside its value."""
    rows = [(each.name, name, value) for each in results for name, value in each.numbers.items()]
    return pd.DataFrame(rows, columns=["gate", "number", "value"])


def footprint(report: Report) -> pd.DataFrame:
    """What and value; empty where nothing was measured."""
    found = report.footprint
    if found is None:
        return pd.DataFrame(columns=["what", "value"])
    batch = f"milliseconds to predict {found.batch_rows:,} rows at once"
    rows = [
        ("size of the files in kB", found.bytes / 1000),
        ("seconds to load in an isolated process", found.load_seconds),
        ("milliseconds to predict a row", found.row_milliseconds),
        (batch, found.batch_milliseconds),
    ]
    return pd.DataFrame(rows, columns=["what", "value"])


def months(report: Report) -> pd.DataFrame:
    """Month, rows, the metric in words, baseline's and champion's value."""
    table = report.by_month
    kept = [name for name in ("baseline", "champion") if name in table]
    shown = table[["month", "rows", "value", *kept]].copy()
    shown["value"] = _formatted(table)
    return shown.rename(columns={"value": report.metric})


def slice_rows(report: Report) -> pd.DataFrame:
    """Part, rows, the metric and the gain in words, references, and whether it was judged.

    The gain is on the champion, without one on the best baseline.
    """
    table = report.slices
    parts = [f"{f}: {part}" for f, part in zip(table["feature"], table["slice"], strict=True)]
    return pd.DataFrame(
        {
            "part": parts,
            "rows": table["rows"],
            report.metric: _formatted(table),
            "baseline": table["baseline"],
            "champion": table["champion"],
            "gain": _formatted(table, "gain", "gain_lower", "gain_upper"),
            "judged": np.where(table["judged"].astype(bool), "yes", NOT_JUDGED),
        }
    )


def _formatted(
    table: pd.DataFrame, value: str = "value", lower: str = "lower", upper: str = "upper"
) -> list[str]:
    nothing = pd.Series(np.nan, index=table.index)
    ends = zip(table[value], table.get(lower, nothing), table.get(upper, nothing), strict=True)
    return [format_estimate(Estimate(*(float(each) for each in row))) for row in ends]


def format_estimate(estimate: Estimate) -> str:
    """A value with its interval; says so where it could not be judged."""
    if not np.isfinite(estimate.value):
        return NOT_JUDGED
    ends = f" ({estimate.lower:.4g} to {estimate.upper:.4g})" if estimate.has_interval else ""
    return f"{estimate.value:.4g}{ends}"


def flat_metrics(report: Report) -> dict[str, float]:
    """Every number of a report by a name that sorts with its like, for MLflow; NaN left out."""
    named: dict[str, Estimate] = {
        **{
            f"holdout.{name}": report.estimates.get(name, Estimate(value))
            for name, value in report.metrics.items()
        },
        **{f"baseline.{name}": Estimate(value) for name, value in report.baselines.items()},
        f"champion.{report.metric}": report.champion,
        "gain.baseline": report.gain,
        "gain.champion": report.champion_gain,
        "gain.calibration": report.calibration_gain,
        "coverage": report.coverage,
        "calibration_error": report.calibration,
    }
    flat = {"improvement": report.improvement, "holdout.rows": float(report.rows)}
    for name, each in named.items():
        flat |= {name: each.value, f"{name}.lower": each.lower, f"{name}.upper": each.upper}
    if report.footprint is not None:
        flat |= {f"footprint.{name}": float(v) for name, v in vars(report.footprint).items()}
    return {name: value for name, value in flat.items() if np.isfinite(value)}


def csv_files(tables: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """File name: text, of every table that has rows."""
    return {
        f"{name}.csv": table.to_csv(index=False) for name, table in tables.items() if len(table)
    }


def of_report(
    report: Report, results: Sequence[GateResult], spec: ProductSpec
) -> dict[str, pd.DataFrame]:
    """Every table of an evaluation by its name."""
    bins = report.reliability
    return {
        "metrics": metrics(report, spec),
        "by_month": report.by_month,
        "slices": report.slices,
        "reliability": pd.DataFrame() if bins is None else bins,
        "importance": report.importance,
        "worst_cases": report.worst,
        "gates": gates(results, spec),
        "gate_numbers": gate_numbers(results),
        "footprint": footprint(report),
    }
