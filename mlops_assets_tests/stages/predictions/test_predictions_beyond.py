"""Predictions beyond the range of a product: treated as declared, or what served before serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import mlflow
import numpy as np
import pytest

from mlops_assets.ml.models.fitted_model import fit
from mlops_assets.ml.models.split import split
from mlops_assets.registry import LoggedModel
from mlops_assets.registry.models import log_model, registered_name
from mlops_assets.spec import CandidateSpec
from mlops_assets.stages.alerting.refused_predictions import refused_conditions
from mlops_assets.stages.predictions.given_out import REFUSED_LOG, given_out_of
from mlops_assets.stages.training.serving import model_example
from mlops_assets_tests.platform import Platform, checks, copied, edit, failures, rebuilt
from mlops_assets_tests.stages.monitoring.test_performance import deliver
from mlops_assets_tests.stages.proposals import PRODUCT, decide, in_use, propose

COUNTRY, OTHER = "FRA", "DEU"
CHECK = "predictions.schema_and_range"
SERVING = ["predictions", "performance", "drift"]
DATA = ["raw", "quarantine", "validated", "features"]
MAXIMUM = "maximum: 100000"
TREES = CandidateSpec(
    name="gbm",
    estimator="sklearn.ensemble.HistGradientBoostingRegressor",
    params={"max_iter": 5},
)


def absurd(platform: Platform) -> LoggedModel:
    """Files of a model that was fitted while demand was delivered in another unit."""
    spec = platform.product.resolved(COUNTRY)
    rows = split(platform.frame("features", COUNTRY), spec.split).final
    model = fit(TREES, rows.assign(label=rows["label"] * 1000.0), spec.task, 1)
    mlflow.set_tracking_uri(platform.registry.tracking_uri)
    first = platform.registry.version(registered_name(PRODUCT, COUNTRY), "1")
    mlflow.start_run(run_id=first.run_id)
    try:
        return log_model(model.estimator, *model_example(model, rows), "absurd")
    finally:
        mlflow.end_run()


def with_absurd_champion(platform: Platform, **predictions: Any) -> Platform:
    """Version 2, whose predictions are beyond any range, is in use; version 1 was before."""
    files = absurd(platform)
    assert propose(platform, COUNTRY, files=files) == "2"
    decide(platform, COUNTRY)
    assert in_use(platform, COUNTRY) == "2"
    return declared(platform, **predictions)


def declared(
    platform: Platform, maximum: float = 100000.0, minimum: float = 0.0, **predictions: Any
) -> Platform:
    keys = "".join(f"\n    {name}: {value}" for name, value in predictions.items())
    changes = (MAXIMUM, f"maximum: {maximum}{keys}"), ("minimum: 0", f"minimum: {minimum}")
    edit(platform.product.folder / "defs.yaml", *changes)
    return rebuilt(platform)


def page(platform: Platform, asset: str = "predictions") -> str:
    """What a person reads on the asset's page."""
    return str(platform.told(asset, COUNTRY))


