from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from mlops_assets.ml.monitoring.drift import (
    EDGES,
    PREDICTION,
    DriftState,
    Window,
    compare_window,
    continued,
    make_reference,
    new_columns,
    profile,
    reference_from_json,
    reference_to_json,
    state_of,
    window_ends,
)
from mlops_assets.ml.monitoring.drift_plot import drift_plot
from mlops_assets.ml.stats import distances as d
from mlops_assets_tests.effort import WHOLE, examples
from mlops_assets_tests.ml.scenarios import product
from mlops_assets_tests.ml.watched import (
    IMPORTANCE,
    LEARNED,
    SPEC,
    days,
    predictions,
    remembering,
    watch,
)

MIDDLES = np.concatenate([[EDGES[0] - d.BIN_WIDTH / 2], np.array(EDGES) + d.BIN_WIDTH / 2])
END = pd.Timestamp("2024-01-04")


def window(
    number: int, *, deviates: bool = False, judged: bool = True, score: float = 0.0
) -> Window:
    end = END + pd.Timedelta(weeks=number)
    problem = "" if judged else "3 rows, fewer than min_rows 20"
    return Window(end, 28, judged, deviates, score, (), problem=problem)


def pattern(text: str) -> list[Window]:
    """Windows from a text such as `..x?`: as learned, deviating, not judged."""
    return [
        window(place, deviates=each == "x", judged=each != "?") for place, each in enumerate(text)
    ]


def seen(new: pd.DataFrame, learned: pd.DataFrame, **changes: Any) -> Window:
    """The rows of one window compared with what was learned."""
    return weighed(new, learned, IMPORTANCE, **changes)


def weighed(
    new: pd.DataFrame, learned: pd.DataFrame, importance: dict[str, float], **changes: Any
) -> Window:
    """The same, where the features are of some importance."""
    spec = product(monitoring=changes)
    reference = make_reference(spec, learned, predictions(learned).to_numpy(), importance)
    end = new["event_time"].max() + pd.Timedelta(days=1)
    return compare_window(spec, reference, profile(reference, new, predictions(new), end))


# Distances, by another route.


@settings(max_examples=examples(60), deadline=None)
@given(
    arrays.arrays("int64", d.BINS, elements=st.integers(0, 50)),
    arrays.arrays("int64", d.BINS, elements=st.integers(0, 50)),
)
def test_the_distance_of_histograms_is_that_of_their_middles_by_scipy(
    now: np.ndarray, before: np.ndarray
) -> None:
    now[3] += 1
    before[7] += 1
    expected = stats.wasserstein_distance(MIDDLES, MIDDLES, now, before)
    assert d.wasserstein(now, before) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=examples(30), deadline=None)
@given(st.integers(0, 10_000), st.floats(-1.5, 1.5), st.floats(0.3, 1.5))
def test_distance_and_effect_are_those_of_the_raw_rows(
    seed: int, shift: float, factor: float
) -> None:
    learned, new = days(0, LEARNED, seed), days(LEARNED, 28, seed)
    new = new.assign(x=new["x"] * factor + shift)
    found = next(each for each in seen(new, learned).features if each.feature == "x")
    low, center, high = np.quantile(learned["x"], [0.25, 0.5, 0.75])
    far = 5 * (high - low) / 1.349
    before, now = (np.clip(rows["x"], center - far, center + far) for rows in (learned, new))
    deviation = np.std(before)
    distance = stats.wasserstein_distance(now, before) / deviation
    assert found.distance == pytest.approx(distance, abs=d.BIN_WIDTH)
    assert found.effect == pytest.approx((now.mean() - before.mean()) / deviation, abs=2e-3)
    assert found.weight == pytest.approx(4.0 / 11.1)


