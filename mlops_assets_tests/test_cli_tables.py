"""What commands print: tables that are whole in any terminal, and what `materialize` came to."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mlops_assets.cli import app
from mlops_assets.cli.output.outcomes import report
from mlops_assets.cli.output.tables import table_lines
from mlops_assets.runtime.headless.materialize import DECIDED_BEFORE, Outcome

words = st.text(st.sampled_from("abc1.9-_,é漢"), min_size=1, max_size=12)
sentences = st.lists(words, min_size=1, max_size=30).map(" ".join)


@given(
    rows=st.lists(st.tuples(words, words, words, sentences), min_size=1, max_size=4),
    room=st.none() | st.integers(20, 200),
)
def test_no_terminal_is_too_narrow_for_a_value_to_be_whole(
    rows: Sequence[tuple[str, str, str, str]], room: int | None
) -> None:
    lines = list(table_lines(["country", "value", "verdict", "why"], rows, room))
    text = "\n".join(lines)
    for country, value, verdict, why in rows:
        for whole in (country, value, verdict):
            assert whole in text
        for word in why.split():
            assert word in text
    assert "…" not in text
    if room is None:
        assert len(lines) == len(rows) + 1


def test_a_table_that_does_not_fit_is_a_block_a_row() -> None:
    rows = [("FRA", "1234567.25", "kept"), ("DEU", "7.5", "promoted")]
    assert list(table_lines(["country", "value", "verdict"], rows, 15)) == [
        "country  FRA",
        "value    1234567.25",
        "verdict  kept",
        "",
        "country  DEU",
        "value    7.5",
        "verdict  promoted",
    ]


def query(*arguments: str) -> tuple[str, str]:
    """What `sql` says of a query: output and errors."""
    done = CliRunner().invoke(app, ["sql", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_ASSETS_HOME", str(tmp_path_factory.mktemp("home")))


COUNTS = "select sum(n) as total, null as none_yet, 9007199254740993 as id from range(107) t(n)"


def test_sql_shows_whole_numbers_whole_and_null_as_null() -> None:
    assert query(COUNTS)[0].splitlines()[1].split() == ["5671", "NULL", "9007199254740993"]
    assert query(COUNTS, "--format", "csv")[0] == ("total,none_yet,id\n5671,,9007199254740993\n")
    for asked in (("--json",), ("--format", "json")):
        assert json.loads(query(COUNTS, *asked)[0]) == [
            {"total": 5671, "none_yet": None, "id": 9007199254740993}
        ]


def test_sql_loses_no_value_of_columns_with_one_name() -> None:
    (row,) = json.loads(query("select 1 as a, 2 as a, 3 as a_1, 4 as a", "--json")[0])
    assert row == {"a": 1, "a_2": 2, "a_1": 3, "a_3": 4}


def test_sql_writes_json_whatever_values_are_made_of() -> None:
    asked = (
        "select [1.5, 'nan'::double] as l, {'t': date '2024-01-02', 'i': 'inf'::float} as s, "
        "map {date '2024-01-02': ['-inf'::double]} as m"
    )

    def refused(text: str) -> object:
        raise AssertionError(f"{text} is no JSON")

    (row,) = json.loads(query(asked, "--json")[0], parse_constant=refused)
    assert row == {
        "l": [1.5, None],
        "s": {"t": "2024-01-02", "i": None},
        "m": {"2024-01-02": [None]},
    }


def test_sql_runs_each_statement_once() -> None:
    asked = "create temp table t (n int); insert into t values (1); select count(*) as n from t"
    assert json.loads(query(asked, "--json")[0]) == [{"n": 1}]
    counted = "create temp sequence s; select nextval('s') as n"
    assert json.loads(query(counted, "--json")[0]) == [{"n": 1}]


@pytest.mark.parametrize(
    ("asked", "shown", "said"),
    [
        ((), 100, "150 more rows are not shown"),
        (("--limit", "0"), 250, ""),
        (("--limit", "250"), 250, ""),
        (("--limit", "7", "--format", "csv"), 7, "243 more rows are not shown"),
        (("--format", "csv"), 250, ""),
    ],
)
def test_sql_says_how_many_rows_it_leaves_out(
    asked: tuple[str, ...], shown: int, said: str
) -> None:
    out, errors = query("select * from range(250)", *asked)
    assert len(out.splitlines()) == shown + 1
    assert said in errors
    assert bool(said) == bool(errors)


def told(capsys: pytest.CaptureFixture[str], outcome: Outcome) -> list[str]:
    report([outcome])
    return capsys.readouterr().out.splitlines()


def test_many_decisions_are_a_line_by_gate_and_nobody_is_needed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcome = Outcome("demand", runs=200)
    for number in range(161):
        gate = "slices" if number % 10 == 0 else "beats_baseline"
        outcome.decided[f"C{number:03}"] = (f"gate model.{gate}: mae {number} where 3 is needed",)
    decided, summary = told(capsys, outcome)
    assert "candidates of 161 countries were refused" in decided
    assert "model.beats_baseline: C001, C002" in decided
    assert re.search(r"and 134 more; |and 134 more\)", decided)
    assert "Why: mlops-assets decisions demand" in decided
    assert summary == "demand: 200 runs, 161 decided; nobody is needed"


def test_what_needs_a_person_is_told_apart_from_what_was_decided_and_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcome = Outcome("demand", runs=9, unchanged={"DEU"}, fallback={"NOR"})
    outcome.decided["DEU"] = (DECIDED_BEFORE,)
    outcome.nothing["POL"] = "the features of POL have no row: there is nothing to predict"
    outcome.failures |= {"NOR": ("the disk is full",), "FRA": ("the disk is full",)}
    lines = told(capsys, outcome)
    assert lines == [
        f"decided: demand DEU: {DECIDED_BEFORE}. What served before serves on, or the baseline.",
        "nothing to make: demand POL: the features of POL have no row: there is nothing to predict",
        "stopped: demand NOR, FRA: the disk is full Predictions of NOR come from what served "
        "before, or from the baseline.",
        "demand: 9 runs, 1 decided, 1 without anything to make, 1 unchanged; 2 need a person",
    ]


def test_no_line_names_its_product_and_country_twice(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome("demand", runs=4)
    outcome.failures |= {
        "NOR": ("demand NOR: the features know the future.", "NOR: it has no rows."),
        "FRA": ("demand FRA: the features know the future.", "FRA: it has no rows."),
    }
    outcome.decided["DEU"] = ("demand DEU: gate model.slices: worse at night",)
    outcome.warnings["POL"] = ("demand POL: demand is the word that it begins with",)
    outcome.not_used["ESP"] = "demand ESP: a.csv"
    assert told(capsys, outcome)[:-1] == [
        "warning: demand (POL) demand is the word that it begins with",
        "decided: demand DEU: gate model.slices: worse at night. What served before serves on, or "
        "the baseline.",
        "stopped: demand NOR, FRA: the features know the future. | it has no rows.",
        "not used: demand ESP: a.csv; the rest goes on. Deliver the file again, corrected.",
    ]
