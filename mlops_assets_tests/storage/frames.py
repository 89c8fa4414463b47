"""Named frames: every pandas type the store promises to keep."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from uuid import UUID

import numpy as np
import pandas as pd


def prices(rows: int = 3, offset: float = 0.0) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "zone": [f"zone {i}" for i in range(rows)],
            "time": pd.date_range("2024-01-01", periods=rows, freq="h"),
            "price": np.arange(rows, dtype="float64") + offset,
            "holiday": [i % 2 == 0 for i in range(rows)],
        }
    )


def _column(values: object, dtype: object = None) -> pd.DataFrame:
    return pd.DataFrame({"x": pd.Series(values, dtype=dtype)})  # pyright: ignore[reportArgumentType, reportCallIssue] (any values, any dtype)


def _categories(
    values: list[object], categories: list[object], ordered: bool = False
) -> pd.DataFrame:
    return pd.DataFrame({"x": pd.Categorical(values, categories=categories, ordered=ordered)})


FRAMES: dict[str, pd.DataFrame] = {
    "mixed": prices(),
    "no rows": prices(0),
    "no rows and no columns": pd.DataFrame(),
    "columns of no type without rows": pd.DataFrame(columns=["a", "b"]),
    "only nulls": _column([None, None], object),
    "categories with an unused one": _categories(["b", None], ["c", "b", "a"]),
    "ordered categories": _categories(["low", "high"], ["low", "middle", "high"], ordered=True),
    "whole-number categories": _categories([3, 1, None], [5, 3, 1]),
    "float categories": _categories([0.5, 1.0], [2.5, 1.0, 0.5]),
    "time categories": _categories(
        [pd.Timestamp("2024")], [pd.Timestamp("2025"), pd.Timestamp("2024")]
    ),
    "bool categories": _categories([True, None], [True, False]),
    "categories without rows": _categories([], ["a", "b"]),
    "null categories only": _categories([None, None], ["a"]),
    "no categories at all": pd.DataFrame({"x": pd.Categorical([None])}),
    "categories of nullable text": pd.DataFrame(
        {"x": pd.Categorical(pd.array(["a", "b"], dtype="string"))}
    ),
    "nullable integers": _column([1, None, 2**62], "Int64"),
    "small nullable integers": _column([1, None], "UInt8"),
    "nullable floats": _column([0.5, None], "Float64"),
    "nullable bools": _column([True, None], "boolean"),
    "nullable text": _column(["a", None, ""], "string"),
    "Arrow-backed text": _column(["a", None], "string[pyarrow]"),
    "text with NaN": pd.DataFrame(
        {"x": pd.Series(["a", np.nan], dtype=pd.StringDtype("python", na_value=np.nan))}
    ),
    "Arrow types": _column([1, None], "int64[pyarrow]"),
    "text as objects": _column(["a", None, "ñ'\"%"], object),
    "integers as objects": _column([1, None, 2**62 + 1], object),
    "bools as objects": _column([True, None], object),
    "bytes": _column([b"\x00\xff", None], object),
    "ids": _column([UUID(int=5), None], object),
    "dates": _column([dt.date(2024, 2, 29), None], object),
    "times of day": _column([dt.time(12, 30), None], object),
    "decimals": _column([Decimal("1.20"), None, Decimal("-3.45")], object),
    "lists": _column([["a", "b"], [], None], object),
    "lists of lists": _column([[[1, 2], []], [[3]]], object),
    "dicts": _column([{"a": 1, "b": "x"}, {"a": 2, "b": None}], object),
    "seconds": _column([pd.Timestamp("2024-01-01"), pd.NaT], "datetime64[s]"),
    "milliseconds": _column([pd.Timestamp("2024-01-01"), pd.NaT], "datetime64[ms]"),
    "microseconds": _column([pd.Timestamp("2024-01-01"), pd.NaT], "datetime64[us]"),
    "nanoseconds": _column([pd.Timestamp(1), pd.NaT], "datetime64[ns]"),
    "time zone": _column(pd.to_datetime(["2024-07-01"]).tz_localize("Europe/Paris")),
    "time zone in seconds": _column(
        pd.to_datetime(["2024-07-01"]).tz_localize("Asia/Tokyo").as_unit("s")
    ),
    "durations": _column([pd.Timedelta(1), pd.NaT], "timedelta64[ns]"),
    "durations in seconds": _column([90, None], "timedelta64[s]"),
    "periods": pd.DataFrame({"x": pd.period_range("2024", periods=2, freq="M")}),
    "intervals": pd.DataFrame({"x": pd.interval_range(0, 2)}),
    "narrow numbers": pd.DataFrame(
        {kind: np.array([1], kind) for kind in ("int8", "uint16", "float16", "float32", "uint64")}
    ),
    "infinities": _column([np.inf, -np.inf, np.nan, -0.0]),
    "named index": prices().set_index("zone"),
    "duplicate index": pd.DataFrame({"x": [1, 2]}, index=[7, 7]),
    "stepped index": pd.DataFrame({"x": [1, 2]}, index=pd.RangeIndex(10, 14, 2, name="n")),
    "two-level index": prices().set_index(["zone", "time"]),
    "category index": pd.DataFrame(
        {"x": [1, 2]}, index=pd.CategoricalIndex([3, 1], categories=[5, 3, 1], name="c")
    ),
    "index without columns": pd.DataFrame(index=["a", "b"]),
    "odd column names": pd.DataFrame(
        {"a.b": [1], "a": [2], "": [3], "ñ %'\"": [4], "_country": [5]}
    ),
    "numbered columns": pd.DataFrame({0: [1, 2], 7: pd.Categorical([2, 1])}),
    "two-level columns": pd.DataFrame(
        [[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")])
    ),
}  # fmt: skip
