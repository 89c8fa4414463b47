"""The commands about data one can trust, on a product of their own.

What starts runs is called as a real process; what only looks is called in this one, where it takes
a tenth of the time.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from mlops_assets.cli import main
from mlops_assets.components.scaffold import new_product
from mlops_assets.storage import Snapshot, SnapshotStore, VersionGoneError, snapshots
from mlops_assets_tests.pipeline.test_trust import DATASETS
from mlops_assets_tests.platform import build_platform, failures
from mlops_assets_tests.test_cli import Said, mlops_assets

VALUE = "Demand (parcels)"
ONE_CANDIDATE = """    - name: ridge
      estimator: sklearn.linear_model.Ridge
      scopes: [local]
"""


@dataclass(frozen=True)
class Home:
    """A deployment with a product `parcels`.

    Attributes:
        path: its `MLOPS_ASSETS_HOME`.
        defs: folder of its products.
        between: a moment after the first and before the second delivery.
    """

    path: Path
    defs: Path
    between: dt.datetime

    @property
    def store(self) -> SnapshotStore:
        return SnapshotStore(str(self.path / "store"))

    @property
    def contract(self) -> Path:
        return self.defs / "parcels" / "contract.py"

    def run(self, *arguments: str) -> Said:
        """A real process."""
        return mlops_assets(self.path, *arguments, MLOPS_ASSETS_DEFS=str(self.defs))


def days(country: str, first: str, last: str) -> pd.DataFrame:
    """A demand that depends on the weekday and little else."""
    dates = pd.date_range(first, last, freq="D")
    demand = 100.0 + 40 * dates.dayofweek + dates.day
    return pd.DataFrame({"Country": country, "Date": dates.strftime("%Y-%m-%d"), VALUE: demand})


def _defs(folder: Path) -> Path:
    """The scaffolded product with one cheap candidate, and a contract that is too strict."""
    product = new_product("parcels", folder)
    yaml = product / "defs.yaml"
    text = yaml.read_text()
    before, _, rest = text.partition("  candidates:\n")
    after = rest[rest.index("\n  # Limits") :]
    yaml.write_text(f"{before}  candidates:\n{ONE_CANDIDATE}{after}")
    contract = product / "contract.py"
    contract.write_text(contract.read_text().replace("ge=0", "gt=0"))
    return folder


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path, history_template: Path
) -> Iterator[Home]:
    """Two deliveries: FRA has four days without any demand and one below nothing, NOR is clean."""
    folder = tmp_path_factory.mktemp("trust")
    home = Home(folder / "home", _defs(folder / "defs"), dt.datetime.now(dt.UTC))
    shutil.copytree(history_template, home.path / "dagster" / "history")
    dirty = days("FRA", "2023-01-01", "2024-12-20")
    dirty.loc[[10, 20, 30, 40, 50], VALUE] = [0.0, 0.0, 0.0, 0.0, -7.5]
    clean = days("NO", "2023-01-01", "2024-12-20")
    with dg.DagsterInstance.ephemeral() as instance:
        product = home.defs / "parcels"
        platform = build_platform(product, home.path, instance, mlflow_template)
        platform.deliver(pd.concat([dirty, clean]), "first.parquet")
        for country, assets in (("FRA", None), ("NOR", DATASETS)):
            result = platform.run(country, assets=assets)
            assert result.success, failures(result)
        between = dt.datetime.now(dt.UTC)
        platform.deliver(days("FRA", "2024-12-21", "2024-12-31"), "second.parquet")
        result = platform.run("FRA", assets=[*DATASETS, "features"])
        assert result.success, failures(result)
        yield replace(home, between=between)


Look = Callable[..., Said]


@pytest.fixture
def look(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Look:
    """A command in this process."""

    def call(home: Home, *arguments: str, **environment: str) -> Said:
        settings = {"MLOPS_ASSETS_HOME": str(home.path), "MLOPS_ASSETS_DEFS": str(home.defs)}
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        for name, value in {**settings, **environment}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["mlops-assets", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Said(int(ended.value.code or 0), said.out, said.err)

    return call


# quarantine


def test_quarantine_shows_each_rule_with_its_rows_and_where_examples_are_from(
    made: Home, look: Look
) -> None:
    said = look(made, "quarantine", "parcels", "FRA", "--examples", "2")
    assert (said.code, said.err) == (0, "")
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert lines[0] == "parcels FRA: 5 rows in quarantine"
    assert "demand: greater_than(0) 5 5" in lines
    examples = [line for line in lines if "first.parquet" in line]
    assert len(examples) == 2
    assert "first.parquet 11 country=FRA, date=2023-01-11, demand=0" in examples[0]
    assert "--release" not in said.out, "the contract accepts none of them"


def test_quarantine_as_json_has_every_count_and_example(made: Home, look: Look) -> None:
    found = look(made, "quarantine", "parcels", "FRA", "--examples", "9", "--json").data
    assert (found["rows"], found["releasable"]) == (5, 0)
    assert found["reasons"] == [{"rule": "demand: greater_than(0)", "rows": 5, "alone": 5}]
    assert [each["_source_line"] for each in found["examples"]] == [11, 21, 31, 41, 51]
    assert [each["demand"] for each in found["examples"]] == ["0", "0", "0", "0", "-7.5"]
    assert look(made, "quarantine", "parcels", "FRA", "--examples", "0", "--json").data[
        "examples"
    ] == []  # fmt: skip


def test_an_empty_quarantine_says_so(made: Home, look: Look) -> None:
    said = look(made, "quarantine", "parcels", "NOR")
    assert (said.code, said.out) == (0, "parcels NOR: nothing is in quarantine.\n")
    found = look(made, "quarantine", "parcels", "NOR", "--json").data
    assert found == {"rows": 0, "releasable": 0, "reasons": [], "examples": []}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("quarantine", "parcels", "XXX"), "does not list the country 'XXX'"),
        (("quarantine", "nonsense", "FRA"), "There is no product 'nonsense'"),
        (("quarantine", "parcels", "DEU"), "mlops-assets materialize parcels --country DEU"),
        (("quarantine", "parcels", "FRA", "--release"), "A release needs a reason"),
        (("quarantine", "parcels", "FRA", "--release", "--reason", " "), "needs a reason"),
        (
            ("quarantine", "parcels", "FRA", "--release", "--reason", "why not"),
            "None of the 5 rows of parcels FRA in quarantine keeps the contract",
        ),
        (
            ("quarantine", "parcels", "NOR", "--release", "--reason", "x"),
            "nothing is in quarantine",
        ),
        (("quarantine", "parcels", "DEU", "--release", "--reason", "x"), "not been validated"),
        (("reproduce", "parcels", "XXX"), "does not list the country 'XXX'"),
        (("reproduce", "parcels", "DEU"), "DEU"),
        (("reproduce", "parcels", "FRA", "--version", "99"), "99"),
        (("reproduce", "parcels", "FRA", "--version", "x"), "'x'"),
        (("retention", "nonsense"), "There is no product 'nonsense'"),
        (("sql", "select 1", "--as-of", "yesterday"), "'yesterday' is not a time"),
        (
            ("sql", "from parcels.raw", "--as-of", "2020-01-01"),
            "is not there at 2020-01-01 00:00:00+00:00",
        ),
        (
            ("materialize", "parcels", "--country", "FRA", "--as-of", "31.12.2024"),
            "'31.12.2024' is not a time. Nothing was read or run. Write it as 2025-06-30",
        ),
    ],
)
def test_a_wrong_argument_is_named_in_one_line_and_nothing_is_changed(
    made: Home, look: Look, arguments: Sequence[str], complaint: str
) -> None:
    before = contents(made.path)
    assert complaint in look(made, *arguments).complaint()
    assert contents(made.path) == before


def contents(home: Path) -> dict[str, str]:
    """What is kept of data and models, file by file; not what was made as of a moment."""
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(home.rglob("*"))
        if path.is_file()
        and path.relative_to(home).parts[0] != "as_of"
        and not path.name.endswith(("-wal", "-shm"))  # of a database that was looked at
    }


@pytest.fixture(scope="module")
def corrected(made: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The same deployment elsewhere, after its contract was corrected."""
    folder = tmp_path_factory.mktemp("corrected")
    home = replace(made, path=folder / "home", defs=folder / "defs")
    shutil.copytree(made.defs, home.defs)
    for part in ("store", "mlflow", "dagster"):
        shutil.copytree(made.path / part, home.path / part)
    home.contract.write_text(home.contract.read_text().replace("gt=0", "ge=0"))
    return home


