"""The tables of Dagster's history on PostgreSQL, made before webserver, daemon and workers begin.

Each of those would make them at need; those that do it together break the database or fail.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mlops_assets.advisory_lock import one_at_a_time
from mlops_assets.errors import MlopsAssetsError
from mlops_assets.settings import DAGSTER_DB, load_settings


class NoHistoryError(MlopsAssetsError):
    """The database of Dagster's history cannot be used."""


def create_tables(home: Path) -> None:
    """Make what is missing, in a process of its own: `up` does without Dagster's memory.

    Args:
        home: folder of a Dagster instance.

    Raises:
        NoHistoryError: the database does not answer, or its tables cannot be made.
    """
    command = [
        sys.executable,
        "-m",
        "mlops_assets.runtime.dagster_storage.create_schema",
        str(home),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        told = next((line for line in lines if "Error" in line and "File" not in line), "")
        raise NoHistoryError(
            f"The database of Dagster's history cannot be used: {told or lines[-1:]}.",
            stored="Nothing was started.",
            way_out=f"Start PostgreSQL, or correct {DAGSTER_DB}, and run again.",
        )


def _create(home: str) -> None:
    import dagster as dg

    with one_at_a_time(load_settings().dagster_db), dg.DagsterInstance.from_config(home):
        return


if __name__ == "__main__":
    _create(sys.argv[1])
