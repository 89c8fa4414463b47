from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_assets.errors import ConfigurationError
from mlops_assets.ml.datasets.validation import Validation, describe_columns, validate
from mlops_assets.spec import CountryNames
from mlops_assets_tests.effort import examples
from mlops_assets_tests.ml.scenarios import NAMES, SOURCE, Prices, raw


def check(frame: pd.DataFrame, **aliases: str) -> Validation:
    result = validate(frame, Prices, SOURCE, CountryNames(("DEU", "FRA"), aliases))
    assert result.rows == len(frame)
    assert result.rows == len(result.accepted) + len(result.quarantine) + result.duplicates
    return result


def damaged(place: int, column: str, value: Any) -> pd.DataFrame:
    frame = raw().astype({column: "object"})
    frame.loc[place, column] = value
    return frame


def test_good_records_become_typed_contract_columns_and_nothing_else() -> None:
    result = check(raw())
    assert result.accepted.dtypes.astype(str).to_dict() == {
        "country": "object",
        "date": "datetime64[ns]",
        "price": "float64",
        "units": "int64",
        "kind": "object",
    }
    assert result.quarantine.empty
    assert result.rejected_share == 0
    assert dict(result.broken) == {}


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("Price", "cheap", "type:price"),
        ("Price", 9999.0, "price: in_range(-1000, 5000)"),
        ("Price", None, "price: not_nullable"),
        ("Price", float("inf"), "infinite:price"),
        ("Price", [1.0], "type:price"),
        ("Units", "2.5", "type:units"),
        ("Units", None, "units: not_nullable"),
        ("Units", -1, "units: greater_than_or_equal_to(0)"),
        ("Units", 10**30, "type:units"),
        ("Day", "31/12/2020", "type:date"),
        ("Day", 20200101, "type:date"),
        ("Day", "2262-12-31", "type:date"),
        ("Kind", "other", "kind: isin(['base', 'peak'])"),
        ("Land", "Nowhere", "country: str_length(3)"),
    ],
)
def test_a_broken_rule_quarantines_that_record_alone_under_its_name(
    column: str, value: Any, rule: str
) -> None:
    result = check(damaged(2, column, value))
    assert result.quarantine["_rules"].tolist() == [rule]
    assert dict(result.broken) == {rule: 1}
    assert len(result.accepted) == 4
    assert result.quarantine["_source_line"].tolist() == [3]
    assert result.rejected_share == pytest.approx(0.2)


def test_every_broken_rule_of_a_record_is_named() -> None:
    frame = raw().astype({"Units": "object", "Price": "object"})
    frame.loc[1, ["Price", "Units", "Kind"]] = [7000, "many", "other"]
    result = check(frame)
    assert set(result.quarantine["_rules"].iloc[0].split("; ")) == {
        "type:units",
        "price: in_range(-1000, 5000)",
        "kind: isin(['base', 'peak'])",
        "cheap_when_none",
    }


def test_a_missing_and_an_absurd_value_of_one_record_are_two_rules() -> None:
    frame = raw().astype("object")
    frame.loc[2, ["Land", "Price"]] = [None, 9999.0]
    assert dict(check(frame).broken) == {
        "country: not_nullable": 1,
        "price: in_range(-1000, 5000)": 1,
    }


def test_quarantine_shows_the_values_as_they_were_found() -> None:
    frame = damaged(0, "Price", "12,5 EUR")
    found = check(frame).quarantine.iloc[0]
    assert found["price"] == "12,5 EUR"
    assert found["units"] == "1"
    assert found["_source_file"] == "a.csv"


def test_numbers_in_text_are_read_whatever_column_type_the_reader_found() -> None:
    frame = raw().assign(
        Price=lambda f: " " + f["Price"].astype(str), Units=lambda f: f["Units"] * 1.0
    )
    pd.testing.assert_frame_equal(check(frame).accepted, check(raw()).accepted)


def test_times_with_a_zone_become_utc() -> None:
    frame = damaged(0, "Day", "2024-01-01T01:00:00+01:00")
    assert check(frame).accepted["date"].iloc[0] == pd.Timestamp("2024-01-01")
    zoned = raw().assign(Day=lambda f: pd.to_datetime(f["Day"]).dt.tz_localize("Europe/Berlin"))
    assert check(zoned).accepted["date"].iloc[0] == pd.Timestamp("2023-12-31 23:00")


def test_a_missing_column_quarantines_every_record_and_says_which() -> None:
    result = check(raw().drop(columns=["Price", "Kind"]))
    assert result.missing_columns == ("Price", "Kind")
    assert dict(result.broken) == {"column_missing:Kind": 5, "column_missing:Price": 5}
    assert result.accepted.empty
    assert list(result.accepted.columns) == ["country", "date", "price", "units", "kind"]
    assert result.rejected_share == 1


