"""What a person does in the Dagster UI, by clicking and reading."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from playwright.sync_api import Locator, Page, TimeoutError, expect

from mlops_assets_tests.runtime.serving import eventually, graphql

RUN_SECONDS = 90
"""The backfill daemon looks every 30 s; a country takes seconds."""
_CLICKS, _SHOWN_MS = 6, 5_000
_ENDED = {"SUCCESS", "FAILURE", "CANCELED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "COMPLETED"}
_STATUS = """
query ($run: ID!, $backfill: String!) {
  runOrError(runId: $run) { ... on Run { status } }
  partitionBackfillOrError(backfillId: $backfill) { ... on PartitionBackfill { status } }
}
"""


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
        dialog = self._launch_dialog(job)
        wanted = self.page.get_by_placeholder("Filter partitions")
        self._open_list(dialog.get_by_text("Select a partition"), wanted)
        for country in countries:
            # Filtered, the list is short and covers nothing that is clicked next.
            wanted.fill(country)
            dialog.get_by_text(country, exact=True).locator("visible=true").first.click()
        dialog.get_by_text("Partition selection").click()
        dialog.get_by_role("button", name="Launch").click()

    def launch_all(self, job: str) -> None:
        """The same for every country, with the dialog's own button."""
        dialog = self._launch_dialog(job)
        dialog.get_by_role("button", name="All", exact=True).click()
        dialog.get_by_role("button", name="Launch backfill").click()

    def follow(self, outcome: str, seconds: float = RUN_SECONDS) -> None:
        """From the notice of a launch to its page, which says how it ended when it has.

        Nobody watches meanwhile: to draw each step as it is told takes as much as the run.
        """
        self.page.get_by_role("link", name="View", exact=True).click()
        self.page.wait_for_url(re.compile(r"/runs/\w"))
        followed = self.page.url
        self.page.goto("about:blank")
        eventually(lambda: self._has_ended(followed.rpartition("/")[2]), "the end", seconds)
        self.page.goto(followed)
        expect(self.page.get_by_text(outcome, exact=True).first).to_be_visible()

    def _has_ended(self, launched: str) -> bool:
        """Whether a run or a backfill has."""
        asked = {"run": launched, "backfill": launched}
        answers = graphql(self.url, _STATUS, asked).values()
        return bool(_ENDED & {answer.get("status") for answer in answers})

    def backfill_counts(self) -> tuple[int, int, int]:
        """Of the open backfill: countries targeted, succeeded and failed."""
        row = self.page.get_by_role("row").filter(has_text="% completed")
        _, targeted, _, succeeded, failed = row.get_by_role("cell").all_inner_texts()
        return int(targeted), int(succeeded), int(failed)

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

    def check_of(self, asset: str, name: str, country: str) -> Locator:
        """The newest result of a check for one country, from the check's tab of partitions."""
        page = self.check(asset, name)
        page.get_by_role("tab", name="Partitions").last.click()
        self.page.get_by_placeholder("Filter by partition").fill(country)
        page.get_by_text(country, exact=True).first.click()
        expect(page.get_by_text("View all historical executions")).to_be_visible()
        return page

    def colour_of(self, badge: str) -> str:
        """Red or yellow (a warning): the fill of the last badge with a text on the open page."""
        fill = self.page.get_by_text(badge, exact=True).last.locator("..").get_attribute("style")
        found = re.search(r"--tag-fill-color: var\(--color-background-(\w+)\)", fill or "")
        assert found, fill
        return found[1]

    def sensor(self, name: str) -> Locator:
        """The page of a sensor."""
        self.open(f"/locations/mlops_assets/sensors/{name}")
        expect(self.page.get_by_text("Frequency", exact=True)).to_be_visible()
        return self.page.locator("body")

    def switch(self, sensor: str) -> None:
        """Its switch, from off to on or back."""
        row = self.sensor(sensor).get_by_role("row").filter(has_text="Running").last
        was_on = row.get_by_role("checkbox").is_checked()
        row.locator("label").click()  # the checkbox itself is drawn by the label
        expect(row.get_by_role("checkbox")).to_be_checked(checked=not was_on)

    def pointing_at_a_tick(self, sensor: str, said: str) -> Locator:
        """The page of a sensor with the mouse on its newest tick that says so."""
        page = self.sensor(sensor)
        ticks = page.get_by_role("row").filter(has_text="View logs")
        ticks.get_by_text(said, exact=True).first.hover(timeout=RUN_SECONDS * 1000)
        return page

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

    def _open_list(self, button: Locator, inside: Locator) -> None:
        """By a click, and by another where the first came while the dialog was drawn anew."""
        for _ in range(_CLICKS):
            button.click()
            with suppress(TimeoutError):
                inside.wait_for(timeout=_SHOWN_MS)
                return
        raise AssertionError(f"{_CLICKS} clicks did not open the list")

    def _launch_dialog(self, job: str) -> Locator:
        self.open(f"/locations/mlops_assets/jobs/{job}")
        self.page.get_by_role("button", name="Materialize all").click()
        return self.page.get_by_role("dialog")


def _left(node: Locator) -> float:
    box = node.bounding_box()
    assert box is not None
    return box["x"]
