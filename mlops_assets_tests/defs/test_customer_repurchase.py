from __future__ import annotations

import datetime as dt
import time

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mlops_assets.ml.features.calendar import calendar_of
from mlops_assets.ml.features.feature_frame import check_point_in_time
from mlops_assets.ml.training.selection import country_split
from mlops_assets_tests.defs.world import (
    Trained,
    World,
    build,
    module,
    of_few_trees,
    spec_of,
    sql,
    train,
)
from mlops_assets_tests.effort import WHOLE

PRODUCT = "customer_repurchase"
NEWEST = dt.datetime(2025, 1, 1)
"""The newest cut-off that the sample reaches."""
GUESTS = ["BHR", "HKG", "NGA"]
SOME = ["GBR", "DEU", "FRA", "MLT", "HUN", *GUESTS]
"""The large country, small ones, one with a single customer, and those without any."""


@pytest.fixture(scope="module")
def sample() -> pd.DataFrame:
    return module(PRODUCT, "sample").generate(seed=1)


@pytest.fixture(scope="module")
def world(sample: pd.DataFrame) -> World:
    """Some countries; in `make nightly` all of them."""
    return build(PRODUCT, sample, countries=None if WHOLE else SOME, as_of=NEWEST)


@pytest.fixture(scope="module")
def trained(world: World) -> Trained:
    return train(of_few_trees(world))


def test_the_sample_is_quick_seeded_and_has_one_large_and_forty_small_countries(
    sample: pd.DataFrame,
) -> None:
    start = time.process_time()
    again = module(PRODUCT, "sample").generate(seed=1)
    assert time.process_time() - start < 2
    assert sample.equals(again)
    assert not sample.equals(module(PRODUCT, "sample").generate(seed=2))
    spec, counts = spec_of(PRODUCT), sample["Country"].value_counts()
    assert set(spec.source.columns.values()) == set(sample.columns)
    assert len(spec.countries) == 43
    assert set(spec.countries) < set(counts.index)
    assert 0.85 < counts["GBR"] / len(sample) < 0.95
    assert counts.drop("GBR").max() < 500
    customers = sample.groupby("Country")["Customer ID"].nunique()
    assert sorted(customers.index[customers == 0]) == GUESTS
    assert (customers == 1).sum() >= 20


def test_every_invoice_is_accounted_for(sample: pd.DataFrame, world: World) -> None:
    published = sample["Country"].value_counts()
    broken: set[str] = set()
    for country, found in world.validations.items():
        assert found.rows == published[country]
        assert len(found.accepted) + found.rejected + found.duplicates == found.rows
        assert found.rejected_share <= world.spec.contract.max_rejected_share
        broken |= set(found.broken)
    assert broken == {"items: greater_than_or_equal_to(1)", "amount: in_range(0, 100000)"}
    twice = sample[sample["Country"].isin([*world.validations])].duplicated("Invoice").sum()
    assert sum(found.duplicates for found in world.validations.values()) == twice > 0


def test_features_know_nothing_of_the_future(world: World) -> None:
    calendar = calendar_of(world.spec.cutoffs, NEWEST)
    for country, found in world.validations.items():
        result = check_point_in_time(
            found.accepted,
            world.frames[country],
            module(PRODUCT, "features").build,
            world.spec.source,
            target=world.spec.target,
            calendar=calendar,
            samples=5,
        )
        assert result.passed, (country, result.differing[:3])


def test_features_and_labels_agree_with_sql(world: World) -> None:
    rows = pd.concat([found.accepted for found in world.validations.values()])
    by_sql = sql(
        rows,
        """
        with cutoffs as (
            select unnest(generate_series(timestamp '2022-07-01', timestamp '2025-01-01',
                                          interval 1 month)) as event_time),
        pairs as (
            select r.customer as entity, c.event_time, r.amount, r.invoiced_at,
                   date_diff('second', c.event_time, r.invoiced_at) / 86400.0 as days
            from cutoffs c, rows r where r.customer is not null)
        select entity, event_time,
               count(*) filter (days < 0 and days >= -30) as invoices_30,
               count(*) filter (days < 0 and days >= -90) as invoices_90,
               count(*) filter (days < 0 and days >= -365) as invoices_365,
               sum(amount) filter (days < 0 and days >= -365) as spent_365,
               -max(days) filter (days < 0) as days_since_last,
               -min(days) filter (days < 0) as days_since_first,
               (count(*) filter (days >= 0 and days < 90) > 0)::double as label
        from pairs group by all having days_since_last <= 365
        """,
    )
    ours = pd.concat(world.frames.values())
    joined = ours.merge(
        by_sql, on=["entity", "event_time"], how="outer", suffixes=("", "_sql"), indicator=True
    )
    assert (joined["_merge"] == "both").all()
    for name in by_sql.columns.drop(["entity", "event_time", "label"]):
        np.testing.assert_allclose(
            joined[name], joined[f"{name}_sql"].astype("float64"), rtol=1e-9, err_msg=name
        )
    known = joined["event_time"] + pd.Timedelta(days=90) <= NEWEST
    assert joined["label"].notna().equals(known)
    assert (joined["label"] == joined["label_sql"])[known].all()


def test_the_newest_cutoff_is_there_without_labels_for_every_customer(world: World) -> None:
    newest = world.frames["GBR"]
    newest = newest[newest["event_time"] == NEWEST]
    assert len(newest) > 100
    assert newest["label"].isna().all()


def test_that_a_customer_does_not_come_back_is_known_where_nobody_buys_any_more(
    world: World,
) -> None:
    """By a country's own newest invoice, its last labels would be known only of who returns."""
    frame = pd.concat([world.frames[country] for country in ("MLT", "HUN")])
    last = pd.concat([world.validations[c].accepted for c in ("MLT", "HUN")])
    ended = last.groupby("customer")["invoiced_at"].max()
    frame = frame.assign(last=frame["entity"].map(ended))
    after = frame[(frame["event_time"] > frame["last"]) & (frame["label_time"] <= NEWEST)]
    assert len(after) > 0
    assert (after["label"] == 0).all()


def test_countries_without_a_customer_have_no_row_and_harm_nobody(
    world: World, trained: Trained
) -> None:
    for country in GUESTS:
        assert len(world.validations[country].accepted) > 0
        assert world.frames[country].empty
        assert list(world.frames[country].columns) == list(world.frames["GBR"].columns)
    assert len(trained.judged) > 500


def test_training_validation_and_holdout_all_have_cutoffs_with_known_labels(
    world: World,
) -> None:
    parts = country_split(world.frames["GBR"], world.spec, [])
    for rows, fewest in ((parts.train, 10), (parts.validation, 3), (parts.holdout, 5)):
        assert rows["event_time"].nunique() >= fewest
        assert rows["label"].notna().all()
    assert parts.validation["label_time"].max() <= parts.holdout["event_time"].min()
    assert parts.train["label_time"].max() <= parts.validation["event_time"].min()


def test_small_countries_are_served_by_the_pooled_model(trained: Trained) -> None:
    kinds = {country: chosen.kind for country, chosen in trained.selections.items()}
    assert set(kinds.values()) <= {"local", "pooled"}
    assert kinds["MLT"] == kinds["HUN"] == "pooled"


@pytest.mark.nightly  # how good the product's models are
def test_a_model_beats_the_naive_rule_on_the_sample(world: World) -> None:
    judged = train(world).judged
    served = roc_auc_score(judged["label"], judged["served"])
    naive = roc_auc_score(judged["label"], judged["recency"])
    print(f"customer_repurchase AUC: served {served:.4f}, recency {naive:.4f}")
    assert served > naive
    assert served > 0.83
