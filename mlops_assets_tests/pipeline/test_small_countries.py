"""A country of a dozen rows: what serves it, what follows that, and what it is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from mlops_assets.ml.backtest.data import BacktestData
from mlops_assets.ml.backtest.training import (
    Pooled,
    TrainingOrder,
    candidate_at,
    compared_at,
    pooled_at,
)
from mlops_assets.ml.gates.succession import comparisons_from_json
from mlops_assets.stages.promotion.decision_replay import replay_decision
from mlops_assets.stages.training.succession import POOLED_EVIDENCE
from mlops_assets.stages.upkeep.retention import plan_retention
from mlops_assets_tests.platform import (
    Platform,
    build_platform,
    dagster_home,
    edit,
    failures,
    generated,
    rebuilt,
    small_product,
)

TINY, OTHERS = "NOR", ("DEU", "FRA")
FEATURES = ("raw", "validated", "quarantine", "features")
MODELS = ("model", "champion", "predictions", "performance")
ONE_CANDIDATE = (
    "    - name: ridge\n      estimator: sklearn.linear_model.Ridge\n      scopes: [local]\n",
    "",
)
EASY = ("    - name: week_ago\n      rule: feature\n      feature: demand_week_ago\n", "")
"""What is left is a naive rule that even the weak model beats."""
WEAK, BETTER = ("max_iter: 15", "max_iter: 4"), ("max_iter: 4", "max_iter: 10")
POOLED = ("learning_rate: 0.3}\n", "learning_rate: 0.3}\n      scopes: [pooled]\n")
ROWS = 12


@pytest.fixture(scope="module")
def succeeded(
    tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path, history_template: Path
) -> Iterator[Platform]:
    """A tiny country on a pooled model, and a better one trained after it."""
    home = tmp_path_factory.mktemp("small")
    dagster_home(home / "dagster", history_template)
    folder = small_product("parcels", home / "defs")
    edit(folder / "defs.yaml", ONE_CANDIDATE, EASY, WEAK, POOLED)
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        platform = build_platform(folder, home / "home", instance, mlflow_template)
        every = generated(platform)
        tiny = every["Country"].isin(["NO", TINY])
        newest = every["Date"] > sorted(every["Date"].unique())[-ROWS - 1]
        platform.deliver(every[~tiny | newest])
        for country in (*OTHERS, TINY):
            ran(platform, country, FEATURES)
        trained(platform)
        edit(folder / "defs.yaml", BETTER)
        platform = rebuilt(platform)
        trained(platform)
        yield platform


def ran(platform: Platform, country: str | None, assets: tuple[str, ...]) -> None:
    result = platform.run(country, assets=list(assets))
    assert result.success, failures(result)


def trained(platform: Platform) -> None:
    result = platform.run(None, "pooled")
    assert result.success, failures(result)
    ran(platform, TINY, MODELS)


def test_a_pooled_successor_is_put_into_use_by_the_rows_of_all_countries_and_the_record_says_so(
    succeeded: Platform,
) -> None:
    first, second = succeeded.decisions(TINY).to_dict("records")
    assert first["verdict"] == "promoted"
    assert (second["verdict"], second["basis"], second["veto"]) == ("promoted", "pooled", False)
    shared = succeeded.store.read(("parcels", POOLED_EVIDENCE), None)
    [made] = comparisons_from_json(second["pooled"])
    assert second["rows"] == made.rows == len(shared)
    assert (made.countries, second["own_rows"]) == (3, ROWS - 1)
    new, old = (shared[each] for each in (made.candidate, made.champion))
    errors = [(each - shared["label"]).abs().mean() for each in (new, old)]
    assert [second["candidate_value"], second["champion_value"]] == pytest.approx(errors)
    assert f"({made.rows:,} rows of 3 countries)" in second["reason"]
    told = [str(each.data) for each in succeeded.told("champion", TINY)["decision"].records]
    assert any("evidence" in each and f"pooled ({made.told_of})" in each for each in told)


def test_the_decision_is_made_again_from_the_pooled_rows_to_the_bit(succeeded: Platform) -> None:
    rows = succeeded.decisions(TINY).to_dict("records")
    again = [replay_decision(succeeded.context, row["decision_id"]) for row in rows]
    assert [each.differences for each in again] == [(), ()]
    assert "pooled evidence" in again[-1].basis


def test_retention_keeps_the_pooled_rows_that_a_decision_was_made_from(
    succeeded: Platform,
) -> None:
    asset = ("parcels", POOLED_EVIDENCE)
    named = succeeded.store.current(asset, None)
    assert named is not None
    rows = succeeded.store.read(asset, None)
    succeeded.store.write(asset, None, rows.head(3))
    planned = plan_retention(
        succeeded.context, now=(pd.Timestamp.now("UTC") + pd.Timedelta(days=500)).to_pydatetime()
    )
    reasons = {each.snapshot.version: each.reason for each in planned.kept}
    assert "names it" in reasons[named.version]


def test_a_promise_of_a_dozen_rows_is_that_of_all_countries_with_its_interval(
    succeeded: Platform,
) -> None:
    numbers = [each.data for each in succeeded.told("performance", TINY)["numbers"].records]
    (promised,) = (str(each) for each in numbers if "promised mae" in str(each))
    assert ", pooled)" in promised
    assert " to " in promised


def test_a_backtest_comes_to_the_same_comparison_and_the_same_verdict(
    succeeded: Platform,
) -> None:
    row = succeeded.decisions(TINY).iloc[-1]
    [live] = comparisons_from_json(row["pooled"])
    frames = {name: succeeded.frame("features", name) for name in (*OTHERS, TINY)}
    now = max(frame["event_time"].max() for frame in frames.values()) + pd.Timedelta(days=1)
    models: list[Pooled] = []
    for params in (4, 10):
        spec = succeeded.product.spec.model_copy(deep=True)
        spec.candidates[0].params["max_iter"] = params
        specs = {name: spec.for_country(name) for name in frames}
        past = BacktestData(spec, specs, frames, tuple(frames), now)
        made, _ = pooled_at(past, now - pd.Timedelta(hours=2 - len(models)), time.monotonic)
        models.append(made)
    old, new = models
    [rival] = old.rivals()
    order = TrainingOrder(TINY, (rival,), watched=False)
    held = new.having(compared_at(past, new, [rival]))
    decided = candidate_at(past, now, held, order, clock=time.monotonic).decisions[rival.version]
    assert (held.compared[0].rows, held.compared[0].gain) == (live.rows, live.gain)
    rival_in_use = order.rivals[0]
    assert rival_in_use.pooled != held.title("gbm")
    assert decided.verdict == "promoted"