@pytest.fixture(scope="module")
def instead(once_trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The predictions of version 2 were refused; to be looked at only."""
    with dg.DagsterInstance.ephemeral() as instance:
        platform = copied(once_trained, tmp_path_factory.mktemp("instead"), instance)
        platform = with_absurd_champion(platform)
        result = platform.run(COUNTRY, "predict", SERVING)
        assert result.success, failures(result)
        check = checks(result)[CHECK]
        assert (check.passed, check.severity.value) == (False, "WARN")
        assert "version 1 predicts, as the predictions of version 2 were refused" in (
            check.description or ""
        )
        yield platform


def test_what_served_before_serves_when_the_predictions_of_the_champion_are_refused(
    instead: Platform, once_trained: Path
) -> None:
    frame = instead.frame("predictions", COUNTRY)
    assert set(frame["model_version"]) == {"1"}
    assert set(frame["beyond"]) == {""}
    assert in_use(instead, COUNTRY) == "2"
    spec = instead.product.spec.predictions
    assert frame["prediction"].between(spec.minimum, spec.maximum).all()
    told = given_out_of(instead.store.current((PRODUCT, "predictions"), COUNTRY))
    assert (told.by, told.refused, dict(told.answers)) == ("1", "2", {})
    assert told.why.startswith("1 of 1 predictions are beyond 0 to 100000, the worst ")
    assert set(frame["reason"]) == {told.describe()}
    assert instead.materialized("performance") >= {COUNTRY}
    assert instead.materialized("drift") >= {COUNTRY}


def test_a_refused_champion_is_seen_in_status_on_the_page_and_in_an_alert(
    instead: Platform,
) -> None:
    status = instead.status()[COUNTRY]
    assert status.state == "predictions_refused"
    assert status.why.startswith("version 1 predicts, as the predictions of version 2 were refused")
    assert status.champion_version == "2"
    assert instead.status()[OTHER].state != "predictions_refused"
    assert "the predictions of version 2 were refused: 1 of 1 predictions are beyond" in page(
        instead
    )
    (alert,) = refused_conditions(instead.context)
    assert (alert.kind, alert.country) == ("gate", COUNTRY)
    assert alert.title == "parcels FRA: predictions of version 2 were refused, version 1 predicts"
    assert "mlops-assets rollback parcels FRA" in alert.text


def test_other_predictions_are_no_drift_and_no_performance_of_the_champion(
    instead: Platform,
) -> None:
    drift = instead.frame("drift", COUNTRY)
    assert "prediction" not in set(drift["feature"])
    rows = instead.frame("performance", COUNTRY)
    assert "2" not in set(rows["model_version"])


def test_a_rerun_says_the_same_and_another_version_ends_it(trained: Platform) -> None:
    platform = with_absurd_champion(trained)
    first = platform.run(COUNTRY, "predict", ["predictions"])
    version = platform.version("predictions", COUNTRY)
    again = platform.run(COUNTRY, "predict", ["predictions"])
    assert again.success
    assert platform.version("predictions", COUNTRY) == version
    told = [checks(each)[CHECK].description or "" for each in (first, again)]
    assert told[0].partition("; ")[2] == told[1].partition("; ")[2].partition("; ")[2]
    propose(platform, COUNTRY, error=0.1, champion_error=0.5)
    decide(platform, COUNTRY)
    good = platform.run(COUNTRY, "predict", ["predictions"])
    assert checks(good)[CHECK].passed
    assert platform.status()[COUNTRY].state != "predictions_refused"
    assert list(refused_conditions(platform.context)) == []


def test_the_baseline_serves_in_its_place_where_that_is_declared(trained: Platform) -> None:
    platform = with_absurd_champion(trained, if_refused="baseline")
    result = platform.run(COUNTRY, "predict", SERVING)
    assert result.success, failures(result)
    frame = platform.frame("predictions", COUNTRY)
    assert set(zip(frame["model_kind"], frame["model_version"], strict=True)) == {("baseline", "")}
    assert platform.status()[COUNTRY].why.startswith("the baseline predicts, as the predictions of")


def test_with_nobody_to_serve_the_last_good_ones_stay_and_the_state_says_so(
    trained: Platform,
) -> None:
    before = trained.version("predictions", COUNTRY)
    platform = with_absurd_champion(trained, if_refused="keep")
    results = [platform.run(COUNTRY, "predict", SERVING) for _ in range(2)]
    assert [each.success for each in results] == [False, False]
    assert platform.version("predictions", COUNTRY) == before
    result = results[-1]
    check = checks(result)[CHECK]
    assert (check.passed, check.severity.value) == (False, "ERROR")
    assert "version 2: 1 of 1 predictions are beyond 0 to 100000, the worst" in check.description
    assert "Way out: " in check.description
    status = platform.status()[COUNTRY]
    assert status.state == "predictions_refused"
    assert status.why.startswith("no predictions could be taken, those of 20")
    assert len(platform.store.read_log((PRODUCT, REFUSED_LOG), COUNTRY)) == 1
    mended = declared_again(platform, "if_refused: keep", "if_refused: previous")
    assert mended.status()[COUNTRY].state == "behind"  # what was refused is not asked for again


def declared_again(platform: Platform, before: str, after: str) -> Platform:
    edit(platform.product.folder / "defs.yaml", (before, after))
    return rebuilt(platform)


def newest_of(platform: Platform) -> float:
    """The prediction that somebody waits for."""
    frame = platform.frame("predictions", COUNTRY)
    assert (frame["made"] == "ahead").sum() == 1
    return float(frame["prediction"].iloc[-1])


def test_old_rows_beyond_the_range_are_left_out_and_told_and_stop_nothing(
    trained: Platform,
) -> None:
    before = trained.frame("predictions", COUNTRY)
    newest = newest_of(trained)
    beyond = before["prediction"] > newest + 0.5
    assert 2 <= beyond.sum() < len(before)
    platform = declared(trained, newest + 0.5)
    result = platform.run(COUNTRY, "predict", SERVING)
    assert result.success, failures(result)
    check = checks(result)[CHECK]
    told = f"{beyond.sum()} of {len(before)} predictions are beyond 0 to {newest + 0.5:g}"
    assert told in check.description
    assert f"{beyond.sum()} are left out" in check.description
    after = platform.frame("predictions", COUNTRY)
    assert after["event_time"].tolist() == before["event_time"][~beyond].tolist()
    assert set(after["model_version"]) == {"1"}
    kept = platform.store.current((PRODUCT, "predictions"), COUNTRY)
    assert given_out_of(kept).told in check.description
    assert given_out_of(kept).told in page(platform)


@pytest.mark.parametrize("beyond", ["clip", "baseline"])
def test_a_row_beyond_the_range_is_answered_as_declared_flagged_and_counted_so(
    trained: Platform, beyond: str
) -> None:
    newest = newest_of(trained)
    rule = next(each for each in trained.product.spec.baselines if each.feature)
    naive = float(trained.frame("features", COUNTRY)[str(rule.feature)].iloc[-1])
    above = naive < newest
    limit = round(newest + (-0.016 if above else 0.016), 3)
    platform = declared(trained, **{"maximum" if above else "minimum": limit, "beyond": beyond})
    result = platform.run(COUNTRY, "predict", SERVING)
    assert result.success, failures(result)
    frame = platform.frame("predictions", COUNTRY)
    row = frame.iloc[-1]
    assert row["as_predicted"] == newest
    treated = frame[frame["beyond"] != ""]
    inside = treated["prediction"].le(limit) if above else treated["prediction"].ge(limit)
    assert inside.all()
    assert frame.loc[frame["beyond"] == "", "as_predicted"].isna().all()
    if beyond == "clip":
        assert (row["prediction"], row["beyond"], row["model_version"]) == (limit, "clipped", "1")
        assert row["lower"] < limit < row["upper"]
    else:
        assert (row["beyond"], row["model_kind"], row["model_version"]) == (
            "baseline",
            "baseline",
            "",
        )
        assert row["prediction"] == naive
        assert row["lower"] < row["prediction"] < row["upper"]
        assert row["reason"] == "in place of version 1, beyond the range"
    deliver(platform, 2)
    assert platform.run(COUNTRY, "predict", [*DATA, "performance"]).success
    counted = platform.frame("performance", COUNTRY)
    (met,) = counted[counted["event_time"] == row["event_time"]].to_dict("records")
    assert (met["prediction"], met["model_version"]) == (row["prediction"], row["model_version"])
    assert np.isfinite(met["label"])


def test_predictions_of_earlier_versions_are_as_their_model_said(trained: Platform) -> None:
    made = trained.store.current((PRODUCT, "predictions"), COUNTRY)
    assert made is not None
    old = trained.frame("predictions", COUNTRY).drop(columns=["beyond", "as_predicted"])
    trained.store.write((PRODUCT, "predictions"), COUNTRY, old, metadata=made.metadata)
    assert given_out_of(made).describe() == ""
    assert trained.status()[COUNTRY].state == "behind"  # performance is of what was said before
    assert list(refused_conditions(trained.context)) == []
    result = trained.run(COUNTRY, "predict", ["performance"])
    assert result.success, failures(result)
    assert trained.frame("performance", COUNTRY)["prediction"].notna().all()


def test_a_candidate_that_leaves_the_range_in_one_country_is_stopped_there_alone(
    trained: Platform,
) -> None:
    yaml = trained.product.folder / "defs.yaml"
    half = trained.frame("predictions", COUNTRY)["prediction"].median()
    own = f"  overrides:\n    {COUNTRY}: {{predictions: {{maximum: {half:.3f}}}}}"
    edit(yaml, ("  overrides:", own))
    platform = rebuilt(trained)
    stopped = platform.run(COUNTRY, "train", ["model", "champion"])
    assert not stopped.success
    check = checks(stopped)["model.within_range"]
    assert (check.passed, check.severity.value) == (False, "ERROR")
    assert "predictions are beyond" in check.description
    assert "Way out: have the product declare" in check.description
    assert in_use(platform, COUNTRY) == "1"
    decision = platform.decisions(COUNTRY).iloc[-1]
    assert decision["verdict"] == "kept"
    assert decision["reason"].startswith("gate within_range: on the ")
    other = platform.run(OTHER, "train", ["model", "champion"])
    assert other.success, failures(other)
