"""The spec by itself: rules between sections, overrides, dates, cron, hashes."""

from __future__ import annotations

import datetime as dt
import json
from hashlib import sha256
from typing import Any

import pytest
import yaml
from dagster._utils.schedules import is_valid_cron_string
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mlops_assets.spec import OVERRIDABLE, BaselineSpec, ProductSpec
from mlops_assets.spec.product import LATER_DEFAULTS
from mlops_assets_tests.components.folders import YAML
from mlops_assets_tests.effort import examples


def attributes(**changes: Any) -> dict[str, Any]:
    """A right product as Python data, with some sections changed."""
    return {**yaml.safe_load(YAML)["attributes"], **changes}


def spec(**changes: Any) -> ProductSpec:
    """The spec of a right product with some sections changed."""
    return ProductSpec.model_validate(attributes(**changes))


def refusals(**changes: Any) -> dict[str, str]:
    """Dotted place: message, of what is wrong with a changed product."""
    with pytest.raises(ValidationError) as caught:
        spec(**changes)
    return {".".join(map(str, e["loc"])): e["msg"] for e in caught.value.errors()}


def test_a_country_without_overrides_has_the_spec_itself() -> None:
    product = spec()
    assert product.for_country("DEU") is product


def test_an_override_changes_the_named_keys_of_a_section_and_no_other() -> None:
    product = spec()
    france = product.for_country("FRA")
    assert france.split == product.split.model_copy(update={"min_train_rows": 200})
    assert france.metric == "rmse"
    assert france.gates == product.gates
    assert france.overrides == {}


def test_an_override_of_a_list_replaces_it() -> None:
    only = [{"name": "tree", "estimator": "sklearn.tree.DecisionTreeRegressor"}]
    product = spec(overrides={"FRA": {"candidates": only}})
    assert [candidate.name for candidate in product.for_country("FRA").candidates] == ["tree"]
    assert len(product.candidates) == 2


def test_snapshots_are_kept_for_90_days_unless_the_product_says_otherwise() -> None:
    assert spec().retention.as_of_days == 90
    assert spec(retention={"as_of_days": 7}).for_country("FRA").retention.as_of_days == 7
    assert set(refusals(retention={"as_of_days": 0})) == {"retention.as_of_days"}
    assert set(refusals(overrides={"FRA": {"retention": {"as_of_days": 7}}})) == {
        "overrides.FRA.retention"
    }


def test_rules_between_sections_are_told_with_wrong_fields_in_other_sections() -> None:
    found = refusals(metric="auc", seed="x", aliases={"CN": "CHINA"}, gates={})
    assert set(found) == {"metric", "seed", "aliases.CN"}


def test_a_wrong_override_is_told_once_with_country_and_key() -> None:
    found = refusals(
        overrides={
            "FRA": {"split": {"holdout_from": "soon"}, "gates": {"floor": -1}},
            "DEU": {"metric": "auc", "gates": {"floor": 0.7}},
            "CHN": {"owners": []},
        }
    )
    assert set(found) == {
        "overrides.FRA.split.holdout_from",
        "overrides.FRA.gates.floor",
        "overrides.DEU.metric",
        "overrides.CHN.owners",
    }


def test_a_rule_the_product_breaks_is_not_told_again_for_every_override() -> None:
    assert set(refusals(metric="auc", gates={}, overrides={"FRA": {"seed": 3}})) == {"metric"}


def test_every_overridable_section_is_one_of_the_product() -> None:
    assert set(ProductSpec.model_fields) >= OVERRIDABLE


def test_norway_read_as_false_is_explained() -> None:
    message = refusals(countries=["DEU", "FRA", "CHN", False])["countries.3"]
    assert "Norway" in message
    assert '"NO"' in message
    (alias,) = refusals(aliases={False: "CHN"}).values()
    assert "Norway" in alias


