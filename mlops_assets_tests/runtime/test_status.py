"""What `status` says of countries in each state, and that it is about what serves there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from mlops_assets.runtime.status import recorded_status
from mlops_assets_tests.pipeline.test_outcomes import COUNTRY, OTHER, TO_FEATURES, later, only
from mlops_assets_tests.platform import Platform, edit, failures, generated, going_on, made
from mlops_assets_tests.stages.watched import tick

COUNTRIES = ["DEU", "FRA", "NOR"]
AFTER_A_DELIVERY = ["validated", "quarantine", "features", "predictions", "performance", "drift"]


@pytest.fixture
def trained(once_trained: Path, tmp_path: Path) -> Iterator[Platform]:
    """Three countries made by whole runs, and the history of these runs."""
    with going_on(once_trained, tmp_path) as platform:
        yield platform


def state_of(platform: Platform, country: str = COUNTRY) -> tuple[str, str]:
    """By the registry; the records alone say the same, but for whether what serves should."""
    status = platform.status()[country]
    (recorded,) = [each for each in recorded_status(platform.context) if each.country == country]
    assert not recorded.champion_known
    assert recorded.state == {"ok": "not_known", "waiting": "not_known"}.get(*[status.state] * 2)
    assert recorded.why.endswith(status.why)
    return status.state, status.why


def nothing_of(folder: Path, country: str) -> None:
    """A feature function that finds no entity in a country, as one of customers may."""
    edit(folder / "features.py", ("def build(validated", "def own(validated"))
    with (folder / "features.py").open("a") as file:
        file.write(
            "\n\ndef build(validated):\n"
            f'    if (validated["country"].astype(str) == "{country}").any():\n'
            '        return pd.DataFrame(columns=["entity", "event_time", "label", "x"])\n'
            "    return own(validated)\n"
        )


def test_after_a_delivery_that_was_answered_no_country_is_behind(
    trained: Platform, sample: pd.DataFrame
) -> None:
    platform = trained
    platform.deliver(later(sample), "second.parquet")
    platform.run_range(COUNTRIES[0], COUNTRIES[-1])
    assert {each.state for each in platform.status().values()} == {"behind"}
    for country in COUNTRIES:
        result = platform.run(country, "predict", AFTER_A_DELIVERY)
        assert result.success, failures(result)
    found = platform.status()
    assert {each.state for each in found.values()} == {"waiting"}
    why = found[COUNTRY].why
    assert why.startswith("local gbm is the only one that could be had")
    assert "a training is asked for by an error worse than promised, drift" in why
    assert "no cause" in str(tick(platform)), "and the sensor, which decides it, says so"


def test_a_country_that_was_never_trained_says_so_and_that_the_baseline_serves(
    platform: Platform, sample: pd.DataFrame
) -> None:
    platform.deliver(only(sample, COUNTRY))
    assert platform.run(COUNTRY, assets=TO_FEATURES).success
    assert state_of(platform)[0] == "no_prediction"
    assert platform.run(COUNTRY, "predict", ["predictions", "performance", "drift"]).success
    state, why = state_of(platform)
    assert state == "never_trained"
    assert why.startswith("the baseline serves: no candidate was trained yet")
    assert platform.status()[OTHER].state == "no_data"


def test_a_candidate_that_could_not_be_judged_is_named_and_so_is_what_serves(
    make_platform: Callable[..., Platform],
) -> None:
    judged = ("holdout_from: 2024-10-01", "holdout_from: 2024-10-01\n    min_holdout_rows: 3000")
    platform = make_platform(judged)
    platform.deliver(only(generated(platform), COUNTRY))
    result = platform.run(COUNTRY)
    assert result.success, failures(result)
    status = platform.status()[COUNTRY]
    assert (status.state, status.champion_kind, status.champion_version) == (
        "not_judged",
        "baseline",
        None,
    )
    assert status.why.startswith("the baseline serves; version 1: ")
    assert "best validation" not in status.why
    assert "best validation" not in platform.frame("champion", COUNTRY)["why_this_kind"].iloc[0]


def test_a_country_whose_features_have_no_row_is_a_state_and_its_runs_go_well(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform()
    nothing_of(platform.product.folder, COUNTRY)
    platform.deliver(only(generated(platform), COUNTRY))
    for _ in range(2):
        result = platform.run(COUNTRY)
        assert result.success, failures(result)
        assert made(result) == TO_FEATURES
    assert state_of(platform) == (
        "nothing_to_predict",
        "its features have no row, so that nothing is made of them",
    )
    assert platform.run(COUNTRY, "predict").success
    assert platform.decisions(COUNTRY).empty
