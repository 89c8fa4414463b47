"""Evidence decides: what is promoted, kept or waits, what is recorded, and what a crash leaves."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from mlops_assets.ml.gates.gates import gates_from_json
from mlops_assets.stages.common.base import EVIDENCE
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.stages.promotion.decision_replay import replay_decision
from mlops_assets.stages.upkeep.retention import apply_retention, plan_retention
from mlops_assets_tests.platform import Platform, checks, rebuilt
from mlops_assets_tests.stages.proposals import (
    PRODUCT,
    aliases,
    decide,
    evidence_of,
    in_use,
    passed,
    propose,
    shows,
    write_model,
)

COUNTRY = "FRA"


def newest(platform: Platform) -> pd.Series:
    return platform.decisions(COUNTRY).iloc[-1]


def rows_of(shown: Any) -> list[dg.TableRecord]:
    """The rows of a table on an asset's page."""
    return list(shown.records if hasattr(shown, "records") else shown[0])


def test_a_candidate_surely_better_on_the_same_rows_is_promoted_and_all_is_recorded(
    trained: Platform,
) -> None:
    version = propose(trained, COUNTRY, error=0.5)
    decide(trained, COUNTRY)
    assert aliases(trained, COUNTRY).champion == version == shows(trained, COUNTRY)
    assert aliases(trained, COUNTRY).previous == "1"
    row = newest(trained)
    assert (row["verdict"], row["version"], row["previous"]) == ("promoted", version, "1")
    assert row["gain_lower"] > 0.4
    assert 0 < row["level"] <= 0.05
    held = trained.store.find((PRODUCT, EVIDENCE), COUNTRY, row["evidence"])
    assert held is not None
    assert held.rows == row["rows"]
    features = trained.store.current((PRODUCT, "features"), COUNTRY)
    validated = trained.store.current((PRODUCT, "validated"), COUNTRY)
    assert features is not None
    assert validated is not None
    assert json.loads(row["snapshots"]) == {
        "features": features.content_hash,
        "validated": validated.content_hash,
    }
    settings = json.loads(row["settings"])
    assert settings["metric"] == trained.product.spec.metric
    assert len(settings["countries"]) == 3
    assert (row["trigger"], row["person"]) == ("by hand", "")


def test_the_version_and_the_asset_say_what_was_decided_and_how_to_replay_it(
    trained: Platform,
) -> None:
    version = propose(trained, COUNTRY, error=0.5)
    decide(trained, COUNTRY)
    row = newest(trained)
    tags = trained.registry.version(f"{PRODUCT}.{COUNTRY}", version).tags
    assert tags["mlops_assets.decision"] == row["decision_id"]
    assert tags["mlops_assets.verdict"] == "promoted"
    assert tags["mlops_assets.verdict_reason"] == row["reason"]
    assert tags["mlops_assets.trigger"] == "by hand"
    assert pd.Timestamp(tags["mlops_assets.decided_at"]) <= row["decided_at"]
    told = trained.told("champion", COUNTRY)
    assert told["replay"].endswith(f"decisions {PRODUCT} --replay {row['decision_id']}")
    assert {record.data["gate"] for record in rows_of(told["gates"])} == {g.name for g in passed()}
    facts = {record.data["what"]: record.data["value"] for record in rows_of(told["decision"])}
    assert float(str(facts["gain, lower end"])) == pytest.approx(row["gain_lower"], rel=1e-4)
    assert (row["drawn_by"], facts["bootstrap"]) == ("time", row["drawn"])
    assert "draws of blocks of 7 calendar days" in row["drawn"]


