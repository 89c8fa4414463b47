"""Who may import whom, what loading costs, and how long functions are."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp
import pytest

from mlops_assets.settings import PROJECT_ROOT

PACKAGE = PROJECT_ROOT / "mlops_assets"
MODULES = 248
"""How many modules the package has at least."""
COMPAT = {
    "dagster": "mlops_assets/runtime/dagster_compat.py",
    "mlflow": "mlops_assets/registry/mlflow_compat.py",
    "celery": "mlops_assets/runtime/workers/celery_compat.py",
}
"""Package, with those that come with it: the only file that may use its private parts."""
_DAGSTERS = re.compile(r"dagster(?:_\w+)?(?:\.\w+)*\._\w*(?:\.\w+)*")
_MLFLOWS = re.compile(r"_raise_if_prompt|_engine_map|_exec_cmd|mlflow(?:\.\w+)*\._\w*(?:\.\w+)*")
_CELERYS = re.compile(
    r"dagster_celery(?:\.\w+)*|celery\.backends(?:\.\w+)*|kombu\.(?:transport|utils)(?:\.\w+)*|"
    r"celery-task-meta-|dagster-celery/\w+|TRANSPORT_ALIASES|retry_over_time"
)
_SKLEARNS = re.compile(r"sklearn(?:\.\w+)*\._\w*(?:\.\w+)*|_weighted_percentile")
_SUBCLASSES = {
    "mlops_assets/runtime/dagster_storage/sqlite.py": {"_has_asset_key_col_on_connection"},
    "mlops_assets/runtime/workers/folder_queue.py": {"_get"},
}
"""Files whose classes go on from a private base, and what they call of it beside their own."""
_COMMANDS = "mlops_assets/cli/"
"""A command has the name of what it does, and of the function that does it."""
_SAME_MEANING = {"NAN", "PRIVATE", "StepEvents", "pc", "main", "app", "slices", "store_of"}
"""Names in several modules that mean the same in each of them, or are no more than a shorthand."""


def modules() -> set[str]:
    """Dotted names of every file of the package."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PROJECT_ROOT).with_suffix("").parts
        found.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Who imports whom; packages of others are one module each."""
    return grimp.build_graph("mlops_assets", include_external_packages=True, cache_dir=None)


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_bytes())


@cache
def walk(tree: ast.AST) -> tuple[ast.AST, ...]:
    """`ast.walk`, once for each tree: every test here asks for the same ones."""
    return tuple(ast.walk(tree))


def test_every_file_is_among_the_modules_whose_imports_are_checked(
    graph: grimp.ImportGraph,
) -> None:
    """A folder without `__init__.py` would be left out without a word."""
    analysed = {name for name in graph.modules if name.partition(".")[0] == "mlops_assets"}
    assert analysed == modules()
    # A lower number needs its reason in the commit.
    assert len(analysed) >= MODULES


def test_models_and_features_import_neither_dagster_nor_mlflow(graph: grimp.ImportGraph) -> None:
    pure = [
        name for name in modules() if name.startswith(("mlops_assets.ml.", "mlops_assets.spec"))
    ]
    assert len(pure) > 8
    for name in pure:
        reached = {each.partition(".")[0] for each in graph.find_upstream_modules(name)}
        assert reached.isdisjoint({"dagster", "dagster_mlflow", "mlflow", "fsspec", "duckdb"}), name


def test_loading_the_code_location_loads_no_model_library() -> None:
    code = "import sys; from mlops_assets.definitions import defs; defs(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "dagster" in loaded
    assert loaded.isdisjoint({"mlflow", "dagster_mlflow", "sklearn", "skops"})


def private_uses(file: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each use of something that another package does not export."""
    name, tree = file.relative_to(PROJECT_ROOT).as_posix(), tree_of(file)
    patterns = [_SKLEARNS] + [
        pattern
        for tool, pattern in (("dagster", _DAGSTERS), ("mlflow", _MLFLOWS), ("celery", _CELERYS))
        if name != COMPAT[tool]
    ]
    found = [(node, text) for node in walk(tree) for text in _names(node)]
    private = {
        text
        for text in {text for _, text in found}
        if any(pattern.fullmatch(text) for pattern in patterns)
    }
    yield from ((getattr(node, "lineno", 0), text) for node, text in found if text in private)
    if name not in COMPAT.values():
        for line, text in (*_reached(tree), *_replaced(tree)):
            if text not in _SUBCLASSES.get(name, ()):
                yield line, text