def test_a_column_without_a_value_is_named() -> None:
    assert check(raw().assign(Kind=None)).empty_columns == ("kind",)


def test_the_newest_record_of_a_key_is_kept() -> None:
    old, new = raw(), raw(2).assign(Price=[100.0, 1.5], _source_file="b.csv")
    new["_ingested_at"] += pd.Timedelta(days=1)
    result = check(pd.concat([new, old]))
    assert result.accepted["price"].tolist() == [100.0, 1.5, 2.5, 3.5, 4.5]
    assert (result.duplicates, result.conflicts) == (2, 1)


def test_at_one_ingestion_the_later_file_and_then_the_later_line_is_newer() -> None:
    first, second = raw(1), raw(1).assign(_source_line=2, Price=9.0)
    other = raw(1).assign(_source_file="0.csv", _source_line=3, Price=8.0)
    assert check(pd.concat([second, first, other])).accepted["price"].tolist() == [9.0]


def test_a_rejected_record_does_not_replace_a_good_older_one() -> None:
    bad = raw(1).assign(Price=99999.0)
    bad["_ingested_at"] += pd.Timedelta(days=1)
    result = check(pd.concat([raw(1), bad]))
    assert result.accepted["price"].tolist() == [0.5]
    assert (result.rejected, result.duplicates) == (1, 0)


def test_aliases_count_as_the_country_they_stand_for() -> None:
    frame = pd.concat([raw(3), raw(3, "DE").assign(Price=7.0, _source_line=9)])
    result = check(frame, DE="DEU")
    assert result.accepted["country"].unique().tolist() == ["DEU"]
    assert (result.duplicates, result.conflicts) == (3, 3)


def test_the_order_of_delivery_does_not_matter() -> None:
    frame = pd.concat([raw(), damaged(0, "Price", "x"), raw(2).assign(Price=3.0, _source_line=7)])
    shuffled = frame.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(check(frame).accepted, check(shuffled).accepted)


def test_an_empty_delivery_is_valid() -> None:
    result = check(raw().iloc[:0])
    assert result.rejected_share == 0
    assert list(result.accepted.columns) == list(SOURCE.columns)
    assert result.empty_columns == ()


def test_a_contract_without_a_column_of_the_source_is_a_configuration_error() -> None:
    class Short(pa.DataFrameModel):
        country: str

    with pytest.raises(ConfigurationError, match=r"date, price, units, kind, which the contract"):
        validate(raw(), Short, SOURCE, NAMES)


def test_a_parser_of_the_contract_that_raises_is_a_configuration_error() -> None:
    class Raising(Prices):
        @pa.dataframe_parser
        def explode(cls, frame: pd.DataFrame) -> pd.DataFrame:
            raise ValueError("boom")

    with pytest.raises(ConfigurationError, match="ValueError: boom"):
        validate(raw(), Raising, SOURCE, NAMES)


def test_unusual_types_of_a_contract_are_kept() -> None:
    class Unusual(Prices):
        units: pd.Int64Dtype = pa.Field(nullable=True)  # pyright: ignore[reportIncompatibleVariableOverride]
        kind: pd.CategoricalDtype = pa.Field(nullable=True)  # pyright: ignore[reportIncompatibleVariableOverride]

    frame = damaged(1, "Units", None)
    result = validate(frame, Unusual, SOURCE, NAMES)
    assert str(result.accepted["units"].dtype) == "Int64"
    assert str(result.accepted["kind"].dtype) == "category"
    assert result.rejected == 0


def test_describe_gives_every_column_with_its_constraints() -> None:
    docs = {doc.name: doc for doc in describe_columns(Prices)}
    assert list(docs) == ["country", "date", "price", "units", "kind"]
    assert docs["country"].description == "code"
    assert docs["price"].constraints == ("in_range(-1000, 5000)",)
    assert docs["kind"].nullable
    assert docs["units"].dtype == "int64"


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.dates().map(str),
    st.datetimes(),
    st.binary(max_size=3),
    st.decimals(allow_nan=False),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
    st.just(pd.NaT),
    st.just(np.datetime64("NaT")),
    st.just(pd.NA),
)


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    damage=st.lists(
        st.tuples(
            st.integers(0, 5), st.sampled_from(["Land", "Day", "Price", "Units", "Kind"]), VALUES
        ),
        max_size=12,
    ),
    dropped=st.sets(st.sampled_from(["Land", "Day", "Price", "Units", "Kind"]), max_size=2),
)
def test_no_damage_makes_validation_raise_or_lose_a_record(
    damage: list[tuple[int, str, Any]], dropped: set[str]
) -> None:
    frame = raw(6).astype("object")
    for place, column, value in damage:
        frame.at[place, column] = value
    result = check(frame.drop(columns=sorted(dropped)))
    assert result.accepted["price"].between(-1000, 5000).all()
    assert result.accepted["units"].ge(0).all()
    assert not result.accepted.duplicated(SOURCE.key).any()
    assert result.quarantine["_rules"].ne("").all()
    assert sum(result.broken.values()) >= result.rejected


