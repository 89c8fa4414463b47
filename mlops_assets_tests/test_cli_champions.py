"""The commands about champions: real processes where they move something."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from mlops_assets.cli import main
from mlops_assets.registry import Aliases
from mlops_assets.registry.models import registered_name
from mlops_assets.runtime.headless import jobs
from mlops_assets_tests.platform import Platform, copied, rebuilt
from mlops_assets_tests.stages.proposals import (
    COUNTRIES,
    PRODUCT,
    aliases,
    decide,
    in_use,
    propose,
    registered,
    shows,
)
from mlops_assets_tests.test_cli import Said, mlops_assets
from mlops_assets_tests.test_file_locks import another

COUNTRY, OTHER = "FRA", "DEU"
WHY = ("--reason", "prices went wrong", "--by", "ana")


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory, once_trained: Path) -> Path:
    """Version 2 in use in FRA, version 1 before it; version 1 in use elsewhere."""
    folder = tmp_path_factory.mktemp("cli_two")
    with dg.DagsterInstance.ephemeral() as instance:
        mine = copied(once_trained, folder, instance)
        propose(mine, COUNTRY)
        decide(mine, COUNTRY)
    return folder


@pytest.fixture
def home(
    once: Path, tmp_path: Path, instance: dg.DagsterInstance, history_template: Path
) -> Platform:
    platform = copied(once, tmp_path, instance)
    shutil.copytree(history_template, platform.home / "dagster" / "history")  # the commands' own
    return platform


def run(platform: Platform, *arguments: str) -> Said:
    """A real process."""
    return mlops_assets(platform.home, *arguments, **environment(platform))


def environment(platform: Platform) -> dict[str, str]:
    """MLflow leaves the tracking URI it was told last in this process's environment."""
    return {
        "MLOPS_ASSETS_DEFS": str(platform.product.folder.parent),
        "MLFLOW_TRACKING_URI": platform.registry.tracking_uri,
    }


Look = Callable[..., Said]