@settings(max_examples=examples(60), deadline=None)
@given(
    arrays.arrays("int64", 4, elements=st.integers(0, 400)),
    arrays.arrays("int64", 4, elements=st.integers(50, 400)),
)
def test_the_effect_of_a_category_is_that_of_a_chi_squared_test(
    now: np.ndarray, before: np.ndarray
) -> None:
    now[0] += 5
    expected = before / before.sum() * now.sum()
    statistic = stats.chisquare(now, expected).statistic
    assert d.cohens_w(now, before) == pytest.approx(np.sqrt(statistic / now.sum()))
    apart = np.abs(now / now.sum() - before / before.sum()).sum() / 2
    assert d.total_variation(now, before) == pytest.approx(apart)


def test_one_row_of_a_value_never_seen_is_a_small_effect() -> None:
    before = np.array([500, 500, 0])
    assert d.cohens_w(np.array([50, 49, 1]), before) < 0.15
    assert d.cohens_w(np.array([25, 25, 50]), before) > 3


def test_numbers_become_the_same_steps_far_out_and_at_the_edges() -> None:
    values = np.array([-np.inf, -1e308, -5.0, -5.0001, 0.0, 0.25, 4.999, 5.0, 1e308, np.inf])
    bins = d.bin_of(d.fixed_point(values, 0.0, 1.0))
    assert bins.tolist() == [0, 0, 1, 1, 21, 22, 40, 41, 41, 41], "rounded to 1/1024 first"
    exact = np.searchsorted(EDGES, values[[0, 2, 4, 5, 6, 7, 9]], side="right")
    assert bins[[0, 2, 4, 5, 6, 7, 9]].tolist() == exact.tolist()


# The reference.


def test_a_reference_is_the_same_after_it_was_stored() -> None:
    learned = days(0, LEARNED, 1, a_day=2).assign(
        flag=True, gaps=np.nan, far=np.inf, nothing=None, when=pd.Timestamp("2022-01-01")
    )
    made = make_reference(SPEC, learned, predictions(learned).to_numpy(), IMPORTANCE)
    text = reference_to_json(made)
    assert reference_from_json(text) == made
    assert len(text) < 50_000
    assert "when" not in made.features, "a time is no number and no category"
    assert made.features[PREDICTION].weight == 1.0
    assert sum(each.weight for n, each in made.features.items() if n != PREDICTION) == 1.0
    for each in made.features.values():
        assert sum(each.counts) == each.rows


def test_only_the_newest_days_are_the_reference() -> None:
    learned = days(0, 600, 1)
    made = make_reference(SPEC, learned, predictions(learned).to_numpy(), IMPORTANCE)
    assert made.rows == 365
    assert made.last == learned["event_time"].max()
    tail = learned.tail(365)
    assert make_reference(SPEC, tail, predictions(tail).to_numpy(), IMPORTANCE) == made
    with pytest.raises(ValueError, match="needs rows"):
        make_reference(SPEC, learned.head(0), np.empty(0), {})


def test_without_a_feature_that_matters_all_weigh_the_same() -> None:
    learned = days(0, LEARNED, 1)
    made = make_reference(SPEC, learned, predictions(learned).to_numpy(), {"x": -1.0, "y": np.nan})
    weights = {name: each.weight for name, each in made.features.items() if name != PREDICTION}
    assert weights == dict.fromkeys(("x", "y", "z", "noise", "kind"), 0.2)


def test_how_much_means_of_windows_differ_is_known_for_days_that_are_alike() -> None:
    """By simulation: means of 28 days of the same process."""
    rng = np.random.default_rng(3)
    for memory in (0.0, 0.8):
        found = []
        for seed in range(40):
            learned = days(0, LEARNED, seed, memory=memory)
            made = make_reference(SPEC, learned, predictions(learned).to_numpy(), IMPORTANCE)
            found.append(made.features["x"].spread * made.features["x"].scale)
        simulated = [remembering(rng, 28, memory).mean() for _ in range(4000)]
        assert np.median(found) == pytest.approx(np.std(simulated), rel=0.2)