def test_ten_thousand_records_take_less_than_a_fifth_of_a_second() -> None:
    frame = raw(10_000)
    frame["Units"] = 1
    validate(frame, Prices, SOURCE, NAMES)
    start = time.process_time()
    check(frame)
    assert time.process_time() - start < 0.2


class _Plain(pa.DataFrameModel):
    country: str
    date: pd.Timestamp
    price: float = pa.Field(nullable=True)
    units: int
    kind: str = pa.Field(nullable=True)


def contract_with(answer: Callable[[Any], Any], column: str | None) -> type[pa.DataFrameModel]:
    """The contract with one check more, of a column or (None) of the whole table."""

    def own(cls: type, values: Any) -> Any:
        return answer(values)

    check = pa.check(column)(own) if column else pa.dataframe_check(own)
    return type("Own", (_Plain,), {"__annotations__": {}, "own": check})


def fail(values: object) -> object:
    raise ValueError("no rate for XAU")


@pytest.mark.parametrize(
    ("answer", "column", "said"),
    [
        (fail, "price", 'the check `price: own` raised ValueError("no rate for XAU")'),
        (fail, None, 'the check `own` raised ValueError("no rate for XAU")'),
        (lambda f: f["colum"] > 0, None, 'the check `own` raised KeyError("colum")'),
        (lambda v: None, "price", "neither one truth value a row nor a single one"),
        (lambda f: None, None, "neither one truth value a row nor a single one"),
        (lambda v: "yes", "price", "neither one truth value a row nor a single one"),
        (lambda v: (v > 0).to_numpy(), "price", "neither one truth value a row"),
        (lambda v: [each > 0 for each in v], "price", "neither one truth value a row"),
        (lambda f: f[["price"]] > 0, None, "neither one truth value a row"),
        (lambda v: (v > 0).head(2), "price", "2 values for 5 rows"),
        (lambda v: (v > 0).reset_index(drop=True).rename(lambda i: i + 9), "price", "other rows"),
        (lambda v: v.astype(str), "price", "string values, not truth values"),
        (lambda v: v, "price", "floating values, not truth values"),
    ],
)
def test_a_check_that_cannot_answer_is_a_fault_of_the_contract_and_no_row_is_rejected(
    answer: Callable[[Any], Any], column: str | None, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"is at fault, not the data") as caught:
        validate(raw(), contract_with(answer, column), SOURCE, NAMES)
    assert said in str(caught.value)
    assert "no row was put into quarantine" in str(caught.value)
    assert caught.value.culprits["checks"] == [f"{column}: own" if column else "own"]


@pytest.mark.parametrize(
    ("answer", "column", "rejected"),
    [
        (lambda v: v > 1, "price", 1),
        (lambda v: (v > 1).astype("int64"), "price", 1),
        (lambda v: (v > 1).astype("boolean"), "price", 1),
        (lambda v: True, "price", 0),
        (lambda v: False, "price", 5),
        (lambda f: f["price"].fillna(9) > 1, None, 1),
        (lambda f: len(f) > 3, None, 0),
    ],
)
@pytest.mark.parametrize("gap", [False, True])
def test_a_check_that_answers_by_row_or_for_all_rejects_what_it_says(
    answer: Callable[[Any], Any], column: str | None, rejected: int, gap: bool
) -> None:
    records = raw()
    if gap:
        records.loc[4, "Price"] = np.nan
    found = validate(records, contract_with(answer, column), SOURCE, NAMES)
    assert found.rejected == rejected
    assert found.rows == len(found.accepted) + found.rejected


@pytest.mark.parametrize(
    "value", ["inf", "-inf", " Infinity ", "1e999", float("inf"), Decimal("-Infinity")]
)
def test_an_infinite_value_is_a_rejected_row_under_a_rule_of_its_own(value: Any) -> None:
    records = raw().astype({"Price": "object", "Units": "object"})
    records.loc[1, "Price"] = value
    records.loc[2, "Price"] = "dear"
    records.loc[3, "Units"] = value
    found = validate(records, Prices, SOURCE, NAMES)
    assert dict(found.broken) == {"infinite:price": 1, "infinite:units": 1, "type:price": 1}
    assert np.isfinite(found.accepted["price"]).all()
    assert len(found.accepted) == 2
