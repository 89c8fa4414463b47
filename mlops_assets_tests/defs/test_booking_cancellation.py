from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mlops_assets.ml.features.feature_frame import check_point_in_time, feature_columns
from mlops_assets.ml.models.fitted_model import fit, predict
from mlops_assets.ml.stats.bootstrap import gain_estimate
from mlops_assets.ml.stats.draws import draw_rows
from mlops_assets.spec import EvaluationSpec
from mlops_assets_tests.defs.world import (
    Trained,
    World,
    build,
    figures,
    module,
    needs_real_data,
    of_few_trees,
    real,
    spec_of,
    sql,
    train,
)
from mlops_assets_tests.effort import WHOLE

PRODUCT = "booking_cancellation"
NEVER_FEATURES = {
    "is_canceled",
    "reservation_status",
    "reservation_status_date",
    "assigned_room_type",
    "booking_changes",
    "required_car_parking_spaces",
    "days_in_waiting_list",
    "deposit_type",
}


def auc_by_country(rows: pd.DataFrame, column: str) -> pd.Series:
    """AUC of each country whose holdout has both classes."""
    both = rows.groupby("country").filter(lambda each: each["label"].nunique() == 2)
    auc = {c: roc_auc_score(each["label"], each[column]) for c, each in both.groupby("country")}
    return pd.Series(auc)


def surely_better(
    rows: pd.DataFrame, one: np.ndarray, other: np.ndarray, evaluation: EvaluationSpec
) -> bool:
    """Whether the AUC of one is above the other's at the 2.5 % bound of a paired bootstrap."""
    draws = draw_rows(evaluation, rows, seed=0, draws=500)
    return (
        gain_estimate("auc", rows["label"].to_numpy(), one, other, draws=draws, tail=0.025).lower
        > 0
    )


@pytest.fixture(scope="module")
def world() -> World:
    return build(PRODUCT, real(PRODUCT))


@pytest.fixture(scope="module")
def telling(request: pytest.FixtureRequest) -> World:
    """Large and small countries, and one with an alias; in `make nightly` all of them."""
    if WHOLE:
        return request.getfixturevalue("world")
    return build(PRODUCT, real(PRODUCT), countries=["CHN", "DEU", "GBR", "IRL", "PRT", "SRB"])


@pytest.fixture(scope="module")
def trained(world: World) -> Trained:
    return train(world)


@pytest.fixture(scope="module")
def few(telling: World) -> Trained:
    return train(of_few_trees(telling), ["CHN", "IRL", "SRB"])


@pytest.fixture(scope="module")
def invented() -> World:
    some = ["CHN", "DEU", "ESP", "FRA", "GBR", "IRL", "PRT"]
    return build(PRODUCT, module(PRODUCT, "sample").generate(seed=1), countries=some)


def test_the_sample_has_the_published_shape_and_every_country() -> None:
    start = time.process_time()
    sample = module(PRODUCT, "sample").generate(seed=1)
    assert time.process_time() - start < 2
    assert sample.equals(module(PRODUCT, "sample").generate(seed=1))
    assert not sample.equals(module(PRODUCT, "sample").generate(seed=2))
    spec = spec_of(PRODUCT)
    assert set(spec.source.columns.values()) <= set(sample.columns)
    counts = sample["country"].replace(spec.aliases).value_counts()
    assert counts[spec.countries].min() >= 60
    assert set(counts.index) > set(spec.countries)
    assert (sample["country"] == "CN").any()


def test_dirty_records_of_the_sample_are_rejected_and_the_rest_is_kept(invented: World) -> None:
    broken: set[str] = set()
    for validation in invented.validations.values():
        broken |= set(validation.broken)
        assert validation.rejected_share <= invented.spec.contract.max_rejected_share
    assert broken == {"somebody_comes", "daily_rate: in_range(0, 1000)"}
    listed = invented.raw[invented.raw["country"].isin([*invented.validations, "CN"])]
    twice = int(listed.duplicated("source_row").sum())
    assert sum(v.duplicates for v in invented.validations.values()) == twice > 5


@pytest.mark.nightly  # trains every country of a product
def test_a_model_beats_the_prior_on_the_sample() -> None:
    some = spec_of(PRODUCT).countries[::6]
    sample = module(PRODUCT, "sample").generate(seed=1)
    judged = train(build(PRODUCT, sample, countries=some)).judged
    assert roc_auc_score(judged["label"], judged["served"]) > 0.7


def test_nothing_known_only_later_is_a_feature(invented: World) -> None:
    frame = invented.frames["PRT"]
    assert NEVER_FEATURES.isdisjoint(feature_columns(frame))
    assert (frame["label_time"] >= frame["event_time"]).all()


def test_the_event_is_the_booking_and_the_label_is_known_on_arrival(invented: World) -> None:
    rows = invented.validations["DEU"].accepted
    frame = invented.frames["DEU"].set_index("entity")
    waits = (frame["label_time"] - frame["event_time"]).dt.days
    lead = rows.set_index(rows["booking"].astype(str))["lead_time"]
    pd.testing.assert_series_equal(waits, lead[waits.index], check_names=False)


def test_a_day_that_does_not_exist_is_rejected() -> None:
    sample = module(PRODUCT, "sample").generate(seed=1).head(300)
    country = sample["country"].iloc[0]
    listed = spec_of(PRODUCT).countries
    assert country in listed
    wrong = sample.assign(country=country)
    wrong.loc[0, ["arrival_date_month", "arrival_date_day_of_month"]] = ["February", 31]
    wrong.loc[1, "arrival_date_month"] = "Juli"
    wrong.loc[2, "lead_time"] = 2_000_000_000
    quarantine = build(PRODUCT, wrong, countries=[country]).validations[country].quarantine
    rules = quarantine.set_index("booking")["_rules"]
    first, second, third = wrong["source_row"].head(3).astype(str)
    assert rules[first] == "arrival_date: not_nullable; booking_date: not_nullable"
    assert "arrival_date: not_nullable" in rules[second]
    assert rules[third] == "lead_time: in_range(0, 2000)"


