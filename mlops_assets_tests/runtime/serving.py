"""`mlops-assets up` as a process of its own on a temporary home, and what it left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.runtime.up.up import free_port
from mlops_assets.settings import PROJECT_ROOT

BIN = Path(sys.executable).parent
_OURS = ("DAGSTER_HOME", "MLFLOW_TRACKING_URI")


@dataclass
class Up:
    """A running `up`."""

    home: Path
    port: int
    mlflow_port: int
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def said(self) -> str:
        return self.log.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 60) -> int:
        self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """End whatever is left of it."""
        self.process.kill()
        self.process.wait()
        for pid in processes_of(self.home):
            os.kill(pid, signal.SIGKILL)


def environment(home: Path, **more: str) -> dict[str, str]:
    """This environment with a home of its own; temporary files go there too."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _OURS and not name.startswith("MLOPS_ASSETS_")
    }
    temporary = home / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    return {**kept, "MLOPS_ASSETS_HOME": str(home), "TMPDIR": str(temporary), **more}


def start(home: Path, **more: str) -> Up:
    """Start it and return at once; it leads a process group of its own."""
    home.mkdir(parents=True, exist_ok=True)
    ports = free_port(), free_port()
    log = home / "up.txt"
    if signal.getsignal(signal.SIGTERM) == signal.SIG_IGN:
        # Dagster treats it as Ctrl-C after each run in this process, and a job in the background
        # has that ignored. What is started here would not hear it until it has its own handler.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    command = [str(BIN / "mlops-assets"), "up", "--port", str(ports[0])]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--mlflow-port", str(ports[1])],
            env=environment(home, PYTHONUNBUFFERED="1", **more),
            cwd=PROJECT_ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Up(home, *ports, log, process)


@contextmanager
def running(home: Path, **more: str) -> Iterator[Up]:
    """Serve until the block ends; nothing it started outlives it."""
    up = start(home, **more)
    try:
        eventually(lambda: "Stop with Ctrl-C" in up.said, "the pages", 150, up)
        yield up
    finally:
        if up.process.poll() is None:
            up.stop()
        for pid in processes_of(home):
            os.kill(pid, signal.SIGKILL)


def processes_of(home: Path) -> list[int]:
    """Everything that runs with this home in its environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            values = (folder / "environ").read_bytes().split(b"\0")
            is_zombie = (folder / "stat").read_text().rpartition(") ")[2].startswith("Z")
        except OSError:
            continue
        if f"MLOPS_ASSETS_HOME={home}".encode() in values and not is_zombie:
            found.append(int(folder.name))
    return found


def zombies_of(pids: list[int]) -> list[int]:
    """Ended children that one of these processes never asked about."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(") ")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and int(parent) in pids:
            found.append(int(stat.parent.name))
    return found


def eventually(holds: Callable[[], bool], what: str, seconds: float, up: Up | None = None) -> None:
    """Wait until it holds; the failure says what did not come, and what `up` had said."""
    began = time.monotonic()
    while not holds():
        waited = time.monotonic() - began
        ended = up is not None and up.process.poll() is not None
        if ended or waited > seconds:
            said = f"; up said:\n{up.said}" if up else ""
            raise AssertionError(f"{what} did not come{said}")
        # To ask is work for who is asked: what takes long is asked for less often.
        time.sleep(min(1.0, 0.1 + waited / 20))


def graphql(url: str, query: str, variables: Mapping[str, Any] | None = None) -> Any:
    """The data of an answer."""
    body = json.dumps({"query": query, "variables": dict(variables or {})}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"]
