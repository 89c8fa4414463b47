"""Limits a candidate must keep before it is compared with the champion.

Each gate is a function that gives its outcome with its numbers. A limit on something measured on
rows is broken only when the interval says so for certain: a gate does not fail by chance, and with
too few rows it is not judged, which is never the same as passed.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from mlops_assets.ml.evaluation.behaviour import Behaved
from mlops_assets.ml.evaluation.fairness import Compared, Unequal
from mlops_assets.ml.evaluation.report import Footprint, Report
from mlops_assets.ml.gates.basis import OwnRows, above, basis_of, behaves, keeps_floor
from mlops_assets.ml.stats.metrics import NAN, UNKNOWN, Estimate, at_most, format_gain, is_better
from mlops_assets.spec import GATES, GREATER_IS_BETTER, GateName, ProductSpec

MIN_MONTHS = 3
"""Fewer months say nothing about stability."""
MIN_MONTH_ROWS = 10
"""Fewest rows of a month that counts; `gates.min_slice_rows` where that is lower."""
NAMED = 5
"""Slices named in a description; the table of slices has them all."""


@dataclass(frozen=True)
class GateResult:
    """One gate's outcome.

    Args:
        name: of the gate.
        passed: None when it could not be judged, which keeps the champion where the gate is one of
            `decision.REQUIRED`, and is told where it is not.
        value: what was measured; NaN when it could not be.
        limit: what it was held against; NaN without a limit.
        description: the outcome in a sentence.
        numbers: what else was measured, by name; shown in the check's metadata.
    """

    name: str
    passed: bool | None
    value: float
    limit: float
    description: str
    numbers: Mapping[str, float] = field(default_factory=dict)


def gates_to_json(gates: Sequence[GateResult]) -> str:
    """Every gate's outcome as JSON; `gates_from_json` reads it."""
    return json.dumps([_plain(gate) for gate in gates])


def gates_from_json(text: str) -> list[GateResult]:
    """What `gates_to_json` wrote."""
    return [
        GateResult(
            name=stored["name"],
            passed=stored["passed"],
            value=_float(stored["value"]),
            limit=_float(stored["limit"]),
            description=stored["description"],
            numbers={name: _float(value) for name, value in stored["numbers"].items()},
        )
        for stored in json.loads(text)
    ]


def declared_gates(spec: ProductSpec) -> tuple[GateName, ...]:
    """The gates a product has, in the order of `GATES`.

    Calibration is for classification, coverage for regression; slices, fairness and behaviour are
    for products of which a country declares some.

    Args:
        spec: the whole product, with its overrides.
    """
    countries = [spec, *(spec.for_country(country) for country in spec.overrides)]
    absent: set[GateName] = {"coverage" if spec.task == "classification" else "calibration"}
    if not any(each.evaluation.slices for each in countries):
        absent.add("slices")
    if not any(each.gates.fairness for each in countries):
        absent.add("fairness")
    if not any(each.gates.behaviour for each in countries):
        absent.add("behaviour")
    return tuple(name for name in GATES if name not in absent)


def not_judged(name: GateName, reason: str, limit: float = NAN) -> GateResult:
    """A gate about which nothing can be said."""
    return GateResult(name, None, NAN, limit, f"not judged: {reason}")


def unless_switched_off(spec: ProductSpec, result: GateResult) -> GateResult:
    """The outcome of a gate that `gates.switched_off` names: passed, saying so; else what it is."""
    if result.name not in spec.gates.switched_off:
        return result
    reason = f"switched off: {spec.gates.switched_off[result.name]}"
    return replace(result, passed=True, description=reason)


