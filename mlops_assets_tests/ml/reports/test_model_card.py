"""The model card: what it says, that it says it plainly, and that nothing can break it."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html import unescape
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from mlops_assets.ml.evaluation.report import evaluate
from mlops_assets.ml.promotion.card_decision import with_decision
from mlops_assets.ml.reports import tables
from mlops_assets.ml.reports.markdown import escaped, without_figures
from mlops_assets.ml.reports.model_card import CardFacts, Learned, card
from mlops_assets_tests.ml import cards
from mlops_assets_tests.ml.scenarios import product, regression_rows

SECTIONS = [
    "What it predicts, and for whom",
    "Intended use and limits",
    "Data",
    "Training",
    "Evaluation",
    "Slices",
    "Groups that must be treated alike",
    "What it looks at",
    "Worst cases",
    "Size and latency",
    "Gates",
    "Decision",
    "How to make it again",
]
HOSTILE = [
    "a | b | c",
    "<script>alert(1)</script>",
    "![x](http://example.org/x.png)",
    "[click](javascript:alert(1))",
    "`code` **bold** _em_ ~~gone~~",
    "line\nbreak\r\n\r\n# heading",
    "[//]: # (end of decision)",
    "\\",
    "\\|",
    "| --- |",
    "http://example.org/a",
    "&lt;b&gt;",
    "$x^2$",
    "figure-0000000000]: data:x",
]


def parsed(text: str) -> list[Token]:
    """As a markdown reader with tables sees it; HTML would be passed on."""
    reader = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table")
    reader.validateLink = lambda url: True
    return reader.parse(text)


def headings(text: str) -> list[str]:
    tokens = parsed(text)
    return [tokens[place + 1].content for place, t in enumerate(tokens) if t.type == "heading_open"]


def pieces(text: str) -> list[Token]:
    return [child for token in parsed(text) for child in token.children or ()]


def rows_of(text: str, heading: str) -> list[list[str]]:
    """The cells of the tables below a heading, as they are read."""
    section = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows: list[list[str]] = []
    tokens = parsed(section)
    for place, token in enumerate(tokens):
        if token.type == "tr_open":
            rows.append([])
        if token.type in {"td_open", "th_open"}:
            words = [c.content for c in tokens[place + 1].children or ()]
            rows[-1].append("".join(words))
    return rows


def told(text: str, heading: str) -> dict[str, str]:
    """A table of two columns."""
    return {row[0]: row[1] for row in rows_of(text, heading) if len(row) == 2}


def test_a_card_says_what_serves_has_learned_and_what_was_judged() -> None:
    facts = cards.regression()
    fixed = told(card(facts), "Training")
    assert fixed["holdout"] == "from 2023-12-01 on; no candidate and no search saw it"
    assert "after that" not in fixed
    rolling = product(split={"holdout_days": 245, "train_days": 300, "validation_days": 60})
    first, judged_to, last = (
        pd.Timestamp(day) for day in ("2023-02-04", "2023-11-30", "2024-08-01")
    )
    made = replace(
        facts.made,
        rows=545,
        first=first,
        last=last,
        holdout_from=pd.Timestamp("2023-12-01"),
        judged=Learned(300, first, judged_to),
    )
    text = card(replace(facts, spec=rolling, made=made))
    training, data = told(text, "Training"), told(text, "Data")
    assert training["train from"] == "2023-02-04"
    assert training["validation"] == "the 60 days before 2023-12-01"
    assert training["holdout"] == fixed["holdout"]
    assert training["after that"].startswith("fitted again on every known label")
    assert data["learned from"] == "545 rows, 2023-02-04 to 2024-08-01"
    assert data["had learned from, when it was judged"] == "300 rows, 2023-02-04 to 2023-11-30"
    unknown = card(replace(facts, spec=rolling, made=replace(made, holdout_from=None)))
    assert "no label is known" in told(unknown, "Training")["holdout"]


@pytest.mark.parametrize(
    "facts", [cards.regression, cards.classification], ids=lambda f: f.__name__
)
def test_a_card_has_every_section_a_reader_expects_and_is_one_small_file(facts: object) -> None:
    text = card(facts())  # type: ignore[operator]
    found = headings(text)
    assert found[0] == "Model card: parcels, DEU"
    assert [name for name in found if name in SECTIONS] == SECTIONS
    assert {"Calibration", "Prediction intervals"} & set(found)
    assert len(text.encode()) < 300_000
    assert not re.search(r"\bnan\b", without_figures(text))


def test_pictures_are_inside_and_drawn_from_the_report() -> None:
    text = card(cards.regression())
    images = [piece for piece in pieces(text) if piece.type == "image"]
    assert {image.content for image in images} == {
        "gains with intervals",
        "metric by month",
        "slices",
        "forecast and actual",
        "importance",
    }
    for image in images:
        kind, _, data = str(image.attrs["src"]).partition(",")
        assert kind == "data:image/svg+xml;base64"
        svg = base64.b64decode(data)
        assert len(svg) < 50_000
        assert ElementTree.fromstring(svg).tag.endswith("svg")


def test_a_classifier_shows_its_reliability_instead_of_a_forecast() -> None:
    names = {piece.content for piece in pieces(card(cards.classification())) if piece.attrs}
    assert "reliability" in names
    assert "forecast and actual" not in names


def test_numbers_carry_their_interval_and_unit_and_are_those_of_the_report() -> None:
    facts = cards.regression()
    report = facts.report
    mae = report.estimates["mae"]
    first = told(card(facts), "What it predicts, and for whom")
    assert first["unit"] == "EUR"
    head = {r[0]: r[1] for r in rows_of("## Top\n" + card(facts), "Top") if len(r) == 2}
    assert head["mae on the holdout"] == f"{mae.value:.4g} ({mae.lower:.4g} to {mae.upper:.4g}) EUR"
    metrics = {row[0]: row[1:] for row in rows_of(card(facts), "Evaluation") if len(row) == 5}
    assert metrics["mae"] == [*(f"{n:.4g}" for n in (mae.value, mae.lower, mae.upper)), "EUR"]
    assert metrics["gain on baseline level"][3] == "share of the error"
    assert float(metrics["mae of baseline level"][0]) > mae.value


def test_what_was_not_judged_is_said_to_be_so() -> None:
    text = card(cards.small())
    rows = {row[0]: row for row in rows_of(text, "Slices") if len(row) == 7}
    assert rows
    assert {row[-1] for row in rows.values()} <= {"judged", "not judged"}
    gates = {row[0]: row[1] for row in rows_of(text, "Gates")}
    assert gates["slices"] == "not judged"
    assert gates["latency_and_size"] == "failed"
    assert "needed to judge it by itself" in text


def test_nothing_measured_is_not_judged_everywhere() -> None:
    spec = product()
    rows = regression_rows(400)
    facts = cards.regression()
    bare = evaluate(rows.head(0), np.empty(0), spec, rows.head(0))
    text = card(replace(facts, spec=spec, report=bare, gates=[], evidence=pd.DataFrame()))
    head = {r[0]: r[1] for r in rows_of("## Top\n" + text, "Top") if len(r) == 2}
    assert head["mae on the holdout"] == "not judged"
    assert head["gates"] == "not judged"
    assert "Permutation importance: not judged." in text
    assert text.count("ot judged") > 8
    assert not re.search(r"\bnan\b", without_figures(text))


def test_a_gate_that_is_switched_off_is_named_with_the_reason() -> None:
    facts = cards.regression()
    off = product(gates={"switched_off": {"stability": "two | months only"}})
    gates = [each for each in facts.gates if each.name != "stability"]
    text = card(replace(facts, spec=off, gates=gates))
    rows = {row[0]: row[1:] for row in rows_of(text, "Gates")}
    assert rows["stability"] == ["switched off", "", "", "two | months only"]
    assert "The gate stability is switched off: two \\| months only." in text


def test_a_decision_taken_later_replaces_the_open_one_and_nothing_else() -> None:
    facts = cards.regression()
    before = card(facts)
    assert "Not decided when this card was written." in before
    decision = cards.promoted(facts)
    after = with_decision(before, decision, facts.spec)
    assert told(after, "Decision")["gain on the champion"] == "+20.0% (+11.0% to +30.0%)"
    assert headings(after) == headings(before)
    assert with_decision(after, decision, facts.spec) == after
    assert [p.content for p in pieces(after) if p.type == "image"][-1] == "gain on the champion"


def test_text_without_a_place_for_a_decision_is_left_as_it_is() -> None:
    facts = cards.regression()
    decision = cards.promoted(facts)
    assert with_decision("# Something else\n", decision, facts.spec) == "# Something else\n"


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_outside_breaks_no_table_and_becomes_no_link_markup_or_section(
    text: str,
) -> None:
    plain, attacked = (
        card(cards.hostile(cards.regression(), words)) for words in ("harmless", text)
    )
    assert headings(attacked) == headings(plain)
    shapes = [
        [[len(row) for row in rows_of(each, name)] for name in SECTIONS]
        for each in (plain, attacked)
    ]
    assert shapes[0] == shapes[1]
    kinds = [[p.type for p in pieces(each) if p.type != "text"] for each in (plain, attacked)]
    kinds = [[k for k in each if k not in {"softbreak", "html_inline"}] for each in kinds]
    assert kinds[0] == kinds[1]
    assert not [p for p in pieces(attacked) if p.type == "html_inline"]
    assert not [t for t in parsed(attacked) if t.type == "html_block"]
    facts = cards.regression()
    decided = replace(cards.promoted(facts), reason="THE END")
    assert with_decision(attacked, decided, facts.spec).count("THE END") == 1
    reason = told(attacked, "Training")["why this one"]
    assert unescape(reason).replace("\u200b", "") == " ".join(unescape(text).split())


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60))
@example("__0__")
def test_any_text_reads_in_a_cell_as_it_was(text: str) -> None:
    tokens = parsed(f"| a | b |\n| --- | --- |\n| x{escaped(text)}x | y |\n")
    cells = [t for t in tokens if t.type == "inline"]
    assert len(cells) == 4
    assert {child.type for child in cells[2].children or ()} <= {"text", "text_special"}
    shown = "".join(child.content for child in cells[2].children or ())
    assert shown.replace("\u200b", "") == f"x{' '.join(text.split())}x".replace("\u200b", "")


def test_of_long_tables_and_texts_the_rest_is_counted() -> None:
    facts = cards.regression()
    many = pd.concat([facts.report.worst] * 10, ignore_index=True)
    text = card(replace(facts, report=replace(facts.report, worst=many)))
    assert f"{len(many) - 40} more rows are with the MLflow run." in text
    assert len(card(cards.hostile(facts, "x" * 100_000)).encode()) < 300_000


def test_on_a_terminal_the_pictures_are_left_out_and_the_words_stay() -> None:
    text = card(cards.regression())
    short = without_figures(text)
    assert "base64" not in short
    assert len(short) < 20_000
    assert text.startswith(short.rstrip("\n"))


def test_a_country_with_an_odd_name_makes_a_command_that_a_shell_takes() -> None:
    facts = replace(cards.regression(), country="Côte d'Ivoire; `rm`")
    text = card(facts)
    assert "mlops-assets reproduce parcels 'Côte d'\\''Ivoire; rm' --version 7" in text


def test_numbers_for_mlflow_have_their_ends_and_none_is_unknown() -> None:
    report = cards.regression().report
    flat = tables.flat_metrics(report)
    assert flat["holdout.mae"] == report.value
    assert flat["holdout.mae.lower"] <= flat["holdout.mae"] <= flat["holdout.mae.upper"]
    assert flat["gain.baseline.lower"] == report.gain.lower
    assert flat["footprint.bytes"] == 123_456
    assert np.isfinite(list(flat.values())).all()
    assert "calibration_error" not in flat


def test_every_table_with_rows_is_a_csv_that_reads_back() -> None:
    import io

    facts: CardFacts = cards.classification()
    files = tables.csv_files(tables.of_report(facts.report, facts.gates, facts.spec))
    assert {"metrics.csv", "by_month.csv", "slices.csv", "reliability.csv", "gates.csv"} <= set(
        files
    )
    slices = pd.read_csv(io.StringIO(files["slices.csv"]))
    np.testing.assert_allclose(slices["value"], facts.report.slices["value"].astype("float64"))
