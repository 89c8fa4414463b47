"""The servers of a cluster as processes: Redis, PostgreSQL, a bucket, and a proxy before it."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mlops_assets.settings import PROJECT_ROOT
from mlops_assets_tests.cluster.network import Place, port
from mlops_assets_tests.runtime.serving import eventually
from mlops_assets_tests.sources import databases

USER, PASSWORD = "tester", "cluster"


@dataclass
class Server:
    """One process that listens on a port, and can be stopped and started again.

    Attributes:
        place: where it runs.
        folder: of its files; it is started in there.
        words: program and arguments.
        port: that it listens on.
        stop_signal: that ends it in order.
        as_postgres: whether it refuses to run as root.
    """

    place: Place
    folder: Path
    words: list[str]
    port: int
    stop_signal: signal.Signals = signal.SIGTERM
    as_postgres: bool = False
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def address(self) -> str:
        return f"{self.place.address}:{self.port}"

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        prefix = _as_postgres() if self.as_postgres else []
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.place.command(*prefix, *self.words),
                cwd=PROJECT_ROOT if not self.as_postgres else "/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(self.answers, f"{self.words[0]} on {self.address}", 60)

    def stop(self, number: signal.Signals | None = None) -> None:
        """End it, in order or with another signal."""
        if self.process is not None:
            self.process.send_signal(number or self.stop_signal)
            self.process.wait(60)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process = None

    def answers(self) -> bool:
        with self.place.inside(), socket.socket() as probe:
            probe.settimeout(2)
            return probe.connect_ex((self.place.address, self.port)) == 0


@dataclass
class Servers:
    """All that hosts share.

    Attributes:
        redis: the broker.
        postgres: with the databases `dagster` and `mlflow`.
        bucket: the object store itself.
        proxy: what hosts take for the object store.
        mode: file that tells the proxy what to do, see `proxy.py`.
    """

    redis: Server
    postgres: Server
    bucket: Server
    proxy: Server
    mode: Path

    @property
    def broker(self) -> str:
        return f"redis://{self.redis.address}/0"

    def database(self, name: str) -> str:
        return f"postgresql+psycopg2://{USER}:{PASSWORD}@{self.postgres.address}/{name}"

    def every(self) -> list[Server]:
        return [self.redis, self.postgres, self.bucket, self.proxy]


@contextmanager
def running(place: Place, folder: Path) -> Iterator[Servers]:
    """Start all four, with empty databases; nothing of them outlives the block."""
    programs = databases.programs()
    assert programs is not None
    bucket = _server(place, folder / "bucket", [*_python("moto.server"), "-H", place.address])
    servers = Servers(
        redis(place, folder / "redis"),
        _postgres(place, Path(f"/tmp/mlops-{os.getpid()}-{port()}"), programs),
        bucket,
        _proxy(place, folder / "proxy", bucket),
        folder / "proxy" / "mode",
    )
    try:
        for server in servers.every():
            server.start()
        for name in ("dagster", "mlflow"):
            _create_database(servers.postgres, programs, name)
        yield servers
    finally:
        for server in reversed(servers.every()):
            server.stop()
        shutil.rmtree(servers.postgres.folder)


def _python(module: str) -> list[str]:
    return [sys.executable, "-m", module]


def _server(place: Place, folder: Path, words: list[str], flag: str = "-p") -> Server:
    folder.mkdir(parents=True)
    number = port()
    return Server(place, folder, [*words, flag, str(number)], number)


def redis(place: Place, folder: Path) -> Server:
    """As `deploy/cluster/redis.conf` has it: what it was given is on disk before it says so."""
    config = PROJECT_ROOT / "deploy" / "cluster" / "redis.conf"
    bind = ["--bind", place.address, "--dir", str(folder), "--protected-mode", "no"]
    return _server(place, folder, ["redis-server", str(config), *bind], "--port")


def _proxy(place: Place, folder: Path, bucket: Server) -> Server:
    words = [*_python("mlops_assets_tests.cluster.proxy"), bucket.address, place.address]
    folder.mkdir(parents=True)
    (folder / "mode").write_text("pass")
    number = port()
    return Server(place, folder, [*words, str(number), str(folder / "mode")], number)


def _postgres(place: Place, folder: Path, programs: Path) -> Server:
    folder.mkdir()
    (folder / "password").write_text(PASSWORD)
    data, number = folder / "data", port()
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        for path in (folder, folder / "password"):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    initialise = [
        *(str(programs / "initdb"), "-D", str(data), "-U", USER, "--no-sync", "-E", "UTF8"),
        *("--pwfile", str(folder / "password"), "--auth=scram-sha-256", "--locale=C.UTF-8"),
    ]
    subprocess.run([*_as_postgres(), *initialise], cwd="/", check=True, capture_output=True)
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all 10.77.0.0/24 scram-sha-256\n")
    words = [
        *(str(programs / "postgres"), "-D", str(data), "-p", str(number), "-F"),
        *("-c", f"listen_addresses={place.address}", "-c", f"unix_socket_directories={folder}"),
        *("-c", "max_connections=200"),
    ]
    # Ctrl-C is PostgreSQL's fast way to stop: sessions are cut off, nothing is waited for.
    return Server(place, folder, words, number, signal.SIGINT, as_postgres=True)


def _create_database(server: Server, programs: Path, name: str) -> None:
    there = ("-h", server.place.address, "-p", str(server.port), "-U", USER)
    command = server.place.command(str(programs / "createdb"), *there, name)
    environment = {**os.environ, "PGPASSWORD": PASSWORD}
    eventually(
        lambda: (
            not subprocess.run(
                command, env=environment, check=False, capture_output=True
            ).returncode
        ),
        f"database {name}",
        20,
    )


def _as_postgres() -> list[str]:
    """PostgreSQL refuses to run as root."""
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    return as_user if os.geteuid() == 0 else []
