from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlops_assets_tests.cluster import hosts
from mlops_assets_tests.cluster.faults import COUNTRIES, OUTCOMES, complete, launch, whole
from mlops_assets_tests.cluster.hosts import PRODUCT, Site
from mlops_assets_tests.cluster.network import Place, port
from mlops_assets_tests.platform import settle
from mlops_assets_tests.runtime.serving import BIN, environment, processes_of

pytestmark = pytest.mark.cluster
COUNTRY = "FRA"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """`up` with workers of its own and no server, as on a laptop."""
    home, pages = tmp_path / "home", (port(), port())
    hosts.make_product(tmp_path / "defs", hosts.codes(COUNTRIES))
    delivery = home / "landing" / PRODUCT / "delivery.csv"
    delivery.parent.mkdir(parents=True)
    delivery.write_bytes(hosts.published(tmp_path / "defs", 1))
    settle(delivery)
    words = [str(BIN / "mlops-assets"), "up", "--workers", "2", "--port", str(pages[0])]
    host = hosts.Host(
        Place("local", "127.0.0.1"),
        home,
        environment(home, MLOPS_ASSETS_DEFS=str(tmp_path / "defs")),
        [*words, "--mlflow-port", str(pages[1])],
    )
    made = Site(host, [], f"http://127.0.0.1:{pages[0]}")
    host.start()
    try:
        made.eventually(lambda: "Stop with Ctrl-C" in host.said, "up", 180)
        made.eventually(made.answers, "the page", 60)
        yield made
    finally:
        host.stop()
        for pid in processes_of(home):
            os.kill(pid, signal.SIGKILL)


def test_a_full_disk_in_one_country_stops_that_country_alone_and_says_so(site: Site) -> None:
    folder = site.control.home / "store" / PRODUCT / "features" / f"country={COUNTRY}"
    since = time.time()
    with _full_disk(folder):
        backfill = launch(site)
        began = time.monotonic()
        backfill.settle()
        seconds = time.monotonic() - began
        states = backfill.states()
        found = whole(backfill)
        assert states.pop(COUNTRY) == "FAILURE"
        assert set(states.values()) == {"SUCCESS"}
        assert all("No space left" in cause for cause in found["causes"].values())
    OUTCOMES.append(f"disk full for one country: settled in {seconds:.0f} s; {found['causes']}")

    again = launch(site)
    again.settle()
    complete(again, since)


@contextmanager
def _full_disk(folder: Path) -> Iterator[None]:
    """A disk of 8 kB in the place of a folder."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs root, to mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
