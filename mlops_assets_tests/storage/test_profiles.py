from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_assets.errors import StorageError
from mlops_assets.ml.monitoring.drift import (
    REST,
    Profile,
    Reference,
    make_reference,
    profile,
    window_ends,
    window_rows,
)
from mlops_assets.spec import ProductSpec
from mlops_assets.storage import SnapshotStore, profiles
from mlops_assets.storage.profiles import ProfileRequest, columns_of, newest_times, window_profiles
from mlops_assets_tests.effort import examples
from mlops_assets_tests.ml.scenarios import product

SPEC = product(monitoring={"window_days": 14, "every_days": 4, "reference_days": 90})
FEATURES, PREDICTIONS = ("orders", "features"), ("orders", "predictions")
COUNTRIES = ("DEU", "Côte d'Ivoire", 'a "b" c', "x/..%2F", "国'; drop")


@pytest.fixture
def store(tmp_path: object) -> SnapshotStore:
    return SnapshotStore(str(tmp_path))


def frame(seed: int, days: int = 160, a_day: int = 3) -> pd.DataFrame:
    """Rows of every kind of column that a features frame may have."""
    rng = np.random.default_rng(seed)
    rows = days * a_day
    wild = rng.normal(size=rows)
    wild[rng.random(rows) < 0.05] = rng.choice([np.inf, -np.inf, 1e308, -1e300, 5e-324])
    flag = pd.Series(rng.random(rows) < 0.3, dtype="object")
    flag[rng.random(rows) < 0.1] = None
    kind = pd.Series(rng.choice(["a", "b", "", "Ω'\"", "nan"], rows), dtype="object")
    kind[rng.random(rows) < 0.1] = None
    event = pd.Timestamp("2024-01-03") + pd.to_timedelta(np.arange(rows) * 86_400 // a_day, "s")
    return pd.DataFrame(
        {
            "entity": [f"e{each}" for each in range(rows)],
            "event_time": event,
            "label_time": event,
            "label": 0.0,
            "x": rng.normal(3, 10, rows),
            "wild": wild,
            "gaps": np.where(rng.random(rows) < 0.5, np.nan, rng.normal(size=rows)),
            "constant": 7.5,
            "empty": np.nan,
            "count": rng.poisson(2, rows),
            "maybe": pd.array(rng.integers(0, 9, rows), dtype="Int64"),
            "single": rng.normal(size=rows).astype("float32"),
            "really": rng.random(rows) < 0.5,
            "flag": flag,
            "kind": kind,
            "nothing": pd.Series([None] * rows, dtype="object"),
            "group": pd.Categorical(rng.choice(["u", "v"], rows), categories=["v", "w", "u"]),
            "rank": pd.Categorical(rng.choice([1, 2], rows), categories=[1, 2, 3]),
            'start "base" %': rng.normal(size=rows),
            "width": rng.normal(size=rows),
            "filename": rng.normal(size=rows),
            "when": event + pd.Timedelta(hours=1),
        }
    )


def predicted(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[["entity", "event_time"]].assign(prediction=rows["x"] * 2 + 1)


def reference_of(rows: pd.DataFrame, spec: ProductSpec = SPEC) -> Reference:
    return make_reference(spec, rows, predicted(rows)["prediction"].to_numpy(), {"x": 1.0})


def stored(
    store: SnapshotStore,
    frames: Mapping[str, pd.DataFrame],
    references: Mapping[str, Reference],
    ends: Mapping[str, Sequence[pd.Timestamp]],
    spec: ProductSpec = SPEC,
) -> dict[str, ProfileRequest]:
    length = pd.Timedelta(days=spec.monitoring.window_days)
    return {
        country: ProfileRequest(
            references[country],
            store.write(FEATURES, country, rows).snapshot,
            store.write(PREDICTIONS, country, predicted(rows)).snapshot,
            tuple(ends[country]),
            length,
        )
        for country, rows in frames.items()
    }


def by_pandas(
    store: SnapshotStore, asked: ProfileRequest, spec: ProductSpec = SPEC
) -> list[Profile]:
    """The same by the pure function, on the rows as the store gives them back."""
    rows = store.read(asked.features.asset, asked.features.partition)
    values = store.read(PREDICTIONS, asked.features.partition)
    found = []
    for end in asked.ends:
        own = window_rows(spec, asked.reference, values, end)["prediction"]
        window = window_rows(spec, asked.reference, rows, end)
        found.append(profile(asked.reference, window, own, end))
    return found


def test_the_scan_counts_what_pandas_counts_over_odd_columns_and_odd_countries(
    store: SnapshotStore,
) -> None:
    frames = {country: frame(seed) for seed, country in enumerate(COUNTRIES)}
    references = {country: reference_of(rows.head(270)) for country, rows in frames.items()}
    ends = {c: window_ends(SPEC, rows["event_time"].max(), 9) for c, rows in frames.items()}
    asked = stored(store, frames, references, ends)
    found = window_profiles(store, asked)
    assert list(found) == list(COUNTRIES)
    for country, each in asked.items():
        assert found[country] == by_pandas(store, each)
        assert found[country][-1].rows > 0
        assert found[country][-1].numbers["x"][0] == found[country][-1].rows
        assert "when" not in found[country][-1].numbers


@settings(
    max_examples=examples(15),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_the_scan_counts_what_pandas_counts_whatever_the_values(
    store: SnapshotStore, data: st.DataObject
) -> None:
    numbers = st.one_of(st.none(), st.floats(allow_nan=False), st.sampled_from([0.0, 1.0, 1e-9]))
    texts = st.one_of(st.none(), st.text(max_size=3), st.sampled_from(["a", "b"]))
    size = data.draw(st.integers(2, 40))
    days = data.draw(st.lists(st.integers(0, 120), min_size=size, max_size=size))
    event = pd.Timestamp("2024-01-01") + pd.to_timedelta(days, "D")
    rows = pd.DataFrame(
        {
            "entity": [str(each) for each in range(size)],
            "event_time": event,
            "label_time": event,
            "label": 0.0,
            "x": pd.Series(
                data.draw(st.lists(numbers, min_size=size, max_size=size)), dtype="float64"
            ),
            "kind": pd.Series(
                data.draw(st.lists(texts, min_size=size, max_size=size)), dtype="object"
            ),
        }
    ).sort_values("event_time", ignore_index=True)
    split = data.draw(st.integers(1, size))
    reference = make_reference(SPEC, rows.head(split), np.arange(split) * 1.0, {})
    ends = window_ends(SPEC, pd.Timestamp("2024-05-02"), data.draw(st.integers(1, 8)))
    asked = stored(store, {"DEU": rows}, {"DEU": reference}, {"DEU": ends})
    assert window_profiles(store, asked)["DEU"] == by_pandas(store, asked["DEU"])


def test_countries_with_other_columns_types_windows_and_order_are_counted_in_one_call(
    store: SnapshotStore,
) -> None:
    """A reference of one type and rows of another: nothing is counted for that feature."""
    whole = {country: frame(seed) for seed, country in enumerate(COUNTRIES)}
    references = {country: reference_of(rows.head(270)) for country, rows in whole.items()}
    late = {country: rows.tail(200).reset_index(drop=True) for country, rows in whole.items()}
    first, second, third, fourth, fifth = COUNTRIES
    changed = {
        first: late[first].assign(x="text", kind=1.0),
        second: late[second].drop(columns=["x", "kind", "gaps"]).assign(x=1),
        third: late[third].sample(frac=1.0, random_state=0, ignore_index=True),
        fourth: late[fourth].iloc[:0],
        fifth: late[fifth].assign(new=1.0, x=np.inf, kind="never seen"),
    }
    newest = whole[first]["event_time"].max()
    ends = {
        country: window_ends(SPEC, newest, count)
        for count, country in enumerate(COUNTRIES, start=1)
    }
    ends[second] = []
    length = pd.Timedelta(days=14)
    asked = {
        country: ProfileRequest(
            references[country],
            store.write(FEATURES, country, rows).snapshot,
            store.write(PREDICTIONS, country, predicted(whole[country])).snapshot,
            tuple(ends[country]),
            length,
        )
        for country, rows in changed.items()
    }
    found = window_profiles(store, asked)
    for country, each in asked.items():
        assert found[country] == by_pandas(store, each), country
    assert found[first][0].numbers["x"][0] == 0
    assert found[first][0].categories["kind"] == {}
    assert found[second] == []
    assert found[third][0].rows > 0
    assert [each.rows for each in found[fourth]] == [0] * 4
    assert found[fifth][0].quartiles["x"] == (np.inf,) * 3
    assert found[fifth][0].categories["kind"] == {REST: found[fifth][0].rows}
    known = newest_times(store, {country: each.features for country, each in asked.items()})
    expected = {c: rows["event_time"].max() for c, rows in changed.items() if len(rows)}
    assert known == expected
    assert columns_of(store, {fifth: asked[fifth].features}) == {fifth: list(changed[fifth])}


def test_windows_without_rows_are_there_with_nothing_in_them(store: SnapshotStore) -> None:
    rows = frame(1)
    reference = reference_of(rows.head(270))
    ends = window_ends(SPEC, pd.Timestamp("2025-01-01"), 3)
    asked = stored(store, {"DEU": rows}, {"DEU": reference}, {"DEU": ends})
    found = window_profiles(store, asked)["DEU"]
    assert [(each.end, each.rows) for each in found] == [(end, 0) for end in ends]
    assert found == by_pandas(store, asked["DEU"])


def test_many_values_of_a_category_are_counted_without_a_table_of_all_of_them(
    store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = frame(2).assign(kind=lambda made: made["entity"])
    reference = reference_of(rows.head(270))
    ends = window_ends(SPEC, rows["event_time"].max(), 5)
    asked = stored(store, {"DEU": rows}, {"DEU": reference}, {"DEU": ends})
    whole = window_profiles(store, asked)
    monkeypatch.setattr(profiles, "_CELLS_AT_ONCE", 0)
    monkeypatch.setattr(profiles, "_ROWS_AT_ONCE", 1)
    assert window_profiles(store, asked) == whole
    assert whole["DEU"] == by_pandas(store, asked["DEU"])


def test_a_damaged_file_is_told_with_its_country(store: SnapshotStore) -> None:
    rows = frame(3)
    asked = stored(
        store,
        {"DEU": rows},
        {"DEU": reference_of(rows.head(270))},
        {"DEU": window_ends(SPEC, rows["event_time"].max(), 2)},
    )
    Path(asked["DEU"].features.uri).write_bytes(b"not parquet")
    with pytest.raises(StorageError, match="The rows of DEU cannot be scanned"):
        window_profiles(store, asked)
