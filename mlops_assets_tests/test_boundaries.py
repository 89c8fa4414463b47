"""Who may import whom, what loading costs, and how long functions are."""

from __future__ import annotations

import ast
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from mlops_assets.settings import PROJECT_ROOT

PACKAGE = PROJECT_ROOT / "mlops_assets"


def modules() -> set[str]:
    """Dotted names of every file of the package."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PROJECT_ROOT).with_suffix("").parts
        found.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def test_dependencies_go_one_way() -> None:
    program = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert program is not None
    done = subprocess.run([program], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert " 0 broken" in done.stdout


def test_every_file_is_among_the_modules_whose_imports_are_checked() -> None:
    """A folder without `__init__.py` would be left out without a word."""
    analysed = grimp.build_graph("mlops_assets", cache_dir=None).modules
    assert analysed == modules()
    assert len(analysed) > 50


def test_models_and_features_import_neither_dagster_nor_mlflow() -> None:
    graph = grimp.build_graph("mlops_assets", include_external_packages=True, cache_dir=None)
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


def body_lines() -> dict[str, int]:
    """Function: lines from its first statement to its last, the docstring left out."""
    lengths = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_bytes())):
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