def test_no_rows_give_no_features() -> None:
    none = build(PRODUCT, module(PRODUCT, "sample").generate(seed=1).head(0), countries=["PRT"])
    assert none.frames["PRT"].empty


@needs_real_data
@pytest.mark.real_data
class TestRealBookings:
    def test_the_sample_looks_like_the_real_file(self) -> None:
        sample, published = module(PRODUCT, "sample").generate(seed=1), real(PRODUCT)
        assert sample.columns.tolist() == published.columns.tolist()
        assert sample.dtypes.to_dict() == published.dtypes.to_dict()

    def test_every_row_of_the_37_countries_is_accounted_for(self, telling: World) -> None:
        published = real(PRODUCT)
        counts = published["country"].replace({"CN": "CHN"}).value_counts()
        assert set(telling.spec.countries) == set(counts[counts >= 100].index)
        found = telling.validations
        assert {c: v.rows for c, v in found.items()} == counts[list(found)].to_dict()
        assert found["CHN"].rows == 1279 + 999
        rules = pd.DataFrame([dict(v.broken) for v in found.values()]).sum()
        assert set(rules.index) == {"somebody_comes", "daily_rate: in_range(0, 1000)"}
        assert max(v.rejected_share for v in found.values()) < 0.01

    def test_features_know_nothing_of_the_future(self, telling: World) -> None:
        for country in ("PRT", "DEU", "CHN", "SRB"):
            result = check_point_in_time(
                telling.validations[country].accepted,
                telling.frames[country],
                module(PRODUCT, "features").build,
                telling.spec.source,
                target=telling.spec.target,
                seed=2,
            )
            assert result.passed, result.differing[:3]

    def test_dates_and_labels_agree_with_sql(self, telling: World) -> None:
        published = real(PRODUCT)
        by_sql = sql(
            published,
            """
            select source_row::varchar as entity,
                   strptime(arrival_date_year || ' ' || arrival_date_month || ' '
                            || arrival_date_day_of_month, '%Y %B %d') as label_time,
                   label_time - to_days(lead_time) as event_time,
                   is_canceled::double as label,
                   adr / (adults + coalesce(children, 0) + babies) as rate_per_guest,
                   isodow(event_time) - 1 as booking_weekday
            from rows
            """,
        )
        ours = pd.concat(telling.frames.values(), ignore_index=True)
        joined = ours.merge(by_sql, on="entity", suffixes=("", "_sql"))
        assert len(joined) == len(ours)
        for name in ("label_time", "event_time"):
            assert (joined[name] == joined[f"{name}_sql"]).all()
        for name in ("label", "rate_per_guest", "booking_weekday"):
            np.testing.assert_allclose(joined[name], joined[f"{name}_sql"].astype("float64"))

    def test_nobody_is_trained_on_an_outcome_of_the_holdout(self, few: Trained) -> None:
        for parts in few.parts.values():
            assert (parts.final["label_time"] <= pd.Timestamp("2016-10-01")).all()
            assert (parts.holdout["event_time"] >= pd.Timestamp("2016-10-01")).all()
        for chosen in few.selections.values():
            assert chosen.model is not None
            assert chosen.served is not None
            assert chosen.model.until is not None
            assert chosen.model.until < pd.Timestamp("2016-10-01")
            assert chosen.served.rows > chosen.model.rows

    @figures
    def test_served_models_reach_an_auc_of_825_over_all_bookings(self, trained: Trained) -> None:
        rows = trained.judged
        served = roc_auc_score(rows["label"], rows["served"])
        pooled = roc_auc_score(rows["label"], rows["pooled"])
        local = [c for c, s in trained.selections.items() if s.kind == "local"]
        print(f"booking_cancellation AUC: served {served:.4f}, pooled {pooled:.4f}, own {local}")
        assert len(rows) > 40_000
        assert served >= 0.85
        assert pooled >= 0.85
        assert trained.pooled["gbm"].report.value == pytest.approx(pooled)

    @figures
    def test_within_the_countries_the_models_are_as_good_as_over_all(
        self, trained: Trained
    ) -> None:
        """The country leaks, so a figure over all of them flatters; this one does not."""
        by_country = auc_by_country(trained.judged, "served")
        rows = trained.judged.groupby("country").size()[by_country.index]
        within = float(np.average(by_country, weights=rows))
        print(f"booking_cancellation AUC within countries, by rows: {within:.4f}")
        assert within >= 0.84

    @figures
    def test_a_country_is_better_off_than_with_its_prior(self, trained: Trained) -> None:
        rows = trained.judged.groupby("country").filter(lambda each: len(each) >= 100)
        by_country = auc_by_country(rows, "served")
        assert len(by_country) >= 25
        assert by_country.min() > 0.65

    @figures
    def test_no_country_with_300_training_rows_would_do_better_with_the_other_kind_of_model(
        self, world: World, trained: Trained
    ) -> None:
        judged, spec = dict(list(trained.judged.groupby("country"))), world.spec
        large = [country for country, each in trained.parts.items() if len(each.final) >= 300]
        for country in large:
            rows, parts = judged[country], trained.parts[country]
            own = fit(spec.candidates[0], parts.final, spec.task, spec.seed)
            served = rows["served"].to_numpy()
            for other in (rows["pooled"].to_numpy(), predict(own, parts.holdout, spec.task)):
                assert not surely_better(rows, other, served, spec.evaluation), country
        assert len(large) >= 16
