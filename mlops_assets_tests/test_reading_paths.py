"""Where ARCHITECTURE.md sends a reader: few files, and all of them are there."""

from __future__ import annotations

import re

import pytest

from mlops_assets.settings import PROJECT_ROOT

PATHS = (
    "What happens to a bad row",
    "How a model gets promoted",
    "When a country is retrained",
    "How a prediction is made",
)
MOST_FILES = 8


def files_of(path: str) -> list[str]:
    text = (PROJECT_ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = text.split(f"### {path}\n", 1)[1].split("\n#", 1)[0]
    return re.findall(r"^\d+\. `([^`]+)`", section, re.MULTILINE)


@pytest.mark.parametrize("path", PATHS)
def test_a_reading_path_is_at_most_eight_files_that_exist(path: str) -> None:
    files = files_of(path)
    assert 3 <= len(files) <= MOST_FILES
    assert len(set(files)) == len(files)
    for file in files:
        assert (PROJECT_ROOT / file).is_file(), file


def test_no_folder_has_more_than_twelve_modules() -> None:
    package = PROJECT_ROOT / "mlops_assets"
    folders = [package, *(each for each in package.rglob("*") if each.is_dir())]
    modules = {
        folder.relative_to(PROJECT_ROOT).as_posix(): len(list(folder.glob("*.py")))
        for folder in folders
    }
    assert {name: count for name, count in modules.items() if count > 12} == {}
