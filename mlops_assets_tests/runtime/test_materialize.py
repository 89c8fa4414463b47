"""What `materialize` tells of an ingestion over all countries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import pandas as pd
import pytest

from mlops_assets.runtime import headless
from mlops_assets.runtime.headless import RunOrder, RunOutcome, WarmWorkers
from mlops_assets.runtime.materialize import Materializer, Outcome
from mlops_assets_tests.pipeline.test_outcomes import COUNTRY, OTHER, only
from mlops_assets_tests.platform import Platform


class Here:
    """Executes orders as a worker does, in this process."""

    def run(self, orders: Sequence[RunOrder]) -> Iterator[RunOutcome]:
        yield from map(headless._execute, orders)


@pytest.fixture
def materialized(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Predicts for every listed country."""
    monkeypatch.setitem(headless._loaded, "defs", platform.defs)
    monkeypatch.setitem(headless._loaded, "instance", platform.instance)

    def run() -> Outcome:
        workers = cast("WarmWorkers", Here())
        outcome = Outcome(platform.product.name)
        silent: Any = lambda *_: None  # noqa: E731
        return Materializer(
            platform.product, "predict", platform.store, platform.registry, workers, silent, outcome
        ).run(list(platform.product.spec.countries))

    return run


def blocked(platform: Platform, country: str) -> None:
    """Nothing can be written to the raw rows of a country."""
    folder = platform.home / "store" / "parcels" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath(f"country={country}").write_text("a file where the folder should be")


def test_a_country_that_cannot_be_written_is_told_beside_those_that_were_never_delivered(
    platform: Platform, sample: pd.DataFrame, materialized: Any
) -> None:
    platform.deliver(sample[sample["Country"] != "NO"])
    blocked(platform, COUNTRY)
    outcome = materialized()
    assert set(outcome.failures) == {COUNTRY, "NOR", "ingestion"}
    assert f"country={COUNTRY}" in " ".join(outcome.failures[COUNTRY])
    assert outcome.failures["NOR"] == (
        "no row of NOR was ever delivered. Drop a file that has some in the landing folder, or "
        "remove it from `countries`",
    )
    assert platform.version("predictions", OTHER) is not None


def test_countries_that_were_never_delivered_are_no_failure_of_the_ingestion(
    platform: Platform, sample: pd.DataFrame, materialized: Any
) -> None:
    platform.deliver(only(sample, COUNTRY))
    outcome = materialized()
    assert set(outcome.failures) == {"DEU", "NOR"}
    assert platform.version("predictions", COUNTRY) is not None
