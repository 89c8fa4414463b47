"""A home that was written before the modules moved goes on: nothing in it is lost or made anew."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from typer.testing import CliRunner

from mlops_assets.cli import app
from mlops_assets.cli.base import context_of, product_named
from mlops_assets.runtime.instance import prepare_instance, prepare_up_instance
from mlops_assets.settings import Settings, load_settings
from mlops_assets.stages.promotion.decision_log import RENAMED
from mlops_assets.stages.staleness import Staleness
from mlops_assets_tests.called import call
from mlops_assets_tests.old_home import OldHome, expected, unpack

WORD = ("--by", "ada", "--reason", "as it was", "--yes", "--json")
ASSETS = ("validated", "features", "model", "champion", "predictions", "performance", "drift")
MADE = ["entity", "event_time", "prediction", "lower", "upper", "model_kind", "model_version"]
CLOSE = 1e-9
"""Relative: other processors add up in another order."""
PATIENCE = 240.0


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> OldHome:
    """A copy that tests look at."""
    return unpack(tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    return expected()


def ask(home: OldHome, *arguments: str) -> str:
    """What a command says, in this process."""
    result = CliRunner().invoke(app, list(arguments), env=home.environment())
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def run(home: OldHome, *arguments: str, codes: tuple[int, ...] = (0,)) -> str:
    """What a command says, in a process of its own that has imported what it computes with."""
    environment = {**os.environ, **home.environment()}
    known = {name: value for name, value in environment.items() if value is not None}
    code, output, errors = call(arguments, known, home.path.parent, PATIENCE)
    assert code in codes, (output, errors)
    return output


def refused(home: OldHome, *arguments: str) -> str:
    """Why a command did nothing."""
    result = CliRunner().invoke(app, list(arguments), env=home.environment())
    assert result.exit_code == 1
    return str(result.exception)


def decision(said: dict[str, Any], country: str, candidate: str) -> dict[str, Any]:
    """What was decided of a candidate by evidence."""
    (found,) = (
        each
        for each in said["decisions"]
        if (each["country"], each["candidate_version"]) == (country, candidate)
        and not each["person"]
    )
    return found


def decisions(home: OldHome) -> list[dict[str, Any]]:
    """All that are recorded, in the columns that there were then."""
    rows = json.loads(ask(home, "decisions", "parcels", "--json"))
    columns = expected()["decisions"][0]
    return [{name: row[RENAMED.get(name, name)] for name in columns} for row in rows]


def predictions(home: OldHome, country: str) -> list[pd.DataFrame]:
    """All that are stored, oldest first."""
    folder = home.path / "store" / "parcels" / "predictions" / f"country={country}"
    return [pd.read_parquet(file) for file in sorted(folder.glob("*.parquet"))]


def states(home: OldHome) -> dict[str, str]:
    rows = json.loads(ask(home, "status", "parcels", "--json"))
    return {row["country"]: row["state"] for row in rows}


@pytest.fixture
def settings(old: OldHome, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of the home, as the code of now reads them."""
    for name, value in old.environment().items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    return load_settings()


# looking


def test_status_says_of_each_country_what_it_said_before(
    old: OldHome, said: dict[str, Any]
) -> None:
    now, then = json.loads(ask(old, "status", "parcels", "--json")), said["status"]
    # Since then `why` begins with what serves where a gate stopped the newest candidate.
    assert all(each["why"].endswith(was["why"]) for each, was in zip(now, then, strict=True))
    assert all(each.pop("champion_known") for each in now), "added later: the registry answers"
    assert not any(each.pop("policy_note") for each in now), "added later: nothing was proposed"
    assert [{**each, "why": ""} for each in now] == [{**each, "why": ""} for each in then]
    states = {each["country"]: each["state"] for each in said["status"]}
    assert states == {"DEU": "ok", "FRA": "ok", "NOR": "gate_failed"}


