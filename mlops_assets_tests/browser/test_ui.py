from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from mlops_assets_tests.browser.operator import Operator
from mlops_assets_tests.browser.site import SPOT, SPOT_BROKEN, SPOT_GOOD
from mlops_assets_tests.made import COUNTRIES, PRODUCT

STAGES = ["datasets", "features", "models", "predictions"]


def test_the_asset_graph_shows_the_stages_in_pipeline_order(operator: Operator) -> None:
    groups = operator.groups_from_left_to_right()

    assert [name for name in groups if name in STAGES] == STAGES


def test_the_page_of_a_model_tells_why_it_is_and_how_good(operator: Operator) -> None:
    """Of one that the command line made."""
    country = COUNTRIES[-1]
    model = operator.partition(f"{PRODUCT.name}/model", country)
    expect(model.get_by_text("Materialized", exact=True).first).to_be_visible()
    for key in ("why_this_model", "evaluation", "mlflow_run", "mae (EUR/MWh)"):
        expect(model.get_by_text(key, exact=True)).to_be_visible()
    assert operator.plot("forecast_against_actual") == ("data:image/svg+xml", 720)
    gate = operator.check_of(f"{PRODUCT.name}/model", "beats_baseline", country)
    told = re.compile(r"mae [\d.]+ against [\d.]+ of baseline")
    expect(gate.get_by_text(told).first).to_be_visible()


# Nightly: one more run; `test_trust.py` has a backfill of every country by clicking.
@pytest.mark.nightly
def test_one_country_is_materialized_by_clicking(operator: Operator) -> None:
    country = SPOT_GOOD[0]
    operator.launch(f"{SPOT}_all", [country])
    operator.follow("Success")

    model = operator.partition(f"{SPOT}/model", country)
    expect(model.get_by_text("Materialized", exact=True).first).to_be_visible()
    gate = operator.check(f"{SPOT}/model", "beats_baseline")
    expect(gate.get_by_text(country, exact=True).first).to_be_visible()


@pytest.mark.nightly  # one more run; `test_trust.py` has a backfill of every country
def test_a_backfill_of_three_countries_makes_each_in_a_run_of_its_own(operator: Operator) -> None:
    operator.launch(f"{SPOT}_all", SPOT_GOOD[1:])
    operator.follow("100% completed")

    for country in SPOT_GOOD[1:]:
        predictions = operator.partition(f"{SPOT}/predictions", country)
        expect(predictions.get_by_text("Materialized", exact=True).first).to_be_visible()
        expect(predictions.get_by_text("why_this_model", exact=True)).to_be_visible()


@pytest.mark.nightly  # one more run; `test_trust.py` has the gate of a delivery after a good one
def test_a_failed_gate_is_red_with_its_numbers_and_nothing_follows_it(operator: Operator) -> None:
    operator.launch(f"{SPOT}_all", [SPOT_BROKEN])
    operator.follow("Failure")

    contract = operator.check(f"{SPOT}/validated", "contract")
    expect(contract.get_by_text("Failed", exact=True).first).to_be_visible()
    expect(
        contract.get_by_text(re.compile(r"break the contract, over the limit of 5"))
    ).to_be_visible()
    expect(contract.get_by_text("rejected_share", exact=True).first).to_be_visible()
    for asset in ("features", "predictions"):
        page = operator.partition(f"{SPOT}/{asset}", SPOT_BROKEN)
        expect(page.get_by_text("did not materialize this asset")).to_be_visible()
        expect(page.get_by_text("No metadata entries")).to_be_visible()