def test_a_country_may_have_a_date_where_the_product_has_days_and_the_other_way_round() -> None:
    rolling = {"holdout_days": 365, "train_days": 900, "validation_days": 90}
    own = {"holdout_from": "2024-01-01", "train_from": "2020-01-01"}
    france = spec(split=rolling, overrides={"FRA": {"split": own}}).for_country("FRA").split
    assert (france.holdout_from, france.holdout_days) == (dt.date(2024, 1, 1), None)
    assert (france.train_from, france.train_days) == (dt.date(2020, 1, 1), None)
    changed = spec(split={"holdout_from": "2024-01-01"}, overrides={"FRA": {"split": rolling}})
    assert changed.for_country("FRA").split.rolling
    assert not changed.for_country("DEU").split.rolling
    both = {"FRA": {"split": {"holdout_days": 10, "holdout_from": "2024-01-01"}}}
    assert set(refusals(overrides=both)) == {"overrides.FRA.split.holdout_from"}


def test_a_country_of_local_models_alone_may_refit_by_itself() -> None:
    candidates = [{"name": "tree", "estimator": "sklearn.tree.DecisionTreeRegressor"}]
    own = {"FRA": {"split": {"refit": True}}}
    assert set(refusals(candidates=candidates, overrides=own)) == {"overrides.FRA.split.refit"}
    candidates[0]["scopes"] = ["local"]  # type: ignore[assignment]
    assert spec(candidates=candidates, overrides=own).for_country("FRA").split.refit


@pytest.mark.parametrize("country", ["Côte d'Ivoire", "a/b", "../x", 'q"', "100 %", "中国"])
def test_an_odd_country_is_a_country(country: str) -> None:
    assert country in spec(countries=["DEU", "FRA", "CHN", country]).countries


@pytest.mark.parametrize("country", ["", " ", " DEU", "DEU\n", "a\tb", "a...b", "\x7f"])
def test_what_dagster_takes_for_no_partition_is_no_country(country: str) -> None:
    assert "countries.3" in refusals(countries=["DEU", "FRA", "CHN", country])


@pytest.mark.parametrize("country", ["x" * 241, "é" * 41, "a\u2028b", "a\x85b"])
def test_a_country_that_no_file_or_model_can_be_named_by_is_refused(country: str) -> None:
    assert "countries.3" in refusals(countries=["DEU", "FRA", "CHN", country])


@pytest.mark.parametrize("country", ["pooled", "pooled-gbm", "shared", "ingestion"])
def test_a_country_is_not_called_what_stands_for_all_of_them(country: str) -> None:
    assert "countries.3" in refusals(countries=["DEU", "FRA", "CHN", country])


@pytest.mark.parametrize(
    ("one", "other"),
    [("Fra", "FRA"), ("Straße", "STRASSE"), ("Co\u0302te", "Côte"), ("\uff24E", "de")],
)
def test_two_countries_that_some_file_systems_take_for_one_are_refused(
    one: str, other: str
) -> None:
    told = refusals(countries=["DEU", "FRA2", "CHN", one, other], overrides={}, regions={})
    assert "countries.4" in told
    assert "differ only in case" in str(told["countries.4"])


@pytest.mark.parametrize("day", [dt.date(2025, 1, 1), "2025-01-01"])
def test_a_day_is_a_date_or_a_text(day: object) -> None:
    assert spec(split={"holdout_from": day}).split.holdout_from == dt.date(2025, 1, 1)


@pytest.mark.parametrize(
    "day",
    [dt.datetime(2025, 1, 1), 20250101, "1.1.2025", "2025-1-1", "2025-W01-1", None, True, 1.5],
)
def test_nothing_else_is_a_day(day: object) -> None:
    assert "split.holdout_from" in refusals(split={"holdout_from": day})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_limit_is_a_finite_number(number: float) -> None:
    assert "gates.floor" in refusals(gates={"floor": number})


def test_the_mean_is_a_baseline_of_both_tasks() -> None:
    mean = [BaselineSpec(name="prior", rule="mean")]
    candidates = [{"name": "trees", "estimator": "sklearn.ensemble.RandomForestClassifier"}]
    product = spec(
        task="classification",
        metric="auc",
        baselines=mean,
        candidates=candidates,
        gates={"floor": 0.6},
        predictions={"minimum": 0, "maximum": 1},
        overrides={},
    )
    assert product.baselines[0].rule == "mean"
    assert spec(baselines=mean).baselines[0].rule == "mean"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("12h", 12), ("1d", 24), ("2w", 336)],
)
def test_a_maturity_is_a_duration(text: str, expected: int) -> None:
    target = {"description": "price", "unit": "EUR", "matures_after": text}
    assert spec(target=target).target.maturity == dt.timedelta(hours=expected)


