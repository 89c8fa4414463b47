from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from mlops_assets.ml.evaluation.intervals import intervals_around
from mlops_assets.ml.features.feature_frame import build_features, check_point_in_time
from mlops_assets.ml.features.shared_features import build_shared, check_shared_point_in_time
from mlops_assets.ml.stats.bootstrap import gain_estimate
from mlops_assets.ml.stats.draws import draw_rows
from mlops_assets.ml.training.candidate import scale_feature, validation_errors
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

PRODUCT = "power_price"
LAST = "2026-04-29"
"""The newest day whose next price is published."""


@pytest.fixture(scope="module")
def world() -> World:
    return build(PRODUCT, real(PRODUCT))


@pytest.fixture(scope="module")
def trained(world: World) -> Trained:
    return train(world)


@pytest.fixture(scope="module")
def few(world: World) -> Trained:
    return train(of_few_trees(world), ["AUT", "GBR", "MKD"])


@pytest.fixture(scope="module")
def invented() -> World:
    some = ["AUT", "DEU", "GBR", "MKD"]
    return build(PRODUCT, module(PRODUCT, "sample").generate(seed=1), countries=some)


def prices(values: list[float], start: str = "2024-01-01", country: str = "DEU") -> pd.DataFrame:
    dates = pd.date_range(start, periods=len(values))
    return pd.DataFrame({"country": country, "date": dates, "price": values})


def features_of(rows: pd.DataFrame, **others: pd.DataFrame) -> pd.DataFrame:
    """The features of one country, with the prices of the others by their code."""
    made = module(PRODUCT, "features")
    shared = build_shared({"DEU": rows, **others}, made.shared)
    return build_features(rows, made.build, spec_of(PRODUCT).target, shared)


def test_the_label_is_the_price_of_the_next_calendar_day() -> None:
    frame = features_of(prices([1.0, 2.0, 3.0, 4.0]).drop(index=2))
    assert frame["event_time"].dt.day.tolist() == [1, 2, 4]
    assert frame["label"].tolist()[:1] == [2.0]
    assert frame["label"].isna().tolist() == [False, True, True]


def test_a_missing_day_does_not_shift_the_lags() -> None:
    whole = features_of(prices([float(n) for n in range(60)]))
    gap = features_of(prices([float(n) for n in range(60)]).drop(index=40))
    day = pd.Timestamp("2024-01-01") + pd.Timedelta(days=46)
    with_gap = gap[gap["event_time"] == day].iloc[0]
    assert np.isnan(with_gap["change_6"])
    of_day = whole[whole["event_time"] == day].iloc[0]
    step, expected = (row["change_5"] * row["spread"] for row in (with_gap, of_day))
    assert step == pytest.approx(expected)


def test_tomorrow_is_described_and_not_today() -> None:
    frame = features_of(prices([1.0] * 5, start="2024-03-28"))
    assert frame["tomorrow_weekday"].tolist() == [4, 5, 6, 0, 1]
    assert frame["tomorrow_holiday"].tolist() == [True, False, True, True, False]


def test_no_rows_give_no_features() -> None:
    assert features_of(prices([])).empty
    assert features_of(prices([]), FRA=prices([1.0, 2.0], country="FRA")).empty


def test_shared_prices_have_every_day_and_every_country() -> None:
    rows = {
        "DEU": prices([1.0, 2.0, 3.0, 4.0]).drop(index=1),
        "FRA": prices([10.0, 20.0], start="2024-01-04", country="FRA"),
        "NOR": prices([], country="NOR"),
    }
    shared = build_shared(rows, module(PRODUCT, "features").shared)
    assert shared["event_time"].tolist() == list(pd.date_range("2024-01-01", "2024-01-05"))
    assert shared.drop(columns="event_time").fillna(-1.0).to_dict("list") == {
        "price_DEU": [1.0, -1.0, 3.0, 4.0, -1.0],
        "price_FRA": [-1.0, -1.0, -1.0, 10.0, 20.0],
        "price_NOR": [-1.0] * 5,
    }


def test_gaps_to_other_countries_are_those_of_the_same_day_in_units_of_the_spread() -> None:
    rng = np.random.default_rng(0)
    here, there = (50 + 10 * rng.standard_normal((2, 60))).tolist()
    frame = features_of(prices(here), FRA=prices(there, country="FRA"))
    for place in (30, 45, 59):
        today = frame.iloc[place]
        spread = np.std(here[place - 27 : place + 1], ddof=1)
        assert today["spread"] == pytest.approx(spread)
        assert today["gap_FRA"] == pytest.approx((there[place] - here[place]) / spread)
        assert today["gap_DEU"] == 0.0
        middle = (there[place] + here[place]) / 2
        assert today["gap"] == pytest.approx((middle - here[place]) / spread)


def test_a_country_is_compared_with_the_large_markets_alone() -> None:
    frame = features_of(prices([50.0] * 40), LUX=prices([60.0] * 40, country="LUX"))
    assert "gap_DEU" in frame
    assert "gap_LUX" not in frame
    assert frame["gap"].iloc[-1] == pytest.approx(5.0 / 3.0)  # of the middle of both, by the spread


def test_a_country_without_a_price_that_day_has_no_gap_and_the_others_have() -> None:
    other = prices([float(n) for n in range(60)], country="FRA").drop(index=40)
    gap = features_of(prices([50.0] * 60), FRA=other)["gap_FRA"]
    assert np.flatnonzero(gap.isna()).tolist() == [40]


def test_the_spread_is_always_there_and_positive() -> None:
    for values in ([50.0] * 40, [1.0], list(np.linspace(-500, 500, 40))):
        assert (features_of(prices(values))["spread"] > 0).all()


def test_the_sample_has_the_published_shape_and_every_country() -> None:
    start = time.process_time()
    sample = module(PRODUCT, "sample").generate(seed=1)
    assert time.process_time() - start < 2
    assert sample.columns.tolist() == ["Country", "ISO3 Code", "Date", "Price (EUR/MWhe)"]
    assert set(spec_of(PRODUCT).countries) < set(sample["ISO3 Code"])
    assert sample.equals(module(PRODUCT, "sample").generate(seed=1))
    assert not sample.equals(module(PRODUCT, "sample").generate(seed=2))
    price = sample["Price (EUR/MWhe)"]
    assert (price < 0).any()
    assert price.isna().sum() == 22
    assert sample.duplicated(["ISO3 Code", "Date"]).sum() == 36


@pytest.mark.nightly  # trains every country of a product
def test_a_model_beats_both_baselines_on_the_sample(invented: World) -> None:
    judged = train(invented).judged
    error = (judged["served"] - judged["label"]).abs().mean()
    assert error < 0.9 * (judged["price"] - judged["label"]).abs().mean()
    assert error < 0.9 * (judged["price_week_ago"] - judged["label"]).abs().mean()
    assert all(v.rejected_share <= 0.05 for v in invented.validations.values())


@needs_real_data
@pytest.mark.real_data
class TestRealPrices:
    def test_the_sample_looks_like_the_real_file(self, world: World) -> None:
        sample, published = module(PRODUCT, "sample").generate(seed=1), real(PRODUCT)
        assert sample.dtypes.to_dict() == published.dtypes.to_dict()

    def test_every_row_is_accounted_for(self, world: World) -> None:
        found = world.validations.values()
        assert sum(v.rows for v in found) == 117_290
        assert sum(v.rejected for v in found) == 22
        assert (sum(v.duplicates for v in found), sum(v.conflicts for v in found)) == (36, 36)
        assert dict(world.validations["MKD"].broken) == {"price: not_nullable": 22}

    def test_features_know_nothing_of_the_future(self, world: World) -> None:
        made, spec = module(PRODUCT, "features"), world.spec
        records = {country: v.accepted for country, v in world.validations.items()}
        assert world.shared is not None
        of_all = check_shared_point_in_time(
            records, world.shared, made.shared, spec.source, target=spec.target, seed=2
        )
        assert of_all.passed, of_all.differing[:3]
        for country in ("DEU", "GBR", "MKD"):
            result = check_point_in_time(
                records[country],
                world.frames[country],
                made.build,
                spec.source,
                target=spec.target,
                shared=world.shared,
                seed=2,
            )
            assert result.passed, result.differing[:3]

    def test_features_agree_with_a_window_in_sql(self, world: World) -> None:
        rows = pd.concat([v.accepted for v in world.validations.values()], ignore_index=True)
        by_sql = sql(
            rows,
            """
            with days as (
                select country, unnest(range(min(date), max(date) + interval 1 day,
                                             interval 1 day)) as date
                from rows group by country
            ), filled as (select d.country, d.date, r.price from days d left join rows r
                          using (country, date)),
            everywhere as (select date, median(price) as middle,
                                  max(price) filter (country = 'FRA') as french from rows
                           group by date)
            select country, date,
                   lead(price) over w as label,
                   lag(price, 6) over w as price_week_ago,
                   case when count(price) over month >= 14
                        then greatest(3.0, stddev_samp(price) over month)
                        else 20.0 end as spread,
                   (lag(price, 13) over w - price) / spread as change_13,
                   case when count(price) over week >= 3
                        then (avg(price) over week - price) / spread end as mean_7,
                   (middle - price) / spread as gap,
                   (french - price) / spread as gap_FRA,
                   isodow(date + interval 1 day) - 1 as tomorrow_weekday
            from filled left join everywhere using (date)
            window w as (partition by country order by date),
                   week as (partition by country order by date rows 6 preceding),
                   month as (partition by country order by date rows 27 preceding)
            qualify price is not null
            order by country, date
            """,
        )
        ours = pd.concat(world.frames.values()).sort_values(["entity", "event_time"])
        assert len(ours) == len(by_sql) == 117_290 - 22 - 36
        for name in by_sql.columns[2:]:
            np.testing.assert_allclose(
                ours[name].to_numpy("float64"), by_sql[name].to_numpy("float64"), atol=1e-6
            )

    @figures
    def test_served_models_beat_today_by_21_percent_and_both_baselines_in_28_countries(
        self, trained: Trained
    ) -> None:
        rows = trained.judged
        errors = pd.DataFrame(
            {
                "country": rows["country"],
                "served": (rows["served"] - rows["label"]).abs(),
                "today": (rows["price"] - rows["label"]).abs(),
                "week": (rows["price_week_ago"] - rows["label"]).abs(),
            }
        )
        whole = errors[["served", "today", "week"]].mean()
        print(f"power_price MAE: {whole.to_dict()}, of today {whole.served / whole.today:.4f}")
        assert whole["today"] == pytest.approx(18.9, abs=0.1)
        assert whole["served"] <= 0.79 * whole["today"]
        by_country = errors.groupby("country").mean()
        wins = by_country["served"] < by_country[["today", "week"]].min(axis=1)
        assert len(wins) == 31
        assert wins.sum() >= 28

    @figures
    def test_served_models_are_surely_better_than_today_in_22_countries(
        self, world: World, trained: Trained
    ) -> None:
        sure = []
        for country, rows in trained.judged.groupby("country"):
            draws = draw_rows(world.spec.evaluation, rows, seed=0, draws=500)
            label, served, today = (rows[name].to_numpy() for name in ("label", "served", "price"))
            gain = gain_estimate("mae", label, served, today, draws=draws, tail=0.025)
            sure += [country] * (gain.lower > 0)
        print(f"power_price: significantly better than today in {len(sure)}")
        assert len(sure) >= 22

    @figures
    def test_intervals_cover_what_they_promise_in_every_country_with_200_rows(
        self, world: World, trained: Trained
    ) -> None:
        covered = {}
        for country, rows in trained.judged.groupby("country"):
            selection, parts = trained.selections[str(country)], trained.parts[str(country)]
            errors = validation_errors(selection, parts, world.spec)
            scale = scale_feature(selection, world.spec)
            served = rows["served"].to_numpy()
            ends = intervals_around(errors, rows, served, scale, spec=world.spec)
            if len(rows) >= 200:
                covered[country] = float(rows["label"].between(ends.low, ends.high).mean())
        print(f"power_price: covered {min(covered.values()):.3f} to {max(covered.values()):.3f}")
        assert len(covered) == 31
        assert all(0.75 <= share <= 0.85 for share in covered.values()), covered

    def test_the_newest_480_days_judge_in_every_country_and_only_what_serves_learned_them(
        self, few: Trained
    ) -> None:
        start = pd.Timestamp("2026-04-30") - pd.Timedelta(days=480)
        for country, parts in few.parts.items():
            chosen = few.selections[country]
            assert parts.holdout_from == start
            assert (parts.final["label_time"] <= start).all()
            assert (parts.holdout["event_time"] >= start).all()
            assert chosen.model is not None
            assert chosen.served is not None
            assert chosen.model.until is not None
            assert chosen.model.until < start
            newest = parts.known["event_time"].max()
            assert chosen.served.until == (newest if chosen.kind == "local" else pd.Timestamp(LAST))
            assert chosen.served.rows > chosen.model.rows
