"""Data that can be trusted: every record is accounted for, restated history is told, kept, used."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.components.loading import load_product
from mlops_assets.components.scaffold import new_product
from mlops_assets.errors import StorageError
from mlops_assets.ml.datasets.validation import validate
from mlops_assets.product import Product
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.datasets.ingestion import Ingestion, deliveries_of, ingest, live_rows
from mlops_assets.stages.datasets.quarantine import RELEASE_REASON, RELEASED_BY, quarantined
from mlops_assets.storage import SnapshotStore
from mlops_assets_tests.effort import examples
from mlops_assets_tests.pipeline.test_outcomes import (
    CHAIN,
    COUNTRY,
    OTHER,
    TO_FEATURES,
    VALUE,
    later,
    only,
)
from mlops_assets_tests.platform import Platform, checks, failures, generated, made, rebuilt, settle

DATASETS = ["raw", "validated", "quarantine"]
LEDGERS = ("raw.ledger", "validated.ledger")


def facts(check: Any) -> dict[str, str]:
    """The table of what and value of a ledger check."""
    return {row.data["what"]: row.data["value"] for row in check.metadata["ledger"].records}


def balanced(platform: Platform, country: str) -> bool:
    """Counted by hand: a raw row is in one of the places, and in one only."""
    raw = platform.frame("raw", country)
    live = live_rows(raw)
    rejected = set(_where(platform.frame("quarantine", country)))
    keys = live[~pd.Series(_where(live), index=live.index).isin(rejected)]
    kept = keys[["Country", "Date"]].drop_duplicates()
    return len(kept) == len(platform.frame("validated", country))


def _where(rows: pd.DataFrame) -> list[tuple[str, int]]:
    return list(zip(rows["_source_hash"], rows["_source_line"], strict=True))


def test_the_ledger_says_where_every_row_is(platform: Platform, sample: pd.DataFrame) -> None:
    mine = sample.index[sample["Country"] == COUNTRY]
    sample.loc[mine[:3], VALUE] = -5.0
    twice = sample.loc[mine[10:14]]
    platform.deliver(pd.concat([sample, twice], ignore_index=True))
    result = platform.run(COUNTRY, assets=DATASETS)
    assert result.success, failures(result)
    found = checks(result)
    assert all(found[name].passed for name in LEDGERS)
    total = len(mine) + 4
    assert found["validated.ledger"].description == (
        f"{total:,} raw = {len(mine) - 3:,} validated + 3 quarantine + 4 duplicates"
    )
    (row,) = found["raw.ledger"].metadata["countries"].records
    assert row.data == {
        "country": COUNTRY, "read": total, "new_in_raw": total, "in_raw_before": 0, "replaced": 0,
        "all_in_raw": total,
    }  # fmt: skip
    assert balanced(platform, COUNTRY)


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_refused_delivery_is_in_the_ledger_too(platform: Platform, sample: pd.DataFrame) -> None:
    mine = sample.index[sample["Country"] == COUNTRY]
    sample.loc[mine[:100], VALUE] = -5.0
    platform.deliver(sample)
    result = platform.run(COUNTRY, assets=DATASETS)
    assert not result.success
    ledger = checks(result)["validated.ledger"]
    assert ledger.passed
    assert facts(ledger)["held back (delivery refused, or not known yet)"] == str(len(mine) - 100)
    assert facts(ledger)["quarantine"] == "100"


def test_a_changed_file_is_a_new_version_of_its_rows(ran: Platform, sample: pd.DataFrame) -> None:
    before = ran.frame("validated", COUNTRY)
    restated = sample.copy()
    mine = restated.index[restated["Country"] == COUNTRY]
    restated[VALUE] += 100.0 * (restated.index == mine[5])
    restated = restated.drop(index=mine[-2:])
    ran.deliver(restated)
    result = ran.run(COUNTRY, assets=TO_FEATURES)
    assert result.success, failures(result)
    assert made(result) == TO_FEATURES
    raw, now = ran.frame("raw", COUNTRY), ran.frame("validated", COUNTRY)
    assert len(raw) == len(mine) + 1, "both versions of the changed row are kept"
    assert raw["_replaced_at"].notna().sum() == 3
    assert len(now) == len(before) - 2, "withdrawn days are no longer used"
    assert now["demand"].iloc[5] == before["demand"].iloc[5] + 100.0
    found = checks(result)
    assert found["validated.ledger"].passed
    assert (
        facts(found["validated.ledger"])["duplicates: replaced by a newer version of their file"]
        == "3"
    )
    check = found["validated.restated_history"]
    assert (check.passed, check.severity.value, check.partition) == (False, "WARN", COUNTRY)
    assert (check.metadata["changed"].value, check.metadata["withdrawn"].value) == (1, 2)
    log = ran.store.read_log(("parcels", "restatements"), COUNTRY)
    assert log[["period", "column", "rows", "withdrawn"]].to_numpy().tolist() == [
        ["2023-01", "demand", 1, 0],
        ["2024-12", "", 0, 2],
    ]
    assert log["largest_change"].iloc[0] == 100.0


def test_a_file_that_grew_costs_just_its_new_rows(platform: Platform, sample: pd.DataFrame) -> None:
    mine = only(sample, COUNTRY)
    platform.deliver(sample)
    platform.run(COUNTRY, assets=DATASETS)
    platform.deliver(pd.concat([sample, later(sample)], ignore_index=True))
    result = platform.run(COUNTRY, assets=DATASETS)
    assert result.success, failures(result)
    raw = platform.frame("raw", COUNTRY)
    assert len(raw) == len(mine) + 10
    assert raw["_replaced_at"].isna().all()
    (row,) = checks(result)["raw.ledger"].metadata["countries"].records
    assert (row.data["read"], row.data["new_in_raw"]) == (len(mine) + 10, 10)
    assert checks(result)["validated.restated_history"].passed


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_new_version_leaves_a_country_whose_rows_it_repeats_as_it_was(
    platform: Platform, sample: pd.DataFrame
) -> None:
    platform.deliver(sample)
    platform.run_range("DEU", "NOR")
    before = {country: platform.version("raw", country) for country in (COUNTRY, OTHER)}
    rows = sample.index[sample["Country"] == OTHER]
    shuffled = pd.concat([sample[sample["Country"] == COUNTRY].sample(frac=1, random_state=1),
                          sample[sample["Country"] != COUNTRY]])  # fmt: skip
    platform.deliver(shuffled.drop(index=rows[-1:]))
    result = platform.run_range("DEU", "NOR")
    assert result.success, failures(result)
    assert platform.version("raw", COUNTRY) == before[COUNTRY]
    assert platform.version("raw", OTHER) != before[OTHER]


def test_the_training_set_of_a_model_stays_as_it_was_when_history_is_restated(
    ran: Platform, sample: pd.DataFrame
) -> None:
    trained_on = ran.store.current(("parcels", "features"), COUNTRY)
    assert trained_on is not None
    rows = ran.frame("features", COUNTRY)
    ran.deliver(sample.assign(**{VALUE: sample[VALUE] + 1}))
    assert ran.run(COUNTRY, assets=TO_FEATURES).success
    kept = ran.store.read(("parcels", "features"), COUNTRY, version=trained_on.version)
    pd.testing.assert_frame_equal(kept, rows)
    assert not ran.frame("features", COUNTRY).equals(rows)


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_file_changed_back_brings_its_first_rows_back(
    platform: Platform, sample: pd.DataFrame
) -> None:
    platform.deliver(sample)
    platform.run(COUNTRY, assets=DATASETS)
    first = platform.frame("validated", COUNTRY)
    platform.deliver(sample.assign(**{VALUE: sample[VALUE] + 1}))
    platform.run(COUNTRY, assets=DATASETS)
    platform.deliver(sample)
    result = platform.run(COUNTRY, assets=DATASETS)
    assert result.success, failures(result)
    assert len(platform.frame("raw", COUNTRY)) == 3 * len(first)
    pd.testing.assert_frame_equal(platform.frame("validated", COUNTRY), first)
    assert checks(result)["validated.ledger"].passed


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_file_that_was_moved_away_to_make_room_for_the_next_one_keeps_its_rows(
    platform: Platform, sample: pd.DataFrame
) -> None:
    platform.deliver(sample, "current.parquet")
    assert platform.run(COUNTRY, assets=DATASETS).success
    (platform.landing / "current.parquet").rename(platform.landing / "archived.parquet")
    platform.deliver(later(sample), "current.parquet")
    result = platform.run(COUNTRY, assets=DATASETS)
    assert result.success, failures(result)
    mine = len(only(sample, COUNTRY))
    assert len(platform.frame("validated", COUNTRY)) == mine + 10
    assert len(platform.frame("raw", COUNTRY)) == mine + 10


def test_a_new_version_without_rows_of_a_country_does_not_empty_it(
    ran: Platform, sample: pd.DataFrame
) -> None:
    before = ran.version("validated", COUNTRY)
    ran.deliver(sample[sample["Country"] != COUNTRY])
    result = ran.run(COUNTRY)
    assert not result.success
    assert "no rows that keep the contract" in failures(result)
    assert ran.version("validated", COUNTRY) == before


def test_a_full_delivery_replaces_every_earlier_file(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform(("  source:\n", "  source:\n    delivery: full\n"))
    sample = generated(platform)
    platform.deliver(sample, "dump-1.parquet")
    platform.run(COUNTRY, assets=DATASETS)
    platform.deliver(
        sample.drop(index=sample.index[sample["Country"] == COUNTRY][:3]), "dump-2.parquet"
    )
    result = platform.run(COUNTRY, assets=DATASETS)
    assert result.success, failures(result)
    assert len(platform.frame("validated", COUNTRY)) == len(only(sample, COUNTRY)) - 3
    assert checks(result)["validated.restated_history"].metadata["withdrawn"].value == 3


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_the_order_in_which_files_arrive_does_not_matter(
    make_platform: Callable[..., Platform], platform: Platform, sample: pd.DataFrame
) -> None:
    parts = {f"part-{i}.parquet": sample.iloc[i::3] for i in range(3)}
    for name, part in parts.items():
        platform.deliver(part, name)
        platform.run(COUNTRY, assets=DATASETS)
    in_order = platform.frame("validated", COUNTRY)
    for file in platform.landing.iterdir():
        file.unlink()
    store = SnapshotStore(str(platform.home / "other"))
    for name, part in reversed(parts.items()):
        platform.deliver(part, name)
        ingest(ProductContext(platform.product, store), [COUNTRY], str(platform.landing), run_id="")
    raw = store.read(("parcels", "raw"), COUNTRY)
    spec = platform.product.resolved(COUNTRY)
    result = validate(raw, platform.product.contract(), spec.source, spec.country_names)
    pd.testing.assert_frame_equal(result.accepted, in_order)


def test_a_bad_delivery_cannot_hide_behind_a_long_history(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform(("max_rejected_share: 0.05", "max_rejected_share: 0.2"))
    sample = generated(platform)
    platform.deliver(sample)
    assert platform.run(COUNTRY, assets=DATASETS).success
    bad = only(later(sample, 40), COUNTRY)
    bad.loc[:19, VALUE] = -1.0
    platform.deliver(bad, "second.parquet")
    result = platform.run(COUNTRY, assets=DATASETS)
    assert not result.success
    assert "20 of 40 rows delivered since the last good data (50.0%)" in failures(result)
    assert len(platform.frame("validated", COUNTRY)) == len(only(sample, COUNTRY))


@pytest.mark.parametrize(
    "name",
    [
        # Nightly: the sensor asks for one of the same name, in test_landing.py.
        pytest.param("second.parquet", marks=pytest.mark.nightly),
        "third.parquet",
    ],
)
def test_a_corrected_delivery_under_the_same_or_another_name_goes_on(
    platform: Platform, sample: pd.DataFrame, name: str
) -> None:
    platform.deliver(sample)
    assert platform.run(COUNTRY, assets=DATASETS).success
    good = only(later(sample, 40), COUNTRY)
    platform.deliver(good.assign(**{VALUE: -1.0}), "second.parquet")
    assert not platform.run(COUNTRY, assets=DATASETS).success
    platform.deliver(good, name)
    result = platform.run(COUNTRY, assets=DATASETS)
    assert result.success, failures(result)
    assert len(platform.frame("validated", COUNTRY)) == len(only(sample, COUNTRY)) + 40
    assert len(platform.frame("quarantine", COUNTRY)) == (0 if name == "second.parquet" else 40)
    assert checks(result)["validated.ledger"].passed


def test_limits_of_nulls_volume_and_age_warn_for_their_country_alone(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform(
        ("max_rejected_share: 0.05", "max_rejected_share: 0.05\n    max_age: 1d"),
        contract=("demand: float = pa.Field(", "demand: float = pa.Field(nullable=True, "),
    )
    yaml = platform.product.folder / "defs.yaml"
    override = f"    {COUNTRY}: {{contract: {{max_null_share: {{demand: 0.001}}}}}}"
    yaml.write_text(f"{yaml.read_text().rstrip()}\n{override}\n")
    platform = rebuilt(platform)
    sample = generated(platform)
    sample.loc[sample.groupby("Country").head(2).index, VALUE] = None
    platform.deliver(sample)
    for country, passes in ((COUNTRY, False), (OTHER, True)):
        result = platform.run(country, assets=DATASETS)
        assert result.success, failures(result)
        found = checks(result)
        assert found["validated.null_shares"].passed is passes
        assert found["validated.null_shares"].partition == country
        assert (found["validated.freshness"].passed, found["validated.volume"].passed) == (
            False,
            True,
        )


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_delivery_much_smaller_than_usual_warns(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform(
        ("max_rejected_share: 0.05", "max_rejected_share: 0.05\n    min_volume_ratio: 0.5")
    )
    mine = only(generated(platform), COUNTRY)
    for number in range(6):
        platform.deliver(mine.iloc[number * 20 : (number + 1) * 20], f"{number}.parquet")
        usual = platform.run(COUNTRY, assets=DATASETS)
        assert checks(usual)["validated.volume"].passed
    platform.deliver(mine.iloc[200:203], "small.parquet")
    small = checks(platform.run(COUNTRY, assets=DATASETS))["validated.volume"]
    assert (small.passed, small.severity.value) == (False, "WARN")
    assert small.metadata["rows"].value == 3


def test_the_failing_cases_are_in_the_metadata_of_the_contract_check(
    platform: Platform, sample: pd.DataFrame
) -> None:
    row = sample.index[sample["Country"] == COUNTRY][7]
    sample.loc[row, VALUE] = -7.5
    platform.deliver(sample)
    result = platform.run(COUNTRY, assets=DATASETS)
    (case,) = checks(result)["validated.contract"].metadata["failing_cases"].records
    assert case.data["value"] == "-7.5"
    assert case.data["where"] == f"delivery.parquet, record {row + 1}"
    assert "demand" in str(case.data["rule"])


def test_rows_leave_quarantine_when_the_contract_is_corrected_and_the_release_is_recorded(
    platform: Platform, sample: pd.DataFrame
) -> None:
    mine = sample.index[sample["Country"] == COUNTRY]
    sample.loc[mine[:4], VALUE] = 0.0
    sample.loc[mine[4], VALUE] = -1.0
    contract = platform.product.folder / "contract.py"
    strict = contract.read_text()
    assert "ge=0" in strict
    contract.write_text(strict.replace("ge=0", "gt=0"))
    platform = rebuilt(platform)
    platform.deliver(sample)
    assert platform.run(COUNTRY, assets=DATASETS).success
    state = quarantined(platform.context.country(COUNTRY))
    assert state is not None
    assert (state.rows, state.releasable) == (5, 0)
    contract.write_text(strict)
    platform = rebuilt(platform)
    state = quarantined(platform.context.country(COUNTRY))
    assert state is not None
    assert state.releasable == 4
    result = platform.run(
        COUNTRY, assets=DATASETS, tags={RELEASED_BY: "ada", RELEASE_REASON: "0 is a quiet day"}
    )
    assert result.success, failures(result)
    (release,) = platform.store.read_log(("parcels", "releases"), COUNTRY).to_dict("records")
    assert (release["rows"], release["released_by"]) == (4, "ada")
    assert release["reason"] == "0 is a quiet day"
    assert release["contract_before"] != release["contract_now"]
    assert len(platform.frame("quarantine", COUNTRY)) == 1
    check = checks(result)["validated.restated_history"]
    assert check.passed, "the source restated nothing"


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_rows_released_from_a_delivery_that_was_refused_whole_are_recorded_too(
    platform: Platform, sample: pd.DataFrame
) -> None:
    mine = sample.index[sample["Country"] == COUNTRY]
    sample.loc[mine[:100], VALUE] = 0.0
    contract = platform.product.folder / "contract.py"
    strict = contract.read_text()
    contract.write_text(strict.replace("ge=0", "gt=0"))
    platform = rebuilt(platform)
    platform.deliver(sample)
    assert not platform.run(COUNTRY, assets=DATASETS).success
    contract.write_text(strict)
    platform = rebuilt(platform)
    tags = {RELEASED_BY: "ada", RELEASE_REASON: "0 is a quiet day"}
    result = platform.run(COUNTRY, assets=DATASETS, tags=tags)
    assert result.success, failures(result)
    (release,) = platform.store.read_log(("parcels", "releases"), COUNTRY).to_dict("records")
    assert (release["rows"], release["released_by"]) == (100, "ada")
    assert release["contract_before"] not in ("", release["contract_now"])
    assert len(platform.frame("validated", COUNTRY)) == len(mine)


def test_a_file_that_is_still_growing_waits_and_is_told(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform(("  source:\n", "  source:\n    settle_seconds: 3600\n"))
    sample = generated(platform)
    platform.deliver(sample)
    settle(*[file for _ in range(70) for file in platform.landing.iterdir()])
    growing = platform.landing / "growing.csv"
    only(later(sample), COUNTRY).to_csv(growing, index=False)
    result = platform.run(COUNTRY, assets=DATASETS)
    assert result.success, failures(result)
    check = checks(result)["raw.files_readable"]
    assert (check.passed, check.severity.value) == (False, "WARN")
    assert check.metadata["waiting"].value == ["growing.csv"]
    assert len(platform.frame("raw", COUNTRY)) == len(only(sample, COUNTRY))
    settle(*[growing for _ in range(70)])
    platform.run(COUNTRY, assets=DATASETS)
    assert len(platform.frame("raw", COUNTRY)) == len(only(sample, COUNTRY)) + 10


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_what_was_stored_can_be_read_as_of_any_time(
    platform: Platform, sample: pd.DataFrame
) -> None:
    platform.deliver(sample)
    platform.run(COUNTRY, assets=DATASETS)
    asset = ("parcels", "validated")
    first = platform.store.current(asset, COUNTRY)
    assert first is not None
    before = platform.frame("validated", COUNTRY)
    platform.deliver(later(sample), "second.parquet")
    platform.run(COUNTRY, assets=DATASETS)
    then = platform.store.read(asset, COUNTRY, as_of=first.created_at)
    pd.testing.assert_frame_equal(then, before)
    assert len(platform.frame("validated", COUNTRY)) == len(before) + 10


def test_one_country_that_cannot_be_written_keeps_the_others_from_nothing(
    platform: Platform, sample: pd.DataFrame
) -> None:
    platform.deliver(sample)
    folder = platform.home / "store" / "parcels" / "raw"
    folder.mkdir(parents=True)
    (folder / f"country={COUNTRY}").write_text("a file where the folder should be")
    result = platform.run_range("DEU", "NOR")
    assert not result.success
    assert COUNTRY in failures(result)
    assert platform.materialized("raw") == {"DEU", "NOR"}


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    return load_product(new_product("parcels", tmp_path_factory.mktemp("defs")))


kinds = st.sampled_from(["good", "bad", "twice", "stranger", "nameless"])


@settings(
    max_examples=examples(25),
    deadline=None,
)
@given(
    files=st.lists(
        st.tuples(
            st.sampled_from(["a.csv", "b.csv", "c.jsonl", "d.parquet"]),
            st.lists(st.tuples(kinds, st.sampled_from(["DEU", "FRA", "NOR"]), st.integers(0, 40)),
                     max_size=25),
        ),
        min_size=1,
        max_size=5,
    )
)  # fmt: skip
def test_the_ledger_balances_for_every_country_and_ingestion_of_any_files(
    product: Product, files: list[tuple[str, list[tuple[str, str, int]]]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, landing = SnapshotStore(f"{folder}/store"), Path(folder) / "landing"
        landing.mkdir()
        countries = list(product.spec.countries)
        standing: Standing = {}
        for name, records in files:
            _write(landing / name, records)
            taken = ingest(ProductContext(product, store), countries, str(landing), run_id="")
            assert not taken.refused
            if name not in taken.problems:  # what was set aside leaves its earlier version
                standing[name] = (landing / name).read_bytes(), _rows_of(landing / name)
            _require_balance(taken, store, standing)
        for country in countries:
            _require_validated_balance(product, store, country)


def _write(file: Path, records: list[tuple[str, str, int]]) -> None:
    rows = [
        {
            "Country": {"stranger": "XXX", "nameless": None}.get(kind, country),
            "Date": str((pd.Timestamp("2024-01-01") + pd.Timedelta(days=day)).date()),
            VALUE: -1.0 if kind == "bad" else float(day),
        }
        for kind, country, day in records
        for _ in range(2 if kind == "twice" else 1)
    ]
    frame = pd.DataFrame(rows, columns=["Country", "Date", VALUE])
    if file.suffix == ".csv":
        frame.to_csv(file, index=False)
    elif file.suffix == ".jsonl":
        frame.to_json(file, orient="records", lines=True)
    else:
        frame.to_parquet(file)
    settle(file)


Standing = dict[str, tuple[bytes, dict[str, int]]]
"""Name of a file: the content that was taken last, and its rows by country, read by pandas."""


def _require_balance(taken: Ingestion, store: SnapshotStore, standing: Standing) -> None:
    """Rows of the files, read by pandas, are the rows that stand in raw."""
    expected: dict[str, int] = {}
    for counts in dict(standing.values()).values():  # two files of one content are one delivery
        for country, rows in counts.items():
            expected[country] = expected.get(country, 0) + rows
    for country, delivery in taken.deliveries.items():
        raw = store.read(("parcels", "raw"), country)
        live = live_rows(raw)
        assert len(live) == expected.get(country, 0)
        assert delivery.read_rows >= delivery.new_rows >= 0
        assert len(raw) == sum(d.appended for d in deliveries_of(delivery.snapshot))


def _rows_of(file: Path) -> dict[str, int]:
    if file.suffix == ".csv":
        frame = pd.read_csv(file)
    elif file.suffix == ".jsonl":
        frame = pd.read_json(file, lines=True)
    else:
        frame = pd.read_parquet(file)
    counts = {} if frame.empty else frame["Country"].value_counts().to_dict()
    return {str(country): int(rows) for country, rows in counts.items()}


def _require_validated_balance(product: Product, store: SnapshotStore, country: str) -> None:
    raw = store.current(("parcels", "raw"), country)
    if raw is None:
        return
    spec, rows = product.resolved(country), store.read(("parcels", "raw"), country)
    live = live_rows(rows)
    result = validate(live, product.contract(), spec.source, spec.country_names)
    replaced = len(rows) - len(live)
    parts = len(result.accepted) + len(result.quarantine) + result.duplicates + replaced
    assert parts == len(rows)


def test_an_asset_that_was_never_stored_says_so(platform: Platform) -> None:
    with pytest.raises(StorageError, match="Materialize"):
        platform.store.read(("parcels", "validated"), COUNTRY)


def test_unchanged_data_make_nothing_stale_and_write_nothing(
    ran: Platform,
) -> None:
    files = sorted(path.name for path in (ran.home / "store").rglob("*.parquet"))
    first = _data_versions(ran)
    again = ran.run(COUNTRY)
    assert again.success, failures(again)
    assert sorted(p.name for p in (ran.home / "store").rglob("*.parquet")) == files
    assert made(again) == CHAIN
    assert _data_versions(ran) == first


def _data_versions(platform: Platform) -> dict[str, str]:
    """Those of the newest materializations."""
    newest = {
        name: platform.instance.get_latest_materialization_event(dg.AssetKey(["parcels", name]))
        for name in CHAIN
    }
    return {
        name: (event.asset_materialization.tags or {})["dagster/data_version"]
        for name, event in newest.items()
        if event and event.asset_materialization
    }
