from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from mlops_assets_tests.browser.operator import Operator
from mlops_assets_tests.browser.site import Site

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
_STILL = """
addEventListener("DOMContentLoaded", () => {
  const style = document.createElement("style");
  style.textContent = "* { animation: none !important; transition: none !important; }";
  document.head.append(style);
});
"""
PATIENCE_MS = 30_000
"""What a page may take to show something on a busy machine."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")
def browser() -> Iterator[Page]:
    """A window as one person uses it, for the tests of this folder: what it loaded once it keeps,
    and another one would cost more than most pages.

    Not for the session: its event loop would run on under every later test, where Dagster wants
    one of its own.
    """
    if CHROMIUM is None and os.environ.get("CI") != "true":
        pytest.skip("no chromium on this machine; install it to run the browser tests")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        # Drawn by the processor, whatever moves costs more than all that stands.
        person = opened.new_context(
            viewport={"width": 1500, "height": 1200}, reduced_motion="reduce"
        )
        person.add_init_script(_STILL)
        person.set_default_timeout(PATIENCE_MS)
        yield person.new_page()
        person.close()
        opened.close()


@pytest.fixture
def operator(browser: Page, site: Site) -> Iterator[Operator]:
    yield Operator(browser, site.up.url)
    browser.goto("about:blank")  # what is open goes on asking
