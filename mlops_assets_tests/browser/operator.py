"""What a person does in the Dagster UI, by clicking and reading."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from playwright.sync_api import Locator, Page, expect

RUN_MS = 90_000
"""The backfill daemon looks every 30 s; a country takes seconds."""


@dataclass
class Operator:
    """A person in front of a page."""

    page: Page
    url: str

    def open(self, path: str) -> None:
        self.page.goto(f"{self.url}{path}")

    def groups_from_left_to_right(self) -> list[str]:
        """Names of the groups in the asset graph."""
        self.open("/asset-groups")
        expect(self.page.locator("foreignObject", has_text="predictions")).to_be_visible()
        nodes = self.page.locator("foreignObject")
        placed = [(_left(node), node.text_content() or "") for node in nodes.all()]
        return [name for _, name in sorted(placed)]

    def launch(self, job: str, countries: Sequence[str]) -> None:
        """Materialize all assets of a job for some countries, from the job's page."""
        self.open(f"/locations/mlops_assets/jobs/{job}")
        self.page.get_by_role("button", name="Materialize all").click()
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_text("Select a partition").click()
        for country in countries:
            # Filtered, the list is short and covers nothing that is clicked next.
            self.page.get_by_placeholder("Filter partitions").fill(country)
            dialog.get_by_text(country, exact=True).locator("visible=true").first.click()
        dialog.get_by_text("Partition selection").click()
        dialog.get_by_role("button", name="Launch").click()

    def follow(self, outcome: str) -> None:
        """From the notice of a launch to its page, until it says how it ended."""
        self.page.get_by_role("link", name="View", exact=True).click()
        expect(self.page.get_by_text(outcome, exact=True).first).to_be_visible(timeout=RUN_MS)

    def partition(self, asset: str, country: str) -> Locator:
        """The page of one country of an asset."""
        self.open(f"/assets/{asset}?view=partitions&partition={country}")
        expect(self.page.get_by_text("Latest materialization")).to_be_visible()
        return self.page.locator("body")

    def check(self, asset: str, name: str) -> Locator:
        """The page of a check with its newest result."""
        self.open(f"/assets/{asset}?view=checks&checkDetail={name}")
        expect(self.page.get_by_text("Latest execution")).to_be_visible()
        return self.page.locator("body")

    def plot(self, key: str) -> tuple[str, int]:
        """Type and width of the picture behind a metadata key of the open page."""
        row = self.page.get_by_role("row").filter(has_text=re.compile(rf"^{key}"))
        row.get_by_text("[Show Markdown]").click()
        image = self.page.get_by_role("dialog").locator("img")
        image.wait_for()
        source = image.get_attribute("src") or ""
        width = image.evaluate("image => image.decode().then(() => image.naturalWidth)")
        self.page.keyboard.press("Escape")
        return source.partition(";")[0], int(width)


def _left(node: Locator) -> float:
    box = node.bounding_box()
    assert box is not None
    return box["x"]
