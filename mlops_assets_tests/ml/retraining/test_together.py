"""Countries that are too small to be judged alone are judged together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mlops_assets.ml.monitoring.performance import Realised
from mlops_assets.ml.retraining.together import FEWEST_COUNTRIES, judged_together
from mlops_assets.ml.stats.metrics import Estimate
from mlops_assets_tests.ml.scenarios import classifier, product

END = pd.Timestamp("2024-06-03")


def small(error: float, promised: float = 1.0, rows: int = 8) -> Realised:
    return Realised(
        "3", rows, 0, 0, END, END, expected=Estimate(promised), compared=Estimate(error)
    )


def errors(around: float, countries: int = 60, seed: int = 0) -> list[Realised]:
    """Around a mean, shape (countries,)."""
    drawn = np.random.default_rng(seed).lognormal(np.log(around) - 0.3**2 / 2, 0.3, countries)
    return [small(float(each)) for each in drawn]


def test_small_countries_whose_models_became_a_third_worse_alarm_together() -> None:
    found = judged_together(product(), errors(1.35))
    assert found.worse
    assert found.excess.lower > 0.05
    assert (found.countries, found.rows) == (60, 480)
    assert "60 countries that are not judged alone" in found.reason


def test_small_countries_whose_models_do_as_promised_rarely_alarm() -> None:
    alarms = sum(judged_together(product(), errors(1.0, seed=seed)).worse for seed in range(200))
    assert alarms <= 4


def test_one_country_that_is_far_off_is_no_matter_of_all() -> None:
    assert not judged_together(product(), [*errors(1.0), small(30.0)]).worse


@pytest.mark.parametrize("countries", [0, 1, FEWEST_COUNTRIES - 1])
def test_too_few_countries_are_not_judged_even_together(countries: int) -> None:
    found = judged_together(product(), [small(9.0)] * countries)
    assert not found.worse
    assert not found.excess.has_interval


def test_countries_that_promised_nothing_or_have_no_row_do_not_count() -> None:
    told = errors(1.0)
    nothing = [small(9.0, promised=float("nan")), small(float("nan")), small(9.0, rows=0)]
    assert judged_together(product(), [*told, *nothing]) == judged_together(product(), told)


def test_the_more_rows_a_country_has_the_more_it_says() -> None:
    few = [*errors(1.0, 20), *(replace(each, rows=1) for each in errors(3.0, 20))]
    many = [*errors(1.0, 20), *(replace(each, rows=80) for each in errors(3.0, 20))]
    assert judged_together(product(), few).excess.value < 0.4
    assert judged_together(product(), many).excess.value > 1.0


def test_of_auc_less_than_promised_is_worse() -> None:
    lost = [small(0.6, promised=0.75) for _ in range(20)]
    found = judged_together(classifier(metric="auc"), lost)
    assert found.worse
    assert found.excess.value == pytest.approx(0.15)
