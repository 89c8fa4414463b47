"""Landing what a database or a web address has new, from where it is taken like any file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlops_assets.errors import SourceError
from mlops_assets.sources.files.landing import StorageOptions
from mlops_assets.sources.pulled.writing import Pulled
from mlops_assets.spec import SourceSpec

__all__ = ["Pulled", "pull"]


def pull(source: SourceSpec, landing: str, storage_options: StorageOptions | None = None) -> Pulled:
    """Land what is new; of kind `files`, others land it and nothing is done.

    A pull can be repeated and run beside another one: rows and files are landed whole, and once.

    Args:
        source: of a product.
        landing: folder or object-store prefix; made when it is not there.
        storage_options: options of its fsspec file system.

    Raises:
        SourceError: the source does not give what it should, or the landing folder cannot be
            written. What was landed before is unchanged.
    """
    with _landing_errors(landing):
        if source.kind == "sql" and source.sql:
            from mlops_assets.sources.pulled.increments import pull_query

            return pull_query(source.sql, landing, storage_options)
        if source.kind == "http" and source.http:
            from mlops_assets.sources.pulled.http import fetch_files

            return fetch_files(source.http, landing, storage_options, encoding=source.encoding)
    return Pulled()


@contextmanager
def _landing_errors(landing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"The landing folder {landing} cannot be read or written ({error}).",
            stored="What was landed before is unchanged.",
            way_out="Check that it is there, not full, and that this program may write to it.",
            culprits={"landing": landing},
        ) from error
