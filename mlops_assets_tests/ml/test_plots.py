from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from mlops_assets.ml import plots

DAYS = pd.date_range("2024-01-01", periods=900)


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text")]


def values(gap: bool = False) -> np.ndarray:
    y = 50 + 20 * np.sin(np.arange(900) / 30)
    if gap:
        y[100:130] = np.nan
    return y


def months(count: int = 16) -> pd.DataFrame:
    names = pd.date_range("2024-01-01", periods=count, freq="MS").strftime("%Y-%m")
    return pd.DataFrame({"month": names, "rows": 30, "value": 12.0, "baseline": 15.0})


TABLE = pd.DataFrame(
    {"rows": [500, 200, 10], "predicted": [0.1, 0.4, 0.8], "observed": [0.08, 0.5, 0.7]}
)


@pytest.mark.parametrize(
    ("svg", "words"),
    [
        (
            plots.forecast_against_actual(
                DAYS, values(True), values(), values() - 5, values() + 5, title="a < b", unit="EUR"
            ),
            ["a < b", "actual", "forecast", "interval", "EUR", "40", "60"],
        ),
        (
            plots.error_by_month(months(), "mae", "EUR"),
            ["mae by month", "model", "best baseline", "mae (EUR)", "2024-01", "10"],
        ),
        (
            plots.reliability(TABLE),
            ["Reliability", "predicted probability", "observed share", "perfectly calibrated"],
        ),
    ],
    ids=["forecast", "months", "reliability"],
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
        plots.forecast_against_actual(DAYS[:1], np.array([np.nan]), np.array([3.0])),
    ):
        ElementTree.fromstring(svg)
        assert "nan" not in svg


def test_a_gap_breaks_the_line_and_the_band() -> None:
    svg = plots.forecast_against_actual(
        DAYS, values(True), values(True), values(True) - 1, values(True) + 1
    )
    assert svg.count("<polyline") == 4
    assert svg.count("<polygon") == 2


def test_a_month_that_was_not_judged_has_no_bar() -> None:
    table = months(4)
    table.loc[1, "value"] = np.nan
    bars = re.findall(r'<rect [^>]*fill="#1f5fa8"', plots.error_by_month(table, "auc", ""))
    assert len(bars) == 3 + 1  # and the legend's


def test_a_constant_line_is_inside_the_frame() -> None:
    svg = plots.forecast_against_actual(DAYS, np.full(900, 7.0), np.full(900, 7.0))
    heights = {float(y) for y in re.findall(r"[\d.]+,([\d.]+)", svg)}
    assert all(plots.TOP <= y <= plots.HEIGHT - plots.BOTTOM for y in heights)
