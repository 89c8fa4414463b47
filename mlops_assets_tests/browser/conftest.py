from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from mlops_assets.components.loading import load_product
from mlops_assets.settings import PROJECT_ROOT
from mlops_assets_tests.browser.operator import Operator
from mlops_assets_tests.runtime.serving import Up, running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS = 30_000
"""What a page may take to show something on a busy machine."""
GOOD = ("AUT", "BEL", "BGR", "CHE")
BROKEN = "FIN"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the tests of one file.

    Not for the session: its event loop would run on under every later test, where Dagster wants
    one of its own.
    """
    if CHROMIUM is None and os.environ.get("CI") != "true":
        pytest.skip("no chromium on this machine; install it to run the browser tests")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def served(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """`up` with a delivery of five countries, one of which breaks its contract."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "landing" / "power_price"
    folder.mkdir(parents=True)
    _delivery().to_parquet(folder / "delivery.parquet")
    with running(home) as up:
        yield up


@pytest.fixture
def operator(browser: Browser, served: Up) -> Iterator[Operator]:
    with new_page(browser) as page:
        yield Operator(page, served.url)


@contextmanager
def new_page(browser: Browser) -> Iterator[Page]:
    """As large as a screen, closed at the end of the block."""
    page = browser.new_page(viewport={"width": 1500, "height": 1200})
    page.set_default_timeout(PATIENCE_MS)
    try:
        yield page
    finally:
        page.close()


def _delivery() -> pd.DataFrame:
    product = load_product(PROJECT_ROOT / "mlops_assets" / "defs" / "power_price")
    function = product.sample_function()
    assert function is not None
    frame = function(7)
    country = frame["ISO3 Code"]
    wrong = (country == BROKEN) & (frame["Date"] >= "2024-01-01")
    frame.loc[wrong, "Price (EUR/MWhe)"] = 99_999.0
    return frame[country.isin([*GOOD, BROKEN])]