def test_decisions_and_rejected_records_are_told_as_before(
    old: OldHome, said: dict[str, Any]
) -> None:
    assert decisions(old) == said["decisions"]
    found = json.loads(ask(old, "quarantine", "parcels", "DEU", "--json"))
    assert found == said["quarantine"]
    assert found["rows"] == 3


@pytest.mark.parametrize(
    ("country", "candidate", "verdict"),
    [("DEU", "2", "promoted"), ("FRA", "2", "kept"), ("NOR", "3", "kept")],
)
def test_a_decision_is_made_again_from_its_evidence_and_comes_out_the_same(
    old: OldHome, said: dict[str, Any], country: str, candidate: str, verdict: str
) -> None:
    about = decision(said, country, candidate)
    replay = ("--replay", about["decision_id"], "--country", country, "--json")
    again = json.loads(ask(old, "decisions", "parcels", *replay))
    assert (about["verdict"], again["verdict"], again["same"]) == (verdict, verdict, True)
    assert "made again from evidence" in again["basis"]


def test_what_intervals_are_drawn_from_is_empty_in_decisions_that_did_not_say_it(
    old: OldHome,
) -> None:
    rows = json.loads(ask(old, "decisions", "parcels", "--json"))
    assert {(row["drawn_by"], row["drawn"]) for row in rows} == {("", "")}
    # So they are made again as their rows were drawn then (`EarlierEvaluationSpec`).
    assert [row for row in rows if '"draw_by"' in row["settings"]] == []


@pytest.mark.parametrize(("country", "kind"), [("DEU", "local"), ("FRA", "pooled")])
def test_a_champion_is_made_again_and_predicts_the_same(
    old: OldHome, country: str, kind: str
) -> None:
    # Not to the bit on every processor, which it would tell by its exit code.
    again = json.loads(run(old, "reproduce", "parcels", country, "--json", codes=(0, 1)))
    assert (again["kind"], again["in_use"]) == (kind, True)
    assert again["predictions"]["rows"] > 100
    assert again["predictions"]["largest"] <= CLOSE * 10_000
    assert again["value"] == pytest.approx(again["recorded_value"], rel=CLOSE)
    gap = again["features"]["gap"]
    assert (gap["columns"], gap["gone"], gap["new"]) == ([], 0, 0)


def test_the_card_of_a_model_is_read(old: OldHome) -> None:
    assert "pooled gbm" in ask(old, "card", "parcels", "FRA")


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11),
    reason="another Python parses the product's code into another tree, so that all is made again",
)
@pytest.mark.parametrize(("country", "first"), [("DEU", None), ("FRA", None), ("NOR", "champion")])
def test_what_was_up_to_date_still_is_so_that_nothing_is_trained_again(
    old: OldHome, settings: Settings, country: str, first: str | None
) -> None:
    state = Staleness(context_of(product_named("parcels")))
    stale = state.first(country, ASSETS)
    assert (stale and stale.asset) == first  # NOR: its gate stops it
    assert state.shared_inputs() is None
    assert not state.is_pooled_stale()


# going on


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> OldHome:
    """A copy that tests go on with, in their order."""
    return unpack(tmp_path_factory.mktemp("used"))


def test_a_change_set_that_was_left_open_stops_others_until_it_is_taken_back(
    used: OldHome, said: dict[str, Any]
) -> None:
    begun = next(row["unit"] for row in said["decisions"] if row["verdict"] == "forced")
    assert f"change set {begun} (promote by ana, " in refused(
        used, "rollback", "parcels", "DEU", *WORD
    )
    assert decisions(used) == said["decisions"]
    undone = json.loads(run(used, "undo", "parcels", begun, *WORD))
    assert undone["moves"] == [{"country": "FRA", "from": "2", "to": "3"}]


@pytest.fixture(scope="module")
def moved(used: OldHome, said: dict[str, Any]) -> OldHome:
    """Rolled back in DEU once more, from what it was rolled back to."""
    rolled = json.loads(run(used, "rollback", "parcels", "DEU", *WORD))
    assert rolled["moves"] == [{"country": "DEU", "from": "1", "to": "2"}]
    return used


