"""A cluster as `docs/guide/cluster.md` has it: a control host, worker hosts, shared servers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_assets.components.loading import load_product
from mlops_assets.components.scaffold import new_product
from mlops_assets.settings import DEFS, PROJECT_ROOT
from mlops_assets_tests.cluster import servers
from mlops_assets_tests.cluster.network import Network, Place, network, port
from mlops_assets_tests.cluster.servers import Servers
from mlops_assets_tests.platform import edit
from mlops_assets_tests.runtime import serving
from mlops_assets_tests.runtime.serving import eventually, graphql, processes_of

PRODUCT = "parcels"
_NAME = "platform"
BUCKET = f"s3://{_NAME}"
CONTROL = "control"
WORKERS = ("worker-a", "worker-b")
_STRONG_BASELINE = """    - name: week_ago
      rule: feature
      feature: demand_week_ago
"""
_BIN = Path(sys.executable).parent
_ACCESS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_LAUNCH = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  }
}
"""
_RUNS = """
query ($filter: RunsFilter!) {
  runsOrError(filter: $filter) {
    ... on Runs { results { runId status startTime endTime tags { key value } } }
  }
}
"""
_BACKFILL = """
query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } }
}
"""


@dataclass
class Host:
    """One machine: a home, a copy of the products, and the command that runs on it."""

    place: Place
    home: Path
    environment: Mapping[str, str]
    words: list[str]
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def log(self) -> Path:
        return self.home / "said.txt"

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def start(self) -> None:
        """Start its command and return at once."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.place.command(*self.words),
                env={**self.environment, "PYTHONUNBUFFERED": "1"},
                cwd=PROJECT_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def processes(self, *words: str) -> list[int]:
        """Ids of its processes whose command has all of these words."""
        return [pid for pid in processes_of(self.home) if set(words) <= set(_command(pid))]

    def copies(self) -> list[str]:
        """Model files that it fetched and left behind among its temporary files."""
        return [str(file) for file in (self.home / "tmp").rglob("*.skops")]

    def kill(self) -> None:
        """As if its power had been cut: every process at once."""
        for pid in processes_of(self.home):
            os.kill(pid, signal.SIGSTOP)  # so that none starts another one
        for pid in processes_of(self.home):
            os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait(20)
            self.process = None

    def ask_to_stop(self) -> None:
        if self.process is not None:
            self.process.terminate()

    def stop(self) -> None:
        """In order, and then whatever is left."""
        if self.process is not None:
            self.ask_to_stop()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(20)
            self.process = None
        for pid in processes_of(self.home):
            os.kill(pid, signal.SIGKILL)


@dataclass
class Site:
    """A served UI, and what a person does in it."""

    control: Host
    workers: list[Host]
    url: str

    def ask(self, query: str, variables: Mapping[str, Any]) -> Any:
        """The data of an answer of the webserver, which listens on its own host only."""
        with self.control.place.inside():
            return graphql(self.url, query, variables)

    def answers(self) -> bool:
        """Whether the webserver has the code location."""
        try:
            return bool(self.ask("{ version }", {}))
        except OSError:
            return False

    def launch(self, countries: Sequence[str]) -> str:
        """Start a backfill of the whole chain, as the tab *Partitions* of the job does; its id."""
        selector = {
            "partitionSetName": f"{PRODUCT}_all_partition_set",
            "repositorySelector": {
                "repositoryName": "__repository__",
                "repositoryLocationName": "mlops_assets",
            },
        }
        params = {"selector": selector, "partitionNames": list(countries)}
        made = self.ask(_LAUNCH, {"params": params})["launchPartitionBackfill"]
        assert made["__typename"] == "LaunchBackfillSuccess", made
        return str(made["backfillId"])

    def runs(self, backfill: str) -> list[dict[str, Any]]:
        """The runs of a backfill: id, status, times, and tags under their own names."""
        wanted = {"filter": {"tags": [{"key": "dagster/backfill", "value": backfill}]}}
        found = self.ask(_RUNS, wanted)["runsOrError"]["results"]
        return [{**{tag["key"]: tag["value"] for tag in run.pop("tags")}, **run} for run in found]

    def backfill_status(self, backfill: str) -> str:
        return str(self.ask(_BACKFILL, {"id": backfill})["partitionBackfillOrError"]["status"])

    def account(self, backfill: str) -> dict[str, Any]:
        """What storage, registry and history hold, read on the control host."""
        module = "mlops_assets_tests.cluster.account"
        command = [sys.executable, "-m", module, PRODUCT, backfill]
        done = subprocess.run(
            self.control.place.command(*command),
            env=dict(self.control.environment),
            cwd=PROJECT_ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    def eventually(self, holds: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait; the failure has what the hosts said."""
        try:
            eventually(holds, what, seconds)
        except AssertionError as error:
            hosts = (self.control, *self.workers)
            said = "\n".join(f"--- {host.place.name}\n{host.said[-3000:]}" for host in hosts)
            raise AssertionError(f"{error}\n{said}") from None