def _names(node: ast.AST) -> Iterator[str]:
    """What a statement imports, an expression names, and a text is."""
    if isinstance(node, ast.Import):
        yield from (each.name for each in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module
        yield from (f"{node.module}.{each.name}" for each in node.names)
        yield from (each.name for each in node.names)
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def _reached(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Attributes with an underscore of anything but the object or class itself."""
    public = {"_exit", "_replace"}  # os._exit; of named tuples
    for node in walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr) and node.attr not in public:
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if not own:
                yield node.lineno, node.attr
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
            asked = node.args[1]
            by_name = node.func.id in ("getattr", "setattr", "hasattr", "delattr")
            if by_name and isinstance(asked, ast.Constant) and _is_private(str(asked.value)):
                yield node.lineno, str(asked.value)


def _replaced(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Attributes that are set on what was imported from another package."""
    foreign = {
        alias.asname or alias.name.partition(".")[0]
        for node in walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if not str(getattr(node, "module", "") or alias.name).startswith(
            ("mlops_assets", "benchmarks")
        )
    }
    for node in walk(tree):
        for target in node.targets if isinstance(node, ast.Assign) else ():
            if isinstance(target, ast.Attribute) and _root(target) in foreign:
                yield target.lineno, ast.unparse(target)


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_private_parts_of_other_packages_are_used_in_one_place_each() -> None:
    """An upgrade breaks the compat modules alone, and their tests say so."""
    files = [file for folder in ("mlops_assets", "benchmarks") for file in _files(folder)]
    offenders = [
        f"{file.relative_to(PROJECT_ROOT).as_posix()}:{line} {text}"
        for file in files
        for line, text in private_uses(file)
    ]
    assert offenders == []
    for tool in COMPAT.values():
        assert PROJECT_ROOT / tool in files


def _files(folder: str) -> list[Path]:
    return sorted((PROJECT_ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize(
    "code",
    [
        "from dagster._core import launcher",
        "from dagster import _check",
        "import dagster_postgres._x",
        "import_module('dagster._daemon.controller')",
        "SECTION = {'module': 'dagster._core.storage.root'}",
        "client._raise_if_prompt('name')",
        "setattr(server, '_exec_cmd', other)",
        "from mlflow.utils.process import _exec_cmd",
        "from kombu.transport import filesystem",
        "from dagster_celery.launcher import CeleryRunLauncher",
        "TAG = 'dagster-celery/task_id'",
        "from sklearn.ensemble._hist_gradient_boosting import binning",
        "context.instance._run_storage.get_runs()",
        "from dagster import thing\nthing.INTERVAL = 3",
    ],
)
def test_a_private_use_is_found(code: str) -> None:
    tree = ast.parse(code)
    named = [text for node in walk(tree) for text in _names(node)]
    patterns = (_DAGSTERS, _MLFLOWS, _CELERYS, _SKLEARNS)
    found = any(pattern.fullmatch(text) for text in named for pattern in patterns)
    assert found or [*_reached(tree), *_replaced(tree)]


def public_names(file: Path) -> Iterator[str]:
    """Functions, classes and constants of a module that others may use."""
    for node in tree_of(file).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (each.id for each in node.targets if isinstance(each, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def test_no_public_name_has_two_meanings() -> None:
    defined: dict[str, list[str]] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PROJECT_ROOT).as_posix()
        if not name.startswith((_COMMANDS, "mlops_assets/defs/")):
            for public in public_names(file):
                if not public.startswith("_") and public not in _SAME_MEANING:
                    defined.setdefault(public, []).append(name)
    assert {name: files for name, files in defined.items() if len(files) > 1} == {}


def body_lines() -> dict[str, int]:
    """Function: lines from its first statement to its last, the docstring left out."""
    lengths = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in walk(tree_of(file)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[ast.get_docstring(node, clean=False) is not None :]
                length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                lengths[f"{file.relative_to(PROJECT_ROOT)}:{node.lineno} {node.name}"] = length
    return lengths


@pytest.fixture(scope="module")
def lengths() -> dict[str, int]:
    return body_lines()


def test_functions_are_short(lengths: dict[str, int]) -> None:
    assert len(lengths) > 500
    assert statistics.median(lengths.values()) < 10
    assert statistics.quantiles(lengths.values(), n=10)[-1] < 25


def test_no_function_is_over_fifty_lines(lengths: dict[str, int]) -> None:
    assert {name: lines for name, lines in lengths.items() if lines > 50} == {}