def test_a_release_takes_the_rows_into_use_and_says_who_and_why(
    corrected: Home, look: Look
) -> None:
    offered = look(corrected, "quarantine", "parcels", "FRA")
    assert "4 of them keep the contract as it is now" in offered.out
    assert "quarantine parcels FRA --release --reason" in offered.out
    before = len(corrected.store.read(("parcels", "validated"), "FRA"))
    arguments = ("--release", "--reason", "a holiday", "--by", "ada")
    said = corrected.run("quarantine", "parcels", "FRA", *arguments)
    assert said.code == 0
    assert [line for line in said.err.splitlines() if "mlflow/artifacts" not in line] == []
    lines = said.out.splitlines()
    assert lines[0] == "parcels FRA: 4 rows released by ada: a holiday"
    assert lines[1] == "parcels FRA: 1 rows in quarantine"
    assert len(corrected.store.read(("parcels", "validated"), "FRA")) == before + 4
    query = "select country, rows, released_by, reason from parcels.releases"
    assert look(corrected, "sql", query, "--json").data == [
        {"country": "FRA", "rows": 4, "released_by": "ada", "reason": "a holiday"}
    ]
    again = look(corrected, "quarantine", "parcels", "FRA", "--release", "--reason", "x")
    assert "None of the 1 rows" in again.complaint()


