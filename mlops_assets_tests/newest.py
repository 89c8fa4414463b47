"""Which of our direct dependencies are other ones here than in `requirements.lock`.

`make newest` runs it in an environment with the newest releases that `pyproject.toml` allows.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mlops_assets.settings import PROJECT_ROOT

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)


@dataclass(frozen=True)
class Difference:
    """A direct dependency whose release is another one.

    Attributes:
        name: of the package.
        locked: its release in the lock; "-" for none.
        here: its release in this environment; "-" for none.
    """

    name: str
    locked: str
    here: str


def differences(project: Path = PROJECT_ROOT) -> list[Difference]:
    """Of all direct dependencies, those of extras and for development too, by name."""
    locked = {_plain(name): found for name, found in _LOCKED.findall(_read(project))}
    found = [
        Difference(name, locked.get(name, "-"), _here(name)) for name in sorted(direct(project))
    ]
    return [each for each in found if each.locked != each.here]


def direct(project: Path = PROJECT_ROOT) -> set[str]:
    """Names of what `pyproject.toml` asks for."""
    asked: dict[str, Any] = tomllib.loads((project / "pyproject.toml").read_text())
    groups = [
        asked["project"]["dependencies"],
        *asked["project"]["optional-dependencies"].values(),
        *asked["dependency-groups"].values(),
    ]
    names = (_NAME.match(each) for group in groups for each in group)
    return {_plain(match[0]) for match in names if match}


def _read(project: Path) -> str:
    return (project / "requirements.lock").read_text()


def _here(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Print a table of them."""
    found = differences()
    print(f"{len(found)} of {len(direct())} direct dependencies differ from requirements.lock")
    for each in found:
        print(f"  {each.name:<24} {each.locked:<16} {each.here}")


if __name__ == "__main__":
    main()
