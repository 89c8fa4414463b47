"""A home as the platform wrote it before its modules moved; `make.py` says what is in it."""

from __future__ import annotations

import json
import sqlite3
import sys
import sysconfig
import tarfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_PROJECT = _HERE.parent.parent


@dataclass(frozen=True)
class OldHome:
    """Where a copy is.

    Attributes:
        path: its `MLOPS_ASSETS_HOME`.
        defs: folder of its one product, `parcels`, as it was then.
    """

    path: Path
    defs: Path

    def environment(self) -> dict[str, str | None]:
        """What differs in the environment of a command on it; None: not set."""
        return {
            "MLOPS_ASSETS_HOME": str(self.path),
            "MLOPS_ASSETS_DEFS": str(self.defs),
            "MLOPS_ASSETS_CONCURRENCY": "1",
            "DAGSTER_HOME": None,
            "MLFLOW_TRACKING_URI": None,
        }


def unpack(into: Path) -> OldHome:
    """A copy of its own below an empty folder, at home there."""
    home = OldHome(into / "home", into / "defs")
    with tarfile.open(_HERE / "home.tar.xz") as archive:
        archive.extractall(into, filter="data")
    places = {
        "@HOME@": str(home.path),
        "@DEFS@": str(home.defs),
        "@PROJECT@": str(_PROJECT),
        "@PYTHON@": sys.executable,
        "@LIBRARIES@": sysconfig.get_path("purelib"),
    }
    for dump in list(into.rglob("*.db.sql")):
        _restore(dump.with_suffix(""), _placed(dump, places))
        dump.unlink()
    for settings in into.rglob("dagster.yaml"):
        settings.write_text(_placed(settings, places))
    return home


def expected() -> dict[str, Any]:
    """What the code that wrote it said of it."""
    return json.loads((_HERE / "expected.json").read_text())


def _placed(file: Path, places: dict[str, str]) -> str:
    text = file.read_text()
    for placeholder, place in places.items():
        text = text.replace(placeholder, place)
    return text


def _restore(database: Path, dump: str) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("pragma synchronous = off")
        connection.executescript(dump)