# sql as of a moment


def test_sql_sees_what_was_stored_at_a_moment(made: Home, look: Look) -> None:
    query = "select max(date) as newest, count(*) as days from parcels.validated"
    query += " where _country = 'FRA'"
    moments = {
        "now": (),
        "then": ("--as-of", made.between.isoformat()),
        "without a zone": ("--as-of", made.between.replace(tzinfo=None).isoformat()),
    }
    found = {
        name: look(made, "sql", query, *arguments, "--json").data[0]
        for name, arguments in moments.items()
    }
    assert found["now"]["newest"].startswith("2024-12-31")
    assert found["then"]["newest"].startswith("2024-12-20")
    assert found["now"]["days"] == found["then"]["days"] + 11
    assert found["without a zone"] == found["then"]


# materialize as of a moment


def test_materialize_as_of_a_moment_says_where_it_is_and_leaves_what_is_in_use(
    made: Home, look: Look, mlflow_template: Path
) -> None:
    before = contents(made.path)
    then = made.path / "as_of" / "20240630T000000Z"
    # As if it had been used before: the migrations of a new home cost more than the run, and
    # test_cli.py begins with none.
    shutil.copytree(made.path / "dagster" / "history", then / "dagster" / "history")
    (then / "mlflow").mkdir()
    shutil.copyfile(mlflow_template, then / "mlflow" / "mlflow.db")
    arguments = ("materialize", "parcels", "--country", "FRA", "--job", "predict")
    said = made.run(*arguments, "--as-of", "2024-06-30")
    assert said.code == 0, said
    told = said.out.splitlines()[-1]
    assert f"in {then}" in told
    environment = {"MLOPS_ASSETS_AS_OF": "2024-06-30T00:00:00Z"}
    assert "MLOPS_ASSETS_AS_OF=2024-06-30T00:00:00Z in front of a command" in told
    assert contents(made.path) == before
    query = "select max(date) as newest from parcels.validated"
    (row,) = look(made, "sql", query, "--json", **environment).data
    assert row["newest"].startswith("2024-06-30")
    states = look(made, "status", "parcels", "--json", **environment).data
    predicted = {each["country"]: each["prediction_rows"] for each in states}
    assert predicted["FRA"] > 0
    assert not predicted["NOR"]


