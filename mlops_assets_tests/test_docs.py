"""What the documents name is there: commands, links, tests, keys, checks, states, variables."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import dagster as dg
import pytest
import typer
from typer.core import TyperGroup

from mlops_assets import settings
from mlops_assets.cli import app
from mlops_assets.components.loading import load_products
from mlops_assets.runtime import status
from mlops_assets.stages.common.platform import platform_definitions
from mlops_assets.stages.product import build_product
from mlops_assets_tests import reference

ROOT = reference.ROOT
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "data/README.md", "docs/**/*.md")
    for path in ROOT.glob(pattern)
    if path.is_file()
)
EVERY_DOCUMENT = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix()
)
TEST_FILES = sorted((ROOT / "mlops_assets_tests").rglob("test_*.py"))
OPERATING = ROOT / "docs" / "guide" / "operating.md"
PAGES = (
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/guide/adding-a-product.md",
    "docs/guide/operating.md",
    "docs/guide/data-and-leaks.md",
    "docs/guide/champions.md",
    "docs/guide/cluster.md",
    "docs/guide/kubernetes.md",
    "docs/guide/loop.md",
    "docs/guide/backtest.md",
    "docs/glossary.md",
    "docs/guide/scale.md",
    "docs/guide/sources.md",
    "docs/guide/trust.md",
)
_CODE = re.compile(r"```[a-z]*\n(.*?)```|`([^`\n]+)`", re.DOTALL)


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose_of(path: Path) -> str:
    """A document without its code, in which a bracket is no link and a # no heading."""
    return _CODE.sub(lambda code: code[2] or "", text_of(path))


def code_lines(path: Path) -> list[str]:
    """Lines of the code blocks and the code spans of a document."""
    return [
        line.strip()
        for code in _CODE.finditer(text_of(path))
        for line in (code[1] or code[2]).splitlines()
    ]


def words_after(program: str, path: Path) -> list[list[str]]:
    """What follows a program's name wherever a line of code starts with it."""
    lines = [line for line in code_lines(path) if line.startswith(f"{program} ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def commands() -> dict[str, set[str]]:
    """The options of every command."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return {
        name: {option for each in command.params for option in each.opts}
        for name, command in group.commands.items()
        if not command.hidden  # older names, which are still taken
    }


def anchors(path: Path) -> set[str]:
    """Names under which the headings of a document can be linked to."""
    headings = re.findall(r"^#+ (.+)$", prose_of(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(path: Path) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", prose_of(path))
    return [link for link in found if not link.startswith("http")]


@pytest.mark.parametrize("page", PAGES)
def test_the_documents_are_there(page: str) -> None:
    assert ROOT / page in DOCUMENTS
    assert len(text_of(ROOT / page)) > 500


@EVERY_DOCUMENT
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    for link in links(document):
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@EVERY_DOCUMENT
def test_every_command_in_a_document_is_one_with_these_options(document: Path) -> None:
    there = commands()
    for words in words_after("mlops-assets", document):
        name, *arguments = words
        assert name in there, words
        assert {word for word in arguments if word.startswith("--")} <= there[name], words


@EVERY_DOCUMENT
def test_every_make_target_in_a_document_is_in_the_makefile(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    named = {words[0] for words in words_after("make", document)}
    assert named <= targets


def test_the_readme_shows_every_command_with_an_example() -> None:
    shown = {words[0] for words in words_after("mlops-assets", ROOT / "README.md") if words[1:]}
    without_arguments = {"doctor"}
    assert shown | without_arguments == set(commands())


def test_the_readme_starts_with_the_two_commands_and_the_picture() -> None:
    first_screen = text_of(ROOT / "README.md").partition("\n## ")[0]
    for needed in ("make demo", "make test", "docs/pipeline.svg"):
        assert needed in first_screen
    assert len(first_screen.splitlines()) < 30


def test_the_reference_names_every_key_of_the_spec_as_it_is_now() -> None:
    assert len(list(reference.keys())) > 40
    assert reference.written() == reference.table(), "run python -m mlops_assets_tests.reference"


def test_every_test_the_architecture_names_is_there() -> None:
    sources = "\n".join(text_of(path) for path in TEST_FILES)
    there = set(re.findall(r"def (test_\w+)\(", sources))
    named = set(re.findall(r"`(test_\w+)`", text_of(ROOT / "ARCHITECTURE.md")))
    assert len(named) > 15
    assert named <= there


def test_architecture_and_guide_name_every_asset_check_and_job() -> None:
    architecture, guide = text_of(ROOT / "ARCHITECTURE.md"), text_of(OPERATING)
    shared = platform_definitions(settings.load_settings())
    for product in load_products(settings.PROJECT_ROOT / "mlops_assets" / "defs"):
        defs = dg.Definitions.merge(build_product(product), shared)
        for job in defs.jobs or ():
            assert f"`<product>{job.name.removeprefix(product.name)}`" in architecture
        graph = defs.resolve_asset_graph()
        for asset in graph.get_all_asset_keys():
            assert f"`{asset.path[-1]}`" in architecture
        for check in graph.asset_check_keys:
            assert f"`{check.name}`" in architecture
            assert f"`{check.asset_key.path[-1]}.{check.name}`" in guide


def test_the_operating_guide_explains_every_state_of_a_country() -> None:
    tree = ast.parse(text_of(Path(status.__file__)))
    judges = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name in ("_state", "_state_of_accepted")
    ]
    states = {
        node.value.elts[0].value
        for judge in judges
        for node in ast.walk(judge)
        if isinstance(node, ast.Return)
        and isinstance(node.value, ast.Tuple)
        and isinstance(node.value.elts[0], ast.Constant)
    }
    assert {"ok", "contract_broken", "delivery_not_used"} < states
    explained = set(re.findall(r"^\| `(\w+)` \|", text_of(OPERATING), re.MULTILINE))
    assert states <= explained


def test_every_environment_variable_of_the_settings_is_documented_and_no_other() -> None:
    read = set(re.findall(r'environ\.get\("(\w+)"\)', text_of(Path(settings.__file__))))
    read |= {settings.AS_OF, settings.BROKER, settings.DAGSTER_DB}
    read |= {settings.HOME, settings.DAGSTER_HOME, settings.MLFLOW_URI}
    listed = set(re.findall(r"^#([A-Z_]+)=", text_of(ROOT / ".env.example"), re.MULTILINE))
    explained = set(re.findall(r"^\| `([A-Z_]+)` \|", text_of(OPERATING), re.MULTILINE))
    assert len(read) > 5
    assert listed == read
    assert explained == read


def test_what_the_table_of_outcomes_promises_is_tested_on_every_change() -> None:
    _, _, rest = text_of(ROOT / "ARCHITECTURE.md").partition("\n## Table of outcomes\n")
    promised = set(re.findall(r"`(test_\w+)`", rest.partition("\n## ")[0]))
    assert len(promised) > 30
    assert promised & {name for file in TEST_FILES for name in _left_for_later(file)} == set()


def _left_for_later(file: Path) -> set[str]:
    """The tests of a file that only `make nightly` runs."""
    later = ("pytest.mark.nightly", "pytest.mark.cluster")
    module = ast.parse(text_of(file))
    if any(ast.unparse(each) in [f"pytestmark = {mark}" for mark in later] for each in module.body):
        return {each.name for each in module.body if isinstance(each, ast.FunctionDef)}
    return {
        each.name
        for each in ast.walk(module)
        if isinstance(each, ast.FunctionDef)
        and any(ast.unparse(decorator) in later for decorator in each.decorator_list)
    }
