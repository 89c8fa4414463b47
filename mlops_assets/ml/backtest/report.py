"""What policies of retraining were worth in a backtest through history: a table and a chart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from mlops_assets.ml.backtest.backtest import BacktestResult, BacktestTraining, MonitoredCountry
from mlops_assets.ml.backtest.data import true_runs
from mlops_assets.ml.charts import drawing as d
from mlops_assets.ml.charts.drawing import (
    CHAMPION,
    FADED,
    MODEL,
    MUTED,
    NAIVE,
    TRUTH,
    Axes,
    Box,
    Key,
)
from mlops_assets.ml.stats.metrics import NAN, score

MISSED_DAYS = 28
"""A model that is significantly worse than promised for longer, and nothing is asked, is missed."""
_COLORS = (MODEL, NAIVE, CHAMPION, TRUTH, FADED)
_BASELINE = "baseline"
_ROW = 16


def summary(metric: str, results: Sequence[BacktestResult], step: pd.Timedelta) -> pd.DataFrame:
    """One row a policy, and what it was worth.

    Args:
        metric: of the product.
        results: of the same moments.
        step: from a moment to the next.

    Returns:
        policy; the metric over all rows of all countries; baseline, the same of the first baseline
        on the same rows; the metric by year of event; rows; retrainings (of a country, but the
        first) and promoted (of these); pooled, trainings of the pooled models; training_seconds of
        all together; alarms, how often drift began to alarm or a realised error to be
        significantly worse
        than promised in a country; false_alarms, trainings because of drift or error whose model
        did not lower the error over the next 8 weeks on the same rows, promoted or not;
        missed, how often a model was significantly worse than promised for more than `MISSED_DAYS`
        and nothing was asked; bad_days, country-days on a model that is significantly worse than
        promised;
        rollbacks; given_up, countries that waited for a person at the end. Alarms are NaN for
        policies that do not look.
    """
    return pd.DataFrame([_summarised(metric, each, step) for each in results])


def by_country(metric: str, results: Sequence[BacktestResult]) -> pd.DataFrame:
    """Metric, baseline's metric, rows and retrainings by policy and country."""
    rows = []
    for each in results:
        trained = Counter(one.country for one in _again(each))
        for country, own in each.rows.groupby("country", sort=True):
            rows.append(
                {
                    "policy": each.policy.name,
                    "country": country,
                    **_values(metric, own),
                    "rows": len(own),
                    "retrainings": trained[str(country)],
                }
            )
    return pd.DataFrame(rows)


def by_month(metric: str, results: Sequence[BacktestResult]) -> pd.DataFrame:
    """Metric and baseline's metric over all countries by policy and month of event."""
    rows = []
    for each in results:
        months = each.rows["event_time"].dt.to_period("M").astype(str)
        for month, own in each.rows.groupby(months.to_numpy(), sort=True):
            rows.append({"policy": each.policy.name, "month": month, **_values(metric, own)})
    return pd.DataFrame(rows, columns=["policy", "month", "value", _BASELINE])


def trainings(results: Sequence[BacktestResult]) -> pd.DataFrame:
    """Every training of a country, in the order of time."""
    return pd.DataFrame(
        [{"policy": walk.policy.name, **vars(each)} for walk in results for each in walk.trainings]
    )


def chart(metric: str, unit: str, results: Sequence[BacktestResult], *, title: str) -> str:
    """Lines of the metric over all countries by month, a policy each; dots where it trained again.

    Below the lines is a row a policy: the larger the dot, the more countries it trained again.

    Args:
        metric: of the product.
        unit: of the metric.
        results: of the same moments.
        title: above the drawing.
    """
    table = by_month(metric, results)
    months = sorted(table["month"].unique()) if len(table) else []
    box = Box(height=340 + _ROW * len(results), bottom=48 + _ROW * (len(results) + 1))
    values = table[["value", _BASELINE]].to_numpy("float64") if months else np.empty(0)
    axes = Axes(d.extent(_edges(months)), d.extent(values), box)
    note = "dots: trained again, the larger the more countries"
    parts = [
        *d.value_ticks(axes, f"{metric} ({unit})" if unit else metric),
        *_month_marks(axes, months),
        d.text(box.left, box.height - 8, note, "start"),
        _line(axes, table[table["policy"] == _first(results)], _BASELINE, MUTED, dashed=True),
    ]
    legend = [Key(_BASELINE, MUTED, "dashes")]
    for place, each in enumerate(results):
        color = _COLORS[place % len(_COLORS)]
        parts.append(_line(axes, table[table["policy"] == each.policy.name], "value", color))
        parts += _trained_dots(axes, each, box.base + 34 + _ROW * place, color)
        legend.append(Key(each.policy.name, color, "line"))
    return d.svg(title, legend, parts, box)


