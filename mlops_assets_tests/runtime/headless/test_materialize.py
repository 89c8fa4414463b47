"""What `materialize` tells of an ingestion over all countries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import dagster as dg
import pandas as pd
import pytest

from mlops_assets.runtime.headless import workers as headless
from mlops_assets.runtime.headless.materialize import Job, Materializer, Outcome
from mlops_assets.runtime.headless.workers import RunOrder, RunOutcome, WarmWorkers
from mlops_assets.runtime.workers import run_executor as warm
from mlops_assets.stages.promotion.plan import Requester, apply_plan, plan_promotion
from mlops_assets_tests.pipeline.test_deliveries import bad, week
from mlops_assets_tests.pipeline.test_outcomes import COUNTRY, OTHER, only
from mlops_assets_tests.platform import Platform, edit, generated, going_on, rebuilt
from mlops_assets_tests.runtime.test_status import nothing_of
from mlops_assets_tests.stages.proposals import propose


class Here:
    """Executes orders as a worker does, in this process."""

    def run(self, orders: Sequence[RunOrder]) -> Iterator[RunOutcome]:
        yield from map(headless._execute, orders)


Materialize = Callable[..., Outcome]


@pytest.fixture
def materialized(monkeypatch: pytest.MonkeyPatch) -> Materialize:
    """Runs a job for some countries, by default for all."""

    def run(platform: Platform, job: Job, *countries: str) -> Outcome:
        held = platform.defs.get_repository_def()
        monkeypatch.setattr(warm, "repository", lambda: held)
        monkeypatch.setattr(warm, "instance", lambda: platform.instance)
        product = platform.product
        workers, outcome = cast("WarmWorkers", Here()), Outcome(product.name)
        silent: Any = lambda *_: None  # noqa: E731
        return Materializer(platform.context, job, workers, silent, outcome).run(
            countries or list(product.spec.countries)
        )

    return run


def blocked(platform: Platform, country: str) -> None:
    """Nothing can be written to the raw rows of a country."""
    folder = platform.home / "store" / "parcels" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath(f"country={country}").write_text("a file where the folder should be")


def test_a_country_that_cannot_be_written_is_told_beside_those_that_were_never_delivered(
    platform: Platform, sample: pd.DataFrame, materialized: Materialize
) -> None:
    platform.deliver(sample[sample["Country"] != "NO"])
    blocked(platform, COUNTRY)
    outcome = materialized(platform, "predict")
    assert set(outcome.failures) == {COUNTRY, "ingestion"}
    assert f"country={COUNTRY}" in " ".join(outcome.failures[COUNTRY])
    assert outcome.nothing == {
        "NOR": "no row of NOR was ever delivered. Drop a file that has some in the landing folder, "
        "or remove it from `countries`"
    }
    assert platform.version("predictions", OTHER) is not None


def test_countries_that_were_never_delivered_are_no_failure_of_the_ingestion(
    platform: Platform, sample: pd.DataFrame, materialized: Materialize
) -> None:
    platform.deliver(only(sample, COUNTRY))
    outcome = materialized(platform, "predict")
    assert (outcome.failures, set(outcome.nothing)) == ({}, {"DEU", "NOR"})
    assert platform.version("predictions", COUNTRY) is not None


def test_where_nothing_was_ever_delivered_a_person_is_needed(
    platform: Platform, materialized: Materialize
) -> None:
    outcome = materialized(platform, "predict")
    assert (set(outcome.failures), outcome.nothing) == ({"DEU", "FRA", "NOR"}, {})


def test_a_delivery_that_was_refused_is_not_tried_again_until_it_or_the_contract_changes(
    platform: Platform, sample: pd.DataFrame, materialized: Materialize
) -> None:
    broken = only(sample, COUNTRY)
    broken.loc[: len(broken) // 3, "Demand (parcels)"] = -1.0
    platform.deliver(broken)
    refused = materialized(platform, "predict", COUNTRY)
    assert "break the contract" in " ".join(refused.failures[COUNTRY])
    again = materialized(platform, "predict", COUNTRY)
    assert again.runs == 1, "the look for new files alone"
    assert "refused before" in " ".join(again.failures[COUNTRY])
    edit(
        platform.product.folder / "defs.yaml",
        ("max_rejected_share: 0.05", "max_rejected_share: 0.9"),
    )
    allowed = materialized(rebuilt(platform), "predict", COUNTRY)
    assert (allowed.failures, allowed.nothing) == ({}, {})


def test_a_country_with_a_refused_delivery_predicts_with_what_a_person_put_into_use(
    once_trained: Path, tmp_path: Path, materialized: Materialize
) -> None:
    with going_on(once_trained, tmp_path) as platform:
        platform.deliver(bad(week("2025-01-06")), "broken.parquet")
        assert "break the contract" in str(materialized(platform, "predict", COUNTRY).failures)
        propose(platform, COUNTRY)
        whole = platform.context
        forced = plan_promotion(whole, [COUNTRY])
        apply_plan(whole, forced, Requester("ana", "known to be right"), lambda _: None)
        status = platform.status()[COUNTRY]
        assert status.state == "contract_broken"
        assert "predictions are of version 1, in use is version 2" in status.why
        outcome = materialized(platform, "predict", COUNTRY)
        assert "refused before" in " ".join(outcome.failures[COUNTRY])
        assert set(platform.frame("predictions", COUNTRY)["model_version"]) == {"2"}
        assert "version" not in platform.status()[COUNTRY].why
        assert materialized(platform, "predict", COUNTRY).runs == 1, "the look for new files alone"


def test_a_delivery_that_is_not_used_is_told_each_time_and_hides_no_other_state(
    platform: Platform, sample: pd.DataFrame, materialized: Materialize
) -> None:
    platform.deliver(only(sample, COUNTRY))
    assert not materialized(platform, "predict", COUNTRY).failures
    platform.deliver(bad(week("2025-01-06")), "broken.parquet")
    platform.deliver(week("2025-01-13"), "good.parquet")
    first = materialized(platform, "predict", COUNTRY)
    again = materialized(platform, "predict", COUNTRY)
    assert (again.failures, again.unchanged) == ({}, {COUNTRY})
    assert again.not_used == first.not_used
    assert "broken.parquet" in again.not_used[COUNTRY]
    assert platform.status()[COUNTRY].state == "delivery_not_used"
    edit(platform.product.folder / "features.py", ("import pandas", "import math\nimport pandas"))
    status = rebuilt(platform).status()[COUNTRY]
    assert status.state == "behind"
    assert "broken.parquet" in status.why


def test_a_country_with_nothing_to_predict_is_no_failure_and_keeps_no_other_from_anything(
    platform: Platform, sample: pd.DataFrame, materialized: Materialize
) -> None:
    nothing_of(platform.product.folder, COUNTRY)
    platform.deliver(sample)
    outcome = materialized(platform, "all")
    assert (outcome.failures, set(outcome.nothing)) == ({}, {COUNTRY})
    assert platform.version("pooled_model", None) is not None
    assert platform.version("predictions", OTHER) is not None
    again = materialized(platform, "all")
    assert (again.runs, again.failures, set(again.nothing)) == (1, {}, {COUNTRY})


def test_the_country_with_most_rows_begins_first(
    platform: Platform, sample: pd.DataFrame, materialized: Materialize
) -> None:
    days = {"DEU": "2023-03-01", "FRA": "2023-06-01"}
    cut = sample["Country"].map(days).fillna(sample["Date"].max())
    platform.deliver(sample[sample["Date"] <= cut])
    assert not materialized(platform, "predict").failures
    runs = platform.instance.get_runs(dg.RunsFilter(job_name="parcels_predict"), ascending=True)
    begun = [run.tags.get("dagster/partition") for run in runs]
    assert begun == [None, "NOR", "FRA", "DEU"]


def test_what_a_gate_stopped_and_a_person_put_into_use_predicts_without_a_failure(
    make_platform: Callable[..., Platform], materialized: Materialize
) -> None:
    platform = make_platform(("min_improvement: 0.02", "min_improvement: 0.99"))
    platform.deliver(generated(platform))
    stopped = materialized(platform, "all", COUNTRY)
    assert "beats_baseline" in " ".join(stopped.decided[COUNTRY])
    assert (stopped.failures, stopped.fallback) == ({}, {COUNTRY})
    decided_before = materialized(platform, "all", COUNTRY)
    assert (decided_before.runs, decided_before.failures) == (1, {}), "the look for new files alone"
    assert set(decided_before.decided) == decided_before.unchanged == {COUNTRY}
    whole = platform.context
    forced = plan_promotion(whole, [COUNTRY])
    apply_plan(whole, forced, Requester("ana", "known to be right"), lambda _: None)
    outcome = materialized(platform, "all", COUNTRY)
    assert (outcome.failures, outcome.fallback) == ({}, set())
    assert set(platform.frame("predictions", COUNTRY)["model_version"]) == {"1"}
    unchanged = materialized(platform, "all", COUNTRY)
    assert (unchanged.failures, unchanged.unchanged) == ({}, {COUNTRY})
