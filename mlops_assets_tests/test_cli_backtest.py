"""The command `backtest` on a real home of a scaffolded product."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import dagster as dg
import pandas as pd
import pytest
from typer.testing import CliRunner

from mlops_assets.cli import app
from mlops_assets.components.loading import load_product
from mlops_assets.components.scaffold import new_product
from mlops_assets.stages.backtest.proposals import store_proposal
from mlops_assets.stages.common.context import ProductContext
from mlops_assets.storage import SnapshotStore
from mlops_assets_tests.platform import build_platform, edit, failures
from mlops_assets_tests.stages.backtest.test_proposals import FOUND
from mlops_assets_tests.test_cli import Said, mlops_assets

BEGIN, END = "2024-06-03", "2024-08-31"
PERIOD = ("--from", BEGIN, "--to", END)
TO_FEATURES = ("raw", "validated", "quarantine", "features")


@dataclass(frozen=True)
class Home:
    """A deployment with features of a product `parcels` in two of its three countries."""

    path: Path
    defs: Path

    def backtest(self, *arguments: str) -> Said:
        """A real process, with one of its own to train in."""
        return mlops_assets(
            self.path,
            "backtest",
            "parcels",
            *arguments,
            "--processes",
            "1",
            MLOPS_ASSETS_DEFS=str(self.defs),
        )

    def listing(self) -> dict[str, str]:
        """Every file of the home by its content."""
        return {
            str(file.relative_to(self.path)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(self.path.rglob("*"))
            if file.is_file()
        }


def demand(country: str, first: str, last: str) -> pd.DataFrame:
    """A demand that depends on the weekday and little else, and doubles one day."""
    dates = pd.date_range(first, last, freq="D")
    base = 100.0 + 40 * dates.dayofweek + dates.day
    return pd.DataFrame(
        {
            "Country": country,
            "Date": dates.strftime("%Y-%m-%d"),
            "Demand (parcels)": base * (1 + (dates >= pd.Timestamp("2024-06-20"))),
        }
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("backtest")
    made = Home(folder / "home", folder / "defs")
    product = new_product("parcels", made.defs)
    edit(product / "defs.yaml", ("max_iter: 100", "max_iter: 10"))
    with dg.DagsterInstance.ephemeral() as instance:
        platform = build_platform(product, made.path, instance, mlflow_template)
        both = [demand(country, "2022-01-01", "2024-12-31") for country in ("FRA", "NO")]
        platform.deliver(pd.concat(both))
        for country in ("FRA", "NOR"):
            result = platform.run(country, assets=TO_FEATURES)
            assert result.success, failures(result)
        yield made


@pytest.fixture(scope="module")
def told(home: Home) -> tuple[Said, dict[str, str], dict[str, str]]:
    """Two policies as JSON, with the files of the home before and after."""
    before = home.listing()
    policies = ("--policy", "never", "--policy", "every 4w")
    said = home.backtest(*PERIOD, *policies, "--json", "--chart", str(home.path.parent / "a.svg"))
    return said, before, home.listing()


def test_a_backtest_tells_what_each_policy_was_worth(
    told: tuple[Said, dict[str, str], dict[str, str]],
) -> None:
    said = told[0]
    assert said.code == 0, said
    never, monthly = said.data["policies"]
    assert (never["policy"], monthly["policy"]) == ("never", "every 4w")
    assert never["retrainings"] == 0
    assert monthly["retrainings"] == 2 * 3
    assert never["rows"] == monthly["rows"] > 150
    assert {row["country"] for row in said.data["by_country"]} == {"FRA", "NOR"}
    assert len(said.data["by_month"]) == 2 * 3
    assert {row["cause"] for row in said.data["trainings"]} == {"first", "every"}


def test_a_backtest_writes_nothing_but_its_chart(
    told: tuple[Said, dict[str, str], dict[str, str]],
) -> None:
    said, before, after = told
    assert before == after
    assert any(name.startswith("store") for name in before)
    assert any(name.startswith("mlflow") for name in before)
    drawn = Path(said.data["chart"])
    assert ElementTree.fromstring(drawn.read_text()).tag.endswith("svg")


def test_a_fixed_holdout_is_walked_as_a_distance_and_the_command_says_so(home: Home) -> None:
    said = home.backtest(
        *PERIOD, "--policy", "never", "--country", "FRA", "--step", "4w", "--set",
        "monitoring.min_effect=0.4",
    )  # fmt: skip
    assert said.code == 0, said
    assert "holdout_from 2024-10-01 is read as holdout_days 91" in said.out
    assert "never" in said.out
    chart = home.path.parent / "parcels_backtest.svg"
    assert f"Chart: {chart}" in said.out
    assert "of 1 countries" in chart.read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((*PERIOD, "--policy", "weekly"), "'weekly' is not a policy"),
        ((*PERIOD, "--policy", "every 0d"), "'0d' is not a length of time"),
        ((*PERIOD, "--policy", "never", "--policy", "never"), "given twice"),
        ((*PERIOD, "--policy", "never", "--step", "soon"), "'soon' is not a length of time"),
        (("--from", END, "--to", BEGIN, "--policy", "never"), "is not after --from"),
        (("--from", "June", "--to", END, "--policy", "never"), "'June' is not a time"),
        (("--from", BEGIN, "--to", "2031-01-01", "--policy", "never"), "to 2024-12-31"),
        (("--from", "2001-01-01", "--to", END, "--policy", "never"), "from 2022-01-01"),
        (("--from", "2022-01-20", "--to", "2022-03-01", "--policy", "never"), "enough rows"),
        ((*PERIOD, "--policy", "never", "--country", "DEU"), "parcels DEU has no features yet"),
        ((*PERIOD, "--policy", "never", "--country", "XXX"), "XXX"),
        ((*PERIOD, "--policy", "never", "--set", "min_effect=1"), "is not a value of"),
        ((*PERIOD, "--policy", "never", "--set", "monitoring.min_effort=1"), "min_effort"),
        ((*PERIOD, "--policy", "never", "--set", "monitoring.min_effect=high"), "min_effect"),
        ((*PERIOD,), "needs --policy"),
        (("--policy", "never"), "needs --from, --to"),
        (("--propose", "--policy", "never", "--set", "a.b=1"), "without --policy, --set"),
        (("--propose", "--step", "30w"), "12 to search and 8 to judge; there are"),
        (("--propose", "--from", "2031-01-01"), "is not before the newest data"),
    ],
)  # fmt: skip
def test_what_cannot_be_walked_is_named_in_one_line(
    home: Home, arguments: tuple[str, ...], complaint: str
) -> None:
    assert complaint in home.backtest(*arguments).complaint()


def test_a_proposal_is_judged_stored_and_printed_and_nothing_else_is_written(home: Home) -> None:
    before = home.listing()
    out = home.path.parent / "policy.yaml"
    said = home.backtest(
        "--propose", "--most", "3", "--step", "4w", "--from", "2023-05-01", "--country", "FRA",
        "--json", "--out", str(out),
    )  # fmt: skip
    assert said.code == 0, said
    found = said.data
    assert [each["name"] for each in found["tail"]] == [
        "proposed", "in use", "defaults", "never", "every 30d",
    ]  # fmt: skip
    assert len(found["search"]) == 3
    assert found["begin"] < found["tail_from"] < found["until"] < "2025-01-01"
    assert found["adopt"] is bool(found["yaml"]) is out.exists()
    assert found["note"].startswith("holdout_from 2024-10-01")
    log = SnapshotStore(str(home.path / "store")).read_log(("parcels", "proposals"), None)
    assert log["adopt"].tolist()[-1:] == [found["adopt"]]
    assert json.loads(log["changes"].tolist()[-1]) == found["changes"]
    after = home.listing()
    (added,) = after.keys() - before.keys()
    assert added.startswith("store/parcels/proposals")
    assert {name: after[name] for name in before} == before


def test_status_has_a_line_while_the_policy_is_behind_the_last_proposal(home: Home) -> None:
    def status(*arguments: str) -> Said:
        return mlops_assets(
            home.path, "status", "parcels", *arguments, MLOPS_ASSETS_DEFS=str(home.defs)
        )

    ctx = ProductContext(
        load_product(home.defs / "parcels"), SnapshotStore(str(home.path / "store"))
    )
    store_proposal(ctx, FOUND, dt.datetime(2025, 1, 2, tzinfo=dt.UTC), {}, yaml="")
    (told,) = [line for line in status().out.splitlines() if "behind the proposal" in line]
    assert told.startswith("parcels: ")
    assert "retraining.max_age_days=60" in told
    assert all(row["policy_note"] in told for row in status("--json").data)
    store_proposal(ctx, replace(FOUND, adopt=False), dt.datetime.now(dt.UTC), {}, yaml="")
    assert "proposal" not in status().out


def test_a_product_without_features_says_how_to_make_them(home: Home, tmp_path: Path) -> None:
    empty = Home(tmp_path / "home", home.defs)
    empty.path.mkdir()
    complaint = empty.backtest(*PERIOD, "--policy", "never").complaint()
    assert "mlops-assets materialize parcels --all --job predict" in complaint


def test_replay_is_another_name_of_the_command_with_all_its_options() -> None:
    told = [CliRunner().invoke(app, [name, "--help"]) for name in ("backtest", "replay")]
    for each in told:
        assert each.exit_code == 0
        assert "--propose" in each.output