def test_an_equal_candidate_is_kept_and_the_champion_stays(trained: Platform) -> None:
    version = propose(trained, COUNTRY, error=1.0)
    decide(trained, COUNTRY)
    assert (in_use(trained, COUNTRY), shows(trained, COUNTRY)) == ("1", "1")
    assert newest(trained)["verdict"] == "kept"
    tags = trained.registry.version(f"{PRODUCT}.{COUNTRY}", version).tags
    assert tags["mlops_assets.verdict"] == "kept"


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_the_numbers_of_the_gates_come_back_from_the_record(trained: Platform) -> None:
    propose(trained, COUNTRY)
    decide(trained, COUNTRY)
    assert gates_from_json(newest(trained)["gates"]) == passed()


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_rerun_of_the_same_decides_and_records_nothing(trained: Platform) -> None:
    propose(trained, COUNTRY, error=1.0)
    decide(trained, COUNTRY)
    log, made = trained.decisions(COUNTRY), trained.version("champion", COUNTRY)
    decide(trained, COUNTRY)
    pd.testing.assert_frame_equal(trained.decisions(COUNTRY), log)
    assert trained.version("champion", COUNTRY) == made


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_evidence_about_another_champion_is_made_again_for_the_one_in_use(
    trained: Platform,
) -> None:
    first = propose(trained, COUNTRY, error=0.5, champion_error=3.0)
    row = trained.frame("model", COUNTRY)
    other = propose(trained, COUNTRY, error=0.9)
    trained.registry.promote(trained.registry.version(f"{PRODUCT}.{COUNTRY}", other))
    write_model(trained, COUNTRY, row)
    decide(trained, COUNTRY)
    decision = newest(trained)
    assert (decision["candidate_version"], decision["champion_version"]) == (first, other)
    assert decision["evidence"] != row["evidence"].iloc[0]
    held = trained.store.find((PRODUCT, EVIDENCE), COUNTRY, decision["evidence"])
    assert held is not None
    again = trained.store.read((PRODUCT, EVIDENCE), COUNTRY, version=held.version)
    before = trained.store.find((PRODUCT, EVIDENCE), COUNTRY, row["evidence"].iloc[0])
    assert before is not None
    old = trained.store.read((PRODUCT, EVIDENCE), COUNTRY, version=before.version)
    unchanged = [name for name in old if name != "champion"]
    pd.testing.assert_frame_equal(again[unchanged], old[unchanged])
    errors = [(each["champion"] - each["label"]) for each in (again, old)]
    np.testing.assert_allclose(errors[1], 3.0 * errors[0])
    assert replay_decision(trained.context, decision["decision_id"]).same


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_candidate_whose_evidence_is_lost_is_compared_on_evidence_made_now(
    trained: Platform,
) -> None:
    propose(trained, COUNTRY, lost=True)
    decide(trained, COUNTRY)
    row = newest(trained)
    assert row["verdict"] == "kept"  # its files are those of version 1: no gain at all
    assert row["gain"] == 0
    assert trained.store.find((PRODUCT, EVIDENCE), COUNTRY, row["evidence"]) is not None
    assert replay_decision(trained.context, row["decision_id"]).same


def test_a_champion_whose_files_are_lost_serves_nobody_so_that_the_gates_alone_decide(
    trained: Platform,
) -> None:
    version = propose(trained, COUNTRY, lost=True)
    first = trained.registry.version(f"{PRODUCT}.{COUNTRY}", "1")
    trained.registry.tag(first, {"mlops_assets.sha256": "0" * 64})
    decide(trained, COUNTRY)
    row = newest(trained)
    assert (row["verdict"], in_use(trained, COUNTRY)) == ("promoted", version)
    assert "the champion cannot be compared" in row["reason"]
    assert replay_decision(trained.context, row["decision_id"]).same


@pytest.mark.parametrize(
    ("tags", "trigger"),
    [
        ({"mlops_assets/trigger": "drift in FRA"}, "drift in FRA"),
        # Nightly: a decision each, for one more name of a tag.
        *(
            pytest.param(tags, trigger, marks=pytest.mark.nightly)
            for tags, trigger in (
                ({"dagster/schedule_name": "parcels_periodic"}, "schedule parcels_periodic"),
                ({"dagster/sensor_name": "parcels_landing"}, "sensor parcels_landing"),
                ({"mlops_assets/order": "1"}, "the command line"),
            )
        ),
        ({"dagster/backfill": "abcd"}, "backfill abcd"),
    ],
)
def test_a_decision_says_what_started_its_run(
    trained: Platform, tags: dict[str, str], trigger: str
) -> None:
    propose(trained, COUNTRY, error=1.0)
    assert trained.run(COUNTRY, job="train", assets=["champion"], tags=tags).success
    assert newest(trained)["trigger"] == trigger


