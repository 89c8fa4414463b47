"""What the page of a model and its files in MLflow hold of an evaluation."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import dagster as dg
import mlflow
import numpy as np
import pandas as pd
import pytest
from dagster import serialize_value

from mlops_assets.errors import RegistryError
from mlops_assets.ml.reports.model_card import CardFacts
from mlops_assets.ml.reports.tables import flat_metrics
from mlops_assets.ml.stats.metrics import Estimate
from mlops_assets.registry import ModelVersion, Registry
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.promotion.decision_card import stored_card, write_decision
from mlops_assets.stages.promotion.decision_log import Comparison, Origin, record_decision
from mlops_assets.stages.training.evaluation_metadata import (
    CARD_FILE,
    REPORT_FILE,
    artifacts,
    candidate_metadata,
)
from mlops_assets.stages.training.serving import report_from_json, report_to_json
from mlops_assets_tests.ml import cards
from mlops_assets_tests.platform import Platform
from mlops_assets_tests.stages.candidates import registered_with_card

MOST_EVENT_BYTES = 75_000
"""Dagster stores the metadata of an output twice."""
EITHER = pytest.mark.parametrize(
    "facts", [cards.regression, cards.classification], ids=["regression", "classification"]
)


def event_bytes(metadata: dict[str, object]) -> int:
    """What the event of a materialization with this metadata takes in Dagster's database."""
    made = dg.AssetMaterialization(dg.AssetKey(["parcels", "model"]), metadata=metadata)  # type: ignore[arg-type]
    return len(serialize_value(made).encode())


@EITHER
def test_the_page_tells_numbers_with_intervals_and_stays_small(
    facts: Callable[[], CardFacts],
) -> None:
    page = candidate_metadata(facts())
    report = facts().report
    expected = {"why_this_model", "evaluation", "metrics", "gates", "by_month", "slices", "gains"}
    assert expected | {"slices_plot", "importance", "worst_cases", "footprint"} <= set(page)
    assert event_bytes(page) < MOST_EVENT_BYTES
    told = {r.data["what"]: str(r.data["value"]) for r in page["evaluation"].records}
    assert report.drawn
    assert told["intervals"] == report.drawn.text
    best = report.estimates[report.metric]
    assert (
        f"({best.lower:.4g} to {best.upper:.4g})"
        in told[next(name for name in told if name.startswith(report.metric))]
    )
    gates = {r.data["gate"]: r.data["outcome"] for r in page["gates"].records}
    assert gates["latency_and_size"] == "failed"


def test_a_page_of_a_great_many_slices_and_features_stays_small() -> None:
    facts = cards.regression()
    report = facts.report
    many = replace(
        report,
        slices=pd.concat([report.slices] * 40, ignore_index=True),
        importance=pd.concat([report.importance] * 40, ignore_index=True),
        by_month=pd.concat([report.by_month] * 3, ignore_index=True),
        worst=pd.concat([report.worst] * 10, ignore_index=True),
    )
    page = candidate_metadata(replace(facts, report=many))
    assert event_bytes(page) < MOST_EVENT_BYTES
    assert len(page["slices"].records) == 15


def test_what_is_not_known_is_left_out_of_the_page() -> None:
    facts = cards.regression()
    report = replace(facts.report, value=math.nan, footprint=None, worst=facts.report.worst.head(0))
    page = candidate_metadata(replace(facts, report=report))
    assert {"mae", "footprint", "worst_cases"}.isdisjoint(page)


@EITHER
def test_files_hold_card_report_tables_and_plots(facts: Callable[[], CardFacts]) -> None:
    files = artifacts(facts())
    assert {CARD_FILE, REPORT_FILE, "metrics.csv", "slices.csv", "gates.csv", "tried.csv"} <= set(
        files
    )
    plots = {name: text for name, text in files.items() if name.endswith(".svg")}
    assert {"error_by_month.svg", "slices.svg", "importance.svg", "gains.svg"} <= set(plots)
    for text in plots.values():
        ElementTree.fromstring(text)
        assert len(text.encode()) < 50_000
    assert sum(len(text.encode()) for text in files.values()) < 600_000