# Windows.


@settings(max_examples=examples(100), deadline=None)
@given(
    st.datetimes(pd.Timestamp("2000-01-01"), pd.Timestamp("2030-01-01")),
    st.integers(1, 30),
    st.integers(1, 9),
)
def test_windows_end_on_a_grid_that_does_not_depend_on_the_run(
    newest: Any, every: int, count: int
) -> None:
    spec = product(monitoring={"every_days": every})
    ends = window_ends(spec, pd.Timestamp(newest), count)
    assert len(ends) == count
    assert ends[-1] <= pd.Timestamp(newest) < ends[-1] + pd.Timedelta(days=every)
    for end in ends:
        assert (end - pd.Timestamp("1970-01-01")) % pd.Timedelta(days=every) == pd.Timedelta(0)
    assert set(window_ends(spec, ends[-1], count)) == set(ends)


def test_there_is_no_window_without_a_row() -> None:
    assert window_ends(SPEC, pd.NaT, 3) == []  # pyright: ignore[reportArgumentType] (of no rows)


@pytest.mark.parametrize(
    ("new", "changes", "problem"),
    [
        (days(LEARNED, 19, 1), {}, "19 rows, fewer than min_rows 20"),
        (days(LEARNED, 12, 1, a_day=9), {}, "less than half of the window is newer"),
        (days(LEARNED, 100, 1), {"window_days": 100}, "shorter than three windows"),
    ],
)
def test_a_window_that_says_too_little_is_not_judged(
    new: pd.DataFrame, changes: dict[str, int], problem: str
) -> None:
    learned = days(100 if changes else 0, LEARNED - (100 if changes else 0), 1)
    found = seen(new, learned, **changes)
    assert (found.judged, found.deviates, found.features) == (False, False, ())
    assert problem in found.problem


# What matters.


def test_a_change_matters_only_with_the_importance() -> None:
    learned, new = days(0, LEARNED, 1), days(LEARNED, 28, 1)
    found = seen(new.assign(noise=new["noise"] + 4.0), learned)
    assert not found.deviates
    noise = next(each for each in found.features if each.feature == "noise")
    assert noise.reason == "changed, but of little importance"
    assert seen(new.assign(x=new["x"] + 4.0), learned).deviates


def test_a_change_matters_only_with_its_size() -> None:
    learned, new = days(0, LEARNED, 1, a_day=50), days(LEARNED, 28, 1, a_day=50)
    found = seen(new.assign(x=new["x"] + 0.3), learned)
    x = next(each for each in found.features if each.feature == "x")
    assert (x.matters, x.reason) == (False, "changed, but by little")
    assert x.probability < 1e-6
    assert seen(new.assign(x=new["x"] + 0.3), learned, min_effect=0.25).deviates


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": lambda rows: rows["x"] + 2.0}, "standard deviations higher"),
        ({"x": lambda rows: rows["x"] - 2.0}, "standard deviations lower"),
        ({"x": lambda rows: rows["x"] * 4.0}, "another shape"),
        ({"x": lambda rows: rows["x"].mask(rows.index % 2 == 0)}, "50% empty instead of 0%"),
        ({"kind": "b"}, "other shares of its values"),
    ],
)
def test_what_changed_is_told_in_words(change: dict[str, Any], words: str) -> None:
    learned, new = days(0, LEARNED, 2, a_day=4), days(LEARNED, 28, 2, a_day=4)
    found = seen(new.assign(**change), learned)
    (name,) = change
    told = next(each for each in found.features if each.feature == name)
    assert told.matters
    assert words in told.reason
    assert found.score > 0
    weights = [each.weight for each in found.features]
    assert weights == sorted(weights, reverse=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": np.nan}, "x is empty"),
        ({"x": 3.0}, "x is constant (3)"),
        ({"x": 1e9}, "x is constant (1e+09)"),
        ({"x": lambda rows: rows["x"] * 1000}, "times what it was"),
        ({"level": lambda rows: rows["level"] * 1000}, "about 1,000 times what it was"),
        ({"level": lambda rows: rows["level"] / 1000}, "about 0.001 times what it was"),
        ({"kind": "B"}, "kind has only values never seen before"),
        ({"kind": None}, "kind is empty"),
    ],
)
def test_what_looks_broken_is_told_in_words(change: dict[str, Any], words: str) -> None:
    learned, new = (
        rows.assign(level=50 + 5 * rows["y"])
        for rows in (days(0, LEARNED, 3), days(LEARNED, 28, 3))
    )
    important = {**IMPORTANCE, "level": 1.0}
    assert weighed(new, learned, important).upstream == ""
    found = weighed(new.assign(**change), learned, important)
    assert words in found.upstream
    assert found.aside == ""