@pytest.fixture
def look(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Look:
    """A command in this process, which takes a tenth of the time."""

    def call(platform: Platform, *arguments: str) -> Said:
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        monkeypatch.setenv("MLOPS_ASSETS_HOME", str(platform.home))
        for name, value in environment(platform).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["mlops-assets", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Said(int(ended.value.code or 0), said.out, said.err)

    return call


def instance_of(platform: Platform) -> dg.DagsterInstance:
    return dg.DagsterInstance.from_config(str(platform.home / "dagster"))


def test_who_a_rollback_waits_for_is_said_before_it_waits(
    home: Platform, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = home.home / "locks" / "runs" / PRODUCT / f"{COUNTRY}.lock"
    lock.parent.mkdir(parents=True)
    with another(lock) as process:

        def once_it_ends(*arguments: Any, **named: Any) -> jobs.JobOutcome:
            process.kill()
            process.wait()
            return run_job(*arguments, **named)

        run_job = jobs.run_job
        monkeypatch.setattr(jobs, "run_job", once_it_ends)
        said = look(home, "rollback", PRODUCT, COUNTRY, "--yes", *WHY)
    assert f"{PRODUCT} {COUNTRY}: waits for process {process.pid} on" in said.err
    assert in_use(home, COUNTRY) == "1"


def test_a_rollback_lists_what_moves_is_a_dagster_run_and_is_undone(home: Platform) -> None:
    said = run(home, "rollback", PRODUCT, COUNTRY, *WHY, "--yes")
    assert (said.code, said.err) == (0, "")
    words = " ".join(said.out.split())
    assert "parcels: rollback, 1 countries" in words
    assert "FRA version 2 version 1 mae" in words
    assert (in_use(home, COUNTRY), shows(home, COUNTRY)) == ("1", "1")
    row = home.decisions(COUNTRY).iloc[-1]
    assert (row["person"], row["trigger"]) == ("ana", "mlops-assets rollback")
    with instance_of(home) as instance:
        made = instance.get_run_by_id(row["dagster_run_id"])
        assert made is not None
        assert (made.job_name, made.is_success) == ("parcels_rollback", True)
        key = dg.AssetKey([PRODUCT, "champion"])
        wanted = dg.AssetRecordsFilter(key, asset_partitions=[COUNTRY])
        (newest,) = instance.fetch_materializations(wanted, limit=1).records
        assert newest.run_id == made.run_id
    undone = run(home, "undo", PRODUCT, row["change_set"], *WHY, "--yes", "--json")
    assert undone.code == 0, undone
    assert undone.data["moves"] == [{"country": COUNTRY, "from": "1", "to": "2"}]
    assert aliases(home, COUNTRY) == Aliases("2", "1", "2")


def test_without_a_yes_nothing_moves(home: Platform) -> None:
    said = run(home, "rollback", PRODUCT, COUNTRY, *WHY)
    assert said.code == 1
    assert in_use(home, COUNTRY) == "2"
    assert len(home.decisions(COUNTRY)) == 2


def test_many_countries_are_listed_with_problems_first_and_none_is_moved(
    home: Platform, look: Look
) -> None:
    said = look(home, "rollback", PRODUCT, "--all", *WHY, "--yes")
    assert said.code == 1
    countries = [line.split()[0] for line in said.out.splitlines() if line[:3] in COUNTRIES]
    assert countries == ["DEU", "NOR", "FRA"]
    assert "rollback is not possible in 2 of 3 countries" in said.err
    assert "no version was in use before version 1" in said.err
    assert in_use(home, COUNTRY) == "2"


def test_a_forced_promotion_of_several_countries_is_one_change_set(home: Platform) -> None:
    for country in ("DEU", "NOR"):
        registered(home, country)
    said = run(
        home, "promote", PRODUCT, "--country", "DEU", "--country", "NOR", "--force", *WHY, "--yes",
        "--json",
    )  # fmt: skip
    assert said.code == 0, said
    assert {in_use(home, country) for country in ("DEU", "NOR")} == {"2"}
    logs = {country: home.decisions(country).iloc[-1] for country in ("DEU", "NOR")}
    assert {row["verdict"] for row in logs.values()} == {"forced"}
    assert {row["change_set"] for row in logs.values()} == {said.data["change_set"]}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("promote", PRODUCT, COUNTRY, *WHY), "Add --force"),
        (("promote", PRODUCT, COUNTRY, "--force"), "A reason is needed"),
        (("rollback", PRODUCT, *WHY), "Say which countries"),
        (("rollback", PRODUCT, COUNTRY, "--all", *WHY), "not both"),
        (("rollback", PRODUCT, "XXX", *WHY), "does not list the country 'XXX'"),
        (("rollback", PRODUCT, COUNTRY, "--to", "99", *WHY, "--json"), "no version 99"),
        (("approve", PRODUCT, COUNTRY, *WHY, "--json"), "nothing waits for approval"),
        (("undo", PRODUCT, "x", *WHY), "has no change set 'x'"),
        (("decisions", PRODUCT, "--replay", "x"), "has no decisions 'x'"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line_and_moves_nothing(
    home: Platform, look: Look, arguments: tuple[str, ...], complaint: str
) -> None:
    assert complaint in look(home, *arguments).complaint()
    assert in_use(home, COUNTRY) == "2"


def test_decisions_are_filtered_and_end_with_the_newest(home: Platform, look: Look) -> None:
    everything = look(home, "decisions", PRODUCT, "--json").data
    assert len(everything) == 4
    assert {row["verdict"] for row in everything} == {"promoted"}
    newest = look(home, "decisions", PRODUCT, "--last", "1", "--json").data
    assert [row["candidate_version"] for row in newest] == ["2"]
    some = look(home, "decisions", PRODUCT, "--country", "DEU", "--country", "NOR", "--json").data
    assert {row["country"] for row in some} == {"DEU", "NOR"}
    assert (
        look(home, "decisions", PRODUCT, "--verdict", "kept")
        .out.strip()
        .endswith("no decision yet.")
    )
    shown = look(home, "decisions", PRODUCT, "--last", "1").out
    assert newest[0]["decision_id"] in shown
    assert "by hand" in shown


def test_a_replay_says_the_same_and_another_evidence_is_told_with_its_numbers(
    home: Platform, look: Look
) -> None:
    row = home.decisions(COUNTRY).iloc[-1]
    said = look(home, "decisions", PRODUCT, "--replay", row["decision_id"])
    assert (said.code, said.err) == (0, "")
    assert said.out.strip().endswith("the same")
    log = home.home / "store" / PRODUCT / "decisions" / "log.d"
    shutil.rmtree(log)
    tampered = row.to_frame().T.assign(gain=0.9, verdict="kept")
    tampered = tampered.astype({"gain": "float64", "rows": "int64"})
    home.store.append((PRODUCT, "decisions"), COUNTRY, tampered)
    said = look(home, "decisions", PRODUCT, "--replay", row["decision_id"], "--json")
    assert said.code == 1
    told = " ".join(said.data["differences"])
    assert "verdict: recorded kept, now promoted" in told
    assert f"gain: recorded 0.9, now {float(row['gain'])!r}" in told


def test_a_waiting_promotion_is_approved_by_name_and_reason(home: Platform, look: Look) -> None:
    yaml = home.product.folder / "defs.yaml"
    text = yaml.read_text()
    yaml.write_text(text.replace("  # Limits", "  decision: {approval: true}\n\n  # Limits", 1))
    propose(home, OTHER, error=0.4, champion_error=1.0)
    decide(rebuilt(home), OTHER)
    assert home.decisions(OTHER)["verdict"].iloc[-1] == "waiting"
    status = look(home, "status", PRODUCT, "--json").data
    (mine,) = (row for row in status if row["country"] == OTHER)
    assert mine["state"] == "awaits_approval"
    said = run(home, "approve", PRODUCT, OTHER, *WHY, "--yes", "--json")
    assert said.code == 0, said
    row = home.decisions(OTHER).iloc[-1]
    assert (row["verdict"], row["person"]) == ("promoted", "ana")
    assert "prices went wrong" in row["reason"]
    assert (in_use(home, OTHER), shows(home, OTHER)) == ("2", "2")
    assert look(home, "decisions", PRODUCT, "--replay", row["decision_id"]).code == 0
    tags = home.registry.version(registered_name(PRODUCT, OTHER), "2").tags
    assert tags["mlops_assets.person"] == "ana"
    assert json.loads(row["snapshots"])["features"]
    assert isinstance(row["decided_at"], pd.Timestamp)