APPROVAL = ("  # Everything random starts here.", "  decision: {approval: true}\n\n  # Everything")


def with_approval(platform: Platform) -> Platform:
    yaml = platform.product.folder / "defs.yaml"
    text = yaml.read_text()
    assert APPROVAL[0] in text
    yaml.write_text(text.replace(APPROVAL[0], f"{APPROVAL[1]} random starts here."))
    return rebuilt(platform)


def test_a_promotion_that_needs_approval_waits_and_the_champion_stays(trained: Platform) -> None:
    careful = with_approval(trained)
    version = propose(careful, COUNTRY)
    decide(careful, COUNTRY)
    row = newest(careful)
    assert (row["verdict"], row["candidate_version"]) == ("waiting", version)
    assert (in_use(careful, COUNTRY), shows(careful, COUNTRY)) == ("1", "1")
    assert replay_decision(ProductContext(careful.product, careful.store), row["decision_id"]).same
    log = careful.decisions(COUNTRY)
    decide(careful, COUNTRY)
    assert len(careful.decisions(COUNTRY)) == len(log)


@pytest.mark.nightly  # a whole run or more, for one more case of what its neighbours show
def test_a_tag_in_mlflow_approves_at_the_next_champion_run(trained: Platform) -> None:
    careful = with_approval(trained)
    version = propose(careful, COUNTRY)
    decide(careful, COUNTRY)
    waiting = newest(careful)
    tags = {
        "mlops_assets.approved_by": "ben",
        "mlops_assets.approval_reason": "looked at the plots",
    }
    careful.registry.tag(careful.registry.version(f"{PRODUCT}.{COUNTRY}", version), tags)
    decide(careful, COUNTRY)
    row = newest(careful)
    assert (row["verdict"], row["person"], row["version"]) == ("promoted", "ben", version)
    assert "looked at the plots" in row["reason"]
    assert row["evidence"] == waiting["evidence"]
    assert (in_use(careful, COUNTRY), shows(careful, COUNTRY)) == (version, version)
    assert replay_decision(ProductContext(careful.product, careful.store), row["decision_id"]).same
    log = careful.decisions(COUNTRY)
    decide(careful, COUNTRY)
    assert len(careful.decisions(COUNTRY)) == len(log)


def test_the_check_of_the_asset_holds_after_every_verdict(trained: Platform) -> None:
    for error in (0.5, 1.0):
        propose(trained, COUNTRY, error=error)
        result = decide(trained, COUNTRY)
        assert checks(result)["champion.equals_registry_alias"].passed


def test_evidence_stays_while_a_decision_or_the_candidate_names_it(trained: Platform) -> None:
    asset = (PRODUCT, EVIDENCE)
    propose(trained, COUNTRY, error=0.5)
    decide(trained, COUNTRY)
    stray = trained.store.write(asset, COUNTRY, evidence_of(trained, COUNTRY, 0.77)).snapshot
    propose(trained, COUNTRY, error=0.4)  # not decided on yet
    trained.store.write(asset, COUNTRY, evidence_of(trained, COUNTRY, 0.1))
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=400)
    planned = plan_retention(trained.context, now=later, keep_days=1)
    gone = {each.snapshot.version for each in planned.removable if each.snapshot.asset == asset}
    assert gone == {stray.version}
    assert stray.version in {
        each.snapshot.version for each in apply_retention(planned, trained.context).removed
    }
    for decision_id in trained.decisions(COUNTRY)["decision_id"]:
        assert replay_decision(trained.context, decision_id).same
    decide(trained, COUNTRY)
    assert replay_decision(trained.context, newest(trained)["decision_id"]).same