@dataclass
class Cluster(Site):
    """A site with workers on other hosts, and what all of them share."""

    network: Network
    servers: Servers
    deliveries: int = 0

    def deliver(self) -> None:
        """Another file in the landing folder, with other values in every record."""
        self.deliveries += 1
        with self.servers.bucket.place.inside():
            bucket_client(self.servers).put_object(
                Bucket=_NAME,
                Key=f"landing/{PRODUCT}/{self.deliveries:03}.csv",
                Body=published(self.control.home / "defs", self.deliveries),
            )


@contextmanager
def running(folder: Path, countries: Sequence[str], *changes: tuple[str, str]) -> Iterator[Cluster]:
    """A cluster that serves a product of these countries; nothing of it outlives the block.

    Args:
        folder: of all homes and servers.
        countries: which.
        changes: old and new text in the product's YAML.
    """
    with network() as net, servers.running(net.place("servers"), folder / "servers") as shared:
        make_product(folder / "defs", countries, *changes)
        with shared.bucket.place.inside():
            bucket_client(shared).create_bucket(Bucket=_NAME)
        url, control = _control(net, shared, folder)
        made = [_worker(net, shared, folder, name) for name in WORKERS]
        hosts = [control, *made]
        cluster = Cluster(control, made, url, net, shared)
        try:
            for host in hosts:  # all at once, on empty databases
                host.start()
            _wait(cluster)
            yield cluster
        finally:
            for host in hosts:
                host.ask_to_stop()
            for host in hosts:
                host.stop()


def _wait(cluster: Cluster) -> None:
    for host in (cluster.control, *cluster.workers):
        cluster.eventually(lambda host=host: "Stop with Ctrl-C" in host.said, host.place.name, 180)
    cluster.eventually(lambda: ready(cluster), "workers that beat", 120)


def ready(cluster: Cluster) -> bool:
    """Whether the code location is loaded and every worker host has said that it lives."""
    import redis

    if not cluster.answers():
        return False
    with cluster.control.place.inside(), redis.Redis.from_url(cluster.servers.broker) as broker:
        return len(list(broker.scan_iter("mlops_assets-worker-*"))) >= len(cluster.workers)


def make_product(folder: Path, countries: Sequence[str], *changes: tuple[str, str]) -> None:
    """A small product of these countries, without a pooled model and with a weak baseline."""
    product = new_product(PRODUCT, folder)
    listed = ", ".join(f'"{country}"' for country in countries)
    edit(
        product / "defs.yaml",
        ("[DEU, FRA, NOR]", f"[{listed}]"),
        ("learning_rate: 0.1}", "learning_rate: 0.1}\n      scopes: [local]"),
        (_STRONG_BASELINE, ""),
        *changes,
    )
    edit(product / "sample.py", ('("DEU", "FRA", "NO")', f"({listed},)"))


def published(defs: Path, seed: int) -> bytes:
    """A delivery of the product as CSV, with other values for another seed."""
    sample = load_product(defs / PRODUCT).sample_function()
    assert sample is not None
    return sample(seed).to_csv(index=False).encode()


def codes(count: int) -> list[str]:
    """So many countries; those of the scaffolded product come first."""
    listed = [*("DEU", "FRA", "NOR"), *load_product(DEFS / "power_price").spec.countries]
    return list(dict.fromkeys(listed))[:count]


def keys(shared: Servers) -> set[str]:
    """The names of all objects in the bucket."""
    with shared.bucket.place.inside():
        pages = bucket_client(shared).get_paginator("list_objects_v2").paginate(Bucket=_NAME)
        return {each["Key"] for page in pages for each in page.get("Contents", ())}


def bucket_client(shared: Servers) -> Any:
    """Of the object store itself, past the proxy; use it inside a place."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=f"http://{shared.bucket.address}",
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )


def _control(net: Network, shared: Servers, folder: Path) -> tuple[str, Host]:
    pages = port(), port()
    words = [
        *(str(_BIN / "mlops-assets"), "up", "--workers", "0", "--runs", str(len(WORKERS))),
        *("--port", str(pages[0]), "--mlflow-port", str(pages[1])),
    ]
    place = net.place(CONTROL)
    return f"http://127.0.0.1:{pages[0]}", _host(place, shared, folder, words)


def _worker(net: Network, shared: Servers, folder: Path, name: str) -> Host:
    words = [str(_BIN / "mlops-assets"), "worker", "--processes", "1"]
    return _host(net.place(name), shared, folder, words)


def _host(place: Place, shared: Servers, folder: Path, words: list[str]) -> Host:
    home = folder / place.name
    shutil.copytree(folder / "defs", home / "defs")
    environment = serving.environment(
        home,
        MLOPS_ASSETS_DEFS=str(home / "defs"),
        MLOPS_ASSETS_STORAGE=f"{BUCKET}/store",
        MLOPS_ASSETS_LANDING=f"{BUCKET}/landing",
        MLFLOW_TRACKING_URI=shared.database("mlflow"),
        MLOPS_ASSETS_MLFLOW_ARTIFACTS=f"{BUCKET}/models",
        MLOPS_ASSETS_BROKER=shared.broker,
        MLOPS_ASSETS_DAGSTER_DB=shared.database("dagster"),
        AWS_ENDPOINT_URL=f"http://{shared.proxy.address}",
        MLFLOW_S3_ENDPOINT_URL=f"http://{shared.proxy.address}",
        **_ACCESS,
    )
    return Host(place, home, environment, words)


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []
