from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from mlops_assets.ml.features import build_features, check_point_in_time
from mlops_assets_tests.defs.world import (
    Trained,
    World,
    build,
    module,
    needs_real_data,
    real,
    spec_of,
    sql,
    train,
)

PRODUCT = "power_price"


@pytest.fixture(scope="module")
def world() -> World:
    return build(PRODUCT, real(PRODUCT))


@pytest.fixture(scope="module")
def trained(world: World) -> Trained:
    return train(world)


@pytest.fixture(scope="module")
def invented() -> World:
    some = ["AUT", "DEU", "ESP", "GBR", "MKD", "MNE", "NOR", "POL"]
    return build(PRODUCT, module(PRODUCT, "sample").generate(seed=1), countries=some)


def prices(values: list[float], start: str = "2024-01-01") -> pd.DataFrame:
    dates = pd.date_range(start, periods=len(values))
    return pd.DataFrame({"country": "DEU", "date": dates, "price": values})


def features_of(rows: pd.DataFrame) -> pd.DataFrame:
    return build_features(rows, module(PRODUCT, "features").build, spec_of(PRODUCT).target)


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
    assert with_gap["change_5"] == whole[whole["event_time"] == day].iloc[0]["change_5"]


def test_tomorrow_is_described_and_not_today() -> None:
    frame = features_of(prices([1.0] * 5, start="2024-03-28"))
    assert frame["tomorrow_weekday"].tolist() == [4, 5, 6, 0, 1]
    assert frame["tomorrow_holiday"].tolist() == [True, False, True, True, False]


def test_no_rows_give_no_features() -> None:
    assert features_of(prices([])).empty


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
        function = module(PRODUCT, "features").build
        for country in ("DEU", "GBR", "MKD"):
            result = check_point_in_time(
                world.validations[country].accepted,
                world.frames[country],
                function,
                world.spec.source,
                world.spec.target,
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
                          using (country, date))
            select country, date,
                   lead(price) over w as label,
                   lag(price, 6) over w as price_week_ago,
                   lag(price, 13) over w - price as change_13,
                   case when count(price) over week >= 3
                        then avg(price) over week - price end as mean_7,
                   case when count(price) over month >= 14
                        then stddev_samp(price) over month end as spread_28,
                   isodow(date + interval 1 day) - 1 as tomorrow_weekday
            from filled
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

    def test_served_models_beat_today_by_18_percent_and_both_baselines_in_28_countries(
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
        assert whole["served"] <= 0.82 * whole["today"]
        by_country = errors.groupby("country").mean()
        wins = by_country["served"] < by_country[["today", "week"]].min(axis=1)
        assert len(wins) == 31
        assert wins.sum() >= 28

    def test_intervals_cover_about_as_much_as_they_say(self, trained: Trained) -> None:
        rows = trained.judged
        low, high = (
            rows["country"].map({c: s.interval[side] for c, s in trained.selections.items()})
            for side in (0, 1)
        )
        inside = (rows["label"] - rows["served"]).between(low, high).mean()
        assert 0.7 < inside < 0.95

    def test_training_every_country_is_cheap(self, trained: Trained) -> None:
        assert trained.seconds < 40