def beats_baseline(
    report: Report,
    spec: ProductSpec,
    pooled: Report | None = None,
    *,
    whose: str = "of the country",
    serving: Estimate = UNKNOWN,
) -> GateResult:
    """Whether the candidate is for certain better than the best baseline.

    For certain: by the lower end of the interval of the gain on the same rows, which must be above
    `gates.min_improvement`. Where own rows cannot tell, and cannot tell it of the champion either,
    the champion has no more to say for itself than the candidate, and the gate leaves it to their
    comparison: after a change of the world every model that was judged on rows from before and
    after it is in doubt, and the one that knows only what was before would serve on.

    Args:
        report: of the candidate on the country's own holdout rows.
        spec: the product as it is for this country.
        pooled: of the pooled model on the holdout of all countries; used when the country's own
            holdout has fewer than `split.min_holdout_rows` rows or cannot tell its gain from the
            limit. Own rows that are under it for certain count, however few they are.
        whose: the rows of `report` are, in words; of a pooled model they are not of one country.
        serving: gain of the champion on the same baseline, on the rows it predicts; UNKNOWN without
            a champion.
    """
    least = spec.gates.min_improvement
    problem = "" if report.gain.has_interval else _no_gain(report)
    told = _describe_gain(report.metric, report.gain)
    own = OwnRows(report, problem, above(report.gain, least), told, whose)
    helps = pooled is not None and above(pooled.gain, least) is True
    found = basis_of(spec, own, pooled, helps=helps)
    used, basis = found.report, found.told
    if used is None:
        return GateResult("beats_baseline", None, NAN, least, basis)
    if not used.gain.has_interval:
        return not_judged("beats_baseline", f"{_no_gain(used)}, {basis}", least)
    surely = above(used.gain, least)
    doubt = surely is None and serving.has_interval and above(serving, least) is not True
    passed = surely is True or doubt
    told = _describe_gain(used.metric, serving)
    description = (
        f"{used.metric} {used.value:.4g} against {used.baseline_value:.4g} of baseline "
        f"{used.best_baseline}: {_describe_gain(used.metric, used.gain)}; significantly more than "
        f"{format_gain(used.metric, least)} is {'reached' if surely else 'not reached'}, {basis}"
        f"{f'; nor does the champion reach it ({told}), so that their comparison decides' * doubt}"
    )
    numbers = {
        used.metric: used.value,
        "baseline": used.baseline_value,
        **_ends("gain", used.gain),
        **(_ends("champion_gain", serving) if doubt else {}),
        **_rows_of(used, report, found.pooled_rows),
    }
    return GateResult("beats_baseline", passed, used.gain.lower, least, description, numbers)


def above_floor(report: Report, spec: ProductSpec, pooled: Report | None = None) -> GateResult:
    """Whether the metric keeps the absolute limit `gates.floor`; passes when there is none.

    Args:
        report: of the candidate on the country's own holdout rows.
        spec: the product as it is for this country.
        pooled: as in `beats_baseline`.
    """
    floor = spec.gates.floor
    if floor is None:
        return GateResult("above_floor", True, report.value, NAN, "no floor is set")
    problem = "" if report.judged else f"{report.metric} cannot be told on {report.rows} rows"
    told = f"{report.metric} {report.value:.4g}"
    own = OwnRows(report, problem, keeps_floor(report, floor), told)
    helps = pooled is not None and keeps_floor(pooled, floor) is True
    found = basis_of(spec, own, pooled, helps=helps)
    used, basis = found.report, found.told
    if used is None:
        return GateResult("above_floor", None, NAN, floor, basis)
    passed = keeps_floor(used, floor) is True
    bound = "at least" if used.metric in GREATER_IS_BETTER else "at most"
    description = f"{used.metric} {used.value:.4g}, {bound} {floor:.4g} is required, {basis}"
    numbers = {used.metric: used.value, **_rows_of(used, report, found.pooled_rows)}
    return GateResult("above_floor", passed, used.value, floor, description, numbers)