def _summarised(metric: str, walk: BacktestResult, step: pd.Timedelta) -> dict[str, object]:
    again, looks = _again(walk), walk.policy.kind == "drift"
    years = walk.rows["event_time"].dt.year.to_numpy() if len(walk.rows) else []
    by_evidence = [each for each in again if each.cause in ("error", "drift")]
    whole = _values(metric, walk.rows)
    return {
        "policy": walk.policy.name,
        metric: whole["value"],
        _BASELINE: whole[_BASELINE],
        **{
            str(year): _values(metric, own)["value"]
            for year, own in walk.rows.groupby(years, sort=True)
        },
        "rows": len(walk.rows),
        "retrainings": len(again),
        "promoted": sum(each.verdict == "promoted" for each in again),
        "pooled": max(len(walk.pooled) - 1, 0),
        "training_seconds": walk.pooled_seconds + sum(each.seconds for each in walk.trainings),
        "alarms": _onsets(walk) if looks else NAN,
        "false_alarms": sum(each.gain <= 0 for each in by_evidence) if looks else NAN,
        "missed": _missed(walk),
        "bad_days": sum(each.bad for each in walk.watched) * (step / pd.Timedelta(days=1)),
        "rollbacks": sum(each.asked in ("rollback", "withdraw") for each in walk.watched),
        "given_up": sum(each[-1].asked == "ask" for each in _by_country(walk).values()),
    }


def _again(walk: BacktestResult) -> list[BacktestTraining]:
    return [each for each in walk.trainings if each.cause != "first"]


def _values(metric: str, rows: pd.DataFrame) -> dict[str, float]:
    label = rows["label"].to_numpy(dtype="float64")
    told = rows["prediction"].to_numpy(dtype="float64")
    naive = rows[_BASELINE].to_numpy(dtype="float64")
    known = np.isfinite(told) & np.isfinite(naive)
    return {
        "value": score(metric, label[known], told[known]),
        _BASELINE: score(metric, label[known], naive[known]),
    }


def _by_country(walk: BacktestResult) -> dict[str, list[MonitoredCountry]]:
    """What was seen of each country, in the order of time."""
    found: dict[str, list[MonitoredCountry]] = {}
    for each in walk.watched:
        found.setdefault(each.country, []).append(each)
    return found


def _onsets(walk: BacktestResult) -> int:
    """How often an alarm began in a country."""
    countries = _by_country(walk).values()
    return sum(len(true_runs([each.alarm or each.bad for each in own])) for own in countries)


def _missed(walk: BacktestResult) -> int:
    """Stretches of a bad model, longer than `MISSED_DAYS`, in which nothing was asked."""
    trained = {(each.country, each.moment) for each in walk.trainings}
    found = 0
    for country, own in _by_country(walk).items():
        alone = [
            each.bad
            and each.asked not in ("rollback", "withdraw", "ask")
            and (country, each.moment) not in trained
            for each in own
        ]
        lengths = [own[last].moment - own[first].moment for first, last in true_runs(alone)]
        found += sum(length > pd.Timedelta(days=MISSED_DAYS) for length in lengths)
    return found


def _first(results: Sequence[BacktestResult]) -> str:
    return results[0].policy.name if results else ""


def _line(
    axes: Axes, months: pd.DataFrame, column: str, color: str, *, dashed: bool = False
) -> str:
    """A line through the middles of months."""
    x = np.array([pd.Timestamp(f"{month}-15").value for month in months["month"]], dtype="float64")
    return d.line(axes, x, months[column].to_numpy("float64"), color, dashed=dashed)


def _edges(months: Sequence[str]) -> np.ndarray:
    """Beginning of the first month and end of the last, in nanoseconds."""
    if not months:
        return np.empty(0)
    ends = (pd.Timestamp(f"{months[0]}-01"), pd.Period(months[-1], "M").end_time)
    return np.array([each.value for each in ends], dtype="float64")


def _month_marks(axes: Axes, months: Sequence[str]) -> list[str]:
    """A mark at each turn of a year, or of a month where there are few."""
    marks = [month for month in months if month.endswith("-01")] if len(months) > 18 else months
    step = max(1, len(marks) // 12)
    return [
        d.bottom_label(axes, axes.x_at(float(pd.Timestamp(f"{month}-01").value)), month)
        for month in marks[::step]
    ]


def _trained_dots(axes: Axes, walk: BacktestResult, height: float, color: str) -> list[str]:
    counts = Counter(each.moment for each in _again(walk))
    countries = max(walk.rows["country"].nunique(), 1) if len(walk.rows) else 1
    return [
        d.dot(
            axes.x_at(float(moment.value)),
            height,
            color,
            radius=1.5 + 4.0 * min(count / countries, 1.0),
        )
        for moment, count in counts.items()
    ]