@pytest.mark.parametrize("change", [np.nan, 3.0, 1e9, lambda rows: rows["noise"] * 1000])
@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_a_broken_feature_of_no_weight_is_told_and_holds_nothing_back(
    change: Any, weight: float
) -> None:
    learned, new = days(0, LEARNED, 3), days(LEARNED, 28, 3).assign(noise=change)
    found = weighed(new, learned, {"x": 10.0, "noise": weight})
    assert (found.upstream, found.deviates) == ("", False)
    assert found.aside.startswith("noise ")
    state = state_of(SPEC, [found])
    assert (state.state, state.upstream) == ("quiet", "")
    assert f"no reason to wait: {found.aside}." in state.reason


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.lognormal(0.0, 0.8, n),
        lambda rng, n: rng.gamma(2.0, 1.0, n),
        lambda rng, n: rng.exponential(1.0, n),
        lambda rng, n: rng.poisson(1.5, n).astype("float64"),
    ],
    ids=["amounts", "lead times", "waits", "counts"],
)
@pytest.mark.parametrize("factor", [1000.0, 0.001])
def test_another_unit_of_positive_skewed_numbers_is_told(draw: Any, factor: float) -> None:
    learned, new = days(0, LEARNED, 3), days(LEARNED, 28, 3)
    rng = np.random.default_rng(5)
    learned = learned.assign(level=draw(rng, len(learned)))
    new = new.assign(level=draw(rng, len(new)))
    important = {**IMPORTANCE, "level": 1.0}
    assert weighed(new, learned, important).upstream == ""
    found = weighed(new.assign(level=new["level"] * factor), learned, important)
    assert "level looks like another unit" in found.upstream


def test_features_of_little_weight_that_break_together_hold_back() -> None:
    learned, new = days(0, LEARNED, 3), days(LEARNED, 28, 3)
    important = {"x": 9.2, "y": 0.4, "z": 0.4}
    assert weighed(new.assign(y=np.nan), learned, important).upstream == ""
    both = weighed(new.assign(y=np.nan, z=np.nan), learned, important)
    assert both.upstream == "y is empty; z is empty"
    assert weighed(new.assign(y=np.nan), learned, important, min_weight=0.0).upstream