def slices(report: Report, spec: ProductSpec) -> GateResult:
    """Whether no declared slice is for certain worse than the champion beyond the margin.

    A slice fails when its gain on the champion (without one: on the best baseline) is under
    -`gates.slice_margin` and the better end of the gain's interval is under 0. The intervals of a
    report's slices hold together (`slice_table`), so that with a confidence of 90 % equal models
    fail in 1 % of the cases, however many slices there are.

    Args:
        report: of the candidate on the country's own holdout rows.
        spec: the product as it is for this country.
    """
    margin, table = spec.gates.slice_margin, report.slices
    if not spec.evaluation.slices:
        return GateResult("slices", True, NAN, margin, "this country declares no slices")
    judged = table[table["judged"].astype("bool")]
    others = table[~table["judged"].astype("bool")]
    told = _named(others) if len(others) else ""
    bad = judged[(judged["gain"] < -margin) & (judged["gain_upper"] < 0)]
    worst = float(judged["gain"].min()) if len(judged) else NAN
    numbers = {
        "judged": float(len(judged)),
        "not_judged": float(len(others)),
        "failed": float(len(bad)),
    }
    missing = sorted(table.loc[table["slice"] == "", "feature"])
    rest = f"; not judged: {told}" if told else ""
    if len(bad):
        text = (
            f"worse than {_reference(report)} by more than {format_gain(report.metric, margin)}: "
        )
        passed, text = False, text + "; ".join(_describe_slice(report, row) for row in _rows(bad))
    elif missing or not len(judged):
        lacking = f"the rows have no feature {', '.join(missing)}" if missing else "too few rows"
        passed, text = None, f"not judged: {lacking}"
    else:
        most = format_gain(report.metric, margin)
        text = f"none of {len(judged)} slices is significantly worse than {_reference(report)} "
        passed, text = True, f"{text}by more than {most}"
    return GateResult("slices", passed, worst, -margin, text + rest, numbers)


def calibration(report: Report, spec: ProductSpec) -> GateResult:
    """Whether the expected calibration error is not for certain above its limit, or the champion's.

    Above the champion's: by more than `gates.calibration_margin`, with an interval of the paired
    difference that is above 0. A limit alone lets a model through whose probabilities are all too
    low where the share of class 1 is small.

    Args:
        report: of the candidate on the country's own holdout rows.
        spec: the product as it is for this country.
    """
    limit, margin = spec.gates.max_calibration_error, spec.gates.calibration_margin
    error, gain = report.calibration, report.calibration_gain
    if problem := _too_few(report, spec, error):
        return not_judged("calibration", problem, limit)
    within = error.lower <= limit
    spoiled = gain.has_interval and gain.value < -margin and gain.upper < 0
    text = (
        f"expected calibration error {error.value:.3g} ({error.lower:.3g} to {error.upper:.3g}) "
        f"on {report.rows} rows is {'not significantly' if within else 'significantly'} above "
        f"{limit:g}"
    )
    if gain.has_interval:
        where = "over" if gain.value < 0 else "under"
        verdict = "significantly worse and beyond" if spoiled else "not significantly worse beyond"
        text += f"; it is {abs(gain.value):.3g} {where} the champion's, {verdict} {margin:g}"
    numbers = {
        **_ends("calibration_error", error),
        **(_ends("gain_on_champion", gain) if gain.has_interval else {}),
        "rows": float(report.rows),
    }
    return GateResult("calibration", within and not spoiled, error.value, limit, text, numbers)


def coverage(report: Report, spec: ProductSpec) -> GateResult:
    """Whether the prediction intervals do not for certain cover too few or too many labels.

    Args:
        report: of the candidate on the country's own holdout rows.
        spec: the product as it is for this country.
    """
    nominal, tolerance = spec.predictions.interval, spec.gates.coverage_tolerance
    share = report.coverage
    if problem := _too_few(report, spec, share):
        return not_judged("coverage", problem, nominal)
    passed = share.lower <= nominal + tolerance and share.upper >= nominal - tolerance
    text = (
        f"{share.value:.1%} ({share.lower:.1%} to {share.upper:.1%}) of the labels are inside "
        f"the intervals, {'not significantly' if passed else 'significantly'} outside "
        f"{nominal - tolerance:.1%} "
        f"to {nominal + tolerance:.1%}"
    )
    numbers = {**_ends("coverage", share), "rows": float(report.rows)}
    return GateResult("coverage", passed, share.value, nominal, text, numbers)


