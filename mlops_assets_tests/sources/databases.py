"""A real PostgreSQL from Debian's package, for as long as a test session needs it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PASSWORD = "s3cret @:/% word"
_PLACES = "/usr/lib/postgresql"


@dataclass(frozen=True)
class Server:
    """Where a PostgreSQL listens; its user is `tester`, its database `postgres`."""

    port: int
    sockets: Path

    @property
    def url(self) -> str:
        """Through the socket, without a password."""
        return f"postgresql://tester@/postgres?host={self.sockets}&port={self.port}"

    def url_with(self, password: str) -> str:
        """Through TCP, where the password is asked for."""
        return f"postgresql://tester:{password}@127.0.0.1:{self.port}/postgres"


def programs() -> Path | None:
    """The folder with `initdb` of the newest version installed."""
    found = sorted(Path(_PLACES).glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def running(programs: Path) -> Iterator[Server]:
    """A new server on a free port, gone afterwards with all its files."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))  # a socket's path is short
    server = Server(_free_port(), folder)
    password = folder / "password"
    password.write_text(PASSWORD)
    _hand_over(folder)
    data, log = str(folder / "data"), str(folder / "log")
    options = (
        f"-F -p {server.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    )
    try:
        _run(programs / "initdb", "-D", data, "-U", "tester", "--pwfile", str(password), "-A",
             "trust", "--auth-host=scram-sha-256", "--no-sync", "-E", "UTF8",
             "--locale=C.UTF-8")  # fmt: skip
        _run(programs / "pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start")
        yield server
        _run(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _hand_over(folder: Path) -> None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        for path in (folder, *folder.iterdir()):
            os.chown(path, user.pw_uid, user.pw_gid)


def _run(*command: str | Path) -> None:
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    prefix = as_user if os.geteuid() == 0 else []
    # Its output goes to a file: the server would keep a pipe open after pg_ctl ended.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            [*prefix, *map(str, command)], stdout=output, stderr=output, cwd="/", check=False
        )
        output.seek(0)
        assert done.returncode == 0, output.read().decode()
