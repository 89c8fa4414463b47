"""What predictions turned out to be worth, once their labels are known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import pandas as pd

from mlops_assets.ml.evaluation.evidence import MISSING, OTHER, edge_names, slice_names
from mlops_assets.ml.evaluation.report import Report
from mlops_assets.ml.models.baselines import baseline_predictions
from mlops_assets.ml.models.split import split
from mlops_assets.ml.reports.tables import format_estimate, metric_unit
from mlops_assets.ml.stats.bootstrap import estimate, gain_estimate
from mlops_assets.ml.stats.draws import BootstrapWeights, Drawn, draw_rows
from mlops_assets.ml.stats.looks import LOOKS, rare_class
from mlops_assets.ml.stats.metrics import (
    NAN,
    UNKNOWN,
    Estimate,
    format_gain,
    improvement,
    losses,
    score,
)
from mlops_assets.spec import FEATURE_KEYS, GREATER_IS_BETTER, BaselineSpec, ProductSpec

PERFORMANCE_COLUMNS = (
    "entity",
    "event_time",
    "label_time",
    "made",  # "ahead": before the label was known; "late": after, by a model that did not learn it
    "predicted_at",
    "model_version",
    "model_kind",
    "prediction",
    "lower",
    "upper",
    "baseline",
    "previous_version",  # "" where no model was in use before the champion
    "previous_prediction",
    "label",  # NaN while it is open
    "first_label",  # as it was when it matured; another one now is a revised label
)
PERIOD_COLUMNS = ("period", "model_version", "rows", "value", "baseline", "open_rows")
PERFORMANCE_SLICE_COLUMNS = (
    "feature",
    "slice",
    "model_version",
    "rows",
    "value",
    "baseline",
    "open_rows",
)

COMPARED_ROWS = 20_000
"""Most rows on which two versions are compared: more take seconds and say no more."""
_KEYS = ["entity", "event_time"]
_TIMES = ("event_time", "label_time", "predicted_at")
_TEXTS = ("entity", "made", "model_version", "model_kind", "previous_version")
_SAME_LABEL = 1e-9
"""Relative difference up to which a label computed again is the same."""
_NEAR_MONDAY = 3
"""Days from the Monday before 1970-01-01 to that day, a Thursday."""


@dataclass(frozen=True)
class Promise:
    """What a model was promoted for.

    Args:
        metric: of the product.
        value: on the holdout, with its interval.
        baseline: the first baseline's metric on the same rows; NaN when it was not judged.
        rows: of the holdout.
        share: of the baseline's error that the value is, with its interval, paired on the same
            rows where that is known; UNKNOWN: `value` over `baseline`.
        pooled: whether the rows are those of all countries of a pooled model, because the country's
            own were too few to promise anything.
    """

    metric: str
    value: Estimate
    baseline: float
    rows: int
    share: Estimate = UNKNOWN
    pooled: bool = False


@dataclass(frozen=True)
class Realised:
    """What the model in use is really worth on the newest matured rows.

    Args:
        version: of the model.
        rows: matured rows it predicted ahead or late whose label became known in the newest
            `monitoring.label_days`.
        open_rows: predictions whose label is not known yet, of any age.
        revised: matured labels, of any age, that have another value than when they matured.
        first: event time of the first of `rows`; None without rows.
        last: of the last.
        value: the metric with its interval, drawn as `evaluation.draw_by` says.
        baseline: the first baseline's metric on the same rows.
        expected: what the promise amounts to on these rows. Errors: the promised share of the
            baseline's error times the baseline's error here, so that a restless month is not
            taken for a bad model; the promised value itself where there is no baseline, and for
            auc. With the interval of the promise.
        worse: whether `value` is significantly worse than `expected` beyond
            `monitoring.tolerance`; None
            when it is not judged.
        excess: by how much it is worse than expected: a share of the expected error, for auc the
            difference; positive is worse, NaN when not judged. Orders countries by loss.
        reason: the outcome in a sentence.
        compared: `value` with the interval that is compared with `expected`: of its share of the
            baseline's error, paired on the same rows, times the baseline's error here; as `value`
            where there is no baseline, and for auc.
        harder: whether `value` itself is significantly above the promised one beyond the tolerance,
            whatever the baseline's error is: labels confirm that the world changed, though the
            model need not be to blame. For auc as `worse`. An error that was promised by the
            rows of all countries is of another size here, and says nothing of that.
        pooled: as in `Promise`.
        drawn: what the intervals are drawn from (`draws.Drawn.text`); "" where it was not told yet.
    """

    version: str
    rows: int
    open_rows: int
    revised: int
    first: pd.Timestamp | None
    last: pd.Timestamp | None
    value: Estimate = UNKNOWN
    baseline: float = float("nan")
    expected: Estimate = UNKNOWN
    worse: bool | None = None
    excess: float = float("nan")
    reason: str = ""
    compared: Estimate = UNKNOWN
    harder: bool = False
    drawn: str = ""
    pooled: bool = False


def no_performance() -> pd.DataFrame:
    """The table of performance without a row."""
    return _typed(pd.DataFrame(columns=list(PERFORMANCE_COLUMNS)))


def record_predictions(
    held: pd.DataFrame, predictions: pd.DataFrame, features: pd.DataFrame, spec: ProductSpec
) -> pd.DataFrame:
    """The table of performance with new predictions, and with the labels as they are now.

    A prediction counts as it was when it was made last before its label was known; one made late
    counts when there is none from before, and then the first such. Rows that a model learned from
    never count. What was recorded for a row whose label matured is never replaced, but for the
    label itself. A row that the features no longer have keeps the label it had.

    Args:
        held: the table so far, columns `PERFORMANCE_COLUMNS`; empty at the beginning.
        predictions: the newest predictions frame with `made`, `predicted_at` and the columns of
            the model that was in use before. Several frames may come as one.
        features: the features frame with labels as they are known now.
        spec: the product as it is for this country.

    Returns:
        One row per entity and event time with the columns `PERFORMANCE_COLUMNS`, by event time
        and entity. `baseline` is what the product's first baseline says at that time.
    """
    new = _counted(predictions, features, spec)
    return _with_labels(_kept(held, new), features)


def promise_of(spec: ProductSpec, report: Report | None, *, pooled: bool = False) -> Promise:
    """What a report promises, with intervals at `monitoring.confidence`.

    The share of the baseline's error has the paired interval of the gain where the first baseline
    is the best one, as the gain is on that; else that of the value. A pooled report of an earlier
    version, whose rule `mean` is the mean of all countries, tells no share: no country's own
    mean has such errors.

    Args:
        spec: the product as it is for this country.
        report: of the version on its holdout; None for a baseline, which promises nothing.
        pooled: whether it is of the pooled model on the holdout of all its countries.
    """
    if report is None:
        return Promise(spec.metric, UNKNOWN, NAN, 0)
    first, same = spec.baselines[0].name, report.metric == spec.metric
    own_mean = report.baselines_by_country or spec.baselines[0].rule != "mean"
    told = same and (own_mean or not pooled)
    value = report.estimates.get(spec.metric, Estimate(report.value) if same else UNKNOWN)
    baseline = report.baselines.get(first, NAN) if told else NAN
    paired = told and report.best_baseline == first and spec.metric not in GREATER_IS_BETTER
    share = _as_share(report.gain) if paired else UNKNOWN
    return Promise(
        spec.metric,
        _surer(spec, value),
        baseline,
        report.rows,
        _surer(spec, share),
        pooled=pooled,
    )


def realised(spec: ProductSpec, table: pd.DataFrame, promise: Promise, version: str) -> Realised:
    """What a version is worth on its newest matured rows, beside what it promised.

    These are the rows whose label became known in the newest `monitoring.label_days` of the table:
    of the newest events only those are known whose truth shows soon, which are not like the others;
    and what a version did before another one was in use for months says nothing of today.

    Errors are worse than promised when the lower end of `compared` is above the upper end of
    `expected` times (1 + `monitoring.tolerance`); auc when the upper end of `value` is under the
    lower end of `expected` less the tolerance. All ends are of intervals at
    `monitoring.confidence`. Not judged are fewer than `monitoring.min_labels` rows, for auc fewer
    than `gates.min_slice_class_rows` of either class, rows with too little to draw an interval
    from, and a promise that is not known or has no interval.

    Args:
        spec: the product as it is for this country.
        table: of performance.
        promise: of the version.
        version: the champion's; "" for the baseline.
    """
    by_version = (table["model_version"] == version).to_numpy()
    own, rows = table[by_version], table[by_version & newly_known(table, spec)]
    draws = draw_rows(spec.evaluation, rows, seed=spec.seed)
    label, predicted, naive = _numbers(rows, "label", "prediction", "baseline")
    value = estimate(spec.metric, label, predicted, draws, tail=_tail(spec))
    baseline = score(spec.metric, label, naive)
    share = _share(spec, label, predicted, naive, draws=draws)
    with_share = np.isfinite(share.value) and np.isfinite(_promised_share(promise).value)
    found = Realised(
        version=version,
        rows=len(rows),
        open_rows=int(own["label"].isna().sum()),
        revised=_revised(own),
        first=rows["event_time"].min() if len(rows) else None,
        last=rows["event_time"].max() if len(rows) else None,
        value=value,
        baseline=baseline,
        expected=_times(_promised_share(promise), baseline) if with_share else promise.value,
        compared=_times(share, baseline) if with_share else value,
        drawn=draws.drawn.text,
        pooled=promise.pooled,
    )
    problem = _problem(spec, found, promise, label, draws=draws)
    if problem:
        return replace(found, reason=f"not judged: {problem}")
    return _judged(spec, found, promise.value, draws.drawn)


def by_period(spec: ProductSpec, table: pd.DataFrame) -> pd.DataFrame:
    """Realised metric, baseline's metric, rows and open rows by period and model version.

    Returns:
        One row per `monitoring.period` of event times and version that predicted some of it, in
        that order; period is its first day, such as "2025-01-27" (a Monday for weeks), for months
        "2025-01"; model_version is "" for a baseline; value and baseline are NaN without a matured
        row, and for auc with one class.
    """
    periods = _periods(table["event_time"], spec.monitoring.period)
    starts, place = np.unique(periods, return_inverse=True)
    found = _grouped(spec, table, place)
    names = np.datetime_as_string(starts)[found.pop("part").to_numpy()]
    found.insert(0, "period", names.astype("object"))
    return found


def by_slice(spec: ProductSpec, table: pd.DataFrame, features: pd.DataFrame) -> pd.DataFrame:
    """The same by declared slice and model version, over the newest `monitoring.label_days`.

    Returns:
        One row per part of `evaluation.slices` and version: the columns
        `PERFORMANCE_SLICE_COLUMNS`. Matured
        rows are those whose label became known in these days, open ones are of any age; a row
        that the features no longer have is in the slice "missing", as one without a value.
    """
    recent = table[newly_known(table, spec) | table["label"].isna()]
    place = places_of(recent, features)
    parts = []
    for declared in spec.evaluation.slices:
        if declared.feature not in features:
            continue
        values = features[declared.feature].iloc[place[place >= 0]]
        names = np.full(len(recent), MISSING, dtype="object")
        names[place >= 0] = slice_names(values, declared.edges)
        present = set(names)
        order = edge_names(declared.edges) if declared.edges else sorted(present - {MISSING, OTHER})
        kept = [name for name in dict.fromkeys([*order, OTHER, MISSING]) if name in present]
        found = _grouped(spec, recent, pd.Categorical(names, kept).codes.astype("int64"))
        found.insert(0, "slice", np.array(kept, dtype="object")[found.pop("part").to_numpy()])
        found.insert(0, "feature", declared.feature)
        parts.append(found)
    return (
        pd.concat(parts, ignore_index=True)
        if parts
        else pd.DataFrame(columns=PERFORMANCE_SLICE_COLUMNS)
    )


def against_previous(spec: ProductSpec, table: pd.DataFrame, version: str) -> Estimate:
    """Gain of a version on the one in use before it, on the matured rows that both predicted.

    Positive is better, as `metrics.improvement`; `UNKNOWN` with fewer than `monitoring.min_labels`
    rows. The version is clearly worse when the upper end is below 0. Whoever looks again and again
    finds a difference by chance some day. So it is looked at anew only when there are twice as many
    rows as before: at the first `monitoring.min_labels` since the version came into use, at twice,
    four times as many and so on, with the rest of `monitoring.confidence` shared by `LOOKS` looks.
    Where the version before it changed, as by a rollback, the rows beside the newest one count.

    Args:
        spec: the product as it is for this country.
        table: of performance, by event time.
        version: the champion's.
    """
    both = table["label"].notna() & table["previous_prediction"].notna()
    rows = table[(table["model_version"] == version) & both]
    if len(rows) < spec.monitoring.min_labels:
        return UNKNOWN
    newest = rows["previous_version"].to_numpy()[int(rows["predicted_at"].to_numpy().argmax())]
    rows = rows[rows["previous_version"] == newest]
    rows = rows.head(_looked_at(len(rows), spec.monitoring.min_labels))
    label, ours, theirs = _numbers(rows, "label", "prediction", "previous_prediction")
    if len(rows) < spec.monitoring.min_labels or rare_class(spec, label):
        return UNKNOWN
    draws = draw_rows(spec.evaluation, rows, seed=spec.seed)
    return gain_estimate(spec.metric, label, ours, theirs, draws=draws, tail=_tail(spec) / LOOKS)


def _looked_at(rows: int, fewest: int) -> int:
    """So many of the first rows are compared: the fewest, doubled as often as there are enough."""
    count = fewest
    while 2 * count <= min(rows, COMPARED_ROWS):
        count *= 2
    return count


def promised_in(
    spec: ProductSpec, promise: Promise, baseline: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a promise amounts to where the first baseline's metric is as given.

    Args:
        spec: the product as it is for this country.
        promise: of a version.
        baseline: the metric of some groups of rows, shape (groups,).

    Returns:
        Value, lower and upper end, each of shape (groups,); NaN where they cannot be told.
    """
    share = UNKNOWN if spec.metric in GREATER_IS_BETTER else _promised_share(promise)
    ends = _ends(share) if np.isfinite(share.value) else _ends(promise.value)
    factor = baseline if np.isfinite(share.value) else np.ones(len(baseline))
    value, lower, upper = (factor * end for end in ends)
    return value, lower, upper