def stability(report: Report, spec: ProductSpec) -> GateResult:
    """Whether the candidate beats the best baseline in enough months.

    Fails when so few months would be better in less than half of 1 - `evaluation.confidence` of
    all cases if the share were `gates.min_months_better` (binomial, months independent).

    Args:
        report: of the candidate on the country's own holdout rows.
        spec: the product as it is for this country.
    """
    limit, table = spec.gates.min_months_better, report.by_month
    enough = min(MIN_MONTH_ROWS, spec.gates.min_slice_rows)
    known = (table["rows"] >= enough) & table["value"].notna() & table["baseline"].notna()
    months = table[known]
    better = sum(is_better(report.metric, row["value"], row["baseline"]) for row in _rows(months))
    numbers = {"months": float(len(months)), "better": float(better)}
    if len(months) < MIN_MONTHS:
        reason = f"{MIN_MONTHS} months of {enough} rows are needed, there are {len(months)}"
        return GateResult("stability", None, NAN, limit, f"not judged: {reason}", numbers)
    chance = at_most(better, len(months), limit)
    passed = chance >= (1.0 - spec.evaluation.confidence) / 2.0 or better >= limit * len(months)
    text = (
        f"better than the best baseline in {better} of {len(months)} months, "
        f"{'not significantly' if passed else 'significantly'} under the share {limit:g}"
    )
    return GateResult("stability", passed, better / len(months), limit, text, numbers)


def fairness(compared: Sequence[Compared], spec: ProductSpec) -> GateResult:
    """Whether no declared groups are for certain treated more differently than the limits allow.

    Args:
        compared: the groups of each of `gates.fairness`.
        spec: the product as it is for this country.
    """
    if not spec.gates.fairness:
        return GateResult("fairness", True, NAN, NAN, "this country declares no groups")
    pairs = [pair for each in compared for pair in each.pairs]
    broken = [pair for pair in pairs if pair.broken]
    left_out = [each for each in compared if len(each.judged) < 2]
    told = "; ".join(_describe_groups(each) for each in compared)
    numbers = {
        "judged_groups": float(sum(len(each.judged) for each in compared)),
        "not_judged_groups": float(sum(len(each.not_judged) for each in compared)),
        "broken": float(len(broken)),
    }
    if broken:
        text = "; ".join(_describe_pair(pair) for pair in broken[:NAMED])
        return GateResult("fairness", False, *_furthest(spec, broken), text, numbers)
    if left_out or not pairs:
        text = f"not judged: fewer than two groups of {_features(left_out)} have enough rows"
        return GateResult("fairness", None, NAN, NAN, f"{text}; {told}", numbers)
    return GateResult("fairness", True, *_furthest(spec, pairs), told, numbers)


