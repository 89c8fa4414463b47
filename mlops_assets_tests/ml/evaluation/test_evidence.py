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
    evidence_frame,
    slice_column,
    slice_names,
)
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
