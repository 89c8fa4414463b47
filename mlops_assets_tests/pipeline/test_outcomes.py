"""The table of outcomes: what a problem in one country costs, there and elsewhere.

Every test looks at what Dagster and the disk hold afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from mlops_assets.registry.models import CHALLENGER, registered_name
from mlops_assets_tests.platform import (
    Platform,
    checks,
    edit,
    failures,
    generated,
    made,
    rebuilt,
)

COUNTRY, OTHER = "FRA", "DEU"
CHAIN = [
    "raw",
    "quarantine",
    "validated",
    "features",
    "model",
    "champion",
    "predictions",
    "drift",
    "performance",
]
DATASETS = CHAIN[:3]
TO_FEATURES = CHAIN[:4]
"""As far as a record's fate shows: what follows is in the runs of the whole chain."""
VALUE = "Demand (parcels)"


def only(frame: pd.DataFrame, country: str) -> pd.DataFrame:
    return frame[frame["Country"] == country].reset_index(drop=True)


def later(frame: pd.DataFrame, days: int = 10) -> pd.DataFrame:
    """A second delivery: the last days again, some weeks later and so on the same weekdays."""
    tail = frame.groupby("Country").tail(days).copy()
    weeks = -(-days // 7)
    tail["Date"] = (pd.to_datetime(tail["Date"]) + pd.Timedelta(weeks=weeks)).dt.strftime(
        "%Y-%m-%d"
    )
    return tail.reset_index(drop=True)


def held(platform: Platform, country: str) -> dict[str, str | None]:
    return {name: platform.version(name, country) for name in CHAIN}


def test_a_country_goes_from_delivered_files_to_predictions_in_one_run(
    platform: Platform, sample: pd.DataFrame
) -> None:
    platform.deliver(sample)
    result = platform.run(COUNTRY)
    assert result.success, failures(result)
    assert made(result) == CHAIN
    predictions = platform.frame("predictions", COUNTRY)
    assert predictions["prediction"].notna().all()
    assert (predictions["event_time"] >= "2024-10-01").all()
    assert set(predictions["model_kind"]) == {"local"}
    champion = platform.registry.champion("parcels", COUNTRY)
    assert champion is not None
    assert set(predictions["model_version"]) == {champion.version}
    open_questions = [name for name, check in checks(result).items() if not check.passed]
    assert open_questions == ["model.coverage"], "the sample is too short to judge it"
    assert platform.store.current(("parcels", "raw"), OTHER) is None


def test_raw_is_the_rows_as_published_with_file_and_line(
    platform: Platform, sample: pd.DataFrame
) -> None:
    platform.deliver(sample)
    platform.run(COUNTRY, assets=["raw"])
    raw = platform.frame("raw", COUNTRY)
    expected = sample.reset_index(names="line").query("Country == @COUNTRY")
    assert raw[VALUE].tolist() == expected[VALUE].tolist()
    assert raw["_source_line"].tolist() == (expected["line"] + 1).tolist()
    assert set(raw["_source_file"]) == {"delivery.parquet"}
    assert platform.told("raw", COUNTRY)["mlops_assets/changed"] is True
    platform.run(COUNTRY, assets=["raw"])
    assert platform.told("raw", COUNTRY)["mlops_assets/changed"] is False


def test_some_bad_rows_go_to_quarantine_with_their_rules_and_the_good_ones_go_on(
    platform: Platform, sample: pd.DataFrame
) -> None:
    rows = sample.index[sample["Country"] == COUNTRY]
    sample.loc[rows[:3], VALUE] = -5.0
    platform.deliver(sample)
    result = platform.run(COUNTRY, assets=TO_FEATURES)
    assert result.success, failures(result)
    assert made(result) == TO_FEATURES
    contract = checks(result)["validated.contract"]
    assert (contract.passed, contract.severity.value) == (False, "WARN")
    assert contract.metadata["rejected"].value == 3
    quarantine = platform.frame("quarantine", COUNTRY)
    assert len(quarantine) == 3
    assert quarantine["_rules"].astype(str).str.contains("demand").all()
    assert quarantine["_source_line"].tolist() == [int(row) + 1 for row in rows[:3]]
    assert len(platform.frame("validated", COUNTRY)) == len(rows) - 3


def test_a_country_with_a_broken_contract_keeps_its_last_good_data_and_champion(
    ran: Platform, sample: pd.DataFrame
) -> None:
    before = held(ran, COUNTRY)
    broken = only(later(sample, 400), COUNTRY).assign(**{VALUE: -1.0})
    ran.deliver(broken, "second.parquet")
    result = ran.run(COUNTRY)
    assert not result.success
    assert made(result) == ["raw", "quarantine"]
    contract = checks(result)["validated.contract"]
    assert (contract.passed, contract.severity.value) == (False, "ERROR")
    assert contract.partition == COUNTRY
    after = held(ran, COUNTRY)
    kept = ("validated", "features", "model", "champion", "predictions")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert len(ran.frame("quarantine", COUNTRY)) == 400
    assert ran.status()[COUNTRY].state == "contract_broken"
    other = ran.run(OTHER, assets=TO_FEATURES)
    assert other.success, failures(other)
    assert made(other) == TO_FEATURES


@pytest.mark.parametrize("column", ["Date", VALUE])
def test_a_file_without_a_declared_column_is_set_aside_whole_and_says_which(
    ran: Platform, sample: pd.DataFrame, column: str
) -> None:
    before = ran.version("validated", COUNTRY)
    ran.deliver(sample.rename(columns={column: f"{column}s"}), "renamed.parquet")
    result = ran.run(COUNTRY, assets=TO_FEATURES)
    assert result.success, failures(result)
    told = str(checks(result)["raw.files_readable"].description)
    assert f"renamed.parquet: it has no column {column!r} (near: {column + 's'!r})" in told
    assert "Nothing of it was taken" in told
    assert ran.version("validated", COUNTRY) == before


def test_text_in_a_number_column_is_a_rejected_row_not_a_crash(
    platform: Platform, sample: pd.DataFrame
) -> None:
    sample[VALUE] = sample[VALUE].astype(str)
    row = sample.index[sample["Country"] == COUNTRY][5]
    sample.loc[row, VALUE] = "n/a!"
    platform.deliver(sample)
    result = platform.run(COUNTRY, assets=TO_FEATURES)
    assert result.success, failures(result)
    assert made(result) == TO_FEATURES
    quarantine = platform.frame("quarantine", COUNTRY)
    assert len(quarantine) == 1
    assert "n/a!" in quarantine.astype(str).to_string()


def test_no_new_rows_means_nothing_is_written_and_nothing_is_trained(ran: Platform) -> None:
    before = held(ran, COUNTRY)
    result = ran.run(COUNTRY)
    assert result.success, failures(result)
    assert held(ran, COUNTRY) == before
    assert "no new rows" in (checks(result)["validated.contract"].description or "")
    assert len(ran.decisions(COUNTRY)) == 1
    name = registered_name("parcels", COUNTRY)
    challenger = ran.registry.by_alias(name, CHALLENGER)
    assert challenger is not None
    assert challenger.version == "1"


def test_the_same_file_under_another_name_is_not_taken_twice(
    ran: Platform, sample: pd.DataFrame
) -> None:
    ran.deliver(sample, "again.parquet")
    ran.run(COUNTRY)
    assert len(ran.frame("raw", COUNTRY)) == len(only(sample, COUNTRY))


def test_new_rows_are_appended_and_lead_to_a_new_decision(
    ran: Platform, sample: pd.DataFrame
) -> None:
    ran.deliver(later(sample), "second.parquet")
    result = ran.run(COUNTRY)
    assert result.success, failures(result)
    assert len(ran.frame("raw", COUNTRY)) == len(only(sample, COUNTRY)) + 10
    decisions = ran.decisions(COUNTRY)
    assert len(decisions) == 2
    assert decisions["verdict"].iloc[0] == "promoted"
    assert decisions["champion_version"].iloc[1] == "1"


def test_too_few_rows_are_served_by_the_pooled_model_and_the_reason_says_how_many_are_needed(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform(("min_train_rows: 200", "min_train_rows: 5000"))
    platform.deliver(generated(platform))
    for country in (COUNTRY, OTHER):
        platform.run(country, assets=TO_FEATURES)
    pooled = platform.run(None, job="pooled")
    assert pooled.success, failures(pooled)
    result = platform.run(COUNTRY, assets=["model", "champion", "predictions"])
    assert result.success, failures(result)
    predictions = platform.frame("predictions", COUNTRY)
    assert set(predictions["model_kind"]) == {"pooled"}
    reason = predictions["reason"].iloc[0]
    assert "5000 training rows are needed" in reason


def test_too_few_rows_without_a_pooled_model_are_served_by_the_baseline(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform(("min_train_rows: 200", "min_train_rows: 5000"))
    platform.deliver(generated(platform))
    result = platform.run(COUNTRY)
    assert result.success, failures(result)
    gates = {name: check for name, check in checks(result).items() if name.startswith("model.")}
    assert {(check.passed, check.severity.value) for check in gates.values()} == {(False, "WARN")}
    predictions = platform.frame("predictions", COUNTRY)
    assert set(predictions["model_kind"]) == {"baseline"}
    assert platform.registry.champion("parcels", COUNTRY) is None
    assert platform.status()[COUNTRY].champion_kind == "baseline"


def test_a_candidate_that_does_not_beat_the_baseline_is_kept_and_the_champion_stays(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform(("min_improvement: 0.02", "min_improvement: 0.99"))
    platform.deliver(generated(platform))
    result = platform.run(COUNTRY)
    assert not result.success
    assert "champion" not in made(result)
    gate = checks(result)["model.beats_baseline"]
    assert (gate.passed, gate.severity.value, gate.partition) == (False, "ERROR", COUNTRY)
    assert platform.registry.champion("parcels", COUNTRY) is None
    challenger = platform.registry.by_alias(registered_name("parcels", COUNTRY), CHALLENGER)
    assert challenger is not None
    decision = platform.decisions(COUNTRY).iloc[0]
    assert decision["verdict"] == "kept"
    assert "beats_baseline" in decision["reason"]
    assert platform.status()[COUNTRY].state != "ok"
    again = platform.run(COUNTRY, job="predict", assets=["predictions"])
    assert again.success, failures(again)
    predictions = platform.frame("predictions", COUNTRY)
    assert set(predictions["model_kind"]) == {"baseline"}
    assert "beats_baseline" in predictions["reason"].iloc[0]


def test_an_unlisted_country_is_counted_by_name_and_touches_nobody(
    platform: Platform, sample: pd.DataFrame
) -> None:
    strangers = only(sample, COUNTRY).head(7).assign(Country="XXX")
    nameless = only(sample, COUNTRY).head(2).assign(Country=None)
    platform.deliver(pd.concat([sample, strangers, nameless], ignore_index=True))
    result = platform.run(COUNTRY, assets=TO_FEATURES)
    assert result.success, failures(result)
    assert made(result) == TO_FEATURES
    check = checks(result)["raw.unlisted_countries"]
    assert (check.passed, check.severity.value) == (False, "WARN")
    assert check.metadata["rows"].value == 9
    assert "XXX" in str(check.metadata["countries"].value)


def test_an_alias_is_resolved_to_its_country(platform: Platform, sample: pd.DataFrame) -> None:
    sample.loc[sample["Country"] == "NOR", "Country"] = "NO"
    platform.deliver(sample)
    result = platform.run("NOR", assets=DATASETS)
    assert result.success, failures(result)
    assert set(platform.frame("raw", "NOR")["Country"]) == {"NO"}
    assert set(platform.frame("validated", "NOR")["country"]) == {"NOR"}


def test_a_country_without_any_row_fails_alone_in_a_run_over_all(
    platform: Platform, sample: pd.DataFrame
) -> None:
    platform.deliver(sample[~sample["Country"].isin(["NOR", "NO"])])
    result = platform.run_range("DEU", "NOR")
    assert not result.success
    assert "NOR" in failures(result)
    assert platform.materialized("raw") == {"DEU", "FRA"}
    assert platform.version("raw", "DEU") is not None
    assert platform.status()["NOR"].state == "no_data"


def test_a_damaged_file_is_set_aside_and_the_others_are_taken(
    platform: Platform, sample: pd.DataFrame
) -> None:
    whole = platform.deliver(sample)
    (platform.landing / "cut.parquet").write_bytes(whole.read_bytes()[:900])
    (platform.landing / "empty.csv").write_bytes(b"")
    (platform.landing / "latin.csv").write_bytes("Country,Date\nCôte,1\n".encode("latin-1"))
    result = platform.run(COUNTRY, assets=TO_FEATURES)
    assert result.success, failures(result)
    assert made(result) == TO_FEATURES
    check = checks(result)["raw.files_readable"]
    assert (check.passed, check.severity.value) == (False, "WARN")
    assert set(check.metadata["set_aside"].value) == {"cut.parquet", "empty.csv", "latin.csv"}
    assert len(platform.frame("raw", COUNTRY)) == len(only(sample, COUNTRY))


def test_without_any_file_the_run_says_where_to_drop_one(platform: Platform) -> None:
    result = platform.run(COUNTRY)
    assert not result.success
    assert str(platform.landing) in failures(result)
    assert COUNTRY in failures(result)


def test_extra_columns_stay_in_raw_and_do_not_matter(
    platform: Platform, sample: pd.DataFrame
) -> None:
    platform.deliver(sample.assign(extra="x"))
    result = platform.run(COUNTRY, assets=TO_FEATURES)
    assert result.success, failures(result)
    assert made(result) == TO_FEATURES
    assert "extra" in platform.frame("raw", COUNTRY)
    assert "extra" not in platform.frame("validated", COUNTRY)


def test_of_two_values_for_one_key_the_newest_is_kept_and_the_other_counted(
    platform: Platform, sample: pd.DataFrame
) -> None:
    mine = only(sample, COUNTRY)
    changed = mine.head(4).assign(**{VALUE: 1234.0})
    platform.deliver(pd.concat([sample, changed], ignore_index=True))
    result = platform.run(COUNTRY, assets=TO_FEATURES)
    assert result.success, failures(result)
    assert made(result) == TO_FEATURES
    numbers = checks(result)["validated.contract"].metadata
    assert numbers["duplicates"].value == 4
    validated = platform.frame("validated", COUNTRY)
    assert len(validated) == len(mine)
    assert (validated.sort_values("date")["demand"].head(4) == 1234.0).all()


def test_a_constant_target_is_served_by_the_baseline_with_the_reason(
    platform: Platform, sample: pd.DataFrame
) -> None:
    sample.loc[sample["Country"] == COUNTRY, VALUE] = 700.0
    platform.deliver(sample)
    result = platform.run(COUNTRY)
    predictions = platform.frame("predictions", COUNTRY)
    assert result.success, failures(result)
    assert set(predictions["model_kind"]) == {"baseline"}
    assert (predictions["prediction"] == 700.0).all()
    assert "700" in predictions["reason"].iloc[0]


def test_a_country_with_a_single_row_gets_a_baseline_prediction(
    platform: Platform, sample: pd.DataFrame
) -> None:
    rest = sample[sample["Country"] != COUNTRY]
    platform.deliver(pd.concat([rest, only(sample, COUNTRY).tail(1)], ignore_index=True))
    result = platform.run(COUNTRY)
    predictions = platform.frame("predictions", COUNTRY) if result.success else None
    if predictions is None:  # one day has no earlier day: the rule has nothing to say, and says so
        assert "predictions are no number" in failures(result)
        assert platform.version("predictions", COUNTRY) is None
    else:
        assert len(predictions) == 1


# Nightly: `storage/test_keys.py` has any text; here it is a whole run each.
@pytest.mark.parametrize(
    "key",
    [
        "../Côte d'Ivoire, a:b",
        *(
            pytest.param(key, marks=pytest.mark.nightly)
            for key in ("../x", "a/b", 'quo"te', "100%", "日本")
        ),
    ],
)
def test_a_country_whose_name_is_a_path_stays_inside_the_storage_root(
    make_platform: Callable[..., Platform], key: str
) -> None:
    quoted = "'" + key.replace("'", "''") + "'"
    platform = make_platform(
        ("countries: [DEU, FRA, NOR]", f"countries: [DEU, {quoted}, NOR]"),
        contract=("str_length=3, ", ""),
    )
    platform.deliver(generated(platform).replace({"Country": {COUNTRY: key}}))
    begun = platform.run(key, assets=TO_FEATURES)
    assert begun.success, failures(begun)
    pooled = platform.run(None, job="pooled", assets=["pooled_model"])
    assert pooled.success, failures(pooled)
    result = platform.run(key)
    assert result.success, failures(result)
    assert len(platform.frame("predictions", key))
    champion = platform.registry.champion("parcels", key)
    assert champion is not None
    outside = [
        file
        for file in platform.home.parent.rglob("*.parquet")
        if not file.is_relative_to(platform.home)
    ]
    assert outside == []


def test_an_absurd_prediction_does_not_replace_the_last_good_ones(
    ran: Platform,
) -> None:
    before = ran.version("predictions", COUNTRY)
    assert before is not None
    edit(ran.product.folder / "defs.yaml", ("maximum: 100000", "maximum: 1"))
    platform = rebuilt(ran)
    result = platform.run(COUNTRY, assets=["predictions"])
    assert not result.success
    check = checks(result)["predictions.schema_and_range"]
    assert (check.passed, check.severity.value, check.partition) == (False, "ERROR", COUNTRY)
    assert platform.version("predictions", COUNTRY) == before


def test_a_feature_that_knows_the_future_is_not_stored(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform()
    source = platform.product.folder / "features.py"
    leak = '"mean_of_week": demand.rolling(7, min_periods=1).mean().to_numpy(),'
    text = source.read_text()
    assert leak in text
    source.write_text(
        text.replace(leak, '"mean_of_week": demand.mean() * np.ones(len(demand)),').replace(
            "import pandas as pd", "import numpy as np\nimport pandas as pd"
        )
    )
    platform.deliver(generated(platform))
    result = platform.run(COUNTRY)
    assert not result.success
    check = checks(result)["features.point_in_time"]
    assert (check.passed, check.severity.value) == (False, "ERROR")
    assert "mean_of_week" in (check.description or "")
    assert platform.version("features", COUNTRY) is None


def test_predictions_of_a_country_do_not_depend_on_the_other_countries(
    ran: Platform, sample: pd.DataFrame
) -> None:
    alone = ran.frame("predictions", COUNTRY)["prediction"].to_numpy()
    noise = sample.copy()
    noise.loc[noise["Country"] == OTHER, VALUE] = -1.0
    ran.deliver(noise[noise["Country"] == OTHER], "later_broken_other.parquet")
    assert not checks(ran.run(OTHER))["validated.contract"].passed
    ran.run(COUNTRY)
    again = ran.frame("predictions", COUNTRY)["prediction"].to_numpy()
    np.testing.assert_array_equal(alone, again)


def test_a_contract_whose_check_raises_is_at_fault_itself_and_the_last_good_data_stay(
    ran: Platform,
) -> None:
    before = held(ran, COUNTRY)
    check = (
        '    @pa.check("demand")\n    def known_rate(cls, values):\n'
        '        raise LookupError("no rate for XAU")\n\n    class Config:'
    )
    edit(ran.product.folder / "contract.py", ("    class Config:", check))
    platform = rebuilt(ran)

    result = platform.run(COUNTRY)

    assert not result.success
    told = checks(result)["validated.contract"]
    assert (told.passed, told.severity.value) == (False, "ERROR")
    assert 'the check `demand: known_rate` raised LookupError("no rate for XAU")' in (
        told.description or ""
    )
    assert held(platform, COUNTRY) == before
    assert platform.frame("quarantine", COUNTRY).empty
    assert platform.registry.champion("parcels", COUNTRY) is not None