# reproduce


def test_a_model_that_comes_out_identical_ends_well_and_says_so(made: Home, look: Look) -> None:
    said = look(made, "reproduce", "parcels", "FRA")
    assert (said.code, said.err) == (0, ""), said
    assert "identical" in said.out
    found = look(made, "reproduce", "parcels", "FRA", "--version", "1", "--json")
    assert (found.code, found.data["verdict"]) == (0, "identical")


# retention


class _Clock(dt.datetime):
    """A clock that can be set back."""

    ago = dt.timedelta(0)

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Any:
        return dt.datetime.now(tz) - cls.ago


@pytest.fixture
def old(made: Home, tmp_path: Path, mlflow_template: Path) -> tuple[Home, list[Snapshot]]:
    """A deployment whose features were stored 400, 200 and 100 days ago, and today."""
    home = replace(made, path=tmp_path / "home")
    (home.path / "mlflow").mkdir(parents=True)
    shutil.copyfile(mlflow_template, home.path / "mlflow" / "mlflow.db")
    written = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "datetime", _Clock)
        for number, ago in enumerate((400, 200, 100, 0)):
            patch.setattr(_Clock, "ago", dt.timedelta(days=ago))
            frame = pd.DataFrame({"demand": [float(number)]})
            written.append(home.store.write(("parcels", "features"), "FRA", frame).snapshot)
    return home, written


def test_retention_lists_what_nothing_needs_and_removes_it_only_when_asked_to(
    old: tuple[Home, list[Snapshot]], look: Look
) -> None:
    home, (first, second, third, newest) = old
    listed = look(home, "retention", "parcels")
    assert (listed.code, listed.err) == (0, "")
    lines = listed.out.splitlines()
    assert [v.version in listed.out for v in (first, second, third, newest)] == [
        True, True, False, False,
    ]  # fmt: skip
    assert lines[-2].startswith("parcels: 2 of 4 snapshots")
    assert lines[-1] == "Remove them with: mlops-assets retention parcels --remove"
    assert len(home.store.versions(("parcels", "features"), "FRA")) == 4
    longer = look(home, "retention", "parcels", "--keep-days", "150", "--json").data
    assert [each["version"] for each in longer[0]["snapshots"]] == [first.version]
    every = look(home, "retention", "--all", "--json").data
    verdicts = {each["version"]: each["verdict"] for each in every[0]["snapshots"]}
    assert verdicts == {
        first.version: "removable", second.version: "removable",
        third.version: "kept", newest.version: "kept",
    }  # fmt: skip
    removed = look(home, "retention", "parcels", "--remove")
    assert (removed.code, removed.out.splitlines()[-1].partition(",")[0]) == (
        0, "parcels: 2 snapshots removed",
    )  # fmt: skip
    assert [each.version for each in home.store.versions(("parcels", "features"), "FRA")] == [
        newest.version, third.version,
    ]  # fmt: skip
    with pytest.raises(VersionGoneError):
        home.store.read(("parcels", "features"), "FRA", as_of=second.created_at)
    rows = look(home, "sql", "select version from parcels.removals order by 1", "--json").data
    assert [row["version"] for row in rows] == [first.version, second.version]
    nothing = look(home, "retention", "parcels", "--remove", "--json").data
    assert nothing[0]["snapshots"] == []


def test_retention_removes_nothing_when_the_registry_does_not_answer(
    old: tuple[Home, list[Snapshot]], look: Look
) -> None:
    home, _ = old
    environment = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
                   "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}  # fmt: skip
    said = look(home, "retention", "parcels", "--remove", **environment)
    assert "127.0.0.1:1" in said.complaint()
    assert len(home.store.versions(("parcels", "features"), "FRA")) == 4
