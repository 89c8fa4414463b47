from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_assets_tests.cluster import hosts
from mlops_assets_tests.cluster.faults import COUNTRIES, OUTCOMES
from mlops_assets_tests.cluster.hosts import Cluster
from mlops_assets_tests.sources import databases


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    """One cluster for all tests here; each delivers anew, and leaves every host as it was.

    Not for the session: its services would take their part of the machine from all later tests.
    """
    require_servers()
    folder = Path(tempfile.mkdtemp(prefix="mlops-cluster-", dir="/tmp"))
    try:
        with hosts.running(folder, hosts.codes(COUNTRIES)) as made:
            yield made
    finally:
        shutil.rmtree(folder)


def require_servers() -> None:
    """Skip where the programs are missing, but not in CI."""
    missing = [name for name in ("redis-server",) if shutil.which(name) is None]
    if databases.programs() is None:
        missing.append("PostgreSQL")
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"CI has to install {', '.join(missing)}")
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What became of each fault, as the table of the guide has it."""
    for outcome in OUTCOMES:
        terminalreporter.write_line(outcome)
