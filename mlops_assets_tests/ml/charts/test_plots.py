from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.ml.charts import plots
from mlops_assets.ml.charts.drawing import Box
from mlops_assets.ml.stats.metrics import Estimate

BOX = Box()
DAYS = pd.date_range("2024-01-01", periods=900)


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text")]


def dots(svg: str, color: str) -> int:
    """How many there are of a color."""
    marks = re.findall(rf'<path d="([^"]*)" stroke="{color}" [^>]*stroke-linecap="round"', svg)
    return sum(path.count("h0") for path in marks)


def values(gap: bool = False) -> np.ndarray:
    y = 50 + 20 * np.sin(np.arange(900) / 30)
    if gap:
        y[100:130] = np.nan
    return y


def months(count: int = 16) -> pd.DataFrame:
    names = pd.date_range("2024-01-01", periods=count, freq="MS").strftime("%Y-%m")
    return pd.DataFrame(
        {"month": names, "rows": 30, "value": 12.0, "baseline": 15.0, "champion": np.nan}
    )


def slices(count: int = 3) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "feature": "hotel",
            "slice": [f"<{n}> & co" for n in range(count)],
            "rows": 1200,
            "value": np.linspace(0.7, 0.8, count),
            "lower": 0.65,
            "upper": 0.85,
            "baseline": 0.5,
            "champion": 0.72,
            "judged": [n > 0 for n in range(count)],
        }
    )


def features(count: int = 12) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "feature": [f"price_lag_{n}" for n in range(count)],
            "importance": np.linspace(9, -0.1, count),
            "deviation": 0.4,
        }
    )


GAINS = {"on the baseline": Estimate(0.2, 0.12, 0.27), "on the champion": Estimate(math.nan)}
TABLE = pd.DataFrame(
    {"rows": [500, 200, 10], "predicted": [0.1, 0.4, 0.8], "observed": [0.08, 0.5, 0.7]}
)


@pytest.mark.parametrize(
    ("svg", "words"),
    [
        (
            plots.forecast_against_actual(
                DAYS,
                values(True),
                values(),
                values() - 5,
                upper=values() + 5,
                title="a < b",
                unit="EUR",
            ),
            ["a < b", "actual", "forecast", "interval, 100% of 870 labels inside", "EUR", "40"],
        ),
        (
            plots.error_by_month(months(), "mae", "EUR"),
            ["mae by month", "candidate", "best baseline", "mae (EUR)", "2024-01", "13"],
        ),
        (
            plots.reliability(TABLE),
            ["Reliability", "predicted probability", "observed share", "500", "200", "10"],
        ),
        (
            plots.slices(slices(), "auc", ""),
            ["hotel <0> & co (1,200 rows)", "champion", "not judged: too few rows", "auc"],
        ),
        (
            plots.importance(features(), "mae", "EUR"),
            ["price_lag_0", "price_lag_11", "increase of mae (EUR)", "0"],
        ),
        (
            plots.gains(GAINS, "share", limits={"on the baseline": 0.02}),
            ["on the baseline", "on the champion", "not judged", "0 %", "20 %", "must be above"],
        ),
    ],
    ids=["forecast", "months", "reliability", "slices", "importance", "gains"],
)
def test_a_plot_is_small_valid_and_labelled(svg: str, words: list[str]) -> None:
    assert len(svg.encode()) < 20_000
    assert 'fill="#fff"' in svg
    assert set(words) <= set(texts(svg))
    assert "nan" not in svg


def test_nothing_to_draw_is_drawn_without_a_crash() -> None:
    for svg in (
        plots.forecast_against_actual([], np.empty(0), np.empty(0)),
        plots.error_by_month(months(0), "auc", ""),
        plots.reliability(TABLE.iloc[:0]),
        plots.slices(slices(0), "mae", "EUR"),
        plots.importance(features(0), "mae", "EUR"),
        plots.gains({}, "auc"),
        plots.forecast_against_actual(DAYS[:1], np.array([np.nan]), np.array([3.0])),
    ):
        ElementTree.fromstring(svg)
        assert "nan" not in svg


def test_a_gap_breaks_the_line_and_the_band() -> None:
    svg = plots.forecast_against_actual(
        DAYS, values(True), values(True), values(True) - 1, upper=values(True) + 1
    )
    assert svg.count("<polyline") == 4
    assert svg.count("<polygon") == 2


def test_a_month_that_was_not_judged_has_no_dot_and_breaks_the_line() -> None:
    table = months(5)
    table.loc[2, "value"] = np.nan
    svg = plots.error_by_month(table, "auc", "")
    assert dots(svg, "#1f5fa8") == 4
    assert len(re.findall(r'<polyline [^>]*stroke="#1f5fa8"', svg)) == 2


def test_a_champion_is_drawn_and_named_only_where_there_is_one() -> None:
    table = months(4)
    assert "champion" not in texts(plots.error_by_month(table, "mae", ""))
    table["champion"] = 13.0
    svg = plots.error_by_month(table, "mae", "")
    assert "champion" in texts(svg)
    assert dots(svg, "#2e7d4f") == 4


def test_intervals_of_months_are_drawn_where_they_are_known() -> None:
    table = months(4).assign(lower=[11, 11, np.nan, 11], upper=13.0)
    svg = plots.error_by_month(table, "mae", "")
    assert svg.count('stroke="#cfe0f3"') == 3
    assert "interval" in texts(svg)


def test_a_slice_that_was_not_judged_is_grey() -> None:
    svg = plots.slices(slices(3), "auc", "")
    assert dots(svg, "#9a9a9a") == 1 + 1  # and the legend's
    assert dots(svg, "#1f5fa8") == 2 + 1


def test_of_very_many_rows_the_rest_is_counted_and_the_plot_stays_small() -> None:
    for svg in (
        plots.slices(slices(500), "auc", ""),
        plots.importance(features(500), "auc", ""),
    ):
        assert len(svg.encode()) < 50_000
        assert any("460 more are not drawn" in words for words in texts(svg))


def test_better_is_to_the_right_and_0_is_marked_where_it_is() -> None:
    svg = plots.gains({"on the champion": Estimate(-0.1, -0.2, 0.3)}, "auc")
    (zero,) = re.findall(r'<line x1="([\d.]+)" x2="\1" [^>]*stroke="#222222"', svg)[-1:]
    (dot,) = re.findall(r'<path d="M([\d.]+) [\d.]+h0" stroke="#1f5fa8"', svg)[1:]
    assert plots.d.Box(left=250).left < float(dot) < float(zero)


@given(st.text(max_size=40), st.floats(allow_nan=True, allow_infinity=False, width=32))
def test_any_name_and_any_number_make_a_well_formed_drawing(name: str, value: float) -> None:
    table = slices(2).assign(slice=name, value=value, lower=value - 1, upper=value + 1)
    ElementTree.fromstring(plots.slices(table, name, name, title=name))
    assert "nan" not in plots.slices(table.assign(slice="x"), "mae", "")


def test_a_constant_line_is_inside_the_frame() -> None:
    svg = plots.forecast_against_actual(DAYS, np.full(900, 7.0), np.full(900, 7.0))
    heights = {float(y) for y in re.findall(r"[\d.]+,([\d.]+)", svg)}
    assert all(BOX.top <= y <= BOX.base for y in heights)