def ratios(seed: int, kind: str, count: int = LEARNED + 28) -> np.ndarray:
    """Stationary numbers around zero whose denominators come and go."""
    rng = np.random.default_rng(seed)
    if kind == "growth":  # of a number that is small for months and then is not
        level = np.exp(3 * np.sin(np.arange(count) * 2 * np.pi / 300 + rng.uniform(0, 6)))
        return rng.normal(size=count) / np.maximum(level, 0.05)
    if kind == "heavy":
        return rng.standard_t(1.2, count)
    calm = np.repeat(rng.random(count // 40 + 1) < 0.8, 40)[:count]
    return rng.normal(size=count) * np.where(calm, 0.01, 1.0)


@pytest.mark.parametrize("kind", ["growth", "heavy", "bursts"])
def test_a_number_around_zero_that_swings_in_spread_is_no_other_unit(kind: str) -> None:
    for seed in range(40):
        values = ratios(seed, kind)
        learned = days(0, LEARNED, seed).assign(y=values[:LEARNED])
        new = days(LEARNED, 28, seed).assign(y=values[LEARNED:])
        found = seen(new, learned)
        assert "unit" not in found.upstream + found.aside, seed


def test_a_window_in_which_most_values_are_the_same_far_one_is_no_other_unit() -> None:
    learned, new = days(0, LEARNED, 3), days(LEARNED, 28, 3)
    found = seen(new.assign(x=new["x"].where(new.index % 5 == 0, 1e9)), learned)
    assert "unit" not in found.upstream
    assert next(each for each in found.features if each.feature == "x").matters


def test_a_changed_level_and_a_column_that_was_always_still_do_not_look_broken() -> None:
    learned = days(0, LEARNED, 3).assign(still=1.0, rare=np.arange(LEARNED) == 7, gone=np.nan)
    new = days(LEARNED, 28, 3).assign(still=1.0, rare=False, gone=np.nan)
    for change in ({}, {"x": new["x"] + 10}, {"x": new["x"] * 3}, {"x": new["x"] * 0.3}):
        assert seen(new.assign(**change), learned).upstream == ""


def test_columns_that_are_gone_or_new_are_told_and_break_nothing() -> None:
    learned, new = days(0, LEARNED, 4), days(LEARNED, 28, 4)
    changed = new.drop(columns=["z", "kind"]).assign(more=1.0)
    reference = make_reference(SPEC, learned, predictions(learned).to_numpy(), IMPORTANCE)
    assert new_columns(reference, list(map(str, changed))) == (["more"], ["z", "kind"])
    end = new["event_time"].max() + pd.Timedelta(days=1)
    found = compare_window(SPEC, reference, profile(reference, changed, predictions(new), end))
    assert found.deviates
    assert found.upstream == "z is empty; kind is empty"


# Chance and seasons.


@pytest.mark.parametrize(
    ("a_day", "memory"),
    # Nightly: with one row a day there is less to be deceived by.
    [
        *(pytest.param(1, memory, marks=pytest.mark.nightly) for memory in (0.0, 0.8)),
        # Nightly: days that are like those before deceive more.
        pytest.param(20, 0.0, marks=pytest.mark.nightly),
        (20, 0.8),
    ],
    ids=str,
)
def test_stationary_countries_are_nearly_always_left_alone(a_day: int, memory: float) -> None:
    """At most one alarm a country and year; the rate itself is measured in the benchmark."""
    alarms = []
    for seed in range(8 if WHOLE else 4):
        whole = days(0, 2 * LEARNED, seed, a_day=a_day, memory=memory)
        learned, new = whole.head(LEARNED * a_day), whole.tail(LEARNED * a_day)
        alarms.append(watch(learned, new).alarms)
    assert np.mean(alarms) <= 1.0


@pytest.mark.parametrize("a_day", [1, 20])
def test_a_shift_of_the_most_important_feature_is_found_within_two_windows(a_day: int) -> None:
    found = []
    for seed in range(10):
        learned, new = days(0, LEARNED, seed, a_day=a_day), days(LEARNED, 62, seed, a_day=a_day)
        seen_at = watch(learned, new.assign(x=new["x"] + 1.0)).states
        found.append(any(each.state == "alarm" and "x (36%" in each.reason for each in seen_at))
    assert sum(found) >= 9


def test_a_season_that_the_reference_holds_is_no_alarm_and_half_a_year_of_it_is() -> None:
    """The reference of a year has windows of every season; one of half a year has not."""

    def seasonal(rows: pd.DataFrame, day: np.ndarray) -> pd.DataFrame:
        return rows.assign(x=rows["x"] + 3 * np.sin(2 * np.pi * day / 365.25))

    whole = seasonal(days(0, 3 * 365, 5), np.arange(3 * 365))
    year, next_years = whole.head(365), whole.tail(2 * 365)
    assert watch(year, next_years).alarms == 0
    half, other_half = whole.iloc[:182], whole.iloc[182:365]
    assert watch(half, other_half).alarms > 0


def test_a_counter_alarms_only_when_it_matters_and_has_left_what_was_learned_far_behind() -> None:
    whole = days(0, 4 * 365, 6)
    count = np.arange(len(whole)) / 100.0
    important = whole.assign(x=count)
    learned, new = important.head(365), important.iloc[365:]
    flat = (predictions(whole.head(365)), predictions(whole.iloc[365:]))
    states = watch(learned, new, predicted=flat).states
    first = next(each.end for each in states if each.state == "alarm")
    assert first is not None
    assert first > learned["event_time"].max() + pd.Timedelta(days=180)
    unimportant = whole.assign(noise=count)
    assert watch(unimportant.head(365), unimportant.iloc[365:]).alarms <= 2


# States.


@pytest.mark.parametrize(
    ("windows", "state", "then"),
    [
        ("...", "quiet", "nothing"),
        ("x...", "quiet", "nothing"),
        ("..x", "watch", "one more deviating window of the next 2 is an alarm"),
        (".x.", "watch", "if the next window deviates too, it is an alarm"),
        ("x..", "watch", "2 more deviating windows of the next 3 are an alarm"),
        ("x.x", "alarm", "the country is trained again"),
        (".xx", "alarm", "the country is trained again"),
        ("x", "watch", "one more deviating window of the next 2 is an alarm"),
        (".x", "watch", "one more deviating window of the next 2 is an alarm"),
        ("???", "not_judged", "it is looked at again with new rows"),
        ("xx?", "alarm", "the country is trained again"),
        ("", "not_judged", "it is looked at again with new rows"),
    ],
)
def test_an_alarm_takes_two_of_three_windows(windows: str, state: str, then: str) -> None:
    found = state_of(SPEC, pattern(windows))
    assert found.state == state
    assert found.next.startswith(then)


def test_the_first_deviating_window_is_told_as_long_as_they_follow_each_other() -> None:
    found = state_of(SPEC, pattern("x...x.xx.x"))
    assert found.since == END + pd.Timedelta(weeks=4)
    assert found.end == END + pd.Timedelta(weeks=9)
    assert state_of(SPEC, pattern("x..")).since == END
    earlier = DriftState("alarm", "", "", END - pd.Timedelta(weeks=9), END + pd.Timedelta(weeks=8))
    assert continued(found, earlier).since == earlier.since
    over = DriftState("alarm", "", "", END - pd.Timedelta(weeks=9), END)
    assert continued(found, over) == found
    assert continued(found, None) == found


def test_without_retraining_on_drift_an_alarm_is_for_a_person() -> None:
    spec = product(monitoring={}, retraining={"on_drift": False})
    assert "a person decides" in state_of(spec, pattern("xx")).next
    assert state_of(spec, pattern("x")).next.endswith("is an alarm")


def test_one_deviating_window_can_be_an_alarm() -> None:
    spec = product(monitoring={"alarm_after": 1, "of_windows": 1})
    assert state_of(spec, pattern("x")).state == "alarm"
    assert state_of(spec, pattern("x.")).state == "quiet"


def test_the_plot_shows_the_windows_and_stays_small() -> None:
    learned, new = days(0, LEARNED, 7), days(LEARNED, 180, 7)
    seen_by_week = watch(learned, new.assign(x=new["x"] + 3.0))
    image = drift_plot(seen_by_week.windows, 0.5)
    assert image.startswith("<svg")
    assert "min_effect" in image
    assert len(image) < 20_000
    assert drift_plot([], 0.5).startswith("<svg")
    assert drift_plot(pattern("??"), 0.5).startswith("<svg")