def behaviour(
    tried: Sequence[Behaved], spec: ProductSpec, pooled: Sequence[Behaved] = ()
) -> GateResult:
    """Whether the model behaves as declared.

    Args:
        tried: the outcome of each of `gates.behaviour`.
        spec: the product as it is for this country.
        pooled: the same of the pooled model on the holdout of all countries; where the country's
            own rows are none, or fail by what may be chance, these count if they pass.
    """
    if not spec.gates.behaviour:
        return GateResult("behaviour", True, NAN, NAN, "this country declares no tests")
    tried = _by_all(tried, spec, pooled)
    limits = {test.name: test.min_share for test in spec.gates.behaviour}
    shares = {each.name: each.behaved / each.rows for each in tried if each.rows}
    failed = [each for each in tried if each.passed is False]
    untried = [f"{each.name}: {each.problem}" for each in tried if each.passed is None]
    worst = min(shares, key=lambda name: shares[name] - limits[name], default="")
    ends = (shares.get(worst, NAN), limits.get(worst, NAN))
    rest = f"; not judged: {'; '.join(untried)}" if untried else ""
    if failed:
        text = "; ".join(_describe_behaviour(each, limits[each.name]) for each in failed)
        return GateResult("behaviour", False, *ends, text + rest, shares)
    if untried:
        return GateResult("behaviour", None, *ends, rest.removeprefix("; "), shares)
    text = "; ".join(f"{name}: {share:.1%} of the rows behave" for name, share in shares.items())
    return GateResult("behaviour", True, *ends, text, shares)


def loads_and_predicts(
    *, same_in_isolated_process: bool | None, batch_equals_rows: bool | None, problem: str = ""
) -> GateResult:
    """Whether the stored files predict as in training, and row by row as all at once.

    Args:
        same_in_isolated_process: whether an isolated process predicts equally; None: not tried.
        batch_equals_rows: whether rows one by one give the predictions of all; None: not tried.
        problem: why the files could not be loaded or used; "" if they could.
    """
    name: GateName = "loads_and_predicts"
    if problem:
        return GateResult(name, False, NAN, NAN, problem)
    if same_in_isolated_process is None or batch_equals_rows is None:
        return not_judged(name, "the stored files were not tried")
    wrong = [
        text
        for text, equal in (
            (
                "an isolated process predicts something else than training did",
                same_in_isolated_process,
            ),
            ("rows one by one get other predictions than all at once", batch_equals_rows),
        )
        if not equal
    ]
    fine = "an isolated process and rows one by one give the predictions of the training"
    numbers = {"fresh": float(same_in_isolated_process), "row_by_row": float(batch_equals_rows)}
    return GateResult(name, not wrong, NAN, NAN, "; ".join(wrong) or fine, numbers)


def latency_and_size(footprint: Footprint | None, spec: ProductSpec) -> GateResult:
    """Whether the model loads and predicts in time and is not too large.

    Args:
        footprint: what was measured; None: nothing was.
        spec: the product as it is for this country.
    """
    limits, name = spec.gates, "latency_and_size"
    if footprint is None:
        return not_judged(name, "the stored files were not tried", limits.max_predict_seconds)
    seconds = footprint.load_seconds + footprint.batch_milliseconds / 1000.0
    megabytes = footprint.bytes / 1e6
    batch = f"s to load and predict {footprint.batch_rows} rows"
    measured = (
        (seconds, limits.max_predict_seconds, batch),
        (footprint.row_milliseconds, limits.max_row_milliseconds, "ms to predict a row"),
        (megabytes, limits.max_megabytes, "MB"),
    )
    text = "; ".join(f"{value:.3g} {what} (limit {limit:g})" for value, limit, what in measured)
    numbers = {
        "seconds": seconds,
        "row_milliseconds": footprint.row_milliseconds,
        "megabytes": megabytes,
    }
    passed = all(value <= limit for value, limit, _ in measured)
    return GateResult(name, passed, seconds, limits.max_predict_seconds, text, numbers)


def _rows_of(used: Report, own: Report, pooled_rows: int) -> dict[str, float]:
    """What was judged on; `pooled_rows` only where those of all countries took part."""
    shared = {"pooled_rows": float(pooled_rows)} if pooled_rows else {}
    return {"rows": float(used.rows), "own_rows": float(own.rows), **shared}


def _by_all(
    tried: Sequence[Behaved], spec: ProductSpec, pooled: Sequence[Behaved]
) -> list[Behaved]:
    """Every test as it counts in the country."""
    tests = {test.name: test for test in spec.gates.behaviour}
    known = {each.name: each for each in pooled}
    chance = (1.0 - spec.evaluation.confidence) / 2.0
    return [behaves(tests[one.name], one, known.get(one.name), chance) for one in tried]


