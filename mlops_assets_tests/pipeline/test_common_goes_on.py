"""What all countries have in common goes on, whatever is wrong with one of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from mlops_assets.registry.models import registered_name
from mlops_assets.stages.staleness import REPAIRED, Staleness
from mlops_assets.stages.training.serving import pooled_key, report_from_json
from mlops_assets_tests.pipeline.test_outcomes import TO_FEATURES, VALUE
from mlops_assets_tests.platform import Platform, checks, edit, failures, generated, rebuilt

COUNTRIES = ("DEU", "FRA", "NOR")
SHARED_INPUTS = TO_FEATURES[:3]
Make = Callable[..., Platform]


def with_a_ratio(platform: Platform) -> Platform:
    """The product with a feature that is infinite a week after a day without demand."""
    week_ago = '            "demand_week_ago"'
    ratio = '            "growth": (demand / demand.shift(7)).to_numpy(),\n'
    edit(platform.product.folder / "features.py", (week_ago, f"{ratio}{week_ago}"))
    return rebuilt(platform)


def damage(platform: Platform, asset: str, country: str) -> Callable[[], object]:
    """Damage its file; what repairs it, as from a backup."""
    held = platform.store.current((platform.product.name, asset), country)
    assert held is not None
    file = platform.home / "store" / held.uri.partition("/store/")[2]
    whole = file.read_bytes()
    file.write_bytes(b"PAR1" + b"\0" * 100)
    return lambda: file.write_bytes(whole)


def test_an_infinite_feature_and_a_damaged_file_keep_no_country_from_the_pooled_model(
    make_platform: Make,
) -> None:
    forest = "sklearn.ensemble.RandomForestRegressor\n      params: {n_estimators: 5}"
    platform = with_a_ratio(
        make_platform(
            (
                "sklearn.ensemble.HistGradientBoostingRegressor\n"
                "      params: {max_iter: 15, learning_rate: 0.3}",
                forest,
            ),
            ("holdout_from: 2024-10-01", "holdout_days: 60"),
            # Else such records get no further than the contract.
            ("schema_class: contract.Demand", "schema_class: contract.Demand\n    max_ahead: null"),
        )
    )
    data = generated(platform)
    day = pd.to_datetime(data["Date"])
    data.loc[(data["Country"] == "NO") & (day == "2023-12-24"), VALUE] = 0
    ahead = data[data["Country"] == "DEU"].tail(2).assign(Date=["2062-11-15", "2062-11-16"])
    platform.deliver(pd.concat([data, ahead], ignore_index=True))
    finite = {}
    for country in COUNTRIES:
        result = platform.run(country, assets=TO_FEATURES)
        assert result.success, failures(result)
        finite[country] = checks(result)["features.finite_values"]
    assert {country: told.passed for country, told in finite.items()} == {
        "DEU": True,
        "FRA": True,
        "NOR": False,
    }
    first = "growth is infinite in 1 rows, the first of NOR at 2023-12-31"
    assert first in finite["NOR"].description
    assert finite["NOR"].severity.value == "WARN"
    assert np.isfinite(platform.frame("features", "NOR")["growth"].dropna()).all()
    repair = damage(platform, "features", "FRA")

    result = platform.run(None, job="pooled")

    told = checks(result)["pooled_model.all_countries"]
    assert (told.passed, told.severity.value) == (False, "WARN")
    assert "FRA" in told.description
    assert "is damaged" in told.description
    assert "DEU: 1 of " in told.description
    assert "long after those of the others" in told.description
    version = platform.registry.version(registered_name("parcels", pooled_key("gbm")), "1")
    # The holdout is of two countries' 60 days, not the one row whose label is of 2062.
    assert report_from_json(version.tags["report"]).rows == 120
    again = platform.run("NOR", assets=TO_FEATURES)
    assert not checks(again)["features.finite_values"].passed

    assert not Staleness(platform.context).is_pooled_stale(), "it would come to the same"
    repair()
    assert Staleness(platform.context).is_pooled_stale()
    result = platform.run(None, job="pooled")
    told = checks(result)["pooled_model.all_countries"]
    assert told.description is not None
    assert "FRA" not in told.description
    version = platform.registry.version(registered_name("parcels", pooled_key("gbm")), "2")
    assert report_from_json(version.tags["report"]).rows == 180, "60 days of the third one too"
    assert not Staleness(platform.context).is_pooled_stale()


def test_a_damaged_file_of_one_country_keeps_no_other_from_shared_features(
    sharing: Platform,
) -> None:
    sharing.deliver(generated(sharing))
    for country in COUNTRIES:
        assert sharing.run(country, assets=SHARED_INPUTS).success
    repair = damage(sharing, "validated", "NOR")

    result = sharing.run(None, job="shared")

    assert result.success, failures(result)
    told = checks(result)["shared_features.all_countries"]
    assert (told.passed, told.severity.value) == (False, "WARN")
    assert "NOR" in told.description
    shared = sharing.frame("shared_features", None)
    assert shared["DEU"].notna().sum() > 700
    assert shared["NOR"].isna().all()
    assert sharing.run("DEU", assets=["features"]).success

    assert Staleness(sharing.context).shared_inputs() is None, "it would come to the same"
    repair()
    assert REPAIRED in (Staleness(sharing.context).shared_inputs() or {})
    result = sharing.run(None, job="shared")
    assert checks(result)["shared_features.all_countries"].passed
    assert sharing.frame("shared_features", None)["NOR"].notna().sum() > 700
    assert Staleness(sharing.context).shared_inputs() is None
