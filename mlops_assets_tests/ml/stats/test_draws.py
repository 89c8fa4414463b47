from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.evaluation.calibration import calibration_estimate, calibration_gain
from mlops_assets.ml.stats.bootstrap import estimate, gain_estimate, resampled, resampled_mean
from mlops_assets.ml.stats.draws import (
    FEWEST_GROUPS,
    MIN_BLOCKS,
    MIN_ENTITIES,
    MOST_GROUPS,
    BootstrapWeights,
    DrawnBy,
    draw_rows,
)
from mlops_assets.ml.stats.metrics import score
from mlops_assets.spec import EarlierEvaluationSpec, EvaluationSpec
from mlops_assets_tests.effort import examples

METRICS = ["mae", "rmse", "auc", "brier", "log_loss"]
FIRST = pd.Timestamp("2023-01-01")
BOTH_WAYS: list[DrawnBy] = ["entity", "both"]


def rows_of(days: Any, entities: Any = "a", *, label_days: float = 1.0) -> pd.DataFrame:
    """Rows on these days, counted from `FIRST`."""
    at = FIRST + pd.to_timedelta(pd.Series(np.asarray(days, dtype="float64")), unit="D")
    ready = at + pd.Timedelta(days=label_days)
    return pd.DataFrame({"entity": entities, "event_time": at, "label_time": ready})


def cutoffs(count: int, entities: int, *, label_days: float = 30.0) -> pd.DataFrame:
    """Every entity on the first of each month."""
    months = pd.date_range(FIRST, periods=count, freq="MS")
    days = np.repeat((months - FIRST).days.to_numpy(), entities)
    return rows_of(days, np.tile(np.arange(entities).astype(str), count), label_days=label_days)


def drawing(rows: pd.DataFrame, *, draws: int = 60, seed: int = 0, **declared: Any) -> Any:
    return draw_rows(EvaluationSpec(**declared), rows, seed=seed, draws=draws)


def row_weights(draws: BootstrapWeights) -> np.ndarray:
    """How often each row is in each draw, shape (draws, rows)."""
    return draws.of_rows(np.arange(len(draws.days)), 0, draws.draws)


# by time


