"""Where MLflow's database says that files are, kept true when a home is moved or copied.

MLflow writes absolute addresses. A home that finds itself at another place makes them lead to its
own files before anything else is read or written, so that a moved home goes on and a copy never
touches the one it was copied from. Files that are not here are left where the database says.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlops_assets.errors import BusyError, RegistryError
from mlops_assets.file_locks import holder_of, holding
from mlops_assets.registry.problems import older_schema

_DEFAULT = "0"
"""MLflow's own experiment, which nothing here writes to."""
_COLUMNS = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Columns in which MLflow keeps where files of experiments are."""
_BELOW = re.compile(r"/((?P<product>[^/]+)/(?:models/m-[^/]+|[0-9a-f]{32})/artifacts(?:/.*)?)")
"""End of the address of a run's or a model's files: below the root of all of them."""
_PATIENCE, _SIGNED, _PAUSE = 20.0, 0.5, 0.05
"""Seconds: longest wait for others of this home; until who takes a lock says who it is; a look."""
_LOG = logging.getLogger(__name__)
_at_home: dict[tuple[str, str], contextlib.ExitStack] = {}
"""Databases and roots that this process has found true, with the lock that keeps them so."""


@dataclass(frozen=True)
class Elsewhere:
    """Files that a registry names outside its own root.

    Attributes:
        roots: where they are named.
        files: number of runs and models there.
        lost: number of them that are not there either.
    """

    roots: tuple[str, ...]
    files: int
    lost: int


def settle_in(database: Path, root: str) -> None:
    """Make the addresses in a database lead to the files under a local root; once a process.

    New runs always go there. The address of an earlier one is changed where its files are there.

    Args:
        database: of MLflow, on SQLite; nothing is done while it is not there.
        root: of model files, as `file:` address or path; nothing is done for any other.

    Raises:
        BusyError: another process uses the database under another root.
        RegistryError: the database cannot be read or changed; or an older MLflow has made it, which
            the one that is installed would begin to change.
    """
    key = str(database), root
    if key in _at_home or _local(root) is None or not database.exists():
        return
    try:
        if (revision := _without_tables(database)) is not None:
            raise older_schema(f"sqlite:///{database}", revision)
        _at_home[key] = _settled(database, root)
    except (OSError, sqlite3.Error) as error:
        raise _unreadable(database, error) from error


def _settled(database: Path, root: str) -> contextlib.ExitStack:
    """The lock that keeps the addresses true, once they are.

    Of several that start at once on a moved home one makes them true; the others wait for that.
    """
    lock, stack = database.with_suffix(".place.lock"), contextlib.ExitStack()
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            if any(True for _ in _strangers(database, root)):
                with holding(lock, f"with files at {root}", None):
                    _rewrite(database, root)
            stack.enter_context(holding(lock, f"with files at {root}", None, shared=True))
            return stack
        except BusyError as error:
            left = end - time.monotonic()
            if left < 0 or (left < _PATIENCE - _SIGNED and not _is_of_root(lock, root)):
                raise _two_places(database, root, lock) from error
        time.sleep(_PAUSE)


def _without_tables(database: Path) -> str | None:
    """The revision of a database that lacks tables or columns read here; None of one with all."""
    with _open(database) as connection:
        if _there(connection) == list(_COLUMNS):
            return None
        (revision,) = connection.execute("select version_num from alembic_version").fetchone()
    return str(revision)


def _is_of_root(lock: Path, root: str) -> bool:
    """Whether who holds the lock makes the addresses lead to this very root."""
    holder = holder_of(lock)
    return holder is not None and holder.command == f"with files at {root}"


def elsewhere(database: Path, root: str) -> Elsewhere | None:
    """What a database names outside its root; None for nothing.

    Raises:
        RegistryError: the database cannot be read.
    """
    own = _local(root)
    if own is None or not database.exists():
        return None
    found: dict[str, set[str]] = {}
    try:
        with _open(database) as connection:
            for _, _, _, address, below in _addresses(connection, root):
                found.setdefault(address.removesuffix(f"/{below}"), set()).add(below)
    except sqlite3.Error as error:
        raise _unreadable(database, error) from error
    named = {(old, below) for old, every in found.items() for below in every}
    lost = [each for each in named if not Path(_local(each[0]) or "", each[1]).exists()]
    return Elsewhere(tuple(sorted(found)), len(named), len(lost)) if found else None


def _strangers(database: Path, root: str) -> Iterator[str]:
    """Addresses that have to be changed."""
    with _open(database) as connection:
        yield from (name for name, _ in _experiments(connection, root))
        yield from (each[3] for each in _addresses(connection, root) if _is_here(root, each[4]))


def _rewrite(database: Path, root: str) -> None:
    """In one transaction: a process killed in between leaves the database as it was."""
    with _open(database) as connection:
        connection.execute("begin immediate")
        moved = _experiments(connection, root)
        for name, location in moved:
            connection.execute(
                "update experiments set artifact_location = ? where name = ?",
                (f"{root.rstrip('/')}/{name}", name),
            )
            _LOG.warning("Models of %s go to %s, no longer to %s.", name, root, location)
        here = [each for each in _addresses(connection, root) if _is_here(root, each[4])]
        for table, column, row, _, below in here:
            connection.execute(
                f"update {table} set {column} = ? where rowid = ?",
                (f"{root.rstrip('/')}/{below}", row),
            )
        connection.commit()
    if here:
        _LOG.warning("%d addresses of model files were changed to lead to %s.", len(here), root)


def _experiments(connection: sqlite3.Connection, root: str) -> list[tuple[str, str]]:
    """Name and place of the experiments whose new runs would not go under the root.

    Only of those made here, which have their files in a folder of their name: here it is there, or
    models are registered for a product of that name.
    """
    asked = "select name, artifact_location from experiments where experiment_id != ?"
    products = "select value from registered_model_tags where key = 'product'"
    ours = {name for (name,) in connection.execute(products)}
    return [
        (name, location)
        for name, location in connection.execute(asked, (_DEFAULT,))
        if _local(location or "") is not None
        and location.endswith(f"/{name}")
        and location != f"{root.rstrip('/')}/{name}"
        and (name in ours or _is_here(root, name))
    ]


def _addresses(
    connection: sqlite3.Connection, root: str
) -> Iterator[tuple[str, str, int, str, str]]:
    """Table, column, row and address of what is not under the root, and what is below its own."""
    for table, column in _there(connection):
        asked = f"select rowid, {column} from {table} where substr({column}, 1, ?) != ?"
        under = f"{root.rstrip('/')}/"
        for row, address in connection.execute(asked, (len(under), under)).fetchall():
            found = _BELOW.search(address)
            if found and address.endswith(found[1]) and _local(address) is not None:
                yield table, column, row, address, found[1]


def _there(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Those of the columns that the database has: an older MLflow made fewer of them."""
    asked = "select name from pragma_table_info(?)"
    tables = {table for table, _ in _COLUMNS}
    had = {table: {name for (name,) in connection.execute(asked, (table,))} for table in tables}
    return [(table, column) for table, column in _COLUMNS if column in had[table]]


def _is_here(root: str, below: str) -> bool:
    return Path(_local(root) or "", below).exists()


def _local(address: str) -> str | None:
    """The path of a `file:` address or a path; None for any other."""
    if address.startswith("file:"):
        return unquote(urlsplit(address).path)
    return address if address.startswith("/") else None


@contextlib.contextmanager
def _open(database: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(database, timeout=60, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def _two_places(database: Path, root: str, lock: Path) -> BusyError:
    return BusyError(
        f"{database} is at another place than before, and {holder_of(lock) or 'a process'} still "
        f"uses it; here its files would be at {root}.",
        stored="Nothing was read or written.",
        way_out="End that process first. A home that several machines or containers share has to "
        "have the same path in all of them.",
        culprits={"database": str(database), "root": root},
    )


def _unreadable(database: Path, error: Exception) -> RegistryError:
    return RegistryError(
        f"The places of files in the MLflow database {database} cannot be read or set: {error}.",
        stored="It is as it was.",
        way_out="See to it that the database is whole and may be written, or restore it from a "
        "backup; mlops-assets doctor says what else is wrong with it.",
    )
