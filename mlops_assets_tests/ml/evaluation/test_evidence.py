from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.evaluation.evidence import (
    EVIDENCE_COLUMNS,
    MAX_SLICES,
    MISSING,
    OTHER,
    edge_names,
    evidence_frame,
    number_name,
    slice_column,
    slice_names,
)
from mlops_assets.ml.evaluation.slices import parts_of
from mlops_assets.spec import ProductSpec, SliceSpec
from mlops_assets_tests.effort import examples
from mlops_assets_tests.ml.scenarios import product, regression_rows


def sliced(*slices: dict[str, Any], **changes: Any) -> ProductSpec:
    return product(evaluation={"slices": list(slices)}, **changes)


def test_the_evidence_has_a_row_per_holdout_row_and_the_best_baselines_predictions() -> None:
    rows = regression_rows(40)
    frame = evidence_frame(product(), rows, rows["x"].to_numpy(), rows)
    assert tuple(frame.columns) == EVIDENCE_COLUMNS
    assert frame["candidate"].tolist() == rows["x"].tolist()
    errors = {
        "level": (rows["label"] - rows["level"]).abs().mean(),
        "mean": (rows["label"] - rows["label"].mean()).abs().mean(),
    }
    best = min(errors, key=lambda name: errors[name])
    assert set(frame["baseline_name"]) == {best}
    assert (frame["label"] - frame["baseline"]).abs().mean() == pytest.approx(errors[best])
    assert frame[["low", "high", "champion"]].isna().all(axis=None)


def test_every_declared_slice_and_group_is_a_text_column() -> None:
    rows = regression_rows(40)
    spec = sliced(
        {"feature": "kind"},
        {"feature": "x", "edges": [-1.0, 1.0]},
        {"feature": "nowhere"},
        gates={"fairness": [{"feature": "flag", "max_difference": 0.1}]},
    )
    frame = evidence_frame(spec, rows, rows["x"].to_numpy(), rows)
    extra = [name for name in frame.columns if name not in EVIDENCE_COLUMNS]
    assert extra == ["slice.kind", "slice.x at -1, 1", "slice.flag"]
    assert set(frame["slice.kind"]) == {"a", "b", "c", MISSING}
    assert set(frame["slice.flag"]) == {"True", "False"}
    assert slice_column(SliceSpec(feature="x", edges=[-1.0, 1.0])) == "slice.x at -1, 1"


def test_a_value_on_an_edge_is_in_the_upper_slice() -> None:
    values = pd.Series([6.9, 7.0, 29.0, 30.0, 90.0, 1e9, np.nan])
    assert slice_names(values, [7.0, 30.0, 90.0]).tolist() == [
        "under 7",
        "7 to 30",
        "7 to 30",
        "30 to 90",
        "90 or more",
        "90 or more",
        MISSING,
    ]


def test_rare_values_are_together_and_missing_ones_are_a_slice_of_their_own() -> None:
    common = [f"v{place:02d}" for place in range(MAX_SLICES)] * 3
    names = slice_names(pd.Series([*common, None, None, None, "rare", "rarer"]), [])
    assert set(names[-5:-2]) == {MISSING}
    assert set(names[-2:]) == {OTHER}
    assert len(set(names)) == MAX_SLICES + 1


@settings(max_examples=examples(50), deadline=None)
@given(values=st.lists(st.one_of(st.none(), st.integers(0, 60)), min_size=1, max_size=200))
def test_every_row_is_in_one_slice_and_no_value_is_in_two(values: list[int | None]) -> None:
    names = slice_names(pd.Series(values, dtype="Int64"), [])
    assert len(names) == len(values)
    assert len(set(names)) <= MAX_SLICES + 1
    for value, name in zip(values, names, strict=True):
        assert name in ((MISSING, OTHER) if value is None else (str(value), OTHER))


def test_whole_numbers_with_missing_values_are_named_without_a_point() -> None:
    assert slice_names(pd.Series([1.0, 2.5, np.nan]), []).tolist() == ["1", "2.5", MISSING]


def test_no_rows_make_an_empty_frame_with_the_same_columns() -> None:
    none = regression_rows(3).iloc[:0]
    frame = evidence_frame(sliced({"feature": "kind"}), none, np.empty(0), none)
    assert frame.empty
    assert list(frame.columns) == [*EVIDENCE_COLUMNS, "slice.kind"]


@given(st.lists(st.floats(allow_nan=False), unique=True, min_size=2))
def test_two_numbers_that_differ_are_two_slices_and_no_digit_is_lost(values: list[float]) -> None:
    names = [number_name(value) for value in values]
    assert len(set(names)) == len({value + 0.0 for value in values})
    assert [float(name) for name in names] == values


@given(st.lists(st.integers(-(2**53), 2**53), unique=True, min_size=2, max_size=MAX_SLICES))
def test_a_shop_is_one_slice_whether_its_number_is_whole_or_a_float_beside_a_null(
    numbers: list[int],
) -> None:
    whole = slice_names(pd.Series(numbers, dtype="int64"), [])
    with_null = slice_names(pd.Series([*numbers, None], dtype="float64"), [])
    nullable = slice_names(pd.Series([*numbers, None], dtype="Int64"), [])
    assert whole.tolist() == with_null[:-1].tolist() == nullable[:-1].tolist()
    assert with_null[-1] == nullable[-1] == MISSING


def test_numbers_of_32_bits_have_the_digits_they_were_written_with() -> None:
    assert slice_names(pd.Series([0.1, 2.5], dtype="float32"), []).tolist() == ["0.1", "2.5"]


def test_five_shops_of_seven_digits_are_five_slices_and_the_bad_one_is_seen() -> None:
    rows = regression_rows(500).assign(shop=1234560.0 + np.arange(500) % 5)
    spec = sliced({"feature": "shop"}, {"feature": "shop", "edges": [1234562.0, 1234563.0]})
    frame = evidence_frame(spec, rows, rows["x"].to_numpy(), rows)

    by_shop, cut = spec.evaluation.slices
    found = {part.name: int(part.rows.sum()) for part in parts_of(frame, by_shop)}
    assert found == {f"123456{place}": 100 for place in range(5)}
    found = {part.name: int(part.rows.sum()) for part in parts_of(frame, cut)}
    assert found == {"under 1234562": 200, "1234562 to 1234563": 100, "1234563 or more": 200}


def test_edges_that_are_dates_as_numbers_keep_all_digits() -> None:
    edges = [20240115.0, 20240116.0]
    assert edge_names(edges) == ["under 20240115", "20240115 to 20240116", "20240116 or more"]
    column = slice_column(SliceSpec(feature="day", edges=edges))
    assert column == "slice.day at 20240115, 20240116"


def test_evidence_stored_with_six_digits_is_read_as_it_is() -> None:
    declared = SliceSpec(feature="day", edges=[20240115.0, 20250115.0])
    names = ["under 2.02401e+07", "2.02401e+07 to 2.02501e+07", "2.02501e+07 or more"]
    stored = pd.DataFrame({"slice.day at 2.02401e+07, 2.02501e+07": names})

    found = {part.name: part.rows.tolist() for part in parts_of(stored, declared)}

    assert set(found) == set(names)
    assert found["under 2.02401e+07"] == [True, False, False]