@pytest.mark.parametrize(
    "cron",
    ["0 4 * * 1", "*/15 0-6,12 1,15 * MON-FRI", "0 0 1 jan *", "59 23 31 12 7", "0 0 29 2 *"],
)
def test_a_usual_cron_is_accepted(cron: str) -> None:
    assert spec(retrain_cron=cron).retrain_cron == cron


CRON_PARTS = st.sampled_from(
    ["*", "0", "1", "2", "5", "7", "12", "23", "24", "29", "30", "31", "59", "60", "*/5", "1-5",
     "5-1", "1,2", "1-5/2", "mon", "MON-FRI", "feb", "jan-mar", "x", "-1", "1-", "/2", "*/0", ""]
)  # fmt: skip


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(CRON_PARTS, min_size=4, max_size=6).map(" ".join))
def test_an_accepted_cron_is_one_to_dagster(cron: str) -> None:
    try:
        accepted = spec(retrain_cron=cron).retrain_cron
    except ValidationError:
        return
    assert accepted is not None
    assert is_valid_cron_string(accepted)


def test_the_hash_names_content_and_not_the_way_it_was_written() -> None:
    reordered = dict(reversed(attributes().items()))
    assert ProductSpec.model_validate(reordered).config_hash() == spec().config_hash()
    assert len(spec().config_hash()) == 12


def test_the_hash_of_some_sections_ignores_the_others() -> None:
    other = spec(seed=8)
    assert other.config_hash() != spec().config_hash()
    assert other.config_hash("split", "candidates") == spec().config_hash("split", "candidates")
    assert other.config_hash("seed") != spec().config_hash("seed")


@pytest.mark.parametrize(("section", "key"), list(LATER_DEFAULTS))
def test_a_default_that_a_release_changed_makes_nothing_again_and_hides_no_change(
    section: str, key: str
) -> None:
    now, before = LATER_DEFAULTS[section, key]
    by = {each: spec(**{section: {key: each}}) for each in (now, before, 40)}
    assert by[now] == spec()
    hashes = {each: found.config_hash(section) for each, found in by.items()}
    assert len(set(hashes.values())) == 3
    content = spec().model_dump(mode="json")
    content[section][key] = before  # as it was dumped then
    for (where, other), (_, earlier) in LATER_DEFAULTS.items():
        content[where][other] = earlier
    earlier_hash = sha256(json.dumps({section: content[section]}, sort_keys=True).encode())
    assert hashes[now] == earlier_hash.hexdigest()[:12]
    raw = json.dumps(by[now].model_dump(mode="json"), sort_keys=True)
    assert by[now].config_hash() == sha256(raw.encode()).hexdigest()[:12]


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        spec().seed = 1


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"sharing": {"accepted": {"XYZ": "2026-03-09"}}}, "is not a listed country"),
        ({"sharing": {"min_factor": 8.0}, "shared_features": None}, "nothing is shared without"),
        ({"sharing": {"accept_after": "soon"}}, "accept_after"),
        ({"sharing": {"margin": 1.0}}, "margin"),
    ],
)
def test_what_is_said_of_sharing_can_work(changes: dict[str, Any], where: str) -> None:
    given = {**attributes(), "shared_features": "features.shared"}
    ProductSpec.model_validate({**given, "sharing": {"accept_after": "2w"}})
    with pytest.raises(ValidationError, match=where):
        ProductSpec.model_validate({**given, **changes})


def test_sharing_at_its_defaults_changes_no_hash_of_earlier_releases() -> None:
    given = {**attributes(), "shared_features": "features.shared"}
    plain = ProductSpec.model_validate(given)
    said = ProductSpec.model_validate({**given, "sharing": {}})
    assert "sharing" not in plain.model_dump()
    assert plain.config_hash("sharing") == said.config_hash("sharing")
    other = ProductSpec.model_validate({**given, "sharing": {"min_factor": 8.0}})
    assert other.config_hash("sharing") != plain.config_hash("sharing")
