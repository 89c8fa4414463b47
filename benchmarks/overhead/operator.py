"""What a person does in the Dagster UI, by the queries the UI makes."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.overhead.world import PRODUCT

Alive = Callable[[], bool]

BEFORE_TRAINING: tuple[tuple[str, ...], ...] = (("raw", "validated", "quarantine"), ("features",))
AFTER_TRAINING = ("model", "champion", "predictions", "performance", "drift")
SERVING = ("predictions", "performance", "drift")

_POLL_SECONDS = 1.0
_LONGEST_SECONDS = 4 * 3600.0
_WAITING = ("REQUESTED", "CANCELING", "FAILING")
_LOCATION = """
{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }
"""
_BACKFILL = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
_BACKFILL_STATUS = """
query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status error { message } }
  }
}
"""
_RUN = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
_RUN_STATUS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
_FAILED = """
query ($tags: [ExecutionTag!]!) {
  runsOrError(filter: {tags: $tags, statuses: [FAILURE, CANCELED]}) {
    ... on Runs { results { runId tags { key value } } }
  }
}
"""
_COUNT = "{ runsOrError { ... on Runs { count } } }"


class NotDoneError(RuntimeError):
    """Dagster refused, or what it was asked for failed as a whole."""


@dataclass(frozen=True)
class Operator:
    """A person with the pages of one Dagster open.

    Attributes:
        url: of the webserver.
        alive: whether what serves it still runs.
    """

    url: str
    alive: Alive

    def wait_until_served(self, seconds: float = 240.0) -> None:
        """Until the code location is loaded.

        Raises:
            NotDoneError: it is not in time.
        """
        deadline = time.monotonic() + seconds
        while not self._locations():
            if time.monotonic() > deadline or not self.alive():
                raise NotDoneError("Dagster does not serve the code location")
            time.sleep(_POLL_SECONDS)

    def backfill(self, assets: Sequence[str], countries: Sequence[str]) -> dict[str, list[str]]:
        """Materialize assets of countries and wait; countries with a failed run."""
        selection = [{"path": [PRODUCT, asset]} for asset in assets]
        params = {"assetSelection": selection, "partitionNames": list(countries)}
        answer = self._ask(_BACKFILL, {"params": params})["launchPartitionBackfill"]
        if answer["__typename"] != "LaunchBackfillSuccess":
            raise NotDoneError(f"the backfill was refused: {answer}")
        held = answer["backfillId"]
        self._until(lambda: self._backfill_status(held) not in _WAITING)
        return self._failed(held, assets)

    def run(self, job: str) -> None:
        """Launch a job without partitions and wait.

        Raises:
            NotDoneError: it failed.
        """
        name, location = self._locations()[0]
        selector = {
            "repositoryName": name,
            "repositoryLocationName": location,
            "jobName": f"{PRODUCT}_{job}",
        }
        params = {"selector": selector, "mode": "default", "runConfigData": {}}
        answer = self._ask(_RUN, {"params": params})["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise NotDoneError(f"the run was refused: {answer}")
        run = answer["run"]["runId"]
        self._until(lambda: self._run_status(run) in ("SUCCESS", "FAILURE", "CANCELED"))
        if self._run_status(run) != "SUCCESS":
            raise NotDoneError(f"the run of {job} failed")

    def runs(self) -> int:
        """How many runs there have been."""
        return int(self._ask(_COUNT)["runsOrError"]["count"])

    def _failed(self, backfill: str, assets: Sequence[str]) -> dict[str, list[str]]:
        tags = [{"key": "dagster/backfill", "value": backfill}]
        found: dict[str, list[str]] = {}
        for run in self._ask(_FAILED, {"tags": tags})["runsOrError"]["results"]:
            own = {tag["key"]: tag["value"] for tag in run["tags"]}
            country = own.get("dagster/partition", "several countries")
            found.setdefault(country, []).append(f"run {run['runId']} of {', '.join(assets)}")
        return found

    def _backfill_status(self, backfill: str) -> str:
        found = self._ask(_BACKFILL_STATUS, {"id": backfill})["partitionBackfillOrError"]
        if found["status"] == "FAILED":
            raise NotDoneError(f"the backfill failed: {found['error']}")
        return found["status"]

    def _run_status(self, run: str) -> str:
        return self._ask(_RUN_STATUS, {"id": run})["runOrError"]["status"]

    def _until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _LONGEST_SECONDS
        while not holds():
            if time.monotonic() > deadline or not self.alive():
                raise NotDoneError("it did not come to an end")
            time.sleep(_POLL_SECONDS)

    def _locations(self) -> list[tuple[str, str]]:
        try:
            nodes = self._ask(_LOCATION)["repositoriesOrError"].get("nodes", [])
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return []
        return [(node["name"], node["location"]["name"]) for node in nodes]

    def _ask(self, query: str, variables: Mapping[str, Any] | None = None) -> Any:
        body = json.dumps({"query": query, "variables": dict(variables or {})}).encode()
        head = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/graphql", body, head)
        with urllib.request.urlopen(request, timeout=120) as answer:
            found = json.load(answer)
        if found.get("errors"):
            raise NotDoneError(str(found["errors"]))
        return found["data"]
