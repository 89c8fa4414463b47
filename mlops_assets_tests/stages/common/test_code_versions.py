"""What makes which asset due again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mlops_assets.product import Product
from mlops_assets.stages.common.code_versions import RECIPES
from mlops_assets_tests.platform import Platform

TRAINED = {"model", "champion", "pooled_model"}
SERVED = {"predictions", "performance"}
MADE = {"shared_features", "features", *TRAINED, *SERVED}


@pytest.fixture
def due(platform: Platform) -> Callable[..., set[str]]:
    """Assets whose recipe in France, or for all countries, a change of the config changes."""
    before = platform.product

    def after(**changes: Any) -> set[str]:
        content = {**before.spec.model_dump(), **changes}
        content["overrides"] = {**before.spec.overrides, **changes.get("overrides", {})}
        return {
            name
            for name in RECIPES
            if _hash(replace(before, spec=type(before.spec).model_validate(content)), name)
            != _hash(before, name)
        }

    return after


def _hash(product: Product, name: str) -> str:
    whole = name in ("shared_features", "pooled_model")
    return RECIPES[name].config_hash(product, None if whole else "FRA")


def test_what_it_takes_to_replace_a_champion_trains_nothing(
    due: Callable[..., set[str]],
) -> None:
    assert due(decision={"margin": 0.5}) == {"champion"}
    assert due(overrides={"FRA": {"decision": {"margin": 0.5}}}) == {"champion"}


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"tuning": {"trials": 3}}, set()),
        ({"evaluation": {"draws": 1234}}, {"performance"}),
        ({"gates": {"min_improvement": 0.123}}, set()),
        ({"regions": {"north": ["DEU", "NOR"]}}, set()),
    ],
    ids=["tuning", "evaluation", "gates", "regions"],
)
def test_what_trains_or_judges_a_model_makes_it_due(
    due: Callable[..., set[str]], changes: dict[str, Any], more: set[str]
) -> None:
    assert due(**changes) == TRAINED | more


def test_what_watches_a_model_trains_nothing(due: Callable[..., set[str]]) -> None:
    assert due(monitoring={"min_labels": 33}) == {"performance"}
    assert due(monitoring={"min_effect": 0.33}) == {"drift"}
    assert due(retraining={"at_once": 3}, alerts={"sinks": []}) == set()


def test_a_split_of_its_own_changes_the_country_and_what_is_trained_on_all(
    due: Callable[..., set[str]],
) -> None:
    own = {"split": {"min_train_rows": 9}}
    assert due(overrides={"FRA": own}) == {*TRAINED, *SERVED}
    assert due(overrides={"DEU": own}) == {"pooled_model"}
    assert due(overrides={"DEU": {"gates": {"min_improvement": 0.123}}}) == set()


def test_another_seed_makes_everything_due_that_is_drawn_with_it(
    due: Callable[..., set[str]],
) -> None:
    assert due(seed=99) == MADE


def test_text_for_people_makes_nothing_due(due: Callable[..., set[str]]) -> None:
    assert due(description="Another one") == set()
