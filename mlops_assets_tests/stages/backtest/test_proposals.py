"""A proposal is kept, its YAML is taken by the product, and who has not adopted it is told so."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.components import strict_yaml
from mlops_assets.ml.backtest.adoption import is_old, not_adopted, snippet
from mlops_assets.ml.backtest.proposal import IN_USE, PolicyWorth, Proposal
from mlops_assets.ml.backtest.space import SPACE, Changes, applied, differing, is_valid
from mlops_assets.ml.stats.metrics import Estimate
from mlops_assets.product import Product
from mlops_assets.spec import ProductSpec
from mlops_assets.stages.backtest.proposals import (
    PROPOSAL_LOG,
    last_proposal,
    policy_behind,
    store_proposal,
)
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.storage import SnapshotStore
from mlops_assets_tests.ml.scenarios import product

MADE = dt.datetime(2024, 7, 1, 12, tzinfo=dt.UTC)
FOUND = Proposal(
    begin=pd.Timestamp("2023-01-02"),
    tail_from=pd.Timestamp("2024-01-01"),
    until=pd.Timestamp("2024-06-30"),
    changes={
        "retraining": {"max_age_days": 60, "on_drift": False},
        "decision": {"margin": 0.02, "refresh_after_days": 28},
    },
    gain=Estimate(0.05, 0.02, 0.08),
    tail=(PolicyWorth("proposed", 1.9, 12, 8, 900), PolicyWorth(IN_USE, 2.0, 20, 3, 900)),
    search=(PolicyWorth("the policy in use", 2.1, 30, 4, 1800),),
    adopt=True,
    reason="it is better: 5 % on the tail (95 % interval 2 % to 8 %), 12 trainings instead of 20",
    drawn="200 draws",
)


def context(root: Path, spec: ProductSpec | None = None) -> ProductContext:
    made = SimpleNamespace(name="test", spec=spec or product())
    return ProductContext(cast(Product, made), SnapshotStore(str(root)))


def stored(root: Path, proposal: Proposal = FOUND, made_at: dt.datetime = MADE) -> ProductContext:
    ctx = context(root)
    store_proposal(ctx, proposal, made_at, {"most": 24}, yaml="x")
    return ctx


def with_rows(root: Path, newest: str) -> None:
    rows = pd.DataFrame({"event_time": pd.date_range("2024-01-01", newest), "label": 1.0})
    SnapshotStore(str(root)).write(("test", "features"), "DEU", rows)


def test_what_was_found_is_kept_with_what_it_was_made_from_and_never_replaced(
    tmp_path: Path,
) -> None:
    with_rows(tmp_path, "2024-06-30")
    ctx = stored(tmp_path)
    log = ctx.store.read_log(ctx.path(PROPOSAL_LOG), None)
    (row,) = log.to_dict("records")
    assert [row[name] for name in ("value", "value_in_use", "gain", "gain_low", "gain_high")] == [
        1.9, 2.0, 0.05, 0.02, 0.08,
    ]  # fmt: skip
    assert row["spec_hash"] == ctx.spec.config_hash()
    current = ctx.store.current(ctx.path("features"), "DEU")
    assert current is not None
    assert json.loads(row["features"]) == {"DEU": current.version}
    store_proposal(ctx, replace(FOUND, adopt=False), MADE, {}, yaml="")
    assert ctx.store.read_log(ctx.path(PROPOSAL_LOG), None)["adopt"].tolist() == [True, False]
    last = last_proposal(ctx)
    assert last is not None
    assert not last.adopt
    assert last.changes == FOUND.changes
    assert last.made_at == MADE


def test_a_policy_without_what_was_proposed_is_behind_and_told_what_is_missing(
    tmp_path: Path,
) -> None:
    told = policy_behind(stored(tmp_path))
    assert "behind the proposal of 2024-07-01" in told
    assert "retraining.max_age_days=60" in told
    assert "5 % on the tail" in told


def test_nothing_is_told_where_no_proposal_was_made_or_it_was_adopted_or_found_nothing(
    tmp_path: Path,
) -> None:
    assert policy_behind(context(tmp_path / "none")) == ""
    stored(tmp_path / "kept", replace(FOUND, adopt=False))
    assert policy_behind(context(tmp_path / "kept")) == ""
    stored(tmp_path / "has")
    assert policy_behind(context(tmp_path / "has", applied(product(), FOUND.changes))) == ""


def test_who_adopted_a_part_is_told_of_the_rest(tmp_path: Path) -> None:
    stored(tmp_path)
    part = applied(product(), {"retraining": FOUND.changes["retraining"]})
    told = policy_behind(context(tmp_path, part))
    assert "max_age_days" not in told
    assert "decision.margin=0.02" in told


def test_the_newest_proposal_counts(tmp_path: Path) -> None:
    stored(tmp_path)
    newer = replace(FOUND, changes={"retraining": {"cooldown_days": 14.0}})
    told = policy_behind(stored(tmp_path, newer, MADE + dt.timedelta(days=1)))
    assert "2024-07-02" in told
    assert "max_age_days" not in told


@pytest.mark.parametrize(("newest", "old"), [("2024-07-30", False), ("2025-03-01", True)])
def test_a_proposal_far_older_than_the_data_says_how_to_look_again(
    tmp_path: Path, newest: str, old: bool
) -> None:
    with_rows(tmp_path, newest)
    told = policy_behind(stored(tmp_path))
    assert ("backtest test --propose" in told) is old
    assert ("244 days of data" in told) is old


def test_a_damaged_file_of_one_country_keeps_the_line_from_nobody(tmp_path: Path) -> None:
    with_rows(tmp_path, "2025-03-01")
    rows = pd.DataFrame({"event_time": pd.date_range("2024-01-01", "2024-05-01"), "label": 1.0})
    SnapshotStore(str(tmp_path)).write(("test", "features"), "FRA", rows)
    stored(tmp_path)
    (file,) = [each for each in tmp_path.rglob("*.parquet") if "FRA" in str(each)]
    file.write_bytes(b"PAR1" + bytes(100))
    assert "244 days of data" in policy_behind(context(tmp_path))


@pytest.mark.parametrize(
    ("days", "tail", "old"), [(91, 30, True), (89, 30, False), (150, 200, False), (201, 200, True)]
)
def test_a_proposal_is_old_when_more_came_since_than_judged_it(
    days: int, tail: int, old: bool
) -> None:
    until = pd.Timestamp("2024-06-30")
    newest = until + pd.Timedelta(days=days)
    assert is_old(until - pd.Timedelta(days=tail), until, newest) is old


def test_a_key_that_a_later_release_dropped_is_no_reason_to_be_behind() -> None:
    assert not_adopted(product(), {"retraining": {"gone": 3}, "lost": {"key": 1}}) == {}


# The YAML


def changes_of() -> st.SearchStrategy[Changes]:
    dials = {dial.key: dial for dial in SPACE if not dial.unit}
    chosen = st.lists(st.sampled_from(sorted(dials)), min_size=1, unique=True)

    def values(keys: list[str]) -> st.SearchStrategy[Changes]:
        drawn = {key: st.sampled_from(dials[key].values) for key in keys}
        return st.fixed_dictionaries(drawn).map(_by_section)

    def _by_section(found: dict[str, Any]) -> Changes:
        sections: dict[str, dict[str, Any]] = {}
        for key, value in found.items():
            sections.setdefault(dials[key].section, {})[key] = value
        return sections

    return chosen.flatmap(values)


@given(changes_of())
def test_the_yaml_pasted_into_attributes_is_the_product_with_just_those_keys(
    changes: Changes,
) -> None:
    spec = product()
    changes = differing(spec, changes)
    if not changes or not is_valid(spec, changes):
        return
    text = snippet("test", "mae", replace(FOUND, changes=changes), MADE.date())
    read = strict_yaml.read(("attributes:\n" + text).encode())
    assert not read.problems
    pasted = read.value["attributes"]
    assert pasted == yaml.safe_load("attributes:\n" + text)["attributes"]
    assert {section: set(keys) for section, keys in pasted.items()} == {
        section: set(keys) for section, keys in changes.items()
    }
    content = spec.model_dump()
    for section, values in pasted.items():
        content[section] = {**content[section], **values}
    assert ProductSpec.model_validate(content) == applied(spec, changes)


def test_the_yaml_says_what_it_is_worth_and_by_which_rows() -> None:
    text = snippet("test", "mae", FOUND, MADE.date())
    comment = " ".join(line.strip("# ") for line in text.splitlines() if "#" in line)
    for told in ("mae 1.9 instead of 2", "2024-01-01 to 2024-06-30", "2 % to 8 %", "2024-07-01"):
        assert told in comment
    assert all(len(line) <= 100 for line in text.splitlines())