@EITHER
def test_a_report_reads_back_from_json_but_for_its_tables(
    facts: Callable[[], CardFacts],
) -> None:
    report = facts().report
    text = report_to_json(report)
    again = report_from_json(text)
    assert len(text) < 5_000  # of the 8,000 characters that a tag of a run may have
    for name in ("rows", "first", "last", "metric", "value", "metrics", "baselines"):
        assert getattr(again, name) == getattr(report, name), name
    assert again.estimates == report.estimates
    assert again.footprint == report.footprint == cards.FOOTPRINT
    assert again.drawn == report.drawn
    newer = {"drawn", "baselines_by_country"}
    earlier = {name: value for name, value in json.loads(text).items() if name not in newer}
    assert report_from_json(json.dumps(earlier)).drawn is None
    assert not report_from_json(json.dumps(earlier)).baselines_by_country
    of_all = report_to_json(replace(report, baselines_by_country=True))
    assert report_from_json(of_all).baselines_by_country
    for name in ("gain", "champion", "champion_gain", "calibration", "coverage"):
        kept, was = (tuple(vars(getattr(each, name)).values()) for each in (again, report))
        np.testing.assert_array_equal(kept, was, err_msg=name)
    np.testing.assert_equal(again.calibration_error, report.calibration_error)
    assert again.slices.empty
    assert report_to_json(again) == text


def test_infinite_numbers_are_unknown_in_json() -> None:
    report = replace(cards.regression().report, gain=Estimate(math.inf, -math.inf, 1.0))
    again = report_from_json(report_to_json(report))
    assert math.isnan(again.gain.value)
    assert again.gain.upper == 1.0


@pytest.fixture
def home(platform: Platform) -> Registry:
    return platform.registry


@pytest.fixture
def carded(home: Registry) -> ModelVersion:
    params = {f"param {n}": "x" * 600 for n in range(250)}
    numbers = {"odd %": 1.0, "endless": math.inf}
    return registered_with_card(home, {**params, "odd [name]": 1}, numbers)


def test_numbers_and_files_reach_mlflow_whatever_their_names(
    home: Registry, carded: ModelVersion
) -> None:
    run = mlflow.MlflowClient(home.tracking_uri).get_run(carded.run_id)
    expected = flat_metrics(cards.regression().report)
    assert {**expected, "odd _": 1.0} == pytest.approx(run.data.metrics)
    assert len(run.data.params) == 251
    assert run.data.params["odd _name_"] == "1"
    assert home.artifact(carded, "gates.csv").startswith("gate,outcome,value,limit,why")


def test_a_stored_card_has_the_decision_that_was_taken_since(
    platform: Platform, carded: ModelVersion
) -> None:
    product, store, registry = platform.product, platform.store, platform.registry
    before = stored_card(ProductContext(product, store, registry).country("FRA"), carded.version)
    assert "Not decided when this card was written." in before
    decision = cards.promoted(cards.regression())
    comparison = Comparison("FRA", carded.version, "local", "", decision, [], "abc", "def")
    record_decision(ProductContext(product, store).country("FRA"), comparison, Origin("by hand"))
    after = stored_card(ProductContext(product, store, registry).country("FRA"), carded.version)
    assert "| verdict | promoted |" in after
    assert registry.artifact(carded, CARD_FILE) == before


def test_a_decision_is_written_into_the_card_in_mlflow(
    home: Registry, carded: ModelVersion
) -> None:
    facts = cards.regression()
    write_decision(home, carded, cards.promoted(facts), facts.spec)
    assert "| verdict | promoted |" in home.artifact(carded, CARD_FILE)


def test_a_country_without_a_champion_has_no_card_and_says_what_to_do(platform: Platform) -> None:
    with pytest.raises(RegistryError, match=r"no champion in NOR.*--version"):
        stored_card(platform.context.country("NOR"))


def test_a_lost_card_is_said_by_its_name(platform: Platform, carded: ModelVersion) -> None:
    root = mlflow.MlflowClient(platform.registry.tracking_uri).get_run(carded.run_id)
    folder = Path(str(root.info.artifact_uri).removeprefix("file://"))
    shutil.rmtree(folder)
    with pytest.raises(RegistryError, match=r"model_card\.md"):
        stored_card(platform.context.country("FRA"), carded.version)
