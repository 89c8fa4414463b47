"""One process at a time sets up a database of PostgreSQL, whichever host it is on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_KEY = 7311002
"""Of the lock; any number that nobody else takes in the same database."""


@contextmanager
def one_at_a_time(url: str) -> Iterator[None]:
    """Hold the lock of a database until the block ends; wait for whoever has it.

    It belongs to a connection, so that a process that is killed holds it no longer.

    Args:
        url: SQLAlchemy URL of the database.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database does not answer.
    """
    from sqlalchemy import NullPool, create_engine, text

    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("select pg_advisory_lock(:key)"), {"key": _KEY})
        yield


def is_shared(url: str) -> bool:
    """Whether a URL is of a database that other hosts may set up at the same time."""
    return url.startswith("postgresql")