def _counted(predictions: pd.DataFrame, features: pd.DataFrame, spec: ProductSpec) -> pd.DataFrame:
    """The predictions that may count, as rows of the table without labels."""
    place = places_of(predictions, features)
    told = predictions.assign(label=NAN, label_time=np.datetime64("NaT", "ns"), first_label=NAN)
    told["baseline"] = naive_at(spec, features, place, spec.baselines[0])
    return _typed(told[told["made"].isin(("ahead", "late"))])


def naive_at(
    spec: ProductSpec, features: pd.DataFrame, place: np.ndarray, baseline: BaselineSpec
) -> np.ndarray:
    """A baseline's predictions of rows by their place in the features (`places_of`), shape (rows,).

    NaN for rows that are not there.
    """
    keys = features[list(FEATURE_KEYS)]
    learned = split(keys, spec.split).final
    known = learned if len(learned) else keys[keys["label"].notna()]
    used = [baseline.feature] if baseline.feature else ["entity"]
    values = baseline_predictions(baseline, known, features[used])
    return _taken(values, place, np.nan)


def _kept(held: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Of all predictions of a row the one that counts."""
    both = pd.concat([_typed(held), new], ignore_index=True) if len(held) else new
    ahead = (both["made"] == "ahead").to_numpy()
    matured = both["first_label"].notna().to_numpy()
    moment = both["predicted_at"].to_numpy().astype("int64")
    order = np.lexsort((np.where(ahead, moment, -moment), np.where(matured, 2, ahead)))
    best = both.iloc[order].drop_duplicates(_KEYS, keep="last")
    return best.sort_values(["event_time", "entity"], kind="stable", ignore_index=True)


def _with_labels(table: pd.DataFrame, features: pd.DataFrame) -> pd.DataFrame:
    place = places_of(table, features)
    labels = features["label"].to_numpy("float64", na_value=np.nan)
    times = features["label_time"].to_numpy("datetime64[ns]")
    label = _taken(labels, place, table["label"].to_numpy())
    first = table["first_label"].to_numpy()
    return table.assign(
        label=label,
        label_time=_taken(times, place, table["label_time"].to_numpy()),
        first_label=np.where(np.isfinite(first), first, label),
    )


def places_of(rows: pd.DataFrame, features: pd.DataFrame) -> np.ndarray:
    """Where each row is in the features frame, shape (rows,); -1: it is not there."""
    numbered = features[_KEYS].assign(place=np.arange(len(features)))
    found = rows[_KEYS].merge(numbered, on=_KEYS, how="left", validate="many_to_one")
    return found["place"].to_numpy("float64", na_value=-1.0).astype("int64")


def _taken(values: np.ndarray, place: np.ndarray, otherwise: np.ndarray | float) -> np.ndarray:
    """Values at places, and what is given otherwise where the place is -1."""
    if not len(values):
        return np.broadcast_to(np.asarray(otherwise), place.shape).copy()
    return np.where(place >= 0, values[place], otherwise)


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of the table with the types they always have."""
    types = {
        **dict.fromkeys(PERFORMANCE_COLUMNS, "float64"),
        **dict.fromkeys(_TEXTS, "object"),
        **dict.fromkeys(_TIMES, "datetime64[ns]"),
    }
    return table[list(PERFORMANCE_COLUMNS)].astype(types)


def newly_known(table: pd.DataFrame, spec: ProductSpec) -> np.ndarray:
    """Which rows have a label that became known in the newest days, shape (rows,), of booleans.

    Args:
        table: of performance.
        spec: its `monitoring.label_days` count, back from the newest label of all.
    """
    matured = table["label"].notna()
    newest = table["label_time"].where(matured).max()
    since = newest - pd.Timedelta(days=spec.monitoring.label_days)
    return (matured & (table["label_time"] > since)).to_numpy()


def _tail(spec: ProductSpec) -> float:
    return (1.0 - spec.monitoring.confidence) / 2.0


def _numbers(rows: pd.DataFrame, *names: str) -> list[np.ndarray]:
    return [rows[name].to_numpy(dtype="float64") for name in names]


def _revised(own: pd.DataFrame) -> int:
    now, then = _numbers(own, "label", "first_label")
    known = np.isfinite(now) & np.isfinite(then)
    return int((~np.isclose(now[known], then[known], rtol=_SAME_LABEL, atol=0.0)).sum())


def _share(
    spec: ProductSpec,
    label: np.ndarray,
    predicted: np.ndarray,
    naive: np.ndarray,
    *,
    draws: BootstrapWeights,
) -> Estimate:
    """Of the baseline's error that the model's is; UNKNOWN for auc and without a baseline."""
    if spec.metric in GREATER_IS_BETTER:
        return UNKNOWN
    return _as_share(
        gain_estimate(spec.metric, label, predicted, naive, draws=draws, tail=_tail(spec))
    )


def _as_share(gain: Estimate) -> Estimate:
    return Estimate(1.0 - gain.value, 1.0 - gain.upper, 1.0 - gain.lower)


def _promised_share(promise: Promise) -> Estimate:
    if np.isfinite(promise.share.value):
        return promise.share
    return _times(promise.value, 1.0 / promise.baseline) if promise.baseline > 0 else UNKNOWN


def _times(each: Estimate, factor: float) -> Estimate:
    return Estimate(each.value * factor, each.lower * factor, each.upper * factor)


def _ends(each: Estimate) -> tuple[float, float, float]:
    return each.value, each.lower, each.upper


def _surer(spec: ProductSpec, each: Estimate) -> Estimate:
    """An interval at `evaluation.confidence` as it is at that of monitoring, as a normal's is."""
    wanted, given = (
        NormalDist().inv_cdf((1.0 + confidence) / 2.0)
        for confidence in (spec.monitoring.confidence, spec.evaluation.confidence)
    )
    ends = (each.value + wanted / given * (end - each.value) for end in (each.lower, each.upper))
    return Estimate(each.value, *ends)


def _problem(
    spec: ProductSpec,
    found: Realised,
    promise: Promise,
    label: np.ndarray,
    *,
    draws: BootstrapWeights,
) -> str:
    """Why the realised metric is not judged; "" if it is."""
    needed = spec.monitoring.min_labels
    if not found.version:
        return "a baseline serves, which promised nothing"
    if found.rows < needed:
        open_rows = f"{found.open_rows:,} more are open"
        return f"{found.rows:,} labels have matured, {needed} are needed; {open_rows}"
    if rare := rare_class(spec, label):
        return rare
    if not np.isfinite(found.value.value):
        return f"{spec.metric} cannot be told of these rows"
    if not np.isfinite(promise.value.value):
        return "what the model promised is not known, as its holdout could not be judged"
    scale_free = spec.task == "classification" or np.isfinite(_promised_share(promise).value)
    if promise.pooled and not scale_free:
        return "what all countries promise is of another size here, and no baseline tells which"
    if not found.expected.has_interval:
        return f"the promise has no interval, its holdout of {promise.rows:,} rows being too short"
    if not found.compared.has_interval:
        return draws.problem or f"the interval of {spec.metric} cannot be told"
    return ""


def _judged(spec: ProductSpec, found: Realised, promised: Estimate, drawn: Drawn) -> Realised:
    tolerance, expected = spec.monitoring.tolerance, found.expected
    if spec.metric in GREATER_IS_BETTER:
        worse = harder = found.compared.upper < expected.lower - tolerance
    else:
        worse = found.compared.lower > expected.upper * (1.0 + tolerance)
        of_here = not found.pooled or spec.task == "classification"
        harder = of_here and found.value.lower > promised.upper * (1.0 + tolerance)
    excess = -improvement(spec.metric, found.compared.value, expected.value)
    reason = _reason(spec, found, drawn, worse=worse, excess=excess)
    verdicts = {"worse": bool(worse), "harder": bool(harder)}
    return replace(found, **verdicts, excess=excess, reason=reason)


def _reason(spec: ProductSpec, found: Realised, drawn: Drawn, *, worse: bool, excess: float) -> str:
    unit = metric_unit(spec)
    measured = f"{spec.metric} {format_estimate(found.compared)}{f' {unit}' if unit else ''}"
    rows = f"on {found.rows:,} rows from {_day(found.first)} to {_day(found.last)}"
    rows += drawn.unless_by_time
    by = ""
    if np.isfinite(excess):
        by = f"{format_gain(spec.metric, abs(excess))} {'worse' if excess > 0 else 'better'} than "
    verdict = f"significantly worse, beyond {format_gain(spec.metric, spec.monitoring.tolerance)}"
    return (
        f"{measured} {rows}, {by}the promised {describe_promise(found.expected, found.pooled)}: "
        f"{verdict if worse else 'not significantly worse'}"
    )


def describe_promise(promised: Estimate, pooled: bool) -> str:
    """A promise with its interval, and that it is pooled: "0.31 (0.22 to 0.4, pooled)"."""
    text = format_estimate(promised)
    if not pooled:
        return text
    return f"{text.removesuffix(')')}, pooled)" if text.endswith(")") else f"{text} (pooled)"


def _day(time: pd.Timestamp | None) -> str:
    return "-" if time is None else str(time.date())


def _periods(event_time: pd.Series, period: str) -> np.ndarray:
    """First day, or the month, of the period of each event, shape (rows,)."""
    days = event_time.to_numpy("datetime64[ns]").astype("datetime64[D]")
    if period == "month":
        return days.astype("datetime64[M]")
    if period == "day":
        return days
    return days - (days.astype("int64") + _NEAR_MONDAY) % 7


def _grouped(spec: ProductSpec, table: pd.DataFrame, part: np.ndarray) -> pd.DataFrame:
    """Metrics by part (a number from 0 on) and version, in this order; of rows that there are."""
    versions = sorted(set(table["model_version"]), key=_version_order)
    codes = pd.Categorical(table["model_version"], versions).codes.astype("int64")
    groups, group = np.unique(part * max(len(versions), 1) + codes, return_inverse=True)
    count, matured = len(groups), table["label"].notna().to_numpy()
    label, predicted, naive = _numbers(table[matured], "label", "prediction", "baseline")
    known = group[matured]
    names = np.array([*versions, ""], dtype="object")
    return pd.DataFrame(
        {
            "part": groups // max(len(versions), 1),
            "model_version": names[groups % max(len(versions), 1)],
            "rows": np.bincount(known, minlength=count),
            "value": _scores(spec.metric, label, predicted, known, count=count),
            "baseline": _scores(spec.metric, label, naive, known, count=count),
            "open_rows": np.bincount(group[~matured], minlength=count),
        }
    )


def _version_order(version: str) -> tuple[int, str]:
    return (int(version) if version.isdigit() else -1, version)


def _scores(
    metric: str, y: np.ndarray, p: np.ndarray, group: np.ndarray, *, count: int
) -> np.ndarray:
    """`score` of each group, shape (count,)."""
    lacking = np.bincount(group[~np.isfinite(p)], minlength=count) > 0
    values = (
        _aucs(y, p, group, count) if metric == "auc" else _means(metric, y, p, group, count=count)
    )
    return np.where(lacking, np.nan, values)


def _means(
    metric: str, y: np.ndarray, p: np.ndarray, group: np.ndarray, *, count: int
) -> np.ndarray:
    rows = np.bincount(group, minlength=count)
    sums = np.bincount(group, losses(metric, y, p), minlength=count)
    means = np.divide(sums, rows, out=np.full(count, np.nan), where=rows > 0)
    return np.sqrt(means) if metric == "rmse" else means


def _aucs(y: np.ndarray, p: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
    """Mann-Whitney U of each group over its pairs; NaN with one class."""
    ranks = pd.Series(p).groupby(group).rank().to_numpy()
    positive = y > 0.5
    ones = np.bincount(group[positive], minlength=count)
    pairs = ones * (np.bincount(group, minlength=count) - ones)
    won = np.bincount(group[positive], ranks[positive], minlength=count) - ones * (ones + 1) / 2.0
    return np.divide(won, pairs, out=np.full(count, np.nan), where=pairs > 0)