def weights_as_ever(days: int, block: int, draws: int, seed: int) -> np.ndarray:
    """How often each of neighbouring days is drawn, as it was before days without rows counted."""
    lengths = np.full(-(-days // block), block)
    lengths[-1] = days - block * (len(lengths) - 1)
    starts = np.random.default_rng(seed).integers(0, days, size=(draws, len(lengths)))
    places = (starts[:, :, None] + np.arange(block)) % days
    used = np.broadcast_to(np.arange(block) < lengths[:, None], places.shape)
    weights = np.zeros((draws, days))
    for draw in range(draws):
        np.add.at(weights[draw], places[draw][used[draw]], 1.0)
    return weights


@settings(max_examples=examples(25), deadline=None)
@given(
    days=st.integers(6, 150),
    block=st.integers(1, 30),
    more=st.integers(0, 200),
    seed=st.integers(0, 999),
    spec=st.sampled_from([EvaluationSpec, EarlierEvaluationSpec]),
)
def test_a_series_with_a_row_on_every_day_is_drawn_to_the_last_digit_as_ever(
    days: int, block: int, more: int, seed: int, spec: type[EvaluationSpec]
) -> None:
    rng = np.random.default_rng(seed)
    at = rng.permutation(np.concatenate([np.arange(days), rng.integers(0, days, more)]))
    draws = draw_rows(spec(block_days=block), rows_of(at), seed=seed, draws=40)
    weights = weights_as_ever(days, min(block, days), 40, seed)
    assert draws.time is not None
    assert draws.entity is None
    np.testing.assert_array_equal(draws.time.weights, weights)
    values = rng.normal(size=len(at))
    rows = weights @ np.bincount(at, minlength=days).astype("float64")
    sums = weights @ np.bincount(at, values, minlength=days)
    np.testing.assert_array_equal(resampled_mean(values, draws), sums / rows)
    assert draws.time.parts == len(np.unique(at // block)) == draws.drawn.blocks
    assert draws.drawn.block_days == block


@settings(max_examples=examples(40), deadline=None)
@given(
    gaps=st.lists(st.integers(1, 60), min_size=1, max_size=25),
    block=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_blocks_are_of_calendar_days_and_count_where_they_have_rows(
    gaps: list[int], block: int, seed: int
) -> None:
    days = np.cumsum([0, *gaps])
    draws = drawing(rows_of(days), draws=300, seed=seed, block_days=block, draw_by="time")
    block = draws.block_days
    assert draws.drawn.blocks == len({day // block for day in days.tolist()})
    weights = draws.time.weights
    usual = int(np.median(np.minimum(gaps, block)))
    circle = int(np.minimum(gaps, block).sum()) + usual
    assert weights.max() <= -(-circle // min(block, circle))
    # All days alike: none is drawn more often for being near others.
    assert weights.mean(axis=0) == pytest.approx(1.0, abs=0.45)


@pytest.mark.parametrize("block", [7, 14, 28])
def test_event_times_as_far_apart_as_a_block_are_drawn_one_by_one(block: int) -> None:
    days = np.arange(12) * 28
    draws = drawing(rows_of(days), draws=400, block_days=block)
    weights = draws.time.weights
    np.testing.assert_array_equal(weights.sum(axis=1), 12)  # as many as there are, every time
    apart = np.corrcoef(weights.T)[np.triu_indices(12, 1)]
    assert np.abs(apart).mean() < 0.15
    assert draws.drawn.blocks == 12


def test_blocks_of_event_times_that_are_apart_are_as_long_as_labels_take() -> None:
    months = drawing(cutoffs(24, 1, label_days=90))
    assert (months.block_days, months.drawn.blocks) == (90, 8)
    neighbours = np.corrcoef(months.time.weights.T)
    assert neighbours[10, 11] > 0.3
    assert abs(neighbours[10, 15]) < 0.25
    # As declared where labels do not overlap, and in a daily series, which stays as it is.
    assert drawing(cutoffs(24, 1, label_days=30)).block_days == 7
    assert drawing(rows_of(np.arange(200), label_days=90)).block_days == 7


def test_a_day_in_a_far_future_makes_no_larger_draw() -> None:
    draws = drawing(rows_of([*range(60), 14_000, 80_000]), draws=200)
    assert draws.time.weights.shape == (200, 62)
    assert draws.drawn.blocks == 9 + 2
    assert np.isfinite(resampled_mean(np.arange(62.0), draws)).all()


# by entity, and both ways


@settings(max_examples=examples(25), deadline=None)
@given(
    entities=st.integers(2, 30),
    times=st.integers(1, 8),
    seed=st.integers(0, 999),
    by=st.sampled_from(BOTH_WAYS),
)
def test_rows_drawn_by_entity_are_those_written_out_row_by_row(
    entities: int, times: int, seed: int, by: DrawnBy
) -> None:
    rng = np.random.default_rng(seed)
    rows = cutoffs(times, entities).sample(frac=0.8, random_state=seed, ignore_index=True)
    y = (rng.random(len(rows)) < 0.4) * 1.0
    p = np.round(rng.random(len(rows)), 1)
    draws = drawing(rows, draws=20, seed=seed, draw_by=by)
    weights = row_weights(draws)
    for _, same in rows.groupby(["entity"] if by == "entity" else ["entity", "event_time"]):
        assert (weights[:, same.index] == weights[:, same.index[:1]]).all()
    for metric in METRICS:
        expected = [
            score(metric, *(np.repeat(each, drawn.astype("int64")) for each in (y, p)))
            for drawn in weights
        ]
        np.testing.assert_allclose(resampled(metric, y, p, draws), expected, atol=1e-9)
    assert calibration_estimate(y, p, draws, 0.05).has_interval == (not draws.problem)


def test_both_ways_a_row_counts_as_often_as_its_entity_times_its_day() -> None:
    rows = cutoffs(6, 40)
    both, time = (drawing(rows, draw_by=by, draws=50) for by in ("both", "time"))
    of_days = row_weights(time)
    weights, once = row_weights(both), rows.index[rows["event_time"] == FIRST]
    np.testing.assert_array_equal(both.time.weights, time.time.weights)
    ratio = weights / np.where(of_days > 0, of_days, np.nan)
    for _, same in rows.groupby("entity"):  # the same factor on every day on which it is drawn
        spread = np.nanmax(ratio[:, same.index], axis=1) - np.nanmin(ratio[:, same.index], axis=1)
        assert (spread == 0).all()
    assert set(np.unique(weights[:, once])) >= {0.0, 1.0, 2.0}


def test_very_many_entities_are_drawn_in_groups_and_say_the_same_as_each_by_itself() -> None:
    rng = np.random.default_rng(1)
    effect = np.repeat(rng.normal(10, 1, 4000), 3)
    rows = rows_of(np.tile([0, 31, 59], 4000), np.repeat(np.arange(4000), 3))
    values = effect + rng.normal(0, 0.5, len(rows))
    draws = drawing(rows, draws=1000)
    assert draws.entity.weights.shape == (1000, MOST_GROUPS)
    assert draws.drawn.entities == 4000
    of_entities = values.reshape(-1, 3).mean(axis=1)
    exact = of_entities.std(ddof=1) / np.sqrt(4000)
    assert resampled_mean(values, draws).std() == pytest.approx(exact, rel=0.12)
    many = drawing(rows, draws=20_000)
    assert many.entity.weights.shape == (20_000, FEWEST_GROUPS)
    assert resampled_mean(values, many).std() == pytest.approx(exact, rel=0.2)
    weights = row_weights(draws).reshape(1000, -1, 3)
    assert (weights == weights[:, :, :1]).all()


def test_the_same_key_in_two_countries_is_two_entities() -> None:
    rows = cutoffs(4, 15)
    together = pd.concat([rows.assign(country=name) for name in ("DEU", "FRA")], ignore_index=True)
    assert drawing(together.drop(columns="country")).drawn.entities == 15
    draws = drawing(together)
    assert (draws.drawn.by, draws.drawn.entities) == ("entity", 30)
    weights = row_weights(draws)
    assert (weights[:, 0] != weights[:, 60]).any()


@pytest.mark.parametrize("by", ["time", "entity", "both"])
def test_equal_rows_in_any_order_are_drawn_alike(by: DrawnBy) -> None:
    rng = np.random.default_rng(3)
    rows, order = cutoffs(8, 30), rng.permutation(240)
    values = rng.normal(size=240)
    one, other = (drawing(each, draw_by=by) for each in (rows, rows.iloc[order]))
    np.testing.assert_allclose(resampled_mean(values, one), resampled_mean(values[order], other))


# which of them


@pytest.mark.parametrize(
    ("rows", "by"),
    [
        (rows_of(np.arange(365)), "time"),  # a daily series
        (rows_of(np.arange(365).repeat(3), np.arange(1095)), "time"),  # each entity once, daily
        (rows_of(np.tile(np.arange(365), 30), np.arange(30).repeat(365)), "time"),  # a daily panel
        (rows_of(np.arange(60) * 7), "time"),  # a weekly series
        (cutoffs(4, 300, label_days=90), "entity"),
        (cutoffs(1, 300), "entity"),
        (cutoffs(12, 300), "both"),
        (cutoffs(12, 300, label_days=90), "entity"),  # four blocks of 90 days
        (cutoffs(24, 300, label_days=90), "both"),
        (cutoffs(12, MIN_ENTITIES - 1), "time"),
        (rows_of(np.arange(12).repeat(50) * 30, np.arange(600)), "time"),  # none comes back
        (rows_of(np.tile(np.arange(20), 30), np.arange(600)), "time"),  # short, not apart
        (rows_of(np.tile(np.arange(3), 30), np.arange(90)), "entity"),  # three days in all
    ],
)
def test_what_is_drawn_follows_from_the_times_and_entities_of_the_rows(
    rows: pd.DataFrame, by: str
) -> None:
    assert drawing(rows).drawn.by == by


@pytest.mark.parametrize("by", ["time", "entity", "both"])
def test_what_is_declared_is_drawn_whatever_the_rows_are_like(by: DrawnBy) -> None:
    for rows in (rows_of(np.arange(365)), cutoffs(4, 300), cutoffs(12, 300)):
        assert drawing(rows, draw_by=by).drawn.by == by


def test_a_draw_says_what_it_was_made_of_and_what_it_does_not_know() -> None:
    few = drawing(cutoffs(4, 300, label_days=90), draws=1000).drawn
    assert few.counts == "4 monthly event times, 1,200 rows of 300 entities"
    assert few.text.startswith("1,000 draws of entities, each with all its rows; 4 monthly")
    assert "what all entities share at one event time is not in the intervals" in few.text
    many = drawing(cutoffs(12, 300)).drawn
    assert "entities, each with all its rows, and blocks of 7 calendar days (12" in many.text
    daily = drawing(rows_of(np.arange(70))).drawn
    assert daily.text == (
        "60 draws of blocks of 7 calendar days (10 have rows); 70 daily event times, 70 rows"
    )
    assert daily.unless_by_time == ""
    assert few.unless_by_time == f", drawn by entity ({few.counts})"


@pytest.mark.parametrize("by", ["auto", "time", "entity", "both"])
def test_too_little_of_both_says_both_counts_and_what_to_do(by: str) -> None:
    draws = drawing(cutoffs(4, 12, label_days=10), draw_by=by)
    assert draws.parts == 0
    for told in ("4 monthly event times, 48 rows of 12 entities", "wait for more event times"):
        assert told in draws.problem
    assert ("4 blocks of 7 calendar days have rows, and 5 are needed" in draws.problem) == (
        by != "entity"
    )
    assert "by entity 20 entities are needed" in draws.problem
    y = np.arange(48.0)
    assert np.isnan(estimate("mae", y, y + 1, draws, tail=0.05).lower)


def test_too_few_days_of_many_entities_name_the_way_out_that_a_person_may_declare() -> None:
    rows = rows_of(np.tile(np.arange(20), 30), np.arange(600))
    assert "declare evaluation.draw_by: entity if neighbouring days" in drawing(rows).problem
    assert drawing(rows, draw_by="entity").problem == ""
    few = drawing(cutoffs(4, 300), draw_by="both").problem
    assert "declare evaluation.draw_by: entity" in few
    assert "declare evaluation.draw_by: time" in drawing(cutoffs(12, 12), draw_by="both").problem


def test_a_part_of_the_rows_needs_its_own_entities_and_blocks() -> None:
    rows = cutoffs(4, 60)
    draws = drawing(rows)
    place = rows["entity"].astype(int).to_numpy()
    assert draws.of(place < MIN_ENTITIES).problem == ""
    few = draws.of(place < MIN_ENTITIES - 1)
    assert f"{MIN_ENTITIES} entities are needed" in few.problem
    assert few.drawn.entities == MIN_ENTITIES - 1
    both = drawing(cutoffs(12, 60))
    months = cutoffs(12, 60)["event_time"].rank(method="dense").to_numpy()
    assert both.of(months <= MIN_BLOCKS).problem == ""
    assert "4 blocks" in both.of(months < MIN_BLOCKS).problem


def test_an_earlier_record_is_drawn_in_blocks_of_days_with_rows() -> None:
    rows = cutoffs(28, 40)
    draws = draw_rows(EarlierEvaluationSpec(), rows, seed=0, draws=50)
    assert (draws.drawn.by, draws.drawn.blocks, draws.block_days) == ("time", 4, 7)
    assert draws.problem == (
        "28 days with rows make 4 blocks of 7 days, and 5 are needed to tell an interval"
    )
    np.testing.assert_array_equal(
        draws.time.weights if draws.time else None, weights_as_ever(28, 7, 50, 0)
    )


# how often intervals hold the truth


def losses_of(
    rows: pd.DataFrame, rng: np.random.Generator, *, entity: float, shock: float, lasting: int = 1
) -> np.ndarray:
    """Sizes of errors around 10: an effect of each entity, one of each time, and chance.

    Args:
        rows: of a panel.
        rng: of chance.
        entity: deviation of the entities' effects.
        shock: deviation of what all rows of a time share.
        lasting: times that share a part of it, as labels that overlap do.
    """
    whose, when = (pd.factorize(rows[name], sort=True)[0] for name in ("entity", "event_time"))
    effect = rng.normal(0, entity, whose.max() + 1)
    drawn = rng.normal(0, shock, when.max() + lasting) / np.sqrt(lasting)
    shared = np.convolve(drawn, np.ones(lasting), mode="valid")
    return 10 + effect[whose] + shared[when] + rng.normal(0, 1, len(rows))


def held(
    rows: pd.DataFrame,
    by: str,
    *,
    entity: float,
    shock: float,
    lasting: int = 1,
    taken_as: pd.DataFrame | None = None,
) -> float:
    """Share of the panels in which an interval of nominally 90 % holds the truth.

    Args:
        rows: of the panel.
        by: how they are drawn.
        entity: as in `losses_of`; so are the next two.
        shock: of all rows of a time.
        lasting: times that share a part of it.
        taken_as: the same rows with other keys, which are drawn by; None: with their own.
    """
    count = examples(960)
    inside = 0
    for seed in range(count):
        chance = np.random.default_rng(seed)
        sizes = losses_of(rows, chance, entity=entity, shock=shock, lasting=lasting)
        given = rows if taken_as is None else taken_as
        draws = drawing(given, draws=200, seed=seed, draw_by=by)
        told = estimate("mae", np.zeros(len(sizes)), sizes, draws, tail=0.05)
        inside += told.lower <= 10 <= told.upper
    return inside / count


def test_with_few_times_rows_of_an_entity_are_drawn_together_or_intervals_are_too_narrow() -> None:
    rows = cutoffs(4, 120)
    single = rows.assign(entity=np.arange(len(rows)))
    assert 0.78 <= held(rows, "auto", entity=1.0, shock=0.0) <= 1.0
    assert held(rows, "entity", entity=1.0, shock=0.0, taken_as=single) < 0.8


def test_with_few_times_what_a_time_does_to_all_is_not_known_as_the_page_says() -> None:
    rows = cutoffs(4, 120)
    assert held(rows, "auto", entity=0.0, shock=0.3) < 0.7
    assert "not in the intervals" in drawing(rows).drawn.text


def test_with_more_times_both_ways_hold_where_either_alone_does_not() -> None:
    rows = cutoffs(12, 120)
    for entity, shock in ((1.0, 0.0), (0.0, 0.4)):
        assert held(rows, "auto", entity=entity, shock=shock) >= 0.8
    assert held(rows, "time", entity=1.0, shock=0.0) < 0.65
    assert held(rows, "entity", entity=0.0, shock=0.4) < 0.5


@pytest.mark.nightly  # how often, over hundreds of panels
def test_labels_that_overlap_are_drawn_in_blocks_as_long_as_they_take() -> None:
    rows = cutoffs(24, 60, label_days=90)
    wide = held(rows, "auto", entity=0.5, shock=0.4, lasting=3)
    short = rows.assign(label_time=rows["event_time"] + pd.Timedelta(days=1))
    narrow = held(rows, "time", entity=0.5, shock=0.4, lasting=3, taken_as=short)
    assert wide >= 0.8
    assert narrow < wide - 0.1


def test_gains_and_calibration_gains_are_paired_on_identical_draws_of_entities() -> None:
    rows, rng = cutoffs(4, 60), np.random.default_rng(2)
    y, p = (rng.random(240) < 0.4) * 1.0, rng.random(240)
    draws = drawing(rows)
    same = gain_estimate("brier", y, p, p, draws=draws, tail=0.05)
    assert (same.lower, same.value, same.upper) == (0.0, 0.0, 0.0)
    alike = calibration_gain(y, p, p, draws, tail=0.05)
    assert (alike.lower, alike.value, alike.upper) == (0.0, 0.0, 0.0)
