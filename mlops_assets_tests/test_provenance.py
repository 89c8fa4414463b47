"""What a model is made with: the code's hash, and what is recorded of the machine."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import pytest

from mlops_assets.provenance import (
    LIBRARIES,
    OPTIONAL_LIBRARIES,
    code_hash,
    platform_code,
    provenance_now,
)
from mlops_assets.settings import PROJECT_ROOT

PACKAGE = PROJECT_ROOT / "mlops_assets"


def written(folder: Path, **files: str) -> list[Path]:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return sorted(folder.glob("*.py"))


def test_comments_and_layout_are_not_code(tmp_path: Path) -> None:
    before = code_hash(written(tmp_path, one="x = 1\n", two="y = 2\n"), tmp_path)
    after = code_hash(written(tmp_path, one="# why\n\nx  =  1\n"), tmp_path)
    assert after == before
    assert len(before) == 12


@pytest.mark.parametrize("files", [{"one": "x = 2\n"}, {"three": "x = 1\n"}])
def test_a_statement_and_a_file_are_code(tmp_path: Path, files: dict[str, str]) -> None:
    before = code_hash(written(tmp_path, one="x = 1\n", two="y = 2\n"), tmp_path)
    assert code_hash(written(tmp_path, **files), tmp_path) != before


def test_the_order_of_the_files_does_not_matter(tmp_path: Path) -> None:
    files = written(tmp_path, one="x = 1\n", two="y = 2\n")
    assert code_hash(files[::-1], tmp_path) == code_hash(files, tmp_path)


def test_the_platform_is_what_trains_and_judges_and_the_spec() -> None:
    files = [*(PACKAGE / "ml").rglob("*.py"), *(PACKAGE / "spec").rglob("*.py")]
    assert len(files) > 10
    assert platform_code() == code_hash(files, PACKAGE)
    assert platform_code() != code_hash(files[1:], PACKAGE)


def test_what_is_installed_and_the_machine_are_named() -> None:
    found = provenance_now("abc")
    assert found.product_code == "abc"
    assert found.python == platform.python_version()
    assert found.libraries == {name: version(name) for name in (*LIBRARIES, *OPTIONAL_LIBRARIES)}
    assert set(found.machine) == {"architecture", "blas", "threads"}
    assert all(found.machine.values())
    assert f"numpy {version('numpy')}" in found.short()
    assert len(found.short()) < 250