def test_a_country_is_rolled_back_and_that_is_recorded_after_the_decisions_of_then(
    moved: OldHome, said: dict[str, Any]
) -> None:
    *before, undone, newest = decisions(moved)
    assert before == said["decisions"]
    assert [(row["country"], row["version"], row["person"]) for row in (undone, newest)] == [
        ("FRA", "3", "ada"), ("DEU", "2", "ada"),
    ]  # fmt: skip
    assert states(moved) == {"DEU": "behind", "FRA": "behind", "NOR": "gate_failed"}


def test_predictions_follow_the_champions_and_are_those_that_these_made_then(
    moved: OldHome, old: OldHome
) -> None:
    shutil.rmtree(moved.path / "store" / "parcels" / "predictions")
    command = ("materialize", "parcels", "--all", "--job", "predict", "--json")
    (outcome,) = json.loads(run(moved, *command))
    assert (outcome["failures"], outcome["unchanged"]) == ({}, [])
    assert states(moved) == {"DEU": "ok", "FRA": "ok", "NOR": "gate_failed"}
    for country, version in (("DEU", "2"), ("FRA", "3"), ("NOR", "")):
        (found,), then = predictions(moved, country), predictions(old, country)
        wanted = [each for each in then if set(each["model_version"]) == {version}][-1]
        pd.testing.assert_frame_equal(found[MADE], wanted[MADE], rtol=CLOSE, atol=0.0)


# Dagster


def test_the_history_is_read_where_the_old_settings_named_modules_of_then(
    old: OldHome, settings: Settings, said: dict[str, Any]
) -> None:
    written = (old.path / "dagster" / "dagster.yaml").read_text()
    assert "module: mlops_assets.runtime.history\n" in written
    with dg.DagsterInstance.from_config(str(prepare_instance(settings))) as instance:
        runs = instance.get_runs()
        assert Counter(each.status.value for each in runs) == said["runs"]
        made = {(asset, country) for asset, country, _ in said["materializations"]}
        assert len(made) > 25
        for asset, country, count in said["materializations"]:
            key, partitions = dg.AssetKey(["parcels", asset]), [country] if country else None
            wanted = dg.AssetRecordsFilter(key, asset_partitions=partitions)
            assert len(instance.fetch_materializations(wanted, limit=99).records) == count
        (failed, *_) = (each for each in runs if each.is_failure)
        events = [each.dagster_event for each in instance.all_logs(failed.run_id)]
        assert any(each and each.is_step_failure for each in events)


def test_what_was_switched_on_stays_on_and_what_was_queued_waits(settings: Settings) -> None:
    with dg.DagsterInstance.from_config(str(prepare_instance(settings))) as instance:
        switched = instance.all_instigator_state()
        assert {(each.instigator_name, each.status.value) for each in switched} == {
            ("parcels_landing", "RUNNING"), ("parcels_periodic", "RUNNING"),
        }  # fmt: skip
        # By these Dagster finds them again: a location of another name has all switched off.
        places = {each.origin.repository_origin.get_label() for each in switched}
        assert places == {"__repository__@mlops_assets"}
        (queued,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))
        assert (queued.job_name, queued.tags["mlops_assets/size"]) == ("parcels_reproduce", "small")


def test_the_instance_of_up_is_written_for_the_code_of_now_and_has_the_same_history(
    old: OldHome, settings: Settings, said: dict[str, Any]
) -> None:
    written = (old.path / "up" / "dagster.yaml").read_text()
    assert "module: mlops_assets.runtime.launcher\n" in written
    with dg.DagsterInstance.from_config(str(prepare_up_instance(settings, 2))) as instance:
        assert type(instance.run_launcher).__name__ == "WarmRunLauncher"
        assert instance.get_runs_count() == sum(said["runs"].values())
