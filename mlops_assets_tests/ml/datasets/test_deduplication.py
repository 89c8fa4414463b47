from __future__ import annotations

from typing import Any

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.datasets.validation import DELIVERED, validate
from mlops_assets_tests.effort import examples
from mlops_assets_tests.ml.scenarios import NAMES, SOURCE, Prices

RECORDS = st.fixed_dictionaries(
    {
        "Land": st.sampled_from(["DEU", "FRA"]),
        "Day": st.sampled_from(["2024-01-01", "2024-01-02", " 2024-01-02", "2024-01-03T00:00Z"]),
        "Price": st.sampled_from([1.0, 2.0, None, 99999.0]),
        "Units": st.sampled_from([1, 2]),
        "Kind": st.sampled_from(["base", "peak", None]),
        DELIVERED: st.integers(0, 2),
        "_ingested_at": st.sampled_from([pd.Timestamp("2024-02-01"), pd.Timestamp("2024-02-02")]),
        "_source_file": st.sampled_from(["a.csv", "b.csv"]),
        "_source_line": st.integers(1, 3),
    }
)
ORDER = [DELIVERED, "_ingested_at", "_source_file", "_source_line"]
VALUES = ["Price", "Units", "Kind"]
Record = dict[str, Any]


def key(record: Record) -> tuple[str, str]:
    return str(record["Day"]).strip()[:10], record["Land"]


def is_good(record: Record) -> bool:
    return record["Price"] not in (None, 99999.0)


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=14))
def test_of_every_key_the_newest_good_record_is_kept_and_the_others_are_counted(
    records: list[Record],
) -> None:
    """The same rule in plain Python, a record at a time."""
    result = validate(pd.DataFrame(records), Prices, SOURCE, NAMES)
    good = sorted(filter(is_good, records), key=lambda record: [record[name] for name in ORDER])
    newest = {key(record): record for record in good}
    kept = [newest[each] for each in sorted(newest)]
    assert result.accepted["country"].tolist() == [record["Land"] for record in kept]
    for published, name in zip(VALUES, ["price", "units", "kind"], strict=True):
        assert result.accepted[name].tolist() == [record[published] for record in kept]
    assert result.duplicates == len(good) - len(kept)
    assert result.conflicts == sum(
        any(record[name] != newest[key(record)][name] for name in VALUES) for record in good
    )


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=14))
def test_a_rejected_record_is_corrected_when_a_later_delivery_has_a_good_one_of_its_key(
    records: list[Record],
) -> None:
    result = validate(pd.DataFrame(records), Prices, SOURCE, NAMES)
    last_good: dict[tuple[str, str], int] = {}
    for record in filter(is_good, records):
        last_good[key(record)] = max(record[DELIVERED], last_good.get(key(record), -1))
    bad = [record for record in records if not is_good(record)]
    assert result.rejected == len(bad)
    assert result.corrected == sum(
        last_good.get(key(record), -1) > record[DELIVERED] for record in bad
    )


KEYED = SOURCE.model_copy(update={"key": ["country", "date", "kind"]})


def kind_key(record: Record) -> tuple[str, str, str | None]:
    return (*key(record), record["Kind"])


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=14))
def test_a_key_of_which_a_part_is_empty_is_a_key_like_any_other(records: list[Record]) -> None:
    result = validate(pd.DataFrame(records), Prices, KEYED, NAMES)
    newest: dict[tuple[str, str, str | None], Record] = {}
    last_good: dict[tuple[str, str, str | None], int] = {}
    good = sorted(filter(is_good, records), key=lambda record: [record[name] for name in ORDER])
    for record in good:
        newest[kind_key(record)] = record
        last_good[kind_key(record)] = max(record[DELIVERED], last_good.get(kind_key(record), -1))
    assert len(result.accepted) == len(newest)
    assert result.duplicates == len(good) - len(newest)
    assert result.conflicts == sum(
        any(record[name] != newest[kind_key(record)][name] for name in VALUES) for record in good
    )
    assert result.corrected == sum(
        last_good.get(kind_key(record), -1) > record[DELIVERED]
        for record in records
        if not is_good(record)
    )
