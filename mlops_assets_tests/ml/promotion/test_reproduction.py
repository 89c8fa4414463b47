from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.ml.promotion.reproduction import changes, features_gap, prediction_gap, reasons
from mlops_assets.provenance import Provenance
from mlops_assets_tests.ml.scenarios import regression_rows

THEN = Provenance(
    product_code="aaa",
    platform_code="bbb",
    python="3.11.7",
    libraries={"numpy": "2.4.6", "scikit-learn": "1.9.1"},
    machine={"blas": "Haswell", "threads": "1"},
)

values = st.floats(allow_nan=True, allow_infinity=False, width=32)


@given(st.lists(values, max_size=30))
def test_predictions_equal_to_themselves_are_identical(found: list[float]) -> None:
    gap = prediction_gap(np.array(found, dtype="float64"), np.array(found, dtype="float64"))
    assert gap.identical
    assert (gap.rows, gap.differing, gap.largest, gap.mean) == (len(found), 0, 0.0, 0.0)
    assert gap.share == 0.0


@given(st.lists(st.tuples(values, values), min_size=1, max_size=30))
def test_every_other_prediction_is_counted_with_its_distance(
    pairs: list[tuple[float, float]],
) -> None:
    one, other = (np.array(side, dtype="float64") for side in zip(*pairs, strict=True))
    gap = prediction_gap(one, other)
    far = [0.0 if a != a and b != b else abs(a - b) for a, b in pairs]
    far = [np.inf if each != each else each for each in far]
    assert gap.largest == max(far)
    assert gap.mean == pytest.approx(sum(far) / len(far))
    assert gap.differing >= sum(each > 0 for each in far)
    assert gap.share == gap.differing / len(pairs)


def test_the_last_bit_of_one_prediction_is_a_difference() -> None:
    one = np.array([1.0, 2.0, 3.0, 4.0])
    other = one.copy()
    other[2] = np.nextafter(3.0, 4.0)
    gap = prediction_gap(one, other)
    assert (gap.identical, gap.differing, gap.share) == (False, 1, 0.25)
    assert gap.largest == other[2] - 3.0


def test_a_prediction_only_one_of_them_makes_is_infinitely_far() -> None:
    gap = prediction_gap(np.array([1.0, np.nan]), np.array([1.0, 2.0]))
    assert (gap.differing, gap.largest) == (1, np.inf)


def test_the_same_features_are_identical_whatever_the_order_of_their_columns() -> None:
    frame = regression_rows(50)
    assert features_gap(frame, frame[[*frame.columns[::-1]]].copy()).identical


def test_each_changed_feature_is_named_with_its_number_of_values() -> None:
    frame = regression_rows(50)
    now = frame.copy()
    now.loc[[3, 7], "x"] += 1e-12
    now.loc[5, "label"] = np.nan
    gap = features_gap(frame, now)
    assert {(each.name, each.values, each.what) for each in gap.columns} == {
        ("x", 2, "values"),
        ("label", 1, "values"),
    }
    assert not gap.identical


def test_columns_that_are_gone_new_or_of_another_type_are_named() -> None:
    frame = regression_rows(50).assign(whole=1)
    now = frame.drop(columns="x").assign(whole=1.0, other=2.0)
    found = {each.name: each.what for each in features_gap(frame, now).columns}
    assert found == {"x": "gone", "whole": "type", "other": "new"}


def test_rows_are_matched_by_entity_and_time_and_others_are_counted() -> None:
    frame = regression_rows(50)
    now = pd.concat([frame.iloc[5:], frame.tail(2).assign(entity="another")], ignore_index=True)
    gap = features_gap(frame, now)
    assert (gap.rows, gap.gone, gap.new, gap.columns) == (50, 5, 2, ())
    assert not gap.identical


def test_nothing_changed_is_said_and_is_a_reason_to_look_for_chance() -> None:
    assert changes(THEN, replace(THEN)) == ()
    assert "nothing recorded changed" in reasons(())


@pytest.mark.parametrize(
    ("now", "what", "said"),
    [
        (replace(THEN, product_code="ccc"), "product code", "from aaa to ccc"),
        (replace(THEN, platform_code="ccc"), "platform code", "from bbb to ccc"),
        (replace(THEN, python="3.11.9"), "python", "Python changed from 3.11.7 to 3.11.9"),
        (replace(THEN, machine={"blas": "Zen", "threads": "1"}), "machine", "from Haswell to Zen"),
        (
            replace(THEN, libraries={"numpy": "2.4.6", "scikit-learn": "2.0.0"}),
            "library",
            "scikit-learn changed from 1.9.1 to 2.0.0",
        ),
        (
            replace(THEN, libraries={"numpy": "2.4.6"}),
            "library",
            "scikit-learn changed from 1.9.1 to none",
        ),
    ],
)
def test_what_changed_is_named_with_before_and_after(now: Provenance, what: str, said: str) -> None:
    (change,) = changes(THEN, now)
    assert change.what == what
    assert said in change.text


def test_code_read_by_another_python_is_not_called_changed_for_sure() -> None:
    found = changes(THEN, replace(THEN, python="3.13.1", platform_code="ccc"))
    assert [change.what for change in found] == ["platform code", "python"]
    assert "read differently" in found[0].text


def test_what_was_not_used_is_no_reason() -> None:
    found = changes(THEN, replace(THEN, product_code="ccc"))
    assert "product code" in reasons(found)
    assert "nothing recorded changed" in reasons(found, without="product code")