def _no_gain(report: Report) -> str:
    return report.interval_problem or (
        f"{report.metric} and its interval cannot be told on {report.rows} rows"
    )


def _too_few(report: Report, spec: ProductSpec, measured: Estimate) -> str:
    """Why coverage or calibration is not judged; "" if it is."""
    needed = spec.gates.min_coverage_rows
    if report.rows < needed:
        return f"{needed} holdout rows are needed, there are {report.rows}"
    return (
        ""
        if measured.has_interval
        else report.interval_problem or "it cannot be told on these rows"
    )


def _describe_gain(metric: str, gain: Estimate) -> str:
    value, lower, upper = (
        format_gain(metric, each) for each in (gain.value, gain.lower, gain.upper)
    )
    return f"better by {value} ({lower} to {upper})"


def _ends(name: str, measured: Estimate) -> dict[str, float]:
    return {name: measured.value, f"{name}_lower": measured.lower, f"{name}_upper": measured.upper}


def _reference(report: Report) -> str:
    known = np.isfinite(report.champion.value)
    return "the champion" if known else f"baseline {report.best_baseline}"


def _rows(table: pd.DataFrame) -> list[dict[Hashable, Any]]:
    return table.to_dict("records")


def _describe_slice(report: Report, row: Mapping[Hashable, Any]) -> str:
    gain = Estimate(row["gain"], row["gain_lower"], row["gain_upper"])
    return (
        f"{row['feature']} {row['slice']} ({row['rows']} rows): "
        f"{_describe_gain(report.metric, gain)}"
    )


def _named(table: pd.DataFrame) -> str:
    names = [f"{row['feature']} {row['slice']} ({row['rows']} rows)" for row in _rows(table)]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _describe_groups(each: Compared) -> str:
    declared, widest = each.declared, next(iter(each.pairs), None)
    judged = f"{', '.join(each.judged) or 'no group'} of {declared.feature} judged"
    named = [f"{name or 'no such feature'} ({rows} rows)" for name, rows in each.not_judged.items()]
    few = f", not judged: {', '.join(named[:NAMED])}" if named else ""
    if widest is None:
        return judged + few
    return (
        f"{judged}{few}; {declared.measure} differs by {widest.difference.value:.3g} at most "
        f"({widest.high} and {widest.low}), not significantly beyond the limits"
    )


def _describe_pair(pair: Unequal) -> str:
    return (
        f"{pair.measure} of {pair.feature} {pair.high} is significantly too far from that of "
        f"{pair.low}: " + ", ".join(pair.broken)
    )


def _furthest(spec: ProductSpec, pairs: Sequence[Unequal]) -> tuple[float, float]:
    """The greatest difference and its limit; NaN for a limit that is a ratio."""
    widest = max(pairs, key=lambda pair: pair.difference.value)
    limits = (
        each.max_difference
        for each in spec.gates.fairness
        if (each.feature, each.measure) == (widest.feature, widest.measure)
    )
    limit = next((limit for limit in limits if limit is not None), NAN)
    return widest.difference.value, limit


def _features(compared: Sequence[Compared]) -> str:
    return ", ".join(each.declared.feature for each in compared)


def _describe_behaviour(each: Behaved, least: float) -> str:
    return (
        f"{each.name}: {each.behaved} of {each.rows} rows behave, a share of {least:g} is needed, "
        f"such as {each.example}"
    )


def _plain(gate: GateResult) -> dict[str, Any]:
    return {
        "name": gate.name,
        "passed": gate.passed,
        "value": _number(gate.value),
        "limit": _number(gate.limit),
        "description": gate.description,
        "numbers": {name: _number(value) for name, value in gate.numbers.items()},
    }


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if value != value else float(value)


def _float(value: float | None) -> float:
    return NAN if value is None else value
