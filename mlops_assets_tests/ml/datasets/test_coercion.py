from __future__ import annotations

import datetime as dt
import time
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlops_assets.ml.datasets.coercion import ColumnKind, as_text, typed
from mlops_assets_tests.effort import examples
from mlops_assets_tests.ml.plain_rules import plain_text, plainly_coerced, plainly_filled

KINDS = st.sampled_from(get_args(ColumnKind))
MISSING = st.sampled_from([None, np.nan, pd.NA, pd.NaT])
BLANKS = st.text(" \t\n\r\x1c\x85\xa0\u2003\u200b", max_size=2)
NUMBERS = st.one_of(
    st.integers().map(str),
    st.integers(-(10**16), 10**16).map(str),
    st.floats().map(repr),
    st.floats(-1e6, 1e6).map(lambda number: f"{number:.6f}"),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.from_regex(r"[+-]?[0-9_,]{0,20}\.?[0-9]{0,20}([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.sampled_from(
        ["inf", "-Infinity", "nan", "0x10", "1_000", "٣", "1e5", "1E400", "-0", "-0.0"]
    ),
    st.sampled_from(["007", "1.", ".5", "9007199254740993", "True", "1 0", "--1", "1-"]),
)
TIMES = st.one_of(
    st.dates().map(str),
    st.datetimes().map(str),
    st.datetimes(timezones=st.timezones()).map(lambda time: time.isoformat()),
    st.sampled_from(["2024", "2024-02", "20240229", "2024-02-30", "2024-W05", "2024-060", "NaT"]),
    st.sampled_from(["2262-04-12", "1677-09-21", "2024-01-01T25", "2024-01-01T12:30Z", "1/2/2020"]),
)
TEXTS = st.one_of(NUMBERS, TIMES, st.sampled_from(["true", "FALSE", "1", "0", ""]), st.text())
PADDED = st.builds(lambda before, text, after: before + text + after, BLANKS, TEXTS, BLANKS)
ANYTHING = st.one_of(
    PADDED,
    st.booleans(),
    st.integers(),
    st.floats().map(lambda number: number + 0.0),  # 0 and -0 are one value
    st.dates(),
    st.datetimes(),
    st.binary(max_size=3),
    st.decimals(allow_nan=False),
    st.lists(st.integers(), max_size=2),
)


def columns(values: st.SearchStrategy[Any]) -> st.SearchStrategy[pd.Series]:
    """Object columns of such values, some missing, with an index that is not 0 to n-1."""
    rows = st.lists(st.one_of(values, values, values, MISSING), max_size=12)
    return rows.map(lambda found: pd.Series(found, index=range(5, 5 + len(found)), dtype="object"))


def require_plain_rules(published: pd.Series, kind: ColumnKind, *, nullable: bool) -> None:
    found = typed(published, kind, nullable=nullable)
    coerced = plainly_coerced(published, kind)
    filled = plainly_filled(coerced.values, kind, nullable=nullable)
    pd.testing.assert_series_equal(found.values, filled.values, check_names=False, check_exact=True)
    assert found.wrong.tolist() == coerced.wrong.tolist()
    unfilled = filled.wrong if kind != "text" else np.zeros(len(published), bool)
    assert found.unfilled.tolist() == unfilled.tolist()


@settings(max_examples=examples(400), deadline=None)
@given(columns(PADDED), KINDS, st.booleans())
@example(pd.Series(["\ud800", "1"]), "float", True)
def test_columns_of_text_are_typed_value_by_value(
    published: pd.Series, kind: ColumnKind, nullable: bool
) -> None:
    require_plain_rules(published, kind, nullable=nullable)


@settings(max_examples=examples(200), deadline=None)
@given(columns(ANYTHING), KINDS, st.booleans())
def test_columns_of_mixed_values_are_typed_value_by_value(
    published: pd.Series, kind: ColumnKind, nullable: bool
) -> None:
    require_plain_rules(published, kind, nullable=nullable)


@settings(max_examples=examples(150), deadline=None)
@given(
    st.one_of(
        columns(st.dates()),
        columns(st.datetimes()),
        columns(st.dates() | st.datetimes()),
        columns(st.datetimes(timezones=st.timezones())),
    ),
    KINDS,
    st.booleans(),
)
def test_columns_of_dates_are_typed_value_by_value(
    published: pd.Series, kind: ColumnKind, nullable: bool
) -> None:
    require_plain_rules(published, kind, nullable=nullable)


NATIVE = {
    "int8": pd.Series([-1, 0, 1], dtype="int8"),
    "int64": pd.Series([2**53, 2**53 - 1, -(2**53) - 1, -5]),
    "uint64": pd.Series([0, 1, 2**64 - 1], dtype="uint64"),
    "float32": pd.Series([0.1, np.nan, np.inf, 1], dtype="float32"),
    "float64": pd.Series([0.1, np.nan, -np.inf, 1e300, -0.0, 2.0]),
    "whole floats": pd.Series([9.0, 1.0, 0.0]),
    "bool": pd.Series([True, False]),
    "ns": pd.Series(pd.to_datetime(["2024-01-01", "NaT"])),
    "seconds": pd.Series(np.array(["0001-01-01", "2024-01-01", "NaT"], "datetime64[s]")),
    "zoned": pd.Series(pd.to_datetime(["2024-01-01", "NaT"])).dt.tz_localize("Europe/Berlin"),
    "took": pd.Series(pd.to_timedelta(["1d", "NaT"])),
    "Int64": pd.Series([1, None, 2**60], dtype="Int64"),
    "boolean": pd.Series([True, None, False], dtype="boolean"),
    "Float64": pd.Series([1.5, None, 2], dtype="Float64"),
    "string": pd.Series([" 1 ", None, "x"], dtype="string"),
    "arrow string": pd.Series([" 1 ", None, "2024-01-01"], dtype="string[pyarrow]"),
    "category": pd.Series(["1", None, "true"], dtype="category"),
    "no rows": pd.Series([], dtype="object"),
    "only missing": pd.Series([None, np.nan], dtype="object"),
}


@pytest.mark.parametrize("kind", get_args(ColumnKind))
@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("nullable", [True, False])
def test_typed_columns_follow_the_same_rules(name: str, kind: ColumnKind, nullable: bool) -> None:
    require_plain_rules(NATIVE[name], kind, nullable=nullable)


@given(columns(ANYTHING))
@settings(max_examples=examples(100), deadline=None)
def test_text_is_written_value_by_value(published: pd.Series) -> None:
    assert as_text(published).tolist() == plain_text(published).tolist()


def test_a_column_handed_in_is_never_changed() -> None:
    published = pd.Series([" 1", None, np.nan, "x", "2024-01-01 "], dtype="object")
    before = published.tolist()
    for kind in get_args(ColumnKind):
        typed(published, kind, nullable=True)
    assert all(a is b for a, b in zip(published.tolist(), before, strict=True))


@pytest.mark.parametrize(
    ("kind", "text"), [("float", "{}.25"), ("integer", "{}"), ("boolean", "true"), ("text", "n{}")]
)
def test_text_is_typed_faster_than_value_by_value(kind: ColumnKind, text: str) -> None:
    published = pd.Series([text.format(number) for number in range(50_000)], dtype="object")

    def seconds(call: Any) -> float:
        start = time.process_time()
        call()
        return time.process_time() - start

    pairs = [
        (
            seconds(lambda: typed(published, kind, nullable=True)),
            seconds(lambda: plainly_coerced(published, kind)),
        )
        for _ in range(5)
    ]
    assert sorted(quick / plain for quick, plain in pairs)[2] < 1


def test_dates_become_times_at_midnight() -> None:
    days = pd.Series([dt.date(2024, 2, 29), None, dt.date(1, 1, 1)], dtype="object")
    found = typed(days, "time", nullable=True)
    assert found.values.tolist()[:1] == [pd.Timestamp("2024-02-29")]
    assert found.wrong.tolist() == [False, False, True]
